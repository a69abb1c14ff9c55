//! What the proxy tells about its clients and its commands, in the shape Redis
//! gives it: HELLO, CLIENT LIST, COMMAND.

use crate::resp::{Request, write_array_header, write_bulk, write_integer, write_simple};
use crate::router::commands::{
    ArgList, Command, KeyError, Refusal, TopicKind, all, lookup, resolve,
};
use crate::router::errors::{ErrorReply, SYNTAX};

use super::client::Client;
use super::command_docs;
use super::glob::{self, Case};
use super::local::REDIS_VERSION;

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

pub(super) fn map_header(protocol: u8, pairs: usize, out: &mut Vec<u8>) {
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

/// Lines of [`client_line`] of several workers, in the order of the clients' ids.
pub(super) fn in_order_of_ids(text: &str) -> String {
    let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
    lines.sort_by_key(|line| {
        let id = line
            .strip_prefix("id=")
            .and_then(|rest| rest.split_once(' '));
        id.and_then(|(id, _)| id.parse::<u64>().ok())
    });
    lines.concat()
}

/// One line of CLIENT LIST.
pub(super) fn client_line(client: &Client, own_address: &str, now_ms: u64) -> String {
    let known = client.introduction.as_deref();
    let session = client.session.as_deref();
    let transaction = session.and_then(|session| session.transaction.as_ref());
    let topics = |kind| session.map_or(0, |session| session.subscriptions.of_kind(kind));
    let flags: String = [
        ('P', client.is_subscriber()),
        ('b', client.is_waiting()),
        ('x', transaction.is_some()),
    ]
    .into_iter()
    .filter_map(|(flag, is_set)| is_set.then_some(flag))
    .collect();
    format!(
        "id={} addr={} laddr={own_address} name={} age={} idle={} flags={} db={} sub={} psub={} \
         ssub={} multi={} qbuf={} obl={} oll={} events=r user=default redir=-1 resp={} lib-name={} \
         lib-ver={}\n",
        client.id,
        client.peer.as_deref().unwrap_or("?"),
        known.map_or("", |known| &known.name),
        now_ms.saturating_sub(client.since_ms) / 1_000,
        now_ms.saturating_sub(client.active_ms) / 1_000,
        if flags.is_empty() { "N" } else { &flags },
        client.database,
        topics(TopicKind::Channel),
        topics(TopicKind::Pattern),
        topics(TopicKind::ShardChannel),
        transaction.map_or(-1, |transaction| i64::from(transaction.count())),
        client
            .unread
            .as_ref()
            .map_or(0, |unread| unread.bytes.len()),
        client.unwritten(),
        client.owed(),
        client.protocol,
        known.map_or("", |known| &known.library),
        known.map_or("", |known| &known.library_version),
    )
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
        "command|list" => names(args, &mut out)?,
        "command|info" if args.len() == 2 => {
            write_array_header(&mut out, all().len());
            all().iter().for_each(|known| entry(known, &mut out));
        }
        "command|info" => {
            write_array_header(&mut out, args.len() - 2);
            for index in 2..args.len() {
                match by_full_name(args.arg(index)) {
                    Some(known) => entry(known, &mut out),
                    None => null(protocol, &mut out),
                }
            }
        }
        "command|docs" => command_docs::write(args, protocol, &mut out),
        "command|getkeys" => keys_of(args, None, &mut out)?,
        _ => keys_of(args, Some(protocol), &mut out)?,
    }
    Ok(out)
}

/// `COMMAND LIST [FILTERBY MODULE name | PATTERN glob]`. Of modules there are
/// none; categories of the ACL are not in the table.
fn names(args: &Request<'_>, out: &mut Vec<u8>) -> Result<(), ErrorReply> {
    let by = (args.arg(2), args.arg(3), args.arg(4));
    let commands: Vec<&Command> = all().iter().flat_map(with_subcommands).collect();
    let wanted: Vec<&&Command> = match by {
        _ if args.len() == 2 => commands.iter().filter(|known| !is_sub(known)).collect(),
        (word, _, _) if args.len() != 5 || !word.eq_ignore_ascii_case(b"FILTERBY") => {
            return Err(SYNTAX);
        }
        (_, word, _) if word.eq_ignore_ascii_case(b"MODULE") => Vec::new(),
        (_, word, glob) if word.eq_ignore_ascii_case(b"PATTERN") => {
            let fits = |known: &&&Command| glob::fits(glob, known.name.as_bytes(), Case::Any);
            commands.iter().filter(fits).collect()
        }
        (_, word, _) if word.eq_ignore_ascii_case(b"ACLCAT") => {
            return Err(ErrorReply::new(
                "ERR COMMAND LIST FILTERBY ACLCAT is not supported through this proxy: \
                 it has no users; ask a shard",
            ));
        }
        _ => return Err(SYNTAX),
    };
    write_array_header(out, wanted.len());
    for known in wanted {
        write_bulk(out, known.name.as_bytes());
    }
    Ok(())
}

/// The command of a name such as `get` or `config|get`.
fn by_full_name(name: &[u8]) -> Option<&'static Command> {
    let family = name.split(|byte| *byte == b'|').next().unwrap_or(name);
    let command = lookup(family)?;
    match name.get(family.len() + 1..) {
        None => Some(command),
        Some(word) => command.subcommand(word),
    }
}

fn with_subcommands(command: &Command) -> impl Iterator<Item = &Command> {
    [command].into_iter().chain(command.subcommands())
}

fn is_sub(command: &Command) -> bool {
    command.name.contains('|')
}

/// One command as COMMAND describes it: name, arity, flags, first key, last
/// key, step, then categories, tips and key specs, left empty, and subcommands.
fn entry(command: &Command, out: &mut Vec<u8>) {
    write_array_header(out, 10);
    write_bulk(out, command.name.as_bytes());
    write_integer(out, i64::from(command.arity));
    let flags: Vec<&str> = command.flags.names().collect();
    write_array_header(out, flags.len());
    flags.iter().for_each(|flag| write_simple(out, flag));
    let (first, last, step) = command.key_range();
    for place in [first as i64, last as i64, step as i64] {
        write_integer(out, place);
    }
    (0..3).for_each(|_| write_array_header(out, 0));
    write_array_header(out, command.subcommands().len());
    command.subcommands().iter().for_each(|sub| entry(sub, out));
}

/// What is done to a key: first whether it is read or written, as `RO`.
fn write_key_flags(flags: &str, protocol: u8, out: &mut Vec<u8>) {
    const ORDER: [&str; 8] = [
        "ro", "rw", "ow", "rm", "access", "update", "insert", "delete",
    ];
    let is_told = |known: &&str| flags.split(',').any(|flag| flag == *known);
    let told: Vec<&str> = ORDER.into_iter().filter(is_told).collect();
    let kind = if protocol == 3 { '~' } else { '*' };
    out.extend_from_slice(format!("{kind}{}\r\n", told.len()).as_bytes());
    for flag in told {
        if flag.len() == 2 {
            write_simple(out, &flag.to_ascii_uppercase());
        } else {
            write_simple(out, flag);
        }
    }
}

/// `COMMAND GETKEYS command ...`, `COMMAND GETKEYSANDFLAGS command ...`
fn keys_of(
    args: &Request<'_>,
    flags_in_protocol: Option<u8>,
    out: &mut Vec<u8>,
) -> Result<(), ErrorReply> {
    let request: Vec<&[u8]> = (2..args.len()).map(|index| args.arg(index)).collect();
    let command = match resolve(&request) {
        Ok(command) => command,
        Err(Refusal::Arity(command)) if command.has_keys() => {
            return Err(ErrorReply::new(
                "ERR Invalid number of arguments specified for command",
            ));
        }
        Err(Refusal::Arity(_)) => return Err(ErrorReply::keys(KeyError::NoKeys)),
        Err(_) => return Err(ErrorReply::new("ERR Invalid command specified")),
    };
    let keys = command.keys_and_flags(&request).map_err(ErrorReply::keys)?;
    write_array_header(out, keys.len());
    for (key, flags) in keys {
        let name = request.arg(key.index as usize);
        match flags_in_protocol {
            None => write_bulk(out, name),
            Some(protocol) => {
                write_array_header(out, 2);
                write_bulk(out, name);
                write_key_flags(flags, protocol, out);
            }
        }
    }
    Ok(())
}
