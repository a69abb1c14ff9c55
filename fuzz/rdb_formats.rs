//! Each inner format by itself. What is written from a recipe (by `written.rs`, in any
//! form the format has) is read back exactly, and refused once it is damaged. What is
//! read from any bytes is written again and reads the same. LZF is held against the
//! crate `lzf`, whose packing is not used: it panics where a text hardly shrinks. No
//! panic, and no more memory than `memory.rs` allows.
//!
//! ```text
//! | format 1, modulo 7 | how 1 | input |
//!   |                    |- bit 0: the input is a recipe, not a blob
//!   |                    |- bit 1: a blob gets its length, a recipe no count
//!   |                    |- bits 2-3: how a recipe's blob is damaged
//!   |                    |- bits 2-4: how far apart a text for LZF repeats
//!   |                    '- bits 5-7: a recipe again and again, 1 to 128 times
//!   '- listpack, ziplist, intset, zipmap, quicklist node, stream node, LZF
//! ```

#![no_main]

mod memory;
mod written;

use keyferry::rdb::{DecodeError, Element, RawValue, ValueType, decode};
use libfuzzer_sys::fuzz_target;
use memory::Meter;
use written::{Blob, Listpack, Recipe, Ziplist, Zipmap, intset, numbers};

/// Bytes of the longest recipe.
const RECIPE_BYTES_MAX: usize = 16 << 10;
/// No more is written behind so many.
const BLOB_BYTES_MAX: usize = 128 << 10;

#[derive(Clone, Copy, PartialEq)]
enum Format {
    Listpack,
    Ziplist,
    Intset,
    Zipmap,
    QuicklistNode,
    StreamNode,
    Lzf,
}

const FORMATS: [Format; 7] = [
    Format::Listpack,
    Format::Ziplist,
    Format::Intset,
    Format::Zipmap,
    Format::QuicklistNode,
    Format::StreamNode,
    Format::Lzf,
];

/// Of the node whose entries are told apart by their ids.
const MASTER: (u64, u64) = (1_700_000_000_000, 7);

/// Elements: texts one after the other; an entry of a stream is its id and fields.
type Texts = Vec<Vec<u8>>;

fn take(into: &mut Texts, element: Element<'_>) {
    match element {
        Element::String(text) | Element::ListItem(text) | Element::SetMember(text) => {
            into.push(text.to_vec());
        }
        Element::HashField { field, value, .. } => into.extend([field.to_vec(), value.to_vec()]),
        Element::StreamEntry { id, fields } => {
            into.push(format!("{id} {}", fields.len()).into_bytes());
            for (name, value) in fields {
                into.extend([name.to_vec(), value.to_vec()]);
            }
        }
        Element::StreamState { .. } => {}
        other => panic!("{other:?} in a value of this type"),
    }
}

fn string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(0x80);
    out.extend_from_slice(&(text.len() as u32).to_be_bytes());
    out.extend_from_slice(text);
}

/// The blob as the value that has nothing but it. `container` is of a quicklist's node.
fn value(format: Format, blob: &[u8], container: u8) -> (ValueType, Vec<u8>) {
    let mut bytes = Vec::new();
    let type_id = match format {
        Format::Listpack => ValueType::SetListpack,
        Format::Ziplist => ValueType::ListZiplist,
        Format::Intset => ValueType::SetIntset,
        Format::Zipmap => ValueType::HashZipmap,
        Format::QuicklistNode => {
            bytes.extend_from_slice(&[1, container & 0x3f]);
            ValueType::ListQuicklist2
        }
        Format::StreamNode => {
            bytes.push(1);
            let (ms, seq) = MASTER;
            string(&mut bytes, &[ms.to_be_bytes(), seq.to_be_bytes()].concat());
            ValueType::StreamListpacks
        }
        Format::Lzf => {
            bytes.extend_from_slice(blob);
            return (ValueType::String, bytes);
        }
    };
    string(&mut bytes, blob);
    if format == Format::StreamNode {
        // Length, last id, groups: none.
        bytes.extend_from_slice(&[0; 4]);
    }
    (type_id, bytes)
}

fn read(format: Format, blob: &[u8], container: u8) -> Result<Texts, DecodeError> {
    let (type_id, bytes) = value(format, blob, container);
    let value = RawValue {
        type_id,
        bytes: &bytes,
    };
    let mut meter = Meter::default();
    let sized = meter.of(|| decode(&value, &mut |_| {}));
    meter.check(bytes.len());
    let mut texts = Texts::new();
    let read = decode(&value, &mut |element| take(&mut texts, element));
    assert_eq!(sized, read);
    read.map(|()| texts)
}

const PLAIN: u8 = 1;
const PACKED: u8 = 2;

/// The elements again, each in one form that the format has for it.
fn write(format: Format, texts: &Texts) -> Blob {
    match format {
        Format::Listpack | Format::QuicklistNode => {
            let mut listpack = Listpack::default();
            texts.iter().for_each(|text| listpack.string(text));
            listpack.blob(true)
        }
        Format::Ziplist => {
            let mut ziplist = Ziplist::default();
            texts.iter().for_each(|text| ziplist.string(text));
            ziplist.blob(true)
        }
        Format::Intset => {
            let number = |text: &Vec<u8>| std::str::from_utf8(text).ok()?.parse().ok();
            let numbers: Option<Vec<i64>> = texts.iter().map(number).collect();
            intset(8, &numbers.expect("an intset has integers"))
        }
        Format::Zipmap => {
            let mut zipmap = Zipmap::default();
            for pair in texts.chunks(2) {
                zipmap.pair(&pair[0], &pair[1], 0);
            }
            zipmap.blob(true)
        }
        Format::StreamNode => write_node(texts),
        Format::Lzf => unreachable!("written by its own crate"),
    }
}

/// Live entries, each with names of its own.
fn write_node(texts: &Texts) -> Blob {
    let mut entries: Vec<(u64, u64, &[Vec<u8>])> = Vec::new();
    let mut rest = &texts[..];
    while let Some((head, behind)) = rest.split_first() {
        let head = std::str::from_utf8(head).expect("an id");
        let (id, fields) = head.split_once(' ').expect("and a count");
        let (ms, seq) = id.split_once('-').expect("two numbers");
        let number = |text: &str| text.parse::<u64>().expect("a number");
        let (fields, behind) = behind.split_at(2 * number(fields) as usize);
        entries.push((number(ms), number(seq), fields));
        rest = behind;
    }
    let mut listpack = Listpack::default();
    // Live, deleted, no names, the master entry's end.
    for number in [entries.len() as i64, 0, 0, 0] {
        listpack.integer(number);
    }
    for (ms, seq, fields) in entries {
        let deltas = [ms.wrapping_sub(MASTER.0), seq.wrapping_sub(MASTER.1)];
        listpack.integer(0);
        for delta in deltas {
            listpack.integer(delta as i64);
        }
        listpack.integer(fields.len() as i64 / 2);
        fields.iter().for_each(|text| listpack.string(text));
        listpack.integer(0);
    }
    listpack.blob(false)
}

/// Writes what the recipe says, and answers what is to be read from it.
fn cook(format: Format, how: u8, recipe: &mut Recipe<'_>) -> (Blob, Texts) {
    let is_counted = how & 2 == 0;
    let mut texts = Texts::new();
    let blob = match format {
        Format::Listpack | Format::QuicklistNode => {
            let mut listpack = Listpack::default();
            while !recipe.is_over() && listpack.len() < BLOB_BYTES_MAX {
                texts.push(listpack.any(recipe));
            }
            listpack.blob(is_counted)
        }
        Format::Ziplist => {
            let mut ziplist = Ziplist::default();
            while !recipe.is_over() && ziplist.len() < BLOB_BYTES_MAX {
                texts.push(ziplist.any(recipe));
            }
            ziplist.blob(is_counted)
        }
        Format::Intset => {
            let width = [2, 4, 8, 8][usize::from(recipe.byte() & 3)];
            let numbers = numbers(recipe, width);
            texts.extend(numbers.iter().map(|number| number.to_string().into_bytes()));
            intset(width, &numbers)
        }
        Format::Zipmap => {
            let mut zipmap = Zipmap::default();
            while !recipe.is_over() && zipmap.len() < BLOB_BYTES_MAX {
                let (field, value) = zipmap.any(recipe);
                texts.extend([field, value]);
            }
            zipmap.blob(is_counted)
        }
        Format::StreamNode => return cook_node(is_counted, recipe),
        Format::Lzf => unreachable!("has a way of its own"),
    };
    (blob, texts)
}

/// A node with names that entries may share, and entries that were deleted.
fn cook_node(is_counted: bool, recipe: &mut Recipe<'_>) -> (Blob, Texts) {
    let count = recipe.byte() % 5;
    // Read here to know where the entries begin; written where they belong.
    let (mut names, mut scratch) = (Recipe(recipe.0), Listpack::default());
    let shared: Texts = (0..count).map(|_| scratch.any(recipe)).collect();
    let shared_bytes: usize = shared.iter().map(Vec::len).sum();
    let plans_max = BLOB_BYTES_MAX / (shared_bytes + 16);
    let mut plans: Vec<[u8; 4]> = Vec::new();
    while !recipe.is_over() && plans.len() < plans_max {
        plans.push(recipe.array());
    }
    let is_deleted = |plan: &[u8; 4]| plan[0] & 1 != 0;
    let deleted = plans.iter().filter(|plan| is_deleted(plan)).count();

    let mut listpack = Listpack::default();
    listpack.integer((plans.len() - deleted) as i64);
    listpack.integer(deleted as i64);
    listpack.integer(i64::from(count));
    (0..count).for_each(|_| drop(listpack.any(&mut names)));
    listpack.integer(0);
    let mut texts = Texts::new();
    for plan in &plans {
        let [flags, ms, seq, fields] = *plan;
        let same = flags & 2 != 0;
        listpack.integer(i64::from(flags & 3));
        let (ms, seq) = (i64::from(ms as i8), i64::from(seq as i8));
        listpack.integer(ms);
        listpack.integer(seq);
        let own: Texts = (0..fields % 4).map(|n| vec![b'f', n]).collect();
        let names = if same { &shared } else { &own };
        if !same {
            listpack.integer(own.len() as i64);
        }
        let id = format!(
            "{}-{} {}",
            MASTER.0.wrapping_add_signed(ms),
            MASTER.1.wrapping_add_signed(seq),
            names.len()
        );
        let mut entry = vec![id.into_bytes()];
        for name in names {
            if !same {
                listpack.string(name);
            }
            listpack.string(&[fields]);
            entry.extend([name.clone(), vec![fields]]);
        }
        listpack.integer(0);
        if !is_deleted(plan) {
            texts.extend(entry);
        }
    }
    (listpack.blob(is_counted), texts)
}

/// The blob with one thing wrong; `None` if it cannot be told there.
fn damage(mut blob: Blob, how: u8) -> Option<Vec<u8>> {
    match how >> 2 & 3 {
        0 => drop(blob.bytes.pop()),
        1 => {
            blob.bytes.pop();
            blob.resize();
        }
        2 => {
            blob.bytes.push(0xff);
            blob.resize();
        }
        _ => {
            let count = &mut blob.bytes[blob.count_at..][..blob.count_bytes];
            // These say "not counted", or would after one more.
            if count.iter().all(|byte| *byte >= 0xfd) {
                return None;
            }
            count[0] ^= 1;
            if count.iter().all(|byte| *byte >= 0xfd) {
                return None;
            }
        }
    }
    Some(blob.bytes)
}

fn check_recipe(format: Format, how: u8, input: &[u8]) {
    let (blob, texts) = cook(format, how, &mut Recipe(input));
    let found = read(format, &blob.bytes, PACKED);
    // Not `assert_eq`: the lists would fill screens. The input makes them again.
    if let Err(error) = &found {
        panic!("{} bytes are refused: {error:?}", blob.bytes.len());
    }
    assert!(found.is_ok_and(|found| found == texts), "other elements");
    if format == Format::QuicklistNode {
        let node = read(format, &blob.bytes, PLAIN);
        assert_eq!(node, Ok(vec![blob.bytes.clone()]));
        let other = how >> 2;
        if !matches!(other, PLAIN | PACKED) {
            assert!(read(format, &blob.bytes, other).is_err());
        }
    }
    if let Some(damaged) = damage(blob, how) {
        assert!(read(format, &damaged, PACKED).is_err());
    }
}

fn check_blob(format: Format, how: u8, input: &[u8]) {
    let mut blob = input.to_vec();
    let is_sized = !matches!(format, Format::Intset | Format::Zipmap);
    if how & 2 != 0 && is_sized && blob.len() >= 4 {
        let len = blob.len() as u32;
        blob[..4].copy_from_slice(&len.to_le_bytes());
    }
    let Ok(texts) = read(format, &blob, PACKED) else {
        return;
    };
    let again = write(format, &texts);
    assert_eq!(read(format, &again.bytes, PACKED), Ok(texts));
    blob.pop();
    assert!(read(format, &blob, PACKED).is_err());
}

/// A string packed by LZF, as it stands in a file.
fn packed(packed: &[u8], unpacked: usize) -> Vec<u8> {
    let mut bytes = vec![0xc3];
    for number in [packed.len(), unpacked] {
        bytes.push(0x80);
        bytes.extend_from_slice(&(number as u32).to_be_bytes());
    }
    [&bytes[..], packed].concat()
}

fn unpack(bytes: &[u8], unpacked: usize) -> Option<Vec<u8>> {
    let texts = read(Format::Lzf, &packed(bytes, unpacked), 0).ok()?;
    let [text] = <[Vec<u8>; 1]>::try_from(texts).expect("one string");
    Some(text)
}

/// The input twice, with what does not repeat between; LZF looks back 8 KiB.
fn far_apart(how: u8, input: &[u8]) -> Vec<u8> {
    let between = usize::from(how >> 2 & 7) * 1_200;
    let mut state = 1u32;
    let noise = (0..between).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    let noise: Vec<u8> = noise.collect();
    [input, &noise, input].concat()
}

fn check_lzf(how: u8, input: &[u8]) {
    if how & 1 != 0 {
        let text = far_apart(how, input);
        let (bytes, len) = (written::lzf(&text), text.len());
        if len > 0 {
            let theirs = lzf::decompress(&bytes, len).expect("it is sound");
            assert!(theirs == text, "it is packed as it should be");
            assert_eq!(unpack(&bytes, len - 1), None);
        }
        assert_eq!(unpack(&bytes, len + 1), None);
        assert!(unpack(&bytes, len) == Some(text));
        return;
    }
    let [low, high, bytes @ ..] = input else {
        return;
    };
    let unpacked = usize::from(u16::from_le_bytes([*low, *high]));
    let theirs = match bytes {
        // No server writes it; there it is damage, here nothing made of nothing.
        [] => Some(Vec::new()),
        bytes => lzf::decompress(bytes, unpacked).ok(),
    };
    // They take less than was declared, too.
    let theirs = theirs.filter(|text| text.len() == unpacked);
    assert_eq!(unpack(bytes, unpacked), theirs);
}

fuzz_target!(|data: &[u8]| {
    let [format, how, input @ ..] = data else {
        return;
    };
    let format = FORMATS[usize::from(*format) % FORMATS.len()];
    let mut longer = Vec::new();
    let mut input = input;
    if how & 1 != 0 && how >> 5 != 0 && !input.is_empty() {
        let times = (RECIPE_BYTES_MAX / input.len()).min(1 << (how >> 5));
        longer.extend_from_slice(&input.repeat(times));
        input = &longer;
    }
    match (format, how & 1) {
        (Format::Lzf, _) => check_lzf(*how, input),
        (format, 0) => check_blob(format, *how, input),
        (format, _) => check_recipe(format, *how, input),
    }
});
