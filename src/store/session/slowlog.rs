//! SLOWLOG: commands that took long, the last ones first.

use std::collections::VecDeque;

use crate::store::commands::{Args, Failure};

use super::shard::Shard;

/// Arguments that are kept of a command; the last one says how many more there were.
const ARGUMENTS_MAX: usize = 32;
/// Bytes that are kept of one.
const ARGUMENT_BYTES_MAX: usize = 128;
/// Entries that are told when nothing is said.
const TOLD_DEFAULT: usize = 10;

#[derive(Debug)]
struct Entry {
    id: u64,
    at_ms: u64,
    took_us: u64,
    arguments: Vec<Box<[u8]>>,
    address: String,
    name: Box<[u8]>,
}

/// What was slow, bounded by `slowlog-max-len`.
#[derive(Debug, Default)]
pub(super) struct SlowLog {
    entries: VecDeque<Entry>,
    next_id: u64,
}

impl Shard {
    /// A command took so long.
    pub(super) fn note_slow(&mut self, key: usize, took_us: u64, args: Args<'_>) {
        let slower_than = u64::try_from(self.settings.slowlog_log_slower_than);
        if !slower_than.is_ok_and(|slower_than| took_us >= slower_than) {
            return;
        }
        let Some(client) = self.clients.get(key) else {
            return;
        };
        let entry = Entry {
            id: self.slow.next_id,
            at_ms: self.keyspace.now_ms(),
            took_us,
            arguments: shortened(args),
            address: client.address.clone(),
            name: client.name.clone(),
        };
        self.slow.next_id += 1;
        self.slow.entries.push_front(entry);
        let max = usize::try_from(self.settings.slowlog_max_len).unwrap_or(usize::MAX);
        self.slow.entries.truncate(max);
    }

    pub(super) fn slowlog(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        if args.is(1, "RESET") {
            self.slow.entries.clear();
            self.clients[key].reply.ok();
        } else if args.is(1, "LEN") {
            self.clients[key].reply.count(self.slow.entries.len());
        } else if args.is(1, "GET") && args.len() <= 3 {
            let count = match args.len() {
                2 => TOLD_DEFAULT,
                _ => told_count(args)?,
            };
            self.tell_slow(key, count);
        } else {
            return Err(super::connection::wrong_count("SLOWLOG", args));
        }
        Ok(())
    }

    fn tell_slow(&mut self, key: usize, count: usize) {
        let reply = &mut self.clients[key].reply;
        let integer = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        reply.array(count.min(self.slow.entries.len()));
        for entry in self.slow.entries.iter().take(count) {
            reply.array(6);
            reply.integer(integer(entry.id));
            reply.integer(integer(entry.at_ms / 1000));
            reply.integer(integer(entry.took_us));
            reply.array(entry.arguments.len());
            for argument in &entry.arguments {
                reply.bulk(argument);
            }
            reply.bulk(entry.address.as_bytes());
            reply.bulk(&entry.name);
        }
    }
}

fn told_count(args: Args<'_>) -> Result<usize, Failure> {
    let count = args.integer(2).ok().filter(|count| *count >= -1);
    let count = count.ok_or(Failure::words(
        "ERR count should be greater than or equal to -1",
    ))?;
    // -1 is all.
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

fn shortened(args: Args<'_>) -> Vec<Box<[u8]>> {
    let whole = match args.len() {
        ..=ARGUMENTS_MAX => args.len(),
        _ => ARGUMENTS_MAX - 1,
    };
    let mut kept: Vec<Box<[u8]>> = args.from(0).take(whole).map(shortened_one).collect();
    if whole < args.len() {
        let more = format!("... ({} more arguments)", args.len() - whole);
        kept.push(more.into_bytes().into());
    }
    kept
}

fn shortened_one(argument: &[u8]) -> Box<[u8]> {
    match argument.split_at_checked(ARGUMENT_BYTES_MAX) {
        Some((start, rest)) if !rest.is_empty() => {
            let more = format!("... ({} more bytes)", rest.len());
            [start, more.as_bytes()].concat().into()
        }
        _ => argument.into(),
    }
}
