//! Over real HTTP, on a port the system chose, with a pool that only notes
//! what it was asked.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use super::*;
use crate::metrics::latency::CommandClass;
use crate::metrics::registry::Registry;
use crate::proxy::control::{
    CommitReport, GateStatus, JobAnnounce, PoolStatus, RefusalReason, SwitchAbort, SwitchArm,
    SwitchCommit, SwitchHold, SwitchRefusal, SwitchStage, SwitchTarget,
};
use crate::router::spec::LayoutSpec;

const TOKEN: &str = "0123456789abcdef";
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

#[derive(Clone, Default)]
struct FakePool {
    asked: Arc<Mutex<Vec<String>>>,
}

impl FakePool {
    fn note(&self, step: &str, ask: &impl std::fmt::Debug) {
        self.asked
            .lock()
            .expect("asked")
            .push(format!("{step} {ask:?}"));
    }
}

impl SwitchTarget for FakePool {
    fn name(&self) -> &str {
        "cache"
    }

    async fn status(&self) -> PoolStatus {
        PoolStatus {
            name: "cache".to_owned(),
            epoch: 4,
            layout: LayoutSpec::default(),
            gate: GateStatus::Open,
            pending: None,
            decided_by: None,
            job: None,
            workers: 2,
            ejected: Vec::new(),
            hold: None,
        }
    }

    async fn announce(&self, ask: JobAnnounce) -> Result<(), SwitchRefusal> {
        self.note("announce", &ask);
        Ok(())
    }

    async fn stage(&self, ask: SwitchStage) -> Result<(), SwitchRefusal> {
        self.note("stage", &ask);
        Ok(())
    }

    async fn hold(&self, ask: SwitchHold) -> Result<(), SwitchRefusal> {
        self.note("hold", &ask);
        Ok(())
    }

    async fn arm(&self, ask: SwitchArm) -> Result<(), SwitchRefusal> {
        self.note("arm", &ask);
        let error = "nothing is held; hold first".to_owned();
        Err(SwitchRefusal {
            reason: RefusalReason::NotHeld,
            error,
        })
    }

    async fn commit(&self, ask: SwitchCommit) -> Result<CommitReport, SwitchRefusal> {
        self.note("commit", &ask);
        Ok(CommitReport {
            held_requests: 3,
            held_us_max: 1500,
        })
    }

    async fn abort(&self, ask: SwitchAbort) -> Result<(), SwitchRefusal> {
        self.note("abort", &ask);
        let error = "the disk is full".to_owned();
        Err(SwitchRefusal {
            reason: RefusalReason::StateNotWritten,
            error,
        })
    }
}

struct Served {
    address: SocketAddr,
    pool: FakePool,
    registry: Arc<Registry>,
    readiness: watch::Sender<Readiness>,
    stop: watch::Sender<bool>,
    runtime: tokio::runtime::Runtime,
    server: tokio::task::JoinHandle<()>,
}

impl Served {
    fn start(token: Option<&str>) -> Self {
        Self::start_on("127.0.0.1:0", token)
    }

    fn start_on(http: &str, token: Option<&str>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let settings = AdminSettings {
            http: http.parse().expect("an address"),
            token: token.map(Token::new),
        };
        let admin = runtime.block_on(Admin::bind(settings)).expect("bound");
        let address = admin.address();
        let (pool, registry) = (FakePool::default(), Registry::new());
        let (readiness, readiness_seen) = watch::channel(Readiness::Starting);
        let (stop, stop_seen) = watch::channel(false);
        let state = AdminState::new(vec![pool.clone()], Arc::clone(&registry), readiness_seen);
        let server = runtime.spawn(admin.serve(state, stop_seen));
        Self {
            address,
            pool,
            registry,
            readiness,
            stop,
            runtime,
            server,
        }
    }

    fn send(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).expect("connected");
        stream
            .set_read_timeout(Some(ANSWER_WAIT_MAX))
            .expect("a timeout");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .expect("a status");
        (status, body.to_owned())
    }

    fn get(&self, path: &str, headers: &str) -> (u16, String) {
        let address = self.address;
        self.send(&format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n"
        ))
    }

    fn post(&self, path: &str, body: &str) -> (u16, String) {
        self.post_as(path, "Content-Type: application/json\r\n", body)
    }

    fn post_as(&self, path: &str, headers: &str, body: &str) -> (u16, String) {
        let (address, length) = (self.address, body.len());
        self.send(&format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        ))
    }

    fn asked(&self) -> Vec<String> {
        self.pool.asked.lock().expect("asked").clone()
    }
}

#[test]
fn alive_at_once_and_ready_when_told() {
    let served = Served::start(None);
    assert_eq!(served.get("/livez", ""), (200, "alive\n".to_owned()));
    assert_eq!(served.get("/readyz", ""), (503, "starting\n".to_owned()));
    served.readiness.send_replace(Readiness::Ready);
    assert_eq!(served.get("/readyz", ""), (200, "ready\n".to_owned()));
    served.readiness.send_replace(Readiness::Draining);
    assert_eq!(served.get("/readyz", ""), (503, "draining\n".to_owned()));
}

#[test]
fn metrics_are_rendered_at_each_scrape() {
    let served = Served::start(None);
    let counters = served.registry.pool_counters("cache", 0);
    for requests in 1..3 {
        counters.requests_total.inc();
        let (status, text) = served.get("/metrics", "");
        assert_eq!(status, 200);
        assert!(
            text.contains(&format!(
                "keyferry_requests_total{{pool=\"cache\"}} {requests}\n"
            )),
            "{text}"
        );
    }
}

#[test]
fn pools_are_listed() {
    let served = Served::start(None);
    let shard = served.registry.shard_counters("cache", "s1");
    shard.latency.record(CommandClass::Read, 7, 3);
    let (status, body) = served.get("/api/v1/pools", "");
    assert_eq!(status, 200);
    assert_eq!(
        body,
        "{\"v\":1,\"pools\":[{\"name\":\"cache\",\"epoch\":4,\"layout\":{\"hash\":\"fnv1a_64\",\
         \"distribution\":\"ketama\",\"shard\":[]},\"gate\":\"open\",\"pending\":null,\"decided_by\":null,\"job\":null,\"workers\":2,\
         \"ejected\":[],\"latency\":[{\"shard\":\"s1\",\"replies\":3,\"p50_us\":7,\"p99_us\":7}]}]}\n"
    );
}

#[test]
fn the_steps_of_a_switch_reach_the_pool() {
    let served = Served::start(None);
    let path = |step: &str| format!("/api/v1/pools/cache/switch/{step}");
    let who = "\"job\":\"j1\",\"epoch\":5,\"incarnation\":2";
    let stage = format!(
        "{{{who},\"from_fingerprint\":18446744073709551615,\"to\":{{\"shard\":[{{\"addr\":\"127.0.0.1:7003\"}}]}}}}"
    );
    let done = (200, "{\"v\":1}\n".to_owned());
    assert_eq!(served.post(&path("stage"), &stage), done);
    assert_eq!(
        served.post(&path("hold"), &format!("{{{who},\"lease_ms\":500}}")),
        done
    );
    assert_eq!(
        served.post(&path("commit"), &format!("{{{who}}}")),
        (
            200,
            "{\"v\":1,\"held_requests\":3,\"held_us_max\":1500}\n".to_owned()
        )
    );
    let asked = served.asked();
    assert!(
        asked[0].contains("from_fingerprint: 18446744073709551615"),
        "{asked:?}"
    );
    assert!(asked[0].contains("127.0.0.1:7003"), "{asked:?}");
    assert_eq!(
        asked[1],
        "hold SwitchHold { job: \"j1\", epoch: 5, incarnation: 2, lease_ms: 500 }"
    );
    assert_eq!(
        asked[2],
        "commit SwitchCommit { job: \"j1\", epoch: 5, incarnation: 2, fenced: false, to: None, logins: [] }"
    );
}

#[test]
fn refusals_carry_their_reason() {
    let served = Served::start(None);
    let who = "\"job\":\"j1\",\"epoch\":5,\"incarnation\":2";
    assert_eq!(
        served.post(
            "/api/v1/pools/cache/switch/arm",
            &format!("{{{who},\"lease_ms\":500}}")
        ),
        (
            409,
            "{\"v\":1,\"error\":\"nothing is held; hold first\",\"reason\":\"not_held\"}\n"
                .to_owned()
        )
    );
    assert_eq!(
        served.post("/api/v1/pools/cache/switch/abort", &format!("{{{who}}}")),
        (
            500,
            "{\"v\":1,\"error\":\"the disk is full\",\"reason\":\"state_not_written\"}\n"
                .to_owned()
        )
    );
    assert_eq!(
        served.post("/api/v1/pools/cahce/switch/abort", &format!("{{{who}}}")),
        (
            404,
            "{\"v\":1,\"error\":\"there is no pool `cahce`; there is cache\"}\n".to_owned()
        )
    );
    assert_eq!(
        served.post("/api/v1/pools/cache/switch/jump", "{}"),
        (
            404,
            "{\"v\":1,\"error\":\"the steps of a switch are stage, hold, arm, commit, abort\"}\n"
                .to_owned()
        )
    );
}

#[test]
fn what_is_no_request_of_ours_is_refused_and_reaches_no_pool() {
    let served = Served::start(None);
    let path = "/api/v1/pools/cache/switch/commit";
    let (status, body) = served.post(path, "{\"job\":\"j1\"}");
    assert_eq!(status, 400);
    assert!(body.contains("missing field `epoch`"), "{body}");
    let extra = "{\"job\":\"j1\",\"epoch\":5,\"incarnation\":2,\"lease_ms\":1}";
    assert_eq!(served.post(path, extra).0, 400);
    let good = "{\"job\":\"j1\",\"epoch\":5,\"incarnation\":2}";
    assert_eq!(
        served.post_as(path, "Content-Type: text/plain\r\n", good).0,
        415
    );
    assert_eq!(served.post_as(path, "", good).0, 415);
    assert_eq!(served.get(path, "").0, 405);
    assert_eq!(served.get("/api/v2", "").0, 404);
    let large = " ".repeat(1024 * 1024 + 1);
    let (status, body) = served.post(path, &large);
    assert_eq!(status, 413);
    assert!(body.starts_with("{\"v\":1,\"error\":"), "{body}");
    assert_eq!(served.asked(), Vec::<String>::new());
}

#[test]
fn a_page_rebound_by_dns_is_refused() {
    let served = Served::start(None);
    let answer = |host: &str| {
        served.send(&format!(
            "GET /api/v1/pools HTTP/1.1\r\n{host}Connection: close\r\n\r\n"
        ))
    };
    assert_eq!(answer("Host: localhost:1\r\n").0, 200);
    assert_eq!(answer("Host: evil.example\r\n").0, 421);
    assert_eq!(answer("").0, 421);
}

#[test]
fn all_but_health_asks_for_the_token() {
    let served = Served::start_on("0.0.0.0:0", Some(TOKEN));
    assert_eq!(served.get("/livez", "").0, 200);
    assert_eq!(served.get("/readyz", "").0, 503);
    for path in ["/metrics", "/api/v1/pools", "/api/v1/nothing"] {
        assert_eq!(served.get(path, "").0, 401, "{path}");
        assert_eq!(
            served
                .get(path, "Authorization: Bearer 0123456789abcdeX\r\n")
                .0,
            401,
            "{path}"
        );
        assert_eq!(
            served
                .get(path, "Authorization: Basic 0123456789abcdef\r\n")
                .0,
            401,
            "{path}"
        );
    }
    let (status, body) = served.get(
        "/api/v1/pools",
        "Authorization: Bearer 0123456789abcdef\r\n",
    );
    assert_eq!(status, 200);
    assert!(!body.contains(TOKEN));
    let (_, refusal) = served.get("/metrics", "");
    assert!(!refusal.contains(TOKEN), "{refusal}");
}

#[test]
fn a_taken_port_is_an_error_that_names_it() {
    let served = Served::start(None);
    let settings = AdminSettings {
        http: served.address,
        token: None,
    };
    let Err(error) = served.runtime.block_on(Admin::bind(settings)) else {
        panic!("bound twice")
    };
    let expected = format!(
        "cannot listen on {} for `admin.http`: Address already in use",
        served.address
    );
    assert!(error.to_string().starts_with(&expected), "{error}");
}

#[test]
fn serving_ends_when_told() {
    let served = Served::start(None);
    served.stop.send_replace(true);
    let server = served.server;
    let ended = served
        .runtime
        .block_on(async { tokio::time::timeout(ANSWER_WAIT_MAX, server).await });
    ended.expect("ended in time").expect("no panic");
}
