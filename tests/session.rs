//! Sessions: connections of our own to a shard, against real servers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::net::TcpListener;
use std::time::Duration;

use keyferry::resp::Value;
use keyferry::upstream::{
    Blame, Credentials, Retry, Secret, Session, SessionErrorKind, SessionStep, ShardAddress,
    UpstreamConfig,
};
use support::{RedisServer, free_port};

fn address(text: &str) -> ShardAddress {
    text.parse().unwrap()
}

fn credentials(username: Option<&str>, password: &str) -> UpstreamConfig {
    let credentials = Credentials {
        username: username.map(str::to_owned),
        password: Secret::new(password),
    };
    UpstreamConfig {
        credentials: Some(credentials),
        ..UpstreamConfig::default()
    }
}

fn bulk(text: &str) -> Value {
    Value::Bulk(text.as_bytes().to_vec())
}

#[tokio::test]
async fn calls_are_answered_over_tcp_and_unix() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("redis.sock");
    let server = RedisServer::start(&["--unixsocket", socket.to_str().unwrap()]);
    for address in [address(&server.address()), ShardAddress::Unix(socket)] {
        let config = UpstreamConfig::default();
        let mut session = Session::connect(&address, &config).await.unwrap();
        let ok = session.call(&[b"SET", b"k", b"v"]).await.unwrap();
        assert_eq!(ok, Value::Simple(b"OK".to_vec()));
        assert_eq!(session.call(&[b"GET", b"k"]).await.unwrap(), bulk("v"));
        assert_eq!(session.call(&[b"GET", b"none"]).await.unwrap(), Value::Null);
        let error = session.call(&[b"INCR", b"k"]).await.unwrap();
        assert!(matches!(error, Value::Error(text) if text.starts_with(b"ERR ")));
        let pair = Value::Array(vec![bulk("v"), Value::Null]);
        assert_eq!(session.call(&[b"MGET", b"k", b"none"]).await.unwrap(), pair);
    }
}

#[tokio::test]
async fn a_pipeline_of_large_values_is_driven_by_two_halves() {
    const REQUESTS: usize = 200;
    let server = RedisServer::start(&[]);
    let config = UpstreamConfig::default();
    let session = Session::connect(&address(&server.address()), &config)
        .await
        .unwrap();
    let (mut reader, mut writer) = session.split();
    // Far more than the sockets hold: neither side may wait for the other.
    let value = vec![b'v'; 200_000];
    let sender = tokio::spawn(async move {
        for i in 0..REQUESTS {
            let key = format!("k{i}");
            writer.queue(&[b"SET", key.as_bytes(), &value]);
            writer.queue(&[b"GET", key.as_bytes()]);
            if writer.queued_bytes() > 1_000_000 {
                writer.flush().await.unwrap();
            }
        }
        writer.flush().await.unwrap();
        writer
    });
    for _ in 0..REQUESTS {
        assert_eq!(
            reader.read_reply().await.unwrap(),
            Value::Simple(b"OK".to_vec())
        );
        assert!(matches!(reader.read_reply().await.unwrap(), Value::Bulk(v) if v.len() == 200_000));
    }
    assert_eq!(reader.buffered_reply().unwrap(), None);
    sender.await.unwrap();
}

#[tokio::test]
async fn credentials_are_said_and_judged() {
    let server = RedisServer::start(&["--requirepass", "right"]);
    server
        .client()
        .call(&["ACL", "SETUSER", "ferry", "on", ">secret", "+@all", "~*"]);
    let address = address(&server.address());
    for config in [
        credentials(None, "right"),
        credentials(Some("ferry"), "secret"),
    ] {
        let mut session = Session::connect(&address, &config).await.unwrap();
        assert_eq!(
            session.call(&[b"PING"]).await.unwrap(),
            Value::Simple(b"PONG".to_vec())
        );
    }
    let error = Session::connect(&address, &credentials(None, "wrong"))
        .await
        .unwrap_err();
    assert!(
        matches!(error.kind, SessionErrorKind::AuthRefused(_)),
        "{error}"
    );
    assert_eq!(error.step, SessionStep::Authenticate);
    assert_eq!(
        (error.retry(), error.blame()),
        (Retry::Never, Blame::Configuration)
    );
    let text = format!("{error} {error:?}");
    assert!(
        text.contains(&server.address()) && !text.contains("wrong\""),
        "{text}"
    );
}

#[tokio::test]
async fn every_wait_is_bounded() {
    let gone = address(&format!("127.0.0.1:{}", free_port()));
    let config = UpstreamConfig::default();
    let error = Session::connect(&gone, &config).await.unwrap_err();
    assert_eq!(
        (error.step, error.retry()),
        (SessionStep::Connect, Retry::Safe)
    );

    // A listener that never answers: the kernel accepts for it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = address(&listener.local_addr().unwrap().to_string());
    let short = Duration::from_millis(50);
    let config = UpstreamConfig {
        connect_timeout: short,
        ..credentials(None, "x")
    };
    let error = Session::connect(&silent, &config).await.unwrap_err();
    assert!(
        matches!(error.kind, SessionErrorKind::TimedOut(limit) if limit == short),
        "{error}"
    );
    assert_eq!(error.step, SessionStep::Authenticate);

    let config = UpstreamConfig {
        request_timeout: Some(short),
        ..UpstreamConfig::default()
    };
    let mut session = Session::connect(&silent, &config).await.unwrap();
    let error = session.call(&[b"PING"]).await.unwrap_err();
    assert!(
        matches!(error.kind, SessionErrorKind::TimedOut(_)),
        "{error}"
    );
    assert_eq!(
        (error.step, error.retry()),
        (SessionStep::Receive, Retry::Uncertain)
    );
}

#[tokio::test]
async fn a_killed_server_ends_the_session() {
    let mut server = RedisServer::start(&[]);
    let config = UpstreamConfig::default();
    let mut session = Session::connect(&address(&server.address()), &config)
        .await
        .unwrap();
    session.call(&[b"PING"]).await.unwrap();
    server.kill();
    let error = loop {
        // The first write to a closed connection may still be taken by the kernel.
        if let Err(error) = session.call(&[b"PING"]).await {
            break error;
        }
    };
    assert_eq!(
        (error.retry(), error.blame()),
        (Retry::Uncertain, Blame::Shard)
    );
}
