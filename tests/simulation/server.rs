//! A model of Redis: lists that are appended to, users that may be refused, a
//! stream of what was written, and checkpoints.

use std::collections::BTreeMap;

use super::event::{Batch, Key, OpId, Reply, Request};

/// One item of a server's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    Write(Key, OpId),
    Marker(u64),
}

/// Where a lane is, as its target has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checkpoint {
    pub number: u64,
    pub position: usize,
}

#[derive(Debug, Default)]
pub struct Server {
    pub lists: BTreeMap<Key, Vec<OpId>>,
    pub stream: Vec<Item>,
    /// By lane.
    pub checkpoints: BTreeMap<usize, Checkpoint>,
    /// Users of this epoch and below are refused.
    pub refuses: u64,
    /// Grows whenever the fence key is written: what a WATCH sees.
    pub fence_version: u64,
    /// Epoch of the route record; 0: none.
    pub route: u64,
}

impl Server {
    /// A client's request.
    pub fn take(&mut self, request: &Request) -> Reply {
        if request.user <= self.refuses {
            return Reply::NoPermission;
        }
        let list = self.lists.entry(request.key).or_default();
        if request.is_write {
            list.push(request.op);
            self.stream.push(Item::Write(request.key, request.op));
        }
        Reply::Length(list.len())
    }

    /// `MULTI; the batch; SET checkpoint; EXEC`, or without its checkpoint.
    pub fn apply(&mut self, lane: usize, batch: &Batch, with_checkpoint: bool) {
        for (key, op) in &batch.writes {
            self.lists.entry(*key).or_default().push(*op);
            self.stream.push(Item::Write(*key, *op));
        }
        if with_checkpoint {
            self.keep(lane, batch.number, batch.position);
        }
    }

    pub fn keep(&mut self, lane: usize, number: u64, position: usize) {
        let checkpoint = Checkpoint { number, position };
        self.checkpoints.insert(lane, checkpoint);
    }

    /// `MULTI; ACL SETUSER; SET the fence key; PUBLISH the marker; EXEC` behind a WATCH
    /// of the fence key; whether it was executed.
    pub fn raise(&mut self, epoch: u64, marker: u64, watched: Option<u64>) -> bool {
        if watched.is_some_and(|version| version != self.fence_version) {
            return false;
        }
        self.refuses = self.refuses.max(epoch);
        self.fence_version += 1;
        self.stream.push(Item::Marker(marker));
        true
    }

    /// `MULTI; ACL SETUSER; DEL the fence key; EXEC`.
    pub fn lower(&mut self, epoch: u64) {
        self.refuses = self.refuses.min(epoch - 1);
        self.fence_version += 1;
    }

    /// `MULTI; ACL SETUSER; SET the fence key; SET the route record; EXEC`.
    pub fn keep_route(&mut self, epoch: u64, is_old: bool) {
        self.route = self.route.max(epoch);
        if is_old {
            self.refuses = self.refuses.max(epoch - 1);
            self.fence_version += 1;
        }
    }
}
