//! Every command of the table through the proxy, and the same on a bare
//! redis-server: equal replies, byte by byte, in both protocols. The requests are
//! in `fixtures/commands_compared.txt`, which says what its lines mean.
//!
//! All keys have the hash tag `{t}`, so they are on one of the two shards. Commands
//! that are newer than the installed server are unknown to both.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use keyferry::router::commands::{self, Command, Handling};
use keyferry::router::errors::ErrorReply;
use support::client::encode;
use support::keyferry::LayoutText;
use support::{Client, Keyferry, RedisServer};

const REQUESTS: &str = include_str!("fixtures/commands_compared.txt");

/// What is compared of two replies.
enum Wanted {
    Equal,
    SameType,
    /// The proxy's begins like this, whatever the server's is.
    Own(String),
}

/// One line of the file.
struct Step {
    line: usize,
    words: Vec<String>,
    wanted: Wanted,
    /// A blank line stood before it.
    afresh: bool,
}

fn steps() -> Vec<Step> {
    let mut lines = (1..).zip(REQUESTS.lines());
    let (mut steps, mut afresh) = (Vec::new(), true);
    while let Some((line, text)) = lines.next() {
        if text.is_empty() {
            afresh = true;
            continue;
        }
        if text.starts_with('#') {
            continue;
        }
        let (wanted, request) = match text.split_once(' ') {
            Some(("~", request)) => (Wanted::SameType, request),
            Some(("=", request)) => {
                let (_, own) = lines.next().expect("what the reply begins with");
                (Wanted::Own(own.to_owned()), request)
            }
            _ => (Wanted::Equal, text),
        };
        steps.push(Step {
            line,
            words: words(request),
            wanted,
            afresh: std::mem::take(&mut afresh),
        });
    }
    steps
}

fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            '\\' if quoted => match letters.next() {
                Some('n') => word.push('\n'),
                Some('r') => word.push('\r'),
                other => word.extend(other),
            },
            other => word.push(other),
        }
    }
    words.push(word);
    words
}

/// The refusal, if that is what the proxy has for this request.
fn refusal(words: &[String]) -> Option<String> {
    let command = commands::resolve(words).ok()?;
    let Handling::Unsupported(why) = command.handling_for(words) else {
        return None;
    };
    let mut text = Vec::new();
    ErrorReply::unsupported(command, why).write(&mut text);
    Some(String::from_utf8(text).unwrap())
}

struct Side {
    client: Client,
    servers: Vec<String>,
}

impl Side {
    fn forget_everything(&mut self) {
        for server in &self.servers {
            let mut direct = Client::connect(server);
            direct.call(&["FLUSHALL"]);
            direct.call(&["FUNCTION", "FLUSH"]);
            direct.call(&["SCRIPT", "FLUSH"]);
        }
    }

    fn ask(&mut self, words: &[String]) -> String {
        let mut request = Vec::new();
        encode(&mut request, words);
        match self.client.exchange_bytes(&request) {
            Ok(reply) => reply.escape_ascii().to_string(),
            Err(error) => format!("no reply: {error}"),
        }
    }
}

fn differs(step: &Step, ours: &str, theirs: &str) -> Option<String> {
    let expected = match (&step.wanted, refusal(&step.words)) {
        (Wanted::Equal, Some(refusal)) => refusal.as_bytes().escape_ascii().to_string(),
        (Wanted::Equal, None) => theirs.to_owned(),
        (Wanted::SameType, _) => {
            let same = ours.get(..1) == theirs.get(..1) && !ours.starts_with('-');
            return (!same).then(|| theirs.to_owned());
        }
        (Wanted::Own(start), _) => {
            let start = start.as_bytes().escape_ascii().to_string();
            return (!ours.starts_with(&start)).then_some(start);
        }
    };
    (ours != expected).then_some(expected)
}

#[test]
fn replies_are_those_of_a_bare_server() {
    let shards = RedisServer::start_many(2, &[]);
    let oracle = RedisServer::start(&[]);
    let addresses: Vec<_> = shards.iter().map(RedisServer::address).collect();
    let layout = LayoutText::new("fnv1a_64", "ketama", &addresses);
    let proxy = Keyferry::start_with(&layout, 2, "hash_tag = \"{}\"");
    let mut wrong = Vec::new();
    for protocol in ["2", "3"] {
        let mut ours = Side {
            client: proxy.client(),
            servers: addresses.clone(),
        };
        let mut theirs = Side {
            client: oracle.client(),
            servers: vec![oracle.address()],
        };
        for side in [&mut ours, &mut theirs] {
            side.client.set_reply_limit(Duration::from_secs(10));
            side.client.call(&["HELLO", protocol]);
        }
        for step in steps() {
            if step.afresh {
                ours.forget_everything();
                theirs.forget_everything();
            }
            let ours = ours.ask(&step.words);
            // What the proxy refuses or answers in its own way is not asked: the
            // server might wait for ever, or end.
            let asked = refusal(&step.words).is_none() && !matches!(step.wanted, Wanted::Own(_));
            let theirs = if asked {
                theirs.ask(&step.words)
            } else {
                String::new()
            };
            if let Some(expected) = differs(&step, &ours, &theirs) {
                wrong.push(format!(
                    "line {} with RESP{protocol}: {}\n  proxy    {ours}\n  expected {expected}",
                    step.line,
                    step.words.join(" "),
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} replies differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_command_of_the_table_is_compared() {
    let asked: BTreeSet<&str> = steps()
        .iter()
        .filter_map(|step| {
            let command = commands::lookup(step.words[0].as_bytes())?;
            let sub = step
                .words
                .get(1)
                .map(|word| command.subcommand(word.as_bytes()));
            Some(sub.flatten().unwrap_or(command).name)
        })
        .collect();
    let table = commands::all().iter().flat_map(|command| {
        let itself = (!command.is_container() || command.name == "command").then_some(command);
        itself.into_iter().chain(command.subcommands())
    });
    let missing: Vec<&str> = table
        .map(|command: &Command| command.name)
        .filter(|name| !asked.contains(name))
        .collect();
    assert!(missing.is_empty(), "not in the file: {missing:?}");
}
