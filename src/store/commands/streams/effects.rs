//! What the log and replicas are told of groups: what became of them, so that it is the
//! same there whatever the time is. In the words of Redis 7.0, and of 7.2 where those of
//! 7.0 leave something out: what a group has read, and consumers that nothing was given to.

use crate::rdb::StreamId;
use crate::store::commands::context::Context;
use crate::store::kinds::stream::{Group, Pending};

/// An entry is pending for a consumer, or is not any more if the entry is gone.
pub(super) fn claimed(context: &mut Context<'_>, key: &[u8], group: &Group, pending: &Pending) {
    let (id, last) = (pending.id.to_string(), group.last.to_string());
    let (time, times) = (pending.delivered_ms.to_string(), pending.times.to_string());
    context.propagate(&[
        b"XCLAIM",
        key,
        &group.name,
        &pending.consumer,
        b"0",
        id.as_bytes(),
        b"TIME",
        time.as_bytes(),
        b"RETRYCOUNT",
        times.as_bytes(),
        b"FORCE",
        b"JUSTID",
        b"LASTID",
        last.as_bytes(),
    ]);
}

/// A group has read up to here.
pub(super) fn has_read(context: &mut Context<'_>, key: &[u8], group: &Group) {
    let last = group.last.to_string();
    let read = match group.entries_read {
        Some(read) => (read as i64).to_string(),
        None => "-1".to_owned(),
    };
    context.propagate(&[
        b"XGROUP",
        b"SETID",
        key,
        &group.name,
        last.as_bytes(),
        b"ENTRIESREAD",
        read.as_bytes(),
    ]);
}

/// A consumer was made.
pub(super) fn joined(context: &mut Context<'_>, key: &[u8], group: &Group, consumer: &[u8]) {
    context.propagate(&[b"XGROUP", b"CREATECONSUMER", key, &group.name, consumer]);
}

/// A group whose last id was moved without anything being given.
pub(super) fn moved(context: &mut Context<'_>, key: &[u8], group: &Group, before: StreamId) {
    if group.last != before {
        has_read(context, key, group);
    }
}
