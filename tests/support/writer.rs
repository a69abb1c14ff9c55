//! A writer that never stops: it speaks only what every server since 6.0 knows,
//! checks each reply, and tells at the end what its keys must hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::client::{Client, Value};
use super::wait::wait_until;

/// Keys of each kind.
const KEYS: u64 = 20;

/// Rounds a second, at most: the job is to be tested, not the machine.
const ROUND_PAUSE: Duration = Duration::from_millis(1);

/// See the head of this file.
pub struct Writer {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<Written>,
}

/// What was written by `rounds` rounds.
pub struct Written {
    /// Rounds that were answered as they must be.
    pub rounds: u64,
    /// Replies that were not, the first few.
    pub faults: Vec<String>,
}

impl Writer {
    /// Starts to write at `address`, in database 0.
    pub fn start(address: &str) -> Writer {
        let (stop, rounds) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut client = Client::connect(address);
        let (stopped, counted) = (stop.clone(), rounds.clone());
        let thread = std::thread::spawn(move || {
            let mut written = Written {
                rounds: 0,
                faults: Vec::new(),
            };
            while !stopped.load(Ordering::Relaxed) && written.faults.is_empty() {
                round(&mut client, written.rounds, &mut written.faults);
                written.rounds += 1;
                counted.store(written.rounds, Ordering::Relaxed);
                std::thread::sleep(ROUND_PAUSE);
            }
            written
        });
        Writer {
            stop,
            rounds,
            thread,
        }
    }

    /// Waits for so many more rounds, or the first fault.
    pub fn let_write(&self, more: u64) {
        let until = self.rounds.load(Ordering::Relaxed) + more;
        wait_until("the writer goes on", Duration::from_secs(60), || {
            self.rounds.load(Ordering::Relaxed) >= until || self.thread.is_finished()
        });
    }

    /// Ends it.
    pub fn finish(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a writer does not panic")
    }
}

/// Every round goes to one key of each kind, so `n` tells all replies.
fn round(client: &mut Client, n: u64, faults: &mut Vec<String>) {
    let (key, turn) = (n % KEYS, n / KEYS);
    let turns = i64::try_from(turn + 1).expect("small");
    let name = |kind: &str| format!("writer:{kind}:{key}");
    let (text, id) = (format!("<{turn}>"), format!("{}-1", turn + 1));
    let appended: usize = (0..=turn).map(|turn| format!("<{turn}>").len()).sum();
    let appended = i64::try_from(appended).expect("small");
    let asked: [(Vec<String>, Value); 8] = [
        (vec!["INCR".into(), name("count")], Value::Int(turns)),
        (
            vec!["APPEND".into(), name("text"), text.clone()],
            Value::Int(appended),
        ),
        (
            vec!["RPUSH".into(), name("list"), text.clone()],
            Value::Int(turns),
        ),
        (
            vec!["HINCRBY".into(), name("hash"), "n".into(), "1".into()],
            Value::Int(turns),
        ),
        (
            vec!["SADD".into(), name("set"), text.clone()],
            Value::Int(1),
        ),
        (
            vec!["ZINCRBY".into(), name("zset"), "1.5".into(), "m".into()],
            Value::bulk(score(turns)),
        ),
        (
            vec!["XADD".into(), name("stream"), id.clone(), "f".into(), text],
            Value::bulk(id),
        ),
        (
            vec![
                "SET".into(),
                name("volatile"),
                turn.to_string(),
                "PX".into(),
                "3600000".into(),
            ],
            Value::ok(),
        ),
    ];
    let commands: Vec<_> = asked.iter().map(|(command, _)| command.clone()).collect();
    for ((command, wanted), reply) in asked.iter().zip(client.pipeline(&commands)) {
        if reply != *wanted {
            faults.push(format!("{command:?}: {reply:?} instead of {wanted:?}"));
        }
    }
}

fn score(turns: i64) -> String {
    let doubled = turns * 3;
    let half = if doubled % 2 == 0 { "" } else { ".5" };
    format!("{}{half}", doubled / 2)
}

/// What differs at `client` from what `rounds` rounds wrote.
pub fn faults_at(client: &mut Client, rounds: u64) -> Vec<String> {
    let mut faults = Vec::new();
    for key in 0..KEYS.min(rounds) {
        let turns = (rounds - key).div_ceil(KEYS);
        let texts: Vec<String> = (0..turns).map(|turn| format!("<{turn}>")).collect();
        let bulks = |texts: &[String]| Value::Array(texts.iter().map(Value::bulk).collect());
        let number = i64::try_from(turns).expect("small");
        let checks: BTreeMap<&str, (Vec<&str>, Value)> = BTreeMap::from([
            ("count", (vec!["GET"], Value::bulk(turns.to_string()))),
            ("text", (vec!["GET"], Value::bulk(texts.concat()))),
            ("list", (vec!["LRANGE", "0", "-1"], bulks(&texts))),
            ("hash", (vec!["HGET", "n"], Value::bulk(turns.to_string()))),
            ("set", (vec!["SCARD"], Value::Int(number))),
            ("zset", (vec!["ZSCORE", "m"], Value::bulk(score(number)))),
            ("stream", (vec!["XLEN"], Value::Int(number))),
            (
                "volatile",
                (vec!["GET"], Value::bulk((turns - 1).to_string())),
            ),
        ]);
        for (kind, (words, wanted)) in checks {
            let name = format!("writer:{kind}:{key}");
            let mut command = vec![words[0], &name];
            command.extend(&words[1..]);
            let found = client.call(&command);
            if found != wanted {
                faults.push(format!("{command:?}: {found:?} instead of {wanted:?}"));
            }
        }
        let name = format!("writer:volatile:{key}");
        let ttl = client.call(&["PTTL", &name]).int();
        // It was set a moment ago; what it lost or won on the way shows here.
        if !(3_000_000..=3_600_000).contains(&ttl) {
            faults.push(format!("{name} has {ttl} ms left"));
        }
    }
    faults
}
