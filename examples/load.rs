//! Checked writers from the command line, and a check of where their keys are.
//!
//! ```text
//! cargo run --example load -- fill   ADDRESS COUNT [SEED]     writes COUNT keys of all types
//! cargo run --example load -- write  ADDRESS [WRITERS] [RATE] until stdin ends; prints the totals
//! cargo run --example load -- count  ADDRESS...               keys on each server, and keys on two
//! cargo run --example load -- keys   ADDRESS                  prints its keys in hex, for `keyferry route`
//! cargo run --example load -- ready  ADDRESS...               waits until each answers PING
//! cargo run --example load -- ports  COUNT                    prints free TCP ports
//! ```
//!
//! `write` exits with 1 if a single reply was not what the model says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    reason = "it shares the support of the tests, and a panic is a fine error there"
)]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::io::Read;
use std::net::TcpListener;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use fastrand::Rng;

#[path = "../tests/support/client.rs"]
mod client;
#[path = "../tests/support/contents.rs"]
mod contents;
#[path = "../tests/support/data.rs"]
mod data;
#[path = "../tests/support/load/mod.rs"]
mod load;

use client::Client;
use load::{Load, LoadConfig};

/// How long servers may take to start.
const READY_LIMIT: Duration = Duration::from_secs(20);

/// Writers that leave room for the servers on a small machine.
const WRITERS: usize = 4;

/// Requests a second for each writer, unless told.
const RATE: u32 = 5_000;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["fill", address, count, rest @ ..] => fill(address, number(count), seed(rest.first())),
        ["write", address, rest @ ..] => {
            let writers = rest.first().map_or(WRITERS, |text| number(text));
            let rate = rest.get(1).map_or(RATE as usize, |text| number(text));
            write(address, writers, rate)
        }
        ["count", addresses @ ..] if !addresses.is_empty() => count(addresses),
        ["keys", address] => keys(address),
        ["ready", addresses @ ..] => ready(addresses),
        ["ports", count] => ports(number(count)),
        _ => {
            eprintln!(
                "usage: load fill ADDRESS COUNT [SEED] | write ADDRESS [WRITERS] [RATE] | \
                 count ADDRESS... | keys ADDRESS | ready ADDRESS... | ports COUNT"
            );
            ExitCode::from(2)
        }
    }
}

fn number(text: &str) -> usize {
    text.parse()
        .unwrap_or_else(|_| panic!("{text} is not a number"))
}

fn seed(text: Option<&&str>) -> u64 {
    text.map_or_else(|| Rng::new().u64(..), |text| number(text) as u64)
}

fn fill(address: &str, count: usize, seed: u64) -> ExitCode {
    let entries = data::make_entries(&mut Rng::with_seed(seed), "key:", count);
    let start = Instant::now();
    data::write_entries(&mut Client::connect(address), &entries);
    println!(
        "{count} keys of all types written in {:.1} s (seed {seed})",
        start.elapsed().as_secs_f64()
    );
    ExitCode::SUCCESS
}

fn write(address: &str, writers: usize, rate: usize) -> ExitCode {
    let mut config = LoadConfig::new(address, Rng::new().u64(..));
    config.writers = writers;
    config.rate = u32::try_from(rate).ok().filter(|rate| *rate > 0);
    println!(
        "{writers} writers with checked replies (seed {})",
        config.seed
    );
    let load = Load::start(&config);
    // Whoever started this holds the other end of stdin open as long as it wants
    // writes.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    let outcome = load.finish();
    println!("{}", outcome.totals);
    let mut entries = outcome.entries;
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    let wrong = check(address, &entries);
    println!(
        "{} keys of the writers read back, {wrong} wrong",
        entries.len()
    );
    if outcome.totals.wrong == 0 && outcome.totals.errors == 0 && wrong == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Reads all keys back through `address`; how many differ from the model.
fn check(address: &str, entries: &[(Vec<u8>, contents::Entry)]) -> usize {
    let mut client = Client::connect(address);
    let keys: Vec<_> = entries.iter().map(|(key, _)| key.clone()).collect();
    let found = contents::read_entries(&mut client, &keys);
    let mut wrong = 0;
    for ((key, entry), found) in entries.iter().zip(found) {
        if let Some(difference) = entry.difference(found.as_ref()) {
            wrong += 1;
            println!("{} {difference}", key.escape_ascii());
        }
    }
    wrong
}

fn count(addresses: &[&str]) -> ExitCode {
    let mut seen = BTreeSet::new();
    let mut twice = 0;
    for address in addresses {
        let mut client = Client::connect(address);
        client.set_reply_limit(Duration::from_secs(10));
        let keys = contents::all_keys(&mut client);
        println!("{address} holds {} keys", keys.len());
        for key in keys {
            twice += usize::from(!seen.insert(key));
        }
    }
    println!("{} keys in all, {twice} of them on two servers", seen.len());
    if twice == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn keys(address: &str) -> ExitCode {
    let mut out = String::new();
    for key in contents::all_keys(&mut Client::connect(address)) {
        for byte in key {
            let _ = write!(out, "{byte:02x}");
        }
        out.push('\n');
    }
    print!("{out}");
    ExitCode::SUCCESS
}

fn ready(addresses: &[&str]) -> ExitCode {
    let start = Instant::now();
    for address in addresses {
        let answers = || {
            let reply =
                Client::try_connect(address).and_then(|mut client| client.try_call(&["PING"]));
            reply.is_ok()
        };
        while !answers() {
            if start.elapsed() > READY_LIMIT {
                eprintln!("{address} does not answer PING");
                return ExitCode::FAILURE;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    ExitCode::SUCCESS
}

fn ports(count: usize) -> ExitCode {
    // All are held until all are known, so that none is given twice.
    let held: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port on loopback"))
        .collect();
    for listener in &held {
        println!("{}", listener.local_addr().expect("a bound socket").port());
    }
    ExitCode::SUCCESS
}
