//! What a client is told that asked for something which is not done, in the
//! words of memcached 1.6.

/// Why a line, or its data, goes to no server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No command, or another number of words than it has.
    Unknown,
    /// A key that is too long, or what should be a number.
    BadLine,
    /// `delete` with other words than a key.
    BadDelete,
    /// A time that is none.
    BadExptime,
    /// What `incr` and `decr` shall add is no number.
    BadDelta,
    /// The data do not end where their line says.
    BadData,
    /// The data are larger than what one request may have.
    TooLarge,
    /// A command about one server, not about keys.
    Unsupported(&'static str),
    /// It empties every server, and that is not allowed.
    FlushRefused,
    /// A line without end.
    LineTooLong,
    /// The binary protocol.
    Binary,
    /// A browser.
    Http,
}

impl Refusal {
    /// Whether the client is closed after it.
    #[must_use]
    pub fn ends(self) -> bool {
        matches!(self, Self::LineTooLong | Self::Binary | Self::Http)
    }

    /// Appends the reply; nothing where memcached says nothing.
    pub fn write(self, out: &mut Vec<u8>) {
        let text = match self {
            Self::Unknown => "ERROR",
            Self::BadLine => "CLIENT_ERROR bad command line format",
            Self::BadDelete => {
                "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]"
            }
            Self::BadExptime => "CLIENT_ERROR invalid exptime argument",
            Self::BadDelta => "CLIENT_ERROR invalid numeric delta argument",
            Self::BadData => "CLIENT_ERROR bad data chunk",
            Self::TooLarge => "SERVER_ERROR object too large for cache",
            Self::LineTooLong => "CLIENT_ERROR line too long",
            Self::Unsupported(verb) => {
                let words = "is about one server and is not supported through this proxy";
                return write_server_error(out, &format!("{verb} {words}"));
            }
            Self::FlushRefused => {
                return write_server_error(
                    out,
                    "flush_all is not allowed through this proxy: it empties every shard; \
                     set allow_flush = true in the pool's config to allow it",
                );
            }
            Self::Binary | Self::Http => return,
        };
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends `SERVER_ERROR <words>`; control characters become blanks, so that
/// nothing can forge a reply.
pub fn write_server_error(out: &mut Vec<u8>, words: &str) {
    out.extend_from_slice(b"SERVER_ERROR ");
    let blank = |byte: u8| if byte.is_ascii_control() { b' ' } else { byte };
    out.extend(words.bytes().map(blank));
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_line_or_silence() {
        let mut out = Vec::new();
        write_server_error(&mut out, "a\r\nSTORED");
        assert_eq!(out, b"SERVER_ERROR a  STORED\r\n");
        for refusal in [
            Refusal::Unknown,
            Refusal::Unsupported("stats"),
            Refusal::FlushRefused,
        ] {
            out.clear();
            refusal.write(&mut out);
            assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1);
            assert!(out.ends_with(b"\r\n") && !refusal.ends());
        }
        out.clear();
        Refusal::Http.write(&mut out);
        assert!(out.is_empty() && Refusal::Http.ends());
    }
}
