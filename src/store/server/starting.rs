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
use super::sockets::{ListenAt, Listener};
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
    #[error("cannot listen on {at}: {cause}: choose another address, or end who listens there")]
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
