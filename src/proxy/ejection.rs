//! Whether a shard takes part in the ring, as a machine: no I/O, no clock.
//!
//! ```text
//!        it failed too often          retry_after passed
//!   In ----------------------> Out ----------------------> Probed
//!   ^                           ^  '-- excused --> In        | |
//!   |                           '------- not well -----------' |
//!   '------------------- well, or excused ---------------------'
//! ```
//!
//! | state | its keys | who asks it |
//! |---|---|---|
//! | In | as the layout says | clients |
//! | Out | on the other shards | nobody |
//! | Probed | on the other shards | one probe of ours |
//!
//! Invariants
//! - Nothing but the answer to a probe brings a shard back, and only the probe
//!   of this ejection: `turn` tells it from an earlier one that answers late.
//! - While something hinders (a job works on the pool, a switch is pending), no
//!   shard goes out: keys written elsewhere would be lost to the job.

/// Where one shard stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Standing {
    /// In the ring.
    #[default]
    In,
    /// In the ring, though it failed too often; the log has been told.
    HeldBack {
        /// What hindered.
        by: String,
    },
    /// Not in the ring; it is left alone.
    Out {
        /// Number of the probe that comes next.
        turn: u64,
    },
    /// Not in the ring; a probe is under way.
    Probed {
        /// Number of the probe.
        turn: u64,
    },
}

/// What happens to a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A worker says that it failed too often.
    Failing {
        /// What speaks against ejecting it now.
        hindered_by: Option<String>,
        /// Number of the first probe, never used before.
        turn: u64,
    },
    /// It was left alone for long enough.
    Due,
    /// The probe was answered well.
    Well {
        /// Which probe.
        turn: u64,
    },
    /// The probe was not.
    NotWell {
        /// Which probe.
        turn: u64,
        /// Number of the next one, never used before.
        next: u64,
    },
    /// Ejecting was turned off.
    Excused,
}

/// What has to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Route without it; the time until its probe begins.
    Eject,
    /// Say that it stays in, and why.
    Warn,
    /// Ask it.
    Probe {
        /// Number of the probe.
        turn: u64,
    },
    /// Begin the time anew.
    WaitAgain,
    /// Route with it.
    Readmit,
}

/// An event that can't come in this state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} does not happen to a shard that is {standing:?}")]
pub struct Misstep {
    standing: Standing,
    event: Event,
}

impl Standing {
    /// Whether the ring is without it.
    pub fn is_out(&self) -> bool {
        matches!(self, Self::Out { .. } | Self::Probed { .. })
    }

    /// The next state, and what to do.
    ///
    /// # Errors
    /// The event can't come in this state.
    pub fn step(self, event: Event) -> Result<(Self, Option<Action>), Misstep> {
        Ok(match (self, event) {
            (
                Self::In | Self::HeldBack { .. },
                Event::Failing {
                    hindered_by: None,
                    turn,
                },
            ) => (Self::Out { turn }, Some(Action::Eject)),
            (
                Self::HeldBack { by },
                Event::Failing {
                    hindered_by: Some(now),
                    ..
                },
            ) if by == now => (Self::HeldBack { by }, None),
            (
                Self::In | Self::HeldBack { .. },
                Event::Failing {
                    hindered_by: Some(by),
                    ..
                },
            ) => (Self::HeldBack { by }, Some(Action::Warn)),
            // Another worker saw the same.
            (out @ (Self::Out { .. } | Self::Probed { .. }), Event::Failing { .. }) => (out, None),
            (Self::Out { turn }, Event::Due) => {
                (Self::Probed { turn }, Some(Action::Probe { turn }))
            }
            (Self::Probed { turn }, Event::Well { turn: answered }) if turn == answered => {
                (Self::In, Some(Action::Readmit))
            }
            (
                Self::Probed { turn },
                Event::NotWell {
                    turn: answered,
                    next,
                },
            ) if turn == answered => (Self::Out { turn: next }, Some(Action::WaitAgain)),
            // The probe of an ejection that is over.
            (standing, Event::Well { .. } | Event::NotWell { .. }) => (standing, None),
            (Self::Out { .. } | Self::Probed { .. }, Event::Excused) => {
                (Self::In, Some(Action::Readmit))
            }
            (Self::In | Self::HeldBack { .. }, Event::Excused) => (Self::In, None),
            (
                standing @ (Self::In | Self::HeldBack { .. } | Self::Probed { .. }),
                event @ Event::Due,
            ) => return Err(Misstep { standing, event }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(hindered_by: Option<&str>, turn: u64) -> Event {
        Event::Failing {
            hindered_by: hindered_by.map(str::to_owned),
            turn,
        }
    }

    fn steps(events: Vec<Event>) -> (Standing, Vec<Action>) {
        let mut standing = Standing::default();
        let mut actions = Vec::new();
        for event in events {
            let action;
            (standing, action) = standing.step(event).unwrap();
            actions.extend(action);
        }
        (standing, actions)
    }

    #[test]
    fn only_a_probe_brings_a_shard_back() {
        let (standing, actions) = steps(vec![
            failing(None, 1),
            failing(None, 2),
            Event::Due,
            failing(None, 3),
            Event::NotWell { turn: 1, next: 4 },
            Event::Due,
            Event::Well { turn: 4 },
        ]);
        assert_eq!(standing, Standing::In);
        assert_eq!(
            actions,
            [
                Action::Eject,
                Action::Probe { turn: 1 },
                Action::WaitAgain,
                Action::Probe { turn: 4 },
                Action::Readmit
            ]
        );
    }

    #[test]
    fn the_probe_of_an_ejection_that_is_over_says_nothing() {
        let (standing, actions) = steps(vec![
            failing(None, 1),
            Event::Due,
            Event::Excused,
            failing(None, 2),
            Event::Well { turn: 1 },
            Event::Due,
            Event::Well { turn: 1 },
            Event::NotWell { turn: 1, next: 9 },
        ]);
        assert_eq!(standing, Standing::Probed { turn: 2 });
        assert!(standing.is_out());
        assert_eq!(
            actions,
            [
                Action::Eject,
                Action::Probe { turn: 1 },
                Action::Readmit,
                Action::Eject,
                Action::Probe { turn: 2 }
            ]
        );
    }

    #[test]
    fn what_hinders_is_told_once_and_holds_as_long_as_it_is_there() {
        let (standing, actions) = steps(vec![
            failing(Some("job a"), 1),
            failing(Some("job a"), 2),
            failing(Some("job b"), 3),
        ]);
        assert!(!standing.is_out());
        assert_eq!(actions, [Action::Warn, Action::Warn]);
        let (standing, action) = standing.step(failing(None, 4)).unwrap();
        assert_eq!(standing, Standing::Out { turn: 4 });
        assert_eq!(action, Some(Action::Eject));
    }

    #[test]
    fn a_shard_that_is_in_has_no_probe_due() {
        let held = Standing::HeldBack { by: "x".into() };
        for standing in [Standing::In, held, Standing::Probed { turn: 1 }] {
            let misstep = standing.clone().step(Event::Due).unwrap_err();
            assert_eq!(
                misstep,
                Misstep {
                    standing,
                    event: Event::Due
                }
            );
        }
    }

    #[test]
    fn excusing_lets_in_what_is_out_and_nothing_else() {
        assert_eq!(
            steps(vec![Event::Excused, failing(Some("j"), 1), Event::Excused]),
            (Standing::In, vec![Action::Warn])
        );
        let (standing, actions) = steps(vec![failing(None, 1), Event::Excused]);
        assert_eq!(standing, Standing::In);
        assert_eq!(actions, [Action::Eject, Action::Readmit]);
    }
}
