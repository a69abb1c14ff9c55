//! The thread of a shard: a poll loop around the sans-I/O core.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token, Waker};

use crate::store::commands::Settings;
use crate::store::oplog::LogError;
use crate::store::rows::{StoreError, Wake};
use crate::store::session::{ApplyError, Health, MasterAddress, Order, Shard};

use super::following::{Around, Followed, Following};
use super::keeping::{Durability, Keeper, Kept};
use super::kept::{self, KeptError};
use super::knowing::{self, unix_ms};
use super::opening::{self, Memory};
use super::sockets::{Connection, ListenAt, Listener};

const WAKER: Token = Token(usize::MAX);
/// Listeners have the numbers below, clients those from 0 on.
const LISTENERS_FROM: usize = usize::MAX - 1 - LISTENERS_MAX;
/// Places where one shard listens.
const LISTENERS_MAX: usize = 16;
/// Read of one client at once.
const READ_BYTES: usize = 64 * 1024;
/// Events of one turn.
const EVENTS_MAX: usize = 1024;
/// Longest wait of a turn: the cron's rhythm, ten times a second as Redis'.
const CRON_MS: u64 = 100;
/// Keys that are ended in one turn.
const ENDED_KEYS_MAX: usize = 200;

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
    /// The system refuses what a poll loop needs.
    #[error("cannot poll: {0}")]
    Poll(io::Error),
    /// What was said to it last cannot be read.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// A parameter that CONFIG REWRITE kept is none.
    #[error("settings.json: {name}: {why}: mend it, or take it out")]
    Setting {
        /// Its name.
        name: String,
        /// Why not.
        why: String,
    },
    /// Its rows cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its log cannot be read or written.
    #[error(transparent)]
    Log(LogError),
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
    let poll = Poll::new().map_err(StartError::Poll)?;
    let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(StartError::Poll)?);
    let wake = {
        let waker = Arc::clone(&waker);
        // The cron comes round by itself.
        Arc::new(move || drop(waker.wake())) as Wake
    };
    let memory = Memory {
        bytes: options.memory_bytes.max(opening::MEMORY_BYTES_MIN),
    };
    let backlog = options.backlog_bytes;
    let settings = options.settings.clone();
    let follows = kept::following(&options.dir)?.unwrap_or_else(|| options.replicaof.clone());
    let opening::Opened { mut shard, log } = opening::open(
        &options.dir,
        memory,
        backlog,
        settings,
        wake.clone(),
        unix_ms(),
        follows.is_some(),
    )?;
    shard.set_password(
        options
            .password
            .as_deref()
            .map(|word| Box::from(word.as_bytes())),
    );
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
    knowing::begin(&mut shard, options, &listens_at);
    for (name, value) in kept::settings(&options.dir)? {
        let loaded = shard.load_parameter(&name, &value);
        loaded.map_err(|why| StartError::Setting { name, why })?;
    }
    let mut following = Following::new(options.dir.clone(), wake);
    if let Some(address) = follows {
        shard.become_replica(&address);
        following.follow(&mut shard, address);
    }
    knowing::look(&mut shard, &keeper);
    let stop = Arc::new(AtomicBool::new(false));
    let turns = Turns {
        shard,
        keeper,
        following,
        dir: options.dir.clone(),
        ends_at: None,
        is_full: false,
        are_rows_refused: false,
        poll,
        listeners,
        connections: Vec::new(),
        stop: Arc::clone(&stop),
        again: Vec::new(),
        buffer: vec![0; READ_BYTES].into_boxed_slice(),
    };
    let thread = std::thread::Builder::new()
        .name("shard".to_owned())
        .spawn(move || turns.run())
        .map_err(StartError::Poll)?;
    Ok(Running {
        listens_at,
        stop,
        waker,
        thread: Some(thread),
    })
}

struct Turns {
    shard: Shard,
    keeper: Keeper,
    following: Following,
    dir: PathBuf,
    /// The engine goes up to this offset, and not to the log's end.
    ends_at: Option<u64>,
    /// Effects of a turn wait for room on the disk.
    is_full: bool,
    /// The engine cannot take rows.
    are_rows_refused: bool,
    poll: Poll,
    listeners: Vec<Listener>,
    /// By the client's key.
    connections: Vec<Option<Peer>>,
    stop: Arc<AtomicBool>,
    /// Clients that may have whole requests that were not run.
    again: Vec<usize>,
    /// What is read goes through it.
    buffer: Box<[u8]>,
}

struct Peer {
    connection: Connection,
    /// It takes no more bytes now.
    is_full: bool,
    /// There may be more to read than was read.
    is_readable: bool,
}

impl Turns {
    fn run(mut self) -> Result<(), StartError> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut has_more_due = false;
        let mut looked = Instant::now();
        while !self.stop.load(Ordering::Acquire) {
            let is_stalled = self.is_stalled();
            let wait = match has_more_due || !self.again.is_empty() {
                true if !is_stalled => Duration::ZERO,
                _ => Duration::from_millis(self.wait_ms()),
            };
            if let Err(error) = self.poll.poll(&mut events, Some(wait))
                && error.kind() != io::ErrorKind::Interrupted
            {
                return Err(StartError::Poll(error));
            }
            self.shard.set_now_ms(unix_ms());
            if !is_stalled {
                for key in std::mem::take(&mut self.again) {
                    self.read(key);
                }
            }
            for event in &events {
                match event.token() {
                    WAKER => {}
                    Token(number @ LISTENERS_FROM..) => self.accept(number - LISTENERS_FROM),
                    Token(key) => {
                        if event.is_writable()
                            && let Some(Some(peer)) = self.connections.get_mut(key)
                        {
                            peer.is_full = false;
                            self.write(key);
                        }
                        if event.is_readable() || event.is_read_closed() || event.is_error() {
                            if let Some(Some(peer)) = self.connections.get_mut(key) {
                                peer.is_readable = true;
                            }
                            match is_stalled {
                                true => self.again.push(key),
                                false => self.read(key),
                            }
                        }
                    }
                }
            }
            has_more_due = self.shard.end_due_keys(ENDED_KEYS_MAX);
            if !is_stalled && !self.is_full {
                has_more_due |= self.follow()?;
                if self.ends_at.is_some() {
                    break;
                }
            }
            self.end_turn();
            knowing::after_turn(&mut self.shard, &self.keeper);
            self.following.acknowledge(self.keeper.end());
            if looked.elapsed() >= Duration::from_millis(CRON_MS) {
                knowing::look(&mut self.shard, &self.keeper);
                self.following.tell(&mut self.shard);
                looked = Instant::now();
            }
            if self.carry_out() {
                break;
            }
        }
        self.close_all()
    }

    /// Everything into the engine, and both closed well.
    fn close_all(self) -> Result<(), StartError> {
        let end = self.ends_at.unwrap_or(self.keeper.end());
        if self.keeper.poison().is_some() {
            // What is in memory may be more than what was kept: the log decides, next time.
            return Ok(());
        }
        self.shard.into_keyspace().close(end)?;
        self.keeper.close().map_err(StartError::Log)
    }

    /// The overlay is full: nobody is served until the engine has taken some of it. If that
    /// cannot be, writes are refused, and the others served.
    fn is_stalled(&mut self) -> bool {
        let rows = self.shard.keyspace().rows();
        let why = match (rows.failure(), rows.waits_for().filter(|_| rows.is_full())) {
            (Some(error), _) => Some(error.to_string()),
            (None, Some(error)) => Some(error.to_string()),
            (None, None) => None,
        };
        let is_full = rows.is_full();
        match why {
            Some(why) => {
                if *self.shard.health() == Health::Good {
                    tracing::error!(%why, "rows cannot be written: writes are refused");
                }
                let reason = format!("Errors writing rows to the disk: {why}");
                self.shard.set_health(Health::NoWrites(reason));
                self.are_rows_refused = true;
                false
            }
            None => {
                if std::mem::take(&mut self.are_rows_refused) && !self.is_full {
                    tracing::info!("rows can be written again");
                    self.shard.set_health(Health::Good);
                }
                is_full
            }
        }
    }

    fn wait_ms(&self) -> u64 {
        let due = self.shard.next_due_ms();
        due.map_or(CRON_MS, |at| at.saturating_sub(unix_ms()).min(CRON_MS))
    }

    fn accept(&mut self, listener: usize) {
        while let Some(listener) = self.listeners.get(listener) {
            match listener.accept() {
                Ok((mut connection, from, to)) => {
                    let key = self.shard.client_came(from, to);
                    let on = Interest::READABLE | Interest::WRITABLE;
                    if let Err(error) =
                        self.poll
                            .registry()
                            .register(&mut connection, Token(key), on)
                    {
                        tracing::warn!(%error, "a client's socket cannot be polled");
                        self.shard.client_gone(key);
                        continue;
                    }
                    if self.connections.len() <= key {
                        self.connections.resize_with(key + 1, || None);
                    }
                    self.connections[key] = Some(Peer {
                        connection,
                        is_full: false,
                        is_readable: false,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client");
                    return;
                }
            }
        }
    }

    /// Reads what came and runs it.
    fn read(&mut self, key: usize) {
        let Some(Some(peer)) = self.connections.get_mut(key) else {
            return;
        };
        if peer.is_readable && self.shard.may_read(key) {
            let Some(input) = self.shard.input_of(key) else {
                return;
            };
            match peer.connection.read(&mut self.buffer) {
                Ok(0) => return self.close(key),
                Ok(read) => {
                    input.extend_from_slice(self.buffer.get(..read).unwrap_or(&[]));
                    self.shard.note_traffic(read, 0);
                    peer.is_readable = read == READ_BYTES;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    peer.is_readable = false;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.close(key),
            }
        }
        self.shard.run_requests(key);
        if let Some(Some(peer)) = self.connections.get(key)
            && peer.is_readable
            && self.shard.may_read(key)
        {
            self.again.push(key);
        }
    }

    /// Everything is in the log; replies may go out.
    fn end_turn(&mut self) {
        loop {
            for key in self.shard.take_resumed() {
                self.shard.run_requests(key);
            }
            self.keep_effects();
            let marked = self.shard.take_marked();
            if marked.is_empty() {
                return;
            }
            for key in marked {
                self.write(key);
            }
        }
    }

    /// Follows its master, if it has one; true if there is more to do.
    fn follow(&mut self) -> Result<bool, StartError> {
        let must_end = || self.stop.load(Ordering::Acquire);
        let mut around = Around {
            shard: &mut self.shard,
            keeper: &mut self.keeper,
            must_end: &must_end,
        };
        match self.following.turn(&mut around)? {
            Followed::All => Ok(false),
            Followed::Some => Ok(true),
            Followed::EndsAt(offset) => {
                self.ends_at = Some(offset);
                Ok(false)
            }
        }
    }

    /// The turn's effects into the log; without that, nobody is told that they were.
    fn keep_effects(&mut self) {
        if self.shard.is_promoted()
            && let Err(why) = self.following.promote(&mut self.shard, &mut self.keeper)
        {
            return self.refuse_writes(why, true);
        }
        let effects = self.shard.effects();
        let db = effects.selected().unwrap_or(0);
        let kept = self
            .keeper
            .keep(effects.bytes(), u16::try_from(db).unwrap_or(0));
        match kept {
            Kept::Yes => {
                self.shard.effects().clear();
                if self.is_full {
                    tracing::info!("the log can be written again");
                    self.is_full = false;
                    self.shard.set_health(Health::Good);
                }
                let end = self.keeper.end();
                self.shard.keyspace().freeze_if_due(end);
                let durable = self.shard.keyspace().rows().durable_offset();
                self.keeper.let_go_below(durable);
            }
            Kept::NotNow(why) => self.refuse_writes(why, true),
            Kept::Never(why) => self.refuse_writes(why, false),
        }
    }

    fn refuse_writes(&mut self, why: String, is_full: bool) {
        if *self.shard.health() == Health::Good {
            tracing::error!(%why, "writes are refused");
        }
        self.is_full = is_full;
        let reason = format!("Errors writing to the log, the outcome of this is not known: {why}");
        self.shard.revoke_turn(&reason);
        self.shard.set_health(Health::NoWrites(format!(
            "Errors writing to the log: {why}"
        )));
    }

    fn write(&mut self, key: usize) {
        let Some(Some(peer)) = self.connections.get_mut(key) else {
            return;
        };
        let Some((output, closing)) = self.shard.output_of(key) else {
            return;
        };
        let was_owed = !output.is_empty();
        let mut written = 0;
        while !peer.is_full && written < output.len() {
            match peer.connection.write(&output[written..]) {
                Ok(0) => return self.close(key),
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => peer.is_full = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.close(key),
            }
        }
        output.drain(..written);
        let is_empty = output.is_empty();
        self.shard.note_traffic(0, written);
        if is_empty && closing.is_some() {
            return self.close(key);
        }
        // It may have been stopped because it was owed too much.
        if was_owed && is_empty && (peer.is_readable || self.shard.has_input(key)) {
            self.again.push(key);
        }
    }

    fn close(&mut self, key: usize) {
        if let Some(place) = self.connections.get_mut(key)
            && let Some(mut peer) = place.take()
        {
            // A socket that cannot be deregistered is closed by being dropped.
            let _ = self.poll.registry().deregister(&mut peer.connection);
        }
        self.shard.client_gone(key);
    }

    /// Does what clients asked the process for. True if it is to end.
    fn carry_out(&mut self) -> bool {
        let mut is_over = false;
        for order in self.shard.take_orders() {
            match order {
                Order::Shutdown { .. } => is_over = true,
                Order::Follow(address) => self.following.follow(&mut self.shard, address),
                Order::KeepParameters => {
                    let changed = self.shard.changed_parameters();
                    if let Err(error) = kept::keep_settings(&self.dir, &changed) {
                        tracing::error!(%error, "CONFIG REWRITE: the parameters are not kept");
                    }
                }
                Order::Parameter { name, value } => self.set_parameter(name, &value),
            }
        }
        is_over
    }

    fn set_parameter(&mut self, name: &str, value: &str) {
        match name {
            "appendfsync" => {
                if let Some(durability) = Durability::parse(value) {
                    self.keeper.set_durability(durability);
                }
            }
            "repl-backlog-size" => {
                if let Ok(bytes) = value.parse() {
                    self.keeper.set_backlog_bytes(bytes);
                    self.shard.facts().backlog_bytes = bytes;
                }
            }
            "masterauth" | "masteruser" => self.following.set_credentials(&self.shard),
            _ => {}
        }
    }
}
