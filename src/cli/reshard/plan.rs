//! `keyferry reshard plan`: what would move. Reads files, asks proxies and the old
//! shards; changes nothing.

use std::io::Write as _;
use std::sync::Arc;

use crate::cli::exit::ExitStatus;
use crate::cli::output::{finish, stdout};
use crate::reshard::fence::FenceChoice;
use crate::reshard::fencing;
use crate::reshard::job_error::JobError;
use crate::reshard::mover::Attach;
use crate::reshard::plan::{Plan, PlanInput};
use crate::reshard::proxies::{Agreed, Disagreement, Fleet};
use crate::reshard::steps::Way;
use crate::router::moves::ESTIMATE_SAMPLES;

use super::pool::{MeantPool, PoolArgs};
use super::start::StepBy;
use super::{Failure, block_on};

/// Arguments of `keyferry reshard plan`.
#[derive(Debug, clap::Args)]
pub struct PlanArgs {
    #[command(flatten)]
    pool: PoolArgs,
    /// How old shards would be read: psync, or scan for servers without PSYNC
    #[arg(long, value_name = "HOW", default_value_t = Attach::Psync)]
    attach: Attach,
    /// What would keep writers of the old route off: auto, acl or proxies
    #[arg(long, value_name = "HOW", default_value_t = FenceChoice::Auto)]
    fence: FenceChoice,
    /// List the steps that `start` with the same word would take
    #[arg(long, value_name = "WHAT")]
    step: Option<StepBy>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Runs `keyferry reshard plan`.
pub fn run(args: &PlanArgs) -> ExitStatus {
    match args.pool.meant() {
        Ok(meant) => block_on(plan(meant, args)),
        Err(failure) => failure.print(),
    }
}

async fn plan(meant: MeantPool, args: &PlanArgs) -> Result<ExitStatus, Failure> {
    let agreed = agreed(&meant).await?;
    let epoch = agreed.as_ref().map(|agreed| agreed.epoch);
    let from = match agreed {
        Some(agreed) => Arc::new(agreed.layout),
        None => Arc::clone(&meant.config_layout),
    };
    let (plan, moves) = Plan::between(&PlanInput {
        pool: &meant.pool.name,
        config_layout: &meant.config_layout,
        from: &from,
        epoch,
        to: &meant.to,
        attach: args.attach,
    })
    .map_err(JobError::from)?;
    let plan = match args.step {
        Some(StepBy::Shard) if !plan.nothing_to_do => {
            let estimate = moves.estimate(ESTIMATE_SAMPLES);
            let way = Way::of(&meant.pool.name, &moves, &estimate).map_err(JobError::from)?;
            plan.with_steps(way.steps)
        }
        _ => plan,
    };
    let plan = plan.with_fence(fencing::plan(&moves, &meant.pool.upstream, args.fence).await);
    let mut out = stdout();
    let written = if args.json {
        serde_json::to_writer(&mut out, &plan)
            .map_err(std::io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        write!(out, "{plan}")
    };
    Ok(finish(out, written, ExitStatus::Done))
}

/// What the proxies agree on. Proxies that were named must answer; the one of
/// the config may be down, then the config's layout is planned from.
async fn agreed(meant: &MeantPool) -> Result<Option<Agreed>, Failure> {
    if meant.proxies.is_empty() {
        return Ok(None);
    }
    let mut fleet = Fleet::new(&meant.pool.name, meant.proxies.clone(), meant.token.clone());
    match fleet.agree(None).await {
        Ok(agreed) => Ok(Some(agreed)),
        Err(error @ Disagreement::Unanswered(_))
            if !meant.proxies_were_named && error.is_temporary() =>
        {
            Ok(None)
        }
        Err(error) => Err(JobError::from(error).into()),
    }
}
