//! `docs/commands.md` says what becomes of every command of the table. It is
//! made of the table itself; this fails when the page is out of date.
//!
//!     KEYFERRY_ACCEPT=1 cargo test --test commands_page    # writes the page anew

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

use std::fmt::Write;
use std::fs;
use std::path::Path;

use keyferry::router::commands::{
    self, Command, FanOut, Handling, SessionCommand, SplitKind, TopicKind,
};

const HEAD: &str = include_str!("fixtures/commands_head.md");

/// What a class is called in the table, and what is to be said of the command.
fn told(handling: Handling, command: &Command) -> (&'static str, String) {
    match handling {
        Handling::Forward if command.first_key_fast().is_some() => ("one shard", String::new()),
        Handling::Forward => ("one shard", "all its keys must be on one".into()),
        Handling::Split(kind) => ("split by keys", split(kind).into()),
        Handling::Everywhere(FanOut::AnyShard) => ("any shard", String::new()),
        Handling::Everywhere(kind) => ("all shards", everywhere(kind).into()),
        Handling::Session(session) => told_of_session(session),
        Handling::Local(_) => ("proxy", local(command.name).into()),
        Handling::Unsupported(why) => ("refused", why.reason().into()),
    }
}

fn told_of_session(session: SessionCommand) -> (&'static str, String) {
    let (class, note) = match session {
        SessionCommand::Multi => ("proxy", "requests are kept until EXEC"),
        SessionCommand::Exec => ("one shard", "that of all keys since MULTI, and of WATCH"),
        SessionCommand::Discard | SessionCommand::Unwatch => ("proxy", ""),
        SessionCommand::Watch => ("one shard", "on a connection of the client's own"),
        SessionCommand::Block => ("one shard", "on a connection of the client's own"),
        SessionCommand::Subscribe(TopicKind::Pattern) => (
            "all shards",
            "one connection to each for all clients of a worker",
        ),
        SessionCommand::Subscribe(_) => (
            "one shard",
            "the channel's, as if it were a key; one connection for all clients of a worker",
        ),
        SessionCommand::Unsubscribe(_) => ("proxy", ""),
        SessionCommand::Publish => (
            "one shard",
            "the channel's, as if it were a key; the number is that of this proxy's clients and of connections of others",
        ),
    };
    (class, note.to_owned())
}

fn split(kind: SplitKind) -> &'static str {
    match kind {
        SplitKind::Mget => "the values, in the order asked for",
        SplitKind::Mset => "not atomic across shards",
        SplitKind::Del | SplitKind::Unlink | SplitKind::Exists | SplitKind::Touch => "the sum",
    }
}

fn everywhere(kind: FanOut) -> &'static str {
    match kind {
        FanOut::Keys => "joined",
        FanOut::Size => "the sum; during a reshard, and until it is purged, copies are counted",
        FanOut::RandomKey => "one of their answers, each shard as likely as another",
        FanOut::Scan => "one after the other; the cursor says which",
        FanOut::Flush => "refused unless `allow_flush = true`",
        FanOut::Scripts | FanOut::Functions => "the answer they all give",
        FanOut::ScriptsExist => "1 if all have it",
        FanOut::FunctionStats => "of a shard that runs a function, else of the first",
        FanOut::AnyShard => "",
    }
}

/// Where the proxy's own answer is not simply Redis's.
fn local(name: &str) -> &'static str {
    let notes = include_str!("fixtures/commands_local.txt").lines();
    let mut notes = notes.filter_map(|line| line.split_once('\t'));
    notes
        .find(|(of, _)| *of == name)
        .map_or("", |(_, note)| note)
}

/// What a command with other arguments gets, if that is something else.
fn exception(command: &Command) -> Option<String> {
    let cases: [(&[&str], &str); 2] = [
        (&["script", "0"], "without keys"),
        (&["block", "0", "streams", "k", "$"], "with BLOCK"),
    ];
    cases.into_iter().find_map(|(args, when)| {
        let request: Vec<&str> = [command.name]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        let handling = command.handling_for(&request);
        if handling == command.handling() {
            return None;
        }
        let (class, note) = told(handling, command);
        Some(format!("{when}: {class}, {note}"))
    })
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    page.push_str("\n| command | since | who answers | |\n|---|---|---|---|\n");
    let mut commands: Vec<&Command> = Vec::new();
    for command in commands::all() {
        match command.is_container() && command.name != "command" {
            true => commands.extend(command.subcommands()),
            false => commands.extend([command].into_iter().chain(command.subcommands())),
        }
    }
    for command in commands {
        let (class, mut note) = told(command.handling(), command);
        if let Some(exception) = exception(command) {
            if !note.is_empty() {
                note.push_str("; ");
            }
            note.push_str(&exception);
        }
        let name = command.name.replace('|', " ").to_uppercase();
        writeln!(page, "| {name} | {} | {class} | {note} |", command.since).unwrap();
    }
    page
}

#[test]
fn the_page_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md");
    let page = page();
    if std::env::var_os("KEYFERRY_ACCEPT").is_some() {
        fs::write(&path, &page).expect("docs/commands.md");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    if let Some((old, new)) = written
        .lines()
        .zip(page.lines())
        .find(|(old, new)| old != new)
    {
        panic!(
            "docs/commands.md is out of date; make it anew by\n  KEYFERRY_ACCEPT=1 cargo test \
             --test commands_page\nis:      {old}\nshall be: {new}"
        );
    }
    assert!(
        written == page,
        "docs/commands.md is out of date by its length"
    );
}
