//! A process writes and is killed: what it left is a whole generation's end, and its
//! offset says which.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keyferry::store::engine::{Engine, EngineOptions, open_lsm};
use keyferry::store::rows::{Rows, RowsOptions};

use crate::wait::seeded;
use crate::{object_of, setting};

const DIRECTORY: &str = "KEYFERRY_STORE_CHILD_DIRECTORY";

/// What tick `n` does: its rows, and whether they are put.
fn tick(n: u64) -> impl Iterator<Item = (Vec<u8>, bool)> {
    (0..8).map(move |at| {
        let mixed = (n * 8 + at).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        let row = format!("S{:04}", mixed % 5_000).into_bytes();
        (row, mixed % 8 < 5)
    })
}

fn open(dir: &Path) -> Rows {
    let options = EngineOptions {
        cache_bytes: 1 << 20,
        memtable_bytes: 256 << 10,
        free_bytes_min: 1 << 20,
        ..EngineOptions::default()
    };
    let engine = Arc::new(open_lsm(dir, &options).expect("the engine opens"));
    let options = RowsOptions {
        freeze_bytes: 16 << 10,
        freeze_age: Duration::from_millis(1),
        persist_age: Duration::from_millis(20),
        overlay_bytes_max: 1 << 20,
        ..RowsOptions::new(object_of)
    };
    Rows::open(engine as Arc<dyn Engine>, options).expect("rows open")
}

#[test]
#[ignore = "the child of the test below, which kills it"]
fn a_child_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let mut rows = open(Path::new(&dir));
    let mut n = rows.applied_offset();
    let mut told = n;
    loop {
        while !rows.is_full() && rows.durable_offset() == told {
            n += 1;
            for (row, is_put) in tick(n) {
                if is_put {
                    rows.put(&row, Bytes::from(n.to_string()));
                } else {
                    rows.delete(&row);
                }
            }
            rows.freeze_if_due(n);
        }
        rows.freeze_if_due(n);
        assert!(rows.failure().is_none(), "{:?}", rows.failure());
        if rows.durable_offset() != told {
            told = rows.durable_offset();
            println!("durable {told}");
        }
    }
}

/// Ends with the test, whatever happens.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_killed_process_leaves_whole_generations() {
    let mut random = seeded("a_killed_process_leaves_whole_generations");
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("rows");
    let mut model = BTreeMap::new();
    let mut applied = 0;
    for _ in 0..setting("KEYFERRY_STORE_KILLS", 6) {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture"])
            .arg("kills::a_child_writes_until_it_is_killed")
            .env(DIRECTORY, &dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut child = Killed(child);
        let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        let wanted = random.usize(1..60);
        let told = lines
            .map_while(Result::ok)
            .filter_map(|line| line.split_once("durable ")?.1.parse::<u64>().ok())
            .take(wanted)
            .last()
            .expect("the child makes something durable");
        drop(child);

        let rows = open(&dir);
        let found = rows.applied_offset();
        assert!(found >= told, "{told} was durable, {found} was found");
        for n in applied + 1..=found {
            for (row, is_put) in tick(n) {
                if is_put {
                    model.insert(row, n.to_string());
                } else {
                    model.remove(&row);
                }
            }
        }
        applied = found;
        let all = rows.range(b"S", b"T").unwrap().map(Result::unwrap);
        assert!(
            all.eq(model
                .iter()
                .map(|(row, n)| (row.clone().into(), n.clone().into()))),
            "after {applied} ticks"
        );
    }
}
