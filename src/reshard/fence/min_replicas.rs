//! The fence of a server without users: it refuses every write as long as it has
//! fewer replicas than anybody ever attaches.
//!
//! ```text
//! CONFIG SET min-replicas-to-write 9999    MULTI and PUBLISH go on, what writes gets -NOREPLICAS
//! CONFIG SET min-replicas-max-lag 10       only where it was 0, which would count nobody
//! ```
//! Reads go on: the proxies' hold keeps them off. It hits everybody, our own lanes
//! too: hence only a server that leaves the layout is fenced so, and only until
//! every proxy has its new route.

use serde::{Deserialize, Serialize};

use super::{Words, words};
use crate::router::address::ShardAddress;

/// More replicas than a server has.
const NEVER: &str = "9999";

/// Seconds; Redis' own default.
const LAG_S: &str = "10";

/// Names of the settings, of Redis 5 and later, and of those before.
pub const NAMES: [[&str; 2]; 2] = [
    ["min-replicas-to-write", "min-replicas-max-lag"],
    ["min-slaves-to-write", "min-slaves-max-lag"],
];

/// A setting of a server, with the value that it has without a fence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// What is set for a fence on one server, as it was before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinReplicas {
    /// Replicas that a write takes.
    pub to_write: Setting,
    /// How far behind they may be.
    pub max_lag: Setting,
}

/// The same with the server's address, as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptSettings {
    /// The address.
    pub server: String,
    /// What is to be set again.
    pub settings: MinReplicas,
}

impl KeptSettings {
    /// Those of `server`, among all.
    pub fn of<'a>(all: &'a [Self], server: &ShardAddress) -> Option<&'a MinReplicas> {
        let name = server.to_string();
        let found = all.iter().find(|kept| kept.server == name);
        found.map(|kept| &kept.settings)
    }
}

impl MinReplicas {
    /// Whether these values are a fence's own, left by a process that died.
    pub fn is_fenced(&self) -> bool {
        self.to_write.value == NEVER
    }

    /// From the last of these on no write is taken.
    pub fn raised(&self) -> Vec<Words> {
        let lag = (self.max_lag.value == "0").then(|| set(&self.max_lag.name, LAG_S));
        let last = set(&self.to_write.name, NEVER);
        lag.into_iter().chain([last]).collect()
    }

    /// From the first of these on writes are taken as before.
    pub fn restored(&self) -> Vec<Words> {
        let both = [&self.to_write, &self.max_lag];
        both.map(|setting| set(&setting.name, &setting.value))
            .into()
    }
}

fn set(name: &str, value: &str) -> Words {
    words(&["CONFIG", "SET", name, value])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(to_write: &str, max_lag: &str) -> MinReplicas {
        let [to, lag] = NAMES[0];
        let setting = |name: &str, value: &str| Setting {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        MinReplicas {
            to_write: setting(to, to_write),
            max_lag: setting(lag, max_lag),
        }
    }

    #[test]
    fn what_is_raised_is_restored_to_what_was() {
        assert_eq!(
            settings("2", "5").raised(),
            [words(&["CONFIG", "SET", "min-replicas-to-write", "9999"])]
        );
        assert_eq!(settings("0", "0").raised().len(), 2, "0 counts nobody");
        assert_eq!(
            settings("2", "0").restored(),
            [
                words(&["CONFIG", "SET", "min-replicas-to-write", "2"]),
                words(&["CONFIG", "SET", "min-replicas-max-lag", "0"])
            ]
        );
        assert!(settings("9999", "10").is_fenced());
    }
}
