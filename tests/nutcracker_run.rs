//! A twemproxy file as the config of `keyferry run`: two pools, one of them at a
//! socket path with a mode; clients through both; SIGHUP after the file was edited,
//! rightly and wrongly; and what `check`, `route`, `config diff` and `reshard plan`
//! say of the same file.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::client::encode;
use support::{
    Client, Process, RedisServer, Signal, Value, free_port, http_get, keyferry_command, wait_until,
};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(20);
const KEYS: usize = 200;

/// The file, its proxy and the servers of the two pools.
struct World {
    dir: TempDir,
    admin: String,
    port: u16,
    proxy: Process,
}

/// Pools `sessions` and `counters`, as somebody who left twemproxy has them.
fn yml(port: u16, socket: &Path, sessions: &[&RedisServer], counters: &[&RedisServer]) -> String {
    let servers = |servers: &[&RedisServer], named: bool| {
        let line = |(at, server): (usize, &&RedisServer)| {
            let name = if named {
                format!(" s{}", at + 1)
            } else {
                String::new()
            };
            format!("   - {}:1{name}\n", server.address())
        };
        servers.iter().enumerate().map(line).collect::<String>()
    };
    format!(
        "# Debian's nutcracker ran with this.\n\
         sessions:\n  listen: 127.0.0.1:{port}\n  hash: fnv1a_64\n  hash_tag: \"{{}}\"\n  \
         distribution: ketama\n  timeout: 5000\n  auto_eject_hosts: false\n  redis: true\n  \
         servers:\n{}\ncounters:\n  listen: {} 0600\n  hash: md5\n  distribution: modula\n  \
         redis: true\n  preconnect: true\n  server_connections: 2\n  servers:\n{}",
        servers(sessions, true),
        socket.display(),
        servers(counters, false),
    )
}

impl World {
    fn file(&self) -> PathBuf {
        self.dir.path().join("nutcracker.yml")
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("counters.sock")
    }

    fn write(&self, text: &str) {
        fs::write(self.file(), text).expect("written");
    }

    fn start(write: impl Fn(u16, &Path) -> String) -> World {
        let dir = TempDir::with_prefix("keyferry-yml-").expect("a directory");
        let (port, admin) = (free_port(), format!("127.0.0.1:{}", free_port()));
        let file = dir.path().join("nutcracker.yml");
        fs::write(&file, write(port, &dir.path().join("counters.sock"))).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyferry"));
        command.args(["run", "--workers", "2", "--admin", &admin, "-c"]);
        command.arg(&file);
        command.arg("--state-dir").arg(dir.path().join("state"));
        let proxy = Process::spawn("keyferry", "keyferry", dir.path(), &mut command);
        let mut world = World {
            dir,
            admin,
            port,
            proxy,
        };
        wait_until("it is ready", LIMIT, || {
            let ended = world.proxy.try_wait();
            assert!(ended.is_none(), "{}", world.proxy.stderr());
            http_get(&world.admin, "/readyz").is_ok_and(|(status, _)| status == 200)
        });
        world
    }

    fn client(&self) -> Client {
        Client::connect(&format!("127.0.0.1:{}", self.port))
    }

    fn has_metric(&self, line: &str) -> bool {
        let (_, text) = http_get(&self.admin, "/metrics").expect("metrics");
        text.lines().any(|found| found == line)
    }

    fn reload(&mut self, counted: &str) {
        self.proxy.signal(Signal::Hup);
        wait_until(counted, LIMIT, || self.has_metric(counted));
    }

    /// What a subcommand says of a file; it must end well.
    fn says(&self, args: &[&str]) -> String {
        let output = keyferry_command(args);
        let (out, err) = (output.stdout, String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{args:?}: {err}");
        String::from_utf8(out).expect("UTF-8")
    }
}

/// A connection by the socket's path.
struct Local(UnixStream);

impl Local {
    fn connect(path: &Path) -> Local {
        let stream = UnixStream::connect(path).expect("it listens");
        stream.set_read_timeout(Some(LIMIT)).expect("set");
        Local(stream)
    }

    fn call(&mut self, words: &[&str], expected: &str) {
        let mut request = Vec::new();
        encode(&mut request, words);
        self.0.write_all(&request).expect("sent");
        let mut reply = vec![0; expected.len()];
        self.0.read_exact(&mut reply).expect("a reply");
        assert_eq!(String::from_utf8_lossy(&reply), expected, "{words:?}");
    }
}

fn name(number: usize) -> String {
    format!("key:{number}")
}

/// Each key is on the server that `route` names, and nowhere else.
fn assert_placed(world: &World, pool: &str, servers: &[&RedisServer]) {
    let file = world.file();
    let names: Vec<String> = (0..KEYS).map(name).collect();
    let mut args = vec!["route", "-c", file.to_str().unwrap(), "-p", pool];
    args.extend(names.iter().map(String::as_str));
    let told = world.says(&args);
    assert_eq!(told.lines().count(), KEYS);
    let mut used = 0;
    for server in servers {
        let mut direct = server.client();
        let mut count = 0;
        for line in told.lines() {
            let mut words = line.split('\t');
            let (key, addr) = (words.next().unwrap(), words.nth(1).unwrap());
            let here = i64::from(addr == server.address());
            assert_eq!(direct.call(&["EXISTS", key]), Value::Int(here), "{line}");
            count += here;
        }
        used += usize::from(count > 0);
    }
    assert_eq!(used, servers.len(), "every server has some");
}

#[test]
fn a_twemproxy_file_is_a_config_for_everything() {
    let servers = RedisServer::start_many(5, &[]);
    let [a, b, moved, c, d] = &servers[..] else {
        panic!("five servers")
    };
    let before = |port: u16, socket: &Path| yml(port, socket, &[a, b], &[c, d]);
    let mut world = World::start(before);
    let (mut client, mut local) = (world.client(), Local::connect(&world.socket()));
    let mode = fs::metadata(world.socket())
        .expect("a socket")
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    for number in 0..KEYS {
        assert_eq!(client.call(&["SET", &name(number), "session"]), Value::ok());
        local.call(&["INCR", &name(number)], ":1\r\n");
    }
    assert_placed(&world, "sessions", &[a, b]);
    assert_placed(&world, "counters", &[c, d]);

    // A server moves under its name, with its data; a pool comes.
    let data: Vec<_> = (0..KEYS)
        .map(|number| ["SET".into(), name(number), "session".to_owned()])
        .collect();
    let held: Vec<_> = data
        .iter()
        .filter(|set| b.client().call(&["EXISTS", &set[1]]) == Value::Int(1))
        .cloned()
        .collect();
    moved.client().pipeline(&held);
    let old = world.dir.path().join("old.yml");
    fs::copy(world.file(), &old).expect("copied");
    let third = free_port();
    let edited = yml(world.port, &world.socket(), &[a, moved], &[c, d])
        + &format!(
            "\nthird:\n  listen: 127.0.0.1:{third}\n  redis: true\n  servers:\n   - {}:1\n",
            c.address()
        );
    world.write(&edited);
    let file = world.file();
    let (file, old) = (file.to_str().unwrap(), old.to_str().unwrap());
    assert!(world.says(&["check", "-c", file]).contains("pool third"));
    let diff = world.says(&["config", "diff", "-p", "sessions", old, file]);
    let only = format!("s2 ({}) -> s2 ({})", b.address(), moved.address());
    assert_eq!(diff.lines().count(), 2, "{diff}");
    assert!(
        diff.contains(&only),
        "no key has another name's shard: {diff}"
    );
    world.reload("keyferry_config_reloads_total 1");
    for number in 0..KEYS {
        assert_eq!(client.call(&["GET", &name(number)]), Value::bulk("session"));
        local.call(&["GET", &name(number)], "$1\r\n1\r\n");
    }
    assert_eq!(client.call(&["SET", "{x}1", "v"]), Value::ok());
    let mut third = Client::connect(&format!("127.0.0.1:{third}"));
    assert_eq!(third.call(&["SET", "only in c", "v"]), Value::ok());
    assert_eq!(c.client().call(&["GET", "only in c"]), Value::bulk("v"));
    b.client().call(&["FLUSHALL"]);
    assert_placed(&world, "sessions", &[a, moved]);

    // What is wrong changes nothing, and is told as the original tells it.
    world.write(&edited.replace("timeout: 5000", "timeout: soon"));
    world.reload("keyferry_config_reload_failures_total 1");
    assert!(world.has_metric("keyferry_config_reloads_total 1"));
    let told = world.proxy.stderr();
    assert!(
        told.contains("directive \"timeout\" is not a number"),
        "{told}"
    );
    assert_eq!(client.call(&["GET", &name(1)]), Value::bulk("session"));
    local.call(&["GET", &name(1)], "$1\r\n1\r\n");
    world.write(&edited);

    // The way out of the old layout.
    let layout = world.dir.path().join("new.layout.toml");
    let shards = [("s1", a), ("s2", moved), ("s3", b)].map(|(name, server)| {
        format!(
            "[[shard]]\nname = \"{name}\"\naddr = \"{}\"\n",
            server.address()
        )
    });
    let text = format!(
        "hash = \"fnv1a_64\"\ndistribution = \"ketama\"\nhash_tag = \"{{}}\"\n{}",
        shards.concat()
    );
    fs::write(&layout, text).expect("written");
    let url = format!("http://{}", world.admin);
    let plan = world.says(&[
        "reshard",
        "plan",
        "-c",
        file,
        "-p",
        "sessions",
        "--to",
        layout.to_str().unwrap(),
        "--proxy",
        &url,
    ]);
    assert!(plan.contains("s3") && plan.contains(&b.address()), "{plan}");

    world.proxy.signal(Signal::Term);
    assert_eq!(world.proxy.wait_code(LIMIT), 0);
}
