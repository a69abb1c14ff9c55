//! Config files: what was typed becomes what it means.
//!
//! ```text
//! text --document--> Section, Item (values with places)
//!      --process, pool, layout--> Config (no Option, no string left to doubt)
//! a nutcracker.yml --nutcracker--> Config, the same
//! ```
//!
//! Invariants of a [`Config`]: at least one pool; pool names are unique and
//! usable as file names and in URLs; no two addresses that would be bound
//! clash; every layout passed `Layout::new`; an admin address that is not
//! loopback has a token. What this build does not act on yet is refused.

mod document;
mod layout;
mod nutcracker;
mod pool;
mod problem;
mod process;
mod secret;
mod store;
mod unit;
mod written;

#[cfg(test)]
mod tests;

use std::fs;
use std::path::Path;

pub use layout::{load_layout, parse_layout};
pub use problem::{ConfigError, Position, Problem};
pub use process::{
    AdminConfig, Config, HTTP_DEFAULT, LogConfig, LogFormat, LogLevel, ServerConfig,
};
pub use secret::Environment;
pub use store::{BACKLOG_BYTES_DEFAULT, MEMORY_BYTES_DEFAULT, StoreConfig, StoresConfig};
pub use unit::parse_size;
pub use written::{UnwritableConfig, to_toml};

use document::Document;

use crate::router::spec::LayoutSpec;

/// Reads the config in `file`: TOML or a nutcracker.yml, told apart by what
/// stands there. `${NAME}` secrets come from the environment of the process.
///
/// # Errors
/// The file cannot be read, or says something wrong: then every problem found.
pub fn load(file: &Path) -> Result<Config, ConfigError> {
    let text = read(file)?;
    parse(file, &text, &process_environment)
}

/// The meaning of `text`, the content of `file` (which is named in problems,
/// and relative to which "file:" secrets are found).
///
/// # Errors
/// Every problem found in the text.
pub fn parse(file: &Path, text: &str, environment: Environment<'_>) -> Result<Config, ConfigError> {
    if nutcracker::is_nutcracker(text) {
        return parse_nutcracker(file, text);
    }
    Document::read(file, text, |root| process::config(root, environment))
}

/// Reads the config of a built-in shard in `file`: `[store]` and `[log]`.
///
/// # Errors
/// As [`load`].
pub fn load_store(file: &Path) -> Result<StoreConfig, ConfigError> {
    let text = read(file)?;
    Document::read(file, &text, |root| store::store(root, &process_environment))
}

/// The meaning of `text`, the content of `file`, as a nutcracker.yml whatever
/// it looks like.
///
/// # Errors
/// In the words of the original's log.
pub fn parse_nutcracker(file: &Path, text: &str) -> Result<Config, ConfigError> {
    nutcracker::parse(file, text)
}

/// As [`parse_nutcracker`], of what is in `file`.
///
/// # Errors
/// The file cannot be read, or as [`parse_nutcracker`].
pub fn load_nutcracker(file: &Path) -> Result<Config, ConfigError> {
    parse_nutcracker(file, &read(file)?)
}

/// What a file turned out to be.
#[derive(Debug)]
pub enum Loaded {
    /// A config with pools.
    Config(Config),
    /// A LAYOUT file.
    Layout(LayoutSpec),
}

/// Reads a config or a LAYOUT file, told apart by what stands at the top.
///
/// # Errors
/// As [`load`] and [`load_layout`].
pub fn load_either(file: &Path) -> Result<Loaded, ConfigError> {
    let text = read(file)?;
    let top: toml::Table = toml::from_str(&text).unwrap_or_default();
    let is_layout = top.contains_key("shard") && !top.contains_key("pool");
    if is_layout {
        return parse_layout(file, &text).map(Loaded::Layout);
    }
    parse(file, &text, &process_environment).map(Loaded::Config)
}

fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn read(file: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(file).map_err(|cause| ConfigError::Unreadable {
        file: file.to_owned(),
        cause,
    })
}
