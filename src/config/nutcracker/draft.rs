//! The directives of one pool, each looked at by itself.

use std::collections::BTreeMap;

use crate::reuseport::address::ListenAddress;
use crate::router::hash::HashKind;
use crate::router::spec::{DistributionKind, ShardSpec};
use crate::router::tag::HashTag;

use super::Fault;
use super::server_line::{listen, number, server};
use super::tree::{Directive, Place, TypedPool};

/// The key whose value is never printed.
const SECRET_KEY: &str = "redis_auth";

/// Keys with a number.
const NUMBERS: [&str; 7] = [
    "timeout",
    "backlog",
    "client_connections",
    "redis_db",
    "server_connections",
    "server_retry_timeout",
    "server_failure_limit",
];

/// Keys with `true` or `false`. `reuseport` is younger than 0.5.0.
const SWITCHES: [&str; 5] = [
    "tcpkeepalive",
    "reuseport",
    "redis",
    "preconnect",
    "auto_eject_hosts",
];

const DUPLICATE: &str = "is a duplicate";

/// A value and where it stands.
#[derive(Debug, Clone)]
pub struct Placed<T> {
    /// What was typed, as what it is.
    pub value: T,
    /// Where.
    pub at: Place,
}

/// One pool, its values read and nothing assumed.
#[derive(Debug)]
pub struct Draft {
    /// Its name.
    pub name: Placed<String>,
    /// Where clients connect: as typed, and what that is.
    pub listen: Option<Placed<(String, ListenAddress)>>,
    /// What is computed of a key.
    pub hash: Option<HashKind>,
    /// How that chooses a server.
    pub distribution: Option<DistributionKind>,
    /// The part of a key that counts.
    pub hash_tag: Option<HashTag>,
    /// The password of servers and clients.
    pub redis_auth: Option<Placed<String>>,
    /// The servers.
    pub servers: Vec<Placed<ShardSpec>>,
    numbers: BTreeMap<&'static str, Placed<u32>>,
    switches: BTreeMap<&'static str, Placed<bool>>,
}

impl Draft {
    /// Reads the directives; what is wrong with any goes to `faults`.
    pub fn of(pool: TypedPool, faults: &mut Vec<Fault>) -> Self {
        let mut draft = Self {
            name: Placed {
                value: pool.name,
                at: pool.at,
            },
            listen: None,
            hash: None,
            distribution: None,
            hash_tag: None,
            redis_auth: None,
            servers: Vec::new(),
            numbers: BTreeMap::new(),
            switches: BTreeMap::new(),
        };
        for directive in pool.directives {
            if let Err(reason) = draft.take(&directive) {
                faults.push(draft.fault(&directive, &reason));
            }
        }
        draft
    }

    /// The number of `key`, if it was written.
    pub fn number(&self, key: &str) -> Option<Placed<u32>> {
        self.numbers.get(key).cloned()
    }

    /// The switch `key`, if it was written.
    pub fn switch(&self, key: &str) -> Option<Placed<bool>> {
        self.switches.get(key).cloned()
    }

    fn fault(&self, directive: &Directive, reason: &str) -> Fault {
        let Directive { key, value, at } = directive;
        let others = ["listen", "hash", "distribution", "hash_tag", "servers"];
        let mut known = NUMBERS.iter().chain(&SWITCHES).chain(&others);
        // The value of an unknown key may be a secret, too.
        let text = match known.any(|name| name == key) {
            true => format!("{}.{key}: {value}", self.name.value),
            false => format!("{}.{key}", self.name.value),
        };
        Fault {
            at: *at,
            text,
            what: format!("directive \"{key}\" {reason}"),
            help: help(key),
        }
    }

    fn take(&mut self, directive: &Directive) -> Result<(), String> {
        let Directive { key, value, at } = directive;
        let at = *at;
        if let Some(key) = NUMBERS.into_iter().find(|known| known == key) {
            let value = once(self.numbers.contains_key(key), || {
                number(value).ok_or("is not a number")
            })?;
            self.numbers.insert(key, Placed { value, at });
            return Ok(());
        }
        if let Some(key) = SWITCHES.into_iter().find(|known| known == key) {
            let value = once(self.switches.contains_key(key), || match value.as_str() {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err("is not \"true\" or \"false\""),
            })?;
            self.switches.insert(key, Placed { value, at });
            return Ok(());
        }
        match key.as_str() {
            "listen" => {
                let address = once(self.listen.is_some(), || listen(value))?;
                let value = (value.clone(), address);
                self.listen = Some(Placed { value, at });
            }
            "hash" => {
                let known = |text: &str| {
                    text.parse()
                        .ok()
                        .filter(|hash: &HashKind| hash.is_twemproxy())
                };
                self.hash = Some(once(self.hash.is_some(), || {
                    known(value).ok_or("is not a valid hash")
                })?);
            }
            "distribution" => {
                let known = |text: &str| {
                    let kind = text.parse().ok();
                    kind.filter(|kind| *kind != DistributionKind::Slots)
                };
                self.distribution = Some(once(self.distribution.is_some(), || {
                    known(value).ok_or("is not a valid distribution")
                })?);
            }
            "hash_tag" => {
                self.hash_tag = Some(once(self.hash_tag.is_some(), || {
                    let tag = value.parse().ok();
                    tag.ok_or("is not a valid hash tag string with two characters")
                })?);
            }
            SECRET_KEY => {
                let value = once(self.redis_auth.is_some(), || Ok::<_, &str>(value.clone()))?;
                self.redis_auth = Some(Placed { value, at });
            }
            "servers" => {
                let value = server(value)?;
                self.servers.push(Placed { value, at });
            }
            _ => return Err("is unknown".to_owned()),
        }
        Ok(())
    }
}

/// A value that may be there once only.
fn once<T, E: Into<String>>(
    is_there: bool,
    read: impl FnOnce() -> Result<T, E>,
) -> Result<T, String> {
    if is_there {
        return Err(DUPLICATE.to_owned());
    }
    read().map_err(Into::into)
}

fn help(key: &str) -> &'static str {
    match key {
        "listen" => "write host:port, or /path/of/a/socket and its mode, as in 0.0.0.0:22121",
        "hash" => {
            "one of one_at_a_time, md5, crc16, crc32, crc32a, fnv1_64, fnv1a_64, fnv1_32, fnv1a_32, hsieh, murmur, jenkins"
        }
        "distribution" => "one of ketama, modula, random",
        "hash_tag" => "two characters in quotes, as in \"{}\"",
        "servers" => "one `- host:port:weight name` a line; the name may be left out",
        _ if NUMBERS.contains(&key) => "write it once, as decimal digits without a sign",
        _ if SWITCHES.contains(&key) => "write it once, as true or false",
        SECRET_KEY => "write it once",
        _ => {
            "known are listen, hash, hash_tag, distribution, timeout, backlog, client_connections, tcpkeepalive, redis, redis_auth, redis_db, preconnect, auto_eject_hosts, server_connections, server_retry_timeout, server_failure_limit, servers"
        }
    }
}
