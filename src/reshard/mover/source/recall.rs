//! What only the memory of an earlier run had, found on the targets again before
//! the stream is gone on with.
//!
//! ```text
//! what is there  is what the stream goes on with; of other keys it is not known (`present`)
//! guarded keys   end days later than anything their sources said (`guard`)
//! exact times    are those that the keys there have
//! pending keys   are noted (`noting`)
//! ```

use bytes::Bytes;

use crate::resp::Value;

use super::super::begin::SourceBegin;
use super::super::error::{MoveError, Role};
use super::super::guard::Spoken;
use super::super::keyspace::{KeyWalk, Page};
use super::super::link::Link;
use super::super::placement::TargetIndex;
use super::{Source, unix_ms};

const PTTL: &str = "look when keys end (PTTL)";

impl Source {
    /// Hands on what an earlier run knew.
    pub(super) async fn recall_all(&mut self) -> Result<(), MoveError> {
        if !matches!(self.begin, SourceBegin::GoOn(_) | SourceBegin::After(_)) {
            return Ok(());
        }
        self.guard.begin_recall();
        for target in self.targets() {
            self.recall_on(target).await?;
        }
        Ok(())
    }

    async fn recall_on(&mut self, target: TargetIndex) -> Result<(), MoveError> {
        let Some(server) = self.parts.placement.targets().get(target.0).cloned() else {
            return Ok(());
        };
        let spoken = match self.parts.dialect.speaks(7, 0) {
            true => Spoken::Moments,
            false => Spoken::Spans,
        };
        let mut link = Link::connect(Role::Target, &server, &self.parts.upstream).await?;
        self.recall_pending(&mut link).await?;
        let mut walk = KeyWalk::new(&mut link).await?;
        while let Some(mut page) = walk.next(&mut link).await? {
            let placement = &self.parts.placement;
            page.keys
                .retain(|key| placement.arrives_at(target, key) == Some(self.parts.index));
            for (key, left_ms) in held(&mut link, &page).await? {
                let left = (left_ms, unix_ms());
                self.guard.recall((page.db, &key), target, left, spoken);
            }
        }
        Ok(())
    }
}

/// The keys of a page that are still there, and after how many milliseconds they
/// end, if ever.
async fn held(link: &mut Link, page: &Page) -> Result<Vec<(Bytes, Option<i64>)>, MoveError> {
    for key in &page.keys {
        link.queue(&[b"PTTL", key]);
    }
    link.flush(PTTL).await?;
    let mut held = Vec::new();
    for key in &page.keys {
        let Value::Integer(left_ms) = link.read_ok(PTTL).await? else {
            return Err(link.odd(PTTL));
        };
        match left_ms {
            0.. => held.push((key.clone(), Some(left_ms))),
            -1 => held.push((key.clone(), None)),
            // It has ended since it was listed.
            _ => {}
        }
    }
    Ok(held)
}
