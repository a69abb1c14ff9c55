//! A shard is started, and ended: what stands before and behind the turns.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Interest, Poll, Token, Waker};

use crate::store::acl::LineError;
use crate::store::commands::Settings;
use crate::store::disk::RealFiles;
use crate::store::engine::EngineError;
use crate::store::oplog::LogError;
use crate::store::rows::{StoreError, Wake};
use crate::store::session::{ApplyError, LibraryError, MasterAddress};
use crate::store::sync::Replicas;

use super::apart::check_is_whole;
use super::courier::TcpCourier;
use super::keeping::{Durability, Keeper};
use super::kept::{self, KeptError};
use super::knowing::{self, unix_ms};
use super::master::Following;
use super::network::{Aside, LISTENERS_FROM, LISTENERS_MAX, Network, WAKER};
use super::opening::{self, Memory};
use super::scribe::Scribe;
use super::sockets::{self, ListenAt, Listener};
use super::turns::Turns;

/// `repl-timeout`, until it is set.
const REPLICA_TIMEOUT: Duration = Duration::from_secs(60);

/// Of the thread of a shard.
const STACK_BYTES: usize = 8 << 20;

/// What a shard is started with.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Where its files are.
    pub dir: PathBuf,
    /// Where clients connect; at most 16 places.
    pub listen: Vec<ListenAt>,
    /// When effects are made to survive a power loss.
    pub durability: Durability,
    /// Memory for all that is kept in it, in bytes.
    pub memory_bytes: u64,
    /// How much of its stream is kept for replicas, in bytes.
    pub backlog_bytes: u64,
    /// What clients must say first.
    pub password: Option<String>,
    /// What CONFIG SET may change later.
    pub settings: Settings,
    /// Whom it follows, if REPLICAOF never said otherwise.
    pub replicaof: Option<MasterAddress>,
}

/// Why a shard does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot listen.
    #[error("cannot listen on {at}: {cause}: {}", listen_help(cause))]
    Listen {
        /// Where.
        at: ListenAt,
        /// Why.
        cause: io::Error,
    },
    /// Its directory cannot be made.
    #[error("cannot make the directory {}: {cause}: choose another one, or mend its path", dir.display())]
    Dir {
        /// Which.
        dir: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The system refuses what a poll loop needs.
    #[error("cannot poll: {0}")]
    Poll(io::Error),
    /// What was said to it last cannot be read.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// A parameter that CONFIG REWRITE kept is none.
    #[error("{}: {name}: {why}: mend it, or take it out", file.display())]
    Setting {
        /// Which file.
        file: PathBuf,
        /// Its name.
        name: String,
        /// Why not.
        why: String,
    },
    /// A line of a user that CONFIG REWRITE kept, or somebody wrote, is none.
    #[error("{}: {cause}: mend it, or remove it", file.display())]
    User {
        /// Which file.
        file: PathBuf,
        /// Why not.
        cause: LineError,
    },
    /// The times beside its log cannot be read.
    #[error("{}: {cause}: mend it, or remove it: times to live that a master told may be longer then", dir.join("times").display())]
    Times {
        /// Where.
        dir: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Its rows cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its log cannot be read or written.
    #[error(transparent)]
    Log(LogError),
    /// Its functions cannot be loaded.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The log has been shortened below what the engine has.
    #[error(
        "the log begins at offset {start}, and the rows end at {applied}: what is between is          gone; restore the shard from a backup or from a replica"
    )]
    LogBegins {
        /// The log's oldest offset.
        start: u64,
        /// What the engine has.
        applied: u64,
    },
    /// It is only a part of one.
    #[error(
        "a restore into {} did not come to its end: run it again, it begins anew there",
        dir.display()
    )]
    HalfRestored {
        /// Its directory.
        dir: PathBuf,
    },
    /// What the log says does not fit what the engine has.
    #[error(
        "the log's effects at offset {offset} cannot be applied: {cause}; restore the shard          from a backup or from a replica"
    )]
    Replay {
        /// Where.
        offset: u64,
        /// Why.
        cause: ApplyError,
    },
}

/// Whose fault it is that a shard does not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFault {
    /// What its operator wrote, on the command line or in files beside the data.
    Settings,
    /// Somebody has the directory.
    InUse,
    /// The directory is not to be started in as it is.
    Refused,
    /// The disk or the system.
    Machine,
}

impl StartError {
    /// See [`StartFault`].
    pub fn fault(&self) -> StartFault {
        match self {
            Self::Dir { .. } | Self::Kept(_) | Self::Setting { .. } | Self::User { .. } => {
                StartFault::Settings
            }
            Self::Log(LogError::InUse { .. }) => StartFault::InUse,
            Self::Store(StoreError::Engine(EngineError::Locked { .. })) => StartFault::InUse,
            Self::HalfRestored { .. } | Self::Log(LogError::Newer { .. }) => StartFault::Refused,
            Self::Store(StoreError::Engine(EngineError::Foreign { .. })) => StartFault::Refused,
            _ => StartFault::Machine,
        }
    }

    /// What to do next, besides what it says itself.
    pub fn help(&self) -> &'static str {
        match self.fault() {
            StartFault::Settings => "mend that, and start it again",
            StartFault::InUse => {
                "one process serves a directory: end the other one, or name another directory"
            }
            StartFault::Refused => {
                "nothing was changed in it; name another directory, or see above"
            }
            StartFault::Machine => "once that is mended, start it again: what was kept is kept",
        }
    }
}

fn listen_help(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::AddrInUse => "end who listens there, or choose another address",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address, choose one it has",
        io::ErrorKind::PermissionDenied => "this user may not, choose another address",
        io::ErrorKind::NotFound => "make its directory, or choose another address",
        // Of a socket in the file system.
        io::ErrorKind::InvalidInput => {
            "it may have 107 bytes, choose a shorter path (of --dir, too)"
        }
        _ => "choose another address",
    }
}

/// A shard that runs in a thread of its own.
#[derive(Debug)]
pub struct Running {
    listens_at: Vec<ListenAt>,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<Result<(), StartError>>>,
}

impl Running {
    /// Where clients connect, with ports that the system chose.
    pub fn listens_at(&self) -> &[ListenAt] {
        &self.listens_at
    }

    /// Whether it runs no more: a client said SHUTDOWN, or it failed.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it, and waits until it has ended.
    ///
    /// # Errors
    /// What it failed of.
    pub fn stop(mut self) -> Result<(), StartError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), StartError> {
        self.stop.store(true, Ordering::Release);
        // A thread that cannot be woken looks by itself at the cron's rhythm.
        let _ = self.waker.wake();
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(%error, "the shard ended");
        }
    }
}

/// Starts a shard; it listens when this returns.
///
/// # Errors
/// [`StartError`].
pub fn start(options: &StoreOptions) -> Result<Running, StartError> {
    check_is_whole(&options.dir)?;
    for at in &options.listen {
        let refused = |cause| StartError::Listen {
            at: at.clone(),
            cause,
        };
        sockets::check(at).map_err(refused)?;
    }
    let poll = Poll::new().map_err(StartError::Poll)?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(StartError::Poll)?);
    let wake: Wake = {
        let waker = Arc::clone(&waker);
        // The cron comes round by itself.
        Arc::new(move || drop(waker.wake())) as Wake
    };
    let replicas = Replicas::new(options.dir.clone(), Arc::clone(&wake), REPLICA_TIMEOUT);
    let memory = Memory {
        bytes: options.memory_bytes.max(opening::MEMORY_BYTES_MIN),
    };
    let backlog = options.backlog_bytes;
    let settings = options.settings.clone();
    std::fs::create_dir_all(&options.dir).map_err(|cause| StartError::Dir {
        dir: options.dir.clone(),
        cause,
    })?;
    let follows = kept::following(&options.dir)?.unwrap_or_else(|| options.replicaof.clone());
    let opening::Opened {
        mut shard,
        log,
        times,
    } = opening::open(
        &options.dir,
        memory,
        backlog,
        settings,
        wake.clone(),
        unix_ms(),
        follows.is_some(),
    )?;
    shard.set_password(options.password.as_deref().map(str::as_bytes));
    let keeper = Keeper::new(log, options.durability, Arc::clone(&waker))?;
    let mut listeners = Vec::new();
    let mut listens_at = Vec::new();
    for (number, at) in options.listen.iter().take(LISTENERS_MAX).enumerate() {
        let refused = |cause| StartError::Listen {
            at: at.clone(),
            cause,
        };
        let mut listener = Listener::bind(at).map_err(refused)?;
        listens_at.push(listener.address(at).map_err(refused)?);
        let token = Token(LISTENERS_FROM + number);
        poll.registry()
            .register(listener.source(), token, Interest::READABLE)
            .map_err(StartError::Poll)?;
        listeners.push(listener);
    }
    shard.set_courier(Box::new(TcpCourier));
    knowing::begin(&mut shard, options, &listens_at);
    kept::load(&mut shard, &options.dir)?;
    let scribe = Scribe::new(Arc::new(RealFiles), options.dir.clone(), wake.clone());
    let mut following = Following::new(options.dir.clone(), wake);
    if let Some(address) = follows {
        shard.become_replica(&address);
        following.follow(&mut shard, address);
    }
    knowing::look(&mut shard, &keeper);
    let stop = Arc::new(AtomicBool::new(false));
    let network = Arc::new(Mutex::new(Network::new(poll, listeners)));
    shard.set_beside(Box::new(Aside::new(
        Arc::clone(&network),
        Arc::clone(&stop),
    )));
    let turns = Turns {
        shard,
        keeper,
        following,
        times,
        ends_at: None,
        is_full: false,
        replicas,
        scribe,
        pinged_at: Instant::now(),
        are_rows_refused: false,
        network,
        stop: Arc::clone(&stop),
        again: Vec::new(),
    };
    let thread = std::thread::Builder::new()
        .name("shard".to_owned())
        // Scripts call us, and we them.
        .stack_size(STACK_BYTES)
        .spawn(move || turns.run())
        .map_err(StartError::Poll)?;
    Ok(Running {
        listens_at,
        stop,
        waker,
        thread: Some(thread),
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::path::Path;

    use super::*;

    fn options(dir: &Path, listen: Vec<ListenAt>) -> StoreOptions {
        StoreOptions {
            dir: dir.to_owned(),
            listen,
            durability: Durability::EverySecond,
            memory_bytes: opening::MEMORY_BYTES_MIN,
            backlog_bytes: 1 << 20,
            password: None,
            settings: Settings::default(),
            replicaof: None,
        }
    }

    /// What it says, with its help, and whose fault it is.
    fn refused(dir: &Path, listen: Vec<ListenAt>) -> (String, StartFault) {
        let error = start(&options(dir, listen)).expect_err("it does not start");
        (format!("{error}; {}", error.help()), error.fault())
    }

    #[test]
    fn where_it_cannot_listen_nothing_is_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().join("shard");
        let other = TcpListener::bind("127.0.0.1:0").expect("a port");
        let busy = ListenAt::Tcp(other.local_addr().expect("bound"));
        let (told, fault) = refused(&dir, vec![busy]);
        assert!(told.contains("end who listens there"), "{told}");
        assert_eq!(fault, StartFault::Machine);
        let path = dir.join("x".repeat(120));
        let (told, _) = refused(&dir, vec![ListenAt::Unix { path, mode: 0o600 }]);
        assert!(told.contains("choose a shorter path"), "{told}");
        assert!(!dir.exists());
    }

    #[test]
    fn a_directory_that_is_anothers_or_of_another_version_is_left_as_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let running = start(&options(dir.path(), Vec::new())).expect("it starts");
        let (told, fault) = refused(dir.path(), Vec::new());
        assert!(told.contains("in use by another process"), "{told}");
        assert_eq!(fault, StartFault::InUse);
        running.stop().expect("it ends");
        let manifest = dir.path().join("log/MANIFEST");
        let mut bytes = std::fs::read(&manifest).expect("read");
        bytes[8] = 9;
        std::fs::write(&manifest, &bytes).expect("written");
        let (told, fault) = refused(dir.path(), Vec::new());
        assert!(told.contains("has version 9 of its format"), "{told}");
        assert_eq!(fault, StartFault::Refused);
        assert_eq!(std::fs::read(&manifest).expect("read"), bytes);
        let file = dir.path().join("file");
        std::fs::write(&file, b"").expect("written");
        let (told, fault) = refused(&file, Vec::new());
        assert!(told.contains("choose another one"), "{told}");
        assert_eq!(fault, StartFault::Settings);
    }
}
