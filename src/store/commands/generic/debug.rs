//! DEBUG, as far as it is about the data.

use std::time::Duration;

use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::kinds::{digest, encoding};

/// Longest time for which DEBUG SLEEP stops the shard.
const SLEEP_SECONDS_MAX: f64 = 3600.0;

const HELP: &[&str] = &[
    "DEBUG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "DIGEST",
    "    Output a hex signature representing the current DB content.",
    "DIGEST-VALUE <key> [<key> ...]",
    "    Output a hex signature of the values of all the specified keys.",
    "ERROR <string>",
    "    Return a Redis protocol error with <string> as message. Useful for clients",
    "    unit tests to simulate Redis errors.",
    "OBJECT <key>",
    "    Show low level info about `key` and associated value.",
    "SLEEP <seconds>",
    "    Stop the server for <seconds>. Decimals allowed.",
    "HELP",
    "    Prints this help.",
];

pub(super) fn debug(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let name = args.at(1).to_ascii_lowercase();
    match (&name[..], args.len()) {
        (b"digest", 2) => {
            let digest = digest::of_all(context.keyspace)?;
            context.reply.status(&digest.text());
        }
        (b"digest-value", _) => {
            context.reply.array(args.len() - 2);
            for key in args.from(2) {
                // Also of a key whose time is over, if it is still there.
                let found = context.keyspace.lookup(context.db, key)?;
                let digest = digest::of_object(context.keyspace.rows(), found.as_ref())?;
                context.reply.status(&digest.text());
            }
        }
        (b"error", 3) => {
            return Err(Failure::quoting("", args.at(2), ""));
        }
        (b"object", 3) => {
            let found = context.keyspace.lookup(context.db, args.at(2))?;
            let object = found.ok_or(Failure::NO_SUCH_KEY)?;
            let encoding = encoding(&object.value);
            context.reply.status(&format!(
                "Value at:0x0 refcount:1 encoding:{encoding} serializedlength:{} lru:0 \
                 lru_seconds_idle:0",
                object.encode().len()
            ));
        }
        (b"sleep", 3) => {
            let seconds = std::str::from_utf8(args.at(2)).ok();
            let seconds: f64 = seconds.and_then(|text| text.parse().ok()).unwrap_or(0.0);
            if seconds > 0.0 {
                std::thread::sleep(Duration::from_secs_f64(seconds.min(SLEEP_SECONDS_MAX)));
            }
            context.reply.ok();
        }
        (b"help", 2) => {
            context.reply.array(HELP.len());
            for line in HELP {
                context.reply.status(line);
            }
        }
        _ => {
            return Err(Failure::quoting(
                "ERR unknown subcommand or wrong number of arguments for '",
                args.at(1),
                "'. Try DEBUG HELP.",
            ));
        }
    }
    Ok(())
}
