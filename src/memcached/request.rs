//! Finding a client's requests: a line, and the data it announces.
//!
//! ```text
//! set k 0 0 5 CR LF  h e l l o CR LF  get k CR LF
//! '---- line ----'   '--- data ----'
//! ```
//!
//! Invariants
//! - A scan that ran out of bytes goes on where it stopped: it looks at no byte
//!   of a line twice to find its end, and at none of the data but their CR LF.
//! - What is kept for a request is bounded: a line by [`LINE_BYTES_MAX`], one
//!   with many keys and one with data by the scanner's limit.

use super::asked::{Asked, Keyed, asked};
use super::line::Line;
use super::refusal::Refusal;

/// Longest line of a command other than `get` and `gets`.
pub const LINE_BYTES_MAX: usize = 2048;

/// Most blanks before the `get` of a longer line.
const BLANKS_MAX: usize = 100;

/// First byte of each request in the binary protocol.
const BINARY: u8 = 0x80;

const CRLF: usize = 2;

/// One whole request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Its line and data.
    pub bytes: &'a [u8],
    /// Length of its line, the end counted.
    pub line_bytes: usize,
    /// What it asks for.
    pub asked: Asked<'a>,
    /// Bytes that follow and are no request: data that are not wanted.
    pub skip: u64,
    /// Whether twemproxy takes it, too.
    pub in_original: bool,
}

impl<'a> Request<'a> {
    /// Its data and their CR LF.
    #[must_use]
    pub fn data(&self) -> &'a [u8] {
        self.bytes.get(self.line_bytes..).unwrap_or_default()
    }
}

/// A request whose line is here, and whose data are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started<'a> {
    /// What it asks for.
    pub keyed: Keyed<'a>,
    /// Its data that are here.
    pub data: &'a [u8],
    /// Bytes that are still to come.
    pub missing: u64,
    /// Bytes of all of it.
    pub total: usize,
}

/// See the head of this file.
#[derive(Debug)]
pub struct RequestScanner {
    request_bytes_max: usize,
    /// No LF is before this place.
    searched: usize,
    /// Nothing new is found in fewer bytes.
    need: usize,
}

impl RequestScanner {
    /// At the first byte of a request; none has more bytes than this.
    #[must_use]
    pub fn new(request_bytes_max: usize) -> Self {
        Self {
            request_bytes_max,
            searched: 0,
            need: 1,
        }
    }

    /// Forgets a partial request.
    pub fn reset(&mut self) {
        (self.searched, self.need) = (0, 1);
    }

    /// Finds the request `input` starts with; `None` if its end has not arrived.
    ///
    /// `input` starts at the first byte of a request; on a later call it holds
    /// the same bytes and more.
    ///
    /// # Errors
    /// After which nothing of the client can be understood.
    #[inline]
    pub fn scan<'a>(&mut self, input: &'a [u8]) -> Result<Option<Request<'a>>, Refusal> {
        if input.len() < self.need {
            return Ok(None);
        }
        let fresh = input.get(self.searched..).unwrap_or_default();
        let Some(found) = fresh.iter().position(|&byte| byte == b'\n') else {
            self.searched = input.len();
            return self.check_unfinished(input).map(|()| None);
        };
        let line_bytes = self.searched + found + 1;
        let request = self.request(input, line_bytes)?;
        if request.is_some() {
            self.reset();
        }
        Ok(request)
    }

    fn request<'a>(
        &mut self,
        input: &'a [u8],
        line_bytes: usize,
    ) -> Result<Option<Request<'a>>, Refusal> {
        let whole = input.get(..line_bytes).unwrap_or_default();
        self.check_line(whole)?;
        let line = Line::of(whole.strip_suffix(b"\n").unwrap_or(whole));
        let (asked, in_original) = asked(&line);
        let request = |bytes, asked, skip| Request {
            bytes,
            line_bytes,
            asked,
            skip,
            in_original: in_original && whole.ends_with(b"\r\n") && !line.is_cut,
        };
        let Asked::Keyed(Keyed {
            data: Some(data),
            quiet,
            ..
        }) = asked
        else {
            return Ok(Some(request(whole, asked, data_of_refused(&line, &asked))));
        };
        let refused = |refusal| Asked::Refused { refusal, quiet };
        let total = line_bytes.saturating_add(data).saturating_add(CRLF);
        if total > self.request_bytes_max {
            let skip = (data + CRLF) as u64;
            return Ok(Some(request(whole, refused(Refusal::TooLarge), skip)));
        }
        let Some(bytes) = input.get(..total) else {
            (self.searched, self.need) = (line_bytes - 1, total);
            return Ok(None);
        };
        Ok(Some(match bytes.ends_with(b"\r\n") {
            true => request(bytes, asked, 0),
            false => request(bytes, refused(Refusal::BadData), 0),
        }))
    }

    /// The request whose data the last scan did not find. `input` is what was
    /// scanned.
    #[must_use]
    pub fn started<'a>(&self, input: &'a [u8]) -> Option<Started<'a>> {
        let total = self.need;
        let line_bytes = self.searched + 1;
        let whole = input.get(..line_bytes).filter(|_| total > input.len())?;
        let line = Line::of(whole.strip_suffix(b"\n")?);
        match asked(&line).0 {
            Asked::Keyed(keyed) if keyed.data.is_some() => Some(Started {
                keyed,
                data: input.get(line_bytes..)?,
                missing: (total - input.len()) as u64,
                total,
            }),
            _ => None,
        }
    }

    /// A line whose end is not here.
    fn check_unfinished(&self, input: &[u8]) -> Result<(), Refusal> {
        if input.first() == Some(&BINARY) {
            return Err(Refusal::Binary);
        }
        self.check_line(input)
    }

    fn check_line(&self, line: &[u8]) -> Result<(), Refusal> {
        if line.len() <= LINE_BYTES_MAX {
            return match line.first() {
                Some(&BINARY) => Err(Refusal::Binary),
                _ => Ok(()),
            };
        }
        // As memcached has it: it closes the connection, which here is shared,
        // for any other line of which no end is among the first bytes.
        let blanks = line.iter().take_while(|&&byte| byte == b' ').count();
        let verb = line.get(blanks..).unwrap_or_default();
        let is_retrieval =
            blanks <= BLANKS_MAX && (verb.starts_with(b"get ") || verb.starts_with(b"gets "));
        match is_retrieval && line.len() <= self.request_bytes_max {
            true => Ok(()),
            false => Err(Refusal::LineTooLong),
        }
    }
}

/// Of a command that is not done and has data: they are no requests. (Of a line
/// that is wrong memcached takes them as such.)
fn data_of_refused(line: &Line<'_>, asked: &Asked<'_>) -> u64 {
    let is_meta_set = matches!(
        asked,
        Asked::Refused {
            refusal: Refusal::Unsupported("ms"),
            ..
        }
    );
    let data = is_meta_set.then(|| super::line::number(line.word(2), i32::MAX as u64));
    data.flatten().map_or(0, |data| data + CRLF as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 4096;

    fn scan(input: &[u8]) -> Result<Option<Request<'_>>, Refusal> {
        RequestScanner::new(MAX).scan(input)
    }

    #[test]
    fn data_belong_to_their_line() {
        let input = b"set k 1 0 5\r\na\r\nb\0\r\nget k\r\n";
        let request = scan(input).unwrap().unwrap();
        assert_eq!(request.bytes, &input[..20]);
        assert_eq!((request.data(), request.skip), (&b"a\r\nb\0\r\n"[..], 0));
        assert!(request.in_original);
        let bare = scan(b"set k 1 0 1\na\r\n").unwrap().unwrap();
        assert!(!bare.in_original && matches!(bare.asked, Asked::Keyed(_)));
    }

    #[test]
    fn data_that_end_elsewhere_and_data_that_are_too_large_are_refused() {
        let refusal = |input| match scan(input).unwrap().unwrap() {
            Request {
                asked: Asked::Refused { refusal, quiet },
                bytes,
                skip,
                ..
            } => (refusal, quiet, bytes.len(), skip),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            refusal(b"set k 0 0 1 noreply\r\nabc\r\n"),
            (Refusal::BadData, true, 24, 0)
        );
        assert_eq!(
            refusal(b"set k 0 0 4100\r\nabc"),
            (Refusal::TooLarge, false, 16, 4102)
        );
        assert_eq!(
            refusal(b"ms k 5 T0\r\nhello\r\n"),
            (Refusal::Unsupported("ms"), false, 11, 7)
        );
        assert_eq!(
            refusal(b"set k 0 0 x\r\n"),
            (Refusal::BadLine, false, 13, 0)
        );
    }

    #[test]
    fn lines_are_bounded_and_binary_requests_end_it() {
        assert_eq!(scan(b"\x80\0\0\x01"), Err(Refusal::Binary));
        let get = |bytes: usize| [b"get ", &vec![b'k'; bytes][..]].concat();
        assert_eq!(scan(&get(MAX)), Err(Refusal::LineTooLong));
        assert_eq!(scan(&get(MAX - 8)), Ok(None));
        let blank = [&[b' '; BLANKS_MAX + 1], &get(LINE_BYTES_MAX)[..]].concat();
        assert_eq!(scan(&blank), Err(Refusal::LineTooLong));
        assert_eq!(scan(&blank[1..]), Ok(None));
        let several = [b"gat 1 ", &[b'k'; LINE_BYTES_MAX][..]].concat();
        assert_eq!(scan(&several), Err(Refusal::LineTooLong));
        let other = [b"incr ", &[b'k'; LINE_BYTES_MAX][..]].concat();
        assert_eq!(scan(&other), Err(Refusal::LineTooLong));
        assert_eq!(
            scan(&[&other[..], b"\r\n"].concat()),
            Err(Refusal::LineTooLong)
        );
    }

    #[test]
    fn a_request_whose_line_is_here_tells_what_is_missing() {
        let mut scanner = RequestScanner::new(MAX);
        let input = b"set k 0 0 100 noreply\r\nabc";
        assert_eq!(scanner.scan(input), Ok(None));
        let started = scanner.started(input).unwrap();
        assert_eq!((started.data, started.missing), (&b"abc"[..], 99));
        assert_eq!((started.total, started.keyed.key), (125, &b"k"[..]));
        assert!(started.keyed.quiet);
        assert_eq!(scanner.started(b"get k"), None);
        let mut scanner = RequestScanner::new(MAX);
        assert_eq!(scanner.scan(b"set k 0 0 10"), Ok(None));
        assert_eq!(scanner.started(b"set k 0 0 10"), None);
    }
}
