//! From requests to commands that are run.

use std::time::Instant;

use crate::store::commands::described::{self, Described};
use crate::store::commands::failure::up_to_zero;
use crate::store::commands::table::Verb;
use crate::store::commands::{
    Args, Command, Context, EventClass, Failure, Outcome, Reply, Run, Unit, Wait, Waits,
};
use crate::store::keyspace::Ended;
use crate::store::rows::StoreError;

use super::client::Wanted;
use super::shard::{Health, Role, Shard};

/// Of the arguments of an unknown command, this much is told.
const TOLD_BYTES_MAX: usize = 128;

impl Shard {
    /// Runs one request; `command` is what its name was found to be.
    pub(super) fn request(
        &mut self,
        key: usize,
        command: Option<&'static Command>,
        args: Args<'_>,
    ) -> Flow {
        self.mark(key);
        let client = &mut self.clients[key];
        let before = client.reply.len();
        client.turn_from.get_or_insert(before);
        let flow = self.call(key, command, args);
        let Some(client) = self.clients.get_mut(key).filter(|_| flow == Flow::Done) else {
            return flow;
        };
        match client.wanted {
            Wanted::All => {}
            Wanted::SkipNext => client.wanted = Wanted::Skip,
            Wanted::Skip => {
                client.drop_replies_from(before);
                client.wanted = Wanted::All;
            }
            Wanted::None => client.drop_replies_from(before),
        }
        flow
    }

    fn call(&mut self, key: usize, command: Option<&'static Command>, args: Args<'_>) -> Flow {
        match self.admit(key, command, args) {
            Ok((command, subcommand)) => {
                if self.postpone(key, command, subcommand) {
                    return Flow::Postponed;
                }
                self.run(key, command, args);
                self.after_commands();
            }
            Err(failure) => {
                let failure = self.break_transaction(key, args, failure);
                if let Some(command) = command {
                    self.stats.of_command(command.name).rejected += 1;
                }
                if let Failure::Reply(words) = &failure {
                    self.stats.note_error(words);
                }
                self.refuse(key, &self.reason_of_abort(key, args, failure));
                self.end_refused_exec(key, args);
            }
        }
        Flow::Done
    }

    /// What must be right about a request before it is run or queued.
    fn admit(
        &mut self,
        key: usize,
        command: Option<&'static Command>,
        args: Args<'_>,
    ) -> Result<Admitted, Failure> {
        let Some(command) = command else {
            return Err(unknown_command(args));
        };
        let subcommand = match described::is_container(command.name) && args.len() > 1 {
            true => {
                let found = described::subcommand(command.name, args.at(1));
                let unknown = || super::connection::unknown_subcommand(command.name, args);
                Some(found.ok_or_else(unknown)?)
            }
            false => None,
        };
        let (name, takes) = match subcommand {
            Some(subcommand) => (subcommand.name, subcommand.takes(args.len())),
            None => (command.name, command.takes(args.len())),
        };
        if !takes {
            return Err(Failure::arity(name));
        }
        self.clients[key].last_command = name;
        self.admit_debug(key, command)?;
        if self.must_log_in(key) && !command.has_flag("no-auth") {
            return Err(Failure::words("NOAUTH Authentication required."));
        }
        self.admit_by_rights(key, name, args)?;
        let client = &self.clients[key];
        Self::admit_monitor(client, command)?;
        if client.is_subscriber() && !client.reply.is_resp3() && !command.has_flag("pubsub-mode") {
            return Err(Failure::text(format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / \
                 RESET are allowed in this context",
                name
            )));
        }
        if let Err(failure) = self.admit_write() {
            let is_exec = matches!(command.run, Run::Session(Verb::Exec));
            let queued = self.clients[key].transaction.as_ref();
            let writes = |command: &Command| command.has_flag("write");
            if writes(command)
                || subcommand.is_some_and(|of| of.has_flag("write"))
                || (is_exec && queued.is_some_and(|of| of.has(writes)))
            {
                return Err(failure);
            }
        }
        self.admit_busy(command, subcommand)?;
        self.admit_stale(command)?;
        Ok((command, subcommand))
    }

    pub(super) fn admit_write(&self) -> Result<(), Failure> {
        if let Health::NoWrites(reason) = &self.health {
            return Err(Failure::text(format!("MISCONF {reason}")));
        }
        self.admit_by_replicas()?;
        match self.role {
            Role::Replica => Err(Failure::words(
                "READONLY You can't write against a read only replica.",
            )),
            Role::Master => Ok(()),
        }
    }

    /// EXEC that is refused ends its transaction.
    fn end_refused_exec(&mut self, key: usize, args: Args<'_>) {
        if args.is(0, "EXEC")
            && self
                .clients
                .get(key)
                .is_some_and(|of| of.transaction.is_some())
        {
            self.clients[key].transaction = None;
            self.unwatch(key);
        }
    }

    fn reason_of_abort(&self, key: usize, args: Args<'_>, failure: Failure) -> Failure {
        let is_open = self
            .clients
            .get(key)
            .is_some_and(|of| of.transaction.is_some());
        match failure {
            Failure::Reply(words) if is_open && args.is(0, "EXEC") => Failure::text(format!(
                "EXECABORT Transaction discarded because of: {}",
                String::from_utf8_lossy(&words)
            )),
            other => other,
        }
    }

    pub(super) fn run(&mut self, key: usize, command: &'static Command, args: Args<'_>) {
        if self.is_queued(key, command) {
            return self.queue(key, command, args);
        }
        let mut unit = Unit::of(args.request());
        let may_wait = true;
        self.run_in(key, command, args, &mut unit, may_wait);
        if !unit.is_empty() {
            self.effects.push_of(unit, args.request());
            self.note_write(key);
        }
    }

    /// Runs a command whose effects go into a unit.
    pub(super) fn run_in(
        &mut self,
        key: usize,
        command: &'static Command,
        args: Args<'_>,
        unit: &mut Unit,
        may_wait: bool,
    ) {
        // What the command before it was ended by is what it begins with: one look at the
        // clock for each.
        let begun = match self.ran_at {
            Some(ended) => ended,
            None => {
                let now = Instant::now();
                self.look_at_clock(now);
                *self.ran_at.insert(now)
            }
        };
        let before = self.clients[key].reply.len();
        if command.name != "exec" {
            self.tell_monitors(key, command, args);
        }
        self.dispatch(key, command, args, unit, may_wait);
        if command.name == "exec" {
            self.tell_monitors(key, command, args);
        }
        self.stats.commands += 1;
        let of = self.stats.of_command(command.name);
        of.calls += 1;
        let ended = Instant::now();
        self.ran_at = Some(ended);
        let took = ended.saturating_duration_since(begun);
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        of.us += took_us;
        let Some(client) = self.clients.get(key) else {
            return;
        };
        if let Some([b'-', error @ ..]) = client.reply.bytes().get(before..)
            && !std::mem::take(&mut self.scripts.is_counted)
        {
            of.failed += 1;
            self.stats.note_error(error);
        }
        if !is_never_slow(command) {
            self.note_slow(key, took_us, args);
        }
    }

    fn dispatch(
        &mut self,
        key: usize,
        command: &'static Command,
        args: Args<'_>,
        unit: &mut Unit,
        may_wait: bool,
    ) {
        if args.len() == 2
            && args.is(1, "HELP")
            && described::is_container(command.name)
            && let Some(lines) = described::help(command.name)
        {
            let reply = &mut self.clients[key].reply;
            reply.array(lines.len());
            return lines.iter().for_each(|line| reply.status(line));
        }
        match command.run {
            Run::Session(verb) => {
                if let Err(failure) = self.run_verb(key, verb, args, unit, may_wait) {
                    self.refuse(key, &failure);
                }
            }
            Run::Data(handler) => {
                if let Err(failure) = self.admit_sort(key, command.name, args) {
                    return self.refuse(key, &failure);
                }
                if command.name == "debug" {
                    match self.debug_shard(key, args) {
                        Ok(true) => return,
                        Ok(false) => {}
                        Err(failure) => return self.refuse(key, &failure),
                    }
                }
                let db = self.clients[key].db;
                let spare = self.spare_reply.take().unwrap_or_default();
                let mut reply = std::mem::replace(&mut self.clients[key].reply, spare);
                let waits = match (may_wait, &self.scripts.runs) {
                    (true, _) => Waits::May,
                    (false, Some(_)) => Waits::NeverInScript,
                    (false, None) => Waits::Never,
                };
                let wait = self.run_data(&mut reply, db, handler, args, unit, waits);
                let mut spare = std::mem::replace(&mut self.clients[key].reply, reply);
                spare.truncate(0);
                self.spare_reply = Some(spare);
                if let Some(wait) = wait {
                    self.wait(key, args, wait);
                }
            }
        }
    }

    pub(super) fn run_data(
        &mut self,
        reply: &mut Reply,
        db: usize,
        handler: fn(&mut Context<'_>, Args<'_>) -> Outcome,
        args: Args<'_>,
        unit: &mut Unit,
        waits: Waits<'_>,
    ) -> Option<Wait> {
        let changes = self.keyspace.changes();
        let before = reply.len();
        unit.begin_next();
        let events_before = self.events.len();
        let mut context = Context {
            keyspace: &mut self.keyspace,
            reply: &mut *reply,
            db,
            settings: &self.settings,
            unit,
            events: &mut self.events,
            waits,
            wait: None,
        };
        let outcome = handler(&mut context, args);
        let wait = context.wait.take();
        self.tell_ended_in(unit, events_before);
        let has_changed = self.keyspace.changes() != changes;
        if let Err(failure) = outcome {
            reply.truncate(before);
            match failure {
                Failure::Reply(words) => reply.error_bytes(&words),
                Failure::Store(error) => {
                    reply.error(&format!("ERR {error}"));
                    if has_changed {
                        self.fail(&error);
                    }
                }
            }
        }
        if has_changed && !unit.is_named() {
            unit.add_as_it_came(db, args.request());
        }
        wait
    }

    /// Tells the log of keys that were found to be over, before what found them.
    fn tell_ended_in(&mut self, unit: &mut Unit, events_before: usize) {
        if !self.keyspace.has_ended() {
            return;
        }
        for ended in self.keyspace.take_ended().into_iter().rev() {
            unit.put_first(ended.db, &[self.word_of_end(), &ended.key]);
            self.note_ended(ended, events_before);
        }
    }

    /// The same, for keys that nobody looked for.
    pub(super) fn tell_ended(&mut self) {
        for ended in self.keyspace.take_ended() {
            let mut unit = Unit::default();
            unit.add(ended.db, &[self.word_of_end(), &ended.key]);
            self.effects.push(unit);
            self.note_ended(ended, self.events.len());
        }
    }

    fn word_of_end(&self) -> &'static [u8] {
        match self.settings.lazyfree_lazy_expire {
            true => b"UNLINK",
            false => b"DEL",
        }
    }

    fn note_ended(&mut self, ended: Ended, at: usize) {
        if self.settings.notify.wants(EventClass::Expired) {
            let Ended { db, key } = ended;
            let name = "expired";
            let event = crate::store::commands::Event { db, name, key };
            self.events.insert(at, event);
        }
    }

    /// After each request: events are published, watched keys noted, those who wait served.
    pub(super) fn after_commands(&mut self) {
        // Others are served while a script runs, but see nothing of it before its end.
        if self.scripts.runs.is_some() {
            return;
        }
        loop {
            // Also those of who was served.
            if !self.events.is_empty() {
                self.publish_events();
            }
            let changed = self.keyspace.take_changed();
            if changed.is_empty() {
                return;
            }
            for of in changed.iter().filter(|of| of.tells.watchers()) {
                self.lose_watches(of.db, &of.key);
            }
            for of in changed.iter().filter(|of| of.tells.waiters()) {
                self.serve(of.db, &of.key);
            }
        }
    }

    /// An error reply.
    pub(super) fn refuse(&mut self, key: usize, failure: &Failure) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        match failure {
            Failure::Reply(words) => client.reply.error_bytes(words),
            Failure::Store(error) => client.reply.error(&format!("ERR {error}")),
        }
    }

    /// The store failed in the middle of a change: what is in memory and what the log says
    /// may differ, so nothing more is written.
    pub(super) fn fail(&mut self, error: &StoreError) {
        if self.health == Health::Good {
            tracing::error!(%error, "the store failed inside a change: writes are refused");
            self.health = Health::NoWrites(format!(
                "The store failed inside a change, restart it to go on from its log: {error}"
            ));
        }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// It was run, queued or refused.
    Done,
    /// It stays in the input until a pause is over.
    Postponed,
}

/// A command, and which of its subcommands.
type Admitted = (&'static Command, Option<&'static Described>);

/// EXEC's commands are timed one by one; passwords are nobody's business.
fn is_never_slow(command: &Command) -> bool {
    matches!(command.name, "auth" | "exec" | "hello" | "acl")
}

fn unknown_command(args: Args<'_>) -> Failure {
    let text = |bytes, max: usize| {
        let text = up_to_zero(bytes);
        text.get(..max).unwrap_or(text)
    };
    let mut told = b"', with args beginning with: ".to_vec();
    let begin = told.len();
    for argument in args.from(1) {
        let Some(left @ 1..) = (begin + TOLD_BYTES_MAX).checked_sub(told.len()) else {
            break;
        };
        told.extend_from_slice(b"'");
        told.extend_from_slice(text(argument, left));
        told.extend_from_slice(b"' ");
    }
    let name = text(args.at(0), TOLD_BYTES_MAX);
    Failure::Reply([b"ERR unknown command '", name, &told].concat().into())
}
