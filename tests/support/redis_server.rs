//! A real `redis-server`, or another server that takes its arguments, for one
//! test: memory only, loopback only.
//!
//! `KEYFERRY_TEST_SHARDS=store` makes each of them the built-in shard, `mixed` every other
//! one: suites that were written for redis-servers run with those. Of a server's arguments
//! the password is passed on; `--user`, `--replicaof` and settings are told it once it is
//! up. What only a redis-server has, `--rename-command` say, still gets a redis-server.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::client::{Client, Value};
use super::process::{Process, Signal, free_port};
use super::servers::ServerKind;

const START_LIMIT: Duration = Duration::from_secs(20);
const PORT_TRIES: u32 = 8;

/// One server; its directory and process go when it is dropped.
pub struct RedisServer {
    process: Process,
    port: u16,
    password: Option<String>,
    program: PathBuf,
    args: Vec<String>,
    dir: TempDir,
}

impl RedisServer {
    /// Starts a server with `extra` arguments after ours.
    pub fn start(extra: &[&str]) -> RedisServer {
        RedisServer::start_program(&wanted_program(extra), extra)
    }

    /// Starts a server of another version or vendor; panics if it is missing
    /// here: ask [`ServerKind::is_here`] before.
    pub fn start_kind(kind: ServerKind, extra: &[&str]) -> RedisServer {
        let program = kind.program();
        let program = program.unwrap_or_else(|why| panic!("{kind} is missing: {why}"));
        RedisServer::start_program(&program, extra)
    }

    /// Starts a server with files of its own in `dir`, a `dump.rdb` perhaps, which
    /// it may refuse: then what it said.
    pub fn start_with_files(
        kind: ServerKind,
        dir: &Path,
        extra: &[&str],
    ) -> Result<RedisServer, String> {
        let program = kind.program()?;
        let dir = dir.to_str().expect("a path of ours is text");
        let words = [&["--dir", dir], extra].concat();
        let tried = std::panic::catch_unwind(|| RedisServer::start_program(&program, &words));
        tried.map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.unwrap_or_else(|| "it ended".to_owned())
        })
    }

    fn start_program(program: &Path, extra: &[&str]) -> RedisServer {
        let args: Vec<String> = extra.iter().map(|arg| (*arg).to_owned()).collect();
        let dir = TempDir::with_prefix("keyferry-redis-").expect("a temporary directory");
        for _ in 0..PORT_TRIES {
            let port = free_port();
            let process = launch(program, dir.path(), port, &args);
            let mut server = RedisServer {
                process,
                port,
                password: password_in(&args),
                program: program.to_owned(),
                args: args.clone(),
                dir: TempDir::with_prefix("keyferry-redis-").expect("a temporary directory"),
            };
            if server.wait_ready() {
                server.tell_arguments();
                // The process logs into the first directory: keep that one.
                server.dir = dir;
                return server;
            }
        }
        panic!("redis-server found no free port in {PORT_TRIES} tries");
    }

    /// Starts the built-in shard in a server's place, whatever the environment says.
    pub fn start_built_in(extra: &[&str]) -> RedisServer {
        RedisServer::start_program(&built_in(), extra)
    }

    /// Starts `count` servers with the same arguments.
    pub fn start_many(count: usize, extra: &[&str]) -> Vec<RedisServer> {
        (0..count).map(|_| RedisServer::start(extra)).collect()
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port alone.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A new connection, logged in if the server was started with
    /// `--requirepass`.
    pub fn client(&self) -> Client {
        let mut client = Client::connect(&self.address());
        if let Some(password) = &self.password {
            client.call(&["AUTH", password]);
        }
        client
    }

    /// Freezes (`SIGSTOP`) the server.
    pub fn pause(&mut self) {
        self.process.signal(Signal::Stop);
    }

    /// Thaws it.
    pub fn resume(&mut self) {
        self.process.signal(Signal::Cont);
    }

    /// Ends it at once; its data are gone.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again, empty, on the port it had.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = launch(&self.program, self.dir.path(), self.port, &self.args);
        assert!(
            self.wait_ready(),
            "redis-server did not come back on port {}: {}",
            self.port,
            self.process.stdout()
        );
        self.tell_arguments();
    }

    /// Gives a built-in shard the arguments that a redis-server starts with.
    fn tell_arguments(&self) {
        if self.program != built_in() {
            return;
        }
        let mut client = self.client();
        for words in arguments(&self.args) {
            let (name, values) = words.split_first().expect("a name");
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let joined = values.join(" ");
            let told = match name.as_str() {
                "--requirepass" | "--enable-debug-command" => continue,
                "--user" => [&["ACL", "SETUSER"], &values[..]].concat(),
                "--replicaof" => [&["REPLICAOF"], &values[..]].concat(),
                setting => vec!["CONFIG", "SET", setting.trim_start_matches('-'), &joined],
            };
            let answer = client.call(&told);
            assert_eq!(answer, Value::Simple("OK".into()), "{told:?}");
        }
    }

    /// The directory of its files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.process.stdout()
    }

    /// One field of INFO, e.g. `field("replication", "connected_slaves")`.
    pub fn info_field(&self, section: &str, field: &str) -> Option<String> {
        let Value::Bulk(text) = self.client().call(&["INFO", section]) else {
            return None;
        };
        String::from_utf8_lossy(&text).lines().find_map(|line| {
            line.strip_prefix(field)?
                .strip_prefix(':')
                .map(str::to_owned)
        })
    }

    /// True when the server answers PING; false when its port was taken.
    fn wait_ready(&mut self) -> bool {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait() {
                let log = self.process.stdout();
                assert!(
                    log.contains("in use") || log.contains("bind"),
                    "redis-server ended ({status}): {log}{}",
                    self.process.stderr()
                );
                return false;
            }
            // Any reply counts, -NOAUTH too, but not -LOADING: half of the files would be seen.
            if let Ok(mut client) = Client::try_connect(&self.address())
                && let Ok(answer) = client.try_call(&["PING"])
                && !matches!(&answer, Value::Error(why) if why.starts_with("LOADING"))
                && self.process.try_wait().is_none()
            {
                return true;
            }
            assert!(
                start.elapsed() < START_LIMIT,
                "redis-server does not answer PING: {}",
                self.process.stdout()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn password_in(args: &[String]) -> Option<String> {
    let at = args.iter().position(|arg| arg == "--requirepass")?;
    args.get(at + 1).cloned()
}

/// How many servers were started, for `mixed`.
static STARTED: AtomicUsize = AtomicUsize::new(0);

/// The arguments, each name with what follows it: `--user default on`.
fn arguments(args: &[String]) -> Vec<Vec<String>> {
    let mut all: Vec<Vec<String>> = Vec::new();
    for arg in args {
        match all.last_mut() {
            Some(words) if !arg.starts_with("--") => words.push(arg.clone()),
            _ => all.push(vec![arg.clone()]),
        }
    }
    all
}

/// Arguments that a built-in shard has no equal for.
const ONLY_OF_REDIS: &[&str] = &["--rename-command", "--databases", "--maxmemory"];

fn wanted_program(args: &[&str]) -> PathBuf {
    if args.iter().any(|arg| ONLY_OF_REDIS.contains(arg)) {
        return PathBuf::from("redis-server");
    }
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    match std::env::var("KEYFERRY_TEST_SHARDS").as_deref() {
        Ok("store") => built_in(),
        Ok("mixed") if number.is_multiple_of(2) => built_in(),
        Ok("mixed" | "") | Err(_) => PathBuf::from("redis-server"),
        Ok(other) => panic!("KEYFERRY_TEST_SHARDS={other}: it is store or mixed"),
    }
}

fn built_in() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_keyferry"))
}

fn launch_built_in(program: &Path, dir: &Path, port: u16, args: &[String]) -> Process {
    let config = dir.join("store.toml");
    // A server that starts again is empty, as a redis-server without files is.
    let shard = dir.join("shard");
    if shard.exists() {
        std::fs::remove_dir_all(&shard).expect("an old shard goes");
    }
    let mut text = format!("[store]\ndir = {shard:?}\n");
    text += &format!("listen = \"127.0.0.1:{port}\"\ndurability = \"no\"\nmemory = \"64MB\"\n");
    if let Some(password) = password_in(args) {
        text += &format!("password = {password:?}\n");
    }
    std::fs::write(&config, text).expect("a config");
    let mut command = Command::new(program);
    command.args(["store", "-c"]).arg(&config);
    Process::spawn("keyferry-store", "keyferry", dir, &mut command)
}

fn launch(program: &Path, dir: &Path, port: u16, args: &[String]) -> Process {
    if program == Path::new(env!("CARGO_BIN_EXE_keyferry")) {
        return launch_built_in(program, dir, port, args);
    }
    let mut command = Command::new(program);
    command
        .args(["--port", &port.to_string()])
        .args(["--bind", "127.0.0.1", "--daemonize", "no"])
        .args(["--save", "", "--appendonly", "no"])
        .args(["--repl-diskless-sync-delay", "0"])
        .arg("--dir")
        .arg(dir)
        .args(args);
    Process::spawn("redis-server", "redis-server", dir, &mut command)
}
