//! Where commands of a stream say when a key ends, and the same commands with
//! another time. Pure.
//!
//! ```text
//! EXPIRE k s | PEXPIRE k ms | EXPIREAT k s | PEXPIREAT k ms [NX|XX|GT|LT]   PEXPIREAT k at
//! SETEX k s v | PSETEX k ms v                                               SET k v PXAT at
//! SET k v .. EX s | PX ms | EXAT s | PXAT ms ..                             SET k v .. PXAT at ..
//! RESTORE k ms payload .. [ABSTTL]                                          RESTORE k at payload .. ABSTTL
//! ```
//!
//! Servers before 7.0 stream times from now on as they were given.

use crate::router::commands::ArgList;

use super::route::Args;

/// Names of more letters say no times.
const NAME_BYTES_MAX: usize = 16;

/// How a command says when its first key ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time {
    form: Form,
    /// Which argument it is.
    index: usize,
    /// Milliseconds in its unit.
    unit_ms: i64,
    /// Unix time, or from now.
    pub(super) absolute: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Expire,
    SetEx,
    Set,
    Restore,
}

/// A command's name in lower case, if it is short enough to say a time.
pub(super) fn lower<'b>(name: &[u8], buffer: &'b mut [u8; NAME_BYTES_MAX]) -> &'b [u8] {
    let Some(lower) = buffer.get_mut(..name.len()) else {
        return &[];
    };
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    lower
}

impl Time {
    /// Where a command says it, if it does.
    pub(super) fn find(args: Args<'_>) -> Option<Time> {
        let time = |form, index, unit_ms, absolute| {
            Some(Time {
                form,
                index,
                unit_ms,
                absolute,
            })
        };
        let mut buffer = [0; NAME_BYTES_MAX];
        match lower(args.arg(0), &mut buffer) {
            b"pexpireat" => time(Form::Expire, 2, 1, true),
            b"expireat" => time(Form::Expire, 2, 1000, true),
            b"pexpire" => time(Form::Expire, 2, 1, false),
            b"expire" => time(Form::Expire, 2, 1000, false),
            b"psetex" => time(Form::SetEx, 2, 1, false),
            b"setex" => time(Form::SetEx, 2, 1000, false),
            b"set" => (3..args.len()).find_map(|at| {
                let mut buffer = [0; NAME_BYTES_MAX];
                match lower(args.arg(at), &mut buffer) {
                    b"pxat" => time(Form::Set, at + 1, 1, true),
                    b"exat" => time(Form::Set, at + 1, 1000, true),
                    b"px" => time(Form::Set, at + 1, 1, false),
                    b"ex" => time(Form::Set, at + 1, 1000, false),
                    _ => None,
                }
            }),
            b"restore" | b"restore-asking" if args.arg(2) != b"0" => {
                let absolute = (4..args.len()).any(|at| is(args.arg(at), b"absttl"));
                time(Form::Restore, 2, 1, absolute)
            }
            _ => None,
        }
    }

    /// The moment, Unix time in ms; `now_ms` is when the command was given.
    pub(super) fn at_ms(self, args: Args<'_>, now_ms: impl Fn() -> i64) -> Option<i64> {
        let number: i64 = std::str::from_utf8(args.arg(self.index))
            .ok()?
            .parse()
            .ok()?;
        let stated = number.checked_mul(self.unit_ms)?;
        Some(match self.absolute {
            true => stated,
            false => now_ms().saturating_add(stated),
        })
    }

    /// Whether a target would do something else at the same words: it compares
    /// with its own time, and counts from its own now.
    pub(super) fn is_of_the_source(self, args: Args<'_>) -> bool {
        !self.absolute || (self.form == Form::Expire && args.len() > 3)
    }

    /// The command with that moment.
    pub(super) fn with(self, args: Args<'_>, at_ms: i64) -> Vec<Vec<u8>> {
        let at = at_ms.to_string().into_bytes();
        let arg = |index: usize| args.arg(index).to_vec();
        match self.form {
            // Conditions have decided already.
            Form::Expire => vec![b"PEXPIREAT".to_vec(), arg(1), at],
            Form::SetEx => vec![b"SET".to_vec(), arg(1), arg(3), b"PXAT".to_vec(), at],
            Form::Set => (0..args.len())
                .map(|index| match index {
                    _ if index == self.index => at.clone(),
                    _ if index + 1 == self.index => b"PXAT".to_vec(),
                    _ => arg(index),
                })
                .collect(),
            Form::Restore => {
                let mut words: Vec<Vec<u8>> = (0..args.len()).map(arg).collect();
                if let Some(time) = words.get_mut(self.index) {
                    *time = at;
                }
                if !self.absolute {
                    words.push(b"ABSTTL".to_vec());
                }
                words
            }
        }
    }
}

/// The soonest that a command lets fields of its hash end, if it says so.
pub(super) fn fields_end_at_ms(args: Args<'_>, now_ms: impl Fn() -> i64) -> Option<i64> {
    let mut buffer = [0; NAME_BYTES_MAX];
    let number = |index: usize, unit_ms: i64| -> Option<i64> {
        let number: i64 = std::str::from_utf8(args.arg(index)).ok()?.parse().ok()?;
        number.checked_mul(unit_ms)
    };
    match lower(args.arg(0), &mut buffer) {
        b"hpexpireat" => number(2, 1),
        b"hexpireat" => number(2, 1000),
        b"hpexpire" => Some(now_ms().saturating_add(number(2, 1)?)),
        b"hexpire" => Some(now_ms().saturating_add(number(2, 1000)?)),
        b"hsetex" | b"hgetex" => (2..args.len())
            .take_while(|at| !is(args.arg(*at), b"fields"))
            .find_map(|at| {
                let mut buffer = [0; NAME_BYTES_MAX];
                match lower(args.arg(at), &mut buffer) {
                    b"pxat" => number(at + 1, 1),
                    b"exat" => number(at + 1, 1000),
                    b"px" => Some(now_ms().saturating_add(number(at + 1, 1)?)),
                    b"ex" => Some(now_ms().saturating_add(number(at + 1, 1000)?)),
                    _ => None,
                }
            }),
        _ => None,
    }
}

pub(super) fn is(word: &[u8], lower: &[u8]) -> bool {
    word.eq_ignore_ascii_case(lower)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::{RequestLimits, RequestScanner, write_command};

    const NOW: i64 = 1_000_000;

    fn with<T>(text: &str, ask: impl FnOnce(Args<'_>) -> T) -> T {
        let mut bytes = Vec::new();
        let words: Vec<&[u8]> = text.split(' ').map(str::as_bytes).collect();
        write_command(&mut bytes, &words);
        let mut scanner = RequestScanner::new(RequestLimits::default());
        let request = scanner.scan(&bytes).unwrap().unwrap();
        ask(Args {
            bytes: request.bytes,
            spans: request.args,
        })
    }

    #[test]
    fn every_way_to_say_a_time_has_an_absolute_one() {
        for (text, expected, of_the_source) in [
            ("PEXPIREAT k 5000", "PEXPIREAT k 5000", false),
            ("PEXPIREAT k 5000 GT", "PEXPIREAT k 5000", true),
            ("expireat k 5", "PEXPIREAT k 5000", false),
            ("EXPIRE k 5", "PEXPIREAT k 1005000", true),
            ("PEXPIRE k 5", "PEXPIREAT k 1000005", true),
            ("SETEX k 5 v", "SET k v PXAT 1005000", true),
            ("PSETEX k 5 v", "SET k v PXAT 1000005", true),
            ("SET k v EX 5 NX", "SET k v PXAT 1005000 NX", true),
            ("SET px ex EXAT 5", "SET px ex PXAT 5000", false),
            ("SET k v NX PXAT 5", "SET k v NX PXAT 5", false),
            (
                "RESTORE k 5 x REPLACE",
                "RESTORE k 1000005 x REPLACE ABSTTL",
                true,
            ),
            ("RESTORE k 5 x ABSTTL", "RESTORE k 5 x ABSTTL", false),
        ] {
            with(text, |args| {
                let time = Time::find(args).unwrap();
                let at_ms = time.at_ms(args, || NOW).unwrap();
                let words = time.with(args, at_ms).join(&b' ');
                assert_eq!(String::from_utf8(words).unwrap(), expected);
                assert_eq!(time.is_of_the_source(args), of_the_source, "{text}");
            });
        }
    }

    #[test]
    fn others_say_none() {
        for text in [
            "SET k v",
            "SET k ex",
            "RESTORE k 0 x",
            "INCR k",
            "GETRANGE k 1 2",
            "PERSIST k",
        ] {
            assert_eq!(with(text, Time::find), None, "{text}");
        }
        assert_eq!(
            with("EXPIRE k soon", |args| Time::find(args)
                .unwrap()
                .at_ms(args, || NOW)),
            None
        );
    }

    #[test]
    fn fields_end_when_their_command_says() {
        for (text, at) in [
            ("HPEXPIREAT k 5 FIELDS 1 f", Some(5)),
            ("HEXPIRE k 5 NX FIELDS 1 f", Some(NOW + 5000)),
            ("HSETEX k FNX EX 5 FIELDS 1 px 7", Some(NOW + 5000)),
            ("HSETEX k KEEPTTL FIELDS 1 px 7", None),
            ("HSET k px 7", None),
        ] {
            assert_eq!(
                with(text, |args| fields_end_at_ms(args, || NOW)),
                at,
                "{text}"
            );
        }
    }
}
