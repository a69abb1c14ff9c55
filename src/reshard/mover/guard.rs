//! Keeps volatile keys alive on targets for as long as we may lag behind their
//! source. Pure.
//!
//! A target is a master: it ends a key at its time. If the source renewed the key
//! before that time and we bring the renewal after it, the key is lost. So
//!
//! ```text
//! a time within the horizon     sent GUARD_MS later than it is      its name is remembered
//! a later one                   sent as it is                       in the far table, by hash
//! a command on a key of the far table whose time is within the horizon by now:
//!                               not sent, the key is read again (`pending`)
//! ```
//!
//! While a stream is taken up that was left, keys that targets were not found to
//! have count as such, too (`present`).
//!
//! The horizon is longer than a command can be under way, and shrinks:
//!
//! ```text
//! copying 1 h -> following 15 min -> prepared for a cut 2 s -> cut: none, all is exact
//! ```
//!
//! Whenever it does, the remembered keys' times are read from the source and set
//! at their place in the stream (`settle`): exact ones for those beyond the new
//! horizon. A preparation ends by itself when its number is not in force any more
//! (`Stance`); keys that were touched meanwhile, and would not have been sent
//! otherwise, are read again then, since a target may have been slower than 2 s.
//!
//! Nothing stays too long by it: a source sends DEL for each key that ends, and a
//! cut is not through before every time is exact.

mod recalled;
mod stance;

use std::collections::HashMap;

use bytes::Bytes;

use crate::planted::{self, Planted};
use crate::router::commands::ArgList;

use super::compare::State;
use super::config::{TARGET_PATIENCE_MS_MAX, TARGET_SILENCE_MS_MAX};
use super::far::{Far, Full};
use super::placement::TargetIndex;
use super::present::Present;
use super::route::{Args, copy_db};
use super::times::{Time, fields_end_at_ms, is};

pub(super) use recalled::Spoken;
pub(super) use stance::Stance;

/// How much later than its time a guarded key ends on its target.
pub(super) const GUARD_MS: i64 = 7 * 24 * 3_600_000;
/// While the copy is under way.
const COPYING_MS: i64 = 3_600_000;
/// While the source is followed: a target may be silent, and out of reach, for
/// minutes.
const FOLLOWING_MS: i64 = 900_000;
/// Before a cut.
pub(super) const PREPARED_MS: i64 = 2_000;
/// A command may be under way for this long once a cut is prepared.
pub(super) const PREPARED_LAG_MS_MAX: u64 = 1_000;
/// Keys remembered at most, for each source; later ones are counted, not guarded.
const GUARDED_KEYS_MAX: usize = 2_000_000;
/// Bytes of names remembered at most, for each source.
const GUARDED_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Keys touched during a preparation that are remembered.
const TOUCHED_KEYS_MAX: usize = 200_000;
/// Guarded keys whose times a cut sets at most: clients wait for it.
pub(super) const CUT_KEYS_MAX: usize = 2_000;

const _: () = assert!(
    FOLLOWING_MS as u64 > TARGET_SILENCE_MS_MAX + TARGET_PATIENCE_MS_MAX,
    "a lane is given up before a command on it can be as late as the horizon"
);
const _: () = assert!(
    PREPARED_MS as u64 >= 2 * PREPARED_LAG_MS_MAX,
    "two samples of the lag cover any command"
);

/// What the horizon shrinks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shrink {
    Following,
    /// By the preparation of this number.
    Prepared(u64),
}

/// Remembered keys.
pub(super) type Guarded = Vec<(u32, Bytes, TargetIndex)>;

/// What is to be done about a key's time on its target.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Exact {
    /// It is guarded and stays so.
    Kept,
    /// It is gone.
    Gone,
    /// It does not end.
    Endless,
    /// It ends then.
    At(i64),
}

/// When a command was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    /// Just now.
    Now,
    /// Some time ago: what it counts from now on is not known exactly.
    Before,
}

/// The guard of one source.
#[derive(Debug)]
pub(super) struct Guard {
    /// Whether anything is guarded.
    on: bool,
    horizon_ms: i64,
    stance: Stance,
    /// Number of the preparation that it takes part in; 0: none.
    prepared: u64,
    /// A cut was met: every time is sent as it is.
    cut: bool,
    names: HashMap<u32, HashMap<Bytes, TargetIndex>>,
    bytes: usize,
    keys_max: usize,
    far: Far,
    /// Of hashes, by the field that ends first.
    fields: Far,
    /// What targets have, while a stream is taken up that was left; `None` from the
    /// first settling on.
    present: Option<Present>,
    touched: Vec<(u32, Bytes)>,
    unguarded: u64,
}

impl Guard {
    pub(super) fn new(stance: Stance) -> Guard {
        Guard {
            on: true,
            horizon_ms: COPYING_MS,
            stance,
            prepared: 0,
            cut: false,
            names: HashMap::new(),
            bytes: 0,
            keys_max: GUARDED_KEYS_MAX,
            far: Far::new(),
            fields: Far::new(),
            present: None,
            touched: Vec::new(),
            unguarded: 0,
        }
    }

    /// The same, as it was in the beginning.
    pub(super) fn begin_anew(&mut self) {
        *self = Guard::new(self.stance.clone());
    }

    /// From now on nothing is guarded.
    pub(super) fn turn_off(&mut self) {
        self.begin_anew();
        self.on = false;
    }

    /// How many near expiry times were sent as they are, or are not known, for
    /// want of room.
    pub(super) fn unguarded(&self) -> u64 {
        self.unguarded
    }

    /// How many keys are guarded.
    pub(super) fn count(&self) -> usize {
        self.names.values().map(HashMap::len).sum()
    }

    /// Whether it takes part in a preparation.
    pub(super) fn is_prepared(&self) -> bool {
        self.prepared != 0
    }

    /// Whether the key ends later on its target than it says.
    pub(super) fn guards(&self, db: u32, key: &[u8]) -> bool {
        self.names
            .get(&db)
            .is_some_and(|names| names.contains_key(key))
    }

    /// All of them.
    pub(super) fn guarded(&self) -> Guarded {
        let of_db = |(db, names): (&u32, &HashMap<Bytes, TargetIndex>)| {
            let db = *db;
            let keys = names.iter().map(move |(key, to)| (db, key.clone(), *to));
            keys.collect::<Vec<_>>()
        };
        self.names.iter().flat_map(of_db).collect()
    }

    /// Shrinks the horizon; the keys whose times are to be read.
    pub(super) fn shrink(&mut self, to: Shrink) -> Guarded {
        match to {
            Shrink::Following => {
                self.horizon_ms = FOLLOWING_MS;
                // What ended while nobody followed was either touched since, and read
                // again, or has ended on the source, too.
                self.present = None;
            }
            Shrink::Prepared(number) if self.stance.in_force() == number => self.prepared = number,
            // It was taken back meanwhile.
            Shrink::Prepared(_) => return Guarded::new(),
        }
        self.guarded()
    }

    /// A cut was met, or is over.
    pub(super) fn set_cut(&mut self, cut: bool) {
        self.cut = cut;
    }

    /// After a preparation that is not in force any more: the keys to be read again.
    pub(super) fn relaxed(&mut self) -> Vec<(u32, Bytes)> {
        if self.prepared == 0 || self.stance.in_force() == self.prepared {
            return Vec::new();
        }
        self.prepared = 0;
        std::mem::take(&mut self.touched)
    }

    fn horizon_ms(&self) -> i64 {
        match (self.cut, self.prepared) {
            (true, _) => 0,
            (_, 0) => self.horizon_ms,
            _ => PREPARED_MS,
        }
    }

    /// Whether a target may have ended the key before a command on it arrives.
    pub(super) fn is_ending(&self, db: u32, key: &[u8], now_ms: impl Fn() -> i64) -> bool {
        if self
            .present
            .as_ref()
            .is_some_and(|known| !known.has(db, key))
        {
            return true;
        }
        let margin_ms = self.horizon_ms().max(PREPARED_MS);
        let of_key = self.far.get(db, key);
        let first = of_key.into_iter().chain(self.fields.get(db, key)).min();
        first.is_some_and(|at| at < now_ms().saturating_add(margin_ms))
    }

    /// The time to send for a key that is brought as a whole.
    pub(super) fn time_of(
        &mut self,
        (db, key): (u32, &[u8]),
        target: TargetIndex,
        at_ms: Option<i64>,
        now_ms: i64,
    ) -> Option<i64> {
        self.forget(db, key);
        self.arrives(db, key);
        at_ms.map(|at| self.guarded_time((db, key), target, at, now_ms))
    }

    /// The same for a time that is sent with its key's name.
    fn guarded_time(
        &mut self,
        (db, key): (u32, &[u8]),
        target: TargetIndex,
        at_ms: i64,
        now_ms: i64,
    ) -> i64 {
        if !self.on {
            return at_ms;
        }
        let near = at_ms.saturating_sub(now_ms) < self.horizon_ms();
        if near && planted::is_on(Planted::GuardSkipped) {
            return at_ms;
        }
        if near && !self.cut && self.remember(db, key, target) {
            self.far.forget(db, key);
            return at_ms.saturating_add(GUARD_MS);
        }
        self.forget_time(db, key);
        self.know(db, key, at_ms);
        at_ms
    }

    fn know(&mut self, db: u32, key: &[u8], at_ms: i64) {
        if let Err(Full) = self.far.set(db, key, at_ms) {
            self.unguarded += 1;
        }
    }

    /// Fields of the key end then, or sooner: its target has their exact times.
    pub(super) fn fields_end(&mut self, db: u32, key: &[u8], at_ms: i64) {
        if self.on && self.fields.set_soonest(db, key, at_ms) == Err(Full) {
            self.unguarded += 1;
        }
    }

    /// What its target has of the key is what the stream says of it.
    fn arrives(&mut self, db: u32, key: &[u8]) {
        if let Some(present) = &mut self.present {
            present.add(db, key);
        }
    }

    /// The key is gone, or does not end any more.
    pub(super) fn forget(&mut self, db: u32, key: &[u8]) {
        self.forget_time(db, key);
        self.fields.forget(db, key);
    }

    /// The key itself does not end any more.
    fn forget_time(&mut self, db: u32, key: &[u8]) {
        self.far.forget(db, key);
        if let Some(names) = self.names.get_mut(&db)
            && names.remove(key).is_some()
        {
            self.bytes -= key.len();
        }
    }

    /// The arguments to send instead of a command of the stream, if others; what
    /// it does to times is noted. Its keys are `keys`, all for `target`.
    pub(super) fn rewrite(
        &mut self,
        db: u32,
        target: TargetIndex,
        args: Args<'_>,
        given: Given,
        now_ms: impl Fn() -> i64,
    ) -> Option<Vec<Vec<u8>>> {
        if !self.on {
            return None;
        }
        let key = args.arg(1);
        self.arrives(db, key);
        if self.prepared != 0 {
            for index in 1..args.len() {
                self.touch(db, args.arg(index), &now_ms);
            }
        }
        let Some(time) = Time::find(args) else {
            self.note(db, target, args, &now_ms);
            return None;
        };
        let at_ms = time.at_ms(args, &now_ms)?;
        let sent_ms = if given == Given::Before && !time.absolute && !self.cut {
            // Set right when the horizon shrinks.
            match self.remember(db, key, target) {
                true => at_ms.saturating_add(GUARD_MS),
                false => at_ms,
            }
        } else {
            self.guarded_time((db, key), target, at_ms, now_ms())
        };
        let same = sent_ms == at_ms && !time.is_of_the_source(args);
        (!same).then(|| time.with(args, sent_ms))
    }

    /// What a command without a time does to those of its keys.
    fn note(&mut self, db: u32, target: TargetIndex, args: Args<'_>, now_ms: impl Fn() -> i64) {
        let name = args.arg(0);
        let key = args.arg(1);
        if let Some(at_ms) = fields_end_at_ms(args, now_ms) {
            self.fields_end(db, key, at_ms);
            return;
        }
        if self.names.is_empty() && self.far.is_empty() && self.fields.is_empty() {
            return;
        }
        let one = |names: &[&[u8]]| names.iter().any(|other| is(name, other));
        if one(&[b"del", b"unlink"]) {
            for index in 1..args.len() {
                self.forget(db, args.arg(index));
            }
        } else if is(name, b"persist") {
            self.forget_time(db, key);
        } else if one(&[b"restore", b"restore-asking"]) {
            self.forget(db, key);
        } else if is(name, b"set") {
            if !(3..args.len()).any(|at| is(args.arg(at), b"keepttl")) {
                self.forget(db, key);
            }
        } else if one(&[b"rename", b"renamenx"]) {
            self.follow((db, key), (db, args.arg(2)), target);
            self.forget(db, key);
        } else if is(name, b"copy") {
            let to_db = copy_db(args).unwrap_or(db);
            self.follow((db, key), (to_db, args.arg(2)), target);
        } else if is(name, b"move") {
            let number = std::str::from_utf8(args.arg(2)).ok();
            if let Some(to_db) = number.and_then(|text| text.parse().ok()) {
                self.follow((db, key), (to_db, key), target);
                self.forget(db, key);
            }
        }
    }

    /// A copy has the time of its original.
    fn follow(&mut self, from: (u32, &[u8]), to: (u32, &[u8]), target: TargetIndex) {
        if from == to {
            return;
        }
        self.forget(to.0, to.1);
        if self.guards(from.0, from.1) {
            self.remember(to.0, to.1, target);
        } else if let Some(at_ms) = self.far.get(from.0, from.1) {
            self.know(to.0, to.1, at_ms);
        }
        if let Some(at_ms) = self.fields.get(from.0, from.1) {
            self.fields_end(to.0, to.1, at_ms);
        }
    }

    /// A command on the key is sent that would not have been without a preparation.
    fn touch(&mut self, db: u32, key: &[u8], now_ms: impl Fn() -> i64) {
        let of_key = self.far.get(db, key);
        let Some(at_ms) = of_key.into_iter().chain(self.fields.get(db, key)).min() else {
            return;
        };
        if at_ms >= now_ms().saturating_add(self.horizon_ms) {
            return;
        }
        if self.touched.len() < TOUCHED_KEYS_MAX {
            self.touched.push((db, Bytes::copy_from_slice(key)));
        } else {
            self.unguarded += 1;
        }
    }

    fn remember(&mut self, db: u32, key: &[u8], target: TargetIndex) -> bool {
        if self.guards(db, key) {
            return true;
        }
        let room = self.count() < self.keys_max && self.bytes < GUARDED_BYTES_MAX;
        if room {
            self.bytes += key.len();
            let names = self.names.entry(db).or_default();
            names.insert(Bytes::copy_from_slice(key), target);
        } else {
            self.unguarded += 1;
        }
        room
    }

    /// What to do about a key that has been read from the source.
    pub(super) fn settle(
        &mut self,
        (db, key): (u32, &[u8]),
        at_source: &State,
        now_ms: i64,
    ) -> Exact {
        match at_source {
            State::Missing => {
                self.forget(db, key);
                Exact::Gone
            }
            State::Here {
                expires_at_ms: None,
                ..
            } => {
                self.forget_time(db, key);
                Exact::Endless
            }
            State::Here {
                expires_at_ms: Some(at),
                ..
            } => {
                let near = at.saturating_sub(now_ms) < self.horizon_ms();
                if near && !self.cut && self.guards(db, key) {
                    return Exact::Kept;
                }
                self.forget_time(db, key);
                self.know(db, key, *at);
                Exact::At(*at)
            }
        }
    }
}

#[cfg(test)]
mod tests;
