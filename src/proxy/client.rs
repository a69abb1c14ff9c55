//! One client connection, without its socket: what it sent that is not
//! handled yet, and the replies it is owed, in the order of its requests.
//!
//! ```text
//!   slots:   [ Waiting | Ready(bytes) | Merge(parts) | Waiting ]   -> ring, oldest first
//!              ^ head: its reply goes straight to `out`
//! ```
//!
//! Invariants
//! - `slots` holds one slot for each request whose reply is not in `out` yet.
//! - The sequence number of slot `i` is `head + i` (wrapping), so that a
//!   reply that arrives late for a closed client finds no slot.
//! - An idle client holds no buffers: `unread`, `out` and `slots` are empty.

use std::collections::VecDeque;

use crate::resp::RequestScanner;

use super::merge::Merge;

/// Capacity above which an emptied output buffer is given back.
const KEEP_OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// Slots above which an emptied ring is given back.
const KEEP_SLOTS_MAX: usize = 1024;

/// What a request still owes its client.
pub enum Slot {
    /// The shard's reply passes through unchanged.
    Waiting,
    /// The reply is here, but an earlier one is not.
    Ready(Vec<u8>),
    /// Several shards answer; the parts become one reply.
    Merge(Box<Merge>),
}

/// Bytes of a client that could not be handled yet.
pub struct Unread {
    /// From the first byte of the first request that is not handled.
    pub bytes: Vec<u8>,
    /// Where the scan of that request stopped.
    pub scanner: RequestScanner,
}

/// Why no more requests of a client are taken for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// Its next request is for a moving key while the gate is held.
    Held {
        /// When it began to wait.
        since_us: u64,
    },
    /// It is owed too many replies, or does not read them.
    Owed,
    /// It chose another database or protocol while replies are owed: what
    /// follows goes out on other connections and must not overtake.
    Lane,
    /// The shard of its next request has too many unwritten bytes.
    Shard {
        /// The pipe to wait for.
        pipe: u32,
    },
}

/// How a client connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It goes on.
    Open,
    /// No more requests are taken; it closes when every reply is written.
    Finishing,
    /// It is closed; only its place in the table is left.
    Closed,
}

/// Names a client gave itself; few do, so it is boxed.
#[derive(Debug, Default, Clone)]
pub struct Introduction {
    /// `CLIENT SETNAME`.
    pub name: String,
    /// `CLIENT SETINFO LIB-NAME`.
    pub library: String,
    /// `CLIENT SETINFO LIB-VER`.
    pub library_version: String,
}

/// See the head of this file.
pub struct Client {
    /// Number of the connection in this process, as `CLIENT ID` tells it.
    pub id: u64,
    /// Distinguishes users of the same table place.
    pub generation: u32,
    /// Peer address as text, made when asked for.
    pub peer: Option<Box<str>>,
    /// RESP version of its replies, 2 or 3.
    pub protocol: u8,
    /// Selected database.
    pub database: u16,
    /// Index of its (protocol, database) set of pipes.
    pub lane: u32,
    /// What CLIENT told.
    pub introduction: Option<Box<Introduction>>,
    /// Unhandled input.
    pub unread: Option<Box<Unread>>,
    /// Whether requests are taken.
    pub pause: Option<Pause>,
    /// Whether it is about to close.
    pub ending: Ending,
    /// Replies ready to be written.
    pub out: Vec<u8>,
    /// Bytes of `out` already written.
    pub out_start: usize,
    /// Whether it is on the list of clients to write to.
    pub dirty: bool,
    /// It sent more than it reads: to be closed.
    pub overrun: bool,
    /// It closed its side while it was paused.
    pub eof: bool,
    /// When it last sent something.
    pub active_ms: u64,
    /// When it connected.
    pub since_ms: u64,
    slots: VecDeque<Slot>,
    head: u32,
    parked_bytes: usize,
}

impl Client {
    /// A client that just connected.
    pub fn new(id: u64, generation: u32, peer: Option<Box<str>>, now_ms: u64) -> Self {
        Self {
            id,
            generation,
            peer,
            protocol: 2,
            database: 0,
            lane: 0,
            introduction: None,
            unread: None,
            pause: None,
            ending: Ending::Open,
            out: Vec::new(),
            out_start: 0,
            dirty: false,
            overrun: false,
            eof: false,
            active_ms: now_ms,
            since_ms: now_ms,
            slots: VecDeque::new(),
            head: 0,
            parked_bytes: 0,
        }
    }

    /// Replies owed that are not in `out` yet.
    pub fn owed(&self) -> usize {
        self.slots.len()
    }

    /// Bytes that wait to be written.
    pub fn unwritten(&self) -> usize {
        self.out.len() - self.out_start
    }

    /// Bytes of replies that wait for an earlier one.
    pub fn parked(&self) -> usize {
        self.parked_bytes
    }

    /// Whether it is owed nothing, and no whole request of it waits. (Half a
    /// request may.)
    pub fn is_quiet(&self) -> bool {
        self.slots.is_empty() && self.unwritten() == 0 && self.pause.is_none()
    }

    /// What may be written to the socket now.
    pub fn output(&self) -> &[u8] {
        self.out.get(self.out_start..).unwrap_or_default()
    }

    /// `n` bytes of [`Client::output`] were taken by the socket.
    pub fn written(&mut self, n: usize) {
        self.out_start += n;
        if self.out_start >= self.out.len() {
            self.out_start = 0;
            if self.out.capacity() > KEEP_OUTPUT_BYTES_MAX {
                self.out = Vec::new();
            } else {
                self.out.clear();
            }
        } else if self.out_start > KEEP_OUTPUT_BYTES_MAX && self.out_start * 2 > self.out.len() {
            self.out.drain(..self.out_start);
            self.out_start = 0;
        }
    }

    /// Adds a slot; returns its sequence number.
    #[inline]
    pub fn push_slot(&mut self, slot: Slot) -> u32 {
        let sequence = self.head.wrapping_add(self.slots.len() as u32);
        self.slots.push_back(slot);
        sequence
    }

    /// Answers the request that is being handled now.
    pub fn answer(&mut self, reply: &[u8]) {
        if self.slots.is_empty() {
            self.out.extend_from_slice(reply);
            self.head = self.head.wrapping_add(1);
        } else {
            self.parked_bytes += reply.len();
            self.slots.push_back(Slot::Ready(reply.to_vec()));
        }
    }

    /// A shard answered part `part` of request `sequence`.
    #[inline]
    pub fn reply(&mut self, sequence: u32, part: u32, reply: &[u8]) {
        let index = sequence.wrapping_sub(self.head) as usize;
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        match slot {
            Slot::Waiting if index == 0 => {
                self.out.extend_from_slice(reply);
                self.pop_head();
                self.advance();
            }
            Slot::Waiting => {
                self.parked_bytes += reply.len();
                *slot = Slot::Ready(reply.to_vec());
            }
            Slot::Merge(merge) => {
                let before = merge.bytes();
                let is_whole = merge.add(part, reply);
                self.parked_bytes += merge.bytes() - before;
                if is_whole {
                    let mut whole = Vec::new();
                    merge.finish(&mut whole);
                    self.parked_bytes = self.parked_bytes - merge.bytes() + whole.len();
                    *slot = Slot::Ready(whole);
                    self.advance();
                }
            }
            Slot::Ready(_) => {}
        }
    }

    /// Moves replies that nothing holds back any more into `out`.
    fn advance(&mut self) {
        while let Some(Slot::Ready(reply)) = self.slots.front() {
            self.out.extend_from_slice(reply);
            self.parked_bytes -= reply.len();
            self.pop_head();
        }
        if self.slots.is_empty() && self.slots.capacity() > KEEP_SLOTS_MAX {
            self.slots = VecDeque::new();
        }
    }

    fn pop_head(&mut self) {
        self.slots.pop_front();
        self.head = self.head.wrapping_add(1);
    }

    /// Whether nothing is left to do for a client that is finishing.
    pub fn is_finished(&self) -> bool {
        self.ending == Ending::Finishing && self.slots.is_empty() && self.unwritten() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::merge::MergeKind;

    #[test]
    fn replies_leave_in_the_order_of_requests() {
        let mut client = Client::new(1, 0, None, 0);
        let a = client.push_slot(Slot::Waiting);
        let b = client.push_slot(Slot::Waiting);
        client.answer(b"+LOCAL\r\n");
        client.reply(b, 0, b":2\r\n");
        assert_eq!(client.output(), b"");
        client.reply(a, 0, b":1\r\n");
        assert_eq!(client.output(), b":1\r\n:2\r\n+LOCAL\r\n");
        client.written(client.output().len());
        client.answer(b"+PONG\r\n");
        assert_eq!(client.output(), b"+PONG\r\n");
        let c = client.push_slot(Slot::Waiting);
        client.reply(c, 0, b":3\r\n");
        assert_eq!(client.output(), b"+PONG\r\n:3\r\n");
    }

    #[test]
    fn a_reply_for_no_slot_is_dropped() {
        let mut client = Client::new(1, 0, None, 0);
        let a = client.push_slot(Slot::Waiting);
        client.reply(a, 0, b":1\r\n");
        client.reply(a, 0, b":9\r\n");
        client.reply(a.wrapping_add(5), 0, b":9\r\n");
        assert_eq!(client.output(), b":1\r\n");
    }

    #[test]
    fn a_merge_waits_for_all_its_parts() {
        let mut client = Client::new(1, 0, None, 0);
        let merge = client.push_slot(Slot::Merge(Box::new(Merge::new(MergeKind::Sum, 2))));
        client.reply(merge, 1, b":2\r\n");
        assert_eq!(client.output(), b"");
        client.reply(merge, 0, b":3\r\n");
        assert_eq!(client.output(), b":5\r\n");
    }
}
