//! Commands that the proxy answers itself: what concerns the client's own
//! connection, and what a client asks on connect. Replies have Redis's shape
//! in the protocol the client chose.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::resp::{Request, write_array_header, write_bulk, write_simple};
use crate::router::commands::{Command, LocalCommand};
use crate::router::errors::{
    AUTH_WITHOUT_PASSWORD, CLIENT_NAME, CLUSTER_DISABLED, DB_OUT_OF_RANGE, ErrorReply, NOPROTO,
    NOT_AN_INTEGER, PROTOCOL_VERSION_NOT_INTEGER, WRONGPASS,
};

use super::client::{Pause, Silence};
use super::client_commands::{client_name, introduction};
use super::config::DATABASES;
use super::core::PoolCore;
use super::describe;
use super::dispatch::Verdict;
use super::server_facts;

/// The version told to clients: the commands of the table are at least its.
pub const REDIS_VERSION: &str = "7.2.0";

/// What PING says.
const PONG: &[u8] = b"+PONG\r\n";

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
                1 => out.extend_from_slice(PONG),
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
            LocalCommand::Info => server_facts::info(self, args, self.protocol(key), &mut out),
            LocalCommand::Config => {
                server_facts::config(self, command.name, args, self.protocol(key), &mut out);
            }
            LocalCommand::Role => server_facts::role(&mut out),
            LocalCommand::Acl => write_bulk(&mut out, b"default"),
            LocalCommand::Cluster => return self.answer_error(key, &CLUSTER_DISABLED),
            LocalCommand::Slowlog => {
                if let Err(error) = server_facts::slowlog(command.name, args, &mut out) {
                    return self.answer_error(key, &error);
                }
            }
            LocalCommand::Latency => {
                let protocol = self.protocol(key);
                if let Err(error) = server_facts::latency(command.name, args, protocol, &mut out) {
                    return self.answer_error(key, &error);
                }
            }
            LocalCommand::PubSub => {
                if let Err(error) = self.hub.audience().answer(command.name, args, &mut out) {
                    return self.answer_error(key, &error);
                }
            }
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

    pub(super) fn protocol(&self, key: u32) -> u8 {
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
        self.drop_session(key);
        self.set_lane(key, 2, self.config.database);
        if let Some(client) = self.clients.get_mut(key as usize) {
            client.introduction = None;
            client.silence = Silence::Never;
            if self.config.auth.is_some() {
                client.log_out();
            }
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

    /// Without a password: as a Redis whose default user needs none.
    fn auth(&mut self, key: u32, command: &Command, args: &Request<'_>) -> Verdict {
        if self.config.auth.is_some() {
            return self.auth_by_password(key, args);
        }
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
                if !self.try_login(key, Some(args.arg(index + 1)), args.arg(index + 2)) {
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
        if let Some(refused) = self.hello_before_login(key) {
            return refused;
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
