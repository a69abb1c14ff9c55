//! Raw bytes to a server, and all that it says until it stands still or closes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

/// What became of a connection.
#[derive(Clone, PartialEq, Eq)]
pub struct Outcome {
    /// All that was received.
    pub said: Vec<u8>,
    /// Whether it was closed before it was asked for its last word.
    pub closed: bool,
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = if self.closed { "closed" } else { "open" };
        write!(out, "{state} after \"{}\"", self.said.escape_ascii())
    }
}

/// Sends `pieces`, each by a write of its own, then `last`, whose reply is
/// `answer`: a connection that is still open ends with it.
pub fn exchange(address: &str, pieces: &[&[u8]], last: &[u8], answer: &[u8]) -> Outcome {
    exchange_in_turn(address, pieces, b"", last, answer)
}

/// The same, except that `last` is not sent before all up to `until` was said.
pub fn exchange_in_turn(
    address: &str,
    pieces: &[&[u8]],
    until: &[u8],
    last: &[u8],
    answer: &[u8],
) -> Outcome {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_nodelay(true).expect("a TCP socket");
    stream
        .set_read_timeout(Some(LIMIT))
        .expect("a socket takes a timeout");
    // One that is closed already takes nothing, which is told by the read.
    for piece in pieces {
        let _ = stream.write_all(piece);
    }
    let mut said = Vec::new();
    let mut buffer = [0; 16 * 1024];
    let mut waits = true;
    loop {
        if waits && said.ends_with(until) {
            waits = false;
            let _ = stream.write_all(last);
            // What is owed comes before the end.
            let _ = stream.shutdown(Shutdown::Write);
        }
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => said.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!(
                "neither a reply nor an end: {error}; so far \"{}\"",
                said.escape_ascii()
            ),
        }
    }
    let closed = !said.ends_with(answer);
    if !closed {
        said.truncate(said.len() - answer.len());
    }
    Outcome { said, closed }
}

/// Requests as arrays of their words.
pub fn requests(lines: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        super::client::encode(&mut out, &words);
    }
    out
}
