//! Keys of whatever type: names, times to live, copies, payloads.

use super::hash::{cursor, scan_options};
use super::{Group, Recipe};
use crate::dice::Dice;
use crate::dice::Kind::{Hash, Ints, Lex, List, Number, Set, Text, Zset};
use crate::line::{Line, line};

pub const GROUP: Group = Group {
    name: "generic",
    recipes: &[
        Recipe::new("TYPE", 40, fill),
        Recipe::new("DEL", 6, |d| line("DEL").words(any_keys(d))),
        Recipe::new("UNLINK", 4, |d| line("UNLINK").words(any_keys(d))),
        Recipe::new("EXISTS", 6, |d| line("EXISTS").words(any_keys(d))),
        Recipe::new("TOUCH", 4, |d| line("TOUCH").words(any_keys(d))),
        Recipe::new("TYPE", 6, |d| line("TYPE").word(any_key(d))),
        Recipe::new("EXPIRE", 10, |d| {
            let made = line("EXPIRE").word(any_key(d)).word(d.seconds());
            conditioned(d, made)
        }),
        Recipe::new("PEXPIRE", 10, |d| {
            let made = line("PEXPIRE").word(any_key(d)).word(d.milliseconds());
            conditioned(d, made)
        }),
        Recipe::new("EXPIREAT", 10, |d| {
            let made = line("EXPIREAT").word(any_key(d)).word(d.unix_seconds());
            conditioned(d, made)
        }),
        Recipe::new("PEXPIREAT", 10, |d| {
            let made = line("PEXPIREAT")
                .word(any_key(d))
                .word(d.unix_milliseconds());
            conditioned(d, made)
        }),
        Recipe::new("TTL", 8, |d| line("TTL").word(any_key(d))),
        Recipe::new("PTTL", 8, |d| line("PTTL").word(any_key(d))),
        Recipe::new("EXPIRETIME", 5, |d| line("EXPIRETIME").word(any_key(d))),
        Recipe::new("PEXPIRETIME", 5, |d| line("PEXPIRETIME").word(any_key(d))),
        Recipe::new("PERSIST", 5, |d| line("PERSIST").word(any_key(d))),
        Recipe::new("PEXPIRE", 1, |d| {
            let key = any_key(d);
            let short = d.between(1, 4);
            line("PEXPIRE")
                .word(&key)
                .number(short)
                .then(line("@AWAIT").word(key))
        }),
        Recipe::new("RENAME", 6, |d| {
            line("RENAME").word(any_key(d)).word(any_key(d))
        }),
        Recipe::new("RENAMENX", 5, |d| {
            line("RENAMENX").word(any_key(d)).word(any_key(d))
        }),
        Recipe::new("COPY", 8, copy),
        Recipe::new("RANDOMKEY", 3, |_| line("RANDOMKEY")),
        Recipe::new("KEYS", 4, |d| line("KEYS").word(d.pattern())),
        Recipe::new("SCAN", 4, scan),
        Recipe::new("OBJECT|ENCODING", 12, |d| {
            line("OBJECT ENCODING").word(any_key(d))
        }),
        Recipe::new("OBJECT|REFCOUNT", 2, |d| {
            line("OBJECT REFCOUNT").word(any_key(d))
        }),
        Recipe::new("OBJECT|IDLETIME", 2, |d| {
            line("OBJECT IDLETIME").word(any_key(d))
        }),
        Recipe::new("OBJECT|FREQ", 2, |d| line("OBJECT FREQ").word(any_key(d))),
        Recipe::new("OBJECT|HELP", 1, |_| line("OBJECT HELP")),
        Recipe::new("DUMP", 4, |d| line("DUMP").word(any_key(d))),
        Recipe::new("RESTORE", 6, restore),
        Recipe::new("RESTORE", 8, |d| {
            let to = any_key(d);
            line("@CARRY")
                .word(any_key(d))
                .word(&to)
                .then(line("OBJECT ENCODING").word(to))
        }),
    ],
};

/// DUMPs of redis 7.0: a string, a quicklist, an intset, a set, a hash and two sorted
/// sets, one of them a skiplist.
const PAYLOADS: &[&[u8]] = &[
    b"\x00\x07payload\x0a\x00\x06\xbb\x1d\x09l8\xd7`",
    b"\x12\x01\x02\x13\x13\x00\x00\x00\x04\x00\x01\x01\x02\x01\xc1,\x02\x83abc\x04\xff\x0a\x00\x12\xf3\xda\xee\x8a\x8c\xdb\xed",
    b"\x0b\x0e\x02\x00\x00\x00\x03\x00\x00\x00\x01\x00\x02\x00,\x01\x0a\x00\xe5\x10\xb2\x8e{\x95)\xaa",
    b"\x02\x02\x01a\xc0\x02\x0a\x00g\xe2)\x08\xb54QE",
    b"\x10\x11\x11\x00\x00\x00\x04\x00\x81a\x02\x01\x01\x81b\x02\x02\x01\xff\x0a\x00>@cl\x8f]v\x9a",
    b"\x11\x14\x14\x00\x00\x00\x04\x00\x81a\x02\x01\x01\x81b\x02\x832.5\x04\xff\x0a\x00\xd4Ln\xa4\xf6D\xd9\xd7",
    b"\x05\x02\xc3\x11@J\x09member-1-x\xe05\x00\x01xx\x00\x00\x00\x00\x00\x00\xf0?\xc3\x11@J\x09member-0-x\xe05\x00\x01xx\x00\x00\x00\x00\x00\x00\x00\x00\x0a\x00\x8e\xcc\xdaU\xaaZ\x90\xa0",
];

/// Makes a key of any type: the group alone has something to work with.
fn fill(d: &mut Dice) -> Line {
    let kind = *[Text, Number, Hash, List, Set, Ints, Zset, Lex]
        .get(usize::try_from(d.between(0, 7)).unwrap_or(0))
        .unwrap_or(&Text);
    let key = d.key(kind);
    match kind {
        Hash => line("HSET").word(key).word(d.member()).word(d.value()),
        List => line("RPUSH").word(key).word(d.value()).word(d.value()),
        Set | Ints => line("SADD").word(key).words(d.members(kind)),
        Zset | Lex => line("ZADD")
            .word(key)
            .word(d.small_integer())
            .word(d.member()),
        _ => line("SET").word(key).word(d.value()),
    }
}

/// A key of any kind, of a few in all.
pub fn any_key(d: &mut Dice) -> Vec<u8> {
    if d.one_in(20) {
        return d.key(Text);
    }
    d.any_key()
}

fn any_keys(d: &mut Dice) -> Vec<Vec<u8>> {
    (0..d.between(1, 3)).map(|_| any_key(d)).collect()
}

fn conditioned(d: &mut Dice, made: Line) -> Line {
    let flags = ["NX", "XX", "GT", "LT"]
        .map(|flag| vec![flag.into()])
        .to_vec();
    let flags = d.some_of(6, flags);
    let made = made.words(flags);
    if d.one_in(40) {
        made.word("SOON")
    } else {
        made
    }
}

fn copy(d: &mut Dice) -> Line {
    let db = d.pick(&["0", "1", "2", "15", "16", "-1", "abc"]).into();
    let options = d.some_of(3, vec![vec![b"REPLACE".into()], vec![b"DB".into(), db]]);
    line("COPY")
        .word(any_key(d))
        .word(any_key(d))
        .words(options)
}

fn scan(d: &mut Dice) -> Line {
    let mut options = scan_options(d);
    if d.one_in(3) {
        let kind = d.pick(&[
            "string", "list", "set", "zset", "hash", "stream", "STRING", "none",
        ]);
        options.extend([b"TYPE".to_vec(), kind.into()]);
    }
    line("SCAN").word(cursor(d)).words(options)
}

fn restore(d: &mut Dice) -> Line {
    let mut payload = d.pick(PAYLOADS).to_vec();
    match d.between(0, 15) {
        0 => payload = d.value(),
        1 => {
            payload.pop();
        }
        2 => {
            let at = usize::try_from(d.between(0, 8)).unwrap_or(0);
            payload[at] ^= 1;
        }
        _ => {}
    }
    let (idle, freq) = (d.integer(), d.integer());
    let options = d.some_of(
        4,
        vec![
            vec![b"REPLACE".into()],
            vec![b"IDLETIME".into(), idle],
            vec![b"FREQ".into(), freq],
        ],
    );
    let made = line("RESTORE").word(any_key(d));
    match d.between(0, 3) {
        0 => made
            .word(d.unix_milliseconds())
            .word(payload)
            .words(options)
            .word("ABSTTL"),
        1 => made.word(d.milliseconds()).word(payload).words(options),
        _ => made.word("0").word(payload).words(options),
    }
}
