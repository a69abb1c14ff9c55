//! One reply out of several shards' replies.
//!
//! A command with keys on several shards is cut into one command for each
//! shard ("part"); this collects the parts' replies. The first error by part
//! number becomes the whole reply, as Redis answers one error for one command.

use crate::resp::{Span, array_elements, write_array_header, write_error, write_integer};

/// How the parts become one reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MergeKind {
    /// MGET: element `i` of the reply is element `.1` of part `.0`.
    Values(Vec<(u32, u32)>),
    /// DEL, UNLINK, EXISTS, TOUCH: the integers are added.
    Sum,
    /// MSET: `+OK` when every part said so.
    AllOk,
}

/// Collects the parts of one request.
pub struct Merge {
    kind: MergeKind,
    parts: Vec<Option<Vec<u8>>>,
    missing: usize,
    bytes: usize,
}

impl Merge {
    /// Waits for `parts` replies (at least one).
    pub fn new(kind: MergeKind, parts: usize) -> Self {
        Self {
            kind,
            parts: vec![None; parts],
            missing: parts,
            bytes: 0,
        }
    }

    /// Takes the reply of one part; true when it was the last one missing.
    pub fn add(&mut self, part: u32, reply: &[u8]) -> bool {
        if let Some(place @ None) = self.parts.get_mut(part as usize) {
            *place = Some(reply.to_vec());
            self.bytes += reply.len();
            self.missing -= 1;
        }
        self.missing == 0
    }

    /// Bytes of the parts that are here.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends the whole reply to `out`.
    pub fn finish(&self, out: &mut Vec<u8>) {
        let replies = || self.parts.iter().flatten();
        if let Some(error) = replies().find(|reply| reply.first() == Some(&b'-')) {
            out.extend_from_slice(error);
            return;
        }
        match &self.kind {
            MergeKind::AllOk => out.extend_from_slice(b"+OK\r\n"),
            MergeKind::Sum => {
                let sum = replies().try_fold(0_i64, |sum, reply| sum.checked_add(integer(reply)?));
                match sum {
                    Some(sum) => write_integer(out, sum),
                    None => write_unexpected(out),
                }
            }
            MergeKind::Values(order) => self.write_values(order, out),
        }
    }

    fn write_values(&self, order: &[(u32, u32)], out: &mut Vec<u8>) {
        let mut elements: Vec<(&[u8], Vec<Span>)> = Vec::with_capacity(self.parts.len());
        for reply in self.parts.iter().flatten() {
            let mut spans = Vec::new();
            if array_elements(reply, &mut spans).is_err() {
                return write_unexpected(out);
            }
            elements.push((reply, spans));
        }
        let start = out.len();
        write_array_header(out, order.len());
        for &(part, element) in order {
            let bytes = elements
                .get(part as usize)
                .and_then(|(reply, spans)| Some(spans.get(element as usize)?.of(reply)));
            let Some(bytes) = bytes else {
                out.truncate(start);
                return write_unexpected(out);
            };
            out.extend_from_slice(bytes);
        }
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

    fn finished(merge: &Merge) -> Vec<u8> {
        let mut out = Vec::new();
        merge.finish(&mut out);
        out
    }

    #[test]
    fn values_come_back_in_key_order_with_nulls_of_both_protocols() {
        let mut merge = Merge::new(MergeKind::Values(vec![(1, 0), (0, 0), (1, 1)]), 2);
        assert!(!merge.add(0, b"*1\r\n$1\r\nb\r\n"));
        assert!(merge.add(1, b"*2\r\n$-1\r\n_\r\n"));
        assert_eq!(finished(&merge), b"*3\r\n$-1\r\n$1\r\nb\r\n_\r\n");
    }

    #[test]
    fn the_first_error_is_the_reply() {
        let mut merge = Merge::new(MergeKind::Sum, 3);
        merge.add(2, b"-LATE\r\n");
        merge.add(0, b":1\r\n");
        assert!(merge.add(1, b"-WRONGTYPE x\r\n"));
        assert_eq!(finished(&merge), b"-WRONGTYPE x\r\n");
    }

    #[test]
    fn sums_and_oks() {
        let mut merge = Merge::new(MergeKind::Sum, 2);
        merge.add(0, b":1\r\n");
        merge.add(1, b":41\r\n");
        assert_eq!(finished(&merge), b":42\r\n");
        let mut merge = Merge::new(MergeKind::AllOk, 1);
        merge.add(0, b"+OK\r\n");
        assert_eq!(finished(&merge), b"+OK\r\n");
    }

    #[test]
    fn a_part_that_lies_about_its_shape_is_an_error_and_the_stream_stays_readable() {
        let mut merge = Merge::new(MergeKind::Values(vec![(0, 0), (0, 1)]), 1);
        merge.add(0, b"*1\r\n$1\r\nb\r\n");
        assert!(finished(&merge).starts_with(b"-ERR "));
        let mut merge = Merge::new(MergeKind::Sum, 1);
        merge.add(0, b"$1\r\nb\r\n");
        assert!(finished(&merge).starts_with(b"-ERR "));
    }
}
