//! `keyferry store backup`: a running shard, as it is at one moment, into a new file.
//!
//! Exit codes: 0 it is there, whole and durable; 1 it could not be made; 4 FILE is there
//! already; 6 another backup writes it; 75 the connection was lost, or it was interrupted.
//! After all but 0 there is no FILE.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use super::interrupted::interruptible;
use super::shard::{Shard, ShardArgs, help_of};
use crate::cli::exit::ExitStatus;
use crate::cli::output::{fail, finish, print_error, stdout, write_json};
use crate::store::backup::{Progress, SaveError, Saved, save};
use crate::store::client::ClientError;

/// Arguments of `keyferry store backup`.
#[derive(Debug, clap::Args)]
pub struct BackupArgs {
    #[command(flatten)]
    shard: ShardArgs,
    /// The file to make; one that is there is never replaced
    #[arg(value_name = "FILE")]
    to: PathBuf,
    /// The summary as one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs `keyferry store backup`.
pub fn run(args: &BackupArgs) -> ExitStatus {
    let from = match args.shard.find() {
        Ok(Shard::Runs(target)) => target,
        Ok(Shard::Rests(dir)) => {
            fail(
                &format!("nobody serves the shard in {}", dir.display()),
                "start it and back it up, or copy the directory as it is while nobody does",
            );
            return ExitStatus::Failed;
        }
        Err(status) => return status,
    };
    let progress = Progress::default();
    let began = Instant::now();
    let saved = interruptible(&progress, || save(&from, &args.to, &progress));
    match saved {
        Ok(Ok(saved)) => tell(args, &saved, began.elapsed()),
        Ok(Err(error)) => complain(&error),
        Err(status) => status,
    }
}

fn tell(args: &BackupArgs, saved: &Saved, took: Duration) -> ExitStatus {
    if let Some(what) = &saved.contents.not_kept {
        print_error(&format!(
            "note: it holds {what}: Redis can load it, a built-in shard cannot"
        ));
    }
    if saved.contents.kept.is_none() {
        print_error(
            "note: settings and users are not in it: either it is no built-in shard (of this \
             version), or this user may not CONFIG GET and ACL LIST",
        );
    }
    let mut out = stdout();
    let written = match args.json {
        true => write_object(&mut out, args, saved, took),
        false => write_text(&mut out, args, saved, took),
    };
    finish(out, written, ExitStatus::Done)
}

fn digest(saved: &Saved) -> Option<String> {
    saved.contents.digest.map(|digest| digest.text())
}

fn write_text(
    out: &mut impl Write,
    args: &BackupArgs,
    saved: &Saved,
    took: Duration,
) -> io::Result<()> {
    let contents = &saved.contents;
    writeln!(
        out,
        "{} keys of {} in {}, {} bytes, {:.1} s",
        contents.keys(),
        args.shard.name(),
        args.to.display(),
        contents.bytes,
        took.as_secs_f64()
    )?;
    writeln!(out, "at offset {} of {}", saved.offset, saved.replid)?;
    if let Some((settings, users)) = contents.kept_counts()? {
        writeln!(out, "{settings} settings, {users} users")?;
    }
    match digest(saved) {
        Some(digest) => writeln!(out, "DEBUG DIGEST {digest}"),
        None => Ok(()),
    }
}

fn write_object(
    out: &mut impl Write,
    args: &BackupArgs,
    saved: &Saved,
    took: Duration,
) -> io::Result<()> {
    let contents = &saved.contents;
    let databases = contents
        .databases
        .iter()
        .map(|(db, of)| json!({ "db": db, "keys": of.keys, "expires": of.expiring }));
    let kept = contents.kept_counts()?;
    let object = json!({
        "v": 1,
        "file": args.to.display().to_string(),
        "shard": args.shard.name(),
        "bytes": contents.bytes,
        "keys": contents.keys(),
        "databases": databases.collect::<Vec<_>>(),
        "libraries": contents.libraries,
        "settings": kept.map(|(settings, _)| settings),
        "users": kept.map(|(_, users)| users),
        "replid": saved.replid,
        "offset": saved.offset,
        "digest": digest(saved),
        "not_restorable": contents.not_kept,
        "seconds": took.as_secs_f64(),
    });
    write_json(out, &object)
}

fn complain(error: &SaveError) -> ExitStatus {
    let (help, status) = match error {
        SaveError::Exists(_) => (
            "name another file, or move that one away",
            ExitStatus::Refused,
        ),
        SaveError::Place { .. } => (
            "name a file in a directory that is there",
            ExitStatus::Usage,
        ),
        SaveError::Busy(_) => ("wait for it, or name another file", ExitStatus::AlreadyRuns),
        SaveError::Shard(error) if error.is_temporary() => (
            "what was written is removed: run it again",
            ExitStatus::TryAgain,
        ),
        SaveError::Shard(ClientError::Refused { words, .. }) if words.starts_with("NOPERM") => (
            "name a user with --user who may use PSYNC and REPLCONF",
            ExitStatus::Failed,
        ),
        SaveError::Shard(error) => (help_of(error), ExitStatus::Failed),
        SaveError::Interrupted => (
            "what was written is removed: run it again",
            ExitStatus::TryAgain,
        ),
        SaveError::Contents(_) | SaveError::End => (
            "what was written is removed; look into the shard's log, and check the network",
            ExitStatus::Failed,
        ),
        SaveError::DiskFull { .. } => (
            "what was written is removed: make room, or name a file on another disk",
            ExitStatus::Failed,
        ),
        SaveError::Write { .. } => (
            "what was written is removed: check the disk, and that this user may write there",
            ExitStatus::Failed,
        ),
    };
    fail(&error.to_string(), help);
    status
}
