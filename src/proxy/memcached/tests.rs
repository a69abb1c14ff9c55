//! The core of a pool of memcacheds driven by hand.

use std::sync::Arc;

use super::super::config::{Compat, EjectConfig, PoolConfig, PoolLimits, Protocol, Timeouts};
use super::super::core::PoolCore;
use crate::metrics::registry::Registry;
use crate::router::epoch::{Epoch, Routing};
use crate::router::layout::Layout;
use crate::router::spec::{LayoutSpec, ShardSpec};
use crate::upstream::config::UpstreamConfig;
use crate::upstream::pipe::PipeError;

fn core(shards: u16, compat: Compat) -> PoolCore {
    let at = |port| ShardSpec::at(&format!("h:{port}").parse().unwrap());
    let layout = LayoutSpec {
        shards: (1..=shards).map(at).collect(),
        ..LayoutSpec::default()
    };
    let config = PoolConfig {
        name: "p".into(),
        protocol: Protocol::Memcached,
        auth: None,
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        backlog: 128,
        database: 0,
        layout: layout.clone(),
        timeouts: Timeouts::default(),
        eject: EjectConfig::default(),
        upstream: UpstreamConfig::default(),
        limits: PoolLimits::default(),
        compat,
        allow_flush: false,
    };
    let routing = Routing::open(Epoch(1), Arc::new(Layout::new(layout).unwrap()));
    PoolCore::new(Arc::new(config), Arc::new(routing), Registry::new(), 0, 1)
}

/// What a client gets for `text` without any shard, and whether it is closed.
fn told(compat: Compat, text: &str) -> (String, bool) {
    let mut core = core(1, compat);
    let client = core.accept(None);
    core.client_bytes(client, text.as_bytes());
    let output = core.client_output(client).to_vec();
    core.client_written(client, output.len());
    core.settle();
    let closed = core.take_chores().close_clients.contains(&client);
    (String::from_utf8(output).unwrap(), closed)
}

#[test]
fn as_twemproxy_it_closes_without_a_word_where_memcached_answers() {
    for (text, as_memcached) in [
        ("nonsense\r\n", "ERROR\r\n"),
        (
            "set k 0 x 1\r\n",
            "CLIENT_ERROR bad command line format\r\n",
        ),
        ("set k 0 0 1\r\nxyz\r\n", "CLIENT_ERROR bad data chunk\r\n"),
        (
            "incr k x\r\n",
            "CLIENT_ERROR invalid numeric delta argument\r\n",
        ),
    ] {
        let (got, closed) = told(Compat::Redis, text);
        assert!(got.starts_with(as_memcached) && !closed, "{text}: {got}");
        assert_eq!(
            told(Compat::Twemproxy, text),
            (String::new(), true),
            "{text}"
        );
    }
    // What waits for its shard here, and is closed for there.
    for text in [
        "gat 1 k\r\n",
        "set k 0 -1 1\r\nx\r\n",
        "delete k 0\r\n",
        "version x\r\n",
        "get k\n",
    ] {
        assert_eq!(told(Compat::Redis, text), (String::new(), false), "{text}");
        assert_eq!(
            told(Compat::Twemproxy, text),
            (String::new(), true),
            "{text}"
        );
    }
    for text in ["get k\r\n", "set k 0 0 1 noreply\r\nx\r\n", "version\r\n"] {
        assert_eq!(
            told(Compat::Twemproxy, text),
            (String::new(), false),
            "{text}"
        );
    }
}

#[test]
fn noreply_stays_here_and_its_reply_goes_nowhere() {
    let mut core = core(1, Compat::Redis);
    let client = core.accept(None);
    core.client_bytes(client, b"set k 0 0 1 noreply\r\nx\r\nget k\r\nget k\r\n");
    core.settle();
    let pipe = core.take_chores().dial[0];
    core.pipe_connected(pipe);
    let sent = core.pipe_output(pipe).to_vec();
    assert_eq!(sent, b"set k 0 0 1\r\nx\r\nget k\r\nget k\r\n");
    core.pipe_written(pipe, sent.len());
    core.pipe_bytes(
        pipe,
        b"SERVER_ERROR out of memory storing object\r\nEND\r\n",
    );
    assert_eq!(core.client_output(client), b"END\r\n");
    core.client_bytes(client, b"incr k 1 noreply\r\n");
    core.pipe_failed(pipe, PipeError::Closed);
    let got = String::from_utf8(core.client_output(client).to_vec()).unwrap();
    let refused = "SERVER_ERROR shard h:1 (h:1): connection closed by the shard\r\n";
    assert_eq!(got, format!("END\r\n{refused}"));
}

#[test]
fn parts_that_are_no_answer_to_what_was_asked_are_an_error() {
    for (replies, expected) in [
        (["END\r\n", "END\r\n"], "END\r\n"),
        (["END\r\n", "ERROR\r\n"], "ERROR\r\n"),
        (["STORED\r\n", "END\r\n"], "SERVER_ERROR a shard answered"),
        (
            ["VALUE zz 0 1\r\nx\r\nEND\r\n", "END\r\n"],
            "SERVER_ERROR a shard answered",
        ),
    ] {
        let mut core = core(2, Compat::Redis);
        let client = core.accept(None);
        let keys: String = (0..20).map(|number| format!(" k{number}")).collect();
        core.client_bytes(client, format!("get{keys}\r\n").as_bytes());
        core.settle();
        let pipes = core.take_chores().dial;
        assert_eq!(pipes.len(), 2);
        for (pipe, reply) in pipes.into_iter().zip(replies) {
            core.pipe_connected(pipe);
            let sent = core.pipe_output(pipe).len();
            core.pipe_written(pipe, sent);
            core.pipe_bytes(pipe, reply.as_bytes());
        }
        let got = String::from_utf8(core.client_output(client).to_vec()).unwrap();
        assert!(
            got.starts_with(expected) && got.lines().count() == 1,
            "{replies:?}: {got}"
        );
    }
}

#[test]
fn as_twemproxy_a_failed_part_ends_the_client_after_the_error() {
    for (compat, error, ends) in [
        (
            Compat::Redis,
            "SERVER_ERROR shard h:1 (h:1): connection closed by the shard\r\n",
            false,
        ),
        (Compat::Twemproxy, "SERVER_ERROR unknown\r\n", true),
    ] {
        let mut core = core(2, compat);
        let client = core.accept(None);
        let keys: String = (0..20).map(|number| format!(" k{number}")).collect();
        core.client_bytes(client, format!("get{keys}\r\n").as_bytes());
        core.settle();
        let pipes = core.take_chores().dial;
        assert_eq!(pipes.len(), 2);
        for &pipe in &pipes {
            core.pipe_connected(pipe);
            let sent = core.pipe_output(pipe).len();
            core.pipe_written(pipe, sent);
        }
        let failing = pipes
            .iter()
            .position(|&pipe| core.pipe_address(pipe).unwrap().to_string() == "h:1");
        for (index, &pipe) in pipes.iter().enumerate() {
            match Some(index) == failing {
                true => core.pipe_failed(pipe, PipeError::Closed),
                false => core.pipe_bytes(pipe, b"END\r\n"),
            }
        }
        let output = core.client_output(client).to_vec();
        assert_eq!(String::from_utf8_lossy(&output), error);
        core.client_written(client, output.len());
        core.settle();
        let chores = core.take_chores();
        assert_eq!(chores.close_clients.contains(&client), ends);
    }
}
