//! Bits by hand.

use crate::store::session::world::World;

#[test]
fn bits_are_counted_and_found_by_bytes_and_by_bits() {
    let mut world = World::new();
    let a = world.client();
    world.say(a, "SET k foobar");
    for (said, told) in [
        ("BITCOUNT k", ":26"),
        ("BITCOUNT k 1 1", ":6"),
        ("BITCOUNT k 5 30 BIT", ":17"),
        ("BITCOUNT k -1 -2", ":0"),
        ("BITCOUNT none", ":0"),
        ("BITPOS k 1", ":1"),
        ("BITPOS k 0 1 1 BIT", ":-1"),
        ("BITPOS k 1 7 15 BIT", ":9"),
        ("BITPOS none 0", ":0"),
        ("BITPOS none 1", ":-1"),
        ("BITOP NOT n k", ":6"),
        ("BITOP XOR x k n", ":6"),
        ("BITPOS x 0", ":48"),
        ("BITPOS x 0 0 -1", ":-1"),
        ("BITOP AND x none", ":0"),
        ("EXISTS x", ":0"),
        (
            "BITOP NOT n k k",
            "-ERR BITOP NOT must be called with a single source key.",
        ),
    ] {
        assert_eq!(world.say(a, said), told, "{said}");
    }
}

#[test]
fn fields_overflow_as_they_are_told_to() {
    let mut world = World::new();
    let a = world.client();
    for (said, told) in [
        ("BITFIELD k SET u8 #1 255 GET i8 #1", "[:0 :-1]"),
        ("BITFIELD k INCRBY u8 8 10", "[:9]"),
        (
            "BITFIELD k OVERFLOW SAT INCRBY u8 8 300 OVERFLOW FAIL INCRBY u8 8 1",
            "[:255 nil]",
        ),
        ("BITFIELD_RO k GET u4 0", "[:0]"),
        (
            "BITFIELD_RO k SET u4 0 1",
            "-ERR BITFIELD_RO only supports the GET subcommand",
        ),
    ] {
        assert_eq!(world.say(a, said), told, "{said}");
    }
    world.say(a, "BITFIELD k SET i64 3 -7");
    let told = world.say(a, "BITFIELD k GET i64 3 GET u63 4");
    assert_eq!(told, "[:-7 :9223372036854775801]");
    let refused = world.say(a, "BITFIELD k GET u64 0");
    assert!(
        refused.starts_with("-ERR Invalid bitfield type."),
        "{refused}"
    );
}

#[test]
fn a_bit_that_stays_is_told_to_nobody() {
    let mut world = World::new();
    let (a, b) = (world.client(), world.client());
    world.say(a, "SET k a");
    world.effects();
    world.say(b, "WATCH k");
    assert_eq!(world.say(a, "SETBIT k 1 1"), ":1");
    assert_eq!(world.effects(), "");
    assert_eq!(world.say(a, "OBJECT ENCODING k"), "raw");
    world.say(b, "MULTI");
    assert_eq!(world.say(b, "EXEC"), "[]");
    world.say(a, "SETBIT k 1 0");
    assert_eq!(world.effects(), "SETBIT k 1 0");
}
