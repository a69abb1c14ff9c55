//! redis-rs as it comes: one blocking connection, RESP2. It doesn't come back by
//! itself; a program opens another one.

use std::thread;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redis::{Client, Commands, Connection, ConnectionLike, Pipeline, RedisResult, Script};

use crate::Suite;
use crate::expect::{
    self, Checked, Failure, MESSAGES, PIPELINED, SCANNED_KEYS, WAIT_MAX, contains, failure, holds,
    same,
};
use crate::proxy::Proxy;

#[derive(Clone)]
struct Blocking {
    proxy: Proxy,
    client: Client,
    prefix: String,
}

type Check = fn(&Blocking) -> Checked;

pub fn suite(proxy: &Proxy) -> Suite {
    let client = Client::open(proxy.url(""));
    let checks: Vec<(&str, Check)> = vec![
        ("connect", Blocking::connect),
        ("get_set", Blocking::get_set),
        ("pipeline", Blocking::pipeline),
        ("transaction", Blocking::transaction),
        ("blocking_pop", Blocking::blocking_pop),
        ("pubsub", Blocking::pubsub),
        ("scan", Blocking::scan),
        ("script", Blocking::script),
        ("reconnect", Blocking::reconnect),
    ];
    let client = client.map(|client| Blocking {
        proxy: proxy.clone(),
        client,
        prefix: format!("redis-rs:{}", expect::word()),
    });
    let on_a_thread = |check: Check| -> BoxFuture<'static, Checked> {
        let client = client.clone();
        async move { tokio::task::spawn_blocking(move || check(&client?)).await? }.boxed()
    };
    Suite {
        client: "redis-rs",
        package: "redis",
        checks: checks
            .into_iter()
            .map(|(name, check)| (name, on_a_thread(check)))
            .collect(),
    }
}

impl Blocking {
    fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.prefix)
    }

    /// A new connection, named after this run.
    fn open(&self) -> RedisResult<Connection> {
        let mut connection = self.client.get_connection_with_timeout(WAIT_MAX)?;
        connection.set_read_timeout(Some(2 * WAIT_MAX))?;
        redis::cmd("CLIENT")
            .arg("SETNAME")
            .arg(&self.prefix)
            .exec(&mut connection)?;
        Ok(connection)
    }

    fn connect(&self) -> Checked {
        let mut connection = self.open()?;
        same("PING", connection.ping::<String>()?, "PONG")?;
        let info: String = redis::cmd("CLIENT").arg("INFO").query(&mut connection)?;
        contains("CLIENT INFO", &info, &format!(" name={} ", self.prefix))?;
        contains("CLIENT INFO", &info, " resp=2 ")?;
        contains("CLIENT INFO", &info, " lib-name=redis-rs")
    }

    fn get_set(&self) -> Checked {
        let mut connection = self.open()?;
        let key = |i: usize| self.key(&format!("v{i}"));
        for (i, value) in expect::values().iter().enumerate() {
            connection.set::<_, _, ()>(key(i), value)?;
        }
        for (i, value) in expect::values().iter().enumerate() {
            let got: Vec<u8> = connection.get(key(i))?;
            holds(got == *value, || {
                format!("GET v{i}: {} bytes, not those set", got.len())
            })?;
        }
        let missing = self.key("missing");
        same(
            "GET of no key",
            connection.get::<_, Option<String>>(&missing)?,
            None::<String>,
        )?;
        connection.set_ex::<_, _, ()>(self.key("short"), "lived", 100)?;
        let left: i64 = connection.ttl(self.key("short"))?;
        holds((1..=100).contains(&left), || format!("TTL: {left}"))?;
        let many: Vec<Option<String>> =
            connection.mget(&[key(0), missing.clone(), key(1), self.key("short")])?;
        same(
            "MGET",
            many,
            [
                Some("value".into()),
                None,
                Some(String::new()),
                Some("lived".into()),
            ],
        )?;
        same(
            "DEL",
            connection.del::<_, i64>(&[key(0), key(1), missing, key(3)])?,
            3,
        )?;
        same(
            "EXISTS",
            connection.exists::<_, i64>(&[key(0), key(2), self.key("short")])?,
            2,
        )
    }

    fn pipeline(&self) -> Checked {
        let mut connection = self.open()?;
        let key = |i| self.key(&format!("p{i}"));
        let mut pipeline = Pipeline::new();
        for i in 0..PIPELINED {
            pipeline.set(key(i), i).ignore();
        }
        for i in 0..PIPELINED {
            pipeline.get(key(i));
        }
        let got: Vec<usize> = pipeline.query(&mut connection)?;
        same(
            "replies of the pipeline",
            got,
            (0..PIPELINED).collect::<Vec<_>>(),
        )?;

        let mut wrong = Pipeline::new();
        wrong
            .get(key(1))
            .lpush(key(0), "x")
            .get(key(2))
            .ignore_errors();
        let got: (String, RedisResult<i64>, String) = wrong.query(&mut connection)?;
        same(
            "replies beside an error",
            (got.0, got.2),
            ("1".into(), "2".into()),
        )?;
        contains(
            "LPUSH to a string",
            &failure("LPUSH to a string", got.1)?,
            "WRONGTYPE",
        )
    }

    fn transaction(&self) -> Checked {
        let mut connection = self.open()?;
        let (counter, list) = (self.key("{t}:counter"), self.key("{t}:list"));
        let mut atomic = Pipeline::new();
        atomic
            .atomic()
            .incr(&counter, 41)
            .incr(&counter, 1)
            .rpush(&list, &["a", "b"]);
        same(
            "EXEC",
            atomic.query::<(i64, i64, i64)>(&mut connection)?,
            (41, 42, 2),
        )?;

        let mut other = self.open()?;
        let mut attempts = 0;
        let doubled: (i64,) =
            redis::transaction(&mut connection, &[&counter], |connection, pipe| {
                attempts += 1;
                let seen: i64 = connection.get(&counter)?;
                if attempts == 1 {
                    other.incr::<_, _, i64>(&counter, 1)?;
                }
                pipe.set(&counter, seen * 2)
                    .ignore()
                    .get(&counter)
                    .query(connection)
            })?;
        // The first EXEC was null, for the key had changed.
        same("attempts", attempts, 2)?;
        same("EXEC", doubled, (86,))?;
        same("counter", other.get::<_, i64>(&counter)?, 86)
    }

    fn blocking_pop(&self) -> Checked {
        let (first, second) = (self.key("{q}:first"), self.key("{q}:second"));
        let mut waiting = self.open()?;
        let mut other = self.open()?;
        let keys = [first.clone(), second.clone()];
        let popped = thread::spawn(move || -> RedisResult<_> {
            let got: Option<(String, String)> = waiting.blpop(&keys, WAIT_MAX.as_secs_f64())?;
            Ok((waiting, got))
        });
        until(|| {
            let list: String = redis::cmd("CLIENT").arg("LIST").query(&mut other)?;
            expect::is_waiting(&list, &self.prefix)
        })?;
        other.rpush::<_, _, i64>(&second, &["one", "two"])?;
        let (mut waiting, got) = popped.join().map_err(|_| "the waiting thread panicked")??;
        same("BLPOP", got, Some((second.clone(), "one".to_owned())))?;
        let got: Option<(String, String)> = waiting.brpop(&[&first, &second], 1.0)?;
        same("BRPOP", got, Some((second, "two".to_owned())))?;
        let got: Option<(String, String)> = waiting.blpop(&first, 0.5)?;
        same("BLPOP of an empty list", got, None::<(String, String)>)
    }

    fn pubsub(&self) -> Checked {
        let (mut listening, mut other) = (self.open()?, self.open()?);
        let (news, quiet, pattern) = (
            self.key("news"),
            self.key("other"),
            self.key("by-pattern:*"),
        );
        let mut subscriber = listening.as_pubsub();
        subscriber.set_read_timeout(Some(WAIT_MAX))?;
        subscriber.subscribe(&[&news, &quiet])?;
        subscriber.psubscribe(&pattern)?;
        for i in 0..MESSAGES {
            let listeners: i64 = other.publish(&news, format!("m{i}"))?;
            holds(listeners >= 1, || "PUBLISH reached nobody".into())?;
        }
        for i in 0..MESSAGES {
            let message = subscriber.get_message()?;
            let got = (
                message.get_channel_name().to_owned(),
                message.get_payload::<String>()?,
            );
            same("message", got, (news.clone(), format!("m{i}")))?;
        }
        other.publish::<_, _, i64>(self.key("by-pattern:x"), "p\r\n\0")?;
        let message = subscriber.get_message()?;
        same("pattern", message.get_pattern::<String>()?, pattern)?;
        same(
            "channel",
            message.get_channel_name(),
            self.key("by-pattern:x"),
        )?;
        same("payload", message.get_payload_bytes(), b"p\r\n\0")?;
        subscriber.unsubscribe(&news)?;
        other.publish::<_, _, i64>(&news, "nobody hears this")?;
        other.publish::<_, _, i64>(&quiet, "last")?;
        let message = subscriber.get_message()?;
        same(
            "message",
            (message.get_channel_name(), message.get_payload::<String>()?),
            (&*quiet, "last".into()),
        )?;
        // Dropping it unsubscribes; the connection is then as any other.
        drop(subscriber);
        same("PING", listening.ping::<String>()?, "PONG")
    }

    fn scan(&self) -> Checked {
        let mut connection = self.open()?;
        let mut pipeline = Pipeline::new();
        let mut expected: Vec<String> = (0..SCANNED_KEYS)
            .map(|i| expect::of_many(&self.key("s"), i))
            .collect();
        expected.sort();
        expected.iter().for_each(|key| {
            pipeline.set(key, "x").ignore();
        });
        pipeline.exec(&mut connection)?;
        let pattern = self.key("s:*");
        let mut got = connection
            .scan_match::<_, String>(&pattern)?
            .collect::<RedisResult<Vec<_>>>()?;
        got.sort();
        got.dedup();
        same("number of keys that SCAN found", got.len(), expected.len())?;
        holds(got == expected, || "SCAN found other keys".into())?;
        for shard in &self.proxy.shards {
            let mut shard_connection =
                Client::open(format!("redis://{shard}/"))?.get_connection()?;
            let there: Vec<String> = shard_connection.keys(&pattern)?;
            holds(!there.is_empty(), || {
                format!("shard {shard} has none of them")
            })?;
        }
        Ok(())
    }

    fn script(&self) -> Checked {
        let mut connection = self.open()?;
        let (one, two) = (self.key("{l}:1"), self.key("{l}:2"));
        // The prefix makes it a script that no shard knows: EVALSHA, NOSCRIPT, SCRIPT LOAD.
        let script = Script::new(&format!(
            "-- {}\nredis.call('SET', KEYS[1], ARGV[1])\n\
             return {{KEYS[2], tonumber(ARGV[2]) + 1, redis.call('GET', KEYS[1]), {{'end'}}}}",
            self.prefix
        ));
        for _ in 0..2 {
            let got: (String, i64, String, Vec<String>) = script
                .key(&one)
                .key(&two)
                .arg("v")
                .arg(41)
                .invoke(&mut connection)?;
            same(
                "script",
                got,
                (two.clone(), 42, "v".into(), vec!["end".to_owned()]),
            )?;
        }
        let loaded = Script::new(&format!("return ARGV[1] -- {}", self.prefix));
        let hash = loaded.load(&mut connection)?;
        let known: Vec<bool> = redis::cmd("SCRIPT")
            .arg("EXISTS")
            .arg(&hash)
            .arg("0".repeat(40))
            .query(&mut connection)?;
        same("SCRIPT EXISTS", known, [true, false])?;
        for i in 0..20 {
            let key = expect::of_many(&self.key("l"), i);
            let got: usize = redis::cmd("EVALSHA")
                .arg(&hash)
                .arg(1)
                .arg(key)
                .arg(i)
                .query(&mut connection)?;
            same("EVALSHA", got, i)?;
        }
        let own = Script::new("return redis.error_reply('MINE it is')")
            .key(&one)
            .invoke::<String>(&mut connection);
        contains(
            "a script's own error",
            &failure("a script's own error", own)?,
            "MINE",
        )
    }

    fn reconnect(&self) -> Checked {
        let key = self.key("kept");
        let mut old = self.open()?;
        old.set::<_, _, ()>(&key, "before")?;
        let mut subscribed = self.open()?;
        let mut broken = subscribed.as_pubsub();
        broken.subscribe(self.key("channel"))?;
        broken.set_read_timeout(Some(WAIT_MAX))?;
        tokio::runtime::Handle::current().block_on(self.proxy.restart())?;
        let told = broken.get_message();
        holds(
            told.as_ref()
                .is_err_and(|error| error.is_connection_dropped()),
            || format!("a subscriber over a restart: {told:?}"),
        )?;
        failure("GET on the old connection", old.get::<_, String>(&key))?;
        holds(!old.is_open(), || {
            "the old connection says it is open".into()
        })?;
        let mut fresh = until(|| Ok(self.open()?))?;
        same("GET", fresh.get::<_, String>(&key)?, "before")?;
        fresh.set::<_, _, ()>(&key, "after")?;
        same("GET", fresh.get::<_, String>(&key)?, "after")
    }
}

/// [`expect::eventually`] on a thread that may block.
fn until<T>(mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    tokio::runtime::Handle::current().block_on(expect::eventually(|| {
        let result = attempt();
        async { result }
    }))
}
