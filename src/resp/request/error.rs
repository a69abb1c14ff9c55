//! What is wrong with bytes that are no request.

/// A client that does not speak RESP; its connection is closed after the error.
///
/// `Display` gives Redis's words after `-ERR Protocol error: `.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The number of arguments is no number, or above the limit.
    #[error("invalid multibulk length")]
    InvalidMultibulkLength,
    /// An argument's length is no number, negative, or above the limit.
    #[error("invalid bulk length")]
    InvalidBulkLength,
    /// An argument does not start with `$`.
    #[error("expected '$', got '{}'", char::from(*.0))]
    ExpectedDollar(u8),
    /// No array, where inline commands are not taken.
    #[error("expected an array")]
    NotAnArray,
    /// A client that must log in sends too many arguments.
    #[error("unauthenticated multibulk length")]
    UnauthenticatedMultibulk,
    /// A client that must log in sends too long an argument.
    #[error("unauthenticated bulk length")]
    UnauthenticatedBulk,
    /// CR LF is missing after an argument. Redis has no words for this: it does not look.
    #[error("expected CRLF after bulk")]
    ExpectedCrlf,
    /// Quotes of an inline command do not match.
    #[error("unbalanced quotes in request")]
    UnbalancedQuotes,
    /// An inline command without end within the limit.
    #[error("too big inline request")]
    TooBigInline,
    /// `*` without line end within the limit.
    #[error("too big mbulk count string")]
    TooBigMultibulkCount,
    /// `$` without line end within the limit.
    #[error("too big bulk count string")]
    TooBigBulkCount,
    /// The request as a whole is above its limit. Redis closes without a word.
    #[error("too big request")]
    TooBigRequest,
}

impl ProtocolError {
    /// The same as Redis writes it: the byte that it got as it is, whatever it is.
    #[must_use]
    pub fn words(self) -> Vec<u8> {
        match self {
            Self::ExpectedDollar(byte) => [b"expected '$', got '", &[byte][..], b"'"].concat(),
            other => other.to_string().into_bytes(),
        }
    }
}
