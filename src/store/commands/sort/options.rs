//! What SORT is asked for.

use std::ops::Range;

use crate::store::commands::args::Args;
use crate::store::commands::failure::Failure;

/// See the head of this file.
pub(super) struct Options<'a> {
    pub(super) by: Option<&'a [u8]>,
    pub(super) gets: Vec<&'a [u8]>,
    pub(super) is_alpha: bool,
    pub(super) is_descending: bool,
    pub(super) store: Option<&'a [u8]>,
    first: i64,
    count: i64,
}

impl<'a> Options<'a> {
    pub(super) fn parse(args: Args<'a>, may_store: bool) -> Result<Self, Failure> {
        let mut options = Self {
            by: None,
            gets: Vec::new(),
            is_alpha: false,
            is_descending: false,
            store: None,
            first: 0,
            count: -1,
        };
        let mut number = 2;
        while number < args.len() {
            let others = args.len() - number - 1;
            let mut taken = 1;
            match args.at(number).to_ascii_uppercase().as_slice() {
                b"ASC" => options.is_descending = false,
                b"DESC" => options.is_descending = true,
                b"ALPHA" => options.is_alpha = true,
                b"LIMIT" if others >= 2 => {
                    options.first = args.integer(number + 1)?;
                    options.count = args.integer(number + 2)?;
                    taken = 3;
                }
                b"STORE" if may_store && others >= 1 => {
                    options.store = args.get(number + 1);
                    taken = 2;
                }
                b"BY" if others >= 1 => {
                    options.by = args.get(number + 1);
                    taken = 2;
                }
                b"GET" if others >= 1 => {
                    options.gets.extend(args.get(number + 1));
                    taken = 2;
                }
                _ => return Err(Failure::SYNTAX),
            }
            number += taken;
        }
        Ok(options)
    }

    /// BY something that names no key: the order stays.
    pub(super) fn is_unsorted(&self) -> bool {
        self.by.is_some_and(|by| !by.contains(&b'*'))
    }

    /// Which of so many elements are wanted.
    pub(super) fn range(&self, len: usize) -> Range<usize> {
        let bounded = |number: i64| {
            usize::try_from(number.max(0))
                .unwrap_or(usize::MAX)
                .min(len)
        };
        let from = bounded(self.first);
        let to = match self.count {
            ..0 => len,
            count => (from + bounded(count)).min(len),
        };
        from..to
    }
}
