//! The worker: lists keys, reads them, and tells what they are.
//!
//! ```text
//! subscribed -> Begin -> libraries -> pages, changed keys between them -> CopyEnd -> following
//! ```
//!
//! Two connections: one lists (SCAN), one reads. Either may break and is dialed
//! again; the listener's may not. Invariant: reads of one key follow each other
//! on one connection, so what is told of it never goes back in time.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::resp::Value;

use super::super::compare::{Seen, State};
use super::super::error::{MoveError, Role};
use super::super::keyspace::KeyWalk;
use super::super::link::{Kept, Link, Patience, info_field};
use super::super::marker::Expected;
use super::super::placement::{Place, TargetIndex};
use super::super::reads::{Clock, read_contents, record_of};
use super::super::verify::{batches, sizes};
use super::inbox::{Inbox, KeyIn};
use super::listener::{Hearing, Listener};
use super::memory::{Full, Memory, REMEMBERED_KEYS_MAX, is_quiet};
use super::notices::Notices;
use super::{Shared, WalkConfig, WalkEvent, WalkFigures};

const SELECT: &str = "choose a database (SELECT)";
const LIST_LIBRARIES: &str = "list function libraries (FUNCTION LIST)";
/// Longest time that putting back the old setting may take.
const PUT_BACK_MAX: Duration = Duration::from_secs(3);

/// Why a history is over.
pub(super) enum Break {
    /// Something may have been missed: begin anew.
    Anew(String),
    /// There is no way on.
    Failed(MoveError),
    /// Nobody listens to us any more.
    Left,
}

impl From<MoveError> for Break {
    fn from(error: MoveError) -> Break {
        Break::Failed(error)
    }
}

/// What is told of a key that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It is copied for the first time.
    Copied,
    /// It may have changed.
    Again,
}

pub(super) struct Worker {
    config: WalkConfig,
    out: mpsc::Sender<Result<Vec<WalkEvent>, MoveError>>,
    figures: Shared,
    pub(super) inbox: Arc<Inbox>,
    listening: JoinSet<()>,
    /// Lists.
    walking: Link,
    /// Reads.
    pub(super) link: Link,
    /// The database that `link` is in.
    pub(super) selected: Option<u32>,
    clock: Clock,
    pub(super) memory: Memory,
    /// The number of the pass under way; the copy is the first.
    pub(super) pass: u64,
    /// `None`: repeated passes.
    pub(super) notices: Option<Notices>,
    /// Whether the copy is over.
    pub(super) copied: bool,
    /// Markers that have to wait, in their order.
    pub(super) deferred: Vec<Expected>,
}

impl Worker {
    pub(super) async fn connect(
        config: WalkConfig,
        (inbox, figures): (Arc<Inbox>, Shared),
        out: mpsc::Sender<Result<Vec<WalkEvent>, MoveError>>,
    ) -> Result<Worker, MoveError> {
        let connect = || Link::connect(Role::Source, &config.address, &config.upstream);
        let (walking, mut link) = (connect().await?, connect().await?);
        let info = link.text("read INFO", &[b"INFO", b"server"]).await?;
        let clock = Clock::of_version(info_field(&info, "redis_version").unwrap_or_default());
        Ok(Worker {
            config,
            out,
            figures,
            inbox,
            listening: JoinSet::new(),
            walking,
            link,
            selected: None,
            clock,
            memory: Memory::new(),
            pass: 0,
            notices: None,
            copied: false,
            deferred: Vec::new(),
        })
    }

    /// Works until told to stop or something cannot be overcome.
    pub(super) async fn run(mut self, stopped: oneshot::Receiver<()>) {
        let failed = tokio::select! {
            _ = stopped => None,
            failed = self.histories() => failed,
        };
        if let Some(error) = failed {
            // A source task that ended has its own reason.
            let _ = self.out.send(Err(error)).await;
        }
        self.put_back().await;
    }

    async fn histories(&mut self) -> Option<MoveError> {
        loop {
            let over = match self.history().await {
                Ok(never) => match never {},
                Err(over) => over,
            };
            match over {
                Break::Anew(why) => {
                    tracing::warn!(source = %self.config.address, why, "changes may have been missed: the copy begins anew");
                    self.note(|figures| {
                        figures.interruptions += 1;
                        figures.last_interruption = Some(why);
                    });
                }
                Break::Failed(error) => return Some(error),
                Break::Left => return None,
            }
        }
    }

    async fn history(&mut self) -> Result<Infallible, Break> {
        self.listen().await?;
        self.send(vec![WalkEvent::Begin]).await?;
        let libraries = self.libraries().await?;
        self.send(libraries).await?;
        self.pass += 1;
        self.walk_all(Told::Copied).await?;
        self.copied = true;
        self.send(vec![WalkEvent::CopyEnd]).await?;
        self.follow().await
    }

    /// Begins to listen; what was known before is forgotten.
    async fn listen(&mut self) -> Result<(), Break> {
        self.listening.shutdown().await;
        self.inbox.begin_anew();
        self.deferred.clear();
        self.memory = Memory::new();
        self.copied = false;
        let keep_in = self.config.keep_in.clone();
        let mut patience = Patience::default();
        loop {
            match self.try_to_listen(keep_in.as_deref()).await {
                Ok(listener) => {
                    self.listening.spawn(listener.run());
                    return Ok(());
                }
                Err(error) => self.redial(&mut patience, error).await?,
            }
        }
    }

    async fn try_to_listen(&mut self, keep_in: Option<&Path>) -> Result<Listener, MoveError> {
        let earlier = self.notices.take();
        let switched = Notices::switch_on(&mut self.link, keep_in, earlier).await?;
        let because = switched.as_ref().err().cloned();
        self.note(|figures| figures.passes_because = because);
        self.notices = switched.ok();
        let hearing = Hearing {
            index: self.config.index,
            placement: Arc::clone(&self.config.placement),
            board: self.config.board.clone(),
            inbox: Arc::clone(&self.inbox),
        };
        let form = self.notices.as_ref().map(|notices| notices.form);
        let WalkConfig {
            address, upstream, ..
        } = &self.config;
        Listener::subscribe(address, upstream, form, hearing).await
    }

    /// After `error` on the reading connection.
    pub(super) async fn redial(
        &mut self,
        patience: &mut Patience,
        error: MoveError,
    ) -> Result<(), MoveError> {
        self.link.revive(patience, error).await?;
        self.selected = None;
        Ok(())
    }

    /// Function libraries, where the server has any and lets us see them.
    async fn libraries(&mut self) -> Result<Vec<WalkEvent>, Break> {
        let args: [&[u8]; 3] = [b"FUNCTION", b"LIST", b"WITHCODE"];
        let mut patience = Patience::default();
        let listed = loop {
            match self.link.ask(LIST_LIBRARIES, &args).await {
                Ok(listed) => break listed,
                Err(error) => self.redial(&mut patience, error).await?,
            }
        };
        let Value::Array(libraries) = listed else {
            return Ok(Vec::new());
        };
        let code = |library: &Value| {
            let Value::Array(pairs) = library else {
                return None;
            };
            let at = pairs
                .iter()
                .position(|item| item.as_bytes() == Some(b"library_code"))?;
            let code = pairs.get(at + 1)?.as_bytes()?;
            Some(WalkEvent::Library(Bytes::copy_from_slice(code)))
        };
        Ok(libraries.iter().filter_map(code).collect())
    }

    /// Lists all keys and tells of those that move.
    pub(super) async fn walk_all(&mut self, told: Told) -> Result<(), Break> {
        let mut patience = Patience::default();
        let mut walk = loop {
            match KeyWalk::new(&mut self.walking).await {
                Ok(walk) => break walk,
                Err(error) => self.walking.revive(&mut patience, error).await?,
            }
        };
        loop {
            let page = match walk.next(&mut self.walking).await {
                Ok(Some(page)) => page,
                Ok(None) => return Ok(()),
                Err(error) => {
                    self.walking.revive(&mut patience, error).await?;
                    walk.reconnected();
                    continue;
                }
            };
            patience = Patience::default();
            if told == Told::Copied {
                let scanned = WalkEvent::Scanned(page.keys.len() as u64);
                self.send(vec![scanned]).await?;
            }
            let moving = self.moving(page.db, page.keys);
            self.bring(page.db, moving, told).await?;
            self.between_pages().await?;
        }
    }

    fn moving(&self, db: u32, keys: Vec<Bytes>) -> Vec<(Bytes, TargetIndex)> {
        let WalkConfig {
            placement, index, ..
        } = &self.config;
        let placed = |key: Bytes| match placement.place(*index, db, &key) {
            Place::Moves(target) => Some((key, target)),
            Place::Stays | Place::Stray => None,
        };
        keys.into_iter().filter_map(placed).collect()
    }

    /// Reads keys of any databases and tells of them.
    pub(super) async fn bring_all(&mut self, keys: Vec<KeyIn>) -> Result<(), Break> {
        let mut by_db: BTreeMap<u32, Vec<Bytes>> = BTreeMap::new();
        for (db, key) in keys {
            by_db.entry(db).or_default().push(key);
        }
        for (db, keys) in by_db {
            let moving = self.moving(db, keys);
            self.bring(db, moving, Told::Again).await?;
        }
        Ok(())
    }

    /// Reads keys of one database, a bounded lot at a time, and tells of them.
    async fn bring(
        &mut self,
        db: u32,
        keys: Vec<(Bytes, TargetIndex)>,
        told: Told,
    ) -> Result<(), Break> {
        if keys.is_empty() {
            return Ok(());
        }
        let sizes = self.sizes(db, &keys).await?;
        for (batch, _) in batches(db, keys, &sizes) {
            let keys: Vec<Bytes> = batch.keys.into_iter().map(|(key, _)| key).collect();
            let seen = self.read(db, &keys).await?;
            let mut events = Vec::with_capacity(keys.len());
            for (key, seen) in keys.into_iter().zip(seen) {
                events.extend(self.tell((db, key), seen, told)?);
            }
            self.send(events).await?;
        }
        Ok(())
    }

    async fn sizes(
        &mut self,
        db: u32,
        keys: &[(Bytes, TargetIndex)],
    ) -> Result<Vec<u64>, MoveError> {
        let mut patience = Patience::default();
        loop {
            let sized = async {
                self.select(db).await?;
                sizes(&mut self.link, keys).await
            };
            match sized.await {
                Ok(sizes) => return Ok(sizes),
                Err(error) => self.redial(&mut patience, error).await?,
            }
        }
    }

    async fn read(&mut self, db: u32, keys: &[Bytes]) -> Result<Vec<Seen>, MoveError> {
        let mut patience = Patience::default();
        loop {
            let read = async {
                self.select(db).await?;
                read_contents(&mut self.link, keys, self.clock).await
            };
            match read.await {
                Ok(seen) => return Ok(seen),
                Err(error) => self.redial(&mut patience, error).await?,
            }
        }
    }

    async fn select(&mut self, db: u32) -> Result<(), MoveError> {
        self.keep().await?;
        if self.selected != Some(db) {
            let number = db.to_string();
            self.link
                .call(SELECT, &[b"SELECT", number.as_bytes()])
                .await?;
            self.selected = Some(db);
        }
        Ok(())
    }

    /// Keeps the reading connection alive.
    pub(super) async fn keep(&mut self) -> Result<(), MoveError> {
        if self.link.keep().await? == Kept::Renewed {
            self.selected = None;
        }
        Ok(())
    }

    /// What is to be told of a key, if anything.
    fn tell(&mut self, key: KeyIn, seen: Seen, told: Told) -> Result<Option<WalkEvent>, Break> {
        let State::Here {
            expires_at_ms,
            payload: Some(payload),
        } = seen.state
        else {
            let was_known = self.memory.forget(&key);
            // Listed, and gone before it was read: its end is told by itself.
            let is_told = was_known || (self.notices.is_some() && told == Told::Again);
            let (db, key) = key;
            return Ok(is_told.then_some(WalkEvent::Gone { db, key }));
        };
        let payload = Bytes::from(payload);
        let record = record_of(key.clone(), expires_at_ms, &payload).map_err(|error| {
            let why = format!("the value of a key (db {}): {error}", key.0);
            self.link.answered("read keys (DUMP)", why.as_bytes())
        })?;
        if self.notices.is_none() || is_quiet(&record.raw_value()) {
            let taken = self.memory.take(&key, &payload, expires_at_ms, self.pass);
            if !taken.map_err(|Full| self.too_many())? {
                return Ok(None);
            }
        } else {
            self.memory.forget(&key);
        }
        Ok(Some(match told {
            Told::Copied => WalkEvent::Key(record),
            Told::Again => WalkEvent::Changed(record),
        }))
    }

    fn too_many(&self) -> MoveError {
        MoveError::TooManyToRemember {
            source_server: self.config.address.clone(),
            max: REMEMBERED_KEYS_MAX,
            passes: self.notices.is_none(),
        }
    }

    /// Hands events on, waiting until there is room.
    pub(super) async fn send(&mut self, events: Vec<WalkEvent>) -> Result<(), Break> {
        if events.is_empty() {
            return Ok(());
        }
        self.out.send(Ok(events)).await.map_err(|_| Break::Left)
    }

    pub(super) fn note(&self, change: impl FnOnce(&mut WalkFigures)) {
        change(&mut self.figures.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// On a connection of its own: ours may have been left in mid-reply.
    async fn put_back(&mut self) {
        self.listening.abort_all();
        let Some(notices) = &self.notices else {
            return;
        };
        let WalkConfig {
            address, upstream, ..
        } = &self.config;
        let putting_back = async {
            let mut link = Link::connect(Role::Source, address, upstream).await?;
            notices.put_back(&mut link).await
        };
        let why = match timeout(PUT_BACK_MAX, putting_back).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it took too long".to_owned(),
        };
        tracing::warn!(source = %address, why, "notify-keyspace-events was not put back to what it was before this job");
    }
}
