//! The original's options, read as getopt_long reads them: short ones may stand
//! together (`-tc FILE`), long ones may be cut where no other begins so, and
//! words that are no options are passed over.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

/// `-v`.
const VERBOSITY_DEFAULT: u8 = 5;
const VERBOSITY_MAX: u8 = 11;
/// `-m`, in bytes.
const MBUF_BYTES: std::ops::RangeInclusive<u64> = 512..=16_777_216;
/// `-i`, in milliseconds.
const STATS_INTERVAL_MS_DEFAULT: u64 = 30_000;

const LONG: [(&str, char); 13] = [
    ("help", 'h'),
    ("version", 'V'),
    ("test-conf", 't'),
    ("daemonize", 'd'),
    ("describe-stats", 'D'),
    ("verbose", 'v'),
    ("output", 'o'),
    ("conf-file", 'c'),
    ("stats-port", 's'),
    ("stats-interval", 'i'),
    ("stats-addr", 'a'),
    ("pid-file", 'p'),
    ("mbuf-size", 'm'),
];

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `-h`
    pub help: bool,
    /// `-V`, `-h` or `-D`
    pub version: bool,
    /// `-t`
    pub test: bool,
    /// `-d`
    pub daemonize: bool,
    /// `-D`
    pub describe: bool,
    /// `-v`, at most 11
    pub verbosity: u8,
    /// `-o`; `None` is stderr
    pub output: Option<PathBuf>,
    /// `-c`
    pub config: PathBuf,
    /// `-s`
    pub stats_port: u16,
    /// `-a`, as typed
    pub stats_host: String,
    /// `-i`: read and of no effect, as figures are never old here
    pub stats_interval_ms: u64,
    /// `-p`
    pub pid_file: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            help: false,
            version: false,
            test: false,
            daemonize: false,
            describe: false,
            verbosity: VERBOSITY_DEFAULT,
            output: None,
            config: PathBuf::from("conf/nutcracker.yml"),
            stats_port: 22_222,
            stats_host: "0.0.0.0".to_owned(),
            stats_interval_ms: STATS_INTERVAL_MS_DEFAULT,
            pid_file: None,
        }
    }
}

impl Options {
    /// Reads the words after the program's name.
    ///
    /// # Errors
    /// The line that goes to stderr.
    pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let text = word.to_string_lossy();
            if text == "--" {
                break;
            }
            if let Some(long) = text.strip_prefix("--") {
                let (name, value) = match long.split_once('=') {
                    Some((name, value)) => (name, Some(OsString::from(value))),
                    None => (long, None),
                };
                let letter = long_option(name).ok_or("nutcracker: invalid option -- ''")?;
                options.take(letter, value, &mut words)?;
            } else if let Some(letters) = text.strip_prefix('-').filter(|rest| !rest.is_empty()) {
                let mut letters = letters.chars();
                while let Some(letter) = letters.next() {
                    if takes_value(letter) {
                        let rest = letters.as_str();
                        let value = (!rest.is_empty()).then(|| OsString::from(rest));
                        options.take(letter, value, &mut words)?;
                        break;
                    }
                    options.take(letter, None, &mut words)?;
                }
            }
        }
        Ok(options)
    }

    fn take(
        &mut self,
        letter: char,
        value: Option<OsString>,
        words: &mut impl Iterator<Item = OsString>,
    ) -> Result<(), String> {
        match letter {
            'h' => (self.help, self.version) = (true, true),
            'V' => self.version = true,
            't' => self.test = true,
            'd' => self.daemonize = true,
            'D' => (self.describe, self.version) = (true, true),
            _ if !takes_value(letter) => {
                return Err(format!("nutcracker: invalid option -- '{letter}'"));
            }
            _ => {
                let what = match letter {
                    'o' | 'c' | 'p' => "file name",
                    'a' => "string",
                    _ => "number",
                };
                let missing = || format!("nutcracker: option -{letter} requires a {what}");
                let value = value.or_else(|| words.next()).ok_or_else(missing)?;
                self.set(letter, value)?;
            }
        }
        Ok(())
    }

    fn set(&mut self, letter: char, value: OsString) -> Result<(), String> {
        match letter {
            'o' => self.output = Some(value.into()),
            'c' => self.config = value.into(),
            'p' => self.pid_file = Some(value.into()),
            'a' => self.stats_host = value.to_string_lossy().into_owned(),
            'v' => {
                let level = number(&value).ok_or("nutcracker: option -v requires a number")?;
                self.verbosity = u8::try_from(level)
                    .unwrap_or(VERBOSITY_MAX)
                    .min(VERBOSITY_MAX);
            }
            's' => {
                let port = number(&value).ok_or("nutcracker: option -s requires a number")?;
                let known = u16::try_from(port).ok().filter(|port| *port > 0);
                self.stats_port = known.ok_or_else(|| {
                    format!("nutcracker: option -s value {port} is not a valid port")
                })?;
            }
            'i' => {
                self.stats_interval_ms =
                    number(&value).ok_or("nutcracker: option -i requires a number")?;
            }
            _ => {
                let bytes = number(&value)
                    .filter(|bytes| *bytes > 0)
                    .ok_or("nutcracker: option -m requires a non-zero number")?;
                if !MBUF_BYTES.contains(&bytes) {
                    return Err(format!(
                        "nutcracker: mbuf chunk size must be between {} and {} bytes",
                        MBUF_BYTES.start(),
                        MBUF_BYTES.end()
                    ));
                }
            }
        }
        Ok(())
    }

    /// The address of the statistics port, if its host is an IP address.
    pub fn stats_ip(&self) -> Option<IpAddr> {
        self.stats_host.parse().ok()
    }
}

fn takes_value(letter: char) -> bool {
    matches!(letter, 'v' | 'o' | 'c' | 's' | 'i' | 'a' | 'p' | 'm')
}

/// The option of that name, or the only one that begins so.
fn long_option(name: &str) -> Option<char> {
    if let Some((_, letter)) = LONG.iter().find(|(long, _)| *long == name) {
        return Some(*letter);
    }
    let mut begun = LONG.iter().filter(|(long, _)| long.starts_with(name));
    match (begun.next(), begun.next()) {
        (Some((_, letter)), None) => Some(*letter),
        _ => None,
    }
}

/// Decimal digits only, as large as a C `int`.
fn number(value: &OsString) -> Option<u64> {
    let text = value.to_str()?;
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| text.parse::<i32>().ok()).flatten()?;
    u64::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Options, String> {
        Options::read(words.iter().map(OsString::from))
    }

    #[test]
    fn options_are_read_as_getopt_does() {
        let options = read(&[
            "-tdc",
            "a.yml",
            "x",
            "--stats-p=7",
            "-v99",
            "--out",
            "l",
            "-m",
            "512",
            "-i1",
            "-a",
            "::1",
            "-p",
            "f",
            "--",
            "-h",
        ]);
        let wanted = Options {
            test: true,
            daemonize: true,
            config: "a.yml".into(),
            stats_port: 7,
            verbosity: 11,
            output: Some("l".into()),
            stats_interval_ms: 1,
            stats_host: "::1".to_owned(),
            pid_file: Some("f".into()),
            ..Options::default()
        };
        assert_eq!(options, Ok(wanted));
        assert_eq!(read(&[]), Ok(Options::default()));
    }

    #[test]
    fn what_is_wrong_is_told_as_the_original_does() {
        for (words, told) in [
            (&["-s", "x"][..], "option -s requires a number"),
            (&["-s"], "option -s requires a number"),
            (&["-s", "0"], "option -s value 0 is not a valid port"),
            (
                &["-s", "65536"],
                "option -s value 65536 is not a valid port",
            ),
            (&["-c"], "option -c requires a file name"),
            (&["--stats-addr"], "option -a requires a string"),
            (&["-m", "0"], "option -m requires a non-zero number"),
            (
                &["-m", "511"],
                "mbuf chunk size must be between 512 and 16777216 bytes",
            ),
            (&["-x"], "invalid option -- 'x'"),
            (&["--stats"], "invalid option -- ''"),
        ] {
            assert_eq!(read(words), Err(format!("nutcracker: {told}")), "{words:?}");
        }
    }
}
