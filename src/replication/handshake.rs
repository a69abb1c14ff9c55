//! The handshake of a replica: AUTH, PING, REPLCONF, PSYNC.
//!
//! ```text
//! AUTH [user] pass        an error is final
//! PING                    NOAUTH, NOPERM and plain ERR do not matter; LOADING does
//! REPLCONF x y, each      errors do not matter: old servers do not know the option
//! PSYNC id offset         "\n" keepalives, then +FULLRESYNC, +CONTINUE or an error
//! ```
//!
//! Each reply is read before the next request is sent: a server refuses PSYNC
//! while it has a reply of ours to send.

use super::config::{ResumePoint, TapConfig};
use super::error::{TapError, TapErrorKind, TapStep};
use super::wire::{Wire, unexpected};
use crate::resp::Value;
use crate::upstream::socket::WriteHalf;
use crate::upstream::{Session, UpstreamConfig};

/// How PSYNC was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A snapshot of `offset` comes next.
    Full { replid: String, offset: u64 },
    /// The stream comes next.
    Continue { replid: String },
}

/// A link that PSYNC was answered on.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) wire: Wire,
    pub(super) write: WriteHalf,
    pub(super) answer: Answer,
}

/// Connects and becomes a replica.
pub(super) async fn attach(
    config: &TapConfig,
    resume: Option<&ResumePoint>,
) -> Result<Link, TapError> {
    // A proxy's request timeout says nothing about a source that is busy forking.
    let upstream = UpstreamConfig {
        request_timeout: Some(config.silence_max),
        ..config.upstream.clone()
    };
    let mut session = Session::connect(&config.address, &upstream)
        .await
        .map_err(|error| TapError::of_session(error, TapStep::Connect))?;
    ping(&mut session, config).await?;
    let port = config.listening_port.to_string();
    for (option, value) in [
        ("listening-port", port.as_str()),
        ("capa", "eof"),
        ("capa", "psync2"),
    ] {
        // Without `capa eof` the source writes a file first, without `psync2`
        // it does not say its new id: both work.
        session
            .call(&[b"REPLCONF", option.as_bytes(), value.as_bytes()])
            .await
            .map_err(|error| TapError::of_session(error, TapStep::Replconf))?;
    }
    psync(session, config, resume).await
}

async fn ping(session: &mut Session, config: &TapConfig) -> Result<(), TapError> {
    let step = TapStep::Ping;
    let reply = session
        .call(&[b"PING"])
        .await
        .map_err(|error| TapError::of_session(error, step))?;
    match reply {
        Value::Error(text) => match refusal(&text) {
            Refusal::NotNow => Err(TapErrorKind::NotNow(lossy(&text)).at(&config.address, step)),
            // PSYNC's own answer decides.
            Refusal::Password | Refusal::Final => Ok(()),
        },
        _ => Ok(()),
    }
}

async fn psync(
    session: Session,
    config: &TapConfig,
    resume: Option<&ResumePoint>,
) -> Result<Link, TapError> {
    let step = TapStep::Psync;
    let (reader, mut writer) = session.split();
    let (replid, next_offset) = match resume {
        Some(point) => (
            point.replid.as_str(),
            point.offset.saturating_add(1).to_string(),
        ),
        None => ("?", "-1".to_owned()),
    };
    writer.queue(&[b"PSYNC", replid.as_bytes(), next_offset.as_bytes()]);
    writer
        .flush()
        .await
        .map_err(|error| TapError::of_session(error, step))?;
    let (half, buffer) = reader.into_raw();
    let mut wire = Wire::new(half, buffer, config.silence_max);
    // The answer waits for the source's fork; while it waits, newlines come.
    let line = wire
        .line()
        .await
        .map_err(|kind| kind.at(&config.address, step))?;
    let answer = parse_answer(&line, resume).map_err(|kind| kind.at(&config.address, step))?;
    Ok(Link {
        wire,
        write: writer.into_raw(),
        answer,
    })
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

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
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
