//! Rows to be read: those of the shard as they are now, or those of a snapshot.

use bytes::Bytes;

use crate::store::engine::Row;
use crate::store::rows::{RowSnapshot, Rows, StoreError};

/// Rows in order, from either end.
pub type RowsBetween<'a> = Box<dyn DoubleEndedIterator<Item = Result<Row, StoreError>> + 'a>;

/// What rows can be read from.
pub trait RowSource {
    /// One row.
    ///
    /// # Errors
    /// [`StoreError`] of the engine.
    fn row(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Rows from `from` up to `to`, which is not included.
    ///
    /// # Errors
    /// [`StoreError`] of the engine.
    fn rows_between<'a>(&'a self, from: &[u8], to: &[u8]) -> Result<RowsBetween<'a>, StoreError>;
}

impl RowSource for Rows {
    fn row(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.get(key)
    }

    fn rows_between<'a>(&'a self, from: &[u8], to: &[u8]) -> Result<RowsBetween<'a>, StoreError> {
        Ok(Box::new(self.range(from, to)?))
    }
}

impl RowSource for RowSnapshot {
    fn row(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.get(key)
    }

    fn rows_between<'a>(&'a self, from: &[u8], to: &[u8]) -> Result<RowsBetween<'a>, StoreError> {
        Ok(Box::new(
            self.range(from, to)
                .map(|row| row.map_err(StoreError::from)),
        ))
    }
}

/// A row that cannot be read, or is not where the object says.
pub fn bad_row(key: &[u8]) -> StoreError {
    StoreError::BadRow {
        row: key.escape_ascii().to_string(),
    }
}
