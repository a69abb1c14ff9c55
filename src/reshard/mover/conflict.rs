//! Keys that targets already hold although they are to arrive from a source.
//!
//! They are strays of an earlier layout, somebody else's, or what an earlier
//! run of this job copied. They are looked for before anything moves, so that
//! the default policy can refuse with nothing changed.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::resp::Value;
use crate::restore::{Overwrite, TEMPORARY_PREFIX};

use super::begin::Begin;
use super::client_list::client_ids;
use super::config::{EXAMPLES_MAX, MoverConfig, OnConflict, SKIPPED_KEYS_MAX};
use super::error::{KeyAt, MoveError, Role};
use super::keyspace::KeyWalk;
use super::link::Link;
use super::placement::{Placement, TargetIndex};
use super::removal::{remove_checkpoints, remove_keys};

/// What one target holds.
#[derive(Default)]
struct Found {
    count: u64,
    examples: Vec<KeyAt>,
    skipped: HashSet<(u32, Vec<u8>)>,
}

/// What is done about a key found.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Act {
    Count,
    Remove,
    Remember,
}

/// Proof: the conflict policy was applied on every target. Only
/// [`check_targets`] makes it, and `start` copies nothing without it.
pub struct TargetsChecked {
    pub(super) placement: Placement,
    pub(super) overwrite: Overwrite,
}

/// Looks for moving keys that targets already hold, and does with them what
/// the policy says: refuse (`fail`), remove (`replace`, or a resumed job, whose
/// own they are), or remember (`skip`). Keys found from here on are the job's
/// own, so a job notes that it copies between this and `start`.
///
/// # Errors
/// With [`MoveError::is_refusal`] nothing was changed anywhere. After other
/// errors some of the keys that the policy removes may be gone.
pub async fn check_targets(cfg: &MoverConfig) -> Result<TargetsChecked, MoveError> {
    let cfg = cfg.clone().patient();
    check_layouts(&cfg)?;
    let placement = Placement::new(&cfg.moves);
    let placement = match cfg.begin {
        Begin::Copy => clear_targets(&cfg, placement).await?,
        Begin::Resume if cfg.on_conflict == OnConflict::Skip => {
            return Err(MoveError::SkipCannotResume);
        }
        // What targets hold is the copy that is gone on with.
        Begin::Resume | Begin::Follow(_) => placement,
    };
    let overwrite = match (&cfg.begin, cfg.on_conflict, cfg.resumed) {
        (Begin::Copy, OnConflict::Fail | OnConflict::Skip, false) => Overwrite::Never,
        _ => Overwrite::Always,
    };
    Ok(TargetsChecked {
        placement,
        overwrite,
    })
}

fn check_layouts(cfg: &MoverConfig) -> Result<(), MoveError> {
    if !cfg.moves.from().is_deterministic() {
        return Err(MoveError::NotDeterministic { which: "old" });
    }
    if !cfg.moves.to().is_deterministic() {
        return Err(MoveError::NotDeterministic { which: "new" });
    }
    Ok(())
}

/// Applies the conflict policy on all targets; the placement that comes back
/// leaves the skipped keys alone.
async fn clear_targets(cfg: &MoverConfig, placement: Placement) -> Result<Placement, MoveError> {
    let act = match (cfg.resumed, cfg.on_conflict) {
        (_, OnConflict::Replace) | (true, OnConflict::Fail) => Act::Remove,
        (false, OnConflict::Fail) => Act::Count,
        (false, OnConflict::Skip) => Act::Remember,
        (true, OnConflict::Skip) => return Err(MoveError::SkipCannotResume),
    };
    let placement = Arc::new(placement);
    let mut walks = JoinSet::new();
    for target in (0..placement.targets().len()).map(TargetIndex) {
        let (cfg, placement) = (cfg.clone(), Arc::clone(&placement));
        walks.spawn(async move { clear_target(&cfg, &placement, target, act).await });
    }
    let mut all = Found::default();
    while let Some(walk) = walks.join_next().await {
        let found = walk.map_err(|error| MoveError::TaskLost {
            task: "look for keys in targets".to_owned(),
            how: error.to_string(),
        })??;
        all.count += found.count;
        all.examples.extend(found.examples);
        all.skipped.extend(found.skipped);
    }
    if act == Act::Count && all.count > 0 {
        all.examples.truncate(EXAMPLES_MAX);
        return Err(MoveError::Conflict {
            examples: all.examples,
            count: all.count,
        });
    }
    if all.skipped.len() > SKIPPED_KEYS_MAX {
        return Err(MoveError::TooManySkipped {
            max: SKIPPED_KEYS_MAX,
        });
    }
    let placement = Arc::into_inner(placement).unwrap_or_else(|| Placement::new(&cfg.moves));
    Ok(placement.skipping(all.skipped))
}

async fn clear_target(
    cfg: &MoverConfig,
    placement: &Placement,
    target: TargetIndex,
    act: Act,
) -> Result<Found, MoveError> {
    let mut found = Found::default();
    let Some(server) = placement.targets().get(target.0) else {
        return Ok(found);
    };
    let mut link = Link::connect(Role::Target, server, &cfg.upstream).await?;
    if act == Act::Remove {
        end_old_lanes(&mut link, &cfg.job).await?;
        // First of all: what is removed must not be gone on with.
        remove_checkpoints(&mut link, &cfg.job, placement.sources().len()).await?;
    }
    let mut walk = KeyWalk::new(&mut link).await?;
    while let Some(page) = walk.next(&mut link).await? {
        if act == Act::Remove {
            let unfinished = page.keys.iter().filter(|key| is_unfinished(&cfg.job, key));
            let unfinished: Vec<Bytes> = unfinished.cloned().collect();
            remove_keys(&mut link, &unfinished).await?;
        }
        let keys: Vec<Bytes> = page
            .keys
            .into_iter()
            .filter(|key| placement.arrives_at(target, key).is_some())
            .collect();
        found.count += keys.len() as u64;
        match act {
            Act::Remove => remove_keys(&mut link, &keys).await?,
            Act::Remember => {
                found
                    .skipped
                    .extend(keys.iter().map(|key| (page.db, key.to_vec())));
                if found.skipped.len() > SKIPPED_KEYS_MAX {
                    return Err(MoveError::TooManySkipped {
                        max: SKIPPED_KEYS_MAX,
                    });
                }
            }
            Act::Count => {
                let room = EXAMPLES_MAX.saturating_sub(found.examples.len());
                let at = |key: &Bytes| KeyAt {
                    db: page.db,
                    key: key.to_vec(),
                    server: server.clone(),
                };
                found.examples.extend(keys.iter().take(room).map(at));
            }
        }
    }
    Ok(found)
}

/// Whether a key is a value that a run of this job was building.
pub(super) fn is_unfinished(job: &str, key: &[u8]) -> bool {
    let rest = key.strip_prefix(TEMPORARY_PREFIX.as_bytes());
    let rest = rest.and_then(|rest| rest.strip_prefix(job.as_bytes()));
    rest.is_some_and(|rest| rest.first() == Some(&b':'))
}

/// What the names of our lanes' connections begin with.
pub(super) fn lane_name(job: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() { c } else { '_' };
    let job: String = job.chars().map(plain).collect();
    format!("keyferry:{job}:lane")
}

/// A run that was killed may have left requests in its sockets, which the
/// server would still execute: end those connections before looking for keys.
pub(super) async fn end_old_lanes(link: &mut Link, job: &str) -> Result<Ended, MoveError> {
    let base = lane_name(job);
    let is_lane = |name: &str| {
        let rest = name.strip_prefix(&base);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    };
    end_connections(link, is_lane).await
}

/// Whether connections were ended for sure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Surely,
    /// The server does not let us look, or does not let us end them.
    Unknown,
}

/// Ends the connections whose name `is_wanted`.
pub(super) async fn end_connections(
    link: &mut Link,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<Ended, MoveError> {
    const STEP: &str = "end connections of an earlier run";
    let list = link.allowed(STEP, &[b"CLIENT", b"LIST"]).await?;
    let Some(list) = list.as_bytes() else {
        return Ok(Ended::Unknown);
    };
    let mut ended = Ended::Surely;
    for id in client_ids(&String::from_utf8_lossy(list), is_wanted) {
        // One that is gone by now is as good.
        let kill: [&[u8]; 4] = [b"CLIENT", b"KILL", b"ID", id.as_bytes()];
        let killed = link.allowed(STEP, &kill).await?;
        if let Value::Error(_) = killed {
            ended = Ended::Unknown;
        }
    }
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connections_of_the_same_job_are_ended() {
        let list = "id=7 addr=a name=keyferry:j1:lane age=1\nid=8 addr=b name=keyferry:j2:lane age=1\nid=9 addr=c name= age=1\n";
        let name = lane_name("j1");
        assert_eq!(client_ids(list, |found| found == name), ["7"]);
    }
}
