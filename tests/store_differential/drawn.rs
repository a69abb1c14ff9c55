//! Commands with random replies. Both sides have the same members before; then each
//! reply has to be as long as the reference's, of members only, and without repetition
//! where none is allowed. What SPOP took on one side alone is put back there, and what
//! the reference took is taken.

use super::line::{Line, Who};
use super::replay::{Clash, Pair};
use super::reply::{self, Raw, is_aggregate, is_error, is_null, leaves};
use super::sides::{Broken, Side};

/// A reply's random elements: a member, or a member with its value or score.
type Drawn = Vec<Vec<u8>>;

/// The reference's reply, if both are right.
pub fn compare(pair: &mut Pair, line: &Line) -> Result<Raw, Clash> {
    let who = line.who;
    let name = line.name();
    let key = line.words.get(1).cloned().unwrap_or_default();
    let with_values = line.words.len() > 3;
    let members = members(&mut pair.reference, who, &name, &key, with_values)?;
    let wanted = pair.reference.ask(who, &line.words)?;
    let found = pair.other.ask(who, &line.words)?;
    let has_none = |raw: &Raw| {
        is_error(raw) || is_null(raw) || reply::elements(raw).is_empty() && is_aggregate(raw)
    };
    if has_none(&wanted) || has_none(&found) {
        return match wanted == found {
            true => Ok(wanted),
            false => Err(Clash::of(&wanted, &found, "the replies differ")),
        };
    }
    let may_repeat = line
        .words
        .get(2)
        .is_some_and(|count| count.starts_with(b"-"));
    let width = if with_values { 2 } else { 1 };
    let fault = (reply::kind(&wanted) != reply::kind(&found))
        .then(|| "the replies are of different kinds".to_owned())
        .or_else(|| shape(&wanted, &found))
        .or_else(|| {
            let found = elements(&found, width);
            of_members(&found, &members, may_repeat)
        });
    if let Some(why) = fault {
        return Err(Clash::of(&wanted, &found, why));
    }
    let own = of_members(&elements(&wanted, width), &members, may_repeat);
    assert_eq!(
        own,
        None,
        "the reference keeps the rules: {line} says {}",
        reply::shown(&wanted)
    );
    if name == "SPOP" {
        put_right(
            &mut pair.other,
            who,
            &key,
            &leaves(&wanted),
            &leaves(&found),
        )?;
        match_encoding(pair, who, &key)?;
    }
    Ok(wanted)
}

/// Everything that may be drawn.
fn members(
    side: &mut Side,
    who: Who,
    name: &str,
    key: &[u8],
    with_values: bool,
) -> Result<Drawn, Broken> {
    let words: &[&[u8]] = match name {
        "RANDOMKEY" => &[b"KEYS", b"*"],
        "HRANDFIELD" if with_values => &[b"HGETALL", key],
        "HRANDFIELD" => &[b"HKEYS", key],
        "ZRANDMEMBER" if with_values => &[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"],
        "ZRANDMEMBER" => &[b"ZRANGE", key, b"0", b"-1"],
        _ => &[b"SMEMBERS", key],
    };
    let all = side.ask(who, words)?;
    if is_error(&all) {
        return Ok(Drawn::new());
    }
    Ok(elements(&all, if with_values { 2 } else { 1 }))
}

fn elements(raw: &[u8], width: usize) -> Drawn {
    leaves(raw).chunks(width).map(<[_]>::concat).collect()
}

/// As many elements, nested in the same way.
fn shape(wanted: &[u8], found: &[u8]) -> Option<String> {
    let sizes = |raw| -> Vec<usize> {
        let parts = reply::elements(raw);
        parts.iter().map(|part| leaves(part).len()).collect()
    };
    (sizes(wanted) != sizes(found)).then(|| "not as many elements".into())
}

fn of_members(drawn: &Drawn, members: &Drawn, may_repeat: bool) -> Option<String> {
    if let Some(stranger) = drawn.iter().find(|one| !members.contains(one)) {
        return Some(format!("{} is no member", stranger.escape_ascii()));
    }
    let mut sorted: Vec<_> = drawn.iter().collect();
    sorted.sort();
    sorted.dedup();
    let repeats = sorted.len() < drawn.len() && !may_repeat;
    repeats.then(|| "an element is given twice".into())
}

/// Adds first: a set that was empty in between would lose its TTL.
fn put_right(
    side: &mut Side,
    who: Who,
    key: &[u8],
    wanted: &[&[u8]],
    found: &[&[u8]],
) -> Result<(), Broken> {
    for (name, taken, other) in [("SADD", found, wanted), ("SREM", wanted, found)] {
        let moved = taken.iter().filter(|one| !other.contains(one));
        let moved: Vec<&[u8]> = moved.filter_map(|one| reply::text(one)).collect();
        if !moved.is_empty() {
            side.ask(who, &[&[name.as_bytes(), key], moved.as_slice()].concat())?;
        }
    }
    Ok(())
}

/// A set of which most is taken is an intset if only integers are left: which are left
/// is chance, so a set that was put right may be none where the reference's is.
fn match_encoding(pair: &mut Pair, who: Who, key: &[u8]) -> Result<(), Broken> {
    let encoding: &[&[u8]] = &[b"OBJECT", b"ENCODING", key];
    let wanted = pair.reference.ask(who, encoding)?;
    let found = pair.other.ask(who, encoding)?;
    if wanted == found || reply::text(&wanted) != Some(b"intset") {
        return Ok(());
    }
    let all = pair.reference.ask(who, &[b"SMEMBERS".as_slice(), key])?;
    let other = &mut pair.other;
    let until = reply::integer(&other.ask(who, &[b"PEXPIRETIME".as_slice(), key])?);
    other.ask(who, &[b"DEL".as_slice(), key])?;
    let members: Vec<&[u8]> = leaves(&all).into_iter().filter_map(reply::text).collect();
    other.ask(
        who,
        &[&[b"SADD".as_slice(), key], members.as_slice()].concat(),
    )?;
    if let Some(until @ 0..) = until {
        let until = until.to_string();
        other.ask(who, &[b"PEXPIREAT", key, until.as_bytes()])?;
    }
    Ok(())
}
