//! Requests on their way to one target, and what their replies mean.

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::rdb::Lost;
use crate::restore::Reply;

/// Encoded requests.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The database they belong to; `None`: any.
    pub(super) db: Option<u32>,
    pub(super) bytes: Vec<u8>,
    /// One for each request, in order.
    pub(super) replies: Vec<Reply>,
    /// What they are about, in order; each takes some of `replies`.
    pub(super) ops: Vec<Op>,
    /// Names of the keys, one after the other.
    pub(super) names: Vec<u8>,
    /// Its share of the budget, given back when all is answered.
    pub(super) share: Option<OwnedSemaphorePermit>,
}

/// One thing that is loaded by one or more requests.
#[derive(Debug)]
pub(super) struct Op {
    /// How many of the batch's requests.
    pub(super) requests: usize,
    pub(super) what: What,
}

/// What is loaded.
#[derive(Debug, Clone)]
pub(super) enum What {
    /// A key, by its place in the batch's names.
    Key {
        start: usize,
        end: usize,
        /// What the target is not told.
        lost: Lost,
    },
    /// More of a value in parts; a `Key` follows, or `Abandoned`.
    Part(Bytes),
    /// What was built of it is removed.
    Abandoned,
    /// A function library of this name.
    Library(String),
    /// A cached script.
    Script,
    /// SELECT of this database.
    Select(u32),
    /// DEL of a key that was loaded in part.
    Removal,
}

impl Batch {
    /// Adds a key whose requests begin at `requests_before`.
    pub(super) fn add_key(&mut self, name: &[u8], requests_before: usize, lost: Lost) {
        let start = self.names.len();
        self.names.extend_from_slice(name);
        let end = self.names.len();
        self.add(requests_before, What::Key { start, end, lost });
    }

    /// Adds what was appended since `requests_before`.
    pub(super) fn add(&mut self, requests_before: usize, what: What) {
        let requests = self.replies.len().saturating_sub(requests_before);
        // What asks for nothing gets no reply that could settle it.
        if requests > 0 {
            self.ops.push(Op { requests, what });
        }
    }
}
