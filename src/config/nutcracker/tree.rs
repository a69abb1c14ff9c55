//! YAML events -> pools of directives, as far as their shape goes.
//!
//! ```text
//! alpha:                 depth 1: a pool
//!   listen: 0.0.0.0:1    depth 2: key and value
//!   servers:             depth 2: a key, and below it the one sequence
//!    - 10.0.0.1:1:1
//! ```
//!
//! Looked at in the order of the original: the document, then what it does not
//! allow (flow style, anchors, tags, directives), then depths and sequences.
//!
//! Invariant of what comes out: every pool has exactly one sequence; every
//! directive has a key and a value of at least one byte.

use saphyr_parser::{Event, Parser, Span};

use super::Fault;

const DEPTH_MAX: usize = 2;
const DEPTH_POOLS: usize = 1;

const HELP_SHAPE: &str = "a pool is a name at the line's start; its keys are indented below it, and `servers:` is a list";

/// Where something stands, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Line in the file.
    pub line: usize,
    /// Column in characters.
    pub column: usize,
}

/// `key: value`, or an element of the sequence under `key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// As typed.
    pub key: String,
    /// As typed, without quotes.
    pub value: String,
    /// Of the value.
    pub at: Place,
}

/// One pool as typed.
#[derive(Debug)]
pub struct TypedPool {
    /// Its name.
    pub name: String,
    /// Of the name.
    pub at: Place,
    /// In the order of the file.
    pub directives: Vec<Directive>,
}

type Spanned<'t> = (Event<'t>, Span);

/// The pools in `text`, the content of the file called `name`.
pub fn read(name: &str, text: &str) -> Result<Vec<TypedPool>, Fault> {
    let mut events = Vec::new();
    for event in Parser::new_from_str(text) {
        match event {
            Ok(event) => events.push(event),
            Err(error) => {
                let mark = error.marker();
                let at = Place {
                    line: mark.line(),
                    column: mark.col() + 1,
                };
                let what = format!("failed to get the next yaml document: {}", error.info());
                return Err(fault(at, what, "correct the spelling of this line"));
            }
        }
    }
    check_documents(name, &events)?;
    check_tokens(text, &events)?;
    check_shape(name, &events)?;
    build(&events)
}

fn place(span: &Span) -> Place {
    Place {
        line: span.start.line(),
        column: span.start.col() + 1,
    }
}

fn fault(at: Place, what: String, help: &'static str) -> Fault {
    Fault {
        at,
        text: String::new(),
        what,
        help,
    }
}

fn check_documents(name: &str, events: &[Spanned<'_>]) -> Result<(), Fault> {
    let mut starts = events
        .iter()
        .filter(|(event, _)| matches!(event, Event::DocumentStart(_)));
    let count = starts.clone().count();
    if count == 1 {
        return Ok(());
    }
    let at = starts
        .nth(1)
        .map_or(Place { line: 1, column: 1 }, |(_, span)| place(span));
    let what = format!("'{name}' must contain only 1 document; found {count} documents");
    Err(fault(
        at,
        what,
        "write all pools into one document, without `---`",
    ))
}

/// What YAML has and the original does not take; the numbers are libyaml's.
fn check_tokens(text: &str, events: &[Spanned<'_>]) -> Result<(), Fault> {
    let refuse =
        |at: Place, token: &str, help| Err(fault(at, format!("{token} is disallowed"), help));
    const PLAIN: &str = "write it out in block style, without anchors, tags or directives";
    for (at, line) in text.lines().enumerate() {
        let at = Place {
            line: at + 1,
            column: 1,
        };
        if line.starts_with("%YAML") {
            return refuse(at, "version directive token (3)", PLAIN);
        }
        if line.starts_with("%TAG") {
            return refuse(at, "tag directive token (4)", PLAIN);
        }
        if !line.starts_with(['%', '#']) && !line.trim().is_empty() {
            break;
        }
    }
    let lines: Vec<&str> = text.lines().collect();
    let char_at = |at: Place| lines.get(at.line - 1)?.chars().nth(at.column - 1);
    for (event, span) in events {
        let at = place(span);
        let (anchor, tag) = match event {
            Event::Alias(_) => return refuse(at, "alias token (18)", PLAIN),
            Event::Scalar(_, _, anchor, tag)
            | Event::SequenceStart(anchor, tag)
            | Event::MappingStart(anchor, tag) => (*anchor, tag.is_some()),
            Event::DocumentStart(true) => {
                return refuse(at, "document start token (5)", "leave out the line `---`");
            }
            Event::DocumentEnd if char_at(at) == Some('.') => {
                return refuse(at, "document end token (6)", "leave out the line `...`");
            }
            _ => continue,
        };
        if anchor != 0 {
            return refuse(at, "anchor token (19)", PLAIN);
        }
        if tag {
            return refuse(at, "tag token (20)", PLAIN);
        }
        match (event, char_at(at)) {
            (Event::SequenceStart(..), Some('[')) => {
                return refuse(
                    at,
                    "flow sequence start token (10)",
                    "write one `- element` a line, or put the text in quotes",
                );
            }
            (Event::MappingStart(..), Some('{')) => {
                return refuse(
                    at,
                    "flow mapping start token (12)",
                    "write one `key: value` a line, or put the text in quotes",
                );
            }
            _ => {}
        }
    }
    Ok(())
}

/// Depths and sequences, counted as the original counts them.
fn check_shape(name: &str, events: &[Spanned<'_>]) -> Result<(), Fault> {
    let mut depth = 0usize;
    let mut has_sequence = false;
    // Scalars since the last pair or collection, at each depth.
    let mut scalars = [0u32; DEPTH_MAX + 1];
    for (event, span) in events {
        let at = scalars.get(depth).copied().unwrap_or_default();
        let wrong = match event {
            Event::MappingStart(..) if depth == DEPTH_POOLS && at != 1 => {
                Some(format!("has more than one \"key:value\" at depth {depth}"))
            }
            Event::MappingStart(..) if depth >= DEPTH_MAX => {
                Some(format!("has a depth greater than {DEPTH_MAX}"))
            }
            Event::MappingStart(..) => {
                depth += 1;
                None
            }
            Event::MappingEnd if depth == DEPTH_MAX && !has_sequence => {
                Some(format!("missing sequence directive at depth {depth}"))
            }
            Event::MappingEnd => {
                has_sequence = has_sequence && depth != DEPTH_MAX;
                depth = depth.saturating_sub(1);
                set(&mut scalars, depth, 0);
                None
            }
            Event::SequenceStart(..) if has_sequence => {
                Some("has more than one sequence directive".to_owned())
            }
            Event::SequenceStart(..) if depth != DEPTH_MAX => Some(format!(
                "has sequence at depth {depth} instead of {DEPTH_MAX}"
            )),
            Event::SequenceStart(..) if at != 1 => {
                Some(format!("has invalid \"key:value\" at depth {depth}"))
            }
            Event::SequenceStart(..) => {
                has_sequence = true;
                None
            }
            Event::SequenceEnd => {
                set(&mut scalars, depth, 0);
                None
            }
            Event::Scalar(..) if depth == 0 => {
                Some(format!("has invalid empty \"key:\" at depth {depth}"))
            }
            Event::Scalar(..) if depth == DEPTH_POOLS && at != 0 => {
                Some(format!("has invalid mapping \"key:\" at depth {depth}"))
            }
            Event::Scalar(..) => {
                let before = if depth == DEPTH_MAX && at == 2 { 0 } else { at };
                set(&mut scalars, depth, before + 1);
                None
            }
            _ => None,
        };
        if let Some(wrong) = wrong {
            return Err(fault(place(span), format!("'{name}' {wrong}"), HELP_SHAPE));
        }
    }
    Ok(())
}

fn set(scalars: &mut [u32], depth: usize, count: u32) {
    if let Some(place) = scalars.get_mut(depth) {
        *place = count;
    }
}

/// Takes events whose shape is right apart.
fn build(events: &[Spanned<'_>]) -> Result<Vec<TypedPool>, Fault> {
    let mut pools: Vec<TypedPool> = Vec::new();
    let (mut depth, mut in_sequence) = (0usize, false);
    let mut key: Option<String> = None;
    for (event, span) in events {
        match event {
            Event::MappingStart(..) => depth += 1,
            Event::MappingEnd => depth = depth.saturating_sub(1),
            Event::SequenceStart(..) => in_sequence = true,
            Event::SequenceEnd => (in_sequence, key) = (false, None),
            Event::Scalar(text, ..) => {
                let at = place(span);
                if text.is_empty() {
                    let what = match &key {
                        Some(key) => format!("directive \"{key}\" has no value"),
                        None => "a name has no characters".to_owned(),
                    };
                    return Err(fault(at, what, "write a value, or leave the line out"));
                }
                let text = text.to_string();
                match (depth, pools.last_mut(), &key) {
                    (DEPTH_MAX, Some(_), None) => key = Some(text),
                    (DEPTH_MAX, Some(pool), Some(known)) => {
                        pool.directives.push(Directive {
                            key: known.clone(),
                            value: text,
                            at,
                        });
                        if !in_sequence {
                            key = None;
                        }
                    }
                    _ => pools.push(TypedPool {
                        name: text,
                        at,
                        directives: Vec::new(),
                    }),
                }
            }
            _ => {}
        }
    }
    Ok(pools)
}
