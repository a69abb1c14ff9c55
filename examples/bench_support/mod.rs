//! What the measuring programs (`null_mux`, `canned`) share: flags, and bytes on
//! their way out of a socket.

use std::collections::BTreeMap;
use std::io::{self, Write};

use mio::net::TcpStream;

/// Bytes read at once; as many as a worker of keyferry.
pub const SCRATCH_BYTES: usize = 128 * 1024;

/// `--name value` pairs.
pub struct Flags(BTreeMap<String, String>);

impl Flags {
    /// Every flag must be one of `known`.
    pub fn parse(words: impl IntoIterator<Item = String>, known: &[&str]) -> Self {
        let mut words = words.into_iter();
        let mut flags = BTreeMap::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").filter(|name| known.contains(name));
            let Some(name) = name else {
                fail(&format!("unknown argument {word}; flags: {known:?}"));
            };
            let Some(value) = words.next() else {
                fail(&format!("{word} lacks its value"));
            };
            flags.insert(name.to_owned(), value);
        }
        Self(flags)
    }

    /// The flag's text; it must be given.
    pub fn text(&self, name: &str) -> &str {
        match self.0.get(name) {
            Some(text) => text,
            None => fail(&format!("--{name} is missing")),
        }
    }

    /// The flag as a number.
    pub fn number(&self, name: &str) -> usize {
        number(name, self.text(name))
    }

    /// The flag as numbers with commas between them.
    pub fn numbers(&self, name: &str) -> Vec<usize> {
        let parts = self.text(name).split(',');
        parts.map(|part| number(name, part)).collect()
    }
}

fn number(name: &str, text: &str) -> usize {
    text.parse()
        .unwrap_or_else(|_| fail(&format!("--{name}: {text} is no number")))
}

/// Ends the program.
pub fn fail(why: &str) -> ! {
    eprintln!("{why}");
    std::process::exit(2)
}

/// Bytes to be written; `sent` of them are.
#[derive(Default)]
pub struct Output {
    pub bytes: Vec<u8>,
    sent: usize,
}

impl Output {
    /// Writes until all is out or the socket is full.
    pub fn write_to(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        while self.sent < self.bytes.len() {
            match stream.write(self.bytes.get(self.sent..).unwrap_or_default()) {
                Ok(n) => self.sent += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.bytes.clear();
        self.sent = 0;
        Ok(())
    }
}
