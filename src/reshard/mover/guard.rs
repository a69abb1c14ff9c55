//! Keeps volatile keys alive on targets while we lag behind their source. Pure.
//!
//! A target is a master: it ends a key at its time. If the source renewed the
//! key before that time and we bring the renewal after it, the key is lost. So
//! until the source is followed closely, expiry times that are near are sent
//! `GUARD_MS` later than they are, and the key is remembered:
//!
//! ```text
//! lagging:    SET k v PXAT t   -->  SET k v PXAT t+GUARD      remember k
//! followed:   settle (`settle`): PEXPIREAT k with the source's time, for all remembered
//! ```
//!
//! Nothing stays too long by it: a source sends DEL for each key that ends.

use std::collections::HashMap;

use crate::router::commands::ArgList;

use super::placement::TargetIndex;
use super::route::Args;

/// How much later than its time a guarded key ends on its target.
pub(super) const GUARD_MS: i64 = 7 * 24 * 3_600_000;
/// Times further away than this are safe without a guard: no lag is as long.
const HORIZON_MS: i64 = 3_600_000;
/// Keys remembered at most, for each source; later ones are counted, not guarded.
const GUARDED_KEYS_MAX: usize = 2_000_000;
/// Bytes of names remembered at most, for each source.
const GUARDED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// (database, key) -> target.
pub(super) type Guarded = HashMap<(u32, Box<[u8]>), TargetIndex>;

/// The guard of one source.
#[derive(Debug)]
pub(super) struct Guard {
    active: bool,
    keys: Guarded,
    keys_max: usize,
    bytes: usize,
    unguarded: u64,
}

/// How an expiry time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Time {
    /// Which argument it is.
    index: usize,
    /// Milliseconds in its unit.
    unit_ms: i64,
    /// Unix time, or from now.
    absolute: bool,
}

impl Guard {
    pub(super) fn new() -> Guard {
        Guard {
            active: true,
            keys: HashMap::new(),
            keys_max: GUARDED_KEYS_MAX,
            bytes: 0,
            unguarded: 0,
        }
    }

    /// How many near expiry times were sent as they are, for want of room to
    /// remember their keys.
    pub(super) fn unguarded(&self) -> u64 {
        self.unguarded
    }

    /// Whether the key ends later on its target than it says.
    pub(super) fn guards(&self, db: u32, key: &[u8]) -> bool {
        !self.keys.is_empty() && self.keys.contains_key(&(db, Box::from(key)))
    }

    /// Ends the guard; what it remembered is to be settled.
    pub(super) fn lift(&mut self) -> Guarded {
        self.active = false;
        self.bytes = 0;
        std::mem::take(&mut self.keys)
    }

    /// Takes a key that an earlier run may have guarded.
    pub(super) fn recall(&mut self, db: u32, key: &[u8], target: TargetIndex) {
        self.remember(db, key, target);
    }

    /// The time to send for a key of the snapshot.
    pub(super) fn snapshot_time(
        &mut self,
        db: u32,
        key: &[u8],
        target: TargetIndex,
        at_ms: i64,
        now_ms: i64,
    ) -> i64 {
        let near = at_ms.saturating_sub(now_ms) < HORIZON_MS;
        if near && self.remember(db, key, target) {
            return at_ms.saturating_add(GUARD_MS);
        }
        at_ms
    }

    /// The arguments to send instead of a command of the stream, if others.
    pub(super) fn rewrite(
        &mut self,
        db: u32,
        target: TargetIndex,
        args: Args<'_>,
        now_ms: impl Fn() -> i64,
    ) -> Option<Vec<Vec<u8>>> {
        if !self.active {
            return None;
        }
        self.follow_copies(db, target, args);
        let time = find_time(args)?;
        let number: i64 = std::str::from_utf8(args.arg(time.index))
            .ok()?
            .parse()
            .ok()?;
        let stated_ms = number.checked_mul(time.unit_ms)?;
        let left_ms = if time.absolute {
            stated_ms.saturating_sub(now_ms())
        } else {
            stated_ms
        };
        if left_ms >= HORIZON_MS || !self.remember(db, args.arg(1), target) {
            return None;
        }
        let later = number.saturating_add(GUARD_MS / time.unit_ms).to_string();
        // NX, XX, GT and LT compare with a time that is not the source's: it has
        // decided already, so they are left out.
        let count = if is_expire(args.arg(0)) {
            3
        } else {
            args.len()
        };
        let arg = |index: usize| match index == time.index {
            true => later.clone().into_bytes(),
            false => args.arg(index).to_vec(),
        };
        Some((0..count).map(arg).collect())
    }

    fn remember(&mut self, db: u32, key: &[u8], target: TargetIndex) -> bool {
        if !self.active {
            return false;
        }
        let id = (db, Box::from(key));
        if self.keys.contains_key(&id) {
            return true;
        }
        let room = self.keys.len() < self.keys_max && self.bytes < GUARDED_BYTES_MAX;
        if room {
            self.bytes += key.len();
            self.keys.insert(id, target);
        } else {
            self.unguarded += 1;
        }
        room
    }

    /// A copy has the guarded time of its original.
    fn follow_copies(&mut self, db: u32, target: TargetIndex, args: Args<'_>) {
        let name = args.arg(0);
        let number = |index: usize| -> Option<u32> {
            std::str::from_utf8(args.arg(index)).ok()?.parse().ok()
        };
        let (to_db, to_key) = if name.eq_ignore_ascii_case(b"move") {
            (number(2), args.arg(1))
        } else if name.eq_ignore_ascii_case(b"copy") {
            let has_db = args.arg(3).eq_ignore_ascii_case(b"db");
            let replaced = args.arg(4).eq_ignore_ascii_case(b"db");
            let to_db = match (has_db, replaced) {
                (true, _) => number(4),
                (_, true) => number(5),
                _ => Some(db),
            };
            (to_db, args.arg(2))
        } else if name.eq_ignore_ascii_case(b"rename") || name.eq_ignore_ascii_case(b"renamenx") {
            (Some(db), args.arg(2))
        } else {
            return;
        };
        if self.keys.contains_key(&(db, Box::from(args.arg(1)))) {
            self.remember(to_db.unwrap_or(db), to_key, target);
        }
    }
}

fn is_expire(name: &[u8]) -> bool {
    [&b"pexpireat"[..], b"expireat", b"pexpire", b"expire"]
        .iter()
        .any(|expire| name.eq_ignore_ascii_case(expire))
}

/// Where a command says when its first key ends.
fn find_time(args: Args<'_>) -> Option<Time> {
    let time = |index, unit_ms, absolute| {
        Some(Time {
            index,
            unit_ms,
            absolute,
        })
    };
    let name = args.arg(0).to_ascii_lowercase();
    match name.as_slice() {
        b"pexpireat" => time(2, 1, true),
        b"expireat" => time(2, 1000, true),
        b"pexpire" => time(2, 1, false),
        b"expire" => time(2, 1000, false),
        b"psetex" => time(2, 1, false),
        b"setex" => time(2, 1000, false),
        b"set" => {
            (3..args.len()).find_map(|at| match args.arg(at).to_ascii_lowercase().as_slice() {
                b"pxat" => time(at + 1, 1, true),
                b"exat" => time(at + 1, 1000, true),
                b"px" => time(at + 1, 1, false),
                b"ex" => time(at + 1, 1000, false),
                _ => None,
            })
        }
        b"restore" if args.arg(2) != b"0" => {
            let absolute = (4..args.len()).any(|at| args.arg(at).eq_ignore_ascii_case(b"absttl"));
            time(2, 1, absolute)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::{RequestLimits, RequestScanner, write_command};

    const NOW: i64 = 1_000_000_000_000;
    const TARGET: TargetIndex = TargetIndex(1);

    fn rewrite(guard: &mut Guard, words: &[&str]) -> Option<String> {
        let mut bytes = Vec::new();
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        write_command(&mut bytes, &words);
        let mut scanner = RequestScanner::new(RequestLimits::default());
        let request = scanner.scan(&bytes).unwrap().unwrap();
        let args = Args {
            bytes: request.bytes,
            spans: request.args,
        };
        let args = guard.rewrite(0, TARGET, args, || NOW)?;
        Some(String::from_utf8(args.join(&b' ')).unwrap())
    }

    #[test]
    fn near_times_are_sent_later_and_their_keys_remembered() {
        let mut guard = Guard::new();
        let soon = (NOW + 5000).to_string();
        let later = (NOW + 5000 + GUARD_MS).to_string();
        for (words, expected) in [
            (
                vec!["SET", "a", "v", "PXAT", &soon],
                format!("SET a v PXAT {later}"),
            ),
            (
                vec!["PEXPIREAT", "b", &soon, "GT"],
                format!("PEXPIREAT b {later}"),
            ),
            (
                vec!["setex", "c", "5", "v"],
                format!("setex c {} v", 5 + GUARD_MS / 1000),
            ),
            (
                vec!["RESTORE", "d", &soon, "x", "ABSTTL"],
                format!("RESTORE d {later} x ABSTTL"),
            ),
        ] {
            assert_eq!(rewrite(&mut guard, &words), Some(expected));
        }
        assert_eq!(rewrite(&mut guard, &["RENAME", "a", "e"]), None);
        assert_eq!(
            rewrite(&mut guard, &["COPY", "b", "f", "REPLACE", "DB", "3"]),
            None
        );
        let keys = guard.lift();
        let mut names: Vec<(u32, &[u8])> = keys.keys().map(|(db, key)| (*db, &key[..])).collect();
        names.sort();
        assert_eq!(
            names,
            [
                (0, &b"a"[..]),
                (0, b"b"),
                (0, b"c"),
                (0, b"d"),
                (0, b"e"),
                (3, b"f")
            ]
        );
    }

    #[test]
    fn the_rest_is_sent_as_it_is() {
        let mut guard = Guard::new();
        let far = (NOW + HORIZON_MS).to_string();
        for words in [
            vec!["SET", "k", "v"],
            vec!["SET", "k", "px", "KEEPTTL"],
            vec!["PEXPIREAT", "k", &far],
            vec!["RESTORE", "k", "0", "x"],
            vec!["INCR", "k"],
        ] {
            assert_eq!(rewrite(&mut guard, &words), None, "{words:?}");
        }
        assert!(guard.lift().is_empty());
        let soon = (NOW + 1).to_string();
        assert_eq!(
            rewrite(&mut guard, &["PEXPIREAT", "k", &soon]),
            None,
            "the guard is lifted"
        );
    }

    #[test]
    fn what_finds_no_room_is_sent_as_it_is_and_counted() {
        let mut guard = Guard::new();
        guard.keys_max = 1;
        let soon = (NOW + 5000).to_string();
        assert!(rewrite(&mut guard, &["PEXPIREAT", "a", &soon]).is_some());
        assert!(rewrite(&mut guard, &["PEXPIREAT", "a", &soon]).is_some());
        assert_eq!(guard.unguarded(), 0);
        assert_eq!(rewrite(&mut guard, &["PEXPIREAT", "b", &soon]), None);
        assert_eq!(guard.snapshot_time(0, b"c", TARGET, NOW, NOW), NOW);
        assert_eq!(guard.unguarded(), 2);
        guard.lift();
        assert_eq!(rewrite(&mut guard, &["PEXPIREAT", "d", &soon]), None);
        assert_eq!(guard.unguarded(), 2, "the guard is lifted");
    }

    #[test]
    fn a_snapshot_key_that_ended_is_still_sent() {
        let mut guard = Guard::new();
        let sent = guard.snapshot_time(0, b"k", TARGET, NOW - 50, NOW);
        assert_eq!(sent, NOW - 50 + GUARD_MS);
        assert_eq!(guard.lift().len(), 1);
    }
}
