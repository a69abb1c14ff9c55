//! Rates and durations as they are typed.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::reshard::mover::Bound;

/// Bytes a second, typed `80MB/s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRate(pub u64);

/// Keys a second, typed `20000/s` or `20000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRate(pub u64);

/// A text that is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write {0}")]
pub struct NotAQuantity(&'static str);

impl FromStr for ByteRate {
    type Err = NotAQuantity;

    fn from_str(text: &str) -> Result<Self, NotAQuantity> {
        let wrong = NotAQuantity("a rate above zero such as 80MB/s (B, KB, MB, GB)");
        let text = text.strip_suffix("/s").unwrap_or(text);
        bytes(text).map(Self).ok_or(wrong)
    }
}

/// A size above zero with its unit.
fn bytes(text: &str) -> Option<u64> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at(digits_end);
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "b" => 0,
        "kb" | "kib" => 10,
        "mb" | "mib" => 20,
        "gb" | "gib" => 30,
        _ => return None,
    };
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}

/// The word that takes a bound away.
const NO_BOUND: &str = "none";

/// `set --rate`.
///
/// # Errors
/// What is allowed.
pub fn rate_bound(text: &str) -> Result<Bound, NotAQuantity> {
    match text {
        NO_BOUND => Ok(Bound::Off),
        _ => text.parse().map(|rate: ByteRate| Bound::At(rate.0)),
    }
}

/// A size with its unit.
///
/// # Errors
/// What is allowed.
pub fn size(text: &str) -> Result<u64, NotAQuantity> {
    bytes(text).ok_or(NotAQuantity("a size such as 20GB"))
}

/// `--source-buffer`.
///
/// # Errors
/// What is allowed.
pub fn size_bound(text: &str) -> Result<Bound, NotAQuantity> {
    match text {
        NO_BOUND => Ok(Bound::Off),
        _ => bytes(text)
            .map(Bound::At)
            .ok_or(NotAQuantity("a size such as 64MB, or none")),
    }
}

/// `--target-p99`, in milliseconds.
///
/// # Errors
/// What is allowed.
pub fn latency_bound(text: &str) -> Result<Bound, NotAQuantity> {
    let wrong = NotAQuantity("a duration from 1ms to 10s such as 20ms, or none");
    if text == NO_BOUND {
        return Ok(Bound::Off);
    }
    let duration = humantime::parse_duration(text).map_err(|_| wrong.clone())?;
    match u64::try_from(duration.as_millis()) {
        Ok(ms) if (1..=10_000).contains(&ms) => Ok(Bound::At(ms)),
        _ => Err(wrong),
    }
}

impl FromStr for KeyRate {
    type Err = NotAQuantity;

    fn from_str(text: &str) -> Result<Self, NotAQuantity> {
        let number = text.strip_suffix("/s").unwrap_or(text).parse();
        match number {
            Ok(rate) if rate > 0 => Ok(Self(rate)),
            _ => Err(NotAQuantity("a number of keys a second such as 20000/s")),
        }
    }
}

impl fmt::Display for KeyRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

/// `--hold`: longer than nothing, and short enough that clients do not give up.
///
/// # Errors
/// What is allowed.
pub fn hold(text: &str) -> Result<Duration, NotAQuantity> {
    let allowed = HOLD_MIN..=HOLD_MAX;
    match humantime::parse_duration(text) {
        Ok(duration) if allowed.contains(&duration) => Ok(duration),
        _ => Err(NotAQuantity("a duration from 10ms to 30s such as 500ms")),
    }
}

const HOLD_MIN: Duration = Duration::from_millis(10);
const HOLD_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_with_and_without_their_unit_of_time() {
        assert_eq!("80MB/s".parse(), Ok(ByteRate(80 << 20)));
        assert_eq!("512kb".parse(), Ok(ByteRate(512 << 10)));
        assert_eq!("20000/s".parse(), Ok(KeyRate(20_000)));
        for wrong in [
            "80",
            "0MB/s",
            "MB/s",
            "80 MB/min",
            "-1MB",
            "99999999999999GB",
        ] {
            assert!(wrong.parse::<ByteRate>().is_err(), "{wrong}");
        }
        assert!("0".parse::<KeyRate>().is_err());
    }

    #[test]
    fn bounds_are_quantities_or_none() {
        assert_eq!(rate_bound("1KB/s"), Ok(Bound::At(1024)));
        assert_eq!(size_bound("64MB"), Ok(Bound::At(64 << 20)));
        assert_eq!(latency_bound("20ms"), Ok(Bound::At(20)));
        for bound in [rate_bound, size_bound, latency_bound] {
            assert_eq!(bound("none"), Ok(Bound::Off));
            for wrong in ["", "0ms", "off", "20", "-1MB"] {
                assert!(bound(wrong).is_err(), "{wrong}");
            }
        }
    }

    #[test]
    fn a_hold_is_bounded() {
        assert_eq!(hold("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["0s", "1h", "500", ""] {
            assert!(hold(wrong).is_err(), "{wrong}");
        }
    }
}
