//! Small files beside the log: what an operator or a Sentinel said last.
//!
//! ```text
//! DIR/following       "host port", or "no one"         REPLICAOF, at once
//! DIR/settings.json   { "parameter": "value", .. }     CONFIG REWRITE
//! DIR/users.acl       `user NAME RULES ..`, a line each: CONFIG REWRITE
//! ```
//! They come before flags and TOML at the next start: a shard that was promoted must not
//! follow again because its command line once said so. Each is whole at any time: written
//! under another name, for the shard's user alone since there are passwords in them, synced,
//! renamed, and the name synced.

use std::fs;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use crate::store::disk::{Files, RealFiles, write_all_at};
use crate::store::session::{KeptTexts, MasterAddress, Shard};

use super::starting::StartError;

const FOLLOWING: &str = "following";
const SETTINGS: &str = "settings.json";
const USERS: &str = "users.acl";
const NO_ONE: &str = "no one";

/// A file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {cause}: mend it, or remove it to go back to flags and config", file.display())]
pub struct KeptError {
    file: PathBuf,
    cause: io::Error,
}

impl KeptError {
    /// What the system said, as Redis would say it.
    pub(super) fn words(&self) -> String {
        let words = self.cause.to_string();
        match words.find(" (os error ") {
            Some(at) => words.get(..at).unwrap_or_default().to_owned(),
            None => words,
        }
    }
}

/// Whom the shard followed last: nothing if nobody ever said.
pub(super) fn following(dir: &Path) -> Result<Option<Option<MasterAddress>>, KeptError> {
    let Some(text) = read(dir, FOLLOWING)? else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&text);
    let text = text.trim();
    if text == NO_ONE {
        return Ok(Some(None));
    }
    let address = text.rsplit_once(' ').and_then(|(host, port)| {
        Some(MasterAddress {
            host: host.to_owned(),
            port: port.parse().ok()?,
        })
    });
    match address {
        Some(address) => Ok(Some(Some(address))),
        None => Err(KeptError {
            file: dir.join(FOLLOWING),
            cause: io::Error::new(io::ErrorKind::InvalidData, "it holds no host and port"),
        }),
    }
}

pub(super) fn keep_following(dir: &Path, of: Option<&MasterAddress>) -> Result<(), KeptError> {
    let text = match of {
        Some(MasterAddress { host, port }) => format!("{host} {port}\n"),
        None => format!("{NO_ONE}\n"),
    };
    write(&RealFiles, dir, FOLLOWING, text.as_bytes())
}

/// What CONFIG REWRITE kept in `dir`.
pub(super) fn texts(dir: &Path) -> Result<KeptTexts, KeptError> {
    Ok(KeptTexts {
        settings: read(dir, SETTINGS)?.unwrap_or_default(),
        users: read(dir, USERS)?.unwrap_or_default(),
    })
}

/// Keeps both, durably; each is the old one or the new one if that fails.
pub(super) fn keep(files: &dyn Files, dir: &Path, texts: &KeptTexts) -> Result<(), KeptError> {
    for (name, text, none) in [
        (SETTINGS, &texts.settings, &b"{}\n"[..]),
        (USERS, &texts.users, b""),
    ] {
        match text.is_empty() {
            // What there is nothing to say in is not made.
            true if !is_there(files, dir, name)? => {}
            true => write(files, dir, name, none)?,
            false => write(files, dir, name, text)?,
        }
    }
    Ok(())
}

/// Gives a shard the parameters and users that were kept in `dir`; their texts.
pub(super) fn load(shard: &mut Shard, dir: &Path) -> Result<KeptTexts, StartError> {
    let texts = texts(dir)?;
    let parameters = texts.parameters().map_err(|error| KeptError {
        file: dir.join(SETTINGS),
        cause: error.into(),
    })?;
    for (name, value) in parameters {
        let loaded = shard.load_parameter(&name, &value);
        loaded.map_err(|why| StartError::Setting {
            file: dir.join(SETTINGS),
            name,
            why,
        })?;
    }
    let loaded = shard.load_users(texts.user_lines());
    loaded.map_err(|cause| StartError::User {
        file: dir.join(USERS),
        cause,
    })?;
    Ok(texts)
}

fn read(dir: &Path, name: &str) -> Result<Option<Vec<u8>>, KeptError> {
    let file = dir.join(name);
    match fs::read(&file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(KeptError { file, cause }),
    }
}

fn is_there(files: &dyn Files, dir: &Path, name: &str) -> Result<bool, KeptError> {
    let names = files.list(dir).map_err(|cause| KeptError {
        file: dir.to_owned(),
        cause,
    })?;
    Ok(names.iter().any(|of| of == name))
}

fn write(files: &dyn Files, dir: &Path, name: &str, bytes: &[u8]) -> Result<(), KeptError> {
    let file = dir.join(name);
    let new = dir.join(format!("{name}.new"));
    let written = files
        .create_locked(&new)
        .and_then(|new| {
            write_all_at(&*new, &mut [IoSlice::new(bytes)], 0)?;
            new.sync_data()
        })
        .and_then(|()| files.rename(&new, &file))
        .and_then(|()| files.sync_dir(dir));
    written.map_err(|cause| {
        // It gives back the room it took; what cannot be removed is written over next time.
        let _ = files.remove(&new);
        KeptError { file, cause }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::{Fault, FaultyFiles, Operation};

    const DIR: &str = "/shard";

    fn texts_of(settings: &str, users: &str) -> KeptTexts {
        KeptTexts {
            settings: settings.into(),
            users: users.into(),
        }
    }

    #[test]
    fn what_was_said_is_read_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path();
        assert_eq!(following(dir).expect("nothing yet"), None);
        let address = MasterAddress {
            host: "a host".to_owned(),
            port: 7,
        };
        keep_following(dir, Some(&address)).expect("kept");
        assert_eq!(following(dir).expect("read"), Some(Some(address)));
        keep_following(dir, None).expect("kept");
        assert_eq!(following(dir).expect("read"), Some(None));
        let without = texts_of("{ \"requirepass\": \"a \\\"b\\\"\" }", "");
        keep(&RealFiles, dir, &without).expect("kept");
        assert_eq!(texts(dir).expect("read"), without);
        assert!(!dir.join(USERS).exists(), "there are none to keep");
        let with = texts_of("{}", "user a on\n\nuser  off\n");
        keep(&RealFiles, dir, &with).expect("kept");
        let read = texts(dir).expect("read");
        assert_eq!(read, with);
        let lines: Vec<&[u8]> = read.user_lines().collect();
        assert_eq!(lines, [&b"user a on"[..], b"user  off"]);
        keep(&RealFiles, dir, &without).expect("kept");
        assert_eq!(texts(dir).expect("read").user_lines().count(), 0);
        fs::write(dir.join(FOLLOWING), "nonsense").expect("written");
        assert!(following(dir).is_err());
    }

    fn on(files: &FaultyFiles, name: &str) -> Option<Vec<u8>> {
        files.bytes(&Path::new(DIR).join(name))
    }

    /// Whatever fails, and if the power goes then: the old text or the new one.
    #[test]
    fn a_text_is_never_torn_and_what_was_acknowledged_is_durable() {
        let old = texts_of("{ \"timeout\": \"1\" }", "user old on\n");
        let new = texts_of("{ \"timeout\": \"2\" }", "user new on\n");
        let operations = [
            Operation::Create,
            Operation::Write,
            Operation::Sync,
            Operation::Rename,
            Operation::SyncDir,
        ];
        let mut refused = 0;
        for operation in operations {
            for after in 0..3 {
                for fault in [Fault::Broken, Fault::Full, Fault::Short] {
                    let files = FaultyFiles::new();
                    keep(&files, Path::new(DIR), &old).expect("kept");
                    files.fail(operation, after, fault);
                    let kept = keep(&files, Path::new(DIR), &new);
                    refused += usize::from(kept.is_err());
                    for seed in 0..8 {
                        let disk = files.crashed(seed);
                        let (settings, users) = (on(&disk, SETTINGS), on(&disk, USERS));
                        let story = format!("{operation:?} {after} {fault:?}, power loss {seed}");
                        if kept.is_ok() {
                            assert_eq!(settings.as_ref(), Some(&new.settings), "{story}");
                            assert_eq!(users.as_ref(), Some(&new.users), "{story}");
                        }
                        assert!(
                            settings == Some(old.settings.clone())
                                || settings == Some(new.settings.clone()),
                            "{story}"
                        );
                        assert!(
                            users == Some(old.users.clone()) || users == Some(new.users.clone()),
                            "{story}"
                        );
                    }
                }
            }
        }
        assert!(refused >= operations.len() * 2 * 2, "{refused}");
    }
}
