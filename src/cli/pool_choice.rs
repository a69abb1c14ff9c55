//! `-p POOL`: which pool of a config is meant.

use std::path::Path;

use crate::config::Config;
use crate::proxy::config::PoolConfig;

/// No pool, or more than one, is meant.
#[derive(Debug, thiserror::Error)]
pub enum PoolChoiceError {
    /// There is none of that name.
    #[error("error: there is no pool `{asked}`\n  {file}\n  help: the pools are {known}")]
    Unknown {
        /// What was asked for.
        asked: String,
        /// The config.
        file: String,
        /// Names of its pools.
        known: String,
    },
    /// There are several and none was named.
    #[error(
        "error: the config has more than one pool\n  {file}\n  help: name one with -p: {known}"
    )]
    Several {
        /// The config.
        file: String,
        /// Names of its pools.
        known: String,
    },
}

/// The pool named `asked`, or the only one.
///
/// # Errors
/// Says which pools there are.
pub fn choose<'c>(
    config: &'c Config,
    file: &Path,
    asked: Option<&str>,
) -> Result<&'c PoolConfig, PoolChoiceError> {
    let names: Vec<_> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
    let (file, known) = (file.display().to_string(), names.join(", "));
    match (asked, config.pools.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => Err(PoolChoiceError::Several { file, known }),
        (Some(asked), pools) => pools.iter().find(|pool| pool.name == asked).ok_or_else(|| {
            let asked = asked.to_owned();
            PoolChoiceError::Unknown { asked, file, known }
        }),
    }
}
