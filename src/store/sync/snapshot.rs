//! A whole shard as an RDB file of version 9, in plain types: Redis 5 and later read it; 7.0
//! and later if there are streams that type 15 does not say all of (`kinds::stream`).
//!
//! ```text
//! REDIS0009 | FA name value ..      aux fields
//! F5 text                          each function library, which Redis 7 and later read
//! FE db     | FB keys expiring      each database that has keys
//!           | [FC expires at, ms 8 LE] type key value ..
//! FF        | CRC-64 8 LE
//! ```
//! It is handed on in pieces; what is large is never whole in memory.

use std::cell::Cell;

use super::link::LinkEnd;
use crate::rdb::{crc64, write_length, write_string};
use crate::store::format::object::Object;
use crate::store::format::row::{self, Namespace, PLACE_BITS};
use crate::store::keyspace::{DATABASES, Keyspace, LibraryTexts};
use crate::store::kinds::plain;
use crate::store::kinds::source::bad_row;
use crate::store::rows::{RowSnapshot, StoreError};
use crate::store::session::{KeptTexts, REDIS_VERSION};

/// Aux fields of a backup: what the file of CONFIG REWRITE would hold. Redis leaves out what it
/// does not know.
pub(in crate::store) const SETTINGS_FIELD: &str = "keyferry-settings";
pub(in crate::store) const USERS_FIELD: &str = "keyferry-users";
const HEAD: &[u8] = b"REDIS0009";
const AUX: u8 = 0xfa;
const FUNCTION2: u8 = 0xf5;
const RESIZE: u8 = 0xfb;
const EXPIRES_MS: u8 = 0xfc;
const SELECT: u8 = 0xfe;
const END: u8 = 0xff;
/// Bytes that are handed on at once, about.
const PIECE_BYTES: usize = 64 * 1024;

/// Which databases a snapshot has; noted when it is asked for.
#[derive(Debug, Default)]
pub(super) struct Contents {
    databases: Vec<Database>,
    /// Texts of function libraries.
    libraries: LibraryTexts,
    /// For who asked for it.
    kept: Option<KeptTexts>,
}

#[derive(Debug)]
struct Database {
    number: u64,
    ns: Namespace,
    keys: u64,
    expiring: u64,
}

impl Contents {
    pub(super) fn of(keyspace: &Keyspace) -> Result<Self, StoreError> {
        let all = (0..DATABASES).map(|db| Database {
            number: db as u64,
            ns: keyspace.namespace(db),
            keys: keyspace.key_count(db),
            expiring: keyspace.expiring_count(db),
        });
        Ok(Self {
            databases: all.filter(|database| database.keys > 0).collect(),
            libraries: keyspace.library_texts()?,
            kept: None,
        })
    }

    /// With parameters and users.
    pub(super) fn with_kept(mut self, kept: KeptTexts) -> Self {
        self.kept = Some(kept);
        self
    }
}

/// What the snapshot says about itself.
#[derive(Debug)]
pub(super) struct Told<'a> {
    pub(super) replid: &'a str,
    pub(super) offset: u64,
    pub(super) selected_db: u16,
    pub(super) now_ms: u64,
}

/// Takes a piece of the file.
type Send<'a> = dyn FnMut(&[u8]) -> Result<(), LinkEnd> + 'a;

/// Hands the file on; without rows it has no keys.
pub(super) fn write(
    rows: Option<&RowSnapshot>,
    contents: &Contents,
    told: &Told<'_>,
    send: &mut Send<'_>,
) -> Result<(), LinkEnd> {
    let crc = Cell::new(0);
    let mut send = |out: &mut Vec<u8>| {
        crc.set(crc64(crc.get(), out));
        let sent = send(out);
        out.clear();
        sent
    };
    let mut out = Vec::with_capacity(2 * PIECE_BYTES);
    write_head(&mut out, told);
    if let Some(kept) = &contents.kept {
        write_field(&mut out, SETTINGS_FIELD, &kept.settings);
        write_field(&mut out, USERS_FIELD, &kept.users);
    }
    for (_, text) in &contents.libraries {
        out.push(FUNCTION2);
        write_string(&mut out, text);
        send(&mut out)?;
    }
    if let Some(rows) = rows {
        for database in &contents.databases {
            write_database(rows, database, &mut out, &mut send)?;
        }
    }
    out.push(END);
    send(&mut out)?;
    out.extend_from_slice(&crc.get().to_le_bytes());
    send(&mut out)
}

fn write_head(out: &mut Vec<u8>, told: &Told<'_>) {
    out.extend_from_slice(HEAD);
    for (name, value) in [
        ("redis-ver", REDIS_VERSION.to_owned()),
        ("redis-bits", "64".to_owned()),
        ("ctime", (told.now_ms / 1000).to_string()),
        ("used-mem", "0".to_owned()),
        ("repl-stream-db", told.selected_db.to_string()),
        ("repl-id", told.replid.to_owned()),
        ("repl-offset", told.offset.to_string()),
    ] {
        write_field(out, name, value.as_bytes());
    }
}

fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.push(AUX);
    write_string(out, name.as_bytes());
    write_string(out, value);
}

fn write_database(
    rows: &RowSnapshot,
    database: &Database,
    out: &mut Vec<u8>,
    send: &mut dyn FnMut(&mut Vec<u8>) -> Result<(), LinkEnd>,
) -> Result<(), LinkEnd> {
    out.push(SELECT);
    write_length(out, database.number);
    out.push(RESIZE);
    write_length(out, database.keys);
    write_length(out, database.expiring);
    let from = row::meta_from(database.ns, 0);
    let to = row::meta_from(database.ns, 1 << PLACE_BITS);
    for next in rows.range(&from, &to) {
        let (key, value) = next.map_err(StoreError::from)?;
        let (_, _, user_key) = row::split_meta(&key).ok_or_else(|| bad_row(&key))?;
        let object = Object::decode(&value).ok_or_else(|| bad_row(&key))?;
        if let Some(at) = object.expires_at_ms {
            out.push(EXPIRES_MS);
            out.extend_from_slice(&at.to_le_bytes());
        }
        out.push(plain::type_of(rows, &object.value)?.byte());
        write_string(out, user_key);
        plain::write(rows, &object.value, out, send)?;
        if out.len() >= PIECE_BYTES {
            send(out)?;
        }
    }
    Ok(())
}
