//! Three shards, a proxy in front of them, and one server beside as the oracle.

use super::client::{Value, encode};
use super::keyferry::{Keyferry, LayoutText};
use super::process::Signal;
use super::redis_server::RedisServer;
use super::wait::wait_until;
use std::time::Duration;

const RELOAD_LIMIT: Duration = Duration::from_secs(20);

/// See the head of this file.
pub struct World {
    /// The shards, named `s1` to `s3`.
    pub shards: Vec<RedisServer>,
    /// As the proxy's config has it.
    pub layout: LayoutText,
    /// The proxy.
    pub proxy: Keyferry,
    /// What a bare server answers.
    pub oracle: RedisServer,
    workers: u32,
    pool_extra: String,
}

impl World {
    /// `pool_extra` are more lines for the pool's table.
    pub fn new(workers: u32, pool_extra: &str) -> World {
        let shards = RedisServer::start_many(3, &[]);
        let addresses: Vec<_> = shards.iter().map(RedisServer::address).collect();
        let layout = LayoutText::new("fnv1a_64", "ketama", &addresses);
        let proxy = Keyferry::start_with(&layout, workers, pool_extra);
        World {
            shards,
            layout,
            proxy,
            oracle: RedisServer::start(&[]),
            workers,
            pool_extra: pool_extra.to_owned(),
        }
    }

    /// `count` keys that the shard with this number owns; they do not exist.
    pub fn keys_of(&self, shard: usize, count: usize) -> Vec<String> {
        let mut client = self.proxy.client();
        let mut direct = self.shards[shard].client();
        let keys = (0..).map(|number| format!("probe:{number}"));
        let owned = keys.filter(|key| {
            client.call(&["SET", key, "1"]);
            let is_there = direct.call(&["EXISTS", key]) == Value::Int(1);
            client.call(&["DEL", key]);
            is_there
        });
        owned.take(count).collect()
    }

    /// Sends the same lines to both and compares the bytes of each reply.
    pub fn same(&self, script: &[&str]) {
        let one_each: Vec<_> = script.iter().map(|line| (*line, 1)).collect();
        self.same_replies(&one_each);
    }

    /// The same for lines that bring so many replies each.
    pub fn same_replies(&self, script: &[(&str, usize)]) {
        let (mut proxy, mut oracle) = (self.proxy.client(), self.oracle.client());
        for (line, replies) in script {
            let words: Vec<_> = line.split(' ').collect();
            let mut request = Vec::new();
            encode(&mut request, &words);
            for client in [&mut proxy, &mut oracle] {
                client.send_raw(&request);
            }
            for _ in 0..*replies {
                let [ours, theirs] =
                    [&mut proxy, &mut oracle].map(|client| shown(client.read_reply_bytes()));
                assert_eq!(ours, theirs, "to {line} of {script:?}");
            }
        }
    }

    /// Another layout in the config file, and in force.
    pub fn reload(&mut self, addresses: &[String]) {
        self.layout = LayoutText::new("fnv1a_64", "ketama", addresses);
        self.proxy
            .write_config(&self.layout, self.workers, &self.pool_extra);
        let (before, _) = self.proxy.epoch_and_gate();
        self.proxy.signal(Signal::Hup);
        wait_until("the new layout is in force", RELOAD_LIMIT, || {
            self.proxy.epoch_and_gate().0 > before
        });
    }
}

fn shown(reply: std::io::Result<Vec<u8>>) -> String {
    match reply {
        Ok(bytes) => bytes.escape_ascii().to_string(),
        Err(error) => format!("no reply: {error}"),
    }
}

/// The text of an error reply; panics on anything else.
pub fn error_of(reply: &Value) -> String {
    match reply {
        Value::Error(text) => text.clone(),
        other => panic!("no error: {other:?}"),
    }
}
