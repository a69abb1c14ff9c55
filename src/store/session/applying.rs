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

    /// Whether what was applied since this was last asked has times that count from when it
    /// came.
    pub fn take_relative_times(&mut self) -> bool {
        std::mem::take(&mut self.has_relative_times)
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
            Run::Session(Verb::Function) => {
                return self
                    .change_functions(args, None)
                    .map(drop)
                    .map_err(|failure| ApplyError::Refused {
                        command: name(),
                        reply: Cow::Owned(match failure {
                            Failure::Reply(words) => String::from_utf8_lossy(&words).into_owned(),
                            Failure::Store(error) => error.to_string(),
                        }),
                    });
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
        self.has_relative_times |= tells_how_long(args);
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

/// Whether an effect says how long a key is to live, and not until when: masters before
/// Redis 7 do.
fn tells_how_long(args: Args<'_>) -> bool {
    let has = |from: usize| (from..args.len()).any(|at| args.is(at, "EX") || args.is(at, "PX"));
    match args.at(0).to_ascii_lowercase().as_slice() {
        b"expire" | b"pexpire" | b"setex" | b"psetex" => true,
        b"set" => has(3),
        b"getex" => has(2),
        b"restore" | b"restore-asking" => {
            let is_until = (4..args.len()).any(|at| args.is(at, "ABSTTL"));
            !is_until && args.at(2) != b"0"
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::store::session::world::World;

    #[test]
    fn it_is_seen_whether_times_count_from_when_they_came() {
        let mut world = World::new();
        for (line, is_relative) in [
            ("SET a 1", false),
            ("SET a 1 PXAT 1800000000000", false),
            ("SET a 1 ex 100", true),
            ("SETEX a 100 1", true),
            ("PEXPIREAT a 1800000000000", false),
            ("EXPIRE a 100", true),
            ("GETEX a PX 100", true),
        ] {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let mut bytes = Vec::new();
            crate::resp::write_command(&mut bytes, &words);
            world.shard.apply(&bytes, 0).expect("applied");
            assert_eq!(world.shard.take_relative_times(), is_relative, "{line}");
        }
    }
}
