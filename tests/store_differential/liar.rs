//! A redis-server behind a proxy that tells one untruth, always the same, so that a
//! sequence which shows it can be made short. Each way of comparing has its lie: a
//! harness that does not find one of them compares nothing there.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use super::line::upper;
use super::reply::{self, Raw, array, bulk, elements};
use super::sides::REDIS_ARGS;
use crate::support::client::{Value, encode, read};
use crate::support::{Client, RedisServer};

/// An untruth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// STRLEN of more than 3 is one more.
    IntegerOffByOne,
    /// INCR's refusal has one word changed.
    ErrorWord,
    /// LRANGE of 3 elements and more misses the last.
    ElementMissing,
    /// A string of 64 bytes is not written.
    KeyNotWritten,
    /// SADD of several members does not add the last.
    MemberNotWritten,
    /// GET's null is an array's.
    NullOfAnotherKind,
    /// HGETALL of a listpack has its last pair first.
    OrderOfListpack,
    /// SINTER has its first element twice.
    ElementTwice,
    /// SRANDMEMBER gives something that is no member.
    StrangerDrawn,
    /// SPOP with a count gives one too few.
    TooFewDrawn,
    /// ZRANDMEMBER with a positive count gives one element twice.
    DrawnTwice,
    /// HSCAN never gives `m1`.
    ScanMisses,
    /// PTTL is an hour too long.
    TtlTooLong,
    /// OBJECT ENCODING calls a listpack a ziplist.
    Encoding,
    /// DUMP's checksum is damaged.
    DumpDamaged,
    /// DISCARD carries out what was queued.
    DiscardExecutes,
    /// A score in RESP3 comes as a string.
    ScoreAsText,
    /// ACL GETUSER calls the right to read one to write.
    RightToWrite,
    /// The connection ends at GETDEL of a string of 64 bytes.
    Hangup,
}

/// See the head of this file.
pub struct Liar {
    address: String,
    closed: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
    _server: RedisServer,
}

impl Liar {
    /// Starts the server and what stands before it.
    pub fn start(lie: Lie) -> Liar {
        let server = RedisServer::start(REDIS_ARGS);
        let target = server.address();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
        let address = listener.local_addr().expect("a bound socket").to_string();
        let closed = Arc::new(AtomicBool::new(false));
        let is_closed = Arc::clone(&closed);
        let acceptor = thread::spawn(move || {
            let mut links = Vec::new();
            while let Ok((client, _)) = listener.accept() {
                if is_closed.load(Ordering::SeqCst) {
                    break;
                }
                let target = target.clone();
                links.push(thread::spawn(move || serve(lie, client, &target)));
                links.retain(|link: &JoinHandle<()>| !link.is_finished());
            }
            links
                .into_iter()
                .for_each(|link| link.join().expect("a link ends well"));
        });
        Liar {
            address,
            closed,
            acceptor: Some(acceptor),
            _server: server,
        }
    }

    /// Where clients connect.
    pub fn address(&self) -> String {
        self.address.clone()
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

/// One client, until it leaves.
fn serve(lie: Lie, client: TcpStream, target: &str) {
    client.set_nodelay(true).expect("a TCP socket");
    let mut out = client.try_clone().expect("one more descriptor");
    let mut requests = BufReader::new(client);
    let mut server = Client::connect(target);
    while let Some(words) = next_request(&mut requests) {
        let Some(said) = answer(lie, &mut server, words) else {
            return;
        };
        if out.write_all(&said).is_err() {
            return;
        }
    }
}

fn next_request(input: &mut impl BufRead) -> Option<Vec<Vec<u8>>> {
    let Ok(Value::Array(words)) = read(input) else {
        return None;
    };
    Some(words.iter().map(|word| word.bytes().to_vec()).collect())
}

/// The reply, true or not; none to hang up.
fn answer(lie: Lie, server: &mut Client, mut words: Vec<Vec<u8>>) -> Option<Raw> {
    let name = upper(words.first());
    let of_64 = |at: usize| words.get(at).is_some_and(|word| word.len() == 64);
    match (lie, name.as_str()) {
        (Lie::KeyNotWritten, "SET") if words.len() == 3 && of_64(2) => {
            return Some(b"+OK\r\n".to_vec());
        }
        (Lie::MemberNotWritten, "SADD") if words.len() > 3 => {
            words.pop();
        }
        (Lie::DiscardExecutes, "DISCARD") if words.len() == 1 => {
            let done = ask(server, &[b"EXEC".to_vec()]);
            return Some(if reply::is_error(&done) {
                done
            } else {
                b"+OK\r\n".to_vec()
            });
        }
        (Lie::Hangup, "GETDEL") => {
            let held = ask(server, &words);
            let is_it = reply::text(&held).is_some_and(|text| text.len() == 64);
            return (!is_it).then_some(held);
        }
        _ => {}
    }
    let said = ask(server, &words);
    Some(lied(lie, &name, &words, &said).unwrap_or(said))
}

fn ask(server: &mut Client, words: &[Vec<u8>]) -> Raw {
    let mut request = Vec::new();
    encode(&mut request, words);
    server.exchange_bytes(&request).expect("the server answers")
}

/// What is said instead, if this is what the lie is about.
fn lied(lie: Lie, name: &str, words: &[Vec<u8>], said: &[u8]) -> Option<Raw> {
    let parts = elements(said);
    let has_count = words.len() > 2 && !words[2].starts_with(b"-");
    match (lie, name) {
        (Lie::IntegerOffByOne, "STRLEN") => {
            let length = reply::integer(said).filter(|length| *length > 3)?;
            Some(format!(":{}\r\n", length + 1).into_bytes())
        }
        (Lie::ErrorWord, "INCR") if reply::is_error(said) => {
            let text = String::from_utf8_lossy(said);
            Some(text.replace("integer", "number").into_bytes())
        }
        (Lie::ElementMissing, "LRANGE") if parts.len() > 2 => {
            Some(array(&parts[..parts.len() - 1]))
        }
        (Lie::NullOfAnotherKind, "GET") if said == b"$-1\r\n" => Some(b"*-1\r\n".to_vec()),
        (Lie::OrderOfListpack, "HGETALL") if (4..20).contains(&parts.len()) => {
            let mut turned = parts.clone();
            turned.rotate_right(2);
            let head = said.iter().position(|byte| *byte == b'\n')? + 1;
            Some([&said[..head], &turned.concat()].concat())
        }
        (Lie::ElementTwice, "SINTER") if parts.len() > 1 => {
            let mut twice = parts.clone();
            twice[1] = twice[0];
            let head = said.iter().position(|byte| *byte == b'\n')? + 1;
            Some([&said[..head], &twice.concat()].concat())
        }
        (Lie::StrangerDrawn, "SRANDMEMBER") if words.len() == 2 && reply::text(said).is_some() => {
            Some(bulk(b"stranger"))
        }
        (Lie::TooFewDrawn, "SPOP") if parts.len() > 1 => {
            let head = char::from(reply::kind(said));
            let fewer = &parts[..parts.len() - 1];
            Some(
                [
                    format!("{head}{}\r\n", fewer.len()).as_bytes(),
                    &fewer.concat(),
                ]
                .concat(),
            )
        }
        (Lie::DrawnTwice, "ZRANDMEMBER") if words.len() == 3 && has_count && parts.len() > 1 => {
            let mut twice = parts.clone();
            twice[1] = twice[0];
            Some(array(&twice))
        }
        (Lie::ScanMisses, "HSCAN") => {
            let pairs = elements(parts.get(1)?);
            let kept = pairs
                .chunks(2)
                .filter(|pair| reply::text(pair[0]) != Some(b"m1"));
            let kept: Vec<&[u8]> = kept.flatten().copied().collect();
            Some(array(&[parts[0], &array(&kept)]))
        }
        (Lie::TtlTooLong, "PTTL") => {
            let left = reply::integer(said).filter(|left| *left > 0)?;
            Some(format!(":{}\r\n", left + 3_600_000).into_bytes())
        }
        (Lie::Encoding, "OBJECT") if reply::text(said) == Some(b"listpack") => {
            Some(bulk(b"ziplist"))
        }
        (Lie::DumpDamaged, "DUMP") => {
            let mut damaged = said.to_vec();
            let last = damaged.len().checked_sub(3)?;
            reply::text(said)?;
            damaged[last] ^= 1;
            Some(damaged)
        }
        (Lie::RightToWrite, "ACL") if said.windows(3).any(|part| part == b"%R~") => {
            let text = String::from_utf8(said.to_vec()).ok()?;
            Some(text.replace("%R~", "%W~").into_bytes())
        }
        (Lie::ScoreAsText, "ZSCORE") => {
            let score = said.strip_prefix(b",")?.strip_suffix(b"\r\n")?;
            Some(bulk(score))
        }
        _ => None,
    }
}
