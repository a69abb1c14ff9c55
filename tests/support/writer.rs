//! A writer that never stops: it speaks only what every server since 6.0 knows,
//! checks each reply, and tells at the end what its keys must hold.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::client::{Client, Value, encode};
use super::wait::wait_until;

/// Keys of each kind.
const KEYS: u64 = 20;

/// Between two rounds: the job is to be tested, not the machine.
const ROUND_PAUSE: Duration = Duration::from_millis(1);

/// What volatile keys are given by each round.
const TTL_MS: i64 = 3_600_000;

/// What is left of that at the end is at most so much less.
const TTL_LOST_MS_MAX: i64 = 600_000;

/// When the first field of a hash ends: in 2100.
const FIELDS_END_AT_MS: u64 = 4_102_444_800_000;

const READ_GROUP: &str = "XREADGROUP GROUP g c COUNT 1 STREAMS KEY >";

/// See the head of this file.
pub struct Writer {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    thread: JoinHandle<Written>,
}

/// What was written.
#[derive(Debug)]
pub struct Written {
    /// Rounds that were answered.
    pub rounds: u64,
    /// Replies that were not as they must be, and a link that broke.
    pub faults: Vec<String>,
    field_ttls: bool,
}

impl Writer {
    /// Starts to write at `address`, in database 0; hash fields with a time to
    /// live only if `field_ttls`.
    pub fn start(address: &str, field_ttls: bool) -> Writer {
        let (stop, rounds) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut client = Client::connect(address);
        let (stopped, counted) = (stop.clone(), rounds.clone());
        let thread = std::thread::spawn(move || {
            let mut written = Written {
                rounds: 0,
                faults: Vec::new(),
                field_ttls,
            };
            while !stopped.load(Ordering::Relaxed) && written.faults.is_empty() {
                match round(&mut client, field_ttls, written.rounds) {
                    Ok(faults) => written.faults = faults,
                    Err(error) => written.faults.push(format!("the link: {error}")),
                }
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
fn round(client: &mut Client, field_ttls: bool, n: u64) -> io::Result<Vec<String>> {
    let (key, turn) = (n % KEYS, n / KEYS);
    let mut round = Round {
        key,
        turn,
        asked: Vec::new(),
    };
    round.values();
    round.stream();
    if field_ttls {
        round.field_ttl();
    }
    let mut bytes = Vec::new();
    for (command, _) in &round.asked {
        encode(&mut bytes, command);
    }
    client.try_send_raw(&bytes)?;
    let mut faults = Vec::new();
    for (command, wanted) in &round.asked {
        let reply = client.try_read()?;
        if reply != *wanted {
            faults.push(format!("{command:?}: {reply:?} instead of {wanted:?}"));
        }
    }
    Ok(faults)
}

/// One round's requests with their replies.
struct Round {
    key: u64,
    /// How often this key was written before.
    turn: u64,
    asked: Vec<(Vec<String>, Value)>,
}

impl Round {
    /// `line` with `KEY` for the key's name of that kind.
    fn ask(&mut self, kind: &str, line: &str, wanted: Value) {
        let name = format!("writer:{kind}:{}", self.key);
        let words = line.split(' ').map(|word| match word {
            "KEY" => name.clone(),
            other => other.to_owned(),
        });
        self.asked.push((words.collect(), wanted));
    }

    fn values(&mut self) {
        let turn = self.turn;
        let turns = i64::try_from(turn + 1).expect("small");
        let length: usize = (0..=turn).map(|turn| text(turn).len()).sum();
        let length = i64::try_from(length).expect("small");
        let (text, float) = (text(turn), Value::bulk(score(turns)));
        self.ask("count", "INCR KEY", Value::Int(turns));
        self.ask("text", &format!("APPEND KEY {text}"), Value::Int(length));
        self.ask("list", &format!("RPUSH KEY {text}"), Value::Int(turns));
        self.ask("hash", "HINCRBY KEY n 1", Value::Int(turns));
        self.ask("set", &format!("SADD KEY {text}"), Value::Int(1));
        self.ask("zset", "ZINCRBY KEY 1.5 m", float.clone());
        self.ask("float", "INCRBYFLOAT KEY 1.5", float);
        let set = format!("SET KEY {turn} PX {TTL_MS}");
        self.ask("volatile", &set, Value::ok());
        // What the script does goes to replicas, in a transaction of its own.
        self.asked.push((
            vec![
                "EVAL".to_owned(),
                "redis.call('RPUSH', KEYS[1], ARGV[1]); return redis.call('PEXPIRE', KEYS[1], ARGV[2])"
                    .to_owned(),
                "1".to_owned(),
                format!("writer:script:{}", self.key),
                text,
                TTL_MS.to_string(),
            ],
            Value::Int(1),
        ));
    }

    /// An entry that a consumer gets at once, and acknowledges every other time.
    fn stream(&mut self) {
        if self.turn == 0 {
            self.ask("stream", "XGROUP CREATE KEY g 0 MKSTREAM", Value::ok());
        }
        let (text, id) = (text(self.turn), format!("{}-1", self.turn + 1));
        let add = format!("XADD KEY {id} f {text}");
        self.ask("stream", &add, Value::bulk(&id));
        let name = format!("writer:stream:{}", self.key);
        let entry = [
            Value::bulk(&id),
            Value::Array(vec![Value::bulk("f"), Value::bulk(text)]),
        ];
        let entries = Value::Array(vec![Value::Array(entry.into())]);
        let of_stream = Value::Array(vec![Value::bulk(name), entries]);
        self.ask("stream", READ_GROUP, Value::Array(vec![of_stream]));
        if self.turn % 2 == 1 {
            self.ask("stream", &format!("XACK KEY g {id}"), Value::Int(1));
        }
    }

    fn field_ttl(&mut self) {
        let turn = self.turn;
        self.ask("fields", &format!("HSET KEY f{turn} v"), Value::Int(1));
        let expire = format!(
            "HPEXPIREAT KEY {} FIELDS 1 f{turn}",
            FIELDS_END_AT_MS + turn
        );
        self.ask("fields", &expire, Value::Array(vec![Value::Int(1)]));
    }
}

fn text(turn: u64) -> String {
    format!("<{turn}>")
}

fn score(turns: i64) -> String {
    let doubled = turns * 3;
    let half = if doubled % 2 == 0 { "" } else { ".5" };
    format!("{}{half}", doubled / 2)
}

/// What differs at `client` from what `written` tells.
pub fn faults_at(client: &mut Client, written: &Written) -> Vec<String> {
    let mut faults = Vec::new();
    for key in 0..KEYS.min(written.rounds) {
        let turns = (written.rounds - key).div_ceil(KEYS);
        for (kind, line, wanted) in wanted_after(turns, written.field_ttls) {
            let name = format!("writer:{kind}:{key}");
            let words: Vec<_> = line
                .split(' ')
                .map(|word| if word == "KEY" { &*name } else { word })
                .collect();
            let mut found = client.call(&words);
            if words[0] == "XPENDING" {
                found = Value::Int(i64::try_from(found.items().len()).expect("few"));
            }
            if found != wanted {
                faults.push(format!("{words:?}: {found:?} instead of {wanted:?}"));
            }
        }
        for kind in ["volatile", "script"] {
            let name = format!("writer:{kind}:{key}");
            let ttl = client.call(&["PTTL", &name]).int();
            // It was set a moment ago; what it lost or won on the way shows here.
            if !(TTL_MS - TTL_LOST_MS_MAX..=TTL_MS).contains(&ttl) {
                faults.push(format!("{name} has {ttl} ms left"));
            }
        }
    }
    faults
}

/// Reads and their replies for a key that was written so often.
fn wanted_after(turns: u64, field_ttls: bool) -> Vec<(&'static str, String, Value)> {
    let number = i64::try_from(turns).expect("small");
    let texts: Vec<String> = (0..turns).map(text).collect();
    let list = Value::Array(texts.iter().map(Value::bulk).collect());
    let pending = Value::Int(number - number / 2);
    let last = turns - 1;
    let mut wanted = vec![
        (
            "count",
            "GET KEY".to_owned(),
            Value::bulk(turns.to_string()),
        ),
        ("text", "GET KEY".to_owned(), Value::bulk(texts.concat())),
        ("list", "LRANGE KEY 0 -1".to_owned(), list.clone()),
        ("script", "LRANGE KEY 0 -1".to_owned(), list),
        (
            "hash",
            "HGET KEY n".to_owned(),
            Value::bulk(turns.to_string()),
        ),
        ("set", "SCARD KEY".to_owned(), Value::Int(number)),
        (
            "zset",
            "ZSCORE KEY m".to_owned(),
            Value::bulk(score(number)),
        ),
        ("float", "GET KEY".to_owned(), Value::bulk(score(number))),
        (
            "volatile",
            "GET KEY".to_owned(),
            Value::bulk(last.to_string()),
        ),
        ("stream", "XLEN KEY".to_owned(), Value::Int(number)),
        // Everything was delivered; half of it was acknowledged.
        ("stream", READ_GROUP.to_owned(), Value::Null),
        ("stream", "XACK KEY g 1-1".to_owned(), Value::Int(1)),
        ("stream", "XACK KEY g 2-1".to_owned(), Value::Int(0)),
    ];
    // The first one was just acknowledged.
    let count = Value::Int(pending.int() - 1);
    let ask = format!("XPENDING KEY g - + {}", turns + 1);
    wanted.push(("stream", ask, count));
    if field_ttls {
        let at = i64::try_from(FIELDS_END_AT_MS + last).expect("a date");
        let ask = format!("HPEXPIRETIME KEY FIELDS 1 f{last}");
        wanted.push(("fields", "HLEN KEY".to_owned(), Value::Int(number)));
        wanted.push(("fields", ask, Value::Array(vec![Value::Int(at)])));
    }
    wanted
}
