//! `keyferry config diff A B`: percent of the key space that moves, for each
//! pair of shards. A and B are configs or layout files.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use crate::config::{self, Loaded};
use crate::router::layout::{Layout, ShardIndex};
use crate::router::moves::{ESTIMATE_SAMPLES, Estimate, Moves};
use crate::router::spec::LayoutSpec;

use super::exit::ExitStatus;
use super::output::{finish, print_error, stdout, write_json};

/// Arguments of `keyferry config diff`.
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// The config or layout file in use
    #[arg(value_name = "A")]
    old: PathBuf,
    /// The config or layout file to compare it with
    #[arg(value_name = "B")]
    new: PathBuf,
    /// Only this pool
    #[arg(short, long, value_name = "POOL")]
    pool: Option<String>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// What became of one pool.
enum Change {
    Added,
    Removed,
    Compared {
        from: Arc<Layout>,
        to: Arc<Layout>,
        estimate: Estimate,
    },
}

/// Runs `keyferry config diff`.
pub fn run(args: &DiffArgs) -> ExitStatus {
    let changes = match changes(args) {
        Ok(changes) => changes,
        Err(message) => {
            print_error(&message);
            return ExitStatus::Usage;
        }
    };
    let mut out = stdout();
    let written = if args.json {
        write_object(&mut out, &changes)
    } else {
        write_text(&mut out, &changes)
    };
    finish(out, written, ExitStatus::Done)
}

fn changes(args: &DiffArgs) -> Result<Vec<(String, Change)>, String> {
    let (old, new) = (load(&args.old)?, load(&args.new)?);
    let pairs = pair(old, new);
    let wanted = |name: &str| args.pool.as_deref().is_none_or(|pool| pool == name);
    let pairs: Vec<_> = pairs
        .into_iter()
        .filter(|(name, ..)| wanted(name))
        .collect();
    if pairs.is_empty() {
        let asked = args.pool.as_deref().unwrap_or_default();
        let files = format!("{}, {}", args.old.display(), args.new.display());
        return Err(format!(
            "error: there is no pool `{asked}`\n  {files}\n  help: check the name after -p"
        ));
    }
    pairs
        .into_iter()
        .map(|(name, old, new)| {
            let change = match (old, new) {
                (Some(old), Some(new)) => compare(&name, old, new)?,
                (None, _) => Change::Added,
                (_, None) => Change::Removed,
            };
            Ok((name, change))
        })
        .collect()
}

fn load(file: &Path) -> Result<Loaded, String> {
    config::load_either(file).map_err(|error| error.to_string())
}

type Pair = (String, Option<LayoutSpec>, Option<LayoutSpec>);

/// Pools by name; a layout file is compared with every pool of the other side.
fn pair(old: Loaded, new: Loaded) -> Vec<Pair> {
    match (old, new) {
        (Loaded::Layout(old), Loaded::Layout(new)) => {
            vec![("layout".to_owned(), Some(old), Some(new))]
        }
        (Loaded::Config(old), Loaded::Layout(new)) => {
            let pools = old.pools.into_iter();
            pools
                .map(|pool| (pool.name, Some(pool.layout), Some(new.clone())))
                .collect()
        }
        (Loaded::Layout(old), Loaded::Config(new)) => {
            let pools = new.pools.into_iter();
            pools
                .map(|pool| (pool.name, Some(old.clone()), Some(pool.layout)))
                .collect()
        }
        (Loaded::Config(old), Loaded::Config(new)) => {
            let mut pairs: Vec<Pair> = old
                .pools
                .into_iter()
                .map(|pool| (pool.name, Some(pool.layout), None))
                .collect();
            for pool in new.pools {
                match pairs.iter_mut().find(|(name, ..)| *name == pool.name) {
                    Some((.., new)) => *new = Some(pool.layout),
                    None => pairs.push((pool.name, None, Some(pool.layout))),
                }
            }
            pairs
        }
    }
}

fn compare(name: &str, old: LayoutSpec, new: LayoutSpec) -> Result<Change, String> {
    let layout = |spec| {
        Layout::new(spec)
            .map(Arc::new)
            .map_err(|error| format!("error: {error}"))
    };
    let (from, to) = (layout(old)?, layout(new)?);
    let moves = Moves::between(Arc::clone(&from), Arc::clone(&to)).map_err(|error| {
        format!("error: pool `{name}` cannot be compared: {error}\n  help: leave it out with -p")
    })?;
    let estimate = moves.estimate(ESTIMATE_SAMPLES);
    Ok(Change::Compared { from, to, estimate })
}

fn write_text(out: &mut impl Write, changes: &[(String, Change)]) -> io::Result<()> {
    for (name, change) in changes {
        match change {
            Change::Added => writeln!(out, "pool {name}: only in the second file")?,
            Change::Removed => writeln!(out, "pool {name}: only in the first file")?,
            Change::Compared { from, to, estimate } => {
                let (percent, samples) = (estimate.moving_percent, estimate.samples);
                writeln!(
                    out,
                    "pool {name}: {percent:.1} % of the key space moves (of {samples} sample keys)"
                )?;
                for pair in &estimate.pairs {
                    let (a, b) = (shown(from, pair.from), shown(to, pair.to));
                    writeln!(out, "  {:5.1} %  {a} -> {b}", pair.percent)?;
                }
                for moving in &estimate.prefixes {
                    writeln!(out, "  {}", moving.in_words(from, to))?;
                }
            }
        }
    }
    Ok(())
}

fn shown(layout: &Layout, index: ShardIndex) -> String {
    let shard = layout.shard(index);
    let address = shard.address.to_string();
    if shard.name == address {
        address
    } else {
        format!("{} ({address})", shard.name)
    }
}

fn write_object(out: &mut impl Write, changes: &[(String, Change)]) -> io::Result<()> {
    let shard = |layout: &Layout, index| {
        let shard = layout.shard(index);
        json!({"name": shard.name, "address": shard.address.to_string()})
    };
    let pools = changes.iter().map(|(name, change)| match change {
        Change::Added => json!({"name": name, "change": "added"}),
        Change::Removed => json!({"name": name, "change": "removed"}),
        Change::Compared { from, to, estimate } => {
            let pairs = estimate.pairs.iter().map(|pair| {
                json!({"from": shard(from, pair.from), "to": shard(to, pair.to), "percent": pair.percent})
            });
            json!({
                "name": name,
                "change": "compared",
                "moving_percent": estimate.moving_percent,
                "samples": estimate.samples,
                "pairs": pairs.collect::<Vec<_>>(),
                "prefixes": estimate.prefixes.iter()
                    .map(|moving| moving.in_words(from, to))
                    .collect::<Vec<_>>(),
            })
        }
    });
    write_json(out, &json!({"v": 1, "pools": pools.collect::<Vec<_>>()}))
}
