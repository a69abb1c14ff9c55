//! A lane against a scripted target: order, barriers, windows, refusals, and
//! connections that break.

use std::sync::Arc;

use tokio::io::split;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::super::checkpoint::Lineage;
use super::super::config::QUEUE_BATCHES_MAX;
use super::super::error::Role;
use super::super::placement::SourceIndex;
use super::*;
use crate::resp::Value;
use crate::restore::Reply;
use crate::upstream::config::UpstreamConfig;
use tokio::sync::oneshot;

const LINEAGE: Lineage = Lineage {
    run: 0xab,
    history: 0,
};

struct World {
    listener: TcpListener,
    queue: mpsc::Sender<Batch>,
    target: TcpStream,
    meter: Arc<LaneMeter>,
    lane: JoinHandle<Result<(), MoveError>>,
    stop: watch::Sender<bool>,
}

/// A lane whose target is the other end of a connection.
async fn world(limits: MoverLimits) -> World {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let names = LaneNames {
        source: "s:1".parse().unwrap(),
        target: listener.local_addr().unwrap().to_string().parse().unwrap(),
    };
    let upstream = UpstreamConfig::default();
    let dialer = Dialer::new(
        names.clone(),
        upstream.clone(),
        ("j", SourceIndex(4)),
        limits,
    );
    let link = Link::connect(Role::Target, &names.target, &upstream);
    let (link, taken) = tokio::join!(link, listener.accept());
    let meter = Arc::new(LaneMeter::default());
    let lane = Lane::new(
        (names, dialer),
        link.unwrap(),
        &Checkpoint::first(LINEAGE, None),
        limits,
        (Arc::clone(&meter), ShortfallLog::new(None)),
    );
    let (queue, mut batches) = mpsc::channel(QUEUE_BATCHES_MAX);
    let (stop, stopped) = watch::channel(false);
    let lane = tokio::spawn(async move { lane.run(&mut batches, stopped).await });
    World {
        listener,
        queue,
        target: taken.unwrap().0,
        meter,
        lane,
        stop,
    }
}

impl World {
    async fn carry(&self, carriage: Carriage, bytes: &[u8], ops: Vec<Op>, offset: u64) {
        self.meter.sent();
        let batch = Batch {
            carriage,
            bytes: Bytes::copy_from_slice(bytes),
            ops,
            offset,
            share: None,
        };
        self.queue.send(batch).await.unwrap();
    }

    async fn send(&self, bytes: &[u8], ops: Vec<Op>, offset: u64) {
        self.carry(Carriage::Bare, bytes, ops, offset).await;
    }

    async fn hears(&mut self, bytes: &[u8]) {
        let mut heard = vec![0; bytes.len()];
        self.target.read_exact(&mut heard).await.unwrap();
        assert_eq!(
            String::from_utf8_lossy(&heard),
            String::from_utf8_lossy(bytes)
        );
    }

    async fn says(&mut self, bytes: &[u8]) {
        self.target.write_all(bytes).await.unwrap();
    }

    /// Breaks the connection and takes the next one, where the old one is still
    /// listed and `checkpoint` is found.
    async fn breaks(&mut self, checkpoint: &str) {
        let (link, _) = tokio::join!(self.listener.accept(), self.target.shutdown());
        self.target = link.unwrap().0;
        self.hears(b"*2\r\n$6\r\nCLIENT\r\n$4\r\nLIST\r\n").await;
        let list = "id=7 name=keyferry:j:lane:4\nid=8 name=keyferry:j:lane:3\n";
        self.says(format!("${}\r\n{list}\r\n", list.len()).as_bytes())
            .await;
        self.hears(b"*4\r\n$6\r\nCLIENT\r\n$4\r\nKILL\r\n$2\r\nID\r\n$1\r\n7\r\n")
            .await;
        self.says(b":1\r\n").await;
        self.hears(b"*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$17\r\nkeyferry:j:lane:4\r\n")
            .await;
        self.says(b"+OK\r\n").await;
        self.hears(b"*2\r\n$3\r\nGET\r\n$17\r\n__keyferry:cp:j:4\r\n")
            .await;
        self.says(checkpoint.as_bytes()).await;
    }
}

/// GET's reply: batch `sequence` is applied.
fn applied(sequence: u64) -> String {
    let text = Checkpoint {
        lineage: LINEAGE,
        sequence,
        at: None,
    }
    .text();
    format!("${}\r\n{text}\r\n", text.len())
}

fn key(name: &'static str) -> Op {
    Op::Key {
        db: 0,
        key: Bytes::from_static(name.as_bytes()),
        reply: Reply::Accepted,
        last: true,
    }
}

fn command(name: &'static str) -> Op {
    Op::Command {
        db: 0,
        name: Bytes::from_static(name.as_bytes()),
        key: Bytes::from_static(b"k"),
    }
}

#[tokio::test]
async fn a_barrier_passes_when_all_before_it_is_answered() {
    let mut world = world(MoverLimits::default()).await;
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
    let mut world = world(MoverLimits::default()).await;
    let (done, replies) = oneshot::channel();
    world.send(b"abc", vec![key("a"), reads(2, done)], 1).await;
    world.hears(b"abc").await;
    world.says(b"+OK\r\n$1\r\nv\r\n-NOPERM no\r\n").await;
    let expected = vec![
        Value::Bulk(b"v".to_vec()),
        Value::Error(b"NOPERM no".to_vec()),
    ];
    assert_eq!(replies.await.unwrap(), expected);
}

fn reads(count: usize, done: oneshot::Sender<Vec<Value>>) -> Op {
    Op::Reads(Reads {
        count,
        replies: Vec::new(),
        done,
    })
}

#[tokio::test]
async fn the_window_holds_back_what_is_behind_it() {
    let limits = MoverLimits {
        window_bytes: 4,
        window_ops: 10,
        queue_bytes: 100,
        ..MoverLimits::default()
    };
    let mut world = world(limits).await;
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
async fn full_sockets_in_both_directions_do_not_stop_it() {
    const BATCHES: usize = 40;
    const OPS: usize = 400;
    let limits = MoverLimits {
        window_bytes: usize::MAX,
        window_ops: usize::MAX,
        ..MoverLimits::default()
    };
    let world = world(limits).await;
    for offset in 0..BATCHES {
        let ops = (0..OPS).map(|_| key("k")).collect();
        world.send(&[b'x'; 400_000], ops, offset as u64).await;
    }
    let (passed, mut words) = mpsc::channel(1);
    world.send(b"", vec![Op::Barrier(passed)], 200).await;
    let (mut from, mut to) = split(world.target);
    let hears = async {
        let mut heard = vec![0; BATCHES * 400_000];
        from.read_exact(&mut heard).await.unwrap();
    };
    let says = async {
        let replies = b"+OK\r\n".repeat(BATCHES * OPS);
        to.write_all(&replies).await.unwrap();
    };
    tokio::join!(hears, says);
    words.recv().await.unwrap();
    assert_eq!(world.meter.keys_acked(), (BATCHES * OPS) as u64);
}

#[tokio::test]
async fn a_refusal_names_target_command_and_key() {
    let mut world = world(MoverLimits::default()).await;
    world.send(b"1", vec![key("user:1")], 1).await;
    world.hears(b"1").await;
    world
        .says(b"-BUSYKEY Target key name already exists.\r\n")
        .await;
    let text = world.lane.await.unwrap().unwrap_err().to_string();
    for part in ["127.0.0.1", "s:1", "RESTORE", "user:1", "BUSYKEY"] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn noise_of_the_target_ends_the_lane() {
    for (says, expected) in [
        (&b"+OK\r\n"[..], "nothing asked for"),
        (b"?\r\n", "not a reply"),
    ] {
        let mut world = world(MoverLimits::default()).await;
        world.says(says).await;
        let text = world.lane.await.unwrap().unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn a_target_that_stays_away_ends_the_lane_when_patience_is_over() {
    let limits = MoverLimits {
        target_patience_ms: 0,
        ..MoverLimits::default()
    };
    let world = world(limits).await;
    drop((world.target, world.listener));
    assert!(matches!(
        world.lane.await.unwrap(),
        Err(MoveError::LaneLost { .. })
    ));
}

#[tokio::test]
async fn it_stops_when_told_although_replies_are_owed() {
    let mut world = world(MoverLimits::default()).await;
    world.send(b"1", vec![key("k")], 1).await;
    world.hears(b"1").await;
    world.stop.send_replace(true);
    world.lane.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_lane_pings_and_takes_any_answer_for_one() {
    let mut world = world(MoverLimits::default()).await;
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

#[tokio::test]
async fn a_batch_done_once_is_answered_by_its_exec() {
    let mut world = world(MoverLimits::default()).await;
    let (passed, mut words) = mpsc::channel(1);
    let ops = vec![command("incr"), Op::Checkpoint, Op::Barrier(passed)];
    world.carry(Carriage::Once(1), b"12", ops, 7).await;
    world.hears(b"12").await;
    world.says(b"+OK\r\n+QUEUED\r\n+QUEUED\r\n").await;
    assert_eq!(world.meter.applied_offset(9), 0);
    assert!(words.try_recv().is_err());
    world.says(b"*2\r\n:1\r\n+OK\r\n").await;
    words.recv().await.unwrap();
    assert_eq!(world.meter.applied_offset(9), 9);
}

#[tokio::test]
async fn refusals_inside_a_transaction_are_told_by_their_command() {
    for (says, parts) in [
        (
            &b"+OK\r\n+QUEUED\r\n-OOM no\r\n+QUEUED\r\n-EXECABORT x\r\n"[..],
            ["RPUSH", "OOM no", "nothing of its batch was applied"],
        ),
        (
            b"+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n:1\r\n-WRONGTYPE x\r\n+OK\r\n",
            ["RPUSH", "WRONGTYPE", "db 0"],
        ),
        (
            b"+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n-EXECABORT y\r\n",
            ["EXEC", "EXECABORT y", "nothing of its batch was applied"],
        ),
        (b"-NOPERM multi\r\n", ["MULTI", "NOPERM", "s:1"]),
        (
            b"+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n:2\r\n",
            ["too few replies", "EXEC", "s:1"],
        ),
    ] {
        // Nobody answers when it is asked how far it is.
        let limits = MoverLimits {
            target_patience_ms: 0,
            ..MoverLimits::default()
        };
        let mut world = world(limits).await;
        let ops = vec![command("incr"), command("rpush"), Op::Checkpoint];
        world.carry(Carriage::Once(1), b"x", ops, 7).await;
        world.hears(b"x").await;
        world.says(says).await;
        let text = world.lane.await.unwrap().unwrap_err().to_string();
        for part in parts {
            assert!(text.contains(part), "{text}");
        }
    }
}

#[tokio::test]
async fn batches_behind_the_checkpoint_are_sent_again_in_their_order() {
    let mut world = world(MoverLimits::default()).await;
    let (passed, mut words) = mpsc::channel(2);
    let (done, replies) = oneshot::channel();
    for sequence in 1..=4 {
        let bytes = format!("[{sequence}]");
        let barrier = Op::Barrier(passed.clone());
        let ops = vec![command("incr"), Op::Checkpoint, barrier];
        let once = Carriage::Once(sequence);
        world.carry(once, bytes.as_bytes(), ops, sequence).await;
        if sequence == 2 {
            let ops = vec![reads(1, done)];
            world.send(b"(read)", ops, sequence).await;
            break;
        }
    }
    world
        .carry(Carriage::Once(3), b"[3]", vec![Op::Checkpoint], 3)
        .await;
    world.hears(b"[1][2](read)[3]").await;
    world.says(b"+OK\r\n+QUEUED\r\n+QUE").await;
    world.breaks(&applied(1)).await;
    words.recv().await.unwrap();
    assert!(replies.await.is_err(), "reads of a lost place are given up");
    assert_eq!(world.meter.applied_offset(9), 1);
    world.hears(b"[2][3]").await;
    world
        .says(b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n+OK\r\n")
        .await;
    words.recv().await.unwrap();
    world.says(b"+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n").await;
    world.hears(PING).await;
    assert_eq!(world.meter.applied_offset(9), 9);
}

#[tokio::test]
async fn a_key_that_arrived_before_the_break_is_ours() {
    let mut world = world(MoverLimits::default()).await;
    let ops = vec![key("a"), key("b"), Op::Checkpoint];
    world.carry(Carriage::Repeatable(1), b"abc", ops, 1).await;
    world.hears(b"abc").await;
    world.says(b"+OK\r\n").await;
    world.breaks(&applied(0)).await;
    world.hears(b"abc").await;
    world.says(b"-BUSYKEY x\r\n-BUSYKEY x\r\n+OK\r\n").await;
    world.hears(PING).await;
    assert_eq!(world.meter.keys_acked(), 2, "each is counted once");
}

#[tokio::test]
async fn a_target_that_forgot_ends_the_lane() {
    for (found, expected) in [
        (applied(0), "batch 0"),
        (applied(9), "batch 9"),
        ("$-1\r\n".to_owned(), "checkpoint is gone"),
        (
            "$17\r\nv1 1 0 7 copying \r\n".to_owned(),
            "checkpoint is gone",
        ),
        ("$16\r\nv1 1 0 7 copying\r\n".to_owned(), "of another copy"),
    ] {
        let mut world = world(MoverLimits::default()).await;
        let ops = vec![command("incr"), Op::Checkpoint];
        world.carry(Carriage::Once(1), b"x", ops, 7).await;
        world.hears(b"x").await;
        world
            .says(b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n+OK\r\n")
            .await;
        world.hears(PING).await;
        world.breaks(&found).await;
        let error = world.lane.await.unwrap().unwrap_err();
        assert!(matches!(error, MoveError::TargetForgot { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_target_whose_old_connection_cannot_be_ended_ends_the_lane() {
    let mut world = world(MoverLimits::default()).await;
    let (link, _) = tokio::join!(world.listener.accept(), world.target.shutdown());
    world.target = link.unwrap().0;
    world.hears(b"*2\r\n$6\r\nCLIENT\r\n$4\r\nLIST\r\n").await;
    world.says(b"-NOPERM no\r\n+OK\r\n").await;
    let text = world.lane.await.unwrap().unwrap_err().to_string();
    assert!(text.contains("CLIENT KILL"), "{text}");
}
