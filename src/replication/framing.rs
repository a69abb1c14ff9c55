//! Where a snapshot ends, told from its bytes alone. No I/O.
//!
//! ```text
//! Line --$<length>--> Length --that many--> Ended
//!      --$EOF:<mark>-> Mark  --the mark---> Ended
//! ```
//!
//! The intake has to know the end at once: a diskless source sends nothing more
//! before our ACK, and the offset counts from there. It does not parse what it
//! hands on, so it looks for the mark; the parser finds the end by the content and
//! checks that both agree. The mark may lie across any number of reads.

use super::error::TapErrorKind;
use super::snapshot::{Frame, MARK_BYTES, parse_frame};
use super::wire::{LINE_BYTES_MAX, unexpected};

/// What of the bytes belongs to the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fed {
    /// So many bytes from the start, frame and mark included.
    pub(super) bytes: usize,
    /// The snapshot ends after them.
    pub(super) ended: bool,
}

/// Watches one snapshot go by.
#[derive(Debug)]
pub(super) struct FrameWatch {
    state: State,
}

#[derive(Debug)]
enum State {
    /// What came of the frame's line.
    Line(Vec<u8>),
    Length(u64),
    Mark(Box<MarkFinder>),
    Ended,
}

impl FrameWatch {
    pub(super) fn new() -> Self {
        Self {
            state: State::Line(Vec::new()),
        }
    }

    /// Looks at the bytes that came next.
    ///
    /// # Errors
    /// The frame's line is none, or the source gave up.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<Fed, TapErrorKind> {
        let line_bytes = match &mut self.state {
            State::Line(line) => match end_of_line(line, bytes)? {
                Some(line_bytes) => line_bytes,
                None => return Ok(Fed::all(bytes)),
            },
            _ => 0,
        };
        if let State::Line(line) = &self.state {
            self.state = match parse_frame(line)? {
                Frame::Length(length) => State::Length(length),
                Frame::Mark(mark) => State::Mark(Box::new(MarkFinder::new(mark))),
                Frame::Awaited => return Err(unexpected(line)),
            };
        }
        let content = bytes.get(line_bytes..).unwrap_or_default();
        let end = match &mut self.state {
            State::Length(left) => {
                let taken = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(content.len());
                *left -= taken as u64;
                (*left == 0).then_some(taken)
            }
            State::Mark(finder) => finder.feed(content),
            State::Line(_) | State::Ended => Some(0),
        };
        Ok(match end {
            Some(end) => {
                self.state = State::Ended;
                Fed {
                    bytes: line_bytes + end,
                    ended: true,
                }
            }
            None => Fed::all(bytes),
        })
    }
}

impl Fed {
    fn all(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.len(),
            ended: false,
        }
    }
}

/// Gathers the frame's line, without its CR LF and the keepalives before it;
/// answers how many of the bytes it took when it is whole.
fn end_of_line(line: &mut Vec<u8>, bytes: &[u8]) -> Result<Option<usize>, TapErrorKind> {
    for (i, &byte) in bytes.iter().enumerate() {
        match byte {
            b'\n' if line.is_empty() => {}
            b'\n' if line.last() == Some(&b'\r') => {
                line.pop();
                return Ok(Some(i + 1));
            }
            _ if line.len() >= LINE_BYTES_MAX => return Err(unexpected(line)),
            _ => line.push(byte),
        }
    }
    Ok(None)
}

/// Finds the mark by Horspool's method: it compares at every 40th byte or so,
/// since few bytes of an RDB are hexadecimal digits.
#[derive(Debug)]
struct MarkFinder {
    mark: [u8; MARK_BYTES],
    /// By last byte of a window: how far the next window may be.
    shifts: [u8; 256],
    /// The last bytes before what comes next, fewer than the mark has.
    carry: Vec<u8>,
}

const CARRY_BYTES: usize = MARK_BYTES - 1;

impl MarkFinder {
    fn new(mark: [u8; MARK_BYTES]) -> Self {
        let mut shifts = [MARK_BYTES as u8; 256];
        let mut shift = MARK_BYTES as u8;
        for &byte in mark.iter().take(CARRY_BYTES) {
            shift -= 1;
            if let Some(slot) = shifts.get_mut(usize::from(byte)) {
                *slot = shift;
            }
        }
        Self {
            mark,
            shifts,
            carry: Vec::with_capacity(2 * CARRY_BYTES),
        }
    }

    /// Where in `bytes` the mark's last byte is, plus one.
    fn feed(&mut self, bytes: &[u8]) -> Option<usize> {
        let before = self.carry.len();
        let first = bytes.get(..CARRY_BYTES).unwrap_or(bytes);
        self.carry.extend_from_slice(first);
        if let Some(end) = self.find(&self.carry) {
            return Some(end - before);
        }
        if let Some(end) = self.find(bytes) {
            return Some(end);
        }
        match bytes.len().checked_sub(CARRY_BYTES) {
            Some(from) => {
                self.carry.clear();
                self.carry
                    .extend_from_slice(bytes.get(from..).unwrap_or_default());
            }
            None => {
                let surplus = self.carry.len().saturating_sub(CARRY_BYTES);
                self.carry.drain(..surplus);
            }
        }
        None
    }

    fn find(&self, bytes: &[u8]) -> Option<usize> {
        let mut end = MARK_BYTES;
        while let Some(window) = bytes.get(end - MARK_BYTES..end) {
            if window == self.mark {
                return Some(end);
            }
            let last = window.last().copied().unwrap_or_default();
            end += usize::from(self.shifts.get(usize::from(last)).copied().unwrap_or(1));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: &[u8; MARK_BYTES] = b"0f1e2d3c4b5a69788796a5b4c3d2e1f0abcdef99";

    /// Feeds the pieces; answers all bytes of the snapshot.
    fn snapshot_bytes<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<usize> {
        let (mut watch, mut all) = (FrameWatch::new(), 0);
        for piece in pieces {
            let fed = watch.feed(piece).unwrap();
            all += fed.bytes;
            if fed.ended {
                return Some(all);
            }
        }
        None
    }

    #[test]
    fn the_end_is_found_whatever_the_cuts() {
        // Starts of the mark before it, and the mark's tail after the end.
        let near = [&MARK[..16], &MARK[..39], b"x", &MARK[..], &MARK[8..]].concat();
        let diskless = [b"\n\n$EOF:", &MARK[..], b"\r\n", &near].concat();
        let disk = [b"\n$96\r\n", &near[..96], b"*1\r\n$4\r\nPING\r\n"].concat();
        for (wire, end) in [(&diskless, diskless.len() - 32), (&disk, 6 + 96)] {
            assert_eq!(snapshot_bytes([&wire[..]]), Some(end));
            assert_eq!(snapshot_bytes(wire.chunks(1)), Some(end));
            assert_eq!(snapshot_bytes(wire.chunks(7)), Some(end));
            for cut in 0..wire.len() {
                let (first, second) = wire.split_at(cut);
                assert_eq!(snapshot_bytes([first, second]), Some(end), "cut at {cut}");
            }
            assert_eq!(snapshot_bytes([&wire[..end - 1]]), None);
        }
    }

    #[test]
    fn a_frame_of_nothing_ends_at_once() {
        assert_eq!(snapshot_bytes([&b"$0\r\n*1"[..]]), Some(4));
    }

    #[test]
    fn an_abort_and_other_lines_are_errors() {
        let error = |line: &[u8]| FrameWatch::new().feed(line).unwrap_err();
        assert!(
            matches!(error(b"-ERR gone\r\n"), TapErrorKind::Aborted(text) if text == "ERR gone")
        );
        assert!(matches!(
            error(b"+OK\r\n"),
            TapErrorKind::UnexpectedAnswer(_)
        ));
        assert!(matches!(
            error(&[b'$'; 5000]),
            TapErrorKind::UnexpectedAnswer(_)
        ));
    }
}
