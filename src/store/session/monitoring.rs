//! MONITOR: clients that are told of all commands that are run.
//!
//! Not of those of operators, which may hold secrets, and not of passwords. EXEC is told
//! behind the commands it ran.

use crate::store::commands::described::{self, Described};
use crate::store::commands::{Args, Command, Failure};

use super::client::Client;
use super::pausing::MAY_REPLICATE;
use super::shard::Shard;

impl Shard {
    pub(super) fn monitor(&mut self, key: usize, may_wait: bool) -> Result<(), Failure> {
        if !may_wait {
            return Err(Failure::words(
                "ERR MONITOR isn't allowed for DENY BLOCKING client",
            ));
        }
        // As in Redis, a second time is not answered.
        if !self.monitors.contains(&key) {
            self.monitors.push(key);
            self.clients[key].is_monitor = true;
            self.clients[key].reply.ok();
        }
        Ok(())
    }

    /// A client is told of nothing any more.
    pub(super) fn stop_monitoring(&mut self, key: usize) {
        self.monitors.retain(|of| *of != key);
        if let Some(client) = self.clients.get_mut(key) {
            client.is_monitor = false;
        }
    }

    /// What a client that monitors may not do.
    pub(super) fn admit_monitor(client: &Client, command: &Command) -> Result<(), Failure> {
        if !client.is_monitor {
            return Ok(());
        }
        let is_about_keys = command.has_flag("write")
            || command.has_flag("readonly")
            || MAY_REPLICATE.contains(&command.name);
        match is_about_keys {
            true => Err(Failure::words(
                "ERR Replica can't interact with the keyspace",
            )),
            false => Ok(()),
        }
    }

    /// Tells those who monitor of a command.
    pub(super) fn tell_monitors(&mut self, key: usize, command: &Command, args: Args<'_>) {
        if self.monitors.is_empty() || is_secret(command, args) {
            return;
        }
        let Some(client) = self.clients.get(key) else {
            return;
        };
        let now_ms = self.keyspace.now_ms();
        let address = match client.address.strip_suffix(":0") {
            _ if self.runs_script(key) => "lua".to_owned(),
            Some(path) if path.starts_with('/') => format!("unix:{path}"),
            _ => client.address.clone(),
        };
        let mut line = format!(
            "{}.{:06} [{} {address}]",
            now_ms / 1000,
            now_ms % 1000 * 1000,
            client.db
        );
        for (number, argument) in args.from(0).enumerate() {
            line.push(' ');
            match is_password(command, args, number) {
                true => line.push_str("\"(redacted)\""),
                false => push_quoted(&mut line, argument),
            }
        }
        for of in self.monitors.clone() {
            if let Some(client) = self.clients.get_mut(of) {
                client.reply.status(&line);
            }
            self.mark(of);
            self.bound_pushed(of);
        }
    }
}

fn is_secret(command: &Command, args: Args<'_>) -> bool {
    let described = match described::is_container(command.name) && args.len() > 1 {
        true => described::subcommand(command.name, args.at(1)),
        false => described::find(command.name),
    };
    let is_admin = |of: &Described| of.has_flag("admin");
    command.has_flag("admin") || described.is_some_and(is_admin)
}

/// Whether an argument is a user or a password.
fn is_password(command: &Command, args: Args<'_>, number: usize) -> bool {
    match command.name {
        "auth" => number > 0,
        "hello" => (number.saturating_sub(2)..number).any(|at| at > 0 && args.is(at, "AUTH")),
        _ => false,
    }
}

/// As Redis writes what may be any bytes.
fn push_quoted(line: &mut String, bytes: &[u8]) {
    line.push('"');
    for byte in bytes {
        match byte {
            b'"' | b'\\' => {
                line.push('\\');
                line.push(char::from(*byte));
            }
            b'\n' => line.push_str("\\n"),
            b'\r' => line.push_str("\\r"),
            b'\t' => line.push_str("\\t"),
            7 => line.push_str("\\a"),
            8 => line.push_str("\\b"),
            b' '..=b'~' => line.push(char::from(*byte)),
            other => line.push_str(&format!("\\x{other:02x}")),
        }
    }
    line.push('"');
}
