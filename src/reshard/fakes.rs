//! For tests of the job: proxies that only have the admin API, over real
//! sockets, and a data path that moves nothing.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::mover::{
    Begin, Herald, KeeperConfig, Keepers, MarkerReport, MoveError, MoverConfig, MoverProgress,
    PreflightReport, SourceProgress, Verified, VerifyOptions, VerifyReport,
};
use super::moving::{DataPath, Moving};
use super::proxies::{GateView, ProxyUrl};
use crate::router::layout::Layout;
use crate::router::spec::LayoutSpec;

/// What goes wrong with the next call of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 409, nothing is done.
    Refuse,
    /// 500, nothing is done.
    Fail,
    /// Nothing is done and nothing answered.
    Silent,
    /// Done, but the answer is lost.
    DoneButSilent,
}

/// A proxy's state and what was asked of it.
#[derive(Debug)]
pub struct FakeState {
    pub epoch: u64,
    pub layout: LayoutSpec,
    pub gate: GateView,
    pub pending: Option<(String, u64)>,
    pub decided_by: Option<String>,
    /// The job that works on the pool.
    pub job: Option<String>,
    staged: Option<LayoutSpec>,
    incarnation: u64,
    pub calls: Vec<String>,
    pub faults: VecDeque<(&'static str, Fault)>,
    pub token: Option<String>,
}

/// A proxy of one pool named `cache`.
#[derive(Debug, Clone)]
pub struct FakeProxy {
    state: Arc<Mutex<FakeState>>,
    pub url: ProxyUrl,
}

impl FakeProxy {
    pub async fn start(epoch: u64, layout: &LayoutSpec) -> Self {
        let state = Arc::new(Mutex::new(FakeState {
            epoch,
            layout: layout.clone(),
            gate: GateView::Open,
            pending: None,
            decided_by: None,
            job: None,
            staged: None,
            incarnation: 0,
            calls: Vec::new(),
            faults: VecDeque::new(),
            token: None,
        }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Router::new()
            .route("/api/v1/pools", get(pools))
            .route("/api/v1/pools/{pool}/switch/{call}", post(switch))
            .route("/api/v1/pools/{pool}/job", post(announce))
            .with_state(Arc::clone(&state));
        // Ends with the test's runtime.
        drop(tokio::spawn(
            async move { axum::serve(listener, routes).await },
        ));
        Self {
            state,
            url: url.parse().unwrap(),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock().unwrap()
    }

    pub fn fail(&self, call: &'static str, fault: Fault) {
        self.state().faults.push_back((call, fault));
    }

    /// As after `stage`, and `hold` and `arm` if `gate` says so.
    pub fn pend(&self, job: &str, epoch: u64, to: &LayoutSpec, gate: GateView) {
        let mut state = self.state();
        state.pending = Some((job.to_owned(), epoch));
        state.staged = Some(to.clone());
        state.gate = gate;
    }

    pub fn assert_open(&self, epoch: u64) {
        let state = self.state();
        assert_eq!((state.epoch, state.gate), (epoch, GateView::Open));
        assert_eq!(state.pending, None);
    }
}

async fn pools(
    State(state): State<Arc<Mutex<FakeState>>>,
    headers: HeaderMap,
) -> (StatusCode, Json<Value>) {
    let state = state.lock().unwrap();
    let wanted = state.token.as_ref().map(|token| format!("Bearer {token}"));
    let given = headers
        .get("authorization")
        .map(|value| value.to_str().unwrap());
    if wanted.is_some() && wanted.as_deref() != given {
        return (
            StatusCode::UNAUTHORIZED,
            Json(json!({"v": 1, "error": "no"})),
        );
    }
    let pending = state
        .pending
        .as_ref()
        .map(|(job, epoch)| json!({"job": job, "epoch": epoch, "state": "staged"}));
    let pool = json!({
        "name": "cache", "epoch": state.epoch, "layout": state.layout,
        "gate": state.gate, "pending": pending, "workers": 2,
        "decided_by": state.decided_by, "job": state.job,
    });
    (StatusCode::OK, Json(json!({"v": 1, "pools": [pool]})))
}

async fn announce(
    State(state): State<Arc<Mutex<FakeState>>>,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let mut state = state.lock().unwrap();
    let job = body["job"].as_str().unwrap();
    if state.job.as_deref().is_some_and(|other| other != job) {
        let refusal = json!({"v": 1, "error": "another job", "reason": "other_job"});
        return (StatusCode::CONFLICT, Json(refusal));
    }
    let lasts = body["lease_ms"].as_u64().unwrap() > 0;
    state.job = lasts.then(|| job.to_owned());
    (StatusCode::OK, Json(json!({"v": 1})))
}

async fn switch(
    State(shared): State<Arc<Mutex<FakeState>>>,
    Path((pool, call)): Path<(String, String)>,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    assert_eq!(pool, "cache");
    let (fault, answer) = {
        let mut state = shared.lock().unwrap();
        state.calls.push(call.clone());
        let due = state.faults.front().is_some_and(|(name, _)| *name == call);
        let fault = due
            .then(|| state.faults.pop_front())
            .flatten()
            .map(|(_, fault)| fault);
        let answer = match fault {
            Some(Fault::Refuse) => Err("told to refuse"),
            Some(Fault::Fail) => Err("the disk is full"),
            Some(Fault::Silent) => Ok(()),
            Some(Fault::DoneButSilent) | None => state.take(&call, &body),
        };
        (fault, answer)
    };
    if matches!(fault, Some(Fault::Silent | Fault::DoneButSilent)) {
        return std::future::pending().await;
    }
    match answer {
        Ok(()) => (
            StatusCode::OK,
            Json(json!({"v": 1, "held_requests": 3, "held_us_max": 1500})),
        ),
        Err(reason) if fault == Some(Fault::Fail) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            Json(json!({"v": 1, "error": reason, "reason": "state_not_written"})),
        ),
        Err(reason) => (
            StatusCode::CONFLICT,
            Json(json!({"v": 1, "error": reason, "reason": "not_held"})),
        ),
    }
}

impl FakeState {
    fn take(&mut self, call: &str, body: &Value) -> Result<(), &'static str> {
        let (job, epoch) = (
            body["job"].as_str().unwrap(),
            body["epoch"].as_u64().unwrap(),
        );
        let incarnation = body["incarnation"].as_u64().unwrap();
        if incarnation < self.incarnation {
            return Err("stale incarnation");
        }
        self.incarnation = incarnation;
        let ours = self.pending.as_ref() == Some(&(job.to_owned(), epoch));
        match call {
            "stage" => {
                let from = Layout::new(self.layout.clone()).unwrap().fingerprint();
                if epoch != self.epoch + 1 || body["from_fingerprint"].as_u64() != Some(from) {
                    return Err("another epoch or layout");
                }
                self.staged = Some(serde_json::from_value(body["to"].clone()).unwrap());
                self.pending = Some((job.to_owned(), epoch));
            }
            "hold" if ours && body["lease_ms"].is_u64() => self.gate = GateView::Held,
            "arm" if ours && self.gate == GateView::Held => self.gate = GateView::Armed,
            "commit" if self.epoch == epoch => {}
            "commit" if ours && matches!(self.gate, GateView::Armed | GateView::Fenced) => {
                self.epoch = epoch;
                self.decided_by = Some(job.to_owned());
                self.layout = self.staged.take().unwrap();
                self.open();
            }
            "abort" if self.epoch < epoch => self.open(),
            _ => return Err("not held"),
        }
        Ok(())
    }

    fn open(&mut self) {
        self.gate = GateView::Open;
        self.pending = None;
    }
}

/// A data path that moves nothing and says what it is told to say.
#[derive(Debug, Clone, Default)]
pub struct FakeData(Arc<FakeMoves>);

/// What was asked of it, and what it answers.
#[derive(Debug, Default)]
pub struct FakeMoves {
    /// Differences that the next verify finds.
    pub differences: AtomicU64,
    /// Markers never come through.
    pub marker_is_lost: AtomicBool,
    /// The mover fails as soon as a marker came through.
    pub fails_after_cut: AtomicBool,
    /// Keys that each mover reads again, for as many RENAMEs.
    pub refreshes: AtomicU64,
    /// It fails since a target has lost what it had.
    pub forgets: AtomicBool,
    /// `check_targets` never ends.
    pub check_hangs: AtomicBool,
    /// `check_targets` refuses.
    pub conflict: AtomicBool,
    pub preflights: AtomicU64,
    pub resumed: AtomicBool,
    /// Keepers cannot attach.
    pub keepers_fail: AtomicBool,
    /// Where each mover began, and between which layouts, by fingerprint.
    pub begun: Mutex<Vec<(Begin, u64, u64)>>,
    /// The next mover cannot start.
    pub start_fails: AtomicBool,
    /// Counted up, it ends every mover that runs.
    pub losses: watch::Sender<u64>,
    pub starts: AtomicU64,
    pub stops: AtomicU64,
    pub verifies: AtomicU64,
    pub is_cut: AtomicBool,
    pub is_detached: AtomicBool,
}

impl FakeData {
    pub fn seen(&self) -> &FakeMoves {
        &self.0
    }
}

impl FakeMoves {
    fn progress(&self) -> MoverProgress {
        let keys = self.refreshes.load(Ordering::SeqCst);
        let mut progress = MoverProgress::default();
        if keys > 0 {
            progress.sources.push(SourceProgress {
                keys_refreshed: keys,
                spanning_commands: [("rename", keys)].into(),
                ..SourceProgress::idle("127.0.0.1:1".parse().unwrap())
            });
        }
        progress
    }
}

/// A move of nothing.
#[derive(Debug)]
pub struct FakeMoving {
    moves: Arc<FakeMoves>,
    progress: watch::Sender<MoverProgress>,
    failure: watch::Sender<bool>,
    losses: u64,
}

impl DataPath for FakeData {
    type Moving = FakeMoving;
    type Checked = ();

    async fn preflight(&self, _config: &MoverConfig) -> Result<PreflightReport, MoveError> {
        self.0.preflights.fetch_add(1, Ordering::SeqCst);
        Ok(PreflightReport {
            sources: Vec::new(),
            targets: Vec::new(),
            warnings: Vec::new(),
        })
    }

    async fn check_targets(&self, config: &MoverConfig) -> Result<(), MoveError> {
        self.0.resumed.store(config.resumed, Ordering::SeqCst);
        if self.0.check_hangs.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        if self.0.conflict.load(Ordering::SeqCst) {
            return Err(MoveError::Conflict {
                examples: Vec::new(),
                count: 1,
            });
        }
        Ok(())
    }

    async fn keep(&self, _config: &KeeperConfig) -> Result<Keepers, MoveError> {
        match self.0.keepers_fail.load(Ordering::SeqCst) {
            true => Err(MoveError::KeeperLate { waited_ms: 1 }),
            false => Ok(Keepers::default()),
        }
    }

    async fn start(&self, config: MoverConfig, (): ()) -> Result<FakeMoving, MoveError> {
        self.0.starts.fetch_add(1, Ordering::SeqCst);
        let (from, to) = (config.moves.from(), config.moves.to());
        let begun = (config.begin, from.fingerprint(), to.fingerprint());
        self.0.begun.lock().unwrap().push(begun);
        if self.0.start_fails.swap(false, Ordering::SeqCst) {
            return Err(MoveError::Stopped);
        }
        Ok(FakeMoving {
            losses: *self.0.losses.borrow(),
            moves: Arc::clone(&self.0),
            progress: watch::Sender::new(self.0.progress()),
            failure: watch::Sender::new(false),
        })
    }
}

impl Moving for FakeMoving {
    fn progress(&self) -> watch::Receiver<MoverProgress> {
        self.progress.subscribe()
    }

    async fn wait_following(&self) -> Result<(), MoveError> {
        Ok(())
    }

    async fn failed(&self) -> MoveError {
        let (mut failure, mut losses) = (self.failure.subscribe(), self.moves.losses.subscribe());
        tokio::select! {
            failed = failure.wait_for(|lost| *lost) => drop(failed),
            lost = losses.wait_for(|losses| *losses > self.losses) => drop(lost),
        }
        let server = || "127.0.0.1:1".parse().unwrap();
        match self.moves.forgets.load(Ordering::SeqCst) {
            true => MoveError::TargetForgot {
                target: server(),
                source_server: server(),
                what: "it is empty".to_owned(),
            },
            false => MoveError::Stopped,
        }
    }

    async fn prepare_cut(&self) -> Result<(), MoveError> {
        Ok(())
    }

    async fn cut(
        &self,
        _label: &str,
        _restarts: u64,
        _heralds: Option<mpsc::Sender<Herald>>,
    ) -> Result<MarkerReport, MoveError> {
        self.moves.is_cut.store(true, Ordering::SeqCst);
        if self.moves.marker_is_lost.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        if self.moves.fails_after_cut.load(Ordering::SeqCst) {
            self.failure.send_replace(true);
        }
        Ok(MarkerReport {
            elapsed: Duration::ZERO,
            sources: Vec::new(),
        })
    }

    fn uncut(&self) {
        self.moves.is_cut.store(false, Ordering::SeqCst);
    }

    fn detach(&self) {
        self.moves.is_detached.store(true, Ordering::SeqCst);
    }

    async fn verify(&self, _options: VerifyOptions) -> Result<VerifyReport, MoveError> {
        self.moves.verifies.fetch_add(1, Ordering::SeqCst);
        let differences = self.moves.differences.swap(0, Ordering::SeqCst);
        Ok(VerifyReport {
            keys_compared: 7,
            differences,
            verified: (differences == 0).then(Verified::for_test),
            ..VerifyReport::default()
        })
    }

    async fn stop(self) -> Result<(), MoveError> {
        self.moves.stops.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}
