//! How often a shard failed in a row, as one worker sees it.
//!
//! A failure is a connection: one that could not be made, that broke, that was
//! too late or that the shard closed while it owed replies. (A connection that
//! owed nothing may be closed; twemproxy counts that, too.) A reply of the shard
//! begins the count anew. Nothing is done for that when a reply comes: at the
//! next failure the counter of replies says whether there were some.
//!
//! Who fails `eject.failures` times is told to the control side, again at every
//! further failure: it may have had a reason not to eject (`ejection.rs`).

use std::collections::HashMap;

use crate::router::address::ShardAddress;
use crate::upstream::pipe::PipeError;

use super::config::EjectConfig;
use super::lanes::PipePlace;
use super::private_pipes::Role;

/// A shard that failed too often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    /// Which.
    pub address: ShardAddress,
    /// How often in a row.
    pub failures: u32,
    /// What the last failure was.
    pub why: String,
}

/// By shard; those without failures are not there.
#[derive(Debug, Default)]
pub struct Failures {
    streaks: HashMap<ShardAddress, Streak>,
}

#[derive(Debug, Clone, Copy)]
struct Streak {
    failures: u32,
    /// Replies of the shard when it failed last.
    replies: u64,
}

impl Failures {
    /// A connection failed. What to tell the control side, if it is too much.
    pub fn note(
        &mut self,
        eject: &EjectConfig,
        place: &PipePlace,
        error: &PipeError,
    ) -> Option<Failing> {
        // What a client subscribes to may be refused, which says nothing of the shard.
        if !eject.enabled || error.is_our_doing() || place.role == Role::Hub {
            return None;
        }
        let replies = place.counters.replies_total.value();
        let failures = self.count(&place.address, replies);
        (failures >= eject.failures).then(|| Failing {
            address: place.address.clone(),
            failures,
            why: error.to_string(),
        })
    }

    /// The failures in a row, with this one.
    fn count(&mut self, address: &ShardAddress, replies: u64) -> u32 {
        let begin = Streak {
            failures: 0,
            replies,
        };
        let streak = self.streaks.entry(address.clone()).or_insert(begin);
        if streak.replies != replies {
            *streak = begin;
        }
        streak.failures = streak.failures.saturating_add(1);
        streak.failures
    }

    /// Begins anew with the shards that `forgets` says.
    pub fn forget(&mut self, forgets: impl Fn(&ShardAddress) -> bool) {
        self.streaks.retain(|address, _| !forgets(address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_begins_the_count_anew_and_shards_do_not_mix() {
        let mut failures = Failures::default();
        let [a, b] = ["h:1", "h:2"].map(|text| text.parse::<ShardAddress>().unwrap());
        assert_eq!((failures.count(&a, 7), failures.count(&a, 7)), (1, 2));
        assert_eq!(failures.count(&b, 0), 1);
        assert_eq!((failures.count(&a, 8), failures.count(&a, 8)), (1, 2));
        failures.forget(|address| *address == a);
        assert_eq!((failures.count(&a, 8), failures.count(&b, 0)), (1, 2));
    }
}
