//! What is no command, but is written like one in a sequence:
//!
//! - `@CARRY key to`: the DUMP of `key` of each side is RESTOREd at the other, under
//!   `to`;
//! - `@AWAIT key`: goes on when `key`, which has a short time to live, is gone on both
//!   sides;
//! - `@BLOCK command`: the second client sends a command that may block, and the
//!   sequence goes on;
//! - `@REPLY type key`: what it is told. In case that nothing woke it, `key` is made
//!   anew, of this type.

use std::time::{Duration, Instant};

use super::line::{Line, Who};
use super::replay::{Clash, Pair};
use super::reply::{self, Raw};
use super::sides::{Broken, Side};
use crate::support::client::encode;

const GONE_LIMIT: Duration = Duration::from_secs(10);

/// True for the words above.
pub fn is_direction(line: &Line) -> bool {
    line.words
        .first()
        .is_some_and(|name| name.starts_with(b"@"))
}

/// The reference's last reply, if both are right.
pub fn follow(pair: &mut Pair, line: &Line) -> Result<Raw, Clash> {
    match (line.name().as_str(), line.words.as_slice()) {
        ("@CARRY", [_, key, to]) => carry(pair, line.who, key, to),
        ("@AWAIT", [_, key]) => wait_gone(pair, line.who, key),
        ("@BLOCK", [_, command @ ..]) => block(pair, line.who, command),
        ("@REPLY", [_, kind, key]) => unblock(pair, line.who, kind, key),
        _ => panic!("no such line: {line}"),
    }
}

fn carry(pair: &mut Pair, who: Who, key: &[u8], to: &[u8]) -> Result<Raw, Clash> {
    let wanted = pair.reference.ask(who, &[b"DUMP", key])?;
    let found = pair.other.ask(who, &[b"DUMP", key])?;
    let (Some(of_reference), Some(of_other)) = (reply::text(&wanted), reply::text(&found)) else {
        return agreed(wanted, &found, "one side has nothing to carry");
    };
    let restore = |payload| [b"RESTORE", to, b"0", payload, b"REPLACE"];
    let wanted = pair.reference.ask(who, &restore(of_other))?;
    let found = pair.other.ask(who, &restore(of_reference))?;
    match reply::text(&wanted) == Some(b"OK") {
        true => agreed(wanted, &found, "redis-server's payload is not taken"),
        false => Err(Clash::of(
            &wanted,
            &found,
            "redis-server does not take the payload",
        )),
    }
}

fn agreed(wanted: Raw, found: &[u8], why: &str) -> Result<Raw, Clash> {
    match wanted == found {
        true => Ok(wanted),
        false => Err(Clash::of(&wanted, found, why)),
    }
}

fn wait_gone(pair: &mut Pair, who: Who, key: &[u8]) -> Result<Raw, Clash> {
    let start = Instant::now();
    loop {
        let wanted = pair.reference.ask(who, &[b"EXISTS", key])?;
        let found = pair.other.ask(who, &[b"EXISTS", key])?;
        if reply::integer(&wanted) == Some(0) && reply::integer(&found) == Some(0) {
            return Ok(wanted);
        }
        if start.elapsed() > GONE_LIMIT {
            return Err(Clash::of(&wanted, &found, "a key outlives its time"));
        }
    }
}

/// Servers take requests in the order in which they come in: with PONG, the command
/// before it was read, and blocks.
fn block(pair: &mut Pair, who: Who, command: &[Vec<u8>]) -> Result<Raw, Clash> {
    let mut request = Vec::new();
    encode(&mut request, command);
    for side in [&mut pair.reference, &mut pair.other] {
        side.send(who, &request)?;
        side.look(&["PING"])?;
    }
    Ok(b"+OK\r\n".to_vec())
}

fn unblock(pair: &mut Pair, who: Who, kind: &[u8], key: &[u8]) -> Result<Raw, Clash> {
    for side in [&mut pair.reference, &mut pair.other] {
        wake(side, kind, key)?;
    }
    let wanted = pair.reference.read(who)?;
    let found = pair.other.read(who)?;
    agreed(wanted, &found, "the blocked client is told something else")
}

fn wake(side: &mut Side, kind: &[u8], key: &[u8]) -> Result<(), Broken> {
    let made: &[&[u8]] = match kind {
        b"list" => &[b"RPUSH", key, b"wake"],
        b"zset" => &[b"ZADD", key, b"1", b"wake"],
        // Behind whatever id is waited for.
        b"stream" => &[b"XADD", key, b"18446744073709551615-1", b"wake", b"1"],
        _ => panic!("nobody waits for {}", kind.escape_ascii()),
    };
    side.look(&[b"DEL", key])?;
    side.look(made)?;
    Ok(())
}
