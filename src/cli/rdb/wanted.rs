//! `--prefix`, `--type` and `--db`: which keys of the file are meant.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use crate::rdb::ValueKind;
use crate::rdbfile::selection::Selection;
use crate::rdbfile::words::{KINDS, kind_word};

/// Filters; all that are given must hold.
#[derive(Debug, clap::Args)]
pub struct WantedArgs {
    /// Only keys that begin with this
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<OsString>,
    /// Only values of this type (string, list, set, zset, hash, stream, module, array, gcra); may be given more than once
    #[arg(long = "type", value_name = "TYPE", value_parser = kind)]
    kinds: Vec<ValueKind>,
    /// Only keys of this database; may be given more than once
    #[arg(long = "db", value_name = "N")]
    dbs: Vec<u32>,
}

impl WantedArgs {
    /// What they mean.
    pub fn selection(&self) -> Selection {
        Selection {
            prefix: self
                .prefix
                .as_ref()
                .map(|prefix| prefix.as_bytes().to_vec())
                .unwrap_or_default(),
            kinds: self.kinds.clone(),
            dbs: self.dbs.clone(),
        }
    }
}

fn kind(word: &str) -> Result<ValueKind, String> {
    let found = KINDS.into_iter().find(|kind| kind_word(*kind) == word);
    found.ok_or_else(|| format!("the types are {}", KINDS.map(kind_word).join(", ")))
}
