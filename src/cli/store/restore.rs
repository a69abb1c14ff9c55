//! `keyferry store restore`: a new shard of a backup, or of a dump.rdb.
//!
//! Exit codes: 0 it is there, durable and compared with the file; 1 it could not be made;
//! 2 FILE cannot be read, or DIR not be made; 3 what was made is not what FILE holds; 4 FILE
//! is damaged or DIR not empty, and nothing was changed; 6 another restore works in DIR; 75
//! interrupted. After all but 0 what it made in DIR is removed.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use super::interrupted::interruptible;
use super::serve::memory;
use crate::cli::exit::ExitStatus;
use crate::cli::output::{fail, finish, stdout, write_json};
use crate::config::MEMORY_BYTES_DEFAULT;
use crate::rdb::Checksum;
use crate::store::backup::{Contents, Progress, RestoreError, restore};
use crate::store::server::StartError;

/// Arguments of `keyferry store restore`.
#[derive(Debug, clap::Args)]
pub struct RestoreArgs {
    /// A file that `keyferry store backup` made, or a Redis' dump.rdb
    #[arg(value_name = "FILE")]
    from: PathBuf,
    /// The new shard's directory: made if it is missing, refused if it is not empty
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Memory for it meanwhile [default: 512MB]
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory: Option<u64>,
    /// The summary as one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs `keyferry store restore`.
pub fn run(args: &RestoreArgs) -> ExitStatus {
    let progress = Progress::default();
    let began = Instant::now();
    let memory_bytes = args.memory.unwrap_or(MEMORY_BYTES_DEFAULT);
    let restored = interruptible(&progress, || {
        restore(&args.from, &args.dir, memory_bytes, &progress)
    });
    match restored {
        Ok(Ok(restored)) => tell(args, &restored.contents, began.elapsed()),
        Ok(Err(error)) => complain(&error),
        Err(status) => status,
    }
}

fn tell(args: &RestoreArgs, contents: &Contents, took: Duration) -> ExitStatus {
    let mut out = stdout();
    let written = match args.json {
        true => write_object(&mut out, args, contents, took),
        false => write_text(&mut out, args, contents, took),
    };
    finish(out, written, ExitStatus::Done)
}

fn was_checked(contents: &Contents) -> bool {
    matches!(contents.checksum, Checksum::Verified)
}

fn write_text(
    out: &mut impl Write,
    args: &RestoreArgs,
    contents: &Contents,
    took: Duration,
) -> io::Result<()> {
    writeln!(
        out,
        "{} keys of {} in {}, {:.1} s",
        contents.keys(),
        args.from.display(),
        args.dir.display(),
        took.as_secs_f64()
    )?;
    if let Some((settings, users)) = contents.kept_counts()? {
        writeln!(out, "{settings} settings, {users} users")?;
    }
    if !was_checked(contents) {
        writeln!(
            out,
            "the file has no checksum: who wrote it had them switched off"
        )?;
    }
    if let Some(digest) = contents.digest {
        writeln!(out, "DEBUG DIGEST {}", digest.text())?;
    }
    writeln!(out, "start it: keyferry store --dir {}", args.dir.display())
}

fn write_object(
    out: &mut impl Write,
    args: &RestoreArgs,
    contents: &Contents,
    took: Duration,
) -> io::Result<()> {
    let databases = contents
        .databases
        .iter()
        .map(|(db, of)| json!({ "db": db, "keys": of.keys, "expires": of.expiring }));
    let kept = contents.kept_counts()?;
    let object = json!({
        "v": 1,
        "file": args.from.display().to_string(),
        "dir": args.dir.display().to_string(),
        "keys": contents.keys(),
        "databases": databases.collect::<Vec<_>>(),
        "libraries": contents.libraries,
        "settings": kept.map(|(settings, _)| settings),
        "users": kept.map(|(_, users)| users),
        "digest": contents.digest.map(|digest| digest.text()),
        "has_checksum": was_checked(contents),
        "of_replid": contents.about.get("repl-id"),
        "of_offset": contents.about.get("repl-offset"),
        "seconds": took.as_secs_f64(),
    });
    write_json(out, &object)
}

fn complain(error: &RestoreError) -> ExitStatus {
    let (help, status) = match error {
        RestoreError::File { .. } => ("name a backup that this user may read", ExitStatus::Usage),
        RestoreError::Damaged { .. } => (
            "nothing was changed; take another backup (`keyferry rdb cat` shows what is readable)",
            ExitStatus::Refused,
        ),
        RestoreError::NotKept { .. } => (
            "nothing was changed; `keyferry rdb load` can load the other keys into a running shard",
            ExitStatus::Refused,
        ),
        RestoreError::NotEmpty { .. } => (
            "nothing was changed; name a directory that is not there yet",
            ExitStatus::Refused,
        ),
        RestoreError::Busy(_) => ("wait for it, or name another", ExitStatus::AlreadyRuns),
        RestoreError::Interrupted => (
            "what was made is removed: run it again",
            ExitStatus::TryAgain,
        ),
        RestoreError::Differs(_) => (
            "what was made is removed; keep the file, and tell us: it should not happen",
            ExitStatus::Differences,
        ),
        RestoreError::Load(_) => (
            "what was made is removed; `keyferry rdb load` can load the other keys into a running shard",
            ExitStatus::Failed,
        ),
        RestoreError::Dir { .. } => (
            "nothing was made; name a directory that this user can make, or that is empty",
            ExitStatus::Usage,
        ),
        RestoreError::Shard(StartError::Setting { .. } | StartError::User { .. }) => (
            "what was made is removed; a keyferry of the version that made the backup knows them",
            ExitStatus::Refused,
        ),
        RestoreError::Shard(_) | RestoreError::Rows(_) => (
            "what was made is removed; once that is mended, run it again",
            ExitStatus::Failed,
        ),
    };
    fail(&error.to_string(), help);
    status
}
