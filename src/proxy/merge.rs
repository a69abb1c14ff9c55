//! One reply out of several shards' replies.
//!
//! A command with keys on several shards is cut into one command for each
//! shard ("part"); this collects the parts' replies. The first error by part
//! number becomes the whole reply, as Redis answers one error for one command.
//!
//! ```text
//! MGET a b c      parts   0: a c -> s1     1: b -> s2
//!                 order   [0, 1, 0]        the part of each key, in request order
//!                 bytes   "*1..b..*2..a..c.."   the parts' replies as they came
//! ```
//!
//! Invariant: a merge is freed when all its parts are here and at no other
//! time, whatever became of the client, so that its number is never reused
//! while a reply may still name it. The bytes of one whose client is gone are
//! not kept that long: a shard that hangs would make them pile up.

use slab::Slab;

use crate::resp::{
    ReplyScanner, array_body, write_array_header, write_error, write_integer, write_simple,
};
use crate::router::errors::NO_SUCH_CLIENT;

use super::core::PartOf;
use super::describe;
use super::gathered::Gathered;
use super::memcached::{all_done, write_values};

/// Memory kept of all finished merges, for the next ones.
const SPARE_BYTES_MAX: usize = 1024 * 1024;
/// A finished merge with more memory than this gives it back.
const KEEP_MERGE_BYTES_MAX: usize = 64 * 1024;
/// Bytes collected for clients that are gone from which they are looked for.
const ORPHANED_BYTES_MAX: usize = 1024 * 1024;

/// How the parts become one reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeKind {
    /// MGET: the values, in the order of the keys.
    Values,
    /// DEL, UNLINK, EXISTS, TOUCH: the integers are added.
    Sum,
    /// MSET: `+OK` when every part said so.
    AllOk,
    /// A transaction: what the last part, EXEC, says.
    Last,
    /// PUBLISH: the clients that the shard counted, if any, and those beyond them.
    Heard {
        /// How many.
        beyond: u64,
    },
    /// get and its kin of memcached: the blocks, in the order of the keys.
    TextValues,
    /// flush_all of memcached: `OK` when every part said so.
    TextDone,
    /// What was asked of every shard: see `gathered.rs`.
    Gathered,
    /// CLIENT LIST: the workers' lines, in the order of the clients' ids.
    Lines {
        /// Of the client who asked.
        protocol: u8,
    },
    /// CLIENT KILL with an address: the integers say how many had it.
    Killed,
}

/// Who waits for a merge: a client's place in its table, and its generation.
pub type Owner = (u32, u32);

/// The reply of one part, as a place in `Merge::bytes`.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    start: usize,
    end: usize,
}

/// Collects the parts of one request.
#[derive(Debug)]
pub struct Merge {
    kind: MergeKind,
    owner: Owner,
    /// Its reply is a part of another one's.
    whole: Option<PartOf>,
    /// Of each key, in request order; `Values` and `TextValues` only.
    order: Vec<u16>,
    /// The keys, each behind a byte with its length; `TextValues` only.
    keys: Vec<u8>,
    parts: Vec<Option<Part>>,
    missing: usize,
    bytes: Vec<u8>,
    /// While a reply is put together: how far each part was read.
    cursors: Vec<Part>,
    /// `Gathered` only.
    gathered: Option<Box<Gathered>>,
    /// Some part was answered by us, not by its shard.
    failed: bool,
    /// Then the client's connection ends after the reply.
    ends_on_failure: bool,
}

/// All unfinished merges of a core, and memory of finished ones.
#[derive(Debug, Default)]
pub struct Merges {
    live: Slab<Merge>,
    spare: Vec<Merge>,
    /// At most so many bytes of `live` belong to nobody any more.
    orphaned_bytes: usize,
    /// Memory of the spare ones.
    spare_bytes: usize,
}

impl Merges {
    /// Waits for `parts` replies (at least one); `order` says which part each
    /// key went to, for [`MergeKind::Values`].
    pub fn begin(
        &mut self,
        owner: Owner,
        kind: MergeKind,
        parts: usize,
        order: impl Iterator<Item = u16>,
    ) -> u32 {
        let mut merge = self.take_spare().unwrap_or_else(|| Merge::new(owner, kind));
        (merge.owner, merge.kind, merge.whole) = (owner, kind, None);
        merge.order.clear();
        merge.keys.clear();
        if matches!(kind, MergeKind::Values | MergeKind::TextValues) {
            merge.order.extend(order);
        }
        merge.parts.clear();
        merge.parts.resize(parts, None);
        merge.missing = parts;
        merge.bytes.clear();
        (merge.failed, merge.ends_on_failure) = (false, false);
        self.live.insert(merge) as u32
    }

    /// Waits for a reply of each of `parts` shards.
    pub fn gather(&mut self, owner: Owner, parts: usize, gathered: Gathered) -> u32 {
        let key = self.begin(owner, MergeKind::Gathered, parts, [].into_iter());
        if let Some(merge) = self.get_mut(key) {
            merge.gathered = Some(Box::new(gathered));
        }
        key
    }

    fn take_spare(&mut self) -> Option<Merge> {
        let spare = self.spare.pop()?;
        self.spare_bytes -= spare.memory();
        Some(spare)
    }

    /// The merge of a number that [`Merges::begin`] gave.
    pub fn get_mut(&mut self, key: u32) -> Option<&mut Merge> {
        self.live.get_mut(key as usize)
    }

    /// Forgets a merge whose reply is out.
    pub fn end(&mut self, key: u32) {
        let Some(mut merge) = self.live.try_remove(key as usize) else {
            return;
        };
        merge.gathered = None;
        let memory = merge.memory();
        if memory <= KEEP_MERGE_BYTES_MAX && self.spare_bytes + memory <= SPARE_BYTES_MAX {
            self.spare_bytes += memory;
            self.spare.push(merge);
        }
    }

    /// A client is gone for whom `bytes` were collected. Finding them takes a
    /// look at every merge, so it is done for many at once.
    pub fn orphan(&mut self, bytes: usize, is_there: impl Fn(Owner) -> bool) {
        self.orphaned_bytes += bytes;
        if self.orphaned_bytes < ORPHANED_BYTES_MAX {
            return;
        }
        self.orphaned_bytes = 0;
        for (_, merge) in &mut self.live {
            if !is_there(merge.owner) {
                merge.bytes = Vec::new();
            }
        }
    }

    /// Unfinished merges.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether every merge is finished.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }
}

impl Merge {
    fn new(owner: Owner, kind: MergeKind) -> Self {
        Self {
            kind,
            owner,
            whole: None,
            order: Vec::new(),
            keys: Vec::new(),
            parts: Vec::new(),
            missing: 0,
            bytes: Vec::new(),
            cursors: Vec::new(),
            gathered: None,
            failed: false,
            ends_on_failure: false,
        }
    }

    /// Its reply will be this part of another one's.
    pub fn be_part_of(&mut self, whole: Option<PartOf>) {
        self.whole = whole;
    }

    /// The part of another one's that its reply is.
    pub fn whole(&self) -> Option<PartOf> {
        self.whole
    }

    /// If a shard fails, the client's connection ends after the reply.
    pub fn end_client_on_failure(&mut self) {
        self.ends_on_failure = true;
    }

    /// A part is answered without its shard.
    pub fn fail(&mut self) {
        self.failed = true;
    }

    /// Whether the client's connection ends after the reply.
    pub fn ends_client(&self) -> bool {
        self.failed && self.ends_on_failure
    }

    /// Notes the next key of a request with several; longer ones than memcached
    /// has are no keys.
    pub(super) fn note_key(&mut self, key: &[u8]) {
        if let Ok(len) = u8::try_from(key.len()) {
            self.keys.push(len);
            self.keys.extend_from_slice(key);
        }
    }

    /// Takes the reply of one part; true when it was the last one missing.
    pub fn add(&mut self, part: u32, reply: &[u8]) -> bool {
        if let Some(place @ None) = self.parts.get_mut(part as usize) {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(reply);
            *place = Some(Part {
                start,
                end: self.bytes.len(),
            });
            self.missing -= 1;
        }
        self.missing == 0
    }

    /// Takes note of a part's reply that nobody waits for any more; true when it
    /// was the last one missing.
    pub fn skip(&mut self, part: u32) -> bool {
        self.bytes = Vec::new();
        self.add(part, &[])
    }

    /// Bytes it takes, itself included, so that any number of them has a bound.
    fn memory(&self) -> usize {
        size_of::<Self>()
            + self.bytes.capacity()
            + self.keys.capacity()
            + self.order.capacity() * size_of::<u16>()
            + self.parts.capacity() * size_of::<Option<Part>>()
            + self.cursors.capacity() * size_of::<Part>()
    }

    /// Bytes of the parts that are here.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Appends the whole reply to `out`.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let replies = || self.parts.iter().flatten().map(|part| part.of(&self.bytes));
        match self.kind {
            MergeKind::Last => {
                out.extend_from_slice(replies().next_back().unwrap_or_default());
                return;
            }
            MergeKind::TextValues => {
                let mut parts: Vec<&[u8]> = replies().collect();
                return write_values(&self.keys, &self.order, &mut parts, out);
            }
            MergeKind::TextDone => return all_done(replies(), out),
            _ => {}
        }
        if let Some(error) = replies().find(|reply| reply.first() == Some(&b'-')) {
            out.extend_from_slice(error);
            return;
        }
        match self.kind {
            MergeKind::Last | MergeKind::TextValues | MergeKind::TextDone => {}
            MergeKind::AllOk => out.extend_from_slice(b"+OK\r\n"),
            MergeKind::Lines { protocol } => {
                let text = replies().map(String::from_utf8_lossy).collect::<String>();
                describe::text(protocol, &describe::in_order_of_ids(&text), out);
            }
            MergeKind::Sum | MergeKind::Killed => {
                let sum = replies().try_fold(0_i64, |sum, reply| sum.checked_add(integer(reply)?));
                match sum {
                    Some(0) if self.kind == MergeKind::Killed => NO_SUCH_CLIENT.write(out),
                    Some(_) if self.kind == MergeKind::Killed => write_simple(out, "OK"),
                    Some(sum) => write_integer(out, sum),
                    None => write_unexpected(out),
                }
            }
            MergeKind::Heard { beyond } => match replies().next().and_then(integer) {
                Some(0) => write_integer(out, 0),
                Some(counted) => write_integer(out, counted.saturating_add_unsigned(beyond)),
                None => write_unexpected(out),
            },
            MergeKind::Gathered => {
                let start = out.len();
                let whole = self.gathered.as_ref();
                if whole
                    .and_then(|whole| whole.finish(replies(), out))
                    .is_none()
                {
                    out.truncate(start);
                    write_unexpected(out);
                }
            }
            MergeKind::Values => {
                let start = out.len();
                if self.write_values(out).is_none() {
                    out.truncate(start);
                    write_unexpected(out);
                }
            }
        }
    }

    /// Each part is read once, front to back; `None` if one has another shape
    /// than was asked for.
    fn write_values(&mut self, out: &mut Vec<u8>) -> Option<()> {
        self.cursors.clear();
        let mut elements = 0;
        for part in self.parts.iter().flatten() {
            let (count, body) = array_body(part.of(&self.bytes)).ok()?;
            elements += count as usize;
            self.cursors.push(Part {
                start: part.start + body,
                end: part.end,
            });
        }
        if elements != self.order.len() {
            return None;
        }
        out.reserve(self.bytes.len());
        write_array_header(out, elements);
        let mut scanner = ReplyScanner::new();
        for &part in &self.order {
            let cursor = self.cursors.get_mut(usize::from(part))?;
            let rest = cursor.of(&self.bytes);
            let len = scanner.scan(rest).ok()??.len;
            out.extend_from_slice(rest.get(..len)?);
            cursor.start += len;
        }
        Some(())
    }
}

impl Part {
    fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start..self.end).unwrap_or_default()
    }
}

fn write_unexpected(out: &mut Vec<u8>) {
    write_error(
        out,
        "ERR a shard answered a part of this command with an unexpected type",
    );
}

fn integer(reply: &[u8]) -> Option<i64> {
    let digits = reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Merges `replies`, given as (part, bytes) in the order they come.
    fn merged(kind: MergeKind, order: &[u16], replies: &[(u32, &[u8])]) -> Vec<u8> {
        let mut merges = Merges::default();
        let key = merges.begin((0, 0), kind, replies.len(), order.iter().copied());
        let merge = merges.get_mut(key).unwrap();
        let last = replies.len() - 1;
        for (i, (part, reply)) in replies.iter().enumerate() {
            assert_eq!(merge.add(*part, reply), i == last);
        }
        let mut out = Vec::new();
        merge.finish(&mut out);
        merges.end(key);
        assert!(merges.is_empty());
        out
    }

    #[test]
    fn values_come_back_in_key_order_with_nulls_of_both_protocols() {
        let replies: [(u32, &[u8]); 2] = [(1, b"*2\r\n$-1\r\n_\r\n"), (0, b"*1\r\n$1\r\nb\r\n")];
        assert_eq!(
            merged(MergeKind::Values, &[1, 0, 1], &replies),
            b"*3\r\n$-1\r\n$1\r\nb\r\n_\r\n"
        );
    }

    #[test]
    fn the_first_error_is_the_reply() {
        let replies: [(u32, &[u8]); 3] =
            [(2, b"-LATE\r\n"), (0, b":1\r\n"), (1, b"-WRONGTYPE x\r\n")];
        assert_eq!(merged(MergeKind::Sum, &[], &replies), b"-WRONGTYPE x\r\n");
    }

    #[test]
    fn sums_and_oks() {
        let replies: [(u32, &[u8]); 2] = [(0, b":1\r\n"), (1, b":41\r\n")];
        assert_eq!(merged(MergeKind::Sum, &[], &replies), b":42\r\n");
        assert_eq!(
            merged(MergeKind::AllOk, &[], &[(0, b"+OK\r\n")]),
            b"+OK\r\n"
        );
        let heard = MergeKind::Heard { beyond: 2 };
        assert_eq!(merged(heard, &[], &[(0, b":3\r\n")]), b":5\r\n");
        assert_eq!(merged(heard, &[], &[(0, b":0\r\n")]), b":0\r\n");
        assert_eq!(merged(heard, &[], &[(0, b"-NO\r\n")]), b"-NO\r\n");
    }

    #[test]
    fn a_part_that_lies_about_its_shape_is_an_error_and_the_stream_stays_readable() {
        for (kind, order, reply) in [
            (MergeKind::Values, &[0, 0][..], &b"*1\r\n$1\r\nb\r\n"[..]),
            (MergeKind::Values, &[0], b"*2\r\n$1\r\nb\r\n$1\r\nc\r\n"),
            (MergeKind::Values, &[0], b"*1\r\n"),
            (MergeKind::Values, &[0], b"$1\r\nb\r\n"),
            (MergeKind::Sum, &[], b"$1\r\nb\r\n"),
        ] {
            assert!(merged(kind, order, &[(0, reply)]).starts_with(b"-ERR "));
        }
    }

    #[test]
    fn what_was_collected_for_a_client_that_is_gone_is_not_kept() {
        let mut merges = Merges::default();
        let reply = vec![b'x'; ORPHANED_BYTES_MAX / 2];
        let keys = [(1, 0), (2, 0), (2, 1)].map(|owner| {
            let key = merges.begin(owner, MergeKind::Values, 3, [0, 1, 2].into_iter());
            assert!(!merges.get_mut(key).unwrap().add(0, &reply));
            key
        });
        let bytes = |merges: &mut Merges| keys.map(|key| merges.get_mut(key).unwrap().bytes());
        let (all, none) = (reply.len(), 0);
        merges.orphan(all, |owner| owner != (1, 0));
        assert_eq!(bytes(&mut merges), [all, all, all]);
        merges.orphan(all, |owner| owner == (2, 1));
        assert_eq!(bytes(&mut merges), [none, none, all]);
        let gone = merges.get_mut(keys[0]).unwrap();
        assert!(!gone.skip(2));
        assert!(gone.skip(1));
    }

    #[test]
    fn a_number_is_reused_only_after_its_end() {
        let mut merges = Merges::default();
        let a = merges.begin((0, 0), MergeKind::Sum, 1, [].into_iter());
        let b = merges.begin((0, 0), MergeKind::Sum, 1, [].into_iter());
        assert_ne!(a, b);
        merges.end(a);
        assert!(merges.get_mut(a).is_none());
        assert_eq!(
            (
                merges.begin((0, 0), MergeKind::AllOk, 2, [].into_iter()),
                merges.len()
            ),
            (a, 2)
        );
    }
}
