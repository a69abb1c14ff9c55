//! Backups on a disk that fails, of a master that says what the test wants; and files that
//! are no backups.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::*;
use crate::rdb::{crc64, write_length, write_string};
use crate::store::client::{Place, Target};
use crate::store::disk::{Fault, FaultyFiles, Files, Operation};

const TO: &str = "/backups/one.rdb";
const REPLID: &str = "0123456789012345678901234567890123456789";

/// A file with so many strings, and its checksum.
fn file(keys: usize) -> Vec<u8> {
    let mut bytes = b"REDIS0009".to_vec();
    bytes.extend_from_slice(&[0xfe, 0]);
    for number in 0..keys {
        bytes.push(0);
        write_string(&mut bytes, format!("key {number}").as_bytes());
        write_string(&mut bytes, &[b'v'; 100]);
    }
    ended(bytes)
}

fn ended(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.push(0xff);
    let crc = crc64(0, &bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

/// Answers one client as a shard does, with `payload` behind `+FULLRESYNC`.
fn master(payload: Vec<u8>) -> (Target, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let thread = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a client");
        answer(&mut client, &payload);
    });
    let place = Place::Tcp("127.0.0.1".to_owned(), port);
    (Target { place, login: None }, thread)
}

fn answer(client: &mut TcpStream, payload: &[u8]) {
    let (mut said, mut bytes) = (Vec::new(), [0; 1024]);
    let mut answered = 0;
    loop {
        // The client may have had enough.
        let Ok(read @ 1..) = client.read(&mut bytes) else {
            return;
        };
        said.extend_from_slice(&bytes[..read]);
        let text = String::from_utf8_lossy(&said);
        while answered < text.matches("REPLCONF").count() {
            answered += 1;
            let _ = client.write_all(b"+OK\r\n");
        }
        if text.contains("PSYNC") {
            let head = format!("+FULLRESYNC {REPLID} 17\r\n\n\n");
            let _ = client.write_all(head.as_bytes());
            let _ = client.write_all(payload);
            return;
        }
    }
}

fn marked(file: &[u8]) -> Vec<u8> {
    [
        b"$EOF:",
        REPLID.as_bytes(),
        b"\r\n",
        file,
        REPLID.as_bytes(),
    ]
    .concat()
}

fn with_length(file: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", file.len()).as_bytes(), file].concat()
}

fn saved(files: &FaultyFiles, payload: Vec<u8>) -> Result<Saved, SaveError> {
    let (target, thread) = master(payload);
    let files: Arc<dyn Files> = Arc::new(files.clone());
    let result = save_with(files, &target, Path::new(TO), &Progress::default());
    end(&target, thread);
    result
}

/// Ends a master, which may still wait for a client.
fn end(master: &Target, thread: JoinHandle<()>) {
    if let Place::Tcp(host, port) = &master.place {
        drop(TcpStream::connect((host.as_str(), *port)));
    }
    thread.join().expect("the master ends");
}

#[test]
fn what_was_sent_is_the_file_however_it_was_framed() {
    let file = file(1000);
    for payload in [
        marked(&file),
        with_length(&file),
        // The stream behind it is nobody's business.
        [&with_length(&file)[..], b"*1\r\n$4\r\nPING\r\n"].concat(),
    ] {
        let files = FaultyFiles::new();
        let saved = saved(&files, payload).expect("it is saved");
        assert_eq!(files.bytes(Path::new(TO)).as_deref(), Some(&file[..]));
        assert_eq!((saved.offset, saved.replid.as_str()), (17, REPLID));
        assert_eq!(saved.contents.keys(), 1000);
        assert_eq!(names(&files), ["one.rdb"]);
    }
}

fn names(files: &FaultyFiles) -> Vec<String> {
    files.list(Path::new("/backups")).expect("names")
}

#[test]
fn whatever_fails_nothing_is_left_or_all_of_it() {
    let file = file(5000);
    let faults = [
        (Operation::Create, Fault::Broken),
        (Operation::Create, Fault::Full),
        (Operation::Write, Fault::Broken),
        (Operation::Write, Fault::Full),
        (Operation::Sync, Fault::Broken),
        (Operation::Sync, Fault::Full),
        (Operation::Rename, Fault::Broken),
    ];
    for (operation, fault) in faults {
        let files = FaultyFiles::new();
        files.fail(operation, 0, fault);
        let error = saved(&files, marked(&file)).expect_err("it fails");
        let is_told = matches!(
            (fault, &error),
            (Fault::Full, SaveError::DiskFull { .. }) | (Fault::Broken, SaveError::Write { .. })
        );
        assert!(is_told, "{operation:?} {fault:?}: {error}");
        assert_eq!(
            names(&files),
            Vec::<String>::new(),
            "{operation:?} {fault:?}"
        );
        saved(&files, marked(&file)).expect("the next one goes well");
    }
    let files = FaultyFiles::new();
    files.set_free_bytes(100_000);
    let error = saved(&files, marked(&file)).expect_err("there is no room");
    assert!(matches!(error, SaveError::DiskFull { .. }), "{error}");
    assert_eq!(names(&files), Vec::<String>::new());
    // It has its name, and whether that survives a power loss is not known: told, and kept.
    let files = FaultyFiles::new();
    files.fail(Operation::SyncDir, 0, Fault::Broken);
    assert!(saved(&files, marked(&file)).is_err());
    assert_eq!(files.bytes(Path::new(TO)).as_deref(), Some(&file[..]));
}

#[test]
fn a_short_write_is_gone_on_with() {
    let file = file(5000);
    let files = FaultyFiles::new();
    files.fail(Operation::Write, 0, Fault::Short);
    files.fail(Operation::Write, 1, Fault::Short);
    saved(&files, marked(&file)).expect("it is saved");
    assert_eq!(files.bytes(Path::new(TO)).as_deref(), Some(&file[..]));
}

#[test]
fn a_power_loss_leaves_the_whole_file_or_none() {
    let file = file(2000);
    let files = FaultyFiles::new();
    saved(&files, marked(&file)).expect("it is saved");
    for seed in 0..50 {
        let after = files.crashed(seed).bytes(Path::new(TO));
        assert_eq!(after.as_deref(), Some(&file[..]), "seed {seed}");
    }
    for seed in 0..200 {
        let files = FaultyFiles::new();
        // Somewhere on its way.
        files.fail(Operation::SyncDir, 0, Fault::Broken);
        let _ = saved(&files, marked(&file));
        if let Some(after) = files.crashed(seed).bytes(Path::new(TO)) {
            assert_eq!(after, file, "seed {seed}");
        }
    }
}

#[test]
fn a_file_that_is_there_is_never_replaced() {
    let files = FaultyFiles::new();
    files.create(Path::new(TO)).expect("made");
    let (target, thread) = master(Vec::new());
    let error = save_with(
        Arc::new(files.clone()),
        &target,
        Path::new(TO),
        &Progress::default(),
    );
    assert!(matches!(error, Err(SaveError::Exists(_))));
    end(&target, thread);
    assert_eq!(files.bytes(Path::new(TO)), Some(Vec::new()));
}

#[test]
fn one_backup_writes_a_file_at_a_time_and_takes_over_what_a_dead_one_left() {
    let file = file(10);
    let files = FaultyFiles::new();
    let held = files
        .create_locked(&part::path_of(Path::new(TO)))
        .expect("ours");
    let (target, thread) = master(marked(&file));
    let second = save_with(
        Arc::new(files.clone()),
        &target,
        Path::new(TO),
        &Progress::default(),
    );
    assert!(matches!(second, Err(SaveError::Busy(_))));
    drop(held);
    let result = save_with(
        Arc::new(files.clone()),
        &target,
        Path::new(TO),
        &Progress::default(),
    );
    end(&target, thread);
    result.expect("it goes on");
    assert_eq!(names(&files), ["one.rdb"]);
}

#[test]
fn what_is_no_snapshot_is_no_backup() {
    let whole = file(300);
    let mut flipped = whole.clone();
    flipped[200] ^= 4;
    let cut = &whole[..whole.len() - 9];
    let mut other_mark = marked(&whole);
    *other_mark.last_mut().expect("bytes") ^= 1;
    for payload in [
        marked(&flipped),
        marked(cut),
        with_length(cut),
        [b"$9999\r\n", &whole[..]].concat(),
        other_mark,
        b"-LOADING later\r\n".to_vec(),
        b"$EOF:short\r\n".to_vec(),
        Vec::new(),
    ] {
        let files = FaultyFiles::new();
        let error = saved(&files, payload).expect_err("it is none");
        assert_eq!(names(&files), Vec::<String>::new(), "{error}");
    }
}

#[test]
fn an_interruption_leaves_nothing() {
    let files = FaultyFiles::new();
    let (target, thread) = master(marked(&file(10)));
    let progress = Progress::default();
    progress.stop();
    let error = save_with(Arc::new(files.clone()), &target, Path::new(TO), &progress);
    assert!(error.is_err());
    end(&target, thread);
    assert_eq!(names(&files), Vec::<String>::new());
}

fn restored(bytes: &[u8]) -> Result<Restored, RestoreError> {
    let dir = tempfile::tempdir().expect("a directory");
    let (from, to) = (dir.path().join("a.rdb"), dir.path().join("shard"));
    std::fs::write(&from, bytes).expect("written");
    let result = restore(&from, &to, 0, &Progress::default());
    assert_eq!(to.exists(), result.is_ok(), "what failed leaves nothing");
    result
}

#[test]
fn every_bit_that_flips_is_seen() {
    let whole = file(20);
    restored(&whole).expect("it is restored");
    // The checksum covers all but itself; all zeros there would mean that there is none.
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let error = restored(&bytes).expect_err("it is damaged");
        assert!(
            matches!(
                error,
                RestoreError::Damaged { .. } | RestoreError::NotKept { .. }
            ),
            "byte {at}: {error}"
        );
    }
    for cut in (0..whole.len()).step_by(11) {
        let error = restored(&whole[..cut]).expect_err("it is cut off");
        assert!(matches!(error, RestoreError::Damaged { .. }), "{error}");
    }
    let error = restored(&[&whole[..], b"x"].concat()).expect_err("it goes on");
    assert!(matches!(error, RestoreError::Damaged { .. }), "{error}");
}

#[test]
fn what_no_shard_keeps_is_named() {
    let mut module = b"REDIS0009\xfe\x00\x07".to_vec();
    write_string(&mut module, b"doc");
    // A type 7 value: the id of "ReJSON-RL", version 3, and its end.
    let id: u64 = b"ReJSON-RL".iter().fold(0, |id, byte| {
        let all = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let six = all.iter().position(|known| known == byte).expect("known");
        id << 6 | six as u64
    }) << 10
        | 3;
    write_length(&mut module, id);
    module.push(0);
    let error = restored(&ended(module)).expect_err("a module's value");
    assert!(error.to_string().contains("module ReJSON-RL"), "{error}");
    let mut far = b"REDIS0009\xfe\x14\x00".to_vec();
    write_string(&mut far, b"k");
    write_string(&mut far, b"v");
    let error = restored(&ended(far)).expect_err("database 20");
    assert!(error.to_string().contains("database 20"), "{error}");
    let mut long = b"REDIS0009\xfe\x00\x00".to_vec();
    write_string(&mut long, &[b'k'; 70_000]);
    write_string(&mut long, b"v");
    let error = restored(&ended(long)).expect_err("a long key");
    assert!(error.to_string().contains("70000 bytes"), "{error}");
}

#[test]
fn a_directory_with_something_in_it_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let (from, to) = (dir.path().join("a.rdb"), dir.path().join("shard"));
    std::fs::write(&from, file(3)).expect("written");
    std::fs::create_dir_all(to.join("log")).expect("made");
    std::fs::write(to.join("log/precious"), b"1").expect("written");
    let error = restore(&from, &to, 0, &Progress::default());
    assert!(matches!(error, Err(RestoreError::NotEmpty { .. })));
    assert!(to.join("log/precious").exists());
    // Half a restore is begun anew; what else is there is still nobody's.
    std::fs::write(to.join("restoring"), b"").expect("written");
    std::fs::write(to.join("settings.json"), b"half").expect("written");
    std::fs::write(to.join("notes"), b"mine").expect("written");
    let error = restore(&from, &to, 0, &Progress::default());
    assert!(matches!(error, Err(RestoreError::NotEmpty { what, .. }) if what == "notes"));
    std::fs::remove_file(to.join("notes")).expect("removed");
    std::fs::create_dir(to.join("lost+found")).expect("made");
    restore(&from, &to, 0, &Progress::default()).expect("it is restored");
    assert!(!to.join("log/precious").exists() && !to.join("restoring").exists());
    assert!(!to.join("settings.json").exists(), "the file has none");
}

fn with_fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = b"REDIS0009".to_vec();
    for (name, value) in fields {
        bytes.push(0xfa);
        write_string(&mut bytes, name.as_bytes());
        write_string(&mut bytes, value.as_bytes());
    }
    ended(bytes)
}

/// Of another version, say: no shard could be started with them.
#[test]
fn settings_and_users_that_no_shard_can_have_are_refused_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let (from, to) = (dir.path().join("a.rdb"), dir.path().join("shard"));
    for (settings, users, told) in [
        (
            "{ \"no-such\": \"1\" }",
            "",
            "settings.json: no-such: there is none",
        ),
        ("{ \"timeout\": ", "", "settings.json: "),
        ("{}", "user a +nosuch\n", "users.acl: user a, rule +nosuch"),
    ] {
        let fields = [("keyferry-settings", settings), ("keyferry-users", users)];
        std::fs::write(&from, with_fields(&fields)).expect("written");
        let error = restore(&from, &to, 0, &Progress::default());
        let error = error.expect_err("nobody can have them").to_string();
        assert!(error.contains(told), "{error}");
        assert!(!to.exists(), "nothing is left");
    }
}
