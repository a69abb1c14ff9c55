//! A cut: its marker was met, and what is left to do before it is through.
//!
//! ```text
//! met --read on until nothing is pending, and every key has its exact time--> lanes empty
//!   |                                                                           |
//!   | taken back meanwhile: a mere barrier                            told, held until `uncut`
//!   '---- refused: too many keys end soon, or commands were too long under way
//! ```
//!
//! What comes behind the marker is applied until the cut is through: the source
//! is the truth until then.
//!
//! Invariant: it is told as through only when no key is pending, none is guarded,
//! and every lane was answered for all before it.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::super::error::MoveError;
use super::super::guard::{CUT_KEYS_MAX, PREPARED_LAG_MS_MAX};
use super::super::progress::applied_offset;
use super::super::settle::Ask;
use super::{Source, Unit};

/// A cut whose marker was met.
#[derive(Debug)]
pub(super) struct Cut {
    number: u64,
    passed: mpsc::Sender<()>,
    /// The times of what is guarded are asked for, and not set yet.
    asked: bool,
}

/// How long commands are under way to the slowest target. A sample begins when
/// the one before is over, so a command takes no longer than two of them.
#[derive(Debug, Default)]
pub(super) struct Lag {
    /// Read up to there, then.
    sample: Option<(u64, Instant)>,
    longest: Duration,
}

impl Lag {
    /// `read` and `applied` are offsets of the stream.
    pub(super) fn look(&mut self, read: u64, applied: u64, now: Instant) {
        if let Some((offset, since)) = self.sample {
            self.longest = self.longest.max(now.saturating_duration_since(since));
            if applied >= offset {
                self.sample = None;
            }
        }
        if self.sample.is_none() && applied < read {
            self.sample = Some((read, now));
        }
    }

    /// From now on.
    pub(super) fn forget(&mut self) {
        *self = Lag::default();
    }
}

impl Source {
    pub(super) fn meet_cut(&mut self, number: u64, passed: mpsc::Sender<()>) {
        self.guard.set_cut(true);
        self.cut = Some(Cut {
            number,
            passed,
            asked: false,
        });
    }

    pub(super) fn look_at_lag(&mut self) {
        let applied = applied_offset(&self.parts.meters, self.offset);
        self.lag.look(self.offset, applied, Instant::now());
    }

    /// After each event: the cut is through if nothing is left to do.
    pub(super) async fn pass_cut(&mut self) -> Result<(), MoveError> {
        // What is gathered of a transaction of the source waits for its end.
        if self.unit == Unit::Inside {
            return Ok(());
        }
        let Some(cut) = &mut self.cut else {
            return Ok(());
        };
        let is_in_force = *self.parts.cut.borrow() == Some(cut.number);
        if is_in_force {
            let guarded = self.guard.count();
            if !self.parts.pending.is_empty() {
                return Ok(());
            }
            if guarded > CUT_KEYS_MAX {
                self.refuse_cut(MoveError::TooManyEnding {
                    source_server: self.parts.address.clone(),
                    count: guarded,
                    max: CUT_KEYS_MAX,
                });
                return Ok(());
            }
            if guarded > 0 {
                if !cut.asked {
                    let ask = Ask::Exact {
                        number: cut.number,
                        guarded: self.guard.guarded(),
                    };
                    // It is full of what comes before.
                    cut.asked = self.parts.settler.try_send(ask).is_ok();
                }
                return Ok(());
            }
            self.empty_lanes().await?;
            self.look_at_lag();
            let lag_ms = u64::try_from(self.lag.longest.as_millis()).unwrap_or(u64::MAX);
            if self.guard.is_prepared() && lag_ms > PREPARED_LAG_MS_MAX {
                self.refuse_cut(MoveError::TooFarBehind {
                    source_server: self.parts.address.clone(),
                    lag_ms,
                    max_ms: PREPARED_LAG_MS_MAX,
                });
                return Ok(());
            }
        }
        let Some(Cut { number, passed, .. }) = self.cut.take() else {
            return Ok(());
        };
        self.barrier(&passed);
        // Our own word: a source without lanes has shown the marker, too.
        let _ = passed.try_send(());
        self.flush_all().await?;
        let mut cut = self.parts.cut.clone();
        // Ended by `uncut`, by the next cut, or with the mover.
        let _ = cut.wait_for(|cut| *cut != Some(number)).await;
        self.guard.set_cut(false);
        Ok(())
    }

    /// Whoever waits for it learns why.
    pub(super) fn refuse_cut(&mut self, why: MoveError) {
        self.guard.set_cut(false);
        self.parts.board.refuse_cut(why);
        self.cut = None;
    }

    /// The times that a cut asked for are set: what is guarded now turned up since,
    /// or its time could not be read.
    pub(super) fn on_exact(&mut self, number: u64) {
        if let Some(cut) = self.cut.as_mut().filter(|cut| cut.number == number) {
            cut.asked = false;
        }
    }

    /// After a preparation that came to nothing.
    pub(super) fn relax(&mut self) -> Result<(), MoveError> {
        for (db, key) in self.guard.relaxed() {
            self.mark(db, &key)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_is_that_of_the_oldest_command_under_way() {
        let mut lag = Lag::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        lag.look(5, 5, at(0));
        lag.look(5, 5, at(900));
        assert_eq!(lag.longest, Duration::ZERO, "nothing was under way");
        lag.look(9, 5, at(1000));
        lag.look(12, 8, at(1400));
        assert_eq!(lag.longest, Duration::from_millis(400));
        lag.look(12, 9, at(1500));
        lag.look(12, 12, at(1600));
        lag.look(12, 12, at(9000));
        assert_eq!(lag.longest, Duration::from_millis(500));
        lag.forget();
        assert_eq!(lag.longest, Duration::ZERO);
    }
}
