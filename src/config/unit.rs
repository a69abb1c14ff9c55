//! Durations and sizes: strings with units.
//!
//! Sizes count as Redis' config does: KB, MB and GB are powers of 1024, and so
//! are KiB, MiB and GiB.

use std::time::Duration;

use super::document::Item;

/// Longest duration a config may name.
pub const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

impl Item<'_, '_> {
    /// A duration such as "500ms" or "1m 30s"; `None` is "0s", for none.
    /// Also `None` after a problem was recorded.
    pub fn duration(&self) -> Option<Duration> {
        let text = self.text()?;
        match humantime::parse_duration(text) {
            Ok(duration) if duration > DURATION_MAX => self.problem(
                format!("`{}` is longer than a day", self.path()),
                "write \"0s\" for no limit",
            ),
            Ok(duration) if duration.is_zero() => {}
            Ok(duration) => return Some(duration),
            Err(_) => self.problem(
                format!("`{}` is no duration", self.path()),
                "write a number and a unit, as in \"500ms\", \"30s\" or \"5m\"; \"0s\" for none",
            ),
        }
        None
    }

    /// As [`Item::duration`], where none is not allowed.
    pub fn duration_above_zero(&self) -> Option<Duration> {
        let text = self.text()?;
        if humantime::parse_duration(text).is_ok_and(|duration| duration.is_zero()) {
            self.problem(
                format!("`{}` must be longer than zero", self.path()),
                "write a duration such as \"1s\"",
            );
            return None;
        }
        self.duration()
    }

    /// A size in bytes such as "64MB", within `min..=max`.
    pub fn size(&self, min: usize, max: usize) -> Option<usize> {
        let text = self.text()?;
        let Some(size) = parse_size(text) else {
            self.problem(
                format!("`{}` is no size", self.path()),
                "write a whole number and a unit (B, KB, MB, GB), as in \"64MB\"",
            );
            return None;
        };
        if !(min..=max).contains(&size) {
            self.problem(
                format!("`{}` is out of range", self.path()),
                format!(
                    "write a size from \"{}\" to \"{}\"",
                    print_size(min),
                    print_size(max)
                ),
            );
            return None;
        }
        Some(size)
    }
}

/// Bytes of a text such as "64MB"; a unit is needed.
pub fn parse_size(text: &str) -> Option<usize> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at(digits_end);
    let number: usize = digits.parse().ok()?;
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "b" => 0,
        "kb" | "kib" => 10,
        "mb" | "mib" => 20,
        "gb" | "gib" => 30,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

fn print_size(bytes: usize) -> String {
    for (shift, unit) in [(30, "GB"), (20, "MB"), (10, "KB")] {
        if bytes >> shift > 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_need_a_unit_and_a_whole_number() {
        assert_eq!(parse_size("64MB"), Some(64 << 20));
        assert_eq!(parse_size("64 MiB"), Some(64 << 20));
        assert_eq!(parse_size("1gb"), Some(1 << 30));
        assert_eq!(parse_size("512B"), Some(512));
        for text in [
            "",
            "64",
            "MB",
            "1.5MB",
            "-1MB",
            "64 megabytes",
            "99999999999GB",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_print_with_the_largest_whole_unit() {
        assert_eq!(print_size(1 << 30), "1GB");
        assert_eq!(print_size(1536), "1536B");
        assert_eq!(print_size(64 << 10), "64KB");
    }
}
