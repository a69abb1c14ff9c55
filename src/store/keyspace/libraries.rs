//! Texts of function libraries: rows of the shard, beside its databases.
//!
//! ```text
//! X function:<name>  ->  the library's text
//! ```
//! They change in the same turns as the log that tells of it, so that both agree wherever a
//! crash cuts.

use bytes::Bytes;

use crate::store::format::row;
use crate::store::rows::{Rows, StoreError};

use super::Keyspace;

const PREFIX: &str = "function:";
/// Behind all of them.
const BEHIND: &str = "function;";
/// Longest name, so that it can be a row's key.
pub const LIBRARY_NAME_BYTES_MAX: usize = 1024;

fn row_of(name: &[u8]) -> Vec<u8> {
    let mut key = row::system(PREFIX);
    key.extend_from_slice(name);
    key
}

/// What a change of all libraries leaves.
pub type LibraryTexts = Vec<(Vec<u8>, Bytes)>;

impl Keyspace {
    /// All texts, by name.
    ///
    /// # Errors
    /// [`StoreError`] of the engine.
    pub fn library_texts(&self) -> Result<LibraryTexts, StoreError> {
        texts(&self.rows)
    }

    /// Keeps a library.
    pub fn put_library(&mut self, name: &[u8], text: &[u8]) {
        self.rows.put(&row_of(name), Bytes::copy_from_slice(text));
    }

    /// Forgets one.
    pub fn remove_library(&mut self, name: &[u8]) {
        self.rows.delete(&row_of(name));
    }

    /// Keeps these and no others.
    ///
    /// # Errors
    /// [`StoreError`] of the engine; nothing is changed then.
    pub fn replace_libraries(&mut self, with: &LibraryTexts) -> Result<(), StoreError> {
        for (name, _) in texts(&self.rows)? {
            self.rows.delete(&row_of(&name));
        }
        for (name, text) in with {
            self.rows.put(&row_of(name), text.clone());
        }
        Ok(())
    }
}

fn texts(rows: &Rows) -> Result<LibraryTexts, StoreError> {
    let (from, to) = (row::system(PREFIX), row::system(BEHIND));
    let mut texts = Vec::new();
    for next in rows.range(&from, &to)? {
        let (key, text) = next?;
        let name = key.get(from.len()..).unwrap_or(&[]).to_vec();
        texts.push((name, text));
    }
    Ok(texts)
}
