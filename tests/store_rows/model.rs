//! Random work on rows, and the same on maps.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keyferry::store::engine::{
    DEAD, DeadId, Engine, EngineOptions, LsmEngine, MemoryEngine, Owner, Row, SUB, open_lsm,
    rows_of,
};
use keyferry::store::rows::{End, RowSnapshot, Rows, RowsOptions, SnapshotTicket};

use crate::wait::{seeded, wait_until};
use crate::{object_of, setting};

const LONG: Duration = Duration::from_secs(60);

/// What the rows should be, at one offset.
#[derive(Clone, Default)]
struct State {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    dead: BTreeSet<DeadId>,
    namespace: u32,
    next_id: u64,
    /// Name and id.
    objects: BTreeMap<u8, u64>,
}

impl State {
    /// Whether somebody could still ask for this row.
    fn is_alive(&self, row: &[u8]) -> bool {
        match Owner::of(row) {
            Owner::Object(id) => !self.dead.contains(&DeadId::Object(id)),
            Owner::MetaOf(ns) | Owner::ExpiryOf(ns) => !self.dead.contains(&DeadId::Namespace(ns)),
            Owner::Nobody => true,
        }
    }

    fn meta_row(&self, name: u8) -> Vec<u8> {
        let mut row = vec![b'M'];
        row.extend_from_slice(&self.namespace.to_be_bytes());
        row.extend_from_slice(&[name.wrapping_mul(37), 0, 0, 0, 0, 0, 0, name]);
        row
    }

    fn expiry_row(&self, at: u64, name: u8) -> Vec<u8> {
        let mut row = vec![b'T'];
        row.extend_from_slice(&at.to_be_bytes());
        row.extend_from_slice(&self.meta_row(name)[1..]);
        row
    }

    fn sub_row(id: u64, kind: u8, member: u8) -> Vec<u8> {
        let mut row = Self::order(id, kind);
        row.push(member);
        // Some do not fit where short ones stand.
        row.resize(row.len() + usize::from(member % 3) * 20, b'.');
        row
    }

    /// What all rows of a kind begin with.
    fn order(id: u64, kind: u8) -> Vec<u8> {
        let mut row = vec![b'S'];
        row.extend_from_slice(&id.to_be_bytes());
        row.push(kind);
        row
    }
}

/// The engine under test, and how to harm it.
trait Below {
    fn open(&mut self) -> Arc<dyn Engine>;
    fn compact(&self);
    /// Nobody has it open. Goes on as after a crash.
    fn crash(&mut self);
}

struct InMemory(Arc<MemoryEngine>);

impl Below for InMemory {
    fn open(&mut self) -> Arc<dyn Engine> {
        Arc::clone(&self.0) as Arc<dyn Engine>
    }

    fn compact(&self) {
        self.0.compact();
    }

    fn crash(&mut self) {
        self.0.lose_power();
    }
}

struct OnDisk {
    dir: PathBuf,
    engine: Option<Arc<LsmEngine>>,
}

impl Below for OnDisk {
    fn open(&mut self) -> Arc<dyn Engine> {
        self.engine = None;
        let options = EngineOptions {
            cache_bytes: 1 << 20,
            memtable_bytes: 32 << 10,
            free_bytes_min: 1 << 20,
            ..EngineOptions::default()
        };
        let engine = Arc::new(open_lsm(&self.dir, &options).expect("the engine opens"));
        self.engine = Some(Arc::clone(&engine));
        engine
    }

    fn compact(&self) {
        let engine = self.engine.as_ref().expect("it is open");
        engine.compact_all().expect("it compacts");
    }

    fn crash(&mut self) {
        self.engine = None;
    }
}

struct Held {
    snapshot: RowSnapshot,
    state: State,
}

struct World<B> {
    below: B,
    random: fastrand::Rng,
    engine: Arc<dyn Engine>,
    rows: Rows,
    state: State,
    offset: u64,
    history: BTreeMap<u64, State>,
    tickets: Vec<(SnapshotTicket, u64, State)>,
    held: Vec<Held>,
}

fn options(random: &mut fastrand::Rng) -> RowsOptions {
    fn pick<const N: usize>(random: &mut fastrand::Rng, of: [u64; N]) -> u64 {
        of[random.usize(..N)]
    }
    RowsOptions {
        freeze_bytes: 4 << 10,
        freeze_busy_bytes: 16 << 10,
        freeze_age: Duration::from_millis(pick(random, [0, 1, 100])),
        cache_bytes: pick(random, [0, 4 << 10, 64 << 10, 1 << 20]) as usize,
        persist_age: Duration::from_millis(pick(random, [0, 5, 1_000])),
        sweep_pause: Duration::from_millis(pick(random, [0, 1, 10])),
        ..RowsOptions::new(object_of)
    }
}

impl<B: Below> World<B> {
    fn new(mut below: B, mut random: fastrand::Rng) -> Self {
        let engine = below.open();
        let rows = Rows::open(Arc::clone(&engine), options(&mut random)).expect("rows open");
        assert_eq!(rows.applied_offset(), 0);
        Self {
            below,
            random,
            engine,
            rows,
            state: State::default(),
            offset: 0,
            history: BTreeMap::from([(0, State::default())]),
            tickets: Vec::new(),
            held: Vec::new(),
        }
    }

    fn step(&mut self) {
        match self.random.u32(..1_000) {
            0..250 => self.put_string(),
            250..550 => self.change_object(),
            550..650 => self.change_expiry(),
            650..670 => self.delete_object(),
            670..672 => self.flush_database(),
            672..750 => self.read_one(),
            750..800 => self.read_range(),
            800..840 => self.look_at_an_end(),
            840..848 => self.note_a_bound(),
            848..850 => self.rows.forget_copies(),
            850..950 => self.tick(),
            950..965 => self.ask_snapshot(),
            965..980 => self.look_at_held(),
            980..988 => self.let_go(),
            988..992 => self.below.compact(),
            992..995 => self.close_and_open(),
            995..997 => self.crash_and_open(false),
            _ => self.crash_and_open(true),
        }
    }

    fn set(&mut self, row: Vec<u8>, value: Option<Vec<u8>>) {
        match value {
            Some(value) => {
                self.rows.put(&row, Bytes::from(value.clone()));
                self.state.rows.insert(row, value);
            }
            None => {
                self.rows.delete(&row);
                self.state.rows.remove(&row);
            }
        }
    }

    fn some_value(&mut self) -> Vec<u8> {
        let mut value = vec![0; 1 + self.random.usize(..200)];
        self.random.fill(&mut value);
        value[0] = 0;
        value
    }

    fn put_string(&mut self) {
        let name = self.random.u8(..100);
        let row = self.state.meta_row(name);
        let value = (self.random.u8(..4) > 0).then(|| self.some_value());
        self.set(row, value);
    }

    fn change_object(&mut self) {
        let name = self.random.u8(200..208);
        if !self.state.objects.contains_key(&name) {
            let id = self.state.next_id;
            self.state.next_id += 1;
            self.state.objects.insert(name, id);
            let mut value = vec![1];
            value.extend_from_slice(&id.to_be_bytes());
            self.set(self.state.meta_row(name), Some(value));
        }
        let id = self.state.objects[&name];
        let kind = self.some_kind();
        for _ in 0..self.random.u8(1..8) {
            let row = State::sub_row(id, kind, self.random.u8(..));
            let value = (self.random.u8(..4) > 0).then(|| self.some_value());
            self.set(row, value);
        }
    }

    fn change_expiry(&mut self) {
        let at = self.random.u64(..20) << 32;
        let row = self.state.expiry_row(at, self.random.u8(..20));
        let value = self.random.bool().then(Vec::new);
        self.set(row, value);
    }

    fn delete_object(&mut self) {
        let name = self.random.u8(200..208);
        let Some(id) = self.state.objects.remove(&name) else {
            return;
        };
        self.set(self.state.meta_row(name), None);
        self.rows.bury(DeadId::Object(id));
        self.state.dead.insert(DeadId::Object(id));
        self.forget_the_dead();
    }

    fn flush_database(&mut self) {
        let namespace = self.state.namespace;
        self.rows.bury(DeadId::Namespace(namespace));
        self.state.dead.insert(DeadId::Namespace(namespace));
        for id in std::mem::take(&mut self.state.objects).into_values() {
            // Nobody buries them: the sweeper finds them by their meta rows.
            self.state.dead.insert(DeadId::Object(id));
        }
        self.state.namespace += 1;
        self.forget_the_dead();
    }

    fn forget_the_dead(&mut self) {
        let mut rows = std::mem::take(&mut self.state.rows);
        rows.retain(|row, _| self.state.is_alive(row));
        self.state.rows = rows;
    }

    fn read_one(&mut self) {
        let row = self.some_row();
        let found = self.rows.get(&row).expect("a row is read");
        if self.state.is_alive(&row) {
            let expected = self.state.rows.get(&row).map(|value| &value[..]);
            assert_eq!(found.as_deref(), expected, "{}", row.escape_ascii());
        }
    }

    fn some_row(&mut self) -> Vec<u8> {
        match self.random.u8(..3) {
            0 => self.state.meta_row(self.random.u8(..100)),
            1 => {
                let id = self.random.u64(..=self.state.next_id);
                State::sub_row(id, self.some_kind(), self.random.u8(..))
            }
            _ => self
                .state
                .expiry_row(self.random.u64(..20) << 32, self.random.u8(..20)),
        }
    }

    fn some_kind(&mut self) -> u8 {
        [b'F', b'L', b'Z'][self.random.usize(..3)]
    }

    /// An order of an object that is there: where it begins and ends.
    fn some_order(&mut self) -> Option<(Vec<u8>, Vec<u8>)> {
        let objects: Vec<u64> = self.state.objects.values().copied().collect();
        let id = *objects.get(self.random.usize(..objects.len().max(1)))?;
        let kind = [b'L', b'Z'][self.random.usize(..2)];
        Some((State::order(id, kind), State::order(id, kind + 1)))
    }

    /// Reads rows next to an end, and pops them mostly.
    fn look_at_an_end(&mut self) {
        let Some((order, behind)) = self.some_order() else {
            return;
        };
        let pops = self.random.u8(..3) > 0;
        let end = [End::Front, End::Back][self.random.usize(..2)];
        for _ in 0..self.random.u8(1..10) {
            let count = [1, 1, 2, 5, 40][self.random.usize(..5)];
            let live = self.state.rows.range(order.clone()..behind.clone());
            let live: Vec<_> = live
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            // Who knows where they stand says so.
            let (from, to) = match (live.first(), live.last(), self.random.bool()) {
                (Some((first, _)), Some((last, _)), true) => {
                    (first.clone(), [last, [0].as_slice()].concat())
                }
                _ => (order.clone(), behind.clone()),
            };
            let found = self.rows.outermost(&from, &to, end, count).expect("rows");
            let found: Vec<_> = found
                .iter()
                .map(|(key, value)| (key.to_vec(), value.to_vec()))
                .collect();
            let wanted: Vec<_> = match end {
                End::Front => live.into_iter().take(count).collect(),
                End::Back => live.into_iter().rev().take(count).collect(),
            };
            assert_eq!(found, wanted, "{end:?} {count}, {:?}", self.rows.stats());
            if pops {
                found.into_iter().for_each(|(key, _)| self.set(key, None));
            }
        }
    }

    /// As a walk does that comes upon one.
    fn note_a_bound(&mut self) {
        let Some((order, behind)) = self.some_order() else {
            return;
        };
        let mut live = self.state.rows.range(order.clone()..behind);
        if self.random.bool() {
            if let Some((first, _)) = live.next() {
                self.rows.note_bound(&order, first, End::Front);
            }
        } else if let Some((last, _)) = live.next_back() {
            let behind = [last, [0].as_slice()].concat();
            self.rows.note_bound(&order, &behind, End::Back);
        }
        let live = self.state.rows.range(order.clone()..);
        let first = live.map(|(key, _)| key).find(|key| key.starts_with(&order));
        let bound = self.rows.bound(&order, End::Front);
        if let (Some(first), Some(bound)) = (first, bound) {
            assert!(*bound <= **first, "{bound:?} {first:?}");
        }
    }

    /// From both ends in turn, and not always to the end.
    fn read_range(&mut self) {
        let (mut from, mut to) = (self.some_row(), self.some_row());
        if self.random.u8(..5) > 0 && from > to {
            std::mem::swap(&mut from, &mut to);
        }
        let mut found = self.rows.range(&from, &to).expect("a range");
        let alive = |row: &Row| self.state.is_alive(&row.0) && row.0[0] != DEAD;
        let mut expected = match from < to {
            true => self.state.rows.range(from..to),
            false => self.state.rows.range(Vec::new()..Vec::new()),
        };
        let one_way = self.random.u8(..3);
        loop {
            let is_back = one_way == 0 || one_way == 1 && self.random.bool();
            let (row, wanted) = if is_back {
                let rows = found.by_ref().rev().map(|row| row.expect("a row"));
                (rows.into_iter().find(alive), expected.next_back())
            } else {
                let rows = found.by_ref().map(|row| row.expect("a row"));
                (rows.into_iter().find(alive), expected.next())
            };
            let row = row.map(|(key, value)| (key.to_vec(), value.to_vec()));
            assert_eq!(
                row,
                wanted.map(|(key, value)| (key.clone(), value.clone())),
                "both ways {one_way}, backwards {is_back}, {:?}",
                self.rows.stats()
            );
            if row.is_none() || self.random.u8(..100) == 0 {
                return;
            }
        }
    }

    fn tick(&mut self) {
        self.advance();
        self.rows.freeze_if_due(self.offset);
        let applied = self.rows.applied_offset();
        let durable = self.rows.durable_offset();
        assert!(durable <= applied && applied <= self.offset);
        let state = self.history.get(&applied);
        assert!(
            state.is_some(),
            "{applied} is no offset at which rows were frozen"
        );
        self.history = self.history.split_off(&durable);
    }

    fn advance(&mut self) {
        self.offset += self.random.u64(1..100);
        self.history.insert(self.offset, self.state.clone());
    }

    fn ask_snapshot(&mut self) {
        self.advance();
        let ticket = self.rows.snapshot_at(self.offset);
        self.tickets.push((ticket, self.offset, self.state.clone()));
        if self.tickets.len() > 3 {
            self.take_tickets();
        }
    }

    fn take_tickets(&mut self) {
        for (mut ticket, offset, state) in std::mem::take(&mut self.tickets) {
            let snapshot = ticket.wait(LONG).expect("a snapshot").expect("in time");
            assert_eq!(snapshot.applied_offset(), offset);
            self.held.push(Held { snapshot, state });
        }
    }

    fn look_at_held(&mut self) {
        self.take_tickets();
        for held in &self.held {
            held.compare();
        }
    }

    fn let_go(&mut self) {
        if !self.held.is_empty() {
            let at = self.random.usize(..self.held.len());
            self.held.swap_remove(at).compare();
        }
    }

    fn close_and_open(&mut self) {
        self.look_at_held();
        self.held.clear();
        self.advance();
        let offset = self.offset;
        self.reopen(|rows, below| {
            rows.close(offset).expect("all is applied");
            below.crash();
        });
        assert_eq!(self.rows.applied_offset(), offset);
        self.compare();
    }

    /// What was not applied is gone, and nothing else.
    fn crash_and_open(&mut self, is_power_lost: bool) {
        self.take_tickets();
        self.held.clear();
        let durable = self.rows.durable_offset();
        self.reopen(|rows, below| {
            drop(rows);
            if is_power_lost {
                below.crash();
            }
        });
        let applied = self.rows.applied_offset();
        assert!(
            applied >= durable,
            "{applied} was applied, {durable} was durable"
        );
        let state = self.history.get(&applied);
        self.state = state.expect("a generation's end").clone();
        // The log would go on behind; here, new work does.
        self.history.split_off(&(applied + 1));
        self.offset = applied;
        self.compare();
    }

    fn reopen(&mut self, end: impl FnOnce(Rows, &mut B)) {
        let memory = Arc::new(MemoryEngine::new()) as Arc<dyn Engine>;
        let idle = Rows::open(Arc::clone(&memory), RowsOptions::new(object_of)).expect("rows");
        self.engine = memory;
        end(std::mem::replace(&mut self.rows, idle), &mut self.below);
        self.engine = self.below.open();
        let options = options(&mut self.random);
        self.rows = Rows::open(Arc::clone(&self.engine), options).expect("rows open again");
    }

    fn compare(&self) {
        let rows = self.rows.range(b"M", b"U").expect("a range");
        self.state.compare(rows.map(|row| row.expect("a row")));
    }

    /// In the end nothing is left of the dead.
    fn end(mut self) {
        self.look_at_held();
        self.held.clear();
        self.compare();
        self.close_and_open();
        wait_until("the dead are gone", LONG, || {
            self.rows.freeze_if_due(self.offset);
            self.rows.stats().dead_left == 0
        });
        self.compare();
        let (from, to) = rows_of(SUB, &[]);
        for row in self.engine.range(&from, &to) {
            let row = row.expect("a row").0;
            assert!(self.state.is_alive(&row), "{} is left", row.escape_ascii());
        }
        let (from, to) = rows_of(DEAD, &[]);
        assert!(self.engine.range(&from, &to).next().is_none());
        self.close_and_open();
    }
}

impl State {
    fn compare(&self, found: impl Iterator<Item = Row>) {
        let mut expected = self.rows.iter();
        for (key, value) in found.filter(|(key, _)| self.is_alive(key)) {
            let wanted = expected.next().map(|(key, value)| (&key[..], &value[..]));
            assert_eq!(Some((&key[..], &value[..])), wanted);
        }
        assert_eq!(expected.next(), None);
    }
}

impl Held {
    fn compare(&self) {
        let rows = self.snapshot.range(b"M", b"U");
        self.state.compare(rows.map(|row| row.expect("a row")));
        if let Some((key, value)) = self.state.rows.iter().next() {
            let found = self.snapshot.get(key).expect("a row");
            assert_eq!(found.as_deref(), Some(&value[..]));
        }
    }
}

fn run(below: impl Below, name: &str, usual_steps: u64) {
    let mut world = World::new(below, seeded(name));
    for _ in 0..setting("KEYFERRY_STORE_STEPS", usual_steps) {
        world.step();
    }
    world.end();
}

#[test]
fn rows_in_memory_are_those_of_the_model() {
    let engine = InMemory(Arc::new(MemoryEngine::new()));
    run(engine, "rows_in_memory_are_those_of_the_model", 30_000);
}

#[test]
fn rows_on_disk_are_those_of_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let engine = OnDisk {
        dir: dir.path().join("rows"),
        engine: None,
    };
    run(engine, "rows_on_disk_are_those_of_the_model", 10_000);
}

/// Once, a row that was written while its range was walked from both ends came twice.
#[test]
fn what_is_written_while_a_range_is_walked_is_not_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut below = OnDisk {
        dir: dir.path().join("rows"),
        engine: None,
    };
    let engine = below.open();
    let write = |names: &[&str], value: Bytes| {
        let changes = names.iter().map(|name| (name.as_bytes(), Some(&value)));
        engine.write(&mut changes.into_iter()).unwrap();
    };
    write(&["Sa", "Sc"], Bytes::from_static(b"1"));
    below.compact();
    let mut walked = engine.range(b"S", b"T");
    let last = walked.next_back().unwrap().unwrap();
    assert_eq!(last.0, "Sc");
    write(&["Sb", "Sc", "Sd"], Bytes::from_static(b"2"));
    let left: Vec<Bytes> = walked.map(|row| row.unwrap().0).collect();
    assert_eq!(left, ["Sa"]);
    assert_eq!(engine.range(b"S", b"T").count(), 4);
}
