//! A shard opened without being served: to be filled from a backup, or to be looked at.
//!
//! It is what a start and a stop make of it: what the log has beyond the engine is applied,
//! and at the end both are closed in order. Dropped instead, it is left as by a crash.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use mio::{Poll, Waker};

use crate::store::commands::Settings;
use crate::store::disk::RealFiles;
use crate::store::engine::EngineError;
use crate::store::keyspace::Keyspace;
use crate::store::kinds::build::BuildLimits;
use crate::store::oplog::Log;
use crate::store::rows::StoreError;
use crate::store::session::{KeptTexts, Shard};

use super::keeping::{Durability, Keeper};
use super::kept;
use super::knowing::{self, unix_ms};
use super::network::WAKER;
use super::opening::{self, Memory};
use super::sockets::ListenAt;
use super::starting::{StartError, StoreOptions};

/// A file of this name is in a directory whose restore did not come to its end.
pub const RESTORING: &str = "restoring";

/// The applier's end of work is looked for this often, if it does not tell.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// See the head of the file.
#[derive(Debug)]
pub struct Apart {
    dir: PathBuf,
    shard: Shard,
    log: Log,
    woken: Receiver<()>,
}

impl Apart {
    /// Opens what is in `dir`, or makes it.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn open(dir: &Path, memory_bytes: u64, backlog_bytes: u64) -> Result<Self, StartError> {
        let (wake, woken) = sync_channel(1);
        let memory = Memory {
            bytes: memory_bytes.max(opening::MEMORY_BYTES_MIN),
        };
        let opening::Opened { shard, log, .. } = opening::open(
            dir,
            memory,
            backlog_bytes,
            Settings::default(),
            Arc::new(move || {
                // It is looked at without being told, too.
                let _ = wake.try_send(());
            }),
            unix_ms(),
            kept::following(dir)?.flatten().is_some(),
        )?;
        Ok(Self {
            dir: dir.to_owned(),
            shard,
            log,
            woken,
        })
    }

    /// The databases.
    pub fn keyspace(&mut self) -> &mut Keyspace {
        self.shard.keyspace()
    }

    /// What collections from a snapshot look like here.
    pub fn build_limits(&self) -> BuildLimits {
        self.shard.build_limits()
    }

    /// Keeps the function libraries of these texts and no others.
    ///
    /// # Errors
    /// One cannot be loaded, or the rows cannot be read.
    pub fn replace_libraries(&mut self, texts: &[Bytes]) -> Result<(), StartError> {
        let libraries = self.shard.libraries_of(texts)?;
        let texts = Shard::texts_of(&libraries);
        self.shard.keyspace().replace_libraries(&texts)?;
        self.shard.set_libraries(libraries);
        Ok(())
    }

    /// Keeps settings and users beside the data, as CONFIG REWRITE does.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn keep(&self, texts: &KeptTexts) -> Result<(), StartError> {
        Ok(kept::keep(&RealFiles, &self.dir, texts)?)
    }

    /// Takes them on as a start does; what they are.
    ///
    /// # Errors
    /// They cannot be read, or a shard cannot have them.
    pub fn load_kept(&mut self) -> Result<KeptTexts, StartError> {
        kept::load(&mut self.shard, &self.dir)
    }

    /// Where the log ends.
    pub fn log_end(&self) -> u64 {
        self.log.end()
    }

    /// Waits until the overlay has room for more.
    ///
    /// # Errors
    /// The rows cannot be written: among others, since the disk is full.
    pub fn make_room(&mut self) -> Result<(), StoreError> {
        let end = self.log.end();
        loop {
            self.shard.keyspace().freeze_if_due(end);
            self.check_rows()?;
            if !self.shard.keyspace().rows().is_full() {
                return Ok(());
            }
            let _ = self.woken.recv_timeout(LOOK_EVERY);
        }
    }

    /// # Errors
    /// The rows cannot be written, and somebody has to do something about it.
    pub fn check_rows(&mut self) -> Result<(), StoreError> {
        let rows = self.shard.keyspace().rows();
        if let Some(error) = rows.failure() {
            return Err(error);
        }
        match rows.waits_for() {
            Some(error @ EngineError::NoSpace { .. }) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// What cannot be written.
    pub fn close(self) -> Result<(), StartError> {
        self.shard.into_keyspace().close(self.log.end())?;
        self.log.close().map_err(StartError::Log)
    }
}

/// What INFO tells of a shard that nobody serves. Its directory is opened for it as a start
/// does, and closed again.
///
/// # Errors
/// [`StartError`]: among others, somebody serves it.
pub fn info_of(options: &StoreOptions) -> Result<String, StartError> {
    check_is_whole(&options.dir)?;
    let apart = Apart::open(&options.dir, options.memory_bytes, options.backlog_bytes)?;
    let Apart { mut shard, log, .. } = apart;
    let poll = Poll::new().map_err(StartError::Poll)?;
    let waker = Waker::new(poll.registry(), WAKER).map_err(StartError::Poll)?;
    let keeper = Keeper::new(log, Durability::No, Arc::new(waker))?;
    let nowhere: &[ListenAt] = &[];
    knowing::begin(&mut shard, options, nowhere);
    knowing::look(&mut shard, &keeper);
    let text = shard.info_text();
    shard.into_keyspace().close(keeper.end())?;
    keeper.close()?;
    Ok(text)
}

/// # Errors
/// [`StartError::HalfRestored`].
pub(super) fn check_is_whole(dir: &Path) -> Result<(), StartError> {
    let mark = dir.join(RESTORING);
    match mark.symlink_metadata() {
        Ok(_) => Err(StartError::HalfRestored {
            dir: dir.to_owned(),
        }),
        // What else is wrong there is met by who opens it.
        Err(_) => Ok(()),
    }
}
