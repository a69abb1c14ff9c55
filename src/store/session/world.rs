//! A shard without sockets and disk, for tests: clients by number, replies as text.

use super::{FAMILIES, Shard, ShardLimits};
use crate::resp::{RequestLimits, Value, parse_value, write_command};
use crate::store::commands::{Settings, Table};
use crate::store::keyspace::Keyspace;

pub(crate) struct World {
    pub(crate) shard: Shard,
}

impl World {
    pub(crate) fn new() -> Self {
        let keyspace = Keyspace::in_memory(1 << 20);
        let limits = ShardLimits {
            request: RequestLimits::default(),
        };
        let mut shard = Shard::new(keyspace, Table::new(FAMILIES), Settings::default(), limits);
        shard.set_now_ms(1_700_000_000_000);
        World { shard }
    }

    pub(crate) fn settings(&mut self) -> &mut Settings {
        &mut self.shard.settings
    }

    pub(crate) fn client(&mut self) -> usize {
        self.shard
            .client_came("127.0.0.1:5".into(), "127.0.0.1:6379".into())
    }

    /// Sends words split at blanks, and gives what the client is owed then, as text.
    pub(crate) fn say(&mut self, client: usize, line: &str) -> String {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        self.send(client, &words)
    }

    pub(crate) fn send(&mut self, client: usize, words: &[&[u8]]) -> String {
        let mut bytes = Vec::new();
        write_command(&mut bytes, words);
        self.shard.input_of(client).expect("a client").extend(bytes);
        self.shard.run_requests(client);
        for resumed in self.shard.take_resumed() {
            self.shard.run_requests(resumed);
        }
        self.owed(client)
    }

    /// What a client is owed, as text: replies one after the other.
    pub(crate) fn owed(&mut self, client: usize) -> String {
        let Some((output, _)) = self.shard.output_of(client) else {
            return String::new();
        };
        let bytes = std::mem::take(output);
        let mut scanner = crate::resp::ReplyScanner::new();
        let (mut at, mut texts) = (0, Vec::new());
        while let Some(reply) = scanner.scan(&bytes[at..]).expect("replies") {
            texts.push(text(
                &parse_value(&bytes[at..at + reply.len]).expect("a reply"),
            ));
            at += reply.len;
        }
        assert_eq!(at, bytes.len(), "half a reply");
        texts.join(" ")
    }

    /// The effects of what was said since this was last asked, as words.
    pub(crate) fn effects(&mut self) -> String {
        let bytes = self.shard.effects().bytes().to_vec();
        self.shard.effects().clear();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let lines = text
            .split("\r\n")
            .filter(|line| !line.starts_with(['*', '$']));
        lines.collect::<Vec<_>>().join(" ").trim().to_owned()
    }
}

fn text(value: &Value) -> String {
    let all = |values: &[Value]| values.iter().map(text).collect::<Vec<_>>().join(" ");
    match value {
        Value::Simple(bytes) | Value::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Error(bytes) => format!("-{}", String::from_utf8_lossy(bytes)),
        Value::Integer(number) => format!(":{number}"),
        Value::Null => "nil".to_owned(),
        Value::Array(values) => format!("[{}]", all(values)),
        other => format!("{other:?}"),
    }
}
