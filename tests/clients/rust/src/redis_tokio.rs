//! redis-rs with tokio: a connection manager with RESP3, which connects and
//! subscribes again by itself.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::{
    AsyncCommands, AsyncConnectionConfig, Client, Pipeline, PushInfo, PushKind, RedisResult,
    Script, Value,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use crate::Suite;
use crate::expect::{
    self, Checked, Failure, MESSAGES, PIPELINED, SCANNED_KEYS, WAIT_MAX, contains, eventually,
    failure, holds, same,
};
use crate::proxy::Proxy;

#[derive(Clone)]
struct Managed {
    proxy: Proxy,
    client: Client,
    prefix: String,
}

type Check = fn(Managed) -> BoxFuture<'static, Checked>;

pub fn suite(proxy: &Proxy) -> Suite {
    let client = Client::open(proxy.url("?protocol=resp3"));
    let checks: Vec<(&str, Check)> = vec![
        ("connect", |this| this.connect().boxed()),
        ("get_set", |this| this.get_set().boxed()),
        ("pipeline", |this| this.pipeline().boxed()),
        ("transaction", |this| this.transaction().boxed()),
        ("blocking_pop", |this| this.blocking_pop().boxed()),
        ("pubsub", |this| this.pubsub().boxed()),
        ("scan", |this| this.scan().boxed()),
        ("script", |this| this.script().boxed()),
        ("reconnect", |this| this.reconnect().boxed()),
    ];
    let client = client.map(|client| Managed {
        proxy: proxy.clone(),
        client,
        prefix: format!("redis-rs/tokio:{}", expect::word()),
    });
    let started = |check: Check| {
        let client = client.clone();
        async move { check(client?).await }.boxed()
    };
    Suite {
        client: "redis-rs/tokio",
        package: "redis",
        checks: checks
            .into_iter()
            .map(|(name, check)| (name, started(check)))
            .collect(),
    }
}

impl Managed {
    fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.prefix)
    }

    fn config() -> ConnectionManagerConfig {
        ConnectionManagerConfig::new()
            .set_connection_timeout(Some(WAIT_MAX))
            .set_response_timeout(Some(WAIT_MAX))
    }

    async fn manager(&self) -> RedisResult<ConnectionManager> {
        self.client
            .get_connection_manager_with_config(Self::config())
            .await
    }

    /// A manager that gives what it hears to a queue.
    async fn subscriber(&self) -> RedisResult<(ConnectionManager, UnboundedReceiver<PushInfo>)> {
        let (sender, heard) = unbounded_channel();
        let config = Self::config()
            .set_push_sender(sender)
            .set_automatic_resubscription();
        Ok((
            self.client
                .get_connection_manager_with_config(config)
                .await?,
            heard,
        ))
    }

    /// A connection of its own, for what waits.
    async fn alone(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(2 * WAIT_MAX));
        let mut connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        redis::cmd("CLIENT")
            .arg("SETNAME")
            .arg(&self.prefix)
            .exec_async(&mut connection)
            .await?;
        Ok(connection)
    }

    async fn connect(self) -> Checked {
        let mut connection = self.manager().await?;
        same("PING", connection.ping::<String>().await?, "PONG")?;
        let info: String = redis::cmd("CLIENT")
            .arg("INFO")
            .query_async(&mut connection)
            .await?;
        contains("CLIENT INFO", &info, " resp=3 ")?;
        contains("CLIENT INFO", &info, " lib-name=redis-rs")
    }

    async fn get_set(self) -> Checked {
        let mut connection = self.manager().await?;
        let key = |i: usize| self.key(&format!("v{i}"));
        for (i, value) in expect::values().iter().enumerate() {
            connection.set::<_, _, ()>(key(i), value).await?;
        }
        for (i, value) in expect::values().iter().enumerate() {
            let got: Vec<u8> = connection.get(key(i)).await?;
            holds(got == *value, || {
                format!("GET v{i}: {} bytes, not those set", got.len())
            })?;
        }
        let missing = self.key("missing");
        same(
            "GET of no key",
            connection.get::<_, Option<String>>(&missing).await?,
            None::<String>,
        )?;
        let many: Vec<Option<String>> = connection.mget(&[key(0), missing.clone(), key(1)]).await?;
        same(
            "MGET",
            many,
            [Some("value".into()), None, Some(String::new())],
        )?;
        same(
            "DEL",
            connection
                .del::<_, i64>(&[key(0), key(1), missing, key(3)])
                .await?,
            3,
        )
    }

    async fn pipeline(self) -> Checked {
        let mut connection = self.manager().await?;
        let key = |i| self.key(&format!("p{i}"));
        let mut pipeline = Pipeline::new();
        for i in 0..PIPELINED {
            pipeline.set(key(i), i).ignore();
        }
        for i in 0..PIPELINED {
            pipeline.get(key(i));
        }
        let got: Vec<usize> = pipeline.query_async(&mut connection).await?;
        same(
            "replies of the pipeline",
            got,
            (0..PIPELINED).collect::<Vec<_>>(),
        )?;
        // Many at once on one connection: each gets its own reply.
        let each = (0..PIPELINED).map(|i| {
            let mut connection = connection.clone();
            let key = key(i);
            async move { connection.get::<_, usize>(key).await }
        });
        let got = futures_util::future::try_join_all(each).await?;
        same(
            "replies to many at once",
            got,
            (0..PIPELINED).collect::<Vec<_>>(),
        )
    }

    async fn transaction(self) -> Checked {
        let mut connection = self.manager().await?;
        let (counter, list) = (self.key("{t}:counter"), self.key("{t}:list"));
        let mut atomic = Pipeline::new();
        atomic
            .atomic()
            .incr(&counter, 41)
            .incr(&counter, 1)
            .rpush(&list, &["a", "b"]);
        same(
            "EXEC",
            atomic
                .query_async::<(i64, i64, i64)>(&mut connection)
                .await?,
            (41, 42, 2),
        )?;

        let watching = self.alone().await?;
        let mut attempts = 0;
        let doubled: (i64,) =
            redis::aio::transaction_async(watching, &[&counter], |mut watching, mut pipe| {
                attempts += 1;
                let (first, counter, mut other) =
                    (attempts == 1, counter.clone(), connection.clone());
                async move {
                    let seen: i64 = watching.get(&counter).await?;
                    if first {
                        other.incr::<_, _, i64>(&counter, 1).await?;
                    }
                    pipe.set(&counter, seen * 2)
                        .ignore()
                        .get(&counter)
                        .query_async(&mut watching)
                        .await
                }
            })
            .await?;
        // The first EXEC was null, for the key had changed.
        same("attempts", attempts, 2)?;
        same("EXEC", doubled, (86,))
    }

    /// Until CLIENT LIST shows that a client waits.
    async fn until_waiting(&self, connection: &ConnectionManager) -> Checked {
        eventually(|| {
            let mut connection = connection.clone();
            async move {
                let list: String = redis::cmd("CLIENT")
                    .arg("LIST")
                    .query_async(&mut connection)
                    .await?;
                expect::is_waiting(&list, &self.prefix)
            }
        })
        .await
    }

    async fn blocking_pop(self) -> Checked {
        let (first, second) = (self.key("{q}:first"), self.key("{q}:second"));
        let mut other = self.manager().await?;
        let mut waiting = self.alone().await?;
        let keys = [first.clone(), second.clone()];
        let mut same_connection = waiting.clone();
        let popped = tokio::spawn(async move {
            same_connection
                .blpop::<_, Option<(String, String)>>(&keys, WAIT_MAX.as_secs_f64())
                .await
        });
        self.until_waiting(&other).await?;
        other.rpush::<_, _, i64>(&second, &["one", "two"]).await?;
        same(
            "BLPOP",
            popped.await??,
            Some((second.clone(), "one".to_owned())),
        )?;
        let got: Option<(String, String)> = waiting.brpop(&[&first, &second], 1.0).await?;
        same("BRPOP", got, Some((second, "two".to_owned())))?;
        let got: Option<(String, String)> = waiting.blpop(&first, 0.5).await?;
        same("BLPOP of an empty list", got, None::<(String, String)>)
    }

    async fn pubsub(self) -> Checked {
        let mut other = self.manager().await?;
        let (mut subscriber, mut heard) = self.subscriber().await?;
        let (news, quiet, pattern) = (
            self.key("news"),
            self.key("other"),
            self.key("by-pattern:*"),
        );
        subscriber.subscribe(&[&news, &quiet]).await?;
        subscriber.psubscribe(&pattern).await?;
        for i in 0..MESSAGES {
            let listeners: i64 = other.publish(&news, format!("m{i}")).await?;
            holds(listeners >= 1, || "PUBLISH reached nobody".into())?;
        }
        for i in 0..MESSAGES {
            same(
                "message",
                next_message(&mut heard).await?,
                texts(&[&news, &format!("m{i}")]),
            )?;
        }
        // With RESP3 a subscriber may ask other things, too.
        same(
            "GET by a subscriber",
            subscriber.get::<_, Option<String>>(self.key("no")).await?,
            None::<String>,
        )?;
        other
            .publish::<_, _, i64>(self.key("by-pattern:x"), "p\r\n")
            .await?;
        same(
            "message",
            next_message(&mut heard).await?,
            texts(&[&pattern, &self.key("by-pattern:x"), "p\r\n"]),
        )?;
        subscriber.unsubscribe(&news).await?;
        other
            .publish::<_, _, i64>(&news, "nobody hears this")
            .await?;
        other.publish::<_, _, i64>(&quiet, "last").await?;
        same(
            "message",
            next_message(&mut heard).await?,
            texts(&[&quiet, "last"]),
        )
    }

    async fn scan(self) -> Checked {
        let mut connection = self.manager().await?;
        let mut expected: Vec<String> = (0..SCANNED_KEYS)
            .map(|i| expect::of_many(&self.key("s"), i))
            .collect();
        expected.sort();
        let pairs: Vec<(&String, &str)> = expected.iter().map(|key| (key, "x")).collect();
        connection.mset::<_, _, ()>(&pairs).await?;
        let pattern = self.key("s:*");
        let mut got = Vec::new();
        let mut pages = connection.scan_match::<_, String>(&pattern).await?;
        while let Some(key) = pages.next_item().await {
            got.push(key?);
        }
        got.sort();
        got.dedup();
        same("number of keys that SCAN found", got.len(), expected.len())?;
        holds(got == expected, || "SCAN found other keys".into())
    }

    async fn script(self) -> Checked {
        let mut connection = self.manager().await?;
        let (one, two) = (self.key("{l}:1"), self.key("{l}:2"));
        // The prefix makes it a script that no shard knows: EVALSHA, NOSCRIPT, SCRIPT LOAD.
        let script = Script::new(&format!(
            "-- {}\nreturn {{KEYS[2], tonumber(ARGV[2]) + 1, ARGV[1], {{'end'}}}}",
            self.prefix
        ));
        for _ in 0..2 {
            let got: (String, i64, String, Vec<String>) = script
                .key(&one)
                .key(&two)
                .arg("v")
                .arg(41)
                .invoke_async(&mut connection)
                .await?;
            same(
                "script",
                got,
                (two.clone(), 42, "v".into(), vec!["end".to_owned()]),
            )?;
        }
        let own = Script::new("return redis.error_reply('MINE it is')");
        let own = own.key(&one).invoke_async::<String>(&mut connection).await;
        contains(
            "a script's own error",
            &failure("a script's own error", own)?,
            "MINE",
        )
    }

    /// The same manager and the same subscription, over a restart.
    async fn reconnect(self) -> Checked {
        let (key, channel) = (self.key("kept"), self.key("channel"));
        let mut connection = self.manager().await?;
        connection.set::<_, _, ()>(&key, "before").await?;
        let (mut subscriber, mut heard) = self.subscriber().await?;
        subscriber.subscribe(&channel).await?;
        self.proxy.restart().await?;
        eventually(|| {
            let (mut connection, key) = (connection.clone(), &key);
            async move { same("GET", connection.get::<_, String>(key).await?, "before") }
        })
        .await?;
        connection.set::<_, _, ()>(&key, "after").await?;
        same("GET", connection.get::<_, String>(&key).await?, "after")?;
        let expected = texts(&[&channel, "again"]);
        let mut got = None;
        for _ in 0..WAIT_MAX.as_millis() / AGAIN.as_millis() {
            connection.publish::<_, _, i64>(&channel, "again").await?;
            if let Ok(message) = timeout(AGAIN, next_message(&mut heard)).await {
                got = Some(message?);
                break;
            }
        }
        same("message", got, Some(expected))
    }
}

/// How long to listen before it is published again.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(100);

/// What the next message says, without the confirmations between.
async fn next_message(heard: &mut UnboundedReceiver<PushInfo>) -> Result<Vec<Value>, Failure> {
    loop {
        let push = timeout(WAIT_MAX, heard.recv())
            .await?
            .ok_or("the queue is closed")?;
        match push.kind {
            PushKind::Message | PushKind::PMessage => return Ok(push.data),
            PushKind::Subscribe
            | PushKind::PSubscribe
            | PushKind::Unsubscribe
            | PushKind::Disconnection => {}
            other => return Err(format!("{other:?} instead of a message").into()),
        }
    }
}

fn texts(texts: &[&str]) -> Vec<Value> {
    texts
        .iter()
        .map(|text| Value::BulkString(text.as_bytes().to_vec()))
        .collect()
}
