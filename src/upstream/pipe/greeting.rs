//! What a connection says before its first request.
//!
//! ```text
//! Checked     AUTH   HELLO 3   SELECT n     an error to any of them ends the connection
//! Original    SELECT n   AUTH               as twemproxy: errors are swallowed
//! ```

use crate::resp::write_command;

use super::super::config::Credentials;
use super::dialect::Dialect;

/// Errors that twemproxy takes for a failure of the server, wherever they come.
const FAILURES: [&[u8]; 3] = [b"-OOM", b"-BUSY", b"-LOADING"];

/// What a connection must be told before its first request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// What the shard speaks; memcached's protocol has no greeting.
    pub dialect: Dialect,
    /// RESP version, 2 or 3.
    pub protocol: u8,
    /// Database, 0 needs no SELECT.
    pub database: u16,
    /// AUTH, if the shard wants it.
    pub credentials: Option<Credentials>,
    /// Whose order, and what an error means.
    pub manner: Manner,
}

/// See the head of this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manner {
    /// No request goes out in another database, or unauthenticated.
    #[default]
    Checked,
    /// SELECT comes before AUTH, so that it fails where both are needed, and
    /// requests then run in database 0.
    Original,
}

impl Greeting {
    /// Appends the commands to `out`; returns how many replies they bring.
    pub(super) fn write(&self, out: &mut Vec<u8>) -> usize {
        if self.dialect == Dialect::Memcached {
            return 0;
        }
        let before = self.manner == Manner::Original && self.write_select(out);
        let auth = self.write_auth(out);
        let hello = self.protocol == 3;
        if hello {
            write_command(out, &[b"HELLO", b"3"]);
        }
        let after = self.manner == Manner::Checked && self.write_select(out);
        [before, auth, hello, after].map(usize::from).iter().sum()
    }

    fn write_select(&self, out: &mut Vec<u8>) -> bool {
        if self.database != 0 {
            write_command(out, &[b"SELECT", self.database.to_string().as_bytes()]);
        }
        self.database != 0
    }

    fn write_auth(&self, out: &mut Vec<u8>) -> bool {
        let Some(credentials) = &self.credentials else {
            return false;
        };
        let password = credentials.password.reveal().as_bytes();
        match &credentials.username {
            Some(user) => write_command(out, &[b"AUTH", user.as_bytes(), password]),
            None => write_command(out, &[b"AUTH", password]),
        }
        true
    }

    /// Whether this error reply ends the connection.
    pub(super) fn is_refused_by(&self, reply: &[u8]) -> bool {
        self.manner == Manner::Checked || is_failure(reply)
    }
}

/// Whether twemproxy takes an error reply for a failure of the server: then it
/// hides it, and closes the connection.
pub fn is_failure(reply: &[u8]) -> bool {
    let code = reply.split(|byte| matches!(byte, b' ' | b'\r')).next();
    code.is_some_and(|code| FAILURES.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::config::Secret;

    #[test]
    fn each_manner_has_its_order() {
        let mut greeting = Greeting {
            dialect: Dialect::Resp,
            protocol: 2,
            database: 3,
            credentials: Some(Credentials {
                username: None,
                password: Secret::new("pw"),
            }),
            manner: Manner::Checked,
        };
        let (auth, select) = (
            "*2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n",
            "*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n",
        );
        for (manner, expected) in [
            (Manner::Checked, [auth, select].concat()),
            (Manner::Original, [select, auth].concat()),
        ] {
            greeting.manner = manner;
            let mut out = Vec::new();
            assert_eq!(greeting.write(&mut out), 2);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        assert!(!greeting.is_refused_by(b"-NOAUTH Authentication required.\r\n"));
        assert!(greeting.is_refused_by(b"-LOADING x\r\n"));
    }

    #[test]
    fn only_whole_codes_are_failures() {
        for reply in [&b"-OOM x\r\n"[..], b"-BUSY\r\n", b"-LOADING Redis is\r\n"] {
            assert!(is_failure(reply));
        }
        for reply in [
            &b"-OOMX\r\n"[..],
            b"-BUSYKEY x\r\n",
            b"-ERR OOM\r\n",
            b"+OOM\r\n",
            b"",
        ] {
            assert!(!is_failure(reply));
        }
    }
}
