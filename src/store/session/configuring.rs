//! CONFIG.

use std::collections::BTreeMap;

use crate::store::acl::ChannelDefault;
use crate::store::commands::{Args, Failure};
use crate::store::format::glob;
use crate::store::keyspace::FrequencyRules;

use super::parameters::{PARAMETERS, Parameters, Takes, meant};
use super::shard::{Order, Shard};

impl Shard {
    pub(super) fn config(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        if args.is(1, "GET") {
            return self.config_get(key, args);
        }
        if args.is(1, "SET") {
            return self.config_set(key, args);
        }
        if args.is(1, "RESETSTAT") && args.len() == 2 {
            self.clients[key].reply.ok();
            self.reset_stats();
        } else if args.is(1, "REWRITE") && args.len() == 2 {
            self.rewrite(key);
        } else {
            return Err(super::connection::unknown_subcommand("config", args));
        }
        Ok(())
    }

    fn config_get(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        if args.len() < 3 {
            return Err(Failure::arity("config|get"));
        }
        let is_wanted = |name: &str| {
            args.from(2)
                .any(|pattern| glob::matches_ignoring_case(pattern, name.as_bytes()))
        };
        let found: Vec<&str> = PARAMETERS
            .iter()
            .map(|(name, ..)| *name)
            .filter(|name| is_wanted(name))
            .collect();
        let reply = &mut self.clients[key].reply;
        reply.map(found.len());
        for name in found {
            reply.bulk(name.as_bytes());
            reply.bulk(self.parameters.value(name).as_bytes());
        }
        Ok(())
    }

    fn config_set(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        if args.len() < 4 || !args.len().is_multiple_of(2) {
            return Err(Failure::arity("config|set"));
        }
        let refused = |name: &str, why: &str| {
            Failure::text(format!(
                "ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"
            ))
        };
        let mut found: Vec<(&'static str, Takes, &[u8])> = Vec::new();
        for number in (2..args.len()).step_by(2) {
            let Some((name, takes)) = Parameters::find(args.at(number)) else {
                let name = String::from_utf8_lossy(args.at(number)).into_owned();
                return Err(Failure::text(format!(
                    "ERR Unknown option or number of arguments for CONFIG SET - '{name}'"
                )));
            };
            if found.iter().any(|(known, ..)| *known == name) {
                return Err(refused(name, "duplicate parameter"));
            }
            found.push((name, takes, args.at(number + 1)));
        }
        let mut values = BTreeMap::new();
        for (name, takes, written) in found {
            let value = settable(name, takes, written).map_err(|why| refused(name, &why))?;
            values.insert(name, value);
        }
        for (name, value) in values {
            self.set_parameter(name, value);
        }
        self.apply_parameters();
        self.clients[key].reply.ok();
        Ok(())
    }

    fn apply_parameters(&mut self) {
        self.parameters.apply_to(&mut self.settings);
        let number = |name| u64::try_from(self.parameters.number(name)).unwrap_or(0);
        let rules = FrequencyRules {
            log_factor: number("lfu-log-factor"),
            decay_minutes: number("lfu-decay-time"),
        };
        self.keyspace
            .count_uses(self.settings.is_lfu.then_some(rules));
    }

    fn set_parameter(&mut self, name: &'static str, value: String) {
        match name {
            "requirepass" => {
                let password = (!value.is_empty()).then_some(value.as_bytes());
                self.users.set_default_password(password);
            }
            "acl-pubsub-default" => self.users.set_channel_default(match value.as_str() {
                "allchannels" => ChannelDefault::All,
                _ => ChannelDefault::None,
            }),
            "appendfsync" | "repl-backlog-size" | "repl-timeout" | "masterauth" | "masteruser" => {
                self.orders.push(Order::Parameter {
                    name,
                    value: value.clone(),
                });
            }
            _ => {}
        }
        self.parameters.set(name, value);
        self.parameters.note_changed(name);
        self.note_replica_limits();
    }

    /// Sets a parameter as CONFIG SET does.
    ///
    /// # Errors
    /// In Redis' words, why it cannot be.
    pub fn load_parameter(&mut self, name: &str, value: &str) -> Result<(), String> {
        let (name, takes) = Parameters::find(name.as_bytes()).ok_or("there is none")?;
        let value = match takes {
            Takes::AtStart(words) => meant(name, Takes::Words(words), value.as_bytes())?,
            takes => settable(name, takes, value.as_bytes())?,
        };
        self.set_parameter(name, value);
        self.apply_parameters();
        Ok(())
    }

    /// The value of a parameter.
    pub fn parameter(&self, name: &str) -> &str {
        self.parameters.value(name)
    }

    /// Tells what the server is: `port`, `dir` and others that cannot be set.
    pub fn set_fixed_parameter(&mut self, name: &'static str, value: String) {
        self.parameters.set(name, value);
    }
}

/// What a written value means, if this server can do it.
fn settable(name: &str, takes: Takes, written: &[u8]) -> Result<String, String> {
    let value = meant(name, takes, written)?;
    if matches!(name, "replica-read-only" | "slave-read-only") && value == "no" {
        return Err(
            "the log of a replica is its master's: what clients write would be lost".to_owned(),
        );
    }
    Ok(value)
}
