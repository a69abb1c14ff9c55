//! Hash tags: the part of a key between two characters that alone is hashed,
//! so that `user:{42}:a` and `user:{42}:b` share a shard.
//!
//! The rule is twemproxy's, which is Redis Cluster's too: the first opening
//! character, then the first closing one after it; with at least one byte in
//! between, only those bytes count. Otherwise the whole key does, with no
//! second attempt further on. Codis differs in one point: an empty tag counts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The two characters around a tag; written as a string of two bytes, `"{}"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HashTag {
    open: u8,
    close: u8,
}

/// What to do with an empty tag, `{}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EmptyTag {
    /// twemproxy and Redis Cluster: the whole key is hashed.
    Ignored,
    /// Codis: nothing is hashed, so the key is in slot 0.
    Counts,
}

/// A hash tag is a string of two ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("hash_tag \"{given}\" is not two characters, such as \"{{}}\"; leave it out for none")]
pub struct InvalidHashTag {
    /// What was written.
    pub given: String,
}

impl HashTag {
    /// The opening character; it may equal the closing one.
    pub const fn open(self) -> u8 {
        self.open
    }

    /// The closing character.
    pub const fn close(self) -> u8 {
        self.close
    }

    /// The part of `key` that is hashed.
    #[inline]
    pub(super) fn part(self, key: &[u8], empty: EmptyTag) -> &[u8] {
        let Some(open) = position(key, self.open) else {
            return key;
        };
        let after = &key[open + 1..];
        match position(after, self.close) {
            Some(0) if empty == EmptyTag::Ignored => key,
            Some(length) => &after[..length],
            None => key,
        }
    }
}

#[inline]
fn position(bytes: &[u8], wanted: u8) -> Option<usize> {
    bytes.iter().position(|&byte| byte == wanted)
}

impl FromStr for HashTag {
    type Err = InvalidHashTag;

    fn from_str(text: &str) -> Result<Self, InvalidHashTag> {
        match *text.as_bytes() {
            [open, close] if text.is_ascii() => Ok(Self { open, close }),
            _ => Err(InvalidHashTag {
                given: text.to_owned(),
            }),
        }
    }
}

impl TryFrom<String> for HashTag {
    type Error = InvalidHashTag;

    fn try_from(text: String) -> Result<Self, InvalidHashTag> {
        text.parse()
    }
}

impl From<HashTag> for String {
    fn from(tag: HashTag) -> Self {
        tag.to_string()
    }
}

impl fmt::Display for HashTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", char::from(self.open), char::from(self.close))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part<'k>(tag: &str, key: &'k str) -> &'k str {
        let part = tag
            .parse::<HashTag>()
            .unwrap()
            .part(key.as_bytes(), EmptyTag::Ignored);
        std::str::from_utf8(part).unwrap()
    }

    #[test]
    fn first_open_then_first_close() {
        assert_eq!(part("{}", "user:{42}:a"), "42");
        assert_eq!(part("{}", "{a{b}}"), "a{b");
        assert_eq!(part("{}", "}a{b}"), "b");
        assert_eq!(part("$$", "x$y$z$"), "y");
    }

    #[test]
    fn without_a_tag_the_whole_key_counts() {
        for key in ["", "a", "{a", "a}", "}{", "{}x", "{}{a}", "a{}{b}"] {
            assert_eq!(part("{}", key), key);
        }
        assert_eq!(part("$$", "a$$b"), "a$$b");
    }

    #[test]
    fn codis_counts_an_empty_tag() {
        let tag: HashTag = "{}".parse().unwrap();
        assert_eq!(tag.part(b"x{}y", EmptyTag::Counts), b"");
        assert_eq!(tag.part(b"{}{a}", EmptyTag::Counts), b"");
        assert_eq!(tag.part(b"x{y", EmptyTag::Counts), b"x{y");
    }

    #[test]
    fn only_two_ascii_characters() {
        for text in ["", "{", "{}}", "é", "é}"] {
            assert!(text.parse::<HashTag>().is_err(), "{text}");
        }
    }
}
