//! Marker reads: the same keys, read at source and targets at the same place of
//! the source's history.
//!
//! ```text
//! to the source:   MULTI  TIME  PTTL k1..kn  DUMP k1..kn  PUBLISH __keyferry nonce  EXEC
//! in its stream:   ...earlier writes   PUBLISH   later writes...      (reads leave no trace)
//! to each target:  ...earlier writes   TIME PTTL.. DUMP..   later writes...
//! ```
//!
//! TIME + PTTL is the moment of expiry by the server's own clock, on versions
//! without PEXPIRETIME, too. DUMPs come last since large ones take time.

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, timeout_at};

use crate::rdb::{PayloadError, split_dump_payload_with_metadata};
use crate::replication::SnapshotRecord;
use crate::resp::{Value, write_command};

use super::compare::{DifferenceKind, Seen, State, Verdict, compare, off_guard};
use super::config::MARKER_MS_MAX;
use super::error::MoveError;
use super::link::Link;
use super::marker::{Board, Expected, MARKER_CHANNEL, Remark, Remarks, TargetReads};
use super::placement::TargetIndex;

const STEP: &str = "read keys (MULTI, DUMP, PTTL, PUBLISH, EXEC)";

/// How much of each key is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Whether it is there, and when it expires.
    Presence,
    /// Its value, too.
    Content,
}

/// How a server is asked when a key ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    /// PEXPIRETIME: exact, since Redis 7.0.
    Absolute,
    /// TIME + PTTL: exact to the time between the two.
    Relative,
}

impl Clock {
    pub(super) fn of_version(version: &str) -> Clock {
        let major = version
            .split('.')
            .next()
            .and_then(|major| major.parse().ok());
        if major.is_some_and(|major: u32| major >= 7) {
            Clock::Absolute
        } else {
            Clock::Relative
        }
    }

    fn command(self) -> &'static [u8] {
        match self {
            Clock::Absolute => b"PEXPIRETIME",
            Clock::Relative => b"PTTL",
        }
    }

    fn expires_at_ms(self, now_ms: i64, reply: i64) -> Option<i64> {
        match self {
            _ if reply < 0 => None,
            Clock::Absolute => Some(reply),
            Clock::Relative => Some(now_ms.saturating_add(reply)),
        }
    }
}

/// Reads keys together with a marker, from a link that is in their database.
pub(super) async fn read_at_marker(
    link: &mut Link,
    keys: &[&Bytes],
    message: &[u8],
    depth: Depth,
    clock: Clock,
) -> Result<Vec<Seen>, MoveError> {
    let mut requests = Vec::new();
    let names = keys.iter().copied();
    write_transaction(&mut requests, names, Some(message), depth, clock);
    link.queue_encoded(&requests);
    link.flush(STEP).await?;
    read_transaction(link, keys.len(), depth, clock, true).await
}

/// A key with its DUMP payload, as a snapshot would have it.
pub(super) fn record_of(
    (db, key): (u32, Bytes),
    expires_at_ms: Option<i64>,
    payload: &Bytes,
) -> Result<SnapshotRecord, PayloadError> {
    let (metadata, value, _) = split_dump_payload_with_metadata(payload)?;
    Ok(SnapshotRecord {
        db,
        key,
        expires_at_ms,
        idle_s: None,
        freq: None,
        metadata: (!metadata.is_empty()).then(|| payload.slice_ref(metadata)),
        type_id: value.type_id,
        value: payload.slice_ref(value.bytes),
    })
}

/// Reads keys as of one moment, without a marker, from a link that is in their
/// database.
pub(super) async fn read_contents(
    link: &mut Link,
    keys: &[Bytes],
    clock: Clock,
) -> Result<Vec<Seen>, MoveError> {
    let mut requests = Vec::new();
    write_transaction(&mut requests, keys.iter(), None, Depth::Content, clock);
    link.queue_encoded(&requests);
    link.flush(STEP).await?;
    read_transaction(link, keys.len(), Depth::Content, clock, false).await
}

fn write_transaction<'k>(
    out: &mut Vec<u8>,
    keys: impl Iterator<Item = &'k Bytes> + Clone,
    message: Option<&[u8]>,
    depth: Depth,
    clock: Clock,
) {
    write_command(out, &[b"MULTI"]);
    write_reads(out, keys, depth, clock);
    if let Some(message) = message {
        write_command(out, &[b"PUBLISH", MARKER_CHANNEL, message]);
    }
    write_command(out, &[b"EXEC"]);
}

/// Reads the replies of MULTI, of each request in it, and of EXEC.
async fn read_transaction(
    link: &mut Link,
    keys: usize,
    depth: Depth,
    clock: Clock,
    is_marked: bool,
) -> Result<Vec<Seen>, MoveError> {
    let replies = replies_of(keys, depth);
    // MULTI, and QUEUED for each read and for PUBLISH.
    for _ in 0..1 + replies + usize::from(is_marked) {
        link.read_ok(STEP).await?;
    }
    let Value::Array(mut values) = link.read_ok(STEP).await? else {
        return Err(link.odd(STEP));
    };
    values.truncate(replies);
    decode(values, keys, depth, clock).map_err(|why| link.answered(STEP, &why))
}

/// Keys of one database to read at one marker.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) db: u32,
    pub(super) keys: Vec<(Bytes, TargetIndex)>,
}

/// One key, as both sides showed it.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) key: Bytes,
    pub(super) target: TargetIndex,
    pub(super) at_source: Seen,
    pub(super) at_target: Seen,
    /// The target was read at most this long after the source.
    pub(super) lag: Duration,
    pub(super) remark: Option<Remark>,
}

impl Pair {
    /// Whether both sides have the same.
    pub(super) fn verdict(&self) -> Verdict {
        let (source, target) = (&self.at_source, &self.at_target);
        match self.remark {
            Some(Remark::Pending) => Verdict::Differs(DifferenceKind::BeingRefreshed),
            Some(Remark::Guarded) => compare(source, &off_guard(source, target), self.lag),
            None => compare(source, target, self.lag),
        }
    }
}

/// A batch that was sent.
pub(super) struct Pending {
    batch: Batch,
    depth: Depth,
    selects: bool,
    /// Before the source was asked.
    asked: Instant,
    remarks: Remarks,
    targets: Vec<(TargetIndex, Vec<usize>, oneshot::Receiver<Vec<Value>>)>,
}

/// Queues the reads of a batch on the link to its source. `selected` is the
/// database the link is in; `message` must be new.
pub(super) fn queue_batch(
    link: &mut Link,
    board: &Board,
    selected: &mut Option<u32>,
    message: Vec<u8>,
    batch: Batch,
    depth: Depth,
) -> Pending {
    let selects = *selected != Some(batch.db);
    if selects {
        link.queue(&[b"SELECT", batch.db.to_string().as_bytes()]);
        *selected = Some(batch.db);
    }
    let mut requests = Vec::new();
    let keys = batch.keys.iter().map(|(key, _)| key);
    write_transaction(&mut requests, keys, Some(&message), depth, Clock::Relative);
    link.queue_encoded(&requests);

    let mut groups: Vec<(TargetIndex, Vec<usize>)> = Vec::new();
    for (at, (_, target)) in batch.keys.iter().enumerate() {
        match groups.iter_mut().find(|(known, _)| known == target) {
            Some((_, members)) => members.push(at),
            None => groups.push((*target, vec![at])),
        }
    }
    let mut reads = Vec::new();
    let mut targets = Vec::new();
    for (target, members) in groups {
        let (done, replies) = oneshot::channel();
        let mut bytes = Vec::new();
        let keys = members
            .iter()
            .filter_map(|at| batch.keys.get(*at))
            .map(|(key, _)| key);
        write_reads(&mut bytes, keys, depth, Clock::Relative);
        reads.push(TargetReads {
            target,
            bytes,
            count: replies_of(members.len(), depth),
            done,
        });
        targets.push((target, members, replies));
    }
    let remarks = Remarks::default();
    // Before anything is flushed: the marker may be back sooner than EXEC's reply.
    board.expect(
        message,
        Expected::Reads {
            db: batch.db,
            keys: batch.keys.iter().map(|(key, _)| key.clone()).collect(),
            reads,
            remarks: remarks.clone(),
        },
    );
    Pending {
        batch,
        depth,
        selects,
        asked: Instant::now(),
        remarks,
        targets,
    }
}

fn write_reads<'k>(
    out: &mut Vec<u8>,
    keys: impl Iterator<Item = &'k Bytes> + Clone,
    depth: Depth,
    clock: Clock,
) {
    write_command(out, &[b"TIME"]);
    for key in keys.clone() {
        write_command(out, &[clock.command(), key]);
    }
    if depth == Depth::Content {
        for key in keys {
            write_command(out, &[b"DUMP", key]);
        }
    }
}

fn replies_of(keys: usize, depth: Depth) -> usize {
    match depth {
        Depth::Presence => 1 + keys,
        Depth::Content => 1 + 2 * keys,
    }
}

impl Pending {
    /// Reads the source's replies, in the order the batches were queued.
    pub(super) async fn read_source(&self, link: &mut Link) -> Result<Vec<Seen>, MoveError> {
        if self.selects {
            link.read_ok(STEP).await?;
        }
        let keys = self.batch.keys.len();
        read_transaction(link, keys, self.depth, Clock::Relative, true).await
    }

    /// Waits for the targets and puts both sides together.
    pub(super) async fn pair(
        self,
        link: &Link,
        at_source: Vec<Seen>,
    ) -> Result<Vec<Pair>, MoveError> {
        let deadline = Instant::now() + Duration::from_millis(MARKER_MS_MAX);
        let mut at_source: Vec<Option<Seen>> = at_source.into_iter().map(Some).collect();
        let mut pairs = Vec::with_capacity(self.batch.keys.len());
        for (target, members, replies) in self.targets {
            let late = || MoveError::MarkerLate {
                source_server: link.server().clone(),
                waited_ms: MARKER_MS_MAX,
            };
            // A closed channel means that a lane ended: its own error says why.
            let values = timeout_at(deadline, replies).await.map_err(|_| late())?;
            let values = values.map_err(|_| late())?;
            let lag = self.asked.elapsed();
            let seen = decode(values, members.len(), self.depth, Clock::Relative);
            let seen = seen.map_err(|why| link.answered("read keys at their targets", &why))?;
            for (at, at_target) in members.into_iter().zip(seen) {
                let key = self.batch.keys.get(at).map(|(key, _)| key.clone());
                let at_source = at_source.get_mut(at).and_then(Option::take);
                if let (Some(key), Some(at_source)) = (key, at_source) {
                    let remark = self.remarks.of(&key);
                    pairs.push(Pair {
                        key,
                        target,
                        at_source,
                        at_target,
                        lag,
                        remark,
                    });
                }
            }
        }
        Ok(pairs)
    }
}

/// Replies of TIME, PTTLs and DUMPs, as what was seen of each key.
fn decode(
    values: Vec<Value>,
    keys: usize,
    depth: Depth,
    clock: Clock,
) -> Result<Vec<Seen>, Vec<u8>> {
    let error = values.iter().find_map(|value| match value {
        Value::Error(text) => Some(text.clone()),
        _ => None,
    });
    if let Some(error) = error {
        return Err(error);
    }
    if values.len() != replies_of(keys, depth) {
        return Err(b"fewer replies than requests".to_vec());
    }
    let mut values = values.into_iter();
    let now_ms = values.next().as_ref().and_then(clock_ms);
    let now_ms = now_ms.ok_or_else(|| b"TIME has an odd reply".to_vec())?;
    let ttls: Vec<Value> = values.by_ref().take(keys).collect();
    let mut seen = Vec::with_capacity(keys);
    for ttl in ttls {
        let Value::Integer(ttl) = ttl else {
            return Err(b"PTTL has an odd reply".to_vec());
        };
        let payload = match depth {
            Depth::Presence => None,
            Depth::Content => values.next(),
        };
        let state = match (ttl, payload) {
            (-2, _) | (_, Some(Value::Null)) => State::Missing,
            (ttl, payload) => State::Here {
                expires_at_ms: clock.expires_at_ms(now_ms, ttl),
                payload: match payload {
                    Some(Value::Bulk(bytes)) => Some(bytes),
                    _ => None,
                },
            },
        };
        seen.push(Seen { now_ms, state });
    }
    Ok(seen)
}

fn clock_ms(reply: &Value) -> Option<i64> {
    clock_us(reply).map(|us| us / 1000)
}

/// TIME's reply, seconds and microseconds, as Unix time in microseconds.
pub(super) fn clock_us(reply: &Value) -> Option<i64> {
    let Value::Array(parts) = reply else {
        return None;
    };
    let number = |at: usize| -> Option<i64> {
        let text = parts.get(at)?.as_bytes()?;
        std::str::from_utf8(text).ok()?.parse().ok()
    };
    number(0)?.checked_mul(1_000_000)?.checked_add(number(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time() -> Value {
        Value::Array(vec![
            Value::Bulk(b"10".to_vec()),
            Value::Bulk(b"500000".to_vec()),
        ])
    }

    #[test]
    fn replies_are_what_was_seen_of_each_key() {
        let values = vec![
            time(),
            Value::Integer(-1),
            Value::Integer(-2),
            Value::Integer(250),
            Value::Bulk(b"v".to_vec()),
            Value::Null,
            Value::Bulk(b"w".to_vec()),
        ];
        let seen = decode(values, 3, Depth::Content, Clock::Relative).unwrap();
        let here = |expires_at_ms, bytes: &[u8]| State::Here {
            expires_at_ms,
            payload: Some(bytes.to_vec()),
        };
        let states: Vec<State> = seen.into_iter().map(|seen| seen.state).collect();
        assert_eq!(
            states,
            [here(None, b"v"), State::Missing, here(Some(10_750), b"w")]
        );
    }

    #[test]
    fn an_error_among_the_replies_is_the_answer() {
        let values = vec![time(), Value::Error(b"NOPERM".to_vec())];
        assert_eq!(
            decode(values, 1, Depth::Presence, Clock::Relative),
            Err(b"NOPERM".to_vec())
        );
    }
}
