//! What is written for an id or a range of them.

use crate::rdb::StreamId;
use crate::store::commands::args::Args;
use crate::store::commands::failure::{Failure, up_to_zero};

const ID_BYTES_MAX: usize = 127;
const INVALID: Failure =
    Failure::words("ERR Invalid stream ID specified as stream command argument");

/// An id whose second number may be left to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) id: StreamId,
    /// `ms-*`.
    pub(super) wants_seq: bool,
}

/// `ms-seq`, `ms`, and `-` and `+`.
pub(super) fn loose(text: &[u8], missing_seq: u64) -> Result<StreamId, Failure> {
    match text {
        b"-" => Ok(StreamId::MIN),
        b"+" => Ok(StreamId::MAX),
        _ => strict(text, missing_seq),
    }
}

/// `ms-seq` or `ms`.
pub(super) fn strict(text: &[u8], missing_seq: u64) -> Result<StreamId, Failure> {
    match parse(text, missing_seq) {
        Some(Written {
            id,
            wants_seq: false,
        }) => Ok(id),
        _ => Err(INVALID),
    }
}

/// Ids from one argument on, to the last.
pub(super) fn all_from(args: Args<'_>, first: usize) -> Result<Vec<StreamId>, Failure> {
    args.from(first).map(|text| strict(text, 0)).collect()
}

/// Also `ms-*`.
pub(super) fn to_add(text: &[u8]) -> Result<Written, Failure> {
    parse(text, 0).ok_or(INVALID)
}

fn parse(text: &[u8], missing_seq: u64) -> Option<Written> {
    if text.len() > ID_BYTES_MAX {
        return None;
    }
    // Redis hands C a string that ends at its first zero byte.
    let text = up_to_zero(text);
    let (ms, seq) = match text.iter().position(|byte| *byte == b'-') {
        Some(at) => (text.get(..at)?, text.get(at + 1..)),
        None => (text, None),
    };
    let ms = number(ms)?;
    let wants_seq = seq == Some(b"*");
    let seq = match seq {
        None => missing_seq,
        Some(b"*") => 0,
        Some(seq) => number(seq)?,
    };
    let id = StreamId { ms, seq };
    Some(Written { id, wants_seq })
}

/// As C's `strtoull` reads all of a string, where it is no negative number plainly written.
fn number(text: &[u8]) -> Option<u64> {
    if matches!(text, [b'-', b'1'..=b'9', ..]) {
        return None;
    }
    let is_blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    let begin = text.iter().position(|byte| !is_blank(byte))?;
    let (is_negative, digits) = match text.get(begin..)? {
        [b'+', digits @ ..] => (false, digits),
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(if is_negative {
        number.wrapping_neg()
    } else {
        number
    })
}

/// The lower end of a range, `(` excludes it.
pub(super) fn from(text: &[u8]) -> Result<StreamId, Failure> {
    match text {
        [b'(', rest @ ..] => {
            let id = strict(rest, 0)?;
            id.next()
                .ok_or(Failure::words("ERR invalid start ID for the interval"))
        }
        _ => loose(text, 0),
    }
}

/// The upper end of a range, `(` excludes it.
pub(super) fn to(text: &[u8]) -> Result<StreamId, Failure> {
    match text {
        [b'(', rest @ ..] => {
            let id = strict(rest, u64::MAX)?;
            id.before()
                .ok_or(Failure::words("ERR invalid end ID for the interval"))
        }
        _ => loose(text, u64::MAX),
    }
}
