use super::*;
use crate::replication::spool::DiskRoom;

struct World {
    queue: Arc<Queue>,
    meter: Arc<TapMeter>,
    damage: Arc<Notify>,
    dir: tempfile::TempDir,
}

/// A queue of `memory` bytes; with `disk` it may spool so many.
fn world(memory: usize, disk: Option<u64>) -> World {
    let dir = tempfile::tempdir().unwrap();
    let (meter, damage) = (Arc::new(TapMeter::default()), Arc::new(Notify::new()));
    let spool = disk.map(|bytes_max| {
        let room = Arc::new(DiskRoom::new(bytes_max));
        Spool::new(dir.path().to_owned(), "stream", room)
    });
    let queue = Queue::new(memory, spool, Arc::clone(&meter), Arc::clone(&damage));
    World {
        queue: Arc::new(queue),
        meter,
        damage,
        dir,
    }
}

impl World {
    fn files(&self) -> usize {
        std::fs::read_dir(self.dir.path()).unwrap().count()
    }
}

/// `count` bytes that tell their place.
fn numbered(from: usize, count: usize) -> BytesMut {
    (from..from + count).map(|i| (i % 251) as u8).collect()
}

fn address() -> ShardAddress {
    "127.0.0.1:1".parse().unwrap()
}

fn continued(replid: &str) -> Mark {
    Mark::Continue {
        address: address(),
        replid: replid.to_owned(),
    }
}

/// Pops `count` bytes and checks that they are the ones pushed there.
async fn take(queue: &Queue, from: usize, count: usize) {
    let mut taken = 0;
    while taken < count {
        let Popped::Bytes(bytes) = queue.pop(0).await else {
            panic!("bytes were expected after {taken}");
        };
        assert_eq!(bytes, numbered(from + taken, bytes.len()));
        taken += bytes.len();
    }
    assert_eq!(taken, count);
}

#[tokio::test]
async fn what_fits_in_memory_never_touches_the_disk() {
    let world = world(64 * 1024, Some(u64::MAX));
    for round in 0..100 {
        let from = round * 32_000;
        for piece in 0..32 {
            world.queue.push(numbered(from + piece * 1000, 1000)).await;
        }
        take(&world.queue, from, 32_000).await;
    }
    assert_eq!(world.files(), 0);
    assert_eq!(world.meter.figures().spooled_bytes, 0);
    assert_eq!(world.meter.figures().memory_bytes, 0);
    assert!(world.meter.figures().waiting_bytes_peak >= 32_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_memory_goes_to_disk_and_comes_back_in_order() {
    let world = world(16 * 1024, Some(u64::MAX));
    let (mut pushed, mut popped) = (0, 0);
    for round in 0_usize..60 {
        // More in than out, then less.
        let (more, less) = if round < 40 {
            (50_000, 20_000)
        } else {
            (1_000, 60_000)
        };
        for piece in [more / 2, more / 3, more - more / 2 - more / 3] {
            world.queue.push(numbered(pushed, piece)).await;
            pushed += piece;
        }
        world.queue.mark(continued(&round.to_string()));
        let mut left = less.min(pushed - popped);
        while left > 0 {
            match world.queue.pop(0).await {
                Popped::Bytes(bytes) => {
                    assert_eq!(bytes, numbered(popped, bytes.len()));
                    popped += bytes.len();
                    left = left.saturating_sub(bytes.len());
                }
                Popped::Mark(_) => {}
                other => panic!("{other:?}"),
            }
        }
        let figures = world.meter.figures();
        // A chunk that was cut off at a mark, and one being read ahead.
        assert!(figures.memory_bytes < 128 * 1024, "{figures:?}");
    }
    assert!(world.meter.figures().spooled_bytes > 500_000);
    world.queue.end();
    loop {
        match world.queue.pop(0).await {
            Popped::Bytes(bytes) => {
                assert_eq!(bytes, numbered(popped, bytes.len()));
                popped += bytes.len();
            }
            Popped::Mark(_) => {}
            Popped::Ended => break,
            Popped::Void(_) => panic!("nobody reset it"),
        }
    }
    assert_eq!(popped, pushed);
    assert_eq!(world.files(), 0, "what was read is deleted");
    let figures = world.meter.figures();
    assert_eq!((figures.memory_bytes, figures.disk_bytes), (0, 0));
    world.queue.stop().unwrap().join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_come_after_the_bytes_before_them() {
    for disk in [None, Some(u64::MAX)] {
        let world = world(8 * 1024, disk);
        let total = if disk.is_some() { 40_000 } else { 4_000 };
        let piece = total / 4;
        world.queue.push(numbered(0, piece)).await;
        world.queue.mark(continued("unseen"));
        world.queue.mark(continued("a"));
        world.queue.push(numbered(piece, 2 * piece)).await;
        world.queue.mark(Mark::SnapshotEnd);
        world.queue.push(numbered(3 * piece, piece)).await;
        take(&world.queue, 0, piece).await;
        let mark = world.queue.pop(0).await;
        assert!(
            matches!(&mark, Popped::Mark(mark) if *mark == continued("a")),
            "{mark:?}"
        );
        take(&world.queue, piece, 2 * piece).await;
        let mark = world.queue.pop(0).await;
        assert!(matches!(mark, Popped::Mark(Mark::SnapshotEnd)), "{mark:?}");
        take(&world.queue, 3 * piece, piece).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_push_waits_until_there_is_some() {
    // The second one fills its disk, too.
    for (world, most) in [
        (world(8_000, None), 8_000),
        (world(8_000, Some(9_000)), 17_000),
    ] {
        let queue = Arc::clone(&world.queue);
        let pusher = tokio::spawn(async move {
            for piece in 0..50 {
                queue.push(numbered(piece * 1000, 1000)).await;
            }
        });
        let meter = &world.meter;
        let waits = || {
            let figures = meter.figures();
            let full = figures.spool_full || most == 8_000;
            full && figures.memory_bytes >= 5_000
        };
        while !waits() {
            tokio::task::yield_now().await;
        }
        assert!(!pusher.is_finished());
        assert!(
            meter.figures().waiting_bytes_peak <= most,
            "{:?}",
            meter.figures()
        );
        take(&world.queue, 0, 50_000).await;
        pusher.await.unwrap();
        assert!(!world.meter.figures().spool_full || world.meter.figures().disk_bytes == 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_voids_everything_before_it() {
    let world = world(8_000, Some(u64::MAX));
    for piece in 0..100 {
        world.queue.push(numbered(piece * 1000, 1000)).await;
    }
    assert!(matches!(world.queue.pop(0).await, Popped::Bytes(_)));
    world.queue.reset(1, Some(continued("new")));
    assert!(matches!(world.queue.pop(0).await, Popped::Void(1)));
    let mark = world.queue.pop(1).await;
    assert!(
        matches!(&mark, Popped::Mark(mark) if *mark == continued("new")),
        "{mark:?}"
    );
    let figures = world.meter.figures();
    assert_eq!((figures.memory_bytes, figures.disk_bytes), (0, 0));
    for piece in 0..20 {
        world.queue.push(numbered(piece * 1000, 1000)).await;
    }
    let mut taken = 0;
    while taken < 20_000 {
        let Popped::Bytes(bytes) = world.queue.pop(1).await else {
            panic!("bytes were expected");
        };
        assert_eq!(bytes, numbered(taken, bytes.len()));
        taken += bytes.len();
    }
    world.queue.stop().unwrap().join().unwrap();
    assert_eq!(world.files(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_told_and_a_reset_heals() {
    let world = world(8_000, Some(u64::MAX));
    for piece in 0..100 {
        world.queue.push(numbered(piece * 1000, 1000)).await;
    }
    while world.meter.figures().disk_bytes < 80_000 {
        tokio::task::yield_now().await;
    }
    for entry in std::fs::read_dir(world.dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let bytes: Vec<u8> = std::fs::read(&path)
            .unwrap()
            .iter()
            .map(|byte| !byte)
            .collect();
        std::fs::write(path, bytes).unwrap();
    }
    let queue = Arc::clone(&world.queue);
    let popper = tokio::spawn(async move {
        loop {
            if let Popped::Void(history) = queue.pop(0).await {
                return history;
            }
        }
    });
    world.damage.notified().await;
    let damage = world.queue.take_damage().unwrap();
    assert!(
        matches!(damage, TapErrorKind::SpoolDamaged { .. }),
        "{damage}"
    );
    assert!(world.queue.take_damage().is_none());
    world.queue.reset(1, None);
    assert_eq!(popper.await.unwrap(), 1);
    world.queue.push(numbered(0, 10)).await;
    assert!(matches!(world.queue.pop(1).await, Popped::Bytes(bytes) if bytes == numbered(0, 10)));
}
