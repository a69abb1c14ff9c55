use super::super::super::config::Secret;
use super::super::{Dialect, Greeting, Manner};
use super::*;

fn pipe() -> Pipe<u32> {
    let mut pipe = Pipe::new(Greeting {
        dialect: Dialect::Resp,
        protocol: 2,
        database: 0,
        credentials: None,
        manner: Manner::Checked,
    });
    pipe.dialing(0);
    pipe.connected(0);
    pipe
}

fn login() -> Credentials {
    Credentials {
        username: Some("u".into()),
        password: Secret::new("pw"),
    }
}

fn request(args: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let args: Vec<&[u8]> = args.iter().map(|arg| arg.as_bytes()).collect();
    write_command(&mut bytes, &args);
    bytes
}

fn replies(pipe: &mut Pipe<u32>, bytes: &[u8]) -> Vec<(u32, u32, Vec<u8>)> {
    let mut got = Vec::new();
    pipe.receive(bytes, 0, |replies| {
        got.push((replies.ticket, replies.first, replies.bytes.to_vec()));
    })
    .unwrap();
    got
}

const REFUSED: &[u8] = b"-NOPERM this user has no permissions to run the 'set' command\r\n";

#[test]
fn only_what_was_sent_as_the_new_user_comes_back() {
    let mut pipe = pipe();
    let [a, b, c] = ["a", "b", "c"].map(|key| request(&["GET", key]));
    pipe.send(&a, 1, 1, 0);
    pipe.retain(true);
    assert!(pipe.log_in(&login(), 99, 0));
    pipe.send(&[b.clone(), c.clone()].concat(), 2, 2, 0);
    let input = [REFUSED, b"+OK\r\n", REFUSED, REFUSED].concat();
    let (first, second) = input.split_at(5);
    let mut got = replies(&mut pipe, first);
    got.extend(replies(&mut pipe, second));
    assert_eq!(
        got,
        [(1, 0, REFUSED.to_vec()), (99, 0, b"+OK\r\n".to_vec())]
    );
    let refused = pipe.take_refused();
    let told: Vec<_> = refused
        .into_iter()
        .map(|r| (r.ticket, r.index, r.request, r.reply))
        .collect();
    assert_eq!(
        told,
        [
            (2, 0, Some(b), REFUSED.to_vec()),
            (2, 1, Some(c), REFUSED.to_vec())
        ]
    );
    assert_eq!((pipe.in_flight(), pipe.answered()), (0, 4));
}

#[test]
fn what_is_executed_is_let_go_and_what_is_forbidden_to_others_is_passed_on() {
    let mut pipe = pipe();
    pipe.retain(true);
    for number in 0..3 {
        pipe.send(&request(&["SET", "k", "v"]), number, 1, 0);
    }
    assert_eq!(replies(&mut pipe, b"+OK\r\n+O").len(), 1);
    assert_eq!(replies(&mut pipe, b"K\r\n+OK\r\n").len(), 2);
    pipe.retain(false);
    assert!(!pipe.is_retaining());
    pipe.send(&request(&["GET", "k"]), 7, 1, 0);
    assert_eq!(replies(&mut pipe, REFUSED), [(7, 0, REFUSED.to_vec())]);
}

#[test]
fn leaving_a_user_ends_the_keeping_when_all_of_it_is_answered() {
    let mut pipe = pipe();
    pipe.retain(true);
    let get = request(&["GET", "k"]);
    pipe.send(&get, 1, 1, 0);
    pipe.retain(false);
    assert!(pipe.log_in(&login(), 99, 0));
    pipe.send(&get, 2, 1, 0);
    assert!(pipe.is_retaining());
    let got = replies(&mut pipe, &[REFUSED, b"+OK\r\n", REFUSED].concat());
    assert_eq!(got.len(), 2, "{got:?}");
    assert_eq!(got[1], (2, 0, REFUSED.to_vec()));
    assert_eq!(pipe.take_refused().len(), 1);
    assert!(!pipe.is_retaining());
}

#[test]
fn too_much_is_not_kept_and_so_is_what_is_not_whole() {
    let mut pipe = pipe();
    pipe.retain(true);
    let half = RETAINED_BYTES_MAX / 2 + 1;
    let large = request(&["SET", "k", &"x".repeat(half)]);
    pipe.send(&large, 1, 1, 0);
    pipe.send(&large, 2, 1, 0);
    let (beginning, rest) = large.split_at(100);
    pipe.send(beginning, 3, 1, 0);
    pipe.send_more(rest, 0);
    pipe.send(&request(&["GET", "k"]), 4, 1, 0);
    assert!(replies(&mut pipe, &REFUSED.repeat(4)).is_empty());
    let refused = pipe.take_refused();
    let kept: Vec<_> = refused.iter().map(|r| r.request.is_some()).collect();
    assert_eq!(kept, [true, false, false, true]);
    assert_eq!(refused[3].request, Some(request(&["GET", "k"])));
}

#[test]
fn what_came_in_pieces_is_kept_as_far_as_the_bound_lets() {
    let mut pipe = pipe();
    pipe.retain(true);
    for (ticket, len) in [
        (1, RETAINED_LARGE_BYTES_MAX / 2),
        (2, RETAINED_LARGE_BYTES_MAX),
    ] {
        let large = request(&["SET", "k", &"x".repeat(len)]);
        let (beginning, rest) = large.split_at(100);
        let (middle, end) = rest.split_at(len / 2);
        pipe.send(beginning, ticket, 1, 0);
        pipe.send_more(middle, 0);
        pipe.send_more(end, 0);
        assert!(replies(&mut pipe, REFUSED).is_empty());
        let kept = pipe.take_refused().remove(0).request;
        assert_eq!(kept, (ticket == 1).then_some(large));
    }
}

#[test]
fn keeping_ends_with_the_last_request_that_is_kept_whatever_else_is_in_flight() {
    let mut pipe = pipe();
    pipe.retain(true);
    let get = request(&["GET", "k"]);
    pipe.send(&get, 1, 1, 0);
    pipe.retain(false);
    assert!(pipe.log_in(&login(), 99, 0));
    pipe.send(&get, 2, 1, 0);
    assert_eq!(replies(&mut pipe, b"$-1\r\n").len(), 1);
    assert!(!pipe.is_retaining(), "the rest is somebody else's");
    assert_eq!(replies(&mut pipe, b"+OK\r\n$-1\r\n").len(), 2);
}

/// What servers say to a user without rights: Redis 6.0 and 6.2, 7.0, 8.0 and Valkey.
const SERVERS_OWN: [&str; 3] = [
    "-NOPERM this user has no permissions to run the 'eval' command or its subcommand\r\n",
    "-NOPERM this user has no permissions to run the 'eval' command\r\n",
    "-NOPERM User keyferry-cache-e1 has no permissions to run the 'eval' command\r\n",
];

#[test]
fn an_error_that_a_script_raised_is_its_answer() {
    let script = request(&[
        "EVAL",
        "redis.call('INCR', KEYS[1]) return redis.error_reply('NOPERM x')",
        "1",
        "k",
    ]);
    let raised = [
        "-NOPERM x\r\n",
        "-NOPERM \r\n",
        "-NOPERM No permissions to access a key\r\n",
        "-NOPERM this user has no permissions to access one of the keys used as arguments\r\n",
        "-NOPERM ACL failure in script: User a has no permissions to run the 'set' command\r\n",
        "-NOPERM User a has no permissions to run the 'set' command\r\n",
        "-NOPERM User a b has no permissions to run the 'eval' command\r\n",
        "-NOPERM User a has no permissions to run the 'eval' command script: 0, on @user_script:1.\r\n",
    ];
    let refused = |request: &[u8], reply: &str| {
        let mut pipe = pipe();
        pipe.retain(true);
        pipe.send(request, 1, 1, 0);
        let passed_on = replies(&mut pipe, reply.as_bytes());
        let refused = pipe.take_refused();
        assert_eq!(passed_on.len() + refused.len(), 1, "{reply}");
        refused.len() == 1
    };
    for reply in raised {
        assert!(!refused(&script, reply), "{reply}");
    }
    for reply in SERVERS_OWN {
        assert!(refused(&script, reply), "{reply}");
        let function = request(&["fcall", "f", "0"]);
        assert!(!refused(&function, reply), "{reply}");
        assert!(
            refused(&function, &reply.replace("eval", "fcall")),
            "{reply}"
        );
    }
    assert!(refused(&request(&["GET", "k"]), raised[2]));
}

#[test]
fn a_failed_connection_keeps_nothing_and_one_that_never_spoke_gives_all_back() {
    let mut pipe = pipe();
    pipe.retain(true);
    let get = request(&["GET", "k"]);
    pipe.send(&get, 1, 1, 0);
    assert_eq!(pipe.take_unsent(), []);
    assert_eq!(pipe.fail(PipeError::Closed, 0).len(), 1);
    pipe.set_greeting(Greeting {
        dialect: Dialect::Resp,
        protocol: 2,
        database: 0,
        credentials: Some(login()),
        manner: Manner::Checked,
    });
    pipe.dialing(1);
    pipe.connected(1);
    pipe.send(&[get.clone(), get.clone()].concat(), 2, 2, 0);
    let error = pipe.receive(b"-WRONGPASS x\r\n", 0, |_| {}).unwrap_err();
    let unsent = pipe.take_unsent();
    assert_eq!(unsent.len(), 2);
    assert!(unsent.iter().all(|r| r.request.as_ref() == Some(&get)));
    assert_eq!(pipe.fail(error, 1), []);
    assert_eq!(pipe.in_flight(), 0);
}
