//! The file that keeps a way's plan, `DIR/steps`.
//!
//! ```text
//! keyferry steps 1 <crc32 of the rest, 8 hex digits>\n
//! {"name":"steps-1a2b3c4d","pool":...}\n
//! ```
//! Drawn again in docs/formats.md. It is written once, beside its place, synced and
//! renamed; a file whose checksum does not fit was damaged later and is refused.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::{StepsError, Way};

/// What the first line begins with; the number is the format's version.
const HEAD: &str = "keyferry steps 1 ";

/// Longest plan that is read.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Where the plan is in a job's directory.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("steps")
}

/// The plan in a directory; `None` when there is none.
pub(super) fn read(dir: &Path) -> Result<Option<Way>, StepsError> {
    let path = path(dir);
    let failed = |source| io_error(&path, "it cannot be read", source);
    match fs::metadata(&path) {
        Ok(found) if found.len() > BYTES_MAX => Err(damaged(&path, "it is too large for a plan")),
        Ok(_) => fs::read(&path).map_err(failed).and_then(|bytes| {
            let way = decode(&bytes).map_err(|what| damaged(&path, what))?;
            Ok(Some(way))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Writes the plan; afterwards it survives a power cut.
pub(super) fn write(dir: &Path, way: &Way) -> Result<(), StepsError> {
    let path = path(dir);
    let failed = |source| io_error(&path, "it cannot be written", source);
    let bytes = encode(way).map_err(io::Error::from).map_err(failed)?;
    let partial = dir.join("steps.partial");
    let written = || {
        let mut file = File::create(&partial)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&partial, &path)?;
        File::open(dir)?.sync_all()
    };
    written().map_err(failed)
}

/// Puts the plan of a way aside that nobody goes on with.
pub(super) fn put_aside(dir: &Path, way: &Way) -> Result<(), StepsError> {
    let path = path(dir);
    let aside = dir.join(format!("steps.{}", way.name));
    let renamed = fs::rename(&path, aside);
    renamed.map_err(|source| io_error(&path, "it cannot be renamed", source))
}

fn encode(way: &Way) -> serde_json::Result<Vec<u8>> {
    let mut json = serde_json::to_vec(way)?;
    json.push(b'\n');
    let mut bytes = format!("{HEAD}{:08x}\n", crc32fast::hash(&json)).into_bytes();
    bytes.extend(json);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<Way, String> {
    let rest = bytes.strip_prefix(HEAD.as_bytes());
    let rest = rest.ok_or("it does not begin like one of this version")?;
    let (sum, json) = rest.split_at_checked(9).ok_or("it is cut off")?;
    if sum != format!("{:08x}\n", crc32fast::hash(json)).as_bytes() {
        return Err("its checksum does not fit".to_owned());
    }
    let way: Way = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let is_name = way.name.strip_prefix("steps-").is_some_and(|digits| {
        !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    });
    match (is_name, way.steps.is_empty()) {
        (false, _) => Err("its name is none".to_owned()),
        (true, true) => Err("it has no steps".to_owned()),
        (true, false) => Ok(way),
    }
}

fn io_error(path: &Path, doing: &'static str, source: io::Error) -> StepsError {
    StepsError::Io {
        path: path.to_path_buf(),
        doing,
        source,
    }
}

fn damaged(path: &Path, what: impl Into<String>) -> StepsError {
    StepsError::Damaged {
        path: path.to_path_buf(),
        what: what.into(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_no_flipped_or_missing_byte_goes_unnoticed() {
        let way = super::super::tests::way();
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        write(dir.path(), &way).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Some(way.clone()));
        let whole = fs::read(path(dir.path())).unwrap();
        for at in 0..whole.len() {
            assert!(decode(&whole[..at]).is_err(), "cut at {at}");
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            assert!(decode(&flipped).is_err(), "flipped at {at}");
        }
        // A crash while it is written leaves the one before.
        fs::write(dir.path().join("steps.partial"), &whole[..40]).unwrap();
        assert_eq!(read(dir.path()).unwrap(), Some(way.clone()));
        put_aside(dir.path(), &way).unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
    }
}
