//! A Redis Sentinel watches a pair of shards, and makes the replica the master.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use crate::support::process::{Process, free_port};
use crate::support::{Client, StoreServer, Value, wait_until};
use crate::{LIMIT, assert_same, follower, info};

/// A Sentinel sends its first PING to a server a second after it met it, and counts the
/// server's silence from the meeting: with a second, it takes each new master for down.
const DOWN_AFTER_MS: u32 = 3000;

struct Sentinel {
    port: u16,
    _process: Process,
    _dir: TempDir,
}

impl Sentinel {
    fn of(master: &StoreServer) -> Sentinel {
        let dir = TempDir::with_prefix("keyferry-sentinel-").unwrap();
        let file = dir.path().join("sentinel.conf");
        let port = free_port();
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\n\
             sentinel monitor pair 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds pair {DOWN_AFTER_MS}\n\
             sentinel failover-timeout pair 10000\n",
            dir.path().display(),
            master.port(),
        );
        fs::write(&file, text).unwrap();
        let mut command = Command::new("redis-server");
        command.arg(&file).arg("--sentinel");
        let process = Process::spawn("sentinel", "redis-server", dir.path(), &mut command);
        wait_until("the sentinel answers", LIMIT, || {
            Client::try_connect(&format!("127.0.0.1:{port}")).is_ok()
        });
        Sentinel {
            port,
            _process: process,
            _dir: dir,
        }
    }

    fn client(&self) -> Client {
        Client::connect(&format!("127.0.0.1:{}", self.port))
    }

    /// A field of the master that it watches.
    fn field(&self, name: &str) -> String {
        let told = self.client().call(&["SENTINEL", "MASTER", "pair"]);
        let told: Vec<String> = told.items().iter().map(Value::text).collect();
        let found = told.chunks(2).find(|pair| pair[0] == name);
        found.map(|pair| pair[1].clone()).unwrap_or_default()
    }
}

#[test]
fn a_sentinel_fails_over_and_brings_the_old_master_back_as_a_replica() {
    let mut old = StoreServer::start(&[]);
    old.client().call(&["SET", "before", "1"]);
    let new = follower(old.port());
    assert_same(old.client(), new.client());
    let sentinel = Sentinel::of(&old);
    wait_until("it knows the replica", LIMIT, || {
        sentinel.field("num-slaves") == "1" && sentinel.field("flags") == "master"
    });
    let replica = sentinel.client().call(&["SENTINEL", "REPLICAS", "pair"]);
    let told: Vec<String> = replica.items()[0].items().iter().map(Value::text).collect();
    wait_until("it sees the replica's link", LIMIT, || {
        let replica = sentinel.client().call(&["SENTINEL", "REPLICAS", "pair"]);
        let told: Vec<String> = replica.items()[0].items().iter().map(Value::text).collect();
        told.chunks(2)
            .any(|pair| pair[0] == "master-link-status" && pair[1] == "ok")
    });
    assert!(told.contains(&new.port().to_string()), "{told:?}");
    old.kill();
    wait_until("the sentinel fails over", LIMIT, || {
        sentinel.field("port") == new.port().to_string()
    });
    let mut client = new.client();
    assert_eq!(info(&mut client, "replication", "role"), "master");
    assert_eq!(client.call(&["SET", "after", "1"]), Value::ok());
    old.start_again();
    // Whoever is connected is sent away when it is made a replica.
    wait_until("the old master follows", LIMIT, || {
        let asked = Client::try_connect(&old.address())
            .and_then(|mut client| client.try_call(&["GET", "after"]));
        asked.is_ok_and(|value| value == Value::bulk("1"))
    });
    assert_eq!(info(&mut old.client(), "replication", "role"), "slave");
    assert_same(new.client(), old.client());
    assert_eq!(old.client().call(&["GET", "after"]).text(), "1");
}
