//! The parsed table and its index.
//!
//! A name is folded to lower case in three registers and looked up in a small
//! open-addressed index: this runs once per request of every client, within a
//! budget of a few nanoseconds.
//!
//! ```text
//! "HGETALL" -> | hgetall\0 | 0 | 0 | --multiply--> slot -> index[slot] -> folded[i] equal? -> commands[i]
//! ```

use super::Command;
use super::flags::CommandFlags;
use super::handling::Handling;
use super::keys::Quirk;
use super::keyspec::{BeginSearch, FindKeys, KeySpec};
use super::original::Takes;
use std::sync::OnceLock;

const NAME_BYTES_MAX: usize = 24;
const SLOTS: usize = 1024;
const EMPTY: u16 = u16::MAX;

/// A name of at most [`NAME_BYTES_MAX`] bytes in lower case, zero padded, with
/// its length: a name with a zero byte in it must not equal a shorter one.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Folded {
    words: [u64; 3],
    length: usize,
}

/// All commands, and where each name is.
pub(super) struct Table {
    commands: Vec<Command>,
    folded: Vec<Folded>,
    index: Box<[u16; SLOTS]>,
}

static TABLE: OnceLock<Table> = OnceLock::new();

/// The one table, parsed on first use.
#[inline]
pub(super) fn table() -> &'static Table {
    TABLE.get_or_init(|| Table::new(parse(include_str!("commands.tsv"))))
}

impl Table {
    fn new(commands: Vec<Command>) -> Self {
        let folded: Vec<Folded> = commands
            .iter()
            .filter_map(|command| Folded::new(command.name.as_bytes()))
            .collect();
        assert!(
            folded.len() == commands.len() && commands.len() < SLOTS / 2,
            "commands.tsv outgrew its index"
        );
        let mut index = Box::new([EMPTY; SLOTS]);
        for (position, name) in (0u16..).zip(&folded) {
            let mut slot = name.slot();
            while index[slot] != EMPTY {
                slot = (slot + 1) % SLOTS;
            }
            index[slot] = position;
        }
        Self {
            commands,
            folded,
            index,
        }
    }

    pub(super) fn commands(&self) -> &[Command] {
        &self.commands
    }

    #[inline]
    pub(super) fn find(&self, name: &[u8]) -> Option<&Command> {
        let wanted = Folded::new(name)?;
        let mut slot = wanted.slot();
        // Ends: less than half of the slots are taken.
        loop {
            let position = usize::from(self.index[slot]);
            if *self.folded.get(position)? == wanted {
                return self.commands.get(position);
            }
            slot = (slot + 1) % SLOTS;
        }
    }
}

impl Folded {
    #[inline]
    fn new(name: &[u8]) -> Option<Self> {
        let length = name.len();
        let (first, rest) = name.split_at(length.min(8));
        let mut words = [lower(load(first)), 0, 0];
        if length > 8 {
            if length > NAME_BYTES_MAX {
                return None;
            }
            let (second, third) = rest.split_at(rest.len().min(8));
            words[1] = lower(load(second));
            words[2] = lower(load(third));
        }
        Some(Self { words, length })
    }

    #[inline]
    fn slot(&self) -> usize {
        let [a, b, c] = self.words;
        let mixed = (a ^ b.rotate_left(23) ^ c.rotate_left(47)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 54) as usize % SLOTS
    }
}

/// Up to eight bytes, little-endian, zero padded; read as two overlapping
/// halves, which avoids a call to copy memory of unknown length.
#[inline]
fn load(bytes: &[u8]) -> u64 {
    let length = bytes.len();
    if let Some(eight) = bytes.first_chunk::<8>() {
        return u64::from_le_bytes(*eight);
    }
    if let (Some(head), Some(tail)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let tail = u64::from(u32::from_le_bytes(*tail));
        return u64::from(u32::from_le_bytes(*head)) | tail << (8 * (length - 4));
    }
    bytes
        .iter()
        .rev()
        .fold(0, |word, byte| word << 8 | u64::from(*byte))
}

/// Sets bit 5 of every byte that is 'A'..='Z', eight at a time.
#[inline]
fn lower(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    let low_bits = word & !HIGH;
    let from_a = low_bits + (0x80 - b'A' as u64) * ONES;
    let above_z = low_bits + (0x7f - b'Z' as u64) * ONES;
    let upper = (from_a ^ above_z) & !word & HIGH;
    word | upper >> 2
}

/// Parses `commands.tsv`: subcommand lines follow their container's line.
fn parse(text: &'static str) -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.starts_with('#') {
            continue;
        }
        let command = parse_line(line);
        #[expect(clippy::panic, reason = "compiled-in data, parsed by a test")]
        let Some(command) = command else {
            panic!("commands.tsv:{number}: not understood: {line}");
        };
        match (command.name.contains('|'), commands.last_mut()) {
            (true, Some(container)) => container.subcommands.push(command),
            _ => commands.push(command),
        }
    }
    commands
}

fn parse_line(line: &'static str) -> Option<Command> {
    let mut fields = line.split('\t');
    let (name, arity, since) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?);
    let flags = CommandFlags::parse(fields.next()?)?;
    let specs = match fields.next()? {
        "-" => Vec::new(),
        specs => specs
            .split(';')
            .map(KeySpec::parse)
            .collect::<Option<Vec<_>>>()?,
    };
    let key_specs = || specs.iter().filter(|spec| !spec.is_not_key());
    let has_keys = key_specs().next().is_some();
    let writes = flags.contains(CommandFlags::WRITE)
        || !flags.contains(CommandFlags::READONLY) && key_specs().any(|spec| spec.access.writes);
    let handling = Handling::of(name, flags, has_keys);
    let fast_key = if handling == Handling::Forward {
        fast_key(&specs, arity)
    } else {
        0
    };
    Some(Command {
        name,
        arity,
        flags,
        since,
        quirk: Quirk::of(name),
        subcommands: Vec::new(),
        specs,
        handling,
        fast_key,
        writes,
        original: Takes::of(name),
    })
}

/// The position of the one fixed key that every request of right arity has, or 0.
fn fast_key(specs: &[KeySpec], arity: i32) -> u8 {
    match specs {
        [
            KeySpec {
                begin: BeginSearch::Index(index),
                find: FindKeys::Range { last: 0, .. },
                incomplete: false,
                ..
            },
        ] if *index < arity.unsigned_abs() as usize => u8::try_from(*index).unwrap_or(0),
        _ => 0,
    }
}
