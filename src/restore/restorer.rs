//! The restorer of one target: chooses per key, appends the requests.

use crate::rdb::{
    ConvertError, DecodeError, KeyRecord, LargeKey, Loss, Lost, Malformed, RawValue, ValueKind,
    ValueType, convert, declared_elements, decode,
};

use super::commands::{Builder, Naming, Unbuildable, remover};
use super::dialect::Dialect;
use super::identity::UsageKept;
use super::large::LargeValue;
use super::payload::{PAYLOAD_EXTRA_BYTES, RestoreCall, Usage, write_restore};
use super::reply::Reply;

/// Values of more bytes are built by commands, by default: a RESTORE stops its
/// server for as long as it loads.
pub const LARGE_VALUE_BYTES: usize = 512 * 1024;
/// Values of more elements are built by commands, by default.
pub const LARGE_VALUE_ELEMENTS: u64 = 8192;
/// Streams of more bytes are built by commands, by default. Servers load their
/// nodes as they are, not entry by entry; and only RESTORE keeps what is
/// pending of entries that were trimmed meanwhile.
pub const LARGE_STREAM_BYTES: usize = 4 * 1024 * 1024;
/// Redis's default `proto-max-bulk-len`: a longer bulk closes the connection.
const BULK_BYTES_MAX: usize = 512 * 1024 * 1024;
/// What all temporary names begin with; such keys are never anyone's data.
pub const TEMPORARY_PREFIX: &str = "__keyferry:tmp:";

/// Whether an existing key may be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// An existing key is kept; the verdict is [`super::Verdict::Exists`].
    Never,
    /// An existing key is replaced.
    Always,
}

/// How to restore, apart from what the target takes.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    /// What to do with a key that exists.
    pub overwrite: Overwrite,
    /// Values of more raw bytes are built by commands; 0: all are.
    pub large_bytes: usize,
    /// Values whose outermost loop turns more often are built by commands; 0: all are.
    pub large_elements: u64,
    /// Streams of more raw bytes are built by commands, whatever the other two
    /// say; 0: all are. So much of a stream in parts is held.
    pub large_stream_bytes: usize,
    /// Part of temporary names: unlike that of anyone who writes to the same
    /// server at the same time, such as the job's id and the source's number.
    pub tag: String,
}

impl RestoreOptions {
    /// Default budgets.
    pub fn new(overwrite: Overwrite, tag: impl Into<String>) -> RestoreOptions {
        RestoreOptions {
            overwrite,
            large_bytes: LARGE_VALUE_BYTES,
            large_elements: LARGE_VALUE_ELEMENTS,
            large_stream_bytes: LARGE_STREAM_BYTES,
            tag: tag.into(),
        }
    }

    /// Nothing by RESTORE but what has no commands.
    pub fn commands_only(overwrite: Overwrite, tag: impl Into<String>) -> RestoreOptions {
        RestoreOptions {
            large_bytes: 0,
            large_elements: 0,
            large_stream_bytes: 0,
            ..RestoreOptions::new(overwrite, tag)
        }
    }
}

/// A key without its value.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyHead<'a> {
    /// Its name.
    pub key: &'a [u8],
    /// When it expires, Unix time in ms.
    pub expires_at_ms: Option<i64>,
    /// Seconds since it was used, if known.
    pub idle_s: Option<u64>,
    /// Its logarithmic access frequency, if known.
    pub freq: Option<u8>,
    /// Its KEY_META record, opcode first.
    pub metadata: Option<&'a [u8]>,
}

impl<'a> KeyHead<'a> {
    /// That of a key of a snapshot.
    pub fn of(record: &'a KeyRecord<'_>) -> KeyHead<'a> {
        KeyHead {
            key: &record.key,
            expires_at_ms: record.expires_at_ms,
            idle_s: record.idle_s,
            freq: record.freq,
            metadata: record.metadata,
        }
    }

    /// That of a key whose value comes in parts.
    pub fn of_large(large: &'a LargeKey<'_>) -> KeyHead<'a> {
        KeyHead {
            key: &large.key,
            expires_at_ms: large.expires_at_ms,
            idle_s: large.idle_s,
            freq: large.freq,
            metadata: large.metadata,
        }
    }
}

/// Where requests are appended: their bytes, and for each how its reply is judged.
#[derive(Debug)]
pub struct Requests<'a> {
    /// Encoded requests, one after the other.
    pub bytes: &'a mut Vec<u8>,
    /// One for each request, in the order of the replies.
    pub replies: &'a mut Vec<Reply>,
}

/// How a value was brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// RESTORE of its bytes as they were.
    Raw,
    /// RESTORE of another layout.
    Converted(ValueType),
    /// Commands under a temporary name.
    Commands,
    /// It has no elements, which servers skip at loading: nothing was appended
    /// that makes a key.
    Empty,
}

/// What was appended for one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The way taken.
    pub how: How,
    /// What the target is not told. Replies may add to it
    /// ([`super::Verdict::DoneBut`]).
    pub lost: Lost,
}

/// Why a key cannot be brought to this target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CannotRestore {
    /// The target has no form for such a value, by RESTORE or by commands.
    #[error("the target cannot hold a value of type {type_id:?}: {why}")]
    CannotHold {
        /// The value's layout.
        type_id: ValueType,
        /// What stands in the way.
        why: Unbuildable,
    },
    /// Too long for one request, and only RESTORE makes it.
    #[error(
        "the DUMP payload of {bytes} bytes is longer than servers take in one bulk ({BULK_BYTES_MAX} bytes)"
    )]
    TooLong {
        /// Length of the payload.
        bytes: usize,
    },
    /// The value breaks its format.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

/// Makes the requests for one target.
#[derive(Debug)]
pub struct Restorer {
    dialect: Dialect,
    options: RestoreOptions,
    /// Bytes of a converted value; kept for the next.
    converted: Vec<u8>,
    /// Number of the next temporary name.
    next_temporary: u64,
}

impl Restorer {
    /// A restorer for the server that `dialect` describes.
    pub fn new(dialect: Dialect, options: RestoreOptions) -> Restorer {
        Restorer {
            dialect,
            options,
            converted: Vec::new(),
            next_temporary: 0,
        }
    }

    /// What its target takes.
    pub fn dialect(&self) -> &Dialect {
        &self.dialect
    }

    /// Appends what recreates a key whose value is whole.
    ///
    /// # Errors
    /// [`CannotRestore`]; nothing is appended then.
    pub fn whole(
        &mut self,
        requests: &mut Requests<'_>,
        head: &KeyHead<'_>,
        value: &RawValue<'_>,
    ) -> Result<Outcome, CannotRestore> {
        let count = declared_elements(value);
        if count == Some(0) {
            return Ok(EMPTY);
        }
        let buildable = || Builder::check(&self.dialect, value.type_id).is_ok();
        if self.is_large(value, count) && buildable() {
            return self.commands(requests, head, value);
        }
        self.at_once(requests, head, value)
    }

    fn is_large(&self, value: &RawValue<'_>, count: Option<u64>) -> bool {
        let options = &self.options;
        if value.type_id.kind() == ValueKind::Stream {
            return value.bytes.len() > options.large_stream_bytes;
        }
        value.bytes.len() > options.large_bytes
            || count.is_some_and(|count| count > options.large_elements)
    }

    /// Appends the RESTORE of a value in the first layout that the target
    /// reads; its commands if there is none.
    pub(super) fn at_once(
        &mut self,
        requests: &mut Requests<'_>,
        head: &KeyHead<'_>,
        value: &RawValue<'_>,
    ) -> Result<Outcome, CannotRestore> {
        let type_id = value.type_id;
        match self.dialect.layout_for(type_id) {
            Some(layout) if layout == type_id => {
                self.restore(requests, head, value)?;
                Ok(self.outcome(How::Raw, head, Lost::default()))
            }
            Some(layout) => self.converted(requests, head, value, layout),
            None => {
                Builder::check(&self.dialect, type_id)
                    .map_err(|why| CannotRestore::CannotHold { type_id, why })?;
                self.commands(requests, head, value)
            }
        }
    }

    /// Begins a value that comes in parts.
    ///
    /// # Errors
    /// [`CannotRestore::CannotHold`] where no commands make such a value.
    pub fn begin(
        &mut self,
        head: &KeyHead<'_>,
        type_id: ValueType,
    ) -> Result<LargeValue, CannotRestore> {
        Builder::check(&self.dialect, type_id)
            .map_err(|why| CannotRestore::CannotHold { type_id, why })?;
        let is_stream = type_id.kind() == ValueKind::Stream;
        let held_bytes_max = if is_stream && self.dialect.layout_for(type_id).is_some() {
            self.options.large_stream_bytes
        } else {
            0
        };
        let builder = Builder::new(self.dialect, self.temporary());
        Ok(LargeValue::new(builder, head, type_id, held_bytes_max))
    }

    /// What to do with keys that exist from now on; what was done before.
    pub fn set_overwrite(&mut self, overwrite: Overwrite) -> Overwrite {
        std::mem::replace(&mut self.options.overwrite, overwrite)
    }

    pub(super) fn overwrite(&self) -> Overwrite {
        self.options.overwrite
    }

    fn converted(
        &mut self,
        requests: &mut Requests<'_>,
        head: &KeyHead<'_>,
        value: &RawValue<'_>,
        layout: ValueType,
    ) -> Result<Outcome, CannotRestore> {
        // Lent out, so that `self` is free; given back with its capacity.
        let mut bytes = std::mem::take(&mut self.converted);
        bytes.clear();
        let converted = convert(&mut bytes, value, layout, CONVERTED_BYTES_MAX);
        let outcome = match converted {
            Ok(lost) => {
                let value = RawValue {
                    type_id: layout,
                    bytes: &bytes,
                };
                self.restore(requests, head, &value)
                    .map(|()| self.outcome(How::Converted(layout), head, lost))
            }
            Err(ConvertError::Malformed(error)) => Err(error.into()),
            Err(ConvertError::FieldsExpire(_)) => Err(CannotRestore::CannotHold {
                type_id: value.type_id,
                why: Unbuildable::FieldExpiry,
            }),
            // Packed much smaller than it is: by commands it is never whole anywhere.
            Err(ConvertError::TooLong(_) | ConvertError::NoWay { .. }) => {
                self.commands(requests, head, value)
            }
        };
        self.converted = bytes;
        outcome
    }

    /// Appends the RESTORE of a value in a layout that the target reads.
    fn restore(
        &mut self,
        requests: &mut Requests<'_>,
        head: &KeyHead<'_>,
        value: &RawValue<'_>,
    ) -> Result<(), CannotRestore> {
        if value.bytes.is_empty() {
            return Err(CannotRestore::Malformed(DecodeError {
                type_id: value.type_id,
                at: 0,
                what: Malformed::Truncated,
            }));
        }
        let metadata = head.metadata.filter(|_| self.dialect.metadata);
        let metadata = metadata.unwrap_or_default();
        let bytes = metadata.len() + value.bytes.len() + PAYLOAD_EXTRA_BYTES;
        if bytes > BULK_BYTES_MAX {
            return Err(CannotRestore::TooLong { bytes });
        }
        let mut call = RestoreCall {
            key: head.key,
            expires_at_ms: head.expires_at_ms,
            replace: self.options.overwrite == Overwrite::Always,
            usage: match self.dialect.usage_kept() {
                UsageKept::Neither => Usage::Untold,
                UsageKept::Idle => head.idle_s.map_or(Usage::Untold, Usage::IdleSeconds),
                UsageKept::Frequency => head.freq.map_or(Usage::Untold, Usage::Frequency),
            },
            metadata,
        };
        let absolute = head.expires_at_ms.is_none() || self.dialect.absttl;
        if absolute && (self.dialect.replace || !call.replace) {
            if write_restore(requests.bytes, &call, value) {
                requests.replies.push(Reply::Accepted);
            }
            return Ok(());
        }
        // An old server: the payload goes under a temporary name, and PEXPIREAT
        // sets the moment that RESTORE would take as a distance.
        let temporary = self.temporary();
        requests.command(&[remover(&self.dialect), &temporary]);
        call = RestoreCall {
            key: &temporary,
            expires_at_ms: None,
            replace: false,
            ..call
        };
        if write_restore(requests.bytes, &call, value) {
            requests.replies.push(Reply::Accepted);
        }
        Naming {
            temporary: &temporary,
            key: head.key,
            expires_at_ms: head.expires_at_ms,
            may_be_gone: false,
            leased: false,
        }
        .write(requests, &self.dialect, self.options.overwrite);
        Ok(())
    }

    fn commands(
        &mut self,
        requests: &mut Requests<'_>,
        head: &KeyHead<'_>,
        value: &RawValue<'_>,
    ) -> Result<Outcome, CannotRestore> {
        let (bytes, replies) = (requests.bytes.len(), requests.replies.len());
        let mut builder = Builder::new(self.dialect, self.temporary());
        builder.clear(requests);
        builder.expect(value.bytes.len());
        let decoded = decode(value, &mut |element| builder.element(requests, element));
        let why = builder.unbuildable();
        let named = match (decoded, why) {
            (Ok(()), None) => Ok(builder.finish(
                requests,
                head.key,
                head.expires_at_ms,
                self.options.overwrite,
            )),
            (Err(error), _) => Err(error.into()),
            (Ok(()), Some(why)) => Err(CannotRestore::CannotHold {
                type_id: value.type_id,
                why,
            }),
        };
        if !matches!(named, Ok(Some(_))) {
            requests.bytes.truncate(bytes);
            requests.replies.truncate(replies);
        }
        match named? {
            Some(lost) => Ok(self.outcome(How::Commands, head, lost)),
            None => Ok(EMPTY),
        }
    }

    pub(super) fn outcome(&self, how: How, head: &KeyHead<'_>, mut lost: Lost) -> Outcome {
        if how == How::Commands {
            lost.merge(lost_by_commands(&self.dialect, head));
        } else if head.metadata.is_some() && !self.dialect.metadata {
            lost.add(Loss::Metadata);
        }
        Outcome { how, lost }
    }

    fn temporary(&mut self) -> Vec<u8> {
        let number = self.next_temporary;
        self.next_temporary += 1;
        format!("{TEMPORARY_PREFIX}{}:{number}", self.options.tag).into_bytes()
    }
}

/// What no command says about a key.
fn lost_by_commands(dialect: &Dialect, head: &KeyHead<'_>) -> Lost {
    let mut lost = Lost::EMPTY;
    if head.metadata.is_some() {
        lost.add(Loss::Metadata);
    }
    let told = match dialect.usage_kept() {
        UsageKept::Neither => false,
        UsageKept::Idle => head.idle_s.is_some(),
        UsageKept::Frequency => head.freq.is_some(),
    };
    if told {
        lost.add(Loss::Usage);
    }
    lost
}

pub(super) const EMPTY: Outcome = Outcome {
    how: How::Empty,
    lost: Lost::EMPTY,
};

/// Longest value in another layout that is restored at once. It may be this
/// much longer than what it was made from, which LZF had packed.
const CONVERTED_BYTES_MAX: usize = 8 * 1024 * 1024;
