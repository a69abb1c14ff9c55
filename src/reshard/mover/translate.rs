//! A command of a live stream in the words of an older or foreign target. Pure.
//!
//! ```text
//! SET k v IFEQ x                   always          SET k v
//! XADD s MAXLEN = 9 LIMIT 5 ..     always          without the limit
//! SET k v PXAT ms                  before 6.2      SET k v | PEXPIREAT k ms
//! XGROUP SETID .. ENTRIESREAD n    before 7.0      without the count
//! HSETEX k FIELDS 1 f v            before 8.0      HSET (| HPEXPIREAT)
//! HPEXPIREAT ..                    no field expiry Beyond: the target cannot hold it
//! ```
//!
//! A command in a stream has happened, so conditions (NX, IFEQ, GT of EXPIRE ..)
//! that only decided whether it does are left out.
//! What has no other words is [`Translation::Beyond`], to be reported by key.

use crate::restore::{Dialect, FieldExpiry};
use crate::router::commands::{ArgList, resolve};

/// Pops that one command may become.
const POPS_MAX: usize = 1024;

/// One command of a target, its name first.
pub(super) type Words = Vec<Vec<u8>>;

/// What becomes of a command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Translation {
    /// The target takes it as it is.
    Same,
    /// These instead, in this order; none: it has nothing to do there.
    Instead(Vec<Words>),
    /// The target cannot be told, and why.
    Beyond(String),
}

use Translation::{Beyond, Instead, Same};

/// How a target that speaks `dialect` is told what `args` did.
pub(super) fn translate(args: &[&[u8]], dialect: &Dialect) -> Translation {
    let Some(name) = args.first().map(|name| name.to_ascii_lowercase()) else {
        return Same;
    };
    let old = |major, minor| !dialect.speaks(major, minor);
    match name.as_slice() {
        b"set" => set(args, old(6, 2)),
        b"xgroup" if old(7, 0) => group(args, old(6, 2)),
        b"xsetid" if old(7, 0) && args.len() > 3 => Instead(vec![first(args, 3)]),
        b"lpop" | b"rpop" if old(6, 2) && args.len() > 2 => pops(args),
        b"lmove" if old(6, 2) => lmove(args),
        b"zadd" if old(6, 2) && has(zadd_options(args), 0, &[b"gt", b"lt"]) => {
            beyond(args, "GT and LT")
        }
        b"xadd" | b"xtrim" => trimmed(args, old(6, 2)),
        b"pexpireat" | b"expireat" | b"pexpire" | b"expire" if args.len() > 3 => {
            Instead(vec![first(args, 3)])
        }
        b"hsetex" if !knows_hsetex(dialect) => hsetex(args, dialect),
        b"hpersist" if dialect.field_expiry() == FieldExpiry::None => Instead(Vec::new()),
        b"hpexpireat" | b"hexpireat" | b"hpexpire" | b"hexpire" => {
            if dialect.field_expiry() == FieldExpiry::None {
                return Beyond("the target has no expiry of fields".to_owned());
            }
            Same
        }
        _ => known(args, dialect),
    }
}

/// Whether a command that its target knows may still need other words: servers
/// take some from their master that they refuse from a client.
pub(super) fn is_for_replicas(args: &(impl ArgList + ?Sized)) -> bool {
    let (name, count) = (args.arg(0), args.len());
    match name.len() {
        3 => count > 3 && is(name, b"set"),
        4 => count > 4 && is(name, b"xadd"),
        5 => count > 4 && is(name, b"xtrim"),
        _ => false,
    }
}

/// A command without words of its own here: whether the target has it.
fn known(args: &[&[u8]], dialect: &Dialect) -> Translation {
    let Ok(command) = resolve(args) else {
        return Same;
    };
    let mut numbers = command.since.split('.').map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Same;
    };
    if dialect.speaks(major, minor) || has_field_command(command.name, dialect) {
        return Same;
    }
    Beyond(format!(
        "the target does not know {} (Redis {})",
        command.name.to_uppercase(),
        command.since
    ))
}

/// Valkey 9 took over commands on fields whose Redis versions it does not count.
fn has_field_command(name: &str, dialect: &Dialect) -> bool {
    dialect.field_expiry() != FieldExpiry::None
        && matches!(name, "hpersist" | "hgetex" | "hsetex" | "hgetdel")
}

/// Redis 7.4 has field expiry without it.
fn knows_hsetex(dialect: &Dialect) -> bool {
    let is_valkey = dialect.identity().vendor == crate::restore::Vendor::Valkey;
    dialect.speaks(8, 0) || (is_valkey && dialect.field_expiry() != FieldExpiry::None)
}

fn is(word: &[u8], lower: &[u8]) -> bool {
    word.eq_ignore_ascii_case(lower)
}

/// Whether one of `words` stands at or behind `from`.
fn has(args: &[&[u8]], from: usize, words: &[&[u8]]) -> bool {
    let rest = args.get(from..).unwrap_or(&[]);
    rest.iter()
        .any(|arg| words.iter().any(|word| is(arg, word)))
}

fn first(args: &[&[u8]], count: usize) -> Words {
    args.iter().take(count).map(|arg| arg.to_vec()).collect()
}

fn owned(words: &[&[u8]]) -> Words {
    words.iter().map(|word| word.to_vec()).collect()
}

fn beyond(args: &[&[u8]], what: &str) -> Translation {
    let name = args.first().copied().unwrap_or_default();
    let name = String::from_utf8_lossy(name).to_ascii_uppercase();
    Beyond(format!("the target does not know {what} of {name}"))
}

/// Conditions have decided already, and few servers know all of them; before 6.2
/// no absolute time can be given with the value.
fn set(args: &[&[u8]], before_6_2: bool) -> Translation {
    let (Some(key), Some(value)) = (args.get(1), args.get(2)) else {
        return Same;
    };
    let mut words = owned(&[b"SET", key, value]);
    let mut expire = None;
    let mut options = args.iter().skip(3);
    let mut changed = false;
    while let Some(option) = options.next() {
        let lower = option.to_ascii_lowercase();
        match lower.as_slice() {
            b"nx" | b"xx" | b"get" => changed = true,
            b"ifeq" | b"ifne" | b"ifdeq" | b"ifdne" => {
                changed = true;
                options.next();
            }
            b"pxat" | b"exat" if before_6_2 => {
                changed = true;
                let verb: &[u8] = if lower == b"pxat" {
                    b"PEXPIREAT"
                } else {
                    b"EXPIREAT"
                };
                let time = options.next().copied().unwrap_or_default();
                expire = Some(owned(&[verb, key, time]));
            }
            _ => words.push(option.to_vec()),
        }
    }
    if !changed {
        return Same;
    }
    Instead(std::iter::once(words).chain(expire).collect())
}

/// The options of ZADD: what stands between the key and the first score.
fn zadd_options<'s, 'a>(args: &'s [&'a [u8]]) -> &'s [&'a [u8]] {
    let rest = args.get(2..).unwrap_or(&[]);
    let words: [&[u8]; 6] = [b"nx", b"xx", b"gt", b"lt", b"ch", b"incr"];
    let count = rest
        .iter()
        .take_while(|arg| words.iter().any(|word| is(arg, word)))
        .count();
    rest.get(..count).unwrap_or(&[])
}

/// Options of XADD up to the id, and of XTRIM. A trim streams with the count that
/// it came to and with its LIMIT, which clients may not give beside `=`.
fn trimmed(args: &[&[u8]], before_6_2: bool) -> Translation {
    let Some((head, mut rest)) = args.split_at_checked(2) else {
        return Same;
    };
    let mut words = owned(head);
    let mut changed = false;
    while let Some((option, behind)) = rest.split_first() {
        if is(option, b"nomkstream") {
            changed |= before_6_2;
            if !before_6_2 {
                words.push(option.to_vec());
            }
        } else if is(option, b"maxlen") || is(option, b"minid") {
            if before_6_2 && is(option, b"minid") {
                return beyond(args, "MINID");
            }
            let sign = behind
                .first()
                .is_some_and(|word| matches!(*word, b"=" | b"~"));
            let taken = 1 + usize::from(sign);
            words.push(option.to_vec());
            words.extend(behind.iter().take(taken).map(|word| word.to_vec()));
            rest = behind.get(taken..).unwrap_or(&[]);
            continue;
        } else if is(option, b"limit") && words.len() > 2 {
            changed = true;
            rest = behind.get(1..).unwrap_or(&[]);
            continue;
        } else {
            break;
        }
        rest = behind;
    }
    if !changed {
        return Same;
    }
    words.extend(rest.iter().map(|word| word.to_vec()));
    Instead(vec![words])
}

fn group(args: &[&[u8]], before_6_2: bool) -> Translation {
    let Some(subcommand) = args.get(1) else {
        return Same;
    };
    if is(subcommand, b"createconsumer") && before_6_2 {
        // It comes to be by the first XCLAIM for it.
        return Instead(Vec::new());
    }
    let count =
        (4..args.len()).find(|at| args.get(*at).is_some_and(|word| is(word, b"entriesread")));
    let Some(count) = count else { return Same };
    let kept = args.iter().enumerate();
    let kept = kept.filter(|(at, _)| *at != count && *at != count + 1);
    Instead(vec![kept.map(|(_, word)| word.to_vec()).collect()])
}

fn pops(args: &[&[u8]]) -> Translation {
    let count = args.get(2).and_then(|text| std::str::from_utf8(text).ok());
    match count.and_then(|text| text.parse::<usize>().ok()) {
        Some(count) if count <= POPS_MAX => Instead(vec![first(args, 2); count]),
        _ => beyond(args, "the count"),
    }
}

fn lmove(args: &[&[u8]]) -> Translation {
    match args {
        [_, from, to, side, other] if is(side, b"right") && is(other, b"left") => {
            Instead(vec![owned(&[b"RPOPLPUSH", from, to])])
        }
        _ => Beyond("the target does not know LMOVE (Redis 6.2.0)".to_owned()),
    }
}

/// `HSETEX key [FNX|FXX] [PXAT ms|EXAT s|KEEPTTL] FIELDS n f v ..`
fn hsetex(args: &[&[u8]], dialect: &Dialect) -> Translation {
    let Some(key) = args.get(1) else { return Same };
    let Some(fields) =
        (2..args.len()).find(|at| args.get(*at).is_some_and(|word| is(word, b"fields")))
    else {
        return Same;
    };
    let options = args.get(2..fields).unwrap_or(&[]);
    let pairs = args.get(fields + 2..).unwrap_or(&[]);
    let mut set = owned(&[b"HSET", key]);
    set.extend(pairs.iter().map(|word| word.to_vec()));
    let time = options
        .iter()
        .position(|word| is(word, b"pxat") || is(word, b"exat"));
    let expires = dialect.field_expiry() != FieldExpiry::None;
    match time {
        None if !expires || !has(options, 0, &[b"keepttl"]) => Instead(vec![set]),
        None => beyond(args, "KEEPTTL"),
        Some(_) if !expires => Beyond("the target has no expiry of fields".to_owned()),
        Some(at) => {
            let verb: &[u8] = match options.get(at) {
                Some(unit) if is(unit, b"pxat") => b"HPEXPIREAT",
                _ => b"HEXPIREAT",
            };
            let time = options.get(at + 1).copied().unwrap_or_default();
            let names: Vec<&[u8]> = pairs.iter().step_by(2).copied().collect();
            let count = names.len().to_string();
            let mut expire = owned(&[verb, key, time, b"FIELDS", count.as_bytes()]);
            expire.extend(names.iter().map(|name| name.to_vec()));
            Instead(vec![set, expire])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::ServerIdentity;

    fn dialect(info: &str) -> Dialect {
        Dialect::of(&ServerIdentity::of_info(info).unwrap())
    }

    fn redis(version: &str) -> Dialect {
        dialect(&format!("redis_version:{version}\r\nredis_build_id:1\r\n"))
    }

    fn valkey(version: &str) -> Dialect {
        dialect(&format!(
            "redis_version:7.2.4\r\nvalkey_version:{version}\r\n"
        ))
    }

    fn told(command: &str, dialect: &Dialect) -> String {
        let args: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        match translate(&args, dialect) {
            Same => command.to_owned(),
            Beyond(why) => format!("! {why}"),
            Instead(commands) => {
                let commands: Vec<String> = commands
                    .iter()
                    .map(|words| String::from_utf8(words.join(&b' ')).unwrap())
                    .collect();
                commands.join(" | ")
            }
        }
    }

    #[test]
    fn what_a_target_knows_goes_as_it_is() {
        for command in [
            "SET k v PXAT 5 KEEPTTL",
            "XGROUP SETID k g 1-1 ENTRIESREAD 2",
            "LMOVE a b LEFT LEFT",
            "LPOP k 2",
            "HPEXPIREAT k 5 FIELDS 1 f",
            "HSETEX k KEEPTTL FIELDS 1 f v",
            "INCR k",
            "FROBNICATE k",
        ] {
            assert_eq!(told(command, &redis("8.0.2")), command);
        }
        for command in ["HPEXPIREAT k 5 FIELDS 1 f", "HSETEX k PXAT 5 FIELDS 1 f v"] {
            assert_eq!(told(command, &valkey("9.1.2")), command);
        }
    }

    #[test]
    fn older_targets_are_told_in_their_words() {
        let (six, seven) = (redis("6.0.16"), redis("7.0.15"));
        for (command, dialect, expected) in [
            ("SET k v PXAT 5", &six, "SET k v | PEXPIREAT k 5"),
            (
                "set k v EXAT 5 KEEPTTL",
                &six,
                "SET k v KEEPTTL | EXPIREAT k 5",
            ),
            ("SET k v PX 5", &six, "SET k v PX 5"),
            (
                "XGROUP SETID k g 1-1 ENTRIESREAD 2",
                &six,
                "XGROUP SETID k g 1-1",
            ),
            (
                "XGROUP CREATE k g 1-1 MKSTREAM ENTRIESREAD 2",
                &six,
                "XGROUP CREATE k g 1-1 MKSTREAM",
            ),
            ("SET k v NX GET", &seven, "SET k v"),
            ("SET k v IFEQ EX EX 5", &seven, "SET k v EX 5"),
            ("SET k v EX 5", &seven, "SET k v EX 5"),
            (
                "XADD s MAXLEN = 301 LIMIT 200 1-1 limit 5",
                &redis("8.0.2"),
                "XADD s MAXLEN = 301 1-1 limit 5",
            ),
            ("XTRIM s MAXLEN = 3 LIMIT 0", &seven, "XTRIM s MAXLEN = 3"),
            ("XTRIM s MINID 3-1", &seven, "XTRIM s MINID 3-1"),
            ("XADD s NOMKSTREAM 1-1 f v", &six, "XADD s 1-1 f v"),
            (
                "XADD s NOMKSTREAM 1-1 f v",
                &seven,
                "XADD s NOMKSTREAM 1-1 f v",
            ),
            ("XADD s 1-1 nomkstream g", &six, "XADD s 1-1 nomkstream g"),
            ("XADD s 1-1 minid 5", &six, "XADD s 1-1 minid 5"),
            (
                "XTRIM s MINID 3-1",
                &six,
                "! the target does not know MINID of XTRIM",
            ),
            ("ZADD z 1 gt", &six, "ZADD z 1 gt"),
            (
                "ZADD z GT CH 1 m",
                &six,
                "! the target does not know GT and LT of ZADD",
            ),
            ("XGROUP CREATECONSUMER k g c", &six, ""),
            (
                "XSETID k 1-1 ENTRIESADDED 2 MAXDELETEDID 0-0",
                &six,
                "XSETID k 1-1",
            ),
            ("LPOP k 2", &six, "LPOP k | LPOP k"),
            ("LMOVE a b RIGHT LEFT", &six, "RPOPLPUSH a b"),
            (
                "LMOVE a b LEFT LEFT",
                &six,
                "! the target does not know LMOVE (Redis 6.2.0)",
            ),
            (
                "COPY a b",
                &six,
                "! the target does not know COPY (Redis 6.2.0)",
            ),
            ("PEXPIREAT k 5 GT", &seven, "PEXPIREAT k 5"),
            (
                "HSETEX k KEEPTTL FIELDS 2 f v g w",
                &seven,
                "HSET k f v g w",
            ),
            (
                "HSETEX k PXAT 5 FIELDS 1 f v",
                &seven,
                "! the target has no expiry of fields",
            ),
            (
                "HSETEX k PXAT 5 FIELDS 1 f v",
                &redis("7.4.0"),
                "HSET k f v | HPEXPIREAT k 5 FIELDS 1 f",
            ),
            (
                "HPEXPIREAT k 5 FIELDS 1 f",
                &valkey("8.1.0"),
                "! the target has no expiry of fields",
            ),
            ("HPERSIST k FIELDS 1 f", &seven, ""),
        ] {
            assert_eq!(told(command, dialect), expected, "{command}");
        }
    }
}
