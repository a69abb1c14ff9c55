//! `keyferry demo`: the main job on this machine, with nothing but this program.
//!
//! ```text
//! built-in shards, proxy, traffic --> meter, and the line that reshards it live
//!                       --script  --> that line, `complete`, the report, exit
//! ```
//! Everything is in one process but the job, which is a process of its own as it always
//! is. All files are in a temporary directory that goes with the process.

mod traffic;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::config::{self, ConfigError, LogConfig, LogLevel, StoresConfig};

use super::exit::ExitStatus;
use super::logging::{Log, LogError};
use super::output::{fail, print_error};
use super::run::{CONTROL_THREADS, DRAIN_MAX, raise_descriptor_limit};
use super::server::{Server, ServerError};
use super::signals::Signals;
use super::stores::{Stores, StoresError};
use traffic::{Meter, Seen, Traffic};

/// Shards beyond these make no better demonstration.
const SHARDS_MAX: u16 = 14;
/// Shards that the job adds.
const SHARDS_ADDED: u16 = 2;
/// Clients of the proxy, with those of the job.
const CLIENTS: usize = 1_000;
/// Traffic before the job begins by itself.
const BEFORE_THE_JOB: Duration = Duration::from_secs(3);
/// Threads of the proxy.
const WORKERS: usize = 2;

/// Arguments of `keyferry demo`.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Built-in shards to begin with
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=i64::from(SHARDS_MAX)))]
    shards: u16,
    /// Where the proxy listens, on this machine only
    #[arg(long, value_name = "PORT", default_value_t = 6379)]
    port: u16,
    /// Reshard to two shards more, verify, complete, print the report and exit
    #[arg(long)]
    script: bool,
}

/// The demonstration failed.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("cannot use a temporary directory: {0}")]
    Directory(io::Error),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("cannot start the control threads: {0}")]
    Runtime(io::Error),
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    #[error("port {port} cannot be listened on: {cause}")]
    Port { port: u16, cause: io::Error },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Stores(#[from] StoresError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("the traffic cannot start: {0}")]
    Traffic(io::Error),
    #[error("cannot run this program again: {0}")]
    Again(io::Error),
    #[error("`keyferry {command}` ended with {status}")]
    Job {
        command: &'static str,
        status: std::process::ExitStatus,
    },
    #[error("{0} replies were wrong")]
    Wrong(u64),
}

impl DemoError {
    fn help(&self) -> &'static str {
        match self {
            Self::Directory(_) => "set TMPDIR to a directory that this user can write",
            Self::Port { .. } => "choose another port: --port PORT, 0 for any",
            Self::Log(_) | Self::Runtime(_) | Self::Signals(_) | Self::Again(_) => {
                "check this user's limits on threads, processes and files"
            }
            Self::Config(_) | Self::Stores(_) | Self::Server(_) | Self::Traffic(_) => {
                "what it says must be free or writable; then run the demo again"
            }
            Self::Job { .. } | Self::Wrong(_) => {
                "this is a defect: report it, with what was printed above"
            }
        }
    }
}

/// Runs `keyferry demo`.
pub fn run(args: &DemoArgs) -> ExitStatus {
    match demonstrate(args) {
        Ok(()) => ExitStatus::Done,
        Err(DemoError::Config(error)) => {
            print_error(&error.to_string());
            ExitStatus::Failed
        }
        Err(error) => {
            fail(&error.to_string(), error.help());
            ExitStatus::Failed
        }
    }
}

/// Where everything is.
struct Place {
    dir: tempfile::TempDir,
    proxy: SocketAddr,
    admin: SocketAddr,
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn shard(&self, number: u16) -> PathBuf {
        self.path(&format!("shard-{number}"))
    }

    fn shard_tables(&self, table: &str, count: u16) -> String {
        let shard = |number| {
            let dir = self.shard(number);
            format!(
                "\n[[{table}]]\nname = \"s{number}\"\naddr = \"store:{}\"\n",
                dir.display()
            )
        };
        (1..=count).map(shard).collect()
    }

    fn write(&self, args: &DemoArgs) -> io::Result<()> {
        let layout = "hash = \"fnv1a_64\"\ndistribution = \"ketama\"\n";
        fs::create_dir(self.path("state"))?;
        fs::write(
            self.path("demo.toml"),
            format!(
                "[server]\nstate_dir = \"{}\"\n\n[admin]\nhttp = \"{}\"\n\n[pool.demo]\n\
                 listen = [\"{}\"]\n{layout}{}",
                self.path("state").display(),
                self.admin,
                self.proxy,
                self.shard_tables("pool.demo.shard", args.shards),
            ),
        )?;
        let tables = self.shard_tables("shard", args.shards + SHARDS_ADDED);
        fs::write(self.path("more.toml"), format!("{layout}{tables}"))
    }

    /// The words of the job.
    fn start_words(&self) -> Vec<String> {
        let words = [
            "reshard",
            "start",
            "-c",
            &self.path("demo.toml").display().to_string(),
            "-p",
            "demo",
            "--to",
            &self.path("more.toml").display().to_string(),
            "--proxy",
            &format!("http://{}", self.admin),
            "--state",
            &self.path("job").display().to_string(),
            "--switch",
            "auto",
            "--yes",
        ];
        words.map(str::to_owned).to_vec()
    }

    fn verb_words(&self, verb: &str, more: &[&str]) -> Vec<String> {
        let state = self.path("job").display().to_string();
        let words = ["reshard", verb, "--state", &state];
        words
            .iter()
            .chain(more)
            .map(|&word| word.to_owned())
            .collect()
    }
}

fn demonstrate(args: &DemoArgs) -> Result<(), DemoError> {
    let log_config = LogConfig {
        level: LogLevel::Warn,
        ..LogConfig::default()
    };
    let _log = Log::start(&log_config)?;
    raise_descriptor_limit(CLIENTS);
    let dir = tempfile::Builder::new().prefix("keyferry-demo-").tempdir();
    let place = Place {
        dir: dir.map_err(DemoError::Directory)?,
        proxy: free_port(args.port)?,
        admin: free_port(0)?,
    };
    place.write(args).map_err(DemoError::Directory)?;
    let mut stores = Stores::default();
    for number in 1..=args.shards + SHARDS_ADDED {
        stores.start(&place.shard(number), &StoresConfig::small())?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .enable_all()
        .build()
        .map_err(DemoError::Runtime)?;
    let ended = runtime.block_on(Box::pin(served(args, &place)));
    runtime.shutdown_background();
    stores.stop();
    ended
}

/// A port of this machine that is free now; the one that is asked for, unless that is 0.
fn free_port(port: u16) -> Result<SocketAddr, DemoError> {
    TcpListener::bind(("127.0.0.1", port))
        .and_then(|listener| listener.local_addr())
        .map_err(|cause| DemoError::Port { port, cause })
}

async fn served(args: &DemoArgs, place: &Place) -> Result<(), DemoError> {
    let mut signals = Signals::listen().map_err(DemoError::Signals)?;
    let config = config::load(&place.path("demo.toml"))?;
    let server = Server::start(&config, WORKERS).await?;
    let traffic = Traffic::start(place.proxy).map_err(DemoError::Traffic)?;
    println!(
        "{} built-in shards, a proxy on {}, and traffic that checks each reply.",
        args.shards, place.proxy
    );
    let shown = match args.script {
        true => script(place, &traffic, &mut signals).await,
        false => {
            tell_what_to_do(args, place);
            let mut meter = Meter::new(&traffic);
            tokio::select! {
                () = signals.stop() => {}
                () = print_meter(&mut meter) => {}
            }
            Ok(())
        }
    };
    let seen = tokio::task::spawn_blocking(move || traffic.stop()).await;
    server.is_going();
    server.proxy.drain(DRAIN_MAX).await;
    server.close_ports().await;
    shown?;
    match seen {
        Ok(seen) => report(&seen),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn tell_what_to_do(args: &DemoArgs, place: &Place) {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("keyferry"));
    println!(
        "\nReshard it live, {} shards to {}; paste this into another terminal:\n\n  {} {}\n\n\
         Look at it: redis-cli -p {}. Ctrl-C ends all of it.\n",
        args.shards,
        args.shards + SHARDS_ADDED,
        program.display(),
        place.start_words().join(" "),
        place.proxy.port(),
    );
}

async fn print_meter(meter: &mut Meter) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.tick().await;
    loop {
        second.tick().await;
        println!("{}", meter.line());
    }
}

async fn script(place: &Place, traffic: &Traffic, signals: &mut Signals) -> Result<(), DemoError> {
    let mut meter = Meter::new(traffic);
    let steps = async {
        tokio::time::sleep(BEFORE_THE_JOB).await;
        let start = place.start_words();
        println!("\n$ keyferry {}", start.join(" "));
        run_again("reshard start", start).await?;
        for (command, words) in [
            (
                "reshard complete",
                place.verb_words("complete", &["--purge", "--yes"]),
            ),
            ("reshard report", place.verb_words("report", &[])),
        ] {
            println!("\n$ keyferry {}", words.join(" "));
            run_again(command, words).await?;
        }
        Ok(())
    };
    tokio::select! {
        done = steps => done,
        () = signals.stop() => Ok(()),
        () = print_meter(&mut meter) => Ok(()),
    }
}

/// Runs this program with other words; what it prints is seen.
async fn run_again(command: &'static str, words: Vec<String>) -> Result<(), DemoError> {
    let ran = tokio::task::spawn_blocking(move || {
        let program: PathBuf = std::env::current_exe()?;
        Command::new(Path::new(&program)).args(words).status()
    });
    match ran.await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(DemoError::Job { command, status }),
        Ok(Err(error)) => Err(DemoError::Again(error)),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn report(seen: &Seen) -> Result<(), DemoError> {
    println!("\nWhat the traffic saw, from the first request to the last:\n{seen}");
    match seen.wrong {
        0 => Ok(()),
        wrong => Err(DemoError::Wrong(wrong)),
    }
}
