//! The built-in shard against redis-server 7.0: random sequences of every command and
//! option, sent to both. All replies have to be equal, or errors of equal words, and
//! afterwards both hold the same by DEBUG DIGEST. A difference is made short and
//! printed as the few commands that show it.
//!
//! ```text
//!   recipes of a group ──> sequence ──> replay ──> redis-server ──┐
//!   (`groups/`)            (seeded)        ├─────> keyferry store ─┴─> judge, digest
//!                                          └── on a difference: shrink
//! ```
//!
//! - `KEYFERRY_DIFF_GROUPS=hash,list` runs these groups instead of [`ENABLED`];
//! - `KEYFERRY_DIFF_COMMANDS=1000000` is the long run;
//! - `KEYFERRY_TEST_SEED` and `KEYFERRY_DIFF_SEQUENCE` bring a difference back;
//! - `KEYFERRY_DIFF_DIFFERENCES=5` goes on until five commands were found to differ;
//! - `KEYFERRY_DIFF_DIGEST=contents` reads all keys instead of asking for the digest, as
//!   long as there is none;
//! - `KEYFERRY_DIFF_AGAINST=127.0.0.1:7777` tests a server that runs already: it is
//!   emptied.
//!
//! The harness is tested, too: with redis-server on both sides nothing may differ, and
//! each lie of `liar.rs` has to be found.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

mod support;

#[path = "store_differential/dice.rs"]
mod dice;
#[path = "store_differential/digest.rs"]
mod digest;
#[path = "store_differential/directions.rs"]
mod directions;
#[path = "store_differential/drawn.rs"]
mod drawn;
#[path = "store_differential/groups/mod.rs"]
mod groups;
#[path = "store_differential/judge.rs"]
mod judge;
#[path = "store_differential/lexical.rs"]
mod lexical;
#[path = "store_differential/liar.rs"]
mod liar;
#[path = "store_differential/line.rs"]
mod line;
#[path = "store_differential/options.rs"]
mod options;
#[path = "store_differential/replay.rs"]
mod replay;
#[path = "store_differential/reply.rs"]
mod reply;
#[path = "store_differential/run.rs"]
mod run;
#[path = "store_differential/scanned.rs"]
mod scanned;
#[path = "store_differential/sequence.rs"]
mod sequence;
#[path = "store_differential/shrink.rs"]
mod shrink;
#[path = "store_differential/sides.rs"]
mod sides;
#[path = "store_differential/table.rs"]
mod table;
#[path = "store_differential/tally.rs"]
mod tally;

use std::collections::BTreeSet;
use std::env;

use digest::Holding;
use liar::{Liar, Lie};
use replay::Pair;
use run::{Plan, texts};
use sides::{Host, Side, Store};
use support::{RedisServer, seeded};

/// Groups that the built-in shard has to pass. A group comes in when it does.
const ENABLED: &[&str] = &[
    "string",
    "bits",
    "hll",
    "hash",
    "list",
    "set",
    "zset",
    "generic",
    "sort",
    "databases",
    "transactions",
    "connection",
    "geo",
    "acl",
    "stream",
    "script",
    "functions",
    "server",
];

/// Commands of a run, unless `KEYFERRY_DIFF_COMMANDS` says otherwise.
const COMMANDS: u64 = 50_000;

/// Commands in which a lie has to be found.
const COMMANDS_FOR_A_LIE: u64 = 40_000;

/// How long a report of a lie may be.
const UNITS_OF_A_LIE: usize = 7;

fn setting(name: &str) -> Option<String> {
    env::var(name).ok().filter(|text| !text.is_empty())
}

fn number_in(name: &str) -> Option<u64> {
    let text = setting(name)?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a decimal number, not {text:?}")),
    )
}

fn plan(test: &str, groups: &[&'static str]) -> Plan {
    let chosen = setting("KEYFERRY_DIFF_GROUPS").map(|text| {
        let all = table::groups();
        let named = |name: &str| all.iter().copied().find(|group| *group == name);
        let found = text
            .split(',')
            .map(|name| named(name).unwrap_or_else(|| panic!("no group {name:?}: {all:?}")));
        found.collect::<Vec<_>>()
    });
    Plan {
        seed: seeded(test).u64(..),
        commands: number_in("KEYFERRY_DIFF_COMMANDS").unwrap_or(COMMANDS),
        groups: chosen.unwrap_or_else(|| groups.to_vec()),
        only: number_in("KEYFERRY_DIFF_SEQUENCE"),
        may_block: true,
        differences_max: number_in("KEYFERRY_DIFF_DIFFERENCES").map_or(1, |most| most as usize),
    }
}

fn pair(other: Host) -> Pair {
    Pair {
        reference: Side::new("redis-server", Host::redis()),
        other: Side::new("the other", other),
        holding: match setting("KEYFERRY_DIFF_DIGEST").as_deref() {
            None => Holding::Digest,
            Some("contents") => Holding::Contents,
            Some(other) => panic!("KEYFERRY_DIFF_DIGEST may be `contents`, not {other:?}"),
        },
    }
}

#[test]
fn the_built_in_shard_answers_as_redis_does() {
    let plan = plan("store_differential", ENABLED);
    if plan.groups.is_empty() {
        assert!(
            !Store::start().knows("FLUSHALL"),
            "the built-in shard can be emptied: put the groups that it passes into ENABLED"
        );
        return;
    }
    let other = match setting("KEYFERRY_DIFF_AGAINST") {
        Some(address) => Host::Running(address),
        None => Host::Store(Store::start()),
    };
    let run = plan.run(&mut pair(other));
    let tally = run.unwrap_or_else(|reports| panic!("{}", texts(&reports)));
    plan.assert_complete(&tally);
}

#[test]
fn two_redis_servers_never_differ() {
    let plan = plan("store_differential: redis and redis", &groups::names());
    let run = plan.run(&mut pair(Host::redis()));
    let tally = run.unwrap_or_else(|reports| panic!("{}", texts(&reports)));
    plan.assert_complete(&tally);
}

/// Lies and the groups in which they come up.
const LIES: &[(Lie, &[&str])] = &[
    (Lie::IntegerOffByOne, &["string"]),
    (Lie::ErrorWord, &["string"]),
    (Lie::ElementMissing, &["list"]),
    (Lie::KeyNotWritten, &["string"]),
    (Lie::MemberNotWritten, &["set"]),
    (Lie::NullOfAnotherKind, &["string"]),
    (Lie::OrderOfListpack, &["hash"]),
    (Lie::ElementTwice, &["set"]),
    (Lie::StrangerDrawn, &["set"]),
    (Lie::TooFewDrawn, &["set"]),
    (Lie::DrawnTwice, &["zset"]),
    (Lie::ScanMisses, &["hash"]),
    (Lie::TtlTooLong, &["generic", "string"]),
    (Lie::Encoding, &["hash", "zset"]),
    (Lie::DumpDamaged, &["generic", "string"]),
    (Lie::DiscardExecutes, &["transactions"]),
    (Lie::ScoreAsText, &["zset"]),
    (Lie::RightToWrite, &["acl"]),
    (Lie::Hangup, &["string"]),
];

#[test]
fn each_lie_is_found_and_shown_in_few_commands() {
    let mut rng = seeded("store_differential: lies");
    let mut faults = Vec::new();
    for (lie, groups) in LIES {
        let plan = Plan {
            seed: rng.u64(..),
            commands: COMMANDS_FOR_A_LIE,
            groups: groups.to_vec(),
            only: None,
            may_block: false,
            differences_max: 1,
        };
        let mut pair = pair(Host::Lied(Liar::start(*lie)));
        match plan.run(&mut pair) {
            Ok(_) => faults.push(format!("{lie:?} is not found")),
            Err(reports) if reports[0].units.len() > UNITS_OF_A_LIE => {
                faults.push(format!("{lie:?} is not made short: {}", texts(&reports)));
            }
            Err(reports) => println!("{lie:?}: {}\n", texts(&reports)),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_table_has_every_command_of_redis() {
    let listed = RedisServer::start(&[]).client().call(&["COMMAND", "LIST"]);
    let names = listed.items().iter().map(|name| name.text().to_uppercase());
    let of_redis: BTreeSet<String> = names.collect();
    let all = table::all();
    let known: BTreeSet<String> = all.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(
        known.len(),
        all.len(),
        "a command stands in the table twice"
    );
    let forgotten: Vec<_> = of_redis.difference(&known).collect();
    let invented: Vec<_> = known.difference(&of_redis).collect();
    assert!(forgotten.is_empty(), "not in the table: {forgotten:?}");
    assert!(invented.is_empty(), "not in redis: {invented:?}");
}

#[test]
fn each_command_of_a_group_has_a_recipe() {
    assert_eq!(groups::names(), table::groups());
    for group in groups::GROUPS {
        let made: BTreeSet<&str> = group.recipes.iter().map(|recipe| recipe.name).collect();
        let wanted: BTreeSet<&str> = table::commands_of(&[group.name]).collect();
        assert_eq!(made, wanted, "recipes and table of {}", group.name);
    }
}
