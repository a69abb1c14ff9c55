//! A master is followed, in turns: what its link brought is loaded, applied and logged.
//!
//! ```text
//!              FullSync                whole: switched, the log begins anew
//! Connecting -----------> Loading -------------------------------------------.
//!    ^  '----------------------------------------> Streaming <---------------'
//!    |          Continues                             |
//!    '---- Lost ---- Refused (what comes is dropped) <' what cannot be loaded or applied
//! ```
//! Invariants: the log has the master's bytes at the master's offsets, and whole units
//! only. What was applied is in the log before the next event is taken.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::store::oplog::Identity;
use crate::store::rows::{DurableTicket, Wake};
use crate::store::scripts::Libraries;
use crate::store::session::{MasterAddress, MasterFacts, Shard};
use crate::store::sync::Replicas;
use crate::store::sync::replica::{
    Credentials, Link, LinkEvent, LinkOptions, Load, Loaded, Position, ReplId, Resynced, Stream,
};

use super::keeping::Keeper;
use super::kept;
use super::knowing;
use super::starting::StartError;

/// Of the stream in one turn: clients are served between.
const STREAM_BYTES_MAX: usize = 1024 * 1024;
/// Of a snapshot in one turn.
const LOAD_BYTES_MAX: usize = 256 * 1024;
/// How often it is looked whether the shard is to end while a snapshot becomes durable.
const DURABLE_LOOK: Duration = Duration::from_millis(100);

#[derive(Debug)]
enum State {
    Connecting,
    Loading {
        load: Box<Load>,
        replid: ReplId,
        offset: u64,
    },
    Streaming(Box<Stream>),
    /// The link was told to give this connection up.
    Refused,
}

/// What is known of the shard's place among others.
pub(super) struct Following {
    dir: PathBuf,
    wake: Wake,
    master: Option<Master>,
}

struct Master {
    address: MasterAddress,
    link: Link,
    state: State,
    /// Since when it is not followed.
    down_since: Instant,
    /// When it was last heard.
    heard_at: Option<Instant>,
    /// Why it was lost, told once.
    told: String,
    /// It asked how far we are.
    is_asked: bool,
    /// The link waits to be told where we are.
    is_position_due: bool,
}

/// What a turn of following needs.
pub(super) struct Around<'a> {
    pub(super) shard: &'a mut Shard,
    pub(super) keeper: &'a mut Keeper,
    pub(super) replicas: &'a mut Replicas,
    /// Whether the shard is to end.
    pub(super) must_end: &'a dyn Fn() -> bool,
}

/// How a turn of following ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Followed {
    /// There is no more to do now.
    All,
    /// There is more.
    Some,
    /// The shard is to end, in the middle of a switch: the engine goes up to this offset.
    EndsAt(u64),
}

impl Following {
    pub(super) fn new(dir: PathBuf, wake: Wake) -> Self {
        Self {
            dir,
            wake,
            master: None,
        }
    }

    /// Follows from now on, and after a restart.
    pub(super) fn follow(&mut self, shard: &mut Shard, address: MasterAddress) {
        self.abandon(shard);
        if let Err(error) = kept::keep_following(&self.dir, Some(&address)) {
            tracing::error!(%error, "whom this shard follows will be forgotten at its end");
        }
        let MasterAddress { host, port } = address.clone();
        let number = |shard: &Shard, name| shard.parameter(name).parse::<u64>().unwrap_or(0);
        let announced = u16::try_from(number(shard, "replica-announce-port")).unwrap_or(0);
        let ip = Some(shard.parameter("replica-announce-ip").to_owned());
        let options = LinkOptions {
            host,
            port,
            credentials: credentials(shard),
            announced_port: match announced {
                0 => shard.facts().tcp_port,
                port => port,
            },
            announced_ip: ip.filter(|ip| !ip.is_empty()),
            timeout: Duration::from_secs(number(shard, "repl-timeout").max(1)),
        };
        tracing::info!(host = %address.host, port = address.port, "following a master");
        match Link::start(options, self.wake.clone()) {
            Ok(link) => {
                self.master = Some(Master {
                    address,
                    link,
                    state: State::Connecting,
                    down_since: Instant::now(),
                    heard_at: None,
                    told: String::new(),
                    is_asked: false,
                    is_position_due: false,
                });
            }
            Err(error) => tracing::error!(%error, "no thread to follow the master with"),
        }
        self.tell(shard);
    }

    /// A history of its own begins at the log's end; kept over a restart.
    pub(super) fn promote(&mut self, shard: &mut Shard, keeper: &mut Keeper) -> Result<(), String> {
        self.abandon(shard);
        kept::keep_following(&self.dir, None).map_err(|error| error.to_string())?;
        keeper.begin_history().map_err(|error| error.to_string())?;
        shard.promotion_done();
        knowing::tell_identity(shard, keeper);
        Ok(())
    }

    fn abandon(&mut self, shard: &mut Shard) {
        if let Some(master) = self.master.take() {
            // The link's thread ends here.
            drop(master.link);
            if let State::Loading { load, .. } = master.state {
                load.abandon(shard.keyspace());
            }
            shard.keyspace().abandon_loading();
        }
    }

    /// The connection to the master is given up, and made anew.
    pub(super) fn cut(&mut self, shard: &mut Shard) {
        if let Some(master) = &mut self.master {
            master.give_up("CLIENT KILL".to_owned(), shard);
        }
        self.tell(shard);
    }

    /// `masterauth` or `masteruser` was set.
    pub(super) fn set_credentials(&self, shard: &Shard) {
        if let Some(master) = &self.master {
            master.link.set_credentials(credentials(shard));
        }
    }

    /// What the log has is acknowledged: at the end of each turn.
    pub(super) fn acknowledge(&mut self, shard: &mut Shard, keeper: &Keeper) {
        let Some(master) = &mut self.master else {
            return;
        };
        // Where we are is where the log ends only if it has all that was applied.
        if !shard.effects().bytes().is_empty() {
            return;
        }
        if std::mem::take(&mut master.is_position_due) {
            master.link.answer(position(keeper));
        }
        if master.is_up() {
            let at_once = std::mem::take(&mut master.is_asked);
            master.link.acknowledge(keeper.end(), at_once);
        }
    }

    /// Takes what came, as much as one turn may.
    pub(super) fn turn(&mut self, around: &mut Around<'_>) -> Result<Followed, StartError> {
        let Some(master) = &mut self.master else {
            return Ok(Followed::All);
        };
        let was_up = master.is_up();
        let mut bytes = 0;
        let followed = loop {
            let max = match &master.state {
                State::Loading { .. } => LOAD_BYTES_MAX,
                _ => STREAM_BYTES_MAX,
            };
            if bytes >= max {
                break Followed::Some;
            }
            let Some(event) = master.link.take() else {
                break Followed::All;
            };
            if let LinkEvent::Bytes(more) = &event {
                bytes += more.len();
            }
            if let Some(ends_at) = master.event(event, around)? {
                break Followed::EndsAt(ends_at);
            }
            // What was applied is kept before more is: a full disk then stops it here.
            if around.shard.effects().bytes().len() >= STREAM_BYTES_MAX {
                break Followed::Some;
            }
        };
        if was_up != master.is_up() {
            self.tell(around.shard);
        }
        Ok(followed)
    }

    /// What INFO and ROLE tell.
    pub(super) fn tell(&self, shard: &mut Shard) {
        let read_offset = shard.facts().repl_offset;
        if let Some(master) = &self.master {
            shard.facts().master = Some(master.facts(read_offset));
        }
    }
}

impl Master {
    fn is_up(&self) -> bool {
        matches!(self.state, State::Streaming(_))
    }

    fn facts(&self, read_offset: u64) -> MasterFacts {
        let seconds = |since: Instant| i64::try_from(since.elapsed().as_secs()).unwrap_or(i64::MAX);
        let is_up = self.is_up();
        MasterFacts {
            host: self.address.host.clone(),
            port: self.address.port,
            state: match self.state {
                State::Connecting => "connecting",
                State::Loading { .. } => "sync",
                State::Streaming(_) => "connected",
                State::Refused => "connect",
            },
            is_up,
            last_io_s: match self.heard_at {
                Some(at) if is_up => seconds(at),
                _ => -1,
            },
            is_syncing: matches!(self.state, State::Loading { .. }),
            down_since_s: seconds(self.down_since),
            read_offset,
        }
    }

    /// What happened; where the shard ends, if it is to end inside a switch.
    fn event(
        &mut self,
        event: LinkEvent,
        around: &mut Around<'_>,
    ) -> Result<Option<u64>, StartError> {
        match event {
            LinkEvent::Asks => self.is_position_due = true,
            LinkEvent::Lost { why } => self.lost(why, around),
            LinkEvent::FullSync { replid, offset } => {
                tracing::info!(offset, "the master sends a snapshot");
                around.shard.keyspace().begin_loading();
                self.link.is_loading();
                self.state = State::Loading {
                    load: Box::new(Load::new(around.shard.build_limits())),
                    replid,
                    offset,
                };
            }
            LinkEvent::Continues { replid } => self.continues(replid, around)?,
            LinkEvent::Bytes(bytes) => {
                self.heard_at = Some(Instant::now());
                return self.bytes(&bytes, around);
            }
        }
        Ok(None)
    }

    fn lost(&mut self, why: String, around: &mut Around<'_>) {
        if self.told != why {
            tracing::warn!(%why, host = %self.address.host, port = self.address.port,
                "the master is not followed now");
            self.told = why;
        }
        if self.is_up() {
            self.down_since = Instant::now();
        }
        if let State::Loading { load, .. } = std::mem::replace(&mut self.state, State::Connecting) {
            load.abandon(around.shard.keyspace());
        }
        around.shard.keyspace().abandon_loading();
    }

    fn continues(
        &mut self,
        replid: Option<ReplId>,
        around: &mut Around<'_>,
    ) -> Result<(), StartError> {
        let identity = around.keeper.identity();
        if let Some(replid) = replid.filter(|replid| *replid != identity.replid) {
            around.replicas.cut_off();
            let end = around.keeper.end();
            around.keeper.set_identity(Identity {
                replid,
                replid2: Some((identity.replid, end)),
            })?;
            knowing::tell_identity(around.shard, around.keeper);
        }
        tracing::info!(offset = around.keeper.end(), "the master's stream goes on");
        self.streams(Stream::new());
        Ok(())
    }

    fn streams(&mut self, stream: Stream) {
        self.state = State::Streaming(Box::new(stream));
        self.told.clear();
        // A master that sent a snapshot waits for it.
        self.is_asked = true;
    }

    fn bytes(&mut self, bytes: &[u8], around: &mut Around<'_>) -> Result<Option<u64>, StartError> {
        match &mut self.state {
            State::Connecting | State::Refused => {}
            State::Streaming(stream) => {
                stream.feed(bytes);
                self.apply(around);
            }
            State::Loading {
                load,
                replid,
                offset,
            } => {
                let (replid, offset) = (*replid, *offset);
                match load.feed(around.shard.keyspace(), bytes) {
                    Ok(None) => {}
                    Ok(Some(loaded)) => {
                        let keys = load.keys();
                        let libraries = match around.shard.libraries_of(&loaded.libraries) {
                            Ok(libraries) => libraries,
                            Err(error) => {
                                self.refuse(error.to_string(), around);
                                return Ok(None);
                            }
                        };
                        if let Some(at) = switch(replid, offset, &loaded, libraries, around)? {
                            return Ok(Some(at));
                        }
                        tracing::info!(keys, offset, "the master's snapshot is loaded");
                        let mut stream = Stream::new();
                        stream.feed(&loaded.stream);
                        self.streams(stream);
                        self.apply(around);
                    }
                    Err(error) => self.refuse(error.to_string(), around),
                }
            }
        }
        Ok(None)
    }

    /// Applies all whole units. What the log is told of them is kept at the turn's end.
    fn apply(&mut self, around: &mut Around<'_>) {
        let State::Streaming(stream) = &mut self.state else {
            return;
        };
        let shard = &mut *around.shard;
        let before = usize::from(around.keeper.selected_db());
        let mut db = shard.effects().selected().unwrap_or(before);
        let refused = loop {
            match stream.next_unit() {
                Ok(None) => break None,
                Ok(Some(unit)) => {
                    match shard.apply(unit.bytes, db) {
                        Ok(selected) => db = selected,
                        Err(error) => break Some(error.to_string()),
                    }
                    self.is_asked |= unit.asks_ack;
                    shard.effects().push_verbatim(unit.bytes, db);
                }
                Err(error) => break Some(error.to_string()),
            }
        };
        if let Some(why) = refused {
            self.refuse(why, around);
        }
    }

    fn refuse(&mut self, why: String, around: &mut Around<'_>) {
        self.give_up(why, around.shard);
    }

    fn give_up(&mut self, why: String, shard: &mut Shard) {
        if self.is_up() {
            self.down_since = Instant::now();
        }
        if let State::Loading { load, .. } = std::mem::replace(&mut self.state, State::Refused) {
            load.abandon(shard.keyspace());
        }
        shard.keyspace().abandon_loading();
        self.link.refuse(why);
    }
}

fn position(keeper: &Keeper) -> Position {
    match (keeper.end(), keeper.has_followed()) {
        (0, false) => Position::Nowhere,
        (offset, _) => Position::At {
            replid: keeper.identity().replid,
            offset,
        },
    }
}

/// What was loaded are the databases now, and the log begins anew at the snapshot's offset.
/// The order in which both become durable is told in `sync/replica/resynced.rs`.
fn switch(
    replid: ReplId,
    offset: u64,
    loaded: &Loaded,
    libraries: Libraries,
    around: &mut Around<'_>,
) -> Result<Option<u64>, StartError> {
    let resynced = Resynced {
        replid,
        offset,
        selected_db: loaded.selected_db,
        history: around.keeper.history(),
    };
    let keyspace = around.shard.keyspace();
    keyspace.replace_libraries(&Shard::texts_of(&libraries))?;
    around.shard.set_libraries(libraries);
    let keyspace = around.shard.keyspace();
    let ticket = keyspace.switch_to_loaded(offset, |rows| resynced.put(rows));
    if !is_durable(ticket, around.must_end)? {
        return Ok(Some(offset));
    }
    let identity = Identity {
        replid,
        replid2: None,
    };
    around.replicas.cut_off();
    around
        .keeper
        .restart(offset, loaded.selected_db, identity)?;
    let shard = &mut *around.shard;
    shard.effects().clear();
    shard.effects().set_selected(None);
    Resynced::forget(shard.keyspace().rows());
    knowing::tell_identity(shard, around.keeper);
    Ok(None)
}

/// Waits for it, unless the shard is to end. Nobody is served meanwhile: it takes what one
/// generation takes to be written and synced.
fn is_durable(mut ticket: DurableTicket, must_end: &dyn Fn() -> bool) -> Result<bool, StartError> {
    loop {
        if ticket.wait(DURABLE_LOOK)? {
            return Ok(true);
        }
        if must_end() {
            return Ok(false);
        }
    }
}

fn credentials(shard: &Shard) -> Credentials {
    let of = |name| Some(shard.parameter(name).to_owned()).filter(|text| !text.is_empty());
    Credentials {
        user: of("masteruser"),
        password: of("masterauth"),
    }
}
