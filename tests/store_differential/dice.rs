//! The arguments of random commands, out of small pools so that they meet again:
//! keys named after their type (mostly), members and values around the limits of
//! the compact encodings, indexes far outside, numbers that are none.
//!
//! Times are either long past or far ahead: a key that went between the two sides'
//! turns would be a difference that is none. For the same reason relative times come
//! out of a wide range, so that GT and LT never have to tell two of them apart that
//! are nearly equal.

use fastrand::Rng;

/// What a key is meant to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string of text.
    Text,
    /// A string with a number.
    Number,
    /// A string that is used as bits.
    Bits,
    /// A string that is a HyperLogLog.
    Hll,
    /// A hash.
    Hash,
    /// A list.
    List,
    /// A set of words.
    Set,
    /// A set of integers.
    Ints,
    /// A sorted set.
    Zset,
    /// A sorted set whose scores are all 0.
    Lex,
    /// A stream.
    Stream,
    /// A sorted set of places.
    Geo,
}

use Kind::{Bits, Geo, Hash, Hll, Ints, Lex, List, Number, Set, Stream, Text, Zset};

const KINDS: [Kind; 12] = [
    Text, Number, Bits, Hll, Hash, List, Set, Ints, Zset, Lex, Stream, Geo,
];

/// Keys of each kind.
const KEYS_A_KIND: u32 = 5;

/// Words that are no integer, or one at a limit.
pub const ODD_INTEGERS: &[&str] = &[
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "4294967296",
    "-1",
    "-0",
    "+1",
    "01",
    " 1",
    "1 ",
    "1.0",
    "1e3",
    "0x10",
    "abc",
    "",
];

/// Words that are no float, or a special one.
const ODD_FLOATS: &[&str] = &[
    "inf",
    "-inf",
    "+inf",
    "Infinity",
    "nan",
    "abc",
    "",
    " 1",
    "1 ",
    "1e400",
    "-1e400",
    "1e-400",
    "0x1p3",
    ".5",
    "5.",
    "+7",
    "-0",
    "1.7976931348623157e308",
    "5e-324",
    "1,5",
];

const FLOATS: &[&str] = &[
    "1",
    "2",
    "-1",
    "0",
    "1.5",
    "0.1",
    "0.2",
    "-0.3",
    "3.14159",
    "1e3",
    "100",
    "-2.5e-3",
    "10",
    "1000000",
    "17179869184",
    "0.30000000000000004",
    "1e17",
    "123456789.123",
];

const WORDS: &[&str] = &[
    "a",
    "b",
    "c",
    "aa",
    "ab",
    "foo",
    "bar",
    "hello world",
    "Z",
    "10",
    "9",
    "-1",
];

/// Random choices.
pub struct Dice {
    rng: Rng,
    /// The largest id that was given to a stream.
    stream_ms: i64,
}

impl Dice {
    /// Of this seed.
    pub fn new(seed: u64) -> Dice {
        Dice {
            rng: Rng::with_seed(seed),
            stream_ms: 10,
        }
    }

    /// The generator itself.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u32) -> bool {
        self.rng.u32(..n) == 0
    }

    /// One of these.
    pub fn pick<'p, T: ?Sized>(&mut self, of: &[&'p T]) -> &'p T {
        of[self.rng.usize(..of.len())]
    }

    /// A number from `from` up to `to`.
    pub fn between(&mut self, from: i64, to: i64) -> i64 {
        self.rng.i64(from..=to)
    }

    /// Each of these with a chance of one in `n`, in any order.
    pub fn some_of(&mut self, n: u32, options: Vec<Vec<Vec<u8>>>) -> Vec<Vec<u8>> {
        let mut taken: Vec<_> = options.into_iter().filter(|_| self.one_in(n)).collect();
        self.rng.shuffle(&mut taken);
        taken.into_iter().flatten().collect()
    }

    /// A key that most likely holds a value of this kind.
    pub fn key(&mut self, kind: Kind) -> Vec<u8> {
        match self.rng.u32(..100) {
            0..90 => self.key_of(kind),
            90..96 => self.any_key(),
            96..99 => format!("none:{}", self.rng.u32(..3)).into_bytes(),
            _ => self
                .pick::<[u8]>(&[b"", b"\x00\xffkey\r\n", b"key with blanks"])
                .to_vec(),
        }
    }

    /// A key of any kind.
    pub fn any_key(&mut self) -> Vec<u8> {
        let kind = KINDS[self.rng.usize(..KINDS.len())];
        self.key_of(kind)
    }

    fn key_of(&mut self, kind: Kind) -> Vec<u8> {
        let name = match kind {
            Text => "text",
            Number => "number",
            Bits => "bits",
            Hll => "hll",
            Hash => "hash",
            List => "list",
            Set => "set",
            Ints => "ints",
            Zset => "zset",
            Lex => "lex",
            Stream => "stream",
            Geo => "geo",
        };
        format!("{name}:{}", self.rng.u32(..KEYS_A_KIND)).into_bytes()
    }

    /// From one up to `max` keys of one kind.
    pub fn keys(&mut self, kind: Kind, max: i64) -> Vec<Vec<u8>> {
        (0..self.between(1, max)).map(|_| self.key(kind)).collect()
    }

    /// A set: mostly of words, now and then of integers.
    pub fn set_kind(&mut self) -> Kind {
        if self.one_in(3) { Ints } else { Set }
    }

    /// A string's text.
    pub fn value(&mut self) -> Vec<u8> {
        match self.rng.u32(..40) {
            0 => Vec::new(),
            1 => b"x".repeat(44), // The longest that is embstr.
            2 => b"x".repeat(45),
            3 => b"v".repeat(64), // The longest that a listpack takes.
            4 => b"v".repeat(65),
            5 => self.binary(),
            6 => b"long ".repeat(self.rng.usize(20..80)),
            7 if self.one_in(4) => vec![b'q'; self.rng.usize(3_000..9_000)],
            8 if self.one_in(10) => vec![b'r'; self.rng.usize(9_000..40_000)],
            9..20 => self.small_integer(),
            20 => self.integer(),
            21 => self.float(),
            _ => self.pick(WORDS).into(),
        }
    }

    fn binary(&mut self) -> Vec<u8> {
        (0..self.rng.usize(1..20))
            .map(|_| self.rng.u8(..))
            .collect()
    }

    /// A field of a hash, a member of a set or sorted set.
    pub fn member(&mut self) -> Vec<u8> {
        match self.rng.u32(..60) {
            0 => Vec::new(),
            1 => b"m".repeat(64),
            2 => b"m".repeat(65),
            3 => self.binary(),
            4..10 => self.small_integer(),
            10..14 => self.pick(WORDS).into(),
            _ => format!("m{}", self.rng.u32(..24)).into_bytes(),
        }
    }

    /// A member of a set of this kind.
    pub fn member_of(&mut self, kind: Kind) -> Vec<u8> {
        if kind != Ints {
            return self.member();
        }
        match self.rng.u32(..60) {
            0 => self.member(),
            1 => self.rng.i16(..).to_string().into(),
            2 => self.rng.i32(..).to_string().into(),
            3 => self.rng.i64(..).to_string().into(),
            4 => self.pick(ODD_INTEGERS).into(),
            5 => self
                .pick(&["32767", "32768", "-32769", "2147483647", "2147483648"])
                .into(),
            _ => self.rng.i32(-10..40).to_string().into(),
        }
    }

    /// Members of a set of this kind: a few, now and then as many as leave the
    /// compact encodings.
    pub fn members(&mut self, kind: Kind) -> Vec<Vec<u8>> {
        match self.many() {
            Some(count) => {
                let from = self.rng.i32(..400);
                let name = |n: i32| match kind {
                    Ints => n.to_string().into_bytes(),
                    _ => format!("m{n}").into_bytes(),
                };
                (from..).take(count).map(name).collect()
            }
            None => (0..self.between(1, 5))
                .map(|_| self.member_of(kind))
                .collect(),
        }
    }

    /// Rarely, a number of elements around a limit of the compact encodings.
    pub fn many(&mut self) -> Option<usize> {
        if !self.one_in(25) {
            return None;
        }
        Some(match self.rng.u32(..10) {
            0 => 127,
            1 => 128,
            2 => 129,
            3 => self.rng.usize(500..530),
            _ => self.rng.usize(20..100),
        })
    }

    /// A small integer.
    pub fn small_integer(&mut self) -> Vec<u8> {
        self.rng.i32(-20..120).to_string().into_bytes()
    }

    /// An integer, sometimes one that is too large or none.
    pub fn integer(&mut self) -> Vec<u8> {
        match self.rng.u32(..12) {
            0 => self.pick(ODD_INTEGERS).into(),
            1 => self.rng.i64(..).to_string().into(),
            2 => (self.rng.i64(..) >> self.rng.u32(1..62)).to_string().into(),
            _ => self.small_integer(),
        }
    }

    /// An index or a rank: mostly inside, sometimes far outside.
    pub fn index(&mut self) -> Vec<u8> {
        match self.rng.u32(..24) {
            0 => self.pick(ODD_INTEGERS).into(),
            1 => self.rng.i32(-300..600).to_string().into(),
            2..5 => "-1".into(),
            5..9 => "0".into(),
            _ => self.rng.i32(-12..12).to_string().into(),
        }
    }

    /// How many: mostly few.
    pub fn count(&mut self) -> Vec<u8> {
        match self.rng.u32(..20) {
            0 => self.pick(ODD_INTEGERS).into(),
            1 => "0".into(),
            2 => "-1".into(),
            3 => self.rng.i32(100..1000).to_string().into(),
            _ => self.rng.i32(1..8).to_string().into(),
        }
    }

    /// A float, sometimes a special one or none.
    pub fn float(&mut self) -> Vec<u8> {
        match self.rng.u32(..16) {
            0 => self.pick(ODD_FLOATS).into(),
            1 => format!("{}", self.rng.f64() * 1e6 - 5e5).into(),
            2 => format!("{:e}", self.rng.f64() * 1e20).into(),
            3..9 => self.small_integer(),
            _ => self.pick(FLOATS).into(),
        }
    }

    /// The first half of an id behind all that were given so far.
    pub fn next_ms(&mut self) -> i64 {
        self.stream_ms += 1;
        self.stream_ms
    }

    /// The first half of an id that was given not long ago.
    pub fn recent_ms(&mut self) -> i64 {
        let most = self.stream_ms;
        self.rng.i64((most - 60).max(0)..=most + 1)
    }

    /// A glob pattern.
    pub fn pattern(&mut self) -> &'static str {
        self.pick(&[
            "*", "m*", "*1", "m?", "m1?", "[a-m]*", "[^m]*", "*:*", "text:*", "*[0-2]", "h?sh:*",
            "", "nothing", "\\*", "[", "*a*", "m[1-3", "hash:0",
        ])
    }

    /// Seconds from now: far ahead, now and then not ahead at all or no time.
    pub fn seconds(&mut self) -> Vec<u8> {
        if self.one_in(8) {
            return self.odd_time();
        }
        self.rng.i64(10_000..30_000_000).to_string().into()
    }

    /// Milliseconds from now, likewise.
    pub fn milliseconds(&mut self) -> Vec<u8> {
        if self.one_in(8) {
            return self.odd_time();
        }
        self.rng.i64(10_000_000..30_000_000_000).to_string().into()
    }

    /// A time in Unix seconds.
    pub fn unix_seconds(&mut self) -> Vec<u8> {
        if self.one_in(8) {
            return self.odd_time();
        }
        // All beyond what seconds from now reach.
        self.pick(&["4102444800", "4102444801", "4102448400", "7258118400"])
            .into()
    }

    /// A time in Unix milliseconds.
    pub fn unix_milliseconds(&mut self) -> Vec<u8> {
        if self.one_in(8) {
            return self.odd_time();
        }
        self.pick(&[
            "4102444800000",
            "4102444800001",
            "4102448400500",
            "7258118400000",
        ])
        .into()
    }

    fn odd_time(&mut self) -> Vec<u8> {
        self.pick(&[
            "0",
            "-1",
            "-100000",
            "abc",
            "",
            "9223372036854775807",
            "-9223372036854775808",
            "9223372036854775",
            "9223372036854776",
            "9223372036854775808",
        ])
        .into()
    }
}
