//! What is no command, but is written like one in a sequence:
//!
//! - `@CARRY key to`: the DUMP of `key` of each side is RESTOREd at the other, under
//!   `to`;
//! - `@AWAIT key`: goes on when `key`, which has a short time to live, is gone on both
//!   sides.

use std::time::{Duration, Instant};

use super::line::Line;
use super::replay::{Clash, Pair};
use super::reply::{self, Raw};

const GONE_LIMIT: Duration = Duration::from_secs(10);
const CARRY: &[u8] = b"@CARRY";
const AWAIT: &[u8] = b"@AWAIT";

/// True for the words above.
pub fn is_carried(line: &Line) -> bool {
    line.words
        .first()
        .is_some_and(|name| name.starts_with(b"@"))
}

/// The reference's last reply, if both are right.
pub fn compare(pair: &mut Pair, line: &Line) -> Result<Raw, Clash> {
    match line.words.as_slice() {
        [name, key, to] if name == CARRY => carry(pair, line, key, to),
        [name, key] if name == AWAIT => wait_gone(pair, line, key),
        _ => panic!("no such line: {line}"),
    }
}

fn carry(pair: &mut Pair, line: &Line, key: &[u8], to: &[u8]) -> Result<Raw, Clash> {
    let who = line.who;
    let wanted = pair.reference.ask(who, &[b"DUMP", key])?;
    let found = pair.other.ask(who, &[b"DUMP", key])?;
    let (Some(of_reference), Some(of_other)) = (reply::text(&wanted), reply::text(&found)) else {
        return match wanted == found {
            true => Ok(wanted),
            false => Err(Clash::of(&wanted, &found, "one side has nothing to carry")),
        };
    };
    let restore = |payload| [b"RESTORE", to, b"0", payload, b"REPLACE"];
    let wanted = pair.reference.ask(who, &restore(of_other))?;
    let found = pair.other.ask(who, &restore(of_reference))?;
    match reply::text(&wanted) == Some(b"OK") && wanted == found {
        true => Ok(wanted),
        false => Err(Clash::of(
            &wanted,
            &found,
            "the other's payload is not taken",
        )),
    }
}

fn wait_gone(pair: &mut Pair, line: &Line, key: &[u8]) -> Result<Raw, Clash> {
    let start = Instant::now();
    loop {
        let wanted = pair.reference.ask(line.who, &[b"EXISTS", key])?;
        let found = pair.other.ask(line.who, &[b"EXISTS", key])?;
        if reply::integer(&wanted) == Some(0) && reply::integer(&found) == Some(0) {
            return Ok(wanted);
        }
        if start.elapsed() > GONE_LIMIT {
            return Err(Clash::of(&wanted, &found, "a key outlives its time"));
        }
    }
}
