//! What comes after the snapshot: commands of the live stream, function
//! libraries, and our own markers.

use bytes::Bytes;

use crate::planted::{self, Planted};
use crate::replication::StreamCommand;
use crate::resp::write_command;
use crate::router::commands::resolve;

use super::super::error::{MoveError, Unfollowable};
use super::super::lane::{Op, Reads};
use super::super::marker::{Expected, MARKER_CHANNEL, Remark, Remarks};
use super::super::placement::{Place, TargetIndex};
use super::super::queue::LaneQueue;
use super::super::route::{Args, Because, Doubt, Part, Route, name_and_keys, route};
use super::super::shortfall::Short;
use super::super::translate::{Translation, is_for_replicas, translate};
use super::flushing::Emptied;
use super::{Source, Unit, unix_ms};

impl Source {
    /// Pairs about the file: its time, and scripts that clients may call by
    /// their hash.
    pub(super) async fn on_aux(&mut self, key: &[u8], value: &[u8]) -> Result<(), MoveError> {
        match key {
            b"ctime" => {
                let seconds = std::str::from_utf8(value).ok();
                let seconds = seconds.and_then(|text| text.parse::<i64>().ok());
                self.snapshot_at_ms = seconds.and_then(|seconds| seconds.checked_mul(1000));
            }
            b"lua" => self.on_script(value).await?,
            _ => {}
        }
        Ok(())
    }

    /// What comes next is no part of what is done once: a target that refuses it
    /// would refuse all of that.
    async fn set_apart(&mut self) -> Result<(), MoveError> {
        if self.parts.queues.iter().any(LaneQueue::holds_once) {
            if self.unit == Unit::Inside {
                self.unit = Unit::Broken;
            }
            self.flush_all().await?;
        }
        Ok(())
    }

    /// A cached script goes to every target: any may get keys that it works on.
    async fn on_script(&mut self, text: &[u8]) -> Result<(), MoveError> {
        let name = Bytes::from_static(b"SCRIPT LOAD");
        for at in 0..self.parts.queues.len() {
            let Some(queue) = self.parts.queues.get_mut(at) else {
                continue;
            };
            let target = queue.target;
            queue.push_args(&[b"SCRIPT", b"LOAD", text], Op::Library(name.clone()));
            self.flush_if_full(target).await?;
        }
        Ok(())
    }

    /// Libraries belong to no key: servers that are new get them all.
    pub(super) async fn on_library(&mut self, code: &[u8]) -> Result<(), MoveError> {
        self.set_apart().await?;
        let mut request = Vec::new();
        write_command(&mut request, &[b"FUNCTION", b"LOAD", b"REPLACE", code]);
        self.push_to_new_servers(&request, &library_name(code), Brings::Library);
        Ok(())
    }

    fn push_to_new_servers(&mut self, request: &[u8], name: &Bytes, brings: Brings) {
        let placement = &self.parts.placement;
        let mut without = Vec::new();
        for queue in self
            .parts
            .queues
            .iter_mut()
            .filter(|queue| placement.is_new(queue.target))
        {
            if queue.dialect().has_functions() {
                queue.push(request, Op::Library(name.clone()));
            } else if brings == Brings::Library {
                without.push(queue.target);
            }
        }
        for target in without {
            let what = "the target has no functions (FUNCTION LOAD)".to_owned();
            self.add_shortfall(Short::CannotHold, target, (0, name), what);
        }
    }

    pub(super) async fn on_command(&mut self, command: &StreamCommand) -> Result<(), MoveError> {
        if command.name().eq_ignore_ascii_case(b"publish") && command.arg(1) == MARKER_CHANNEL {
            self.reach_command(command);
            return self.on_marker(command.arg(2)).await;
        }
        if command.name().eq_ignore_ascii_case(b"script")
            && command.arg(1).eq_ignore_ascii_case(b"load")
        {
            self.set_apart().await?;
            self.reach_command(command);
            self.on_script(command.arg(2)).await?;
            return self.flush_all().await;
        }
        let args = Args {
            bytes: &command.bytes,
            spans: &command.args,
        };
        let (parts, guard) = (&self.parts, &self.guard);
        let doubt = |db: u32, key: &[u8]| match parts.pending.has(db, key) {
            true => Doubt::Pending,
            // Its target has lost it, and gets it back only once it is listed.
            false if parts.pending.is_rescanning(db) => Doubt::Ending,
            false if guard.is_ending(db, key, unix_ms) => Doubt::Ending,
            false => Doubt::None,
        };
        let routed = route(
            &parts.placement,
            parts.index,
            command.db,
            args,
            doubt,
            &mut self.scratch,
        );
        let routed = routed.map_err(|why| self.unfollowable(command, why))?;
        if let Route::NewServers = routed {
            self.set_apart().await?;
        }
        self.reach_command(command);
        match routed {
            Route::Nowhere => {}
            Route::To { target, .. } if self.is_done(command, target)? => {}
            Route::To { target, .. } if self.is_for_unheld(command, target) => {}
            Route::To { target, key } => {
                let given = self.given();
                let guard = &mut self.guard;
                let guarded = guard.rewrite(command.db, target, args, given, unix_ms);
                self.push_command(command, target, key, guarded.as_deref())?;
                self.commands += 1;
                self.flush_if_full(target).await?;
            }
            Route::Parts { name, parts } => {
                for part in &parts {
                    self.push_part(command, name, part)?;
                }
                self.commands += 1;
                // A target may have several parts, of which all go or none.
                self.flush_full().await?;
            }
            Route::NewServers => {
                self.on_library_command(command);
                self.flush_all().await?;
            }
            Route::Refresh { keys, because, .. }
                if because == Because::Spans
                    && planted::is_on(Planted::SpanningCommandForwarded) =>
            {
                self.forward_anyway(command, &keys)?;
            }
            Route::Refresh {
                name,
                keys,
                because,
            } => self.mark_pending(command, name, &keys, because)?,
            Route::FlushDb => self.flush_out(Emptied::Database(command.db)).await?,
            Route::FlushAll => self.flush_out(Emptied::All).await?,
            Route::SwapDb(one, other) => self.swap(one, other).await?,
        }
        Ok(())
    }

    /// Whether an earlier run of this job has applied a command there.
    fn is_done(&mut self, command: &StreamCommand, target: TargetIndex) -> Result<bool, MoveError> {
        Ok(self.queue(target)?.covers(command.offset_end))
    }

    /// A command for one target, in the words that it understands.
    fn push_command(
        &mut self,
        command: &StreamCommand,
        target: TargetIndex,
        key: usize,
        guarded: Option<&[Vec<u8>]>,
    ) -> Result<(), MoveError> {
        let spoken = self.parts.dialect;
        let queue = self.queue(target)?;
        queue.select(command.db);
        let args = Args {
            bytes: &command.bytes,
            spans: &command.args,
        };
        let understood =
            guarded.is_none() && queue.dialect().understands(&spoken) && !is_for_replicas(&args);
        let words: Vec<&[u8]> = match guarded {
            Some(args) => args.iter().map(Vec::as_slice).collect(),
            None if understood => {
                queue.push(&command.bytes, command_op(command, key));
                return Ok(());
            }
            None => command.args().collect(),
        };
        let translation = match understood {
            true => Translation::Same,
            false => translate(&words, queue.dialect()),
        };
        match translation {
            Translation::Same if guarded.is_none() => {
                queue.push(&command.bytes, command_op(command, key));
            }
            Translation::Same => queue.push_args(&words, command_op(command, key)),
            Translation::Instead(commands) => {
                for words in commands {
                    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                    queue.push_args(&words, command_op(command, key));
                }
            }
            Translation::Beyond(why) => self.written_is_unheld(command, target, &why),
        }
        Ok(())
    }

    /// Whether a command has no place on its target, since a key it needs is not
    /// there; what it writes is not there then either. What writes a key as a
    /// whole, or ends it, makes it held again.
    fn is_for_unheld(&mut self, command: &StreamCommand, target: TargetIndex) -> bool {
        if !self.parts.shortfalls.any_unheld() {
            return false;
        }
        let (db, key) = (command.db, command.arg(1));
        let name = command.name().to_ascii_lowercase();
        if matches!(
            name.as_slice(),
            b"set" | b"setex" | b"psetex" | b"del" | b"unlink" | b"restore" | b"getdel"
        ) {
            self.parts.shortfalls.held_again(db, key);
            return false;
        }
        let keys = self.keys_of(command);
        let unheld = |index: &usize| self.parts.shortfalls.is_unheld(db, command.arg(*index));
        let is_for_unheld = keys.iter().any(|(index, _)| unheld(index));
        if is_for_unheld {
            self.written_is_unheld(command, target, "it was made of a key that is not there");
        }
        is_for_unheld
    }

    /// What a command writes on its target cannot be there.
    fn written_is_unheld(&mut self, command: &StreamCommand, target: TargetIndex, why: &str) {
        let written = self
            .keys_of(command)
            .into_iter()
            .filter(|(_, writes)| *writes);
        for (index, _) in written {
            let at = (command.db, command.arg(index));
            self.add_shortfall(Short::CannotHold, target, at, why.to_owned());
        }
    }

    /// Arguments of a command that are keys, and whether it writes them.
    fn keys_of(&mut self, command: &StreamCommand) -> Vec<(usize, bool)> {
        let args = Args {
            bytes: &command.bytes,
            spans: &command.args,
        };
        let keys = &mut self.scratch;
        match resolve(&args) {
            Ok(known) if known.keys(&args, keys).is_ok() => {}
            _ => return Vec::new(),
        }
        keys.iter()
            .map(|key| (key.index as usize, key.writes))
            .collect()
    }

    fn push_part(
        &mut self,
        command: &StreamCommand,
        name: &'static [u8],
        part: &Part,
    ) -> Result<(), MoveError> {
        if self.is_done(command, part.target)? {
            return Ok(());
        }
        let mut args: Vec<&[u8]> = vec![name];
        args.extend(part.args.iter().map(|index| command.arg(*index)));
        // Parts delete keys or write them as a whole.
        for index in &part.args {
            let (db, key) = (command.db, command.arg(*index));
            self.parts.shortfalls.held_again(db, key);
            self.guard.forget(db, key);
        }
        let op = command_op(command, part.args.first().copied().unwrap_or_default());
        let queue = self.queue(part.target)?;
        queue.select(command.db);
        queue.push_args(&args, op);
        Ok(())
    }

    /// Each source says the same: the second LOAD must not fail on the first.
    fn on_library_command(&mut self, command: &StreamCommand) {
        let mut args: Vec<&[u8]> = command.args().collect();
        let loads = args
            .get(1)
            .is_some_and(|word| word.eq_ignore_ascii_case(b"load"));
        if loads && args.len() == 3 {
            args.insert(2, b"REPLACE");
        }
        let mut request = Vec::new();
        write_command(&mut request, &args);
        let code = args.last().copied().unwrap_or_default();
        let restores = args
            .get(1)
            .is_some_and(|word| word.eq_ignore_ascii_case(b"restore"));
        let (name, brings) = if loads {
            (library_name(code), Brings::Library)
        } else if restores {
            let name = Bytes::from_static(b"libraries of FUNCTION RESTORE");
            (name, Brings::Library)
        } else {
            (command.bytes.slice_ref(command.arg(1)), Brings::Nothing)
        };
        self.push_to_new_servers(&request, &name, brings);
    }

    async fn on_marker(&mut self, message: &[u8]) -> Result<(), MoveError> {
        match self.parts.board.take(message) {
            Some(expected) => self.on_expected(expected).await,
            None => Ok(()),
        }
    }

    /// What was to be put into the lanes at the place that was reached.
    pub(super) async fn on_expected(&mut self, expected: Expected) -> Result<(), MoveError> {
        if self.unit == Unit::Inside {
            // Only transactions of our own hold markers, and no data beside them.
            self.unit = Unit::Broken;
        }
        match expected {
            Expected::Barrier(passed) => {
                self.barrier(&passed);
                // Our own word: a source without lanes has shown the marker, too.
                let _ = passed.try_send(());
            }
            Expected::Cut { number, passed } => self.meet_cut(number, passed),
            Expected::Refresh {
                db,
                keys,
                values,
                met,
            } => self.on_refresh(db, keys, values, met).await?,
            Expected::Reads {
                db,
                keys,
                reads,
                remarks,
            } => {
                self.flush_all().await?;
                self.remark(db, &keys, &remarks);
                for read in reads {
                    let queue = self.queue(read.target)?;
                    queue.select(db);
                    let reads = Reads {
                        count: read.count,
                        replies: Vec::with_capacity(read.count),
                        done: read.done,
                    };
                    queue.push(&read.bytes, Op::Reads(reads));
                }
            }
            Expected::Rescanned { db, met } => self.on_rescanned(db, met)?,
            Expected::Shrink { to, guarded } => self.shrink(to, guarded),
            Expected::Times { db, keys, times } => self.on_times(db, keys, times).await?,
            Expected::Settled => self.follow_from_here(),
            Expected::Exact { number } => self.on_exact(number),
        }
        self.flush_all().await
    }

    /// Says of which keys targets have something else than the source, for now.
    fn remark(&self, db: u32, keys: &[Bytes], remarks: &Remarks) {
        for key in keys {
            if self.parts.pending.is_in_doubt(db, key) {
                remarks.add(key, Remark::Pending);
            } else if self.guard.guards(db, key) {
                remarks.add(key, Remark::Guarded);
            }
        }
    }

    /// The mistake [`Planted::SpanningCommandForwarded`].
    fn forward_anyway(
        &mut self,
        command: &StreamCommand,
        keys: &[(u32, usize)],
    ) -> Result<(), MoveError> {
        let Some((db, key)) = keys.first().copied() else {
            return Ok(());
        };
        let parts = &self.parts;
        match parts.placement.place(parts.index, db, command.arg(key)) {
            Place::Moves(target) => self.push_command(command, target, key, None),
            Place::Stays | Place::Stray => Ok(()),
        }
    }

    fn unfollowable(&self, command: &StreamCommand, why: Unfollowable) -> MoveError {
        let args = Args {
            bytes: &command.bytes,
            spans: &command.args,
        };
        MoveError::Unfollowable {
            source_server: self.parts.address.clone(),
            command: name_and_keys(args),
            offset: command.offset_end,
            why,
        }
    }
}

/// Whether a FUNCTION command brings something that a target may lack.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Brings {
    Library,
    Nothing,
}

/// The first line of a library names it: `#!lua name=lib`.
fn library_name(code: &[u8]) -> Bytes {
    let line = code.split(|byte| *byte == b'\n').next();
    Bytes::copy_from_slice(line.unwrap_or_default())
}

fn command_op(command: &StreamCommand, key: usize) -> Op {
    Op::Command {
        db: command.db,
        name: command.bytes.slice_ref(command.name()),
        key: command.bytes.slice_ref(command.arg(key)),
    }
}
