//! The command stream: commands, databases, transactions, offsets. No I/O.
//!
//! Every byte counts into the offset, whatever it is; the first byte has
//! offset + 1. SELECT, PING and REPLCONF are taken in here, MULTI and EXEC
//! become the two ends of a unit, all else is handed on.

use bytes::{Buf, BytesMut};

use super::error::TapErrorKind;
use super::event::{StreamCommand, TapEvent};
use crate::resp::{Request, RequestLimits, RequestScanner};

/// What a source may send: it took these commands itself, so the bounds only
/// keep a broken stream from filling memory.
const LIMITS: RequestLimits = RequestLimits {
    request_bytes_max: u32::MAX as usize,
    args_max: 16 * 1024 * 1024,
    inline_bytes_max: 64 * 1024,
    bulk_bytes_max: u32::MAX as usize,
    takes_inline: true,
};

/// What a look at the buffer gave.
#[derive(Debug, PartialEq)]
pub(super) enum Progress {
    Event(TapEvent),
    /// REPLCONF GETACK: the source wants an ACK now.
    AckWanted,
    NeedsBytes,
}

/// The stream after a snapshot, or after +CONTINUE.
#[derive(Debug)]
pub(super) struct CommandStream {
    scanner: RequestScanner,
    offset: u64,
    db: u32,
    in_transaction: bool,
    /// Newlines before the first command are keepalives and do not count.
    started: bool,
    /// Something was taken in that no event told of.
    untold: bool,
}

/// What a command means to the tap itself.
enum Meaning {
    Data,
    Nothing,
    GetAck,
    Select(Option<u32>),
    Multi,
    Exec,
}

impl CommandStream {
    /// A stream whose next byte has `offset` + 1.
    pub(super) fn new(offset: u64, db: u32) -> Self {
        Self {
            scanner: RequestScanner::new(LIMITS),
            offset,
            db,
            in_transaction: false,
            started: false,
            untold: false,
        }
    }

    /// Takes from the buffer what makes one event.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Progress, TapErrorKind> {
        loop {
            if !self.started {
                let keepalives = buffer.iter().take_while(|&&byte| byte == b'\n').count();
                buffer.advance(keepalives);
                self.started = !buffer.is_empty();
            }
            // Inline commands are for people; a source sends arrays.
            match buffer.first() {
                Some(b'*') => {}
                Some(&byte) => {
                    return Err(TapErrorKind::NotACommand {
                        offset: self.offset,
                        byte,
                    });
                }
                None => return Ok(self.drained()),
            }
            let offset = self.offset;
            let found = self
                .scanner
                .scan(buffer)
                .map_err(|error| TapErrorKind::Stream { offset, error })?;
            let Some(request) = found else {
                return Ok(self.drained());
            };
            let consumed = request.consumed;
            let meaning = meaning_of(&request);
            if let Meaning::Data = meaning {
                let args = request.args.to_vec();
                self.offset += consumed as u64;
                self.untold = false;
                return Ok(Progress::Event(TapEvent::Command(StreamCommand {
                    db: self.db,
                    offset_end: self.offset,
                    in_transaction: self.in_transaction,
                    bytes: buffer.split_to(consumed).freeze(),
                    args,
                })));
            }
            buffer.advance(consumed);
            if let Some(progress) = self.take_in(&meaning, consumed)? {
                return Ok(progress);
            }
        }
    }

    /// A command of ours: it moves the offset, and perhaps more.
    fn take_in(
        &mut self,
        meaning: &Meaning,
        consumed: usize,
    ) -> Result<Option<Progress>, TapErrorKind> {
        let offset_before = self.offset;
        let misplaced = |command| TapErrorKind::Misplaced {
            offset: offset_before,
            command,
        };
        self.offset += consumed as u64;
        let offset_end = self.offset;
        self.untold = true;
        match meaning {
            Meaning::Nothing | Meaning::Data => Ok(None),
            Meaning::GetAck => Ok(Some(Progress::AckWanted)),
            Meaning::Select(db) => {
                self.db = db.ok_or_else(|| misplaced("SELECT without a database"))?;
                Ok(None)
            }
            Meaning::Multi if self.in_transaction => Err(misplaced("MULTI inside MULTI")),
            Meaning::Multi => {
                self.in_transaction = true;
                self.untold = false;
                Ok(Some(Progress::Event(TapEvent::TransactionBegin {
                    offset_end,
                })))
            }
            Meaning::Exec if !self.in_transaction => Err(misplaced("EXEC without MULTI")),
            Meaning::Exec => {
                self.in_transaction = false;
                self.untold = false;
                let db = self.db;
                Ok(Some(Progress::Event(TapEvent::TransactionEnd {
                    offset_end,
                    db,
                })))
            }
        }
    }

    fn drained(&mut self) -> Progress {
        if self.untold && !self.in_transaction {
            self.untold = false;
            return Progress::Event(TapEvent::Idle {
                offset: self.offset,
                db: self.db,
            });
        }
        Progress::NeedsBytes
    }
}

fn meaning_of(request: &Request<'_>) -> Meaning {
    let name = request.arg(0);
    let is = |word: &[u8]| name.eq_ignore_ascii_case(word);
    match name.len() {
        // `*0`: bytes that mean nothing, but count.
        0 if request.is_empty() => Meaning::Nothing,
        4 if is(b"PING") => Meaning::Nothing,
        4 if is(b"EXEC") => Meaning::Exec,
        5 if is(b"MULTI") => Meaning::Multi,
        6 if is(b"SELECT") => {
            let db = std::str::from_utf8(request.arg(1))
                .ok()
                .and_then(|text| text.parse().ok());
            Meaning::Select(db)
        }
        8 if is(b"REPLCONF") && request.arg(1).eq_ignore_ascii_case(b"GETACK") => Meaning::GetAck,
        // Some vendors send REPLCONF lines of their own.
        8 if is(b"REPLCONF") => Meaning::Nothing,
        _ => Meaning::Data,
    }
}

#[cfg(test)]
mod tests;
