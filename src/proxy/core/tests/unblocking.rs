//! Clients that wait at a shard while a switch holds.

use super::*;
use crate::proxy::dispatch::TRYAGAIN;

struct Waiter {
    client: u32,
    pipe: u32,
}

impl World {
    fn waiter(&mut self, request: &[&str]) -> Waiter {
        let client = self.client();
        self.say(client, &[request]);
        let waits_on = self.core.clients[client as usize].session().waits_on;
        Waiter {
            client,
            pipe: waits_on.unwrap(),
        }
    }

    fn tell(&mut self, waiter: &Waiter, bytes: &str) {
        self.core.pipe_bytes(waiter.pipe, bytes.as_bytes());
        self.turn();
    }

    /// A key that moves, or stays, and that the first shard has.
    fn key_of(&self, moves: &Moves, is_moving: bool) -> String {
        (0..)
            .map(|n| format!("w{n}"))
            .find(|key| {
                let moves = matches!(moves.of(key.as_bytes()), Move::Moves { .. });
                self.owner(key) == 1 && moves == is_moving
            })
            .unwrap()
    }
}

const GONE: &str = "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";

#[test]
fn who_waits_for_a_moving_key_waits_on_where_it_is_then() {
    let mut world = World::new(&[1, 2]);
    let moves = world.moves_to(&[1, 2, 3]);
    let (moving, staying) = (world.key_of(&moves, true), world.key_of(&moves, false));
    let moves_on = world.waiter(&["BLPOP", &moving, "10"]);
    let stays = world.waiter(&["BLPOP", &staying, "0"]);
    world.tell(&moves_on, ":71\r\n");
    world.core.set_clock(4_000_000);
    let mut drained = world.hold(&moves);
    let sent = world.sent_to(1);
    assert!(sent.contains("UNBLOCK\r\n$2\r\n71\r\n"), "{sent}");
    assert!(drained.try_recv().is_err());
    world.tell(&moves_on, GONE);
    world.reply(1, b":1\r\n");
    assert_eq!(drained.try_recv(), Ok(Ok(())), "the other one waits on");
    assert_eq!(world.got(moves_on.client), "");

    let to = Arc::clone(moves.to());
    world.core.route(Arc::new(Routing::open(Epoch(2), to)));
    world.turn();
    let waits_on = world.core.clients[moves_on.client as usize]
        .session()
        .waits_on;
    let again = Waiter {
        client: moves_on.client,
        pipe: waits_on.unwrap(),
    };
    assert_eq!(
        world.core.pipes[again.pipe as usize].address.to_string(),
        "h:3"
    );
    let sent = String::from_utf8(world.sent.remove(&again.pipe).unwrap()).unwrap();
    assert!(
        sent.contains("$5\r\n6.000\r\n"),
        "the rest of its time: {sent}"
    );
    world.tell(&again, ":5\r\n*2\r\n$1\r\na\r\n$1\r\nx\r\n");
    assert_eq!(world.got(again.client), "*2\r\n$1\r\na\r\n$1\r\nx\r\n");
    world.tell(&stays, ":72\r\n*-1\r\n");
    assert_eq!(world.got(stays.client), "*-1\r\n");
}

#[test]
fn a_value_that_came_before_it_was_woken_is_its_answer() {
    let mut world = World::new(&[1, 2]);
    let moves = world.moves_to(&[1, 2, 3]);
    let moving = world.key_of(&moves, true);
    let waiter = world.waiter(&["BLPOP", &moving, "0"]);
    let mut drained = world.hold(&moves);
    assert!(
        !world.sent_to(1).contains("UNBLOCK"),
        "its number is not known"
    );
    world.tell(&waiter, ":71\r\n");
    assert!(world.sent_to(1).contains("UNBLOCK"));
    world.tell(&waiter, "*2\r\n$1\r\na\r\n$1\r\nx\r\n");
    world.reply(1, b":0\r\n");
    assert_eq!(world.got(waiter.client), "*2\r\n$1\r\na\r\n$1\r\nx\r\n");
    assert_eq!(drained.try_recv(), Ok(Ok(())));
}

#[test]
fn an_aborted_hold_lets_it_wait_where_it_waited() {
    let mut world = World::new(&[1, 2]);
    let moves = world.moves_to(&[1, 2, 3]);
    let moving = world.key_of(&moves, true);
    let waiter = world.waiter(&["BLPOP", &moving, "0"]);
    world.tell(&waiter, ":71\r\n");
    world.core.hold(
        Arc::new(Routing {
            gate: Gate::Held(Arc::clone(&moves)),
            ..Routing::clone(&world.core.routing)
        }),
        oneshot::channel().0,
    );
    world.turn();
    world.sent.clear();
    let from = Arc::clone(moves.from());
    world.core.route(Arc::new(Routing::open(Epoch(1), from)));
    world.tell(&waiter, GONE); // later than the end of the hold
    let again = world.core.clients[waiter.client as usize]
        .session()
        .waits_on;
    let sent = String::from_utf8(world.sent.remove(&again.unwrap()).unwrap()).unwrap();
    assert!(sent.contains("BLPOP"), "{sent}");
    assert_eq!(world.got(waiter.client), "");
}

#[test]
fn a_connection_whose_client_was_woken_is_nobody_elses() {
    let mut world = World::new(&[1, 2]);
    let moves = world.moves_to(&[1, 2, 3]);
    let moving = world.key_of(&moves, true);
    let waiter = world.waiter(&["BLPOP", &moving, "0"]);
    world.tell(&waiter, ":71\r\n");
    let _drained = world.hold(&moves);
    world.tell(&waiter, "*2\r\n$1\r\na\r\n$1\r\nx\r\n");
    assert!(
        !world.core.pipes.contains(waiter.pipe as usize),
        "its CLIENT UNBLOCK may still come"
    );
}

#[test]
fn a_hold_that_takes_too_long_answers_what_it_holds_and_holds_no_more() {
    let mut world = World::new(&[1, 2]);
    let moves = world.moves_to(&[1, 2, 3]);
    let (moving, staying) = (world.key_of(&moves, true), world.key_of(&moves, false));
    let (first, second) = (world.client(), world.client());
    let _drained = world.hold(&moves);
    world.say(
        first,
        &[&["SET", &moving, "1"], &["GET", &moving], &["PING"]],
    );
    let held_max = world.core.config.limits.held_max.as_micros() as u64;
    world.core.set_clock(held_max - 1);
    world.core.tick();
    world.turn();
    assert_eq!(world.got(first), "");
    assert!(
        !world.core.may_read(first),
        "what it sends meanwhile stays in its socket"
    );
    assert!(world.core.needs_clock());
    world.core.set_clock(held_max);
    world.core.tick();
    world.turn();
    let again = format!("-{TRYAGAIN}\r\n");
    assert_eq!(world.got(first), format!("{again}{again}+PONG\r\n"));
    world.say(second, &[&["GET", &moving]]);
    assert_eq!(world.got(second), again);
    world.say(second, &[&["GET", &staying]]);
    assert!(world.sent_to(1).contains("GET"));

    let from = Arc::clone(moves.from());
    world.core.route(Arc::new(Routing::open(Epoch(1), from)));
    world.turn();
    world.say(first, &[&["GET", &moving]]);
    assert!(world.sent_to(1).contains(&moving));
}

#[test]
fn a_switch_that_nobody_held_for_wakes_who_waits_and_leaves_the_woken_alone() {
    let mut world = World::new(&[1, 2]);
    let moves = world.moves_to(&[1, 2, 3]);
    let moving = world.key_of(&moves, true);
    let [woken, asleep] = [(); 2].map(|()| world.waiter(&["BLPOP", &moving, "0"]));
    world.tell(&woken, ":71\r\n");
    let _drained = world.hold(&moves);
    world.tell(&asleep, ":72\r\n");
    world.core.pipes[asleep.pipe as usize].is_woken = false; // it came after the hold
    world.sent_to(1);
    let to = Arc::clone(moves.to());
    world.core.route(Arc::new(Routing::open(Epoch(2), to)));
    world.turn();
    let sent = world.sent_to(1);
    assert!(
        sent.contains("$2\r\n72\r\n") && !sent.contains("71"),
        "{sent}"
    );
    for waiter in [woken, asleep] {
        assert_eq!(world.got(waiter.client), "");
        world.tell(&waiter, GONE);
        let waits_on = world.core.clients[waiter.client as usize]
            .session()
            .waits_on
            .unwrap();
        let address = world.core.pipes[waits_on as usize].address.to_string();
        assert_eq!(address, "h:3");
        assert_eq!(world.got(waiter.client), "");
    }
}
