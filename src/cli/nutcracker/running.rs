//! Serving as `nutcracker`.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZero;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process;
use std::thread;

use rustix::fs::Mode;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

use crate::config::{self, Config, LogConfig, LogFormat, LogLevel};

use super::super::logging::Log;
use super::super::run::{CONTROL_THREADS, DESCRIPTORS_SPARE, DRAIN_MAX};
use super::super::server::Server;
use super::options::Options;
use super::texts::VERSION;
use super::{FAILED, reasons, say, say_invalid};

/// The most talkative level of the original.
const VERBOSITY_MAX: u8 = 11;

/// Why serving ended.
enum End {
    /// SIGTERM: all was answered.
    Asked,
    /// SIGINT.
    Interrupted,
    /// It could not start, and said why.
    Failed,
}

/// Serves until a signal; returns the exit code.
pub fn run(options: &Options) -> u8 {
    let log_config = LogConfig {
        level: level(options.verbosity),
        format: LogFormat::Nutcracker,
        file: options.output.clone(),
    };
    let log = match Log::start(&log_config) {
        Ok(log) => log,
        Err(error) => {
            say(&format!("nutcracker: {error}"));
            return FAILED;
        }
    };
    if options.daemonize
        && let Err(error) = detach()
    {
        error!(%error, "detaching failed");
        return FAILED;
    }
    if let Some(file) = &options.pid_file
        && let Err(cause) = write_pid(file)
    {
        error!("opening pid file '{}' failed: {cause}", file.display());
        return FAILED;
    }
    let system = rustix::system::uname();
    let part = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    log.say(&format!(
        "[{}] nutcracker-{VERSION} built for {} {} {} started on pid {}",
        super::log_line::now(),
        part(system.sysname()),
        part(system.release()),
        part(system.machine()),
        process::id()
    ));
    match served(options, &log) {
        End::Asked => 0,
        End::Interrupted => FAILED,
        End::Failed => {
            if let Some(file) = &options.pid_file
                && let Err(cause) = std::fs::remove_file(file)
            {
                error!(
                    "unlink of pid file '{}' failed, ignored: {cause}",
                    file.display()
                );
            }
            log.say(&format!("[{}] done, rabbit done", super::log_line::now()));
            FAILED
        }
    }
}

fn level(verbosity: u8) -> LogLevel {
    match verbosity {
        0..=3 => LogLevel::Error,
        4 => LogLevel::Warn,
        5 | 6 => LogLevel::Info,
        _ => LogLevel::Debug,
    }
}

/// Before any thread runs: the parent ends in here with exit code 0.
fn detach() -> io::Result<()> {
    const KEEP_DIRECTORY: bool = true;
    const KEEP_STDIO: bool = false;
    fork::daemon(KEEP_DIRECTORY, KEEP_STDIO)?;
    rustix::process::umask(Mode::empty());
    Ok(())
}

/// The pid without a newline.
fn write_pid(file: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o644);
    write!(options.open(file)?, "{}", process::id())
}

fn served(options: &Options, log: &Log) -> End {
    let config = match config::load_nutcracker(&options.config) {
        Ok(config) => config,
        Err(error) => {
            reasons(&error).iter().for_each(|reason| error!("{reason}"));
            say_invalid(options, &error);
            return End::Failed;
        }
    };
    let config = match completed(options, config) {
        Ok(config) => config,
        Err(error) => {
            error!("stats: cannot resolve '{}': {error}", options.stats_host);
            return End::Failed;
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            error!(%error, "cannot start the control threads");
            return End::Failed;
        }
    };
    let end = runtime.block_on(Box::pin(serve(options, &config, log)));
    // Look-ups of names may be under way; nobody waits for them any more.
    runtime.shutdown_background();
    end
}

/// What the command line says, and what the original has no word for.
fn completed(options: &Options, mut config: Config) -> io::Result<Config> {
    let address = match options.stats_ip() {
        Some(ip) => Some(SocketAddr::new(ip, options.stats_port)),
        None => (options.stats_host.as_str(), options.stats_port)
            .to_socket_addrs()?
            .next(),
    };
    config.admin.nutcracker_stats = address;
    config.admin.http = None;
    // Layouts change by the admin port only, so nothing is ever saved here.
    config.server.state_dir =
        std::env::temp_dir().join(format!("keyferry-nutcracker-{}", process::id()));
    // As many clients as files may be open, as with the original.
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_default();
    let clients = files.saturating_sub(DESCRIPTORS_SPARE);
    config.server.max_clients = usize::try_from(clients)
        .unwrap_or(usize::MAX)
        .max(config.server.max_clients);
    Ok(config)
}

async fn serve(options: &Options, config: &Config, log: &Log) -> End {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            error!(%error, "signals cannot be listened for");
            return End::Failed;
        }
    };
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    let server = match Server::start(config, workers).await {
        Ok(server) => server,
        Err(error) => {
            error!("{error}");
            return End::Failed;
        }
    };
    info!(workers, "serving");
    let end = obey(&mut signals, log, options.verbosity).await;
    match end {
        End::Asked => {
            server.is_going();
            tokio::select! {
                in_time = server.proxy.drain(DRAIN_MAX) => {
                    if !in_time {
                        warn!("some replies did not come; their clients were closed");
                    }
                }
                _ = signals.terminate.recv() => server.proxy.abandon(),
            }
        }
        End::Interrupted | End::Failed => server.proxy.abandon(),
    }
    server.close_ports().await;
    end
}

/// Does what signals ask until one asks to end.
async fn obey(signals: &mut Signals, log: &Log, mut verbosity: u8) -> End {
    loop {
        let (number, name) = signals.next().await;
        let action = match name {
            "SIGHUP" => ", reopening log file",
            "SIGTTIN" => ", up logging level",
            "SIGTTOU" => ", down logging level",
            "SIGINT" => ", exiting",
            _ => "",
        };
        log.say(&format!(
            "[.......................] signal {number} ({name}) received{action}"
        ));
        match name {
            "SIGHUP" => {
                if let Err(error) = log.reopen_same() {
                    warn!(%error, "the log goes on where it was");
                }
            }
            "SIGTTIN" => verbosity = (verbosity + 1).min(VERBOSITY_MAX),
            "SIGTTOU" => verbosity = verbosity.saturating_sub(1),
            "SIGINT" => return End::Interrupted,
            "SIGTERM" => return End::Asked,
            _ => {}
        }
        log.set_level(level(verbosity));
    }
}

/// The signals that the original handles, and SIGTERM.
struct Signals {
    user_1: Signal,
    user_2: Signal,
    tty_in: Signal,
    tty_out: Signal,
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

const SIGTTIN: i32 = 21;
const SIGTTOU: i32 = 22;

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            user_1: signal(SignalKind::user_defined1())?,
            user_2: signal(SignalKind::user_defined2())?,
            tty_in: signal(SignalKind::from_raw(SIGTTIN))?,
            tty_out: signal(SignalKind::from_raw(SIGTTOU))?,
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next one's number and name.
    async fn next(&mut self) -> (i32, &'static str) {
        tokio::select! {
            _ = self.user_1.recv() => (SignalKind::user_defined1().as_raw_value(), "SIGUSR1"),
            _ = self.user_2.recv() => (SignalKind::user_defined2().as_raw_value(), "SIGUSR2"),
            _ = self.tty_in.recv() => (SIGTTIN, "SIGTTIN"),
            _ = self.tty_out.recv() => (SIGTTOU, "SIGTTOU"),
            _ = self.hangup.recv() => (SignalKind::hangup().as_raw_value(), "SIGHUP"),
            _ = self.interrupt.recv() => (SignalKind::interrupt().as_raw_value(), "SIGINT"),
            _ = self.terminate.recv() => (SignalKind::terminate().as_raw_value(), "SIGTERM"),
        }
    }
}
