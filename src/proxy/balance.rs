//! Which worker serves a fresh client, and how the client gets there.
//!
//! ```text
//!                                 near the least loaded
//! kernel --> worker that accepts -----------------------> itself
//!                     |
//!                     '-- else: Order::Adopt --> inbox of the least loaded
//! ```
//!
//! SO_REUSEPORT spreads connections by a hash, which leaves few connections
//! skewed; of a Unix socket, whoever wakes first takes all. So the worker that
//! accepts looks at how many clients each worker has, first of the pool, then
//! of all pools, and keeps the fresh one only while it has not more than its
//! part.
//!
//! Invariants
//! - A seat is counted from the choice of its worker, thus also on the way
//!   there, until the client's socket is closed; dropping it gives it back,
//!   whatever way the client ends.
//! - A seat is taken only if its worker still has as many clients as the choice
//!   saw, so that workers that accept at once do not all choose the same.
//! - A client never reaches a worker before the pool does: nobody hands over
//!   until the pool is in every inbox. A worker that left the pool gets no more.
//! - An inbox holds no more clients than the process may have: each has a seat.
//! - The counts are touched when a client comes and goes, never per request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::SendError;

use super::orders::Order;
use super::pool::WorkerPort;
use super::stream::Stream;

/// A worker hands a client over when it has more clients than the least loaded
/// one and this part of those: one, as long as the least loaded has fewer than
/// eight, then 12.5 %. Few clients are spread evenly, many are not sent about
/// for a difference that nobody notices.
const SLACK_PARTS: usize = 8;

/// A number of clients on cache lines of its own, as its neighbours are written
/// by other threads.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Count(AtomicUsize);

impl Count {
    fn value(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn dec(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Clients of the process, all pools together.
#[derive(Debug)]
pub struct ProcessClients {
    all: Count,
    all_max: usize,
    of_workers: Box<[Count]>,
}

impl ProcessClients {
    /// No clients yet, and never more than `clients_max`.
    pub fn new(workers: usize, clients_max: usize) -> Arc<Self> {
        Arc::new(Self {
            all: Count::default(),
            all_max: clients_max,
            of_workers: (0..workers).map(|_| Count::default()).collect(),
        })
    }

    fn take_place(&self) -> bool {
        let is_free = self.all.0.fetch_add(1, Ordering::Relaxed) < self.all_max;
        if !is_free {
            self.all.dec();
        }
        is_free
    }
}

/// A worker as one pool sees it.
#[derive(Debug, Default)]
struct PoolWorker {
    clients: Count,
    left: AtomicBool,
}

/// Clients of one pool, by worker.
pub struct Balance {
    process: Arc<ProcessClients>,
    workers: Box<[PoolWorker]>,
    ports: Arc<[WorkerPort]>,
    opened: AtomicBool,
}

/// What a worker has to do, as far as the choice sees it; compared in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Load {
    pool: usize,
    all_pools: usize,
}

/// Who serves a fresh client.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    Keep,
    HandTo(usize),
}

/// Chooses for a client that worker `own` accepted; `None` takes no clients.
fn choose(own: usize, loads: &[Option<Load>]) -> Choice {
    let others = loads.iter().enumerate();
    let least = others
        .filter_map(|(worker, load)| Some((worker, (*load)?)))
        .min_by_key(|(_, load)| *load);
    let (Some(Some(mine)), Some((worker, least))) = (loads.get(own), least) else {
        return Choice::Keep;
    };
    if is_skewed(mine.pool, least.pool) || is_skewed(mine.all_pools, least.all_pools) {
        Choice::HandTo(worker)
    } else {
        Choice::Keep
    }
}

fn is_skewed(own: usize, least: usize) -> bool {
    own > least + least / SLACK_PARTS
}

impl Balance {
    /// A pool that no worker has yet: each keeps what it accepts.
    pub fn new(process: Arc<ProcessClients>, ports: Arc<[WorkerPort]>) -> Arc<Self> {
        Arc::new(Self {
            process,
            workers: ports.iter().map(|_| PoolWorker::default()).collect(),
            ports,
            opened: AtomicBool::new(false),
        })
    }

    /// The pool is in the inbox of every worker: what is sent there from now on
    /// comes after it.
    pub fn open(&self) {
        self.opened.store(true, Ordering::Release);
    }

    /// Where the workers take their orders.
    pub fn ports(&self) -> Arc<[WorkerPort]> {
        Arc::clone(&self.ports)
    }

    /// Nobody shall hand clients of the pool to `worker` any more; those on
    /// their way still arrive.
    pub fn leave(&self, worker: usize) {
        if let Some(place) = self.workers.get(worker) {
            place.left.store(true, Ordering::Relaxed);
        }
    }

    /// A seat for a client that worker `own` accepted; `None` when the process
    /// has as many clients as it may.
    pub fn take_seat(self: &Arc<Self>, own: usize) -> Option<Seat> {
        if !self.process.take_place() {
            return None;
        }
        loop {
            let loads = self.loads(own);
            let worker = match choose(own, &loads) {
                Choice::Keep => own,
                Choice::HandTo(worker) => worker,
            };
            // Not claimed: another client came or went meanwhile.
            if self.claim(worker, loads.get(worker).copied().flatten()) {
                return Some(Seat {
                    balance: Arc::clone(self),
                    worker,
                });
            }
        }
    }

    /// Clients of the pool, whichever worker serves them.
    pub fn clients(&self) -> usize {
        self.workers.iter().map(|place| place.clients.value()).sum()
    }

    fn loads(&self, own: usize) -> Vec<Option<Load>> {
        let opened = self.opened.load(Ordering::Acquire);
        let workers = self.workers.iter().zip(&self.process.of_workers);
        let load = |(index, (pool, all_pools)): (usize, (&PoolWorker, &Count))| {
            let takes_clients = index == own || (opened && !pool.left.load(Ordering::Relaxed));
            takes_clients.then(|| Load {
                pool: pool.clients.value(),
                all_pools: all_pools.value(),
            })
        };
        workers.enumerate().map(load).collect()
    }

    fn claim(&self, worker: usize, seen: Option<Load>) -> bool {
        if let (Some(place), Some(seen)) = (self.workers.get(worker), seen) {
            let taken = place.clients.0.compare_exchange(
                seen.pool,
                seen.pool + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            if taken.is_err() {
                return false;
            }
        }
        if let Some(all_pools) = self.process.of_workers.get(worker) {
            all_pools.inc();
        }
        true
    }
}

/// One client's part of the counts; given back on drop.
pub struct Seat {
    balance: Arc<Balance>,
    worker: usize,
}

impl Seat {
    /// Who serves the client.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// Another worker serves it after all.
    fn change_to(&mut self, worker: usize) {
        self.counts().into_iter().flatten().for_each(Count::dec);
        self.worker = worker;
        self.counts().into_iter().flatten().for_each(Count::inc);
    }

    fn counts(&self) -> [Option<&Count>; 2] {
        let place = self.balance.workers.get(self.worker);
        [
            place.map(|place| &place.clients),
            self.balance.process.of_workers.get(self.worker),
        ]
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.counts().into_iter().flatten().for_each(Count::dec);
        self.balance.process.all.dec();
    }
}

/// A client between its accept and its place in a worker's core.
pub struct Newcomer {
    /// Its socket; no poll knows it yet.
    pub stream: Stream,
    /// Its address as text.
    pub peer: Box<str>,
    /// Its part of the counts. The last field: the socket closes first.
    pub seat: Seat,
}

impl Newcomer {
    /// Sends the client to the worker of its seat. It comes back with a seat at
    /// worker `own` when that one has ended.
    pub fn hand_over(self, pool: usize, own: usize) -> Option<Self> {
        let balance = Arc::clone(&self.seat.balance);
        let Some(port) = balance.ports.get(self.seat.worker) else {
            return Some(self);
        };
        let newcomer = self;
        match port.offer(Order::Adopt { pool, newcomer }) {
            Err(SendError(Order::Adopt { mut newcomer, .. })) => {
                newcomer.seat.change_to(own);
                Some(newcomer)
            }
            Ok(()) | Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use mio::net::UnixStream;
    use mio::{Poll, Waker};

    use super::super::place::WAKE;
    use super::*;

    fn loads(counts: &[(usize, usize)]) -> Vec<Option<Load>> {
        let load = |&(pool, all_pools)| Some(Load { pool, all_pools });
        counts.iter().map(load).collect()
    }

    #[test]
    fn a_client_is_kept_until_the_imbalance_passes_the_bound() {
        let chosen = |own, counts: &[usize]| {
            let counts: Vec<_> = counts.iter().map(|&count| (count, count)).collect();
            choose(own, &loads(&counts))
        };
        assert_eq!(chosen(0, &[0]), Choice::Keep);
        assert_eq!(chosen(2, &[0, 0, 0, 0]), Choice::Keep);
        assert_eq!(chosen(2, &[1, 0, 1, 0]), Choice::HandTo(1));
        assert_eq!(chosen(0, &[8, 7, 9, 9]), Choice::HandTo(1));
        assert_eq!(chosen(0, &[9, 8, 9, 9]), Choice::Keep);
        assert_eq!(chosen(0, &[10, 8, 9, 9]), Choice::HandTo(1));
        assert_eq!(chosen(0, &[112, 100]), Choice::Keep);
        assert_eq!(chosen(0, &[113, 100]), Choice::HandTo(1));
        assert_eq!(chosen(1, &[113, 100]), Choice::Keep);
    }

    #[test]
    fn even_in_the_pool_then_even_in_the_process() {
        // Pools with a client or two: the worker with the fewest of all gets it.
        assert_eq!(choose(0, &loads(&[(0, 5), (0, 1)])), Choice::HandTo(1));
        assert_eq!(choose(0, &loads(&[(1, 0), (0, 9)])), Choice::HandTo(1));
        // A pool is not made uneven to even out the others.
        assert_eq!(choose(0, &loads(&[(0, 9), (1, 0)])), Choice::Keep);
    }

    #[test]
    fn nobody_who_lacks_the_pool_is_chosen() {
        let mut others = loads(&[(5, 5), (0, 0), (3, 3)]);
        others[1] = None;
        assert_eq!(choose(0, &others), Choice::HandTo(2));
        others[2] = None;
        assert_eq!(choose(0, &others), Choice::Keep);
    }

    /// A pool of `workers` workers with their inboxes.
    fn pool(workers: usize, clients_max: usize) -> (Arc<Balance>, Vec<mpsc::Receiver<Order>>) {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), WAKE).unwrap());
        let (ports, inboxes): (Vec<_>, Vec<_>) = (0..workers)
            .map(|_| {
                let (inbox, orders) = mpsc::channel();
                let waker = Arc::clone(&waker);
                (WorkerPort { inbox, waker }, orders)
            })
            .unzip();
        let process = ProcessClients::new(workers, clients_max);
        let balance = Balance::new(process, ports.into());
        balance.open();
        (balance, inboxes)
    }

    fn counts(balance: &Balance) -> Vec<usize> {
        let counts = balance.workers.iter().map(|place| place.clients.value());
        let counts: Vec<_> = counts.collect();
        let of_process = balance.process.of_workers.iter().map(Count::value);
        assert_eq!(of_process.collect::<Vec<_>>(), counts);
        assert_eq!(balance.process.all.value(), counts.iter().sum::<usize>());
        counts
    }

    fn newcomer(seat: Seat) -> Newcomer {
        Newcomer {
            stream: UnixStream::pair().unwrap().0.into(),
            peer: "unix".into(),
            seat,
        }
    }

    #[test]
    fn workers_that_accept_at_once_spread_what_they_got() {
        const WORKERS: usize = 4;
        const ROUNDS: usize = 200;
        let (balance, _inboxes) = pool(WORKERS, usize::MAX);
        for _ in 0..ROUNDS {
            let seats: Vec<Seat> = std::thread::scope(|scope| {
                // The hash gave nothing to the last worker.
                let accepts = [(0, 30), (1, 15), (2, 5)].map(|(own, clients)| {
                    let balance = &balance;
                    let accept = move |_| balance.take_seat(own).unwrap();
                    scope.spawn(move || (0..clients).map(accept).collect::<Vec<_>>())
                });
                let of_threads = accepts.map(|accept| accept.join().unwrap());
                of_threads.into_iter().flatten().collect()
            });
            let counts = counts(&balance);
            assert_eq!(counts.iter().sum::<usize>(), 50);
            assert!(counts.iter().all(|&count| count <= 14), "{counts:?}");
            drop(seats);
        }
        assert_eq!(counts(&balance), [0; WORKERS]);
    }

    #[test]
    fn clients_stay_where_they_are_before_the_pool_is_open_and_after_it_closed() {
        let (balance, _inboxes) = pool(2, usize::MAX);
        let unopened = Balance::new(Arc::clone(&balance.process), Arc::clone(&balance.ports));
        let kept = [0, 0, 0].map(|own| unopened.take_seat(own).unwrap());
        assert!(kept.iter().all(|seat| seat.worker() == 0));
        drop(kept);
        balance.leave(1);
        let kept = [0, 0, 0].map(|own| balance.take_seat(own).unwrap());
        assert!(kept.iter().all(|seat| seat.worker() == 0));
    }

    #[test]
    fn a_seat_is_given_back_wherever_the_client_ends() {
        let (balance, mut inboxes) = pool(2, 3);
        let kept = balance.take_seat(0).unwrap();
        let handed = newcomer(balance.take_seat(0).unwrap());
        assert_eq!((kept.worker(), handed.seat.worker()), (0, 1));
        assert!(handed.hand_over(7, 0).is_none(), "worker 1 has it");
        assert_eq!(counts(&balance), [1, 1]);
        let third = balance.take_seat(1).unwrap();
        assert!(balance.take_seat(0).is_none(), "three at most");
        drop((kept, third));
        match inboxes[1].try_recv() {
            Ok(Order::Adopt { pool, newcomer }) => {
                assert_eq!((pool, newcomer.seat.worker()), (7, 1));
            }
            _ => panic!("an order to adopt was expected"),
        }
        assert_eq!(counts(&balance), [0, 0]);

        let _first = balance.take_seat(0).unwrap();
        let on_its_way = newcomer(balance.take_seat(0).unwrap());
        assert!(on_its_way.hand_over(7, 0).is_none());
        inboxes.pop(); // worker 1 ends with an order in its inbox
        assert_eq!(counts(&balance), [1, 0]);
        let second = newcomer(balance.take_seat(0).unwrap());
        assert_eq!(second.seat.worker(), 1);
        let back = second.hand_over(7, 0).expect("worker 1 has ended");
        assert_eq!((back.seat.worker(), counts(&balance)), (0, vec![2, 0]));
    }
}
