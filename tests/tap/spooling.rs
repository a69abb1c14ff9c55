//! A caller that takes nothing for a while: the source is read all the same.

use std::fs;
use std::path::Path;

use super::*;

/// Far more than the memory of these taps.
const VALUES: usize = 300;
const VALUE_BYTES: usize = 40_000;
const MEMORY_BYTES: usize = 256 * 1024;

/// One chunk more may be in each queue, one cut off it, and one on its way to disk.
const MEMORY_SLACK_BYTES: u64 = 2 * 1024 * 1024;

fn fill_with_noise(client: &mut Client) {
    let mut rng = fastrand::Rng::with_seed(7);
    for i in 0..VALUES {
        let value: Vec<u8> = (0..VALUE_BYTES).map(|_| rng.u8(..)).collect();
        client.call(&[b"SET", format!("noise:{i}").as_bytes(), &value[..]]);
    }
}

fn spooling(address: &str, dir: &Path) -> TapConfig {
    let mut config = patient(address);
    config.spool = SpoolConfig {
        dir: Some(dir.to_owned()),
        memory_bytes_max: MEMORY_BYTES,
        disk_bytes_max: u64::MAX,
    };
    config
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn is_online(source: &RedisServer) -> bool {
    let slave = source.info_field("replication", "slave0");
    slave.is_some_and(|slave| slave.contains("state=online"))
}

async fn the_spool_grows_and_drains(diskless: bool) {
    let (source, dir) = (source(diskless), tempfile::tempdir().unwrap());
    fill_with_noise(&mut source.client());
    let config = spooling(&source.address(), dir.path());
    let tap = Tap::attach(config, None).await.unwrap();
    let meter = tap.meter();
    // Nobody calls `next`.
    let snapshot = (VALUES * VALUE_BYTES) as u64;
    wait_until("the snapshot is received and said so", LIMIT, || {
        meter.figures().received_bytes > snapshot && is_online(&source)
    });
    fill_with_noise(&mut source.client());
    wait_until("the stream is received, too", LIMIT, || {
        meter.figures().received_offset == master_offset(&source)
    });
    let figures = meter.figures();
    assert!(figures.disk_bytes > snapshot, "{figures:?}");
    assert!(figures.memory_bytes < MEMORY_SLACK_BYTES, "{figures:?}");
    assert!(figures.waiting_bytes_peak > 2 * snapshot && !figures.spool_full);
    let slave = source.info_field("replication", "slave0").unwrap();
    let acked = slave.split("offset=").nth(1).unwrap().split(',').next();
    let acked: u64 = acked.unwrap().parse().unwrap();
    assert!(
        acked < master_offset(&source),
        "nothing was acknowledged: {slave}"
    );

    let follower = Follower::start(tap, Seen::default());
    follower.catch_up(&source);
    let figures = follower.figures();
    assert_eq!(
        (figures.memory_bytes, figures.disk_bytes),
        (0, 0),
        "{figures:?}"
    );
    assert_eq!((figures.reconnects, figures.full_resyncs), (0, 1));
    let seen = follower.stop().await;
    Copy::of(&seen.events).assert_equals(&source);
    assert!(files(dir.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spool_of_a_diskless_sync_grows_and_drains() {
    the_spool_grows_and_drains(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spool_of_a_sync_from_disk_grows_and_drains() {
    the_spool_grows_and_drains(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_keeps_up_needs_no_disk() {
    let (source, dir) = (source(true), tempfile::tempdir().unwrap());
    fill(&mut source.client());
    let mut config = spooling(&source.address(), dir.path());
    config.spool.memory_bytes_max = 8 * 1024 * 1024;
    let follower = Follower::start(Tap::attach(config, None).await.unwrap(), Seen::default());
    follower.catch_up(&source);
    assert_eq!(follower.figures().spooled_bytes, 0);
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_spool_is_said_and_the_source_copied_again() {
    let (source, dir) = (source(true), tempfile::tempdir().unwrap());
    fill_with_noise(&mut source.client());
    let config = spooling(&source.address(), dir.path());
    let tap = Tap::attach(config, None).await.unwrap();
    let meter = tap.meter();
    wait_until("the snapshot is spooled", LIMIT, || {
        let figures = meter.figures();
        is_online(&source) && figures.disk_bytes + figures.memory_bytes >= figures.received_bytes
    });
    let mut paths = files(dir.path());
    paths.sort();
    let mut bytes = fs::read(&paths[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&paths[0], bytes).unwrap();

    let follower = Follower::start(tap, Seen::default());
    wait_until("the source is copied again", LIMIT, || {
        follower.figures().full_resyncs == 2
    });
    let error = follower.figures().last_error.unwrap();
    assert!(
        error.contains("is damaged at byte") && error.contains(".spool"),
        "{error}"
    );
    source.client().call(&["SET", "after", "v"]);
    follower.catch_up(&source);
    let seen = follower.stop().await;
    Copy::of(&seen.events).assert_equals(&source);
    assert!(files(dir.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_holds_the_source_and_says_so() {
    const DISK_BYTES: u64 = 1024 * 1024;
    let (source, dir) = (source(false), tempfile::tempdir().unwrap());
    fill_with_noise(&mut source.client());
    let mut config = spooling(&source.address(), dir.path());
    config.spool.disk_bytes_max = DISK_BYTES;
    let tap = Tap::attach(config, None).await.unwrap();
    let meter = tap.meter();
    wait_until("the spool is full", LIMIT, || meter.figures().spool_full);
    let figures = meter.figures();
    assert!(figures.disk_bytes <= DISK_BYTES, "{figures:?}");
    assert!(figures.memory_bytes < MEMORY_SLACK_BYTES, "{figures:?}");
    assert!(figures.last_error.unwrap().contains("takes no more"));
    let on_disk: u64 = files(dir.path())
        .iter()
        .map(|path| fs::metadata(path).unwrap().len())
        .sum();
    assert!(on_disk <= DISK_BYTES, "{on_disk}");
    let follower = Follower::start(tap, Seen::default());
    follower.catch_up(&source);
    let figures = follower.figures();
    assert!(
        !figures.spool_full && figures.full_resyncs == 1,
        "{figures:?}"
    );
    Copy::of(&follower.stop().await.events).assert_equals(&source);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_run_left_is_deleted() {
    let (source, dir) = (source(true), tempfile::tempdir().unwrap());
    for name in ["snapshot-00000003.spool", "journal"] {
        fs::write(dir.path().join(name), "left").unwrap();
    }
    let config = spooling(&source.address(), dir.path());
    Tap::attach(config, None).await.unwrap().close().await;
    assert_eq!(files(dir.path()), [dir.path().join("journal")]);

    let config = spooling(&source.address(), &dir.path().join("journal"));
    let error = Tap::attach(config, None).await.unwrap_err();
    assert!(
        matches!(error.kind, TapErrorKind::SpoolUnusable { .. }),
        "{error}"
    );
    assert_eq!(error.retry(), Retry::Never);
}
