//! Which keys of a file are wanted: by prefix, type and database.

use crate::rdb::ValueKind;

/// Empty lists and an empty prefix want everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Keys begin with these bytes.
    pub prefix: Vec<u8>,
    /// Values are one of these kinds.
    pub kinds: Vec<ValueKind>,
    /// Keys are in one of these databases.
    pub dbs: Vec<u32>,
}

impl Selection {
    /// Whether a key is wanted.
    pub fn wants(&self, db: u32, key: &[u8], kind: ValueKind) -> bool {
        key.starts_with(&self.prefix)
            && (self.kinds.is_empty() || self.kinds.contains(&kind))
            && (self.dbs.is_empty() || self.dbs.contains(&db))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_condition_must_hold() {
        let all = Selection::default();
        assert!(all.wants(3, b"\xff", ValueKind::Module));
        let some = Selection {
            prefix: b"a:".to_vec(),
            kinds: vec![ValueKind::Hash, ValueKind::Set],
            dbs: vec![0, 2],
        };
        assert!(some.wants(2, b"a:1", ValueKind::Set));
        assert!(!some.wants(1, b"a:1", ValueKind::Set));
        assert!(!some.wants(2, b"b:1", ValueKind::Set));
        assert!(!some.wants(2, b"a:1", ValueKind::List));
    }
}
