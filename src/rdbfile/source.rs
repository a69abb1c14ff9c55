//! A file or a pipe -> records of an RDB, through one buffer.
//!
//! ```text
//!   buffer: | handed on | record at hand ..... | free |
//!                       ^ start                ^ end
//! ```
//!
//! The buffer grows only while a record is longer than it, up to
//! [`ScannerLimits::record_bytes_max`], and never by a length that is merely
//! declared: it doubles as bytes arrive.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::rdb::{Record, ScanError, Scanner, ScannerLimits};

/// Read at a time, and the smallest buffer.
const READ_BYTES: usize = 256 * 1024;

/// A buffer that a long record has grown beyond this is given back after it.
const RETAINED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How far a scan is, for whoever shows progress meanwhile.
#[derive(Debug, Default)]
pub struct Meter {
    bytes: AtomicU64,
    keys: AtomicU64,
}

impl Meter {
    /// Bytes of the file whose records were handed on.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Keys handed on.
    pub fn keys(&self) -> u64 {
        self.keys.load(Ordering::Relaxed)
    }
}

/// Why a file was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system could not read it.
    #[error("byte {offset} of the file cannot be read: {cause}")]
    Read {
        /// Where, counted from the file's first byte.
        offset: u64,
        /// What the system said.
        cause: io::Error,
    },
    /// It is damaged, cut off, or beyond us.
    #[error(transparent)]
    Scan(#[from] ScanError),
}

/// Why a scan was stopped before the file's end.
#[derive(Debug)]
pub enum Stopped<E> {
    /// By the file.
    File(FileError),
    /// By who takes the records.
    Taker(E),
}

/// Hands each record of `input` to `take`, in order, and returns the bytes
/// that were read but lie behind the file's end.
///
/// # Errors
/// [`Stopped::File`] for a file that cannot be read on, [`Stopped::Taker`] for
/// the first error of `take`.
pub fn scan<E>(
    input: &mut impl Read,
    limits: ScannerLimits,
    meter: &Meter,
    take: &mut impl FnMut(&Record<'_>) -> Result<(), E>,
) -> Result<usize, Stopped<E>> {
    let mut scanner = Scanner::new(limits);
    let mut buffer = Buffer::default();
    let mut keys = 0;
    loop {
        let held = buffer.held();
        let event = scanner
            .next(held)
            .map_err(|error| Stopped::File(error.into()))?;
        let Some(event) = event else {
            meter.bytes.store(scanner.offset(), Ordering::Relaxed);
            meter.keys.store(keys, Ordering::Relaxed);
            let read = buffer.fill(input);
            let offset = scanner.offset() + buffer.held().len() as u64;
            match read {
                Ok(0) => return Err(Stopped::File(scanner.cut_off(buffer.held()).into())),
                Ok(_) => continue,
                Err(cause) => return Err(Stopped::File(FileError::Read { offset, cause })),
            }
        };
        keys += u64::from(matches!(event.record, Record::Key(_) | Record::LargeKey(_)));
        let ends = matches!(event.record, Record::End { .. });
        take(&event.record).map_err(Stopped::Taker)?;
        let consumed = event.consumed;
        buffer.consume(consumed);
        if ends {
            meter.bytes.store(scanner.offset(), Ordering::Relaxed);
            meter.keys.store(keys, Ordering::Relaxed);
            return Ok(buffer.held().len());
        }
    }
}

#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn held(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or(&[])
    }

    fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Reads once; 0 at the end of the input.
    fn fill(&mut self, input: &mut impl Read) -> io::Result<usize> {
        self.make_room();
        loop {
            let room = self.bytes.get_mut(self.end..).unwrap_or(&mut []);
            match input.read(room) {
                Ok(count) => {
                    self.end += count;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn make_room(&mut self) {
        let held = self.end - self.start;
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, held);
        if held < READ_BYTES && self.bytes.len() > RETAINED_BYTES_MAX {
            self.bytes.truncate(READ_BYTES.max(held));
            self.bytes.shrink_to_fit();
        }
        if self.bytes.len() - held < READ_BYTES {
            // Twice what is held, so that a long record is moved a few times only.
            self.bytes.resize((2 * held).max(2 * READ_BYTES), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rdb::ScanErrorKind;

    /// Gives one byte at a time, and an interruption before each.
    struct Dribble<'a>(&'a [u8], bool);

    impl Read for Dribble<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let Some((&first, rest)) = self.0.split_first() else {
                return Ok(0);
            };
            buffer[0] = first;
            self.0 = rest;
            Ok(1)
        }
    }

    fn file(value_bytes: usize) -> Vec<u8> {
        let mut file = b"REDIS0011\xfe\x00\x00\x01k\x80".to_vec();
        file.extend_from_slice(&u32::try_from(value_bytes).unwrap().to_be_bytes());
        file.extend(std::iter::repeat_n(b'v', value_bytes));
        file.extend_from_slice(b"\xff\0\0\0\0\0\0\0\0");
        file
    }

    fn keys(input: &mut impl Read) -> Result<(usize, usize, u64), Stopped<()>> {
        let mut sizes = 0;
        let meter = Meter::default();
        let behind = scan(input, ScannerLimits::default(), &meter, &mut |record| {
            if let Record::Key(key) = record {
                sizes += key.value.bytes.len();
            }
            Ok(())
        })?;
        assert_eq!(meter.keys(), 1);
        Ok((sizes, behind, meter.bytes()))
    }

    #[test]
    fn records_longer_than_the_buffer_and_bytes_behind_the_end() {
        for size in [1, 3 * READ_BYTES, 7 * READ_BYTES + 1] {
            let mut file = file(size);
            let len = file.len() as u64;
            file.extend_from_slice(b"EOF");
            assert_eq!(keys(&mut &file[..]).unwrap(), (size + 5, 3, len));
        }
        assert_eq!(keys(&mut Dribble(&file(9), false)).unwrap().0, 14);
    }

    #[test]
    fn a_file_that_is_cut_off_says_where() {
        let file = file(100);
        for cut in 0..file.len() {
            match keys(&mut &file[..cut]) {
                Err(Stopped::File(FileError::Scan(error))) => {
                    assert_eq!(error.kind, ScanErrorKind::CutOff);
                    assert_eq!(error.offset, cut as u64);
                    assert_eq!(error.last_key, if cut < 14 { &b""[..] } else { b"k" });
                }
                other => panic!("{cut}: {other:?}"),
            }
        }
    }
}
