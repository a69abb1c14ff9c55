//! The two servers that are compared. Each has two clients that a sequence uses, and
//! one of ours to look behind them.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::liar::Liar;
use super::line::Who;
use super::reply::{self, Raw};
use crate::support::client::encode;
use crate::support::{Client, Process, RedisServer, free_port};

/// Longer than any reply takes: a client that is not woken waits no longer.
const REPLY_LIMIT: Duration = Duration::from_secs(15);

const START_LIMIT: Duration = Duration::from_secs(20);

/// What redis-server is started with besides the support's own arguments.
pub const REDIS_ARGS: &[&str] = &["--enable-debug-command", "yes"];

/// RESP version of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// What a client has that says nothing.
    Resp2,
    /// After HELLO 3.
    Resp3,
}

/// Why a side gave no reply.
pub type Broken = String;

/// A server.
pub enum Host {
    /// redis-server.
    Redis(RedisServer),
    /// One that tells an untruth.
    Lied(Liar),
    /// The built-in shard.
    Store(Store),
    /// `host:port` of one that somebody else started.
    Running(String),
}

impl Host {
    /// A new redis-server.
    pub fn redis() -> Host {
        Host::Redis(RedisServer::start(REDIS_ARGS))
    }

    fn address(&self) -> String {
        match self {
            Host::Redis(server) => server.address(),
            Host::Lied(liar) => liar.address(),
            Host::Store(store) => store.address(),
            Host::Running(address) => address.clone(),
        }
    }

    /// Starts it again, empty, if it has ended.
    fn revive(&mut self) {
        if let Host::Store(store) = self
            && store.process.try_wait().is_some()
        {
            *store = Store::start();
        }
    }
}

/// `keyferry store` in a directory of its own.
pub struct Store {
    process: Process,
    port: u16,
    _dir: TempDir,
}

impl Store {
    /// Starts it and waits until it answers.
    pub fn start() -> Store {
        let dir = TempDir::with_prefix("keyferry-store-").expect("a temporary directory");
        let port = free_port();
        let mut store = Store {
            process: launch(dir.path(), port),
            port,
            _dir: dir,
        };
        let start = Instant::now();
        loop {
            if let Some(status) = store.process.try_wait() {
                panic!(
                    "`keyferry store` ended ({status}): {}",
                    store.process.stderr()
                );
            }
            let answers = Client::try_connect(&store.address())
                .and_then(|mut client| client.try_call(&["PING"]));
            if answers.is_ok() {
                return store;
            }
            assert!(
                start.elapsed() < START_LIMIT,
                "`keyferry store` does not answer PING"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether it has this command, which takes no arguments.
    pub fn knows(&self, command: &str) -> bool {
        let said = Client::connect(&self.address()).call(&[command]);
        !format!("{said:?}").contains("unknown command")
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

fn launch(dir: &Path, port: u16) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyferry"));
    command.args(["store", "--listen", &format!("127.0.0.1:{port}"), "--dir"]);
    command.arg(dir.join("shard"));
    Process::spawn("keyferry-store", "keyferry", dir, &mut command)
}

/// A server and its clients.
pub struct Side {
    /// For reports.
    pub name: &'static str,
    // Dropped first: what stands before a server ends when its clients have left.
    clients: Option<Clients>,
    host: Host,
}

struct Clients {
    first: Client,
    second: Client,
    behind: Client,
}

impl Side {
    /// Not connected yet.
    pub fn new(name: &'static str, host: Host) -> Side {
        Side {
            name,
            clients: None,
            host,
        }
    }

    /// Empties the server and connects afresh, which ends all that a client may have
    /// begun.
    pub fn afresh(&mut self, protocol: Protocol) -> Result<(), Broken> {
        self.clients = None;
        self.host.revive();
        let connect = || Client::try_connect(&self.host.address());
        let clients =
            [connect(), connect(), connect()].map(|made| made.map_err(|why| why.to_string()));
        let [first, second, behind] = clients;
        let clients = Clients {
            first: first?,
            second: second?,
            behind: behind?,
        };
        for client in [&clients.first, &clients.second, &clients.behind] {
            client.set_reply_limit(REPLY_LIMIT);
        }
        self.clients = Some(clients);
        let flushed = self.look(&["FLUSHALL"])?;
        if flushed != b"+OK\r\n" {
            return Err(format!("FLUSHALL says {}", reply::shown(&flushed)));
        }
        // Users outlive a flush.
        let users = super::groups::acl::USERS.iter().copied();
        self.look(
            &["ACL", "DELUSER"]
                .into_iter()
                .chain(users)
                .collect::<Vec<_>>(),
        )?;
        // So do scripts. That a server has none is told by the sequences.
        self.look(&["SCRIPT", "FLUSH"])?;
        self.look(&["FUNCTION", "FLUSH"])?;
        if protocol == Protocol::Resp3 {
            for who in [Who::First, Who::Second] {
                let greeted = self.ask(who, &["HELLO", "3"])?;
                if reply::kind(&greeted) != b'%' {
                    return Err(format!("HELLO 3 says {}", reply::shown(&greeted)));
                }
            }
        }
        Ok(())
    }

    fn client(&mut self, who: Who) -> Result<&mut Client, Broken> {
        let clients = self.clients.as_mut().ok_or("the connection is broken")?;
        Ok(match who {
            Who::First => &mut clients.first,
            Who::Second => &mut clients.second,
        })
    }

    /// Sends requests.
    pub fn send(&mut self, who: Who, requests: &[u8]) -> Result<(), Broken> {
        let sent = self.client(who)?.try_send_raw(requests);
        sent.map_err(|why| self.broken(&why))
    }

    /// The next reply.
    pub fn read(&mut self, who: Who) -> Result<Raw, Broken> {
        let read = self.client(who)?.read_reply_bytes();
        read.map_err(|why| self.broken(&why))
    }

    /// One command by a client of the sequence.
    pub fn ask<W: AsRef<[u8]>>(&mut self, who: Who, words: &[W]) -> Result<Raw, Broken> {
        let mut request = Vec::new();
        encode(&mut request, words);
        self.send(who, &request)?;
        self.read(who)
    }

    /// One command by a client that the sequence does not know of.
    pub fn look<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Result<Raw, Broken> {
        let mut request = Vec::new();
        encode(&mut request, words);
        let clients = self.clients.as_mut().ok_or("the connection is broken")?;
        let asked = clients.behind.exchange_bytes(&request);
        asked.map_err(|why| self.broken(&why))
    }

    /// A broken client is of no use any more: what it would read next answers
    /// something else.
    fn broken(&mut self, why: &std::io::Error) -> Broken {
        self.clients = None;
        let ended = match &mut self.host {
            Host::Store(store) => store.process.try_wait().map(|status| {
                format!("; the process ended ({status}): {}", store.process.stderr())
            }),
            _ => None,
        };
        format!("no reply: {why}{}", ended.unwrap_or_default())
    }
}
