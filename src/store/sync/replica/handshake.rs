//! What is said to a master before its stream comes.
//!
//! ```text
//! PING -> AUTH -> REPLCONF listening-port -> REPLCONF ip-address -> REPLCONF capa
//!      -> (the executor says where it is) -> PSYNC -> +FULLRESYNC, +CONTINUE
//! ```
//! A refused REPLCONF is no reason to end: older servers do not know all of it.

use crate::resp::write_command;

use super::ReplId;
use super::link::{Credentials, LinkEvent, Position};
use super::wire::{Ended, Wire};

/// What is told of this shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// Where it listens.
    pub port: u16,
    /// If it is not where the connection comes from.
    pub ip: Option<String>,
}

fn ask(wire: &mut Wire<'_>, words: &[&[u8]]) -> Result<String, Ended> {
    let mut request = Vec::new();
    write_command(&mut request, words);
    wire.send(&request)?;
    wire.line()
}

pub(super) fn introduce(
    wire: &mut Wire<'_>,
    credentials: &Credentials,
    announced: &Announced,
) -> Result<(), Ended> {
    let refused = |step, words| Err(Ended::Answer { step, words });
    let pong = ask(wire, &[b"PING"])?;
    let is_known = ["+", "-NOAUTH", "-NOPERM", "-ERR operation not permitted"];
    if !is_known.iter().any(|begin| pong.starts_with(begin)) {
        return refused("PING", pong);
    }
    if let Some(password) = &credentials.password {
        let password = password.as_bytes();
        let answer = match &credentials.user {
            Some(user) => ask(wire, &[b"AUTH", user.as_bytes(), password])?,
            None => ask(wire, &[b"AUTH", password])?,
        };
        if !answer.starts_with('+') {
            return refused("AUTH (masterauth, masteruser)", answer);
        }
    }
    let port = announced.port.to_string();
    let mut answers = vec![ask(
        wire,
        &[b"REPLCONF", b"listening-port", port.as_bytes()],
    )?];
    if let Some(ip) = &announced.ip {
        answers.push(ask(wire, &[b"REPLCONF", b"ip-address", ip.as_bytes()])?);
    }
    let capabilities: &[&[u8]] = &[b"REPLCONF", b"capa", b"eof", b"capa", b"psync2"];
    answers.push(ask(wire, capabilities)?);
    match answers
        .into_iter()
        .find(|answer| answer.starts_with("-NOAUTH"))
    {
        Some(words) => refused("REPLCONF (set masterauth)", words),
        None => Ok(()),
    }
}

/// Asks for the stream from `position` on: what the master makes of it.
pub(super) fn ask_for_stream(wire: &mut Wire<'_>, position: &Position) -> Result<LinkEvent, Ended> {
    let answer = match position {
        Position::Nowhere => ask(wire, &[b"PSYNC", b"?", b"-1"])?,
        Position::At { replid, offset } => {
            // It counts the byte that is wanted next.
            let next = (offset + 1).to_string();
            ask(wire, &[b"PSYNC", replid, next.as_bytes()])?
        }
    };
    answer_of_psync(&answer).ok_or(Ended::Answer {
        step: "PSYNC",
        words: answer,
    })
}

fn answer_of_psync(answer: &str) -> Option<LinkEvent> {
    let mut words = answer.split_ascii_whitespace();
    match words.next()? {
        "+FULLRESYNC" => Some(LinkEvent::FullSync {
            replid: replid_of(words.next()?)?,
            offset: words.next()?.parse().ok()?,
        }),
        "+CONTINUE" => Some(LinkEvent::Continues {
            replid: match words.next() {
                Some(word) => Some(replid_of(word)?),
                None => None,
            },
        }),
        _ => None,
    }
}

fn replid_of(word: &str) -> Option<ReplId> {
    word.as_bytes().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_psync() {
        let id = "0123456789012345678901234567890123456789";
        let replid = replid_of(id).expect("forty digits");
        for (answer, event) in [
            (
                format!("+FULLRESYNC {id} 17 more"),
                Some(LinkEvent::FullSync { replid, offset: 17 }),
            ),
            (
                format!("+CONTINUE {id}"),
                Some(LinkEvent::Continues {
                    replid: Some(replid),
                }),
            ),
            (
                "+CONTINUE".to_owned(),
                Some(LinkEvent::Continues { replid: None }),
            ),
            (format!("+FULLRESYNC {id}"), None),
            ("+FULLRESYNC short 1".to_owned(), None),
            ("-NOMASTERLINK Can't SYNC".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(answer_of_psync(&answer), event, "{answer}");
        }
    }
}
