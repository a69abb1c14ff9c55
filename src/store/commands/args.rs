//! The arguments of one request.

use crate::resp::{RequestLimits, RequestScanner, Span};
use crate::store::format::numbers;
use crate::store::keyspace::DATABASES;

use super::failure::Failure;

/// Arguments by number; 0 is the command's name. What is not there is empty.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    bytes: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Args<'a> {
    /// A request as an array of bulk strings, and where its arguments are in it.
    pub fn new(bytes: &'a [u8], spans: &'a [Span]) -> Self {
        Self { bytes, spans }
    }

    /// The request as it came.
    pub fn request(self) -> &'a [u8] {
        self.bytes
    }

    /// How many there are, with the name.
    pub fn len(self) -> usize {
        self.spans.len()
    }

    /// Whether there is not even a name.
    pub fn is_empty(self) -> bool {
        self.spans.is_empty()
    }

    /// One argument; empty if there is none.
    pub fn at(self, number: usize) -> &'a [u8] {
        self.get(number).unwrap_or(&[])
    }

    /// One argument, if there is one.
    pub fn get(self, number: usize) -> Option<&'a [u8]> {
        self.spans.get(number).map(|span| span.of(self.bytes))
    }

    /// All from one on.
    pub fn from(
        self,
        first: usize,
    ) -> impl DoubleEndedIterator<Item = &'a [u8]> + ExactSizeIterator {
        let spans = self.spans.get(first..).unwrap_or(&[]);
        spans.iter().map(move |span| span.of(self.bytes))
    }

    /// Arguments from one on, as those of another request; [`Args::request`] is still the
    /// whole one.
    pub fn rest(self, first: usize) -> Self {
        Self {
            bytes: self.bytes,
            spans: self.spans.get(first..).unwrap_or(&[]),
        }
    }

    /// Whether an argument is a word, in any case of its letters.
    pub fn is(self, number: usize, word: &str) -> bool {
        self.at(number).eq_ignore_ascii_case(word.as_bytes())
    }

    /// An argument as an integer.
    ///
    /// # Errors
    /// [`Failure::NOT_INTEGER`].
    pub fn integer(self, number: usize) -> Result<i64, Failure> {
        numbers::parse_integer(self.at(number)).ok_or(Failure::NOT_INTEGER)
    }

    /// An argument as an integer of C's `int`.
    ///
    /// # Errors
    /// [`Failure`] with Redis' words.
    pub fn int(self, number: usize) -> Result<i32, Failure> {
        i32::try_from(self.integer(number)?).map_err(|_| {
            Failure::words(
                "ERR value is out of range, value must between -2147483648 and 2147483647",
            )
        })
    }

    /// An argument as a database's number.
    ///
    /// # Errors
    /// As [`Args::int`], and [`Failure::DATABASE`].
    pub fn database(self, number: usize) -> Result<usize, Failure> {
        let db = usize::try_from(self.int(number)?).ok();
        db.filter(|db| *db < DATABASES).ok_or(Failure::DATABASE)
    }

    /// An argument as a float.
    ///
    /// # Errors
    /// [`Failure::NOT_FLOAT`].
    pub fn float(self, number: usize) -> Result<f64, Failure> {
        numbers::parse_float(self.at(number)).ok_or(Failure::NOT_FLOAT)
    }
}

/// A request that outlives what it came in: queued by MULTI, waiting, or made by us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRequest {
    bytes: Box<[u8]>,
    spans: Box<[Span]>,
}

impl OwnedRequest {
    /// A copy.
    pub fn of(args: Args<'_>) -> Self {
        Self {
            bytes: args.bytes.into(),
            spans: args.spans.into(),
        }
    }

    /// One made of words. `None` for more words or bytes than a client may send.
    pub fn from_words(words: &[&[u8]]) -> Option<Self> {
        let mut bytes = Vec::new();
        crate::resp::write_command(&mut bytes, words);
        let mut scanner = RequestScanner::new(RequestLimits::default());
        let request = scanner.scan(&bytes).ok()??;
        let spans = request.args.into();
        Some(Self {
            spans,
            bytes: bytes.into_boxed_slice(),
        })
    }

    /// Its arguments.
    pub fn args(&self) -> Args<'_> {
        Args::new(&self.bytes, &self.spans)
    }

    /// Bytes it takes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it has no byte.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}
