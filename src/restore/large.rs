//! A value that comes in parts, built by commands as they come.
//!
//! ```text
//! Restorer::begin -> LargeValue --part*--> --last--> Outcome
//!                        |
//!                        '-- abandon: the temporary name is removed
//! ```
//!
//! Nothing is held between parts but the place in the value and one chunk.
//! Requests of one part are about as long as the part is when it is unpacked.

use crate::rdb::{Lost, PartDecoder, ValueType};

use super::commands::Builder;
use super::restorer::{CannotRestore, EMPTY, How, KeyHead, Outcome, Overwrite, Requests};

/// A value under way. Dropping it leaves what was built under its temporary
/// name: [`LargeValue::abandon`] removes it.
#[derive(Debug)]
#[must_use]
pub struct LargeValue {
    builder: Builder,
    decoder: PartDecoder,
    type_id: ValueType,
    key: Vec<u8>,
    expires_at_ms: Option<i64>,
    overwrite: Overwrite,
    /// What no command says about its key.
    lost: Lost,
}

impl LargeValue {
    pub(super) fn new(
        builder: Builder,
        head: &KeyHead<'_>,
        type_id: ValueType,
        lost: Lost,
        overwrite: Overwrite,
    ) -> LargeValue {
        LargeValue {
            builder,
            decoder: PartDecoder::new(type_id),
            type_id,
            key: head.key.to_vec(),
            expires_at_ms: head.expires_at_ms,
            overwrite,
            lost,
        }
    }

    /// The key's name.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Appends what adds one part that is not the last, as the scanner cut it.
    ///
    /// # Errors
    /// [`CannotRestore`]: the value can never be whole there. What was appended
    /// for this part may stay; [`LargeValue::abandon`] is due.
    pub fn part(&mut self, requests: &mut Requests<'_>, bytes: &[u8]) -> Result<(), CannotRestore> {
        self.decode(requests, bytes, Place::Within)
    }

    /// Appends what adds the last part, and gives the value its name.
    ///
    /// # Errors
    /// As [`LargeValue::part`]; the value is given back to be abandoned.
    pub fn last(
        mut self,
        requests: &mut Requests<'_>,
        bytes: &[u8],
    ) -> Result<Outcome, (CannotRestore, LargeValue)> {
        if let Err(error) = self.decode(requests, bytes, Place::Last) {
            return Err((error, self));
        }
        let named = self
            .builder
            .finish(requests, &self.key, self.expires_at_ms, self.overwrite);
        let Some(mut lost) = named else {
            return Ok(EMPTY);
        };
        lost.merge(self.lost);
        Ok(Outcome {
            how: How::Commands,
            lost,
        })
    }

    /// Appends what removes all that was built.
    pub fn abandon(self, requests: &mut Requests<'_>) {
        self.builder.clear(requests);
    }

    fn decode(
        &mut self,
        requests: &mut Requests<'_>,
        bytes: &[u8],
        place: Place,
    ) -> Result<(), CannotRestore> {
        let builder = &mut self.builder;
        self.decoder
            .decode(bytes, place == Place::Last, &mut |element| {
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

/// Where a part stands in its value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Within,
    Last,
}
