//! The bearer token of the HTTP side.

use std::fmt;

/// A bearer token; never printed.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A token of this text, which a header must be able to carry.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether `given` is this token. The time it takes tells nothing about
    /// the bytes, only whether the length is right.
    pub fn matches(&self, given: &[u8]) -> bool {
        let pairs = self.0.bytes().zip(given);
        let differences = pairs.fold(0, |seen, (a, b)| seen | (a ^ b));
        self.0.len() == given.len() && std::hint::black_box(differences) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_matches() {
        let token = Token::new("0123456789abcdef");
        assert!(token.matches(b"0123456789abcdef"));
        for wrong in [
            "",
            "0123456789abcde",
            "0123456789abcdeg",
            "0123456789abcdef0",
        ] {
            assert!(!token.matches(wrong.as_bytes()), "{wrong}");
        }
        assert_eq!(format!("{token:?}"), "***");
    }
}
