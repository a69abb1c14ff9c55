//! Commands that a script calls.
//!
//! They run as the script's client, in the script's database and protocol, and never wait.
//! Redis' words for what is refused, in Redis' order.

use crate::store::commands::described::{self, Described};
use crate::store::commands::table::Verb;
use crate::store::commands::{Args, Command, Failure, Reply, Run, Unit};
use crate::store::scripts::Host;

use super::pausing::MAY_REPLICATE;
use super::shard::Shard;

const WRONG_NUMBER: &str = "Wrong number of args calling Redis command from script";
const NOT_FROM_SCRIPT: &str = "This Redis command is not allowed from script";

/// The shard as a script sees it.
pub(super) struct ScriptHost<'a> {
    pub(super) shard: &'a mut Shard,
    /// Whose script it is.
    pub(super) key: usize,
    pub(super) unit: &'a mut Unit,
}

type Found = (&'static Command, Option<&'static Described>);

impl ScriptHost<'_> {
    fn find(&self, args: Args<'_>) -> Option<Found> {
        let command = self.shard.table.find(args.at(0))?;
        if !described::is_container(command.name) || args.len() == 1 {
            return Some((command, None));
        }
        let subcommand = described::subcommand(command.name, args.at(1))?;
        Some((command, Some(subcommand)))
    }

    /// What must be right before a command runs.
    fn admit(&mut self, args: Args<'_>) -> Result<&'static Command, Vec<u8>> {
        let words = |words: &str| words.as_bytes().to_vec();
        let (command, subcommand) = self.find(args).ok_or_else(|| words(why_not_here(args)))?;
        let takes = match subcommand {
            Some(subcommand) => subcommand.takes(args.len()),
            None => command.takes(args.len()),
        };
        if !takes {
            return Err(words(WRONG_NUMBER));
        }
        let has = |flag: &str| match subcommand {
            Some(subcommand) => subcommand.has_flag(flag),
            None => command.has_flag(flag),
        };
        if has("noscript") {
            return Err(words(NOT_FROM_SCRIPT));
        }
        if self.shard.is_stale() && !has("stale") {
            return Err(words("Can not execute the command on a stale replica"));
        }
        let allowed = self.shard.admit_in_script(self.key, command, args);
        allowed.map_err(words)?;
        let Some(runs) = &mut self.shard.scripts.runs else {
            return Err(words("No script runs"));
        };
        let is_write = has("write");
        if runs.is_read_only && (is_write || MAY_REPLICATE.contains(&command.name)) {
            return Err(words(
                "Write commands are not allowed from read-only scripts.",
            ));
        }
        if is_write && !runs.has_written {
            self.shard.admit_write().map_err(refusal)?;
            if let Some(runs) = &mut self.shard.scripts.runs {
                runs.has_written = true;
            }
        }
        Ok(command)
    }

    /// PUBLISH may tell the client itself: its messages stay where they are, before what it
    /// is answered.
    fn publish(&mut self, command: &'static Command, args: Args<'_>) -> Vec<u8> {
        let may_wait = false;
        self.shard
            .run_in(self.key, command, args, self.unit, may_wait);
        let told = self.shard.clients[self.key].reply.raw();
        let at = told.iter().rposition(|byte| *byte == b':');
        told.split_off(at.unwrap_or(told.len()))
    }
}

/// Why a command that is not here is refused: as by Redis, if it has it for others than scripts.
fn why_not_here(args: Args<'_>) -> &'static str {
    let name = args.at(0).to_ascii_lowercase();
    let found = match std::str::from_utf8(&name) {
        Ok(name) if described::is_container(name) && args.len() > 1 => {
            described::subcommand(name, args.at(1))
        }
        // A subcommand is two words.
        Ok(name) if !name.contains('|') => described::find(name),
        _ => None,
    };
    match found.filter(|of| of.has_flag("noscript")) {
        Some(of) if of.takes(args.len()) => NOT_FROM_SCRIPT,
        Some(_) => WRONG_NUMBER,
        None => "Unknown Redis command called from script",
    }
}

fn refusal(failure: Failure) -> Vec<u8> {
    match failure {
        Failure::Reply(words) => [b"-", &*words].concat(),
        Failure::Store(error) => error.to_string().into_bytes(),
    }
}

impl Host for ScriptHost<'_> {
    fn call(&mut self, args: Args<'_>, is_resp3: bool) -> Result<Vec<u8>, Vec<u8>> {
        let command = self.admit(args).inspect_err(|words| {
            let is_coded = words.first() == Some(&b'-');
            let told = if is_coded { &words[1..] } else { b"ERR" };
            self.shard.stats.note_error(told);
        })?;
        if let Run::Session(Verb::Publish | Verb::Spublish) = command.run {
            return Ok(self.publish(command, args));
        }
        let db = self.shard.scripts.runs.as_ref().map_or(0, |runs| runs.db);
        let client = &mut self.shard.clients[self.key];
        let outer = std::mem::replace(&mut client.reply, Box::new(Reply::new(is_resp3)));
        let outer_db = std::mem::replace(&mut client.db, db);
        let may_wait = false;
        self.shard
            .run_in(self.key, command, args, self.unit, may_wait);
        let client = &mut self.shard.clients[self.key];
        let db = std::mem::replace(&mut client.db, outer_db);
        let mut reply = std::mem::replace(&mut client.reply, outer);
        if let Some(runs) = &mut self.shard.scripts.runs {
            runs.db = db;
        }
        Ok(std::mem::take(reply.raw()))
    }

    fn may_call(&mut self, args: Args<'_>) -> Option<bool> {
        let (command, _) = self.find(args)?;
        Some(self.shard.may_run(self.key, command, args))
    }

    fn look_around(&mut self) -> bool {
        self.shard.look_beside()
    }
}
