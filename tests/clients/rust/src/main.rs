//! Checks of Rust clients against a keyferry that runs: one line for each check of
//! each client, `ok CLIENT VERSION CHECK` or `failed CLIENT VERSION CHECK: why`.
//! Ends with 0 only if nothing failed. Every wait has an end: `CHECK_MAX` for a
//! check, `expect::WAIT_MAX` for what a check waits for.

mod expect;
mod proxy;
mod redis_blocking;
mod redis_tokio;
mod with_fred;

use std::process::ExitCode;
use std::time::Duration;

use futures_util::future::BoxFuture;

use expect::Checked;
use proxy::Proxy;

const CHECK_MAX: Duration = Duration::from_secs(40);
/// The versions that were built in.
const LOCK: &str = include_str!("../Cargo.lock");

/// A client with settings of its own.
struct Suite {
    /// One word; a variant stands behind a slash.
    client: &'static str,
    package: &'static str,
    /// They run one after the other; none before it is polled.
    checks: Vec<(&'static str, BoxFuture<'static, Checked>)>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let proxy = match Proxy::of_environment() {
        Ok(proxy) => proxy,
        Err(missing) => {
            eprintln!("{missing} is not set: start this by tests/clients/run");
            return ExitCode::from(2);
        }
    };
    let suites = [
        redis_blocking::suite(&proxy),
        redis_tokio::suite(&proxy),
        with_fred::suite(&proxy, fred::types::RespVersion::RESP2),
        with_fred::suite(&proxy, fred::types::RespVersion::RESP3),
    ];
    let mut failed = false;
    for suite in suites {
        let version = version_of(suite.package);
        for (check, body) in suite.checks {
            failed |= !report(suite.client, version, check, body).await;
        }
    }
    ExitCode::from(u8::from(failed))
}

async fn report(
    client: &str,
    version: &str,
    check: &str,
    body: BoxFuture<'static, Checked>,
) -> bool {
    // A task of its own, so that a panic of a client is a failed check.
    let why = match tokio::time::timeout(CHECK_MAX, tokio::spawn(body)).await {
        Ok(Ok(Ok(()))) => {
            println!("ok {client} {version} {check}");
            return true;
        }
        Ok(Ok(Err(why))) => why.to_string(),
        Ok(Err(panic)) => panic.to_string(),
        Err(_) => format!("not done after {CHECK_MAX:?}"),
    };
    let words: Vec<&str> = why.split_whitespace().collect();
    println!("failed {client} {version} {check}: {}", words.join(" "));
    false
}

fn version_of(package: &str) -> &'static str {
    let name = format!("name = \"{package}\"\nversion = \"");
    let version = LOCK
        .split_once(&name)
        .and_then(|(_, rest)| rest.split_once('"'));
    version.map_or("unknown", |(version, _)| version)
}
