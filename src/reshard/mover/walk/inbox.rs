//! What a listener heard and the worker has not dealt with: changed keys, each
//! once, and markers, in the order in which the source told them.
//!
//! ```text
//! listener --changed(k)--> | k1 k2 M k3 | --take--> k1 k2, then M, then k3
//! ```
//!
//! A key that waits already is not added again: it is read after it was taken,
//! so later than any change told before that. Invariant: a marker is taken only
//! after all keys that were told before it; past the bound nothing is kept, and
//! the loss is told.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::super::marker::Expected;

/// Changed keys that may wait for one source.
const WAITING_KEYS_MAX: usize = 1_000_000;
/// Bytes of their names.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A key in its database.
pub(super) type KeyIn = (u32, Bytes);

#[derive(Debug)]
enum Item {
    Key(KeyIn),
    Marker(Expected),
}

/// What is next.
#[derive(Debug)]
pub(super) enum Taken {
    /// Nothing waits.
    Nothing,
    /// Keys that changed, not more than were asked for.
    Keys(Vec<KeyIn>),
    /// A marker; everything before it was taken.
    Marker(Expected),
    /// Not all was heard, for this reason: nothing that follows is whole.
    Lost(String),
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Item>,
    waiting: HashSet<KeyIn>,
    bytes: usize,
    lost: Option<String>,
}

/// Shared by the listener and the worker.
#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    news: Notify,
    keys_max: usize,
}

impl Inbox {
    pub(super) fn new() -> Inbox {
        Inbox {
            state: Mutex::default(),
            news: Notify::new(),
            keys_max: WAITING_KEYS_MAX,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Empty again, and whole.
    pub(super) fn begin_anew(&self) {
        *self.state() = State::default();
    }

    /// A key changed.
    pub(super) fn changed(&self, key: KeyIn) {
        let mut state = self.state();
        if state.lost.is_some() || state.waiting.contains(&key) {
            return;
        }
        if state.waiting.len() >= self.keys_max || state.bytes >= WAITING_BYTES_MAX {
            let why = format!("more than {} changed keys waited", state.waiting.len());
            drop(state);
            self.lose(why);
            return;
        }
        state.bytes += key.1.len();
        state.waiting.insert(key.clone());
        state.queue.push_back(Item::Key(key));
        self.news.notify_one();
    }

    /// A marker was seen.
    pub(super) fn marked(&self, marker: Expected) {
        let mut state = self.state();
        if state.lost.is_none() {
            state.queue.push_back(Item::Marker(marker));
        }
        self.news.notify_one();
    }

    /// From here on nothing is heard, or something was not. Whoever waits for a
    /// marker that was kept is told by the end of its channel.
    pub(super) fn lose(&self, why: String) {
        let mut state = self.state();
        if state.lost.is_none() {
            *state = State {
                lost: Some(why),
                ..State::default()
            };
        }
        self.news.notify_one();
    }

    /// What is next, at most `keys_max` keys.
    pub(super) fn take(&self, keys_max: usize) -> Taken {
        let mut state = self.state();
        if let Some(why) = &state.lost {
            return Taken::Lost(why.clone());
        }
        let mut keys = Vec::new();
        while keys.len() < keys_max {
            match state.queue.pop_front() {
                Some(Item::Key(key)) => {
                    // Before it is read: what is told from here on counts anew.
                    state.waiting.remove(&key);
                    state.bytes = state.bytes.saturating_sub(key.1.len());
                    keys.push(key);
                }
                Some(Item::Marker(marker)) if keys.is_empty() => return Taken::Marker(marker),
                Some(marker) => {
                    state.queue.push_front(marker);
                    break;
                }
                None => break,
            }
        }
        if keys.is_empty() {
            return Taken::Nothing;
        }
        Taken::Keys(keys)
    }

    /// How many keys wait.
    pub(super) fn waiting(&self) -> u64 {
        self.state().waiting.len() as u64
    }

    /// Resolves when something came since the last call. Cancel safe.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &'static str) -> KeyIn {
        (0, Bytes::from_static(name.as_bytes()))
    }

    fn taken_keys(inbox: &Inbox, max: usize) -> Vec<KeyIn> {
        match inbox.take(max) {
            Taken::Keys(keys) => keys,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_marker_comes_after_all_keys_before_it_and_keys_wait_once() {
        let inbox = Inbox::new();
        for name in ["a", "b", "a"] {
            inbox.changed(key(name));
        }
        inbox.marked(Expected::Settled);
        inbox.changed(key("c"));
        inbox.changed(key("b"));
        assert_eq!(taken_keys(&inbox, 1), [key("a")]);
        // Taken, it counts anew, and behind the marker.
        inbox.changed(key("a"));
        assert_eq!(taken_keys(&inbox, 10), [key("b")]);
        assert!(matches!(inbox.take(10), Taken::Marker(Expected::Settled)));
        assert_eq!(taken_keys(&inbox, 10), [key("c"), key("a")]);
        assert!(matches!(inbox.take(10), Taken::Nothing));
        assert_eq!(inbox.waiting(), 0);
    }

    #[test]
    fn past_the_bound_the_loss_is_told_and_nothing_else() {
        let inbox = Inbox {
            keys_max: 2,
            ..Inbox::new()
        };
        inbox.marked(Expected::Settled);
        for name in ["a", "b", "c", "d"] {
            inbox.changed(key(name));
        }
        for _ in 0..2 {
            assert!(matches!(inbox.take(10), Taken::Lost(why) if why.contains("2 changed keys")));
        }
    }
}
