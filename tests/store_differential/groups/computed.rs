//! Scripts that compute with random arguments: numbers as texts and back, `bit`, `cjson`,
//! `cmsgpack`, `struct`.

use crate::dice::Dice;

type Words = Vec<Vec<u8>>;

/// A script and its arguments.
pub fn script(d: &mut Dice) -> (&'static str, Words) {
    match d.between(0, 9) {
        0 | 1 => (d.pick(OF_NUMBERS), (0..3).map(|_| number(d)).collect()),
        2 | 3 => (d.pick(OF_BITS), (0..2).map(|_| number(d)).collect()),
        4 | 5 => {
            let mut text = Vec::new();
            json(d, 0, &mut text);
            damage(d, &mut text);
            (d.pick(OF_JSON), vec![text])
        }
        6 => (d.pick(OF_PACKS), vec![bytes(d)]),
        7 => {
            let mut text = Vec::new();
            json(d, 0, &mut text);
            ("return cmsgpack.pack(cjson.decode(ARGV[1]))", vec![text])
        }
        8 => {
            let format = format(d);
            let numbers = (0..6).map(|_| number(d));
            let words = std::iter::once(format).chain(numbers).collect();
            ("return struct.pack(unpack(ARGV))", words)
        }
        _ => {
            let words = vec![format(d), bytes(d), number(d)];
            (d.pick(OF_STRUCTS), words)
        }
    }
}

const OF_NUMBERS: &[&str] = &[
    "return tonumber(ARGV[1])",
    "return tostring(tonumber(ARGV[1]))",
    "return {tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])}",
    "return tostring(tonumber(ARGV[1]) * tonumber(ARGV[2]))",
    "return tostring(tonumber(ARGV[1]) / tonumber(ARGV[2]))",
    "return tostring(tonumber(ARGV[1]) % tonumber(ARGV[2]))",
    "return tostring(math.floor(tonumber(ARGV[1])))",
    "return string.format('%.17g %d %5.3f %x', tonumber(ARGV[1]), 3, tonumber(ARGV[2]), 255)",
    "return cjson.encode({tonumber(ARGV[1]), tonumber(ARGV[2])})",
    "return cjson.encode({[tonumber(ARGV[1])] = 1})",
    "return cmsgpack.pack(tonumber(ARGV[1]))",
    "return tostring(cmsgpack.unpack(cmsgpack.pack(tonumber(ARGV[1]))))",
    "return redis.call('ECHO', tonumber(ARGV[1]))",
    "redis.call('SET', 'number:0', tonumber(ARGV[1])) return redis.call('GET', 'number:0')",
    "return {double = tonumber(ARGV[1])}",
    "redis.setresp(3) return {double = tonumber(ARGV[1])}",
    "math.randomseed(tonumber(ARGV[1])) return {math.random(100), math.random(5, 50), tostring(math.random())}",
    "math.randomseed(1) return math.random(tonumber(ARGV[1]), tonumber(ARGV[2]))",
    "return string.rep('x', tonumber(ARGV[1]) % 50)",
    "return redis.call('INCRBYFLOAT', 'number:1', tonumber(ARGV[1]))",
    "return ARGV[1] + ARGV[2]",
    "return ARGV[1] .. ARGV[2]",
    "return ARGV[1] < ARGV[2]",
];

const OF_BITS: &[&str] = &[
    "return bit.band(ARGV[1], ARGV[2])",
    "return bit.bor(tonumber(ARGV[1]), tonumber(ARGV[2]))",
    "return bit.bxor(tonumber(ARGV[1]), ARGV[2])",
    "return bit.bnot(ARGV[1])",
    "return bit.tobit(ARGV[1])",
    "return bit.bswap(ARGV[1])",
    "return bit.lshift(ARGV[1], ARGV[2])",
    "return bit.rshift(ARGV[1], ARGV[2])",
    "return bit.arshift(ARGV[1], ARGV[2])",
    "return bit.rol(ARGV[1], ARGV[2])",
    "return bit.ror(ARGV[1], ARGV[2])",
    "return bit.tohex(ARGV[1])",
    "return bit.tohex(ARGV[1], tonumber(ARGV[2]) % 9)",
];

const OF_JSON: &[&str] = &[
    "return cjson.encode(cjson.decode(ARGV[1]))",
    "return cjson.decode(ARGV[1])",
    "local ok, e = pcall(cjson.decode, ARGV[1]) return {tostring(ok), type(e) == 'table' and cjson.encode(e) or tostring(e)}",
    "return cjson.encode({ARGV[1]})",
    "return type(cjson.decode(ARGV[1]))",
    "cjson.decode_invalid_numbers(false) local r = {pcall(cjson.decode, ARGV[1])} cjson.decode_invalid_numbers(true) return tostring(r[1])",
];

const OF_PACKS: &[&str] = &[
    "return cmsgpack.unpack(ARGV[1])",
    "return {cmsgpack.unpack(ARGV[1])}",
    "return {cmsgpack.unpack_one(ARGV[1])}",
    "return {cmsgpack.unpack_one(ARGV[1], 1)}",
    "return {cmsgpack.unpack_limit(ARGV[1], 2, 1)}",
    "return cmsgpack.pack(cmsgpack.unpack(ARGV[1]))",
];

const OF_STRUCTS: &[&str] = &[
    "return {struct.unpack(ARGV[1], ARGV[2])}",
    "return {struct.unpack(ARGV[1], ARGV[2], 3)}",
    "return struct.size(ARGV[1])",
];

fn number(d: &mut Dice) -> Vec<u8> {
    match d.between(0, 7) {
        0 | 1 => d.float(),
        2 => d.integer(),
        3 => d
            .pick(&[
                "2147483647",
                "2147483648",
                "4294967295",
                "4294967296",
                "-2147483649",
                "9007199254740993",
                "1e15",
                "123456789012345678",
                "0.1",
                "1e-7",
                "-1e100",
                "3.7",
                "-3.7",
                "127",
                "128",
                "-32",
                "-33",
                "65535",
                "65536",
            ])
            .into(),
        _ => d.small_integer(),
    }
}

/// Any bytes, mostly such as MessagePack has at the front of something.
fn bytes(d: &mut Dice) -> Vec<u8> {
    let heads: &[u8] = &[
        0xc0, 0xc2, 0xc3, 0xca, 0xcb, 0xcc, 0xcd, 0xce, 0xcf, 0xd0, 0xd1, 0xd2, 0xd3, 0xd9, 0xda,
        0xdb, 0xdc, 0xdd, 0xde, 0xdf, 0xc1, 0x91, 0x92, 0x81, 0xa3, 0x7f, 0xe0, 0xff, 0, 1, 2,
    ];
    let len = d.between(0, 14);
    (0..len)
        .map(|_| match d.one_in(3) {
            true => d.rng().u8(..),
            false => heads[d.rng().usize(..heads.len())],
        })
        .collect()
}

fn format(d: &mut Dice) -> Vec<u8> {
    let options: &[&str] = &[
        "b", "B", "h", "H", "l", "L", "T", "f", "d", "i", "I", "i3", "I2", "i8", "x", "s", "c3",
        "c0", "c", ">", "<", "!", "!4", " ", "z", "!3", "i33", "i16",
    ];
    let count = d.between(0, 6);
    let picked: Vec<&str> = (0..count).map(|_| d.pick(options)).collect();
    picked.concat().into_bytes()
}

/// Some JSON.
fn json(d: &mut Dice, depth: u32, out: &mut Vec<u8>) {
    let scalars: &[&str] = &[
        "null",
        "true",
        "false",
        "0",
        "-1",
        "1.5",
        "1e3",
        "1E-2",
        "123456789012",
        "\"\"",
        "\"text\"",
        "\"a\\nb\\/\\u00e9\"",
        "\"\\ud83d\\ude00\"",
        "\"\u{e9}\"",
    ];
    match d.between(0, 9) {
        0 | 1 if depth < 4 => {
            out.push(b'[');
            for at in 0..d.between(0, 4) {
                if at > 0 {
                    out.push(b',');
                }
                json(d, depth + 1, out);
            }
            out.push(b']');
        }
        // One field: of several the order is that of the hash.
        2..4 if depth < 4 => {
            out.extend_from_slice(b"{");
            for at in 0..d.between(0, 5) {
                if at > 0 {
                    out.extend_from_slice(b" , ");
                }
                out.extend_from_slice(format!("\"k{}\":", d.between(0, 30)).as_bytes());
                json(d, depth + 1, out);
            }
            out.push(b'}');
        }
        _ => out.extend_from_slice(d.pick(scalars).as_bytes()),
    }
}

/// One byte is another one, now and then.
fn damage(d: &mut Dice, text: &mut [u8]) {
    let others = b"\"[]{},:\\truefalsn0x+-.eEI N\x00\xff";
    if !text.is_empty() && d.one_in(3) {
        let at = d.rng().usize(..text.len());
        text[at] = others[d.rng().usize(..others.len())];
    }
}
