use std::path::Path;
use std::sync::Arc;

use super::*;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn small() -> EngineOptions {
    EngineOptions {
        cache_bytes: 1 << 20,
        memtable_bytes: 64 << 10,
        free_bytes_min: 1 << 20,
        ..EngineOptions::default()
    }
}

fn write(
    engine: &dyn Engine,
    changes: &[(&[u8], Option<&'static [u8]>)],
) -> Result<(), EngineError> {
    let changes: Vec<(&[u8], Option<Bytes>)> = changes
        .iter()
        .map(|(key, value)| (*key, value.map(Bytes::from_static)))
        .collect();
    engine.write(&mut changes.iter().map(|(key, value)| (*key, value.as_ref())))
}

fn keys(rows: impl Iterator<Item = Result<Row, EngineError>>) -> Result<Vec<Bytes>, EngineError> {
    rows.map(|row| row.map(|(key, _)| key)).collect()
}

fn no_object(_: &[u8]) -> Option<u64> {
    None
}

/// Both engines must keep it.
fn keeps_the_contract(engine: &dyn Engine) -> Outcome {
    write(
        engine,
        &[
            (b"Sa", Some(b"1")),
            (b"Sb", Some(b"2")),
            (b"Sc", Some(b"3")),
        ],
    )?;
    assert_eq!(engine.get(b"Sb")?.as_deref(), Some(&b"2"[..]));
    assert_eq!(engine.get(b"Sbb")?, None);

    let before = engine.snapshot()?;
    write(
        engine,
        &[(b"Sb", None), (b"Sc", Some(b"4")), (b"Sd", Some(b""))],
    )?;
    assert_eq!(engine.get(b"Sb")?, None);
    assert_eq!(engine.get(b"Sd")?.as_deref(), Some(&b""[..]));
    assert_eq!(before.get(b"Sb")?.as_deref(), Some(&b"2"[..]));
    assert_eq!(before.get(b"Sd")?, None);

    assert_eq!(keys(engine.range(b"Sa", b"Sd"))?, ["Sa", "Sc"]);
    assert_eq!(keys(engine.range(b"Sa", b"Sd").rev())?, ["Sc", "Sa"]);
    assert_eq!(keys(before.range(b"S", b"T"))?, ["Sa", "Sb", "Sc"]);
    assert_eq!(keys(engine.range(b"Sd", b"Sa"))?, [] as [&str; 0]);
    assert_eq!(keys(engine.range(b"Sa", b"Sa"))?, [] as [&str; 0]);
    let mut both = before.range(b"S", b"T");
    assert_eq!(both.next().transpose()?.map(|row| row.0), Some("Sa".into()));
    assert_eq!(
        both.next_back().transpose()?.map(|row| row.0),
        Some("Sc".into())
    );
    assert_eq!(both.next().transpose()?.map(|row| row.0), Some("Sb".into()));
    assert!(both.next().is_none() && both.next_back().is_none());

    let long = vec![b'S'; ROW_KEY_BYTES_MAX + 1];
    for key in [&long[..], b""] {
        let refused = write(engine, &[(b"Sz", Some(b"1")), (key, Some(b"1"))]);
        assert!(
            matches!(refused, Err(EngineError::BadKey { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(
        engine.get(b"Sz")?,
        None,
        "nothing of a refused batch is there"
    );
    write(engine, &[(&long[1..], Some(b"1")), (&long[1..], None)])?;
    engine.persist()?;
    Ok(())
}

#[test]
fn the_engine_in_memory_keeps_the_contract() -> Outcome {
    keeps_the_contract(&MemoryEngine::new())
}

#[test]
fn the_engine_on_disk_keeps_the_contract() -> Outcome {
    let dir = tempfile::tempdir()?;
    keeps_the_contract(&open_lsm(dir.path(), &small())?)?;
    // What was there is there again.
    let engine = open_lsm(dir.path(), &small())?;
    assert_eq!(keys(engine.range(b"S", b"T"))?, ["Sa", "Sc", "Sd"]);
    Ok(())
}

#[test]
fn large_batches_in_order_become_tables_at_once() -> Outcome {
    let dir = tempfile::tempdir()?;
    let engine = open_lsm(dir.path(), &small())?;
    let value = Bytes::from(vec![7; 1_000]);
    let keys: Vec<Vec<u8>> = (0..100u32)
        .map(|n| format!("S{n:03}").into_bytes())
        .collect();
    let rows = || keys.iter().map(|key| (&key[..], Some(&value)));
    write(
        &engine,
        &[(b"S000", Some(b"older")), (b"S2", Some(b"kept"))],
    )?;
    let before = engine.snapshot()?;
    let tables = engine.stats().tables;
    engine.write_sorted(&mut rows(), 100_000)?;
    assert!(engine.stats().tables > tables);
    assert_eq!(engine.get(b"S000")?, Some(value.clone()));
    assert_eq!(before.get(b"S000")?.as_deref(), Some(&b"older"[..]));
    assert_eq!(before.range(b"S", b"T").count(), 2);
    // A small one is newer, though it is no table.
    engine.write_sorted(&mut [(&b"S000"[..], None)].into_iter(), 4)?;
    assert_eq!(engine.get(b"S000")?, None);
    assert_eq!(engine.range(b"S", b"T").count(), 100);
    let refused = engine.write_sorted(&mut rows().rev(), 100_000);
    assert!(matches!(refused, Err(EngineError::Unsorted)), "{refused:?}");
    assert_eq!(engine.range(b"S", b"T").count(), 100);
    write(&engine, &[(b"S001", None)])?;
    assert_eq!(engine.get(b"S001")?, None);
    drop((engine, before));
    // What was in tables is there; the memtable went with its process.
    let engine = open_lsm(dir.path(), &small())?;
    assert_eq!(engine.get(b"S000")?, None);
    assert_eq!(engine.get(b"S001")?, Some(value));
    assert_eq!(engine.get(b"S2")?.as_deref(), Some(&b"kept"[..]));
    Ok(())
}

#[test]
fn a_snapshot_outlives_compactions_and_the_engine() -> Outcome {
    let dir = tempfile::tempdir()?;
    let engine = open_lsm(dir.path(), &small())?;
    write(&engine, &[(b"Sa", Some(b"1")), (b"Sb", Some(b"1"))])?;
    let held = engine.snapshot()?;
    write(&engine, &[(b"Sa", Some(b"2")), (b"Sb", None)])?;
    engine.compact_all()?;
    write(&engine, &[(b"Sa", Some(b"3"))])?;
    engine.compact_all()?;
    assert_eq!(held.get(b"Sa")?.as_deref(), Some(&b"1"[..]));
    drop(engine);
    assert_eq!(held.get(b"Sb")?.as_deref(), Some(&b"1"[..]));
    assert_eq!(keys(held.range(b"S", b"T"))?, ["Sa", "Sb"]);
    Ok(())
}

#[test]
fn a_compaction_drops_rows_of_dead_ids_only() -> Outcome {
    let dir = tempfile::tempdir()?;
    let engine = open_lsm(dir.path(), &small())?;
    let dead = Arc::new(DeadIds::new(|value| (value == b"object").then_some(9)));
    engine.mark_dead(Arc::clone(&dead));
    let rows: [(&[u8], &'static [u8]); 8] = [
        (b"M\0\0\0\x01hhhhhhhinline", b"value"),
        (b"M\0\0\0\x01hhhhhhhlarge", b"object"),
        (b"M\0\0\0\x02hhhhhhhinline", b"value"),
        (b"S\0\0\0\0\0\0\0\x01F1", b""),
        (b"S\0\0\0\0\0\0\0\x01F2", b""),
        (b"S\0\0\0\0\0\0\0\x02F1", b""),
        (b"T12345678\0\0\0\x01hhhhhhhinline", b""),
        (b"T12345678\0\0\0\x02hhhhhhhinline", b""),
    ];
    for (key, value) in rows {
        write(&engine, &[(key, Some(value))])?;
    }
    engine.flush()?;
    let held = engine.snapshot()?;
    dead.insert(DeadId::Object(1));
    dead.insert(DeadId::Namespace(1));
    // So that the compaction has something to merge.
    write(&engine, &[(b"S\0\0\0\0\0\0\0\x01F3", Some(b""))])?;
    engine.compact_all()?;
    let left: Vec<usize> = (0..rows.len())
        .filter(|at| engine.get(rows[*at].0).is_ok_and(|value| value.is_some()))
        .collect();
    assert_eq!(
        left,
        [1, 2, 5, 7],
        "a meta row that refers to an object stays"
    );
    assert_eq!(engine.get(b"S\0\0\0\0\0\0\0\x01F3")?, None);
    for (key, _) in rows {
        assert!(
            held.get(key)?.is_some(),
            "an older snapshot still has {}",
            key.escape_ascii()
        );
    }
    Ok(())
}

#[test]
fn a_directory_of_somebody_else_is_refused() -> Outcome {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("dump.rdb"), b"REDIS0009")?;
    let refused = open_lsm(dir.path(), &small()).map(drop);
    assert!(
        matches!(refused, Err(EngineError::Foreign { .. })),
        "{refused:?}"
    );
    assert!(dir.path().join("dump.rdb").exists());

    let dir = tempfile::tempdir()?;
    let counter = lsm_tree::SequenceNumberCounter::default;
    drop(lsm_tree::Config::new(dir.path(), counter(), counter()).open()?);
    let refused = open_lsm(dir.path(), &small()).map(drop);
    assert!(
        matches!(refused, Err(EngineError::Foreign { .. })),
        "{refused:?}"
    );
    Ok(())
}

#[test]
fn an_open_directory_is_refused_until_it_is_closed() -> Outcome {
    let dir = tempfile::tempdir()?;
    let engine = open_lsm(dir.path(), &small())?;
    let refused = open_lsm(dir.path(), &small()).map(drop);
    assert!(
        matches!(refused, Err(EngineError::Locked { .. })),
        "{refused:?}"
    );
    drop(engine);
    open_lsm(dir.path(), &small())?;
    Ok(())
}

#[test]
fn a_half_made_directory_is_made_again() -> Outcome {
    let dir = tempfile::tempdir()?;
    let rows = dir.path().join("rows");
    std::fs::create_dir(dir.path().join("rows.new"))?;
    std::fs::write(dir.path().join("rows.new/v0"), b"")?;
    open_lsm(&rows, &small())?;
    assert!(!dir.path().join("rows.new").exists());
    open_lsm(&rows, &small())?;
    Ok(())
}

/// Whatever byte is flipped, and wherever a file is cut: it is refused, or what can be
/// read is what was written.
#[test]
fn damaged_files_are_refused_or_harmless() -> Outcome {
    let dir = tempfile::tempdir()?;
    let sound = dir.path().join("sound");
    let engine = open_lsm(&sound, &small())?;
    for round in 0..3 {
        let rows: Vec<(Vec<u8>, Bytes)> = (0..200u32)
            .map(|n| {
                (
                    format!("S{n:05}").into_bytes(),
                    Bytes::from(format!("{n}.{round}")),
                )
            })
            .collect();
        engine.write(&mut rows.iter().map(|(key, value)| (&key[..], Some(value))))?;
        engine.flush()?;
    }
    drop(engine);
    let mut refused = 0;
    let mut files = Vec::new();
    files_below(&sound, &mut files)?;
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for file in files {
        let length = std::fs::metadata(sound.join(&file))?.len();
        if length == 0 {
            continue;
        }
        for cut in [false, true] {
            let damaged = dir.path().join("damaged");
            copy(&sound, &damaged)?;
            let at = random.u64(..length);
            let path = damaged.join(&file);
            let mut bytes = std::fs::read(&path)?;
            if cut {
                bytes.truncate(at as usize);
            } else {
                bytes[at as usize] ^= 1 << random.u8(..8);
            }
            std::fs::write(&path, bytes)?;
            let what = format!(
                "seed {seed}, {file:?} {} at {at}",
                if cut { "cut" } else { "flipped" }
            );
            match open_lsm(&damaged, &small()).and_then(|engine| read_all(&engine)) {
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    refused += 1;
                }
                Ok(rounds) => assert!(rounds.len() <= 1, "{what}: rows of rounds {rounds:?}"),
            }
            std::fs::remove_dir_all(&damaged)?;
        }
    }
    assert!(refused > 0, "no damage was noticed: seed {seed}");
    Ok(())
}

/// The rounds that the values are of; a row that was never written is an error.
fn read_all(engine: &dyn Engine) -> Result<std::collections::BTreeSet<String>, EngineError> {
    let mut rounds = std::collections::BTreeSet::new();
    for row in engine.range(b"S", b"T") {
        let (key, value) = row?;
        let text = String::from_utf8_lossy(&value).into_owned();
        let (number, round) = text.split_once('.').unwrap_or_default();
        let number: u32 = number.parse().unwrap_or(u32::MAX);
        assert_eq!(key, format!("S{number:05}"), "a wrong value");
        rounds.insert(round.to_owned());
    }
    Ok(rounds)
}

fn files_below(dir: &Path, files: &mut Vec<std::path::PathBuf>) -> std::io::Result<()> {
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if let Ok(below) = path.strip_prefix(dir) {
                files.push(below.to_owned());
            }
        }
    }
    files.sort();
    Ok(())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut files = Vec::new();
    files_below(from, &mut files)?;
    for file in files {
        let target = to.join(&file);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::copy(from.join(&file), target)?;
    }
    Ok(())
}

#[test]
fn a_full_disk_is_noticed_before_anything_is_written() -> Outcome {
    let dir = tempfile::tempdir()?;
    let options = EngineOptions {
        free_bytes_min: u64::MAX / 2,
        ..small()
    };
    let engine = open_lsm(dir.path(), &options)?;
    let refused = write(&engine, &[(b"Sa", Some(b"1"))]);
    assert!(
        refused.as_ref().is_err_and(EngineError::is_retryable),
        "{refused:?}"
    );
    assert_eq!(engine.get(b"Sa")?, None);
    drop(engine);
    let engine = open_lsm(dir.path(), &small())?;
    write(&engine, &[(b"Sa", Some(b"1"))])?;
    Ok(())
}

#[test]
fn nobody_is_dead_at_first() {
    let dead = DeadIds::new(no_object);
    assert!(dead.is_empty());
    assert!(dead.insert(DeadId::Object(1)) && !dead.insert(DeadId::Object(1)));
    assert!(dead.insert(DeadId::Namespace(1)));
    assert_eq!(dead.len(), 2);
    dead.remove(DeadId::Object(1));
    assert!(!dead.contains(DeadId::Object(1)) && dead.contains(DeadId::Namespace(1)));
}

fn many_rows() -> Vec<Vec<u8>> {
    (0..8_000u32)
        .map(|n| format!("S{n:05}").into_bytes())
        .collect()
}

fn bytes_of_tables(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir.join("tables"))? {
        // What was listed may be gone by now.
        bytes += entry?.metadata().map_or(0, |about| about.len());
    }
    Ok(bytes)
}

/// Looks at the files until they are small, as the writing thread would now and then.
fn rest_until_below(engine: &dyn Engine, dir: &Path, wanted: u64) -> Outcome {
    let began = std::time::Instant::now();
    loop {
        engine.rest();
        let bytes = bytes_of_tables(dir)?;
        if bytes < wanted {
            return Ok(());
        }
        assert!(began.elapsed().as_secs() < 60, "{bytes} bytes are left");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn what_was_deleted_gives_its_room_back_and_a_snapshot_keeps_it() -> Outcome {
    let dir = tempfile::tempdir()?;
    let engine = open_lsm(dir.path(), &small())?;
    let (rows, value) = (many_rows(), Bytes::from(vec![7; 1_000]));
    engine.write_sorted(
        &mut rows.iter().map(|row| (&row[..], Some(&value))),
        8 << 20,
    )?;
    write(&engine, &[(b"S4", Some(b"kept"))])?;
    engine.persist()?;
    let full = bytes_of_tables(dir.path())?;
    let held = engine.snapshot()?;
    engine.write(&mut rows.iter().map(|row| (&row[..], None)))?;
    engine.persist()?;
    let began = std::time::Instant::now();
    while engine.stats().disk_bytes > full / 10 {
        assert!(began.elapsed().as_secs() < 60, "{:?}", engine.stats());
        engine.rest();
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(engine.range(b"S", b"T").count(), 1);
    assert_eq!(held.range(b"S", b"T").count(), rows.len() + 1);
    assert_eq!(held.get(&rows[0])?, Some(value.clone()));
    assert!(
        bytes_of_tables(dir.path())? >= full,
        "a snapshot needs them"
    );
    drop(held);
    rest_until_below(&engine, dir.path(), full / 10)?;
    drop(engine);
    let engine = open_lsm(dir.path(), &small())?;
    assert_eq!(keys(engine.range(b"S", b"T"))?, ["S4"]);
    Ok(())
}

#[test]
fn a_merge_of_the_whole_tree_makes_way_and_leaves_nothing() -> Outcome {
    let dir = tempfile::tempdir()?;
    let (rows, value) = (many_rows(), Bytes::from(vec![7; 1_000]));
    let engine = open_lsm(dir.path(), &small())?;
    engine.write_sorted(
        &mut rows.iter().map(|row| (&row[..], Some(&value))),
        8 << 20,
    )?;
    drop(engine);
    let opened = opening::open(dir.path(), &small())?;
    let before = bytes_of_tables(dir.path())?;
    let writing = std::sync::Mutex::default();
    let merge = |keep_free| {
        let (tree, seqno, brake) = (&opened.tree, &opened.seqno, &opened.brake);
        whole::merge(tree, seqno, brake, keep_free, &writing, dir.path())
    };
    let version = lsm_tree::AbstractTree::current_version(&opened.tree).id();
    merge(u64::MAX)?;
    let unchanged = lsm_tree::AbstractTree::current_version(&opened.tree).id();
    assert_eq!(unchanged, version, "it was not to be done");
    assert_eq!(bytes_of_tables(dir.path())?, before);
    merge(0)?;
    let merged = lsm_tree::AbstractTree::current_version(&opened.tree).id();
    assert_ne!(merged, version, "nothing was in its way");
    drop(opened);
    let engine = open_lsm(dir.path(), &small())?;
    assert_eq!(engine.range(b"S", b"T").count(), rows.len());
    Ok(())
}
