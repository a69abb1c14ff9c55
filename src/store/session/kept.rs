//! What CONFIG REWRITE keeps, in the words of its files.

use std::collections::BTreeMap;
use std::fmt;

use super::shard::Shard;

/// See the head of the file. It has passwords, and is not shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KeptTexts {
    /// `{ "parameter": "value", .. }`: what CONFIG SET changed; empty if it changed nothing.
    pub settings: Vec<u8>,
    /// `user NAME RULES ..`, a line each, as ACL LIST tells them.
    pub users: Vec<u8>,
}

impl fmt::Debug for KeptTexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptTexts").finish_non_exhaustive()
    }
}

impl KeptTexts {
    /// Parameters and their values.
    ///
    /// # Errors
    /// The text is no object of strings.
    pub fn parameters(&self) -> Result<BTreeMap<String, String>, serde_json::Error> {
        match self.settings.is_empty() {
            true => Ok(BTreeMap::new()),
            false => serde_json::from_slice(&self.settings),
        }
    }

    /// Lines that have something in them.
    pub fn user_lines(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.users.split(|byte| *byte == b'\n');
        lines.filter(|line| !line.trim_ascii().is_empty())
    }
}

impl Shard {
    /// What another process needs to have the same parameters and users.
    pub fn kept_texts(&self) -> KeptTexts {
        let changed = self.parameters.changed();
        let settings = changed.map(|(name, value)| (name.to_owned(), value.into()));
        let settings: serde_json::Map<_, _> = settings.collect();
        let settings = match settings.is_empty() {
            true => String::new(),
            false => format!("{:#}\n", serde_json::Value::Object(settings)),
        };
        let password = self.parameters.value("requirepass").as_bytes();
        let password = (!password.is_empty()).then_some(password);
        let mut users = self.users.lines_beside(password).join(&b'\n');
        if !users.is_empty() {
            users.push(b'\n');
        }
        KeptTexts {
            settings: settings.into_bytes(),
            users,
        }
    }
}
