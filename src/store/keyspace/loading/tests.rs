use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::store::engine::MemoryEngine;
use crate::store::format::object::{Object, StringStored, StringValue, Value, Written, id_of_row};
use crate::store::rows::RowsOptions;

fn open(engine: &Arc<MemoryEngine>) -> Keyspace {
    let rows = Rows::open(engine.clone(), RowsOptions::new(id_of_row)).expect("rows");
    Keyspace::open(rows, 1 << 20).expect("a keyspace")
}

fn object(text: &'static str) -> Object {
    let value = Value::String(StringValue {
        stored: StringStored::Whole(Bytes::from_static(text.as_bytes())),
        written: Written::Whole,
    });
    Object {
        expires_at_ms: None,
        value,
    }
}

fn get(keyspace: &mut Keyspace, db: usize, key: &str) -> Option<Bytes> {
    let object = keyspace.lookup(db, key.as_bytes()).expect("looked up")?;
    match object.value {
        Value::String(StringValue {
            stored: StringStored::Whole(bytes),
            ..
        }) => Some(bytes),
        _ => None,
    }
}

fn wait(mut ticket: DurableTicket) {
    assert!(ticket.wait(Duration::from_secs(30)).expect("no failure"));
}

#[test]
fn a_load_is_seen_when_it_is_whole() {
    let engine = Arc::new(MemoryEngine::new());
    let mut keyspace = open(&engine);
    keyspace.put(0, b"old", object("1")).expect("put");
    keyspace.begin_loading();
    keyspace.load(0, b"new", &object("2"));
    keyspace.load(3, b"new", &object("3"));
    assert_eq!(get(&mut keyspace, 0, "new"), None);
    assert_eq!(get(&mut keyspace, 0, "old").as_deref(), Some(&b"1"[..]));
    assert_eq!((keyspace.key_count(0), keyspace.key_count(3)), (1, 0));
    // Its end may be less than what was there before.
    wait(keyspace.switch_to_loaded(7, |_| {}));
    assert_eq!(get(&mut keyspace, 0, "old"), None);
    assert_eq!(get(&mut keyspace, 3, "new").as_deref(), Some(&b"3"[..]));
    drop(keyspace);
    let mut keyspace = open(&engine);
    assert_eq!(keyspace.rows().applied_offset(), 7);
    assert_eq!(get(&mut keyspace, 0, "old"), None);
    assert_eq!(get(&mut keyspace, 0, "new").as_deref(), Some(&b"2"[..]));
    assert_eq!((keyspace.key_count(0), keyspace.key_count(3)), (1, 1));
}

#[test]
fn a_load_that_ended_early_is_gone_also_after_a_restart() {
    let engine = Arc::new(MemoryEngine::new());
    let mut keyspace = open(&engine);
    keyspace.put(0, b"old", object("1")).expect("put");
    keyspace.begin_loading();
    keyspace.load(0, b"new", &object("2"));
    keyspace.abandon_loading();
    keyspace.begin_loading();
    keyspace.load(0, b"newer", &object("2"));
    keyspace.close(5).expect("closed");
    let mut keyspace = open(&engine);
    assert_eq!(get(&mut keyspace, 0, "old").as_deref(), Some(&b"1"[..]));
    assert_eq!(get(&mut keyspace, 0, "newer"), None);
    assert_eq!(keyspace.key_count(0), 1);
    keyspace.begin_loading();
    wait(keyspace.switch_to_loaded(9, |_| {}));
    assert_eq!(keyspace.key_count(0), 0);
}
