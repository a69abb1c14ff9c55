//! Requests on strings: counters and texts.

use super::super::super::client::Value;
use super::super::super::contents::{Contents, Entry, Expiry, args};
use super::{Model, Step, TTL_SECONDS_MIN, about, number, optional, step};

/// Texts that grew past this are set anew.
const TEXT_BYTES_MAX: usize = 2_000;

impl Model {
    /// What GET would answer.
    pub(super) fn text_value(&self, key: &[u8]) -> Value {
        match self.entries.get(key).map(|entry| &entry.contents) {
            Some(Contents::Text(bytes)) => Value::Bulk(bytes.clone()),
            _ => Value::Null,
        }
    }

    fn text_mut(&mut self, key: &[u8]) -> &mut Vec<u8> {
        let entry = self.entries.entry(key.to_vec());
        let entry = entry.or_insert_with(|| Entry::of(Contents::Text(Vec::new())));
        match &mut entry.contents {
            Contents::Text(bytes) => bytes,
            other => panic!("a string key holds {other:?}"),
        }
    }

    pub(super) fn counter(&mut self, key: &[u8]) -> Step {
        let by = self.rng.i64(-1000..1000);
        let (command, by) = match self.rng.u32(..10) {
            0 if self.rng.bool() => return self.delete(key),
            0 => return self.scripted(key, by),
            1 => return step(args(&[b"GET", key]), self.text_value(key)),
            2..6 => (args(&[b"INCR", key]), 1),
            6 => (args(&[b"DECR", key]), -1),
            7 => (args(&[b"DECRBY", key, &number(by)]), -by),
            _ => (args(&[b"INCRBY", key, &number(by)]), by),
        };
        let text = self.text_mut(key);
        let value: i64 = match text.as_slice() {
            [] => 0,
            digits => String::from_utf8_lossy(digits).parse().expect("a number"),
        };
        *text = number(value + by);
        step(command, Value::Int(value + by))
    }

    /// A script that writes twice: it reaches a replica as a transaction.
    fn scripted(&mut self, key: &[u8], by: i64) -> Step {
        let seconds = TTL_SECONDS_MIN + self.rng.i64(0..1000);
        let text = self.text_mut(key);
        let sum = by + String::from_utf8_lossy(text).parse::<i64>().unwrap_or(0);
        *text = number(sum);
        if let Some(entry) = self.entries.get_mut(key) {
            entry.expiry = about(seconds);
        }
        let script = b"redis.call('INCRBY', KEYS[1], ARGV[1]) \
            redis.call('EXPIRE', KEYS[1], ARGV[2]) return redis.call('GET', KEYS[1])";
        let (by, seconds) = (number(by), number(seconds));
        let command = args(&[b"EVAL".as_slice(), script, b"1", key, &by, &seconds]);
        step(command, Value::Bulk(number(sum)))
    }

    pub(super) fn text(&mut self, key: &[u8]) -> Step {
        let value = self.word();
        let existing = match self.text_value(key) {
            Value::Bulk(bytes) => Some(bytes),
            _ => None,
        };
        let length = existing.as_ref().map_or(0, Vec::len);
        let verb = if length > TEXT_BYTES_MAX {
            0
        } else {
            self.rng.u32(..14)
        };
        match verb {
            0 | 1 => {
                self.put_text(key, value.clone(), Expiry::Never);
                step(args(&[b"SET", key, &value]), Value::ok())
            }
            2 => {
                let seconds = TTL_SECONDS_MIN + self.rng.i64(0..1000);
                self.put_text(key, value.clone(), about(seconds));
                let command = args(&[b"SET", key, &value, b"EX", &number(seconds)]);
                step(command, Value::ok())
            }
            3 => {
                let expiry = self.entries.get(key).map(|entry| entry.expiry);
                self.put_text(key, value.clone(), expiry.unwrap_or(Expiry::Never));
                step(args(&[b"SET", key, &value, b"KEEPTTL"]), Value::ok())
            }
            4 => {
                self.put_text(key, value.clone(), Expiry::Never);
                step(args(&[b"GETSET", key, &value]), optional(existing))
            }
            5 => {
                if existing.is_none() {
                    self.put_text(key, value.clone(), Expiry::Never);
                }
                let set = i64::from(existing.is_none());
                step(args(&[b"SETNX", key, &value]), Value::Int(set))
            }
            6 => {
                self.entries.remove(key);
                step(args(&[b"GETDEL", key]), optional(existing))
            }
            7 => {
                let at = self.rng.usize(..20);
                let text = self.text_mut(key);
                if text.len() < at + value.len() {
                    text.resize(at + value.len(), 0);
                }
                text[at..at + value.len()].copy_from_slice(&value);
                let length = text.len() as i64;
                let command = args(&[b"SETRANGE", key, &number(at as i64), &value]);
                step(command, Value::Int(length))
            }
            8 => step(args(&[b"STRLEN", key]), Value::Int(length as i64)),
            9 | 10 => step(args(&[b"GET", key]), optional(existing)),
            _ => {
                let text = self.text_mut(key);
                text.extend_from_slice(&value);
                let length = text.len() as i64;
                step(args(&[b"APPEND", key, &value]), Value::Int(length))
            }
        }
    }

    fn put_text(&mut self, key: &[u8], value: Vec<u8>, expiry: Expiry) {
        let entry = Entry {
            contents: Contents::Text(value),
            expiry,
        };
        self.entries.insert(key.to_vec(), entry);
    }
}
