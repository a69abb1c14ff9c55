//! Where the posts are: every server of both layouts, once.

use std::collections::BTreeSet;

use super::post::{Means, Post};
use crate::reshard::record::Direction;
use crate::router::address::ShardAddress;
use crate::router::layout::Shard;
use crate::router::moves::Moves;

/// One server, and our post there.
#[derive(Debug)]
pub(super) struct Stand {
    pub(super) server: ShardAddress,
    pub(super) is_old: bool,
    pub(super) is_new: bool,
    /// Keys may leave it on the way there: not all servers of a layout give some.
    pub(super) gives: bool,
    /// Keys may arrive at it, which the way back takes from it.
    pub(super) takes: bool,
    pub(super) means: Means,
    pub(super) post: Post,
}

impl Stand {
    pub(super) fn has_users(&self) -> bool {
        matches!(self.means, Means::Users(_))
    }

    /// It is in the layout that is left.
    pub(super) fn is_source(&self, direction: Direction) -> bool {
        match direction {
            Direction::Forward => self.is_old,
            Direction::Back => self.is_new,
        }
    }

    /// Keys may leave it in this direction: the fence goes up there with the marker.
    pub(super) fn is_cut(&self, direction: Direction) -> bool {
        let gives = match direction {
            Direction::Forward => self.gives,
            Direction::Back => self.takes,
        };
        gives && self.is_source(direction)
    }

    /// It is in the layout that comes.
    pub(super) fn is_target(&self, direction: Direction) -> bool {
        match direction {
            Direction::Forward => self.is_new,
            Direction::Back => self.is_old,
        }
    }
}

/// A server of a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its address.
    pub server: ShardAddress,
    /// It is in the layout that is left.
    pub is_from: bool,
    /// It is in the layout that comes.
    pub is_to: bool,
}

impl Place {
    /// Whether none of its keys stays.
    pub fn leaves(&self) -> bool {
        self.is_from && !self.is_to
    }
}

/// Servers of both layouts, each once.
pub fn places(moves: &Moves) -> Vec<Place> {
    let address = |shards: &[Shard]| -> BTreeSet<ShardAddress> {
        shards.iter().map(|shard| shard.address.clone()).collect()
    };
    let (from, to) = (address(moves.from().shards()), address(moves.to().shards()));
    from.union(&to)
        .map(|server| Place {
            server: server.clone(),
            is_from: from.contains(server),
            is_to: to.contains(server),
        })
        .collect()
}
