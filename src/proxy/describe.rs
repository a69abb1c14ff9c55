//! What the proxy tells about itself, its clients and its commands, in the
//! shape Redis gives it: INFO, HELLO, CLIENT LIST, COMMAND.

use std::fmt::Write;

use crate::resp::{Request, write_array_header, write_bulk, write_integer, write_simple};
use crate::router::commands::{ArgList, Command, all, lookup, resolve};
use crate::router::errors::ErrorReply;

use super::client::Client;
use super::core::PoolCore;
use super::local::REDIS_VERSION;

/// The sections INFO knows, in the order it prints them.
const SECTIONS: [&str; 5] = ["server", "clients", "memory", "stats", "replication"];

/// A null in the client's protocol.
pub(super) fn null(protocol: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(if protocol == 3 { b"_\r\n" } else { b"$-1\r\n" });
}

/// The null that stands for an array.
pub(super) fn null_array(protocol: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(if protocol == 3 { b"_\r\n" } else { b"*-1\r\n" });
}

/// Text for people: a verbatim string in RESP3, else a bulk string.
pub(super) fn text(protocol: u8, text: &str, out: &mut Vec<u8>) {
    if protocol == 3 {
        out.extend_from_slice(format!("={}\r\ntxt:{text}\r\n", text.len() + 4).as_bytes());
    } else {
        write_bulk(out, text.as_bytes());
    }
}

fn map_header(protocol: u8, pairs: usize, out: &mut Vec<u8>) {
    if protocol == 3 {
        out.extend_from_slice(format!("%{pairs}\r\n").as_bytes());
    } else {
        write_array_header(out, pairs * 2);
    }
}

/// The reply to HELLO.
pub(super) fn hello(client: &Client) -> Vec<u8> {
    let mut out = Vec::new();
    map_header(client.protocol, 7, &mut out);
    for (name, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        write_bulk(&mut out, name.as_bytes());
        write_bulk(&mut out, value.as_bytes());
    }
    write_bulk(&mut out, b"proto");
    write_integer(&mut out, i64::from(client.protocol));
    write_bulk(&mut out, b"id");
    write_integer(&mut out, client.id as i64);
    for (name, value) in [("mode", "standalone"), ("role", "master")] {
        write_bulk(&mut out, name.as_bytes());
        write_bulk(&mut out, value.as_bytes());
    }
    write_bulk(&mut out, b"modules");
    write_array_header(&mut out, 0);
    out
}

/// One line of CLIENT LIST.
pub(super) fn client_line(client: &Client, now_ms: u64) -> String {
    let known = client.introduction.as_deref();
    format!(
        "id={} addr={} name={} age={} idle={} db={} qbuf={} obl={} oll={} lib-name={} lib-ver={} resp={}\n",
        client.id,
        client.peer.as_deref().unwrap_or("?"),
        known.map_or("", |known| &known.name),
        now_ms.saturating_sub(client.since_ms) / 1_000,
        now_ms.saturating_sub(client.active_ms) / 1_000,
        client.database,
        client
            .unread
            .as_ref()
            .map_or(0, |unread| unread.bytes.len()),
        client.unwritten(),
        client.owed(),
        known.map_or("", |known| &known.library),
        known.map_or("", |known| &known.library_version),
        client.protocol,
    )
}

/// The reply to INFO, with the sections that were asked for.
pub(super) fn info(core: &PoolCore, args: &Request<'_>, protocol: u8, out: &mut Vec<u8>) {
    let wanted = |section: &str| {
        args.len() == 1
            || (1..args.len()).any(|index| {
                let word = args.arg(index);
                [section, "all", "default", "everything"]
                    .iter()
                    .any(|known| word.eq_ignore_ascii_case(known.as_bytes()))
            })
    };
    let mut lines = String::new();
    for section in SECTIONS.into_iter().filter(|section| wanted(section)) {
        if !lines.is_empty() {
            lines.push_str("\r\n");
        }
        write_section(core, section, &mut lines);
    }
    text(protocol, &lines, out);
}

fn write_section(core: &PoolCore, section: &str, lines: &mut String) {
    let facts = match section {
        "server" => format!(
            "# Server\r\nredis_version:{REDIS_VERSION}\r\nredis_mode:standalone\r\n\
             process_id:{}\r\nkeyferry_version:{}\r\nkeyferry_pool:{}\r\nkeyferry_epoch:{}\r\n\
             keyferry_shards:{}\r\n",
            std::process::id(),
            env!("CARGO_PKG_VERSION"),
            core.config.name,
            core.routing.epoch,
            core.routing.layout.shards().len(),
        ),
        "clients" => format!("# Clients\r\nconnected_clients:{}\r\n", core.client_count()),
        "memory" => "# Memory\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n".to_owned(),
        "stats" => format!(
            "# Stats\r\ntotal_connections_received:{}\r\ntotal_commands_processed:{}\r\n",
            core.counters.clients_total.value(),
            core.counters.requests_total.value(),
        ),
        _ => "# Replication\r\nrole:master\r\nconnected_slaves:0\r\n".to_owned(),
    };
    // Writing to a String never fails.
    let _ = lines.write_str(&facts);
    if section == "server" {
        lines.push_str("loading:0\r\n");
    }
}

/// The reply to COMMAND and its subcommands.
pub(super) fn command(name: &str, args: &Request<'_>, protocol: u8) -> Result<Vec<u8>, ErrorReply> {
    let mut out = Vec::new();
    match name {
        "command" => {
            write_array_header(&mut out, all().len());
            all().iter().for_each(|known| entry(known, &mut out));
        }
        "command|count" => write_integer(&mut out, all().len() as i64),
        "command|list" if args.len() == 2 => {
            write_array_header(&mut out, all().len());
            all()
                .iter()
                .for_each(|known| write_bulk(&mut out, known.name.as_bytes()));
        }
        "command|info" if args.len() == 2 => {
            write_array_header(&mut out, all().len());
            all().iter().for_each(|known| entry(known, &mut out));
        }
        "command|info" => {
            write_array_header(&mut out, args.len() - 2);
            for index in 2..args.len() {
                match lookup(args.arg(index)) {
                    Some(known) => entry(known, &mut out),
                    None if protocol == 3 => null(protocol, &mut out),
                    None => out.extend_from_slice(b"*-1\r\n"),
                }
            }
        }
        "command|docs" => map_header(protocol, 0, &mut out),
        "command|getkeys" => keys_of(args, &mut out)?,
        other => {
            return Err(ErrorReply::new(format!(
                "ERR command '{}' with these arguments is not supported through this proxy",
                other.replace('|', " ")
            )));
        }
    }
    Ok(out)
}

/// One command as COMMAND describes it: name, arity, flags, first key, last
/// key, step, then categories, tips, key specs and subcommands, left empty.
fn entry(command: &Command, out: &mut Vec<u8>) {
    write_array_header(out, 10);
    write_bulk(out, command.name.as_bytes());
    write_integer(out, i64::from(command.arity));
    let flags: Vec<&str> = command.flags.names().collect();
    write_array_header(out, flags.len());
    flags.iter().for_each(|flag| write_simple(out, flag));
    let first = command.first_key_fast().unwrap_or(0) as i64;
    write_integer(out, first);
    write_integer(out, first);
    write_integer(out, i64::from(first > 0));
    (0..4).for_each(|_| write_array_header(out, 0));
}

/// `COMMAND GETKEYS command ...`
fn keys_of(args: &Request<'_>, out: &mut Vec<u8>) -> Result<(), ErrorReply> {
    let request: Vec<&[u8]> = (2..args.len()).map(|index| args.arg(index)).collect();
    let Ok(command) = resolve(&request) else {
        return Err(ErrorReply::new("ERR Invalid command specified"));
    };
    let mut keys = Vec::new();
    command
        .keys(&request, &mut keys)
        .map_err(ErrorReply::keys)?;
    write_array_header(out, keys.len());
    for key in keys {
        write_bulk(out, request.arg(key.index as usize));
    }
    Ok(())
}
