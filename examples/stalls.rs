//! How long the machine keeps a thread from running that has nothing to wait for.
//!
//! ```text
//! chrt --fifo 10 taskset --cpu-list 0 target/release/examples/stalls
//! ```
//!
//! Sleeps half a millisecond again and again. Each line on stdin is answered by one line:
//! by how many microseconds the longest sleep since the line before was too long. The
//! end of stdin is the end. With a real-time priority no other program makes it wait,
//! so what it tells is what the machine below takes away (a hypervisor, a long interrupt).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a panic is a fine error in a measuring program"
)]

use std::io::BufRead;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SLEEP: Duration = Duration::from_micros(500);

fn main() {
    let longest_us = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let began = Instant::now();
                std::thread::sleep(SLEEP);
                let too_long = began.elapsed().saturating_sub(SLEEP);
                let us = u64::try_from(too_long.as_micros()).unwrap_or(u64::MAX);
                longest_us.fetch_max(us, Ordering::Relaxed);
            }
        });
        for line in std::io::stdin().lock().lines() {
            if line.is_err() {
                break;
            }
            println!("{}", longest_us.swap(0, Ordering::Relaxed));
        }
        is_over.store(true, Ordering::Relaxed);
    });
}
