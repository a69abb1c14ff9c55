//! One reply out of the replies that every shard gave to one command without a key.
//!
//! A key counts only on the shard that the layout gives it to: during a reshard
//! there are copies on the new shards, and after it, until they are purged, on
//! the old ones. KEYS, SCAN and RANDOMKEY leave those out. (DBSIZE can't: the
//! shards count all they have.) With distribution `random` every key counts.
//!
//! ```text
//! SCAN's cursor     | the shard's own cursor, 50 bits | shard, 14 bits |    0: start, end
//! ```
//!
//! The cursor carries the shard, and nothing is kept between two calls. How many
//! shards there are does not change what a cursor means. 50 bits are enough for
//! any table that fits into memory; a larger cursor is an error, never cut off.

use std::sync::Arc;

use crate::resp::{
    Span, Value, array_elements, parse_value, write_array_header, write_bulk, write_error,
};
use crate::router::RESERVED_PREFIX;
use crate::router::commands::FanOut;
use crate::router::layout::{Layout, SHARDS_MAX};

use super::describe;
use super::script_store::FlushUnderWay;

/// Low bits of a SCAN cursor that say the shard.
const SHARD_BITS: u32 = 14;
const _: () = assert!(
    SHARDS_MAX == 1 << SHARD_BITS,
    "every shard has its own cursors"
);

/// A place in a SCAN over all shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanCursor {
    /// Position of the shard in its layout.
    pub shard: u16,
    /// The shard's own cursor.
    pub cursor: u64,
}

impl ScanCursor {
    /// Reads what a client sent, as leniently as Redis does (`strtoul`).
    pub fn parse(text: &[u8]) -> Option<Self> {
        let digits = text.strip_prefix(b"+").unwrap_or(text);
        let bits = match digits {
            [] => 0,
            [first, ..] if first.is_ascii_digit() => number(digits)?,
            _ => return None,
        };
        Some(Self {
            shard: (bits & (SHARDS_MAX as u64 - 1)) as u16,
            cursor: bits >> SHARD_BITS,
        })
    }

    /// The number for the client; `None` if the shard's cursor has no room.
    fn bits(self) -> Option<u64> {
        let high = self.cursor.checked_mul(SHARDS_MAX as u64)?;
        Some(high | u64::from(self.shard))
    }
}

/// Which keys count on which connection.
#[derive(Debug)]
pub struct Census {
    layout: Arc<Layout>,
    /// Of each shard: the first one that shares its connection.
    homes: Vec<u16>,
}

impl Census {
    pub fn new(layout: Arc<Layout>, homes: Vec<u16>) -> Self {
        Self { layout, homes }
    }

    /// The shard that is asked after `shard`.
    pub fn after(&self, shard: u16) -> Option<u16> {
        let asked = self
            .homes
            .iter()
            .enumerate()
            .map(|(at, home)| (at as u16, *home));
        asked
            .skip(usize::from(shard) + 1)
            .find_map(|(at, home)| (at == home).then_some(at))
    }

    fn counts(&self, key: &[u8], home: u16) -> bool {
        if key.starts_with(RESERVED_PREFIX) {
            return false;
        }
        !self.layout.is_deterministic()
            || self.homes.get(self.layout.owner(key).as_usize()) == Some(&home)
    }
}

/// See the head of this file.
#[derive(Debug)]
pub struct Gathered {
    /// What was asked.
    pub kind: FanOut,
    /// Which shard each part is of.
    pub parts: Vec<u16>,
    /// Which keys count.
    pub census: Census,
    /// Of the client who asked.
    pub protocol: u8,
    /// Chooses where any answer is as good as another.
    pub seed: u64,
    /// Scripts are forgotten meanwhile.
    pub flush: Option<FlushUnderWay>,
}

impl Gathered {
    /// Appends the whole reply; no part is an error. `None`: a part has another
    /// shape than was asked for.
    pub fn finish<'a>(
        &self,
        replies: impl Iterator<Item = &'a [u8]>,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let replies: Vec<&[u8]> = replies.collect();
        match self.kind {
            FanOut::Keys => self.keys(&replies, out),
            FanOut::RandomKey => self.random_key(&replies, out),
            FanOut::Scan => self.scan(&replies, out),
            FanOut::ScriptsExist => scripts_exist(&replies, out),
            FanOut::FunctionStats => function_stats(&replies, out),
            FanOut::Flush | FanOut::Scripts | FanOut::Functions | FanOut::AnyShard => {
                let first = replies.first()?;
                let all_alike = replies.iter().all(|reply| reply == first);
                all_alike.then(|| out.extend_from_slice(first))
            }
            FanOut::Size => size(&replies, out),
        }
    }

    fn keys(&self, replies: &[&[u8]], out: &mut Vec<u8>) -> Option<()> {
        let mut spans = Vec::new();
        let (mut kept, mut count) = (Vec::new(), 0);
        for (reply, &home) in replies.iter().zip(&self.parts) {
            array_elements(reply, &mut spans).ok()?;
            count += self.keep_own(reply, &spans, home, &mut kept)?;
        }
        write_array_header(out, count);
        out.extend_from_slice(&kept);
        Some(())
    }

    /// Appends the keys that count on the shard they came from; how many.
    fn keep_own(
        &self,
        reply: &[u8],
        spans: &[Span],
        home: u16,
        kept: &mut Vec<u8>,
    ) -> Option<usize> {
        let mut count = 0;
        for span in spans {
            let element = span.of(reply);
            if self.census.counts(bulk(element)?, home) {
                kept.extend_from_slice(element);
                count += 1;
            }
        }
        Some(count)
    }

    /// A copy that does not count is better than none: its key is somewhere. Keys of
    /// our own are none.
    fn random_key(&self, replies: &[&[u8]], out: &mut Vec<u8>) -> Option<()> {
        let mut found: Vec<(&[u8], bool)> = Vec::new();
        for (&reply, &home) in replies.iter().zip(&self.parts) {
            if is_null(reply) {
                continue;
            }
            let key = bulk(reply)?;
            if !key.starts_with(RESERVED_PREFIX) {
                found.push((reply, self.census.counts(key, home)));
            }
        }
        if found.iter().any(|(_, counts)| *counts) {
            found.retain(|(_, counts)| *counts);
        }
        let chosen = mixed(self.seed).checked_rem(found.len() as u64);
        match chosen.and_then(|at| found.get(at as usize)) {
            Some((reply, _)) => out.extend_from_slice(reply),
            None => describe::null(self.protocol, out),
        }
        Some(())
    }

    fn scan(&self, replies: &[&[u8]], out: &mut Vec<u8>) -> Option<()> {
        let (reply, &shard) = (replies.first()?, self.parts.first()?);
        let mut spans = Vec::new();
        array_elements(reply, &mut spans).ok()?;
        let [cursor, names] = spans.as_slice() else {
            return None;
        };
        let next = match number(bulk(cursor.of(reply))?)? {
            0 => self
                .census
                .after(shard)
                .map_or(Some(0), |shard| ScanCursor { shard, cursor: 0 }.bits()),
            cursor => ScanCursor { shard, cursor }.bits(),
        };
        let Some(next) = next else {
            write_error(
                out,
                "ERR a shard's cursor is too large to be told together with its shard; \
                 connect to that server",
            );
            return Some(());
        };
        let names = names.of(reply);
        let mut kept = Vec::new();
        array_elements(names, &mut spans).ok()?;
        let count = self.keep_own(names, &spans, shard, &mut kept)?;
        write_array_header(out, 2);
        write_bulk(out, next.to_string().as_bytes());
        write_array_header(out, count);
        out.extend_from_slice(&kept);
        Some(())
    }
}

fn size(replies: &[&[u8]], out: &mut Vec<u8>) -> Option<()> {
    let mut sum = 0_i64;
    for reply in replies {
        let Ok(Value::Integer(size)) = parse_value(reply) else {
            return None;
        };
        sum = sum.checked_add(size)?;
    }
    crate::resp::write_integer(out, sum);
    Some(())
}

/// A script exists when it exists on every shard.
fn scripts_exist(replies: &[&[u8]], out: &mut Vec<u8>) -> Option<()> {
    let mut everywhere: Option<Vec<Value>> = None;
    for reply in replies {
        let Ok(Value::Array(here)) = parse_value(reply) else {
            return None;
        };
        match &mut everywhere {
            None => everywhere = Some(here),
            Some(all) if all.len() == here.len() => {
                for (all, here) in all.iter_mut().zip(here) {
                    if here != Value::Integer(1) {
                        *all = here;
                    }
                }
            }
            Some(_) => return None,
        }
    }
    let all = everywhere?;
    write_array_header(out, all.len());
    for one in all {
        let Value::Integer(there) = one else {
            return None;
        };
        crate::resp::write_integer(out, there);
    }
    Some(())
}

/// The reply of the first shard that runs a function, else of the first.
fn function_stats(replies: &[&[u8]], out: &mut Vec<u8>) -> Option<()> {
    let runs = |reply: &&&[u8]| {
        let running = match parse_value(reply) {
            Ok(Value::Map(pairs)) => pairs.into_iter().next().map(|(_, value)| value),
            Ok(Value::Array(items)) => items.into_iter().nth(1),
            _ => None,
        };
        running.is_some_and(|running| running != Value::Null)
    };
    let reply = replies.iter().find(runs).or(replies.first())?;
    out.extend_from_slice(reply);
    Some(())
}

/// What a bulk string holds.
fn bulk(element: &[u8]) -> Option<&[u8]> {
    if element.first() != Some(&b'$') {
        return None;
    }
    let start = element.iter().position(|&byte| byte == b'\n')? + 1;
    element.get(start..element.len().checked_sub(2)?)
}

fn is_null(reply: &[u8]) -> bool {
    matches!(reply, b"$-1\r\n" | b"*-1\r\n" | b"_\r\n")
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The output step of SplitMix64: near seeds give far apart numbers.
fn mixed(seed: u64) -> u64 {
    let a = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let b = (a ^ (a >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let c = (b ^ (b >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    c ^ (c >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::spec::{LayoutSpec, ShardSpec};

    fn layout(shards: u16) -> Arc<Layout> {
        let shards = (1..=shards)
            .map(|port| ShardSpec::at(&format!("h:{port}").parse().unwrap()))
            .collect();
        let spec = LayoutSpec {
            shards,
            ..LayoutSpec::default()
        };
        Arc::new(Layout::new(spec).unwrap())
    }

    fn gathered(kind: FanOut, homes: &[u16], parts: &[u16]) -> Gathered {
        Gathered {
            kind,
            parts: parts.to_vec(),
            census: Census::new(layout(homes.len() as u16), homes.to_vec()),
            protocol: 2,
            seed: 1,
            flush: None,
        }
    }

    fn whole(gathered: &Gathered, replies: &[&[u8]]) -> Option<String> {
        let mut out = Vec::new();
        gathered.finish(replies.iter().copied(), &mut out)?;
        Some(String::from_utf8(out).unwrap())
    }

    /// A key of each shard of `layout(n)`.
    fn keys(shards: u16) -> Vec<String> {
        let layout = layout(shards);
        (0..shards)
            .map(|shard| {
                let mut names = (0..).map(|number| format!("k{number}"));
                let own = |name: &String| layout.owner(name.as_bytes()).0 == shard;
                names.find(own).unwrap()
            })
            .collect()
    }

    fn array(words: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        write_array_header(&mut out, words.len());
        words
            .iter()
            .for_each(|word| write_bulk(&mut out, word.as_bytes()));
        out
    }

    #[test]
    fn a_cursor_carries_its_shard_and_is_never_cut_off() {
        for (shard, cursor) in [(0, 0), (0, 1), (5, 0), (16_383, (1 << 50) - 1)] {
            let place = ScanCursor { shard, cursor };
            let text = place.bits().unwrap().to_string();
            assert_eq!(ScanCursor::parse(text.as_bytes()), Some(place), "{text}");
        }
        let large = ScanCursor {
            shard: 0,
            cursor: 1 << 50,
        };
        assert_eq!(large.bits(), None);
        for wrong in ["x", "-1", " 1", "1x", "18446744073709551616", "++1"] {
            assert_eq!(ScanCursor::parse(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(ScanCursor::parse(b""), ScanCursor::parse(b"0"));
        assert_eq!(ScanCursor::parse(b"+7"), ScanCursor::parse(b"7"));
    }

    #[test]
    fn copies_on_shards_that_do_not_own_them_do_not_count() {
        let names = keys(2);
        let [zero, one] = [names[0].as_str(), names[1].as_str()];
        let (first, second) = (array(&[zero, one]), array(&[one]));
        let keys = gathered(FanOut::Keys, &[0, 1], &[0, 1]);
        let both = String::from_utf8(array(&[zero, one])).unwrap();
        assert_eq!(whole(&keys, &[&first, &second]), Some(both));
        // Two names of one server: every key counts there.
        let keys = gathered(FanOut::Keys, &[0, 0], &[0]);
        let all = String::from_utf8(first.clone()).unwrap();
        assert_eq!(whole(&keys, &[&first]), Some(all));
    }

    #[test]
    fn a_scan_goes_from_shard_to_shard_and_ends_after_the_last() {
        let names = keys(3);
        // The second shard shares the connection of the first.
        let homes = [0, 0, 2];
        let reply = |cursor: &str, name: &str| {
            let mut out = Vec::new();
            write_array_header(&mut out, 2);
            write_bulk(&mut out, cursor.as_bytes());
            out.extend(array(&[name]));
            out
        };
        for (shard, from, to) in [
            (0, "9", 9 << 14),
            (0, "0", 2),
            (2, "7", 7 << 14 | 2),
            (2, "0", 0),
        ] {
            let scan = gathered(FanOut::Scan, &homes, &[shard]);
            let name = &names[usize::from(shard)];
            let expected = String::from_utf8(reply(&u64::to_string(&to), name)).unwrap();
            assert_eq!(whole(&scan, &[&reply(from, name)]), Some(expected));
        }
        let scan = gathered(FanOut::Scan, &homes, &[2]);
        let error = whole(&scan, &[&reply("1125899906842624", &names[2])]).unwrap();
        assert!(error.starts_with("-ERR a shard's cursor is too large"));
    }

    #[test]
    fn a_random_key_is_any_that_counts() {
        let names = keys(3);
        let reply = |name: &str| format!("${}\r\n{name}\r\n", name.len()).into_bytes();
        let [a, b] = [reply(&names[0]), reply(&names[1])];
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let ask = Gathered {
                seed,
                ..gathered(FanOut::RandomKey, &[0, 1, 2], &[0, 1, 2])
            };
            seen.insert(whole(&ask, &[&a, &b, b"$-1\r\n"]).unwrap());
            let ours = b"$12\r\n__keyferry:x\r\n";
            assert_eq!(whole(&ask, &[b"$-1\r\n", ours, ours]).unwrap(), "$-1\r\n");
            assert_eq!(whole(&ask, &[&a, ours, ours]).unwrap().as_bytes(), a);
            let ask = Gathered { protocol: 3, ..ask };
            assert_eq!(
                whole(&ask, &[b"_\r\n", b"_\r\n", b"_\r\n"]).unwrap(),
                "_\r\n"
            );
            // The copy on the second shard is not chosen while there is a better one.
            let only = whole(&ask, &[&a, &a, b"$-1\r\n"]).unwrap();
            assert_eq!(only.as_bytes(), a);
        }
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn a_script_exists_where_all_have_it() {
        let ask = gathered(FanOut::ScriptsExist, &[0, 1], &[0, 1]);
        let replies: [&[u8]; 2] = [b"*3\r\n:1\r\n:1\r\n:0\r\n", b"*3\r\n:1\r\n:0\r\n:1\r\n"];
        let expected = "*3\r\n:1\r\n:0\r\n:0\r\n".to_owned();
        assert_eq!(whole(&ask, &replies), Some(expected));
        assert_eq!(whole(&ask, &[b"*1\r\n:1\r\n", b"*0\r\n"]), None);
        let alike = gathered(FanOut::Scripts, &[0, 1], &[0, 1]);
        assert_eq!(
            whole(&alike, &[b"+OK\r\n", b"+OK\r\n"]),
            Some("+OK\r\n".into())
        );
        assert_eq!(whole(&alike, &[b"+OK\r\n", b":1\r\n"]), None);
    }
}
