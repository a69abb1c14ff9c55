//! What a job would do: pure to make, printed before it runs.
//!
//! The layout a job starts from is what the proxies report; only without
//! proxies is it the config file's. Servers are told apart by their address.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::fence::FenceLevel;
use super::fencing::FencePlan;
use super::mover::Attach;
use super::steps::{Step, StepsInWords};
use crate::router::layout::{Layout, Shard};
use crate::router::moves::{ESTIMATE_SAMPLES, Moves, MovesError};

/// What one server is to the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// In both layouts, and no key leaves or reaches it.
    Stays,
    /// In both layouts; keys leave it or reach it.
    Shared,
    /// Only in the new layout.
    New,
    /// Only in the old layout: holds nothing of the pool afterwards.
    Retired,
}

/// One server of the old or the new layout.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServerPlan {
    /// Its address.
    pub addr: String,
    /// Its name in the old layout.
    pub from_name: Option<String>,
    /// Its name in the new layout.
    pub to_name: Option<String>,
    /// What it is to the job.
    pub part: Part,
    /// Percent of all keys that leave it.
    pub out_percent: f64,
    /// Percent of all keys that come to it.
    pub in_percent: f64,
}

/// Keys that go from one server to another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PairPlan {
    /// Address they leave.
    pub from: String,
    /// Address they reach.
    pub to: String,
    /// Percent of all keys.
    pub percent: f64,
}

/// What is promised about writes at the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Promise {
    /// No write that passes through the given proxies is lost, whatever becomes
    /// of a proxy: the old shards refuse what it sends on the old route.
    Fenced,
    /// No write that passes through the given proxies is lost; one that goes
    /// round them straight to an old shard may be.
    ProxiesOnly,
    /// The same for writes that the old shards tell of, or that a pass finds:
    /// they are walked through instead of followed command by command.
    ProxiesOnlyByScan,
}

/// A whole plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Version of this shape.
    pub v: u32,
    /// The pool.
    pub pool: String,
    /// Epoch in force; `None` when no proxy was asked.
    pub epoch: Option<u64>,
    /// Epoch of the new layout; `None` when no proxy was asked.
    pub new_epoch: Option<u64>,
    /// Where the old layout is from.
    pub from_source: LayoutSource,
    /// Every server of both layouts.
    pub servers: Vec<ServerPlan>,
    /// Every pair between which keys move.
    pub pairs: Vec<PairPlan>,
    /// Prefixes whose keys move because of a rule, in words.
    pub prefixes: Vec<String>,
    /// Percent of all keys that move, by sampling; those of prefixes aside.
    pub moving_percent: f64,
    /// Whether the new layout places every key as the old one does.
    pub nothing_to_do: bool,
    /// What is promised at the switch.
    pub promise: Promise,
    /// What the old shards refuse from the switch on; none when they were not asked.
    pub fence: Option<FencePlan>,
    /// With `--step shard`: the steps, each a job.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// What the operator should look at first.
    pub warnings: Vec<String>,
}

/// Who says what the old layout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LayoutSource {
    /// Every proxy, unanimously.
    Proxies,
    /// The config file.
    Config,
}

/// What a plan is made of.
#[derive(Debug)]
pub struct PlanInput<'a> {
    /// The pool.
    pub pool: &'a str,
    /// The layout of the config file.
    pub config_layout: &'a Layout,
    /// The layout that the job leaves: the proxies', or without them the config's.
    pub from: &'a Arc<Layout>,
    /// The epoch that the proxies agree on; `None` when none was asked.
    pub epoch: Option<u64>,
    /// The new layout.
    pub to: &'a Arc<Layout>,
    /// How the old shards would be attached to.
    pub attach: Attach,
}

impl Plan {
    /// Compares the layouts.
    ///
    /// # Errors
    /// [`MovesError`] when a layout gives keys no owner.
    pub fn between(input: &PlanInput<'_>) -> Result<(Self, Moves), MovesError> {
        let moves = Moves::between(Arc::clone(input.from), Arc::clone(input.to))?;
        let estimate = moves.estimate(ESTIMATE_SAMPLES);
        let mut pairs: Vec<PairPlan> = Vec::new();
        for pair in &estimate.pairs {
            let from = input.from.shard(pair.from).address.to_string();
            let to = input.to.shard(pair.to).address.to_string();
            match pairs
                .iter_mut()
                .find(|known| known.from == from && known.to == to)
            {
                Some(known) => known.percent += pair.percent,
                None => pairs.push(PairPlan {
                    from,
                    to,
                    percent: pair.percent,
                }),
            }
        }
        let epoch = input.epoch;
        let plan = Self {
            v: 1,
            pool: input.pool.to_owned(),
            epoch,
            new_epoch: epoch.map(|epoch| epoch + 1),
            from_source: match epoch {
                Some(_) => LayoutSource::Proxies,
                None => LayoutSource::Config,
            },
            servers: servers(input.from, input.to, &pairs),
            pairs,
            prefixes: estimate
                .prefixes
                .iter()
                .map(|moving| moving.in_words(input.from, input.to))
                .collect(),
            moving_percent: estimate.moving_percent,
            nothing_to_do: input.from.fingerprint() == input.to.fingerprint(),
            promise: match input.attach {
                Attach::Psync => Promise::ProxiesOnly,
                Attach::Scan => Promise::ProxiesOnlyByScan,
            },
            fence: None,
            steps: Vec::new(),
            warnings: warnings(input),
        };
        Ok((plan, moves))
    }

    /// The same, in steps.
    pub fn with_steps(mut self, steps: Vec<Step>) -> Self {
        if let (Some(epoch), Ok(count)) = (self.epoch, u64::try_from(steps.len())) {
            self.new_epoch = Some(epoch + count);
        }
        self.steps = steps;
        self
    }

    /// The same, with what the old shards said of a fence.
    pub fn with_fence(mut self, fence: FencePlan) -> Self {
        if fence.level == FenceLevel::Acl && self.promise == Promise::ProxiesOnly {
            self.promise = Promise::Fenced;
        }
        self.fence = Some(fence);
        self
    }
}

fn servers(from: &Layout, to: &Layout, pairs: &[PairPlan]) -> Vec<ServerPlan> {
    let mut servers: Vec<ServerPlan> = Vec::new();
    for (shards, is_new) in [(from.shards(), false), (to.shards(), true)] {
        for shard in shards {
            let addr = shard.address.to_string();
            let at = match servers.iter().position(|known| known.addr == addr) {
                Some(at) => at,
                None => {
                    servers.push(unnamed(addr));
                    servers.len() - 1
                }
            };
            if let Some(server) = servers.get_mut(at) {
                server.take_name(shard, is_new);
            }
        }
    }
    for server in &mut servers {
        server.out_percent = percent(pairs.iter().filter(|pair| pair.from == server.addr));
        server.in_percent = percent(pairs.iter().filter(|pair| pair.to == server.addr));
        server.part = match (&server.from_name, &server.to_name) {
            (None, _) => Part::New,
            (_, None) => Part::Retired,
            _ if server.out_percent + server.in_percent > 0.0 => Part::Shared,
            _ => Part::Stays,
        };
    }
    servers
}

fn unnamed(addr: String) -> ServerPlan {
    ServerPlan {
        addr,
        from_name: None,
        to_name: None,
        part: Part::Stays,
        out_percent: 0.0,
        in_percent: 0.0,
    }
}

fn percent<'a>(pairs: impl Iterator<Item = &'a PairPlan>) -> f64 {
    // An empty float sum is -0.0, which would print its sign.
    pairs.fold(0.0, |sum, pair| sum + pair.percent)
}

impl ServerPlan {
    fn take_name(&mut self, shard: &Shard, is_new: bool) {
        let name = if is_new {
            &mut self.to_name
        } else {
            &mut self.from_name
        };
        name.get_or_insert_with(|| shard.name.clone());
    }
}

fn warnings(input: &PlanInput<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    match input.epoch {
        Some(epoch) if input.from.fingerprint() != input.config_layout.fingerprint() => {
            warnings.push(format!(
                "the config file's layout of pool {} is not the one in force (epoch {epoch}); the proxies' layout is used",
                input.pool
            ));
        }
        Some(_) => {}
        None => warnings.push(
            "no proxy was asked: the config file's layout is assumed to be in force; give --proxy to be sure".to_owned(),
        ),
    }
    warnings
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "pool {}: {:.1} % of the keys move",
            self.pool, self.moving_percent
        )?;
        match (self.epoch, self.new_epoch) {
            (Some(epoch), Some(new)) => writeln!(f, ", epoch {epoch} -> {new}")?,
            _ => writeln!(f)?,
        }
        writeln!(f, "\nservers")?;
        for server in &self.servers {
            writeln!(f, "  {:<24} {}", server.addr, server.in_words())?;
        }
        if !self.pairs.is_empty() || !self.prefixes.is_empty() {
            writeln!(f, "\nmoves (percent of all keys)")?;
        }
        for pair in &self.pairs {
            writeln!(
                f,
                "  {:<24} -> {:<24} {:5.1} %",
                pair.from, pair.to, pair.percent
            )?;
        }
        for prefix in &self.prefixes {
            writeln!(f, "  {prefix}")?;
        }
        if !self.steps.is_empty() {
            write!(f, "\n{}", StepsInWords(&self.steps))?;
        }
        if let Some(fence) = &self.fence {
            writeln!(f, "\nfence: {}", fence.level)?;
            for row in &fence.sources {
                write!(f, "  {:<24} {}", row.addr, row.level)?;
                match &row.why {
                    Some(why) => writeln!(f, " ({why})")?,
                    None => writeln!(f)?,
                }
            }
        }
        writeln!(f, "\n{}", self.promise)?;
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}

impl ServerPlan {
    fn in_words(&self) -> String {
        let name = self.to_name.as_deref().or(self.from_name.as_deref());
        let name = name.unwrap_or_default();
        let (gives, gets) = (self.out_percent, self.in_percent);
        match self.part {
            Part::Stays => format!("{name}: stays, nothing moves"),
            Part::Shared => format!("{name}: stays, gives {gives:.1} %, gets {gets:.1} %"),
            Part::New => format!("{name}: new, gets {gets:.1} %"),
            Part::Retired => format!("{name}: leaves the pool, gives {gives:.1} %"),
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fenced => f.write_str(
                "promise: no write through the given proxies is lost or reordered, and a proxy that does not\n\
                 answer at the switch holds nothing up: from then on the old shards refuse its login. Who\n\
                 writes straight to an old shard is looked for: before the switch it is refused, naming\n\
                 them; what they write after it stays there",
            ),
            Self::ProxiesOnly => f.write_str(
                "promise: no write through the given proxies is lost or reordered, and all of them must\n\
                 answer at the switch; a write that goes straight to an old shard after it stays there",
            ),
            Self::ProxiesOnlyByScan => f.write_str(
                "promise (--attach scan, weaker): a write through the given proxies is brought if the old shard\n\
                 tells of it by a keyspace notification, or else by the pass over all keys that precedes the\n\
                 switch; a FLUSHALL, FLUSHDB or SWAPDB between the last verify and the switch is not noticed.\n\
                 A full verify before the switch still compares every moving key. A write that goes straight\n\
                 to an old shard after the switch stays there",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::address::ShardAddress;
    use crate::router::spec::{LayoutSpec, ShardSpec};

    fn layout(names: &[(&str, u16)]) -> Arc<Layout> {
        let shards = names
            .iter()
            .map(|(name, port)| {
                let address: ShardAddress = format!("10.0.0.1:{port}").parse().unwrap();
                ShardSpec::named(name, &address)
            })
            .collect();
        let spec = LayoutSpec {
            shards,
            ..LayoutSpec::default()
        };
        Arc::new(Layout::new(spec).unwrap())
    }

    fn plan(from: &Arc<Layout>, to: &Arc<Layout>, config: &Layout) -> Plan {
        let input = PlanInput {
            pool: "cache",
            config_layout: config,
            from,
            epoch: Some(7),
            to,
            attach: Attach::Psync,
        };
        Plan::between(&input).unwrap().0
    }

    #[test]
    fn two_to_three_shards_moves_a_third_to_the_new_one() {
        let from = layout(&[("a", 1), ("b", 2)]);
        let to = layout(&[("a", 1), ("b", 2), ("c", 3)]);
        let plan = plan(&from, &to, &from);
        assert!(
            (25.0..42.0).contains(&plan.moving_percent),
            "{}",
            plan.moving_percent
        );
        assert_eq!(plan.new_epoch, Some(8));
        let parts: Vec<Part> = plan.servers.iter().map(|server| server.part).collect();
        assert_eq!(parts, [Part::Shared, Part::Shared, Part::New]);
        assert!(plan.pairs.iter().all(|pair| pair.to == "10.0.0.1:3"));
        assert!(plan.warnings.is_empty());
    }

    #[test]
    fn a_server_that_leaves_gives_everything_it_had() {
        let from = layout(&[("a", 1), ("b", 2)]);
        let to = layout(&[("a", 1)]);
        let plan = plan(&from, &to, &from);
        assert_eq!(plan.servers[1].part, Part::Retired);
        assert!((plan.servers[1].out_percent - plan.moving_percent).abs() < 1e-9);
    }

    #[test]
    fn the_same_layout_moves_nothing() {
        let from = layout(&[("a", 1), ("b", 2)]);
        assert!(plan(&from, &from, &from).nothing_to_do);
    }

    #[test]
    fn a_config_that_lags_behind_the_proxies_is_told() {
        let from = layout(&[("a", 1), ("b", 2)]);
        let config = layout(&[("a", 1)]);
        let plan = plan(&from, &from, &config);
        assert_eq!(plan.warnings.len(), 1);
        assert!(plan.to_string().contains("epoch 7"));
    }
}
