//! The link to a master: a thread that dials, asks, reads, and dials again.
//!
//! ```text
//!           .------ waits a while, longer each time <------ Lost ------.
//!           v                                                          |
//! dial -> introduce -> Asks -> position -> PSYNC -> FullSync, Continues -> Bytes ..
//! ```
//! Invariants: events come to the executor in the order in which they happened, and at most
//! [`QUEUE_BYTES_MAX`] of them wait there. It is asked for its position when it has taken
//! all that an earlier connection brought.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Poll, Waker};

use crate::resp::write_command;
use crate::store::rows::Wake;

use super::super::resolve;
use super::ReplId;
use super::handshake::{Announced, ask_for_stream, introduce};
use super::wire::{self, Ended, Wire};

/// Bytes that wait for the executor; beyond it nothing is read.
pub const QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Until a master that cannot be reached is given up for now.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Until a name that the system does not resolve is given up for now.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Waits between two tries: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How often a master hears from us.
const VOICE_EVERY: Duration = Duration::from_secs(1);

/// What a master asks for first.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// `masteruser`.
    pub user: Option<String>,
    /// `masterauth`.
    pub password: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// Whom a link follows, and how.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// Name or IP address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What it asks for.
    pub credentials: Credentials,
    /// Where this shard says that it listens.
    pub announced_port: u16,
    /// If it is to be reached at another address than it connects from.
    pub announced_ip: Option<String>,
    /// A master that says nothing for as long is lost: `repl-timeout`.
    pub timeout: Duration,
}

/// Where the stream is to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// At its beginning: nothing is known of any history.
    Nowhere,
    /// Behind what is known of one.
    At {
        /// Of this history.
        replid: ReplId,
        /// Everything up to here is known.
        offset: u64,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// The master wants to know from where: [`Link::answer`].
    Asks,
    /// A snapshot comes, then the stream behind it.
    FullSync {
        /// The master's history.
        replid: ReplId,
        /// Where the snapshot stands in it.
        offset: u64,
    },
    /// The stream comes, from the position that was asked for.
    Continues {
        /// The history has this name from there on.
        replid: Option<ReplId>,
    },
    /// More of the snapshot or the stream.
    Bytes(Vec<u8>),
    /// The connection is over; the next one is dialled.
    Lost {
        /// Why.
        why: String,
    },
}

/// What a master hears each second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Voice {
    Silence,
    /// We are still loading.
    Newline,
    /// We have everything up to here.
    Acknowledge(u64),
}

struct Board {
    events: VecDeque<LinkEvent>,
    bytes: usize,
    position: Option<Position>,
    voice: Voice,
    is_voice_due: bool,
    refused: Option<String>,
    credentials: Credentials,
    is_stopped: bool,
}

pub(super) struct Shared {
    board: Mutex<Board>,
    /// Wakes the link.
    waker: Waker,
    /// Wakes the executor.
    wake: Wake,
}

impl Shared {
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn check(&self) -> Result<(), Ended> {
        let mut board = self.board();
        if board.is_stopped {
            return Err(Ended::Stopped);
        }
        match board.refused.take() {
            Some(why) => Err(Ended::Refused(why)),
            None => Ok(()),
        }
    }

    fn push(&self, event: LinkEvent) {
        let mut board = self.board();
        if let LinkEvent::Bytes(bytes) = &event {
            board.bytes += bytes.len();
        }
        board.events.push_back(event);
        drop(board);
        (self.wake)();
    }

    fn wake_link(&self) {
        // The link looks by itself once a second if it cannot be woken.
        let _ = self.waker.wake();
    }
}

/// The executor's side. Dropped, the thread is ended and waited for.
pub struct Link {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    /// Begins to follow; `wake` is called for each event.
    ///
    /// # Errors
    /// If the system refuses a thread or a poll.
    pub fn start(options: LinkOptions, wake: Wake) -> io::Result<Self> {
        let (poll, waker) = wire::poll()?;
        let shared = Arc::new(Shared {
            board: Mutex::new(Board {
                events: VecDeque::new(),
                bytes: 0,
                position: None,
                voice: Voice::Silence,
                is_voice_due: false,
                refused: None,
                credentials: options.credentials.clone(),
                is_stopped: false,
            }),
            waker,
            wake,
        });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("master link".to_owned())
            .spawn(move || run(poll, &of_thread, &options))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// The next event, each once.
    pub fn take(&self) -> Option<LinkEvent> {
        let mut board = self.shared.board();
        let event = board.events.pop_front()?;
        if let LinkEvent::Bytes(bytes) = &event {
            let was_full = board.bytes >= QUEUE_BYTES_MAX;
            board.bytes -= bytes.len();
            if was_full && board.bytes < QUEUE_BYTES_MAX {
                drop(board);
                self.shared.wake_link();
            }
        }
        Some(event)
    }

    /// Whether [`Link::take`] has something.
    pub fn has_events(&self) -> bool {
        !self.shared.board().events.is_empty()
    }

    /// Answers [`LinkEvent::Asks`].
    pub fn answer(&self, position: Position) {
        self.shared.board().position = Some(position);
        self.shared.wake_link();
    }

    /// The executor has everything up to this offset; `at_once` if the master asked.
    pub fn acknowledge(&self, offset: u64, at_once: bool) {
        let mut board = self.shared.board();
        board.voice = Voice::Acknowledge(offset);
        if at_once {
            board.is_voice_due = true;
            drop(board);
            self.shared.wake_link();
        }
    }

    /// A snapshot is being loaded: the master is told that we live.
    pub fn is_loading(&self) {
        self.shared.board().voice = Voice::Newline;
    }

    /// This connection leads nowhere: another one is made, after a while.
    pub fn refuse(&self, why: String) {
        self.shared.board().refused = Some(why);
        self.shared.wake_link();
    }

    /// For the next connection.
    pub fn set_credentials(&self, credentials: Credentials) {
        self.shared.board().credentials = credentials;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.board().is_stopped = true;
        self.shared.wake_link();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the link to the master panicked");
        }
    }
}

fn run(mut poll: Poll, shared: &Shared, options: &LinkOptions) {
    let mut retry = RETRY.0;
    loop {
        let mut has_followed = false;
        let why = match attach(&mut poll, shared, options, &mut has_followed) {
            Ended::Stopped => return,
            why => why,
        };
        if has_followed && !matches!(why, Ended::Refused(_)) {
            retry = RETRY.0;
        }
        shared.board().voice = Voice::Silence;
        shared.push(LinkEvent::Lost {
            why: why.to_string(),
        });
        if rest(&mut poll, shared, retry).is_err() {
            return;
        }
        retry = (retry * 2).min(RETRY.1);
    }
}

/// Waits, unless the link is stopped.
fn rest(poll: &mut Poll, shared: &Shared, wait: Duration) -> Result<(), Ended> {
    let until = Instant::now() + wait;
    let mut events = mio::Events::with_capacity(4);
    loop {
        // What was refused is over by now.
        if let Err(Ended::Stopped) = shared.check() {
            return Err(Ended::Stopped);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        if let Err(error) = poll.poll(&mut events, Some(left))
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error.into());
        }
    }
}

fn attach(
    poll: &mut Poll,
    shared: &Shared,
    options: &LinkOptions,
    has_followed: &mut bool,
) -> Ended {
    let followed = dial(poll, shared, options).and_then(|mut wire| {
        let credentials = shared.board().credentials.clone();
        let announced = Announced {
            port: options.announced_port,
            ip: options.announced_ip.clone(),
        };
        introduce(&mut wire, &credentials, &announced)?;
        shared.board().position = None;
        shared.push(LinkEvent::Asks);
        let position = position(&mut wire, shared)?;
        let event = ask_for_stream(&mut wire, &position)?;
        *has_followed = true;
        shared.push(event);
        follow(&mut wire, shared, options.timeout)
    });
    match followed {
        Ok(never) => match never {},
        Err(ended) => ended,
    }
}

fn dial<'a>(
    poll: &'a mut Poll,
    shared: &'a Shared,
    options: &LinkOptions,
) -> Result<Wire<'a>, Ended> {
    let address = address(shared, options)?;
    Wire::dial(poll, shared, address, DIAL_TIMEOUT, options.timeout)
}

fn address(shared: &Shared, options: &LinkOptions) -> Result<SocketAddr, Ended> {
    let is_wanted = || !shared.board().is_stopped;
    resolve(&options.host, options.port, RESOLVE_TIMEOUT, &is_wanted).map_err(|cause| {
        let at = format!("{}:{}", options.host, options.port);
        match is_wanted() {
            true => Ended::Dial { at, cause },
            false => Ended::Stopped,
        }
    })
}

fn position(wire: &mut Wire<'_>, shared: &Shared) -> Result<Position, Ended> {
    loop {
        if let Some(position) = shared.board().position.take() {
            return Ok(position);
        }
        // The executor may have much to do before.
        wire.wait(Instant::now() + VOICE_EVERY)?;
        wire.read_at = Instant::now();
    }
}

fn follow(
    wire: &mut Wire<'_>,
    shared: &Shared,
    timeout: Duration,
) -> Result<std::convert::Infallible, Ended> {
    let mut spoke_at = Instant::now();
    loop {
        let has_room = shared.board().bytes < QUEUE_BYTES_MAX;
        let read = match has_room {
            true => wire.read()?,
            false => None,
        };
        let has_read = read.is_some();
        if let Some(bytes) = read {
            shared.push(LinkEvent::Bytes(bytes));
        }
        if spoke_at.elapsed() >= VOICE_EVERY || shared.board().is_voice_due {
            spoke_at = Instant::now();
            speak(wire, shared)?;
        }
        wire.flush()?;
        if has_read {
            shared.check()?;
            continue;
        }
        if !has_room {
            wire.read_at = Instant::now();
        } else if wire.read_at.elapsed() >= timeout {
            return Err(Ended::Silent(timeout));
        }
        wire.wait(spoke_at + VOICE_EVERY)?;
    }
}

fn speak(wire: &mut Wire<'_>, shared: &Shared) -> Result<(), Ended> {
    let voice = {
        let mut board = shared.board();
        board.is_voice_due = false;
        board.voice
    };
    match voice {
        Voice::Silence => Ok(()),
        Voice::Newline => wire.send(b"\n"),
        Voice::Acknowledge(offset) => {
            let mut request = Vec::new();
            let offset = offset.to_string();
            write_command(&mut request, &[b"REPLCONF", b"ACK", offset.as_bytes()]);
            wire.send(&request)
        }
    }
}
