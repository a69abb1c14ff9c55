//! Ranges by name. Redis promises nothing of them when a sorted set has several scores,
//! and a skiplist then answers by chance. Such a command is left out.

use super::line::{Line, upper};
use super::replay::{Clash, Pair};
use super::reply::{self, Raw, leaves};

/// True for a command that takes a range by name.
pub fn is_lexical(line: &Line) -> bool {
    match line.name().as_str() {
        "ZLEXCOUNT" | "ZRANGEBYLEX" | "ZREVRANGEBYLEX" | "ZREMRANGEBYLEX" => true,
        "ZRANGE" | "ZRANGESTORE" => {
            let mut words = line.words.iter();
            words.any(|word| upper(Some(word)) == "BYLEX")
        }
        _ => false,
    }
}

/// The reference's reply, if both are right; none if the command was left out.
pub fn compare(pair: &mut Pair, line: &Line) -> Result<Option<Raw>, Clash> {
    let at = if line.name() == "ZRANGESTORE" { 2 } else { 1 };
    if let Some(key) = line.words.get(at)
        && !has_order(pair, line, key)?
    {
        return Ok(None);
    }
    let wanted = pair.reference.ask(line.who, &line.words)?;
    let found = pair.other.ask(line.who, &line.words)?;
    match wanted == found {
        true => Ok(Some(wanted)),
        false => Err(Clash::of(&wanted, &found, "the replies differ")),
    }
}

/// A listpack is gone through from its begin; of a skiplist, all scores are the same
/// when the first and the last are.
fn has_order(pair: &mut Pair, line: &Line, key: &[u8]) -> Result<bool, Clash> {
    let side = &mut pair.reference;
    let encoding = side.ask(line.who, &[b"OBJECT", b"ENCODING".as_slice(), key])?;
    if reply::text(&encoding) != Some(b"skiplist") {
        return Ok(true);
    }
    let mut score = |rank: &[u8]| -> Result<Option<Raw>, Clash> {
        let words: [&[u8]; 5] = [b"ZRANGE", key, rank, rank, b"WITHSCORES"];
        let entry = side.ask(line.who, &words)?;
        Ok(leaves(&entry).last().map(|score| score.to_vec()))
    };
    Ok(score(b"0")? == score(b"-1")?)
}
