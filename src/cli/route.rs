//! `keyferry route`: which shard owns each key, by the config's layout.
//!
//! One line a key: `key TAB shard TAB address`; with `--json` one object a line.

use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::os::unix::ffi::OsStrExt;

use serde_json::json;

use crate::config;
use crate::router::layout::Layout;
use crate::router::placement::{parse_hex, write_placement};

use super::ConfigFile;
use super::exit::ExitStatus;
use super::output::{fail, finish, print_error, stdout, write_json};
use super::pool_choice::choose;

/// Arguments of `keyferry route`.
#[derive(Debug, clap::Args)]
pub struct RouteArgs {
    #[command(flatten)]
    config: ConfigFile,
    /// The pool, if the config has more than one
    #[arg(short, long, value_name = "POOL")]
    pool: Option<String>,
    /// Keys are written in hex
    #[arg(long)]
    hex: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// Keys; `-` alone reads them from stdin, one a line
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<OsString>,
}

/// Why a line could not be answered.
enum Stop {
    Output(io::Error),
    Input(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Runs `keyferry route`.
pub fn run(args: &RouteArgs) -> ExitStatus {
    let layout = match layout(args) {
        Ok(layout) => layout,
        Err(message) => {
            print_error(&message);
            return ExitStatus::Usage;
        }
    };
    if !layout.is_deterministic() {
        fail(
            "no key has an owner with distribution \"random\"",
            "choose a pool with another distribution",
        );
        return ExitStatus::Usage;
    }
    let mut out = stdout();
    let answered = if args.keys.as_slice() == ["-"] {
        answer_stdin(&mut out, &layout, args)
    } else {
        args.keys
            .iter()
            .try_for_each(|key| answer(&mut out, &layout, args, key.as_bytes()))
    };
    match answered {
        Ok(()) => finish(out, Ok(()), ExitStatus::Done),
        Err(Stop::Output(error)) => finish(out, Err(error), ExitStatus::Done),
        Err(Stop::Input(message)) => {
            let status = finish(out, Ok(()), ExitStatus::Usage);
            print_error(&message);
            status
        }
    }
}

fn layout(args: &RouteArgs) -> Result<Layout, String> {
    let file = &args.config.file;
    let config = config::load(file).map_err(|error| error.to_string())?;
    let pool = choose(&config, file, args.pool.as_deref()).map_err(|error| error.to_string())?;
    Layout::new(pool.layout.clone()).map_err(|error| format!("error: {error}"))
}

fn answer_stdin(out: &mut impl Write, layout: &Layout, args: &RouteArgs) -> Result<(), Stop> {
    let mut stdin = io::stdin().lock();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = stdin.read_until(b'\n', &mut line);
        let read = read.map_err(|error| {
            Stop::Input(format!(
                "error: cannot read stdin: {error}\n  help: check where the keys come from"
            ))
        })?;
        if read == 0 {
            return Ok(());
        }
        answer(out, layout, args, line.strip_suffix(b"\n").unwrap_or(&line))?;
    }
}

fn answer(
    out: &mut impl Write,
    layout: &Layout,
    args: &RouteArgs,
    shown: &[u8],
) -> Result<(), Stop> {
    let decoded;
    let key = if args.hex {
        decoded = parse_hex(shown).map_err(|error| {
            let shown = String::from_utf8_lossy(shown);
            Stop::Input(format!(
                "error: {error}\n  {shown}\n  help: write the key as hex digits, or leave out --hex"
            ))
        })?;
        decoded.as_slice()
    } else {
        shown
    };
    if !args.json {
        return Ok(write_placement(out, layout, shown, key)?);
    }
    let shard = layout.shard(layout.owner(key));
    let address = shard.address.to_string();
    // A key that is no text is told in hex, as JSON has no bytes.
    let line = match std::str::from_utf8(key) {
        Ok(text) => json!({"v": 1, "key": text, "shard": shard.name, "address": address}),
        Err(_) => json!({"v": 1, "key_hex": hex(key), "shard": shard.name, "address": address}),
    };
    Ok(write_json(out, &line)?)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
