//! Whose rights a client has, and what they keep it from.
//!
//! ```text
//! comes: user `default` -- AUTH, HELLO .. AUTH: that user -- RESET: `default` again
//!        '- in or not, by whether `default` needs a password
//! ```
//! As in Redis, rights are looked at when a request comes, when it is queued, and again by
//! EXEC. What already waits for a key is served though its user lost the right meanwhile;
//! who listens to a channel that its user may not any more is sent away.

use crate::store::acl::{
    CommandNumber, Denied, Event, Reason, Surroundings, User, UserId, catalog,
    sort_reads_by_pattern,
};
use crate::store::commands::described;
use crate::store::commands::{Args, Command, Failure};

use super::client::CloseReason;
use super::shard::Shard;

impl Shard {
    /// Whether a client may do nothing but log in.
    pub(super) fn must_log_in(&self, key: usize) -> bool {
        let is_in = self.clients.get(key).is_some_and(|of| of.is_authenticated);
        !is_in && !self.users.is_open()
    }

    pub(super) fn auth(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        match args.len() {
            2 if self.users.default_user().is_open() => {
                return Err(Failure::words(
                    "ERR AUTH <password> called without any password configured for the \
                     default user. Are you sure your configuration is correct?",
                ));
            }
            2 => self.log_in_as(key, crate::store::acl::DEFAULT, args.at(1), args.at(0))?,
            3 => self.log_in(key, args, 1)?,
            _ => return Err(Failure::SYNTAX),
        }
        self.clients[key].reply.ok();
        Ok(())
    }

    /// By the user and password that begin at an argument.
    pub(super) fn log_in(
        &mut self,
        key: usize,
        args: Args<'_>,
        number: usize,
    ) -> Result<(), Failure> {
        self.log_in_as(key, args.at(number), args.at(number + 1), args.at(0))
    }

    fn log_in_as(
        &mut self,
        key: usize,
        name: &[u8],
        password: &[u8],
        by: &[u8],
    ) -> Result<(), Failure> {
        let found = self.users.find(name);
        let admitted = found.filter(|id| {
            let user = self.users.get(*id);
            user.is_some_and(|user| user.admits(password))
        });
        let Some(user) = admitted else {
            let context = self.surroundings(key);
            self.note_refusal(key, context, Reason::Auth, by, Some(name));
            return Err(Failure::words(
                "WRONGPASS invalid username-password pair or user is disabled.",
            ));
        };
        let client = &mut self.clients[key];
        (client.user, client.is_authenticated) = (user, true);
        Ok(())
    }

    /// DEBUG only from where `enable-debug-command` lets it.
    pub(super) fn admit_debug(&self, key: usize, command: &Command) -> Result<(), Failure> {
        if command.name != "debug" {
            return Ok(());
        }
        let is_local = || self.clients.get(key).is_some_and(super::Client::is_local);
        match self.parameters.value("enable-debug-command") {
            "yes" => Ok(()),
            "local" if is_local() => Ok(()),
            _ => Err(Failure::words(
                "ERR DEBUG command not allowed. If the enable-debug-command option is set to \
                 \"local\", you can run it from a local connection, otherwise you need to set \
                 this option in the configuration file, and then restart the server.",
            )),
        }
    }

    /// Whether a client's user may run a request; `name` is the command's, with its
    /// subcommand's.
    pub(super) fn admit_by_rights(
        &mut self,
        key: usize,
        name: &str,
        args: Args<'_>,
    ) -> Result<(), Failure> {
        let context = self.surroundings(key);
        match self.refused_right(key, name, args, context) {
            None => Ok(()),
            Some(denied) => Err(match denied {
                Denied::Command => Failure::text(format!(
                    "NOPERM this user has no permissions to run the '{name}' command"
                )),
                Denied::Key(_) => Failure::words(
                    "NOPERM this user has no permissions to access one of the keys used as \
                     arguments",
                ),
                Denied::Channel(_) => Failure::words(
                    "NOPERM this user has no permissions to access one of the channels used as \
                     arguments",
                ),
            }),
        }
    }

    /// The same of a request that was queued when it was allowed.
    pub(super) fn admit_at_exec(
        &mut self,
        key: usize,
        command: &Command,
        args: Args<'_>,
    ) -> Result<(), Failure> {
        let name = full_name(command, args);
        let Some(denied) = self.refused_right(key, name, args, Surroundings::Multi) else {
            return Ok(());
        };
        let why = match denied {
            Denied::Command => "no permission to execute the command or subcommand",
            Denied::Key(_) => "no permission to touch the specified keys",
            Denied::Channel(_) => {
                "no permission to access one of the channels used as arguments to the command"
            }
        };
        Err(Failure::text(format!(
            "NOPERM ACLs rules changed between the moment the transaction was accumulated and \
             the EXEC call. This command is no longer allowed for the following reason: {why}"
        )))
    }

    /// The same of a request that a script makes for its client.
    pub(super) fn admit_in_script(
        &mut self,
        key: usize,
        command: &Command,
        args: Args<'_>,
    ) -> Result<(), &'static str> {
        let name = full_name(command, args);
        match self.refused_right(key, name, args, Surroundings::Lua) {
            None => Ok(()),
            Some(Denied::Command) => {
                Err("The user executing the script can't run this command or subcommand")
            }
            Some(Denied::Key(_)) => Err(
                "The user executing the script can't access at least one of the keys mentioned \
                 in the command arguments",
            ),
            Some(Denied::Channel(_)) => Err(
                "The user executing the script can't publish to the channel mentioned in the \
                 command",
            ),
        }
    }

    /// Whether a client's user may run a request; nothing is noted.
    pub(super) fn may_run(&self, key: usize, command: &Command, args: Args<'_>) -> bool {
        self.denied(key, full_name(command, args), args).is_none()
    }

    fn denied(&self, key: usize, name: &str, args: Args<'_>) -> Option<Denied> {
        let user = self.clients.get(key)?.user;
        if self.users.is_unrestricted(user) {
            return None;
        }
        match catalog().number(name) {
            Some(number) => self.users.get(user)?.check(number, args).err(),
            // No rule can name it.
            None => Some(Denied::Command),
        }
    }

    /// What keeps a client's user from a request; it is noted.
    fn refused_right(
        &mut self,
        key: usize,
        name: &str,
        args: Args<'_>,
        context: Surroundings,
    ) -> Option<Denied> {
        let denied = self.denied(key, name, args)?;
        let (reason, object) = match denied {
            Denied::Command => (Reason::Command, name.as_bytes()),
            Denied::Key(number) => (Reason::Key, args.at(number)),
            Denied::Channel(number) => (Reason::Channel, args.at(number)),
        };
        self.note_refusal(key, context, reason, object, None);
        Some(denied)
    }

    /// SORT reads keys that are not among its arguments.
    pub(super) fn admit_sort(&self, key: usize, name: &str, args: Args<'_>) -> Result<(), Failure> {
        let user = match (name, self.clients.get(key)) {
            ("sort" | "sort_ro", Some(client)) => client.user,
            _ => return Ok(()),
        };
        if self.users.is_unrestricted(user) {
            return Ok(());
        }
        let may_read_all = |number: CommandNumber| {
            let user = self.users.get(user);
            user.is_some_and(|user| user.may_read_all_keys(number, args))
        };
        match sort_reads_by_pattern(args) {
            Some(option) if !catalog().number(name).is_some_and(may_read_all) => {
                Err(Failure::text(format!(
                    "ERR {option} option of SORT denied due to insufficient ACL permissions."
                )))
            }
            _ => Ok(()),
        }
    }

    fn surroundings(&self, key: usize) -> Surroundings {
        let client = self.clients.get(key);
        match client.is_some_and(|of| of.transaction.is_some() || of.is_executing) {
            true => Surroundings::Multi,
            false => Surroundings::Toplevel,
        }
    }

    fn note_refusal(
        &mut self,
        key: usize,
        context: Surroundings,
        reason: Reason,
        object: &[u8],
        user: Option<&[u8]>,
    ) {
        let Some(client) = self.clients.get(key) else {
            return;
        };
        let user = user.unwrap_or_else(|| self.users.name(client.user));
        let event = Event {
            reason,
            context,
            object: object.to_vec(),
            user: user.to_vec(),
            client: self.client_line(key),
            at_ms: self.keyspace.now_ms(),
            count: 1,
        };
        let most = usize::try_from(self.parameters.number("acllog-max-len"));
        self.refusals.note(event, most.unwrap_or(usize::MAX));
    }

    /// A user goes: so do its clients. The one that runs this gets its reply before.
    pub(super) fn end_clients_of(&mut self, user: UserId, current: usize) {
        let default = self.users.default_id();
        for key in self.clients_where(|client| client.user == user) {
            let client = &mut self.clients[key];
            (client.user, client.is_authenticated) = (default, false);
            self.send_away(key, current);
        }
    }

    /// A user has other channels from now on: who listens to what it may not any more goes.
    pub(super) fn end_listeners(&mut self, user: UserId, becomes: &User, current: usize) {
        let listens_still = |client: &super::Client| {
            let channels = client.channels.iter().chain(&client.shard_channels);
            channels.into_iter().all(|of| becomes.may_listen(of, false))
                && client
                    .patterns
                    .iter()
                    .all(|of| becomes.may_listen(of, true))
        };
        let is_over = |client: &super::Client| client.user == user && !listens_still(client);
        for key in self.clients_where(is_over) {
            self.send_away(key, current);
        }
    }

    fn clients_where(&self, is_such: impl Fn(&super::Client) -> bool) -> Vec<usize> {
        let found = self.clients.iter().filter(|(_, client)| is_such(client));
        found.map(|(key, _)| key).collect()
    }

    fn send_away(&mut self, key: usize, current: usize) {
        match key == current {
            true => self.clients[key].closing = Some(CloseReason::Killed),
            false => self.kill(key),
        }
    }
}

/// A command's name, with its subcommand's.
fn full_name(command: &Command, args: Args<'_>) -> &'static str {
    match described::is_container(command.name) && args.len() > 1 {
        true => described::subcommand(command.name, args.at(1)).map_or(command.name, |of| of.name),
        false => command.name,
    }
}
