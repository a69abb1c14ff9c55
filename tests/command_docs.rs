//! COMMAND DOCS through the proxy: what the server says that `docs.tsv` was made
//! of. When another version is installed, make the file anew by
//! `scripts/generate-commands`.

#![allow(
    clippy::unwrap_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

use std::collections::BTreeMap;

use support::client::encode;
use support::{Client, Value, World};

fn raw(client: &mut Client, name: &str) -> String {
    let mut request = Vec::new();
    encode(&mut request, &["COMMAND", "DOCS", name]);
    let reply = client.exchange_bytes(&request).unwrap();
    reply.escape_ascii().to_string()
}

/// A map without the order of its fields, which a server's subcommands have not.
fn sorted(value: &Value) -> String {
    let Value::Map(pairs) = value else {
        return format!("{value:?}");
    };
    let pairs: BTreeMap<String, String> = pairs
        .iter()
        .map(|(name, value)| (name.text(), sorted(value)))
        .collect();
    format!("{pairs:?}")
}

#[test]
fn every_command_is_described_as_by_redis() {
    let world = World::new(1, "");
    let (mut ours, mut theirs) = (world.proxy.client(), world.oracle.client());
    theirs.call(&["HELLO", "3"]);
    let docs = theirs.call(&["COMMAND", "DOCS"]);
    let Value::Map(docs) = docs else {
        panic!("no map: {docs:?}");
    };
    let mut names = Vec::new();
    for (name, doc) in &docs {
        let Value::Map(facts) = doc else {
            panic!("no map: {doc:?}");
        };
        let subcommands = facts.iter().find(|(name, _)| name.text() == "subcommands");
        match subcommands {
            Some((_, Value::Map(subcommands))) => {
                names.extend(subcommands.iter().map(|(name, _)| name.text()));
            }
            _ => names.push(name.text()),
        }
    }
    assert!(names.len() > 300, "{}", names.len());
    for protocol in ["2", "3"] {
        for client in [&mut ours, &mut theirs] {
            client.call(&["HELLO", protocol]);
        }
        for name in &names {
            let name = name.to_ascii_uppercase();
            assert_eq!(raw(&mut ours, &name), raw(&mut theirs, &name));
        }
        for name in ["nosuch", "config|nosuch", ""] {
            assert_eq!(raw(&mut ours, name), raw(&mut theirs, name));
        }
    }
    let whole = [&mut ours, &mut theirs].map(|client| sorted(&client.call(&["COMMAND", "DOCS"])));
    assert_eq!(whole[0], whole[1]);
    let some = ["COMMAND", "DOCS", "get", "nosuch", "config", "GET"];
    let some = [&mut ours, &mut theirs].map(|client| sorted(&client.call(&some)));
    assert_eq!(some[0], some[1]);
    // In RESP2 the same number of elements.
    let elements = [&mut ours, &mut theirs].map(|client| {
        client.call(&["HELLO", "2"]);
        client.call(&["COMMAND", "DOCS", "config"]).items()[1]
            .items()
            .len()
    });
    assert_eq!(elements[0], elements[1]);
}
