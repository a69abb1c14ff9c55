//! Logging in as an epoch's user on connections that are in use.

use super::*;
use crate::proxy::control::ShardLogin;
use crate::proxy::shard_logins::Logins;

pub(super) fn logins(of: &[(u16, &str)]) -> Arc<Logins> {
    let list: Vec<ShardLogin> = of
        .iter()
        .map(|(port, user)| ShardLogin {
            addr: format!("h:{port}"),
            user: (*user).to_owned(),
            password: format!("pw-of-{user}"),
        })
        .collect();
    Arc::new(Logins::read(&list).unwrap())
}

fn auth(user: &str) -> String {
    let mut bytes = Vec::new();
    let password = format!("pw-of-{user}");
    write_command(&mut bytes, &[b"AUTH", user.as_bytes(), password.as_bytes()]);
    String::from_utf8(bytes).unwrap()
}

impl World {
    fn log_in(&mut self, of: &[(u16, &str)]) -> oneshot::Receiver<Result<(), String>> {
        let (done, confirmed) = oneshot::channel();
        self.core.use_logins_and_tell(&logins(of), done);
        self.turn();
        confirmed
    }
}

#[test]
fn a_login_goes_between_requests_and_is_confirmed_by_all_its_connections() {
    let mut world = World::new(&[1, 2]);
    let (a, b) = (world.key_on(1), world.key_on(2));
    let client = world.client();
    world.say(client, &[&["GET", &a], &["GET", &b]]);
    let mut confirmed = world.log_in(&[(1, "e1"), (2, "e1")]);
    world.say(client, &[&["INCR", &a]]);
    let sent = world.sent_to(1);
    let (before, after) = sent.split_once(&auth("e1")).unwrap();
    assert!(before.contains("GET") && after.contains("INCR"), "{sent}");
    world.reply(1, b"$1\r\nx\r\n+OK\r\n:1\r\n");
    assert!(
        confirmed.try_recv().is_err(),
        "the other shard said nothing"
    );
    world.reply(2, b"$1\r\ny\r\n+OK\r\n");
    assert_eq!(confirmed.try_recv(), Ok(Ok(())));
    assert_eq!(world.got(client), "$1\r\nx\r\n$1\r\ny\r\n:1\r\n");

    world.core.set_clock(1_000_000);
    world.core.pipe_failed(world.pipe_to(1), PipeError::Closed);
    world.turn();
    world.core.set_clock(2_000_000);
    world.say(client, &[&["GET", &a]]);
    world.reply(1, b"");
    assert_eq!(world.sent_to(1), auth("e1"), "nothing before its answer");
    world.reply(1, b"+OK\r\n");
    assert!(world.sent_to(1).contains("GET"));
}

#[test]
fn the_same_logins_again_ask_nothing() {
    let mut world = World::new(&[1, 2]);
    let a = world.key_on(1);
    let client = world.client();
    world.say(client, &[&["GET", &a]]);
    world.log_in(&[(1, "e1")]);
    world.reply(1, b"$1\r\nx\r\n+OK\r\n");
    world.sent_to(1);
    world.say(client, &[&["GET", &a]]);
    let mut confirmed = world.log_in(&[(1, "e1")]);
    assert_eq!(
        confirmed.try_recv(),
        Ok(Ok(())),
        "a slow request is no obstacle"
    );
    assert!(!world.sent_to(1).contains("AUTH"));
}

#[test]
fn without_logins_it_is_the_configured_credentials_or_anybody() {
    let mut world = World::new(&[1, 2]);
    let a = world.key_on(1);
    let client = world.client();
    world.say(client, &[&["GET", &a]]);
    world.log_in(&[(1, "e1")]);
    world.reply(1, b"$1\r\nx\r\n+OK\r\n");
    world.sent_to(1);
    let mut confirmed = world.log_in(&[]);
    assert!(world.sent_to(1).contains("default"));
    world.reply(1, b"-WRONGPASS no\r\n");
    let refused = confirmed.try_recv().unwrap().unwrap_err();
    assert!(refused.contains("WRONGPASS"), "{refused}");
}

#[test]
fn a_connection_whose_login_was_refused_gets_no_more_requests() {
    let mut world = World::new(&[1, 2]);
    let a = world.key_on(1);
    let client = world.client();
    world.say(client, &[&["GET", &a]]);
    world.log_in(&[(1, "e1")]);
    world.say(client, &[&["GET", &a]]);
    let old = world.pipe_to(1);
    world.reply(1, b"$1\r\nx\r\n-WRONGPASS no\r\n");
    let new =
        world.core.lanes[0].pipes[usize::from(world.core.routing.layout.owner(a.as_bytes()).0)];
    assert_ne!(old, new);
    world.core.pipe_bytes(old, b"$1\r\ny\r\n");
    world.turn();
    assert_eq!(world.got(client), "$1\r\nx\r\n$1\r\ny\r\n");
    assert!(
        !world.core.pipes.contains(old as usize),
        "it is the old user's"
    );
    let sent = String::from_utf8(world.sent.remove(&new).unwrap_or_default()).unwrap();
    assert_eq!(sent, auth("e1"));
}

#[test]
fn who_waits_is_woken_to_wait_as_the_new_user() {
    let mut world = World::new(&[1, 2]);
    let a = world.key_on(1);
    let client = world.client();
    world.say(client, &[&["BLPOP", &a, "0"]]);
    let waits_on = |world: &mut World| world.core.clients[client as usize].session().waits_on;
    let pipe = waits_on(&mut world).unwrap();
    world.core.pipe_bytes(pipe, b":7\r\n");
    world.turn();
    world.log_in(&[(1, "e1")]);
    let sent: Vec<u8> = world.sent.values().flatten().copied().collect();
    let sent = String::from_utf8_lossy(&sent);
    assert!(sent.contains("UNBLOCK\r\n$1\r\n7\r\n"), "{sent}");
    world
        .core
        .pipe_bytes(pipe, b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n");
    world.turn();
    let again = waits_on(&mut world).unwrap();
    assert_ne!(again, pipe);
    assert_eq!(world.got(client), "");
    let sent = String::from_utf8(world.sent.remove(&again).unwrap()).unwrap();
    assert_eq!(sent, auth("e1"));
    assert!(!world.core.pipes.contains(pipe as usize));
}

#[test]
fn a_connection_that_is_gone_needs_no_confirmation() {
    let mut world = World::new(&[1, 2]);
    let a = world.key_on(1);
    let client = world.client();
    world.say(client, &[&["GET", &a]]);
    let mut confirmed = world.log_in(&[(1, "e1")]);
    world.core.pipe_failed(world.pipe_to(1), PipeError::Closed);
    world.turn();
    assert_eq!(confirmed.try_recv(), Ok(Ok(())));
    assert!(world.got(client).starts_with("-ERR shard"));
}

#[test]
fn a_client_that_waits_keeps_nobody_from_logging_in_and_its_connection_ends_after_it() {
    let mut world = World::new(&[1, 2]);
    let a = world.key_on(1);
    let (waiter, other) = (world.client(), world.client());
    world.say(other, &[&["GET", &a]]);
    world.reply(1, b"$1\r\nx\r\n");
    world.say(waiter, &[&["BLPOP", &a, "0"]]);
    let waiting = |role| matches!(role, Role::Waiting { .. });
    let of_waiter = world.core.pipes.iter().find(|(_, p)| waiting(p.role));
    let of_waiter = of_waiter.unwrap().0 as u32;
    let mut confirmed = world.log_in(&[(1, "e1")]);
    world.reply(1, b"+OK\r\n");
    assert_eq!(confirmed.try_recv(), Ok(Ok(())));
    world.core.pipe_bytes(of_waiter, b":7\r\n*-1\r\n");
    world.turn();
    assert_eq!(world.got(waiter), "*-1\r\n");
    assert!(!world.core.pipes.contains(of_waiter as usize));
}

#[test]
fn at_a_hold_what_stays_goes_on_as_the_coming_user() {
    let mut world = World::new(&[1, 2]);
    let moves = world.moves_to(&[1, 2, 3]);
    let staying = (0..).map(|n| format!("s{n}")).find(|key| {
        matches!(moves.of(key.as_bytes()), Move::Stays { .. }) && world.owner(key) == 1
    });
    let staying = staying.unwrap();
    let client = world.client();
    world.say(client, &[&["GET", &staying]]);
    world.log_in(&[(1, "e1"), (2, "e1")]);
    world.reply(1, b"$1\r\nx\r\n+OK\r\n");
    world.sent_to(1);
    world
        .core
        .use_logins(&logins(&[(1, "e2"), (2, "e2"), (3, "e2")]));
    let mut drained = world.hold(&moves);
    assert!(drained.try_recv().is_err(), "AUTH is not answered");
    world.say(client, &[&["GET", &staying]]);
    let sent = world.sent_to(1);
    assert!(
        sent.starts_with(&auth("e2")) && sent.contains("GET"),
        "{sent}"
    );
    world.reply(1, b"+OK\r\n");
    world.reply(3, b"+OK\r\n");
    assert_eq!(drained.try_recv(), Ok(Ok(())));
}
