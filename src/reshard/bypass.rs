//! Who writes to the old shards without going through the job's proxies, as
//! CLIENT LIST shows it. Pure.
//!
//! With a fence of logins every proxy of the pool is logged in as the epoch's
//! user. A connection of another user whose last command was a write, not long
//! ago, goes round the proxies: the fence does not hold it off, and what it
//! writes after the switch would stay on a shard that nobody reads.
//!
//! CLIENT LIST shows the last command only: who mixes reads and writes may be
//! missed by one look. So a [`Memory`] keeps what many looks found, as long as the
//! connection is there. Replicas and our own connections are left out, and who
//! waits (BLPOP) and has written nothing: a proxy's may be older than its login.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::router::address::ShardAddress;
use crate::router::commands::lookup;

use super::fencing::OwnNames;
use super::mover::client_field;

/// A write this long ago does not count any more.
pub const RECENT_S: u64 = 60;

/// A write this long ago may have been made behind the fence.
pub const BEHIND_THE_FENCE_S: u64 = 2;

/// How many are named at most.
pub const NAMED_MAX: usize = 20;

/// One connection that writes round the proxies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bypass {
    /// The shard it writes to.
    pub server: ShardAddress,
    /// Where it comes from.
    pub from: String,
    /// As whom it is logged in.
    pub user: String,
    /// Its last command.
    pub command: String,
    /// How long ago that was.
    pub idle_s: u64,
}

impl Bypass {
    /// The connection alone, which its whole text begins with.
    pub fn who(&self) -> String {
        format!("{} (user {}) on {}: ", self.from, self.user, self.server)
    }
}

impl fmt::Display for Bypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}, {} s ago", self.who(), self.command, self.idle_s)
    }
}

/// The connections in `list`, the text of CLIENT LIST of `server`, that wrote
/// within the last `recent_s` seconds.
pub fn bypassing(server: &ShardAddress, list: &str, own: &OwnNames, recent_s: u64) -> Vec<Bypass> {
    let found = list.lines().filter_map(|line| {
        let field = |name: &str| client_field(line, name);
        let command = field("cmd")?;
        let (user, idle_s) = (field("user")?, field("idle")?.parse().ok()?);
        let name = field("name").unwrap_or_default();
        let is_ours = name.starts_with(own.prefix) || own.users.iter().any(|own| own == user);
        let is_other = field("flags")?.contains(['S', 'M', 'b']);
        if is_ours || is_other || idle_s > recent_s || !is_write(command) {
            return None;
        }
        Some(Bypass {
            server: server.clone(),
            from: field("addr")?.to_owned(),
            user: user.to_owned(),
            command: command.to_owned(),
            idle_s,
        })
    });
    found.take(NAMED_MAX).collect()
}

/// Connections that are remembered at most.
pub const REMEMBERED_MAX: usize = 1_000;

/// Writers that looks at the old shards found. Times are seconds of one clock.
#[derive(Debug, Default)]
pub struct Memory(BTreeMap<(ShardAddress, String), Remembered>);

#[derive(Debug)]
struct Remembered {
    bypass: Bypass,
    wrote_at_s: u64,
}

impl Memory {
    /// Takes in what CLIENT LIST of `server` said at `now_s`.
    pub fn look(&mut self, now_s: u64, server: &ShardAddress, list: &str, own: &OwnNames) {
        let there: BTreeSet<&str> = list
            .lines()
            .filter_map(|line| line.split(' ').find_map(|pair| pair.strip_prefix("addr=")))
            .collect();
        self.0.retain(|(at, from), known| {
            let is_fresh = known.wrote_at_s + RECENT_S >= now_s;
            at != server || (is_fresh && there.contains(from.as_str()))
        });
        for bypass in bypassing(server, list, own, RECENT_S) {
            let key = (server.clone(), bypass.from.clone());
            let wrote_at_s = now_s.saturating_sub(bypass.idle_s);
            if self.0.len() < REMEMBERED_MAX || self.0.contains_key(&key) {
                self.0.insert(key, Remembered { bypass, wrote_at_s });
            }
        }
    }

    /// Who wrote after `since_s`, as seen at `now_s`.
    pub fn writers(&self, now_s: u64, since_s: u64) -> Vec<Bypass> {
        let found = self.0.values().filter(|known| known.wrote_at_s > since_s);
        let aged = found.map(|known| Bypass {
            idle_s: now_s.saturating_sub(known.wrote_at_s),
            ..known.bypass.clone()
        });
        aged.take(NAMED_MAX).collect()
    }
}

/// `set`, or `xgroup|create`.
fn is_write(command: &str) -> bool {
    let (name, sub) = command.split_once('|').unwrap_or((command, ""));
    let Some(found) = lookup(name.as_bytes()) else {
        return false;
    };
    let sub = found.subcommand(sub.as_bytes());
    sub.unwrap_or(found).is_write()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_recent_writers_of_other_users_are_named() {
        let server: ShardAddress = "10.0.0.1:6379".parse().unwrap();
        let own = OwnNames {
            users: ["keyferry-p-e3", "keyferry-p-e4", "keyferry-p-e5"].map(str::to_owned),
            prefix: "keyferry",
        };
        let line = |addr: &str, name: &str, idle: u64, flags: &str, cmd: &str, user: &str| {
            format!(
                "id=7 addr={addr} laddr=10.0.0.1:6379 fd=8 name={name} age=9 idle={idle} \
                 flags={flags} db=0 sub=0 psub=0 multi=-1 qbuf=0 cmd={cmd} user={user} resp=2\n"
            )
        };
        let list = [
            line("10.0.0.9:1", "", 3, "N", "set", "default"),
            line("10.0.0.9:2", "", 3, "N", "get", "default"),
            line("10.0.0.9:3", "", 3, "N", "incr", "keyferry-p-e3"),
            line(
                "10.0.0.9:4",
                "keyferry:job-1:lane",
                0,
                "N",
                "restore",
                "default",
            ),
            line("10.0.0.9:5", "", 0, "S", "replconf", "default"),
            line("10.0.0.9:10", "", 5, "b", "blpop", "default"),
            line("10.0.0.9:6", "", 90, "N", "set", "default"),
            line("10.0.0.9:7", "app", 60, "N", "xgroup|create", "other"),
            line("10.0.0.9:8", "", 0, "N", "NULL", "default"),
            line("10.0.0.9:9", "", 0, "N", "client|list", "default"),
        ]
        .concat();
        let found = bypassing(&server, &list, &own, RECENT_S);
        let from: Vec<&str> = found.iter().map(|bypass| bypass.from.as_str()).collect();
        assert_eq!(from, ["10.0.0.9:1", "10.0.0.9:7"]);
        assert_eq!(
            found[0].to_string(),
            "10.0.0.9:1 (user default) on 10.0.0.1:6379: set, 3 s ago"
        );
    }

    #[test]
    fn who_reads_after_it_wrote_is_remembered_as_long_as_it_is_connected() {
        let server: ShardAddress = "10.0.0.1:6379".parse().unwrap();
        let own = OwnNames {
            users: ["a", "b", "c"].map(str::to_owned),
            prefix: "keyferry",
        };
        let list = |idle: u64, command: &str| {
            format!("id=7 addr=10.0.0.9:1 name= idle={idle} flags=N cmd={command} user=default\n")
        };
        let mut memory = Memory::default();
        memory.look(100, &server, &list(3, "set"), &own);
        memory.look(110, &server, &list(0, "get"), &own);
        let writers = memory.writers(110, 50);
        assert_eq!(writers.len(), 1);
        assert_eq!(
            (writers[0].command.as_str(), writers[0].idle_s),
            ("set", 13)
        );
        assert!(memory.writers(110, 97).is_empty(), "not since then");
        memory.look(111, &server, "", &own);
        assert!(memory.writers(111, 50).is_empty(), "it is gone");
        memory.look(200, &server, &list(0, "set"), &own);
        memory.look(300, &server, &list(0, "get"), &own);
        assert!(memory.writers(300, 0).is_empty(), "that was long ago");
    }
}
