//! What clients send that is no request, or half of one: by grammar, and by
//! mutation of what is sound.

use std::collections::HashSet;

use fastrand::Rng;

use super::support::client::encode;

/// One thing to send.
pub struct Input {
    /// What is wrong with it.
    pub family: &'static str,
    /// As it is sent.
    pub bytes: Vec<u8>,
}

/// The longest of one kind of inputs, in bytes; Redis's limit is 65,536.
pub const LONG_LINE_BYTES: usize = 70_000;
const MUTATIONS: usize = 600;

/// All of them; no two are alike.
pub fn all(random: &mut Rng) -> Vec<Input> {
    let families = [
        ("length", lengths()),
        ("type byte", type_bytes()),
        ("line end", line_ends()),
        ("body", bodies()),
        ("nesting", nested()),
        ("inline", inline()),
        ("long line", long_lines()),
        ("other protocol", other_protocols()),
        ("RESP3 type", resp3()),
        ("half", halves()),
        ("mutation", mutations(random)),
    ];
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    for (family, inputs) in families {
        let fresh = inputs
            .into_iter()
            .filter(|bytes| seen.insert(bytes.clone()));
        all.extend(fresh.map(|bytes| Input { family, bytes }));
    }
    all
}

fn texts<T: AsRef<[u8]>>(texts: impl IntoIterator<Item = T>) -> Vec<Vec<u8>> {
    let texts = texts.into_iter();
    texts.map(|text| text.as_ref().to_vec()).collect()
}

/// Numbers that are none, or too large, where a number belongs.
fn lengths() -> Vec<Vec<u8>> {
    let numbers = [
        "9223372036854775807", // 2^63 - 1
        "9223372036854775808",
        "18446744073709551615", // 2^64 - 1
        "18446744073709551616",
        "-9223372036854775808",
        "-9223372036854775809",
        "99999999999999999999999999999999",
        "-1",
        "-2",
        "-10",
        "-0",
        "-",
        "--1",
        "+1",
        "01",
        "0004",
        "00",
        " 1",
        "1 ",
        "1\t",
        "1a",
        "a",
        "",
        "0x4",
        "1.5",
        "1e3",
        "\u{ff11}",
        "1\0",
        "1048576",
        "1048577",
        "2147483647",
        "2147483648",
        "4294967295",
        "4294967296",
        "4294967300", // 2^32 + 4
        "536870912",  // what Redis takes at most
        "536870913",
        "?",
    ];
    let places = [
        "*#\r\n",
        "*#\r\n$4\r\nPING\r\n",
        "PING\r\n*#\r\n$4\r\nPING\r\n",
        "*1\r\n$#\r\n",
        "*1\r\n$#\r\nPING\r\n",
        "*2\r\n$4\r\nECHO\r\n$#\r\nabcd\r\n",
        "*2\r\n$3\r\nGET\r\n$#\r\nk\r\n*1\r\n$4\r\nPING\r\n",
        "*3\r\n$3\r\nSET\r\n$1\r\nw\r\n$#\r\nv\r\n",
        "*1\r\n$4\r\nPING\r\n*1\r\n$#\r\nPING\r\n",
    ];
    let of = |place: &str| texts(numbers.map(|number| place.replace('#', number)));
    places.into_iter().flat_map(of).collect()
}

/// Every byte where `*`, or `$`, belongs.
fn type_bytes() -> Vec<Vec<u8>> {
    let first = |byte: u8| [&[byte][..], b"1\r\n$4\r\nPING\r\n"].concat();
    let second = |byte: u8| [b"*1\r\n", &[byte][..], b"4\r\nPING\r\n"].concat();
    let all = 0..=255_u8;
    let firsts = all.clone().filter(|byte| *byte != b'*').map(first);
    let seconds = all.filter(|byte| *byte != b'$').map(second);
    firsts.chain(seconds).collect()
}

/// Something else where a CR LF belongs.
fn line_ends() -> Vec<Vec<u8>> {
    let ends = [
        "\n", "\r", "\r\r\n", "\n\r", "\r\n\r\n", "", " \r\n", "\r \n", "\r\0", "\0", "\rX", "XX",
    ];
    let lines = ["*2", "$3", "GET", "$1", "k"];
    let mut all = Vec::new();
    for wrong in 0..lines.len() {
        for end in ends {
            let mut bytes = String::new();
            for (at, line) in lines.iter().enumerate() {
                bytes += line;
                bytes += if at == wrong { end } else { "\r\n" };
            }
            all.push(bytes.clone().into_bytes());
            all.push((bytes + "PING\r\n").into_bytes());
        }
    }
    all
}

/// Bodies that are longer or shorter than they say.
fn bodies() -> Vec<Vec<u8>> {
    let lengths = (0..20).filter(|length| *length != 4);
    let one = |length: usize| format!("*1\r\n${length}\r\nPING\r\n");
    let both = lengths.flat_map(|length| [one(length), one(length) + "*1\r\n$4\r\nPING\r\n"]);
    let counts = [0, 1, 2, 4, 5].map(|count| {
        format!("*{count}\r\n$3\r\nSET\r\n$1\r\nw\r\n$1\r\nv\r\n*1\r\n$4\r\nPING\r\n")
    });
    texts(both.chain(counts))
}

fn nested() -> Vec<Vec<u8>> {
    let deep = (2..30).map(|depth| "*1\r\n".repeat(depth) + "$4\r\nPING\r\n");
    let few = [
        "*2\r\n$3\r\nGET\r\n*1\r\n$1\r\nk\r\n",
        "*2\r\n*1\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        "*3\r\n$3\r\nSET\r\n$1\r\nw\r\n*0\r\n",
        "*3\r\n$3\r\nSET\r\n$1\r\nw\r\n*-1\r\n",
        "*2\r\n*-1\r\n$4\r\nPING\r\n",
        "*1\r\n\r\n",
        "*1\r\nPING\r\n",
        "*2\r\nGET k\r\n",
    ];
    texts(deep.chain(few.map(str::to_owned)))
}

fn inline() -> Vec<Vec<u8>> {
    texts([
        "\"",
        "\"\r\n",
        "'\r\n",
        "PING \"\r\n",
        "PING '\r\n",
        "ECHO \"a\"b\r\n",
        "ECHO 'a'b\r\n",
        "ECHO \"a\\\r\n",
        "ECHO \"a\\\"\r\n",
        "ECHO 'a\\'\r\n",
        "ECHO \"\\x\r\n",
        "ECHO \"\\x4\"\r\n",
        "ECHO \"\\xzz\"\r\n",
        "ECHO \"\\x00\\x0d\\x0a\"\r\n",
        "NO\"such\"\r\n",
        "\"no such\"\r\n",
        "\"no\\r\\nsuch\" \"a\\nb\" \"\\x00b\"\r\n",
        "'' '' ''\r\n",
        "\"\"\r\n",
        "PING\0\r\n",
        "\0PING\r\n",
        "PING a\0b\r\nPING\r\n",
        "ECHO \"a\0b\"\r\n",
        "\0\0\0\0\r\n",
        "PING\n\0\n",
        "\r\n\r\n\n\nPING\n",
        "\r\r\n",
        "PING\r\r\n",
        "PING\rPING\r\n",
        "   \t  \r\n",
        "\x0bPING\r\n",
        "\x0cPING\x0c\r\n",
        "PING",
        "PING\r",
        "GET\r\n",
        "GET a b c\r\n",
        "SET w\r\n",
        "SET w v NOSUCH\r\n",
        "SET w v EX\r\n",
        "SET w v EX -1\r\n",
        "SET w v EX 9223372036854775808\r\n",
        "MGET\r\n",
        "MSET w\r\n",
        "MSET w v w\r\n",
        "DEL\r\n",
        "EXPIRE w\r\n",
        "EXPIRE w a\r\n",
        "OBJECT\r\n",
        "OBJECT NOSUCH w\r\n",
        "CONFIG\r\n",
        "CLIENT NOSUCH\r\n",
        "EVAL\r\n",
        "EVAL x\r\n",
        "EVAL x -1\r\n",
        "EVAL x 2 k\r\n",
        "EXEC\r\n",
        "DISCARD\r\n",
        "MULTI\r\nMULTI\r\n",
        "MULTI\r\nNOSUCH\r\nEXEC\r\n",
        "MULTI\r\nGET alpha\r\nGET bravo\r\nGET charlie\r\nGET delta\r\nGET echo\r\nGET foxtrot\r\nGET golf\r\nEXEC\r\n",
        "SELECT 99\r\n",
        "SELECT x\r\n",
        "HELLO 9\r\n",
        "HELLO x\r\n",
        "ECHO\r\n",
        "PING a b\r\n",
        "NOSUCH a b c d e f g h i j k l m n o p q r s t u v w x y z aa bb cc dd ee ff gg hh\r\n",
        "\u{fc}\u{e4} \u{20ac}\r\n",
        "+OK\r\n",
        "-ERR x\r\n",
        ":1\r\n",
        "$4\r\nPING\r\n",
        "$-1\r\n",
        "-1\r\n",
    ])
}

/// Lines above what Redis takes, with an end and without.
fn long_lines() -> Vec<Vec<u8>> {
    let line = |first: &str, bytes: usize, end: &str| {
        let mut line = first.as_bytes().to_vec();
        line.resize(bytes, b'1');
        line.extend_from_slice(end.as_bytes());
        line
    };
    let mut all = Vec::new();
    for first in ["", "PING ", "*", "*1\r\n$", "*1\r\nX", "\"", "PING\0"] {
        for end in ["", "\n", "\r\n"] {
            all.push(line(first, LONG_LINE_BYTES, end));
            all.push(line(first, 2 * LONG_LINE_BYTES, end));
        }
    }
    all.push(line("", 65_536, "\r\n"));
    all.push(line("", 65_537, ""));
    all.push(line("", 65_536, ""));
    all.push(line("\0", LONG_LINE_BYTES, "\r\n"));
    all.push(vec![0; LONG_LINE_BYTES]);
    all
}

fn other_protocols() -> Vec<Vec<u8>> {
    let mut all = texts([
        "POST / HTTP/1.1\r\n",
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nPING\r\n",
        "post /\r\nPING\r\n",
        "Host: localhost\r\n",
        "HOST: localhost\r\nPING\r\n",
        "*1\r\n$4\r\nPOST\r\n",
        "*2\r\n$5\r\nhOsT:\r\n$1\r\nx\r\nPING\r\n",
        "PING\r\nPOST / HTTP/1.1\r\n",
        "MULTI\r\nPOST / HTTP/1.1\r\nEXEC\r\n",
        "POSTS\r\n",
        "Host\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8.0\r\nAccept: */*\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "OPTIONS * HTTP/1.0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "EHLO localhost\r\n",
        "USER root\r\nPASS x\r\n",
        // memcached, text
        "set w 0 0 3\r\nabc\r\n",
        "set w 0 0 3 noreply\r\nabc\r\n",
        "add w 0 0 1\r\na\r\n",
        "gets k\r\n",
        "get k k2\r\n",
        "cas w 0 0 1 7\r\na\r\n",
        "delete w\r\n",
        "incr w 5\r\n",
        "stats\r\n",
        "version\r\n",
        "verbosity 1\r\n",
        "flush_all\r\n",
        "mg k v\r\n",
    ]);
    // TLS client hello, and the old one.
    all.push(
        b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03abcdefghijklmnopqrstuvwxyzabcdef\x00\x00\x04\x13\x01\x13\x02\x01\x00"
            .to_vec(),
    );
    all.push(b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10\r\n".to_vec());
    // memcached, binary: GET k
    all.push(b"\x80\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00k".to_vec());
    // PostgreSQL's startup, MongoDB's hello, a PROXY line.
    all.push(b"\x00\x00\x00\x08\x04\xd2\x16\x2f".to_vec());
    all.push(b"\x3a\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\xd4\x07\x00\x00".to_vec());
    all.push(b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\nPING\r\n".to_vec());
    all
}

/// What servers say and clients must not.
fn resp3() -> Vec<Vec<u8>> {
    let values = [
        "%1\r\n+a\r\n:1\r\n",
        "~1\r\n$4\r\nPING\r\n",
        ">2\r\n$4\r\nPING\r\n:1\r\n",
        "|1\r\n+a\r\n:1\r\n*1\r\n$4\r\nPING\r\n",
        ",1.5\r\n",
        ",inf\r\n",
        "#t\r\n",
        "_\r\n",
        "(3492890328409238509324850943850943825024385\r\n",
        "=8\r\ntxt:PING\r\n",
        "!5\r\nERR x\r\n",
        "$?\r\n;4\r\nPING\r\n;0\r\n",
        "*?\r\n$4\r\nPING\r\n.\r\n",
        "+PING\r\n",
        "-PING\r\n",
        ":4\r\n",
    ];
    let places = ["#", "*1\r\n#", "*2\r\n$4\r\nECHO\r\n#", "PING\r\n#PING\r\n"];
    let of = |place: &str| texts(values.map(|value| place.replace('#', value)));
    places.into_iter().flat_map(of).collect()
}

/// Sound requests, several at once; `name` keeps their keys apart.
fn sound(name: &str) -> Vec<Vec<u8>> {
    let (key, other) = (format!("{name}:a"), format!("{name}:b"));
    let (key, other) = (key.as_str(), other.as_str());
    let pipelines: [&[&[&str]]; 6] = [
        &[&["SET", key, "value"], &["GET", key], &["DEL", key]],
        &[
            &["MSET", key, "1", other, "2"],
            &["MGET", key, other, "none"],
        ],
        &[
            &["PING"],
            &["ECHO", "abc"],
            &["INCR", key],
            &["INCRBY", key, "10"],
        ],
        &[
            &["RPUSH", key, "x", "y"],
            &["LRANGE", key, "0", "-1"],
            &["LLEN", other],
        ],
        &[
            &["HSET", key, "f", "v"],
            &["HGETALL", key],
            &["TYPE", key],
            &["EXPIRE", key, "1000"],
        ],
        &[
            &["MULTI"],
            &["SET", key, "x"],
            &["GET", key],
            &["EXEC"],
            &["EXISTS", key, other],
        ],
    ];
    let mut all: Vec<_> = pipelines
        .iter()
        .map(|commands| {
            let mut bytes = Vec::new();
            commands.iter().for_each(|words| encode(&mut bytes, words));
            bytes
        })
        .collect();
    all.push(format!("SET {key} \"a b\"\r\nGET {key}\r\nPING 'x y'\r\n").into_bytes());
    all
}

/// Sound requests that end too soon, after every byte.
fn halves() -> Vec<Vec<u8>> {
    let of = |bytes: Vec<u8>| {
        let cuts = 1..bytes.len();
        cuts.map(move |cut| bytes[..cut].to_vec())
    };
    sound("half").into_iter().flat_map(of).collect()
}

fn mutations(random: &mut Rng) -> Vec<Vec<u8>> {
    let one = |number: usize| {
        let all = sound(&format!("{:08x}{number:04}", random.u32(..)));
        let mut bytes = all[random.usize(..all.len())].clone();
        let other = &all[random.usize(..all.len())];
        for _ in 0..random.usize(1..4) {
            mutate(&mut bytes, other, random);
        }
        bytes
    };
    (0..MUTATIONS).map(one).collect()
}

fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Rng) {
    const TELLING: &[u8] = b"*$\r\n0123456789-+ \"'\\\0\xff";
    if bytes.is_empty() {
        return bytes.extend_from_slice(other);
    }
    let at = random.usize(..bytes.len());
    let telling = TELLING[random.usize(..TELLING.len())];
    match random.u8(..8) {
        0 => bytes[at] = random.u8(..),
        1 => bytes[at] = telling,
        2 => bytes.insert(at, telling),
        3 => {
            bytes.remove(at);
        }
        4 => bytes.truncate(at),
        5 => {
            let end = (at + random.usize(1..10)).min(bytes.len());
            bytes.drain(at..end);
        }
        6 => {
            let end = (at + random.usize(1..20)).min(bytes.len());
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        _ => {
            let from = random.usize(..other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
    }
}
