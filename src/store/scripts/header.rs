//! `#!lua name=.. flags=..`: the first line of a script or a library.

use std::borrow::Cow;

use crate::store::commands::failure::up_to_zero;

/// What a script says of itself. Without a first line it says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

const NAMES: [&str; 5] = [
    "no-writes",
    "allow-oom",
    "allow-stale",
    "no-cluster",
    "allow-cross-slot-keys",
];

impl Flags {
    /// It writes nothing.
    pub const NO_WRITES: Flags = Flags(1);
    /// It runs when memory is short.
    pub const ALLOW_OOM: Flags = Flags(1 << 1);
    /// It runs on a replica that has lost its master.
    pub const ALLOW_STALE: Flags = Flags(1 << 2);

    /// The flag of a name, exactly or (`is_exact` false) in any case of its letters.
    pub(super) fn of(name: &[u8], is_exact: bool) -> Option<Self> {
        let is_it = |of: &&str| match is_exact {
            true => of.as_bytes() == name,
            false => of.as_bytes().eq_ignore_ascii_case(name),
        };
        let at = NAMES.iter().position(is_it)?;
        Some(Flags(1 << at))
    }

    /// Both.
    pub fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all of another are among them.
    pub fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Their names, in Redis' order.
    pub fn names(self) -> Vec<&'static str> {
        let is_set = |at: &usize| self.0 & (1 << at) != 0;
        (0..NAMES.len())
            .filter(is_set)
            .map(|at| NAMES[at])
            .collect()
    }
}

/// A first line that is not understood, in Redis' words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderError(pub Cow<'static, [u8]>);

fn wrong(words: &'static str) -> HeaderError {
    HeaderError(Cow::Borrowed(words.as_bytes()))
}

fn quoting(words: &str, told: &[u8]) -> HeaderError {
    HeaderError(Cow::Owned([words.as_bytes(), up_to_zero(told)].concat()))
}

/// The flags of a script for EVAL, and the text that is compiled: the end of the first line
/// stays, so that lines have their numbers. Without a first line there are no flags.
///
/// # Errors
/// [`HeaderError`].
pub fn script_flags(script: &[u8]) -> Result<(Option<Flags>, &[u8]), HeaderError> {
    if !script.starts_with(b"#!") {
        return Ok((None, script));
    }
    let (line, code) = first_line(script).ok_or_else(|| wrong("Invalid script shebang"))?;
    let parts = words(line).filter(|parts| !parts.is_empty());
    let parts = parts.ok_or_else(|| wrong("Invalid engine in script shebang"))?;
    let mut parts = parts.iter();
    match parts.next() {
        Some(engine) if engine == b"#!lua" => {}
        engine => {
            let engine = engine.map_or(&b""[..], |engine| engine);
            return Err(quoting("Unexpected engine in script shebang: ", engine));
        }
    }
    let mut flags = Flags::default();
    for part in parts {
        let Some(names) = part.strip_prefix(b"flags=") else {
            return Err(quoting("Unknown lua shebang option: ", part));
        };
        if names.is_empty() {
            continue;
        }
        for name in names.split(|byte| *byte == b',') {
            let flag = Flags::of(name, true);
            let flag = flag.ok_or_else(|| quoting("Unexpected flag in script shebang: ", name))?;
            flags = flags.with(flag);
        }
    }
    Ok((Some(flags), code))
}

/// The first line of a library, and what is compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryHeader<'a> {
    /// What runs it.
    pub engine: Vec<u8>,
    /// What it is called.
    pub name: Vec<u8>,
    /// From the end of the first line on.
    pub code: &'a [u8],
}

impl<'a> LibraryHeader<'a> {
    /// Reads it.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub fn of(library: &'a [u8]) -> Result<Self, HeaderError> {
        let invalid = || wrong("Invalid library metadata");
        if !library.starts_with(b"#!") {
            return Err(wrong("Missing library metadata"));
        }
        let (line, code) = first_line(library).ok_or_else(invalid)?;
        let parts = words(line).filter(|parts| !parts.is_empty());
        let parts = parts.ok_or_else(invalid)?;
        let engine = parts.first().and_then(|part| part.get(2..)).unwrap_or(&[]);
        let mut name: Option<&[u8]> = None;
        for part in parts.iter().skip(1) {
            let (key, value) = part.split_at(part.len().min(5));
            if !key.eq_ignore_ascii_case(b"name=") {
                return Err(quoting("Invalid metadata value given: ", part));
            }
            if name.is_some() {
                return Err(wrong(
                    "Invalid metadata value, name argument was given multiple times",
                ));
            }
            name = Some(value);
        }
        let name = name.ok_or_else(|| wrong("Library name was not given"))?;
        Ok(Self {
            engine: engine.to_vec(),
            name: name.to_vec(),
            code,
        })
    }
}

/// The first line, and what follows from its end on. C's text ends at a zero byte.
fn first_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = up_to_zero(text).iter().position(|byte| *byte == b'\n')?;
    Some(text.split_at(end))
}

/// Words of a line, quoted as on Redis' command line. Nothing if a quote is not closed.
fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    let mut rest = line;
    loop {
        let blanks = rest.iter().take_while(|byte| is_space(**byte)).count();
        rest = rest.get(blanks..).unwrap_or(&[]);
        if rest.is_empty() {
            return Some(all);
        }
        let mut word = Vec::new();
        loop {
            match rest {
                [] | [b' ' | b'\n' | b'\r' | b'\t', ..] => break,
                [quote @ (b'"' | b'\''), behind @ ..] => {
                    rest = quoted(*quote, behind, &mut word)?;
                    break;
                }
                [byte, behind @ ..] => {
                    word.push(*byte);
                    rest = behind;
                }
            }
        }
        all.push(word);
    }
}

/// What is behind the closing quote: a blank, or nothing.
fn quoted<'a>(quote: u8, mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    loop {
        match (quote, rest) {
            (_, []) => return None,
            (b'"', [b'\\', b'x', high, low, behind @ ..])
                if digit(high).is_some() && digit(low).is_some() =>
            {
                word.push(digit(high)? * 16 + digit(low)?);
                rest = behind;
            }
            (b'"', [b'\\', escaped, behind @ ..]) => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = behind;
            }
            (b'\'', [b'\\', b'\'', behind @ ..]) => {
                word.push(b'\'');
                rest = behind;
            }
            (quote, [byte, behind @ ..]) if *byte == quote => {
                let is_end = behind.first().is_none_or(|byte| is_space(*byte));
                return is_end.then_some(behind);
            }
            (_, [byte, behind @ ..]) => {
                word.push(*byte);
                rest = behind;
            }
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | 9..=13)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_those_of_the_first_line() {
        assert_eq!(script_flags(b"return 1"), Ok((None, &b"return 1"[..])));
        let (flags, code) =
            script_flags(b"#!lua flags=no-writes,allow-oom\nreturn 1").expect("flags");
        assert_eq!(code, b"\nreturn 1");
        assert_eq!(
            flags.map(Flags::names),
            Some(vec!["no-writes", "allow-oom"])
        );
        for (script, words) in [
            (&b"#!lua"[..], "Invalid script shebang"),
            (b"#!lua \"\n", "Invalid engine in script shebang"),
            (b"#!js\n", "Unexpected engine in script shebang: #!js"),
            (b"#!lua x=1\n", "Unknown lua shebang option: x=1"),
            (b"#!lua flags=a\n", "Unexpected flag in script shebang: a"),
        ] {
            let error = script_flags(script).expect_err("refused");
            assert_eq!(String::from_utf8_lossy(&error.0), words);
        }
    }

    #[test]
    fn libraries_have_a_name() {
        let header = LibraryHeader::of(b"#!lua NAME='a b'\nx").expect("a header");
        assert_eq!((&*header.name, header.code), (&b"a b"[..], &b"\nx"[..]));
        for (library, words) in [
            (&b"x"[..], "Missing library metadata"),
            (b"#!lua name=a", "Invalid library metadata"),
            (b"#!lua\n", "Library name was not given"),
            (b"#!lua foo\n", "Invalid metadata value given: foo"),
        ] {
            let error = LibraryHeader::of(library).expect_err("refused");
            assert_eq!(String::from_utf8_lossy(&error.0), words);
        }
    }
}
