//! ACL LOG: what was refused lately, the last first.
//!
//! What is refused again within a minute is counted where it stands.

use std::collections::VecDeque;

/// So long one entry counts what is alike.
const ALIKE_MS: u64 = 60_000;
/// So many entries are looked at for one that is alike.
const LOOKED_AT_MAX: usize = 10;
/// So much is kept of what was named.
const OBJECT_BYTES_MAX: usize = 1024;

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The command.
    Command,
    /// A key.
    Key,
    /// A channel.
    Channel,
    /// The login.
    Auth,
}

/// In what it was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surroundings {
    /// A request by itself.
    Toplevel,
    /// Between MULTI and EXEC, or by EXEC.
    Multi,
    /// In a script.
    Lua,
}

/// Something that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Why.
    pub reason: Reason,
    /// In what.
    pub context: Surroundings,
    /// Which command, key, channel or user's login.
    pub object: Vec<u8>,
    /// Who wanted it.
    pub user: Vec<u8>,
    /// The client, as CLIENT LIST tells of it.
    pub client: String,
    /// When, Unix ms; of the last one.
    pub at_ms: u64,
    /// How often.
    pub count: u64,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct RefusalLog {
    entries: VecDeque<Event>,
}

impl RefusalLog {
    /// Notes an event; `most` are kept.
    pub fn note(&mut self, mut event: Event, most: usize) {
        event.object.truncate(OBJECT_BYTES_MAX);
        let alike = self.entries.iter().take(LOOKED_AT_MAX).position(|of| {
            of.reason == event.reason
                && of.context == event.context
                && of.object == event.object
                && of.user == event.user
                && of.at_ms.abs_diff(event.at_ms) <= ALIKE_MS
        });
        if let Some(known) = alike.and_then(|at| self.entries.remove(at)) {
            event.count += known.count;
        }
        self.entries.push_front(event);
        self.entries.truncate(most);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// The last ones.
    pub fn last(&self, count: usize) -> impl ExactSizeIterator<Item = &Event> {
        self.entries.iter().take(count)
    }
}

impl Reason {
    /// As ACL LOG tells it.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Command => "command",
            Reason::Key => "key",
            Reason::Channel => "channel",
            Reason::Auth => "auth",
        }
    }
}

impl Surroundings {
    /// As ACL LOG tells it.
    pub fn name(self) -> &'static str {
        match self {
            Surroundings::Toplevel => "toplevel",
            Surroundings::Multi => "multi",
            Surroundings::Lua => "lua",
        }
    }
}
