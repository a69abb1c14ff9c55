//! What a shard stands on, opened: the log, the engine, and what the log has beyond it.
//!
//! ```text
//! DIR/log    segments and manifest        DIR/rows    the engine
//!
//!       applied offset of the engine     end of the log
//!  -----------------|--------------------------|        replayed: what is between
//! ```
//! If the log ends before the applied offset (a power loss that the engine survived better),
//! what the engine has is kept, and the log goes on from there under another name.

use std::path::Path;
use std::sync::Arc;

use crate::resp::RequestLimits;
use crate::store::commands::{Settings, Table};
use crate::store::disk::RealFiles;
use crate::store::engine::{EngineOptions, open_lsm};
use crate::store::format::object::id_of_row;
use crate::store::keyspace::Keyspace;
use crate::store::oplog::{Identity, Log, LogError, LogOptions, fresh_replid};
use crate::store::rows::{Rows, RowsOptions, Wake};
use crate::store::session::{FAMILIES, Shard, ShardLimits};
use crate::store::sync::replica::Resynced;

use super::starting::StartError;
use super::times::Times;

/// How a shard shares out the memory it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All of it, in bytes.
    pub bytes: u64,
}

/// Least memory that a shard runs well in.
pub const MEMORY_BYTES_MIN: u64 = 64 << 20;

impl Memory {
    /// The most: a write whose key is not among them looks for it in the tables.
    fn objects(self) -> usize {
        (self.bytes / 8 * 3) as usize
    }

    fn rows(self) -> usize {
        (self.bytes / 8) as usize
    }

    /// The system caches them, too.
    fn blocks(self) -> u64 {
        self.bytes / 16
    }

    fn overlay(self) -> usize {
        (self.bytes / 4).min(256 << 20) as usize
    }

    fn memtable(self) -> u64 {
        (self.bytes / 20).min(32 << 20)
    }
}

pub(super) struct Opened {
    pub(super) shard: Shard,
    pub(super) log: Log,
    pub(super) times: Times,
}

pub(super) fn open(
    dir: &Path,
    memory: Memory,
    backlog_bytes: u64,
    settings: Settings,
    wake: Wake,
    now_ms: u64,
    is_replica: bool,
) -> Result<Opened, StartError> {
    let log_options = LogOptions {
        retain_bytes: backlog_bytes,
        ..LogOptions::default()
    };
    let opened = Log::open(Arc::new(RealFiles), &dir.join("log"), log_options)?;
    let mut log = opened.log;
    if let Some(lost) = &opened.lost_tail {
        tracing::warn!(?lost, "the log's end was torn by a crash, and cut");
    }
    let engine_options = EngineOptions {
        cache_bytes: memory.blocks(),
        memtable_bytes: memory.memtable(),
        ..EngineOptions::default()
    };
    let engine = open_lsm(&dir.join("rows"), &engine_options)
        .map_err(crate::store::rows::StoreError::from)?;
    let overlay = memory.overlay();
    let usual = RowsOptions::new(id_of_row);
    let rows_options = RowsOptions {
        overlay_bytes_max: overlay,
        freeze_bytes: usual.freeze_bytes.min(overlay / 4),
        freeze_busy_bytes: usual.freeze_busy_bytes.min(overlay / 2),
        cache_bytes: memory.rows(),
        wake: Some(wake),
        ..usual
    };
    let mut rows = Rows::open(Arc::new(engine), rows_options)?;
    finish_resync(&mut rows, &mut log)?;
    let applied = rows.applied_offset();
    let keyspace = Keyspace::open(rows, memory.objects())?;
    let limits = ShardLimits {
        request: RequestLimits::default(),
    };
    let mut shard = Shard::new(keyspace, Table::new(FAMILIES), settings, limits);
    shard.set_now_ms(now_ms);
    let times = Times::open(dir).map_err(|cause| StartError::Times {
        dir: dir.to_owned(),
        cause,
    })?;
    shard.load_libraries()?;
    if applied > log.end() {
        tracing::warn!(
            log_end = log.end(),
            applied,
            "the log lost what the engine kept: it goes on from there, with another replication id"
        );
        let identity = Identity {
            replid: fresh_replid(),
            replid2: Some((log.identity().replid, log.end())),
        };
        log.restart_at(applied, identity)?;
    } else {
        replay(&mut shard, &log, applied, &times, now_ms)?;
        // A replica goes on in its master's history: what was lost comes again.
        if !opened.is_clean && !is_replica {
            log.begin_history()?;
        }
    }
    Ok(Opened { shard, log, times })
}

/// A snapshot of a master was switched to, and the log did not begin anew behind it.
fn finish_resync(rows: &mut Rows, log: &mut Log) -> Result<(), StartError> {
    let Some(resynced) = Resynced::read(rows)? else {
        return Ok(());
    };
    if resynced.history == log.history() {
        let identity = Identity {
            replid: resynced.replid,
            replid2: None,
        };
        log.restart_in(resynced.offset, resynced.selected_db, identity)?;
    }
    Resynced::forget(rows);
    Ok(())
}

fn replay(
    shard: &mut Shard,
    log: &Log,
    from: u64,
    times: &Times,
    now_ms: u64,
) -> Result<(), StartError> {
    if from < log.start() {
        return Err(StartError::LogBegins {
            start: log.start(),
            applied: from,
        });
    }
    let mut replayed = 0;
    log.replay(from, &mut |offset, frame, db_before| {
        replayed += frame.len() as u64;
        shard.set_now_ms(times.at(offset).unwrap_or(now_ms));
        shard
            .apply(frame, db_before.into())
            .map_err(|cause| StartError::Replay { offset, cause })?;
        shard.keyspace().freeze_if_due(offset + frame.len() as u64);
        Ok::<(), StartError>(())
    })?;
    shard.set_now_ms(now_ms);
    shard.take_relative_times();
    if replayed > 0 {
        tracing::info!(
            bytes = replayed,
            "what the log has beyond the engine was applied"
        );
    }
    Ok(())
}

impl From<LogError> for StartError {
    fn from(error: LogError) -> Self {
        StartError::Log(error)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::format::object::{Object, StringStored, StringValue, Value, Written};

    fn opened(dir: &Path) -> Opened {
        let memory = Memory {
            bytes: MEMORY_BYTES_MIN,
        };
        let (wake, is_replica): (Wake, bool) = (Arc::new(|| {}), true);
        let settings = Settings::default();
        open(dir, memory, 1 << 20, settings, wake, 1_000, is_replica).expect("opens")
    }

    fn object() -> Object {
        let value = Value::String(StringValue {
            stored: StringStored::Whole(bytes::Bytes::from_static(b"1")),
            written: Written::Whole,
        });
        Object {
            expires_at_ms: None,
            value,
        }
    }

    /// The process ends between the two steps of a switch; twice, for good measure.
    #[test]
    fn a_switch_that_a_crash_cut_in_two_is_finished() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        let resynced = |log: &Log| Resynced {
            replid: [b'a'; 40],
            offset: 3,
            selected_db: 5,
            history: log.history(),
        };
        let Opened {
            mut shard, mut log, ..
        } = opened(dir);
        shard.keyspace().put(0, b"old", object()).expect("put");
        let old = b"*3\r\n$3\r\nSET\r\n$3\r\nold\r\n$1\r\n1\r\n";
        log.append(old, 0).expect("appended");
        let keyspace = shard.keyspace();
        keyspace.begin_loading();
        keyspace.load(1, b"new", &object());
        let row = resynced(&log);
        let mut ticket = keyspace.switch_to_loaded(3, |rows| row.put(rows));
        while !ticket.wait(Duration::from_secs(1)).expect("no failure") {}
        drop((shard, log));
        for _ in 0..2 {
            let Opened { mut shard, log, .. } = opened(dir);
            assert_eq!((log.start(), log.end(), log.selected_db()), (3, 3, 5));
            assert_eq!(log.identity().replid, [b'a'; 40]);
            assert_eq!(shard.keyspace().key_count(0), 0);
            assert_eq!(shard.keyspace().key_count(1), 1);
            // Not closed: the row is there the next time, and the log began anew by then.
        }
        let Opened { shard, mut log, .. } = opened(dir);
        log.append(old, 0).expect("appended");
        let end = log.end();
        shard.into_keyspace().close(3).expect("closed");
        drop(log);
        let Opened { mut shard, log, .. } = opened(dir);
        assert_eq!(log.end(), end, "what came behind the switch stays");
        assert_eq!(
            shard.keyspace().key_count(5),
            1,
            "in the database that was selected"
        );
    }

    /// A master before Redis 7 tells how long, not until when.
    #[test]
    fn a_relative_time_of_a_master_is_not_renewed_by_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        let Opened {
            log: mut old,
            mut times,
            ..
        } = opened(dir);
        let said = [
            &b"*4\r\n$5\r\nSETEX\r\n$1\r\na\r\n$2\r\n10\r\n$1\r\n1\r\n"[..],
            b"*4\r\n$5\r\nSETEX\r\n$1\r\nb\r\n$2\r\n10\r\n$1\r\n1\r\n",
        ];
        for (frame, came_ms) in said.into_iter().zip([200, 700]) {
            times.note(old.end(), came_ms, 0, false).expect("noted");
            old.append(frame, 0).expect("appended");
        }
        drop(old);
        let Opened { mut shard, .. } = opened(dir);
        for (key, ends_ms) in [(b"a", 10_200), (b"b", 10_700)] {
            let found = shard
                .keyspace()
                .lookup(0, key)
                .expect("read")
                .expect("there");
            assert_eq!(found.expires_at_ms, Some(ends_ms));
        }
        assert_eq!(shard.keyspace().now_ms(), 1_000);
    }
}
