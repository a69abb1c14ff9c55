//! What only the memory of an earlier run had, found on the targets again before
//! the stream is gone on with.
//!
//! ```text
//! guarded keys   end days later than anything their sources said (`guard`)
//! exact times    are those that the keys there have
//! pending keys   are noted (`noting`)
//! ```

use bytes::Bytes;

use crate::resp::Value;

use super::super::begin::SourceBegin;
use super::super::error::{MoveError, Role};
use super::super::guard::GUARD_MS;
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
        let targets: Vec<TargetIndex> =
            self.parts.queues.iter().map(|queue| queue.target).collect();
        for target in targets {
            self.recall_on(target).await?;
        }
        Ok(())
    }

    async fn recall_on(&mut self, target: TargetIndex) -> Result<(), MoveError> {
        let Some(server) = self.parts.placement.targets().get(target.0).cloned() else {
            return Ok(());
        };
        let mut link = Link::connect(Role::Target, &server, &self.parts.upstream).await?;
        self.recall_pending(&mut link).await?;
        let mut walk = KeyWalk::new(&mut link).await?;
        while let Some(mut page) = walk.next(&mut link).await? {
            let placement = &self.parts.placement;
            page.keys
                .retain(|key| placement.arrives_at(target, key) == Some(self.parts.index));
            for (key, left_ms) in ending(&mut link, &page).await? {
                if left_ms > GUARD_MS / 2 {
                    self.guard.recall(page.db, &key, target);
                } else {
                    let at_ms = unix_ms().saturating_add(left_ms);
                    self.guard.recall_exact(page.db, &key, at_ms);
                }
            }
        }
        Ok(())
    }
}

/// The keys of a page that end, and after how many milliseconds.
async fn ending(link: &mut Link, page: &Page) -> Result<Vec<(Bytes, i64)>, MoveError> {
    for key in &page.keys {
        link.queue(&[b"PTTL", key]);
    }
    link.flush(PTTL).await?;
    let mut ending = Vec::new();
    for key in &page.keys {
        let Value::Integer(left_ms) = link.read_ok(PTTL).await? else {
            return Err(link.odd(PTTL));
        };
        if left_ms >= 0 {
            ending.push((key.clone(), left_ms));
        }
    }
    Ok(ending)
}
