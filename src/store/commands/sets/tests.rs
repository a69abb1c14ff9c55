//! Sets and hashes by hand: what a random test against Redis cannot see.

use std::collections::BTreeSet;

use crate::store::commands::NotifyFlags;
use crate::store::session::world::World;

fn numbers(range: std::ops::Range<u32>) -> Vec<Vec<u8>> {
    range
        .map(|number| format!("member-{number}").into_bytes())
        .collect()
}

fn add(world: &mut World, client: usize, name: &str, key: &str, members: &[Vec<u8>]) {
    for part in members.chunks(500) {
        let mut words: Vec<&[u8]> = vec![name.as_bytes(), key.as_bytes()];
        words.extend(part.iter().map(Vec::as_slice));
        world.send(client, &words);
    }
}

fn words(reply: &str) -> Vec<String> {
    let inner = reply.trim_start_matches('[').trim_end_matches(']');
    inner
        .split(' ')
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_whole_scan_gives_all_that_was_there_throughout() {
    let mut world = World::new();
    let a = world.client();
    let stays = numbers(0..2_000);
    add(&mut world, a, "SADD", "s", &stays);
    let (mut found, mut cursor, mut calls) = (BTreeSet::new(), "0".to_owned(), 0_u32);
    loop {
        let part = words(&world.say(a, &format!("SSCAN s {cursor} COUNT 50")));
        cursor = part[0].clone();
        let members = part[1..]
            .iter()
            .map(|word| word.trim_start_matches('[').to_owned());
        found.extend(members.filter(|word| !word.is_empty()));
        if cursor == "0" {
            break;
        }
        calls += 1;
        // Others come and go meanwhile.
        world.say(a, &format!("SADD s other-{calls}"));
        world.say(a, &format!("SREM s other-{}", calls / 2));
    }
    assert!(calls > 20, "{calls} calls");
    for member in &stays {
        let member = String::from_utf8_lossy(member).into_owned();
        assert!(found.contains(&member), "{member} is missing");
    }
}

#[test]
fn a_set_that_grew_and_shrank_tells_the_log_of_no_chance() {
    let mut world = World::new();
    let a = world.client();
    let all = numbers(0..1_000);
    add(&mut world, a, "SADD", "s", &all);
    assert_eq!(world.say(a, "SCARD s"), ":1000");
    world.effects();
    let one = world.say(a, "SPOP s");
    assert_eq!(world.effects(), format!("SREM s {one}"));
    let three = words(&world.say(a, "SPOP s 3"));
    assert_eq!(world.effects(), format!("SREM s {}", three.join(" ")));
    let distinct: BTreeSet<_> = words(&world.say(a, "SRANDMEMBER s 900"))
        .into_iter()
        .collect();
    assert_eq!(distinct.len(), 900);
    assert_eq!(words(&world.say(a, "SRANDMEMBER s -2000")).len(), 2_000);
    assert_eq!(world.say(a, "SCARD s"), ":996");
    world.effects();
    // Most are taken: what is left moves into another set.
    assert_eq!(words(&world.say(a, "SPOP s 990")).len(), 990);
    assert!(world.effects().starts_with("SREM s "));
    let left = words(&world.say(a, "SMEMBERS s"));
    assert_eq!(left.len(), 6);
    assert_eq!(words(&world.say(a, "SPOP s 6")).len(), 6);
    assert_eq!(world.effects(), "DEL s");
    assert_eq!(world.say(a, "EXISTS s"), ":0");
}

#[test]
fn what_is_stored_may_be_made_of_what_it_replaces() {
    let mut world = World::new();
    let a = world.client();
    add(&mut world, a, "SADD", "x", &numbers(0..3_000));
    add(&mut world, a, "SADD", "y", &numbers(1_500..4_500));
    assert_eq!(world.say(a, "SINTERCARD 2 x y"), ":1500");
    assert_eq!(world.say(a, "SINTERCARD 2 x y LIMIT 7"), ":7");
    assert_eq!(world.say(a, "SDIFFSTORE z x y"), ":1500");
    assert_eq!(world.say(a, "SINTERSTORE x x y"), ":1500");
    assert_eq!(world.say(a, "SUNIONSTORE y x y"), ":3000");
    assert_eq!(world.say(a, "SINTERSTORE y y z"), ":0");
    assert_eq!(world.say(a, "EXISTS y"), ":0");
    assert_eq!(world.say(a, "SCARD x"), ":1500");
}

#[test]
fn members_longer_than_a_row_key_come_back_whole() {
    let mut world = World::new();
    let a = world.client();
    let long = |last: u8| [vec![b'x'; 9_000], vec![last]].concat();
    for last in b'a'..=b'c' {
        assert_eq!(world.send(a, &[b"SADD", b"s", &long(last)]), ":1");
        assert_eq!(world.send(a, &[b"HSET", b"h", &long(last), &[last]]), ":1");
    }
    assert_eq!(world.send(a, &[b"SADD", b"s", &long(b'a')]), ":0");
    assert_eq!(world.send(a, &[b"SISMEMBER", b"s", &long(b'd')]), ":0");
    assert_eq!(world.send(a, &[b"HGET", b"h", &long(b'b')]), "b");
    let mut members = words(&world.say(a, "SMEMBERS s"));
    members.sort();
    let wanted: Vec<Vec<u8>> = (b'a'..=b'c').map(long).collect();
    assert_eq!(
        members
            .iter()
            .map(|member| member.as_bytes().to_vec())
            .collect::<Vec<_>>(),
        wanted
    );
    assert_eq!(words(&world.say(a, "HKEYS h")).len(), 3);
    assert_eq!(
        world.send(a, &[b"SREM", b"s", &long(b'a'), &long(b'b'), &long(b'c')]),
        ":3"
    );
    assert_eq!(world.say(a, "EXISTS s"), ":0");
}

#[test]
fn fields_of_a_listpack_stay_in_order_when_they_have_rows() {
    let mut world = World::new();
    let a = world.client();
    // 200 fields of 50 bytes are a listpack, and too many bytes for a meta row.
    let names: Vec<String> = (0..200)
        .map(|number| format!("f{}", number * 7919 % 1_000))
        .collect();
    let value = "v".repeat(50);
    for name in &names {
        world.say(a, &format!("HSET h {name} {value}"));
    }
    assert_eq!(words(&world.say(a, "HKEYS h")), names);
    world.say(a, &format!("HSET h {} other", names[3]));
    world.say(a, &format!("HDEL h {}", names[5]));
    let left: Vec<String> = names
        .iter()
        .filter(|name| **name != names[5])
        .cloned()
        .collect();
    assert_eq!(words(&world.say(a, "HKEYS h")), left);
    assert!(world.say(a, "HSCAN h 0 COUNT 3").starts_with("[0 "));
    world.say(a, &format!("HSET h long {}", "v".repeat(65)));
    assert!(!world.say(a, "HSCAN h 0 COUNT 3").starts_with("[0 "));
    assert_eq!(world.say(a, "HLEN h"), ":200");
}

#[test]
fn members_of_an_intset_stand_by_number() {
    let mut world = World::new();
    let a = world.client();
    assert_eq!(world.say(a, "SADD s 10 -3 2 100 0"), ":5");
    assert_eq!(world.say(a, "SMEMBERS s"), "[-3 0 2 10 100]");
    world.say(a, "SREM s 2");
    assert_eq!(world.say(a, "SUNIONSTORE t s"), ":4");
    assert_eq!(world.say(a, "SMEMBERS t"), "[-3 0 10 100]");
}

#[test]
fn events_are_those_of_redis() {
    let mut world = World::new();
    let (a, b) = (world.client(), world.client());
    let flags = NotifyFlags::parse(b"EA").expect("letters");
    world.settings().notify = flags;
    world.say(b, "PSUBSCRIBE __keyevent@0__:*");
    let mut events = |line: &str| {
        world.say(a, line);
        let told = world.owed(b);
        let told = told.split("] [").map(|message| {
            let (event, key) = message
                .trim_end_matches(']')
                .rsplit_once(' ')
                .unwrap_or_default();
            format!("{}:{key}", event.rsplit_once(':').unwrap_or_default().1)
        });
        told.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(events("SADD s a"), "sadd:s");
    assert_eq!(events("SADD s a"), ":");
    assert_eq!(events("SMOVE s t a"), "srem:s del:s sadd:t");
    assert_eq!(events("SUNIONSTORE u t"), "sunionstore:u");
    assert_eq!(events("SINTERSTORE u t none"), "del:u");
    assert_eq!(events("SPOP t 5"), "spop:t del:t");
    assert_eq!(events("HSET h a 1 b 2"), "hset:h");
    assert_eq!(events("HINCRBY h a 1"), "hincrby:h");
    assert_eq!(events("HINCRBYFLOAT h a 0.5"), "hincrbyfloat:h");
    assert_eq!(events("HDEL h a b c"), "hdel:h del:h");
}

#[test]
fn a_float_is_told_to_the_log_as_what_came_out() {
    let mut world = World::new();
    let a = world.client();
    world.say(a, "HSET h f 10.50");
    world.effects();
    assert_eq!(world.say(a, "HINCRBYFLOAT h f 0.1"), "10.6");
    assert_eq!(world.effects(), "HSET h f 10.6");
    assert_eq!(world.say(a, "HSETNX h f 1"), ":0");
    assert_eq!(world.effects(), "");
}

#[test]
fn few_integers_that_are_left_of_many_are_an_intset_again() {
    let mut world = World::new();
    let a = world.client();
    let integers: Vec<Vec<u8>> = (0..600).map(|n: u32| n.to_string().into_bytes()).collect();
    add(&mut world, a, "SADD", "s", &integers);
    assert_eq!(world.say(a, "OBJECT ENCODING s"), "hashtable");
    assert_eq!(words(&world.say(a, "SPOP s 480")).len(), 480);
    assert_eq!(world.say(a, "OBJECT ENCODING s"), "hashtable");
    // Redis makes a new set of what is left if five times as much is taken.
    assert_eq!(words(&world.say(a, "SPOP s 100")).len(), 100);
    assert_eq!(world.say(a, "OBJECT ENCODING s"), "intset");
    let left = words(&world.say(a, "SMEMBERS s"));
    assert_eq!(left.len(), 20);
    assert!(left.is_sorted_by_key(|member| member.parse::<u32>().unwrap_or(0)));
}
