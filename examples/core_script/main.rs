//! Drives the proxy's protocol core without sockets, by a fixed script: what
//! `bench/instructions` counts instructions of.
//!
//! ```text
//! core_script                    lists the workloads: name, requests of a round, keys of a request
//! core_script WORKLOAD ROUNDS    plays so many rounds
//! ```
//!
//! It starts with one round more, in which everyone connects. Two runs of the
//! same length do exactly the same, so what a round costs is the difference of
//! two runs of unequal length.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measuring program; a panic is a fine error here"
)]

mod script;

use std::env;

use script::{Script, WORKLOADS};

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let [name, rounds] = args.as_slice() else {
        for workload in WORKLOADS {
            let (requests, keys) = (workload.requests(), workload.keys());
            println!("{}\t{requests}\t{keys}", workload.name);
        }
        return;
    };
    let workload = WORKLOADS.iter().find(|workload| workload.name == *name);
    let mut script = Script::new(workload.expect("a WORKLOAD of the list"));
    for _ in 0..rounds.parse().expect("ROUNDS is a number") {
        script.round();
    }
}
