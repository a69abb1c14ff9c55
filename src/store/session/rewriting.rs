//! CONFIG REWRITE, and its answer, which waits until all is durable.
//!
//! ```text
//! REWRITE --Order::KeepParameters--> the driver writes --rewritten--> OK, or why not
//!           .-- nothing more is run of the client, and nothing is sent to it --.
//! ```
//! Nothing is sent since the answer's place may be in the middle of what the client is owed:
//! among those of EXEC, as Sentinel asks for it.

use super::client::ClientId;
use super::shard::{Order, Shard};

impl Shard {
    pub(super) fn rewrite(&mut self, key: usize) {
        let client = &mut self.clients[key];
        client.unanswered.push(client.reply.len());
        self.orders.push(Order::KeepParameters {
            client: key,
            id: client.id,
        });
    }

    /// What a client asked to be kept is durable, or is not, for this reason.
    pub fn rewritten(&mut self, key: usize, id: ClientId, outcome: Result<(), &str>) {
        let Some(client) = self.clients.get_mut(key).filter(|of| of.id == id) else {
            return;
        };
        if client.unanswered.is_empty() {
            // It wants no replies, or is sent away.
            return;
        }
        let place = client.unanswered.remove(0);
        let before = client.reply.len();
        match outcome {
            Ok(()) => client.reply.ok(),
            Err(why) => client
                .reply
                .error(&format!("ERR Rewriting config file: {why}")),
        }
        let answered = client.reply.len() - before;
        if let Some(from_there) = client.reply.raw().get_mut(place..) {
            from_there.rotate_right(answered);
        }
        for later in &mut client.unanswered {
            *later += answered;
        }
        if client.unanswered.is_empty() {
            self.mark(key);
            self.resumed.push(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::world::World;
    use super::*;

    /// Whom to tell, in the order of their requests.
    fn asked(world: &mut World) -> Vec<(usize, ClientId)> {
        let orders = world.shard.take_orders().into_iter();
        let asked = orders.map(|order| match order {
            Order::KeepParameters { client, id } => (client, id),
            other => panic!("{other:?}"),
        });
        asked.collect()
    }

    #[test]
    fn the_answer_waits_and_so_does_what_comes_behind_it() {
        let mut world = World::new();
        let (client, other) = (world.client(), world.client());
        assert_eq!(world.say(client, "CONFIG REWRITE"), "");
        assert_eq!(world.say(client, "ECHO a"), "");
        assert_eq!(world.say(other, "ECHO b"), "b", "nobody else waits");
        let [(key, id)] = asked(&mut world)[..] else {
            panic!("it is asked for once");
        };
        world.shard.rewritten(key, ClientId(id.0 + 9), Ok(()));
        assert_eq!(world.owed(client), "", "that was another client's");
        world.shard.rewritten(key, id, Ok(()));
        assert_eq!(world.shard.take_resumed(), [client]);
        world.shard.run_requests(client);
        assert_eq!(world.owed(client), "OK a");
    }

    #[test]
    fn answers_stand_where_exec_has_their_place() {
        let mut world = World::new();
        let client = world.client();
        world.say(client, "MULTI");
        for line in ["ECHO a", "CONFIG REWRITE", "ECHO b", "CONFIG REWRITE"] {
            assert_eq!(world.say(client, line), "QUEUED");
        }
        assert_eq!(world.say(client, "EXEC"), "");
        let asked = asked(&mut world);
        let [(key, id), second] = asked[..] else {
            panic!("{asked:?}");
        };
        world.shard.rewritten(key, id, Ok(()));
        assert_eq!(world.owed(client), "", "half an answer is none");
        let why = "No space left on device";
        world.shard.rewritten(second.0, second.1, Err(why));
        let refused = "-ERR Rewriting config file: No space left on device";
        assert_eq!(world.owed(client), format!("[a OK b {refused}]"));
    }

    #[test]
    fn who_wants_no_replies_does_not_wait_and_who_is_sent_away_goes() {
        let mut world = World::new();
        let (quiet, killed) = (world.client(), world.client());
        world.say(quiet, "CLIENT REPLY OFF");
        world.say(quiet, "CONFIG REWRITE");
        assert_eq!(world.say(quiet, "CLIENT REPLY ON"), "OK");
        let id = world.say(killed, "CLIENT ID").replace(':', "");
        assert_eq!(world.say(killed, "CONFIG REWRITE"), "");
        assert_eq!(world.say(quiet, &format!("CLIENT KILL ID {id}")), ":1");
        let (owed, closing) = world.shard.output_of(killed).expect("still there");
        assert!(closing.is_some() && owed.is_empty(), "{owed:?}");
        for (key, id) in asked(&mut world) {
            world.shard.rewritten(key, id, Ok(()));
        }
        assert_eq!(world.owed(killed) + &world.owed(quiet), "");
    }
}
