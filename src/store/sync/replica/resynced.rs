//! The row that ties a finished snapshot to the log that goes on behind it.
//!
//! ```text
//! X resynced: | replid 40 | offset 8 | selected db 2 | history of the log before 8 |
//! ```
//! Databases and log cannot change in one step. The row comes with the databases; then the
//! log begins anew; then the row goes. Whoever finds it, and the log's history is still the
//! one before, lets the log begin anew: the rest was done.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::ReplId;
use crate::store::format::row;
use crate::store::rows::{Rows, StoreError};

const ROW_NAME: &str = "resynced";
const ROW_BYTES: usize = 58;

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resynced {
    /// The master's history.
    pub replid: ReplId,
    /// Where the snapshot stands in it.
    pub offset: u64,
    /// Selected there.
    pub selected_db: u16,
    /// [`crate::store::oplog::Log::history`] before.
    pub history: u64,
}

impl Resynced {
    /// Puts the row.
    pub fn put(&self, rows: &mut Rows) {
        let mut bytes = BytesMut::with_capacity(ROW_BYTES);
        bytes.put_slice(&self.replid);
        bytes.put_u64(self.offset);
        bytes.put_u16(self.selected_db);
        bytes.put_u64(self.history);
        rows.put(&row::system(ROW_NAME), Bytes::from(bytes));
    }

    /// Takes it away.
    pub fn forget(rows: &mut Rows) {
        rows.delete(&row::system(ROW_NAME));
    }

    /// The row, if it is there.
    ///
    /// # Errors
    /// [`StoreError`] of the engine, or if it is none.
    pub fn read(rows: &Rows) -> Result<Option<Self>, StoreError> {
        let key = row::system(ROW_NAME);
        let Some(mut bytes) = rows.get(&key)? else {
            return Ok(None);
        };
        if bytes.len() != ROW_BYTES {
            return Err(StoreError::BadRow {
                row: key.escape_ascii().to_string(),
            });
        }
        let mut replid = [0; 40];
        bytes.copy_to_slice(&mut replid);
        Ok(Some(Self {
            replid,
            offset: bytes.get_u64(),
            selected_db: bytes.get_u16(),
            history: bytes.get_u64(),
        }))
    }
}
