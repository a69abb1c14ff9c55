//! Finding the keys of a request, as Redis finds them (`getKeysUsingKeySpecs`
//! and the native functions beside it in Redis 7's `src/db.c`): by the key
//! specs of the table, except for the few commands whose specs do not tell all.

use super::keyspec::{BeginSearch, FindKeys, KeyAccess, KeySpec};
use super::{Command, CommandFlags};
use crate::resp::{Request, Span};

/// The arguments of a request, the command's name first.
pub trait ArgList {
    /// Number of arguments.
    fn len(&self) -> usize;
    /// Argument `index`; empty if there is none.
    fn arg(&self, index: usize) -> &[u8];
    /// True if there is no argument at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T: AsRef<[u8]>> ArgList for [T] {
    fn len(&self) -> usize {
        <[T]>::len(self)
    }

    fn arg(&self, index: usize) -> &[u8] {
        self.get(index).map_or(&[], AsRef::as_ref)
    }
}

impl<T: AsRef<[u8]>> ArgList for Vec<T> {
    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn arg(&self, index: usize) -> &[u8] {
        self.as_slice().arg(index)
    }
}

impl ArgList for Request<'_> {
    #[inline]
    fn len(&self) -> usize {
        self.args.len()
    }

    #[inline]
    fn arg(&self, index: usize) -> &[u8] {
        Request::arg(self, index)
    }
}

/// Arguments as spans of a command's bytes, wherever these are kept.
#[derive(Debug, Clone, Copy)]
pub struct SpannedArgs<'a> {
    /// The whole command.
    pub bytes: &'a [u8],
    /// Its arguments, as offsets into `bytes`.
    pub spans: &'a [Span],
}

impl ArgList for SpannedArgs<'_> {
    fn len(&self) -> usize {
        self.spans.len()
    }

    fn arg(&self, index: usize) -> &[u8] {
        self.spans
            .get(index)
            .map_or(&[], |span| span.of(self.bytes))
    }
}

/// One key of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyArg {
    /// Which argument it is.
    pub index: u32,
    /// The command may change or delete it.
    pub writes: bool,
    /// The command looks at its value.
    pub reads: bool,
}

/// Why a request has no keys to route by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No request of this command has keys.
    #[error("The command has no key arguments")]
    NoKeys,
    /// The arguments do not fit the command: a number of keys that is none or
    /// too large, an option without its value.
    #[error("Invalid arguments specified for command")]
    Invalid,
}

/// Commands whose keys the specs alone do not give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quirk {
    None,
    Sort,
    SortReadOnly,
    Migrate,
    Set,
    Bitfield,
}

impl Quirk {
    pub(super) fn of(name: &str) -> Self {
        match name {
            "sort" => Self::Sort,
            "sort_ro" => Self::SortReadOnly,
            "migrate" => Self::Migrate,
            "set" => Self::Set,
            "bitfield" => Self::Bitfield,
            _ => Self::None,
        }
    }
}

const READ: KeyAccess = KeyAccess {
    reads: true,
    writes: false,
};
const REPLACE: KeyAccess = KeyAccess {
    reads: false,
    writes: true,
};
const CHANGE: KeyAccess = KeyAccess {
    reads: true,
    writes: true,
};

impl Command {
    /// Puts the positions of all keys of a request into `out`, which is emptied
    /// first. `args` must have passed [`Command::arity_ok`]; a script that
    /// declares no keys gives none and is no error.
    ///
    /// # Errors
    /// [`KeyError`]; `out` is empty then.
    pub fn keys(
        &self,
        args: &(impl ArgList + ?Sized),
        out: &mut Vec<KeyArg>,
    ) -> Result<(), KeyError> {
        out.clear();
        if !self.has_keys() {
            return Err(KeyError::NoKeys);
        }
        let found = match self.quirk {
            Quirk::None => self.keys_by_specs(args, out),
            Quirk::Sort => sort_keys(args, out),
            Quirk::SortReadOnly => push(out, 1, READ),
            Quirk::Migrate => migrate_keys(args, out),
            Quirk::Set => push(out, 1, set_access(args)),
            Quirk::Bitfield => push(out, 1, bitfield_access(args)),
        };
        found.inspect_err(|_| out.clear())
    }

    /// As [`Command::keys`], each key with what is done to it, as COMMAND
    /// GETKEYSANDFLAGS tells it: `rw,access,delete`.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn keys_and_flags(
        &self,
        args: &(impl ArgList + ?Sized),
    ) -> Result<Vec<(KeyArg, &'static str)>, KeyError> {
        let mut keys = Vec::new();
        self.keys(args, &mut keys)?;
        if self.quirk != Quirk::None {
            let told = keys.into_iter().map(|key| {
                let flags = match (key.reads, key.writes) {
                    (true, true) => "rw,access,update",
                    (false, true) => "ow,update",
                    (_, false) => "ro,access",
                };
                (key, flags)
            });
            return Ok(told.collect());
        }
        let mut told = Vec::with_capacity(keys.len());
        for spec in self.specs.iter().filter(|spec| !spec.is_not_key()) {
            keys.clear();
            spec_keys(spec, args, &mut keys)?;
            told.extend(keys.iter().map(|key| (*key, spec.flags)));
        }
        Ok(told)
    }

    fn keys_by_specs(
        &self,
        args: &(impl ArgList + ?Sized),
        out: &mut Vec<KeyArg>,
    ) -> Result<(), KeyError> {
        for spec in self.specs.iter().filter(|spec| !spec.is_not_key()) {
            spec_keys(spec, args, out)?;
        }
        if out.is_empty() && !self.flags.contains(CommandFlags::NO_MANDATORY_KEYS) {
            return Err(KeyError::Invalid);
        }
        Ok(())
    }
}

fn push(out: &mut Vec<KeyArg>, index: usize, access: KeyAccess) -> Result<(), KeyError> {
    let index = u32::try_from(index).map_err(|_| KeyError::Invalid)?;
    out.push(KeyArg {
        index,
        writes: access.writes,
        reads: access.reads,
    });
    Ok(())
}

fn spec_keys(
    spec: &KeySpec,
    args: &(impl ArgList + ?Sized),
    out: &mut Vec<KeyArg>,
) -> Result<(), KeyError> {
    let begin = match &spec.begin {
        BeginSearch::Index(index) => *index,
        BeginSearch::Keyword { word, from } => match find_word(args, word, *from) {
            Some(at) if at + 1 < args.len() => at + 1,
            // No option, no key; without its value it is a syntax error, which
            // the server words better.
            _ => return Ok(()),
        },
        BeginSearch::Unknown => return Err(KeyError::Invalid),
    };
    let (first, last, step) = match spec.find {
        FindKeys::Range { last, step, limit } => {
            (begin, range_end(begin, last, limit, args.len())?, step)
        }
        FindKeys::Counted {
            number_at,
            first,
            step,
        } => {
            let count = key_count(args.arg(begin + number_at))?;
            if count == 0 {
                // A script without keys; anything else is caught by the caller.
                out.clear();
                return Ok(());
            }
            let first = begin + first;
            let last = (count - 1)
                .checked_mul(step)
                .and_then(|span| span.checked_add(first));
            (first, last.ok_or(KeyError::Invalid)?, step)
        }
        FindKeys::Unknown => return Err(KeyError::Invalid),
    };
    if step == 0 || last < first || last >= args.len() || spec.incomplete {
        return Err(KeyError::Invalid);
    }
    (first..=last)
        .step_by(step)
        .try_for_each(|index| push(out, index, spec.access))
}

fn range_end(begin: usize, last: isize, limit: usize, count: usize) -> Result<usize, KeyError> {
    let end = if last >= 0 {
        begin.checked_add_signed(last)
    } else if limit <= 1 {
        count.checked_add_signed(last)
    } else {
        let part = count.checked_sub(begin).ok_or(KeyError::Invalid)? / limit;
        (begin + part).checked_add_signed(last)
    };
    end.ok_or(KeyError::Invalid)
}

fn find_word(args: &(impl ArgList + ?Sized), word: &str, from: isize) -> Option<usize> {
    let is_word = |index: &usize| args.arg(*index).eq_ignore_ascii_case(word.as_bytes());
    if from >= 0 {
        (from.unsigned_abs()..args.len()).find(is_word)
    } else {
        let start = args.len().checked_add_signed(from)?;
        (1..=start).rev().find(is_word)
    }
}

/// A number of keys as Redis's `string2ll` takes it: no sign but '-', no
/// leading zeros, nothing around it.
fn key_count(text: &[u8]) -> Result<usize, KeyError> {
    let plain = text == b"0"
        || text
            .first()
            .is_some_and(|first| (b'1'..=b'9').contains(first));
    if !plain {
        return Err(KeyError::Invalid);
    }
    str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(KeyError::Invalid)
}

/// Option words with the number of values that follow them.
type Options = [(&'static [u8], usize)];

fn values_of(options: &Options, word: &[u8]) -> usize {
    options
        .iter()
        .find(|(option, _)| option.eq_ignore_ascii_case(word))
        .map_or(0, |(_, values)| *values)
}

/// `SORT key [BY p] [LIMIT o n] [GET p]... [STORE destination]`; the last STORE
/// counts. Keys made from the BY and GET patterns are nobody's to know.
fn sort_keys(args: &(impl ArgList + ?Sized), out: &mut Vec<KeyArg>) -> Result<(), KeyError> {
    push(out, 1, READ)?;
    let mut store = None;
    let mut index = 2;
    while index < args.len() {
        let word = args.arg(index);
        if word.eq_ignore_ascii_case(b"store") && index + 1 < args.len() {
            store = Some(index + 1);
        }
        index += 1 + values_of(
            &[(b"limit", 2), (b"get", 1), (b"by", 1), (b"store", 1)],
            word,
        );
    }
    store.map_or(Ok(()), |index| push(out, index, REPLACE))
}

/// `MIGRATE host port key|"" db timeout [COPY] [REPLACE] [AUTH p|AUTH2 u p] [KEYS key...]`
fn migrate_keys(args: &(impl ArgList + ?Sized), out: &mut Vec<KeyArg>) -> Result<(), KeyError> {
    let mut index = 6;
    while index < args.len() {
        let word = args.arg(index);
        if word.eq_ignore_ascii_case(b"keys") {
            if !args.arg(3).is_empty() {
                return Err(KeyError::Invalid);
            }
            return (index + 1..args.len()).try_for_each(|index| push(out, index, CHANGE));
        }
        index += 1 + values_of(&[(b"auth", 1), (b"auth2", 2)], word);
    }
    push(out, 3, CHANGE)
}

/// SET only replaces, unless GET asks for the old value.
fn set_access(args: &(impl ArgList + ?Sized)) -> KeyAccess {
    let gets = (3..args.len()).any(|index| args.arg(index).eq_ignore_ascii_case(b"get"));
    if gets { CHANGE } else { REPLACE }
}

/// BITFIELD only reads if all its operations are GET; what is no operation at
/// all counts as a write.
fn bitfield_access(args: &(impl ArgList + ?Sized)) -> KeyAccess {
    let mut index = 2;
    while index < args.len() {
        let values = match args.arg(index) {
            word if word.eq_ignore_ascii_case(b"get") => 2,
            word if word.eq_ignore_ascii_case(b"overflow") => 1,
            _ => return CHANGE,
        };
        index += 1 + values;
    }
    if index == args.len() { READ } else { CHANGE }
}
