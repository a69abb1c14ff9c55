//! The import table of ARCHITECTURE.md, and the few rules of style that a
//! program can judge, held against every file under `src/`.
//!
//! - an edge `use crate::X` (or `crate::X::...`, or `super::` that climbs to the
//!   crate's root) must be in [`MAY_IMPORT`];
//! - only the folders of that table stand at the top;
//! - at most [`PRODUCTION_LINES_MAX`] lines a file, tests not counted;
//! - no name that says nothing ([`EMPTY_NAMES`]), no glob import, and every
//!   file opens with `//!`;
//! - on the data path only the files of [`MAY_READ_CLOCK`] name a clock.
//!
//! Comments, strings, and what stands under `#[cfg(test)]` are not looked at.

#![allow(
    clippy::unwrap_used,
    reason = "in a test, a panic that says what happened is the right answer"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Folder, its layer, and what it may import: rows above its own only.
const MAY_IMPORT: &[(&str, u8, &[&str])] = &[
    ("resp", 0, &[]),
    ("memcached", 0, &[]),
    ("rdb", 0, &[]),
    ("metrics", 0, &[]),
    ("router", 1, &["resp"]),
    ("reuseport", 1, &["metrics"]),
    ("restore", 1, &["resp", "rdb"]),
    ("store", 1, &["resp", "rdb", "metrics"]),
    ("upstream", 2, &["resp", "memcached", "router", "metrics"]),
    ("replication", 3, &["resp", "rdb", "upstream", "metrics"]),
    (
        "proxy",
        3,
        &[
            "resp",
            "memcached",
            "router",
            "reuseport",
            "upstream",
            "metrics",
        ],
    ),
    (
        "rdbfile",
        3,
        &["resp", "rdb", "router", "upstream", "restore"],
    ),
    (
        "reshard",
        4,
        &[
            "resp",
            "rdb",
            "router",
            "restore",
            "upstream",
            "replication",
            "metrics",
        ],
    ),
    ("admin", 5, &["router", "proxy", "reshard", "metrics"]),
    (
        "config",
        5,
        &[
            "resp",
            "rdb",
            "metrics",
            "router",
            "reuseport",
            "restore",
            "store",
            "upstream",
            "replication",
            "proxy",
            "reshard",
            "admin",
        ],
    ),
    (
        "cli",
        6,
        &[
            "resp",
            "rdb",
            "metrics",
            "router",
            "reuseport",
            "restore",
            "store",
            "upstream",
            "replication",
            "proxy",
            "rdbfile",
            "reshard",
            "admin",
            "config",
        ],
    ),
];

/// Files that stand beside the folders.
const ROOT_FILES: &[&str] = &["lib.rs", "main.rs", "planted.rs"];

/// What every folder may import besides: it imports nothing itself.
const OPEN_TO_ALL: &[&str] = &["planted"];

const PRODUCTION_LINES_MAX: usize = 500;

/// Names that tell a newcomer nothing about what is behind the door.
const EMPTY_NAMES: &[&str] = &[
    "utils", "util", "common", "helpers", "helper", "misc", "types", "manager", "prelude",
];

/// The folders a request passes through.
const DATA_PATH: &[&str] = &[
    "resp",
    "memcached",
    "metrics",
    "router",
    "reuseport",
    "upstream",
    "proxy",
];

/// Who reads a clock there, and when; nobody does for each request.
const MAY_READ_CLOCK: &[&str] = &[
    "proxy/worker.rs",      // once a turn
    "proxy/local.rs",       // to answer TIME
    "proxy/pool.rs",        // for calls of the admin API
    "proxy/announcing.rs",  // likewise, when a job says that it works on the pool
    "proxy/route_watch.rs", // likewise, when a server was last asked for the route
    "proxy/ejecting.rs",    // on the control side, when a shard fails or is due for a probe
];

const CLOCKS: &[&str] = &["Instant", "SystemTime"];

#[test]
fn every_source_file_keeps_the_rules() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&src, &src, &mut files);
    assert!(files.len() > 10, "the sources are under {}", src.display());
    let mut faults = Vec::new();
    for (path, text) in &files {
        check_file(path, text, &mut faults);
    }
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn the_table_points_down_only() {
    for (at, (folder, layer, imports)) in MAY_IMPORT.iter().enumerate() {
        for import in *imports {
            let above = &MAY_IMPORT[..at];
            let row = above.iter().find(|(name, ..)| name == import);
            let (_, below, _) =
                row.unwrap_or_else(|| panic!("{import} is no folder above {folder}"));
            // Beside its own layer, only `config` may look: at `admin`, for its
            // listen address and token.
            assert!(
                below < layer || (*folder, *import) == ("config", "admin"),
                "{folder} may not import {import}"
            );
        }
    }
}

fn collect(root: &Path, dir: &Path, files: &mut Vec<(String, String)>) {
    let mut entries: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            files.push((name.to_owned(), fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Adds to `faults` what is wrong with the file at `path` (below `src/`).
fn check_file(path: &str, text: &str, faults: &mut Vec<String>) {
    let parts: Vec<&str> = path.split('/').collect();
    let names = parts.iter().map(|part| part.trim_end_matches(".rs"));
    for name in names.filter(|name| EMPTY_NAMES.contains(name)) {
        faults.push(format!("{path}: `{name}` says nothing about what it is"));
    }
    if is_test_file(&parts) {
        return;
    }
    if !text.starts_with("//!") {
        faults.push(format!("{path}: does not open with `//!`"));
    }
    let code = production_code(text);
    let lines = code.production_lines;
    if lines > PRODUCTION_LINES_MAX {
        faults.push(format!(
            "{path}: {lines} production lines, at most {PRODUCTION_LINES_MAX}"
        ));
    }
    let tokens = tokens(&code.text);
    for name in declared_names(&tokens) {
        faults.push(format!("{path}: `{name}` says nothing about what it is"));
    }
    if has_glob_import(&tokens) {
        faults.push(format!("{path}: a glob import"));
    }
    if DATA_PATH.contains(&parts[0]) && !MAY_READ_CLOCK.contains(&path) {
        let clocks = tokens.iter().filter(|token| CLOCKS.contains(token));
        faults.extend(clocks.map(|clock| format!("{path}: `{clock}` on the data path")));
    }
    let [folder, _, ..] = parts.as_slice() else {
        if !ROOT_FILES.contains(&path) {
            faults.push(format!("{path}: belongs into a folder"));
        }
        return;
    };
    let Some((_, _, allowed)) = MAY_IMPORT.iter().find(|(name, ..)| name == folder) else {
        faults.push(format!("{path}: `{folder}` is not a folder of the table"));
        return;
    };
    for edge in edges(&tokens, module_depth(&parts)) {
        let edge_is_open = OPEN_TO_ALL.contains(&edge.as_str());
        if edge != *folder && !edge_is_open && !allowed.contains(&edge.as_str()) {
            faults.push(format!("{path}: `{folder}` may not import `{edge}`"));
        }
    }
}

fn is_test_file(parts: &[&str]) -> bool {
    parts
        .iter()
        .any(|part| *part == "tests" || *part == "tests.rs")
}

/// How many `super::` lead from this file's module to the crate's root.
fn module_depth(parts: &[&str]) -> usize {
    if parts.last() == Some(&"mod.rs") {
        parts.len() - 1
    } else {
        parts.len()
    }
}

struct ProductionCode {
    /// Without comments, literals and tests; line breaks are kept.
    text: String,
    /// Lines of the file that are not under `#[cfg(test)]`.
    production_lines: usize,
}

fn production_code(source: &str) -> ProductionCode {
    let mut text = blank_comments_and_literals(source);
    let mut test_lines = 0;
    const MARK: &str = "#[cfg(test)]";
    while let Some(start) = text.find(MARK) {
        let end = item_end(&text, start + MARK.len());
        let item = &text[start..end];
        test_lines += item.matches('\n').count() + 1;
        let blank: String = item
            .chars()
            .map(|c| if c == '\n' { '\n' } else { ' ' })
            .collect();
        text.replace_range(start..end, &blank);
    }
    ProductionCode {
        text,
        production_lines: source.lines().count().saturating_sub(test_lines),
    }
}

/// Where the item that starts at `from` ends: after its `;` or its last brace.
fn item_end(text: &str, from: usize) -> usize {
    let mut depth = 0_i32;
    for (at, c) in text[from..].char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => {
                depth -= 1;
                if depth == 0 && c == '}' {
                    return from + at + 1;
                }
            }
            ';' if depth == 0 => return from + at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Replaces comments, and the insides of literals, by blanks.
fn blank_comments_and_literals(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_or_comment_end(&chars, at);
        if end > at {
            for c in &chars[at..end] {
                out.push(if *c == '\n' { '\n' } else { ' ' });
            }
            at = end;
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

/// The end of the comment or literal that starts at `at`, or `at`.
fn literal_or_comment_end(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    let until = |stop: usize| at + stop.min(rest.len());
    let after_word = at > 0 && is_word(chars[at - 1]);
    match rest {
        ['/', '/', ..] => until(rest.iter().position(|c| *c == '\n').unwrap_or(rest.len())),
        ['/', '*', ..] => {
            let (mut depth, mut i) = (0, 0);
            while i < rest.len() {
                match rest[i..] {
                    ['/', '*', ..] => (depth, i) = (depth + 1, i + 2),
                    ['*', '/', ..] => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
                if depth == 0 {
                    break;
                }
            }
            until(i)
        }
        ['r', '"' | '#', ..] if !after_word => raw_string_end(rest, 1).map_or(at, until),
        ['b', 'r', '"' | '#', ..] if !after_word => raw_string_end(rest, 2).map_or(at, until),
        ['"', ..] => until(quoted_end(rest, '"')),
        // A character, not a lifetime: 'x' or '\...'.
        ['\'', '\\', ..] | ['\'', _, '\'', ..] => until(quoted_end(rest, '\'')),
        _ => at,
    }
}

fn quoted_end(rest: &[char], quote: char) -> usize {
    let mut i = 1;
    while i < rest.len() && rest[i] != quote {
        i += if rest[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn raw_string_end(rest: &[char], prefix: usize) -> Option<usize> {
    let hashes = rest[prefix..].iter().take_while(|c| **c == '#').count();
    let open = prefix + hashes;
    if rest.get(open) != Some(&'"') {
        return None; // r#ident
    }
    let mut i = open + 1;
    while i < rest.len() {
        let closes = rest[i] == '"'
            && rest[i + 1..]
                .iter()
                .take(hashes)
                .filter(|c| **c == '#')
                .count()
                == hashes;
        if closes {
            return Some(i + 1 + hashes);
        }
        i += 1;
    }
    Some(rest.len())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Words, `::`, and single other characters.
fn tokens(code: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, tail) = rest.split_at(length);
        out.push(token);
        rest = tail.trim_start();
    }
    out
}

/// Top-level names that paths from the crate's root begin with.
fn edges(tokens: &[&str], depth: usize) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut at = 0;
    while at < tokens.len() {
        let mut next = at + 1;
        let from_root = match tokens[at] {
            "crate" | "keyferry" => tokens.get(next) == Some(&"::"),
            "super" => {
                let mut climbed = 1;
                while tokens.get(next..next + 2) == Some(&["::", "super"]) {
                    climbed += 1;
                    next += 2;
                }
                climbed >= depth && tokens.get(next) == Some(&"::")
            }
            _ => false,
        };
        if from_root {
            add_heads(&tokens[next + 1..], &mut found);
        }
        at = next;
    }
    found
}

/// `a::...` or `{a::..., b, c::{...}}`: the heads a, b, c.
fn add_heads(tokens: &[&str], found: &mut BTreeSet<String>) {
    if tokens.first() != Some(&"{") {
        found.extend(tokens.first().map(|head| (*head).to_owned()));
        return;
    }
    let mut depth = 0;
    let mut head_comes = false;
    for token in tokens {
        match *token {
            "{" => {
                depth += 1;
                head_comes = depth == 1;
            }
            "}" => {
                depth -= 1;
                if depth == 0 {
                    return;
                }
            }
            "," => head_comes = depth == 1,
            head if head_comes => {
                found.insert(head.to_owned());
                head_comes = false;
            }
            _ => {}
        }
    }
}

fn has_glob_import(tokens: &[&str]) -> bool {
    let mut in_use = false;
    for pair in tokens.windows(2) {
        match pair[0] {
            "use" => in_use = true,
            ";" => in_use = false,
            _ => {}
        }
        if in_use && matches!(pair, ["::" | "{" | ",", "*"]) {
            return true;
        }
    }
    false
}

/// Modules and types declared under one of [`EMPTY_NAMES`], or ending in it.
fn declared_names(tokens: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for pair in tokens.windows(2) {
        let name = pair[1];
        let empty = match pair[0] {
            "mod" => EMPTY_NAMES.contains(&name),
            "struct" | "enum" | "trait" => EMPTY_NAMES
                .iter()
                .filter(|ending| !matches!(**ending, "types" | "common"))
                .any(|ending| name.to_lowercase().ends_with(ending)),
            _ => false,
        };
        if empty {
            found.push(name.to_owned());
        }
    }
    found
}

/// The checker itself, on small invented sources: each rule is seen to fail.
mod the_checker {
    use super::*;

    fn faults(path: &str, text: &str) -> Vec<String> {
        let mut faults = Vec::new();
        check_file(path, text, &mut faults);
        faults
    }

    fn faulty(path: &str, text: &str, part: &str) {
        let faults = faults(path, text);
        assert!(
            faults.len() == 1 && faults[0].contains(part),
            "{path}: {text:?}: {faults:?} should be one fault with {part:?}"
        );
    }

    fn fine(path: &str, text: &str) {
        assert_eq!(faults(path, text), Vec::<String>::new(), "{path}: {text:?}");
    }

    #[test]
    fn refuses_edges_that_are_not_in_the_table() {
        faulty(
            "proxy/mod.rs",
            "//! x\nuse crate::reshard::Plan;\n",
            "`proxy` may not import `reshard`",
        );
        faulty(
            "rdb/a/b.rs",
            "//! x\nfn f() { crate::resp::g() }\n",
            "`rdb` may not import `resp`",
        );
        faulty(
            "router/a.rs",
            "//! x\nuse crate::{resp::{A, B}, metrics, router::C};\n",
            "`router` may not import `metrics`",
        );
        faulty(
            "router/a.rs",
            "//! x\npub(crate) use crate::upstream as u;\n",
            "`router` may not import `upstream`",
        );
        faulty(
            "admin/a.rs",
            "//! x\nuse keyferry::config::C;\n",
            "`admin` may not import `config`",
        );
        faulty(
            "resp/mod.rs",
            "//! x\nuse crate::nowhere::C;\n",
            "may not import `nowhere`",
        );
    }

    #[test]
    fn follows_super_to_the_root() {
        faulty(
            "resp/a.rs",
            "//! x\nuse super::super::rdb::C;\n",
            "`resp` may not import `rdb`",
        );
        faulty(
            "resp/mod.rs",
            "//! x\nuse super::rdb::C;\n",
            "`resp` may not import `rdb`",
        );
        fine("resp/a.rs", "//! x\nuse super::rdb::C;\n");
        fine("resp/a/b.rs", "//! x\nuse super::super::rdb::C;\n");
    }

    #[test]
    fn accepts_what_the_table_names() {
        fine(
            "reshard/a.rs",
            "//! x\nuse crate::{rdb, replication::{Tap, x::{Y}}};\nuse crate::reshard::Z;\n",
        );
        fine("cli/a.rs", "//! x\nuse crate::admin::A;\n");
        fine("resp/a.rs", "//! x\nuse crate::planted::{self, Planted};\n");
        fine(
            "resp/a.rs",
            "//! x\npub(crate) struct A;\npub(in crate::resp) struct B;\n",
        );
    }

    #[test]
    fn does_not_look_into_comments_strings_and_tests() {
        fine(
            "resp/a.rs",
            "//! crate::rdb\n// use crate::rdb;\n/* /* */ use crate::rdb; */\n\
             const A: &str = \"crate::rdb \\\" crate::rdb\";\n\
             const B: &str = r#\"crate::rdb \" \"#;\nconst C: char = '\"';\n\
             fn f<'a>(x: &'a str) -> &'a str { x }\nconst D: u8 = b'\\'';\n\
             #[cfg(test)]\nmod tests {\n    use super::*;\n    use crate::rdb::X;\n}\n",
        );
        fine("resp/tests.rs", "//! x\nuse super::*;\nuse crate::rdb;\n");
        faulty(
            "resp/a.rs",
            "//! x\n#[cfg(test)]\nmod tests;\nuse crate::rdb::X;\n",
            "`resp` may not import `rdb`",
        );
        faulty(
            "resp/a.rs",
            "//! x\nconst A: char = '\"'; use crate::rdb::X; const B: char = '\"';\n",
            "`resp` may not import `rdb`",
        );
    }

    #[test]
    fn refuses_clocks_on_the_data_path() {
        faulty(
            "upstream/a.rs",
            "//! x\nfn f() { std::time::Instant::now(); }\n",
            "`Instant` on the data path",
        );
        let time = "//! x\nfn f() { SystemTime::now(); }\n";
        faulty("proxy/core.rs", time, "`SystemTime` on the data path");
        fine("proxy/local.rs", time);
        fine("admin/a.rs", time);
    }

    #[test]
    fn counts_production_lines() {
        let lines = |count: usize| "//! x\n".to_owned() + &"fn f() {}\n".repeat(count - 1);
        let tests = "#[cfg(test)]\nmod tests {\n    fn f() {}\n}\n".to_owned();
        fine("resp/a.rs", &lines(500));
        fine("resp/a.rs", &(lines(500) + &tests));
        faulty("resp/a.rs", &lines(501), "501 production lines");
        faulty(
            "resp/a.rs",
            &(lines(300) + &tests + &lines(201)),
            "501 production lines",
        );
        fine("resp/tests.rs", &lines(900));
    }

    #[test]
    fn refuses_unknown_places_and_empty_names() {
        faulty("cli/common/a.rs", "//! x\n", "`common` says nothing");
        faulty("engine/a.rs", "//! x\n", "not a folder of the table");
        faulty("extra.rs", "//! x\n", "belongs into a folder");
        faulty("resp/utils.rs", "//! x\n", "`utils` says nothing");
        faulty(
            "resp/a.rs",
            "//! x\nmod helpers {}\n",
            "`helpers` says nothing",
        );
        faulty(
            "resp/a.rs",
            "//! x\nstruct PoolManager;\n",
            "`PoolManager` says nothing",
        );
        fine("resp/a.rs", "//! x\nenum ValueKind { A }\nfn types() {}\n");
    }

    #[test]
    fn refuses_glob_imports_and_files_without_a_head() {
        faulty("resp/a.rs", "//! x\nuse std::io::*;\n", "a glob import");
        faulty(
            "resp/a.rs",
            "//! x\nuse std::{fmt, io::{self, *}};\n",
            "a glob import",
        );
        fine(
            "resp/a.rs",
            "//! x\nconst A: u8 = 2 * 3;\nfn f(x: *const u8) {}\n",
        );
        faulty("resp/a.rs", "use std::fmt;\n", "does not open with");
    }
}
