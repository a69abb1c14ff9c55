//! What a command is executed against.

use bytes::Bytes;

use crate::store::format::object::{Kind, Object, Value, Written};
use crate::store::format::row::KEY_BYTES_MAX;
use crate::store::keyspace::{Expiry, Keyspace};
use crate::store::kinds::string;

use super::args::{Args, OwnedRequest};
use super::effects::Unit;
use super::failure::Failure;
use super::reply::Reply;
use super::settings::{EventClass, Settings};

/// How a command ended: it has replied, or this is the reply.
pub type Outcome = Result<(), Failure>;

/// What one command may read and change.
#[derive(Debug)]
pub struct Context<'a> {
    /// All databases.
    pub keyspace: &'a mut Keyspace,
    /// Where the reply goes.
    pub reply: &'a mut Reply,
    /// The client's database.
    pub db: usize,
    /// What CONFIG SET changes.
    pub settings: &'a Settings,
    /// What the log is told.
    pub unit: &'a mut Unit,
    /// Keyspace events to be published.
    pub events: &'a mut Vec<Event>,
    /// Whether the client may be made to wait, or did already.
    pub waits: Waits<'a>,
    /// Set instead of a reply: the command is executed again when one of the keys
    /// changes, and answered by what [`Wait::on_timeout`] says when the time is over.
    pub wait: Option<Wait>,
}

/// Something that happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The key's database.
    pub db: usize,
    /// `del`, `set`, `expire` ..
    pub name: &'static str,
    /// The key.
    pub key: Bytes,
}

/// Whether a command may wait for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits<'a> {
    /// It may not: inside EXEC, or what a master says.
    Never,
    /// It may not, and the same for a script.
    NeverInScript,
    /// It may.
    May,
    /// It waited, and this key changed. It looks at no other one, and waits on if the key
    /// does not hold what it waits for.
    Woken {
        /// The key.
        by: &'a [u8],
    },
}

/// Why a client waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Of its database, in the order of the command.
    pub keys: Vec<Bytes>,
    /// Unix time in ms; `None` waits for ever.
    pub until_ms: Option<u64>,
    /// What it is told when the time is over.
    pub on_timeout: OnTimeout,
    /// Executed in place of the command when a key is there, if that is another one
    /// (XREAD with `$`).
    pub again_as: Option<OwnedRequest>,
    /// It is run again, too, when there is nothing at a key any more (XREADGROUP).
    pub ends_with_key: bool,
}

/// A reply without a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTimeout {
    /// As BLMOVE.
    Null,
    /// As BLPOP.
    NullArray,
}

impl Context<'_> {
    /// What time it is, Unix ms.
    pub fn now_ms(&self) -> u64 {
        self.keyspace.now_ms()
    }

    /// Whether what is done here is a client's wish on a master: not what the log or a
    /// master says, which is not asked again, nor a replica's own business.
    pub fn is_master(&self) -> bool {
        self.keyspace.expiry() == Expiry::Remove
    }

    /// Whether it is what the log or a master says: limits were seen to there.
    pub fn obeys(&self) -> bool {
        self.keyspace.expiry() == Expiry::Ignore
    }

    /// How the log is told of a key whose time was over.
    pub fn word_of_end(&self) -> &'static [u8] {
        match self.settings.lazyfree_lazy_expire {
            true => b"UNLINK",
            false => b"DEL",
        }
    }

    /// The object of a key that a command reads; hits and misses are counted.
    ///
    /// # Errors
    /// [`Failure`] of the store.
    pub fn read(&mut self, key: &[u8]) -> Result<Option<Object>, Failure> {
        let found = self.keyspace.read(self.db, key)?;
        if found.is_none() {
            self.event(EventClass::Miss, "keymiss", key);
        }
        Ok(found)
    }

    /// The same, without being a use of it: what OBJECT IDLETIME tells stays.
    ///
    /// # Errors
    /// [`Failure`] of the store.
    pub fn peek(&mut self, key: &[u8]) -> Result<Option<Object>, Failure> {
        let found = self.keyspace.peek(self.db, key)?;
        if found.is_none() {
            self.event(EventClass::Miss, "keymiss", key);
        }
        Ok(found)
    }

    /// The object of a key that a command is about to change.
    ///
    /// # Errors
    /// [`Failure`] of the store, or if the key is too long for it.
    pub fn lookup(&mut self, key: &[u8]) -> Result<Option<Object>, Failure> {
        self.lookup_in(self.db, key)
    }

    /// The same in another database.
    ///
    /// # Errors
    /// As [`Context::lookup`].
    pub fn lookup_in(&mut self, db: usize, key: &[u8]) -> Result<Option<Object>, Failure> {
        if key.len() > KEY_BYTES_MAX {
            return Err(Failure::LONG_KEY);
        }
        Ok(self.keyspace.lookup(db, key)?)
    }

    /// Whether the client may be made to wait.
    pub fn may_wait(&self) -> bool {
        !matches!(self.waits, Waits::Never | Waits::NeverInScript)
    }

    /// The object of a key that the command waits for. When the client was woken, other
    /// keys and other kinds are as nothing.
    ///
    /// # Errors
    /// [`Failure`] of the store, or if the key is too long for it.
    pub fn lookup_awaited(&mut self, key: &[u8], kind: Kind) -> Result<Option<Object>, Failure> {
        let Waits::Woken { by } = self.waits else {
            return self.lookup(key);
        };
        if by != key {
            return Ok(None);
        }
        let found = self.lookup(key)?;
        Ok(found.filter(|object| object.value.kind() == kind))
    }

    /// Tells of something that happened to a key of the client's database.
    pub fn event(&mut self, class: EventClass, name: &'static str, key: &[u8]) {
        self.event_in(self.db, class, name, key);
    }

    /// The same in another database.
    pub fn event_in(&mut self, db: usize, class: EventClass, name: &'static str, key: &[u8]) {
        if self.settings.notify.wants(class) {
            let key = Bytes::copy_from_slice(key);
            self.events.push(Event { db, name, key });
        }
    }

    /// Puts an object. If the key is new, that is told as an event of its own.
    ///
    /// # Errors
    /// [`Failure`] of the store; nothing is changed then.
    pub fn put(&mut self, key: &[u8], object: Object) -> Outcome {
        self.put_in(self.db, key, object)
    }

    /// Puts a string as a whole, whatever the key held: SET, for which nothing is looked up
    /// or copied twice.
    ///
    /// # Errors
    /// [`Failure`] of the store, or if the key is too long for it; nothing is changed then.
    pub fn put_text(&mut self, key: &[u8], text: &[u8]) -> Outcome {
        if key.len() > KEY_BYTES_MAX {
            return Err(Failure::LONG_KEY);
        }
        let (object, row) = match Object::of_text(text) {
            Some(encoded) => encoded,
            None => {
                let stored = string::store(self.keyspace, text, Written::Whole);
                let object = Object::lasting(Value::String(stored));
                let row = object.encode();
                (object, row)
            }
        };
        if self.keyspace.put_over_any(self.db, key, object, row)? {
            self.event(EventClass::New, "new", key);
        }
        Ok(())
    }

    /// Puts what a command made in place of a key, see [`Keyspace::put_over`].
    ///
    /// # Errors
    /// As [`Context::put`].
    pub fn put_over(&mut self, key: &[u8], object: Object) -> Outcome {
        if self.lookup(key)?.is_none() {
            return self.put(key, object);
        }
        Ok(self.keyspace.put_over(self.db, key, object)?)
    }

    /// The same in another database.
    ///
    /// # Errors
    /// As [`Context::put`].
    pub fn put_in(&mut self, db: usize, key: &[u8], object: Object) -> Outcome {
        if key.len() > KEY_BYTES_MAX {
            return Err(Failure::LONG_KEY);
        }
        let keys = self.keyspace.key_count(db);
        self.keyspace.put(db, key, object)?;
        if self.keyspace.key_count(db) > keys {
            self.event_in(db, EventClass::New, "new", key);
        }
        Ok(())
    }

    /// Removes a key that a command emptied or deleted, and tells of it as `del`.
    ///
    /// # Errors
    /// [`Failure`] of the store; nothing is changed then.
    pub fn remove(&mut self, key: &[u8]) -> Result<bool, Failure> {
        let was_there = self.keyspace.remove(self.db, key)?;
        if was_there {
            self.event(EventClass::Generic, "del", key);
        }
        Ok(was_there)
    }

    /// Names what the log is told in place of the command.
    pub fn propagate(&mut self, words: &[&[u8]]) {
        self.unit.name(self.db, words);
    }

    /// Time at which a client that waits is told so: `seconds` as it was written.
    ///
    /// # Errors
    /// [`Failure`] with Redis' words for a time that cannot be.
    pub fn wait_until(&self, args: Args<'_>, number: usize) -> Result<Option<u64>, Failure> {
        let seconds = crate::store::format::numbers::parse_float(args.at(number))
            .ok_or(Failure::words("ERR timeout is not a float or out of range"))?;
        // As Redis rounds it: up to the next millisecond; and what is beyond its 64 bits
        // it takes for negative.
        let ms = (seconds * 1000.0).ceil();
        if ms < 0.0 || ms >= i64::MAX as f64 {
            return Err(Failure::words("ERR timeout is negative"));
        }
        Ok((ms > 0.0).then(|| self.now_ms().saturating_add(ms as u64)))
    }
}
