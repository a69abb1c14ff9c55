//! The handshake of a replica: AUTH, PING, REPLCONF, PSYNC.
//!
//! ```text
//! AUTH [user] pass        an error is final
//! PING                    NOAUTH, NOPERM and plain ERR do not matter; LOADING does
//! REPLCONF x y, each      errors do not matter: old servers do not know the option
//! PSYNC id offset         "\n" keepalives, then one of
//!   +FULLRESYNC             the snapshot comes on this socket
//!   +CONTINUE               the stream goes on
//!   +RDBCHANNELSYNC         the snapshot comes on a second one: two_sockets.rs
//!   +DUALCHANNELSYNC        the same, as Valkey does it
//!   -ERR unknown command    SYNC, if INFO says that the server is older than 2.8
//! ```
//!
//! Each reply is read before the next request is sent: a server refuses PSYNC
//! while it has a reply of ours to send. Every option has its own REPLCONF: a
//! server that does not know one drops the rest of the same command.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::config::{ResumePoint, SnapshotWanted, TapConfig};
use super::error::{TapError, TapErrorKind, TapStep};
use super::two_sockets;
use super::wire::{Wire, unexpected};
use crate::resp::{Value, write_command};
use crate::upstream::socket::WriteHalf;
use crate::upstream::{Session, ShardAddress, UpstreamConfig};

/// The version we say we are: Valkey >= 9.1 writes RDB 80, which knows expiry
/// times of hash fields, only for replicas of at least this one.
pub(super) const VERSION: &str = "9.0.0";

/// Longest time a request of the handshake may take to be sent.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How PSYNC was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A snapshot of `offset` comes next.
    Full { replid: String, offset: u64 },
    /// The stream comes next.
    Continue { replid: String },
    /// Redis: the snapshot is fetched by another connection, which names this one so.
    RdbChannel { client_id: String },
    /// Valkey: the same, but that connection gets the id.
    DualChannel,
}

/// A link to a source that sends.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) address: ShardAddress,
    pub(super) wire: Wire,
    pub(super) write: WriteHalf,
    pub(super) start: Start,
}

/// What a link begins with.
#[derive(Debug)]
pub(super) enum Start {
    /// The stream, after the byte we asked from.
    Continue { replid: String },
    /// A snapshot, then the stream.
    Full { replid: String, offset: u64 },
    /// The stream; the snapshot before it comes from the other socket.
    FullApart {
        replid: String,
        offset: u64,
        snapshot: Box<Talk>,
    },
    /// A snapshot, then a stream that has no offsets (SYNC).
    Unnumbered,
}

impl Link {
    pub(super) fn continues(&self) -> bool {
        matches!(self.start, Start::Continue { .. })
    }
}

/// Both directions of a connection that is no longer request and reply.
#[derive(Debug)]
pub(super) struct Talk {
    pub(super) address: ShardAddress,
    pub(super) wire: Wire,
    pub(super) write: WriteHalf,
}

impl Talk {
    pub(super) fn of(session: Session, config: &TapConfig) -> Self {
        let address = session.address().clone();
        let (reader, writer) = session.split();
        let (half, buffer) = reader.into_raw();
        Self {
            address,
            wire: Wire::new(half, buffer, config.silence_max),
            write: writer.into_raw(),
        }
    }

    pub(super) async fn say(&mut self, args: &[&[u8]]) -> Result<(), TapErrorKind> {
        let mut request = Vec::new();
        write_command(&mut request, args);
        match timeout(SEND_TIMEOUT, self.write.write_all(&request)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(TapErrorKind::Io(error)),
            Err(_) => Err(TapErrorKind::Silent(SEND_TIMEOUT)),
        }
    }

    /// Asks to be sent what follows `resume`, or everything.
    pub(super) async fn psync(
        &mut self,
        resume: Option<&ResumePoint>,
    ) -> Result<Answer, TapErrorKind> {
        let (replid, next_offset) = match resume {
            Some(point) => (
                point.replid.as_str(),
                point.offset.saturating_add(1).to_string(),
            ),
            None => ("?", "-1".to_owned()),
        };
        self.say(&[b"PSYNC", replid.as_bytes(), next_offset.as_bytes()])
            .await?;
        // The answer waits for the source's fork; while it waits, newlines come.
        let line = self.wire.line().await?;
        parse_answer(&line, resume)
    }

    pub(super) fn into_link(self, start: Start) -> Link {
        Link {
            address: self.address,
            wire: self.wire,
            write: self.write,
            start,
        }
    }
}

/// Connects to `address` and becomes a replica.
pub(super) async fn attach(
    address: &ShardAddress,
    config: &TapConfig,
    resume: Option<&ResumePoint>,
) -> Result<Link, TapError> {
    let mut session = connect(address, config).await?;
    ping(&mut session).await?;
    introduce(&mut session, config).await?;
    let mut main = Talk::of(session, config);
    let at_psync = |kind: TapErrorKind| kind.at(address, TapStep::Psync);
    let start = match main.psync(resume).await {
        Ok(Answer::Full { replid, offset }) => Start::Full { replid, offset },
        Ok(Answer::Continue { replid }) => Start::Continue { replid },
        Ok(Answer::RdbChannel { client_id }) => {
            two_sockets::fetch_by_client_id(address, config, &client_id)
                .await
                .map_err(on_second_socket)?
        }
        Ok(Answer::DualChannel) => two_sockets::fetch_and_attach(&mut main, config)
            .await
            .map_err(on_second_socket)?,
        Err(TapErrorKind::PsyncNotAvailable(text)) if text.starts_with("ERR unknown command") => {
            return sync_with_old(address, config, text).await;
        }
        Err(kind) => return Err(at_psync(kind)),
    };
    Ok(main.into_link(start))
}

/// Connects and authenticates.
pub(super) async fn connect(
    address: &ShardAddress,
    config: &TapConfig,
) -> Result<Session, TapError> {
    // A proxy's request timeout says nothing about a source that is busy forking.
    let upstream = UpstreamConfig {
        request_timeout: Some(config.silence_max),
        ..config.upstream.clone()
    };
    Session::connect(address, &upstream)
        .await
        .map_err(|error| TapError::of_session(error, TapStep::Connect))
}

async fn ping(session: &mut Session) -> Result<(), TapError> {
    let step = TapStep::Ping;
    let reply = session
        .call(&[b"PING"])
        .await
        .map_err(|error| TapError::of_session(error, step))?;
    match reply {
        Value::Error(text) => match refusal(&text) {
            Refusal::NotNow => Err(TapErrorKind::NotNow(lossy(&text)).at(session.address(), step)),
            // PSYNC's own answer decides.
            Refusal::Password | Refusal::Final => Ok(()),
        },
        _ => Ok(()),
    }
}

/// Says what we are and what we can read. Nothing of it is needed: without `eof`
/// the source writes a file first, without `psync2` it does not say its new id.
///
/// Since Redis 8.6 strings may come uncompressed: packing them costs the source,
/// unpacking them the target, as it does a native replica. `rdb-no-checksum` is
/// left alone, because the checksum is how we know that nothing was damaged.
async fn introduce(session: &mut Session, config: &TapConfig) -> Result<(), TapError> {
    let port = config.listening_port.to_string();
    let mut options = vec![
        ("listening-port", port.as_str()),
        ("capa", "eof"),
        ("capa", "psync2"),
        ("version", VERSION),
        ("rdb-no-compress", "1"),
    ];
    if config.two_sockets {
        options.extend([("capa", "rdb-channel-repl"), ("capa", "dual-channel")]);
    }
    if config.snapshot == SnapshotWanted::Empty {
        options.push(("rdb-filter-only", ""));
    }
    for (option, value) in options {
        session
            .call(&[b"REPLCONF", option.as_bytes(), value.as_bytes()])
            .await
            .map_err(|error| TapError::of_session(error, TapStep::Replconf))?;
    }
    Ok(())
}

/// The server has no PSYNC: SYNC, if it is older than PSYNC. On a newer one
/// PSYNC was renamed, and nobody asked for the weaker way.
async fn sync_with_old(
    address: &ShardAddress,
    config: &TapConfig,
    refusal: String,
) -> Result<Link, TapError> {
    let mut session = connect(address, config).await?;
    let info = session
        .call(&[b"INFO"])
        .await
        .map_err(|error| TapError::of_session(error, TapStep::Psync))?;
    let text = match info {
        Value::Bulk(text) => lossy(&text),
        _ => String::new(),
    };
    if !is_before_psync(&text) {
        return Err(TapErrorKind::PsyncNotAvailable(refusal).at(address, TapStep::Psync));
    }
    let mut talk = Talk::of(session, config);
    talk.say(&[b"SYNC"])
        .await
        .map_err(|kind| kind.at(address, TapStep::Psync))?;
    Ok(talk.into_link(Start::Unnumbered))
}

/// Whether INFO is that of a server before 2.8.
fn is_before_psync(info: &str) -> bool {
    let version = info
        .lines()
        .find_map(|line| line.strip_prefix("redis_version:"));
    let mut numbers = version
        .unwrap_or_default()
        .split('.')
        .map_while(|word| word.trim().parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) < (2, 8),
        _ => false,
    }
}

fn parse_answer(line: &[u8], resume: Option<&ResumePoint>) -> Result<Answer, TapErrorKind> {
    let text = std::str::from_utf8(line).map_err(|_| unexpected(line))?;
    if let Some(error) = text.strip_prefix('-') {
        return Err(match refusal(error.as_bytes()) {
            Refusal::NotNow => TapErrorKind::NotNow(error.to_owned()),
            Refusal::Password => TapErrorKind::PasswordRequired(error.to_owned()),
            Refusal::Final => TapErrorKind::PsyncNotAvailable(error.to_owned()),
        });
    }
    // Parsed loosely: some vendors add words after the ones everybody sends.
    let mut words = text.split_ascii_whitespace();
    match (words.next(), resume) {
        (Some("+FULLRESYNC"), _) => {
            let replid = words.next().ok_or_else(|| unexpected(line))?;
            let offset = words.next().and_then(|word| word.parse().ok());
            let offset = offset.ok_or_else(|| unexpected(line))?;
            Ok(Answer::Full {
                replid: replid.to_owned(),
                offset,
            })
        }
        (Some("+CONTINUE"), Some(point)) => Ok(Answer::Continue {
            replid: words.next().unwrap_or(&point.replid).to_owned(),
        }),
        (Some("+RDBCHANNELSYNC"), _) => Ok(Answer::RdbChannel {
            client_id: words.next().ok_or_else(|| unexpected(line))?.to_owned(),
        }),
        (Some("+DUALCHANNELSYNC"), _) => Ok(Answer::DualChannel),
        _ => Err(unexpected(line)),
    }
}

/// What an error reply to a would-be replica means.
enum Refusal {
    NotNow,
    Password,
    Final,
}

fn refusal(text: &[u8]) -> Refusal {
    const NOT_NOW: [&[u8]; 8] = [
        b"NOMASTERLINK",
        b"LOADING",
        b"MASTERDOWN",
        b"BUSY",
        b"TRYAGAIN",
        b"ERR BGSAVE failed",
        b"ERR Can't SYNC while",
        b"ERR max number of clients",
    ];
    if NOT_NOW.iter().any(|start| text.starts_with(start)) {
        Refusal::NotNow
    } else if text.starts_with(b"NOAUTH") || text.starts_with(b"ERR operation not permitted") {
        Refusal::Password
    } else {
        Refusal::Final
    }
}

pub(super) fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

fn on_second_socket(error: TapError) -> TapError {
    TapError {
        step: TapStep::SecondSocket,
        ..error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(line: &str) -> Result<Answer, TapErrorKind> {
        let point = ResumePoint {
            replid: "old".to_owned(),
            offset: 7,
            db: 0,
        };
        parse_answer(line.as_bytes(), Some(&point))
    }

    #[test]
    fn answers_are_read_loosely() {
        let full = Answer::Full {
            replid: "abc".to_owned(),
            offset: 12,
        };
        for line in ["+FULLRESYNC abc 12", "+FULLRESYNC abc 12 some words"] {
            assert_eq!(answer(line).unwrap(), full);
        }
        for (line, replid) in [("+CONTINUE", "old"), ("+CONTINUE new", "new")] {
            assert_eq!(
                answer(line).unwrap(),
                Answer::Continue {
                    replid: replid.to_owned()
                }
            );
        }
    }

    #[test]
    fn refusals_say_whether_to_come_back() {
        use TapErrorKind as Kind;
        for line in [
            "-NOMASTERLINK x",
            "-LOADING x",
            "-MASTERDOWN x",
            "-ERR BGSAVE failed, x",
        ] {
            assert!(matches!(answer(line), Err(Kind::NotNow(_))), "{line}");
        }
        for line in ["-ERR unknown command 'PSYNC'", "-NOPERM this user"] {
            assert!(
                matches!(answer(line), Err(Kind::PsyncNotAvailable(_))),
                "{line}"
            );
        }
        assert!(matches!(
            answer("-NOAUTH x"),
            Err(Kind::PasswordRequired(_))
        ));
    }

    #[test]
    fn two_sockets_are_offered_in_two_ways() {
        let client_id = "17".to_owned();
        assert_eq!(
            answer("+RDBCHANNELSYNC 17").unwrap(),
            Answer::RdbChannel { client_id }
        );
        assert_eq!(answer("+DUALCHANNELSYNC").unwrap(), Answer::DualChannel);
        assert!(answer("+RDBCHANNELSYNC").is_err());
    }

    #[test]
    fn only_servers_before_psync_are_asked_to_sync() {
        for (info, old) in [
            ("# Server\r\nredis_version:2.6.17\r\n", true),
            ("redis_version:2.4.0", true),
            ("redis_version:2.8.0", false),
            ("redis_version:7.0.15\r\n", false),
            ("redis_version:unstable", false),
            ("", false),
        ] {
            assert_eq!(is_before_psync(info), old, "{info}");
        }
    }

    #[test]
    fn other_answers_are_refused() {
        for line in [
            "+OK",
            "+FULLRESYNC",
            "+FULLRESYNC abc",
            "+FULLRESYNC abc x",
            "$5",
            "",
        ] {
            assert!(
                matches!(answer(line), Err(TapErrorKind::UnexpectedAnswer(_))),
                "{line}"
            );
        }
        assert!(parse_answer(b"+CONTINUE", None).is_err());
    }
}
