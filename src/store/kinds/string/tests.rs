use std::ops::ControlFlow;

use super::*;
use crate::store::session::world::World;

/// Where chunks and whole strings end, and a bit beside.
fn place(rng: &mut fastrand::Rng) -> usize {
    match rng.u8(..3) {
        0 => rng.usize(..200),
        1 => (rng.usize(..7) * CHUNK_BYTES + rng.usize(..3)).saturating_sub(1),
        _ => rng.usize(..150_000),
    }
}

#[test]
fn written_and_read_in_pieces_it_is_what_a_vector_is() {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut world = World::new();
    let keyspace = world.shard.keyspace();
    for _ in 0..8 {
        let mut model = vec![b'm'; place(&mut rng)];
        let mut string = store(keyspace, &model, Written::Whole);
        for _ in 0..40 {
            let (at, len) = (place(&mut rng), place(&mut rng) % 40_000 + 1);
            let bytes = vec![rng.u8(b'a'..=b'z'); len];
            string = write(keyspace, &string, at as u64, &bytes).expect("it is written");
            if model.len() < at + len {
                model.resize(at + len, 0);
            }
            model[at..at + len].copy_from_slice(&bytes);
            assert_eq!(string.len(), model.len() as u64);
            let from = place(&mut rng).min(model.len());
            let to = (from + place(&mut rng)).min(model.len());
            let found = read(keyspace.rows(), &string, from as u64, to as u64);
            assert!(found.expect("it is read") == model[from..to]);
        }
        let all = read_all(keyspace.rows(), &string).expect("it is read");
        assert!(all == model);
    }
}

#[test]
fn far_behind_the_end_one_chunk_is_written() {
    let mut world = World::new();
    let keyspace = world.shard.keyspace();
    let far = 500_000_000;
    let string = write(keyspace, &StringValue::empty(), far, b"x").expect("it is written");
    let StringStored::Chunks { id, len } = string.stored else {
        panic!("it is not in chunks");
    };
    assert_eq!(len, far + 1);
    let (from, to) = (
        row::sub(id, row::kind::CHUNK),
        row::sub(id, row::kind::CHUNK + 1),
    );
    let range = keyspace.rows().range(&from, &to).expect("a range");
    assert_eq!(range.count(), 1);
    let mut pieces = 0;
    visit(keyspace.rows(), &string, 0, far, &mut |piece| {
        assert!(piece.iter().all(|byte| *byte == 0));
        pieces += 1;
        match pieces {
            ..3 => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    })
    .expect("it is read");
    assert_eq!(pieces, 3);
}

#[test]
fn encodings_are_those_of_redis() {
    let mut world = World::new();
    let a = world.client();
    let long = "x".repeat(45);
    for (set, encoding) in [
        ("SET k 12", "int"),
        ("SET k 012", "embstr"),
        (&*format!("SET k {}", &long[..44]), "embstr"),
        (&*format!("SET k {long}"), "raw"),
        ("APPEND k y", "raw"),
        ("SET k 1", "int"),
        ("APPEND k 2", "raw"),
        ("INCR k", "int"),
        ("INCRBYFLOAT k 1", "embstr"),
        ("SETBIT k 1 0", "raw"),
    ] {
        world.say(a, set);
        assert_eq!(world.say(a, "OBJECT ENCODING k"), encoding, "{set}");
    }
}
