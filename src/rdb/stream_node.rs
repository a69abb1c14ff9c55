//! Nodes of a stream, as servers of all versions read them: see `stream.rs` for the bytes.
//!
//! Invariant: a node has few enough entries that their count is one byte, which is put
//! right at the end.

use super::convert::write_string;
use super::listpack_writer::ListpackWriter;
use super::stream::{FLAG_SAME_FIELDS, StreamId};

/// Entries of a node, as `stream-node-max-entries` has it by default.
const ENTRIES_MAX: u8 = 100;
/// Bytes of names and values after which another node begins.
const BYTES_MAX: usize = 4096;
/// Of the first element of a listpack: the count of live entries.
const COUNT_AT: usize = 6;

/// How entries are spread over nodes: known before any of them is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeFill {
    entries: u8,
    bytes: usize,
}

impl NodeFill {
    /// Takes an entry of so many bytes of names and values; true if it begins a node.
    pub fn begins(&mut self, bytes: usize) -> bool {
        let begins = self.entries == 0 || self.entries >= ENTRIES_MAX || self.bytes >= BYTES_MAX;
        if begins {
            *self = Self::default();
        }
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        begins
    }
}

/// Writes one node.
#[derive(Clone, Debug)]
pub struct NodeWriter {
    master: StreamId,
    names: Vec<Vec<u8>>,
    listpack: ListpackWriter,
    entries: u8,
}

impl NodeWriter {
    /// A node whose first entry will be `id`, with fields of these names.
    pub fn new<'a>(id: StreamId, names: impl Iterator<Item = &'a [u8]>) -> Self {
        let names: Vec<Vec<u8>> = names.map(<[u8]>::to_vec).collect();
        let mut listpack = ListpackWriter::new();
        // Live entries, of which there are none yet, and deleted ones.
        listpack.number(0);
        listpack.number(0);
        listpack.number(names.len() as i64);
        names.iter().for_each(|name| listpack.text(name));
        listpack.number(0);
        Self {
            master: id,
            names,
            listpack,
            entries: 0,
        }
    }

    /// The next entry: names and values in turn.
    pub fn push<'a>(&mut self, id: StreamId, words: impl Iterator<Item = &'a [u8]> + Clone) {
        let names = words.clone().step_by(2);
        let is_same = names.eq(self.names.iter().map(Vec::as_slice));
        let listpack = &mut self.listpack;
        listpack.number(if is_same { FLAG_SAME_FIELDS } else { 0 });
        listpack.number(id.ms.wrapping_sub(self.master.ms) as i64);
        listpack.number(id.seq.wrapping_sub(self.master.seq) as i64);
        let mut elements = 3;
        if !is_same {
            listpack.number((words.clone().count() / 2) as i64);
            elements += 1;
        }
        for (at, word) in words.enumerate() {
            // Names stand in the head of the node if they are the same.
            if is_same && at % 2 == 0 {
                continue;
            }
            listpack.text(word);
            elements += 1;
        }
        listpack.number(elements);
        self.entries = self.entries.saturating_add(1);
    }

    /// Appends the node: its master id and its listpack.
    pub fn finish(self, out: &mut Vec<u8>) {
        let mut listpack = self.listpack.finish();
        if let Some(count) = listpack.get_mut(COUNT_AT) {
            *count = self.entries;
        }
        write_string(out, &self.master.to_bytes());
        write_string(out, &listpack);
    }
}

#[cfg(test)]
mod tests {
    use super::super::element::Element;
    use super::super::reader::Reader;
    use super::super::stream;
    use super::*;

    type Entry = (StreamId, Vec<(Vec<u8>, Vec<u8>)>);

    #[test]
    fn entries_come_back_from_a_node() {
        let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        let id = |ms, seq| StreamId { ms, seq };
        let entries: Vec<Entry> = vec![
            (id(5, 7), vec![pair("a", "1"), pair("b", "text")]),
            (id(5, 8), vec![pair("a", "2"), pair("b", "")]),
            (id(6, 0), vec![pair("b", "other name first")]),
            (
                StreamId::MAX,
                vec![pair("a", "2"), pair("b", "x"), pair("", "3")],
            ),
        ];
        let names = entries[0].1.iter().map(|(name, _)| name.as_slice());
        let mut node = NodeWriter::new(entries[0].0, names);
        for (id, fields) in &entries {
            let words = fields
                .iter()
                .flat_map(|(name, value)| [name.as_slice(), value]);
            node.push(*id, words);
        }
        let mut bytes = Vec::new();
        node.finish(&mut bytes);
        let mut read: Vec<Entry> = Vec::new();
        let mut reader = Reader::new(&bytes);
        let found = stream::node(&mut reader, &mut |element| {
            let Element::StreamEntry { id, fields } = element else {
                panic!("{element:?} in a node");
            };
            let fields = fields.iter();
            read.push((
                id,
                fields
                    .map(|(name, value)| (name.to_vec(), value.to_vec()))
                    .collect(),
            ));
        });
        assert_eq!(found, Ok(()));
        assert_eq!(read, entries);
    }

    #[test]
    fn nodes_are_full_by_entries_or_by_bytes() {
        let begins = |bytes: usize| {
            let mut fill = NodeFill::default();
            (0..250).filter(|_| fill.begins(bytes)).count()
        };
        assert_eq!(begins(1), 3);
        assert_eq!(begins(1024), 63);
        assert_eq!(begins(1 << 20), 250);
    }
}
