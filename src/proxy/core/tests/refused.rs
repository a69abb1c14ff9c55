//! Requests that a shard refuses because their epoch is over.

use super::logins::logins;
use super::*;
use crate::proxy::config::HELD_DEFAULT;
use crate::proxy::dispatch::TRYAGAIN;

const NOPERM: &[u8] = b"-NOPERM no\r\n";

impl World {
    /// Connections to these ports that are logged in as an epoch's user.
    fn as_epoch(ports: &[u16]) -> World {
        let mut world = World::new(ports);
        let of: Vec<(u16, &str)> = ports.iter().map(|&port| (port, "e1")).collect();
        world.core.use_logins(&logins(&of));
        world.core.warm();
        world.turn();
        for &port in ports {
            world.reply(port, b"+OK\r\n");
            world.sent_to(port);
        }
        world
    }

    /// What the control side was told.
    fn told(&mut self) -> Vec<String> {
        let told = self.refusing.drain(..).map(|address| address.to_string());
        told.collect()
    }

    /// Time passes, and is looked at as a worker does.
    fn look_up_to(&mut self, from_us: u64, to_us: u64) {
        for now_us in (from_us..to_us).step_by(10_000).chain([to_us]) {
            self.core.set_clock(now_us);
            self.core.tick();
            self.turn();
        }
    }

    fn route_to(&mut self, ports: &[u16]) {
        self.core.use_logins(&Arc::default());
        let routing = Routing::open(Epoch(2), layout(ports));
        self.core.route(Arc::new(routing));
        self.turn();
    }
}

#[test]
fn refused_requests_go_to_the_new_route_in_their_clients_order() {
    let mut world = World::as_epoch(&[1, 2]);
    let a = world.key_on(1);
    let (client, other) = (world.client(), world.client());
    world.say(client, &[&["INCR", &a], &["APPEND", &a, "x"], &["PING"]]);
    world.say(other, &[&["GET", &a]]);
    world.sent_to(1);
    world.reply(1, b":1\r\n");
    world.reply(1, &NOPERM.repeat(2));
    assert_eq!(world.got(client), ":1\r\n", "what was executed is answered");
    assert_eq!(world.told(), ["h:1"]);
    assert!(
        !world.core.may_read(client),
        "it waits for its own requests"
    );

    world.route_to(&[3, 4]);
    let key = world.owner(&a);
    let sent = world.sent_to(key);
    let order: Vec<usize> = ["APPEND", "GET"]
        .map(|word| sent.find(word).unwrap())
        .into();
    assert!(order.is_sorted() && !sent.contains("INCR"), "{sent}");
    world.reply(key, b":2\r\n$1\r\ny\r\n");
    assert_eq!(world.got(client), ":2\r\n+PONG\r\n");
    assert_eq!(world.got(other), "$1\r\ny\r\n");
    assert!(world.core.may_read(client));
}

#[test]
fn parts_of_a_split_command_are_sent_again_alone() {
    let mut world = World::as_epoch(&[1, 2]);
    let (a, b) = (world.key_on(1), world.key_on(2));
    let client = world.client();
    world.say(client, &[&["MGET", &a, &b]]);
    world.reply(1, NOPERM);
    world.reply(2, b"*1\r\n$1\r\nb\r\n");
    assert_eq!(world.got(client), "");
    world.route_to(&[3]);
    world.reply(3, b"*1\r\n$1\r\na\r\n");
    assert_eq!(world.got(client), "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
}

/// A key of a port, and another that this layout gives to the second of `apart`.
fn parted(world: &World, port: u16, apart: &[u16]) -> [String; 2] {
    let to = layout(apart);
    let owner = |key: &str| usize::from(to.owner(key.as_bytes()).0);
    [0, 1].map(|shard| {
        let mut keys = (0..).map(|number| format!("p{number}"));
        let fits = |key: &String| world.owner(key) == port && owner(key) == shard;
        keys.find(fits).unwrap()
    })
}

#[test]
fn what_the_new_route_parts_is_sent_part_by_part_and_put_together() {
    let mut world = World::as_epoch(&[1, 2]);
    let [a, b] = parted(&world, 1, &[3, 4]);
    let c = world.key_on(2);
    let client = world.client();
    world.say(
        client,
        &[
            &["MGET", &b, &a, &b],
            &["MGET", &a, &c, &b],
            &["DEL", &a, &b],
        ],
    );
    world.reply(1, &NOPERM.repeat(3));
    world.reply(2, b"*1\r\n$1\r\nC\r\n");
    assert_eq!(world.got(client), "");
    world.route_to(&[3, 4]);
    assert_eq!(world.sent_to(3).matches("MGET").count(), 2);
    world.reply(4, b"*2\r\n$1\r\nB\r\n$1\r\nB\r\n*1\r\n$1\r\nb\r\n:1\r\n");
    world.reply(3, b"*1\r\n$1\r\nA\r\n*1\r\n$1\r\na\r\n:1\r\n");
    let bulk = |text: &str| format!("$1\r\n{text}\r\n");
    let [first, second] = [["B", "A", "B"], ["a", "C", "b"]]
        .map(|values| format!("*3\r\n{}", values.map(bulk).concat()));
    assert_eq!(world.got(client), format!("{first}{second}:2\r\n"));
    assert!(world.core.merges.is_empty());
}

#[test]
fn parts_of_a_client_that_left_come_to_their_end() {
    let mut world = World::as_epoch(&[1, 2]);
    let [a, b] = parted(&world, 1, &[3, 4]);
    let c = world.key_on(2);
    let client = world.client();
    world.say(client, &[&["MSET", &a, "1", &b, "2", &c, "3"]]);
    world.reply(1, NOPERM);
    world.route_to(&[3, 4]);
    world.core.client_gone(client);
    world.turn();
    world.reply(3, b"+OK\r\n");
    world.reply(2, b"+OK\r\n");
    world.reply(4, b"+OK\r\n");
    assert!(world.core.merges.is_empty());
}

#[test]
fn a_large_request_is_sent_again_if_it_was_kept() {
    let mut world = World::as_epoch(&[1, 2]);
    let a = world.key_on(1);
    let refused = b"-NOPERM User e1 has no permissions to run the 'set' command\r\n";
    for (len, is_kept) in [(200 * 1024, true), (2 * 1024 * 1024, false)] {
        let client = world.client();
        let mut bytes = Vec::new();
        let value = vec![b'v'; len];
        write_command(&mut bytes, &[b"SET", a.as_bytes(), &value]);
        for piece in bytes.chunks(50 * 1024) {
            world.core.client_bytes(client, piece);
            world.turn();
        }
        let private = world.core.pipes.iter().find(
            |(_, place)| matches!(place.role, Role::Private { client: of, .. } if of == client),
        );
        let private = private.unwrap().0 as u32;
        if world.core.pipes[private as usize].pipe.unwritten() > 0 {
            world.core.pipe_bytes(private, b"+OK\r\n");
            world.turn();
        }
        world.core.pipe_bytes(private, refused);
        world.turn();
        if is_kept {
            assert_eq!(world.got(client), "");
            world.core.not_fenced(&"h:1".parse().unwrap());
            world.turn();
            assert!(
                world
                    .sent_to(1)
                    .contains(std::str::from_utf8(&value).unwrap())
            );
            world.reply(1, b"+OK\r\n");
            assert_eq!(world.got(client), "+OK\r\n");
        } else {
            assert_eq!(world.got(client), format!("-{TRYAGAIN}\r\n"));
        }
    }
}

#[test]
fn who_waits_and_is_refused_waits_on_the_new_route_with_the_rest_of_its_time() {
    let mut world = World::as_epoch(&[1, 2]);
    let a = world.key_on(1);
    let client = world.client();
    world.say(client, &[&["BLPOP", &a, "10"]]);
    let waits_on = |world: &mut World| world.core.clients[client as usize].session().waits_on;
    let pipe = waits_on(&mut world).unwrap();
    world.core.pipe_bytes(pipe, b"+OK\r\n:7\r\n");
    world.turn();
    world.core.set_clock(4_000_000);
    world.core.pipe_bytes(pipe, NOPERM);
    world.turn();
    assert_eq!(world.got(client), "");
    world.route_to(&[3]);
    let again = waits_on(&mut world).unwrap();
    let sent = String::from_utf8(world.sent.remove(&again).unwrap()).unwrap();
    assert!(
        sent.contains("BLPOP") && sent.contains("$5\r\n6.000\r\n"),
        "{sent}"
    );
    world.core.pipe_bytes(again, b":8\r\n*-1\r\n");
    world.turn();
    assert_eq!(world.got(client), "*-1\r\n");
}

#[test]
fn who_may_not_wait_is_told() {
    let mut world = World::as_epoch(&[1, 2]);
    let a = world.key_on(1);
    let client = world.client();
    world.say(client, &[&["BLPOP", &a, "0"]]);
    for greeting in [&b"+OK\r\n:7\r\n"[..], b""] {
        let pipe = world.core.clients[client as usize]
            .session()
            .waits_on
            .unwrap();
        world.core.pipe_bytes(pipe, greeting);
        world.turn();
        world.core.pipe_bytes(pipe, NOPERM);
        world.turn();
        world.core.not_fenced(&"h:1".parse().unwrap());
        world.turn();
    }
    assert_eq!(world.got(client), "-NOPERM no\r\n");
}

#[test]
fn a_watch_that_is_refused_watches_nothing() {
    let mut world = World::as_epoch(&[1, 2]);
    let a = world.key_on(1);
    let client = world.client();
    world.say(client, &[&["WATCH", &a]]);
    let watching = world
        .core
        .pipes
        .iter()
        .find(|(_, place)| matches!(place.role, Role::Watching { .. }));
    let pipe = watching.unwrap().0 as u32;
    world.core.pipe_bytes(pipe, b"+OK\r\n");
    world.core.pipe_bytes(pipe, NOPERM);
    world.turn();
    assert_eq!(world.got(client), "");
    world.route_to(&[3]);
    assert_eq!(world.got(client), "+OK\r\n");
    world.say(client, &[&["MULTI"], &["INCR", &a], &["EXEC"]]);
    assert_eq!(world.got(client), "+OK\r\n+QUEUED\r\n*-1\r\n");
    assert!(!world.core.pipes.contains(pipe as usize));
}

#[test]
fn nothing_for_too_long_is_answered_as_try_again() {
    let mut world = World::as_epoch(&[1, 2]);
    let a = world.key_on(1);
    let client = world.client();
    world.say(client, &[&["INCR", &a]]);
    world.reply(1, NOPERM);
    world.look_up_to(0, HELD_DEFAULT.as_micros() as u64 - 1_000);
    assert_eq!(world.got(client), "");
    assert!(world.core.needs_clock());
    assert!(world.told().len() > 1, "told again while it waits");
    world.core.set_clock(HELD_DEFAULT.as_micros() as u64);
    world.core.tick();
    world.turn();
    assert_eq!(world.got(client), format!("-{TRYAGAIN}\r\n"));
    world.sent_to(1);
    world.say(client, &[&["INCR", &a]]);
    assert!(world.sent_to(1).contains("INCR"), "it may try again");
}

#[test]
fn a_process_that_was_stopped_gives_the_route_a_chance_to_come() {
    let mut world = World::as_epoch(&[1, 2]);
    let a = world.key_on(1);
    let client = world.client();
    let held_us = HELD_DEFAULT.as_micros() as u64;
    world.say(client, &[&["INCR", &a]]);
    world.reply(1, NOPERM);
    world.look_up_to(0, held_us / 2);
    // Stopped, for much longer than anything is held.
    let woken_us = 20_000_000;
    world.look_up_to(woken_us, woken_us + 1);
    assert_eq!(world.got(client), "");
    assert!(world.told().contains(&"h:1".to_owned()), "it asks at once");
    world.look_up_to(woken_us, woken_us + held_us);
    assert_eq!(world.got(client), format!("-{TRYAGAIN}\r\n"));
}

#[test]
fn what_the_user_may_never_do_is_told_the_client() {
    let mut world = World::as_epoch(&[1, 2]);
    let a = world.key_on(1);
    let client = world.client();
    let shard = "h:1".parse().unwrap();
    world.say(client, &[&["INCR", &a]]);
    world.reply(1, NOPERM);
    world.sent_to(1);
    world.core.not_fenced(&shard);
    world.turn();
    assert!(
        world.sent_to(1).contains("INCR"),
        "perhaps it was fenced then"
    );
    world.reply(1, NOPERM);
    assert_eq!(world.got(client), "-NOPERM no\r\n");

    world.say(client, &[&["INCR", &a], &["GET", &a]]);
    world.reply(1, b"-NOPERM no\r\n$1\r\n1\r\n");
    world.sent_to(1);
    world.core.not_fenced(&shard);
    world.turn();
    assert_eq!(world.sent_to(1), "", "a later request was executed");
    assert_eq!(world.got(client), "-NOPERM no\r\n$1\r\n1\r\n");
}

#[test]
fn what_was_overtaken_is_not_sent_again() {
    let mut world = World::as_epoch(&[1, 2]);
    let a = world.key_on(1);
    let client = world.client();
    world.say(client, &[&["SET", &a, "1"], &["SET", &a, "2"]]);
    world.reply(1, b"-NOPERM no\r\n+OK\r\n");
    world.route_to(&[3]);
    assert!(!world.sent_to(3).contains("SET"));
    assert_eq!(world.got(client), format!("-{TRYAGAIN}\r\n+OK\r\n"));
}

#[test]
fn a_request_whose_connection_broke_is_not_sent_again() {
    let mut world = World::as_epoch(&[1, 2]);
    let a = world.key_on(1);
    let client = world.client();
    world.say(client, &[&["INCR", &a]]);
    world.core.pipe_failed(world.pipe_to(1), PipeError::Closed);
    world.turn();
    assert!(world.got(client).starts_with("-ERR shard"));
    world.route_to(&[3]);
    assert!(!world.sent_to(3).contains("INCR"));
}

#[test]
fn a_user_that_is_not_known_any_more_leaves_requests_waiting() {
    let mut world = World::new(&[1, 2]);
    world.core.use_logins(&logins(&[(1, "e1")]));
    let a = world.key_on(1);
    let (early, late) = (world.client(), world.client());
    world.say(early, &[&["INCR", &a]]);
    assert!(world.sent_to(1).starts_with("*3\r\n$4\r\nAUTH"));
    world.reply(1, b"-WRONGPASS invalid username-password pair\r\n");
    assert_eq!(world.told(), ["h:1"]);
    world.say(late, &[&["INCR", &a]]);
    assert_eq!((world.got(early), world.got(late)), Default::default());
    world.core.use_logins(&Arc::default());
    world.core.not_fenced(&"h:1".parse().unwrap());
    world.turn();
    assert_eq!(world.sent_to(1).matches("INCR").count(), 2);
    world.reply(1, b":1\r\n:2\r\n");
    assert_eq!(world.got(early), ":1\r\n");
    assert_eq!(world.got(late), ":2\r\n");
}

#[test]
fn a_transaction_is_answered_by_the_shards_own_abort() {
    let mut world = World::as_epoch(&[1, 2]);
    let a = world.key_on(1);
    let client = world.client();
    world.say(client, &[&["MULTI"], &["INCR", &a], &["EXEC"]]);
    let abort = b"-EXECABORT Transaction discarded because of: NOPERM no\r\n";
    world.reply(1, &[NOPERM, NOPERM, abort].concat());
    let got = world.got(client);
    assert!(got.ends_with(std::str::from_utf8(abort).unwrap()), "{got}");
}

#[test]
fn what_another_user_may_not_do_is_nobodys_epoch() {
    let mut world = World::new(&[1, 2]);
    let a = world.key_on(1);
    let client = world.client();
    world.say(client, &[&["INCR", &a]]);
    world.reply(1, NOPERM);
    assert_eq!(world.got(client), "-NOPERM no\r\n");
}

#[test]
fn clients_that_leave_are_not_waited_for() {
    let mut world = World::as_epoch(&[1, 2]);
    let (a, b) = (world.key_on(1), world.key_on(2));
    let client = world.client();
    world.say(client, &[&["INCR", &a], &["MGET", &a, &b]]);
    world.reply(1, &NOPERM.repeat(2));
    world.core.client_gone(client);
    world.turn();
    world.reply(2, b"*1\r\n$1\r\nb\r\n");
    world.look_up_to(0, HELD_DEFAULT.as_micros() as u64);
    assert!(world.core.merges.is_empty());
    assert!(!world.core.is_refused_somewhere());
}

#[test]
fn what_is_refused_after_the_layout_changed_goes_on_at_once_and_first() {
    let mut world = World::as_epoch(&[1, 2]);
    let a = world.key_on(1);
    let client = world.client();
    world.say(client, &[&["SET", &a, "1"]]);
    let old = world.pipe_to(1);
    world.route_to(&[3]);
    assert!(
        !world.core.may_read(client),
        "its next request would overtake"
    );
    world.core.pipe_bytes(old, NOPERM);
    world.turn();
    assert!(world.sent_to(3).contains("$1\r\n1\r\n"));
    world.reply(3, b"+OK\r\n");
    assert_eq!(world.got(client), "+OK\r\n");
    assert!(world.core.may_read(client));
}

#[test]
fn who_is_woken_by_the_job_itself_waits_on() {
    let mut world = World::as_epoch(&[1, 2]);
    let a = world.key_on(1);
    let client = world.client();
    world.say(client, &[&["BLPOP", &a, "0"]]);
    let waits_on = |world: &mut World| world.core.clients[client as usize].session().waits_on;
    let pipe = waits_on(&mut world).unwrap();
    world.core.pipe_bytes(pipe, b"+OK\r\n:7\r\n");
    let words = b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";
    world.core.pipe_bytes(pipe, words);
    world.turn();
    assert_eq!(world.got(client), "");
    let again = waits_on(&mut world).unwrap();
    world.core.pipe_bytes(again, b"+OK\r\n:8\r\n");
    world.core.pipe_bytes(again, NOPERM);
    world.turn();
    world.route_to(&[3]);
    let last = waits_on(&mut world).unwrap();
    assert_eq!(world.core.pipes[last as usize].address.to_string(), "h:3");
    assert_eq!(world.got(client), "");
}
