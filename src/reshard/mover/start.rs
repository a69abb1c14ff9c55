//! From a configuration to running tasks.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::replication::{Haste, SpoolConfig, TapConfig};
use crate::restore::{
    Dialect, LARGE_VALUE_BYTES, LARGE_VALUE_ELEMENTS, Overwrite, RestoreOptions, Restorer,
    ServerIdentity,
};
use crate::router::address::ShardAddress;

use super::begin::{Begin, SourceBegin};
use super::canary::{Canaries, send_canaries};
use super::checkpoint::{Checkpoint, Lineage, common_point};
use super::config::{Attach, MoverConfig, SOURCE_PATIENCE_MS_MAX, TAP_REST};
use super::conflict::{Ended, TargetsChecked};
use super::error::{MoveError, Role};
use super::feed::FeedConfig;
use super::guard::Stance;
use super::keyspace::databases;
use super::lane::{Dialer, Lane, LaneMeter, LaneNames};
use super::link::Link;
use super::marker::{Board, Nonces};
use super::pace::Pace;
use super::pending::Pending;
use super::placement::{Placement, SourceIndex, TargetIndex};
use super::progress::{MoverProgress, SourceRow, report};
use super::publisher::{PUBLISH_QUEUE_MAX, publish};
use super::queue::LaneQueue;
use super::refresh::{Refresher, refresh};
use super::running::{Mover, MoverParts};
use super::settle::{Ask, SETTLE_QUEUE_MAX, Settler, settle};
use super::shortfall::{ShortfallFile, ShortfallLog};
use super::source::{SourceParts, follow, pending_key};
use super::strain::{Held, Watch, watch_strain};
use super::tasks::{Failure, TaskSet};
use super::verify::{RECHECKS_DEFAULT, RECHECKS_SCAN_MIN, Verifier, VerifyOptions};
use super::walk::WalkConfig;

/// The file that keeps a source's own notify-keyspace-events.
const KEPT_SETTING: &str = "notify-keyspace-events";

/// Opens all connections and begins to copy to the targets that were checked
/// with the same configuration. A source that cannot be tapped shows in
/// [`Mover::failed`].
///
/// # Errors
/// Targets may hold part of the copy; a run with `resumed` clears it.
pub async fn start(cfg: MoverConfig, checked: TargetsChecked) -> Result<Mover, MoveError> {
    let cfg = cfg.patient();
    let placement = Arc::new(checked.placement);
    let failure = Failure::new();
    let mut starter = Starter {
        nonces: Arc::new(Nonces::new(&cfg.job, fastrand::u64(..))),
        pace: Arc::new(Pace::new(cfg.throttle.now().rate_bytes_per_s)),
        tasks: TaskSet::new(failure.clone()),
        rows: Vec::new(),
        boards: Vec::new(),
        publishers: Vec::new(),
        lane_counts: Vec::new(),
        settlers: Vec::new(),
        stance: Stance::default(),
        haste: Haste::default(),
        cut: watch::Sender::new(None),
        overwrite: match cfg.tapping.attach {
            Attach::Psync => checked.overwrite,
            // SCAN lists a key more than once, and a change brings it whole.
            Attach::Scan => Overwrite::Always,
        },
        shortfall_file: cfg.shortfall_file.as_deref().map(ShortfallFile::at),
        lanes: lane_count(&placement),
        placement,
        cfg,
    };
    for source in (0..starter.placement.sources().len()).map(SourceIndex) {
        if let Err(error) = starter.start_source(source).await {
            starter.tasks.supervise().stop().await?;
            return Err(error);
        }
    }
    let held = starter.watch_strain();
    starter.start_canaries();
    let (progress_in, progress) = watch::channel(MoverProgress::default());
    let reporting = report(
        starter.rows.clone(),
        held.clone(),
        progress_in,
        starter.tasks.stop_signal(),
    );
    starter.tasks.spawn("progress".to_owned(), async move {
        reporting.await;
        Ok(())
    });
    Ok(Mover::new(MoverParts {
        placement: starter.placement,
        upstream: starter.cfg.upstream,
        attach: starter.cfg.tapping.attach,
        boards: starter.boards,
        publishers: starter.publishers,
        lane_counts: starter.lane_counts,
        settlers: starter.settlers,
        stance: starter.stance,
        haste: starter.haste,
        cut: starter.cut,
        nonces: starter.nonces,
        rows: starter.rows,
        held,
        progress,
        tasks: starter.tasks.supervise(),
        failure,
    }))
}

/// A lane that is about to begin.
struct DialedLane {
    target: TargetIndex,
    names: LaneNames,
    dialer: Dialer,
    link: Link,
    ended: Ended,
    dialect: Dialect,
    /// What an earlier run of the job left.
    found: Option<Checkpoint>,
}

/// What is being put together.
struct Starter {
    cfg: MoverConfig,
    placement: Arc<Placement>,
    overwrite: Overwrite,
    shortfall_file: Option<ShortfallFile>,
    /// Lanes of all sources together.
    lanes: usize,
    nonces: Arc<Nonces>,
    pace: Arc<Pace>,
    tasks: TaskSet,
    rows: Vec<Arc<SourceRow>>,
    boards: Vec<Board>,
    publishers: Vec<mpsc::Sender<Vec<u8>>>,
    lane_counts: Vec<usize>,
    settlers: Vec<(ShardAddress, mpsc::Sender<Ask>)>,
    stance: Stance,
    haste: Haste,
    cut: watch::Sender<Option<u64>>,
}

fn lane_count(placement: &Placement) -> usize {
    (0..placement.sources().len())
        .map(|source| placement.targets_of(SourceIndex(source)).count())
        .sum()
}

/// What the server behind `link` says that it is.
pub(super) async fn dialect(link: &mut Link) -> Result<Dialect, MoveError> {
    const STEP: &str = "read INFO";
    let info = link.text(STEP, &[b"INFO"]).await?;
    dialect_of(&info, link)
}

/// What the server says that it is, in its INFO.
pub(super) fn dialect_of(info: &str, link: &Link) -> Result<Dialect, MoveError> {
    let why = "it does not say its version: what it takes cannot be known";
    let identity = ServerIdentity::of_info(info);
    let identity = identity.ok_or_else(|| link.refuse("read INFO", why))?;
    Ok(Dialect::of(&identity))
}

impl Starter {
    /// What the task that watches for strain says holds the copy back.
    fn watch_strain(&mut self) -> watch::Receiver<Held> {
        let (held_in, held) = watch::channel(Held::default());
        let watch = Watch {
            sources: self.tapped(),
            targets: self.placement.targets().to_vec(),
            upstream: self.cfg.upstream.clone(),
            dial: self.cfg.throttle.clone(),
            pace: Arc::clone(&self.pace),
            held: held_in,
        };
        let stop = self.tasks.stop_signal();
        self.tasks
            .spawn("strain".to_owned(), watch_strain(watch, stop));
        held
    }

    /// One task for each source; its markers go through all its lanes.
    fn start_canaries(&mut self) {
        let rechecks = match self.cfg.tapping.attach {
            Attach::Psync => RECHECKS_DEFAULT,
            Attach::Scan => RECHECKS_SCAN_MIN,
        };
        let verifier = Arc::new(Verifier {
            placement: Arc::clone(&self.placement),
            upstream: self.cfg.upstream.clone(),
            boards: self.boards.clone(),
            nonces: Arc::clone(&self.nonces),
            options: VerifyOptions {
                rechecks,
                ..VerifyOptions::default()
            },
        });
        let rows = self.rows.iter().zip(&self.lane_counts).enumerate();
        for (at, (row, lanes)) in rows {
            let canaries = Canaries {
                source: SourceIndex(at),
                verifier: Arc::clone(&verifier),
                row: Arc::clone(row),
                lanes: *lanes,
                cut: self.cut.subscribe(),
            };
            let name = format!("canaries {}", row.read().source);
            let stop = self.tasks.stop_signal();
            self.tasks.spawn(name, send_canaries(canaries, stop));
        }
    }

    async fn start_source(&mut self, index: SourceIndex) -> Result<(), MoveError> {
        let Some(address) = self.placement.sources().get(index.0).cloned() else {
            return Ok(());
        };
        let targets: Vec<TargetIndex> = self.placement.targets_of(index).collect();
        let shortfalls = ShortfallLog::new(self.shortfall_file.clone());
        let mut dialed = Vec::new();
        for target in targets {
            let Some(server) = self.placement.targets().get(target.0).cloned() else {
                continue;
            };
            let names = LaneNames {
                source: address.clone(),
                target: server,
            };
            dialed.push(self.dial_lane(index, target, names).await?);
        }
        let (begin, lineage) = self.source_begin(&address, &dialed);
        let mut queues = Vec::new();
        let mut meters = Vec::new();
        for lane in dialed {
            let meter = Arc::new(LaneMeter::default());
            let shared = (Arc::clone(&meter), shortfalls.clone());
            let queue = self.start_lane(index, lane, (&begin, lineage), shared);
            queues.push(queue.await?);
            meters.push(meter);
        }
        let mut link = Link::connect(Role::Source, &address, &self.cfg.upstream).await?;
        let dialect = dialect(&mut link).await?;
        let held = databases(&mut link)
            .await?
            .iter()
            .map(|(_, keys)| keys)
            .sum();
        let (requests, publishing) = mpsc::channel(PUBLISH_QUEUE_MAX);
        let stop = self.tasks.stop_signal();
        self.tasks.spawn(
            format!("publisher {address}"),
            publish(link, publishing, stop),
        );

        let board = Board::default();
        let pending = Pending::new();
        let (settler_asks, settling) = mpsc::channel(SETTLE_QUEUE_MAX);
        if self.cfg.tapping.attach == Attach::Psync {
            let settler = Settler {
                link: Link::connect(Role::Source, &address, &self.cfg.upstream).await?,
                board: board.clone(),
                nonces: Arc::clone(&self.nonces),
                lanes: queues.len(),
                history: 0,
            };
            self.settlers.push((address.clone(), settler_asks.clone()));
            let stop = self.tasks.stop_signal();
            let name = format!("settler {address}");
            self.tasks.spawn(name, settle(settler, settling, stop));
            let refresher = Refresher {
                link: Link::connect(Role::Source, &address, &self.cfg.upstream).await?,
                index,
                placement: Arc::clone(&self.placement),
                board: board.clone(),
                nonces: Arc::clone(&self.nonces),
                pending: pending.clone(),
            };
            let stop = self.tasks.stop_signal();
            let name = format!("refresher {address}");
            self.tasks.spawn(name, refresh(refresher, stop));
        }
        let row = SourceRow::new(address.clone(), held, meters.clone(), shortfalls.clone());
        let row = Arc::new(row);
        self.boards.push(board.clone());
        self.rows.push(Arc::clone(&row));
        self.publishers.push(requests);
        self.lane_counts.push(queues.len());
        let name = format!("source {address}");
        let feed = self.feed(index, &address, &board);
        let parts = SourceParts {
            index,
            address,
            placement: Arc::clone(&self.placement),
            queues,
            meters,
            board,
            pending,
            pending_key: pending_key(&self.cfg.job, index.0),
            stance: self.stance.clone(),
            settler: settler_asks,
            cut: self.cut.subscribe(),
            row,
            pace: Arc::clone(&self.pace),
            shortfalls,
            dialect,
            upstream: self.cfg.upstream.clone(),
        };
        let stop = self.tasks.stop_signal();
        self.tasks.spawn(name, follow(parts, feed, begin, stop));
        Ok(())
    }

    /// How a source begins whose lanes were dialed, and of which copy it is then.
    fn source_begin(&self, source: &ShardAddress, dialed: &[DialedLane]) -> (SourceBegin, Lineage) {
        let begin = match &self.cfg.begin {
            Begin::Copy => SourceBegin::Clean,
            Begin::Resume if dialed.is_empty() => SourceBegin::Clean,
            Begin::Resume => {
                let found: Vec<_> = dialed.iter().map(|lane| lane.found.clone()).collect();
                let is_sure = dialed.iter().all(|lane| lane.ended == Ended::Surely);
                match common_point(&found).filter(|_| is_sure) {
                    Some((lineage, point)) => return (SourceBegin::GoOn(point), lineage),
                    None => SourceBegin::Anew,
                }
            }
            Begin::Follow(positions) => {
                SourceBegin::following(positions, source, self.cfg.tapping.attach)
            }
        };
        (begin, Lineage::new())
    }

    /// Whom the taps read from, with their rows.
    fn tapped(&self) -> Vec<(ShardAddress, Arc<SourceRow>)> {
        let replicas = &self.cfg.tapping.replicas;
        let sources = self.placement.sources().iter().zip(&self.rows);
        sources
            .map(|(source, row)| {
                let tapped = replicas.get(source).unwrap_or(source);
                (tapped.clone(), Arc::clone(row))
            })
            .collect()
    }

    /// How the source is read.
    fn feed(&self, index: SourceIndex, source: &ShardAddress, board: &Board) -> FeedConfig {
        let tapping = &self.cfg.tapping;
        // A socket's address is a path.
        let kept_as = format!("{KEPT_SETTING}@{source}").replace('/', "_");
        match tapping.attach {
            Attach::Psync => FeedConfig::Tap(Box::new(self.tap(index, source))),
            Attach::Scan => FeedConfig::Walk(Box::new(WalkConfig {
                address: source.clone(),
                upstream: self.cfg.upstream.clone(),
                index,
                placement: Arc::clone(&self.placement),
                board: board.clone(),
                keep_in: tapping.settings_dir.as_ref().map(|dir| dir.join(kept_as)),
            })),
        }
    }

    /// From its replica first, if it has one to be read.
    fn tap(&self, index: SourceIndex, source: &ShardAddress) -> TapConfig {
        let tapping = &self.cfg.tapping;
        let (address, alternates) = match tapping.replicas.get(source) {
            Some(replica) => (replica.clone(), vec![source.clone()]),
            None => (source.clone(), Vec::new()),
        };
        let own = format!("source-{}", index.0);
        TapConfig {
            alternates,
            patience: Duration::from_millis(SOURCE_PATIENCE_MS_MAX),
            whole_bytes_max: LARGE_VALUE_BYTES,
            whole_elements_max: LARGE_VALUE_ELEMENTS,
            rest: TAP_REST,
            haste: self.haste.clone(),
            spool: SpoolConfig {
                dir: tapping.spool_dir.as_ref().map(|dir| dir.join(own)),
                disk_bytes_max: tapping.spool_bytes_max.unwrap_or(u64::MAX),
                ..SpoolConfig::default()
            },
            ..TapConfig::new(address, self.cfg.upstream.clone())
        }
    }

    async fn dial_lane(
        &self,
        source: SourceIndex,
        target: TargetIndex,
        names: LaneNames,
    ) -> Result<DialedLane, MoveError> {
        let limits = self.cfg.limits.shared_by(self.lanes);
        let upstream = self.cfg.upstream.clone();
        let dialer = Dialer::new(names.clone(), upstream, (&self.cfg.job, source), limits);
        let (mut link, ended) = dialer.connect().await?;
        let dialect = dialect(&mut link).await?;
        let found = dialer.checkpoint(&mut link).await?;
        Ok(DialedLane {
            target,
            names,
            dialer,
            link,
            ended,
            dialect,
            found,
        })
    }

    async fn start_lane(
        &mut self,
        source: SourceIndex,
        lane: DialedLane,
        (begin, lineage): (&SourceBegin, Lineage),
        (meter, shortfalls): (Arc<LaneMeter>, ShortfallLog),
    ) -> Result<LaneQueue, MoveError> {
        let DialedLane {
            names,
            dialer,
            mut link,
            ..
        } = lane;
        let checkpoint = match (begin, lane.found) {
            (SourceBegin::GoOn(_), Some(found)) => found,
            _ => {
                let first = Checkpoint::first(lineage, begin.point());
                dialer.write(&mut link, &first).await?;
                first
            }
        };
        let tag = format!("{}:{}", self.cfg.job, source.0);
        let restorer = Restorer::new(lane.dialect, RestoreOptions::new(self.overwrite, tag));
        let limits = self.cfg.limits.shared_by(self.lanes);
        let (queue, mut batches) = LaneQueue::new(
            lane.target,
            names.clone(),
            (dialer.key().to_vec(), checkpoint.clone()),
            (limits.queue_bytes, restorer),
            Arc::clone(&meter),
        );
        let task = format!("lane {} -> {}", names.source, names.target);
        let shared = (meter, shortfalls);
        let lane = Lane::new((names, dialer), link, &checkpoint, limits, shared);
        let stop = self.tasks.stop_signal();
        self.tasks
            .spawn(task, async move { lane.run(&mut batches, stop).await });
        Ok(queue)
    }
}
