//! Servers of other versions and vendors, as `scripts/servers` fetches them.
//!
//! Where: the directory named by `KEYFERRY_TEST_SERVERS`, or `target/servers`.
//! What is missing there is skipped by name and counted ([`Skipped`]); with
//! `KEYFERRY_TEST_ALL_SERVERS=1`, as in CI, it is a failure.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One of the servers that keys are moved between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerKind {
    /// Redis 6.0: RDB 9.
    Redis60,
    /// Redis 6.2: RDB 9.
    Redis62,
    /// Redis 7.0: RDB 10.
    Redis70,
    /// Redis 8.0: RDB 12.
    Redis80,
    /// Valkey 8.1: RDB 11.
    Valkey81,
    /// Valkey 9.1: RDB 80.
    Valkey91,
}

impl ServerKind {
    /// All of them, oldest first.
    pub const ALL: [ServerKind; 6] = [
        ServerKind::Redis60,
        ServerKind::Redis62,
        ServerKind::Redis70,
        ServerKind::Redis80,
        ServerKind::Valkey81,
        ServerKind::Valkey91,
    ];

    /// Its name, and that of its program in the directory.
    pub fn name(self) -> &'static str {
        match self {
            ServerKind::Redis60 => "redis-6.0",
            ServerKind::Redis62 => "redis-6.2",
            ServerKind::Redis70 => "redis-7.0",
            ServerKind::Redis80 => "redis-8.0",
            ServerKind::Valkey81 => "valkey-8.1",
            ServerKind::Valkey91 => "valkey-9.1",
        }
    }

    /// The program to start, or why there is none.
    pub fn program(self) -> Result<PathBuf, String> {
        let dir = std::env::var_os("KEYFERRY_TEST_SERVERS").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/servers"),
            PathBuf::from,
        );
        let fetched = dir.join("bin").join(self.name());
        if fetched.exists() {
            return Ok(fetched);
        }
        let installed = Path::new("redis-server");
        if self == ServerKind::Redis70 && is_version(installed, "7.0.") {
            return Ok(installed.to_owned());
        }
        Err(format!(
            "no {}; ./scripts/servers fetches it",
            fetched.display()
        ))
    }

    /// Whether it can be started here.
    pub fn is_here(self) -> bool {
        self.program().is_ok()
    }

    /// Fields of a hash may have a time to live.
    pub fn has_field_ttls(self) -> bool {
        matches!(self, ServerKind::Redis80 | ServerKind::Valkey91)
    }

    /// FUNCTION, ENTRIESREAD and ENTRIESADDED of streams, PEXPIRETIME: all of
    /// 7.0 and of what came from it.
    pub fn is_seven_or_later(self) -> bool {
        !matches!(self, ServerKind::Redis60 | ServerKind::Redis62)
    }
}

impl fmt::Display for ServerKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

fn is_version(program: &Path, start: &str) -> bool {
    let output = Command::new(program).arg("--version").output();
    output.is_ok_and(|output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.split(" v=").nth(1);
        version.is_some_and(|version| version.starts_with(start))
    })
}

/// What a test did not do for want of a server.
#[derive(Default)]
pub struct Skipped {
    names: Vec<String>,
}

impl Skipped {
    /// True when all of `kinds` are here; else `what` is skipped, and says so.
    pub fn unless_here(&mut self, what: &str, kinds: &[ServerKind]) -> bool {
        let missing = kinds.iter().find_map(|kind| kind.program().err());
        if let Some(why) = &missing {
            eprintln!("skipped: {what}: {why}");
            self.names.push(what.to_owned());
        }
        missing.is_none()
    }

    /// Says how many were skipped; panics if the environment wants all.
    pub fn finish(self) {
        if self.names.is_empty() {
            return;
        }
        let count = self.names.len();
        eprintln!("skipped for want of a server: {count}");
        assert!(
            std::env::var_os("KEYFERRY_TEST_ALL_SERVERS").is_none(),
            "KEYFERRY_TEST_ALL_SERVERS is set, and {count} were skipped: {}",
            self.names.join(", ")
        );
    }
}
