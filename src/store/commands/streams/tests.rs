//! What streams tell the log, and who waits for them. Replies are the differential test's.

use crate::store::session::world::World;

/// Everything that is known of a stream, to be compared: but for when consumers were last
/// seen, which is told only with what they were given.
fn all_of(world: &mut World, client: usize, key: &str) -> String {
    let all = world.say(client, &format!("XINFO STREAM {key} FULL COUNT 0"));
    let mut parts = all.split("seen-time :");
    let first = parts.next().unwrap_or_default().to_owned();
    let digits = |part: &str| {
        part.trim_start_matches(|digit: char| digit.is_ascii_digit())
            .to_owned()
    };
    parts.fold(first, |all, part| all + &digits(part))
}

#[test]
fn the_log_is_told_what_became_of_it() {
    let mut world = World::new();
    let a = world.client();
    for (said, told) in [
        ("XADD s * f v", "SELECT 0 XADD s 1700000000000-0 f v"),
        ("XADD s 1700000000000-* f v", "XADD s 1700000000000-1 f v"),
        (
            "XADD s NOMKSTREAM 1700000000005 f v",
            "XADD s NOMKSTREAM 1700000000005 f v",
        ),
        ("XADD none NOMKSTREAM * f v", ""),
        (
            "XADD s MAXLEN ~ 1 * f v",
            "XADD s MAXLEN = 4 1700000000005-1 f v",
        ),
        (
            "XADD s MAXLEN 3 * f v",
            "XADD s MAXLEN 3 1700000000005-2 f v",
        ),
        ("XTRIM s MAXLEN ~ 2", ""),
        ("XADD t 1-1 f v", "XADD t 1-1 f v"),
        (
            "XTRIM t MINID ~ 9 LIMIT 50",
            "XTRIM t MINID = 18446744073709551615-18446744073709551615",
        ),
        (
            "XADD s MAXLEN ~ 0 LIMIT 0 2000000000000 f v",
            "XADD s MAXLEN = 0 2000000000000 f v",
        ),
        ("XDEL s 5", ""),
        ("XSETID s 2000000000001-7", "XSETID s 2000000000001-7"),
        (
            "XGROUP CREATE s g 2000000000001",
            "XGROUP CREATE s g 2000000000001",
        ),
        (
            "XGROUP CREATECONSUMER s g alice",
            "XGROUP CREATECONSUMER s g alice",
        ),
        ("XGROUP CREATECONSUMER s g alice", ""),
        ("XREADGROUP GROUP g alice STREAMS s >", ""),
        (
            "XREADGROUP GROUP g bob STREAMS s 0",
            "XGROUP CREATECONSUMER s g bob",
        ),
        ("XREADGROUP GROUP g bob STREAMS s 0", ""),
        ("XACK s g 5", ""),
        ("XGROUP DELCONSUMER s g nobody", ""),
        ("XGROUP DELCONSUMER s g bob", "XGROUP DELCONSUMER s g bob"),
        ("XGROUP DESTROY s g", "XGROUP DESTROY s g"),
        ("XGROUP DESTROY s g", ""),
    ] {
        world.say(a, said);
        assert_eq!(world.effects(), told, "{said}");
    }
}

#[test]
fn what_is_given_to_consumers_is_told_as_claims() {
    let mut world = World::new();
    let a = world.client();
    for line in ["XADD s 1 f v", "XADD s 2 f v", "XGROUP CREATE s g 0"] {
        world.say(a, line);
    }
    world.effects();
    let claim = |consumer: &str, id: &str, times: u32, last: &str| {
        format!(
            "XCLAIM s g {consumer} 0 {id} TIME 1700000000000 RETRYCOUNT {times} FORCE JUSTID \
             LASTID {last}"
        )
    };
    world.say(a, "XREADGROUP GROUP g alice COUNT 1 STREAMS s >");
    let wanted = format!(
        "MULTI {} XGROUP SETID s g 1-0 ENTRIESREAD 1 EXEC",
        claim("alice", "1-0", 1, "1-0")
    );
    assert_eq!(world.effects(), wanted);
    world.say(a, "XREADGROUP GROUP g bob NOACK STREAMS s >");
    assert_eq!(
        world.effects(),
        "MULTI XGROUP CREATECONSUMER s g bob XGROUP SETID s g 2-0 ENTRIESREAD 2 EXEC"
    );
    world.say(a, "XCLAIM s g bob 0 1");
    assert_eq!(world.effects(), claim("bob", "1-0", 2, "2-0"));
    world.say(a, "XCLAIM s g bob 0 2 FORCE JUSTID RETRYCOUNT 7");
    assert_eq!(world.effects(), claim("bob", "2-0", 7, "2-0"));
    world.say(a, "XCLAIM s g bob 0 9 LASTID 5-0");
    assert_eq!(world.effects(), "XGROUP SETID s g 5-0 ENTRIESREAD 2");
    world.say(a, "XDEL s 1");
    world.effects();
    assert_eq!(
        world.say(a, "XAUTOCLAIM s g carol 0 - COUNT 1"),
        "[2-0 [] [1-0]]"
    );
    assert_eq!(world.effects(), claim("bob", "1-0", 2, "5-0"), "it is gone");
    assert_eq!(
        world.say(a, "XAUTOCLAIM s g carol 0 - JUSTID"),
        "[0-0 [2-0] []]"
    );
    assert_eq!(world.effects(), claim("carol", "2-0", 7, "5-0"));
    assert_eq!(world.say(a, "XPENDING s g"), "[:1 2-0 2-0 [[carol 1]]]");
}

#[test]
fn effects_make_the_same_stream_elsewhere() {
    let (mut world, mut other) = (World::new(), World::new());
    let (a, b) = (world.client(), other.client());
    let mut rng = fastrand::Rng::with_seed(11);
    for number in 0..3_000 {
        let id = rng.u32(1..40);
        let who = ["alice", "bob", "carol"][rng.usize(..3)];
        let line = match rng.u32(..16) {
            0..5 => format!("XADD s MAXLEN ~ 150 * f {number}"),
            5 => format!("XADD s MAXLEN {} * f {number}", rng.u32(1..200)),
            6 | 7 => format!(
                "XREADGROUP GROUP g {who} COUNT {} STREAMS s >",
                rng.u32(1..4)
            ),
            8 => format!("XREADGROUP GROUP g {who} NOACK COUNT 1 STREAMS s >"),
            9 => format!("XACK s g 17000000000{id:02}-0 17000000000{id:02}-1"),
            10 => format!("XCLAIM s g {who} 0 17000000000{id:02}-0 17000000000{id:02}-1 FORCE"),
            11 => format!("XAUTOCLAIM s g {who} 0 17000000000{id:02} COUNT 2"),
            12 => format!("XDEL s 17000000000{id:02}-0 17000000000{id:02}-2"),
            13 => format!("XGROUP DELCONSUMER s g {who}"),
            14 => format!("XGROUP CREATE s g {} MKSTREAM", ["0", "$"][rng.usize(..2)]),
            _ if rng.u32(..10) == 0 => "XGROUP DESTROY s g".to_owned(),
            _ => "XTRIM s MAXLEN ~ 90 LIMIT 100".to_owned(),
        };
        world.say(a, &line);
        let bytes = world.shard.effects().bytes().to_vec();
        world.shard.effects().clear();
        other.shard.apply(&bytes, 0).expect("applied");
        if rng.u32(..8) == 0 {
            let now_ms = 1_700_000_000_000 + u64::from(rng.u32(..40));
            world.shard.set_now_ms(now_ms);
            other.shard.set_now_ms(now_ms);
        }
        if number % 50 == 0 {
            let wanted = all_of(&mut world, a, "s");
            assert_eq!(all_of(&mut other, b, "s"), wanted, "after {line}");
        }
    }
    let pending = world.say(a, "XPENDING s g - + 1000");
    assert_eq!(other.say(b, "XPENDING s g - + 1000"), pending);
}

#[test]
fn who_reads_for_a_group_waits_for_what_nobody_was_given() {
    let mut world = World::new();
    let [a, b, c, d] = std::array::from_fn(|_| world.client());
    world.say(d, "XGROUP CREATE s g $ MKSTREAM");
    assert_eq!(
        world.say(a, "XREADGROUP GROUP g alice BLOCK 0 STREAMS s >"),
        ""
    );
    assert_eq!(
        world.say(b, "XREADGROUP GROUP g bob BLOCK 0 STREAMS s >"),
        ""
    );
    assert_eq!(world.say(c, "XREAD BLOCK 0 STREAMS s $"), "");
    world.effects();
    world.say(d, "XADD s 1 f v");
    assert_eq!(world.owed(a), "[[s [[1-0 [f v]]]]]");
    assert_eq!(world.owed(b), "", "alice has it");
    assert_eq!(world.owed(c), "[[s [[1-0 [f v]]]]]");
    let told = world.effects();
    assert!(
        told.starts_with("XADD s 1 f v MULTI XCLAIM s g alice 0 1-0"),
        "{told}"
    );
    world.say(d, "XADD s 2 f v");
    assert_eq!(world.owed(b), "[[s [[2-0 [f v]]]]]");
}

#[test]
fn who_reads_for_a_group_is_told_when_it_is_gone() {
    for (ends, told) in [
        ("DEL s", "-UNBLOCKED the stream key no longer exists"),
        ("SET s text", "-UNBLOCKED the stream key no longer exists"),
        ("FLUSHALL", "-UNBLOCKED the stream key no longer exists"),
        ("RENAME s t", "-UNBLOCKED the stream key no longer exists"),
        (
            "XGROUP DESTROY s g",
            "-NOGROUP the consumer group this client was blocked on no longer exists",
        ),
    ] {
        let mut world = World::new();
        let [a, b, c] = std::array::from_fn(|_| world.client());
        world.say(c, "XGROUP CREATE s g $ MKSTREAM");
        assert_eq!(world.say(a, "XREAD BLOCK 0 STREAMS s $"), "");
        assert_eq!(
            world.say(b, "XREADGROUP GROUP g bob BLOCK 0 STREAMS s >"),
            ""
        );
        world.say(c, ends);
        assert_eq!(world.owed(b), told, "{ends}");
        assert_eq!(world.owed(a), "", "{ends}");
        world.say(c, "DEL s");
        world.say(c, "XADD s 1 f v");
        assert_eq!(world.owed(a), "[[s [[1-0 [f v]]]]]", "{ends}");
    }
}

#[test]
fn who_waits_is_woken_by_entries_only() {
    let mut world = World::new();
    let [a, b] = std::array::from_fn(|_| world.client());
    world.say(b, "XADD s 1 f v");
    world.say(b, "XADD s 2 f v");
    assert_eq!(world.say(a, "XREAD BLOCK 0 STREAMS s $"), "");
    for line in [
        "XSETID s 5",
        "XDEL s 1",
        "XTRIM s MAXLEN 0",
        "XGROUP CREATE s g 0",
    ] {
        world.say(b, line);
        assert_eq!(world.owed(a), "", "{line}");
    }
    for line in ["MULTI", "XADD s 9 f v", "XDEL s 9", "EXEC"] {
        world.say(b, line);
    }
    assert_eq!(world.owed(a), "[[s []]]", "as Redis has it");
}

#[test]
fn who_watches_is_told_of_entries_and_not_of_groups() {
    let mut world = World::new();
    let [a, b] = std::array::from_fn(|_| world.client());
    for line in ["XADD s 1 f v", "XADD s 2 f v", "XGROUP CREATE s g 0"] {
        world.say(b, line);
    }
    for (line, is_told) in [
        ("XREADGROUP GROUP g bob COUNT 1 STREAMS s >", false),
        ("XACK s g 1", false),
        ("XSETID s 5", false),
        ("XGROUP DESTROY s g", false),
        ("XADD s 6 f v", true),
        ("XDEL s 6", true),
        ("XTRIM s MAXLEN 1", true),
    ] {
        world.say(a, "WATCH s");
        world.say(b, line);
        world.say(a, "MULTI");
        let done = world.say(a, "EXEC");
        assert_eq!(done == "nil", is_told, "{line}: {done}");
    }
}

#[test]
fn names_may_be_long() {
    let mut world = World::new();
    let a = world.client();
    let (group, consumer) = ("g".repeat(70_000), "c".repeat(100_000));
    world.say(a, "XADD s 1 f v");
    world.say(a, &format!("XGROUP CREATE s {group} 0"));
    world.say(a, &format!("XGROUP CREATE s {group}x 0"));
    let read = world.say(
        a,
        &format!("XREADGROUP GROUP {group} {consumer} STREAMS s >"),
    );
    assert_eq!(read, "[[s [[1-0 [f v]]]]]");
    let pending = world.say(a, &format!("XPENDING s {group}"));
    assert_eq!(pending, format!("[:1 1-0 1-0 [[{consumer} 1]]]"));
    let claimed = world.say(a, &format!("XCLAIM s {group} other 0 1 JUSTID"));
    assert_eq!(claimed, "[1-0]");
    let consumers = world.say(a, &format!("XINFO CONSUMERS s {group}"));
    assert_eq!(
        consumers,
        format!("[[name {consumer} pending :0 idle :0] [name other pending :1 idle :0]]")
    );
    world.say(a, "COPY s t");
    let (of_s, of_t) = (all_of(&mut world, a, "s"), all_of(&mut world, a, "t"));
    assert_eq!(of_s, of_t);
    assert_eq!(world.say(a, &format!("XACK t {group} 1")), ":1");
    assert_eq!(
        world.say(a, &format!("XPENDING s {group}")).get(..3),
        Some("[:1")
    );
}

#[test]
fn what_is_done_for_who_waited_is_an_event_at_once() {
    let mut world = World::new();
    let [a, b, listener] = std::array::from_fn(|_| world.client());
    world.say(b, "CONFIG SET notify-keyspace-events Elt");
    world.say(listener, "PSUBSCRIBE __keyevent*");
    world.say(b, "XGROUP CREATE s g $ MKSTREAM");
    world.say(a, "XREADGROUP GROUP g alice BLOCK 0 STREAMS s >");
    world.owed(listener);
    world.say(b, "XADD s 1 f v");
    let told = world.owed(listener);
    let names = ["xadd s", "xgroup-createconsumer s"].map(|name| told.contains(name));
    assert_eq!(names, [true, true], "{told}");
}
