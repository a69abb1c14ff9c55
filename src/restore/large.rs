//! A value that comes in parts, built by commands as they come.
//!
//! ```text
//! Restorer::begin -> Held --too long--> Building --last part--> Outcome
//!    streams only ---' |                    |
//!                      '-- last: RESTORE    '-- abandon: the temporary name is removed
//! ```
//!
//! A stream is held up to `large_stream_bytes`, because only RESTORE keeps all
//! of one. Else nothing is held between parts but the place in the value and
//! one chunk. The requests of a part are about as long as the part is unpacked.

use crate::rdb::{PartDecoder, RawValue, ValueType};

use super::commands::Builder;
use super::restorer::{CannotRestore, EMPTY, How, KeyHead, Outcome, Requests, Restorer};

/// A value under way. Dropping it leaves what was built under its temporary
/// name: [`LargeValue::abandon`] removes it.
#[derive(Debug)]
#[must_use]
pub struct LargeValue {
    state: State,
    held_bytes_max: usize,
    builder: Builder,
    decoder: PartDecoder,
    type_id: ValueType,
    key: Vec<u8>,
    metadata: Option<Vec<u8>>,
    expires_at_ms: Option<i64>,
    idle_s: Option<u64>,
    freq: Option<u8>,
}

#[derive(Debug)]
enum State {
    /// All bytes so far; nothing was sent.
    Held(Vec<u8>),
    /// The temporary name was cleared, and every part went there.
    Building,
}

impl LargeValue {
    pub(super) fn new(
        builder: Builder,
        head: &KeyHead<'_>,
        type_id: ValueType,
        held_bytes_max: usize,
    ) -> LargeValue {
        LargeValue {
            state: State::Held(Vec::new()),
            held_bytes_max,
            builder,
            decoder: PartDecoder::new(type_id),
            type_id,
            key: head.key.to_vec(),
            metadata: head.metadata.map(<[u8]>::to_vec),
            expires_at_ms: head.expires_at_ms,
            idle_s: head.idle_s,
            freq: head.freq,
        }
    }

    /// The name that it has until it is whole.
    pub fn temporary(&self) -> &[u8] {
        self.builder.temporary()
    }

    /// The key's name.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Appends what adds one part, as the scanner cut it; with the `last` one
    /// the value gets its name, and the outcome is known.
    ///
    /// `restorer` is the one that began it. Nothing may follow the last part.
    ///
    /// # Errors
    /// [`CannotRestore`]: the value can never be whole there. What was appended
    /// for this part may stay; [`LargeValue::abandon`] is due.
    pub fn part(
        &mut self,
        restorer: &mut Restorer,
        requests: &mut Requests<'_>,
        bytes: &[u8],
        last: bool,
    ) -> Result<Option<Outcome>, CannotRestore> {
        if let State::Held(held) = &mut self.state {
            let mut held = std::mem::take(held);
            if held.len() + bytes.len() <= self.held_bytes_max {
                held.extend_from_slice(bytes);
                if last {
                    let value = RawValue {
                        type_id: self.type_id,
                        bytes: &held,
                    };
                    let outcome = restorer.at_once(requests, &self.head(), &value)?;
                    return Ok(Some(outcome));
                }
                self.state = State::Held(held);
                return Ok(None);
            }
            self.state = State::Building;
            self.builder.clear(requests);
            if !held.is_empty() {
                self.decode(requests, &held, false)?;
            }
        }
        self.decode(requests, bytes, last)?;
        if !last {
            self.builder.lease(requests);
            return Ok(None);
        }
        let named = self.builder.finish(
            requests,
            &self.key,
            self.expires_at_ms,
            restorer.overwrite(),
        );
        Ok(Some(match named {
            Some(lost) => restorer.outcome(How::Commands, &self.head(), lost),
            None => EMPTY,
        }))
    }

    /// Appends what removes all that was built.
    pub fn abandon(self, requests: &mut Requests<'_>) {
        if matches!(self.state, State::Building) {
            self.builder.clear(requests);
        }
    }

    fn head(&self) -> KeyHead<'_> {
        KeyHead {
            key: &self.key,
            expires_at_ms: self.expires_at_ms,
            idle_s: self.idle_s,
            freq: self.freq,
            metadata: self.metadata.as_deref(),
        }
    }

    fn decode(
        &mut self,
        requests: &mut Requests<'_>,
        bytes: &[u8],
        last: bool,
    ) -> Result<(), CannotRestore> {
        let builder = &mut self.builder;
        builder.expect(bytes.len());
        self.decoder.decode(bytes, last, &mut |element| {
            builder.element(requests, element);
        })?;
        match builder.unbuildable() {
            None => Ok(()),
            Some(why) => Err(CannotRestore::CannotHold {
                type_id: self.type_id,
                why,
            }),
        }
    }
}
