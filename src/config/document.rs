//! A TOML file as typed: values with the place they stand at.
//!
//! ```text
//! text --Document::read--> Section --take("key")--> Item --text(), size(), ...--> a value
//!                             |                       |
//!                             +---- problems, each with its place, gathered in the Document
//! ```
//!
//! Reading goes on after a problem, so that one run names them all. What a
//! reader returns in place of a wrong value is not used: [`Document::finish`]
//! is an error then.
//!
//! Invariant: a key that nobody took when its section is closed is a problem.

use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::problem::{ConfigError, Position, Problem, SECRET_KEYS, closest, quote, quote_unparsed};

/// One file and what was found wrong in it so far.
pub struct Document<'t> {
    file: PathBuf,
    text: &'t str,
    problems: RefCell<Vec<(usize, Problem)>>,
}

/// A table with the keys that were asked for.
pub struct Section<'d, 't> {
    document: &'d Document<'t>,
    /// Dotted path from the root; empty at the root.
    path: String,
    span: Range<usize>,
    table: &'d DeTable<'t>,
    known: RefCell<Vec<&'static str>>,
}

/// A value with its place.
#[derive(Clone)]
pub struct Item<'d, 't> {
    document: &'d Document<'t>,
    path: String,
    span: Range<usize>,
    value: &'d DeValue<'t>,
}

impl<'t> Document<'t> {
    /// Reads `text`, the content of `file`, as TOML and hands its root to
    /// `meaning`. A text that is no TOML gives all its spelling mistakes.
    pub fn read<T>(
        file: &Path,
        text: &'t str,
        meaning: impl FnOnce(&Section<'_, 't>) -> T,
    ) -> Result<T, ConfigError> {
        let document = Self {
            file: file.to_owned(),
            text,
            problems: RefCell::default(),
        };
        let (root, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            document.spelling(&errors);
            return Err(document.wrong());
        }
        let section = Section {
            document: &document,
            path: String::new(),
            span: 0..0,
            table: root.get_ref(),
            known: RefCell::default(),
        };
        let meant = meaning(&section);
        section.close();
        if document.problems.borrow().is_empty() {
            Ok(meant)
        } else {
            Err(document.wrong())
        }
    }

    /// The error of a file that is wrong as a whole: its only problem is at
    /// byte `at`.
    pub fn refuse(file: &Path, text: &'t str, at: usize, what: &str, help: &str) -> ConfigError {
        let document = Self {
            file: file.to_owned(),
            text,
            problems: RefCell::default(),
        };
        let line = quote_unparsed(document.line_at(at));
        document.push(at, line, what.to_owned(), help.to_owned());
        document.wrong()
    }

    fn spelling(&self, errors: &[toml::de::Error]) {
        let mut last_line = None;
        for error in errors {
            let at = error.span().map_or(self.text.len(), |span| span.start);
            let line = self.line_column(at).0;
            // The parser stumbles on after a mistake; what it says next about
            // the same line is rarely true.
            if last_line.replace(line) == Some(line) {
                continue;
            }
            let text = quote_unparsed(self.line_at(at));
            self.push(
                at,
                text,
                error.message().to_owned(),
                spelling_help(error.message()).to_owned(),
            );
        }
    }

    fn push(&self, at: usize, text: String, what: String, help: String) {
        let (line, column) = self.line_column(at);
        let file = self.file.clone();
        let at_text = Position {
            file,
            line,
            column,
            text,
        };
        let problem = Problem {
            what,
            at: at_text,
            help,
        };
        self.problems.borrow_mut().push((at, problem));
    }

    /// How a table is named: by its header. What an inline table holds is not
    /// quoted, as there may be a secret in it.
    fn header(&self, path: &str, span: &Range<usize>) -> String {
        if path.is_empty() {
            String::new()
        } else if self.slice(span).starts_with("[[") {
            format!("[[{path}]]")
        } else {
            format!("[{path}]")
        }
    }

    fn slice(&self, span: &Range<usize>) -> &'t str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    fn wrong(self) -> ConfigError {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|(at, _)| *at);
        ConfigError::Wrong(problems.into_iter().map(|(_, problem)| problem).collect())
    }

    /// Line and column of a byte, both from 1, the column in characters.
    fn line_column(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        (line, column)
    }

    fn line_at(&self, at: usize) -> &str {
        let line = self.line_column(at).0;
        self.text.lines().nth(line - 1).unwrap_or_default()
    }
}

fn spelling_help(message: &str) -> &'static str {
    if message.starts_with("duplicate key") {
        "write each key once; a section's keys all go under one header"
    } else if message.contains("must be quoted") {
        "put texts, durations and sizes in quotes, as in \"500ms\""
    } else if message.contains("key with no value") {
        "write `key = value`"
    } else {
        "write the line as TOML, see https://toml.io"
    }
}

impl<'d, 't> Section<'d, 't> {
    /// The value of `key`, if it was written.
    pub fn take(&self, key: &'static str) -> Option<Item<'d, 't>> {
        self.known.borrow_mut().push(key);
        self.peek(key)
    }

    /// As [`Section::take`], for a second look.
    pub fn peek(&self, key: &str) -> Option<Item<'d, 't>> {
        let value = self.table.get(key)?;
        Some(Item {
            document: self.document,
            path: self.path_of(key),
            span: value.span(),
            value: value.get_ref(),
        })
    }

    /// The table under `key`, if it was written and is one.
    pub fn section(&self, key: &'static str) -> Option<Section<'d, 't>> {
        self.take(key)?.section()
    }

    /// The tables under `[[key]]`.
    pub fn sections(&self, key: &'static str) -> Vec<Section<'d, 't>> {
        let Some(item) = self.take(key) else {
            return Vec::new();
        };
        let Some(elements) = item.elements() else {
            item.problem(
                format!("`{key}` must be a list of tables"),
                format!("write [[{}]] above each", item.path),
            );
            return Vec::new();
        };
        elements.iter().filter_map(Item::section).collect()
    }

    /// Every entry, whatever its key, in the order of the file.
    pub fn entries(&self) -> Vec<(&'d str, Item<'d, 't>)> {
        let items = self.table.iter().map(|(key, value)| {
            let name: &'d str = key.get_ref();
            let item = Item {
                document: self.document,
                path: self.path_of(name),
                span: value.span(),
                value: value.get_ref(),
            };
            (key.span().start, name, item)
        });
        let mut entries: Vec<_> = items.collect();
        entries.sort_by_key(|(start, ..)| *start);
        entries
            .into_iter()
            .map(|(_, name, item)| (name, item))
            .collect()
    }

    /// Records a problem of the section as a whole.
    pub fn problem(&self, what: impl Into<String>, help: impl Into<String>) {
        let text = self.document.header(&self.path, &self.span);
        self.document
            .push(self.span.start, text, what.into(), help.into());
    }

    /// Ends reading: keys that were not asked for are unknown.
    pub fn close(&self) {
        let known = self.known.borrow();
        for (key, _) in self.table.iter() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let help = match closest(name, &known) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known here: {}", known.join(", ")),
            };
            let text = self.path_of(name);
            self.document.push(
                key.span().start,
                text,
                format!("unknown key `{name}`"),
                help,
            );
        }
    }

    /// How many problems the whole document has so far.
    pub fn problem_count(&self) -> usize {
        self.document.problems.borrow().len()
    }

    /// Dotted path of `key` in this section.
    pub fn path_of(&self, key: &str) -> String {
        match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        }
    }
}

impl<'d, 't> Item<'d, 't> {
    /// Records a problem of this value.
    pub fn problem(&self, what: impl Into<String>, help: impl Into<String>) {
        let key = self.path.rsplit('.').next().unwrap_or_default();
        let text = if SECRET_KEYS.contains(&key) {
            format!("{} = \"***\"", self.path)
        } else if self.holds_tables() {
            self.document.header(&self.path, &self.span)
        } else {
            format!("{} = {}", self.path, quote(self.document.slice(&self.span)))
        };
        self.document
            .push(self.span.start, text, what.into(), help.into());
    }

    fn holds_tables(&self) -> bool {
        let is_table = |value: &DeValue<'_>| matches!(value, DeValue::Table(_));
        match self.value {
            DeValue::Array(array) => array.iter().any(|item| is_table(item.get_ref())),
            value => is_table(value),
        }
    }

    /// Dotted path, for messages.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The file this stands in, for paths relative to it.
    pub fn file(&self) -> &'d Path {
        &self.document.file
    }

    /// A string.
    pub fn text(&self) -> Option<&'d str> {
        match self.value {
            DeValue::String(text) => Some(text),
            _ => self.wrong_type("a string in quotes"),
        }
    }

    /// `true` or `false`.
    pub fn boolean(&self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(value) => Some(*value),
            _ => self.wrong_type("true or false"),
        }
    }

    /// A whole number within `range`.
    pub fn integer(&self, range: Range<u64>) -> Option<u64> {
        let DeValue::Integer(digits) = self.value else {
            return self.wrong_type("a whole number without quotes");
        };
        let value = i128::from_str_radix(digits.as_str(), digits.radix()).ok();
        let inside = value
            .and_then(|value| u64::try_from(value).ok())
            .filter(|v| range.contains(v));
        if inside.is_none() {
            let (low, high) = (range.start, range.end - 1);
            self.problem(
                format!("`{}` is out of range", self.path),
                format!("write a number from {low} to {high}"),
            );
        }
        inside
    }

    /// The values of a list, each with its own place; `None` if it is none.
    pub fn elements(&self) -> Option<Vec<Self>> {
        let DeValue::Array(array) = self.value else {
            return None;
        };
        let items = array.iter().map(|value| Self {
            document: self.document,
            path: self.path.clone(),
            span: value.span(),
            value: value.get_ref(),
        });
        Some(items.collect())
    }

    /// A table.
    pub fn section(&self) -> Option<Section<'d, 't>> {
        match self.value {
            DeValue::Table(table) => Some(Section {
                document: self.document,
                path: self.path.clone(),
                span: self.span.clone(),
                table,
                known: RefCell::default(),
            }),
            _ => self.wrong_type("a table"),
        }
    }

    /// Records that this should have been `wanted`.
    pub fn wrong_type<T>(&self, wanted: &str) -> Option<T> {
        let is = match self.value.type_str() {
            "array" => "a list",
            "integer" => "a number",
            "float" => "a number with a point",
            "boolean" => "true or false",
            "table" => "a table",
            "datetime" => "a date",
            _ => "a string",
        };
        self.problem(
            format!("`{}` must be {wanted}, not {is}", self.path),
            format!("write {wanted}"),
        );
        None
    }
}
