//! Real servers in an old and a new layout, keys of all types on their old
//! owners, and an independent look at what a key holds.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use keyferry::reshard::mover::{
    self, Attach, Begin, MarkerReport, MoveError, Mover, MoverConfig, MoverLimits, OnConflict,
    Tapping, Throttle, ThrottleDial, check_targets,
};
use keyferry::router::RESERVED_PREFIX;
use keyferry::router::layout::Layout;
use keyferry::router::moves::{Move, Moves};
use keyferry::router::spec::{DistributionKind, LayoutSpec, ShardSpec};
use keyferry::upstream::config::UpstreamConfig;

use crate::support::{Client, RedisServer, Value};

pub const DBS: [u32; 2] = [0, 3];

pub struct World {
    pub servers: Vec<RedisServer>,
    pub moves: Arc<Moves>,
    pub attach: Attach,
}

/// A copy of at most this many bytes a second.
pub fn rate(bytes_per_s: u64) -> ThrottleDial {
    ThrottleDial::new(Throttle {
        rate_bytes_per_s: Some(bytes_per_s),
        ..Throttle::default()
    })
}

/// Checks the targets, then begins to copy.
pub async fn start(config: MoverConfig) -> Result<Mover, MoveError> {
    let checked = check_targets(&config).await?;
    mover::start(config, checked).await
}

/// A cut as the job makes it: one for which its servers were too slow is made again.
pub async fn prepared_cut(mover: &Mover) -> MarkerReport {
    for _ in 0..20 {
        mover.prepare_cut().await.unwrap();
        let restarts = mover.progress_now().restarts();
        match mover.cut("prepared", restarts).await {
            Ok(report) => return report,
            Err(MoveError::TooFarBehind { .. }) => mover.uncut(),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no cut is fast enough");
}

pub fn layout(servers: &[&RedisServer], distribution: DistributionKind) -> Arc<Layout> {
    let addresses: Vec<String> = servers.iter().map(|server| server.address()).collect();
    layout_at(&addresses, distribution)
}

pub fn layout_at(addresses: &[String], distribution: DistributionKind) -> Arc<Layout> {
    let shard = |address: &String| ShardSpec {
        name: None,
        addr: address.clone(),
        weight: 1,
        slots: None,
    };
    let spec = LayoutSpec {
        hash: "fnv1a_64".parse().unwrap(),
        distribution,
        hash_tag: Some("{}".parse().unwrap()),
        route: Vec::new(),
        shards: addresses.iter().map(shard).collect(),
        earlier: None,
    };
    Arc::new(Layout::new(spec).unwrap())
}

impl World {
    /// `from` old servers and `to` new ones, both counted from the first.
    pub fn ketama(from: usize, to: usize) -> World {
        let servers = RedisServer::start_many(from.max(to), &[]);
        World::between(servers, from, to, DistributionKind::Ketama)
    }

    pub fn between(
        servers: Vec<RedisServer>,
        from: usize,
        to: usize,
        old: DistributionKind,
    ) -> World {
        let refs: Vec<&RedisServer> = servers.iter().collect();
        let old = layout(&refs[..from], old);
        let new = layout(&refs[..to], DistributionKind::Ketama);
        let moves = Arc::new(Moves::between(old, new).unwrap());
        let attach = Attach::Psync;
        World {
            servers,
            moves,
            attach,
        }
    }

    /// Two servers without PSYNC, and with more arguments, become three.
    pub fn without_psync(extra: &[&str]) -> World {
        let words: Vec<&str> = ["PSYNC", "SYNC"]
            .iter()
            .flat_map(|name| ["--rename-command", name, ""])
            .chain(extra.iter().copied())
            .collect();
        let mut servers = RedisServer::start_many(2, &words);
        servers.push(RedisServer::start(&[]));
        World {
            attach: Attach::Scan,
            ..World::between(servers, 2, 3, DistributionKind::Ketama)
        }
    }

    pub fn config(&self) -> MoverConfig {
        MoverConfig {
            moves: Arc::clone(&self.moves),
            upstream: UpstreamConfig::default(),
            limits: MoverLimits::default(),
            on_conflict: OnConflict::Fail,
            resumed: false,
            begin: Begin::Copy,
            throttle: ThrottleDial::new(Throttle::default()),
            tapping: Tapping {
                attach: self.attach,
                ..Tapping::default()
            },
            shortfall_file: None,
            job: "test".to_owned(),
        }
    }

    pub fn server(&self, address: &str) -> &RedisServer {
        self.servers
            .iter()
            .find(|server| server.address() == address)
            .unwrap()
    }

    /// The old owner.
    pub fn old_owner(&self, key: &[u8]) -> &RedisServer {
        let layout = self.moves.from();
        self.server(&layout.shard(layout.owner(key)).address.to_string())
    }

    /// The new owner.
    pub fn new_owner(&self, key: &[u8]) -> &RedisServer {
        let layout = self.moves.to();
        self.server(&layout.shard(layout.owner(key)).address.to_string())
    }

    pub fn moves(&self, key: &[u8]) -> bool {
        matches!(self.moves.of(key), Move::Moves { .. })
    }

    /// The first of `prefix0`, `prefix1`, ... that `wanted` likes.
    pub fn find(&self, prefix: &str, wanted: impl Fn(&[u8]) -> bool) -> String {
        let names = (0..).map(|n| format!("{prefix}{n}"));
        names
            .into_iter()
            .find(|name| wanted(name.as_bytes()))
            .unwrap()
    }

    /// A connection to the old owner, in that database.
    pub fn old_client(&self, db: u32, key: &[u8]) -> Client {
        in_db(self.old_owner(key), db)
    }

    pub fn new_client(&self, db: u32, key: &[u8]) -> Client {
        in_db(self.new_owner(key), db)
    }

    /// One client a server, in that database, to be picked by key.
    pub fn clients(&self, db: u32) -> Vec<Client> {
        self.servers
            .iter()
            .map(|server| in_db(server, db))
            .collect()
    }

    pub fn old_at(&self, key: &[u8]) -> usize {
        let port = self.old_owner(key).port();
        self.servers
            .iter()
            .position(|server| server.port() == port)
            .unwrap()
    }

    pub fn new_at(&self, key: &[u8]) -> usize {
        let port = self.new_owner(key).port();
        self.servers
            .iter()
            .position(|server| server.port() == port)
            .unwrap()
    }

    /// `count` keys of all types in each database, on their old owners.
    pub fn fill(&self, rng: &mut Rng, count: usize) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        for n in 0..count {
            let mut key = format!("fill:{n}:").into_bytes();
            key.extend((0..rng.usize(..6)).map(|_| rng.u8(..)));
            keys.push(key);
        }
        for db in DBS {
            let mut clients = self.clients(db);
            let mut batches: Vec<Vec<Vec<Vec<u8>>>> = vec![Vec::new(); clients.len()];
            for (n, key) in keys.iter().enumerate() {
                let batch = &mut batches[self.old_at(key)];
                batch.extend(make(rng, n, key));
                if rng.u32(..5) == 0 {
                    let at = now_ms() + rng.u64(100_000..10_000_000);
                    batch.push(vec![
                        b"PEXPIREAT".to_vec(),
                        key.clone(),
                        at.to_string().into(),
                    ]);
                }
            }
            for (client, batch) in clients.iter_mut().zip(&batches) {
                for reply in client.pipeline(batch) {
                    assert!(!reply.is_error(), "{reply:?}");
                }
            }
        }
        keys
    }
}

pub fn in_db(server: &RedisServer, db: u32) -> Client {
    let mut client = server.client();
    assert_eq!(client.call(&["SELECT", &db.to_string()]), Value::ok());
    client
}

pub fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

fn args(parts: &[&[u8]]) -> Vec<Vec<u8>> {
    parts.iter().map(|part| part.to_vec()).collect()
}

/// The commands that make a key; its type follows from `n`.
fn make(rng: &mut Rng, n: usize, key: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let size = if rng.u32(..40) == 0 {
        300
    } else {
        1 + rng.usize(..12)
    };
    let text = |rng: &mut Rng| -> Vec<u8> { (0..rng.usize(1..40)).map(|_| rng.u8(..)).collect() };
    let mut command: Vec<Vec<u8>> = match n % 7 {
        0 => return vec![args(&[b"SET", key, &text(rng)])],
        1 => return vec![args(&[b"SET", key, rng.i64(..).to_string().as_bytes()])],
        2 => args(&[b"RPUSH", key]),
        3 => args(&[b"SADD", key]),
        4 => args(&[b"HSET", key]),
        5 => args(&[b"ZADD", key]),
        _ => {
            let mut all = Vec::new();
            for at in 1..=size {
                let id = format!("{at}-1");
                all.push(args(&[b"XADD", key, id.as_bytes(), b"f", &text(rng)]));
            }
            all.push(args(&[b"XGROUP", b"CREATE", key, b"g", b"0"]));
            all.push(args(&[
                b"XREADGROUP",
                b"GROUP",
                b"g",
                b"c",
                b"COUNT",
                b"3",
                b"STREAMS",
                key,
                b">",
            ]));
            return all;
        }
    };
    for at in 0..size {
        match n % 7 {
            3 if n.is_multiple_of(2) => command.push(rng.u32(..).to_string().into()),
            4 => command.extend([format!("f{at}").into(), text(rng)]),
            5 => command.extend([rng.i32(..).to_string().into(), format!("m{at}").into()]),
            _ => command.push(text(rng)),
        }
    }
    vec![command]
}

/// What a key holds, by plain reads, in an order that does not depend on the
/// encoding; and when it expires.
pub fn contents(client: &mut Client, key: &[u8]) -> (String, Vec<Value>) {
    let kind = client.call(&[b"TYPE", key]).text();
    let read: Vec<&[u8]> = match kind.as_str() {
        "string" => vec![b"GET", key],
        "list" => vec![b"LRANGE", key, b"0", b"-1"],
        "set" => vec![b"SORT", key, b"BY", b"nosort", b"ALPHA"],
        "hash" => vec![b"HGETALL", key],
        "zset" => vec![b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"],
        "stream" => vec![b"XRANGE", key, b"-", b"+"],
        _ => return (kind, Vec::new()),
    };
    let value = client.call(&read);
    let mut items = match value {
        Value::Array(items) => items,
        single => vec![single],
    };
    if kind == "set" {
        items.sort_by(|a, b| a.bytes().cmp(b.bytes()));
    }
    if kind == "hash" {
        let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = items
            .chunks(2)
            .map(|pair| (pair[0].bytes().to_vec(), pair[1].bytes().to_vec()))
            .collect();
        pairs.sort();
        items = pairs
            .into_iter()
            .flat_map(|(f, v)| [Value::Bulk(f), Value::Bulk(v)])
            .collect();
    }
    if kind == "stream" {
        items.push(client.call(&[b"XPENDING", key, b"g"]));
    }
    items.push(client.call(&[b"PEXPIRETIME", key]));
    (kind, items)
}

/// Every key of a server, in that database, but for those of our own.
pub fn all_keys(client: &mut Client) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = client
        .call(&["KEYS", "*"])
        .items()
        .iter()
        .map(|key| key.bytes().to_vec())
        .filter(|key| !key.starts_with(RESERVED_PREFIX))
        .collect();
    keys.sort();
    keys
}
