//! Streams in the layout of an older server: parts are copied or left out.
//!
//! ```text
//!              15   19   21   26   27
//! counters           x    x    x    x     after the last id; entries read of groups
//! active time             x    x    x     of consumers
//! released                          x     ids of a group that no consumer owns
//! producers                    x    x     what they sent, at the end
//! ```
//!
//! Loaders that check a payload refuse pending entries without an owner, so
//! they go with the list that explains them.

use super::super::decode::DecodeError;
use super::super::reader::{Malformed, Reader, string_extent};
use super::super::value_type::{RawValue, ValueType};
use super::lost::{Loss, Lost};
use super::{ConvertError, write};

/// Bytes of an id and of the delivery time behind it.
const ID_BYTES: usize = 16;
const TIME_BYTES: usize = 8;

/// Which parts a layout has.
#[derive(Clone, Copy)]
struct Parts {
    counters: bool,
    active_times: bool,
    released: bool,
    producers: bool,
}

fn parts(type_id: ValueType) -> Option<Parts> {
    let step = match type_id {
        ValueType::StreamListpacks => 1,
        ValueType::StreamListpacks2 => 2,
        ValueType::StreamListpacks3 => 3,
        ValueType::StreamListpacks4 => 4,
        ValueType::StreamListpacks5 => 5,
        _ => return None,
    };
    Some(Parts {
        counters: step >= 2,
        active_times: step >= 3,
        producers: step >= 4,
        released: step >= 5,
    })
}

pub(super) fn is_stream(type_id: ValueType) -> bool {
    parts(type_id).is_some()
}

pub(super) fn rewrite(
    out: &mut Vec<u8>,
    value: &RawValue<'_>,
    to: ValueType,
) -> Result<Lost, ConvertError> {
    let from = value.type_id;
    let (Some(has), Some(keeps)) = (parts(from), parts(to)) else {
        return Err(ConvertError::NoWay { from, to });
    };
    let mut rewriter = Rewriter {
        reader: Reader::new(value.bytes),
        input: value.bytes,
        out,
        has,
        keeps,
        lost: Lost::default(),
        pending: Vec::new(),
    };
    match rewriter.stream() {
        Ok(()) => Ok(rewriter.lost),
        Err(what) => Err(ConvertError::Malformed(DecodeError {
            type_id: from,
            at: rewriter.reader.position(),
            what,
        })),
    }
}

/// One entry of a group's pending list: its id and where its bytes lie.
struct Pending {
    id: [u8; ID_BYTES],
    from: usize,
    to: usize,
    owned: bool,
}

struct Rewriter<'a, 'o> {
    reader: Reader<'a>,
    input: &'a [u8],
    out: &'o mut Vec<u8>,
    has: Parts,
    keeps: Parts,
    lost: Lost,
    /// Of the group at hand; reused.
    pending: Vec<Pending>,
}

impl Rewriter<'_, '_> {
    fn stream(&mut self) -> Result<(), Malformed> {
        for _ in 0..self.copied_number()? {
            self.copied_string()?;
            self.copied_string()?;
        }
        // Length, and the last id as two numbers.
        for _ in 0..3 {
            self.copied_number()?;
        }
        if self.has.counters {
            for _ in 0..5 {
                let number = self.reader.number()?;
                self.counter(number);
            }
        }
        for _ in 0..self.copied_number()? {
            self.group()?;
        }
        if self.has.producers {
            self.producers()?;
        }
        self.reader.finish()
    }

    /// What is remembered of producers; the settings alone are no loss.
    fn producers(&mut self) -> Result<(), Malformed> {
        let kept = self.out.len();
        self.copied_number()?;
        self.copied_number()?;
        let producers = self.copied_number()?;
        for _ in 0..producers {
            self.copied_string()?;
            for _ in 0..self.copied_number()? {
                self.copied_string()?;
                self.copied_number()?;
                self.copied_number()?;
            }
        }
        self.copied_number()?;
        self.copied_number()?;
        if !self.keeps.producers {
            self.out.truncate(kept);
            if producers > 0 {
                self.lost.add(Loss::StreamProducers);
            }
        }
        Ok(())
    }

    fn counter(&mut self, number: u64) {
        if self.keeps.counters {
            write::length(self.out, number);
        } else {
            self.lost.add(Loss::StreamCounters);
        }
    }

    fn group(&mut self) -> Result<(), Malformed> {
        self.copied_string()?;
        self.copied_number()?;
        self.copied_number()?;
        if self.has.counters {
            let entries_read = self.reader.number()?;
            self.counter(entries_read);
        }
        self.read_pending()?;
        let consumers_at = self.reader.clone();
        self.mark_owned()?;
        // Behind the consumers: what nobody owns, which goes with its pending entries.
        if self.has.released {
            for _ in 0..self.reader.number()? {
                self.reader.take(ID_BYTES)?;
            }
        }
        let behind = std::mem::replace(&mut self.reader, consumers_at);
        self.write_pending();
        self.consumers()?;
        self.reader = behind;
        Ok(())
    }

    fn read_pending(&mut self) -> Result<(), Malformed> {
        self.pending.clear();
        for _ in 0..self.reader.number()? {
            let from = self.reader.position();
            let id = self.reader.array()?;
            self.reader.take(TIME_BYTES)?;
            self.reader.number()?;
            self.pending.push(Pending {
                id,
                from,
                to: self.reader.position(),
                owned: false,
            });
        }
        // Servers write them ascending; the search below depends on it.
        self.pending.sort_by_key(|entry| entry.id);
        Ok(())
    }

    /// Reads over the consumers and notes which pending entries they have.
    fn mark_owned(&mut self) -> Result<(), Malformed> {
        for _ in 0..self.reader.number()? {
            self.reader.string()?;
            self.reader.take(TIME_BYTES)?;
            if self.has.active_times {
                self.reader.take(TIME_BYTES)?;
            }
            for _ in 0..self.reader.number()? {
                let id: [u8; ID_BYTES] = self.reader.array()?;
                let found = self.pending.binary_search_by_key(&id, |entry| entry.id);
                let entry = found.ok().and_then(|at| self.pending.get_mut(at));
                entry
                    .ok_or(Malformed::Structure(
                        "a consumer's pending id is not its group's to give",
                    ))?
                    .owned = true;
            }
        }
        Ok(())
    }

    fn write_pending(&mut self) {
        let all = self.pending.len();
        self.pending.retain(|entry| entry.owned);
        if self.pending.len() < all {
            self.lost.add(Loss::StreamUnowned);
        }
        write::length(self.out, self.pending.len() as u64);
        for entry in &self.pending {
            let bytes = self.input.get(entry.from..entry.to).unwrap_or(&[]);
            self.out.extend_from_slice(bytes);
        }
    }

    fn consumers(&mut self) -> Result<(), Malformed> {
        for _ in 0..self.copied_number()? {
            self.copied_string()?;
            self.copied_bytes(TIME_BYTES)?;
            if self.has.active_times {
                let active_at = self.reader.take(TIME_BYTES)?;
                if self.keeps.active_times {
                    self.out.extend_from_slice(active_at);
                } else {
                    self.lost.add(Loss::StreamConsumerTimes);
                }
            }
            for _ in 0..self.copied_number()? {
                self.copied_bytes(ID_BYTES)?;
            }
        }
        Ok(())
    }

    fn copied_number(&mut self) -> Result<u64, Malformed> {
        let number = self.reader.number()?;
        write::length(self.out, number);
        Ok(number)
    }

    fn copied_bytes(&mut self, len: usize) -> Result<(), Malformed> {
        self.out.extend_from_slice(self.reader.take(len)?);
        Ok(())
    }

    /// A string in the form it has, packed or not.
    fn copied_string(&mut self) -> Result<(), Malformed> {
        let rest = self.input.get(self.reader.position()..).unwrap_or(&[]);
        let extent = string_extent(rest)?.ok_or(Malformed::Truncated)?;
        self.copied_bytes(extent)
    }
}
