//! Layouts as a whole: twemproxy's vectors, order and names, mistakes, properties.

mod mistakes;
mod order;
mod prefixes;
mod properties;
mod vectors;

use super::layout::Layout;
use super::spec::{LayoutSpec, ShardSpec};

/// A spec of named shards with weights, each at an address of its own.
fn named(servers: &[(&str, u32)]) -> LayoutSpec {
    let shard = |(port, &(name, weight)): (u32, &(&str, u32))| ShardSpec {
        name: Some(name.to_owned()),
        addr: format!("10.9.0.1:{port}"),
        weight,
        slots: None,
    };
    LayoutSpec {
        shards: (1..).zip(servers).map(shard).collect(),
        ..LayoutSpec::default()
    }
}

/// A spec of shards known by their addresses.
fn at(addresses: &[&str]) -> LayoutSpec {
    let shard = |addr: &&str| ShardSpec {
        name: None,
        addr: (*addr).to_owned(),
        weight: 1,
        slots: None,
    };
    LayoutSpec {
        shards: addresses.iter().map(shard).collect(),
        ..LayoutSpec::default()
    }
}

fn names(layout: &Layout) -> Vec<&str> {
    layout
        .shards()
        .iter()
        .map(|shard| shard.name.as_str())
        .collect()
}

fn owner_name<'l>(layout: &'l Layout, key: &[u8]) -> &'l str {
    &layout.shard(layout.owner(key)).name
}
