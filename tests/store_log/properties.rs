//! Appends, syncs, faults, crashes and openings in any order.

use std::path::Path;
use std::sync::Arc;

use keyferry::store::disk::{Fault, FaultyFiles, Files, Operation, RealFiles};
use keyferry::store::oplog::{Identity, Log, LogError, LogReader, fresh_replid};
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use proptest::sample::select;

use crate::world::{DIR, Model, frame, open_at};

#[derive(Clone, Debug)]
enum Step {
    Append {
        bytes: usize,
        db: Option<u16>,
    },
    Sync,
    /// Lets go up to so many hundredths of what there is.
    Retain {
        percent: u64,
    },
    NewHistory,
    RestartAt {
        offset: u64,
    },
    /// Begins to read at so many hundredths.
    Read {
        percent: u64,
    },
    Fail {
        operation: Operation,
        after: u64,
        fault: Fault,
    },
    /// The system writes some of what was not synced.
    WriteBack {
        seed: u64,
    },
    Kill,
    Crash {
        seed: u64,
    },
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = prop_oneof![8 => 0..300_usize, 4 => 300..5000_usize, 1 => 5000..40_000_usize];
    let append = (bytes, proptest::option::weighted(0.2, 0..16_u16))
        .prop_map(|(bytes, db)| Step::Append { bytes, db });
    let operation = select(vec![
        Operation::Write,
        Operation::Sync,
        Operation::SyncDir,
        Operation::Create,
        Operation::Rename,
        Operation::Remove,
    ]);
    let fault = select(vec![Fault::Broken, Fault::Full, Fault::Short]);
    let fail = (operation, 0..6_u64, fault).prop_map(|(operation, after, fault)| Step::Fail {
        operation,
        after,
        fault,
    });
    let step = prop_oneof![
        24 => append,
        8 => Just(Step::Sync),
        4 => (0..=100_u64).prop_map(|percent| Step::Retain { percent }),
        1 => Just(Step::NewHistory),
        1 => (0..100_000_u64).prop_map(|offset| Step::RestartAt { offset }),
        3 => (0..=100_u64).prop_map(|percent| Step::Read { percent }),
        2 => fail,
        2 => any::<u64>().prop_map(|seed| Step::WriteBack { seed }),
        1 => Just(Step::Kill),
        3 => any::<u64>().prop_map(|seed| Step::Crash { seed }),
        1 => Just(Step::Close),
    ];
    vec(step, 1..80)
}

/// Where the log lives, and how it is left.
trait Place {
    fn files(&self) -> Arc<dyn Files>;
    fn dir(&self) -> &Path;
    fn fail(&mut self, operation: Operation, after: u64, fault: Fault);
    fn heal(&mut self);
    fn write_back(&mut self, seed: u64);
    /// `None`: the process dies and the machine lives.
    fn crash(&mut self, seed: Option<u64>);
}

struct Faulty(FaultyFiles);

impl Place for Faulty {
    fn files(&self) -> Arc<dyn Files> {
        Arc::new(self.0.clone())
    }
    fn dir(&self) -> &Path {
        Path::new(DIR)
    }
    fn fail(&mut self, operation: Operation, after: u64, fault: Fault) {
        self.0.fail(operation, after, fault);
    }
    fn heal(&mut self) {
        self.0.heal();
    }
    fn write_back(&mut self, seed: u64) {
        self.0.write_back(seed);
    }
    fn crash(&mut self, seed: Option<u64>) {
        self.0 = match seed {
            Some(seed) => self.0.crashed(seed),
            None => self.0.killed(),
        };
    }
}

struct Real(tempfile::TempDir);

impl Place for Real {
    fn files(&self) -> Arc<dyn Files> {
        Arc::new(RealFiles)
    }
    fn dir(&self) -> &Path {
        self.0.path()
    }
    fn fail(&mut self, _: Operation, _: u64, _: Fault) {}
    fn heal(&mut self) {}
    fn write_back(&mut self, _: u64) {}
    fn crash(&mut self, _: Option<u64>) {}
}

struct Run<P> {
    place: P,
    log: Option<Log>,
    model: Model,
    /// What holds instead of `model` if a change that failed happened nevertheless.
    perhaps: Option<Model>,
    readers: Vec<(LogReader, u64)>,
    frames: u64,
}

impl<P: Place> Run<P> {
    fn new(place: P) -> Self {
        let opened = open_at(place.files(), place.dir()).unwrap();
        assert!(opened.is_clean && opened.is_new);
        Self {
            model: Model::new(0, opened.log.identity()),
            place,
            log: Some(opened.log),
            perhaps: None,
            readers: Vec::new(),
            frames: 0,
        }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    fn run(mut self, steps: &[Step]) {
        for step in steps {
            self.step(step);
            if self.log().is_poisoned().is_some() {
                self.assert_poisoned_for_good();
                // With and without a power loss in between, by the length of the run.
                self.reopen(self.frames.is_multiple_of(2).then_some(7), false);
            }
        }
        self.reopen(Some(1), false);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Append { bytes, db } => self.append(bytes, db),
            Step::Sync => {
                let end = self.model.end();
                if let Ok(durable) = self.log().syncer().sync() {
                    assert_eq!(durable, end);
                    self.model.durable = end;
                }
            }
            Step::Retain { percent } => {
                let offset = self.at(percent);
                self.model.needed_from = self.model.needed_from.max(offset);
                self.log().retain_from(offset);
            }
            Step::NewHistory => {
                let end = self.model.end();
                let identity = Identity {
                    replid: fresh_replid(),
                    replid2: Some((self.model.identity.replid, end)),
                };
                let changed = Model {
                    identity,
                    ..self.model.clone()
                };
                let result = self.log().set_identity(identity);
                self.changed(&result, changed);
            }
            Step::RestartAt { offset } => {
                let identity = Identity {
                    replid: fresh_replid(),
                    replid2: None,
                };
                let result = self.log().restart_at(offset, identity);
                if result.is_ok() {
                    for (mut reader, _) in self.readers.drain(..) {
                        let read = reader.read(&mut Vec::new(), 1);
                        assert!(matches!(read, Err(LogError::Gone { .. })), "{read:?}");
                    }
                }
                self.changed(&result, Model::new(offset, identity));
            }
            Step::Read { percent } => {
                let offset = self.at(percent).max(self.log().start());
                let reader = self.log().reader(offset).unwrap();
                self.readers.push((reader, offset));
            }
            Step::Fail {
                operation,
                after,
                fault,
            } => self.place.fail(operation, after, fault),
            Step::WriteBack { seed } => self.place.write_back(seed),
            Step::Kill => self.reopen(None, false),
            Step::Crash { seed } => self.reopen(Some(seed), false),
            Step::Close => {
                self.place.heal();
                self.log.take().unwrap().close().unwrap();
                self.model.durable = self.model.end();
                self.reopen(Some(3), true);
            }
        }
        self.read_on();
    }

    fn append(&mut self, bytes: usize, db: Option<u16>) {
        self.frames += 1;
        let frame = if bytes == 0 {
            Vec::new()
        } else {
            frame(self.frames, bytes, db)
        };
        let db = if frame.is_empty() {
            self.model.db
        } else {
            db.unwrap_or(self.model.db)
        };
        let before = self.model.end();
        let mut result = self.log().append(&frame, db);
        if let Err(LogError::DiskFull { .. }) = result {
            assert_eq!(self.log().end(), before);
            assert_eq!(self.log().is_poisoned(), None);
            self.place.heal();
            result = self.log().append(&frame, db);
            assert!(result.is_ok(), "{result:?}");
        }
        if let Ok(end) = result {
            self.model.append(&frame, db);
            assert_eq!(end, self.model.end());
        }
    }

    fn changed(&mut self, result: &Result<(), LogError>, changed: Model) {
        match result {
            Ok(()) => self.model = changed,
            Err(LogError::DiskFull { .. }) => {
                assert_eq!(self.log().is_poisoned(), None);
                assert_eq!(self.log().identity(), self.model.identity);
            }
            Err(_) => self.perhaps = Some(changed),
        }
    }

    fn at(&mut self, percent: u64) -> u64 {
        self.model.base + self.model.bytes.len() as u64 * percent / 100
    }

    /// Readers see what was appended, and no more; those left behind are told so.
    fn read_on(&mut self) {
        let Some(log) = &self.log else { return };
        let (model, start) = (&self.model, log.start());
        self.readers.retain_mut(|(reader, offset)| {
            let mut out = Vec::new();
            loop {
                match reader.read(&mut out, 777) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(LogError::Gone { .. }) => {
                        assert!(reader.offset() < start, "gone, and there");
                        return false;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!(out, model.slice(*offset));
            *offset = model.end();
            assert_eq!(reader.offset(), *offset);
            true
        });
    }

    fn assert_poisoned_for_good(&mut self) {
        self.place.heal();
        let log = self.log();
        let append = log.append(b"x", 0);
        assert!(
            matches!(append, Err(LogError::Poisoned { .. })),
            "{append:?}"
        );
        let sync = log.syncer().sync();
        assert!(matches!(sync, Err(LogError::Poisoned { .. })), "{sync:?}");
        let identity = log.identity();
        assert!(log.set_identity(identity).is_err());
    }

    fn reopen(&mut self, crash: Option<u64>, was_closed: bool) {
        self.readers.clear();
        // What a tick's effects were written with, the process takes along.
        self.log = None;
        self.place.crash(crash);
        let opened = open_at(self.place.files(), self.place.dir()).unwrap();
        assert_eq!(opened.is_clean, was_closed);
        assert!(!opened.is_new);
        if let Some(perhaps) = self.perhaps.take()
            && opened.log.identity() == perhaps.identity
        {
            self.model = perhaps;
        }
        self.model
            .recovered(opened.log.end(), opened.log.selected_db());
        self.model.assert_equals(&opened.log);
        self.log = Some(opened.log);
    }
}

/// A real disk syncs for real: few cases of it.
fn few_cases() -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig {
        cases: default.cases.div_ceil(16),
        ..default
    }
}

proptest! {
    #[test]
    fn what_was_synced_is_found_again_and_nothing_is_made_up(steps in steps()) {
        Run::new(Faulty(FaultyFiles::new())).run(&steps);
    }
}

proptest! {
    #![proptest_config(few_cases())]
    #[test]
    fn the_same_with_real_files(steps in steps()) {
        Run::new(Real(tempfile::tempdir().unwrap())).run(&steps);
    }
}

/// Found by 60,000 cases of the above: a crash undid the naming of segment 3, its file was
/// used for the next segment 3, and another crash brought the first one's header back.
#[test]
fn a_header_from_before_a_crash_is_not_taken_for_the_one_that_was_lost() {
    let append = |bytes| Step::Append { bytes, db: None };
    for (seed, last) in (0..4000).map(|at| (at % 50, at / 50)) {
        let steps = [
            append(14_995),
            Step::Kill,
            Step::Kill,
            append(1244),
            Step::Crash { seed },
            append(14),
            Step::Sync,
            append(1156),
            Step::Crash { seed: last },
        ];
        Run::new(Faulty(FaultyFiles::new())).run(&steps);
    }
}
