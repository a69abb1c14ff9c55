//! The decided route as it is left on the servers themselves, for a proxy that
//! nobody could tell: it finds its old epoch refused, and reads here why.
//!
//! ```text
//! SET __keyferry:route:<pool>  {"v":1,"pool":"p","job":"j","epoch":7,"to":{..}}   database 0
//! SET __keyferry:fence:<pool>  "<job> <epoch>"      while the server refuses an epoch's logins
//! ```
//!
//! Invariant: a route record is written only after the decision is durable, so
//! who reads one may take its route.

use serde::{Deserialize, Serialize};

use super::spec::LayoutSpec;

/// Version of the record's schema.
const VERSION: u32 = 1;

/// A decided route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteRecord {
    /// Schema version, 1.
    pub v: u32,
    /// Name of the pool.
    pub pool: String,
    /// The job that decided.
    pub job: String,
    /// Number of the layout.
    pub epoch: u64,
    /// The layout.
    pub to: LayoutSpec,
}

/// A record that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum BadRouteRecord {
    /// It is no JSON of this shape.
    #[error("it is not what is written there: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// Somebody newer wrote it.
    #[error("it has schema version {0}, which this program does not know")]
    Version(u32),
    /// It is of another pool.
    #[error("it is of pool {0}")]
    Pool(String),
}

impl RouteRecord {
    /// What `job` decided for `pool`.
    pub fn new(pool: &str, job: &str, epoch: u64, to: LayoutSpec) -> Self {
        Self {
            v: VERSION,
            pool: pool.to_owned(),
            job: job.to_owned(),
            epoch,
            to,
        }
    }

    /// The key it is at, in database 0.
    pub fn key(pool: &str) -> String {
        format!("__keyferry:route:{pool}")
    }

    /// The key that is there as long as the server is fenced.
    pub fn fence_key(pool: &str) -> String {
        format!("__keyferry:fence:{pool}")
    }

    /// Whether the value at that key, `JOB EPOCH`, shuts out who is at `epoch`. One
    /// that makes no sense may well do.
    pub fn shuts_out(fence: &[u8], epoch: u64) -> bool {
        let last = fence.rsplit(|byte| *byte == b' ').next();
        let last = last.and_then(|digits| std::str::from_utf8(digits).ok());
        let fenced: Option<u64> = last.and_then(|digits| digits.parse().ok());
        fenced.is_none_or(|fenced| fenced >= epoch)
    }

    /// The value at the key.
    pub fn to_json(&self) -> String {
        // Numbers, texts and lists: there is nothing that could fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads the value of `pool`'s key.
    ///
    /// # Errors
    /// It is not such a record, or not one of this pool.
    pub fn parse(pool: &str, value: &[u8]) -> Result<Self, BadRouteRecord> {
        let record: Self = serde_json::from_slice(value)?;
        if record.v != VERSION {
            return Err(BadRouteRecord::Version(record.v));
        }
        if record.pool != pool {
            return Err(BadRouteRecord::Pool(record.pool));
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_for_its_epoch_and_those_before() {
        for (fence, shut_out) in [
            ("job 7", true),
            ("job 8", true),
            ("job 6", false),
            ("job x", true),
            ("", true),
        ] {
            assert_eq!(
                RouteRecord::shuts_out(fence.as_bytes(), 7),
                shut_out,
                "{fence}"
            );
        }
    }

    #[test]
    fn what_is_written_is_read_and_other_things_are_not() {
        let record = RouteRecord::new("cache", "j1", 7, LayoutSpec::default());
        let text = record.to_json();
        assert_eq!(
            RouteRecord::parse("cache", text.as_bytes()).unwrap(),
            record
        );
        for (pool, text) in [
            ("other", text.as_str()),
            ("cache", "{}"),
            ("cache", ""),
            ("cache", &text.replace("\"v\":1", "\"v\":2")),
        ] {
            assert!(RouteRecord::parse(pool, text.as_bytes()).is_err());
        }
    }
}
