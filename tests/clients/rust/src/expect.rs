//! What the checks demand, and the sizes that they have in common.

use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;
pub type Checked = Result<(), Failure>;

pub const WAIT_MAX: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(20);

pub const LARGE_VALUE_BYTES: usize = 1 << 20;
pub const PIPELINED: usize = 200;
pub const SCANNED_KEYS: usize = 500;
pub const MESSAGES: usize = 50;

pub fn holds(is: bool, what: impl FnOnce() -> String) -> Checked {
    if is { Ok(()) } else { Err(what().into()) }
}

pub fn same<A: PartialEq<B> + Debug, B: Debug>(what: &str, got: A, expected: B) -> Checked {
    holds(got == expected, || {
        format!("{what}: {got:?} instead of {expected:?}")
    })
}

/// The error that this ended with.
pub fn failure<T: Debug, E: ToString>(what: &str, result: Result<T, E>) -> Result<String, Failure> {
    match result {
        Err(error) => Ok(error.to_string()),
        Ok(value) => Err(format!("{what} was no error but {value:?}").into()),
    }
}

pub fn contains(what: &str, text: &str, part: &str) -> Checked {
    holds(text.contains(part), || {
        format!("{what} has no {part:?}: {text}")
    })
}

/// Tries until it succeeds, at most `WAIT_MAX`.
pub async fn eventually<T, F: Future<Output = Result<T, Failure>>>(
    mut attempt: impl FnMut() -> F,
) -> Result<T, Failure> {
    let until = Instant::now() + WAIT_MAX;
    loop {
        match attempt().await {
            Err(_) if Instant::now() < until => tokio::time::sleep(PAUSE).await,
            last => return last,
        }
    }
}

/// Different in each run, so that nothing is found of an earlier one.
pub fn word() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    format!("{:x}", since.map_or(0, |since| since.as_nanos()))
}

/// Values that are no plain text, or large.
pub fn values() -> [Vec<u8>; 4] {
    [
        b"value".to_vec(),
        Vec::new(),
        b"a\r\nb\0c\xff$5\r\n".to_vec(),
        vec![b'x'; LARGE_VALUE_BYTES],
    ]
}

/// One of many keys that fall on all shards. What differs stands before the end:
/// the last bytes hardly move an fnv1a_64, so keys that differ there only are
/// neighbours on the ring.
pub fn of_many(prefix: &str, i: usize) -> String {
    format!("{prefix}:{i}:of-many")
}

/// Whether CLIENT LIST shows a client of that name that is blocked.
pub fn is_waiting(client_list: &str, name: &str) -> Checked {
    let name = format!(" name={name} ");
    let is = client_list
        .lines()
        .any(|line| line.contains(&name) && line.contains(" flags=b "));
    holds(is, || "CLIENT LIST shows no blocked client".into())
}
