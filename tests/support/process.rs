//! A child process that is ours: started with its output in files, ended by its
//! own pid.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How much of a log a failing test prints.
const LOG_TAIL_BYTES: usize = 6_000;

/// Signals that the tests send.
#[derive(Clone, Copy, Debug)]
pub enum Signal {
    /// Reload.
    Hup,
    /// Stop in order.
    Term,
    /// Ctrl-C.
    Int,
    /// Freeze.
    Stop,
    /// Thaw.
    Cont,
    /// End now.
    Kill,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Signal::Hup => "HUP",
            Signal::Term => "TERM",
            Signal::Int => "INT",
            Signal::Stop => "STOP",
            Signal::Cont => "CONT",
            Signal::Kill => "KILL",
        }
    }
}

/// One child; killed and reaped on drop.
pub struct Process {
    name: String,
    child: Child,
    status: Option<ExitStatus>,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `dir/NAME.out` and `dir/NAME.err`.
    /// `package` is what to install when the program is missing.
    pub fn spawn(name: &str, package: &str, dir: &Path, command: &mut Command) -> Process {
        let stdout = dir.join(format!("{name}.out"));
        let stderr = dir.join(format!("{name}.err"));
        let open = |path: &Path| {
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .expect("a log file in the test's directory")
        };
        let spawned = command
            .stdin(Stdio::null())
            .stdout(open(&stdout))
            .stderr(open(&stderr))
            .spawn();
        let child = match spawned {
            Ok(child) => child,
            Err(err) if err.kind() == ErrorKind::NotFound => panic!(
                "`{}` is not installed, and this test needs it: install the package `{package}` \
                 (./scripts/test does)",
                command.get_program().to_string_lossy()
            ),
            Err(err) => panic!("cannot start {name}: {err}"),
        };
        Process {
            name: name.to_owned(),
            child,
            status: None,
            stdout,
            stderr,
        }
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends `signal`; nothing happens if the process has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.try_wait().is_some() {
            return;
        }
        let status = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -{} {}", signal.name(), self.child.id()))
            .status()
            .expect("sh runs");
        assert!(
            status.success(),
            "kill -{} {} works",
            signal.name(),
            self.name
        );
    }

    /// Its exit status, if it has ended.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("our own child");
        }
        self.status
    }

    /// Its exit status; panics when it is still running after `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.try_wait() {
                return status;
            }
            assert!(
                start.elapsed() < limit,
                "{} is still running after {limit:?}",
                self.name
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its exit code; -1 when a signal ended it.
    pub fn wait_code(&mut self, limit: Duration) -> i32 {
        self.wait(limit).code().unwrap_or(-1)
    }

    /// Ends it at once and reaps it.
    pub fn kill(&mut self) {
        if self.try_wait().is_none() {
            // A frozen process takes SIGKILL too.
            let _ = self.child.kill();
            self.status = self.child.wait().ok();
        }
    }

    /// What it wrote to its standard output so far.
    pub fn stdout(&self) -> String {
        read_lossy(&self.stdout)
    }

    /// What it wrote to its standard error so far.
    pub fn stderr(&self) -> String {
        read_lossy(&self.stderr)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            for (what, text) in [("stdout", self.stdout()), ("stderr", self.stderr())] {
                if !text.is_empty() {
                    println!("--- {} {what}, its tail:\n{}", self.name, tail(&text));
                }
            }
        }
    }
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn tail(text: &str) -> &str {
    let mut from = text.len().saturating_sub(LOG_TAIL_BYTES);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

/// A number of `/proc/PID/status`, such as `VmRSS` or `VmHWM`, in bytes.
pub fn memory_bytes(pid: u32, field: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let line = line.unwrap_or_else(|| panic!("no {field} in {status}"));
    let kib = line.trim_matches([':', '\t', ' ', 'k', 'B']);
    kib.parse::<usize>().expect("a number of kB") * 1024
}

/// A TCP port that nobody listened on a moment ago, and that this process was
/// not given before.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
        let port = listener.local_addr().expect("a bound socket").port();
        let mut given = GIVEN.lock().expect("no panic while it was held");
        // Redis' cluster bus, and some tests, use offsets; stay clear of the end.
        if port < 55_000 && given.get_or_insert_with(HashSet::new).insert(port) {
            return port;
        }
    }
}
