//! The texts of scripts that clients sent through a pool, by their SHA-1.
//!
//! ```text
//!   SCRIPT LOAD ------------------------> loaded     kept rather than the others
//!   EVAL -------> evaluated --- EVALSHA ----^
//! ```
//!
//! The workers of a pool share it. Its lock is taken when a worker meets a text
//! that is not among its latest, and when an EVALSHA is the first one of its
//! script on a connection; never for a script that is in use already.
//!
//! Invariants
//! - Each of the two shelves has at most [`SHELF_SCRIPTS_MAX`] texts of together
//!   at most [`SHELF_BYTES_MAX`] bytes; the oldest goes first. A text that was
//!   evaluated once never drives out one that was loaded.
//! - What a SCRIPT FLUSH forgot is not known again until a client sends it again.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Texts of one shelf.
pub const SHELF_SCRIPTS_MAX: usize = 2048;
/// Bytes of the texts of one shelf.
pub const SHELF_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A longer text is not kept.
pub const SCRIPT_BYTES_MAX: usize = 512 * 1024;

const _: () = assert!(SCRIPT_BYTES_MAX <= SHELF_BYTES_MAX);

/// The name that Redis gives to a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha([u8; 20]);

impl Sha {
    /// Of a text.
    pub fn of(text: &[u8]) -> Self {
        Self(sha1_smol::Sha1::from(text).digest().bytes())
    }

    /// As EVALSHA has it: 40 hexadecimal digits of any case.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text: &[u8; 40] = text.try_into().ok()?;
        let mut bytes = [0; 20];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self(bytes))
    }
}

fn digit(letter: u8) -> Option<u8> {
    char::from(letter).to_digit(16).map(|digit| digit as u8)
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct ScriptStore {
    shelves: Mutex<Shelves>,
    additions: AtomicU64,
    losses: AtomicU64,
    flushes: AtomicU64,
}

#[derive(Debug, Default)]
struct Shelves {
    loaded: Shelf,
    evaluated: Shelf,
}

#[derive(Debug, Default)]
struct Shelf {
    texts: HashMap<Sha, Arc<[u8]>>,
    /// Oldest first; the keys of `texts`.
    order: VecDeque<Sha>,
    bytes: usize,
}

impl Shelf {
    /// How many had to go.
    fn add(&mut self, sha: Sha, text: Arc<[u8]>) -> u64 {
        self.bytes += text.len();
        if let Some(same) = self.texts.insert(sha, text) {
            self.bytes -= same.len();
            return 0;
        }
        self.order.push_back(sha);
        let mut gone = 0;
        while self.texts.len() > SHELF_SCRIPTS_MAX || self.bytes > SHELF_BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            self.bytes -= self.texts.remove(&oldest).map_or(0, |text| text.len());
            gone += 1;
        }
        gone
    }

    fn take(&mut self, sha: &Sha) -> Option<Arc<[u8]>> {
        let text = self.texts.remove(sha)?;
        self.bytes -= text.len();
        self.order.retain(|known| known != sha);
        Some(text)
    }
}

impl ScriptStore {
    fn lock(&self) -> MutexGuard<'_, Shelves> {
        // A shelf is whole between its methods.
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often a text was added that was not there.
    pub fn additions(&self) -> u64 {
        self.additions.load(Ordering::Acquire)
    }

    /// How often texts went that were there.
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::Acquire)
    }

    /// How often the shards were told to forget all scripts.
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Acquire)
    }

    /// A client loads this text.
    pub fn load(&self, sha: Sha, text: &Arc<[u8]>) {
        let mut shelves = self.lock();
        shelves.evaluated.take(&sha);
        if !shelves.loaded.texts.contains_key(&sha) {
            let gone = shelves.loaded.add(sha, Arc::clone(text));
            self.losses.fetch_add(gone, Ordering::Release);
            self.additions.fetch_add(1, Ordering::Release);
        }
    }

    /// A client evaluates this text.
    pub fn evaluate(&self, sha: Sha, text: &Arc<[u8]>) {
        let mut shelves = self.lock();
        let is_known = [&shelves.loaded, &shelves.evaluated]
            .iter()
            .any(|shelf| shelf.texts.contains_key(&sha));
        if !is_known {
            let gone = shelves.evaluated.add(sha, Arc::clone(text));
            self.losses.fetch_add(gone, Ordering::Release);
            self.additions.fetch_add(1, Ordering::Release);
        }
    }

    /// The text of a script that a client calls by its name.
    pub fn text(&self, sha: &Sha) -> Option<Arc<[u8]>> {
        let mut shelves = self.lock();
        if let Some(text) = shelves.loaded.texts.get(sha) {
            return Some(Arc::clone(text));
        }
        let text = shelves.evaluated.take(sha)?;
        let gone = shelves.loaded.add(*sha, Arc::clone(&text));
        self.losses.fetch_add(gone, Ordering::Release);
        Some(text)
    }

    /// Forgets all texts, as the shards are about to.
    fn flush(&self) {
        let mut shelves = self.lock();
        *shelves = Shelves::default();
        self.losses.fetch_add(1, Ordering::Release);
        self.flushes.fetch_add(1, Ordering::Release);
    }
}

/// A SCRIPT FLUSH that the shards have not all answered.
///
/// What is loaded on one of them in the meantime may be forgotten by it or not.
/// So it counts as not loaded once more when this is dropped.
#[derive(Debug)]
pub struct FlushUnderWay(Arc<ScriptStore>);

impl FlushUnderWay {
    /// Begins one.
    pub fn begin(store: &Arc<ScriptStore>) -> Self {
        store.flush();
        Self(Arc::clone(store))
    }
}

impl Drop for FlushUnderWay {
    fn drop(&mut self) {
        self.0.flushes.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A script of so many bytes.
    fn text(number: usize, bytes: usize) -> Arc<[u8]> {
        let mut text = format!("return {number}").into_bytes();
        text.resize(bytes, b' ');
        text.into()
    }

    fn has(store: &ScriptStore, text: &Arc<[u8]>) -> bool {
        let shelves = store.lock();
        let sha = Sha::of(text);
        shelves.loaded.texts.contains_key(&sha) || shelves.evaluated.texts.contains_key(&sha)
    }

    #[test]
    fn names_are_those_of_redis() {
        let named = Sha::parse(b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        assert_eq!(named, Some(Sha::of(b"return 1")));
        assert_eq!(
            named,
            Sha::parse(b"E0E1F9FABFC9D4800C877A703B823AC0578FF8DB")
        );
        for wrong in ["", "e0e1", &"g".repeat(40), &"0".repeat(41)] {
            assert_eq!(Sha::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn neither_texts_nor_bytes_grow_without_bound_and_loaded_ones_stay() {
        let store = ScriptStore::default();
        let (loaded, called) = (text(1, 20), text(2, 20));
        store.load(Sha::of(&loaded), &loaded);
        store.evaluate(Sha::of(&called), &called);
        assert_eq!(store.text(&Sha::of(&called)).as_ref(), Some(&called));
        let first = text(10, 20);
        for number in 10..10 + SHELF_SCRIPTS_MAX {
            let text = text(number, 20);
            store.evaluate(Sha::of(&text), &text);
            store.evaluate(Sha::of(&text), &text);
        }
        assert!(has(&store, &first));
        assert_eq!((store.losses(), store.additions()), (0, 2050));
        for number in 0..100 {
            let text = text(number, SCRIPT_BYTES_MAX);
            store.evaluate(Sha::of(&text), &text);
        }
        let shelves = store.lock();
        let evaluated = &shelves.evaluated;
        assert_eq!(evaluated.texts.len(), SHELF_BYTES_MAX / SCRIPT_BYTES_MAX);
        assert_eq!(evaluated.order.len(), evaluated.texts.len());
        let bytes: usize = evaluated.texts.values().map(|text| text.len()).sum();
        assert_eq!((evaluated.bytes, bytes), (SHELF_BYTES_MAX, SHELF_BYTES_MAX));
        drop(shelves);
        assert!(!has(&store, &first) && has(&store, &loaded) && has(&store, &called));
        assert!(store.losses() > 2048);
    }

    #[test]
    fn a_flush_counts_when_it_begins_and_when_it_ends() {
        let store = Arc::new(ScriptStore::default());
        let text = text(1, 20);
        store.load(Sha::of(&text), &text);
        let flush = FlushUnderWay::begin(&store);
        assert!(!has(&store, &text));
        assert_eq!(store.flushes(), 1);
        store.evaluate(Sha::of(&text), &text);
        drop(flush);
        assert_eq!(store.flushes(), 2);
        assert!(has(&store, &text));
    }
}
