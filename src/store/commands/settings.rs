//! What CONFIG SET changes and commands look at.

/// Defaults are those of Redis 7.0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Entries of a hash that is a listpack.
    pub hash_max_listpack_entries: u64,
    /// Bytes of its longest field or value.
    pub hash_max_listpack_value: u64,
    /// Members of a set that is an intset.
    pub set_max_intset_entries: u64,
    /// Entries of a sorted set that is a listpack.
    pub zset_max_listpack_entries: u64,
    /// Bytes of its longest member.
    pub zset_max_listpack_value: u64,
    /// Bytes of a sparse HyperLogLog.
    pub hll_sparse_max_bytes: u64,
    /// Entries of a stream's node: about so many go at once.
    pub stream_node_max_entries: u64,
    /// Longest string, in bytes.
    pub proto_max_bulk_len: u64,
    /// Which keyspace events are published, as `notify-keyspace-events` spells them;
    /// empty for none.
    pub notify: NotifyFlags,
    /// `maxmemory-policy` is one of LFU.
    pub is_lfu: bool,
    /// Expired keys are told as UNLINK instead of DEL.
    pub lazyfree_lazy_expire: bool,
    /// Commands that take longer, in microseconds, are told by SLOWLOG; negative for none.
    pub slowlog_log_slower_than: i64,
    /// Most of them that are kept.
    pub slowlog_max_len: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hash_max_listpack_entries: 512,
            hash_max_listpack_value: 64,
            set_max_intset_entries: 512,
            zset_max_listpack_entries: 128,
            zset_max_listpack_value: 64,
            hll_sparse_max_bytes: 3000,
            stream_node_max_entries: 100,
            proto_max_bulk_len: 512 * 1024 * 1024,
            notify: NotifyFlags::default(),
            is_lfu: false,
            lazyfree_lazy_expire: false,
            slowlog_log_slower_than: 10_000,
            slowlog_max_len: 128,
        }
    }
}

/// Classes of keyspace events, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotifyFlags(u16);

/// Letters in the order of their bits; `A` is all between `g` and `d`.
const LETTERS: &[u8] = b"KEg$lshzxetdmn";
const ALL: &[u8] = b"g$lshzxetd";

/// What kind of event happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventClass {
    /// `g`: DEL, EXPIRE, RENAME ..
    Generic,
    /// `$`.
    String,
    /// `l`.
    List,
    /// `s`.
    Set,
    /// `h`.
    Hash,
    /// `z`.
    Zset,
    /// `x`.
    Expired,
    /// `e`.
    Evicted,
    /// `t`.
    Stream,
    /// `m`: a read that found nothing.
    Miss,
    /// `n`: a key that was not there before.
    New,
}

impl EventClass {
    fn letter(self) -> u8 {
        match self {
            EventClass::Generic => b'g',
            EventClass::String => b'$',
            EventClass::List => b'l',
            EventClass::Set => b's',
            EventClass::Hash => b'h',
            EventClass::Zset => b'z',
            EventClass::Expired => b'x',
            EventClass::Evicted => b'e',
            EventClass::Stream => b't',
            EventClass::Miss => b'm',
            EventClass::New => b'n',
        }
    }
}

impl NotifyFlags {
    /// Reads letters. `None` if one is none.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut flags = 0;
        for letter in text {
            if *letter == b'A' {
                flags |= ALL.iter().filter_map(|letter| bit(*letter)).sum::<u16>();
            } else {
                flags |= bit(*letter)?;
            }
        }
        Some(Self(flags))
    }

    /// As CONFIG GET tells it.
    pub fn text(self) -> String {
        let has = |letter: &u8| bit(*letter).is_some_and(|bit| self.0 & bit != 0);
        let mut text = String::new();
        if ALL.iter().all(has) {
            text.push('A');
        } else {
            text.extend(
                ALL.iter()
                    .filter(|letter| has(letter))
                    .map(|l| char::from(*l)),
            );
        }
        let others = LETTERS
            .iter()
            .filter(|letter| !ALL.contains(letter) && has(letter));
        text.extend(others.map(|letter| char::from(*letter)));
        text
    }

    /// Whether events of a class are published at all.
    pub fn wants(self, class: EventClass) -> bool {
        let is_published = self.is_keyspace() || self.is_keyevent();
        is_published && bit(class.letter()).is_some_and(|bit| self.0 & bit != 0)
    }

    /// `K`: to the channel of the key.
    pub fn is_keyspace(self) -> bool {
        self.0 & 1 != 0
    }

    /// `E`: to the channel of the event.
    pub fn is_keyevent(self) -> bool {
        self.0 & 2 != 0
    }
}

fn bit(letter: u8) -> Option<u16> {
    let at = LETTERS.iter().position(|of| *of == letter)?;
    Some(1 << at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_events_come_back_as_redis_tells_them() {
        for (written, told) in [
            ("", ""),
            ("KEA", "AKE"),
            ("g$lshzxetdK", "AK"),
            ("xE", "xE"),
            ("Kn$", "$Kn"),
        ] {
            let flags = NotifyFlags::parse(written.as_bytes()).expect("letters");
            assert_eq!(flags.text(), told);
        }
        assert_eq!(NotifyFlags::parse(b"q"), None);
        let flags = NotifyFlags::parse(b"KEx").expect("letters");
        assert!(flags.wants(EventClass::Expired) && !flags.wants(EventClass::Generic));
        assert!(
            !NotifyFlags::parse(b"x")
                .expect("letters")
                .wants(EventClass::Expired)
        );
    }
}
