//! Commands that the proxy answers itself: what concerns the client's own
//! connection, and what a client asks on connect. Replies have Redis's shape
//! in the protocol the client chose.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::resp::{Request, write_array_header, write_bulk, write_integer, write_simple};
use crate::router::commands::{Command, LocalCommand};
use crate::router::errors::{
    AUTH_WITHOUT_PASSWORD, CLIENT_NAME, DB_OUT_OF_RANGE, ErrorReply, NOPROTO, NOT_AN_INTEGER,
    PROTOCOL_VERSION_NOT_INTEGER, SYNTAX, WRONGPASS,
};

use super::client::{Client, Introduction, Pause};
use super::config::DATABASES;
use super::core::PoolCore;
use super::describe;
use super::dispatch::Verdict;

/// The version told to clients: the commands of the table are at least its.
pub const REDIS_VERSION: &str = "7.2.0";

impl PoolCore {
    pub(super) fn answer_locally(
        &mut self,
        key: u32,
        local: LocalCommand,
        command: &Command,
        args: &Request<'_>,
    ) -> Verdict {
        let changes_lane = matches!(
            local,
            LocalCommand::Select | LocalCommand::Hello | LocalCommand::Reset
        );
        if changes_lane
            && self
                .clients
                .get(key as usize)
                .is_some_and(|client| client.owed() > 0)
        {
            return Verdict::Wait(Pause::Lane);
        }
        let mut out = std::mem::take(&mut self.answer_buffer);
        out.clear();
        match local {
            LocalCommand::Ping => match args.len() {
                1 => write_simple(&mut out, "PONG"),
                2 => write_bulk(&mut out, args.arg(1)),
                _ => return self.answer_error(key, &ErrorReply::wrong_arity(command)),
            },
            LocalCommand::Echo => write_bulk(&mut out, args.arg(1)),
            LocalCommand::Quit => {
                self.answer_and_end(key, b"+OK\r\n");
                return Verdict::End;
            }
            LocalCommand::Select => return self.select(key, args),
            LocalCommand::Hello => return self.hello(key, args),
            LocalCommand::Auth => return self.auth(key, command, args),
            LocalCommand::Client => return self.client_command(key, command, args),
            LocalCommand::Command => {
                match describe::command(command.name, args, self.protocol(key)) {
                    Ok(reply) => out = reply,
                    Err(error) => return self.answer_error(key, &error),
                }
            }
            LocalCommand::Info => describe::info(self, args, self.protocol(key), &mut out),
            LocalCommand::Time => write_time(&mut out),
            LocalCommand::Reset => {
                self.reset_client(key);
                write_simple(&mut out, "RESET");
            }
            LocalCommand::ReadOnly | LocalCommand::ReadWrite => write_simple(&mut out, "OK"),
        }
        let verdict = self.answer(key, &out);
        self.keep_answer_buffer(out);
        verdict
    }

    fn protocol(&self, key: u32) -> u8 {
        self.clients
            .get(key as usize)
            .map_or(2, |client| client.protocol)
    }

    pub(super) fn set_lane(&mut self, key: u32, protocol: u8, database: u16) {
        let lane = self.lane_of(protocol, database);
        if let Some(client) = self.clients.get_mut(key as usize) {
            (client.protocol, client.database, client.lane) = (protocol, database, lane);
        }
    }

    fn reset_client(&mut self, key: u32) {
        self.set_lane(key, 2, self.config.database);
        if let Some(client) = self.clients.get_mut(key as usize) {
            client.introduction = None;
        }
    }

    fn select(&mut self, key: u32, args: &Request<'_>) -> Verdict {
        let Some(database) = integer(args.arg(1)) else {
            return self.answer_error(key, &NOT_AN_INTEGER);
        };
        match u16::try_from(database) {
            Ok(database) if database < DATABASES => {
                let protocol = self.protocol(key);
                self.set_lane(key, protocol, database);
                self.answer(key, b"+OK\r\n")
            }
            _ => self.answer_error(key, &DB_OUT_OF_RANGE),
        }
    }

    /// No users are configured: as a Redis whose default user needs no password.
    fn auth(&mut self, key: u32, command: &Command, args: &Request<'_>) -> Verdict {
        match args.len() {
            2 => self.answer_error(key, &AUTH_WITHOUT_PASSWORD),
            3 if args.arg(1) == b"default" => self.answer(key, b"+OK\r\n"),
            3 => self.answer_error(key, &WRONGPASS),
            _ => self.answer_error(key, &ErrorReply::wrong_arity(command)),
        }
    }

    fn hello(&mut self, key: u32, args: &Request<'_>) -> Verdict {
        let mut protocol = self.protocol(key);
        if args.len() > 1 {
            match integer(args.arg(1)) {
                Some(2) => protocol = 2,
                Some(3) => protocol = 3,
                Some(_) => return self.answer_error(key, &NOPROTO),
                None => return self.answer_error(key, &PROTOCOL_VERSION_NOT_INTEGER),
            }
        }
        let mut name = None;
        let mut index = 2;
        while index < args.len() {
            let option = args.arg(index);
            if option.eq_ignore_ascii_case(b"AUTH") && index + 2 < args.len() {
                if args.arg(index + 1) != b"default" {
                    return self.answer_error(key, &WRONGPASS);
                }
                index += 3;
            } else if option.eq_ignore_ascii_case(b"SETNAME") && index + 1 < args.len() {
                match client_name(args.arg(index + 1)) {
                    Some(text) => name = Some(text),
                    None => return self.answer_error(key, &CLIENT_NAME),
                }
                index += 2;
            } else {
                return self.answer_error(key, &ErrorReply::hello_option(option));
            }
        }
        let database = self
            .clients
            .get(key as usize)
            .map_or(0, |client| client.database);
        self.set_lane(key, protocol, database);
        let Some(client) = self.clients.get_mut(key as usize) else {
            return Verdict::End;
        };
        if let Some(name) = name {
            introduction(client).name = name;
        }
        let reply = describe::hello(client);
        self.answer(key, &reply)
    }

    fn client_command(&mut self, key: u32, command: &Command, args: &Request<'_>) -> Verdict {
        let now_ms = self.now_ms();
        let Some(client) = self.clients.get_mut(key as usize) else {
            return Verdict::End;
        };
        let mut out = Vec::new();
        match command.name {
            "client|id" => write_integer(&mut out, client.id as i64),
            "client|setname" => match client_name(args.arg(2)) {
                Some(name) => {
                    introduction(client).name = name;
                    write_simple(&mut out, "OK");
                }
                None => return self.answer_error(key, &CLIENT_NAME),
            },
            "client|getname" => match &client.introduction {
                Some(known) if !known.name.is_empty() => {
                    write_bulk(&mut out, known.name.as_bytes())
                }
                _ => describe::null(client.protocol, &mut out),
            },
            "client|setinfo" => match set_info(client, args.arg(2), args.arg(3)) {
                Ok(()) => write_simple(&mut out, "OK"),
                Err(error) => return self.answer_error(key, &error),
            },
            "client|info" => {
                let line = describe::client_line(client, now_ms);
                describe::text(client.protocol, &line, &mut out);
            }
            "client|list" => {
                let lines: String = self
                    .clients
                    .iter()
                    .map(|(_, c)| describe::client_line(c, now_ms))
                    .collect();
                describe::text(self.protocol(key), &lines, &mut out);
            }
            "client|no-evict" | "client|no-touch" => {
                if !is_on_off(args.arg(2)) {
                    return self.answer_error(key, &SYNTAX);
                }
                write_simple(&mut out, "OK");
            }
            "client|reply" if args.arg(2).eq_ignore_ascii_case(b"ON") => {
                write_simple(&mut out, "OK");
            }
            "client|getredir" => write_integer(&mut out, -1),
            name => {
                let text = format!(
                    "ERR command '{}' is not supported through this proxy: \
                     it changes how replies of a connection reach their client",
                    name.replace('|', " ")
                );
                return self.answer_error(key, &ErrorReply::new(text));
            }
        }
        self.answer(key, &out)
    }
}

fn introduction(client: &mut Client) -> &mut Introduction {
    client.introduction.get_or_insert_with(Box::default)
}

/// A name without blanks and special characters, as Redis wants it.
fn client_name(text: &[u8]) -> Option<String> {
    let plain = text.iter().all(|byte| (b'!'..=b'~').contains(byte));
    plain.then(|| String::from_utf8_lossy(text).into_owned())
}

fn set_info(client: &mut Client, attribute: &[u8], value: &[u8]) -> Result<(), ErrorReply> {
    let Some(text) = client_name(value) else {
        let attribute = String::from_utf8_lossy(attribute).to_ascii_lowercase();
        return Err(ErrorReply::new(format!(
            "ERR {attribute} cannot contain spaces, newlines or special characters."
        )));
    };
    if attribute.eq_ignore_ascii_case(b"LIB-NAME") {
        introduction(client).library = text;
    } else if attribute.eq_ignore_ascii_case(b"LIB-VER") {
        introduction(client).library_version = text;
    } else {
        let attribute = String::from_utf8_lossy(attribute);
        return Err(ErrorReply::new(format!(
            "ERR Unrecognized option '{attribute}'"
        )));
    }
    Ok(())
}

fn is_on_off(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"ON") || word.eq_ignore_ascii_case(b"OFF")
}

fn integer(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn write_time(out: &mut Vec<u8>) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    write_array_header(out, 2);
    write_bulk(out, now.as_secs().to_string().as_bytes());
    write_bulk(out, now.subsec_micros().to_string().as_bytes());
}
