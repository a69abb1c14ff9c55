//! Effects from the log or from a master, applied as they are.
//!
//! They were decided elsewhere: nothing expires meanwhile, no client waits, nothing is told
//! to the log again. MULTI and EXEC only say that what is between them is one: whoever
//! applies hands over whole units.

use std::borrow::Cow;

use crate::resp::{ProtocolError, RequestLimits, RequestScanner};
use crate::store::commands::table::Verb;
use crate::store::commands::{Args, Failure, Reply, Run, Unit, Waits};
use crate::store::keyspace::{DATABASES, Expiry};

use super::shard::Shard;

/// Effects that cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// They are no RESP.
    #[error("effects are no requests: {0}")]
    Protocol(ProtocolError),
    /// They end in the middle of one.
    #[error("effects end inside a request")]
    Cut,
    /// A command that this version does not know, or that no log has.
    #[error("effect `{command}` is unknown to this version")]
    Unknown {
        /// Its name.
        command: String,
    },
    /// It was refused: what is here is not what it was made for.
    #[error("effect `{command}` was refused: {reply}")]
    Refused {
        /// Its name.
        command: String,
        /// In these words.
        reply: Cow<'static, str>,
    },
}

impl Shard {
    /// Applies whole requests; `db` is selected before them, and what is selected behind
    /// them is answered.
    ///
    /// # Errors
    /// [`ApplyError`] at the first effect that cannot be applied; those before it are.
    pub fn apply(&mut self, bytes: &[u8], db: usize) -> Result<usize, ApplyError> {
        let before = self.keyspace.expiry();
        self.keyspace.set_expiry(Expiry::Ignore);
        let applied = self.apply_all(bytes, db);
        self.keyspace.set_expiry(before);
        self.events.clear();
        self.after_commands();
        applied
    }

    fn apply_all(&mut self, bytes: &[u8], mut db: usize) -> Result<usize, ApplyError> {
        let mut scanner = RequestScanner::new(RequestLimits::default());
        let mut reply = Reply::new(false);
        let mut at = 0;
        while at < bytes.len() {
            let rest = bytes.get(at..).unwrap_or(&[]);
            let request = scanner
                .scan(rest)
                .map_err(ApplyError::Protocol)?
                .ok_or(ApplyError::Cut)?;
            at += request.consumed;
            if !request.is_empty() {
                let args = Args::new(request.bytes, request.args);
                self.apply_one(args, &mut db, &mut reply)?;
            }
        }
        Ok(db)
    }

    fn apply_one(
        &mut self,
        args: Args<'_>,
        db: &mut usize,
        reply: &mut Reply,
    ) -> Result<(), ApplyError> {
        let name = || String::from_utf8_lossy(args.at(0)).into_owned();
        // A master's question, which counts as bytes.
        if args.is(0, "REPLCONF") {
            return Ok(());
        }
        let unknown = || ApplyError::Unknown { command: name() };
        let command = self.table.find(args.at(0)).ok_or_else(unknown)?;
        let handler = match command.run {
            Run::Data(handler) => handler,
            Run::Session(Verb::Select) => {
                let chosen = args.integer(1).ok().and_then(|db| usize::try_from(db).ok());
                *db = chosen.filter(|db| *db < DATABASES).ok_or_else(unknown)?;
                return Ok(());
            }
            Run::Session(Verb::Publish) => {
                self.publish(args.at(1), args.at(2));
                return Ok(());
            }
            Run::Session(Verb::Spublish) => {
                self.publish_to_shard(args.at(1), args.at(2));
                return Ok(());
            }
            Run::Session(Verb::Multi | Verb::Exec | Verb::Ping | Verb::Replconf) => return Ok(()),
            Run::Session(_) => return Err(unknown()),
        };
        if !command.takes(args.len()) {
            return Err(ApplyError::Refused {
                command: name(),
                reply: match Failure::arity(command.name) {
                    Failure::Reply(words) => {
                        Cow::Owned(String::from_utf8_lossy(&words).into_owned())
                    }
                    Failure::Store(error) => Cow::Owned(error.to_string()),
                },
            });
        }
        reply.truncate(0);
        // The log has it.
        let mut unit = Unit::of(args.request());
        self.run_data(reply, *db, handler, args, &mut unit, Waits::Never);
        match reply.bytes().strip_prefix(b"-") {
            None => Ok(()),
            Some(words) => Err(ApplyError::Refused {
                command: name(),
                reply: Cow::Owned(String::from_utf8_lossy(words).trim().to_owned()),
            }),
        }
    }
}
