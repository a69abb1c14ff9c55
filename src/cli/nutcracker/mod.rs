//! Called as `nutcracker`: the flags, messages, signals and exit codes of
//! twemproxy, around our proxy.
//!
//! ```text
//! options -> -h -V -D -t: said on stderr, over
//!         -> log -> detached (-d) -> pid file -> config -> ports -> serving
//!   SIGHUP            reopens the log; nothing is reloaded
//!   SIGTTIN, SIGTTOU  log level up, down
//!   SIGUSR1, SIGUSR2  logged
//!   SIGINT            logged, exit 1 at once
//!   SIGTERM           what is in flight is answered, exit 0 (the original dies)
//! ```
//! As in the original every end by itself is exit 1, and the pid file goes only
//! then, not when a signal ends the process. There is no admin port; `keyferry
//! run -c nutcracker.yml` has one, and reloads.

mod log_line;
mod options;
mod running;
mod texts;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::{self, ConfigError};

pub use log_line::OriginalLines;

use options::Options;

/// Exit code of whatever goes wrong, and of an end by itself.
const FAILED: u8 = 1;

/// Runs the command line after the program's name.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let options = match Options::read(words) {
        Ok(options) => options,
        Err(message) => {
            say(&message);
            say(texts::USAGE);
            return ExitCode::from(FAILED);
        }
    };
    if options.version {
        say(&texts::version());
        if options.help {
            say(texts::USAGE);
        }
        if options.describe {
            say(texts::STATS);
        }
        return ExitCode::SUCCESS;
    }
    if options.test {
        return test(&options);
    }
    ExitCode::from(running::run(&options))
}

/// `-t`. Unlike the original it says the reason, too, above its lines.
fn test(options: &Options) -> ExitCode {
    match config::load_nutcracker(&options.config) {
        Ok(_) => {
            let file = options.config.display();
            say(&format!(
                "nutcracker: configuration file '{file}' syntax is ok"
            ));
            ExitCode::SUCCESS
        }
        Err(error) => {
            reasons(&error).iter().for_each(|reason| say(reason));
            // Once where it is found and once by -t, as the original does.
            say_invalid(options, &error);
            say(&invalid(options));
            ExitCode::from(FAILED)
        }
    }
}

fn invalid(options: &Options) -> String {
    let file = options.config.display();
    format!("nutcracker: configuration file '{file}' syntax is invalid")
}

/// Goes to stderr where a config is read, if there is one.
fn say_invalid(options: &Options, error: &ConfigError) {
    if let ConfigError::Wrong(_) = error {
        say(&invalid(options));
    }
}

/// What is wrong with a config, as lines of the original's log.
fn reasons(error: &ConfigError) -> Vec<String> {
    match error {
        ConfigError::Unreadable { file, cause } => vec![format!(
            "conf: failed to open configuration '{}': {cause}",
            file.display()
        )],
        ConfigError::Wrong(problems) => problems
            .iter()
            .map(|problem| format!("conf: {}", problem.what))
            .collect(),
    }
}

/// Everything the original says goes to stderr.
fn say(text: &str) {
    // Nobody is left to tell if stderr is gone.
    let _ = writeln!(io::stderr(), "{text}");
}
