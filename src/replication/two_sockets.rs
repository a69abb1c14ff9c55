//! Two-socket sync: the snapshot comes on a second connection, from the source's
//! child, while the stream already flows on the first.
//!
//! ```text
//! Redis >= 8.0          main                     second
//!   PSYNC ? -1  -->     +RDBCHANNELSYNC <cid>
//!                                                REPLCONF .. main-ch-client-id <cid>
//!                                                PSYNC ? -1
//!                                                +FULLRESYNC <id> <off>, $EOF.., RDB
//!                       stream from off+1
//!
//! Valkey >= 8.0
//!   PSYNC ? -1  -->     +DUALCHANNELSYNC
//!                                                REPLCONF .. rdb-channel 1, SYNC
//!                                                $ENDOFF:<off> <id> <db> <cid>, $EOF.., RDB
//!   REPLCONF set-rdb-client-id <cid>
//!   PSYNC <id> <off+1>  +CONTINUE
//!                       stream from off+1
//! ```
//!
//! So the stream no longer fills the source's memory while the snapshot is sent; it
//! waits with us, in a queue of its own.

use super::config::{ResumePoint, TapConfig};
use super::error::{TapError, TapErrorKind, TapStep};
use super::handshake::{Answer, Start, Talk, connect, lossy};
use super::wire::unexpected;
use crate::resp::Value;
use crate::upstream::ShardAddress;

/// Redis: the second connection says whose snapshot it fetches.
pub(super) async fn fetch_by_client_id(
    address: &ShardAddress,
    config: &TapConfig,
    client_id: &str,
) -> Result<Start, TapError> {
    let main = ["main-ch-client-id", client_id];
    let mut talk = second(address, config, &main).await?;
    let answer = talk.psync(None).await;
    match answer.map_err(|kind| kind.at(address, TapStep::Psync))? {
        Answer::Full { replid, offset } => Ok(Start::FullApart {
            replid,
            offset,
            snapshot: Box::new(talk),
        }),
        other => {
            Err(TapErrorKind::UnexpectedAnswer(format!("{other:?}")).at(address, TapStep::Psync))
        }
    }
}

/// Valkey: the second connection is told where the stream starts, and `main`
/// asks for it.
pub(super) async fn fetch_and_attach(
    main: &mut Talk,
    config: &TapConfig,
) -> Result<Start, TapError> {
    let address = main.address.clone();
    let mut talk = second(&address, config, &[]).await?;
    let attached = async {
        talk.say(&[b"SYNC"]).await?;
        let line = talk.wire.line().await?;
        let end = parse_end_offset(&line)?;
        main.say(&[b"REPLCONF", b"set-rdb-client-id", end.client_id.as_bytes()])
            .await?;
        let reply = main.wire.line().await?;
        if *reply != *b"+OK" {
            return Err(unexpected(&reply));
        }
        match main.psync(Some(&end.point)).await? {
            // A main channel that gets another history would not fit the snapshot.
            Answer::Continue { replid } if replid == end.point.replid => Ok(end.point),
            other => Err(TapErrorKind::UnexpectedAnswer(format!("{other:?}"))),
        }
    };
    let point = attached
        .await
        .map_err(|kind| kind.at(&address, TapStep::Psync))?;
    Ok(Start::FullApart {
        replid: point.replid,
        offset: point.offset,
        snapshot: Box::new(talk),
    })
}

/// A connection that gets a snapshot and no stream.
async fn second(
    address: &ShardAddress,
    config: &TapConfig,
    more: &[&str],
) -> Result<Talk, TapError> {
    let mut session = connect(address, config).await?;
    let port = config.listening_port.to_string();
    let options = [
        "REPLCONF",
        "capa",
        "eof",
        "rdb-only",
        "1",
        "rdb-channel",
        "1",
        "listening-port",
        &port,
    ];
    let words: Vec<&[u8]> = options
        .iter()
        .chain(more)
        .map(|word| word.as_bytes())
        .collect();
    let reply = session
        .call(&words)
        .await
        .map_err(|error| TapError::of_session(error, TapStep::Replconf))?;
    if let Value::Error(text) = reply {
        let kind = TapErrorKind::NotNow(format!("the second connection: {}", lossy(&text)));
        return Err(kind.at(address, TapStep::Replconf));
    }
    session
        .call(&[
            b"REPLCONF",
            b"version",
            super::handshake::VERSION.as_bytes(),
        ])
        .await
        .map_err(|error| TapError::of_session(error, TapStep::Replconf))?;
    Ok(Talk::of(session, config))
}

#[derive(Debug, PartialEq, Eq)]
struct EndOffset {
    point: ResumePoint,
    client_id: String,
}

/// `$ENDOFF:<offset> <replid> <db> <client id>`
fn parse_end_offset(line: &[u8]) -> Result<EndOffset, TapErrorKind> {
    let text = std::str::from_utf8(line).map_err(|_| unexpected(line))?;
    if let Some(error) = text.strip_prefix('-') {
        return Err(TapErrorKind::Aborted(error.to_owned()));
    }
    let parse = || {
        let mut words = text.strip_prefix("$ENDOFF:")?.split_ascii_whitespace();
        let offset = words.next()?.parse().ok()?;
        let replid = words.next()?.to_owned();
        // -1 stands for "none selected".
        let db: i64 = words.next()?.parse().ok()?;
        let client_id = words.next()?.to_owned();
        let db = u32::try_from(db).unwrap_or(0);
        let point = ResumePoint { replid, offset, db };
        Some(EndOffset { point, client_id })
    };
    parse().ok_or_else(|| unexpected(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_offset_is_read_or_refused() {
        let end = parse_end_offset(b"$ENDOFF:1234 abcd -1 77").unwrap();
        let point = ResumePoint {
            replid: "abcd".to_owned(),
            offset: 1234,
            db: 0,
        };
        let client_id = "77".to_owned();
        assert_eq!(end, EndOffset { point, client_id });
        for line in ["$ENDOFF:", "$ENDOFF:x a 0 1", "$ENDOFF:1 a 0", "$EOF:a"] {
            let error = parse_end_offset(line.as_bytes()).unwrap_err();
            assert!(matches!(error, TapErrorKind::UnexpectedAnswer(_)), "{line}");
        }
        let error = parse_end_offset(b"-ERR no").unwrap_err();
        assert!(matches!(error, TapErrorKind::Aborted(_)));
    }
}
