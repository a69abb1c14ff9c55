//! Watches servers while a copy runs and slows it down when one shows strain.
//!
//! ```text
//! each target: PING every 10 ms ---- p99 of the last answers --.
//! each source: INFO memory, twice a second -- output held -----+-> Governor -> Pace
//! the dial: rate ----------------------------------------------'
//! ```
//!
//! Nothing is asked of a server while its bound is off. A server that cannot be
//! watched is no reason to fail: the job's own connections decide that.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::router::address::ShardAddress;
use crate::upstream::config::UpstreamConfig;

use super::error::{MoveError, Role};
use super::governor::{Governor, Seen};
use super::link::{Link, info_field};
use super::pace::Pace;
use super::progress::SourceRow;
use super::throttle::{Throttle, ThrottleDial};

/// Pause between two PINGs of one target.
const PING_EVERY: Duration = Duration::from_millis(10);
/// Answers that a percentile is taken of: what half a second brings, and more.
const ANSWERS_MAX: usize = 100;
/// Pause between two looks at a source's buffers.
const BUFFER_LOOK_EVERY: Duration = Duration::from_millis(500);
/// Pause between two steps of the governor.
const STEP_EVERY: Duration = Duration::from_millis(500);
/// Pause before a server that could not be watched is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What one server showed last.
#[derive(Debug, Default)]
struct Gauge {
    /// Answer times of a target, the newest last, in microseconds.
    answers_us: VecDeque<u64>,
    /// When the answer that is awaited was asked for.
    asked_at: Option<Instant>,
    /// Output a source holds for its replicas.
    buffer_bytes: u64,
}

impl Gauge {
    fn answered(&mut self, us: u64) {
        for us in with_missed(us) {
            if self.answers_us.len() == ANSWERS_MAX {
                self.answers_us.pop_front();
            }
            self.answers_us.push_back(us);
        }
        self.asked_at = None;
    }

    /// 99th percentile in milliseconds; an answer that is still awaited counts
    /// for as long as it is.
    fn p99_ms(&self, now: Instant) -> f64 {
        let awaited = self.asked_at.map(|at| (now - at).as_micros() as u64);
        let awaited = awaited.into_iter().flat_map(with_missed);
        let all = self.answers_us.iter().copied().chain(awaited);
        let mut all: Vec<u64> = all.collect();
        let newest = all.len().saturating_sub(ANSWERS_MAX);
        all.drain(..newest);
        all.sort_unstable();
        let at = (all.len() * 99).div_ceil(100).saturating_sub(1);
        all.get(at).map_or(0.0, |us| *us as f64 / 1000.0)
    }
}

/// An answer, and those that PINGs in its shadow would have had: a server that
/// stands still for half a second does so for fifty of them, not for one.
fn with_missed(us: u64) -> impl Iterator<Item = u64> {
    let step = PING_EVERY.as_micros() as u64;
    std::iter::successors(Some(us), move |us| us.checked_sub(step)).take(ANSWERS_MAX)
}

type Gauges = Vec<Watched>;

/// One server that is watched.
struct Watched {
    role: Role,
    server: ShardAddress,
    /// How the tap on a source is.
    row: Option<Arc<SourceRow>>,
    gauge: Arc<Mutex<Gauge>>,
}

/// What holds a copy back at this moment, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Snapshot bytes a second that are let through; `None`: all.
    pub bytes_per_s: Option<u64>,
    /// Why, when a server's strain is the reason.
    pub why: Option<String>,
}

/// What the watching needs.
pub(super) struct Watch {
    /// The servers that taps read from, with the taps' rows.
    pub(super) sources: Vec<(ShardAddress, Arc<SourceRow>)>,
    pub(super) targets: Vec<ShardAddress>,
    pub(super) upstream: UpstreamConfig,
    pub(super) dial: ThrottleDial,
    pub(super) pace: Arc<Pace>,
    pub(super) held: watch::Sender<Held>,
}

/// Watches until told to stop.
pub(super) async fn watch_strain(
    watch: Watch,
    mut stop: watch::Receiver<bool>,
) -> Result<(), MoveError> {
    let targets = watch.targets.iter().map(|server| Watched {
        role: Role::Target,
        server: server.clone(),
        row: None,
        gauge: Arc::default(),
    });
    let sources = watch.sources.iter().map(|(server, row)| Watched {
        role: Role::Source,
        server: server.clone(),
        row: Some(Arc::clone(row)),
        gauge: Arc::default(),
    });
    let gauges: Gauges = targets.chain(sources).collect();
    let mut probes = tokio::task::JoinSet::new();
    for watched in &gauges {
        let probe = Probe {
            server: watched.server.clone(),
            upstream: watch.upstream.clone(),
            bounds: watch.dial.subscribe(),
            gauge: Arc::clone(&watched.gauge),
        };
        match watched.role {
            Role::Target => probes.spawn(probe.ping()),
            Role::Source => probes.spawn(probe.look()),
        };
    }
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {}
        () = govern(&watch, &gauges) => {}
    }
    probes.shutdown().await;
    Ok(())
}

async fn govern(watch: &Watch, gauges: &Gauges) {
    let mut bounds = watch.dial.subscribe();
    let mut governor = Governor::default();
    let mut step = interval(STEP_EVERY);
    step.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut looked_at, mut passed) = (Instant::now(), watch.pace.passed_bytes());
    let mut limit = None;
    loop {
        let stepped = tokio::select! {
            _ = step.tick() => true,
            changed = bounds.changed() => match changed {
                Ok(()) => false,
                Err(_) => return,
            },
        };
        let throttle = *bounds.borrow_and_update();
        let why = strained(gauges, throttle, Instant::now());
        if stepped {
            let now = Instant::now();
            let sent = watch.pace.passed_bytes() - passed;
            let elapsed_s = (now - looked_at).as_secs_f64().max(0.001);
            (looked_at, passed) = (now, passed + sent);
            limit = governor.step(Seen {
                sent_bytes_per_s: (sent as f64 / elapsed_s) as u64,
                strained: why.is_some(),
            });
        }
        let rate = [throttle.rate_bytes_per_s, limit].into_iter().flatten();
        let rate = rate.min();
        watch.pace.set(rate);
        watch.held.send_if_modified(|held| {
            let new = Held {
                bytes_per_s: rate,
                why: why.or_else(|| limit.and_then(|_| held.why.clone())),
            };
            let changed = *held != new;
            *held = new;
            changed
        });
    }
}

/// The first server beyond its bound, in words.
fn strained(gauges: &Gauges, throttle: Throttle, now: Instant) -> Option<String> {
    gauges.iter().find_map(|watched| {
        let server = &watched.server;
        let gauge = watched.gauge.lock().unwrap_or_else(PoisonError::into_inner);
        match watched.role {
            Role::Target => {
                let max = throttle.target_ping_p99_ms_max?;
                let p99 = gauge.p99_ms(now);
                (p99 > max as f64)
                    .then(|| format!("target {server} answers PING in {p99:.1} ms (p99)"))
            }
            Role::Source => {
                let max = throttle.source_buffer_bytes_max?;
                let held = gauge.buffer_bytes;
                // We do not read while the spool is full: slower would make it worse.
                let row = watched.row.as_ref()?.read();
                if row.tap.is_some_and(|tap| tap.spool_full) {
                    return None;
                }
                (held > max).then(|| format!("source {server} holds {held} bytes for replicas"))
            }
        }
    })
}

/// The watching of one server.
struct Probe {
    server: ShardAddress,
    upstream: UpstreamConfig,
    bounds: watch::Receiver<Throttle>,
    gauge: Arc<Mutex<Gauge>>,
}

impl Probe {
    fn gauge(&self) -> std::sync::MutexGuard<'_, Gauge> {
        self.gauge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pings a target while there is a bound for that.
    async fn ping(mut self) {
        loop {
            let bounded = |throttle: &Throttle| throttle.target_ping_p99_ms_max.is_some();
            if self.bounds.wait_for(bounded).await.is_err() {
                return;
            }
            if let Err(error) = self.ping_on_one_link().await {
                tracing::debug!(target = %self.server, %error, "not watched for a moment");
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            *self.gauge() = Gauge::default();
        }
    }

    async fn ping_on_one_link(&self) -> Result<(), MoveError> {
        let mut link = Link::connect(Role::Target, &self.server, &self.upstream).await?;
        let mut tick = interval(PING_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.bounds.borrow().target_ping_p99_ms_max.is_some() {
            tick.tick().await;
            let asked = Instant::now();
            self.gauge().asked_at = Some(asked);
            link.ask("watch its answers (PING)", &[b"PING"]).await?;
            self.gauge().answered(asked.elapsed().as_micros() as u64);
        }
        Ok(())
    }

    /// Looks at a source's output for replicas while there is a bound for that.
    async fn look(mut self) {
        loop {
            let bounded = |throttle: &Throttle| throttle.source_buffer_bytes_max.is_some();
            if self.bounds.wait_for(bounded).await.is_err() {
                return;
            }
            if let Err(error) = self.look_on_one_link().await {
                tracing::debug!(source = %self.server, %error, "not watched for a moment");
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            *self.gauge() = Gauge::default();
        }
    }

    async fn look_on_one_link(&self) -> Result<(), MoveError> {
        const STEP: &str = "watch its buffers (INFO)";
        let mut link = Link::connect(Role::Source, &self.server, &self.upstream).await?;
        let mut tick = interval(BUFFER_LOOK_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.bounds.borrow().source_buffer_bytes_max.is_some() {
            tick.tick().await;
            let info = link.text(STEP, &[b"INFO", b"memory"]).await?;
            let held = info_field(&info, "mem_clients_slaves").and_then(|text| text.parse().ok());
            self.gauge().buffer_bytes = held.unwrap_or(0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::shortfall::ShortfallLog;
    use super::*;

    #[test]
    fn a_percentile_counts_the_answer_that_does_not_come() {
        let mut gauge = Gauge::default();
        let asked = Instant::now();
        let later = asked + Duration::from_millis(70);
        assert!(gauge.p99_ms(later) < 0.001);
        for _ in 0..200 {
            gauge.answered(1_000);
        }
        assert!(gauge.p99_ms(later) < 2.0);
        gauge.answered(5_000);
        assert!(
            gauge.p99_ms(later) < 2.0,
            "one slow answer of a hundred is below the percentile"
        );
        gauge.asked_at = Some(asked);
        assert!(gauge.p99_ms(later) > 50.0, "seven PINGs would be waiting");
        gauge.answered(70_000);
        assert!(gauge.p99_ms(later) > 50.0);
    }

    #[test]
    fn strain_is_named_by_server_and_only_within_bounds_that_are_on() {
        let gauge = Gauge {
            buffer_bytes: 1000,
            ..Gauge::default()
        };
        let server: ShardAddress = "s:1".parse().unwrap();
        let row = SourceRow::new(server.clone(), 0, Vec::new(), ShortfallLog::new(None));
        let gauges: Gauges = vec![Watched {
            role: Role::Source,
            server,
            row: Some(Arc::new(row)),
            gauge: Arc::new(Mutex::new(gauge)),
        }];
        let off = Throttle::default();
        let on = Throttle {
            source_buffer_bytes_max: Some(999),
            ..off
        };
        let now = Instant::now();
        assert_eq!(strained(&gauges, off, now), None);
        assert!(strained(&gauges, on, now).unwrap().contains("s:1"));
    }
}
