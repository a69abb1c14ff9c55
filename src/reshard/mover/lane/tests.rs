//! A lane against a target of two pipes: order, barriers, windows, refusals.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::task::JoinHandle;

use super::super::config::QUEUE_BATCHES_MAX;
use super::*;

struct World {
    queue: mpsc::Sender<Batch>,
    target: DuplexStream,
    meter: Arc<LaneMeter>,
    lane: JoinHandle<Result<(), MoveError>>,
    stop: watch::Sender<bool>,
}

/// A lane whose target is the other end of a pipe of `pipe_bytes`.
fn world(pipe_bytes: usize, limits: MoverLimits) -> World {
    let (ours, target) = duplex(pipe_bytes);
    let halves: (ReadHalf<DuplexStream>, WriteHalf<DuplexStream>) = split(ours);
    let meter = Arc::new(LaneMeter::default());
    let names = LaneNames {
        source: "s:1".parse().unwrap(),
        target: "t:2".parse().unwrap(),
    };
    let lane = Lane::new(
        names,
        halves,
        limits,
        (Arc::clone(&meter), ShortfallLog::new(None)),
    );
    let (queue, mut batches) = mpsc::channel(QUEUE_BATCHES_MAX);
    let (stop, stopped) = watch::channel(false);
    let lane = tokio::spawn(async move { lane.run(&mut batches, stopped).await });
    World {
        queue,
        target,
        meter,
        lane,
        stop,
    }
}

impl World {
    async fn send(&self, bytes: &[u8], ops: Vec<Op>, offset: u64) {
        self.meter.sent();
        let batch = Batch {
            bytes: bytes.to_vec(),
            ops,
            offset,
            share: None,
        };
        self.queue.send(batch).await.unwrap();
    }

    async fn hears(&mut self, bytes: &[u8]) {
        let mut heard = vec![0; bytes.len()];
        self.target.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, bytes);
    }

    async fn says(&mut self, bytes: &[u8]) {
        self.target.write_all(bytes).await.unwrap();
    }
}

fn key(name: &'static str) -> Op {
    Op::Key {
        db: 0,
        key: Bytes::from_static(name.as_bytes()),
        reply: Reply::Accepted,
        last: true,
    }
}

#[tokio::test]
async fn a_barrier_passes_when_all_before_it_is_answered() {
    let mut world = world(1024, MoverLimits::default());
    let (passed, mut words) = mpsc::channel(1);
    world
        .send(b"12", vec![key("a"), key("b"), Op::Barrier(passed)], 7)
        .await;
    world.hears(b"12").await;
    world.says(b"+OK\r\n+O").await;
    assert_eq!(world.meter.applied_offset(9), 0);
    assert!(words.try_recv().is_err());
    world.says(b"K\r\n").await;
    words.recv().await.unwrap();
    assert_eq!(
        (world.meter.applied_offset(9), world.meter.keys_acked()),
        (9, 2)
    );
    let (passed, mut words) = mpsc::channel(1);
    world.send(b"", vec![Op::Barrier(passed)], 11).await;
    words.recv().await.unwrap();
}

#[tokio::test]
async fn reads_come_back_with_error_replies_as_values() {
    let mut world = world(1024, MoverLimits::default());
    let (done, replies) = oneshot::channel();
    let reads = Op::Reads(Reads {
        left: 2,
        replies: Vec::new(),
        done,
    });
    world.send(b"abc", vec![key("a"), reads], 1).await;
    world.hears(b"abc").await;
    world.says(b"+OK\r\n$1\r\nv\r\n-NOPERM no\r\n").await;
    let expected = vec![
        Value::Bulk(b"v".to_vec()),
        Value::Error(b"NOPERM no".to_vec()),
    ];
    assert_eq!(replies.await.unwrap(), expected);
}

#[tokio::test]
async fn the_window_holds_back_what_is_behind_it() {
    let limits = MoverLimits {
        window_bytes: 4,
        window_ops: 10,
        queue_bytes: 100,
    };
    let mut world = world(1024, limits);
    world.send(b"1111", vec![key("a")], 1).await;
    world.send(b"2222", vec![key("b")], 2).await;
    world.hears(b"1111").await;
    let mut early = [0];
    let waited = tokio::time::timeout(Duration::from_millis(50), world.target.read(&mut early));
    assert!(waited.await.is_err(), "the second batch did not wait");
    world.says(b"+OK\r\n").await;
    world.hears(b"2222").await;
}

#[tokio::test]
async fn full_pipes_in_both_directions_do_not_stop_it() {
    let world = world(16, MoverLimits::default());
    for offset in 0..200 {
        world
            .send(&[b'x'; 40], vec![key("k"), key("k")], offset)
            .await;
    }
    let (passed, mut words) = mpsc::channel(1);
    world.send(b"", vec![Op::Barrier(passed)], 200).await;
    let (mut from, mut to) = split(world.target);
    let hears = async {
        let mut heard = vec![0; 200 * 40];
        from.read_exact(&mut heard).await.unwrap();
    };
    let says = async { to.write_all(&b"+OK\r\n".repeat(400)).await.unwrap() };
    tokio::join!(hears, says);
    words.recv().await.unwrap();
    assert_eq!(world.meter.keys_acked(), 400);
}

#[tokio::test]
async fn a_refusal_names_target_command_and_key() {
    let mut world = world(1024, MoverLimits::default());
    world.send(b"1", vec![key("user:1")], 1).await;
    world.hears(b"1").await;
    world
        .says(b"-BUSYKEY Target key name already exists.\r\n")
        .await;
    let text = world.lane.await.unwrap().unwrap_err().to_string();
    for part in ["t:2", "s:1", "RESTORE", "user:1", "BUSYKEY"] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn noise_and_silence_of_the_target_end_the_lane() {
    for (says, expected) in [
        (&b"+OK\r\n"[..], "nothing asked for"),
        (b"?\r\n", "not a reply"),
    ] {
        let mut world = world(1024, MoverLimits::default());
        world.says(says).await;
        let text = world.lane.await.unwrap().unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
    let world = world(1024, MoverLimits::default());
    drop(world.target);
    assert!(matches!(
        world.lane.await.unwrap(),
        Err(MoveError::LaneLost { .. })
    ));
}

#[tokio::test]
async fn it_stops_when_told_although_replies_are_owed() {
    let mut world = world(1024, MoverLimits::default());
    world.send(b"1", vec![key("k")], 1).await;
    world.hears(b"1").await;
    world.stop.send_replace(true);
    world.lane.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_lane_pings_and_takes_any_answer_for_one() {
    let mut world = world(1024, MoverLimits::default());
    let (passed, mut words) = mpsc::channel(1);
    world.hears(PING).await;
    // Sent behind the PING: its reply is the second one.
    world
        .send(b"1", vec![key("a"), Op::Barrier(passed)], 7)
        .await;
    world.hears(b"1").await;
    assert_eq!(world.meter.applied_offset(9), 0);
    world.says(b"-NOPERM no\r\n+OK\r\n").await;
    words.recv().await.unwrap();
    assert_eq!(world.meter.applied_offset(9), 9);
    world.hears(PING).await;
    assert_eq!(world.meter.applied_offset(9), 9, "a PING counts as a batch");
}
