//! A file that gets its name when it is whole.
//!
//! ```text
//! FILE.part, ours alone --write..--> all of it --sync--> FILE, a new name --sync dir-->
//!     '--- anything fails, or it is dropped: removed
//! ```

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::store::disk::{DiskFile, Files, write_all_at};

/// Behind the name, until it is whole.
const SUFFIX: &str = ".part";

/// See the head of the file.
pub(super) struct Part {
    files: Arc<dyn Files>,
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    bytes: u64,
    has_name: bool,
}

pub(super) fn path_of(to: &Path) -> PathBuf {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(SUFFIX);
    to.with_file_name(name)
}

impl Part {
    /// # Errors
    /// `WouldBlock` if somebody writes the same file.
    pub(super) fn begin(files: Arc<dyn Files>, to: &Path) -> io::Result<Self> {
        let path = path_of(to);
        let file = files.create_locked(&path)?;
        Ok(Self {
            files,
            file,
            path,
            bytes: 0,
            has_name: false,
        })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        write_all_at(&*self.file, &mut [IoSlice::new(bytes)], self.bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// # Errors
    /// `AlreadyExists` if `to` does.
    pub(super) fn finish(mut self, to: &Path) -> io::Result<()> {
        self.file.sync_data()?;
        self.files.rename_new(&self.path, to)?;
        self.has_name = true;
        self.files.sync_dir(parent(to))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.has_name {
            // What cannot be removed now, the next one takes over.
            let _ = self.files.remove(&self.path);
        }
    }
}

/// The directory of a file.
pub(super) fn parent(of: &Path) -> &Path {
    let parent = of.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}
