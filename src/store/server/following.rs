//! The executor's side of replicas: clients that become some, what they say, what they are
//! told by the clock.

use std::time::{Duration, Instant};

use super::network::lock;
use super::turns::Turns;
use crate::store::session::FollowRequest;
use crate::store::sync::Newcomer;

impl Turns {
    /// What replicas said since the last turn; and what they are told by the clock.
    pub(super) fn hear_replicas(&mut self) {
        if self.replicas.has_news() {
            self.replicas.look(&mut self.shard);
            self.shard.acks_came();
        }
        if self.replicas.is_empty() {
            return;
        }
        let period = Duration::from_secs(self.shard.ping_period_s());
        if self.pinged_at.elapsed() >= period {
            self.pinged_at = Instant::now();
            self.shard.ping_replicas();
        }
    }

    /// A client becomes a replica: its socket leaves this poll.
    pub(super) fn follow(&mut self, request: FollowRequest) {
        let key = request.client;
        let Some(connection) = lock(&self.network).take(key) else {
            return;
        };
        let owed = self
            .shard
            .output_of(key)
            .map(|(out, _)| std::mem::take(out));
        let input = self.shard.input_of(key).map(std::mem::take);
        self.shard.client_gone(key);
        let newcomer = Newcomer {
            socket: Box::new(connection),
            owed: owed.unwrap_or_default(),
            input: input.unwrap_or_default(),
            request,
        };
        self.replicas
            .join(newcomer, self.keeper.log(), &mut self.shard);
        self.replicas.look(&mut self.shard);
    }
}
