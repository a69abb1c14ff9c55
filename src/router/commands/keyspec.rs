//! Key specifications: Redis's own description of where a command's keys are.
//! <https://redis.io/docs/latest/develop/reference/key-specs/>
//!
//! ```text
//! rw,access,delete @ index:2     @ keynum:0:1:1
//! what is done       where the     from there: how many, every which
//! to the keys        search starts argument, up to where
//! ```

/// One key specification of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeySpec {
    pub(super) access: KeyAccess,
    /// What `access` was made of: `rw,access,delete`.
    pub(super) flags: &'static str,
    /// Names a channel or slot holder, not a key.
    not_key: bool,
    /// Does not find all keys it stands for.
    pub(super) incomplete: bool,
    pub(super) begin: BeginSearch,
    pub(super) find: FindKeys,
}

/// What a command does to a key's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct KeyAccess {
    pub(super) reads: bool,
    pub(super) writes: bool,
}

/// Where the first key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BeginSearch {
    /// At this argument.
    Index(usize),
    /// Behind this word (lower case), looked for from `from` onwards; a negative
    /// `from` counts from the end.
    Keyword { word: &'static str, from: isize },
    /// Only code can tell.
    Unknown,
}

/// Which arguments from the first key on are keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FindKeys {
    /// `last` is relative to the first key, or to the end if negative; with a
    /// `limit` of n > 1 only the first n-th of the remaining arguments counts.
    Range {
        last: isize,
        step: usize,
        limit: usize,
    },
    /// Argument `number_at` (relative) holds how many; keys start at `first`.
    Counted {
        number_at: usize,
        first: usize,
        step: usize,
    },
    /// Only code can tell.
    Unknown,
}

impl KeySpec {
    /// True if what it finds is hashed like a key but is none (channels).
    pub(super) fn is_not_key(&self) -> bool {
        self.not_key
    }

    /// First key, last key and step, if they do not depend on the arguments.
    pub(super) fn fixed_range(&self) -> Option<(usize, isize, usize)> {
        match (&self.begin, &self.find) {
            (
                BeginSearch::Index(first),
                FindKeys::Range {
                    last,
                    step,
                    limit: 0 | 1,
                },
            ) => {
                let last = if *last < 0 {
                    *last
                } else {
                    last.checked_add_unsigned(*first)?
                };
                Some((*first, last, *step))
            }
            _ => None,
        }
    }

    /// Parses `flags@begin@find`; `None` if any part is not understood.
    pub(super) fn parse(text: &'static str) -> Option<Self> {
        let mut parts = text.split('@');
        let (flags, begin, find) = (parts.next()?, parts.next()?, parts.next()?);
        let mut spec = Self {
            access: KeyAccess::default(),
            flags,
            not_key: false,
            incomplete: false,
            begin: BeginSearch::parse(begin)?,
            find: FindKeys::parse(find)?,
        };
        for flag in flags.split(',') {
            match flag {
                "ro" => {
                    spec.access = KeyAccess {
                        reads: true,
                        writes: false,
                    }
                }
                "rw" => {
                    spec.access = KeyAccess {
                        reads: true,
                        writes: true,
                    }
                }
                "ow" | "rm" => {
                    spec.access = KeyAccess {
                        reads: false,
                        writes: true,
                    }
                }
                "not_key" => spec.not_key = true,
                "incomplete" => spec.incomplete = true,
                // What is done to the content, and that the arguments can make
                // it less than the flags say: the finer truth is in `quirks`.
                "access" | "insert" | "update" | "delete" | "variable_flags" => {}
                _ => return None,
            }
        }
        Some(spec)
    }
}

impl BeginSearch {
    fn parse(text: &'static str) -> Option<Self> {
        let mut parts = text.split(':');
        match parts.next()? {
            "index" => Some(Self::Index(parts.next()?.parse().ok()?)),
            "keyword" => Some(Self::Keyword {
                word: parts.next()?,
                from: parts.next()?.parse().ok()?,
            }),
            "unknown" => Some(Self::Unknown),
            _ => None,
        }
    }
}

impl FindKeys {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        match parts.next()? {
            "range" => Some(Self::Range {
                last: parts.next()?.parse().ok()?,
                step: parts.next()?.parse().ok()?,
                limit: parts.next()?.parse().ok()?,
            }),
            "keynum" => Some(Self::Counted {
                number_at: parts.next()?.parse().ok()?,
                first: parts.next()?.parse().ok()?,
                step: parts.next()?.parse().ok()?,
            }),
            "unknown" => Some(Self::Unknown),
            _ => None,
        }
    }
}
