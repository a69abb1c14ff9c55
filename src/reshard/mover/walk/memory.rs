//! What was last told of keys that a source would not tell about by itself:
//! a digest of the value and the time of expiry.
//!
//! Followed by notifications, only *quiet* keys are remembered, those that can
//! change without one (see [`is_quiet`]); by repeated passes, all that move.
//! Invariant: what is remembered of a key is what was last handed on for it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher as _};

use crate::rdb::RawValue;
use crate::rdb::value_type::ValueKind;

use super::inbox::KeyIn;

/// Keys remembered for one source.
pub(super) const REMEMBERED_KEYS_MAX: usize = 2_000_000;
/// Bytes of their names.
pub(super) const REMEMBERED_BYTES_MAX: usize = 256 * 1024 * 1024;
/// TIME + PTTL wavers by this much from one read to the next.
const EXPIRY_JITTER_MS: u64 = 20;
/// Where a HyperLogLog's first bytes are, whether LZF packed it or not.
const HLL_HEAD_BYTES: usize = 32;

/// The bound was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

#[derive(Debug, Clone, Copy)]
struct Known {
    digest: u64,
    expires_at_ms: Option<i64>,
    /// The newest pass that saw the key.
    pass: u64,
}

/// The keys of one source.
#[derive(Debug)]
pub(super) struct Memory {
    keys: HashMap<KeyIn, Known>,
    bytes: usize,
    keys_max: usize,
}

impl Memory {
    pub(super) fn new() -> Memory {
        Memory {
            keys: HashMap::new(),
            bytes: 0,
            keys_max: REMEMBERED_KEYS_MAX,
        }
    }

    /// Takes note of a key; whether it is another than what was last told.
    pub(super) fn take(
        &mut self,
        key: &KeyIn,
        payload: &[u8],
        expires_at_ms: Option<i64>,
        pass: u64,
    ) -> Result<bool, Full> {
        let now = Known {
            digest: digest(payload),
            expires_at_ms,
            pass,
        };
        if let Some(known) = self.keys.get_mut(key) {
            let same = known.digest == now.digest && is_near(known.expires_at_ms, expires_at_ms);
            if same {
                // The time that was told stays: small steps must not add up.
                known.pass = pass;
            } else {
                *known = now;
            }
            return Ok(!same);
        }
        if self.keys.len() >= self.keys_max || self.bytes >= REMEMBERED_BYTES_MAX {
            return Err(Full);
        }
        self.bytes += key.1.len();
        self.keys.insert(key.clone(), now);
        Ok(true)
    }

    /// Forgets a key; whether it was known.
    pub(super) fn forget(&mut self, key: &KeyIn) -> bool {
        let known = self.keys.remove(key).is_some();
        if known {
            self.bytes = self.bytes.saturating_sub(key.1.len());
        }
        known
    }

    pub(super) fn knows(&self, key: &KeyIn) -> bool {
        self.keys.contains_key(key)
    }

    /// Known keys that the pass of this number did not see.
    pub(super) fn unseen(&self, pass: u64) -> Vec<KeyIn> {
        let unseen = self.keys.iter().filter(|(_, known)| known.pass != pass);
        unseen.map(|(key, _)| key.clone()).collect()
    }

    /// All known keys.
    pub(super) fn all(&self) -> Vec<KeyIn> {
        self.keys.keys().cloned().collect()
    }
}

fn digest(payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(payload);
    hasher.finish()
}

fn is_near(one: Option<i64>, other: Option<i64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.abs_diff(other) <= EXPIRY_JITTER_MS,
        (None, None) => true,
        _ => false,
    }
}

/// Whether a value can change without a notification: consumer groups (XACK,
/// XCLAIM and XREADGROUP tell nothing), HyperLogLogs (PFCOUNT writes its result
/// into them), and types whose modules or servers we do not know well.
pub(super) fn is_quiet(value: &RawValue<'_>) -> bool {
    match value.type_id.kind() {
        ValueKind::String => {
            let head = value.bytes.get(..HLL_HEAD_BYTES).unwrap_or(value.bytes);
            head.windows(4).any(|window| window == b"HYLL")
        }
        ValueKind::List | ValueKind::Set | ValueKind::SortedSet | ValueKind::Hash => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::rdb::ValueType;

    fn key(name: &'static str) -> KeyIn {
        (3, Bytes::from_static(name.as_bytes()))
    }

    #[test]
    fn only_what_changed_is_told_again() {
        let mut memory = Memory::new();
        let at = |ms: i64| Some(1_000_000 + ms);
        for (payload, expires_at_ms, changed) in [
            (&b"v"[..], None, true),
            (b"v", None, false),
            (b"w", None, true),
            (b"w", at(0), true),
            (b"w", at(15), false),
            // Compared with what was told, not with what was seen last.
            (b"w", at(30), true),
            (b"w", None, true),
        ] {
            let told = memory.take(&key("k"), payload, expires_at_ms, 1);
            assert_eq!(told, Ok(changed), "{payload:?} {expires_at_ms:?}");
        }
        assert!(memory.forget(&key("k")));
        assert!(!memory.forget(&key("k")));
    }

    #[test]
    fn keys_that_a_pass_did_not_see_are_known() {
        let mut memory = Memory::new();
        for name in ["a", "b"] {
            memory.take(&key(name), b"v", None, 1).unwrap();
        }
        memory.take(&key("b"), b"v", None, 2).unwrap();
        assert_eq!(memory.unseen(2), [key("a")]);
    }

    #[test]
    fn past_the_bound_new_keys_are_refused() {
        let mut memory = Memory {
            keys_max: 1,
            ..Memory::new()
        };
        assert_eq!(memory.take(&key("a"), b"v", None, 1), Ok(true));
        assert_eq!(memory.take(&key("b"), b"v", None, 1), Err(Full));
        assert_eq!(memory.take(&key("a"), b"w", None, 1), Ok(true));
    }

    #[test]
    fn streams_and_hyperloglogs_are_quiet() {
        let value = |type_id, bytes| RawValue { type_id, bytes };
        assert!(is_quiet(&value(ValueType::String, b"\x05HYLL\x01")));
        assert!(!is_quiet(&value(ValueType::String, b"\x01v")));
        assert!(!is_quiet(&value(ValueType::List, b"\x01\x01v")));
        assert!(is_quiet(&value(ValueType::StreamListpacks, b"\x00")));
    }
}
