//! What XREAD and XREADGROUP are told.

use std::ops::Range;

use crate::store::commands::Waits;
use crate::store::commands::args::Args;
use crate::store::commands::failure::Failure;

/// For whom is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    pub(super) group: &'a [u8],
    pub(super) consumer: &'a [u8],
    /// What is given is acknowledged with that.
    pub(super) acknowledges: bool,
}

/// The words before the ids.
#[derive(Debug)]
pub(super) struct Query<'a> {
    /// Numbers of the arguments that are keys; as many ids follow.
    pub(super) keys: Range<usize>,
    /// Entries of each stream.
    pub(super) count: Option<usize>,
    /// Ms to wait; 0 for ever.
    pub(super) block_ms: Option<u64>,
    /// For XREADGROUP.
    pub(super) reader: Option<Reader<'a>>,
}

const GROUP_OF_XREAD: Failure = Failure::words(
    "ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead.",
);
const NOACK_OF_XREAD: Failure = Failure::words(
    "ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.",
);
const UNBALANCED: Failure = Failure::words(
    "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.",
);

impl<'a> Query<'a> {
    /// Reads them. `is_for_group`: for XREADGROUP.
    pub(super) fn parse(
        args: Args<'a>,
        is_for_group: bool,
        waits: Waits<'_>,
    ) -> Result<Self, Failure> {
        let (mut count, mut block_ms, mut names) = (None, None, None);
        let mut acknowledges = false;
        let mut keys = None;
        let mut at = 1;
        while at < args.len() && keys.is_none() {
            let behind = args.len() - at - 1;
            if args.is(at, "BLOCK") && behind >= 1 {
                if waits == Waits::NeverInScript {
                    let after = " command is not allowed with BLOCK option from scripts";
                    return Err(Failure::quoting("ERR ", args.at(0), after));
                }
                block_ms = Some(block(args, at + 1)?);
                at += 2;
            } else if args.is(at, "COUNT") && behind >= 1 {
                let given = usize::try_from(args.integer(at + 1)?);
                count = given.ok().filter(|count| *count > 0);
                at += 2;
            } else if args.is(at, "STREAMS") && behind >= 1 {
                if !behind.is_multiple_of(2) {
                    return Err(UNBALANCED);
                }
                keys = Some(at + 1..at + 1 + behind / 2);
            } else if args.is(at, "GROUP") && behind >= 2 {
                if !is_for_group {
                    return Err(GROUP_OF_XREAD);
                }
                names = Some((args.at(at + 1), args.at(at + 2)));
                at += 3;
            } else if args.is(at, "NOACK") {
                if !is_for_group {
                    return Err(NOACK_OF_XREAD);
                }
                acknowledges = true;
                at += 1;
            } else {
                return Err(Failure::SYNTAX);
            }
        }
        let keys = keys.ok_or(Failure::SYNTAX)?;
        if is_for_group && names.is_none() {
            return Err(Failure::words("ERR Missing GROUP option for XREADGROUP"));
        }
        let reader = names.map(|(group, consumer)| Reader {
            group,
            consumer,
            acknowledges,
        });
        Ok(Self {
            keys,
            count,
            block_ms,
            reader,
        })
    }

    /// Number of the argument that is the id for a key's.
    pub(super) fn id_of(&self, key: usize) -> usize {
        key + self.keys.len()
    }
}

fn block(args: Args<'_>, number: usize) -> Result<u64, Failure> {
    let ms = args
        .integer(number)
        .map_err(|_| Failure::words("ERR timeout is not an integer or out of range"))?;
    u64::try_from(ms).map_err(|_| Failure::words("ERR timeout is negative"))
}
