//! Clients that send nothing for `timeout` seconds are let go.

use super::client::Client;
use super::shard::Shard;

impl Shard {
    /// To be called now and then: ends connections that have been idle for too long, if
    /// `timeout` says so. As in Redis, who waits for a key or the end of a pause, listens to
    /// channels or MONITOR, or is a replica, may be silent; so may who has yet to take what
    /// it asked for.
    pub fn end_idle(&mut self) {
        let limit_s = u64::try_from(self.parameters.number("timeout")).unwrap_or(0);
        if limit_s == 0 {
            return;
        }
        let before_ms = self
            .keyspace
            .now_ms()
            .saturating_sub(limit_s.saturating_mul(1000));
        let is_idle = |client: &Client| client.active_at_ms < before_ms && !client.may_be_silent();
        let idle = self.clients.iter().filter(|(_, client)| is_idle(client));
        let idle: Vec<usize> = idle.map(|(key, _)| key).collect();
        for key in idle {
            self.kill(key);
        }
    }
}

impl Client {
    fn may_be_silent(&self) -> bool {
        let listens = !self.channels.is_empty()
            || !self.patterns.is_empty()
            || !self.shard_channels.is_empty();
        listens || self.is_stopped() || self.is_monitor || !self.reply.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::CloseReason;
    use super::super::world::World;

    #[test]
    fn who_is_silent_for_too_long_is_let_go_unless_it_waits_or_listens() {
        let mut world = World::new();
        let (idle, waits, listens) = (world.client(), world.client(), world.client());
        let (told, speaks) = (world.client(), world.client());
        world.say(waits, "BLPOP k 0");
        world.say(listens, "SUBSCRIBE news");
        world.say(told, "MONITOR");
        world.say(idle, "PING");
        let is_let_go = |world: &mut World, key| {
            let output = world.shard.output_of(key);
            output.is_some_and(|(_, closing)| closing == Some(CloseReason::Killed))
        };

        world.shard.set_now_ms(1_700_000_003_000);
        world.shard.end_idle();
        assert!(!is_let_go(&mut world, idle), "timeout is 0");
        world.say(speaks, "CONFIG SET timeout 3");
        world.shard.end_idle();
        assert!(!is_let_go(&mut world, idle), "three seconds are not over");

        world.shard.set_now_ms(1_700_000_003_001);
        world.shard.end_idle();
        assert!(is_let_go(&mut world, idle));
        for other in [waits, listens, told, speaks] {
            assert!(!is_let_go(&mut world, other));
        }
    }
}
