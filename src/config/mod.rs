//! Config files: what was typed becomes what it means.
//!
//! ```text
//! text --document--> Section, Item (values with places)
//!      --process, pool, layout--> Config (no Option, no string left to doubt)
//! ```
//!
//! Invariants of a [`Config`]: at least one pool; pool names are unique and
//! usable as file names and in URLs; no two addresses that would be bound
//! clash; every layout passed `Layout::new`; an admin address that is not
//! loopback has a token. What this build does not act on yet is refused.

mod document;
mod layout;
mod pool;
mod problem;
mod process;
mod secret;
mod unit;

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

use document::Document;

use crate::router::spec::LayoutSpec;

/// Reads the config in `file`; `${NAME}` secrets come from the environment of
/// the process.
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
    refuse_yaml(file, text)?;
    Document::read(file, text, |root| process::config(root, environment))
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

/// A nutcracker.yml starts with `name:` at the line's start and goes on with
/// indented `key: value` lines; no line of TOML looks like the first.
fn refuse_yaml(file: &Path, text: &str) -> Result<(), ConfigError> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim_end();
        let blank = content.is_empty() || content.starts_with('#') || content == "---";
        if !blank {
            let name = content.strip_suffix(':').unwrap_or_default();
            let is_pool = !name.is_empty() && !name.contains(['=', '[', '"', ' ']);
            if !is_pool {
                return Ok(());
            }
            return Err(Document::refuse(
                file,
                text,
                at,
                "this is a nutcracker.yml; reading those is not in this build yet",
                "write the pool as TOML; configs/small.toml shows how",
            ));
        }
        at += line.len();
    }
    Ok(())
}
