//! Error replies in Redis 7's own words, because clients parse them.
//!
//! A text here starts with its code (`ERR`, `NOAUTH`, ...) and has neither the
//! leading '-' nor the line end; [`ErrorReply::write`] adds both. No text holds
//! a CR or LF, whatever a client sent.

use super::commands::{ArgList, Command, KeyError, Refusal, Unsupported};
use std::borrow::Cow;

/// Redis quotes at most this many bytes of what was sent.
const QUOTED_BYTES_MAX: usize = 128;

const TOO_MANY_KEYS: &str = "ERR Number of keys can't be greater than number of args";

/// One error reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorReply(Cow<'static, [u8]>);

/// AUTH while no password is set.
pub const AUTH_WITHOUT_PASSWORD: ErrorReply = ErrorReply::fixed(
    "ERR AUTH <password> called without any password configured for the default user. \
     Are you sure your configuration is correct?",
);
/// A command before AUTH.
pub const NOAUTH: ErrorReply = ErrorReply::fixed("NOAUTH Authentication required.");
/// EXEC before AUTH.
pub const EXEC_NOAUTH: ErrorReply = ErrorReply::fixed(
    "EXECABORT Transaction discarded because of: NOAUTH Authentication required.",
);
/// HELLO before AUTH, without its AUTH option.
pub const HELLO_NOAUTH: ErrorReply = ErrorReply::fixed(
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> \
     option can be used to authenticate the client and select the RESP protocol version at the same time",
);
/// AUTH with a wrong user or password.
pub const WRONGPASS: ErrorReply =
    ErrorReply::fixed("WRONGPASS invalid username-password pair or user is disabled.");
/// HELLO with a version other than 2 and 3.
pub const NOPROTO: ErrorReply = ErrorReply::fixed("NOPROTO unsupported protocol version");
/// HELLO with a version that is no number.
pub const PROTOCOL_VERSION_NOT_INTEGER: ErrorReply =
    ErrorReply::fixed("ERR Protocol version is not an integer or out of range");
/// SELECT beyond the last database.
pub const DB_OUT_OF_RANGE: ErrorReply = ErrorReply::fixed("ERR DB index is out of range");
/// A number was expected.
pub const NOT_AN_INTEGER: ErrorReply =
    ErrorReply::fixed("ERR value is not an integer or out of range");
/// SCAN with a cursor that is none.
pub const INVALID_CURSOR: ErrorReply = ErrorReply::fixed("ERR invalid cursor");
/// What is only for a cluster.
pub const CLUSTER_DISABLED: ErrorReply =
    ErrorReply::fixed("ERR This instance has cluster support disabled");
/// CLIENT KILL with an address that nobody has.
pub const NO_SUCH_CLIENT: ErrorReply = ErrorReply::fixed("ERR No such client");
/// Options that make no sense.
pub const SYNTAX: ErrorReply = ErrorReply::fixed("ERR syntax error");
/// CLIENT SETNAME with a space, newline or other byte outside '!'..='~'.
pub const CLIENT_NAME: ErrorReply =
    ErrorReply::fixed("ERR Client names cannot contain spaces, newlines or special characters.");

impl ErrorReply {
    const fn fixed(text: &'static str) -> Self {
        Self(Cow::Borrowed(text.as_bytes()))
    }

    /// An error of our own; `text` starts with its code. Line ends become spaces.
    pub fn new(text: impl Into<Vec<u8>>) -> Self {
        let mut text = text.into();
        for byte in &mut text {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        Self(Cow::Owned(text))
    }

    /// The text, code first, without '-' and line end.
    pub fn text(&self) -> &[u8] {
        &self.0
    }

    /// Appends the reply as RESP.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(b'-');
        out.extend_from_slice(&self.0);
        out.extend_from_slice(b"\r\n");
    }

    /// What Redis answers to a request that [`super::commands::resolve`] refused.
    pub fn refused(refusal: Refusal, args: &(impl ArgList + ?Sized)) -> Self {
        match refusal {
            Refusal::UnknownCommand => Self::unknown_command(args),
            Refusal::UnknownSubcommand => Self::unknown_subcommand(args.arg(0), args.arg(1)),
            Refusal::Arity(command) => Self::wrong_arity(command),
        }
    }

    fn unknown_command(args: &(impl ArgList + ?Sized)) -> Self {
        let mut text = b"ERR unknown command '".to_vec();
        text.extend_from_slice(quoted(args.arg(0), QUOTED_BYTES_MAX));
        text.extend_from_slice(b"', with args beginning with: ");
        let start = text.len();
        for index in 1..args.len() {
            let used = text.len() - start;
            if used >= QUOTED_BYTES_MAX {
                break;
            }
            text.push(b'\'');
            text.extend_from_slice(quoted(args.arg(index), QUOTED_BYTES_MAX - used));
            text.extend_from_slice(b"' ");
        }
        Self::new(text)
    }

    fn unknown_subcommand(container: &[u8], word: &[u8]) -> Self {
        let mut text = b"ERR unknown subcommand '".to_vec();
        text.extend_from_slice(quoted(word, QUOTED_BYTES_MAX));
        text.extend_from_slice(b"'. Try ");
        text.extend(container.iter().map(u8::to_ascii_uppercase));
        text.extend_from_slice(b" HELP.");
        Self::new(text)
    }

    /// Too few or too many arguments after a subcommand, where Redis looks itself.
    pub fn subcommand_syntax(args: &(impl ArgList + ?Sized)) -> Self {
        let mut text = b"ERR unknown subcommand or wrong number of arguments for '".to_vec();
        text.extend_from_slice(quoted(args.arg(1), QUOTED_BYTES_MAX));
        text.extend_from_slice(b"'. Try ");
        text.extend(args.arg(0).iter().map(u8::to_ascii_uppercase));
        text.extend_from_slice(b" HELP.");
        Self::new(text)
    }

    /// Too few or too many arguments.
    pub fn wrong_arity(command: &Command) -> Self {
        // EXEC that fails says what became of the transaction.
        let code = if command.name == "exec" {
            "EXECABORT Transaction discarded because of:"
        } else {
            "ERR"
        };
        Self::new(format!(
            "{code} wrong number of arguments for '{}' command",
            command.name
        ))
    }

    /// HELLO with an option it does not have.
    pub fn hello_option(option: &[u8]) -> Self {
        let mut text = b"ERR Syntax error in HELLO option '".to_vec();
        text.extend_from_slice(quoted(option, usize::MAX));
        text.push(b'\'');
        Self::new(text)
    }

    /// The arguments do not say which keys are meant, as COMMAND GETKEYS words it.
    pub fn keys(error: KeyError) -> Self {
        Self::new(format!("ERR {error}"))
    }

    /// The same as the command itself words it, which says what is wrong with its
    /// number of keys.
    pub fn keys_of(command: &Command, args: &(impl ArgList + ?Sized), error: KeyError) -> Self {
        let count = |index| std::str::from_utf8(args.arg(index)).map(str::parse::<i64>);
        match command.name {
            // Redis's `evalGenericCommand`
            "eval" | "evalsha" | "eval_ro" | "evalsha_ro" | "fcall" | "fcall_ro" => {
                match count(2) {
                    Ok(Ok(..0)) => Self::new("ERR Number of keys can't be negative"),
                    Ok(Ok(_)) => Self::new(TOO_MANY_KEYS),
                    _ => NOT_AN_INTEGER,
                }
            }
            "sintercard" | "lmpop" | "zmpop" => match count(1) {
                Ok(Ok(1..)) if command.name == "sintercard" => Self::new(TOO_MANY_KEYS),
                Ok(Ok(1..)) => SYNTAX,
                _ => Self::new("ERR numkeys should be greater than 0"),
            },
            // Redis's `zunionInterDiffGenericCommand`
            "zunion" | "zinter" | "zdiff" | "zintercard" | "zunionstore" | "zinterstore"
            | "zdiffstore" => match count(if command.name.ends_with("store") {
                2
            } else {
                1
            }) {
                Ok(Ok(1..)) => SYNTAX,
                Ok(Ok(_)) => Self::new(format!(
                    "ERR at least 1 input key is needed for '{}' command",
                    command.name
                )),
                _ => NOT_AN_INTEGER,
            },
            _ => Self::keys(error),
        }
    }

    /// A command that Redis has and the proxy has not.
    pub fn unsupported(command: &Command, why: Unsupported) -> Self {
        Self::new(format!(
            "ERR command '{}' is not supported through this proxy: {}",
            command.name.replace('|', " "),
            why.reason()
        ))
    }

    /// A key is one of our own ([`super::RESERVED_PREFIX`]).
    pub fn reserved_key() -> Self {
        Self::new("ERR keys that begin with \"__keyferry:\" are reserved")
    }

    /// Two keys of one request are on different shards. The beginning is Redis
    /// Cluster's, which clients know; then come the keys and their shards.
    pub fn cross_shard(one: (&[u8], &str), other: (&[u8], &str)) -> Self {
        let mut text = b"CROSSSLOT Keys in request don't hash to the same slot: ".to_vec();
        for (part, (key, shard)) in [(&b""[..], one), (&b", "[..], other)] {
            text.extend_from_slice(part);
            text.push(b'\'');
            text.extend(key.get(..QUOTED_BYTES_MAX).unwrap_or(key).escape_ascii());
            text.extend_from_slice(b"' is on shard ");
            text.extend_from_slice(shard.as_bytes());
        }
        Self::new(text)
    }
}

/// The part of `bytes` that C's `%.*s` prints: up to `bytes_max`, up to a NUL.
fn quoted(bytes: &[u8], bytes_max: usize) -> &[u8] {
    let bytes = bytes.get(..bytes_max).unwrap_or(bytes);
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::commands;

    #[test]
    fn our_own_errors_name_what_they_are_about() {
        let monitor = commands::lookup(b"MONITOR").unwrap();
        let mut out = Vec::new();
        ErrorReply::unsupported(monitor, Unsupported::Monitor).write(&mut out);
        assert_eq!(
            out,
            b"-ERR command 'monitor' is not supported through this proxy: it watches one server; \
              connect to that server\r\n"
        );
        let error = ErrorReply::cross_shard((b"a\r\n", "s1"), (&[b'k'; 200], "127.0.0.1:7002"));
        let expected = format!(
            "CROSSSLOT Keys in request don't hash to the same slot: 'a\\r\\n' is on shard s1, \
             '{}' is on shard 127.0.0.1:7002",
            "k".repeat(128)
        );
        assert_eq!(error.text(), expected.as_bytes());
    }
}
