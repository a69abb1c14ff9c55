//! Inline commands: `set "a key" 'it\'s'\r\n`, rebuilt as a RESP array.
//!
//! The quoting rules are those of Redis's `sdssplitargs`: double quotes know
//! `\xHH`, `\n`, `\r`, `\t`, `\b`, `\a` and `\c` for any other c; single quotes know
//! only `\'`; a closing quote must be followed by a blank or the end; a NUL
//! byte ends the line, because Redis reads it as a C string.

use super::span::Span;
use super::write::{write_array_header, write_bulk};

/// Buffers above this are given back after the request that needed them.
const RETAINED_BYTES_MAX: usize = 64 * 1024;

/// The buffers inline commands are rebuilt in.
#[derive(Debug, Default)]
pub(super) struct InlineBuffer {
    /// Unquoted words, one after the other.
    words: Vec<u8>,
    /// The canonical RESP array.
    pub(super) rebuilt: Vec<u8>,
}

/// A quote that was opened and not closed, or closed in the middle of a word.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnbalancedQuotes;

impl InlineBuffer {
    /// Rebuilds `line` (without its line end); `args` become spans of `rebuilt`.
    /// A blank line leaves both empty.
    pub(super) fn rebuild(
        &mut self,
        line: &[u8],
        args: &mut Vec<Span>,
    ) -> Result<(), UnbalancedQuotes> {
        self.words.clear();
        self.rebuilt.clear();
        args.clear();
        let mut at = 0;
        loop {
            while byte_at(line, at).is_ascii_whitespace() || byte_at(line, at) == 0x0b {
                at += 1;
            }
            if byte_at(line, at) == 0 {
                break;
            }
            let start = self.words.len() as u32;
            at = split_word(line, at, &mut self.words)?;
            args.push(Span {
                start,
                end: self.words.len() as u32,
            });
        }
        if args.is_empty() {
            return Ok(());
        }
        write_array_header(&mut self.rebuilt, args.len());
        for arg in args {
            let word = arg.of(&self.words);
            write_bulk(&mut self.rebuilt, word);
            let end = self.rebuilt.len() - 2;
            *arg = Span {
                start: (end - word.len()) as u32,
                end: end as u32,
            };
        }
        Ok(())
    }

    /// Gives back what an unusually long line took.
    pub(super) fn shrink(&mut self) {
        if self.rebuilt.capacity() > RETAINED_BYTES_MAX {
            *self = InlineBuffer::default();
        }
    }
}

/// NUL stands for the end, as in the C strings this mirrors.
fn byte_at(line: &[u8], at: usize) -> u8 {
    line.get(at).copied().unwrap_or(0)
}

enum Quote {
    None,
    Single,
    Double,
}

/// Appends the word starting at `at`; answers where it ended.
fn split_word(line: &[u8], mut at: usize, out: &mut Vec<u8>) -> Result<usize, UnbalancedQuotes> {
    let mut quote = Quote::None;
    loop {
        let byte = byte_at(line, at);
        match (&quote, byte) {
            (Quote::None, b' ' | b'\n' | b'\r' | b'\t' | 0) => return Ok(at),
            (Quote::None, b'"') => quote = Quote::Double,
            (Quote::None, b'\'') => quote = Quote::Single,
            (Quote::Single | Quote::Double, 0) => return Err(UnbalancedQuotes),
            (Quote::Double, b'\\') if byte_at(line, at + 1) != 0 => {
                at += 1;
                match hex_escape(line, at) {
                    Some(value) => {
                        out.push(value);
                        at += 2;
                    }
                    None => out.push(unescape(byte_at(line, at))),
                }
            }
            (Quote::Single, b'\\') if byte_at(line, at + 1) == b'\'' => {
                at += 1;
                out.push(b'\'');
            }
            (Quote::Double, b'"') | (Quote::Single, b'\'') => return closed_at(line, at + 1),
            (_, other) => out.push(other),
        }
        at += 1;
    }
}

fn closed_at(line: &[u8], at: usize) -> Result<usize, UnbalancedQuotes> {
    match byte_at(line, at) {
        b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | 0 => Ok(at),
        _ => Err(UnbalancedQuotes),
    }
}

/// The value of `xHH` at `at`, if that is what stands there.
fn hex_escape(line: &[u8], at: usize) -> Option<u8> {
    if byte_at(line, at) != b'x' {
        return None;
    }
    let high = char::from(byte_at(line, at + 1)).to_digit(16)?;
    let low = char::from(byte_at(line, at + 2)).to_digit(16)?;
    u8::try_from(high * 16 + low).ok()
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Vec<Vec<u8>>, UnbalancedQuotes> {
        let (mut buffer, mut args) = (InlineBuffer::default(), Vec::new());
        buffer.rebuild(line.as_bytes(), &mut args)?;
        Ok(args
            .iter()
            .map(|arg| arg.of(&buffer.rebuilt).to_vec())
            .collect())
    }

    #[test]
    fn words_follow_redis_quoting() {
        for (line, expected) in [
            ("", vec![]),
            (" \t\x0b\x0c ", vec![]),
            ("PING", vec!["PING"]),
            ("  set\tk  v ", vec!["set", "k", "v"]),
            (r#"set "a key" 'b c'"#, vec!["set", "a key", "b c"]),
            (
                r#"echo "\x41\n\r\t\b\a\q\\""#,
                vec!["echo", "A\n\r\t\x08\x07q\\"],
            ),
            (r#"echo "\xZZ""#, vec!["echo", "xZZ"]),
            (r#"echo 'it\'s \n'"#, vec!["echo", "it's \\n"]),
            (r#"echo """#, vec!["echo", ""]),
            (r#"echo a"b c""#, vec!["echo", "ab c"]),
            ("echo a\\b", vec!["echo", "a\\b"]),
            ("echo a\0b c", vec!["echo", "a"]),
            ("a\x0bb", vec!["a\x0bb"]),
        ] {
            let expected: Vec<Vec<u8>> = expected
                .iter()
                .map(|word| word.as_bytes().to_vec())
                .collect();
            assert_eq!(words(line), Ok(expected), "{line:?}");
        }
    }

    #[test]
    fn unbalanced_quotes_are_refused() {
        for line in [
            "\"",
            "'a",
            "\"a\"b",
            "'a'b",
            "\"a\\",
            "\"a\\\"",
            "set \"a\0\"",
        ] {
            assert_eq!(words(line), Err(UnbalancedQuotes), "{line:?}");
        }
    }

    #[test]
    fn the_rebuilt_bytes_are_canonical() {
        let (mut buffer, mut args) = (InlineBuffer::default(), Vec::new());
        buffer.rebuild(b"set k ''", &mut args).unwrap();
        assert_eq!(buffer.rebuilt, b"*3\r\n$3\r\nset\r\n$1\r\nk\r\n$0\r\n\r\n");
    }
}
