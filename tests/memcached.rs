//! Pools of real memcacheds: through the proxy each command is answered as by a
//! bare memcached, keys of one request may be on several shards, and what does
//! not answer keeps nobody else waiting.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use support::keyferry::{Keyferry, LayoutText};
use support::memcached::store;
use support::{Memcached, Signal, TextClient, keyferry_command, seeded, wait_until};

const LIMIT: Duration = Duration::from_secs(60);
const POOL: &str = "protocol = \"memcached\"\n";
const MIB: usize = 1024 * 1024;

/// Shards `s1`, `s2`.. and a proxy in front of them.
struct World {
    shards: Vec<Memcached>,
    proxy: Keyferry,
}

impl World {
    fn new(shards: usize) -> World {
        World::with(shards, &[], "")
    }

    fn with(shards: usize, args: &[&str], pool_extra: &str) -> World {
        let shards = Memcached::start_many(shards, args);
        let layout = layout(&shards);
        let proxy = Keyferry::start_with(&layout, 2, &format!("{POOL}{pool_extra}"));
        World { shards, proxy }
    }

    fn client(&self) -> TextClient {
        TextClient::connect(&self.proxy.address())
    }

    /// A key that the shard with this number owns, and no other key of the test.
    fn key_on(&self, shard: usize, name: &str) -> String {
        let mut client = self.client();
        let mut direct = self.shards[shard].client();
        let mut keys = (0..).map(|number| format!("{name}-{number}"));
        keys.find(|key| {
            assert_eq!(
                client.ask(store("set", key.as_bytes(), b"?", "")),
                "STORED\r\n"
            );
            direct.ask(format!("delete {key}\r\n")) == "DELETED\r\n"
        })
        .expect("some key is on each shard")
    }
}

fn layout(shards: &[Memcached]) -> LayoutText {
    let addresses: Vec<_> = shards.iter().map(Memcached::address).collect();
    LayoutText::new("fnv1a_64", "ketama", &addresses)
}

/// The unique number in a reply to `gets`.
fn unique(reply: &str) -> Option<String> {
    let header = reply.lines().next()?.strip_prefix("VALUE ")?;
    header.split(' ').nth(3).map(str::to_owned)
}

/// Requests, each answered the same by a bare memcached and through the proxy.
/// None brings the reply that ends it, `VERSION`: behind others memcached 1.6 loses
/// some replies.
/// `{cas}` is the number that `gets` told last, there and here.
const SAID: &[&str] = &[
    "get k\r\n",
    "gets k\r\n",
    "set k 0 0 3\r\nabc\r\n",
    "get k\r\n",
    "gets k\r\n",
    "cas k 5 0 1 {cas}\r\nx\r\n",
    "cas k 5 0 1 {cas}\r\nx\r\n",
    "cas nokey 5 0 1 1\r\nx\r\n",
    "gets k\r\n",
    "cas k 5 0 1 {cas} noreply\r\ny\r\n",
    "get k\r\n",
    "add k 0 0 1\r\nz\r\n",
    "add k2 4294967295 100 1\r\nz\r\n",
    "replace k3 0 0 1\r\nz\r\n",
    "replace k2 7 0 2\r\nzz\r\n",
    "append k2 0 0 2\r\n\r\n\r\n",
    "prepend k2 0 0 1\r\n\0\r\n",
    "append k3 0 0 1\r\nz\r\n",
    "prepend k3 0 0 1\r\nz\r\n",
    "get k2\r\n",
    "set empty 0 0 0\r\n\r\n",
    "get empty\r\n",
    "set n 0 0 1\r\n9\r\n",
    "incr n 1\r\n",
    "decr n 3\r\n",
    "decr n 100\r\n",
    "incr n 18446744073709551615\r\n",
    "incr n 18446744073709551616\r\n",
    "incr n x\r\n",
    "incr n -1\r\n",
    "incr k2 1\r\n",
    "incr nokey 1\r\n",
    "decr nokey 1\r\n",
    "incr n 5 noreply\r\n",
    "decr n 1 noreply\r\n",
    "get n\r\n",
    "touch n 100\r\n",
    "touch n -1\r\n",
    "get n\r\n",
    "touch nokey 0\r\n",
    "touch nokey 0 noreply\r\n",
    "touch k x\r\n",
    "touch k x noreply\r\n",
    "touch k\r\n",
    "gat 100 k\r\n",
    "gat x k\r\n",
    "gat 100 nokey\r\n",
    "gats 100 k2\r\n",
    "set gone 0 -1 1\r\nx\r\n",
    "get gone\r\n",
    "delete k\r\n",
    "delete k\r\n",
    "delete k2 0\r\n",
    "delete k 1\r\n",
    "delete k noreply\r\n",
    "delete k 0 noreply\r\n",
    "delete k noreply noreply\r\n",
    "delete k 1 noreply\r\n",
    "delete\r\n",
    "set noreply 0 0 1\r\nq\r\n",
    "get noreply\r\n",
    "delete noreply\r\n",
    "set q 0 0 1 noreply\r\nq\r\n",
    "add q 0 0 1 noreply\r\nr\r\n",
    "replace q 0 0 1 noreply\r\nr\r\n",
    "append q 0 0 1 noreply\r\ns\r\n",
    "prepend q 0 0 1 noreply\r\np\r\n",
    "get q\r\n",
    "get a q b\r\n",
    "get q q noreply q\r\n",
    "  get   q  \r\n",
    "get q\n",
    "set bare 0 0 1\nx\r\n",
    "get bare\n",
    "set other 0 0 1 word\r\nx\r\n",
    "incr other 1 word\r\n",
    "get\r\n",
    "gets\r\n",
    "set\r\n",
    "set k 0 0\r\n",
    "set k 0 0 1 2 3\r\n",
    "set k x 0 1\r\n",
    "set k 0 x 1\r\n",
    "set k 0 0 x\r\n",
    "set k 0 0 -1\r\n",
    "set k 0 0 noreply\r\n",
    "cas k 0 0 1\r\n",
    "cas k 0 0 1 x\r\n",
    // The data of a line that is wrong are lines, too.
    "set k 0 x 1\r\nget q\r\n",
    "set k 0 0 3\r\nabcdef\r\n",
    "set k 0 0 3 noreply\r\nabcdef\r\n",
    "set k 0 0 10\r\nabc\r\nget q\r\n\r\n",
    "\r\n",
    "\n",
    "x\r\n",
    "GET q\r\n",
    "nonsense q\r\n",
    "gett q\r\n",
    "get q\0 b\r\n",
];

fn said() -> Vec<String> {
    let mut said: Vec<String> = SAID.iter().map(|&text| text.to_owned()).collect();
    let (most, over) = ("k".repeat(250), "k".repeat(251));
    for key in [&most, &over] {
        said.push(format!("set {key} 0 0 1\r\nx\r\n"));
        said.push(format!("get {key}\r\n"));
        said.push(format!("gat 0 {key}\r\n"));
        said.push(format!("get q {key} q\r\n"));
        said.push(format!("incr {key} 1\r\n"));
        said.push(format!("touch {key} 1 noreply\r\n"));
        said.push(format!("delete {key}\r\n"));
    }
    // More than memcached keeps: it takes the data and answers.
    said.push(format!(
        "set large 0 0 {}\r\n{}\r\n",
        2 * MIB,
        "v".repeat(2 * MIB)
    ));
    said.push("get large\r\n".to_owned());
    said.push(format!(
        "set large 0 0 {}\r\n{}\r\n",
        MIB - 1024,
        "v".repeat(MIB - 1024)
    ));
    said.push("get large\r\n".to_owned());
    said.push("get q large large q\r\n".to_owned());
    said.push(format!(
        "append large 0 0 {}\r\n{}\r\n",
        MIB / 2,
        "v".repeat(MIB / 2)
    ));
    said.push(format!(
        "append large 0 0 {} noreply\r\n{}\r\n",
        MIB / 2,
        "v".repeat(MIB / 2)
    ));
    said.push(format!(
        "set large 0 0 {}\r\n{}xx",
        MIB / 2,
        "v".repeat(MIB / 2)
    ));
    said.push("get q\r\n".to_owned());
    said
}

/// A reply, with the numbers of `gets` left out where servers count apart.
fn shown(reply: &str) -> String {
    let unique = unique(reply);
    match unique {
        Some(unique) => reply.replacen(&format!(" {unique}\r\n"), " UNIQUE\r\n", 1),
        None => reply.to_owned(),
    }
}

#[test]
fn each_command_is_answered_as_by_a_bare_memcached() {
    for shards in [1, 3] {
        let bare = Memcached::start(&[]);
        let world = World::new(shards);
        let (mut direct, mut client) = (bare.client(), world.client());
        let mut last = [String::from("1"), String::from("1")];
        for text in said() {
            let ask = |client: &mut TextClient, last: &mut String| {
                let reply = client.ask_all(text.replace("{cas}", last));
                if text.starts_with("gets") {
                    last.clone_from(&unique(&reply).unwrap_or_else(|| last.clone()));
                }
                reply
            };
            let expected = ask(&mut direct, &mut last[0]);
            let got = ask(&mut client, &mut last[1]);
            let begin = |text: &str| {
                text.chars()
                    .take(200)
                    .collect::<String>()
                    .escape_debug()
                    .to_string()
            };
            let name = format!("{shards} shards: {}", begin(&text));
            assert!(
                shown(&got) == shown(&expected),
                "{name}: {} instead of {}",
                begin(&got),
                begin(&expected)
            );
        }
        let version = direct.ask("version\r\n");
        assert_eq!(client.ask("version\r\n"), version);
        assert_eq!(
            client.ask("version more\r\n"),
            direct.ask("version more\r\n")
        );
    }
}

#[test]
fn what_memcached_closes_for_is_closed_and_quit_leaves_no_reply_behind() {
    let world = World::new(2);
    let bare = Memcached::start(&[]);
    for (text, owed, ours) in [
        ("get a\r\nquit\r\nget a\r\n", "END\r\n", ""),
        ("get a\r\nGET / HTTP/1.1\r\nget a\r\n", "END\r\n", ""),
        // memcached says nothing there.
        (&"x".repeat(3000), "", "CLIENT_ERROR line too long\r\n"),
        (
            &format!("gat 1 {}", "k ".repeat(1500)),
            "",
            "CLIENT_ERROR line too long\r\n",
        ),
        (
            &format!("{}get {}", " ".repeat(101), "k ".repeat(1500)),
            "",
            "CLIENT_ERROR line too long\r\n",
        ),
    ] {
        for (address, expected) in [
            (bare.address(), owed.to_owned()),
            (world.proxy.address(), format!("{owed}{ours}")),
        ] {
            let mut client = TextClient::connect(&address);
            client.send(text);
            let got = String::from_utf8(client.read_to_end()).unwrap();
            assert_eq!(got, expected, "{address}: {}", &text[..text.len().min(40)]);
        }
    }
    // The binary protocol, which we do not speak.
    let mut client = world.client();
    client.send([&[0x80, 0x0b][..], &[0; 22]].concat());
    assert_eq!(client.read_to_end(), b"");
}

#[test]
fn commands_about_one_server_are_refused_and_the_client_stays() {
    let world = World::new(2);
    let mut client = world.client();
    for text in [
        "stats\r\n",
        "verbosity 1\r\n",
        "flush_all\r\n",
        "mg k v\r\n",
        "ms k 3\r\nabc\r\n",
    ] {
        let reply = client.ask_all(text);
        assert!(
            reply.starts_with("SERVER_ERROR ") && reply.lines().count() == 1,
            "{text:?}: {reply:?}"
        );
    }
    assert_eq!(client.ask_all("flush_all noreply\r\n"), "");
    assert_eq!(client.ask("get a\r\n"), "END\r\n");
}

#[test]
fn flush_all_empties_every_shard_where_the_pool_allows_it() {
    let world = World::with(3, &[], "allow_flush = true\n");
    let mut client = world.client();
    let fill = |client: &mut TextClient| {
        for number in 0..60 {
            let key = format!("k{number}");
            assert_eq!(
                client.ask(store("set", key.as_bytes(), b"v", "")),
                "STORED\r\n"
            );
        }
    };
    let keys: String = (0..60).map(|number| format!(" k{number}")).collect();
    fill(&mut client);
    assert_eq!(client.ask("flush_all\r\n"), "OK\r\n");
    assert_eq!(client.ask(format!("get{keys}\r\n")), "END\r\n");
    fill(&mut client);
    assert_eq!(
        client.ask_all(format!("flush_all noreply\r\nget{keys}\r\n")),
        "END\r\n"
    );
    assert_eq!(client.ask("flush_all 0\r\n"), "OK\r\n");
    assert_eq!(
        client.ask("flush_all x\r\n"),
        "CLIENT_ERROR invalid exptime argument\r\n"
    );
}

#[test]
fn values_of_several_shards_come_in_the_order_of_their_keys() {
    let mut random = seeded("values_of_several_shards_come_in_the_order_of_their_keys");
    let world = World::new(3);
    let mut client = world.client();
    let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut requests = Vec::new();
    for number in 0..5_000 {
        let key = format!("key:{number}:{}", "x".repeat(random.usize(0..30)));
        let mut value = vec![0; random.usize(0..200)];
        value.fill_with(|| *random.choice(b"END \r\nVALUE k 0 1\r\n").unwrap());
        requests.extend(store("set", key.as_bytes(), &value, " noreply"));
        model.insert(key, value);
    }
    assert_eq!(client.ask_all(&requests), "");
    let stored: Vec<_> = world
        .shards
        .iter()
        .map(|shard| items(&mut shard.client()))
        .collect();
    assert_eq!(stored.iter().sum::<usize>(), model.len(), "{stored:?}");
    assert!(stored.iter().all(|&count| count > 500), "{stored:?}");
    let keys: Vec<String> = model.keys().cloned().collect();
    for count in [2, 3, 100, 10_000] {
        for verb in ["get", "gat 0", "gets"] {
            if verb == "gat 0" && count > 3 {
                continue; // longer lines than memcached takes for it
            }
            // Half of them are there; some are asked for twice.
            let asked: Vec<String> = (0..count)
                .map(|number| match random.bool() {
                    true => random.choice(&keys).unwrap().clone(),
                    false => format!("miss:{number}"),
                })
                .collect();
            let mut expected = Vec::new();
            for key in &asked {
                if let Some(value) = model.get(key) {
                    let header = format!("VALUE {key} 0 {}\r\n", value.len());
                    expected.extend(header.into_bytes());
                    expected.extend([value, &b"\r\n"[..]].concat());
                }
            }
            expected.extend_from_slice(b"END\r\n");
            client.send(format!("{verb} {}\r\n", asked.join(" ")));
            let got = without_uniques(&client.read());
            assert!(got == expected, "{verb} of {count} keys");
        }
    }
}

/// How many items a server has.
fn items(client: &mut TextClient) -> usize {
    client.send("stats\r\n");
    let mut found = 0;
    loop {
        let line = String::from_utf8(client.read()).unwrap();
        if line == "END\r\n" {
            return found;
        }
        if let Some(count) = line.strip_prefix("STAT curr_items ") {
            found = count.trim_end().parse().unwrap();
        }
    }
}

/// A reply without the fifth words of its headers.
fn without_uniques(reply: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), reply);
    while rest.starts_with(b"VALUE ") {
        let end = rest.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        let header = String::from_utf8(rest[..end].to_vec()).unwrap();
        let words: Vec<&str> = header.split_ascii_whitespace().collect();
        out.extend(format!("{}\r\n", words[..4].join(" ")).into_bytes());
        let data = words[3].parse::<usize>().unwrap() + 2;
        out.extend_from_slice(&rest[end..end + data]);
        rest = &rest[end + data..];
    }
    out.extend_from_slice(rest);
    out
}

#[test]
fn a_pipeline_over_all_shards_is_answered_in_its_order() {
    let mut random = seeded("a_pipeline_over_all_shards_is_answered_in_its_order");
    let world = World::new(3);
    let mut client = world.client();
    let mut model: BTreeMap<String, u64> = BTreeMap::new();
    let (mut requests, mut expected) = (Vec::new(), Vec::new());
    for _ in 0..20_000 {
        let key = format!("n{}", random.u32(0..300));
        let value = model.get(&key).copied();
        match random.u8(0..6) {
            0 => {
                requests.extend(store("set", key.as_bytes(), b"5", " noreply"));
                model.insert(key, 5);
            }
            1 => {
                requests.extend(format!("incr {key} 7 noreply\r\n").into_bytes());
                model.entry(key).and_modify(|value| *value += 7);
            }
            2 => {
                requests.extend(format!("incr {key} 1\r\n").into_bytes());
                let reply = value.map_or("NOT_FOUND".to_owned(), |value| (value + 1).to_string());
                expected.extend(format!("{reply}\r\n").into_bytes());
                model.entry(key).and_modify(|value| *value += 1);
            }
            3 => {
                requests.extend(b"bad\r\n");
                expected.extend(b"ERROR\r\n");
            }
            _ => {
                let other = format!("n{}", random.u32(0..300));
                let asked = [key, other];
                requests.extend(format!("get {}\r\n", asked.join(" ")).into_bytes());
                for key in &asked {
                    if let Some(value) = model.get(key) {
                        let text = value.to_string();
                        let block = format!("VALUE {key} 0 {}\r\n{text}\r\n", text.len());
                        expected.extend(block.into_bytes());
                    }
                }
                expected.extend(b"END\r\n");
            }
        }
    }
    // Values of `incr` are padded to the length they had, if they get shorter; here
    // they only grow.
    let got = client.ask_all(&requests);
    assert!(
        got.into_bytes() == expected,
        "other replies, or in another order"
    );
}

#[test]
fn slow_bytes_are_waited_for_at_every_cut() {
    let world = World::new(2);
    let mut client = world.client();
    let text = b"set k 0 0 7\r\na\r\nEND\0\r\nget k missing k\r\ndelete k noreply\r\nget k\r\n";
    let expected =
        "STORED\r\nVALUE k 0 7\r\na\r\nEND\0\r\nVALUE k 0 7\r\na\r\nEND\0\r\nEND\r\nEND\r\n";
    for cut in 1..text.len() {
        client.send(&text[..cut]);
        // Others are served meanwhile, so what was sent has been read.
        assert_eq!(world.client().ask("get other\r\n"), "END\r\n");
        client.send(&text[cut..]);
        assert_eq!(client.ask_all(""), expected, "cut at {cut}");
    }
    for byte in text {
        client.send([*byte]);
    }
    assert_eq!(client.ask_all(""), expected);
}

#[test]
fn large_values_pass_both_ways_and_data_over_the_limit_go_nowhere() {
    let large = ["-I", "64m", "-m", "512"];
    let world = World::with(2, &large, "limits = { max_request = \"32MB\" }\n");
    let mut client = world.client();
    for (number, bytes) in [65_000, 66_000, 3 * MIB, 30 * MIB].into_iter().enumerate() {
        let value: Vec<u8> = (0..bytes).map(|at| (at * 31 + at / 251) as u8).collect();
        let key = format!("large{number}");
        let quiet = if number % 2 == 0 { "" } else { " noreply" };
        let request = store("set", key.as_bytes(), &value, quiet);
        let stored = if quiet.is_empty() { "STORED\r\n" } else { "" };
        assert_eq!(client.ask_all(&request), stored);
        client.send(format!(
            "get {key}\r\nget {key} missing {key}\r\nget missing\r\n"
        ));
        let block = [
            format!("VALUE {key} 0 {bytes}\r\n").as_bytes(),
            &value,
            b"\r\n",
        ]
        .concat();
        for count in [1, 2, 0] {
            let expected = [&block.repeat(count)[..], b"END\r\n"].concat();
            assert!(client.read() == expected, "{bytes} bytes, {count} times");
        }
    }
    let over = store("set", b"over", &vec![b'v'; 33 * MIB], "");
    let refused = "SERVER_ERROR object too large for cache\r\n";
    assert_eq!(client.ask_all(&over), refused);
    assert_eq!(
        client.ask_all([&over[..], b"get over\r\n"].concat()),
        format!("{refused}END\r\n")
    );
    let over = store("set", b"over", &vec![b'v'; 33 * MIB], " noreply");
    assert_eq!(client.ask_all(&over), "");
}

#[test]
fn a_dead_shard_fails_its_own_keys_only_and_comes_back() {
    let mut world = World::new(3);
    let (dead, alive) = (world.key_on(1, "dead"), world.key_on(0, "alive"));
    let mut client = world.client();
    assert_eq!(
        client.ask(store("set", alive.as_bytes(), b"v", "")),
        "STORED\r\n"
    );
    world.shards[1].kill();
    let address = world.shards[1].address();
    let refused = |reply: &str| {
        reply.starts_with(&format!("SERVER_ERROR shard s2 ({address}): "))
            && reply.lines().count() == 1
    };
    let value = format!("VALUE {alive} 0 1\r\nv\r\n");
    wait_until("the shard's end is seen", LIMIT, || {
        refused(&client.ask(format!("get {dead}\r\n")))
    });
    for text in [
        format!("get {dead}\r\n"),
        format!("set {dead} 0 0 1\r\nx\r\n"),
        format!("get {alive} {dead}\r\n"),
        format!("get {dead} {alive} {dead}\r\n"),
    ] {
        let got = client.ask_all(format!("{text}get {alive}\r\n"));
        let (error, rest) = got.split_once('\n').unwrap();
        assert!(refused(error), "{text}: {got}");
        assert_eq!(rest, format!("{value}END\r\n"), "{text}");
    }
    // Nobody is told of those.
    let quiet = format!("set {dead} 0 0 1 noreply\r\nx\r\ndelete {dead} noreply\r\n");
    assert_eq!(
        client.ask_all(format!("{quiet}get {alive}\r\n")),
        format!("{value}END\r\n")
    );
    let large = store("set", dead.as_bytes(), &vec![b'v'; MIB / 2], " noreply");
    assert_eq!(client.ask_all(&large), "");
    let large = store("set", dead.as_bytes(), &vec![b'v'; MIB / 2], "");
    assert!(refused(&client.ask_all(&large)));
    world.shards[1].restart();
    wait_until("the shard is back", LIMIT, || {
        client.ask(store("set", dead.as_bytes(), b"w", "")) == "STORED\r\n"
    });
    assert_eq!(
        client.ask(format!("get {dead} {alive}\r\n")),
        format!("VALUE {dead} 0 1\r\nw\r\n{value}END\r\n")
    );
}

#[test]
fn a_shard_that_hangs_times_out_and_late_replies_reach_nobody() {
    let mut world = World::with(2, &[], "timeout = { request = \"300ms\" }\n");
    let (hung, alive) = (world.key_on(1, "hung"), world.key_on(0, "alive"));
    let mut client = world.client();
    world.shards[1].pause();
    let request = format!(
        "set {hung} 0 0 1 noreply\r\nx\r\nget {hung}\r\nget {hung} {alive}\r\nget {alive}\r\n"
    );
    let got = client.ask_all(request);
    let lines: Vec<&str> = got.lines().collect();
    let late = format!(
        "SERVER_ERROR shard s2 ({}): request timed out",
        world.shards[1].address()
    );
    assert_eq!(lines, [&late, &late, "END"], "{got}");
    world.shards[1].resume();
    wait_until("the shard answers again", LIMIT, || {
        client.ask(format!("incr {hung} 1\r\n")) != format!("{late}\r\n")
    });
    assert_eq!(
        client.ask(store("set", hung.as_bytes(), b"y", "")),
        "STORED\r\n"
    );
    assert_eq!(
        client.ask(format!("get {hung}\r\n")),
        format!("VALUE {hung} 0 1\r\ny\r\nEND\r\n")
    );
}

#[test]
fn a_reload_changes_shards_and_never_the_protocol() {
    let mut world = World::new(2);
    let mut client = world.client();
    assert_eq!(client.ask("get a\r\n"), "END\r\n");
    let one = layout(&world.shards[..1]);
    world.proxy.write_config(&one, 2, "");
    world.proxy.signal(Signal::Hup);
    wait_until("the reload is refused", LIMIT, || {
        world.proxy.metric("keyferry_config_reload_failures_total") == 1.0
    });
    assert_eq!(world.proxy.epoch_and_gate().0, 1);
    world.proxy.write_config(&one, 2, POOL);
    world.proxy.signal(Signal::Hup);
    wait_until("the new layout", LIMIT, || {
        world.proxy.epoch_and_gate().0 == 2
    });
    for number in 0..50 {
        let key = format!("k{number}");
        assert_eq!(
            client.ask(store("set", key.as_bytes(), b"v", "")),
            "STORED\r\n"
        );
    }
    assert_eq!(items(&mut world.shards[0].client()), 50);
}

#[test]
fn a_pool_of_memcacheds_is_checked_by_version_and_not_resharded() {
    let mut world = World::new(2);
    let config = world.proxy.config();
    let config = config.to_str().unwrap();
    let run = |args: &[&str]| {
        let output = keyferry_command(args);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let (code, out, _) = run(&["check", "--connect", "-c", config]);
    assert_eq!(
        (code, out.matches("up, answered").count()),
        (Some(0), 2),
        "{out}"
    );
    world.shards[0].kill();
    let (code, out, _) = run(&["check", "--connect", "-c", config]);
    assert_eq!((code, out.matches("DOWN").count()), (Some(1), 1), "{out}");
    let to = world.proxy.dir().join("to.toml");
    std::fs::write(&to, layout(&world.shards[..1]).to_layout_file()).unwrap();
    let to = to.to_str().unwrap();
    for verb in [&["plan"][..], &["start", "--yes"]] {
        let args = [&["reshard"][..], verb, &["-c", config, "--to", to]].concat();
        let (code, _, err) = run(&args);
        assert_eq!(code, Some(4), "{err}");
        assert!(
            err.starts_with("error: pool `cache` is of memcacheds"),
            "{err}"
        );
    }
}
