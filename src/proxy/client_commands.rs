//! CLIENT: what a client says of itself. (What it asks of the others, LIST and
//! KILL, is in `roll_call.rs`.)
//!
//! CLIENT REPLY waits until the client is owed nothing, so that "from here on"
//! needs no mark on requests that are under way.

use crate::resp::{Request, write_array_header, write_bulk, write_integer, write_simple};
use crate::router::commands::Command;
use crate::router::errors::{CLIENT_NAME, ErrorReply, SYNTAX};

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
            "client|list" => return self.client_list(key, args),
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
