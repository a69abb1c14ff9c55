//! Prefix rules: which keys they pin, what they change between layouts, and
//! what is no rule.

use std::sync::Arc;

use crate::router::layout::{Layout, ShardIndex};
use crate::router::moves::{Move, Moves};
use crate::router::spec::{LayoutSpec, PrefixSpec};

use super::named;

fn with_rules(rules: &[(&str, &str)]) -> LayoutSpec {
    let rule = |&(prefix, shard): &(&str, &str)| PrefixSpec {
        prefix: prefix.to_owned(),
        shard: shard.to_owned(),
    };
    LayoutSpec {
        route: rules.iter().map(rule).collect(),
        ..named(&[("s1", 1), ("s2", 1), ("s3", 1)])
    }
}

fn layout(rules: &[(&str, &str)]) -> Arc<Layout> {
    Arc::new(Layout::new(with_rules(rules)).unwrap())
}

#[test]
fn the_longest_prefix_that_fits_decides() {
    let plain = layout(&[]);
    let pinned = layout(&[("q:", "s2"), ("q:fast:", "s3"), ("{lock}", "s1")]);
    for number in 0..500 {
        let owner = |key: String| pinned.owner(key.as_bytes());
        assert_eq!(owner(format!("q:{number}")), ShardIndex(1));
        assert_eq!(owner(format!("q:fast:{number}")), ShardIndex(2));
        assert_eq!(owner(format!("{{lock}}:{number}")), ShardIndex(0));
        for other in [
            format!("user:{number}"),
            format!("q{number}"),
            format!("Q:{number}"),
        ] {
            assert_eq!(
                plain.owner(other.as_bytes()),
                owner(other.clone()),
                "{other}"
            );
        }
    }
}

#[test]
fn rules_count_in_what_moves_and_in_the_fingerprint() {
    let (plain, pinned) = (layout(&[]), layout(&[("q:", "s2")]));
    assert_ne!(plain.fingerprint(), pinned.fingerprint());
    let moves = Moves::between(Arc::clone(&plain), Arc::clone(&pinned)).unwrap();
    for number in 0..500 {
        let key = format!("q:{number}");
        let expected = match plain.owner(key.as_bytes()) {
            ShardIndex(1) => Move::Stays { at: ShardIndex(1) },
            from => Move::Moves {
                from,
                to: ShardIndex(1),
            },
        };
        assert_eq!(moves.of(key.as_bytes()), expected);
        let other = format!("user:{number}");
        assert!(matches!(moves.of(other.as_bytes()), Move::Stays { .. }));
    }
    let words = |from: &Arc<Layout>, to: &Arc<Layout>| -> Vec<String> {
        let moves = Moves::between(Arc::clone(from), Arc::clone(to)).unwrap();
        let moving = moves.estimate(1_000).prefixes;
        moving
            .iter()
            .map(|moving| moving.in_words(from, to))
            .collect()
    };
    assert_eq!(
        words(&plain, &pinned),
        ["keys with prefix \"q:\": the shards of their hashes -> 10.9.0.1:2"]
    );
    let other = layout(&[("q:", "s3"), ("r:", "s1")]);
    assert_eq!(
        words(&pinned, &other),
        [
            "keys with prefix \"q:\": 10.9.0.1:2 -> 10.9.0.1:3",
            "keys with prefix \"r:\": the shards of their hashes -> 10.9.0.1:1"
        ]
    );
    assert!(words(&other, &layout(&[("r:", "s1"), ("q:", "s3")])).is_empty());
}

#[test]
fn a_spec_with_rules_is_read_back_as_it_was_written() {
    let spec = with_rules(&[("bull:", "s1"), ("\u{fc}\"\\", "s2")]);
    let text = toml::to_string(&spec).unwrap();
    assert_eq!(toml::from_str::<LayoutSpec>(&text).unwrap(), spec);
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<LayoutSpec>(&json).unwrap(), spec);
}

#[test]
fn what_is_no_rule_is_refused_where_it_stands() {
    for (rules, expected) in [
        (
            &[("q:", "s9")][..],
            "route 1: no shard is named \"s9\"; name one of this layout's shards",
        ),
        (
            &[("a", "s1"), ("", "s1")],
            "route 2: a prefix has at least one character; to give all keys to a shard, leave the others out",
        ),
        (
            &[("a", "s1"), ("a", "s2")],
            "route 2: there is a rule for prefix \"a\" already; a prefix has one shard",
        ),
    ] {
        let error = Layout::new(with_rules(rules)).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}
