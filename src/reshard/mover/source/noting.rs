//! What is pending is noted on its target, too: a run that goes on where this one
//! was killed finds there what the stream it goes on with will not tell it.
//!
//! ```text
//! db 0   __keyferry:pending:<job>:<source index>   a set of
//!        "<database> <key>"    the key is pending
//!        "<database>"          all keys of that database are
//! ```
//!
//! Invariant: a note comes with the batch whose checkpoint is the first behind
//! the command that it is owed to, and goes behind the value that settles it.

use bytes::Bytes;

use crate::resp::Value;
use crate::router::RESERVED_PREFIX;

use super::super::error::MoveError;
use super::super::lane::Op;
use super::super::link::Link;
use super::super::placement::TargetIndex;
use super::Source;

const STEP: &str = "read what was pending (SMEMBERS)";

/// The set of source number `source`.
pub(in crate::reshard::mover) fn pending_key(job: &str, source: usize) -> Bytes {
    let mut key = RESERVED_PREFIX.to_vec();
    key.extend_from_slice(format!("pending:{job}:{source}").as_bytes());
    key.into()
}

/// What may be pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Note<'k> {
    Key(u32, &'k [u8]),
    Database(u32),
}

impl Note<'_> {
    fn text(self) -> Vec<u8> {
        match self {
            Note::Key(db, key) => {
                let mut text = format!("{db} ").into_bytes();
                text.extend_from_slice(key);
                text
            }
            Note::Database(db) => db.to_string().into_bytes(),
        }
    }

    fn parse(text: &[u8]) -> Option<Note<'_>> {
        let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse().ok();
        match text.iter().position(|byte| *byte == b' ') {
            Some(at) => {
                let (db, key) = text.split_at_checked(at)?;
                Some(Note::Key(number(db)?, key.get(1..)?))
            }
            None => Some(Note::Database(number(text)?)),
        }
    }
}

impl Source {
    /// It is pending from here on.
    pub(super) fn note_pending(
        &mut self,
        target: TargetIndex,
        note: Note<'_>,
    ) -> Result<(), MoveError> {
        self.push_note(target, b"SADD", &[&note.text()])
    }

    /// It is not any more.
    pub(super) fn note_settled(
        &mut self,
        target: TargetIndex,
        note: Note<'_>,
    ) -> Result<(), MoveError> {
        self.push_note(target, b"SREM", &[&note.text()])
    }

    /// Nothing is: the source is copied anew.
    pub(super) fn note_nothing_pending(&mut self) -> Result<(), MoveError> {
        for target in self.targets() {
            self.push_note(target, b"DEL", &[])?;
        }
        Ok(())
    }

    fn push_note(
        &mut self,
        target: TargetIndex,
        name: &'static [u8],
        members: &[&[u8]],
    ) -> Result<(), MoveError> {
        let key = self.parts.pending_key.clone();
        let queue = self.queue(target)?;
        queue.select(0);
        let mut args: Vec<&[u8]> = vec![name, &key];
        args.extend(members);
        let op = Op::Command {
            db: 0,
            name: Bytes::from_static(name),
            key: key.clone(),
        };
        queue.push_args(&args, op);
        Ok(())
    }

    pub(super) fn targets(&self) -> Vec<TargetIndex> {
        self.parts.queues.iter().map(|queue| queue.target).collect()
    }

    /// Marks again what an earlier run noted on a target; the link is in database 0.
    pub(super) async fn recall_pending(&mut self, link: &mut Link) -> Result<(), MoveError> {
        let key = self.parts.pending_key.clone();
        let Value::Array(members) = link.call(STEP, &[b"SMEMBERS", &key]).await? else {
            return Err(link.odd(STEP));
        };
        for member in members.iter().filter_map(Value::as_bytes) {
            match Note::parse(member) {
                Some(Note::Key(db, key)) => self.mark_noted(db, key)?,
                Some(Note::Database(db)) => self.parts.pending.rescan(db),
                None => return Err(link.odd(STEP)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_note_reads_back() {
        for note in [
            Note::Key(0, b"k"),
            Note::Key(15, b"with space \n"),
            Note::Key(3, b""),
            Note::Database(7),
        ] {
            assert_eq!(Note::parse(&note.text()), Some(note));
        }
        for foreign in [&b""[..], b"x", b"x k", b" k"] {
            assert_eq!(Note::parse(foreign), None);
        }
    }
}
