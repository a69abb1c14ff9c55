//! Expiry times: what the guard and the settler (`guard`, `settle`) have the
//! source task do at their markers.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::super::compare::Seen;
use super::super::config::MARKER_MS_MAX;
use super::super::error::MoveError;
use super::super::guard::{Exact, Given, Guarded, Shrink};
use super::super::lane::Op;
use super::super::placement::TargetIndex;
use super::{Source, unix_ms};

/// A command that was read when the source had been silent this long ago, or
/// less, was given now.
const JUST_NOW: Duration = Duration::from_millis(250);
/// Longest wait at a marker for the times that were read with it.
const TIMES_WAIT: Duration = Duration::from_millis(MARKER_MS_MAX);

impl Source {
    /// When the command was given that was just read.
    pub(super) fn given(&self) -> Given {
        match self.idle_at.elapsed() <= JUST_NOW {
            true => Given::Now,
            false => Given::Before,
        }
    }

    /// The guard's horizon shrinks; the settler is told what it remembers.
    pub(super) fn shrink(&mut self, to: Shrink, guarded: oneshot::Sender<Guarded>) {
        let unguarded = self.guard.unguarded();
        if unguarded > 0 && to == Shrink::Following {
            let source = &self.parts.address;
            tracing::warn!(%source, unguarded, "keys that expire soon were too many to guard: those renewed while the copy lagged may be missing, which verify will tell");
        }
        if to != Shrink::Following {
            self.lag.forget();
        }
        // A settler that ended has its own reason.
        let _ = guarded.send(self.guard.shrink(to));
    }

    /// Times that were read with the marker that is met.
    pub(super) async fn on_times(
        &mut self,
        db: u32,
        keys: Vec<(Bytes, TargetIndex)>,
        times: oneshot::Receiver<Vec<Seen>>,
    ) -> Result<(), MoveError> {
        // Not read, or not in time: they stay guarded, and are read again.
        let Ok(Ok(seen)) = tokio::time::timeout(TIMES_WAIT, times).await else {
            return Ok(());
        };
        for ((key, target), seen) in keys.into_iter().zip(seen) {
            // What its target has is old: its time comes with its value.
            if self.parts.pending.has(db, &key) {
                continue;
            }
            let exact = self.guard.settle((db, &key), &seen.state, unix_ms());
            self.set_time(target, (db, key), &exact)?;
            self.flush_if_full(target).await?;
        }
        Ok(())
    }

    fn set_time(
        &mut self,
        target: TargetIndex,
        (db, key): (u32, Bytes),
        exact: &Exact,
    ) -> Result<(), MoveError> {
        let queue = self.queue(target)?;
        let command = |name: &'static [u8], key: &Bytes| Op::Command {
            db,
            name: Bytes::from_static(name),
            key: key.clone(),
        };
        match exact {
            Exact::Kept => {}
            Exact::Gone => {
                queue.select(db);
                queue.push_args(&[b"DEL", &key], command(b"DEL", &key));
            }
            Exact::Endless => {
                queue.select(db);
                queue.push_args(&[b"PERSIST", &key], command(b"PERSIST", &key));
            }
            Exact::At(at_ms) => {
                queue.select(db);
                let at = at_ms.to_string();
                let args: [&[u8]; 3] = [b"PEXPIREAT", &key, at.as_bytes()];
                queue.push_args(&args, command(b"PEXPIREAT", &key));
            }
        }
        Ok(())
    }
}
