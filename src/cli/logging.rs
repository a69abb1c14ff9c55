//! The log: lines of text or JSON, to stderr or to a file that can be
//! reopened, with a level that can be changed while it runs.
//!
//! A line is one `write` to a file opened for appending, so threads need no
//! lock, and a reopen (after logrotate has moved the file) loses no line: the
//! old file takes lines until the new one is in place.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::{LogConfig, LogFormat, LogLevel};

use super::nutcracker::OriginalLines;

/// Levels by importance.
const LEVELS: [LogLevel; 4] = [
    LogLevel::Error,
    LogLevel::Warn,
    LogLevel::Info,
    LogLevel::Debug,
];

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file cannot be opened.
    #[error("cannot open the log {}: {cause}", file.display())]
    Open {
        /// As configured.
        file: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A log was set up before in this process.
    #[error("the log is set up already: {0}")]
    Twice(#[from] TryInitError),
}

/// The running log, for signals and reloads.
pub struct Log {
    sink: Sink,
    file: Mutex<Option<PathBuf>>,
    level: Mutex<LogLevel>,
    filter: reload::Handle<Targets, Registry>,
}

impl Log {
    /// Starts the log of this process.
    ///
    /// # Errors
    /// The file cannot be opened; or there is a log already.
    pub fn start(config: &LogConfig) -> Result<Self, LogError> {
        let sink = Sink::default();
        if let Some(file) = &config.file {
            sink.open(file)?;
        }
        let (filter, handle) = reload::Layer::new(targets(config.level));
        let lines = match config.format {
            LogFormat::Text => text(sink.clone(), config.file.is_none()),
            LogFormat::Json => tracing_subscriber::fmt::layer()
                .json()
                .with_writer(sink.clone())
                .boxed(),
            LogFormat::Nutcracker => tracing_subscriber::fmt::layer()
                .event_format(OriginalLines)
                .with_ansi(false)
                .with_writer(sink.clone())
                .boxed(),
        };
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .try_init()?;
        Ok(Self {
            sink,
            file: Mutex::new(config.file.clone()),
            level: Mutex::new(config.level),
            filter: handle,
        })
    }

    /// Opens the file again, or another one if `config` names another.
    /// Stderr stays stderr.
    ///
    /// # Errors
    /// The file cannot be opened; lines go where they went.
    pub fn reopen(&self, file: Option<&Path>) -> Result<(), LogError> {
        match file {
            Some(file) => self.sink.open(file)?,
            None => self.sink.close(),
        }
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file.map(Path::to_owned);
        Ok(())
    }

    /// Opens the file in use again.
    ///
    /// # Errors
    /// As [`Log::reopen`].
    pub fn reopen_same(&self) -> Result<(), LogError> {
        let file = self
            .file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        self.reopen(file.as_deref())
    }

    /// Writes a line whatever the level.
    pub fn say(&self, line: &str) {
        let mut writer = self.sink.make_writer();
        // There is nowhere else to say it.
        let _ = writer.write_all(format!("{line}\n").as_bytes());
    }

    /// Lets through this level and what is more important.
    pub fn set_level(&self, level: LogLevel) {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner) = level;
        // The handle outlives its layer only when the process ends.
        let _ = self.filter.reload(targets(level));
    }

    /// One level more (`louder`) or less; returns the level now in force.
    pub fn step_level(&self, louder: bool) -> LogLevel {
        let level = *self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let place = LEVELS
            .iter()
            .position(|known| *known == level)
            .unwrap_or_default();
        let place = if louder {
            place + 1
        } else {
            place.saturating_sub(1)
        };
        let level = LEVELS.get(place).copied().unwrap_or(LogLevel::Debug);
        self.set_level(level);
        level
    }
}

/// Our own lines at `level`; libraries only when they warn.
fn targets(level: LogLevel) -> Targets {
    let filter = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    Targets::new()
        .with_default(filter.min(LevelFilter::WARN))
        .with_target("keyferry", filter)
}

fn text<S: Subscriber + for<'s> LookupSpan<'s>>(
    sink: Sink,
    is_stderr: bool,
) -> Box<dyn Layer<S> + Send + Sync> {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colors = is_stderr && !no_color && io::stderr().is_terminal();
    let layer = tracing_subscriber::fmt::layer();
    layer
        .with_target(false)
        .with_ansi(colors)
        .with_writer(sink)
        .boxed()
}

/// Where lines go: a file, or stderr if there is none.
#[derive(Clone, Default)]
struct Sink {
    file: Arc<ArcSwapOption<File>>,
}

impl Sink {
    fn open(&self, path: &Path) -> Result<(), LogError> {
        let opened = OpenOptions::new().create(true).append(true).open(path);
        let file = opened.map_err(|cause| LogError::Open {
            file: path.to_owned(),
            cause,
        })?;
        self.file.store(Some(Arc::new(file)));
        Ok(())
    }

    fn close(&self) {
        self.file.store(None);
    }
}

impl MakeWriter<'_> for Sink {
    type Writer = Line;

    fn make_writer(&self) -> Line {
        Line(self.file.load_full())
    }
}

/// Writes one line.
struct Line(Option<Arc<File>>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.0 {
            Some(file) => file.as_ref().write(bytes),
            None => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &self.0 {
            Some(file) => file.as_ref().flush(),
            None => io::stderr().flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reopened_file_takes_the_lines_from_then_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let (log, moved) = (dir.path().join("k.log"), dir.path().join("k.log.1"));
        let sink = Sink::default();
        sink.open(&log).expect("opened");
        sink.make_writer().write_all(b"one\n").expect("written");
        std::fs::rename(&log, &moved).expect("moved");
        sink.make_writer().write_all(b"two\n").expect("written");
        sink.open(&log).expect("opened");
        sink.make_writer().write_all(b"three\n").expect("written");
        assert_eq!(
            std::fs::read_to_string(&moved).expect("moved"),
            "one\ntwo\n"
        );
        assert_eq!(std::fs::read_to_string(&log).expect("new"), "three\n");
    }

    #[test]
    fn a_log_in_no_directory_is_an_error_that_names_it() {
        let error = Sink::default()
            .open(Path::new("/nowhere/k.log"))
            .expect_err("no directory");
        assert_eq!(
            error.to_string(),
            "cannot open the log /nowhere/k.log: No such file or directory (os error 2)"
        );
    }
}
