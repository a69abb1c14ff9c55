//! A real `memcached` for one test, and a client that speaks its text protocol,
//! written apart from `src/memcached` on purpose.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::process::{Process, Signal, free_port};

const START_LIMIT: Duration = Duration::from_secs(20);
const REPLY_LIMIT: Duration = Duration::from_secs(60);
const PORT_TRIES: u32 = 8;

/// One server; its process goes when it is dropped.
pub struct Memcached {
    process: Process,
    port: u16,
    args: Vec<String>,
    dir: TempDir,
}

impl Memcached {
    /// Starts a server with `extra` arguments after ours.
    pub fn start(extra: &[&str]) -> Memcached {
        for _ in 0..PORT_TRIES {
            let dir = TempDir::with_prefix("keyferry-memcached-").expect("a temporary directory");
            let args: Vec<String> = extra.iter().map(|arg| (*arg).to_owned()).collect();
            let port = free_port();
            let mut server = Memcached {
                process: launch(&dir, port, &args),
                port,
                args,
                dir,
            };
            if server.wait_ready() {
                return server;
            }
        }
        panic!("memcached found no free port in {PORT_TRIES} tries");
    }

    /// Starts `count` servers with the same arguments.
    pub fn start_many(count: usize, extra: &[&str]) -> Vec<Memcached> {
        (0..count).map(|_| Memcached::start(extra)).collect()
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A new connection.
    pub fn client(&self) -> TextClient {
        TextClient::connect(&self.address())
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
        self.process = launch(&self.dir, self.port, &self.args);
        assert!(self.wait_ready(), "memcached did not come back");
    }

    /// True when it tells its version; false when its port was taken.
    fn wait_ready(&mut self) -> bool {
        let start = Instant::now();
        loop {
            if let Some(status) = self.process.try_wait() {
                let log = self.process.stderr();
                assert!(log.contains("in use"), "memcached ended ({status}): {log}");
                return false;
            }
            if let Ok(mut client) = TextClient::try_connect(&self.address())
                && client.try_send(b"version\r\n").is_ok()
                && client
                    .try_read()
                    .is_ok_and(|reply| reply.starts_with(b"VERSION "))
            {
                return true;
            }
            assert!(start.elapsed() < START_LIMIT, "memcached does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn launch(dir: &TempDir, port: u16, args: &[String]) -> Process {
    let mut command = Command::new("memcached");
    // It does not run as root unless it is told to; others are not asked.
    command
        .args(["-u", "root", "-l", "127.0.0.1", "-U", "0", "-t", "2"])
        .args(["-p", &port.to_string()])
        .args(args);
    Process::spawn("memcached", "memcached", dir.path(), &mut command)
}

/// One connection to a memcached, or to a proxy in front of some.
pub struct TextClient {
    reader: BufReader<TcpStream>,
}

impl TextClient {
    /// Connects; panics when that fails.
    pub fn connect(address: &str) -> TextClient {
        TextClient::try_connect(address).unwrap_or_else(|err| panic!("connect {address}: {err}"))
    }

    /// Connects.
    pub fn try_connect(address: &str) -> io::Result<TextClient> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_LIMIT))?;
        stream.set_write_timeout(Some(REPLY_LIMIT))?;
        Ok(TextClient {
            reader: BufReader::with_capacity(64 * 1024, stream),
        })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes.as_ref())
            .expect("the connection takes bytes");
    }

    /// Sends bytes as they are.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// The exact bytes of the next reply: blocks and a last line.
    pub fn read(&mut self) -> Vec<u8> {
        self.try_read()
            .unwrap_or_else(|err| panic!("no reply: {err}"))
    }

    /// The next reply.
    pub fn try_read(&mut self) -> io::Result<Vec<u8>> {
        let mut reply = Vec::new();
        loop {
            let from = reply.len();
            self.reader.read_until(b'\n', &mut reply)?;
            let line = String::from_utf8_lossy(&reply[from..]).into_owned();
            if line.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            if words.first() != Some(&"VALUE") {
                return Ok(reply);
            }
            let length: usize = words[3].parse().map_err(io::Error::other)?;
            let from = reply.len();
            reply.resize(from + length + 2, 0);
            self.reader.read_exact(&mut reply[from..])?;
        }
    }

    /// One request, one reply, as text.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> String {
        self.send(request);
        String::from_utf8_lossy(&self.read()).into_owned()
    }

    /// All that comes up to the reply to `version`, which is sent behind.
    pub fn ask_all(&mut self, requests: impl AsRef<[u8]>) -> String {
        self.send([requests.as_ref(), b"version\r\n"].concat());
        let mut all = Vec::new();
        loop {
            let reply = self.read();
            if reply.starts_with(b"VERSION ") {
                return String::from_utf8_lossy(&all).into_owned();
            }
            all.extend(reply);
        }
    }

    /// Everything until the other side closes.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        match self.reader.read_to_end(&mut out) {
            Err(err) if err.kind() != io::ErrorKind::ConnectionReset => panic!("{err}"),
            _ => out,
        }
    }
}

/// A storage command.
pub fn store(verb: &str, key: &[u8], value: &[u8], rest: &str) -> Vec<u8> {
    let mut request = format!("{verb} ").into_bytes();
    request.extend_from_slice(key);
    request.extend_from_slice(format!(" 0 0 {}{rest}\r\n", value.len()).as_bytes());
    request.extend_from_slice(value);
    request.extend_from_slice(b"\r\n");
    request
}
