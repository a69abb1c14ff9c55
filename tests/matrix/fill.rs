//! Keys of every type and encoding that a server knows.
//!
//! Key names begin with the type; the encodings are those of the servers'
//! default limits. All that is random comes from the caller's seed.

use fastrand::Rng;

use crate::support::contents::{Args, args, unix_ms};
use crate::support::{Client, RedisServer, ServerKind};

/// Databases that hold keys.
pub const DATABASES: [u32; 3] = [0, 3, 9];

/// Elements of a value that no server keeps in one compact block.
const LARGE: usize = 700;

/// Elements of a value beyond what goes over in one request.
const HUGE: usize = 9_000;

/// Commands sent before the replies are read.
const BATCH: usize = 2_000;

const DAY_MS: i64 = 86_400_000;

/// Fills all [`DATABASES`] of `server` with what both `known` and the server
/// itself know; hash field TTLs only if `field_ttls`.
pub fn fill(server: &RedisServer, kind: ServerKind, field_ttls: bool, rng: &mut Rng) {
    for db in DATABASES {
        let mut client = server.client();
        client.call(&["SELECT", &db.to_string()]);
        let mut fill = Fill {
            rng,
            commands: Vec::new(),
        };
        fill.strings();
        fill.lists();
        fill.sets();
        fill.sorted_sets();
        fill.hashes();
        fill.streams();
        if field_ttls {
            fill.field_ttls();
        }
        if db == 0 {
            fill.huge();
        }
        fill.expiries();
        run(&mut client, &fill.commands, kind);
    }
}

/// Hashes with field TTLs alone: their names.
pub fn fill_field_ttls(server: &RedisServer, kind: ServerKind, rng: &mut Rng) -> Vec<String> {
    let mut fill = Fill {
        rng,
        commands: Vec::new(),
    };
    fill.field_ttls();
    run(&mut server.client(), &fill.commands, kind);
    vec!["hash:ttl:small".into(), "hash:ttl:large".into()]
}

/// Loads a library of functions.
pub fn load_function(server: &RedisServer, name: &str) {
    let code = format!(
        "#!lua name={name}\nredis.register_function('f_{name}', function(keys, args) return 1 end)"
    );
    let reply = server.client().call(&["FUNCTION", "LOAD", &code]);
    assert!(!reply.is_error(), "{reply:?}");
}

fn run(client: &mut Client, commands: &[Args], kind: ServerKind) {
    for batch in commands.chunks(BATCH) {
        for (command, reply) in batch.iter().zip(client.pipeline(batch)) {
            let shown = command.join(&b' ').escape_ascii().to_string();
            assert!(
                !reply.is_error(),
                "{kind}: {reply:?} to {:.200}",
                shown.as_str()
            );
        }
    }
}

struct Fill<'r> {
    rng: &'r mut Rng,
    commands: Vec<Args>,
}

impl Fill<'_> {
    fn add(&mut self, words: &[&[u8]]) {
        self.commands.push(args(words));
    }

    /// A command with many more arguments.
    fn add_all(&mut self, verb: &str, key: &str, items: impl IntoIterator<Item = Vec<u8>>) {
        let mut command = args(&[verb, key]);
        command.extend(items);
        self.commands.push(command);
    }

    fn noise(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.rng.u8(..)).collect()
    }

    fn strings(&mut self) {
        for (name, value) in [
            ("empty", "".into()),
            ("int8", "-12".into()),
            ("int16", "12345".into()),
            ("int32", "-2147483648".into()),
            ("int64", i64::MIN.to_string()),
            ("beyond-int64", "9223372036854775808".into()),
            ("padded-int", "007".into()),
            ("embedded", "0123456789".repeat(4)),
            ("lzf", "abcdefgh".repeat(3_000)),
        ] {
            self.add(&[
                b"SET",
                format!("string:{name}").as_bytes(),
                value.as_bytes(),
            ]);
        }
        let raw = self.noise(40_000);
        self.add(&[b"SET", b"string:raw", &raw]);
        self.add(&[b"SETBIT", b"string:bits", b"100000", b"1"]);
        self.add(&[b"PFADD", b"string:sparse", b"a", b"b", b"c"]);
        let many = (0..5_000).map(|n| format!("element{n}").into_bytes());
        self.add_all("PFADD", "string:dense", many);
        let every_byte: Vec<u8> = (0..=255).collect();
        let key = [b"string:".as_slice(), &every_byte].concat();
        self.add(&[b"SET", &key, &every_byte]);
        self.add(&[b"SET", b"", b"a key without a name"]);
        for n in 0..300 {
            let value = self.noise(n % 90);
            self.add(&[b"SET", format!("string:{n}").as_bytes(), &value]);
        }
    }

    fn lists(&mut self) {
        self.add(&[b"RPUSH", b"list:one", b""]);
        self.add(&[b"RPUSH", b"list:small", b"a", b"-1", b"300000", b"\x00\xff"]);
        let numbers = (0..200).map(|n: i64| (n * n * n - 5_000).to_string().into_bytes());
        self.add_all("RPUSH", "list:numbers", numbers);
        let texts: Vec<_> = (0..LARGE).map(|n| self.noise(n % 200)).collect();
        self.add_all("RPUSH", "list:large", texts);
        let node = self.noise(70_000);
        self.add_all(
            "RPUSH",
            "list:wide",
            [b"x".to_vec(), node, b"abc".repeat(9_000)],
        );
    }

    fn sets(&mut self) {
        for (name, bits) in [("16", 10), ("32", 25), ("64", 50)] {
            let members = (-20..20).map(|n: i64| ((n << bits) - n).to_string().into_bytes());
            self.add_all("SADD", &format!("set:intset{name}"), members);
        }
        let numbers = (0..LARGE).map(|n| (n * 7).to_string().into_bytes());
        self.add_all("SADD", "set:numbers", numbers);
        self.add(&[b"SADD", b"set:small", b"", b"a", b"12", b"\x00\xfe"]);
        let texts: Vec<_> = (0..LARGE)
            .map(|n| [format!("m{n}:").into_bytes(), self.noise(n % 80)].concat())
            .collect();
        self.add_all("SADD", "set:large", texts);
    }

    fn sorted_sets(&mut self) {
        const SCORES: [&str; 12] = [
            "inf",
            "-inf",
            "-0",
            "0",
            "1",
            "-17",
            "0.1",
            "3.0000000000000004",
            "-1.7976931348623157e308",
            "5e-324",
            "9007199254740993",
            "1e17",
        ];
        let small = SCORES
            .iter()
            .enumerate()
            .flat_map(|(n, score)| [score.as_bytes().to_vec(), format!("member{n}").into_bytes()]);
        let small: Vec<_> = small.collect();
        self.add_all("ZADD", "zset:small", small.clone());
        let mut large = small;
        for n in 0..LARGE {
            let score = (self.rng.f64() - 0.5) * 1e9;
            large.push(score.to_string().into_bytes());
            large.push([format!("m{n}:").into_bytes(), self.noise(n % 80)].concat());
        }
        self.add_all("ZADD", "zset:large", large);
        self.add(&[
            b"GEOADD",
            b"zset:geo",
            b"13.361389",
            b"38.115556",
            b"Palermo",
        ]);
    }

    fn hashes(&mut self) {
        self.add(&[
            b"HSET",
            b"hash:small",
            b"",
            b"",
            b"f",
            b"1",
            b"\xff\x00",
            b"-70000",
        ]);
        let wide = self.noise(500);
        self.add(&[b"HSET", b"hash:wide", b"f", &wide]);
        let large: Vec<_> = (0..LARGE)
            .flat_map(|n| [format!("field{n}").into_bytes(), self.noise(n % 120)])
            .collect();
        self.add_all("HSET", "hash:large", large);
    }

    fn field_ttls(&mut self) {
        let base = unix_ms() + 10 * DAY_MS;
        for (name, count) in [("small", 12), ("large", LARGE)] {
            let key = format!("hash:ttl:{name}");
            let fields = (0..count).flat_map(|n| {
                [
                    format!("field{n}").into_bytes(),
                    format!("value{n}").into_bytes(),
                ]
            });
            self.add_all("HSET", &key, fields);
            // Every third field never ends; no two others end together.
            for n in (0..count).filter(|n| n % 3 != 0) {
                let offset = i64::try_from(n).expect("small") * 1_001;
                let at = (base + offset).to_string();
                let field = format!("field{n}");
                let words = ["HPEXPIREAT", &key, &at, "FIELDS", "1", &field];
                self.commands.push(args(&words));
            }
        }
    }

    fn streams(&mut self) {
        self.entries("stream:plain", 30);
        self.entries("stream:large", LARGE);
        self.entries("stream:deleted", 50);
        self.add(&[b"XDEL", b"stream:deleted", b"1-1", b"7-1", b"50-1"]);
        self.entries("stream:trimmed", 300);
        self.add(&[b"XTRIM", b"stream:trimmed", b"MAXLEN", b"120"]);
        self.add(&[
            b"XGROUP",
            b"CREATE",
            b"stream:empty",
            b"g",
            b"$",
            b"MKSTREAM",
        ]);
        self.entries("stream:emptied", 3);
        self.add(&[b"XGROUP", b"CREATE", b"stream:emptied", b"g", b"2-1"]);
        self.add(&[b"XDEL", b"stream:emptied", b"1-1", b"2-1", b"3-1"]);
        // The last id may be beyond all entries, and ids may be the largest.
        self.entries("stream:ahead", 3);
        self.add(&[b"XSETID", b"stream:ahead", b"99999-5"]);
        let last = format!("{}-{}", u64::MAX, u64::MAX - 1);
        self.add(&[b"XADD", b"stream:largest", last.as_bytes(), b"f", b"v"]);
        self.groups();
    }

    /// Two groups; consumers with and without pending entries; entries that were
    /// delivered several times, acknowledged, deleted while they are pending.
    fn groups(&mut self) {
        const KEY: &str = "stream:groups";
        self.entries(KEY, 60);
        for (group, from) in [("first", "0"), ("second", "20-1")] {
            self.commands
                .push(args(&["XGROUP", "CREATE", KEY, group, from]));
            for (consumer, count) in [("anna", "9"), ("\u{1}bert", "4")] {
                self.commands.push(args(&[
                    "XREADGROUP",
                    "GROUP",
                    group,
                    consumer,
                    "COUNT",
                    count,
                    "STREAMS",
                    KEY,
                    ">",
                ]));
            }
            // It reads what it has, nothing: 6.0 has no CREATECONSUMER.
            self.commands.push(args(&[
                "XREADGROUP",
                "GROUP",
                group,
                "idle",
                "STREAMS",
                KEY,
                "0",
            ]));
        }
        self.commands
            .push(args(&["XACK", KEY, "first", "1-1", "3-1", "12-1"]));
        self.commands.push(args(&[
            "XCLAIM",
            KEY,
            "first",
            "\u{1}bert",
            "0",
            "4-1",
            "5-1",
            "RETRYCOUNT",
            "7",
        ]));
        self.commands
            .push(args(&["XDEL", KEY, "2-1", "5-1", "22-1", "40-1"]));
    }

    /// `count` entries with ids 1-1, 2-1...: most have the fields of the one
    /// before them, which the servers store in another way.
    fn entries(&mut self, key: &str, count: usize) {
        for n in 1..=count {
            let mut command = args(&["XADD", key, &format!("{n}-1")]);
            let fields = if n % 7 == 0 { 3 } else { 2 };
            for field in 0..fields {
                let value = if n % 2 == 0 {
                    n.to_string().into_bytes()
                } else {
                    self.noise(n % 60)
                };
                command.extend([format!("f{field}").into_bytes(), value]);
            }
            self.commands.push(command);
        }
    }

    /// One of each type with more elements than one request should carry.
    fn huge(&mut self) {
        let numbered = |verb: &str, n: usize| format!("{verb}{n}").into_bytes();
        self.add_all("RPUSH", "list:huge", (0..HUGE).map(|n| numbered("item", n)));
        self.add_all("SADD", "set:huge", (0..HUGE).map(|n| numbered("m", n)));
        let scored = (0..HUGE).flat_map(|n| [(n * 3).to_string().into_bytes(), numbered("m", n)]);
        self.add_all("ZADD", "zset:huge", scored);
        let fields = (0..HUGE).flat_map(|n| [numbered("field", n), numbered("value", n)]);
        self.add_all("HSET", "hash:huge", fields);
        self.entries("stream:huge", HUGE);
        let noise = self.noise(1_500_000);
        self.add(&[b"SET", b"string:huge", &noise]);
    }

    fn expiries(&mut self) {
        let base = unix_ms() + DAY_MS;
        for (n, key) in [
            "string:lzf",
            "list:large",
            "set:small",
            "zset:large",
            "hash:small",
            "stream:groups",
        ]
        .iter()
        .enumerate()
        {
            let at = base + 12_345 * i64::try_from(n).expect("small") + 1;
            self.commands
                .push(args(&["PEXPIREAT", key, &at.to_string()]));
        }
    }
}
