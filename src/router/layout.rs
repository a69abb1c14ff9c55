//! A layout: a pure function from keys to shards, made once of its spec.
//!
//! ```text
//! key --hash_part--> bytes --hash_of--> u32 --owner_of_hash--> ShardIndex
//!  |--prefixes-----------------------------------------------------^ if a rule fits
//!  '--earlier layout, if the key is still where that has it --------'
//! ```
//! Before anything else shards are sorted as twemproxy sorts servers: shorter
//! names first, equal lengths by bytes. So the order in a file means nothing,
//! and a `ShardIndex` counts in sorted order. Shards of an earlier layout
//! (`layout/earlier.rs`) come behind them.
//!
//! Invariants: at least one shard, names unique, every owner in range. A layout
//! never changes, and equal fingerprints mean equal placement as long as the same
//! shards are out (`layout/live.rs`).

use std::fmt::{self, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::address::ShardAddress;
use super::hash::HashKind;
use super::ketama::Ring;
use super::layout_error::{LayoutError, LayoutFault, Place};
use super::modula::Modula;
use super::prefixes::Prefixes;
use super::slots::{SlotFault, SlotTable};
use super::spec::{DistributionKind, LayoutSpec, ShardSpec};
use super::tag::EmptyTag;

mod earlier;
mod live;

pub use earlier::OnTheWay;

use earlier::Earlier;

/// Most shards of one layout: one for each slot of Redis Cluster.
pub const SHARDS_MAX: usize = 16_384;

/// Position of a shard in its own layout's `shards()`; of no meaning in another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShardIndex(pub u16);

impl ShardIndex {
    /// As an index into a slice in the layout's order.
    #[inline]
    pub const fn as_usize(self) -> usize {
        self.0 as usize
    }
}

/// One shard of a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Ring identity: explicit, or what twemproxy makes of the address.
    pub name: String,
    /// Where it is; its identity across layouts.
    pub address: ShardAddress,
    /// Share relative to the others, from 1.
    pub weight: u32,
}

/// Which shard owns a key.
#[derive(Debug)]
pub struct Layout {
    spec: LayoutSpec,
    shards: Vec<Shard>,
    placement: Placement,
    prefixes: Prefixes,
    earlier: Option<Arc<Earlier>>,
    /// Whether something may place a key before its hash does.
    has_exceptions: bool,
    empty_tag: EmptyTag,
    fingerprint: u64,
    /// Ejected shards, ascending.
    out: Vec<ShardIndex>,
}

#[derive(Debug)]
enum Placement {
    /// One shard: nothing is hashed.
    Single(ShardIndex),
    Ketama(Ring),
    Modula(Modula),
    /// Any of these.
    Random(Vec<ShardIndex>),
    Slots(SlotTable),
}

impl Layout {
    /// Checks a spec and builds its rings or tables.
    ///
    /// # Errors
    /// Names the shard and the field at fault, and what to write instead.
    pub fn new(spec: LayoutSpec) -> Result<Self, LayoutError> {
        check_combination(&spec)?;
        let mut sorted = name_shards(&spec)?;
        sorted.sort_by(|(_, a), (_, b)| (a.name.len(), &a.name).cmp(&(b.name.len(), &b.name)));
        check_names(&sorted)?;
        let slots = match (spec.distribution, spec.hash.slots()) {
            // Checked even for a single shard: its slots are still a promise.
            (DistributionKind::Slots, Some(slots)) => Some(slot_table(slots, &spec, &sorted)?),
            _ => None,
        };
        let mut shards: Vec<Shard> = sorted.into_iter().map(|(_, shard)| shard).collect();
        let placement = match slots {
            Some(table) if shards.len() > 1 => Placement::Slots(table),
            _ => live::place(spec.distribution, &shards, &[]),
        };
        // Codis alone lets an empty tag stand for the whole key.
        let empty_tag = if spec.hash == HashKind::Crc32Slot {
            EmptyTag::Counts
        } else {
            EmptyTag::Ignored
        };
        let prefixes = Prefixes::new(&spec.route, &shards)?;
        let mut fingerprint = fingerprint(&spec, &shards, &placement, &prefixes);
        let earlier = match &spec.earlier {
            Some(spec) => Some(Earlier::new(spec, fingerprint, &mut shards)?),
            None => None,
        };
        if let Some(earlier) = &earlier {
            fingerprint = earlier.fingerprint();
        }
        Ok(Self {
            has_exceptions: !prefixes.is_empty() || earlier.is_some(),
            spec,
            shards,
            placement,
            prefixes,
            earlier: earlier.map(Arc::new),
            empty_tag,
            fingerprint,
            out: Vec::new(),
        })
    }

    /// The spec it was made of, as written.
    pub fn spec(&self) -> &LayoutSpec {
        &self.spec
    }

    /// The shards in sorted order; a `ShardIndex` counts here.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The shard at an index.
    ///
    /// # Panics
    /// If the index was made by a larger layout.
    pub fn shard(&self, index: ShardIndex) -> &Shard {
        &self.shards[index.as_usize()]
    }

    /// The first shard at an address. (Two names may share one.)
    pub fn at_address(&self, address: &ShardAddress) -> Option<ShardIndex> {
        let at = self
            .shards
            .iter()
            .position(|shard| shard.address == *address)?;
        Some(ShardIndex(at as u16))
    }

    /// The part of a key that is hashed: its hash tag, or all of it.
    #[inline]
    pub fn hash_part<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        match self.spec.hash_tag {
            Some(tag) => tag.part(key, self.empty_tag),
            None => key,
        }
    }

    /// What `owner_of_hash` takes. An empty key is 0 whatever the hash function says.
    #[inline]
    pub fn hash_of(&self, key: &[u8]) -> u32 {
        let part = self.hash_part(key);
        if part.is_empty() {
            0
        } else {
            self.spec.hash.hash(part)
        }
    }

    /// The owner of a key. With distribution `random` it is a new draw each time.
    #[inline]
    pub fn owner(&self, key: &[u8]) -> ShardIndex {
        if self.has_exceptions
            && let Some(owner) = self.exception(key)
        {
            return owner;
        }
        if let Placement::Single(only) = self.placement {
            return only;
        }
        self.owner_of_hash(self.hash_of(key))
    }

    /// The owner of a key that does not go by its hash. Not inlined, so that a layout
    /// without exceptions pays for one comparison.
    #[cold]
    #[inline(never)]
    fn exception(&self, key: &[u8]) -> Option<ShardIndex> {
        let unmoved = self.earlier.as_ref().and_then(|earlier| earlier.owner(key));
        unmoved.or_else(|| self.prefixes.owner(key))
    }

    /// Whether each key's owner depends on nothing but its hash.
    pub fn goes_by_hash(&self) -> bool {
        !self.has_exceptions
    }

    /// Keys that have a shard whatever their hash.
    pub fn prefixes(&self) -> &Prefixes {
        &self.prefixes
    }

    /// The owner of all keys with this hash that no prefix rule is for.
    #[inline]
    pub fn owner_of_hash(&self, hash: u32) -> ShardIndex {
        match &self.placement {
            Placement::Single(only) => *only,
            Placement::Ketama(ring) => ring.owner(hash),
            Placement::Modula(modula) => modula.owner(hash),
            Placement::Random(any) => {
                let drawn = any.get(fastrand::usize(..any.len().max(1)));
                drawn.copied().unwrap_or(ShardIndex(0))
            }
            Placement::Slots(table) => table.owner(hash),
        }
    }

    /// Does a key always have the same owner? Only then can keys be moved.
    pub fn is_deterministic(&self) -> bool {
        !matches!(self.placement, Placement::Random(_))
    }

    /// A number equal for equal placements on the same servers: the first eight
    /// bytes of the MD5 of a canonical text, the same in every process and release.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    #[cfg(test)]
    pub(super) fn ring(&self) -> &[(u32, u16)] {
        match &self.placement {
            Placement::Ketama(ring) => ring.points(),
            _ => &[],
        }
    }
}

impl TryFrom<LayoutSpec> for Layout {
    type Error = LayoutError;

    fn try_from(spec: LayoutSpec) -> Result<Self, LayoutError> {
        Self::new(spec)
    }
}

impl fmt::Display for ShardIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A shard with its position in the spec, for errors.
type Placed = (usize, Shard);

fn check_combination(spec: &LayoutSpec) -> Result<(), LayoutError> {
    let fault = |field, fault| {
        Err(LayoutError {
            place: Place::Layout { field },
            fault,
        })
    };
    if spec.shards.is_empty() {
        return fault("shard", LayoutFault::NoShards);
    }
    if spec.shards.len() > SHARDS_MAX {
        return fault(
            "shard",
            LayoutFault::TooManyShards {
                given: spec.shards.len(),
            },
        );
    }
    match (spec.distribution, spec.hash.slots()) {
        (DistributionKind::Slots, None) => {
            fault("hash", LayoutFault::HashHasNoSlots { hash: spec.hash })
        }
        // A slot is far below nearly every point, so one shard would get all keys.
        (DistributionKind::Ketama, Some(_)) if spec.shards.len() > 1 => {
            fault("distribution", LayoutFault::SlotsOnRing { hash: spec.hash })
        }
        _ => Ok(()),
    }
}

/// Checks each shard by itself and names it.
fn name_shards(spec: &LayoutSpec) -> Result<Vec<Placed>, LayoutError> {
    let mut shards = Vec::with_capacity(spec.shards.len());
    let mut total = 0u32;
    for (position, shard) in spec.shards.iter().enumerate() {
        let fault = |field, fault| LayoutError::of_shard(position, shard, field, fault);
        let address: ShardAddress = shard
            .addr
            .parse()
            .map_err(|error| fault("addr", LayoutFault::Address(error)))?;
        if shard.weight == 0 {
            return Err(fault("weight", LayoutFault::ZeroWeight));
        }
        total = total
            .checked_add(shard.weight)
            .ok_or_else(|| fault("weight", LayoutFault::WeightSum))?;
        match (spec.distribution, &shard.slots) {
            (DistributionKind::Slots, None) => {
                return Err(fault("slots", LayoutFault::SlotsMissing));
            }
            (DistributionKind::Slots, Some(_)) if shard.weight != 1 => {
                return Err(fault("weight", LayoutFault::WeightWithSlots));
            }
            (DistributionKind::Slots, Some(_)) | (_, None) => {}
            (distribution, Some(_)) => {
                return Err(fault("slots", LayoutFault::SlotsUnused { distribution }));
            }
        }
        let name = match &shard.name {
            Some(name) if name.chars().any(char::is_control) => {
                return Err(fault("name", LayoutFault::NameControl));
            }
            Some(name) if !name.is_empty() => name.clone(),
            _ => ring_name(&shard.addr, &address),
        };
        shards.push((
            position,
            Shard {
                name,
                address,
                weight: shard.weight,
            },
        ));
    }
    Ok(shards)
}

/// What twemproxy calls a server that has no name: the address as typed, without
/// its default port 11211; a socket's path keeps the colon that ended it.
fn ring_name(typed: &str, address: &ShardAddress) -> String {
    match address {
        ShardAddress::Unix(_) => format!("{}:", typed.strip_prefix("unix:").unwrap_or(typed)),
        ShardAddress::Tcp { port: 11_211, .. } => typed
            .rsplit_once(':')
            .map_or(typed, |(host, _)| host)
            .to_owned(),
        ShardAddress::Tcp { .. } | ShardAddress::Store(_) => typed.to_owned(),
    }
}

fn check_names(sorted: &[Placed]) -> Result<(), LayoutError> {
    for pair in sorted.windows(2) {
        if let [(first, a), (second, b)] = pair
            && a.name == b.name
        {
            let (first, second) = (*first.min(second), *first.max(second));
            let place = Place::Shard {
                position: second,
                label: b.name.clone(),
                field: "name",
            };
            return Err(LayoutError {
                place,
                fault: LayoutFault::SameName { other: first },
            });
        }
    }
    Ok(())
}

fn slot_table(slots: u32, spec: &LayoutSpec, sorted: &[Placed]) -> Result<SlotTable, LayoutError> {
    let written = |&(position, _): &Placed| {
        spec.shards
            .get(position)
            .and_then(|shard| shard.slots.as_deref())
    };
    let ranges = sorted.iter().map(|placed| written(placed).unwrap_or(""));
    let name = |shard: usize| {
        sorted
            .get(shard)
            .map_or_else(String::new, |(_, shard)| shard.name.clone())
    };
    let at = |shard: usize| Place::Shard {
        position: sorted.get(shard).map_or(0, |&(position, _)| position),
        label: name(shard),
        field: "slots",
    };
    SlotTable::new(slots, ranges).map_err(|fault| match fault {
        SlotFault::Ranges { shard, part } => LayoutError {
            place: at(shard),
            fault: LayoutFault::SlotRange {
                part,
                last: slots - 1,
            },
        },
        SlotFault::Twice { shard, owner, slot } => LayoutError {
            place: at(shard),
            fault: LayoutFault::SlotTwice {
                slot,
                owner: name(owner),
                again: name(shard),
            },
        },
        SlotFault::Gap { first, last } => LayoutError {
            place: Place::Layout { field: "shard" },
            fault: LayoutFault::SlotGap { first, last },
        },
    })
}

/// MD5 over one line for the functions and one for each shard in sorted order;
/// the texts are quoted, so that no two layouts have the same lines.
fn fingerprint(
    spec: &LayoutSpec,
    shards: &[Shard],
    placement: &Placement,
    prefixes: &Prefixes,
) -> u64 {
    let tag = spec.hash_tag.map(|tag| tag.to_string()).unwrap_or_default();
    let mut text = format!(
        "layout v1 hash={} distribution={} tag={tag:?}\n",
        spec.hash, spec.distribution
    );
    for (index, shard) in (0u16..).zip(shards) {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "{:?} {:?} weight={}",
            shard.name,
            shard.address.to_string(),
            shard.weight
        );
        if let Placement::Slots(table) = placement {
            let _ = write!(text, " slots={}", table.ranges(ShardIndex(index)));
        }
        text.push('\n');
    }
    for (prefix, shard) in prefixes.rules() {
        let _ = writeln!(
            text,
            "route {:?} {}",
            prefix.escape_ascii().to_string(),
            shard.0
        );
    }
    let [a, b, c, d, e, f, g, h, ..] = md5::compute(text).0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

impl LayoutError {
    fn of_shard(
        position: usize,
        shard: &ShardSpec,
        field: &'static str,
        fault: LayoutFault,
    ) -> Self {
        let label = shard.name.clone().unwrap_or_else(|| shard.addr.clone());
        Self {
            place: Place::Shard {
                position,
                label,
                field,
            },
            fault,
        }
    }
}
