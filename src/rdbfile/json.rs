//! JSON that is written as its parts come, and that can hold any bytes.
//!
//! ```text
//! bytes that are UTF-8    "text"
//! other bytes             {"base64":"/wA="}      no text is ever an object
//! ```
//!
//! Invariants: nothing is held back but the brackets still open, so that what
//! was begun can always be closed; after a failed write nothing more is
//! written, and [`Emitter::check`] says why.

use std::io::{self, Write};

/// Writes one JSON value after another.
#[derive(Debug)]
pub struct Emitter<W> {
    out: W,
    /// Closing brackets owed, innermost last.
    open: Vec<u8>,
    /// Something stands before the next item at this level.
    comma: bool,
    failed: Option<io::Error>,
}

impl<W: Write> Emitter<W> {
    /// Writes to `out`, which should be buffered.
    pub fn new(out: W) -> Self {
        Self {
            out,
            open: Vec::new(),
            comma: false,
            failed: None,
        }
    }

    /// The first failed write.
    ///
    /// # Errors
    /// That of the output.
    pub fn check(&mut self) -> io::Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// The output, for what is not JSON.
    pub fn into_inner(self) -> W {
        self.out
    }

    fn raw(&mut self, write: impl FnOnce(&mut W) -> io::Result<()>) {
        if self.failed.is_none() {
            self.failed = write(&mut self.out).err();
        }
    }

    fn separate(&mut self) {
        if std::mem::replace(&mut self.comma, true) {
            self.raw(|out| out.write_all(b","));
        }
    }

    /// Brackets that are open.
    pub fn depth(&self) -> usize {
        self.open.len()
    }

    /// Opens an object.
    pub fn object(&mut self) {
        self.separate();
        self.raw(|out| out.write_all(b"{"));
        self.open.push(b'}');
        self.comma = false;
    }

    /// Opens an array.
    pub fn array(&mut self) {
        self.separate();
        self.raw(|out| out.write_all(b"["));
        self.open.push(b']');
        self.comma = false;
    }

    /// Closes brackets until only `depth` are open.
    pub fn close_to(&mut self, depth: usize) {
        while self.open.len() > depth {
            let bracket = self.open.pop().unwrap_or_default();
            self.raw(|out| out.write_all(&[bracket]));
            self.comma = true;
        }
    }

    /// Closes the innermost bracket.
    pub fn close(&mut self) {
        self.close_to(self.open.len().saturating_sub(1));
    }

    /// Closes everything and ends the line.
    pub fn end_line(&mut self) {
        self.close_to(0);
        self.raw(|out| out.write_all(b"\n"));
        self.comma = false;
    }

    /// The name of the next member; plain ASCII without quotes.
    pub fn name(&mut self, name: &str) {
        self.separate();
        self.raw(|out| write!(out, "\"{name}\":"));
        self.comma = false;
    }

    /// Any bytes: a string if they are UTF-8, else an object with base64.
    pub fn bytes(&mut self, bytes: &[u8]) {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.value(|out| serde_json::to_writer(out, text).map_err(io::Error::from)),
            Err(_) => {
                self.begin_base64();
                let mut encoder = Base64::default();
                self.base64(&mut encoder, bytes);
                self.end_base64(encoder);
            }
        }
    }

    /// Any bytes as an object with base64.
    pub fn base64_bytes(&mut self, bytes: &[u8]) {
        self.begin_base64();
        let mut encoder = Base64::default();
        self.base64(&mut encoder, bytes);
        self.end_base64(encoder);
    }

    /// Begins an object whose bytes come in parts.
    pub fn begin_base64(&mut self) {
        self.separate();
        self.raw(|out| out.write_all(b"{\"base64\":\""));
        self.open.push(b'}');
    }

    /// More of its bytes.
    pub fn base64(&mut self, encoder: &mut Base64, bytes: &[u8]) {
        self.raw(|out| encoder.write(out, bytes));
    }

    /// Its end.
    pub fn end_base64(&mut self, encoder: Base64) {
        self.raw(|out| encoder.finish(out));
        self.raw(|out| out.write_all(b"\""));
        self.close();
    }

    /// Text that needs escaping.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// An integer, or other text that is JSON as it is.
    pub fn literal(&mut self, text: impl std::fmt::Display) {
        self.value(|out| write!(out, "{text}"));
    }

    /// A score: JSON has no infinities, so they are the texts `inf` and `-inf`.
    pub fn score(&mut self, score: f64) {
        if score.is_finite() {
            self.value(|out| serde_json::to_writer(out, &score).map_err(io::Error::from));
        } else {
            self.text(if score > 0.0 { "inf" } else { "-inf" });
        }
    }

    fn value(&mut self, write: impl FnOnce(&mut W) -> io::Result<()>) {
        self.separate();
        self.raw(write);
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Encoded bytes gathered before they are written.
const BLOCK_BYTES: usize = 4096;

/// RFC 4648 base64 with padding, of bytes that come in parts.
#[derive(Debug, Default)]
pub struct Base64 {
    carry: [u8; 2],
    carried: usize,
}

impl Base64 {
    fn write(&mut self, out: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        while let Some(group) = self.next_group(&mut bytes) {
            block.extend_from_slice(&group);
            if block.len() >= BLOCK_BYTES {
                out.write_all(&block)?;
                block.clear();
            }
        }
        out.write_all(&block)
    }

    /// Four characters for three bytes, the first of which may be carried over.
    fn next_group(&mut self, bytes: &mut &[u8]) -> Option<[u8; 4]> {
        let missing = 3 - self.carried;
        let Some((now, rest)) = bytes.split_at_checked(missing) else {
            for &byte in *bytes {
                if let Some(place) = self.carry.get_mut(self.carried) {
                    *place = byte;
                    self.carried += 1;
                }
            }
            *bytes = &[];
            return None;
        };
        *bytes = rest;
        let carried = std::mem::take(&mut self.carried);
        let mut three = self
            .carry
            .into_iter()
            .take(carried)
            .chain(now.iter().copied());
        let word = (0..3).fold(0u32, |word, _| {
            word << 8 | u32::from(three.next().unwrap_or(0))
        });
        Some(characters(word))
    }

    fn finish(self, out: &mut impl Write) -> io::Result<()> {
        let [first, second] = self.carry;
        let second = if self.carried > 1 { second } else { 0 };
        let [a, b, c, _] = characters(u32::from(first) << 16 | u32::from(second) << 8);
        match self.carried {
            0 => Ok(()),
            1 => out.write_all(&[a, b, b'=', b'=']),
            _ => out.write_all(&[a, b, c, b'=']),
        }
    }
}

fn characters(word: u32) -> [u8; 4] {
    [18, 12, 6, 0].map(|shift| {
        let index = (word >> shift) & 63;
        ALPHABET.get(index as usize).copied().unwrap_or(b'=')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base64(parts: &[&[u8]]) -> String {
        let (mut out, mut encoder) = (Vec::new(), Base64::default());
        for part in parts {
            encoder.write(&mut out, part).unwrap();
        }
        encoder.finish(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn base64_is_that_of_the_rfc_wherever_its_input_is_cut() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            for cut in 0..=plain.len() {
                let (a, b) = plain.as_bytes().split_at(cut);
                for second in 0..=b.len() {
                    let (b, c) = b.split_at(second);
                    assert_eq!(base64(&[a, b, c]), encoded);
                }
            }
        }
        assert_eq!(base64(&[&[0xff, 0xef, 0xbe]]), "/+++");
    }

    #[test]
    fn any_bytes_are_json_and_what_is_open_can_be_closed() {
        let mut json = Emitter::new(Vec::new());
        json.object();
        json.name("a");
        json.array();
        json.bytes(b"x\"\n\0");
        json.bytes(b"\xff\x00");
        json.bytes(b"");
        json.score(f64::NEG_INFINITY);
        json.score(1.5);
        json.object();
        json.name("deep");
        json.literal(-7);
        json.end_line();
        json.check().unwrap();
        let text = String::from_utf8(json.into_inner()).unwrap();
        assert_eq!(
            text,
            "{\"a\":[\"x\\\"\\n\\u0000\",{\"base64\":\"/wA=\"},\"\",\"-inf\",1.5,{\"deep\":-7}]}\n"
        );
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
    }

    #[test]
    fn the_first_failed_write_is_told() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut json = Emitter::new(Full);
        json.array();
        json.end_line();
        assert_eq!(json.check().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
