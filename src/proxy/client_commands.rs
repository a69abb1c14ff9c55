//! CLIENT: what a client says of itself, and what it may ask or end of others.
//!
//! LIST and KILL see the clients of the pool that this worker serves: a worker
//! owns its clients, and nobody else looks at them.
//!
//! CLIENT REPLY waits until the client is owed nothing, so that "from here on"
//! needs no mark on requests that are under way.

use crate::resp::{Request, write_array_header, write_bulk, write_integer, write_simple};
use crate::router::commands::Command;
use crate::router::errors::{CLIENT_NAME, ErrorReply, NO_SUCH_CLIENT, SYNTAX};

use super::client::{Client, Introduction, Pause, Silence};
use super::core::PoolCore;
use super::describe;
use super::dispatch::Verdict;

impl PoolCore {
    pub(super) fn client_command(
        &mut self,
        key: u32,
        command: &Command,
        args: &Request<'_>,
    ) -> Verdict {
        match command.name {
            "client|reply" => return self.client_reply(key, args.arg(2)),
            "client|kill" => return self.client_kill(key, args),
            "client|list" => {
                return match self.client_list(key, args) {
                    Ok(lines) => self.answer_text(key, &lines),
                    Err(error) => self.answer_error(key, &error),
                };
            }
            "client|info" => {
                let line = self.clients.get(key as usize);
                let line = line.map(|client| self.client_line(client));
                return self.answer_text(key, &line.unwrap_or_default());
            }
            _ => {}
        }
        let mut out = Vec::new();
        let Some(client) = self.clients.get_mut(key as usize) else {
            return Verdict::End;
        };
        let told = match command.name {
            "client|setname" => set_name(client, args.arg(2)),
            "client|setinfo" => set_info(client, args.arg(2), args.arg(3)),
            "client|no-evict" | "client|no-touch" if !is_on_off(args.arg(2)) => Err(SYNTAX),
            _ => Ok(()),
        };
        if let Err(error) = told {
            return self.answer_error(key, &error);
        }
        match command.name {
            "client|id" => write_integer(&mut out, client.id as i64),
            "client|getname" => match &client.introduction {
                Some(known) if !known.name.is_empty() => {
                    write_bulk(&mut out, known.name.as_bytes());
                }
                _ => describe::null(client.protocol, &mut out),
            },
            "client|getredir" => write_integer(&mut out, -1),
            "client|trackinginfo" => no_tracking(client.protocol, &mut out),
            _ => write_simple(&mut out, "OK"),
        }
        self.answer(key, &out)
    }

    fn answer_text(&mut self, key: u32, text: &str) -> Verdict {
        let mut out = Vec::new();
        describe::text(self.protocol(key), text, &mut out);
        self.answer(key, &out)
    }

    fn client_line(&self, client: &Client) -> String {
        describe::client_line(client, &self.own_address(), self.now_ms())
    }

    /// Where clients connect, if that is one place.
    fn own_address(&self) -> String {
        match self.config.listen.as_slice() {
            [one] => one.to_string(),
            _ => String::new(),
        }
    }

    fn client_list(&self, key: u32, args: &Request<'_>) -> Result<String, ErrorReply> {
        let mut filter = Filter::default();
        match args.arg(2) {
            [] if args.len() == 2 => {}
            word if word.eq_ignore_ascii_case(b"TYPE") && args.len() == 4 => {
                filter.normal = Some(is_normal(args.arg(3))?);
            }
            word if word.eq_ignore_ascii_case(b"ID") && args.len() > 3 => {
                let ids = (3..args.len()).map(|index| number(args.arg(index)));
                let ids: Option<Vec<u64>> = ids.collect();
                filter.ids = Some(ids.ok_or_else(|| ErrorReply::new("ERR Invalid client ID"))?);
            }
            _ => return Err(SYNTAX),
        }
        let own = self.own_address();
        let clients = self.clients.iter();
        Ok(clients
            .filter(|(place, client)| filter.takes(client, *place as u32 == key, &own))
            .map(|(_, client)| self.client_line(client))
            .collect())
    }

    fn client_kill(&mut self, key: u32, args: &Request<'_>) -> Verdict {
        let by_address = args.len() == 3;
        let filter = if by_address {
            Ok(Filter {
                address: Some(args.arg(2).to_vec()),
                ..Filter::default()
            })
        } else {
            Filter::of_kill(args)
        };
        let filter = match filter {
            Ok(filter) => filter,
            Err(error) => return self.answer_error(key, &error),
        };
        let (own, now_ms) = (self.own_address(), self.now_ms());
        let victims: Vec<u32> = self
            .clients
            .iter()
            .filter(|(place, client)| filter.takes(client, *place as u32 == key, &own))
            .filter(|(_, client)| {
                let age_s = now_ms.saturating_sub(client.since_ms) / 1_000;
                filter.age_s_min.is_none_or(|least| age_s >= least)
            })
            .map(|(place, _)| place as u32)
            .collect();
        if by_address && victims.is_empty() {
            return self.answer_error(key, &NO_SUCH_CLIENT);
        }
        let mut out = Vec::new();
        if by_address {
            write_simple(&mut out, "OK");
        } else {
            write_integer(&mut out, victims.len() as i64);
        }
        for &victim in victims.iter().filter(|&&victim| victim != key) {
            self.close_client(victim);
        }
        if victims.contains(&key) {
            self.answer_and_end(key, &out);
            return Verdict::End;
        }
        self.answer(key, &out)
    }

    fn client_reply(&mut self, key: u32, word: &[u8]) -> Verdict {
        let Some(client) = self.clients.get_mut(key as usize) else {
            return Verdict::End;
        };
        let next = Silence::Once {
            sequence: client.next_sequence(),
        };
        let silence = match client.silence {
            _ if word.eq_ignore_ascii_case(b"ON") => Silence::Never,
            _ if word.eq_ignore_ascii_case(b"OFF") => Silence::Always,
            Silence::Always if word.eq_ignore_ascii_case(b"SKIP") => Silence::Always,
            _ if word.eq_ignore_ascii_case(b"SKIP") => next,
            _ => return self.answer_error(key, &SYNTAX),
        };
        if client.owed() > 0 {
            return Verdict::Wait(Pause::Lane);
        }
        client.silence = silence;
        match silence {
            Silence::Never => self.answer(key, b"+OK\r\n"),
            Silence::Always | Silence::Once { .. } => Verdict::Taken,
        }
    }
}

/// Which clients are meant.
#[derive(Default)]
struct Filter {
    ids: Option<Vec<u64>>,
    address: Option<Vec<u8>>,
    own_address: Option<Vec<u8>>,
    /// Every client here is of type "normal".
    normal: Option<bool>,
    age_s_min: Option<u64>,
    skips_asker: bool,
}

impl Filter {
    /// `CLIENT KILL [ID id] [TYPE t] [ADDR a] [LADDR a] [USER u] [SKIPME yes|no] [MAXAGE s]`
    fn of_kill(args: &Request<'_>) -> Result<Self, ErrorReply> {
        let mut filter = Self {
            skips_asker: true,
            ..Self::default()
        };
        for index in (2..args.len()).step_by(2) {
            if index + 1 == args.len() {
                return Err(SYNTAX);
            }
            let (word, value) = (args.arg(index), args.arg(index + 1));
            match word.to_ascii_uppercase().as_slice() {
                b"ID" => {
                    let id = number(value)
                        .filter(|&id| id > 0)
                        .ok_or_else(|| ErrorReply::new("ERR client-id should be greater than 0"))?;
                    filter.ids = Some(vec![id]);
                }
                b"TYPE" => filter.normal = Some(is_normal(value)?),
                b"ADDR" => filter.address = Some(value.to_vec()),
                b"LADDR" => filter.own_address = Some(value.to_vec()),
                b"USER" if value == b"default" => {}
                b"USER" => {
                    let user = String::from_utf8_lossy(value);
                    return Err(ErrorReply::new(format!("ERR No such user '{user}'")));
                }
                b"SKIPME" if value.eq_ignore_ascii_case(b"yes") => filter.skips_asker = true,
                b"SKIPME" if value.eq_ignore_ascii_case(b"no") => filter.skips_asker = false,
                b"MAXAGE" => {
                    let age = number(value).ok_or_else(|| {
                        ErrorReply::new("ERR maxage is not an integer or out of range")
                    })?;
                    filter.age_s_min = Some(age);
                }
                _ => return Err(SYNTAX),
            }
        }
        Ok(filter)
    }

    fn takes(&self, client: &Client, asks: bool, own_address: &str) -> bool {
        let peer = client.peer.as_deref().unwrap_or("?").as_bytes();
        !(asks && self.skips_asker)
            && self.normal != Some(false)
            && self.ids.as_ref().is_none_or(|ids| ids.contains(&client.id))
            && self.address.as_ref().is_none_or(|wanted| wanted == peer)
            && self
                .own_address
                .as_ref()
                .is_none_or(|wanted| wanted == own_address.as_bytes())
    }
}

/// Whether clients of this type are those of ours.
fn is_normal(word: &[u8]) -> Result<bool, ErrorReply> {
    match word.to_ascii_lowercase().as_slice() {
        b"normal" => Ok(true),
        b"slave" | b"replica" | b"pubsub" | b"master" => Ok(false),
        _ => {
            let word = String::from_utf8_lossy(word);
            Err(ErrorReply::new(format!("ERR Unknown client type '{word}'")))
        }
    }
}

pub(super) fn introduction(client: &mut Client) -> &mut Introduction {
    client.introduction.get_or_insert_with(Box::default)
}

/// A name without blanks and special characters, as Redis wants it.
pub(super) fn client_name(text: &[u8]) -> Option<String> {
    let plain = text.iter().all(|byte| (b'!'..=b'~').contains(byte));
    plain.then(|| String::from_utf8_lossy(text).into_owned())
}

fn set_name(client: &mut Client, text: &[u8]) -> Result<(), ErrorReply> {
    introduction(client).name = client_name(text).ok_or(CLIENT_NAME)?;
    Ok(())
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

/// CLIENT TRACKINGINFO where nothing is tracked.
fn no_tracking(protocol: u8, out: &mut Vec<u8>) {
    describe::map_header(protocol, 3, out);
    write_bulk(out, b"flags");
    out.extend_from_slice(if protocol == 3 { b"~1\r\n" } else { b"*1\r\n" });
    write_bulk(out, b"off");
    write_bulk(out, b"redirect");
    write_integer(out, -1);
    write_bulk(out, b"prefixes");
    write_array_header(out, 0);
}

fn is_on_off(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"ON") || word.eq_ignore_ascii_case(b"OFF")
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
