//! One client connection, without its socket: what it sent that is not
//! handled yet, and the replies it is owed, in the order of its requests.
//!
//! ```text
//!   owed:    [ head | .. | .. | .. | .. | last ]       numbered from `head`, wrapping
//!              ^ its reply goes straight to `out`, and what is parked behind follows
//! ```
//!
//! Invariants
//! - A request's reply leaves after all replies to earlier requests.
//! - While replies come in order nothing is parked.
//! - An idle client holds no buffers: it has no `unread`, no `out`, no `parking`.

use super::large_readers::LargeReader;
use super::large_requests::Upload;
use super::parking::{Parking, SpareParkings};
use super::reader::Reader;
use super::session::Session;
use super::spares::Spares;

/// Bytes already written from which the rest of `out` is moved to its front.
const COMPACT_BYTES_MIN: usize = 64 * 1024;

/// Bytes of a client that could not be handled yet.
pub struct Unread {
    /// From the first byte of the first request that is not handled.
    pub bytes: Vec<u8>,
    /// Where the scan of that request stopped.
    pub reader: Box<Reader>,
    /// The request that passes on as it arrives; `bytes` are empty then.
    pub upload: Option<Upload>,
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
    /// Its next request is large, and no connection is free that it could have
    /// to itself.
    Private {
        /// How many had come free until then.
        freed: u64,
    },
    /// Its large request has too many unwritten bytes.
    Window,
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

/// CLIENT REPLY: which replies the client does not want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Silence {
    /// It gets all.
    #[default]
    Never,
    /// It gets none.
    Always,
    /// It gets all but that of one request.
    Once {
        /// Its number; it was the next one when nothing was owed.
        sequence: u32,
    },
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
    /// Whether it is on the list of those to write to at once.
    pub full: bool,
    /// It sent more than it reads: to be closed.
    pub overrun: bool,
    /// It closed its side while it was paused.
    pub eof: bool,
    /// Requests that it sent may still be on a pipe that left its lane: before
    /// any other it gets what it is owed.
    pub settles: bool,
    /// A large reply is arriving for it.
    pub receives_large: bool,
    /// It got a very large one lately.
    pub large_reader: Option<LargeReader>,
    /// What binds it to a connection of its own, or keeps its requests back.
    pub session: Option<Box<Session>>,
    /// Replies it does not want.
    pub silence: Silence,
    /// When it last sent something.
    pub active_ms: u64,
    /// When it connected.
    pub since_ms: u64,
    owed: u32,
    head: u32,
    /// Replies that wait for an earlier one.
    parking: Option<Box<Parking>>,
    /// Bytes of fan-outs whose parts are not all here.
    collected_bytes: usize,
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
            full: false,
            overrun: false,
            eof: false,
            settles: false,
            receives_large: false,
            large_reader: None,
            session: None,
            silence: Silence::Never,
            active_ms: now_ms,
            since_ms: now_ms,
            owed: 0,
            head: 0,
            parking: None,
            collected_bytes: 0,
        }
    }

    /// Replies owed that are not in `out` yet.
    #[inline]
    pub fn owed(&self) -> usize {
        self.owed as usize
    }

    /// Bytes that wait to be written.
    pub fn unwritten(&self) -> usize {
        self.out.len() - self.out_start
    }

    /// Bytes of replies that wait for an earlier one, or for their other parts.
    #[inline]
    pub fn parked(&self) -> usize {
        let parking = self.parking.as_ref();
        parking.map_or(0, |parking| parking.waiting()) + self.collected_bytes
    }

    /// Bytes kept for it on its way out.
    #[inline]
    pub fn kept(&self) -> usize {
        self.unwritten() + self.parked()
    }

    /// Whether it is owed nothing, and no whole request of it waits. (Half a
    /// request may.)
    pub fn is_quiet(&self) -> bool {
        self.owed == 0 && self.unwritten() == 0 && self.pause.is_none()
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
            self.out.clear();
        } else if self.out_start > COMPACT_BYTES_MIN && self.out_start * 2 > self.out.len() {
            self.out.drain(..self.out_start);
            self.out_start = 0;
        }
    }

    /// Number of the request that is taken next.
    #[inline]
    pub fn next_sequence(&self) -> u32 {
        self.head.wrapping_add(self.owed)
    }

    /// `count` requests were sent to a shard.
    #[inline]
    pub fn expect(&mut self, count: u32) {
        self.owed += count;
    }

    /// The last request taken is void: it has no number and no reply.
    pub fn forget_last(&mut self) {
        self.owed = self.owed.saturating_sub(1);
    }

    /// Whether nothing stands before the reply to this request.
    pub fn is_next(&self, sequence: u32) -> bool {
        self.owed > 0 && self.head == sequence
    }

    /// The large request that passes on as it arrives.
    pub fn upload(&mut self) -> Option<&mut Upload> {
        self.unread.as_mut()?.upload.as_mut()
    }

    /// Whether its last request is arriving and passing on.
    pub fn is_uploading(&self) -> bool {
        let unread = self.unread.as_ref();
        unread.is_some_and(|unread| unread.upload.is_some())
    }

    /// Sees to it that a reply finds memory to be written to.
    #[inline]
    pub fn prepare_output(&mut self, spares: &mut Spares) {
        if self.out.capacity() == 0 {
            self.out = spares.take();
        }
    }

    /// Answers the request that is being handled now.
    pub fn answer(&mut self, reply: &[u8]) {
        let sequence = self.next_sequence();
        self.owed += 1;
        self.reply(sequence, 1, reply);
    }

    /// Sees to it that the next reply, if it must be parked, finds memory for that.
    #[inline]
    pub fn prepare_parking(&mut self, sequence: u32, spare: &mut SpareParkings) {
        if sequence != self.head && self.parking.is_none() {
            self.parking = Some(spare.take());
        }
    }

    /// Gives back the memory for parked replies if there are none.
    #[inline]
    pub fn return_parking(&mut self, spare: &mut SpareParkings) {
        if let Some(parking) = self.parking.take_if(|parking| parking.is_empty()) {
            spare.give(parking);
        }
    }

    /// `count` replies came, to requests from `sequence` on.
    #[inline]
    pub fn reply(&mut self, sequence: u32, count: u32, bytes: &[u8]) {
        let index = sequence.wrapping_sub(self.head);
        if index == 0 {
            if self.silence == Silence::Never || !self.is_silenced(sequence) {
                self.out.extend_from_slice(bytes);
            }
            self.pass(count);
            if let Some(parking) = &mut self.parking {
                let kept = self.out.len();
                let passed = parking.pass(count, &mut self.out);
                if self.silence == Silence::Always {
                    self.out.truncate(kept);
                }
                self.pass(passed);
            }
        } else {
            debug_assert!(
                u64::from(index) + u64::from(count) <= u64::from(self.owed),
                "a reply that nobody is owed"
            );
            let parking = self.parking.get_or_insert_default();
            parking.park(index as usize, count as usize, bytes);
        }
    }

    fn is_silenced(&self, sequence: u32) -> bool {
        match self.silence {
            Silence::Never => false,
            Silence::Always => true,
            Silence::Once { sequence: silenced } => sequence == silenced,
        }
    }

    /// Whether the reply to the next request is not wanted, but later ones are:
    /// it must not come together with them.
    #[inline]
    pub fn is_next_silenced(&self) -> bool {
        match self.silence {
            Silence::Never | Silence::Always => false,
            Silence::Once { sequence } => sequence == self.next_sequence(),
        }
    }

    fn pass(&mut self, count: u32) {
        self.head = self.head.wrapping_add(count);
        self.owed = self.owed.saturating_sub(count);
    }

    /// Bytes of fan-outs whose parts are not all here.
    pub fn collected_for(&self) -> usize {
        self.collected_bytes
    }

    /// A part of a fan-out came whose other parts are still to come.
    pub fn collect(&mut self, bytes: usize) {
        self.collected_bytes += bytes;
    }

    /// A fan-out is whole: what was collected for it is gone.
    pub fn collected(&mut self, bytes: usize) {
        self.collected_bytes = self.collected_bytes.saturating_sub(bytes);
    }

    /// Whether nothing is left to do for a client that is finishing.
    pub fn is_finished(&self) -> bool {
        self.ending == Ending::Finishing && self.owed == 0 && self.unwritten() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Client {
        Client::new(1, 0, None, 0)
    }

    #[test]
    fn replies_leave_in_the_order_of_requests() {
        let mut client = client();
        let a = client.next_sequence();
        client.expect(2);
        client.answer(b"+LOCAL\r\n");
        client.reply(a + 1, 1, b":2\r\n");
        assert_eq!((client.output(), client.parked()), (&b""[..], 12));
        client.reply(a, 1, b":1\r\n");
        assert_eq!(client.output(), b":1\r\n:2\r\n+LOCAL\r\n");
        client.written(client.output().len());
        client.answer(b"+PONG\r\n");
        assert_eq!(client.output(), b"+PONG\r\n");
        let c = client.next_sequence();
        client.expect(1);
        client.reply(c, 1, b":3\r\n");
        assert_eq!(client.output(), b"+PONG\r\n:3\r\n");
        assert_eq!((client.owed(), client.parked()), (0, 0));
    }

    #[test]
    fn replies_that_come_together_leave_together_from_any_place() {
        let mut client = client();
        client.expect(6);
        client.reply(3, 2, b"DE");
        client.reply(1, 1, b"B");
        assert_eq!((client.output(), client.owed()), (&b""[..], 6));
        client.reply(0, 1, b"A");
        assert_eq!((client.output(), client.owed()), (&b"AB"[..], 4));
        client.reply(2, 1, b"C");
        assert_eq!((client.output(), client.owed()), (&b"ABCDE"[..], 1));
        client.reply(5, 1, b"F");
        assert_eq!((client.output(), client.parked()), (&b"ABCDEF"[..], 0));
    }

    #[test]
    fn replies_that_are_not_wanted_take_their_turn_and_leave_nothing() {
        let mut client = client();
        client.silence = Silence::Always;
        client.expect(3);
        client.reply(1, 2, b"BC");
        client.reply(0, 1, b"A");
        assert_eq!((client.output(), client.owed()), (&b""[..], 0));
        client.silence = Silence::Once { sequence: 3 };
        assert!(client.is_next_silenced());
        client.expect(3);
        client.reply(4, 1, b"E");
        client.reply(3, 0, b"a part of D");
        client.reply(3, 1, b"D");
        client.reply(5, 1, b"F");
        assert_eq!((client.output(), client.owed()), (&b"EF"[..], 0));
    }

    #[test]
    fn memory_for_parked_replies_goes_round() {
        let (mut client, mut spare) = (client(), SpareParkings::default());
        client.expect(2);
        client.prepare_parking(1, &mut spare);
        client.reply(1, 1, b":2\r\n");
        client.return_parking(&mut spare);
        assert_eq!(client.parked(), 4);
        client.prepare_parking(0, &mut spare);
        client.reply(0, 1, b":1\r\n");
        client.return_parking(&mut spare);
        assert_eq!(client.output(), b":1\r\n:2\r\n");
        assert!(client.parking.is_none());
        client.expect(1);
        client.prepare_parking(2, &mut spare);
        assert!(client.parking.is_none());
    }
}
