//! fred, which has one connection for each client and connects again by itself;
//! its subscriber client subscribes again, too.

use std::sync::Arc;

use fred::clients::SubscriberClient;
use fred::prelude::*;
use fred::types::RespVersion;
use fred::types::config::{ReconnectPolicy, ServerConfig};
use fred::types::scripts::Script;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryStreamExt};
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;

use crate::Suite;
use crate::expect::{
    self, Checked, Failure, MESSAGES, PIPELINED, SCANNED_KEYS, WAIT_MAX, contains, eventually,
    failure, holds, same,
};
use crate::proxy::Proxy;

const RECONNECT_MS: u32 = 50;
/// 0: as often as it takes.
const UNLIMITED: u32 = 0;

#[derive(Clone)]
struct Fred {
    proxy: Proxy,
    version: RespVersion,
    prefix: Arc<str>,
}

type Check = fn(Fred) -> BoxFuture<'static, Checked>;

pub fn suite(proxy: &Proxy, version: RespVersion) -> Suite {
    let client = match version {
        RespVersion::RESP2 => "fred",
        RespVersion::RESP3 => "fred/resp3",
    };
    let prefix = format!("{client}:{}", expect::word()).into();
    let this = Fred {
        proxy: proxy.clone(),
        version,
        prefix,
    };
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
    let started = |check: Check| check(this.clone());
    Suite {
        client,
        package: "fred",
        checks: checks
            .into_iter()
            .map(|(name, check)| (name, started(check)))
            .collect(),
    }
}

impl Fred {
    fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.prefix)
    }

    fn builder(&self) -> Builder {
        let mut builder = Builder::from_config(Config {
            server: ServerConfig::new_centralized(&self.proxy.host, self.proxy.port),
            version: self.version.clone(),
            ..Config::default()
        });
        builder.set_policy(ReconnectPolicy::new_constant(UNLIMITED, RECONNECT_MS));
        builder.with_connection_config(|config| config.auto_client_setname = true);
        builder.with_performance_config(|config| config.broadcast_channel_capacity = 2 * MESSAGES);
        builder
    }

    async fn client(&self) -> FredResult<Client> {
        let client = self.builder().build()?;
        client.init().await?;
        Ok(client)
    }

    async fn subscriber(&self) -> FredResult<SubscriberClient> {
        let subscriber = self.builder().build_subscriber_client()?;
        subscriber.init().await?;
        subscriber.manage_subscriptions();
        Ok(subscriber)
    }

    async fn connect(self) -> Checked {
        let client = self.client().await?;
        same("PING", client.ping::<String>(None).await?, "PONG")?;
        let info: String = client.client_info().await?;
        contains("CLIENT INFO", &info, &format!(" name={} ", client.id()))?;
        let resp = if self.version == RespVersion::RESP3 {
            " resp=3 "
        } else {
            " resp=2 "
        };
        contains("CLIENT INFO", &info, resp)?;
        client.quit().await?;
        Ok(())
    }

    async fn get_set(self) -> Checked {
        let client = self.client().await?;
        let key = |i: usize| self.key(&format!("v{i}"));
        for (i, value) in expect::values().into_iter().enumerate() {
            client
                .set::<(), _, _>(key(i), Value::Bytes(value.into()), None, None, false)
                .await?;
        }
        for (i, value) in expect::values().into_iter().enumerate() {
            let got: Vec<u8> = client.get::<fred::bytes::Bytes, _>(key(i)).await?.to_vec();
            holds(got == value, || {
                format!("GET v{i}: {} bytes, not those set", got.len())
            })?;
        }
        let (missing, short) = (self.key("missing"), self.key("short"));
        same(
            "GET of no key",
            client.get::<Option<String>, _>(&missing).await?,
            None::<String>,
        )?;
        client
            .set::<(), _, _>(&short, "lived", Some(Expiration::EX(100)), None, false)
            .await?;
        let left: i64 = client.ttl(&short).await?;
        holds((1..=100).contains(&left), || format!("TTL: {left}"))?;
        let many: Vec<Option<String>> = client
            .mget(vec![key(0), missing.clone(), short.clone()])
            .await?;
        same(
            "MGET",
            many,
            [Some("value".into()), None, Some("lived".into())],
        )?;
        same(
            "DEL",
            client
                .del::<i64, _>(vec![key(0), key(1), missing, key(3)])
                .await?,
            3,
        )?;
        same(
            "EXISTS",
            client.exists::<i64, _>(vec![key(0), key(2), short]).await?,
            2,
        )?;
        client.quit().await?;
        Ok(())
    }

    async fn pipeline(self) -> Checked {
        let client = self.client().await?;
        let key = |i| self.key(&format!("p{i}"));
        let pipeline = client.pipeline();
        for i in 0..PIPELINED {
            pipeline
                .set::<(), _, _>(key(i), i as i64, None, None, false)
                .await?;
        }
        pipeline.lpush::<(), _, _>(key(0), "x").await?;
        for i in 0..PIPELINED {
            pipeline.get::<(), _>(key(i)).await?;
        }
        let mut got = pipeline.try_all::<String>().await;
        let read = got.split_off(PIPELINED + 1);
        let wrong = got.pop().ok_or("the pipeline has too few replies")?;
        contains(
            "LPUSH to a string",
            &failure("LPUSH to a string", wrong)?,
            "WRONGTYPE",
        )?;
        let read = read.into_iter().collect::<Result<Vec<_>, _>>()?;
        let expected: Vec<String> = (0..PIPELINED).map(|i| i.to_string()).collect();
        same("replies of the pipeline", read, expected)?;
        client.quit().await?;
        Ok(())
    }

    async fn transaction(self) -> Checked {
        let (client, other) = (self.client().await?, self.client().await?);
        let (counter, list) = (self.key("{t}:counter"), self.key("{t}:list"));
        let transaction = client.multi();
        transaction.incr_by::<(), _>(&counter, 41).await?;
        transaction.incr::<(), _>(&counter).await?;
        transaction.rpush::<(), _, _>(&list, vec!["a", "b"]).await?;
        same(
            "EXEC",
            transaction.exec::<(i64, i64, i64)>(true).await?,
            (41, 42, 2),
        )?;

        for (disturbed, expected) in [(true, None), (false, Some(86))] {
            client.watch(&counter).await?;
            let seen: i64 = client.get(&counter).await?;
            if disturbed {
                other.incr::<(), _>(&counter).await?;
            }
            let transaction = client.multi();
            transaction
                .set::<(), _, _>(&counter, seen * 2, None, None, false)
                .await?;
            transaction.get::<(), _>(&counter).await?;
            let got = match transaction.exec::<Value>(true).await {
                // fred's word for a null EXEC.
                Err(error) if *error.kind() == ErrorKind::Canceled => None,
                Ok(Value::Null) => None,
                other => Some(other?.convert::<(String, i64)>()?.1),
            };
            same("EXEC of a watched key", got, expected)?;
        }
        client.quit().await?;
        other.quit().await?;
        Ok(())
    }

    async fn blocking_pop(self) -> Checked {
        let (waiting, other) = (self.client().await?, self.client().await?);
        let (first, second) = (self.key("{q}:first"), self.key("{q}:second"));
        let (same_client, keys) = (waiting.clone(), vec![first.clone(), second.clone()]);
        let popped = tokio::spawn(async move {
            same_client
                .blpop::<(String, String), _>(keys, WAIT_MAX.as_secs_f64())
                .await
        });
        eventually(|| async {
            let list: String = other.client_list::<String, Vec<String>>(None, None).await?;
            expect::is_waiting(&list, waiting.id())
        })
        .await?;
        other.rpush::<(), _, _>(&second, vec!["one", "two"]).await?;
        same("BLPOP", popped.await??, (second.clone(), "one".to_owned()))?;
        let got: (String, String) = waiting
            .brpop(vec![first.clone(), second.clone()], 1.0)
            .await?;
        same("BRPOP", got, (second, "two".to_owned()))?;
        let got: Option<(String, String)> = match waiting.blpop(first, 0.5).await {
            Err(error)
                if *error.kind() == ErrorKind::NotFound || *error.kind() == ErrorKind::Timeout =>
            {
                None
            }
            got => got?,
        };
        same("BLPOP of an empty list", got, None::<(String, String)>)?;
        waiting.quit().await?;
        other.quit().await?;
        Ok(())
    }

    /// Until a message reaches somebody, or nobody: fred does not wait for the
    /// server's word when it subscribes and unsubscribes.
    async fn until_reaching(client: &Client, channel: &str, wanted: bool) -> Checked {
        eventually(|| async {
            let listeners: i64 = client.publish(channel, "probe").await?;
            same("PUBLISH reaches somebody", listeners > 0, wanted)
        })
        .await
    }

    async fn pubsub(self) -> Checked {
        let (subscriber, other) = (self.subscriber().await?, self.client().await?);
        let mut heard = subscriber.message_rx();
        let (news, quiet, matching) = (
            self.key("news"),
            self.key("other"),
            self.key("by-pattern:x"),
        );
        subscriber
            .subscribe(vec![news.clone(), quiet.clone()])
            .await?;
        subscriber.psubscribe(self.key("by-pattern:*")).await?;
        for channel in [&news, &quiet, &matching] {
            Self::until_reaching(&other, channel, true).await?;
            same(
                "message",
                next_message(&mut heard).await?,
                (channel.clone(), "probe".to_owned()),
            )?;
        }
        for i in 0..MESSAGES {
            let listeners: i64 = other.publish(&news, format!("m{i}")).await?;
            holds(listeners >= 1, || "PUBLISH reached nobody".into())?;
        }
        for i in 0..MESSAGES {
            same(
                "message",
                next_message(&mut heard).await?,
                (news.clone(), format!("m{i}")),
            )?;
        }
        other.publish::<(), _, _>(&matching, "p\r\n").await?;
        same(
            "message",
            next_message(&mut heard).await?,
            (matching, "p\r\n".to_owned()),
        )?;
        subscriber.unsubscribe(news.clone()).await?;
        Self::until_reaching(&other, &news, false).await?;
        other
            .publish::<(), _, _>(&news, "nobody hears this")
            .await?;
        other.publish::<(), _, _>(&quiet, "last").await?;
        let mut got = next_message(&mut heard).await?;
        while got.1 == "probe" {
            got = next_message(&mut heard).await?;
        }
        same("message", got, (quiet, "last".to_owned()))?;
        subscriber.quit().await?;
        other.quit().await?;
        Ok(())
    }

    async fn scan(self) -> Checked {
        let client = self.client().await?;
        let mut expected: Vec<String> = (0..SCANNED_KEYS)
            .map(|i| expect::of_many(&self.key("s"), i))
            .collect();
        expected.sort();
        let pairs: Vec<(String, &str)> = expected.iter().map(|key| (key.clone(), "x")).collect();
        client.mset(pairs).await?;
        let found = client.scan_buffered(self.key("s:*"), Some(50), None);
        let found: Vec<Key> = found.try_collect().await?;
        let mut got: Vec<String> = found
            .iter()
            .map(|key| key.as_str_lossy().into_owned())
            .collect();
        got.sort();
        got.dedup();
        same("number of keys that SCAN found", got.len(), expected.len())?;
        holds(got == expected, || "SCAN found other keys".into())?;
        client.quit().await?;
        Ok(())
    }

    async fn script(self) -> Checked {
        let client = self.client().await?;
        let keys = vec![self.key("{l}:1"), self.key("{l}:2")];
        // The prefix makes it a script that no shard knows yet.
        let script = Script::from_lua(format!(
            "-- {}\nredis.call('SET', KEYS[1], ARGV[1])\n\
             return {{KEYS[2], tonumber(ARGV[2]) + 1, redis.call('GET', KEYS[1])}}",
            self.prefix
        ));
        let unknown = script
            .evalsha::<Value, _, _, _>(&client, keys.clone(), vec!["v", "41"])
            .await;
        contains(
            "EVALSHA of no script",
            &failure("EVALSHA of no script", unknown)?,
            "NOSCRIPT",
        )?;
        let got: (String, i64, String) = script
            .evalsha_with_reload(&client, keys.clone(), vec!["v", "41"])
            .await?;
        same("script", got, (self.key("{l}:2"), 42, "v".to_owned()))?;
        let known: Vec<bool> = client
            .script_exists(vec![script.sha1().to_string(), "0".repeat(40)])
            .await?;
        same("SCRIPT EXISTS", known, [true, false])?;
        // It is on all shards: keys of any do.
        for i in 0..20 {
            let key = expect::of_many(&self.key("l"), i);
            let got: (Option<String>, i64, String) = script
                .evalsha(
                    &client,
                    vec![key.clone(), key],
                    vec!["w".to_owned(), i.to_string()],
                )
                .await?;
            same("EVALSHA", (got.1, got.2), (i as i64 + 1, "w".to_owned()))?;
        }
        let own = client.eval::<Value, _, _, _>(
            "return redis.error_reply('MINE it is')",
            keys,
            Vec::<String>::new(),
        );
        contains(
            "a script's own error",
            &failure("a script's own error", own.await)?,
            "MINE it is",
        )?;
        client.quit().await?;
        Ok(())
    }

    /// The same client and the same subscription, over a restart.
    async fn reconnect(self) -> Checked {
        let (client, subscriber) = (self.client().await?, self.subscriber().await?);
        let (key, channel) = (self.key("kept"), self.key("channel"));
        client
            .set::<(), _, _>(&key, "before", None, None, false)
            .await?;
        let mut heard = subscriber.message_rx();
        subscriber.subscribe(channel.clone()).await?;
        self.proxy.restart().await?;
        eventually(|| async { same("GET", client.get::<String, _>(&key).await?, "before") })
            .await?;
        client
            .set::<(), _, _>(&key, "after", None, None, false)
            .await?;
        same("GET", client.get::<String, _>(&key).await?, "after")?;
        let mut got = None;
        for _ in 0..WAIT_MAX.as_millis() / AGAIN.as_millis() {
            client.publish::<(), _, _>(&channel, "again").await?;
            if let Ok(message) = timeout(AGAIN, next_message(&mut heard)).await {
                got = Some(message?);
                break;
            }
        }
        same("message", got, Some((channel, "again".to_owned())))?;
        client.quit().await?;
        subscriber.quit().await?;
        Ok(())
    }
}

/// How long to listen before it is published again.
const AGAIN: std::time::Duration = std::time::Duration::from_millis(100);

async fn next_message(
    heard: &mut Receiver<fred::types::Message>,
) -> Result<(String, String), Failure> {
    let message = timeout(WAIT_MAX, heard.recv()).await??;
    Ok((message.channel.to_string(), message.value.convert()?))
}
