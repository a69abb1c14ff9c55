//! What COMMAND DOCS tells of each command: for people, and for clients that show
//! hints. The data is `docs.tsv`, whose lines `scripts/generate-commands` explains;
//! it is compiled in and parsed when somebody asks.

use std::str::Lines;
use std::sync::OnceLock;

/// One command or subcommand.
#[derive(Debug, Default)]
pub struct Doc {
    /// Lower case; `config|get` for a subcommand.
    pub name: &'static str,
    /// Facts in the order in which Redis tells them; those that are `None` are not
    /// told: summary, since, group, complexity.
    pub facts: [Option<&'static str>; 4],
    /// `deprecated`, `syscmd`.
    pub flags: Vec<&'static str>,
    /// Since when not to use it.
    pub deprecated_since: Option<&'static str>,
    /// What to use then.
    pub replaced_by: Option<&'static str>,
    /// Version, and what changed.
    pub history: Vec<(&'static str, &'static str)>,
    /// What follows its name.
    pub arguments: Vec<Argument>,
    /// Of a container, by name.
    pub subcommands: Vec<Doc>,
}

/// Names of [`Doc::facts`].
pub const FACTS: [&str; 4] = ["summary", "since", "group", "complexity"];

/// One argument, or several that belong together.
#[derive(Debug)]
pub struct Argument {
    /// What it is.
    pub name: &'static str,
    /// `key`, `integer`, `oneof`, `block`, ...
    pub kind: &'static str,
    /// Which of the command's key specs it belongs to.
    pub key_spec_index: Option<i64>,
    /// The word that stands for it or before it.
    pub token: Option<&'static str>,
    /// First version that has it.
    pub since: Option<&'static str>,
    /// Since when not to use it.
    pub deprecated_since: Option<&'static str>,
    /// `optional`, `multiple`, `multiple_token`.
    pub flags: Vec<&'static str>,
    /// What a `oneof` or `block` is made of.
    pub arguments: Vec<Argument>,
}

static DOCS: OnceLock<Vec<Doc>> = OnceLock::new();

/// Every command that is documented, by name; subcommands are below their container.
pub fn docs() -> &'static [Doc] {
    DOCS.get_or_init(|| parse(include_str!("docs.tsv").lines()))
}

/// The doc of a command in any case, or of `container|subcommand`.
pub fn doc_of(name: &[u8]) -> Option<&'static Doc> {
    let family = name.split(|byte| *byte == b'|').next().unwrap_or(name);
    let find = |docs: &'static [Doc], name: &[u8]| {
        docs.iter()
            .find(|doc| doc.name.as_bytes().eq_ignore_ascii_case(name))
    };
    let doc = find(docs(), family)?;
    match family.len() == name.len() {
        true => Some(doc),
        false => find(&doc.subcommands, name),
    }
}

fn parse(lines: Lines<'static>) -> Vec<Doc> {
    let mut docs: Vec<Doc> = Vec::new();
    for (number, line) in (1..).zip(lines) {
        #[expect(clippy::panic, reason = "compiled-in data, parsed by a test")]
        if !line.starts_with('#') && parse_line(line, &mut docs).is_none() {
            panic!("docs.tsv:{number}: not understood: {line}");
        }
    }
    docs
}

fn parse_line(line: &'static str, docs: &mut Vec<Doc>) -> Option<()> {
    if let Some(change) = line.strip_prefix('+') {
        let (since, what) = change.split_once('\t')?;
        latest(docs)?.history.push((since, what));
    } else if line.starts_with('-') {
        let depth = line.bytes().take_while(|byte| *byte == b'-').count();
        let mut list = &mut latest(docs)?.arguments;
        for _ in 1..depth {
            list = &mut list.last_mut()?.arguments;
        }
        list.push(argument(line.get(depth..)?)?);
    } else {
        let doc = doc(line)?;
        match doc.name.contains('|') {
            true => docs.last_mut()?.subcommands.push(doc),
            false => docs.push(doc),
        }
    }
    Some(())
}

/// The command that the latest line with a name told of.
fn latest(docs: &mut [Doc]) -> Option<&mut Doc> {
    let doc = docs.last_mut()?;
    if doc.subcommands.is_empty() {
        return Some(doc);
    }
    doc.subcommands.last_mut()
}

fn doc(line: &'static str) -> Option<Doc> {
    let mut fields = line.split('\t');
    let name = fields.next()?;
    let mut told = || fields.next().filter(|field| !field.is_empty());
    let facts = [told(), told(), told(), told()];
    Some(Doc {
        name,
        facts,
        flags: words(told()),
        deprecated_since: told(),
        replaced_by: told(),
        ..Doc::default()
    })
}

fn argument(line: &'static str) -> Option<Argument> {
    let mut fields = line.split('\t');
    let (name, kind) = (fields.next()?, fields.next()?);
    let mut told = || fields.next().filter(|field| !field.is_empty());
    let key_spec_index = match told() {
        Some(index) => Some(index.parse().ok()?),
        None => None,
    };
    let token = told().map(|token| if token == "\"\"" { "" } else { token });
    Some(Argument {
        name,
        kind,
        key_spec_index,
        token,
        since: told(),
        deprecated_since: told(),
        flags: words(told()),
        arguments: Vec::new(),
    })
}

fn words(text: Option<&'static str>) -> Vec<&'static str> {
    text.map_or(Vec::new(), |text| text.split(',').collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::commands;

    #[test]
    fn every_documented_command_is_in_the_table() {
        for doc in docs() {
            let command = commands::lookup(doc.name.as_bytes()).unwrap();
            assert!(
                doc.facts.iter().take(3).all(Option::is_some),
                "{}",
                doc.name
            );
            for sub in &doc.subcommands {
                let (_, word) = sub.name.split_once('|').unwrap();
                assert!(
                    command.subcommand(word.as_bytes()).is_some(),
                    "{}",
                    sub.name
                );
            }
        }
        assert!(docs().len() > 200);
    }

    #[test]
    fn docs_are_found_by_names_of_any_case() {
        assert_eq!(doc_of(b"GeT").unwrap().name, "get");
        assert_eq!(doc_of(b"CONFIG|Get").unwrap().name, "config|get");
        for none in ["nosuch", "config|", "config|nosuch", "|get", "get|", ""] {
            assert!(doc_of(none.as_bytes()).is_none(), "{none}");
        }
    }
}
