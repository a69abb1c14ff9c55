//! Arguments of HSCAN, SSCAN and their likes, and what all of them answer.

use super::args::Args;
use super::failure::Failure;
use super::reply::Reply;
use crate::store::format::glob;

/// Elements of one call when nothing is said.
const COUNT_DEFAULT: usize = 10;

/// What is wanted of a part.
#[derive(Clone, Copy, Debug)]
pub struct ScanOptions<'a> {
    /// About so many elements.
    pub count: usize,
    pattern: Option<&'a [u8]>,
}

impl<'a> ScanOptions<'a> {
    /// Reads MATCH and COUNT, from an argument on.
    ///
    /// # Errors
    /// [`Failure`] as SCAN answers it.
    pub fn parse(args: Args<'a>, first: usize) -> Result<Self, Failure> {
        let mut options = Self {
            count: COUNT_DEFAULT,
            pattern: None,
        };
        let mut at = first;
        while at < args.len() {
            let has_value = at + 1 < args.len();
            if args.is(at, "COUNT") && has_value {
                let count = args.integer(at + 1)?;
                options.count = match usize::try_from(count) {
                    Ok(count @ 1..) => count,
                    _ => return Err(Failure::SYNTAX),
                };
            } else if args.is(at, "MATCH") && has_value {
                options.pattern = Some(args.at(at + 1)).filter(|pattern| *pattern != b"*");
            } else {
                return Err(Failure::SYNTAX);
            }
            at += 2;
        }
        Ok(options)
    }

    /// Whether a name is wanted.
    pub fn wants(&self, name: &[u8]) -> bool {
        self.pattern
            .is_none_or(|pattern| glob::matches(pattern, name))
    }
}

/// A cursor, as C's `strtoul` reads one: nothing is 0, and a minus counts from the end.
///
/// # Errors
/// [`Failure::CURSOR`].
pub fn cursor(text: &[u8]) -> Result<u64, Failure> {
    // Redis hands C a string that ends at its first zero byte.
    let text = text.split(|byte| *byte == 0).next().unwrap_or(text);
    let (is_negative, digits) = match text {
        [] => return Ok(0),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return Err(Failure::CURSOR);
    }
    let mut value = 0_u64;
    for digit in digits {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit <= 9);
        let digit = digit.ok_or(Failure::CURSOR)?;
        let next = value
            .checked_mul(10)
            .and_then(|value| value.checked_add(u64::from(digit)));
        value = next.ok_or(Failure::CURSOR)?;
    }
    Ok(if is_negative {
        value.wrapping_neg()
    } else {
        value
    })
}

/// The head of a part's reply: its cursor, and how many words follow.
pub fn reply_part(reply: &mut Reply, next: u64, words: usize) {
    reply.array(2);
    reply.bulk(next.to_string().as_bytes());
    reply.array(words);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_taken_as_strtoul_takes_them() {
        for (text, value) in [
            ("0", Some(0)),
            ("", Some(0)),
            ("17", Some(17)),
            ("-1", Some(u64::MAX)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            (" 0", None),
            ("0x0", None),
            ("1.5", None),
            ("-", None),
            ("5\0junk", Some(5)),
        ] {
            assert_eq!(cursor(text.as_bytes()).ok(), value, "{text:?}");
        }
    }
}
