//! Requests on lists, hashes, sets and sorted sets.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::client::Value;
use super::super::super::contents::{Contents, Entry, args};
use super::{Expected, Model, Step, number, optional, step};

/// Lists that grew past this are trimmed.
const LIST_ITEMS_MAX: usize = 100;

/// How many different members and fields there are.
const NAMES: u32 = 30;

macro_rules! contents_mut {
    ($name:ident, $variant:ident, $type:ty) => {
        fn $name(&mut self, key: &[u8]) -> &mut $type {
            let entry = self.entries.entry(key.to_vec());
            let entry = entry.or_insert_with(|| Entry::of(Contents::$variant(<$type>::default())));
            match &mut entry.contents {
                Contents::$variant(items) => items,
                other => panic!("a key of another kind holds {other:?}"),
            }
        }
    };
}

impl Model {
    contents_mut!(list_mut, List, Vec<Vec<u8>>);
    contents_mut!(hash_mut, Hash, BTreeMap<Vec<u8>, Vec<u8>>);
    contents_mut!(set_mut, Set, BTreeSet<Vec<u8>>);
    contents_mut!(sorted_mut, Sorted, BTreeMap<Vec<u8>, f64>);

    fn name(&mut self) -> Vec<u8> {
        format!("m{}", self.rng.u32(..NAMES)).into_bytes()
    }

    pub(super) fn list(&mut self, key: &[u8]) -> Step {
        let items: Vec<_> = (0..self.rng.usize(1..4)).map(|_| self.word()).collect();
        let verb = self.rng.u32(..12);
        let list = self.list_mut(key);
        let made = if list.len() > LIST_ITEMS_MAX {
            list.truncate(11);
            step(args(&[b"LTRIM", key, b"0", b"10"]), Value::ok())
        } else {
            match verb {
                0..4 => {
                    list.extend(items.iter().cloned());
                    let mut command = args(&[b"RPUSH", key]);
                    command.extend(items);
                    step(command, Value::Int(list.len() as i64))
                }
                4 => {
                    for item in &items {
                        list.insert(0, item.clone());
                    }
                    let mut command = args(&[b"LPUSH", key]);
                    command.extend(items);
                    step(command, Value::Int(list.len() as i64))
                }
                5..8 => {
                    let item = (!list.is_empty()).then(|| list.remove(0));
                    step(args(&[b"LPOP", key]), optional(item))
                }
                8 => step(args(&[b"RPOP", key]), optional(list.pop())),
                9 => {
                    let item = (!list.is_empty()).then(|| list.remove(0));
                    list.extend(item.clone());
                    let command = args(&[b"LMOVE", key, key, b"LEFT", b"RIGHT"]);
                    step(command, optional(item))
                }
                10 => step(args(&[b"LLEN", key]), Value::Int(list.len() as i64)),
                _ => {
                    let items = list.iter().take(10).cloned().map(Value::Bulk).collect();
                    step(args(&[b"LRANGE", key, b"0", b"9"]), Value::Array(items))
                }
            }
        };
        self.drop_empty(key);
        made
    }

    pub(super) fn hash(&mut self, key: &[u8]) -> Step {
        let (field, value) = (self.name(), self.word());
        let counter = format!("n{}", self.rng.u32(..5)).into_bytes();
        let by = self.rng.i64(-100..100);
        let verb = self.rng.u32(..12);
        let hash = self.hash_mut(key);
        let made = match verb {
            0..3 => {
                let new = hash.insert(field.clone(), value.clone()).is_none();
                let command = args(&[b"HSET", key, &field, &value]);
                step(command, Value::Int(new.into()))
            }
            3..7 => {
                let old = hash.get(&counter).map_or(0, |digits| {
                    let digits = String::from_utf8_lossy(digits);
                    digits.parse().expect("a number")
                });
                hash.insert(counter.clone(), number(old + by));
                let command = args(&[b"HINCRBY", key, &counter, &number(by)]);
                step(command, Value::Int(old + by))
            }
            7 | 8 => {
                let mut gone = i64::from(hash.remove(&field).is_some());
                gone += i64::from(hash.remove(&counter).is_some());
                let command = args(&[b"HDEL", key, &field, &counter]);
                step(command, Value::Int(gone))
            }
            9 => {
                let new = !hash.contains_key(&field);
                hash.entry(field.clone()).or_insert_with(|| value.clone());
                let command = args(&[b"HSETNX", key, &field, &value]);
                step(command, Value::Int(new.into()))
            }
            10 => step(args(&[b"HLEN", key]), Value::Int(hash.len() as i64)),
            _ => {
                let value = optional(hash.get(&counter).cloned());
                step(args(&[b"HGET", key, &counter]), value)
            }
        };
        self.drop_empty(key);
        made
    }

    pub(super) fn set(&mut self, key: &[u8]) -> Step {
        let names: BTreeSet<_> = (0..self.rng.usize(1..4)).map(|_| self.name()).collect();
        let verb = self.rng.u32(..12);
        let set = self.set_mut(key);
        let with_names = |verb: &str| {
            let mut command = args(&[verb.as_bytes(), key]);
            command.extend(names.iter().cloned());
            command
        };
        let made = match verb {
            0..5 => {
                let command = with_names("SADD");
                let before = set.len();
                set.extend(names.iter().cloned());
                step(command, Value::Int((set.len() - before) as i64))
            }
            5..8 => {
                let before = set.len();
                set.retain(|member| !names.contains(member));
                step(with_names("SREM"), Value::Int((before - set.len()) as i64))
            }
            8 => step(args(&[b"SCARD", key]), Value::Int(set.len() as i64)),
            9 => Step {
                args: args(&[b"SMEMBERS", key]),
                expected: Expected::Unordered(set.clone()),
            },
            10 => {
                let is = names
                    .iter()
                    .map(|name| Value::Int(set.contains(name).into()));
                let is = is.collect();
                step(with_names("SMISMEMBER"), Value::Array(is))
            }
            _ => {
                self.blind.insert(key.to_vec());
                Step {
                    args: args(&[b"SPOP", key]),
                    expected: Expected::PopOf(key.to_vec()),
                }
            }
        };
        if !self.blind.contains(key) {
            self.drop_empty(key);
        }
        made
    }

    /// True when `reply` is a member of the set, or null for an absent set.
    pub(super) fn take_popped(&mut self, key: &[u8], reply: &Value) -> bool {
        let set = self.set_mut(key);
        let right = match reply {
            Value::Bulk(member) => set.remove(member),
            Value::Null => set.is_empty(),
            _ => false,
        };
        self.drop_empty(key);
        right
    }

    pub(super) fn sorted(&mut self, key: &[u8]) -> Step {
        let member = self.name();
        let score = self.rng.i32(-500..500);
        let verb = self.rng.u32(..12);
        let sorted = self.sorted_mut(key);
        let made = match verb {
            0..3 => {
                let new = sorted.insert(member.clone(), score.into()).is_none();
                let command = args(&[b"ZADD", key, &number(score.into()), &member]);
                step(command, Value::Int(new.into()))
            }
            3..7 => {
                let sum = sorted.get(&member).copied().unwrap_or(0.0) + f64::from(score);
                // Redis keeps the sign of a zero sum, and prints it.
                let sum = if sum == 0.0 { 0.0 } else { sum };
                sorted.insert(member.clone(), sum);
                let command = args(&[b"ZINCRBY", key, &number(score.into()), &member]);
                step(command, Value::Bulk(sum.to_string().into_bytes()))
            }
            7 | 8 => {
                let gone = sorted.remove(&member).is_some();
                step(args(&[b"ZREM", key, &member]), Value::Int(gone.into()))
            }
            9 => {
                let least = sorted
                    .iter()
                    .min_by(|a, b| a.1.total_cmp(b.1).then(a.0.cmp(b.0)))
                    .map(|(member, score)| (member.clone(), *score));
                let mut reply = Vec::new();
                if let Some((member, score)) = least {
                    sorted.remove(&member);
                    reply.push(Value::Bulk(member));
                    reply.push(Value::Bulk(score.to_string().into_bytes()));
                }
                step(args(&[b"ZPOPMIN", key]), Value::Array(reply))
            }
            10 => step(args(&[b"ZCARD", key]), Value::Int(sorted.len() as i64)),
            _ => {
                let score = sorted
                    .get(&member)
                    .map(|score| score.to_string().into_bytes());
                step(args(&[b"ZSCORE", key, &member]), optional(score))
            }
        };
        self.drop_empty(key);
        made
    }
}
