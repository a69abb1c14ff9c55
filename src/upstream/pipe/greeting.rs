//! What a fresh connection says before its first request.

use crate::resp::write_command;

use super::super::config::Credentials;
use super::dialect::Dialect;

/// What a connection must be told before its first request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// What the shard speaks.
    pub dialect: Dialect,
    /// RESP version, 2 or 3.
    pub protocol: u8,
    /// Database, 0 needs no SELECT.
    pub database: u16,
    /// AUTH, if the shard wants it.
    pub credentials: Option<Credentials>,
}

impl Greeting {
    /// Appends the commands to `out`; returns how many replies they bring.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> usize {
        if self.dialect == Dialect::Memcached {
            return 0;
        }
        let mut replies = 0;
        if let Some(credentials) = &self.credentials {
            match &credentials.username {
                Some(user) => write_command(
                    out,
                    &[
                        b"AUTH",
                        user.as_bytes(),
                        credentials.password.reveal().as_bytes(),
                    ],
                ),
                None => write_command(out, &[b"AUTH", credentials.password.reveal().as_bytes()]),
            }
            replies += 1;
        }
        if self.protocol == 3 {
            write_command(out, &[b"HELLO", b"3"]);
            replies += 1;
        }
        if self.database != 0 {
            write_command(out, &[b"SELECT", self.database.to_string().as_bytes()]);
            replies += 1;
        }
        replies
    }
}
