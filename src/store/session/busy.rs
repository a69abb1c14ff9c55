//! While a script runs for long: others are told to wait, and can end it.
//!
//! ```text
//! (runs) --busy-reply-threshold--> slow: each look around serves connections
//!                                    |-- BUSY to all commands but those that may
//!                                    '-- SCRIPT KILL, SHUTDOWN NOSAVE --> killed
//! ```
//! A script that has written is not killed: half of it would be there. SHUTDOWN NOSAVE ends
//! it all the same, and what it wrote is in no log and never comes to the disk.

use crate::store::commands::described::{self, Described};
use crate::store::commands::{Command, Failure, Unit};

use super::scripting::Runs;
use super::shard::Shard;

const BUSY_SCRIPT: Failure = Failure::words(
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
);
const BUSY_FUNCTION: Failure = Failure::words(
    "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.",
);

/// Who serves connections while a script runs for long: the driver.
pub trait Beside: std::fmt::Debug + Send {
    /// Takes what came, has it answered by [`Shard::answer_beside`], and sends that. It does
    /// not wait.
    fn look(&mut self, shard: &mut Shard);
}

impl Shard {
    /// Who is asked to serve connections while a script runs.
    pub fn set_beside(&mut self, beside: Box<dyn Beside>) {
        self.beside = Some(beside);
    }

    /// Whether a script was ended amid its writes: nothing of memory may come to the disk.
    pub fn is_torn(&self) -> bool {
        self.scripts.is_torn
    }

    /// Whether a client's own script runs now.
    pub fn runs_script(&self, key: usize) -> bool {
        self.scripts
            .runs
            .as_ref()
            .is_some_and(|of| of.client == key)
    }

    /// Ends a script, whatever it did: the process is to end.
    pub fn end_script(&mut self) {
        if let Some(runs) = &mut self.scripts.runs {
            runs.is_killed = true;
        }
    }

    /// Whether what a client is owed waits for the turn's end.
    pub fn is_marked(&self, key: usize) -> bool {
        self.clients.get(key).is_some_and(|of| of.is_marked)
    }

    /// Answers what a client has sent, while a script runs. True if that may be sent at
    /// once: nothing of it waits for the turn's end.
    pub fn answer_beside(&mut self, key: usize) -> bool {
        if self.runs_script(key) {
            return false;
        }
        let was_marked = self.clients.get(key).is_none_or(|of| of.is_marked);
        self.run_requests(key);
        if was_marked {
            return false;
        }
        self.marked.retain(|of| *of != key);
        if let Some(client) = self.clients.get_mut(key) {
            client.is_marked = false;
            client.turn_from = None;
        }
        true
    }

    /// A script has run for longer than others wait. True if it is to end.
    pub(super) fn look_beside(&mut self) -> bool {
        let Some(runs) = &mut self.scripts.runs else {
            return false;
        };
        if !runs.is_slow {
            runs.is_slow = true;
            tracing::warn!(
                name = runs.name,
                ms = u64::try_from(runs.since.elapsed().as_millis()).unwrap_or(u64::MAX),
                "a slow script: {} KILL ends it",
                if runs.is_eval { "SCRIPT" } else { "FUNCTION" },
            );
        }
        if let Some(mut beside) = self.beside.take() {
            beside.look(self);
            self.beside = Some(beside);
        }
        self.scripts.runs.as_ref().is_some_and(|of| of.is_killed)
    }

    pub(super) fn end_slow_script(&mut self, runs: &Runs, unit: &mut Unit) {
        if runs.is_killed {
            tracing::warn!(name = runs.name, "the script was killed");
        }
        if runs.is_killed && runs.has_written {
            self.scripts.is_torn = true;
            *unit = Unit::default();
        }
    }

    /// Whether a command may run while a script is slow.
    pub(super) fn admit_busy(
        &self,
        command: &Command,
        subcommand: Option<&Described>,
    ) -> Result<(), Failure> {
        let Some(runs) = self.scripts.runs.as_ref().filter(|runs| runs.is_slow) else {
            return Ok(());
        };
        let described = subcommand.or_else(|| described::find(command.name));
        match described.is_some_and(|of| of.has_flag("allow_busy")) {
            true => Ok(()),
            false => Err(busy(runs)),
        }
    }

    /// The reason why SHUTDOWN is refused, if a script is slow; else the script is ended by
    /// force, whatever it did.
    pub(super) fn shut_down_script(&mut self, without_saving: bool) -> Result<(), Failure> {
        let Some(runs) = &mut self.scripts.runs else {
            return Ok(());
        };
        if !without_saving {
            return Err(busy(runs));
        }
        runs.is_killed = true;
        Ok(())
    }

    /// SCRIPT KILL (`is_eval`) and FUNCTION KILL.
    pub(super) fn kill_script(&mut self, key: usize, is_eval: bool) -> Result<(), Failure> {
        let Some(runs) = &mut self.scripts.runs else {
            return Err(Failure::words("NOTBUSY No scripts in execution right now."));
        };
        if runs.has_written {
            return Err(Failure::words(
                "UNKILLABLE Sorry the script already executed write commands against the \
                 dataset. You can either wait the script termination or kill the server in a \
                 hard way using the SHUTDOWN NOSAVE command.",
            ));
        }
        if runs.is_eval != is_eval {
            return Err(busy(runs));
        }
        runs.is_killed = true;
        self.clients[key].reply.ok();
        Ok(())
    }
}

pub(super) fn busy(runs: &Runs) -> Failure {
    match runs.is_eval {
        true => BUSY_SCRIPT,
        false => BUSY_FUNCTION,
    }
}
