//! `tests/fixtures/twemproxy_vectors.json`: hashes, rings and lookups of an
//! independent oracle that agreed with the original 0.5.0 binary. Keys in hex.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{named, names, owner_name};
use crate::router::hash::HashKind;
use crate::router::layout::Layout;
use crate::router::placement::parse_hex;
use crate::router::spec::{DistributionKind, LayoutSpec};

#[derive(Deserialize)]
struct Vectors {
    hashes: BTreeMap<HashKind, BTreeMap<String, u32>>,
    ketama: BTreeMap<String, Ketama>,
    modula: BTreeMap<String, Modula>,
}

#[derive(Deserialize)]
struct Ketama {
    hash: HashKind,
    hash_tag: String,
    servers: Vec<(String, u32)>,
    sorted: Vec<String>,
    points: BTreeMap<String, usize>,
    ring_len: usize,
    first: Vec<(u32, u16)>,
    last: (u32, u16),
    keys: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Modula {
    hash: HashKind,
    servers: Vec<(String, u32)>,
    sorted: Vec<String>,
    keys: BTreeMap<String, String>,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!(
        "../../../tests/fixtures/twemproxy_vectors.json"
    ))
    .unwrap()
}

fn layout(servers: &[(String, u32)], spec: &LayoutSpec) -> Layout {
    let servers: Vec<(&str, u32)> = servers
        .iter()
        .map(|(name, weight)| (name.as_str(), *weight))
        .collect();
    Layout::new(LayoutSpec {
        shards: named(&servers).shards,
        ..spec.clone()
    })
    .unwrap()
}

fn assert_owners(case: &str, layout: &Layout, keys: &BTreeMap<String, String>) {
    assert!(!keys.is_empty(), "{case}");
    for (key, owner) in keys {
        assert_eq!(
            owner_name(layout, &parse_hex(key.as_bytes()).unwrap()),
            owner,
            "{case}: key {key}"
        );
    }
}

#[test]
fn hashes_are_twemproxys() {
    let hashes = vectors().hashes;
    assert_eq!(hashes.len(), 12);
    for (kind, keys) in hashes {
        assert!(kind.is_twemproxy() && keys.len() == 12, "{kind}");
        for (key, hash) in keys {
            assert_eq!(
                kind.hash(&parse_hex(key.as_bytes()).unwrap()),
                hash,
                "{kind} of {key}"
            );
        }
    }
}

#[test]
fn rings_are_twemproxys() {
    let cases = vectors().ketama;
    assert_eq!(cases.len(), 7);
    for (case, ketama) in cases {
        let spec = LayoutSpec {
            hash: ketama.hash,
            hash_tag: ketama.hash_tag.parse().ok(),
            ..LayoutSpec::default()
        };
        let layout = layout(&ketama.servers, &spec);
        assert_eq!(names(&layout), ketama.sorted, "{case}");
        let ring = layout.ring();
        assert_eq!(ring.len(), ketama.ring_len, "{case}");
        assert_eq!(ring[..ketama.first.len()], ketama.first, "{case}");
        assert_eq!(ring[ring.len() - 1], ketama.last, "{case}");
        for (index, shard) in (0u16..).zip(layout.shards()) {
            let points = ring.iter().filter(|&&(_, owner)| owner == index).count();
            assert_eq!(
                points, ketama.points[&shard.name],
                "{case}: points of {}",
                shard.name
            );
        }
        assert_owners(&case, &layout, &ketama.keys);
    }
}

#[test]
fn modula_is_twemproxys() {
    let cases = vectors().modula;
    assert_eq!(cases.len(), 3);
    for (case, modula) in cases {
        let spec = LayoutSpec {
            hash: modula.hash,
            distribution: DistributionKind::Modula,
            ..LayoutSpec::default()
        };
        let layout = layout(&modula.servers, &spec);
        assert_eq!(names(&layout), modula.sorted, "{case}");
        assert_owners(&case, &layout, &modula.keys);
    }
}
