//! The disk that fails on purpose keeps the promises of a disk, and no others.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use keyferry::store::disk::{
    DiskFile, Fault, FaultyFiles, Files, Operation, RealFiles, read_full_at, write_all_at,
};

const DIR: &str = "/d";

fn put(file: &Arc<dyn DiskFile>, bytes: &[u8], at: u64) -> io::Result<()> {
    let (one, two) = bytes.split_at(bytes.len() / 2);
    write_all_at(&**file, &mut [IoSlice::new(one), IoSlice::new(two)], at)
}

fn get(files: &dyn Files, path: &Path) -> Option<Vec<u8>> {
    let file = files.open(path).ok()?;
    let mut bytes = vec![0; 20_000];
    let length = read_full_at(&*file, &mut bytes, 0).unwrap();
    bytes.truncate(length);
    Some(bytes)
}

#[test]
fn both_disks_do_what_is_asked() {
    let temp = tempfile::tempdir().unwrap();
    let disks: [(&dyn Files, &Path); 2] = [
        (&RealFiles, temp.path()),
        (&FaultyFiles::new(), Path::new(DIR)),
    ];
    for (files, root) in disks {
        let dir = root.join("deep");
        files.create_dir(&dir).unwrap();
        let lock = files.lock(&dir).unwrap();
        let again = files.lock(&dir).err().map(|error| error.kind());
        assert_eq!(again, Some(io::ErrorKind::WouldBlock));
        drop(lock);
        let (one, two) = (dir.join("one"), dir.join("two"));
        let file = files.create(&one).unwrap();
        put(&file, b"0123456789", 0).unwrap();
        put(&file, b"abc", 8).unwrap();
        file.sync_data().unwrap();
        assert_eq!(file.length().unwrap(), 11);
        files.rename(&one, &two).unwrap();
        files.sync_dir(&dir).unwrap();
        assert!(files.list(&dir).unwrap().contains(&"two".to_owned()));
        assert_eq!(get(files, &two).unwrap(), b"01234567abc");
        let missing = files.open(&one).err().map(|error| error.kind());
        assert_eq!(missing, Some(io::ErrorKind::NotFound));
        files.remove(&two).unwrap();
        // Who has it open still reads it.
        let mut bytes = [0; 4];
        assert_eq!(read_full_at(&*file, &mut bytes, 9).unwrap(), 2);
        files.create(&two).unwrap();
        assert_eq!(get(files, &two).unwrap(), b"");
    }
}

#[test]
fn a_crash_loses_what_was_not_synced_block_by_block() {
    let disk = FaultyFiles::new();
    let path = Path::new(DIR).join("file");
    let file = disk.create(&path).unwrap();
    put(&file, &[1; 3 * 4096], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new(DIR)).unwrap();
    put(&file, &[2; 3 * 4096], 0).unwrap();
    let mut ways = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let bytes = get(&disk.crashed(seed), &path).unwrap();
        let blocks = bytes.chunks(4096).map(|block| {
            let new = block.iter().filter(|byte| **byte == 2).count();
            assert!(
                block[..new].iter().all(|byte| *byte == 2),
                "torn at one byte"
            );
            (new > 0) as u8 + (new == 4096) as u8
        });
        ways.insert(blocks.collect::<Vec<_>>());
    }
    assert_eq!(ways.len(), 27, "old, torn, new for each of three");
    assert_eq!(get(&disk.killed(), &path).unwrap(), [2; 3 * 4096]);
    file.sync_data().unwrap();
    assert_eq!(get(&disk.crashed(0), &path).unwrap(), [2; 3 * 4096]);
}

#[test]
fn names_that_were_not_synced_may_be_the_old_ones() {
    let disk = FaultyFiles::new();
    let (old, new) = (Path::new(DIR).join("old"), Path::new(DIR).join("new"));
    disk.create(&old).unwrap();
    disk.sync_dir(Path::new(DIR)).unwrap();
    disk.rename(&old, &new).unwrap();
    disk.sync_dir(Path::new("/elsewhere")).unwrap();
    let mut seen = [false; 2];
    for seed in 0..50 {
        let disk = disk.crashed(seed);
        let (old, new) = (disk.bytes(&old), disk.bytes(&new));
        assert_ne!(old.is_some(), new.is_some(), "one of them");
        seen[usize::from(new.is_some())] = true;
    }
    assert_eq!(seen, [true, true]);
}

#[test]
fn a_failed_sync_has_forgotten_what_the_next_one_does_not_write() {
    let disk = FaultyFiles::new();
    let path = Path::new(DIR).join("file");
    let file = disk.create(&path).unwrap();
    disk.sync_dir(Path::new(DIR)).unwrap();
    put(&file, b"lost", 0).unwrap();
    disk.fail(Operation::Sync, 0, Fault::Broken);
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(get(&disk, &path).unwrap(), b"lost");
    assert_ne!(get(&disk.crashed(1), &path).unwrap(), b"lost");
}

#[test]
fn faults_come_when_they_were_planned() {
    let disk = FaultyFiles::new();
    let path = Path::new(DIR).join("file");
    let file = disk.create(&path).unwrap();
    disk.fail(Operation::Write, 1, Fault::Full);
    put(&file, b"12", 0).unwrap();
    let error = put(&file, b"345678", 2).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.length().unwrap(), 5, "half of it is there");
    disk.fail(Operation::Write, 0, Fault::Short);
    put(&file, b"345678", 2).unwrap();
    assert_eq!(get(&disk, &path).unwrap(), b"12345678");
    disk.set_free_bytes(1);
    put(&file, b"abc", 6).unwrap();
    let error = put(&file, b"d", 9).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    put(&file, b"ABC", 6).unwrap();
}
