//! Every ordered pair of servers as live source and target: all types that both
//! know, in all encodings and several databases, moved by one `keyferry reshard`
//! while a writer goes on. Afterwards both tell the same of every key, and the
//! writer was never told anything wrong.
//!
//! The servers come from `scripts/servers`. A pair whose server is missing is
//! skipped by name; see `tests/support/servers.rs`.
//!
//! ```text
//!   writer ──> keyferry run ──> source          source keeps what it had at the
//!                    `- switch ──> target       switch: the two are compared
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

#[path = "matrix/fill.rs"]
mod fill;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use fill::DATABASES;
use support::seen::{Keys, Known, differences, read_all};
use support::servers::Skipped;
use support::writer::faults_at;
use support::{
    Client, Job, RedisServer, ServerKind, Shape, Stage, Value, Writer, seeded, wait_until,
};

/// How long one pair's job may take on a busy machine.
const JOB_LIMIT: Duration = Duration::from_secs(120);

/// Rounds of the writer before, between and after the steps.
const ROUNDS: u64 = 50;

/// How many differences of a pair are shown.
const SHOWN: usize = 5;

/// In 2100.
const FAR_MS: &str = "4102444800000";

/// Where the job lists all keys that it could not carry whole.
const SHORTFALLS: &str = "shortfalls.jsonl";

/// A source and a target behind one proxy that knows the source alone.
struct Pair {
    stage: Stage,
    source: ServerKind,
    target: ServerKind,
}

impl Pair {
    fn start(source: ServerKind, target: ServerKind) -> Pair {
        let servers = [source, target].map(|kind| RedisServer::start_kind(kind, &[]));
        let layout = |server: usize| [server];
        let stage = Stage::with_servers(
            servers.into(),
            &Shape("fnv1a_64", "ketama", &layout(0)),
            &Shape("fnv1a_64", "ketama", &layout(1)),
            1,
            "",
        );
        Pair {
            stage,
            source,
            target,
        }
    }

    fn known(&self) -> Known {
        Known {
            field_ttls: self.source.has_field_ttls() && self.target.has_field_ttls(),
            stream_counts: self.have_functions(),
        }
    }

    /// Functions came with 7.0, as much else.
    fn have_functions(&self) -> bool {
        self.source.is_seven_or_later() && self.target.is_seven_or_later()
    }

    fn client(&self, server: usize, db: u32) -> Client {
        let mut client = self.stage.servers[server].client();
        client.call(&["SELECT", &db.to_string()]);
        client
    }

    /// Keys of source and target, without the writer's.
    fn both(&self, db: u32) -> [Keys; 2] {
        [0, 1].map(|server| {
            let mut keys = read_all(&mut self.client(server, db), self.known());
            keys.retain(|key, _| !key.starts_with(b"writer:"));
            keys
        })
    }

    /// The whole way for what both know; what is wrong afterwards.
    fn move_all(&self) -> Vec<String> {
        let mut rng = seeded(&format!("{} to {}", self.source, self.target));
        let known = self.known();
        let source = &self.stage.servers[0];
        fill::fill(source, self.source, known.field_ttls, &mut rng);
        if self.have_functions() {
            fill::load_function(source, "moved");
        }
        let writer = Writer::start(&self.stage.proxies[0].address(), known.field_ttls);
        writer.let_write(ROUNDS);
        let mut job = self.stage.start_job(&["--switch", "auto"]);
        let (code, stdout, stderr) = job.finish(JOB_LIMIT);
        if code != 0 {
            writer.finish();
            let error = stderr.find("error:").map_or(&*stderr, |at| &stderr[at..]);
            return vec![format!(
                "the job ended with {code}: {stdout}{}",
                error.trim()
            )];
        }
        writer.let_write(ROUNDS);
        let written = writer.finish();
        let mut faults = faults_at(&mut self.client(1, 0), &written);
        faults.extend(written.faults);
        for db in DATABASES {
            let [wanted, found] = self.both(db);
            assert!(wanted.len() > 300, "the source keeps its keys");
            let differ = differences(&wanted, &found, SHOWN);
            faults.extend(differ.into_iter().map(|what| format!("db {db}: {what}")));
        }
        if self.have_functions() {
            let [wanted, found] = [0, 1].map(|server| functions(&self.stage.servers[server]));
            assert!(wanted.contains("moved"), "the source has its function");
            if wanted != found {
                faults.push(format!("functions: {found} instead of {wanted}"));
            }
        }
        faults
    }

    /// What the target cannot hold is named, whether the job goes on without it
    /// or ends; what is wrong with that.
    fn move_the_unheld(&self) -> Vec<String> {
        let mut rng = seeded(&format!("{} to {}, unheld", self.source, self.target));
        let source = &self.stage.servers[0];
        let mut names = Vec::new();
        if self.source.has_field_ttls() && !self.target.has_field_ttls() {
            names = fill::fill_field_ttls(source, self.source, &mut rng);
        }
        if self.source.is_seven_or_later() && !self.target.is_seven_or_later() {
            fill::load_function(source, "unheld");
            names.push("unheld".to_owned());
        }
        assert!(!names.is_empty(), "there is something that cannot be held");
        source.client().call(&["SET", "string:held", "value"]);
        let epoch = self.stage.epoch();
        let mut job = self.stage.start_job(&["--switch", "auto"]);
        let (code, _, _) = job.finish(JOB_LIMIT);
        let told = self.all_told(&mut job);
        let named = |name: &&String| told.contains(name.as_str());
        if code != 0 {
            // It may refuse at the first; then nothing has changed.
            self.stage.assert_epoch(epoch);
            let is_named = names.iter().any(|name| named(&name));
            let fault = format!("it ended with {code} and named none of {names:?}: {told}");
            return if is_named { Vec::new() } else { vec![fault] };
        }
        let silent = names.iter().filter(|name| !named(name));
        let mut faults: Vec<_> = silent
            .map(|name| format!("{name} is not named: {told}"))
            .collect();
        // Without them the rest is there, and of them nothing false.
        let [wanted, found] = self.both(0);
        for (key, found) in &found {
            let difference = wanted[key].difference(found);
            faults.extend(difference.map(|what| format!("{} {what}", key.escape_ascii())));
        }
        if !found.contains_key(b"string:held".as_slice()) {
            faults.push("string:held is missing".to_owned());
        }
        faults
    }
}

impl Pair {
    /// The same for what comes while the job follows: it is named, or the job
    /// ends and names it.
    fn follow_the_unheld(&self) -> Vec<String> {
        let source = &self.stage.servers[0];
        source.client().call(&["SET", "string:held", "value"]);
        let mut job = self.stage.start_job(&["--switch", "manual"]);
        job.wait_state(&["following", "verified"], JOB_LIMIT);
        let mut client = source.client();
        let name = if self.source.has_field_ttls() {
            client.call(&["HSET", "hash:live", "f", "v"]);
            let words = ["HPEXPIREAT", "hash:live", FAR_MS, "FIELDS", "1", "f"];
            assert_eq!(client.call(&words), Value::Array(vec![Value::Int(1)]));
            "hash:live"
        } else {
            fill::load_function(source, "late");
            "late"
        };
        // It follows on, and in order: what came later is there.
        client.call(&["APPEND", "string:held", ":later"]);
        let mut target = self.client(1, 0);
        wait_until("it follows, or has ended", JOB_LIMIT, || {
            let ended = job.process().try_wait().is_some();
            ended || target.call(&["GET", "string:held"]) == Value::bulk("value:later")
        });
        wait_until(&format!("{name} is named"), JOB_LIMIT, || {
            let ended = job.process().try_wait().is_some();
            ended || self.all_told(&mut job).contains(name)
        });
        let told = self.all_told(&mut job);
        let silent = !told.contains(name);
        let fault = || format!("{name} is not named: {told}");
        silent.then(fault).into_iter().collect()
    }

    /// Everything that the job has said and written for people.
    fn all_told(&self, job: &mut Job) -> String {
        let file = std::fs::read_to_string(self.stage.state_dir().join(SHORTFALLS));
        let reports = [job.verb("report", &[]), job.verb("report", &["--json"])];
        let reports = reports.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let process = job.process();
        let said = [process.stdout(), process.stderr(), file.unwrap_or_default()];
        said.concat() + &reports.concat()
    }
}

fn functions(server: &RedisServer) -> String {
    let listed = server.client().call(&["FUNCTION", "LIST", "WITHCODE"]);
    format!("{listed:?}")
}

/// Runs `check` for each target; panics at the end with all that was wrong.
fn to_each(source: ServerKind, targets: &[ServerKind], check: impl Fn(&Pair) -> Vec<String>) {
    let mut skipped = Skipped::default();
    let mut failed = Vec::new();
    for target in targets {
        let name = format!("{source} to {target}");
        if !skipped.unless_here(&name, &[source, *target]) {
            continue;
        }
        let began = Instant::now();
        let faults = catch_unwind(AssertUnwindSafe(|| check(&Pair::start(source, *target))))
            .unwrap_or_else(|_| vec!["a panic, told above".to_owned()]);
        let verdict = if faults.is_empty() { "equal" } else { "FAILED" };
        println!("{name}: {verdict}, {:.1} s", began.elapsed().as_secs_f64());
        if !faults.is_empty() {
            failed.push(format!("{name}:\n  {}", faults.join("\n  ")));
        }
    }
    skipped.finish();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn from(source: ServerKind) {
    to_each(source, &ServerKind::ALL, Pair::move_all);
}

#[test]
fn from_redis_6_0_to_all() {
    from(ServerKind::Redis60);
}

#[test]
fn from_redis_6_2_to_all() {
    from(ServerKind::Redis62);
}

#[test]
fn from_redis_7_0_to_all() {
    from(ServerKind::Redis70);
}

#[test]
fn from_redis_8_0_to_all() {
    from(ServerKind::Redis80);
}

#[test]
fn from_valkey_8_1_to_all() {
    from(ServerKind::Valkey81);
}

#[test]
fn from_valkey_9_1_to_all() {
    from(ServerKind::Valkey91);
}

#[test]
fn field_ttls_and_functions_that_a_target_cannot_hold_are_named() {
    use ServerKind::{Redis60, Redis62, Redis70, Redis80, Valkey81, Valkey91};
    to_each(
        Redis80,
        &[Redis60, Redis62, Redis70, Valkey81],
        Pair::move_the_unheld,
    );
    to_each(
        Valkey91,
        &[Redis60, Redis62, Redis70, Valkey81],
        Pair::move_the_unheld,
    );
    to_each(Redis70, &[Redis60, Redis62], Pair::move_the_unheld);
    to_each(Valkey81, &[Redis60, Redis62], Pair::move_the_unheld);
}

#[test]
fn what_comes_later_and_a_target_cannot_hold_is_named() {
    use ServerKind::{Redis60, Redis70, Redis80, Valkey81, Valkey91};
    to_each(Redis80, &[Redis60, Valkey81], Pair::follow_the_unheld);
    to_each(Valkey91, &[Redis70], Pair::follow_the_unheld);
    to_each(Redis70, &[Redis60], Pair::follow_the_unheld);
}
