//! Guarded expiry times of an earlier run: only its memory had the names of their
//! keys, but on the targets they end days later than anything its sources said
//! (see `guard`). They are found there again before the stream is gone on with.

use bytes::Bytes;

use crate::resp::Value;

use super::super::begin::SourceBegin;
use super::super::error::{MoveError, Role};
use super::super::guard::GUARD_MS;
use super::super::keyspace::{KeyWalk, Page};
use super::super::link::Link;
use super::super::placement::TargetIndex;
use super::Source;

const PTTL: &str = "look when keys end (PTTL)";

impl Source {
    /// Hands to the guard what an earlier run can have guarded.
    pub(super) async fn recall_guarded(&mut self) -> Result<(), MoveError> {
        if !matches!(self.begin, SourceBegin::GoOn(_)) {
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
        let mut walk = KeyWalk::new(&mut link).await?;
        while let Some(mut page) = walk.next(&mut link).await? {
            let placement = &self.parts.placement;
            page.keys
                .retain(|key| placement.arrives_at(target, key) == Some(self.parts.index));
            for key in ending_late(&mut link, &page).await? {
                self.guard.recall(page.db, &key, target);
            }
        }
        Ok(())
    }
}

/// The keys of a page that end no sooner than a guarded one would.
async fn ending_late(link: &mut Link, page: &Page) -> Result<Vec<Bytes>, MoveError> {
    for key in &page.keys {
        link.queue(&[b"PTTL", key]);
    }
    link.flush(PTTL).await?;
    let mut late = Vec::new();
    for key in &page.keys {
        let Value::Integer(left_ms) = link.read_ok(PTTL).await? else {
            return Err(link.odd(PTTL));
        };
        if left_ms > GUARD_MS / 2 {
            late.push(key.clone());
        }
    }
    Ok(late)
}
