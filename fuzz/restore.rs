//! Values for servers of every kind: converted, restored, built by commands, whole and
//! in parts. What leaves is sound requests, one for each reply that is waited for, and
//! says what the value says: read from the payload, or gathered from the commands.
//! Refused values leave nothing. No panic, and no more memory than `memory.rs` allows.
//!
//! ```text
//! | server 1 | how 1 | value 1 (`values.rs`) | size 1 | input |
//!   |          |                               '- whole values have up to that many bytes;
//!   |          |                                  converted ones up to 16 times as many
//!   |          |- bit 0: what exists is kept        |- bit 3: .. before 1970
//!   |          |- bit 1: nothing by RESTORE         |- bit 4: with how it was used
//!   |          '- bit 2: the key expires            '- bit 5: with metadata
//!   '- of SERVERS; bits 6-7: what it keeps of the use of keys
//! ```

#![no_main]

mod arrays;
mod memory;
mod values;

use arrays::commands;
use keyferry::rdb::{Element, RawValue, ValueType, convert, decode, split_dump_payload, stand_ins};
use keyferry::restore::{
    CannotRestore, Dialect, How, KeyHead, Outcome, Overwrite, Reply, Requests, RestoreOptions,
    Restorer, ServerIdentity, ServerVersion, TEMPORARY_PREFIX, UsageKept, Vendor,
};
use libfuzzer_sys::fuzz_target;
use memory::Meter;
use values::{known, parts, value_bytes};

const SERVERS: [(Vendor, &str); 19] = [
    (Vendor::Redis, "2.6.17"),
    (Vendor::Redis, "3.0.7"),
    (Vendor::Redis, "3.2.13"),
    (Vendor::Redis, "4.0.14"),
    (Vendor::Redis, "5.0.14"),
    (Vendor::Redis, "6.2.14"),
    (Vendor::Redis, "7.0.15"),
    (Vendor::Redis, "7.2.5"),
    (Vendor::Redis, "7.4.0"),
    (Vendor::Redis, "8.6.0"),
    (Vendor::Redis, "8.8.0"),
    (Vendor::Redis, "8.10.0"),
    (Vendor::Valkey, "8.1.2"),
    (Vendor::Valkey, "9.1.0"),
    (Vendor::KeyDb, "6.3.4"),
    (Vendor::Dragonfly, "1.30.0"),
    (Vendor::Kvrocks, "2.12.0"),
    (Vendor::Pika, "3.5.5"),
    (Vendor::Other, "6.0.0"),
];

const KEY: &[u8] = b"the-key";
/// KEY_META of no classes.
const METADATA: &[u8] = &[243, 0];

/// What a value says, as far as every way of bringing it keeps that.
#[derive(Debug, Default, PartialEq)]
struct Content {
    string: Vec<u8>,
    /// Items, members, fields, entries, groups and what is pending, in order.
    items: Vec<Vec<u8>>,
    /// Fields that expire, in order, and when.
    expiries: Vec<(Vec<u8>, i64)>,
    inserted_at: Option<u64>,
}

fn text(text: impl ToString) -> Vec<u8> {
    text.to_string().into_bytes()
}

impl Content {
    fn of(value: &RawValue<'_>) -> Option<Content> {
        let mut content = Content::default();
        let decoded = decode(value, &mut |element| content.element(element));
        // Without an item there is no array that could have a cursor.
        if content.items.is_empty() {
            content.inserted_at = None;
        }
        decoded.ok().map(|()| content)
    }

    fn element(&mut self, element: Element<'_>) {
        match element {
            Element::String(bytes) | Element::StringPart(bytes) => {
                self.string.extend_from_slice(bytes);
            }
            Element::ListItem(item) | Element::SetMember(item) | Element::Module(item) => {
                self.items.push(item.to_vec());
            }
            Element::ScoredMember { member, score } => self.scored(member, score),
            Element::HashField {
                field,
                value,
                expires_at_ms,
            } => {
                self.items.extend([field.to_vec(), value.to_vec()]);
                if let Some(at_ms) = expires_at_ms {
                    // What has passed has passed.
                    self.expiries.push((field.to_vec(), at_ms.max(1)));
                }
            }
            Element::ArrayCursor { inserted_at } => self.inserted_at = Some(inserted_at),
            Element::ArrayItem { index, value } => {
                self.items.extend([text(index), value.to_vec()]);
            }
            Element::StreamEntry { id, fields } => {
                self.items.push(text(id));
                for (name, value) in fields {
                    self.items.extend([name.to_vec(), value.to_vec()]);
                }
            }
            Element::StreamState { last_id, .. } => self.items.push(text(last_id)),
            Element::StreamGroup { group, last_id, .. } => {
                self.items.extend([group.to_vec(), text(last_id)]);
            }
            Element::StreamPending {
                group,
                consumer: Some(consumer),
                id,
                delivered_at_ms,
                deliveries,
            } => self.items.extend([
                group.to_vec(),
                consumer.to_vec(),
                text(id),
                text(delivered_at_ms),
                text(deliveries),
            ]),
            Element::RateLimiter(arrival) => self.items.push(text(arrival)),
            // Not kept everywhere; the outcome names it.
            _ => {}
        }
    }

    fn scored(&mut self, member: &[u8], score: f64) {
        self.items.extend([text(score.to_bits()), member.to_vec()]);
    }

    /// Takes one command as a server would.
    fn command(&mut self, args: &[&[u8]]) {
        let copy = |args: &[&[u8]]| args.iter().map(|arg| arg.to_vec()).collect::<Vec<_>>();
        match args {
            [b"SET", _, value] => {
                assert!(self.string.is_empty());
                self.string.extend_from_slice(value);
            }
            [b"APPEND", _, value] => self.string.extend_from_slice(value),
            [b"RPUSH" | b"SADD" | b"HSET" | b"ARMSET", _, items @ ..] => {
                assert!(!items.is_empty());
                self.items.extend(copy(items));
            }
            [b"ZADD", _, pairs @ ..] => {
                for pair in pairs.chunks(2) {
                    let score = std::str::from_utf8(pair[0]).expect("text");
                    self.scored(pair[1], score.parse().expect("a score"));
                }
            }
            [b"HPEXPIREAT", _, at_ms, b"FIELDS", count, fields @ ..] => {
                assert_eq!(fields.len() as i64, number(count));
                let fields = copy(fields).into_iter();
                self.expiries
                    .extend(fields.map(|field| (field, number(at_ms))));
            }
            [b"ARSEEK", _, next] => {
                let next: u64 = std::str::from_utf8(next).unwrap().parse().unwrap();
                self.inserted_at = Some(next - 1);
            }
            // It makes the key, and keeps nothing.
            [b"XADD", _, b"MAXLEN", b"0", ..] => {}
            [b"XADD", _, entry @ ..] => self.items.extend(copy(entry)),
            [b"XSETID", _, last, ..] => self.items.push(last.to_vec()),
            [b"XGROUP", b"CREATE", _, group, last, ..] => self.items.extend(copy(&[group, last])),
            [
                b"XCLAIM",
                _,
                group,
                consumer,
                b"0",
                id,
                b"TIME",
                at_ms,
                _,
                deliveries,
                ..,
            ] => {
                self.items
                    .extend(copy(&[group, consumer, id, at_ms, deliveries]));
            }
            [
                b"UNLINK" | b"DEL" | b"RENAME" | b"RENAMENX" | b"PEXPIREAT" | b"PEXPIRE"
                | b"PERSIST" | b"XGROUP" | b"XREADGROUP" | b"XNACK" | b"XCFGSET" | b"XIDMPRECORD",
                ..,
            ] => {}
            other => panic!("{:?} was not expected", other.first()),
        }
    }
}

fn number(digits: &[u8]) -> i64 {
    std::str::from_utf8(digits)
        .expect("text")
        .parse()
        .expect("digits")
}

/// Names a command, so that no value is ever built under the key's own.
fn check_keys(args: &[&[u8]]) {
    let is_temporary = |name: &[u8]| name.starts_with(TEMPORARY_PREFIX.as_bytes());
    match args {
        [b"UNLINK" | b"DEL" | b"PEXPIREAT", name, ..] => {
            assert!(*name == KEY || is_temporary(name))
        }
        [b"RESTORE", name, ..] => assert!(*name == KEY || is_temporary(name)),
        [b"RENAME" | b"RENAMENX", from, to] => assert!(is_temporary(from) && *to == KEY),
        [b"XGROUP", _, name, ..] => assert!(is_temporary(name)),
        [b"XREADGROUP", .., name, _] => assert!(is_temporary(name)),
        [_, name, ..] => assert!(is_temporary(name)),
        other => panic!("{other:?} has no key"),
    }
}

fn head(how: u8) -> KeyHead<'static> {
    let at_ms = if how & 8 == 0 { 1_900_000_000_000 } else { -5 };
    let used = how & 0x10 != 0;
    KeyHead {
        key: KEY,
        expires_at_ms: (how & 4 != 0).then_some(at_ms),
        idle_s: used.then_some(12),
        freq: used.then_some(7),
        metadata: (how & 0x20 != 0).then_some(METADATA),
    }
}

fn restorer(server: u8, how: u8) -> Restorer {
    let (vendor, version) = SERVERS[usize::from(server & 0x3f) % SERVERS.len()];
    let usage_kept =
        [UsageKept::Neither, UsageKept::Idle, UsageKept::Frequency][usize::from(server >> 6) % 3];
    let identity = ServerIdentity {
        vendor,
        version: ServerVersion::parse(version).expect("a version"),
        usage_kept,
    };
    let overwrite = if how & 1 == 0 {
        Overwrite::Always
    } else {
        Overwrite::Never
    };
    let options = if how & 2 == 0 {
        RestoreOptions::new(overwrite, "t")
    } else {
        RestoreOptions::commands_only(overwrite, "t")
    };
    Restorer::new(Dialect::of(&identity), options)
}

/// What was appended for a value, and how it ended.
struct Sent {
    ended: Result<Outcome, CannotRestore>,
    bytes: Vec<u8>,
    replies: Vec<Reply>,
}

/// `parts`: the whole as one, unless the scanner cut it.
fn send(restorer: &mut Restorer, head: &KeyHead<'_>, type_id: ValueType, parts: &[&[u8]]) -> Sent {
    let (mut bytes, mut replies, mut meter) = (Vec::new(), Vec::new(), Meter::default());
    let mut requests = Requests {
        bytes: &mut bytes,
        replies: &mut replies,
    };
    let ended = meter.of(|| match parts {
        [bytes] => restorer.whole(&mut requests, head, &RawValue { type_id, bytes }),
        parts => {
            let mut large = restorer.begin(head, type_id)?;
            for (at, part) in parts.iter().enumerate() {
                let last = at + 1 == parts.len();
                match large.part(restorer, &mut requests, part, last) {
                    Ok(Some(outcome)) => return Ok(outcome),
                    Ok(None) => assert!(!last, "no outcome of the last part"),
                    Err(error) => {
                        large.abandon(&mut requests);
                        return Err(error);
                    }
                }
            }
            unreachable!("there is a last part")
        }
    });
    meter.check(parts.iter().map(|part| part.len()).sum());
    Sent {
        ended,
        bytes,
        replies,
    }
}

fn check_sent(sent: &Sent, restorer: &Restorer, value: &RawValue<'_>, in_parts: bool) {
    let requests = commands(&sent.bytes);
    assert_eq!(requests.len(), sent.replies.len());
    requests.iter().for_each(|args| check_keys(args));
    let content = Content::of(value);
    let named = requests.iter().any(|args| args[0].starts_with(b"RENAME"));
    let says = |name: &[u8]| requests.iter().any(|args| args[0] == name);
    if named && says(b"PEXPIRE") {
        assert!(says(b"PERSIST") || says(b"PEXPIREAT"), "a lease goes on");
    }
    let Ok(outcome) = sent.ended else {
        assert!(!named, "refused, and named");
        assert!(in_parts || requests.is_empty(), "refused, and sent");
        return;
    };
    let mut restored = requests.iter().filter(|args| args[0] == b"RESTORE");
    let Some(args) = restored.next() else {
        let mut gathered = Content::default();
        requests.iter().for_each(|args| gathered.command(args));
        match outcome.how {
            How::Commands => assert!(named),
            How::Empty => assert!(!named && (in_parts || requests.is_empty())),
            other => panic!("{other:?} without RESTORE"),
        }
        // An empty value is not looked into.
        if let Some(content) = content {
            assert_eq!(gathered, content);
        } else {
            assert_eq!(outcome.how, How::Empty);
        }
        return;
    };
    assert!(restored.next().is_none());
    let (payload, _) = split_dump_payload(args[3]).expect("a sound payload");
    assert!(restorer.dialect().restores(payload.type_id));
    match outcome.how {
        How::Raw => assert_eq!(payload, *value),
        How::Converted(layout) => {
            assert_eq!(payload.type_id, layout);
            if content.is_some() {
                assert_eq!(Content::of(&payload), content);
            }
        }
        other => panic!("{other:?} by RESTORE"),
    }
}

fn check_conversions(value: &RawValue<'_>, size: u8) {
    let content = Content::of(value);
    let bytes_max = usize::from(size) * 16;
    for &to in stand_ins(value.type_id) {
        let (mut out, mut meter) = (b"before".to_vec(), Meter::default());
        let converted = meter.of(|| convert(&mut out, value, to, bytes_max));
        meter.check(value.bytes.len());
        let bytes = out.strip_prefix(b"before").expect("what was there");
        if converted.is_err() {
            assert!(bytes.is_empty());
            continue;
        }
        assert!(bytes.len() <= bytes_max);
        let written = RawValue { type_id: to, bytes };
        if content.is_some() {
            assert_eq!(Content::of(&written), content);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let [server, how, value, size, input @ ..] = data else {
        return;
    };
    let Some((version, type_id)) = known(*value) else {
        return;
    };
    let bytes = value_bytes(type_id, *value, input);
    let head = head(*how);
    let whole = RawValue {
        type_id,
        bytes: &bytes,
    };
    let mut restorer = restorer(*server, *how);
    let sent = send(&mut restorer, &head, type_id, &[&bytes]);
    check_sent(&sent, &restorer, &whole, false);
    check_conversions(&whole, *size);

    let Some(parts) = parts(version, &whole, *size) else {
        return;
    };
    let joined = parts.concat();
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    if parts.len() > 1 {
        let sent = send(&mut restorer, &head, type_id, &parts);
        let whole = RawValue {
            type_id,
            bytes: &joined,
        };
        check_sent(&sent, &restorer, &whole, true);
    }
});
