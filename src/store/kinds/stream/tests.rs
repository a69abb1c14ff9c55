//! Streams by hand.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::rdb::{RawValue, ValueKind, decode};
use crate::store::format::object::Value;
use crate::store::kinds::build::{BuildLimits, Building};
use crate::store::kinds::hash::HashLimits;
use crate::store::kinds::set::SetLimits;
use crate::store::kinds::{plain, zset};
use crate::store::session::world::World;

fn id(ms: u64) -> StreamId {
    StreamId { ms, seq: 0 }
}

fn fields(words: &[&str]) -> Packed {
    words.iter().map(|word| word.as_bytes()).collect()
}

fn ids(rows: &Rows, stream: &StreamValue) -> Vec<u64> {
    let all = range(rows, stream, StreamId::MIN, StreamId::MAX).expect("entries");
    all.map(|entry| entry.expect("an entry").id.ms).collect()
}

#[test]
fn what_is_trimmed_is_what_redis_may_let_go_of() {
    let about = |limit| Measure::About { by: 100, limit };
    for (to, measure, left) in [
        (Trim::Length(7), Measure::Exact, 7),
        (Trim::Length(0), Measure::Exact, 0),
        (Trim::Length(900), Measure::Exact, 250),
        (Trim::Length(51), about(u64::MAX), 150),
        (Trim::Length(50), about(u64::MAX), 50),
        (Trim::Length(0), about(u64::MAX), 0),
        (Trim::Length(0), about(100), 150),
        (Trim::Length(0), about(99), 250),
        (Trim::Before(id(101)), Measure::Exact, 150),
        (Trim::Before(id(9999)), Measure::Exact, 0),
        (Trim::Before(id(1)), Measure::Exact, 250),
        (Trim::Before(id(200)), about(u64::MAX), 150),
        (Trim::Before(id(201)), about(u64::MAX), 50),
        (Trim::Before(id(9999)), about(u64::MAX), 0),
        (Trim::Before(id(9999)), about(10), 250),
    ] {
        let mut world = World::new();
        let keyspace = world.shard.keyspace();
        let mut stream = empty(keyspace);
        let rows = keyspace.rows();
        for ms in 1..=250 {
            append(rows, &mut stream, id(ms), &fields(&["f", "v"]));
        }
        let gone = trim(rows, &mut stream, to, measure).expect("trimmed");
        assert_eq!(
            (gone, stream.entries),
            (250 - left, left),
            "{to:?} {measure:?}"
        );
        assert_eq!(ids(rows, &stream), (251 - left..=250).collect::<Vec<_>>());
        assert_eq!(stream.first.ms, if left == 0 { 0 } else { 251 - left });
        assert_eq!(stream.last, id(250));
    }
}

#[test]
fn the_first_id_is_that_of_the_first_entry() {
    let mut world = World::new();
    let keyspace = world.shard.keyspace();
    let mut stream = empty(keyspace);
    let rows = keyspace.rows();
    for ms in 1..=5 {
        append(rows, &mut stream, id(ms), &fields(&["f", "v"]));
    }
    for (gone, first) in [(3, 1), (1, 2), (2, 4), (5, 4), (4, 0)] {
        assert!(delete(rows, &mut stream, id(gone)).expect("deleted"));
        assert!(!delete(rows, &mut stream, id(gone)).expect("looked for"));
        assert_eq!(stream.first.ms, first, "without {gone}");
    }
    assert_eq!((stream.max_deleted, stream.added), (id(5), 5));
    append(rows, &mut stream, id(9), &fields(&["f", "v"]));
    assert_eq!((stream.first, ids(rows, &stream)), (id(9), vec![9]));
}

/// Which entries are pending, and for whom.
type Model = BTreeMap<u64, (String, u64)>;

fn assert_like(rows: &Rows, stream: &StreamValue, model: &Model, names: &BTreeSet<String>) {
    let group = group(rows, stream, b"g").expect("rows").expect("a group");
    let all = pending_between(rows, stream, &group, StreamId::MIN, StreamId::MAX);
    let found: Model = all
        .expect("rows")
        .map(|found| {
            let Pending {
                id,
                times,
                consumer,
                ..
            } = found.expect("a row");
            (
                id.ms,
                (String::from_utf8(consumer.to_vec()).expect("text"), times),
            )
        })
        .collect();
    assert_eq!(&found, model);
    assert_eq!(group.pending, model.len() as u64);
    assert_eq!(group.consumers, names.len() as u64);
    let consumers = consumers(rows, stream, &group).expect("rows");
    assert_eq!(consumers.len(), names.len());
    for (consumer, name) in consumers.iter().zip(names) {
        assert_eq!(&*consumer.name, name.as_bytes());
        let owned = owned_between(rows, stream, &group, consumer, StreamId::MIN, StreamId::MAX);
        let owned: Vec<u64> = owned
            .expect("rows")
            .map(|id| id.expect("a row").ms)
            .collect();
        let of_it = model.iter().filter(|(_, (owner, _))| owner == name);
        assert_eq!(
            owned,
            of_it.map(|(id, _)| *id).collect::<Vec<_>>(),
            "of {name}"
        );
        assert_eq!(consumer.pending, owned.len() as u64);
    }
}

#[test]
fn what_is_pending_stands_in_both_places_whatever_happens() {
    let mut world = World::new();
    let keyspace = world.shard.keyspace();
    let mut stream = empty(keyspace);
    let rows = keyspace.rows();
    create_group(&mut stream, b"g", StreamId::MIN, None).put(rows, &stream);
    let mut rng = fastrand::Rng::with_seed(5);
    let (mut model, mut names) = (Model::new(), BTreeSet::new());
    for _ in 0..2_000 {
        let group = group(rows, &stream, b"g").expect("rows").expect("a group");
        let mut open = Membership::open(group);
        for _ in 0..rng.usize(1..6) {
            let (ms, name) = (rng.u64(1..60), format!("c{}", rng.u8(..4)));
            let was = open.pending(rows, &stream, id(ms)).expect("rows");
            assert_eq!(was.is_some(), model.contains_key(&ms));
            match (rng.u8(..40), was) {
                (0, _) => {
                    let left = open.leave(rows, &stream, name.as_bytes()).expect("rows");
                    assert_eq!(left.is_some(), names.remove(&name));
                    model.retain(|_, (owner, _)| *owner != name);
                }
                (1..20, Some(was)) => {
                    open.take(rows, &stream, &was).expect("taken");
                    model.remove(&ms);
                }
                (_, was) => {
                    if names.insert(name.clone()) {
                        open.join(&mut stream, name.as_bytes(), 0);
                    }
                    let times = rng.u64(..9);
                    let pending = Pending {
                        id: id(ms),
                        delivered_ms: 1,
                        times,
                        consumer: Bytes::from(name.clone()),
                    };
                    open.give(rows, &stream, &pending, was.as_ref())
                        .expect("given");
                    model.insert(ms, (name, times));
                }
            }
        }
        open.put(rows, &stream);
        assert_like(rows, &stream, &model, &names);
    }
    let group = group(rows, &stream, b"g").expect("rows").expect("a group");
    destroy_group(rows, &mut stream, &group).expect("gone");
    let [from, to] = [kind::GROUP, kind::GROUP + 1].map(|kind| row::sub(stream.id, kind));
    assert_eq!(rows.rows_between(&from, &to).expect("rows").count(), 0);
}

fn limits() -> BuildLimits {
    BuildLimits {
        hash: HashLimits {
            entries_max: 1,
            bytes_max: 1,
        },
        set: SetLimits {
            intset_entries_max: 1,
        },
        zset: zset::Limits {
            members: 1,
            member_bytes: 1,
        },
    }
}

#[test]
fn a_stream_is_built_of_what_was_written_of_it() {
    let mut world = World::new();
    let a = world.client();
    let say = |world: &mut World, line: &str| drop(world.say(a, line));
    say(
        &mut world,
        "XGROUP CREATE empty g 5-5 MKSTREAM ENTRIESREAD 3",
    );
    for number in 1..=260 {
        let odd = if number % 7 == 0 { " other field" } else { "" };
        let long = "x".repeat(if number % 50 == 0 { 5_000 } else { number % 9 });
        say(
            &mut world,
            &format!("XADD plain {number} f {number} g {long}{odd}"),
        );
        say(
            &mut world,
            &format!("XADD gaps {number} f {number} g -{number}"),
        );
    }
    for line in [
        "XDEL gaps 1 7 100 260",
        "XTRIM gaps MAXLEN 200",
        "XGROUP CREATE plain all 0 ENTRIESREAD 0",
        "XGROUP CREATE plain none $ ENTRIESREAD 260",
        "XGROUP CREATE gaps g 0",
        "XREADGROUP GROUP g alice COUNT 20 STREAMS gaps >",
        "XREADGROUP GROUP g bob COUNT 5 STREAMS gaps >",
        "XGROUP CREATECONSUMER gaps g idle",
        "XACK gaps g 80 81",
        "XDEL gaps 90",
        "COPY plain fresh",
        "XGROUP CREATE fresh end $",
        "XGROUP CREATE fresh begin 0",
        "XGROUP CREATE fresh between 100",
        "COPY plain middle",
        "XREADGROUP GROUP all alice COUNT 3 STREAMS middle >",
    ] {
        say(&mut world, line);
    }
    let types = [
        ("empty", 19),
        ("plain", 15),
        ("gaps", 19),
        ("middle", 19),
        ("fresh", 15),
    ];
    for (key, type_number) in types {
        let keyspace = world.shard.keyspace();
        let object = keyspace
            .lookup(0, key.as_bytes())
            .expect("rows")
            .expect("a key");
        let type_id = plain::type_of(keyspace.rows_read(), &object.value).expect("a type");
        assert_eq!(type_id.byte(), type_number, "{key}");
        let mut bytes = Vec::new();
        let keep = &mut |_: &mut Vec<u8>| Ok::<(), StoreError>(());
        plain::write(keyspace.rows_read(), &object.value, &mut bytes, keep).expect("written");
        let mut building = Building::new(ValueKind::Stream, limits()).expect("a kind");
        let value = RawValue {
            type_id,
            bytes: &bytes,
        };
        let decoded = decode(&value, &mut |element| {
            building.push(keyspace, &element).expect("an element");
        });
        assert_eq!(decoded, Ok(()), "{key}");
        let built = building.finish(keyspace).expect("a value");
        let Value::Stream(stream) = &built else {
            panic!("{built:?} of {key}");
        };
        assert_ne!(Some(stream.id), object.value.id());
        let copy = format!("{key}:built");
        keyspace
            .put_value(0, copy.as_bytes(), None, built)
            .expect("put");
        let [wanted, found] =
            [key, &copy].map(|key| world.say(a, &format!("XINFO STREAM {key} FULL COUNT 0")));
        match key {
            // Of the two that know nothing, what was reckoned is true.
            "fresh" => {
                let read = |text: &str| {
                    let words = text.split(' ').collect::<Vec<_>>();
                    let pairs = words.windows(2).filter(|pair| pair[0] == "entries-read");
                    pairs.map(|pair| pair[1].to_owned()).collect::<Vec<_>>()
                };
                assert_eq!(read(&wanted), [":0", "nil", "nil", "nil", ":260"]);
                assert_eq!(read(&found), [":0", ":0", "nil", ":260", ":260"]);
            }
            _ => assert_eq!(found, wanted, "{key}"),
        }
    }
}

#[test]
fn rows_that_are_not_as_many_as_the_object_says_are_an_error() {
    let mut world = World::new();
    let keyspace = world.shard.keyspace();
    let mut stream = empty(keyspace);
    append(keyspace.rows(), &mut stream, id(1), &fields(&["f", "v"]));
    stream.entries = 2;
    let mut out = Vec::new();
    let keep = &mut |_: &mut Vec<u8>| Ok::<(), StoreError>(());
    let written = write(keyspace.rows_read(), &stream, &mut out, keep);
    assert!(
        matches!(written, Err(StoreError::BadRow { .. })),
        "{written:?}"
    );
}

#[test]
fn how_far_a_group_is_behind_is_reckoned_as_redis_does() {
    let mut stream = StreamValue {
        id: row::ObjectId(1),
        entries: 5,
        last: id(10),
        first: id(6),
        max_deleted: StreamId::MIN,
        added: 10,
        groups: 1,
        numbered: 1,
    };
    let place = |stream: &StreamValue, ms| counters::place(stream, id(ms));
    assert_eq!(place(&stream, 10), Some(10));
    assert_eq!(place(&stream, 11), None);
    assert_eq!(place(&stream, 6), Some(6));
    assert_eq!(place(&stream, 3), Some(5));
    assert_eq!(place(&stream, 8), None);
    stream.max_deleted = id(7);
    assert_eq!(place(&stream, 6), None);
    stream.entries = 0;
    assert_eq!(place(&stream, 6), Some(10));
    stream.added = 0;
    assert_eq!(place(&stream, 99), Some(0));
}

/// A stream with all kinds of rows; its object id is `id`.
fn with_all_rows(rows: &mut Rows, id_of_it: u64) -> StreamValue {
    let mut stream = StreamValue {
        id: row::ObjectId(id_of_it),
        entries: 0,
        last: StreamId::MIN,
        first: StreamId::MIN,
        max_deleted: StreamId::MIN,
        added: 0,
        groups: 0,
        numbered: 0,
    };
    append(
        rows,
        &mut stream,
        StreamId { ms: 1, seq: 2 },
        &fields(&["f", "v"]),
    );
    let mut open = create_group(&mut stream, b"g", id(5), None);
    open.join(&mut stream, b"c", 6);
    let pending = Pending {
        id: id(7),
        delivered_ms: 8,
        times: 9,
        consumer: Bytes::from_static(b"c"),
    };
    open.give(rows, &stream, &pending, None).expect("given");
    open.put(rows, &stream);
    stream
}

/// They are on disks: what is written once has to be read for ever.
#[test]
fn rows_are_those_of_the_first_version() {
    let mut world = World::new();
    let rows = world.shard.keyspace().rows();
    let stream = with_all_rows(rows, 3);
    let [from, to] = [kind::ENTRY, kind::GROUP + 1].map(|kind| row::sub(stream.id, kind));
    let held = rows.rows_between(&from, &to).expect("rows");
    let text = |bytes: &[u8]| {
        let short = bytes.escape_ascii().to_string();
        short.replace("\\x00\\x00\\x00\\x00\\x00\\x00\\x00", "~")
    };
    let held: Vec<_> = held
        .map(|row| row.expect("a row"))
        .map(|(key, value)| format!("{} = {}", text(&key), text(&value)))
        .collect();
    assert_eq!(
        held,
        [
            "S~\\x03E~\\x01~\\x02 = \\x01f\\x01v",
            "S~\\x03G\\x00g = ~\\x01~\\x05~\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff~\\x01~\\x01~\\x07~~\\x00\\x07~\\x00",
            "S~\\x03G\\x01~\\x01c = ~\\x02~\\x06~\\x01",
            "S~\\x03G\\x02~\\x01~\\x07~\\x00 = ~\\x08~\\tc",
            "S~\\x03G\\x03~\\x01~\\x02~\\x07~\\x00 = ",
        ]
    );
}

#[test]
fn what_no_server_wrote_is_refused_or_a_stream() {
    let mut world = World::new();
    let keyspace = world.shard.keyspace();
    let stream = with_all_rows(keyspace.rows(), 3);
    let mut bytes = Vec::new();
    let keep = &mut |_: &mut Vec<u8>| Ok::<(), StoreError>(());
    write(keyspace.rows_read(), &stream, &mut bytes, keep).expect("written");
    let type_id = type_of(keyspace.rows_read(), &stream).expect("a type");
    let mut rng = fastrand::Rng::with_seed(3);
    let (mut built, mut refused) = (0, 0);
    for _ in 0..4_000 {
        let mut damaged = bytes.clone();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(..damaged.len());
            damaged[at] = rng.u8(..);
        }
        damaged.truncate(damaged.len() - rng.usize(..3));
        let value = RawValue {
            type_id,
            bytes: &damaged,
        };
        let mut building = Building::new(ValueKind::Stream, limits()).expect("a kind");
        let mut is_fine = true;
        let decoded = decode(&value, &mut |element| {
            is_fine = is_fine && building.push(keyspace, &element).is_ok();
        });
        if decoded.is_err() || !is_fine {
            building.abandon(keyspace);
            refused += 1;
            continue;
        }
        let Some(Value::Stream(stream)) = building.finish(keyspace) else {
            continue;
        };
        let mut again = Vec::new();
        write(keyspace.rows_read(), &stream, &mut again, keep).expect("it is whole");
        built += 1;
    }
    assert!(
        built > 100 && refused > 100,
        "{built} built, {refused} refused"
    );
}
