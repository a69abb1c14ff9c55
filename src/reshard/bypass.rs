//! Who writes to the old shards without going through the job's proxies, as
//! CLIENT LIST shows it. Pure.
//!
//! With a fence of logins every proxy of the pool is logged in as the epoch's
//! user. A connection of another user whose last command was a write, not long
//! ago, goes round the proxies: the fence does not hold it off, and what it
//! writes after the switch would stay on a shard that nobody reads.
//!
//! CLIENT LIST shows the last command only: who mixes reads and writes may be
//! missed by one look. Replicas and our own connections are left out, and who
//! waits (BLPOP) and has written nothing: a proxy's may be older than its login.

use std::fmt;

use crate::router::address::ShardAddress;
use crate::router::commands::lookup;

use super::fencing::OwnNames;

/// A write this long ago does not count any more.
pub const RECENT_S: u64 = 60;

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

impl fmt::Display for Bypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (user {}) on {}: {}, {} s ago",
            self.from, self.user, self.server, self.command, self.idle_s
        )
    }
}

/// The connections in `list`, the text of CLIENT LIST of `server`, that wrote
/// within the last `recent_s` seconds.
pub fn bypassing(server: &ShardAddress, list: &str, own: &OwnNames, recent_s: u64) -> Vec<Bypass> {
    let found = list.lines().filter_map(|line| {
        let field = |name: &str| {
            line.split(' ')
                .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
        };
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
}
