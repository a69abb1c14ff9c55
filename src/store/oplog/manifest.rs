//! The manifest: whose history the log holds, and how it was left.
//!
//! ```text
//! | magic "KFLOGMAN" 8 | version u32 | crc u32 | salt u64 | incarnation u32 | flags u32 |
//! | first sequence u64 | base u64 | end u64 | second valid to u64 | replid 40 | replid2 40 |
//! ```
//! Little-endian; crc is CRC-32 (IEEE) of all behind it; flags: 1 = closed cleanly at `end`,
//! 2 = there is a second id. Drawn again in `docs/formats.md`.
//!
//! Invariant: the file `MANIFEST` is whole at any time: it is written under another name,
//! synced, renamed, and its directory synced, before anything counts on it.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use super::error::LogError;
use super::layout::{Fields, LogVersion, Seed};
use crate::store::disk::{Files, is_full, read_full_at, write_all_at};

/// Length of a replication id, in hexadecimal digits.
pub const REPLID_BYTES: usize = 40;

pub(super) const MANIFEST_NAME: &str = "MANIFEST";
const NEW_NAME: &str = "MANIFEST.new";

const MAGIC: [u8; 8] = *b"KFLOGMAN";
const MANIFEST_BYTES: usize = 144;
const FLAG_CLEAN: u32 = 1;
const FLAG_SECOND: u32 = 2;

/// Whose history the stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Id of the history that goes on at the end.
    pub replid: [u8; REPLID_BYTES],
    /// Id of the history before, and the end offset up to which both are the same: who has
    /// read that far of it, or less, may go on here.
    pub replid2: Option<([u8; REPLID_BYTES], u64)>,
}

impl Identity {
    /// A history of its own, with an id that was never used.
    #[must_use]
    pub fn fresh() -> Self {
        Self {
            replid: fresh_replid(),
            replid2: None,
        }
    }
}

/// A new replication id: 160 random bits.
#[must_use]
pub fn fresh_replid() -> [u8; REPLID_BYTES] {
    std::array::from_fn(|_| {
        let digit = fastrand::u8(..16);
        digit + if digit < 10 { b'0' } else { b'a' - 10 }
    })
}

/// See the head of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) identity: Identity,
    pub(super) salt: u64,
    pub(super) incarnation: u32,
    /// Segments with a smaller number belong to a history that ended.
    pub(super) first_sequence: u64,
    /// Offset at which the segment of that number starts.
    pub(super) base: u64,
    /// Where the log ended, if it was closed cleanly.
    pub(super) clean_end: Option<u64>,
}

/// The version of a format that is not known yet.
fn newer(bytes: &[u8]) -> Option<u32> {
    let mut fields = Fields(bytes);
    let is_manifest = fields.array()? == MAGIC;
    let version = fields.u32().filter(|_| is_manifest)?;
    (version > LogVersion::V1.number()).then_some(version)
}

impl Manifest {
    pub(super) fn seed(&self) -> Seed {
        Seed::of_salt(self.salt)
    }

    /// Whether a segment with this sequence and incarnation can be of this history; others
    /// are of one that ended, or of a new beginning that was not finished.
    pub(super) fn knows(&self, (sequence, incarnation): (u64, u32)) -> bool {
        sequence >= self.first_sequence && incarnation <= self.incarnation
    }

    fn encode(&self) -> [u8; MANIFEST_BYTES] {
        let (second, valid_to) = self.identity.replid2.unwrap_or(([b'0'; REPLID_BYTES], 0));
        let mut flags = 0;
        if self.clean_end.is_some() {
            flags |= FLAG_CLEAN;
        }
        if self.identity.replid2.is_some() {
            flags |= FLAG_SECOND;
        }
        let mut bytes = [0; MANIFEST_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&LogVersion::V1.number().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.salt.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.incarnation.to_le_bytes());
        bytes[28..32].copy_from_slice(&flags.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.first_sequence.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.base.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.clean_end.unwrap_or(0).to_le_bytes());
        bytes[56..64].copy_from_slice(&valid_to.to_le_bytes());
        bytes[64..104].copy_from_slice(&self.identity.replid);
        bytes[104..144].copy_from_slice(&second);
        let crc = crc32fast::hash(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let short = "it is too short";
        let mut fields = Fields(bytes);
        if fields.array().ok_or(short)? != MAGIC {
            return Err("it does not begin as a manifest does");
        }
        let version = fields.u32().ok_or(short)?;
        let Some(LogVersion::V1) = LogVersion::from_number(version) else {
            return Err("its version is none");
        };
        if bytes.len() != MANIFEST_BYTES {
            return Err("its length is wrong");
        }
        let crc = fields.u32().ok_or(short)?;
        if crc != crc32fast::hash(fields.0) {
            return Err("its checksum is wrong");
        }
        let salt = fields.u64().ok_or(short)?;
        let incarnation = fields.u32().ok_or(short)?;
        let flags = fields.u32().ok_or(short)?;
        if flags & !(FLAG_CLEAN | FLAG_SECOND) != 0 {
            return Err("it has flags that are not known here");
        }
        let first_sequence = fields.u64().ok_or(short)?;
        let base = fields.u64().ok_or(short)?;
        let end = fields.u64().ok_or(short)?;
        let valid_to = fields.u64().ok_or(short)?;
        let replid = fields.array().ok_or(short)?;
        let second = fields.array().ok_or(short)?;
        Ok(Self {
            identity: Identity {
                replid,
                replid2: (flags & FLAG_SECOND != 0).then_some((second, valid_to)),
            },
            salt,
            incarnation,
            first_sequence,
            base,
            clean_end: (flags & FLAG_CLEAN != 0).then_some(end),
        })
    }

    /// The manifest of the log in `dir`; `None` if there is none.
    pub(super) fn read(files: &dyn Files, dir: &Path) -> Result<Option<Self>, LogError> {
        let path = dir.join(MANIFEST_NAME);
        let failed = |source| LogError::Io {
            file: path.clone(),
            doing: "read",
            source,
        };
        let file = match files.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = [0; MANIFEST_BYTES + 1];
        let length = read_full_at(&*file, &mut bytes, 0).map_err(failed)?;
        let bytes = bytes.get(..length).unwrap_or_default();
        if let Some(version) = newer(bytes) {
            let known = LogVersion::V1.number();
            let file = path;
            return Err(LogError::Newer {
                file,
                version,
                known,
            });
        }
        match Self::decode(bytes) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(what) => Err(LogError::ManifestDamaged { file: path, what }),
        }
    }

    /// Puts this in the place of the manifest that is there. After an error that is not
    /// [`LogError::DiskFull`] either of them may be.
    pub(super) fn write(&self, files: &dyn Files, dir: &Path) -> Result<(), LogError> {
        let new = dir.join(NEW_NAME);
        let failed = |source: io::Error, doing| {
            let file = new.clone();
            if is_full(&source) {
                LogError::DiskFull { file, source }
            } else {
                LogError::Io {
                    file,
                    doing,
                    source,
                }
            }
        };
        // Not "full": a failed sync says nothing about what is on the disk.
        let unsynced = |source| LogError::Io {
            file: new.clone(),
            doing: "synced",
            source,
        };
        let file = files
            .create(&new)
            .map_err(|error| failed(error, "created"))?;
        let bytes = self.encode();
        write_all_at(&*file, &mut [IoSlice::new(&bytes)], 0)
            .map_err(|error| failed(error, "written"))?;
        file.sync_data().map_err(unsynced)?;
        files
            .rename(&new, &dir.join(MANIFEST_NAME))
            .map_err(|error| failed(error, "renamed"))?;
        files.sync_dir(dir).map_err(unsynced)
    }

    /// Whether a file of this name is a manifest's, not yet in its place.
    pub(super) fn is_leftover(name: &str) -> bool {
        name == NEW_NAME
    }
}

/// Where the manifest of the log in `dir` is.
pub(super) fn manifest_path(dir: &Path) -> PathBuf {
    dir.join(MANIFEST_NAME)
}
