//! What the reply to one of our requests means.

use crate::rdb::Loss;

/// How a reply is to be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Anything but an error. BUSYKEY of a RESTORE: the key exists.
    Accepted,
    /// RENAMENX of a temporary name: 1, or 0 where the key exists.
    Unoccupied,
    /// As `Unoccupied`; "no such key" is fine, too: all of it expired meanwhile.
    UnoccupiedOrExpired,
    /// RENAME of a temporary name; "no such key" is fine: all of it expired meanwhile.
    AcceptedOrExpired,
    /// XCLAIM: an empty array means that the entry was deleted, and nothing is
    /// pending for it now.
    Claimed,
    /// A detail that a server may not take: an error of the command itself
    /// (`ERR`) is this loss.
    AcceptedOr(Loss),
}

/// What a reply said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All is well.
    Done,
    /// All is well but for what this server cannot be told.
    DoneBut(Loss),
    /// The key was there and was to be kept.
    Exists,
    /// The server refused: the reply's own words say why.
    Refused,
}

impl Reply {
    /// Judges one whole reply as it came, type byte included.
    pub fn judge(self, reply: &[u8]) -> Verdict {
        match (self, reply.first()) {
            (_, Some(b'-' | b'!')) => self.judge_error(reply),
            (Reply::Unoccupied | Reply::UnoccupiedOrExpired, Some(b':'))
                if reply.starts_with(b":0\r") =>
            {
                Verdict::Exists
            }
            (Reply::Claimed, Some(b'*')) if reply.starts_with(b"*0\r") => {
                Verdict::DoneBut(Loss::StreamPendingDeleted)
            }
            (_, Some(_)) => Verdict::Done,
            (_, None) => Verdict::Refused,
        }
    }

    fn judge_error(self, reply: &[u8]) -> Verdict {
        const GONE: &[u8] = b"no such key";
        let gone = || reply.windows(GONE.len()).any(|words| words == GONE);
        match self {
            Reply::AcceptedOrExpired | Reply::UnoccupiedOrExpired if gone() => Verdict::Done,
            Reply::Accepted if reply.starts_with(b"-BUSYKEY") => Verdict::Exists,
            Reply::AcceptedOr(loss) if reply.starts_with(b"-ERR ") => Verdict::DoneBut(loss),
            _ => Verdict::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_servers() {
        for (reply, bytes, verdict) in [
            (Reply::Accepted, &b"+OK\r\n"[..], Verdict::Done),
            (Reply::Accepted, b":0\r\n", Verdict::Done),
            (
                Reply::Accepted,
                b"-BUSYKEY Target key name already exists.\r\n",
                Verdict::Exists,
            ),
            (Reply::Accepted, b"-ERR no such key\r\n", Verdict::Refused),
            (
                Reply::AcceptedOrExpired,
                b"-ERR no such key\r\n",
                Verdict::Done,
            ),
            (
                Reply::AcceptedOrExpired,
                b"-NOPERM no\r\n",
                Verdict::Refused,
            ),
            (Reply::Unoccupied, b":1\r\n", Verdict::Done),
            (Reply::Unoccupied, b":0\r\n", Verdict::Exists),
            (Reply::Unoccupied, b"-ERR no such key\r\n", Verdict::Refused),
            (
                Reply::UnoccupiedOrExpired,
                b"-ERR no such key\r\n",
                Verdict::Done,
            ),
            (Reply::Claimed, b"*1\r\n$3\r\n5-1\r\n", Verdict::Done),
            (
                Reply::Claimed,
                b"*0\r\n",
                Verdict::DoneBut(Loss::StreamPendingDeleted),
            ),
            (
                Reply::AcceptedOr(Loss::StreamProducers),
                b"-ERR The specified stream ID was deleted\r\n",
                Verdict::DoneBut(Loss::StreamProducers),
            ),
            (
                Reply::AcceptedOr(Loss::StreamProducers),
                b"-OOM command not allowed\r\n",
                Verdict::Refused,
            ),
            (Reply::Accepted, b"", Verdict::Refused),
        ] {
            assert_eq!(reply.judge(bytes), verdict, "{}", bytes.escape_ascii());
        }
    }
}
