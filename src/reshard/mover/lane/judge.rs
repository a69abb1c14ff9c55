//! What replies of a target mean for the job: nothing, something that a key had
//! to be brought without, or its end.

use std::sync::Arc;

use bytes::Bytes;

use crate::restore::{Reply, Verdict};

use super::super::error::{KeyAt, MoveError, is_passing};
use super::super::shortfall::{Short, Shortfall, ShortfallLog};
use super::batch::Op;
use super::{LaneMeter, LaneNames};

/// RESTORE's word for a key that exists; RENAMENX only says 0.
const BUSY_KEY: &str = "BUSYKEY Target key name already exists.";

/// Whether a request may have been executed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    First,
    Again,
}

/// Judges the replies of one lane.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) names: LaneNames,
    pub(super) meter: Arc<LaneMeter>,
    pub(super) shortfalls: ShortfallLog,
}

impl Judge {
    /// One reply to `op`, which is no read.
    pub(super) fn reply(&self, op: &Op, sent: Sent, bytes: &[u8]) -> Result<(), MoveError> {
        match op {
            Op::Key {
                db,
                key,
                reply,
                last,
            } => self.key_reply((*db, key), (*reply, sent), bytes, *last),
            op if is_error(bytes) => self.refused(op, bytes),
            _ => Ok(()),
        }
    }

    /// The target's checkpoint says that `op` was done.
    pub(super) fn covered(&self, op: &Op) {
        if let Op::Key { last: true, .. } = op {
            self.meter.key_acked();
        }
    }

    fn key_reply(
        &self,
        (db, key): (u32, &Bytes),
        (reply, sent): (Reply, Sent),
        bytes: &[u8],
        last: bool,
    ) -> Result<(), MoveError> {
        let short = match reply.judge(bytes) {
            Verdict::Done => None,
            Verdict::DoneBut(loss) => Some((Short::Loses, loss.to_string())),
            Verdict::Refused if is_beyond(bytes) => Some((Short::CannotHold, error_text(bytes))),
            // It came through before the connection broke.
            Verdict::Exists if sent == Sent::Again && reply == Reply::Accepted => None,
            Verdict::Exists => return Err(self.refusal(db, "RESTORE", key, BUSY_KEY.to_owned())),
            Verdict::Refused => {
                return Err(self.refusal(db, "RESTORE", key, error_text(bytes)));
            }
        };
        if let Some((short, what)) = short {
            self.fall_short(short, db, key, what);
        }
        if last {
            self.meter.key_acked();
        }
        Ok(())
    }

    fn fall_short(&self, short: Short, db: u32, key: &[u8], what: String) {
        self.shortfalls.add(Shortfall {
            short,
            source: self.names.source.clone(),
            target: self.names.target.clone(),
            db,
            key: key.to_vec(),
            what,
        });
    }

    fn refused(&self, op: &Op, bytes: &[u8]) -> Result<(), MoveError> {
        let reply = error_text(bytes);
        match op {
            Op::Library(_) if is_repeated(&reply) => return Ok(()),
            Op::Library(name) if !is_passing(&reply) => {
                self.fall_short(Short::CannotHold, 0, name, reply);
                return Ok(());
            }
            // It was sent before the key was known to be missing there.
            Op::Command { db, key, .. } if self.shortfalls.is_unheld(*db, key) => return Ok(()),
            Op::Ping | Op::Barrier(_) | Op::Reads(_) | Op::Spent(_) => return Ok(()),
            _ => {}
        }
        Err(self.refused_as_a_whole(op, reply))
    }

    /// The error for a request that must not be refused.
    fn refused_as_a_whole(&self, op: &Op, reply: String) -> MoveError {
        match op {
            Op::Library(name) => self.refusal(0, "FUNCTION", name, reply),
            Op::Select(db) => self.refusal(*db, "SELECT", &[], reply),
            Op::Key { db, key, .. } => self.refusal(*db, "RESTORE", key, reply),
            Op::Command { db, name, key } => {
                let name = String::from_utf8_lossy(name).to_ascii_uppercase();
                self.refusal(*db, &name, key, reply)
            }
            Op::Checkpoint => self.refusal(0, "SET of its checkpoint", &[], reply),
            Op::Ping | Op::Barrier(_) | Op::Reads(_) | Op::Spent(_) => {
                self.refusal(0, "a request", &[], reply)
            }
        }
    }

    /// EXEC was refused, so that nothing of its batch is applied: because of
    /// `first`, which was refused when it was queued, if there was one.
    pub(super) fn nothing_applied(&self, first: Option<(&Op, String)>, exec: &[u8]) -> MoveError {
        const NOTHING: &str = "nothing of its batch was applied";
        match first {
            Some((op, reply)) => self.refused_as_a_whole(op, format!("{reply} ({NOTHING})")),
            None => self.refusal(0, "EXEC", &[], format!("{} ({NOTHING})", error_text(exec))),
        }
    }

    /// MULTI was refused: what came after it was executed by itself.
    pub(super) fn no_transaction(&self, reply: &[u8]) -> MoveError {
        self.refusal(0, "MULTI", &[], error_text(reply))
    }

    fn refusal(&self, db: u32, command: &str, key: &[u8], reply: String) -> MoveError {
        let (key, server) = (key.to_vec(), self.names.target.clone());
        MoveError::TargetRefused {
            at: Box::new(KeyAt { db, key, server }),
            source_server: self.names.source.clone(),
            command: command.to_owned(),
            reply,
        }
    }
}

pub(super) fn is_error(reply: &[u8]) -> bool {
    matches!(reply.first(), Some(b'-' | b'!'))
}

/// What servers say to a value that they do not know how to read.
fn is_beyond(reply: &[u8]) -> bool {
    reply.starts_with(b"-ERR Bad data format")
        || reply.starts_with(b"-ERR DUMP payload version or checksum are wrong")
}

/// The words of an error reply.
pub(super) fn error_text(bytes: &[u8]) -> String {
    let text = bytes.strip_prefix(b"-").unwrap_or(bytes);
    String::from_utf8_lossy(text.strip_suffix(b"\r\n").unwrap_or(text)).into_owned()
}

/// Function libraries are the same on all sources: the second to tell finds it done.
fn is_repeated(reply: &str) -> bool {
    reply.contains("Library not found") || reply.contains("already exists")
}
