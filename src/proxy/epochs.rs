//! What a pool remembers across restarts: its epoch, its layout, and a switch
//! that was staged and not decided.
//!
//! One JSON file for each pool in `state_dir` (drawn in docs/formats.md):
//! `pool-<name>.json`, replaced whole: written beside, synced, renamed, and the
//! directory synced.
//!
//! Invariant: after [`EpochFile::save`] returned, a restart finds exactly what
//! was saved; while it runs, a restart finds the old or the new state, never a mix.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::router::spec::LayoutSpec;

use super::control::ShardLogin;

/// Version of the file's schema.
const VERSION: u32 = 1;
/// The file may hold passwords.
const STATE_FILE_MODE: u32 = 0o600;

/// A switch that was written down before it began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StagedSwitch {
    /// Whose switch.
    pub job: String,
    /// Which start of the job.
    pub incarnation: u64,
    /// The new layout's epoch.
    pub epoch: u64,
    /// The new layout.
    pub to: LayoutSpec,
    /// The new epoch's logins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logins: Vec<ShardLogin>,
}

/// What is kept for one pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochRecord {
    /// Schema version, 1.
    pub v: u32,
    /// Name of the pool.
    pub pool: String,
    /// Number of the layout in use.
    pub epoch: u64,
    /// The layout in use.
    pub layout: LayoutSpec,
    /// Fingerprint of the layout that the config had when this was written:
    /// as long as the config has it, this file wins; when an operator changes
    /// the config, the config wins.
    pub configured: u64,
    /// The job that brought this epoch, if one did.
    pub decided_by: Option<String>,
    /// A switch that is not decided.
    pub pending: Option<StagedSwitch>,
    /// Logins of the epoch in use; without one for a server, the configured
    /// credentials are used there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logins: Vec<ShardLogin>,
}

impl EpochRecord {
    /// The first record of a pool.
    pub fn first(pool: &str, layout: LayoutSpec, configured: u64) -> Self {
        Self {
            v: VERSION,
            pool: pool.to_owned(),
            epoch: 1,
            layout,
            configured,
            decided_by: None,
            pending: None,
            logins: Vec::new(),
        }
    }
}

/// A state file that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum EpochFileError {
    /// The system refused.
    #[error("can't {doing} {}: {source}; the pool's epoch is kept there", path.display())]
    Io {
        /// read, write
        doing: &'static str,
        /// The file or its directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what we write.
    #[error(
        "{} is not a state file of this version: {reason}; move it away only if you are sure \
         which layout the pool's keys have", path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// The state file of one pool.
#[derive(Debug, Clone)]
pub struct EpochFile {
    path: PathBuf,
}

impl EpochFile {
    /// The file of `pool` in `state_dir`; nothing is touched yet.
    pub fn new(state_dir: &Path, pool: &str) -> Self {
        Self {
            path: state_dir.join(format!("pool-{pool}.json")),
        }
    }

    /// What was saved last, if anything was.
    ///
    /// # Errors
    /// If it can't be read or makes no sense.
    pub fn load(&self) -> Result<Option<EpochRecord>, EpochFileError> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.io("read", source)),
        };
        let unreadable = |reason| EpochFileError::Unreadable {
            path: self.path.clone(),
            reason,
        };
        let record: EpochRecord =
            serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
        if record.v != VERSION {
            return Err(unreadable(format!("schema version {}", record.v)));
        }
        Ok(Some(record))
    }

    /// Saves, durably. Blocks on the disk.
    ///
    /// # Errors
    /// If it can't be written; the old state is still there then.
    pub fn save(&self, record: &EpochRecord) -> Result<(), EpochFileError> {
        self.try_save(record)
            .map_err(|source| self.io("write", source))
    }

    fn try_save(&self, record: &EpochRecord) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        let beside = self.path.with_extension("json.new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let mut file = options.mode(STATE_FILE_MODE).open(&beside)?;
        // One that was left behind may have had other rights.
        file.set_permissions(Permissions::from_mode(STATE_FILE_MODE))?;
        file.write_all(&serde_json::to_vec_pretty(record)?)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)?;
        File::open(dir)?.sync_all()
    }

    fn io(&self, doing: &'static str, source: io::Error) -> EpochFileError {
        EpochFileError::Io {
            doing,
            path: self.path.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::spec::ShardSpec;

    fn record() -> EpochRecord {
        let shards = vec![ShardSpec::at(&"h:1".parse().unwrap())];
        EpochRecord::first(
            "cache",
            LayoutSpec {
                shards,
                ..LayoutSpec::default()
            },
            7,
        )
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let file = EpochFile::new(&dir.path().join("made"), "cache");
        assert_eq!(file.load().unwrap(), None);
        let mut saved = record();
        file.save(&saved).unwrap();
        saved.epoch = 2;
        file.save(&saved).unwrap();
        assert_eq!(file.load().unwrap(), Some(saved));
    }

    #[test]
    fn logins_are_for_nobody_elses_eyes() {
        let dir = tempfile::tempdir().unwrap();
        let left_behind = dir.path().join("pool-cache.json.new");
        fs::write(&left_behind, b"half").unwrap();
        fs::set_permissions(&left_behind, Permissions::from_mode(0o644)).unwrap();
        let mut saved = record();
        saved.logins.push(ShardLogin {
            addr: "h:1".into(),
            user: "keyferry-cache-e1".into(),
            password: "secret".into(),
        });
        let file = EpochFile::new(dir.path(), "cache");
        file.save(&saved).unwrap();
        assert_eq!(file.load().unwrap().as_ref(), Some(&saved));
        let rights = fs::metadata(dir.path().join("pool-cache.json")).unwrap();
        assert_eq!(rights.permissions().mode() & 0o777, STATE_FILE_MODE);
        assert!(!format!("{saved:?}").contains("secret"));
    }

    #[test]
    fn a_file_that_is_not_ours_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = EpochFile::new(dir.path(), "cache");
        fs::write(dir.path().join("pool-cache.json"), b"{\"v\":1}").unwrap();
        let error = file.load().unwrap_err().to_string();
        assert!(error.contains("pool-cache.json"), "{error}");
    }
}
