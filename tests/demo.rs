//! The demonstration does what it says, and what is left of it is nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

fn demo(dir: &Path, words: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyferry"));
    command
        .arg("demo")
        .args(["--port", "0", "--script"])
        .args(words);
    let output = command
        .env("TMPDIR", dir)
        .output()
        .expect("our own program runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[test]
fn three_built_in_shards_become_five_and_not_one_reply_is_wrong() {
    let dir = TempDir::with_prefix("keyferry-demo-test-").expect("a temporary directory");
    let (is_done, text) = demo(dir.path(), &[]);
    assert!(is_done, "{text}");
    for said in [
        "3 built-in shards",
        "reshard start",
        "switched  to epoch",
        "purged",
        " 0 wrong replies, 0 connections closed",
    ] {
        assert!(text.contains(said), "no `{said}` in:\n{text}");
    }
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .expect("it is there")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn one_shard_becomes_three() {
    let dir = TempDir::with_prefix("keyferry-demo-test-").expect("a temporary directory");
    let (is_done, text) = demo(dir.path(), &["--shards", "1"]);
    assert!(is_done, "{text}");
    assert!(text.contains(" 0 wrong replies"), "{text}");
}

#[test]
fn a_port_that_is_taken_is_said_so() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyferry"));
    let output = command
        .args(["demo", "--port", &port])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.contains(&format!("port {port} cannot be listened on")),
        "{text}"
    );
    assert!(text.contains("--port"), "{text}");
}
