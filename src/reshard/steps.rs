//! `--step shard`: a pool goes to its new layout one old shard after another.
//!
//! ```text
//! from -> on the way: s1 moved -> on the way: s1, s2 moved -> ... -> to
//!      1                       2                              n    steps, each a whole job
//! ```
//! Each step is a job like any other, from one layout of the way to the next: tap,
//! copy, verify, switch, way back (`router/layout/earlier.rs` says where a key is on
//! the way). Old shards that give no key have no step. They are asked again in the
//! last one, which goes to the new layout itself: what a sample missed moves there.
//!
//! [`Way`] is the plan, kept in a file; [`Walk`] is where a directory's way is. A way
//! has no journal of its own: how far it is, the journals of its steps say, so that
//! nothing can contradict them.
//!
//! Invariants: a step begins when the one before it is completed, and not from any
//! other layout than that one brought. The way back of a step ends before the next
//! begins.

mod file;
mod report;
mod status;
mod walk;

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ending::Ending;
use crate::router::address::ShardAddress;
use crate::router::layout::{Layout, Shard};
use crate::router::layout_error::LayoutError;
use crate::router::moves::{Estimate, Moves};
use crate::router::spec::{EarlierSpec, LayoutSpec};

pub use report::WayReport;
pub use status::StepStatus;
pub use walk::{Present, Walk};

/// The plan of a way; fixed when it begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Way {
    /// Its name, also that of the directory of its steps' directories.
    pub name: String,
    /// The pool.
    pub pool: String,
    /// The layout it begins from.
    pub from: LayoutSpec,
    /// The same, or if that is on the way already, the layout of which no shard had moved.
    pub earlier: LayoutSpec,
    /// The layout it leads to.
    pub to: LayoutSpec,
    /// The steps, at least one.
    pub steps: Vec<Step>,
}

/// One step: the keys of one old shard go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The shard's name.
    pub shard: String,
    /// Its address.
    pub addr: String,
    /// Percent of all keys that leave it, by sampling; those of prefixes aside.
    pub percent: f64,
    /// Where they go: address and percent of all keys.
    pub to: Vec<(String, f64)>,
    /// Names of the shards that have moved when it is done.
    pub moved: Vec<String>,
}

/// Why there is no way, or no going on.
#[derive(Debug, thiserror::Error)]
pub enum StepsError {
    /// The new layout is no plain one.
    #[error("the new layout has an earlier one before it: give the layout that is to be reached")]
    ToIsOnTheWay,
    /// The proxies are between two other layouts.
    #[error(
        "the proxies are on the way to another layout than this one, and a way has no second way before it: go to it without --step"
    )]
    OtherWay,
    /// The proxies are not where the next step begins.
    #[error(
        "the proxies are at epoch {epoch} with another layout than step {number} of {of} begins from; nothing was changed: look at every proxy (GET /api/v1/pools), or begin a new way in another --state directory"
    )]
    NotThere {
        /// Where they are.
        epoch: u64,
        /// The step.
        number: usize,
        /// Of so many.
        of: usize,
    },
    /// The directory holds a way that is under way.
    #[error(
        "{dir} holds step {number} of {of} of pool {pool} ({state}), which is not what was asked: {what}; go on with its own `reshard start --step shard` command, give the step up with `keyferry reshard cancel --yes` (or `rollback` once it has switched), or use another --state directory"
    )]
    UnderWay {
        /// The directory.
        dir: PathBuf,
        /// The step.
        number: usize,
        /// Of so many.
        of: usize,
        /// The way's pool.
        pool: String,
        /// The step's state.
        state: &'static str,
        /// What differs.
        what: &'static str,
    },
    /// A step is done, and not every proxy or server has let go of it.
    #[error(
        "step {number} of {of} has switched, and the next cannot begin yet: {}; start what is missing, then run the same command again",
        .left.join("; ")
    )]
    NotCleared {
        /// The step.
        number: usize,
        /// Of so many.
        of: usize,
        /// What stands before it.
        left: Vec<String>,
    },
    /// A layout that the plan has.
    #[error("a layout of the way cannot be used: {0}")]
    Layout(Box<LayoutError>),
    /// The plan cannot be read or written.
    #[error("plan of the steps {path}: {doing}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// It is not what this program writes.
    #[error(
        "plan of the steps {path}: {what}; nothing was changed: move it away only if no step is under way"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl From<LayoutError> for StepsError {
    fn from(error: LayoutError) -> Self {
        Self::Layout(Box::new(error))
    }
}

impl StepsError {
    /// How the command ends.
    pub fn ending(&self) -> Ending {
        match self {
            Self::ToIsOnTheWay => Ending::Usage,
            Self::OtherWay
            | Self::NotThere { .. }
            | Self::UnderWay { .. }
            | Self::Layout(_)
            | Self::Damaged { .. } => Ending::Guard,
            Self::NotCleared { .. } => Ending::Temporary,
            Self::Io { .. } => Ending::Failed,
        }
    }
}

impl Way {
    /// The way of `moves`, in steps; `estimate` is theirs. It may begin on the way to
    /// the same layout.
    ///
    /// # Errors
    /// [`StepsError`].
    pub fn of(pool: &str, moves: &Moves, estimate: &Estimate) -> Result<Self, StepsError> {
        let (from, to) = (moves.from(), moves.to());
        if to.on_the_way().is_some() {
            return Err(StepsError::ToIsOnTheWay);
        }
        let (earlier, mut moved) = match from.on_the_way() {
            None => (from.as_ref(), Vec::new()),
            Some(way) if way.later_fingerprint == to.fingerprint() => {
                (way.earlier, way.moved.to_vec())
            }
            Some(_) => return Err(StepsError::OtherWay),
        };
        let mut steps: Vec<Step> = Vec::new();
        let unmoved: Vec<&Shard> = (as_written(earlier).into_iter())
            .filter(|shard| !moved.contains(&shard.name))
            .collect();
        for shard in &unmoved {
            let to = given(moves, estimate, &shard.address);
            let is_named = estimate.prefixes.iter().any(|moving| {
                let from = moving.from.map(|from| moves.from().shard(from));
                from.is_none_or(|from| from.address == shard.address)
            });
            if to.is_empty() && !is_named {
                continue;
            }
            moved.push(shard.name.clone());
            steps.push(step(shard, to, moved.clone()));
        }
        if steps.is_empty() {
            // Only names change, or weights: one step, in which nothing moves.
            let last = unmoved.last().copied().or(from.shards().last());
            steps.extend(last.map(|shard| step(shard, Vec::new(), moved)));
        }
        Ok(Self {
            name: format!("steps-{:08x}", fastrand::u32(..)),
            pool: pool.to_owned(),
            from: from.spec().clone(),
            earlier: earlier.spec().clone(),
            to: to.spec().clone(),
            steps,
        })
    }

    /// The layout that step `at`, counted from 0, leads to.
    pub fn layout(&self, at: usize) -> LayoutSpec {
        match self.steps.get(at) {
            Some(step) if at + 1 < self.steps.len() => LayoutSpec {
                earlier: Some(Box::new(EarlierSpec {
                    layout: self.earlier.clone(),
                    moved: step.moved.clone(),
                })),
                ..self.to.clone()
            },
            _ => self.to.clone(),
        }
    }

    /// The layout that step `at` begins from.
    pub fn layout_before(&self, at: usize) -> LayoutSpec {
        match at.checked_sub(1) {
            Some(before) => self.layout(before),
            None => self.from.clone(),
        }
    }

    /// Whether step `at` is the last.
    pub fn is_last(&self, at: usize) -> bool {
        at + 1 >= self.steps.len()
    }
}

fn step(shard: &Shard, to: Vec<(String, f64)>, moved: Vec<String>) -> Step {
    Step {
        shard: shard.name.clone(),
        addr: shard.address.to_string(),
        // An empty float sum is -0.0, which would print its sign.
        percent: to.iter().fold(0.0, |sum, (_, percent)| sum + percent),
        to,
        moved,
    }
}

/// What leaves the server at `address`, by the server it goes to.
fn given(moves: &Moves, estimate: &Estimate, address: &ShardAddress) -> Vec<(String, f64)> {
    let mut given: Vec<(String, f64)> = Vec::new();
    for pair in &estimate.pairs {
        if moves.from().shard(pair.from).address != *address {
            continue;
        }
        let to = moves.to().shard(pair.to).address.to_string();
        match given.iter_mut().find(|(known, _)| *known == to) {
            Some((_, percent)) => *percent += pair.percent,
            None => given.push((to, pair.percent)),
        }
    }
    given
}

/// The shards in the order in which the layout was written, which its own is not.
fn as_written(layout: &Layout) -> Vec<&Shard> {
    let mut shards: Vec<&Shard> = Vec::new();
    for written in &layout.spec().shards {
        let address = written.addr.parse::<ShardAddress>().ok();
        let found = layout.shards().iter().find(|shard| {
            let is_it = match &written.name {
                Some(name) => shard.name == *name,
                None => Some(&shard.address) == address.as_ref(),
            };
            is_it && !shards.iter().any(|known| known.name == shard.name)
        });
        shards.extend(found);
    }
    shards
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", StepsInWords(&self.steps))
    }
}

/// A line for each step.
#[derive(Debug)]
pub struct StepsInWords<'a>(pub &'a [Step]);

impl fmt::Display for StepsInWords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "steps, one old shard each (percent of all keys)")?;
        let of = self.0.len();
        for (at, step) in self.0.iter().enumerate() {
            let (number, Step { shard, addr, .. }) = (at + 1, step);
            write!(
                f,
                "  {number} of {of}  {shard} {addr}: {:.1} %",
                step.percent
            )?;
            for (at, (to, percent)) in step.to.iter().enumerate() {
                let before = if at == 0 { " ->" } else { "," };
                write!(f, "{before} {to} {percent:.1} %")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
