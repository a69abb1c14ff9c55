//! DEBUG, as far as it is about the data.

use std::time::Duration;

use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::Failure;
use crate::store::format::object::{Object, Value, Written};
use crate::store::kinds::{digest, encoding, string};

/// Longest time for which DEBUG SLEEP stops the shard.
const SLEEP_SECONDS_MAX: f64 = 3600.0;

/// Most keys, and bytes of their values, that DEBUG POPULATE makes at once: they are one
/// frame of the log.
const POPULATED_MAX: usize = 1_000_000;
const POPULATED_BYTES_MAX: usize = 256 << 20;

const HELP: &[&str] = &[
    "DEBUG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CHANGE-REPL-ID",
    "    Change the replication IDs of the instance.",
    "DIGEST",
    "    Output a hex signature representing the current DB content.",
    "DIGEST-VALUE <key> [<key> ...]",
    "    Output a hex signature of the values of all the specified keys.",
    "ERROR <string>",
    "    Return a Redis protocol error with <string> as message. Useful for clients",
    "    unit tests to simulate Redis errors.",
    "LOG <message>",
    "    Write <message> to the server log.",
    "OBJECT <key>",
    "    Show low level info about `key` and associated value.",
    "POPULATE <count> [<prefix>] [<size>]",
    "    Create <count> string keys named key:<num>. If <prefix> is specified then",
    "    it is used instead of the 'key' prefix. They are told to replicas.",
    "PROTOCOL <type>",
    "    Reply with a test value of the specified type.",
    "RELOAD",
    "    Forget what is cached: all is read from the rows again.",
    "SET-ACTIVE-EXPIRE <0|1>",
    "    Setting it to 0 disables expiring keys in background when they are not",
    "    accessed.",
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
        (b"populate", 3..=5) => populate(context, args)?,
        (b"protocol", 3) => super::protocol::tell(context, args.at(2))?,
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

/// Keys that are there stay as they are.
fn populate(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let count = positive(args, 2)?;
    let size = match args.len() {
        5 => positive(args, 4)?,
        _ => 0,
    };
    if count > POPULATED_MAX || count.saturating_mul(size) > POPULATED_BYTES_MAX {
        return Err(Failure::words(
            "ERR so many bytes are too many at once: populate in pieces, with other prefixes",
        ));
    }
    // What the log is not told is gone after a restart; a replica's log is its master's.
    if !context.is_master() {
        return Err(Failure::words(
            "READONLY You can't write against a read only replica.",
        ));
    }
    let prefix = match args.len() {
        3 => b"key",
        _ => args.at(3),
    };
    for number in 0..count {
        let key = [prefix, format!(":{number}").as_bytes()].concat();
        if context.lookup(&key)?.is_some() {
            continue;
        }
        let mut value = format!("value:{number}").into_bytes();
        if size > 0 {
            value.resize(size, 0);
        }
        let string = string::store(context.keyspace, &value, Written::Whole);
        let object = Object {
            expires_at_ms: None,
            value: Value::String(string),
        };
        context.put(&key, object)?;
        context.propagate(&[b"SET", &key, &value]);
    }
    context.reply.ok();
    Ok(())
}

fn positive(args: Args<'_>, number: usize) -> Result<usize, Failure> {
    let value = args.integer(number).map_err(|_| Failure::NOT_POSITIVE)?;
    usize::try_from(value).map_err(|_| Failure::NOT_POSITIVE)
}
