//! What targets cannot be given, key by key: never dropped in silence.
//!
//! ```text
//! cannot hold   the key is not on its target: an unknown type, field expiry on an old server
//! loses         the key is there, but for something that is no content (lag counters, idle time)
//! ```
//!
//! Each source counts its own keys, keeps some as examples, and appends all of
//! them to one file of this run, a JSON object a line, each key once. A key that
//! is deleted or written as a whole is held again and counts no more; the file
//! keeps its line.
//!
//! Invariant: what comes for a key that is not held is not sent ([`ShortfallLog::is_unheld`]).

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::router::address::ShardAddress;

use super::config::EXAMPLES_MAX;
use super::key_text::KeyText;

/// What a key falls short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Short {
    /// It is not on its target.
    CannotHold,
    /// It is there without something.
    Loses,
}

/// One key and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// Whether it is there at all.
    pub short: Short,
    /// Where it comes from.
    pub source: ShardAddress,
    /// Where it was to go.
    pub target: ShardAddress,
    /// Database number.
    pub db: u32,
    /// The key; or the name of a function library.
    pub key: Vec<u8>,
    /// What is missing and why.
    pub what: String,
}

impl std::fmt::Display for Shortfall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verb = match self.short {
            Short::CannotHold => "is not on",
            Short::Loses => "is not whole on",
        };
        let (key, db) = (KeyText(&self.key), self.db);
        write!(
            f,
            "`{key}` (db {db}) of {} {verb} {}: {}",
            self.source, self.target, self.what
        )
    }
}

/// As the file has it; keys are written as text where they are UTF-8.
#[derive(Serialize)]
struct Line<'a> {
    short: Short,
    source: String,
    target: String,
    db: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    /// Every byte as two digits, when it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hex: Option<String>,
    what: &'a str,
}

/// How many there are, and some of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shortfalls {
    /// Keys that are not on their target.
    pub cannot_hold: u64,
    /// Keys that are there without something.
    pub lose: u64,
    /// The first of either kind.
    pub examples: Vec<Shortfall>,
}

/// The file that all sources append to.
#[derive(Debug, Clone)]
pub(super) struct ShortfallFile {
    path: Arc<PathBuf>,
    file: Arc<Mutex<Option<File>>>,
}

impl ShortfallFile {
    /// Removes what an earlier run left, all of which will be met again; nothing
    /// is created before there is something to write.
    pub(super) fn at(path: &Path) -> ShortfallFile {
        if let Err(error) = std::fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "an earlier run's file stays");
        }
        ShortfallFile {
            path: Arc::new(path.to_path_buf()),
            file: Arc::default(),
        }
    }

    fn append(&self, shortfall: &Shortfall) -> io::Result<()> {
        let key = std::str::from_utf8(&shortfall.key).ok();
        let hex = || {
            shortfall
                .key
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect()
        };
        let line = Line {
            short: shortfall.short,
            source: shortfall.source.to_string(),
            target: shortfall.target.to_string(),
            db: shortfall.db,
            key,
            key_hex: key.is_none().then(hex),
            what: &shortfall.what,
        };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let file = match &mut *file {
            Some(file) => file,
            empty => {
                let opened = OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(&*self.path)?;
                empty.insert(opened)
            }
        };
        file.write_all(&text)
    }
}

/// One source's count, shared with its lanes.
#[derive(Debug, Clone)]
pub(super) struct ShortfallLog {
    book: Arc<Mutex<Book>>,
    /// How many keys are not held; read for each command of the stream.
    unheld: Arc<AtomicUsize>,
    file: Option<ShortfallFile>,
}

/// Keys remembered of either kind; later ones are counted, and written again
/// each time.
const KEYS_MAX: usize = 200_000;

#[derive(Debug, Default)]
struct Book {
    unheld: HashSet<(u32, Vec<u8>)>,
    losing: HashSet<(u32, Vec<u8>)>,
    /// Those for which there was no room.
    unheld_beyond: u64,
    losing_beyond: u64,
    examples: Vec<Shortfall>,
}

impl ShortfallLog {
    pub(super) fn new(file: Option<ShortfallFile>) -> ShortfallLog {
        ShortfallLog {
            book: Arc::default(),
            unheld: Arc::default(),
            file,
        }
    }

    pub(super) fn add(&self, shortfall: Shortfall) {
        let mut book = self.book();
        let key = (shortfall.db, shortfall.key.clone());
        let (keys, beyond) = book.of(shortfall.short);
        if keys.contains(&key) {
            return;
        }
        if keys.len() < KEYS_MAX {
            keys.insert(key);
        } else {
            *beyond += 1;
        }
        self.unheld.store(book.unheld.len(), Ordering::Release);
        // A file that cannot be written must not hide the key.
        match self.file.as_ref().map(|file| file.append(&shortfall)) {
            Some(Ok(())) => tracing::debug!("{shortfall}"),
            Some(Err(error)) => tracing::warn!(%error, "{shortfall}"),
            None => tracing::warn!("{shortfall}"),
        }
        if book.examples.len() < EXAMPLES_MAX {
            book.examples.push(shortfall);
        }
    }

    /// Whether the key is not on its target, so that what comes for it has no
    /// place there.
    pub(super) fn is_unheld(&self, db: u32, key: &[u8]) -> bool {
        self.any_unheld() && self.book().unheld.contains(&(db, key.to_vec()))
    }

    /// Whether there is any such key.
    pub(super) fn any_unheld(&self) -> bool {
        self.unheld.load(Ordering::Acquire) > 0
    }

    /// The key was deleted or written as a whole.
    pub(super) fn held_again(&self, db: u32, key: &[u8]) {
        if !self.any_unheld() {
            return;
        }
        let mut book = self.book();
        if book.unheld.remove(&(db, key.to_vec())) {
            let is_it = |example: &Shortfall| {
                example.short == Short::CannotHold && example.db == db && example.key == key
            };
            book.examples.retain(|example| !is_it(example));
            self.unheld.store(book.unheld.len(), Ordering::Release);
        }
    }

    /// All of it will be met again.
    pub(super) fn forget(&self) {
        *self.book() = Book::default();
        self.unheld.store(0, Ordering::Release);
    }

    pub(super) fn read(&self) -> Shortfalls {
        let book = self.book();
        Shortfalls {
            cannot_hold: book.unheld.len() as u64 + book.unheld_beyond,
            lose: book.losing.len() as u64 + book.losing_beyond,
            examples: book.examples.clone(),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn of(&mut self, short: Short) -> (&mut HashSet<(u32, Vec<u8>)>, &mut u64) {
        match short {
            Short::CannotHold => (&mut self.unheld, &mut self.unheld_beyond),
            Short::Loses => (&mut self.losing, &mut self.losing_beyond),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_in_the_file_and_some_are_examples() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shortfalls.jsonl");
        let log = ShortfallLog::new(Some(ShortfallFile::at(&path)));
        let shortfall = |short, key: &[u8]| Shortfall {
            short,
            source: "s:1".parse().unwrap(),
            target: "t:2".parse().unwrap(),
            db: 3,
            key: key.to_vec(),
            what: "why".to_owned(),
        };
        log.add(shortfall(Short::Loses, b"\xff\0"));
        for n in 0..EXAMPLES_MAX {
            log.add(shortfall(Short::CannotHold, format!("k{n}").as_bytes()));
        }
        let seen = log.read();
        assert_eq!((seen.cannot_hold, seen.lose), (EXAMPLES_MAX as u64, 1));
        assert_eq!(seen.examples.len(), EXAMPLES_MAX);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), EXAMPLES_MAX + 1);
        assert_eq!(lines[0]["key_hex"], "ff00");
        assert_eq!(lines[1]["key"], "k0");
        assert_eq!(lines[1]["short"], "cannot_hold");
        // Once more, and then gone from the source.
        log.add(shortfall(Short::CannotHold, b"k0"));
        assert!(log.is_unheld(3, b"k0") && !log.is_unheld(0, b"k0"));
        log.held_again(3, b"k0");
        assert!(!log.is_unheld(3, b"k0"));
        let seen = log.read();
        assert_eq!((seen.cannot_hold, seen.lose), (EXAMPLES_MAX as u64 - 1, 1));
        log.forget();
        assert_eq!(log.read(), Shortfalls::default());
    }
}
