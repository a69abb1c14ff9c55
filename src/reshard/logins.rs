//! The passwords of a job's epoch users, in a file of their own beside the
//! journal: a job that is started again goes on with them, so that no proxy is
//! locked out between two starts.
//!
//! ```text
//! DIR/logins.json, mode 0600
//!   {"v":1,"job":"job-..","epoch":7,"old":"<hex>","new":"<hex>","back":"<hex>"}
//! ```
//! A file that is missing, of another job or not readable only costs new
//! passwords: the users are made anew at every start, and proxies are told.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::fence::EpochUser;
use super::fencing::{Mission, Users, new_password};
use crate::upstream::config::Secret;

const VERSION: u32 = 1;

/// The file's name in a job's directory.
const FILE: &str = "logins.json";

/// Why there are no passwords.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {doing}: {source}")]
pub struct LoginsError {
    path: PathBuf,
    doing: &'static str,
    source: io::Error,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    v: u32,
    job: String,
    epoch: u64,
    old: String,
    new: String,
    /// Earlier versions made none.
    #[serde(default)]
    back: String,
}

/// The file of a job's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logins(PathBuf);

impl Logins {
    /// The file in the directory `dir`.
    pub fn in_dir(dir: &Path) -> Self {
        Self(dir.join(FILE))
    }

    /// Whether a job left passwords here.
    pub fn exists(&self) -> bool {
        self.0.exists()
    }

    /// The users of the job's epochs: with the passwords kept for this job, or new
    /// ones, which are kept before they are used.
    ///
    /// # Errors
    /// [`LoginsError`].
    pub fn users(&self, mission: &Mission) -> Result<Users, LoginsError> {
        let kept = match self.read(mission) {
            Some(kept) if !kept.back.is_empty() => kept,
            earlier => self.make(mission, earlier)?,
        };
        let user = |name, password| EpochUser {
            name,
            password: Secret::new(password),
        };
        Ok(Users {
            old: user(mission.old_user(), kept.old),
            new: user(mission.new_user(), kept.new),
            back: user(mission.back_user(), kept.back),
        })
    }

    fn read(&self, mission: &Mission) -> Option<Kept> {
        let kept: Kept = serde_json::from_slice(&fs::read(&self.0).ok()?).ok()?;
        let is_ours = kept.v == VERSION && kept.job == mission.job && kept.epoch == mission.epoch;
        is_ours.then_some(kept)
    }

    fn make(&self, mission: &Mission, earlier: Option<Kept>) -> Result<Kept, LoginsError> {
        let failed = |doing| {
            move |source| LoginsError {
                path: self.0.clone(),
                doing,
                source,
            }
        };
        let password = || new_password().map(|secret| secret.reveal().to_owned());
        let no_random = failed("no randomness for passwords");
        let back = password().map_err(&no_random)?;
        let kept = match earlier {
            Some(earlier) => Kept { back, ..earlier },
            None => Kept {
                v: VERSION,
                job: mission.job.clone(),
                epoch: mission.epoch,
                old: password().map_err(&no_random)?,
                new: password().map_err(&no_random)?,
                back,
            },
        };
        let text = serde_json::to_vec(&kept).map_err(io::Error::from);
        let partial = self.0.with_extension("json.partial");
        let written = text.and_then(|text| {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .write(true)
                .mode(0o600)
                .open(&partial)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&partial, &self.0)
        });
        written.map_err(failed("the passwords cannot be written"))?;
        Ok(kept)
    }

    /// Removes the file: nobody logs in as these any more.
    pub fn remove(&self) {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "{} stays", self.0.display());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn mission(epoch: u64) -> Mission {
        Mission {
            pool: "cache".to_owned(),
            job: "job-1".to_owned(),
            epoch,
        }
    }

    #[test]
    fn passwords_are_kept_for_their_job_and_nobody_else_may_read_them() {
        let dir = tempfile::tempdir().unwrap();
        let logins = Logins::in_dir(dir.path());
        let users = logins.users(&mission(5)).unwrap();
        assert_eq!(logins.users(&mission(5)).unwrap(), users);
        assert_eq!(users.old.name, "keyferry-cache-e4");
        assert_eq!(users.new.password.reveal().len(), 64);
        assert_ne!(users.old.password, users.new.password);
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        assert_ne!(logins.users(&mission(6)).unwrap().old, users.old);
        fs::write(dir.path().join(FILE), "torn").unwrap();
        assert_ne!(logins.users(&mission(6)).unwrap().old, users.old);
        let before = r#"{"v":1,"job":"job-1","epoch":5,"old":"aa","new":"bb"}"#;
        fs::write(dir.path().join(FILE), before).unwrap();
        let users = logins.users(&mission(5)).unwrap();
        assert_eq!(
            (users.old.password.reveal(), users.new.password.reveal()),
            ("aa", "bb"),
            "proxies are logged in as these"
        );
        assert_eq!(logins.users(&mission(5)).unwrap(), users);
        logins.remove();
        logins.remove();
        assert!(!logins.exists());
    }
}
