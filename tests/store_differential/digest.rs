//! Whether both sides hold the same: DEBUG DIGEST of all, and when that differs, which
//! keys do.

use super::replay::{Clash, Pair, Verdict};
use super::reply::{self, elements, leaves};
use super::sides::{Broken, Side};

const DATABASES: usize = 16;

/// How many keys a report names.
const SHOWN_KEYS: usize = 4;

/// How it is seen whether two sides hold the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// By DEBUG DIGEST.
    Digest,
    /// By reading every key: for a server that has no DEBUG DIGEST yet.
    Contents,
}

/// After a sequence.
pub fn compare(pair: &mut Pair) -> Verdict {
    let mut clash = match pair.holding {
        Holding::Contents => Clash::from("the keys differ".to_owned()),
        Holding::Digest => {
            let wanted = pair.reference.look(&["DEBUG", "DIGEST"])?;
            let found = pair.other.look(&["DEBUG", "DIGEST"])?;
            if wanted == found && !reply::is_error(&wanted) {
                return Ok(());
            }
            Clash::of(&wanted, &found, "DEBUG DIGEST differs")
        }
    };
    let mut differs = pair.holding == Holding::Digest;
    for db in 0..DATABASES {
        let of_database = of_database(pair, db)?;
        differs |= !of_database.is_empty();
        clash.why.push_str(&of_database);
    }
    if differs { Err(clash) } else { Ok(()) }
}

fn of_database(pair: &mut Pair, db: usize) -> Result<String, Broken> {
    let holding = pair.holding;
    let mut keys = Vec::new();
    for side in [&mut pair.reference, &mut pair.other] {
        side.look(&["SELECT", &db.to_string()])?;
        let listed = side.look(&["KEYS", "*"])?;
        keys.extend(
            elements(&listed)
                .into_iter()
                .filter_map(reply::text)
                .map(<[u8]>::to_vec),
        );
    }
    keys.sort();
    keys.dedup();
    let mut text = String::new();
    let mut shown = 0;
    for key in keys {
        let wanted = told(holding, &mut pair.reference, &key)?;
        let found = told(holding, &mut pair.other, &key)?;
        if wanted != found {
            shown += 1;
            if shown <= SHOWN_KEYS {
                let key = key.escape_ascii();
                text.push_str(&format!(
                    "\n    db {db} \"{key}\" holds\n      {found} instead of\n      {wanted}"
                ));
            }
        }
    }
    if shown > SHOWN_KEYS {
        text.push_str(&format!("\n    and {} more of db {db}", shown - SHOWN_KEYS));
    }
    Ok(text)
}

/// Type, digest, whether it expires, and what is in it.
fn told(holding: Holding, side: &mut Side, key: &[u8]) -> Result<String, Broken> {
    let kind = side.look(&[b"TYPE", key])?;
    let digest = match holding {
        Holding::Digest => {
            reply::shown(&side.look(&[b"DEBUG", b"DIGEST-VALUE".as_slice(), key])?)
        }
        Holding::Contents => "not asked for".into(),
    };
    let expires = reply::integer(&side.look(&[b"PTTL", key])?).unwrap_or(0) >= 0;
    let read: &[&[u8]] = match reply::text(&kind) {
        Some(b"string") => &[b"GET", key],
        Some(b"list") => &[b"LRANGE", key, b"0", b"-1"],
        Some(b"set") => &[b"SMEMBERS", key],
        Some(b"hash") => &[b"HGETALL", key],
        Some(b"zset") => &[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"],
        Some(b"stream") => &[b"XRANGE", key, b"-", b"+"],
        _ => return Ok(format!("no key ({})", reply::shown(&kind))),
    };
    let held = side.look(read)?;
    let kind = reply::shown(&kind);
    let parts = match kind.as_str() {
        "+set" | "+hash" => {
            let parts = leaves(&held);
            let width = if kind == "+hash" { 2 } else { 1 };
            let mut groups: Vec<_> = parts.chunks(width).map(<[_]>::concat).collect();
            groups.sort();
            let head = format!("*{}\r\n", parts.len()).into_bytes();
            reply::shown(&[head, groups.concat()].concat())
        }
        _ => reply::shown(&held),
    };
    let ttl = if expires { ", expires" } else { "" };
    Ok(format!("{kind}{ttl}, digest {}, {parts}", digest))
}
