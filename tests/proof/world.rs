//! The world of one scenario: real servers, two proxies of two workers, a load that
//! never stops, and a job driven by its command line.

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::support::client::{Client, Value};
use crate::support::forwarder::Forwarder;
use crate::support::stage::JOB_LIMIT;
use crate::support::{Job, RedisServer, Shape, Stage, wait_until};

use super::admin_link::AdminLink;
use super::expiry::check_expiry;
use super::history::{Call, Finding, Key, Kind, Op, Outcome, Seen, Token, find};
use super::linear::{CounterModel, RegisterModel, Verdict, by_key, check, settle_unknown_writes};
use super::tokens::{Contents, check_counters, check_tokens};
use super::workload::{LoadOptions, Workload, in_places, outcome};

/// Where a mistake is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// In every proxy.
    Proxies,
    /// In the job.
    Job,
    /// In all of them.
    Everywhere,
}

/// A mistake of `src/planted.rs`, and who makes it.
pub type Planted = Option<(&'static str, Where)>;

/// See the head of this file.
pub struct World {
    /// Servers and proxies.
    pub stage: Stage,
    /// From the job to each proxy.
    pub links: Vec<AdminLink>,
    /// In front of each server, if they are to break.
    pub server_links: Vec<Forwarder>,
    /// The clients; none once they were stopped.
    pub workload: Option<Workload>,
    /// What was found so far.
    pub findings: Vec<Finding>,
    planted: Planted,
    options: LoadOptions,
}

/// How long a job of few keys may take to a state.
const STATE_LIMIT: Duration = Duration::from_secs(60);

/// Counters may be searched for an order if so many are of unknown outcome.
const UNKNOWN_SEARCHED_MAX: usize = 6;

impl World {
    /// Servers and proxies; nobody writes yet.
    pub fn new(old: &Shape<'_>, new: &Shape<'_>, planted: Planted, pool_extra: &str) -> World {
        let count = 1 + old.2.iter().chain(new.2).max().expect("at least one shard");
        let servers = RedisServer::start_many(count, &[]);
        let stage = Stage::with_servers(servers, old, new, 2, pool_extra);
        World::on(stage, Vec::new(), planted)
    }

    /// The same with a link in front of each server, and servers that find what they
    /// had when they are killed and started again.
    pub fn that_can_break(old: &Shape<'_>, new: &Shape<'_>) -> World {
        let count = 1 + old.2.iter().chain(new.2).max().expect("at least one shard");
        // The kernel has what was written, and outlives the process.
        let durable = ["--appendonly", "yes", "--appendfsync", "no"];
        let servers = RedisServer::start_many(count, &durable);
        let links: Vec<_> = servers
            .iter()
            .map(|server| Forwarder::start(&server.address()))
            .collect();
        let addresses: Vec<_> = links.iter().map(Forwarder::address).collect();
        let stage = Stage::behind(servers, &addresses, old, new, 2, "");
        World::on(stage, links, None)
    }

    fn on(mut stage: Stage, server_links: Vec<Forwarder>, planted: Planted) -> World {
        if let Some((mistake, Where::Proxies | Where::Everywhere)) = planted {
            for proxy in &mut stage.proxies {
                proxy.planted = Some(mistake);
                proxy.launch();
            }
        }
        let links = stage.proxies.iter();
        let links = links
            .map(|proxy| AdminLink::start(&proxy.admin()))
            .collect();
        World {
            stage,
            links,
            server_links,
            workload: None,
            findings: Vec::new(),
            planted,
            options: LoadOptions::default(),
        }
    }

    /// Starts the clients.
    pub fn start_load(&mut self, options: LoadOptions, rng: &mut Rng) {
        let mut addresses: Vec<String> =
            self.stage.proxies.iter().map(|one| one.address()).collect();
        addresses.truncate(options.proxies);
        self.options = options;
        self.workload = Some(Workload::start(&addresses, &self.options, rng));
    }

    /// Lets the clients get so many more replies.
    pub fn let_work(&self, more: u64) {
        let workload = self.workload.as_ref().expect("the clients are at work");
        let goal = workload.done() + more;
        wait_until("the clients go on", Duration::from_secs(120), || {
            workload.done() >= goal
        });
    }

    /// `reshard start --yes` over the links that know the steps.
    pub fn start_job(&self, more: &[&str]) -> Job {
        let mut words = Vec::new();
        let mut given = self.stage.job_args().into_iter();
        while let Some(word) = given.next() {
            match word.as_str() {
                "--proxy" => drop(given.next()),
                _ => words.push(word),
            }
        }
        for link in &self.links {
            words.extend(["--proxy".to_owned(), link.url()]);
        }
        words.push("--yes".to_owned());
        words.extend(more.iter().map(|word| (*word).to_owned()));
        let mistake = match self.planted {
            Some((mistake, Where::Job | Where::Everywhere)) => Some(mistake),
            _ => None,
        };
        let dir = self.stage.path("");
        Job::start_planted(&self.stage.state_dir(), &dir, &words, mistake)
    }

    /// Waits until the job is one of `wanted`; one that ends before, or does not get
    /// there, is a finding.
    pub fn wait_state(&mut self, job: &mut Job, wanted: &[&str]) -> Option<String> {
        let mut reached = None;
        let start = Instant::now();
        wait_until(
            &format!("the job is one of {wanted:?}, or ends"),
            JOB_LIMIT,
            || {
                reached = job.state().filter(|state| wanted.contains(&state.as_str()));
                let is_over = job.process().try_wait().is_some();
                reached.is_some() || is_over || start.elapsed() > STATE_LIMIT
            },
        );
        reached = reached.or_else(|| job.state().filter(|state| wanted.contains(&state.as_str())));
        if reached.is_none() {
            let text = job.process().stderr();
            let text = format!("it does not become one of {wanted:?}: {}", tail(&text));
            find(&mut self.findings, "job", text);
        }
        reached
    }

    /// The epoch and the gate of every proxy.
    pub fn epochs(&self) -> Vec<(u64, String)> {
        let proxies = self.stage.proxies.iter();
        proxies.map(|proxy| proxy.epoch_and_gate()).collect()
    }

    /// `reshard switch`, in its own words; a refusal is a finding.
    pub fn switch(&mut self, job: &Job) -> bool {
        let output = job.verb("switch", &["--yes"]);
        let done = output.status.success();
        if !done {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            find(
                &mut self.findings,
                "job",
                format!("no switch: {}", tail(&text)),
            );
        }
        done
    }

    /// Ends the clients and checks everything they saw. `faultless`: nobody may have
    /// seen an error or a closed connection.
    pub fn check(&mut self, faultless: bool) {
        let workload = self.workload.take().expect("the clients are at work");
        let clock = workload.clock();
        let mut ops = workload.finish();
        let refused = ops
            .iter()
            .filter(|op| matches!(op.outcome, Outcome::Refused(_)));
        let unknown = ops.iter().filter(|op| op.is_unknown());
        println!(
            "{} operations, {} refused, {} of unknown outcome",
            ops.len(),
            refused.count(),
            unknown.count()
        );
        if faultless {
            // A command whose keys are on different servers now is refused for good.
            let is_shift = |op: &&Op| matches!(op.call, Call::Shift { .. });
            let failed = ops.iter().filter(|op| op.seen().is_none() && !is_shift(op));
            for op in failed.take(3) {
                find(
                    &mut self.findings,
                    "errors",
                    format!("a client saw an error: {op}"),
                );
            }
        }
        for op in &ops {
            if let Some(Seen::Nonsense(text)) = op.seen() {
                find(&mut self.findings, "answers", format!("{}: {text}", op.key));
            }
        }
        let mut client = self.stage.proxies[0].client();
        let touched: Vec<Key> = by_key(&ops).into_keys().collect();
        let mut contents = Contents::new();
        for key in &touched {
            match key.kind {
                Kind::Counter | Kind::Register | Kind::Volatile => {
                    let invoke_us = clock.now_us();
                    let reply = client.call(&["GET", &key.to_string()]);
                    ops.push(Op {
                        client: u32::MAX,
                        key: *key,
                        call: Call::Read,
                        invoke_us,
                        return_us: clock.now_us(),
                        outcome: outcome(Call::Read, &reply),
                    });
                }
                _ => drop(contents.insert(*key, read_tokens(&mut client, key))),
            }
        }
        in_places(&mut ops);
        self.check_history(&ops, &contents);
    }

    fn check_history(&mut self, ops: &[Op], contents: &Contents) {
        let keys = by_key(ops);
        let findings = &mut self.findings;
        findings.extend(check_tokens(&keys, contents));
        findings.extend(check_counters(&keys));
        findings.extend(check_expiry(&keys));
        let (mut searched, mut left_out) = (0, 0);
        for (key, ops) in &keys {
            let mut ops = ops.clone();
            let verdict = match key.kind {
                Kind::Register => {
                    settle_unknown_writes(&mut ops);
                    check::<RegisterModel>(&ops)
                }
                Kind::Counter => {
                    let unknown = ops.iter().filter(|op| op.is_unknown()).count();
                    match unknown <= UNKNOWN_SEARCHED_MAX {
                        true => check::<CounterModel>(&ops),
                        false => Verdict::TooHard,
                    }
                }
                _ => continue,
            };
            match verdict {
                Verdict::Right => searched += 1,
                Verdict::TooHard => left_out += 1,
                Verdict::Wrong(why) => find(findings, "linearizability", format!("{key}: {why}")),
            }
        }
        println!("{searched} keys have an order, {left_out} had too much open to search for one");
    }

    /// Who found what proves something: a client may have to try again in a run that is
    /// right, if the machine is busy.
    pub fn proven_by(&self) -> Vec<&'static str> {
        let mut names = self.caught_by();
        names.retain(|name| *name != "errors");
        names
    }

    /// Prints what was found, and gives the names of who found it.
    pub fn caught_by(&self) -> Vec<&'static str> {
        for finding in self.findings.iter().take(12) {
            println!("{finding}");
        }
        let mut names: Vec<&str> = self.findings.iter().map(|one| one.checker).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Panics if anything was found.
    pub fn assert_clean(&self, seed: u64) {
        let names = self.caught_by();
        assert!(
            names.is_empty(),
            "{names:?} found something; KEYFERRY_TEST_SEED={seed}"
        );
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().rev().take(4).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

/// What a key of tokens holds, in its order.
fn read_tokens(client: &mut Client, key: &Key) -> Vec<Result<Token, String>> {
    let name = key.to_string();
    let reply = match key.kind {
        Kind::Text => client.call(&["GET", &name]),
        Kind::Set => client.call(&["SMEMBERS", &name]),
        Kind::Stream => client.call(&["XRANGE", &name, "-", "+"]),
        _ => client.call(&["LRANGE", &name, "0", "-1"]),
    };
    let token = |bytes: &[u8]| Token::parse(bytes).ok_or_else(|| bytes.escape_ascii().to_string());
    match (key.kind, &reply) {
        (_, Value::Null) => Vec::new(),
        (Kind::Text, Value::Bulk(bytes)) => bytes
            .chunks(super::history::TOKEN_CHARS)
            .map(token)
            .collect(),
        (Kind::Stream, Value::Array(entries)) => entries
            .iter()
            .map(|entry| token(entry.items()[1].items()[1].bytes()))
            .collect(),
        (_, Value::Array(items)) => items.iter().map(|item| token(item.bytes())).collect(),
        _ => vec![Err(format!("{reply:?}"))],
    }
}
