//! Inner formats, written apart from the code that reads them: blobs with the
//! elements that are to be read from them. Drawn in `src/rdb`, one file a format.

use std::collections::HashMap;

/// What data say, byte by byte; behind their end all is 0.
pub struct Recipe<'a>(pub &'a [u8]);

impl<'a> Recipe<'a> {
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let taken = self.bytes(N);
        bytes[..taken.len()].copy_from_slice(taken);
        bytes
    }

    /// At most so many.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// One byte, up to `max` times; half of the lengths are near those where
    /// formats change.
    fn run(&mut self, max: usize) -> Vec<u8> {
        let [low, high, byte] = self.array();
        let len = if high < 0x80 {
            usize::from(u16::from_le_bytes([low, high]))
        } else {
            TURNS[usize::from(high) % TURNS.len()] + usize::from(low & 7) - 6
        };
        vec![byte; len % (max + 1)]
    }
}

/// Lengths of strings, and of entries with their heads, from which on one byte more
/// is spent somewhere.
const TURNS: [usize; 5] = [0x40, 0x80, 0xfe, 0x1000, 0x4000];

/// How far LZF looks back, and the longest copy it makes.
const LZF_BACK_MAX: usize = 1 << 13;
const LZF_COPY_MAX: usize = 264;

/// A text packed by LZF: copies of three bytes and more wherever there are any.
pub fn lzf(text: &[u8]) -> Vec<u8> {
    let (mut out, mut seen) = (Vec::new(), HashMap::<&[u8], usize>::new());
    let (mut at, mut literals) = (0, 0);
    while at < text.len() {
        let found = text
            .get(at..at + 3)
            .and_then(|three| seen.insert(three, at));
        let Some(from) = found.filter(|from| at - from <= LZF_BACK_MAX) else {
            at += 1;
            continue;
        };
        lzf_literals(&mut out, &text[literals..at]);
        let pairs = text[from..].iter().zip(&text[at..]).take(LZF_COPY_MAX);
        let len = pairs.take_while(|(before, here)| before == here).count();
        let back = at - from - 1;
        let high = (back >> 8) as u8;
        match len - 2 {
            short @ 1..=6 => out.push((short as u8) << 5 | high),
            long => out.extend_from_slice(&[7 << 5 | high, (long - 7) as u8]),
        }
        out.push(back as u8);
        at += len;
        literals = at;
    }
    lzf_literals(&mut out, &text[literals..]);
    out
}

fn lzf_literals(out: &mut Vec<u8>, text: &[u8]) {
    for run in text.chunks(32) {
        out.push(run.len() as u8 - 1);
        out.extend_from_slice(run);
    }
}

/// A blob that counts its elements in a field of its own.
pub struct Blob {
    pub bytes: Vec<u8>,
    /// Where the count is, and how many bytes it has.
    pub count_at: usize,
    pub count_bytes: usize,
    /// The blob begins with its own length.
    pub is_sized: bool,
}

impl Blob {
    /// Makes the length in front right again.
    pub fn resize(&mut self) {
        if self.is_sized {
            let len = self.bytes.len() as u32;
            self.bytes[..4].copy_from_slice(&len.to_le_bytes());
        }
    }
}

/// Numbers that both packed formats have, without their first byte.
fn integer(recipe: &mut Recipe<'_>, bytes: usize) -> (i64, Vec<u8>) {
    let raw = recipe.array::<8>();
    let mut wide = [if raw[bytes - 1] & 0x80 == 0 { 0 } else { 0xff }; 8];
    wide[..bytes].copy_from_slice(&raw[..bytes]);
    (i64::from_le_bytes(wide), raw[..bytes].to_vec())
}

/// A listpack being written.
#[derive(Default)]
pub struct Listpack {
    body: Vec<u8>,
    count: usize,
}

impl Listpack {
    /// Bytes of what was written so far.
    pub fn len(&self) -> usize {
        self.body.len()
    }

    /// An entry that is encoded already.
    fn entry(&mut self, encoded: &[u8]) {
        self.body.extend_from_slice(encoded);
        let mut digits = vec![(encoded.len() & 0x7f) as u8];
        let mut rest = encoded.len() >> 7;
        while rest > 0 {
            digits.push((rest & 0x7f) as u8);
            rest >>= 7;
        }
        // As servers have it: what would just fill two digits or more has one more, of 0.
        if digits.len() > 1 && digits.iter().all(|digit| *digit == 0x7f) {
            digits.push(0);
        }
        // Read from its end: the lowest digit stands last, marks on all but the first.
        let first = digits.len() - 1;
        let backwards = digits.iter().enumerate().rev();
        self.body
            .extend(backwards.map(|(at, digit)| digit | if at == first { 0 } else { 0x80 }));
        self.count += 1;
    }

    pub fn string(&mut self, text: &[u8]) {
        let len = text.len();
        let head = match len {
            0..=0x3f => vec![0x80 | len as u8],
            0x40..=0xfff => vec![0xe0 | (len >> 8) as u8, len as u8],
            _ => [&[0xf0][..], &(len as u32).to_le_bytes()].concat(),
        };
        self.entry(&[&head[..], text].concat());
    }

    pub fn integer(&mut self, number: i64) {
        self.entry(&[&[0xf4][..], &number.to_le_bytes()].concat());
    }

    /// An entry as the recipe says, in any form there is; answers its text.
    pub fn any(&mut self, recipe: &mut Recipe<'_>) -> Vec<u8> {
        let form = recipe.byte();
        let (number, encoded) = match form % 9 {
            0 => {
                let byte = recipe.byte() & 0x7f;
                (i64::from(byte), vec![byte])
            }
            1 => {
                let (number, raw) = integer(recipe, 2);
                let narrow = number << 51 >> 51;
                let high = 0xc0 | (raw[1] & 0x1f);
                (narrow, vec![high, raw[0]])
            }
            form @ 2..=5 => {
                let bytes = [2, 3, 4, 8][usize::from(form) - 2];
                let (number, raw) = integer(recipe, bytes);
                (number, [&[0xef + form][..], &raw].concat())
            }
            form => {
                let text = match form {
                    6 => {
                        let len = recipe.byte();
                        recipe.bytes(usize::from(len & 0x3f)).to_vec()
                    }
                    7 => recipe.run(0xfff),
                    _ => recipe.run(40_000),
                };
                self.string_as(form, &text);
                return text;
            }
        };
        self.entry(&encoded);
        number.to_string().into_bytes()
    }

    /// In the form that is wanted, though a shorter one would do.
    fn string_as(&mut self, form: u8, text: &[u8]) {
        let len = text.len();
        let head = match form {
            6 => vec![0x80 | len as u8],
            7 => vec![0xe0 | (len >> 8) as u8, len as u8],
            _ => [&[0xf0][..], &(len as u32).to_le_bytes()].concat(),
        };
        self.entry(&[&head[..], text].concat());
    }

    pub fn blob(self, is_counted: bool) -> Blob {
        let count = u16::try_from(self.count).unwrap_or(u16::MAX);
        let count = if is_counted { count } else { u16::MAX };
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&self.body);
        bytes.push(0xff);
        let mut blob = Blob {
            bytes,
            count_at: 4,
            count_bytes: 2,
            is_sized: true,
        };
        blob.resize();
        blob
    }
}

/// A ziplist being written.
#[derive(Default)]
pub struct Ziplist {
    body: Vec<u8>,
    count: usize,
    /// Bytes of the entry before, and where it begins.
    before: usize,
    tail: usize,
}

impl Ziplist {
    /// Bytes of what was written so far.
    pub fn len(&self) -> usize {
        self.body.len()
    }

    fn entry(&mut self, encoded: &[u8], is_wide: bool) {
        self.tail = self.body.len();
        match u8::try_from(self.before) {
            Ok(before @ 0..=253) if !is_wide => self.body.push(before),
            _ => {
                self.body.push(0xfe);
                let before = self.before as u32;
                self.body.extend_from_slice(&before.to_le_bytes());
            }
        }
        self.body.extend_from_slice(encoded);
        self.before = self.body.len() - self.tail;
        self.count += 1;
    }

    pub fn string(&mut self, text: &[u8]) {
        let len = text.len() as u32;
        let head = [&[0x80][..], &len.to_be_bytes()].concat();
        self.entry(&[&head[..], text].concat(), false);
    }

    /// As [`Listpack::any`].
    pub fn any(&mut self, recipe: &mut Recipe<'_>) -> Vec<u8> {
        let form = recipe.byte();
        let is_wide = form >= 0x80;
        let (text, encoded) = match form % 9 {
            0 => {
                let number = recipe.byte() % 13;
                (number.to_string().into_bytes(), vec![0xf1 + number])
            }
            form @ 1..=5 => {
                let (first, bytes) =
                    [(0xfe, 1), (0xc0, 2), (0xf0, 3), (0xd0, 4), (0xe0, 8)][usize::from(form) - 1];
                let (number, raw) = integer(recipe, bytes);
                let text = number.to_string().into_bytes();
                (text, [&[first][..], &raw].concat())
            }
            6 => {
                let len = recipe.byte();
                let text = recipe.bytes(usize::from(len & 0x3f)).to_vec();
                let encoded = [&[text.len() as u8][..], &text].concat();
                (text, encoded)
            }
            7 => {
                let text = recipe.run(0x3fff);
                let head = [0x40 | (text.len() >> 8) as u8, text.len() as u8];
                let encoded = [&head[..], &text].concat();
                (text, encoded)
            }
            _ => {
                let text = recipe.run(40_000);
                let head = [&[0x80][..], &(text.len() as u32).to_be_bytes()].concat();
                let encoded = [&head[..], &text].concat();
                (text, encoded)
            }
        };
        self.entry(&encoded, is_wide);
        text
    }

    pub fn blob(self, is_counted: bool) -> Blob {
        let count = u16::try_from(self.count).unwrap_or(u16::MAX);
        let count = if is_counted { count } else { u16::MAX };
        let tail = 10 + self.tail as u32;
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&tail.to_le_bytes());
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&self.body);
        bytes.push(0xff);
        let mut blob = Blob {
            bytes,
            count_at: 8,
            count_bytes: 2,
            is_sized: true,
        };
        blob.resize();
        blob
    }
}

/// An intset of these numbers.
pub fn intset(width: usize, numbers: &[i64]) -> Blob {
    let mut bytes = (width as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(&(numbers.len() as u32).to_le_bytes());
    for number in numbers {
        bytes.extend_from_slice(&number.to_le_bytes()[..width]);
    }
    Blob {
        bytes,
        count_at: 4,
        count_bytes: 4,
        is_sized: false,
    }
}

/// Numbers of a width, as the recipe says.
pub fn numbers(recipe: &mut Recipe<'_>, width: usize) -> Vec<i64> {
    let mut numbers = Vec::new();
    while !recipe.is_over() {
        numbers.push(integer(recipe, width).0);
    }
    numbers
}

/// A zipmap being written.
#[derive(Default)]
pub struct Zipmap {
    body: Vec<u8>,
    pairs: usize,
}

impl Zipmap {
    /// Bytes of what was written so far.
    pub fn len(&self) -> usize {
        self.body.len()
    }

    fn length(&mut self, len: usize, is_wide: bool) {
        match u8::try_from(len) {
            Ok(len @ 0..=253) if !is_wide => self.body.push(len),
            _ => {
                self.body.push(0xfe);
                self.body.extend_from_slice(&(len as u32).to_le_bytes());
            }
        }
    }

    pub fn pair(&mut self, field: &[u8], value: &[u8], how: u8) {
        self.length(field.len(), how & 1 != 0);
        self.body.extend_from_slice(field);
        self.length(value.len(), how & 2 != 0);
        let unused = how >> 5;
        self.body.push(unused);
        self.body.extend_from_slice(value);
        // Left over from a longer value; anything may stand there.
        self.body.extend((0..unused).map(|_| 0xff));
        self.pairs += 1;
    }

    /// A pair as the recipe says.
    pub fn any(&mut self, recipe: &mut Recipe<'_>) -> (Vec<u8>, Vec<u8>) {
        let [how, len] = recipe.array();
        let mut field = recipe.bytes(usize::from(len & 0x0f)).to_vec();
        let value = recipe.bytes(usize::from(len >> 4)).to_vec();
        if how & 4 != 0 {
            field = recipe.run(300);
        }
        self.pair(&field, &value, how);
        (field, value)
    }

    pub fn blob(self, is_counted: bool) -> Blob {
        let count = match u8::try_from(self.pairs) {
            Ok(count @ 0..=253) if is_counted => count,
            _ => 254,
        };
        let bytes = [&[count][..], &self.body, &[0xff]].concat();
        Blob {
            bytes,
            count_at: 0,
            count_bytes: 1,
            is_sized: false,
        }
    }
}
