//! What goes over a pipe together: requests that share a ticket, and the
//! replies to them.

use super::dialect::{FindReply, Unreadable};

/// Requests that went out together.
pub(super) struct Sent<T> {
    pub(super) ticket: T,
    pub(super) at_us: u64,
    /// Requests, and how many of them are answered.
    pub(super) count: u32,
    pub(super) answered: u32,
}

/// Replies that came together: what they answer, and their bytes. With a count
/// of 0: the next piece of a large reply whose end is still to come; its last
/// piece counts 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replies<'a, T> {
    /// Of the batch they belong to.
    pub ticket: T,
    /// Which request of the batch the first one answers.
    pub first: u32,
    /// How many there are.
    pub count: u32,
    /// When the batch was sent.
    pub sent_us: u64,
    /// One after the other.
    pub bytes: &'a [u8],
}

/// Requests of a failed pipe that got no reply: `count` from the `first` of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unanswered<T> {
    /// Of the batch.
    pub ticket: T,
    /// Which request of the batch is the first without a reply.
    pub first: u32,
    /// How many have none.
    pub count: u32,
}

/// How far a scan for one batch's replies came.
pub(super) struct Batch {
    pub(super) replies: u32,
    /// Offset after the last reply.
    pub(super) end: usize,
    /// A push that follows it and is dropped.
    pub(super) push_bytes: usize,
    /// What follows it is no reply.
    pub(super) error: Option<Unreadable>,
}

/// Finds the replies to a batch that stand at `start` of `input`, up to the
/// batch's end, the bytes' end, or a push between them.
#[inline]
pub(super) fn take_batch<T>(
    scanner: &mut impl FindReply,
    sent: &Sent<T>,
    input: &[u8],
    start: usize,
) -> Batch {
    let mut batch = Batch {
        replies: 0,
        end: start,
        push_bytes: 0,
        error: None,
    };
    let wanted = sent.count - sent.answered;
    while batch.replies < wanted {
        let rest = input.get(batch.end..).unwrap_or_default();
        match scanner.find(rest) {
            Ok(None) => break,
            Ok(Some(reply)) if reply.kind == b'>' => {
                batch.push_bytes = reply.len;
                break;
            }
            Ok(Some(reply)) => {
                batch.end += reply.len;
                batch.replies += 1;
            }
            Err(error) => {
                batch.error = Some(error);
                break;
            }
        }
    }
    batch
}
