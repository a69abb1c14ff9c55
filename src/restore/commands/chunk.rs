//! Elements on their way into one command, whose count comes before them.

use crate::resp::{write_array_header, write_bulk, write_bulk_integer};

use super::super::reply::Reply;
use super::super::restorer::Requests;
use super::{CHUNK_BYTES, CHUNK_ELEMENTS};

/// The command that adds elements of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Rpush,
    Sadd,
    Zadd,
    Hset,
    Armset,
}

impl Verb {
    fn name(self) -> &'static [u8] {
        match self {
            Verb::Rpush => b"RPUSH",
            Verb::Sadd => b"SADD",
            Verb::Zadd => b"ZADD",
            Verb::Hset => b"HSET",
            Verb::Armset => b"ARMSET",
        }
    }
}

/// Arguments of one command, encoded, and the field expiries that follow it.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    verb: Option<Verb>,
    args: Vec<u8>,
    args_count: usize,
    elements: usize,
    /// Whole HPEXPIREAT requests, and how many.
    expiries: Vec<u8>,
    expiries_count: usize,
    run: Run,
}

/// Fields in a row that expire at the same time share one HPEXPIREAT.
#[derive(Debug, Default)]
struct Run {
    at_ms: i64,
    fields: Vec<u8>,
    count: usize,
}

impl Chunk {
    /// Sends what is held if `args` would make it too large.
    pub(super) fn make_room(
        &mut self,
        args: &[&[u8]],
        temporary: &[u8],
        requests: &mut Requests<'_>,
    ) {
        let more: usize = args.iter().map(|arg| arg.len()).sum();
        let held = self.args.len() + self.expiries.len() + self.run.fields.len();
        if self.elements >= CHUNK_ELEMENTS || held + more > CHUNK_BYTES {
            self.flush(temporary, requests);
        }
    }

    pub(super) fn push(&mut self, verb: Verb, args: &[&[u8]]) {
        self.verb = Some(verb);
        self.elements += 1;
        self.args_count += args.len();
        for arg in args {
            write_bulk(&mut self.args, arg);
        }
    }

    /// The field pushed last expires then.
    pub(super) fn expire(&mut self, field: &[u8], at_ms: i64, temporary: &[u8]) {
        if self.run.count > 0 && self.run.at_ms != at_ms {
            self.end_run(temporary);
        }
        self.run.at_ms = at_ms;
        self.run.count += 1;
        write_bulk(&mut self.run.fields, field);
    }

    fn end_run(&mut self, temporary: &[u8]) {
        if self.run.count == 0 {
            return;
        }
        let out = &mut self.expiries;
        write_array_header(out, 5 + self.run.count);
        write_bulk(out, b"HPEXPIREAT");
        write_bulk(out, temporary);
        // Past is past: a time before 1970 is not taken as one.
        write_bulk_integer(out, self.run.at_ms.max(1));
        write_bulk(out, b"FIELDS");
        write_bulk_integer(out, i64::try_from(self.run.count).unwrap_or(i64::MAX));
        out.extend_from_slice(&self.run.fields);
        self.expiries_count += 1;
        self.run.fields.clear();
        self.run.count = 0;
    }

    /// Sends what is held, if anything is.
    pub(super) fn flush(&mut self, temporary: &[u8], requests: &mut Requests<'_>) {
        let Some(verb) = self.verb.take() else { return };
        write_array_header(requests.bytes, 2 + self.args_count);
        write_bulk(requests.bytes, verb.name());
        write_bulk(requests.bytes, temporary);
        requests.bytes.extend_from_slice(&self.args);
        requests.replies.push(Reply::Accepted);
        self.end_run(temporary);
        requests.bytes.extend_from_slice(&self.expiries);
        let replies = std::iter::repeat_n(Reply::Accepted, self.expiries_count);
        requests.replies.extend(replies);
        self.args.clear();
        self.expiries.clear();
        (self.args_count, self.elements, self.expiries_count) = (0, 0, 0);
    }
}
