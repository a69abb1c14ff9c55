//! Walking all keys of a server, page by page, through all its databases.
//!
//! SCAN's promise: a key that is there from the beginning to the end of the
//! walk is seen at least once; others may or may not be.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::resp::Value;

use super::config::SCAN_COUNT;
use super::error::MoveError;
use super::link::{Kept, Link};

const SCAN: &str = "list keys (SCAN)";

/// Some keys of one database.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) db: u32,
    pub(super) keys: Vec<Bytes>,
}

/// A walk under way. Its link must not SELECT otherwise between pages.
pub(super) struct KeyWalk {
    dbs: VecDeque<u32>,
    selected: Option<u32>,
    cursor: Vec<u8>,
}

impl KeyWalk {
    /// Starts a walk through every database that holds keys now.
    pub(super) async fn new(link: &mut Link) -> Result<KeyWalk, MoveError> {
        let dbs = databases(link).await?;
        let dbs = dbs.into_iter().map(|(db, _)| db).collect();
        Ok(KeyWalk {
            dbs,
            selected: None,
            cursor: b"0".to_vec(),
        })
    }

    /// Starts a walk through one database.
    pub(super) fn of(db: u32) -> KeyWalk {
        KeyWalk {
            dbs: VecDeque::from([db]),
            selected: None,
            cursor: b"0".to_vec(),
        }
    }

    /// The link was dialed again, or was in another database meanwhile: a cursor holds on any connection.
    pub(super) fn reconnected(&mut self) {
        self.selected = None;
    }

    /// The next page, which may be empty; `None` at the end.
    pub(super) async fn next(&mut self, link: &mut Link) -> Result<Option<Page>, MoveError> {
        let Some(&db) = self.dbs.front() else {
            return Ok(None);
        };
        // What was done with the last page may have taken longer than the server
        // keeps idle connections; a cursor holds on any connection.
        if link.keep().await? == Kept::Renewed {
            self.selected = None;
        }
        if self.selected != Some(db) {
            link.call(
                "choose a database (SELECT)",
                &[b"SELECT", db.to_string().as_bytes()],
            )
            .await?;
            self.selected = Some(db);
        }
        let count = SCAN_COUNT.to_string();
        let reply = link
            .call(SCAN, &[b"SCAN", &self.cursor, b"COUNT", count.as_bytes()])
            .await?;
        let Value::Array(parts) = reply else {
            return Err(link.odd(SCAN));
        };
        let [Value::Bulk(cursor), Value::Array(items)] = parts.as_slice() else {
            return Err(link.odd(SCAN));
        };
        let keys = items
            .iter()
            .filter_map(Value::as_bytes)
            .map(Bytes::copy_from_slice)
            .collect();
        if cursor == b"0" {
            self.dbs.pop_front();
        }
        self.cursor.clone_from(cursor);
        Ok(Some(Page { db, keys }))
    }
}

/// The databases that hold keys, with how many.
pub(super) async fn databases(link: &mut Link) -> Result<Vec<(u32, u64)>, MoveError> {
    let info = link
        .text("look at the databases (INFO)", &[b"INFO", b"keyspace"])
        .await?;
    Ok(parse_keyspace(&info))
}

/// Lines of the form `db0:keys=12,expires=0,avg_ttl=0`.
fn parse_keyspace(info: &str) -> Vec<(u32, u64)> {
    let line = |line: &str| {
        let (db, fields) = line.strip_prefix("db")?.split_once(':')?;
        let keys = fields
            .split(',')
            .find_map(|field| field.strip_prefix("keys="))?;
        Some((db.parse().ok()?, keys.parse().ok()?))
    };
    info.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_with_keys_are_found() {
        let info =
            "# Keyspace\r\ndb0:keys=12,expires=1,avg_ttl=3\r\ndb15:keys=1,expires=0,avg_ttl=0\r\n";
        assert_eq!(parse_keyspace(info), [(0, 12), (15, 1)]);
        assert_eq!(parse_keyspace("# Keyspace\r\n"), []);
    }
}
