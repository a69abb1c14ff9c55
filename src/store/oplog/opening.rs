//! Opening a log, or making one.
//!
//! ```text
//! no manifest: first segment, synced -> manifest -> ready
//! manifest:    recover -> what was found is settled, what was cut is put aside
//!              -> manifest with the next incarnation -> ready
//! ```
//! A crash between any two of these leaves what the same opening can take up.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::error::LogError;
use super::layout::{FRAMES_AT, SegmentHeader};
use super::manifest::{Identity, Manifest, manifest_path};
use super::recovery::{Recovered, recover};
use super::segment::{Place, Segment, WINDOW_BYTES, Window};
use super::shared::Shared;
use super::spares::{Spares, segment_name, segment_number, spare_number};
use super::sync::sync_names;
use super::{Log, LogOptions, Opened, PREPARE_FACTOR, SEGMENT_BYTES_MIN};
use crate::store::disk::{DirLock, Files, read_full_at, write_all_at};

impl Log {
    /// Opens the log in `dir`, or makes one.
    ///
    /// A tail that a crash left is cut at the first frame that is not whole. Where it can be
    /// told that this frame was synced once, that is damage, and an error that names file
    /// and offset.
    ///
    /// # Errors
    /// [`LogError`]; nothing was changed that another try could not take up.
    pub fn open(
        files: Arc<dyn Files>,
        dir: &Path,
        options: LogOptions,
    ) -> Result<Opened, LogError> {
        let segment_bytes = options.segment_bytes.max(SEGMENT_BYTES_MIN);
        let options = LogOptions {
            segment_bytes: segment_bytes.next_multiple_of(FRAMES_AT),
            ..options
        };
        let failed = |doing| {
            move |source| LogError::Io {
                file: dir.to_path_buf(),
                doing,
                source,
            }
        };
        files.create_dir(dir).map_err(failed("made"))?;
        if let Some(parent) = dir.parent().filter(|parent| parent.file_name().is_some()) {
            files.sync_dir(parent).map_err(failed("synced"))?;
        }
        let lock = files.lock(dir).map_err(|source| {
            if source.kind() == io::ErrorKind::WouldBlock {
                LogError::InUse {
                    dir: dir.to_path_buf(),
                }
            } else {
                failed("locked")(source)
            }
        })?;
        let names = files.list(dir).map_err(failed("listed"))?;
        match Manifest::read(&*files, dir)? {
            Some(manifest) => reopen(files, dir, options, &names, manifest, lock),
            None => make(files, dir, options, &names, lock),
        }
    }
}

fn make(
    files: Arc<dyn Files>,
    dir: &Path,
    options: LogOptions,
    names: &[String],
    lock: DirLock,
) -> Result<Opened, LogError> {
    refuse_without_manifest(&*files, dir, names)?;
    let manifest = Manifest {
        identity: Identity::fresh(),
        salt: fastrand::u64(..),
        incarnation: 1,
        first_sequence: 1,
        base: 0,
        clean_end: None,
    };
    let shared = Shared::new(files, dir, manifest.seed(), [].into(), 0);
    remove_spares(&shared, names)?;
    // Short, so that a new shard does not begin with writing zeros for long; the next one
    // is ready when this one is full.
    let first_bytes = (options.segment_bytes / PREPARE_FACTOR).max(SEGMENT_BYTES_MIN);
    let first_bytes = first_bytes.next_multiple_of(FRAMES_AT);
    let segment = first_segment(&shared, &manifest, first_bytes)?;
    sync_names(&shared, 0)?;
    manifest.write(&*shared.files, dir)?;
    shared.segments().push_back(segment.clone());
    let at = segment.first().at;
    Ok(Opened {
        log: Log {
            shared: Arc::new(shared),
            options,
            manifest,
            active: segment,
            at,
            db: 0,
            // The first one is begun with the first frames.
            spares: Spares::new(options.segment_bytes, 0),
            unprepared_bytes: 0,
            _lock: lock,
        },
        is_clean: true,
        is_new: true,
        lost_tail: None,
    })
}

fn first_segment(
    shared: &Shared,
    manifest: &Manifest,
    bytes: u64,
) -> Result<Arc<Segment>, LogError> {
    let path = shared
        .dir
        .join(segment_name(manifest.first_sequence, manifest.incarnation));
    let failed = |doing| {
        let path = path.clone();
        move |source| shared.write_failed(&path, doing, source)
    };
    let file = shared.files.create(&path).map_err(failed("created"))?;
    let header = SegmentHeader {
        sequence: manifest.first_sequence,
        base: manifest.base,
        durable: 0,
        incarnation: manifest.incarnation,
        db: 0,
    };
    let head = header.encode(shared.seed);
    let zeros = vec![0; bytes as usize - head.len()];
    let mut parts = [io::IoSlice::new(&head), io::IoSlice::new(&zeros)];
    write_all_at(&*file, &mut parts, 0).map_err(failed("filled"))?;
    file.sync_data()
        .map_err(|source| shared.sync_failed(&path, source))?;
    Ok(Arc::new(Segment::new(
        manifest.first_sequence,
        manifest.base,
        path,
        file,
        bytes,
    )))
}

/// A log is made in two steps, the manifest last: a segment without one is the first, and
/// empty. Frames without a manifest are a log whose manifest was lost.
fn refuse_without_manifest(
    files: &dyn Files,
    dir: &Path,
    names: &[String],
) -> Result<(), LogError> {
    for name in names {
        let Some((sequence, _)) = segment_number(name) else {
            continue;
        };
        let path = dir.join(name);
        let mut begin = [0; 8];
        let read = files
            .open(&path)
            .and_then(|file| read_full_at(&*file, &mut begin, FRAMES_AT));
        read.map_err(|source| LogError::Io {
            file: path,
            doing: "read",
            source,
        })?;
        if sequence != 1 || begin != [0; 8] {
            return Err(LogError::ManifestDamaged {
                file: manifest_path(dir),
                what: "it is missing, though there are segments of a log",
            });
        }
    }
    Ok(())
}

fn remove_spares(shared: &Shared, names: &[String]) -> Result<(), LogError> {
    for name in names.iter().filter(|name| spare_number(name).is_some()) {
        let path = shared.dir.join(name);
        shared
            .files
            .remove(&path)
            .map_err(|source| shared.write_failed(&path, "removed", source))?;
    }
    Ok(())
}

fn reopen(
    files: Arc<dyn Files>,
    dir: &Path,
    options: LogOptions,
    names: &[String],
    manifest: Manifest,
    lock: DirLock,
) -> Result<Opened, LogError> {
    let Recovered {
        segments,
        end,
        db,
        lost_tail,
        dropped,
        durable,
    } = recover(&*files, dir, names, &manifest)?;
    let is_clean = manifest.clean_end == Some(end.offset);
    let Some(active) = segments.back().cloned() else {
        return Err(LogError::ManifestDamaged {
            file: manifest_path(dir),
            what: "no segment belongs to it",
        });
    };
    let unsynced: Vec<_> = segments
        .iter()
        .filter(|segment| segment.sealed.get().is_none_or(|sealed| *sealed > durable))
        .cloned()
        .collect();
    let shared = Shared::new(files, dir, manifest.seed(), segments, end.offset);
    if !is_clean {
        for segment in unsynced {
            settle(&shared, &segment, durable, end)?;
        }
    }
    let spares = take_spares(&shared, options, names, &manifest, dropped)?;
    let changed = shared.unsynced().names_changed;
    sync_names(&shared, changed)?;
    let next = Manifest {
        incarnation: manifest.incarnation.saturating_add(1),
        clean_end: None,
        ..manifest
    };
    next.write(&*shared.files, dir)?;
    let Place { at, .. } = end;
    Ok(Opened {
        log: Log {
            shared: Arc::new(shared),
            options,
            manifest: next,
            active,
            at,
            db,
            spares,
            unprepared_bytes: 0,
            _lock: lock,
        },
        is_clean,
        is_new: false,
        lost_tail,
    })
}

/// Makes durable what was read of `segment` from offset `durable` on. It may stand in memory
/// only, and count as written there, if a sync failed before the process was restarted: so
/// it is written once more, each byte over itself.
fn settle(shared: &Shared, segment: &Segment, durable: u64, end: Place) -> Result<(), LogError> {
    let seed = shared.seed;
    let sealed = segment.sealed.get().copied().unwrap_or(end.offset);
    let mut at = if durable <= segment.base {
        0
    } else if durable < sealed {
        segment.seek(durable, seed)?.at
    } else {
        segment.capacity
    };
    let until = if segment.sealed.get().is_some() {
        segment.capacity
    } else {
        end.at
    };
    let mut window = Window::default();
    while at < until {
        let bytes = window.bytes(segment, at, (until - at).min(WINDOW_BYTES as u64) as usize)?;
        if bytes.is_empty() {
            break;
        }
        write_all_at(&*segment.file, &mut [io::IoSlice::new(bytes)], at)
            .map_err(|source| shared.write_failed(&segment.path, "written", source))?;
        at += bytes.len() as u64;
    }
    segment
        .file
        .sync_data()
        .map_err(|source| shared.sync_failed(&segment.path, source))
}

/// Puts aside what is no segment of the log: spares, segments behind its end, those of a
/// history that ended or did not begin, a manifest that was not finished.
fn take_spares(
    shared: &Shared,
    options: LogOptions,
    names: &[String],
    manifest: &Manifest,
    dropped: Vec<Arc<Segment>>,
) -> Result<Spares, LogError> {
    let next = names.iter().filter_map(|name| spare_number(name)).max();
    let mut spares = Spares::new(
        options.segment_bytes,
        next.map_or(0, |number| number.saturating_add(1)),
    );
    for name in names {
        let path = shared.dir.join(name);
        let is_foreign = segment_number(name).is_some_and(|number| !manifest.knows(number));
        if spare_number(name).is_some() {
            spares.adopt(shared, &path)?;
        } else if is_foreign || Manifest::is_leftover(name) {
            shared
                .files
                .remove(&path)
                .map_err(|source| shared.write_failed(&path, "removed", source))?;
            shared.unsynced().names_changed += 1;
        }
    }
    for segment in dropped {
        spares.retire(shared, segment).map_err(|(_, error)| error)?;
    }
    Ok(spares)
}
