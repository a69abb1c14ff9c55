//! The keys that make a layout: `hash`, `distribution`, `hash_tag`, `route` and
//! `[[shard]]`, in a pool or at the top of a LAYOUT file.

use std::path::Path;

use crate::router::address::{AddressError, ShardAddress};
use crate::router::hash::HashKind;
use crate::router::layout::Layout;
use crate::router::layout_error::{LayoutError, LayoutFault, Place};
use crate::router::spec::{DistributionKind, LayoutSpec, PrefixSpec, ShardSpec};
use crate::router::tag::HashTag;

use super::document::{Document, Item, Section};
use super::nutcracker::is_nutcracker;
use super::problem::{ConfigError, closest};
use super::read;

/// Largest weight of a shard: twemproxy's.
const WEIGHT_MAX: u64 = i32::MAX as u64;

/// Reads a LAYOUT file: the same keys as a pool, at the top of the file.
///
/// # Errors
/// The file cannot be read, or every problem found in it.
pub fn load_layout(file: &Path) -> Result<LayoutSpec, ConfigError> {
    let text = read(file)?;
    parse_layout(file, &text)
}

/// The layout in `text`, the content of `file`.
///
/// # Errors
/// Every problem found in the text.
pub fn parse_layout(file: &Path, text: &str) -> Result<LayoutSpec, ConfigError> {
    if is_nutcracker(text) {
        return Err(Document::refuse(
            file,
            text,
            0,
            "this is a nutcracker.yml, and a layout is wanted",
            "write `hash`, `distribution`, `hash_tag` and [[shard]] into a TOML file",
        ));
    }
    Document::read(file, text, |root| {
        if let Some(pool) = root.take("pool") {
            pool.problem(
                "this is a config, and a layout is wanted",
                "write `hash`, `distribution`, `hash_tag` and [[shard]] at the top of a file of their own",
            );
        }
        layout(root)
    })
}

/// Reads the keys of a layout from `section`.
pub fn layout(section: &Section<'_, '_>) -> LayoutSpec {
    let problems_before = section.problem_count();
    let spec = LayoutSpec {
        hash: section
            .take("hash")
            .as_ref()
            .and_then(hash_kind)
            .unwrap_or_default(),
        distribution: section
            .take("distribution")
            .as_ref()
            .and_then(distribution)
            .unwrap_or_default(),
        hash_tag: section.take("hash_tag").as_ref().and_then(hash_tag),
        ..LayoutSpec::default()
    };
    let rules = section.sections("route");
    let route = rules.iter().map(prefix_rule).collect();
    let sections = section.sections("shard");
    let shards = sections.iter().map(shard).collect();
    let spec = LayoutSpec {
        route,
        shards,
        ..spec
    };
    if section.problem_count() == problems_before {
        check(section, &sections, &rules, &spec);
    }
    spec
}

/// Asks the router what it makes of the spec; its error is said at the field
/// it names.
fn check(
    section: &Section<'_, '_>,
    shards: &[Section<'_, '_>],
    rules: &[Section<'_, '_>],
    spec: &LayoutSpec,
) {
    let Err(LayoutError { place, fault }) = Layout::new(spec.clone()) else {
        return;
    };
    if fault == LayoutFault::NoShards {
        let help = format!("write [[{}]] with an `addr`", section.path_of("shard"));
        section.problem("there are no shards", help);
        return;
    }
    let message = fault.to_string();
    let (what, help) = match message.split_once("; ") {
        Some((what, help)) => (what, help),
        None => (message.as_str(), "write it so"),
    };
    let (section, field) = match place {
        Place::Layout { field } => (section, field),
        Place::Route { position } => (
            rules.get(position).unwrap_or(section),
            match fault {
                LayoutFault::PrefixShard { .. } => "shard",
                _ => "prefix",
            },
        ),
        Place::Shard {
            position, field, ..
        } => (shards.get(position).unwrap_or(section), field),
    };
    match section.peek(field) {
        Some(item) => item.problem(what, help),
        None => section.problem(what, help),
    }
}

fn hash_kind(item: &Item<'_, '_>) -> Option<HashKind> {
    let names = HashKind::ALL.map(HashKind::name);
    one_of(item, "hash", &names)?.parse().ok()
}

fn distribution(item: &Item<'_, '_>) -> Option<DistributionKind> {
    let names = DistributionKind::ALL.map(DistributionKind::name);
    one_of(item, "distribution", &names)?.parse().ok()
}

/// The text of `item` when it is one of `names`.
pub fn one_of<'d>(item: &Item<'d, '_>, what: &str, names: &[&str]) -> Option<&'d str> {
    let text = item.text()?;
    if names.contains(&text) {
        return Some(text);
    }
    let help = match closest(text, names) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!("write one of {}", names.join(", ")),
    };
    item.problem(format!("unknown {what} \"{text}\""), help);
    None
}

fn hash_tag(item: &Item<'_, '_>) -> Option<HashTag> {
    let text = item.text()?;
    if text.is_empty() {
        return None;
    }
    let tag = text.parse().ok();
    if tag.is_none() {
        item.problem(
            "a hash tag is two ASCII characters",
            "write \"{}\", or \"\" for none",
        );
    }
    tag
}

fn prefix_rule(section: &Section<'_, '_>) -> PrefixSpec {
    let text = |field, help: &str| {
        let item = section.take(field);
        if item.is_none() {
            section.problem(format!("a rule needs a {field}"), help);
        }
        let text = item.as_ref().and_then(Item::text);
        text.unwrap_or_default().to_owned()
    };
    let rule = PrefixSpec {
        prefix: text("prefix", "write { prefix = \"queue:\", shard = \"name\" }"),
        shard: text("shard", "write { prefix = \"queue:\", shard = \"name\" }"),
    };
    section.close();
    rule
}

fn shard(section: &Section<'_, '_>) -> ShardSpec {
    let name = section.take("name").as_ref().and_then(shard_name);
    let addr = section.take("addr");
    if addr.is_none() {
        section.problem(
            "a shard needs an address",
            "write addr = \"host:port\" or \"unix:/path\"",
        );
    }
    let addr = addr.as_ref().and_then(shard_address).unwrap_or_default();
    let weight = section
        .take("weight")
        .and_then(|item| item.integer(1..WEIGHT_MAX + 1));
    let slots = section
        .take("slots")
        .and_then(|item| item.text().map(str::to_owned));
    section.close();
    ShardSpec {
        name,
        addr,
        weight: weight
            .and_then(|weight| u32::try_from(weight).ok())
            .unwrap_or(1),
        slots,
    }
}

fn shard_name(item: &Item<'_, '_>) -> Option<String> {
    let name = item.text()?;
    if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        item.problem(
            "a shard's name has no spaces",
            "join the words with `-` or `_`",
        );
    }
    (!name.is_empty()).then(|| name.to_owned())
}

fn shard_address(item: &Item<'_, '_>) -> Option<String> {
    let text = item.text()?;
    let Err(error) = text.parse::<ShardAddress>() else {
        return Some(text.to_owned());
    };
    let (what, help) = match error {
        AddressError::Form(_) => (
            "not an address of a shard",
            "write \"host:port\", \"unix:/path\" or \"store:/dir\"",
        ),
        AddressError::Host(_) => (
            "the address has no valid host",
            "write \"host:port\", an IPv6 host as \"[::1]:port\"",
        ),
        AddressError::Port(_) => (
            "the address has no valid port",
            "a port is a number from 1 to 65535",
        ),
        AddressError::SocketPath(_) => (
            "the path of a unix socket must be absolute",
            "start the path with `/`, as in \"unix:/run/redis.sock\"",
        ),
        AddressError::StorePath(_) => (
            "the directory of a built-in shard must be absolute",
            "start the path with `/`, as in \"store:/var/lib/keyferry/shard-1\"",
        ),
    };
    item.problem(what, help);
    None
}
