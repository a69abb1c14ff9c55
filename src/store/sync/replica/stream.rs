//! A master's stream, cut into whole units: one command, or MULTI to EXEC.
//!
//! A unit is applied and logged as one: a restart, a promotion and a replica of ours never
//! stand inside one.

use crate::resp::{ProtocolError, RequestLimits, RequestScanner};
use crate::store::commands::Args;
use crate::store::oplog::FRAME_BYTES_MAX;

/// A stream that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// It is no RESP.
    #[error("the master's stream is no requests: {0}")]
    Protocol(ProtocolError),
    /// A transaction does not end.
    #[error("a transaction in the master's stream is longer than {FRAME_BYTES_MAX} bytes")]
    Long,
}

/// One unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit<'a> {
    /// As it came.
    pub bytes: &'a [u8],
    /// The master wants to know how far we are.
    pub asks_ack: bool,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Stream {
    scanner: RequestScanner,
    buffer: Vec<u8>,
    /// Everything before was handed out.
    taken: usize,
    /// Everything before was scanned: whole requests.
    scanned: usize,
    is_in_transaction: bool,
}

impl Stream {
    /// At the beginning of a unit.
    pub fn new() -> Self {
        Self {
            scanner: RequestScanner::new(RequestLimits::default()),
            buffer: Vec::new(),
            taken: 0,
            scanned: 0,
            is_in_transaction: false,
        }
    }

    /// More came.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.scanned -= self.taken;
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next unit, if it is whole.
    ///
    /// # Errors
    /// [`StreamError`]; nothing may be taken from the stream after it.
    pub fn next_unit(&mut self) -> Result<Option<Unit<'_>>, StreamError> {
        loop {
            let rest = self.buffer.get(self.scanned..).unwrap_or(&[]);
            let scanned = self.scanner.scan(rest).map_err(StreamError::Protocol)?;
            let Some(request) = scanned else {
                if self.buffer.len() - self.taken > FRAME_BYTES_MAX {
                    return Err(StreamError::Long);
                }
                return Ok(None);
            };
            self.scanned += request.consumed;
            let mut asks_ack = false;
            if !request.is_empty() {
                let args = Args::new(request.bytes, request.args);
                if args.is(0, "MULTI") {
                    self.is_in_transaction = true;
                } else if args.is(0, "EXEC") {
                    self.is_in_transaction = false;
                }
                asks_ack = args.is(0, "REPLCONF") && args.is(1, "GETACK");
            }
            if !self.is_in_transaction {
                let from = std::mem::replace(&mut self.taken, self.scanned);
                return Ok(Some(Unit {
                    bytes: self.buffer.get(from..self.taken).unwrap_or(&[]),
                    asks_ack,
                }));
            }
        }
    }
}

impl Default for Stream {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::write_command;

    fn command(words: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        write_command(&mut bytes, &words);
        bytes
    }

    #[test]
    fn units_are_whole_wherever_the_bytes_are_cut() {
        let parts = [
            vec!["SELECT 1"],
            vec!["SET a 1"],
            vec!["MULTI", "SELECT 2", "SADD s 1 2", "EXEC"],
            vec!["REPLCONF GETACK *"],
            vec!["PING"],
        ];
        let units: Vec<Vec<u8>> = parts
            .iter()
            .map(|unit| unit.iter().flat_map(|words| command(words)).collect())
            .collect();
        let all = units.concat();
        for piece in [1, 7, all.len()] {
            let mut stream = Stream::new();
            let mut found = Vec::new();
            for bytes in all.chunks(piece) {
                stream.feed(bytes);
                while let Some(unit) = stream.next_unit().expect("a stream") {
                    found.push((unit.bytes.to_vec(), unit.asks_ack));
                }
            }
            let wanted = units.iter().cloned().enumerate();
            let wanted: Vec<_> = wanted.map(|(number, unit)| (unit, number == 3)).collect();
            assert_eq!(found, wanted, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_stream_is_told() {
        let mut stream = Stream::new();
        stream.feed(b"*1\r\n+OK\r\n");
        assert!(matches!(stream.next_unit(), Err(StreamError::Protocol(_))));
    }
}
