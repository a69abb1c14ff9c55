//! Small files beside the log: what an operator or a Sentinel said last.
//!
//! ```text
//! DIR/following       "host port", or "no one"         REPLICAOF, at once
//! DIR/settings.json   { "parameter": "value", .. }     CONFIG REWRITE
//! DIR/users.acl       `user NAME RULES ..`, a line each: CONFIG REWRITE
//! ```
//! They come before flags and TOML at the next start: a shard that was promoted must not
//! follow again because its command line once said so. Each is whole at any time: written
//! under another name, synced, renamed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::store::session::MasterAddress;

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
    write(dir, FOLLOWING, text.as_bytes())
}

pub(super) fn settings(dir: &Path) -> Result<BTreeMap<String, String>, KeptError> {
    let Some(text) = read(dir, SETTINGS)? else {
        return Ok(BTreeMap::new());
    };
    serde_json::from_slice(&text).map_err(|error| KeptError {
        file: dir.join(SETTINGS),
        cause: error.into(),
    })
}

pub(super) fn keep_settings(
    dir: &Path,
    settings: &BTreeMap<String, String>,
) -> Result<(), KeptError> {
    let text = serde_json::to_vec_pretty(settings).map_err(|error| KeptError {
        file: dir.join(SETTINGS),
        cause: error.into(),
    })?;
    write(dir, SETTINGS, &text)
}

/// Lines of users, as ACL LIST tells them.
pub(super) fn users(dir: &Path) -> Result<Vec<Vec<u8>>, KeptError> {
    let text = read(dir, USERS)?.unwrap_or_default();
    let lines = text.split(|byte| *byte == b'\n');
    let with_words = lines.filter(|line| !line.trim_ascii().is_empty());
    Ok(with_words.map(<[u8]>::to_vec).collect())
}

/// Without lines there is no file.
pub(super) fn keep_users(dir: &Path, lines: &[Vec<u8>]) -> Result<(), KeptError> {
    let file = dir.join(USERS);
    if lines.is_empty() && !file.exists() {
        return Ok(());
    }
    let mut text = lines.join(&b'\n');
    text.push(b'\n');
    write(dir, USERS, &text)
}

/// Where users are kept.
pub(super) fn users_file(dir: &Path) -> PathBuf {
    dir.join(USERS)
}

fn read(dir: &Path, name: &str) -> Result<Option<Vec<u8>>, KeptError> {
    let file = dir.join(name);
    match fs::read(&file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(KeptError { file, cause }),
    }
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), KeptError> {
    let file = dir.join(name);
    let new = dir.join(format!("{name}.new"));
    let written = File::create(&new)
        .and_then(|mut new| new.write_all(bytes).and_then(|()| new.sync_all()))
        .and_then(|()| fs::rename(&new, &file))
        .and_then(|()| File::open(dir)?.sync_all());
    written.map_err(|cause| KeptError { file, cause })
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let settings_kept = BTreeMap::from([("requirepass".to_owned(), "a \"b\"\n".to_owned())]);
        keep_settings(dir, &settings_kept).expect("kept");
        assert_eq!(settings(dir).expect("read"), settings_kept);
        keep_users(dir, &[]).expect("nothing to keep");
        assert!(!users_file(dir).exists());
        let lines = [b"user a on \xff".to_vec(), b"user  off".to_vec()];
        keep_users(dir, &lines).expect("kept");
        assert_eq!(users(dir).expect("read"), lines);
        keep_users(dir, &[]).expect("kept");
        assert!(users(dir).expect("read").is_empty());
        fs::write(dir.join(FOLLOWING), "nonsense").expect("written");
        assert!(following(dir).is_err());
    }
}
