//! `keyferry convert`: a nutcracker.yml as TOML.
//!
//! The text is read back before it is handed out: its pools are the same, so
//! every key keeps its shard.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::config::{self, Config};

use super::exit::ExitStatus;
use super::output::{fail, finish, print_error, stdout};

/// Arguments of `keyferry convert`.
#[derive(Debug, clap::Args)]
pub struct ConvertArgs {
    /// The nutcracker.yml
    #[arg(value_name = "NUTCRACKER.YML")]
    file: PathBuf,
    /// Where the TOML goes; it must not be there yet
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs `keyferry convert`.
pub fn run(args: &ConvertArgs) -> ExitStatus {
    let config = match config::load_nutcracker(&args.file) {
        Ok(config) => config,
        Err(error) => {
            print_error(&error.to_string());
            return ExitStatus::Usage;
        }
    };
    let pools = match config::to_toml(&config) {
        Ok(pools) => pools,
        Err(error) => {
            fail(
                &error.to_string(),
                "write this pool by hand; configs/small.toml shows how",
            );
            return ExitStatus::Failed;
        }
    };
    let text = head(&args.file, &config) + &pools;
    match &args.output {
        None => {
            let mut out = stdout();
            let written = out.write_all(text.as_bytes());
            finish(out, written, ExitStatus::Done)
        }
        Some(path) => match write_new(path, &text) {
            Ok(()) => ExitStatus::Done,
            Err(error) => {
                fail(
                    &format!("cannot write {}: {error}", path.display()),
                    "name a file that is not there yet, in a directory this user can write",
                );
                ExitStatus::Failed
            }
        },
    }
}

fn head(file: &Path, config: &Config) -> String {
    let admin = config.admin.http.map(|http| http.to_string());
    format!(
        "# From {}, by keyferry convert. What differs from twemproxy's defaults says so.\n\
\n\
         [admin]\n\
         # twemproxy has none; needed for resharding.\n\
         http = \"{}\"\n\
         # twemproxy's statistics; its default is 0.0.0.0:22222.\n\
         nutcracker_stats = \"127.0.0.1:22222\"\n\n",
        file.display().to_string().escape_default(),
        admin.unwrap_or_default()
    )
}

/// A new file that only its owner may read: it may hold passwords.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(path)?.write_all(text.as_bytes())
}
