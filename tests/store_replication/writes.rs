//! What is written into the shard: some of everything before, and anything at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::{Client, RedisServer, StoreServer, seeded, wait_until};

const CLIENTS: usize = 3;
const DATABASES: usize = 4;

/// Who is written into.
pub trait Written {
    /// A connection to it.
    fn writer(&self) -> Client;
}

impl Written for StoreServer {
    fn writer(&self) -> Client {
        self.client()
    }
}

impl Written for RedisServer {
    fn writer(&self) -> Client {
        self.client()
    }
}

/// Values of every kind, inline and in rows, in several databases. Scores are such that all
/// versions' digests see them with the same digits.
pub fn prepare(server: &impl Written) {
    let mut client = server.writer();
    let long = "0123456789".repeat(30_000);
    for db in ["0", "2", "9"] {
        client.call(&["SELECT", db]);
        for number in 0..300 {
            client.call(&["SET", &format!("text:{number}"), &"v".repeat(number)]);
        }
        client.call(&["SET", "number", "12345"]);
        client.call(&["SET", "chunks", &long]);
        client.call(&["SETRANGE", "sparse", "150000", "end"]);
        client.call(&["SET", "expires", "x", "PX", "5000000"]);
        for (number, wide) in [(3, ""), (3_000, "long enough to need rows")] {
            for item in 0..number {
                let item = format!("{item}{wide}");
                client.send(&["RPUSH", &format!("list:{number}"), &item]);
                client.send(&["SADD", &format!("set:{number}"), &item]);
                client.send(&["HSET", &format!("hash:{number}"), &item, "value"]);
                client.send(&["ZADD", &format!("zset:{number}"), "0.5", &item]);
            }
            for _ in 0..4 * number {
                assert!(!client.read().is_error());
            }
        }
        client.call(&["SADD", "numbers", "5", "1", "9"]);
        client.call(&[
            "ZADD", "zset:3", "inf", "high", "-inf", "low", "1500.25", "far",
        ]);
        client.call(&["PEXPIRE", "hash:3000", "7000000"]);
    }
}

/// Clients that write until they are stopped, or the shard is gone.
pub struct Writers {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    pub fn start(server: &impl Written, test: &str) -> Writers {
        Writers::of(server, test, command)
    }

    /// Those that write streams and read them in groups.
    pub fn of_streams(server: &impl Written, test: &str) -> Writers {
        Writers::of(server, test, command_on_streams)
    }

    fn of(server: &impl Written, test: &str, command: fn(&mut fastrand::Rng) -> String) -> Writers {
        let mut rng = seeded(test);
        let (stop, written) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let threads = (0..CLIENTS).map(|_| {
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            let client = server.writer();
            let rng = rng.fork();
            std::thread::spawn(move || write(client, rng, command, &stop, &written))
        });
        Writers {
            threads: threads.collect(),
            stop,
            written,
        }
    }

    /// Waits until so many more commands were answered.
    pub fn go_on_for(&self, commands: u64) {
        let wanted = self.written.load(Ordering::Relaxed) + commands;
        wait_until("writers write", Duration::from_secs(60), || {
            self.written.load(Ordering::Relaxed) >= wanted
        });
    }

    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

fn write(
    mut client: Client,
    mut rng: fastrand::Rng,
    command: fn(&mut fastrand::Rng) -> String,
    stop: &AtomicBool,
    written: &AtomicU64,
) {
    while !stop.load(Ordering::Relaxed) {
        let command = command(&mut rng);
        let words: Vec<&str> = command.split(' ').collect();
        if client.try_call(&words).is_err() {
            return;
        }
        written.fetch_add(1, Ordering::Relaxed);
    }
}

/// Its words. Refusals are fine: of wrong kinds of keys.
fn command(rng: &mut fastrand::Rng) -> String {
    let number = rng.u32(..20);
    let value = rng.i32(-50..50);
    let many = if rng.u8(..10) == 0 { "3000" } else { "3" };
    match rng.u32(..42) {
        0 => format!("SELECT {}", rng.usize(..DATABASES)),
        1 => format!("SET key:{number} {value}"),
        2 => format!("SET key:{number} {value} PX {}", 1 + rng.u32(..2_000)),
        3 => format!("INCRBY key:{number} {value}"),
        4 => format!("INCRBYFLOAT key:{number} 0.1"),
        5 => format!("APPEND text:{number} more"),
        6 => format!("SETRANGE chunks {} {value}", rng.u32(..400_000)),
        7 => format!("LPUSH list:{many} {value} {value}"),
        8 => format!("RPUSH list:{many} {value}"),
        9 => format!("RPOP list:{many}"),
        10 => format!("LPOP list:{many} 2"),
        11 => format!("LSET list:{many} 1 {value}"),
        12 => format!("LINSERT list:3 BEFORE {value} {number}"),
        13 => format!("SADD set:{many} {value} other"),
        14 => format!("SPOP set:{many}"),
        15 => format!("SREM set:{many} {value}"),
        16 => format!("HSET hash:{many} {value} {number}"),
        17 => format!("HINCRBYFLOAT hash:3 counted {value}.5"),
        18 => format!("HDEL hash:{many} {value}"),
        19 => format!("ZADD zset:{many} {value} {number}"),
        20 => format!("ZINCRBY zset:{many} 0.25 {number}"),
        21 => format!("ZREM zset:{many} {number}"),
        22 => format!("ZPOPMIN zset:{many}"),
        23 => format!("PEXPIRE text:{number} {}", 1 + rng.u32(..3_000)),
        24 => format!("PERSIST text:{number}"),
        25 => format!("DEL key:{number} text:{number}"),
        26 => format!("RENAME key:{number} key:{}", rng.u32(..20)),
        27 => format!("SUNIONSTORE set:other set:3 set:{many}"),
        28 => format!("GETDEL key:{number}"),
        29 => format!("GETEX key:{number} EX {}", 1 + rng.u32(..3)),
        30 => format!("SETBIT bits {} 1", rng.u32(..700_000)),
        31 => format!("BITFIELD bits INCRBY u8 {number} 200 OVERFLOW SAT INCRBY i5 3 1"),
        32 => format!("PFADD seen {value} {number}"),
        33 => format!("PFMERGE seen:all seen seen:{number}"),
        34 => format!("GEOADD places {value} {value} {number}"),
        35 => format!("LMOVE list:{many} list:other LEFT RIGHT"),
        36 => format!("SMOVE set:{many} set:other {value}"),
        37 => format!("ZRANGESTORE zset:other zset:{many} 0 {number}"),
        38 => format!("ZUNIONSTORE zset:sum 2 zset:3 zset:{many} WEIGHTS 1 2"),
        39 => format!("SORT list:3 BY nosort STORE list:sorted:{number}"),
        40 => format!("BLPOP list:other list:{many} 0.01"),
        _ => match rng.u32(..40) {
            0 => "FLUSHDB".to_owned(),
            1 => "SWAPDB 1 3".to_owned(),
            2 => format!("MOVE text:{number} 3"),
            _ => format!("COPY list:3 list:copy:{number} REPLACE"),
        },
    }
}

/// On streams and their groups; refusals are fine.
fn command_on_streams(rng: &mut fastrand::Rng) -> String {
    let key = format!("stream:{}", rng.u32(..4));
    let (group, who) = (["g", "h"][rng.usize(..2)], ["alice", "bob"][rng.usize(..2)]);
    let number = rng.u32(..100_000);
    match rng.u32(..24) {
        0..7 => format!("XADD {key} * field {number} more text"),
        7 => format!("XADD {key} MAXLEN ~ 200 * other {number}"),
        8 => format!("XADD {key} MAXLEN {} * other {number}", rng.u32(50..300)),
        9 => format!("XTRIM {key} MAXLEN ~ 100 LIMIT 200"),
        10 => format!("XGROUP CREATE {key} {group} 0 MKSTREAM"),
        11..15 => format!("XREADGROUP GROUP {group} {who} COUNT 3 STREAMS {key} >"),
        15 => format!("XREADGROUP GROUP {group} {who} NOACK COUNT 3 BLOCK 5 STREAMS {key} >"),
        16 => format!("XREADGROUP GROUP {group} {who} COUNT 3 STREAMS {key} 0"),
        17 | 18 => format!("XAUTOCLAIM {key} {group} {who} 0 0 COUNT 2"),
        19 => format!("XGROUP DELCONSUMER {key} {group} {who}"),
        20 => format!("COPY {key} copy:{} REPLACE", rng.u32(..3)),
        21 => format!("RENAME copy:{} {key}", rng.u32(..3)),
        22 if rng.u32(..10) == 0 => format!("DEL {key}"),
        _ => format!("XREAD COUNT 2 BLOCK 5 STREAMS {key} $"),
    }
}
