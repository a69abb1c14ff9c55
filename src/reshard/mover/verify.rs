//! Verification: every moving key, compared at its source and at its target.
//!
//! Forward, for each source: all its moving keys, content and expiry. Backward,
//! for each target: keys that are to arrive there and that their source does
//! not have. Both by marker reads (`reads`), so it is exact while writes go on;
//! a key that differs is read again a few times before it counts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::resp::Value;
use crate::router::address::ShardAddress;
use crate::upstream::config::UpstreamConfig;

use super::compare::{Difference, DifferenceKind, Verdict};
use super::config::EXAMPLES_MAX;
use super::error::{MoveError, Role};
use super::keyspace::{KeyWalk, Page};
use super::link::{Kept, Link};
use super::marker::{Board, Nonces, Remark};
use super::placement::{Place, Placement, SourceIndex, TargetIndex};
use super::proof::{Sum, Verified};
use super::reads::{Batch, Depth, Pair, queue_batch};

/// Keys read at one marker.
const BATCH_KEYS_MAX: usize = 64;
/// Estimated bytes of one batch, which the source reads in one transaction.
const BATCH_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Estimated bytes of the batches under way at one time on one source.
const WAVE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Batches under way at one time on one source.
const WAVE_BATCHES_MAX: usize = 16;
/// A key's estimate where the server gives none.
const KEY_BYTES_GUESS: u64 = 64 * 1024;
/// How often a key is looked at that is pending each time (see `pending`).
const PENDING_LOOKS_MAX: u32 = 200;
/// Between two looks.
const PENDING_PAUSE: Duration = Duration::from_millis(10);
/// How often a key that differs is read again, by default.
pub const RECHECKS_DEFAULT: u32 = 3;
/// At least so often where a source is walked through: what its target has at a
/// marker may be newer than the marker, for keys that change all the time.
pub(super) const RECHECKS_SCAN_MIN: u32 = 20;

/// How to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyOptions {
    /// How often a key that differs is read again before it counts.
    pub rechecks: u32,
    /// Differences described in the report; all are counted.
    pub examples_max: usize,
}

impl Default for VerifyOptions {
    fn default() -> VerifyOptions {
        VerifyOptions {
            rechecks: RECHECKS_DEFAULT,
            examples_max: EXAMPLES_MAX,
        }
    }
}

/// What verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Moving keys found on sources and compared with their targets.
    pub keys_compared: u64,
    /// Keys found on targets and looked up on their sources.
    pub keys_looked_up: u64,
    /// Keys read again because they differed at first.
    pub keys_rechecked: u64,
    /// Keys that the conflict policy leaves alone.
    pub keys_skipped: u64,
    /// Keys that still differed.
    pub differences: u64,
    /// Some of them.
    pub examples: Vec<Difference>,
    /// The proof, when nothing differed.
    pub verified: Option<Verified>,
}

impl VerifyReport {
    /// True when nothing differs.
    pub fn is_clean(&self) -> bool {
        self.differences == 0
    }

    fn add(&mut self, other: VerifyReport, examples_max: usize) {
        self.keys_compared += other.keys_compared;
        self.keys_looked_up += other.keys_looked_up;
        self.keys_rechecked += other.keys_rechecked;
        self.differences += other.differences;
        let room = examples_max.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
    }
}

/// What all verification tasks share.
#[derive(Debug)]
pub(super) struct Verifier {
    pub(super) placement: Arc<Placement>,
    pub(super) upstream: UpstreamConfig,
    /// By source.
    pub(super) boards: Vec<Board>,
    pub(super) nonces: Arc<Nonces>,
    pub(super) options: VerifyOptions,
}

/// What one walk found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) report: VerifyReport,
    /// What was the same.
    pub(super) same: Sum,
}

/// Runs both directions on all servers.
pub(super) async fn verify(verifier: Arc<Verifier>) -> Result<VerifyReport, MoveError> {
    let mut walks: JoinSet<Result<(Option<SourceIndex>, Found), MoveError>> = JoinSet::new();
    for source in (0..verifier.placement.sources().len()).map(SourceIndex) {
        let verifier = Arc::clone(&verifier);
        walks.spawn(async move { Ok((Some(source), verifier.forward(source).await?)) });
    }
    for target in (0..verifier.placement.targets().len()).map(TargetIndex) {
        let verifier = Arc::clone(&verifier);
        walks.spawn(async move { Ok((None, verifier.backward(target).await?)) });
    }
    let mut report = VerifyReport {
        keys_skipped: verifier.placement.skipped() as u64,
        ..VerifyReport::default()
    };
    let mut proofs = Vec::new();
    while let Some(walk) = walks.join_next().await {
        let (source, found) = walk.map_err(|error| MoveError::TaskLost {
            task: "verify".to_owned(),
            how: error.to_string(),
        })??;
        let source = source.and_then(|source| verifier.source(source));
        proofs.extend(source.map(|source| found.same.of_source(source)));
        report.add(found.report, verifier.options.examples_max);
    }
    report.verified = Verified::of(report.differences, proofs);
    Ok(report)
}

/// A connection to a source for marker reads.
pub(super) struct Reader {
    source: SourceIndex,
    pub(super) link: Link,
    selected: Option<u32>,
}

impl Reader {
    /// Dials again if the server closed the idle connection.
    pub(super) async fn keep(&mut self) -> Result<(), MoveError> {
        if self.link.keep().await? == Kept::Renewed {
            self.selected = None;
        }
        Ok(())
    }
}

impl Verifier {
    pub(super) fn source(&self, source: SourceIndex) -> Option<&ShardAddress> {
        self.placement.sources().get(source.0)
    }

    pub(super) async fn reader(
        &self,
        source: SourceIndex,
        server: &ShardAddress,
    ) -> Result<Reader, MoveError> {
        let link = Link::connect(Role::Source, server, &self.upstream).await?;
        Ok(Reader {
            source,
            link,
            selected: None,
        })
    }

    /// All moving keys of a source.
    async fn forward(&self, source: SourceIndex) -> Result<Found, MoveError> {
        let mut found = Found::default();
        let Some(server) = self.source(source) else {
            return Ok(found);
        };
        let mut walking = Link::connect(Role::Source, server, &self.upstream).await?;
        let mut reader = self.reader(source, server).await?;
        let mut walk = KeyWalk::new(&mut walking).await?;
        let mut page = self.next_batches(&mut walk, &mut walking, source).await?;
        while let Some(batches) = page {
            // The next page is listed while this one is compared.
            let (next, checked) = tokio::join!(
                self.next_batches(&mut walk, &mut walking, source),
                self.check(&mut reader, batches, Depth::Content, &mut found),
            );
            checked?;
            page = next?;
        }
        Ok(found)
    }

    /// The next page that has moving keys, in batches; `None` at the end.
    async fn next_batches(
        &self,
        walk: &mut KeyWalk,
        link: &mut Link,
        source: SourceIndex,
    ) -> Result<Option<Vec<(Batch, u64)>>, MoveError> {
        while let Some(page) = walk.next(link).await? {
            let moving = self.moving(source, &page);
            if !moving.is_empty() {
                let sizes = sizes(link, &moving).await?;
                return Ok(Some(batches(page.db, moving, &sizes)));
            }
        }
        Ok(None)
    }

    pub(super) fn moving(&self, source: SourceIndex, page: &Page) -> Vec<(Bytes, TargetIndex)> {
        let placed = |key: &Bytes| match self.placement.place(source, page.db, key) {
            Place::Moves(target) => Some((key.clone(), target)),
            Place::Stays | Place::Stray => None,
        };
        page.keys.iter().filter_map(placed).collect()
    }

    /// Keys that are to arrive at a target, looked up at their sources.
    async fn backward(&self, target: TargetIndex) -> Result<Found, MoveError> {
        let mut found = Found::default();
        let Some(server) = self.placement.targets().get(target.0) else {
            return Ok(found);
        };
        let mut walking = Link::connect(Role::Target, server, &self.upstream).await?;
        let mut readers: Vec<Reader> = Vec::new();
        let mut walk = KeyWalk::new(&mut walking).await?;
        while let Some(page) = walk.next(&mut walking).await? {
            for source in (0..self.placement.sources().len()).map(SourceIndex) {
                let keys = self.arrived(source, target, &page);
                let Some(address) = self.source(source).filter(|_| !keys.is_empty()) else {
                    continue;
                };
                found.report.keys_looked_up += keys.len() as u64;
                let at = match readers.iter().position(|reader| reader.source == source) {
                    Some(at) => at,
                    None => {
                        readers.push(self.reader(source, address).await?);
                        readers.len() - 1
                    }
                };
                let small = vec![0; keys.len()];
                let batches = batches(page.db, keys, &small);
                if let Some(reader) = readers.get_mut(at) {
                    self.check(reader, batches, Depth::Presence, &mut found)
                        .await?;
                }
            }
        }
        Ok(found)
    }

    fn arrived(
        &self,
        source: SourceIndex,
        target: TargetIndex,
        page: &Page,
    ) -> Vec<(Bytes, TargetIndex)> {
        let from_here = |key: &&Bytes| {
            self.placement.arrives_at(target, key) == Some(source)
                && !self.placement.is_skipped(page.db, key)
        };
        page.keys
            .iter()
            .filter(from_here)
            .map(|key| (key.clone(), target))
            .collect()
    }

    /// Compares batches, wave by wave, and reads again what differs.
    pub(super) async fn check(
        &self,
        reader: &mut Reader,
        batches: Vec<(Batch, u64)>,
        depth: Depth,
        found: &mut Found,
    ) -> Result<(), MoveError> {
        for wave in waves(batches) {
            let db = wave.first().map_or(0, |batch| batch.db);
            let pairs = self.read_settled(reader, wave, depth).await?;
            if depth == Depth::Content {
                found.report.keys_compared += pairs.len() as u64;
            }
            let mut differing = sift(db, pairs, depth, &mut found.same);
            for _ in 0..self.options.rechecks {
                if differing.is_empty() {
                    break;
                }
                found.report.keys_rechecked += differing.len() as u64;
                let again = differing
                    .iter()
                    .map(|(pair, _)| (pair.key.clone(), pair.target));
                // One key at a time: nothing is known about their sizes here.
                let again = again.map(|key| Batch {
                    db,
                    keys: vec![key],
                });
                let mut pairs = Vec::new();
                for wave in waves(again.map(|batch| (batch, KEY_BYTES_GUESS)).collect()) {
                    pairs.extend(self.read_settled(reader, wave, depth).await?);
                }
                differing = sift(db, pairs, depth, &mut found.same);
            }
            for (pair, what) in differing {
                self.put_down(reader.source, db, (pair, what), &mut found.report);
            }
        }
        Ok(())
    }

    /// Reads a wave, and keys that are pending at its markers again until they
    /// are not.
    async fn read_settled(
        &self,
        reader: &mut Reader,
        wave: Vec<Batch>,
        depth: Depth,
    ) -> Result<Vec<Pair>, MoveError> {
        let db = wave.first().map_or(0, |batch| batch.db);
        let mut pairs = self.read_wave(reader, wave, depth).await?;
        for _ in 0..PENDING_LOOKS_MAX {
            let is_pending = |pair: &mut Pair| pair.remark == Some(Remark::Pending);
            let pending: Vec<Pair> = pairs.extract_if(.., is_pending).collect();
            if pending.is_empty() {
                break;
            }
            tokio::time::sleep(PENDING_PAUSE).await;
            let again = pending.into_iter().map(|pair| Batch {
                db,
                keys: vec![(pair.key, pair.target)],
            });
            for wave in waves(again.map(|batch| (batch, KEY_BYTES_GUESS)).collect()) {
                pairs.extend(self.read_wave(reader, wave, depth).await?);
            }
        }
        Ok(pairs)
    }

    fn put_down(
        &self,
        source: SourceIndex,
        db: u32,
        (pair, what): (Pair, DifferenceKind),
        report: &mut VerifyReport,
    ) {
        report.differences += 1;
        let target = self.placement.targets().get(pair.target.0);
        if let (Some(source), Some(target)) = (self.source(source), target)
            && report.examples.len() < self.options.examples_max
        {
            report.examples.push(Difference {
                db,
                key: pair.key.to_vec(),
                source: source.clone(),
                target: target.clone(),
                what,
            });
        }
    }

    /// Sends all batches of a wave, then reads what both sides said.
    async fn read_wave(
        &self,
        reader: &mut Reader,
        wave: Vec<Batch>,
        depth: Depth,
    ) -> Result<Vec<Pair>, MoveError> {
        let Some(board) = self.boards.get(reader.source.0) else {
            return Ok(Vec::new());
        };
        reader.keep().await?;
        let mut sent = Vec::with_capacity(wave.len());
        for batch in wave {
            let message = self.nonces.next("verify");
            let Reader { link, selected, .. } = reader;
            sent.push(queue_batch(link, board, selected, message, batch, depth));
        }
        reader.link.flush("read keys").await?;
        let mut pairs = Vec::new();
        for pending in sent {
            let at_source = pending.read_source(&mut reader.link).await?;
            pairs.extend(pending.pair(&reader.link, at_source).await?);
        }
        Ok(pairs)
    }
}

/// The pairs that do not agree; what does is added to `same`. Backward only
/// strangers count: the content of keys that both have is compared forward.
fn sift(db: u32, pairs: Vec<Pair>, depth: Depth, same: &mut Sum) -> Vec<(Pair, DifferenceKind)> {
    let judged = pairs.into_iter().filter_map(|pair| {
        match pair.verdict() {
            // Of what is read again nothing is known.
            Verdict::Differs(what)
                if what == DifferenceKind::BeingRefreshed
                    || depth == Depth::Content
                    || what == DifferenceKind::ExtraAtTarget =>
            {
                return Some((pair, what));
            }
            Verdict::Same(content) if depth == Depth::Content => {
                same.add(db, &pair.key, content.as_ref());
            }
            Verdict::Same(_) | Verdict::Gone | Verdict::Differs(_) => {}
        }
        None
    });
    judged.collect()
}

/// What each key's value takes in the server's memory, as an estimate of what
/// reading it costs.
pub(super) async fn sizes(
    link: &mut Link,
    keys: &[(Bytes, TargetIndex)],
) -> Result<Vec<u64>, MoveError> {
    const STEP: &str = "estimate sizes (MEMORY USAGE)";
    for (key, _) in keys {
        link.queue(&[b"MEMORY", b"USAGE", key]);
    }
    link.flush(STEP).await?;
    let mut sizes = Vec::with_capacity(keys.len());
    for _ in keys {
        sizes.push(match link.read(STEP).await? {
            Value::Integer(bytes) => u64::try_from(bytes).unwrap_or(KEY_BYTES_GUESS),
            Value::Null => 0,
            _ => KEY_BYTES_GUESS,
        });
    }
    Ok(sizes)
}

/// Keys in batches bounded by count and bytes; a larger key is alone.
pub(super) fn batches(
    db: u32,
    keys: Vec<(Bytes, TargetIndex)>,
    sizes: &[u64],
) -> Vec<(Batch, u64)> {
    let mut batches: Vec<(Batch, u64)> = Vec::new();
    for (key, size) in keys.into_iter().zip(sizes) {
        match batches.last_mut() {
            Some((batch, bytes))
                if batch.keys.len() < BATCH_KEYS_MAX && *bytes + size <= BATCH_BYTES_MAX =>
            {
                batch.keys.push(key);
                *bytes += size;
            }
            _ => batches.push((
                Batch {
                    db,
                    keys: vec![key],
                },
                *size,
            )),
        }
    }
    batches
}

/// Batches that are read together, bounded by count and bytes.
fn waves(batches: Vec<(Batch, u64)>) -> Vec<Vec<Batch>> {
    let mut waves: Vec<(Vec<Batch>, u64)> = Vec::new();
    for (batch, size) in batches {
        match waves.last_mut() {
            Some((wave, bytes))
                if wave.len() < WAVE_BATCHES_MAX && *bytes + size <= WAVE_BYTES_MAX =>
            {
                wave.push(batch);
                *bytes += size;
            }
            _ => waves.push((vec![batch], size)),
        }
    }
    waves.into_iter().map(|(wave, _)| wave).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: usize) -> Vec<(Bytes, TargetIndex)> {
        vec![(Bytes::from_static(b"k"), TargetIndex(0)); count]
    }

    #[test]
    fn batches_and_waves_are_bounded_by_count_and_bytes() {
        let small = batches(0, keys(200), &[10; 200]);
        let lengths: Vec<usize> = small.iter().map(|(batch, _)| batch.keys.len()).collect();
        assert_eq!(lengths, [64, 64, 64, 8]);
        assert_eq!(waves(small).len(), 1);
        let large = batches(0, keys(5), &[BATCH_BYTES_MAX + 1; 5]);
        assert_eq!(large.len(), 5);
        assert_eq!(
            waves(large).iter().map(Vec::len).collect::<Vec<_>>(),
            [3, 2]
        );
    }
}
