//! The reply to COMMAND DOCS, in Redis's shape: maps in RESP3, in RESP2 arrays of
//! names and values.

use crate::resp::{Request, write_array_header, write_bulk, write_integer, write_simple};
use crate::router::commands::docs::{Argument, Doc, FACTS, doc_of, docs};

use super::describe::map_header;

/// `COMMAND DOCS [name ...]`; unknown names are left out.
pub(super) fn write(args: &Request<'_>, protocol: u8, out: &mut Vec<u8>) {
    if args.len() == 2 {
        return write_docs(docs().iter(), protocol, out);
    }
    let known = (2..args.len()).filter_map(|index| doc_of(args.arg(index)));
    write_docs(known, protocol, out);
}

fn write_docs<'a>(docs: impl Iterator<Item = &'a Doc>, protocol: u8, out: &mut Vec<u8>) {
    let mut map = Map::of(protocol);
    for doc in docs {
        map.field(doc.name, |out| write_doc(doc, protocol, out));
    }
    map.end(out);
}

fn write_doc(doc: &Doc, protocol: u8, out: &mut Vec<u8>) {
    let mut map = Map::of(protocol);
    for (name, fact) in FACTS.iter().zip(doc.facts) {
        map.text(name, fact);
    }
    map.flags("doc_flags", &doc.flags);
    map.text("deprecated_since", doc.deprecated_since);
    map.text("replaced_by", doc.replaced_by);
    if !doc.history.is_empty() {
        map.field("history", |out| {
            write_set_header(protocol, doc.history.len(), out);
            for (since, what) in &doc.history {
                write_array_header(out, 2);
                write_bulk(out, since.as_bytes());
                write_bulk(out, what.as_bytes());
            }
        });
    }
    map.arguments(&doc.arguments);
    if !doc.subcommands.is_empty() {
        map.field("subcommands", |out| {
            write_docs(doc.subcommands.iter(), protocol, out);
        });
    }
    map.end(out);
}

fn write_argument(argument: &Argument, protocol: u8, out: &mut Vec<u8>) {
    let mut map = Map::of(protocol);
    map.text("name", Some(argument.name));
    map.text("type", Some(argument.kind));
    if let Some(index) = argument.key_spec_index {
        map.field("key_spec_index", |out| write_integer(out, index));
    }
    map.text("token", argument.token);
    map.text("since", argument.since);
    map.text("deprecated_since", argument.deprecated_since);
    map.flags("flags", &argument.flags);
    map.arguments(&argument.arguments);
    map.end(out);
}

fn write_set_header(protocol: u8, count: usize, out: &mut Vec<u8>) {
    let kind = if protocol == 3 { '~' } else { '*' };
    out.extend_from_slice(format!("{kind}{count}\r\n").as_bytes());
}

/// A map whose header is written when its fields are known.
struct Map {
    protocol: u8,
    fields: usize,
    bytes: Vec<u8>,
}

impl Map {
    fn of(protocol: u8) -> Self {
        Self {
            protocol,
            fields: 0,
            bytes: Vec::new(),
        }
    }

    fn field(&mut self, name: &str, write_value: impl FnOnce(&mut Vec<u8>)) {
        self.fields += 1;
        write_bulk(&mut self.bytes, name.as_bytes());
        write_value(&mut self.bytes);
    }

    fn text(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.field(name, |out| write_bulk(out, text.as_bytes()));
        }
    }

    fn flags(&mut self, name: &str, flags: &[&str]) {
        let protocol = self.protocol;
        if !flags.is_empty() {
            self.field(name, |out| {
                write_set_header(protocol, flags.len(), out);
                flags.iter().for_each(|flag| write_simple(out, flag));
            });
        }
    }

    fn arguments(&mut self, arguments: &[Argument]) {
        let protocol = self.protocol;
        if !arguments.is_empty() {
            self.field("arguments", |out| {
                write_array_header(out, arguments.len());
                for argument in arguments {
                    write_argument(argument, protocol, out);
                }
            });
        }
    }

    fn end(self, out: &mut Vec<u8>) {
        map_header(self.protocol, self.fields, out);
        out.extend_from_slice(&self.bytes);
    }
}
