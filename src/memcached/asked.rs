//! What a line asks for, and the key it is about.
//!
//! ```text
//! set add replace append prepend   key flags exptime bytes         [noreply]  + data
//! cas                              key flags exptime bytes unique  [noreply]  + data
//! get gets                         key ..
//! gat gats                         exptime key ..
//! incr decr                        key delta                       [noreply]
//! touch                            key exptime                     [noreply]
//! delete                           key [0]                         [noreply]
//! version   quit   flush_all [delay] [noreply]
//! ```
//!
//! `noreply` never goes to a server: of each request that does, there is one
//! reply. Another word in its place is dropped, as memcached does.

use super::KEY_BYTES_MAX;
use super::line::{Line, Words, is_exptime, number};
use super::refusal::Refusal;

/// Largest number of data bytes that memcached takes for one.
const DATA_BYTES_MAX: u64 = i32::MAX as u64 - 2;

/// What a line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked<'a> {
    /// Something about one key.
    Keyed(Keyed<'a>),
    /// The values of several.
    Several(Several<'a>),
    /// The version of a server.
    Version,
    /// The end.
    Quit,
    /// To empty every server.
    FlushAll {
        /// The line, as far as it goes out.
        line: &'a [u8],
        /// Whether no reply is wanted.
        quiet: bool,
    },
    /// What is not done.
    Refused {
        /// Why.
        refusal: Refusal,
        /// Whether no reply is wanted.
        quiet: bool,
    },
}

/// A request about one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keyed<'a> {
    /// The key; never empty.
    pub key: &'a [u8],
    /// The line, as far as it goes out, without its end.
    pub line: &'a [u8],
    /// Whether it may change something.
    pub writes: bool,
    /// Whether no reply is wanted.
    pub quiet: bool,
    /// Whether the request can go out byte for byte.
    pub as_it_is: bool,
    /// Bytes of data that follow the line, without their CR LF.
    pub data: Option<usize>,
}

/// A retrieval of several keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Several<'a> {
    /// What stands before the keys, without a space after it.
    pub head: &'a [u8],
    keys: &'a [u8],
}

impl<'a> Several<'a> {
    /// The keys in their order; longer ones than may be among them.
    pub fn keys(&self) -> impl Iterator<Item = &'a [u8]> + Clone {
        let words = Words {
            text: self.keys,
            at: 0,
        };
        words.map(|(word, _)| word)
    }
}

fn refused<'a>(refusal: Refusal, quiet: bool) -> Asked<'a> {
    Asked::Refused { refusal, quiet }
}

/// What `line` asks for; whether twemproxy would take it, too, is told beside it.
#[inline]
pub(super) fn asked<'a>(line: &Line<'a>) -> (Asked<'a>, bool) {
    match line.word(0) {
        b"get" | b"gets" => (retrieval(line, 1), true),
        b"set" | b"add" | b"replace" | b"append" | b"prepend" => storage(line, 5),
        b"cas" => storage(line, 6),
        b"delete" => delete(line),
        b"incr" | b"decr" => (delta(line), true),
        b"touch" => (touch(line), true),
        _ => rare(line),
    }
}

fn rare<'a>(line: &Line<'a>) -> (Asked<'a>, bool) {
    match line.word(0) {
        b"gat" | b"gats" => match line.count() {
            0..=2 => (refused(Refusal::Unknown, false), false),
            _ if !is_exptime(line.word(1)) => (refused(Refusal::BadExptime, false), false),
            _ => (retrieval(line, 2), false),
        },
        b"version" => (Asked::Version, line.count() == 1),
        b"quit" => (Asked::Quit, line.count() == 1),
        b"flush_all" => (flush_all(line), false),
        verb => (
            refused(
                match unsupported(verb) {
                    Some(name) => Refusal::Unsupported(name),
                    None if line.last_word().starts_with(b"HTTP/") => Refusal::Http,
                    None => Refusal::Unknown,
                },
                false,
            ),
            false,
        ),
    }
}

/// Commands that memcached has and that make no sense over several servers, or
/// whose replies are not understood here.
fn unsupported(verb: &[u8]) -> Option<&'static str> {
    const NAMES: [&str; 17] = [
        "stats",
        "verbosity",
        "cache_memlimit",
        "slabs",
        "lru",
        "lru_crawler",
        "watch",
        "shutdown",
        "extstore",
        "refresh_certs",
        "mg",
        "ms",
        "md",
        "ma",
        "mn",
        "me",
        "bget",
    ];
    NAMES.into_iter().find(|name| name.as_bytes() == verb)
}

/// `first`: which word is the first key.
#[inline]
fn retrieval<'a>(line: &Line<'a>, first: usize) -> Asked<'a> {
    let key = line.word(first);
    if line.count() <= first {
        return refused(Refusal::Unknown, false);
    }
    if line.count() > first + 1 {
        let head_end = line.end_of(first - 1);
        let (head, keys) = line.text.split_at_checked(head_end).unwrap_or_default();
        return Asked::Several(Several { head, keys });
    }
    keyed(line, key, line.end_of(first), false, None)
}

/// A request about one key; its line goes out up to `end`.
#[inline]
fn keyed<'a>(
    line: &Line<'a>,
    key: &'a [u8],
    end: usize,
    writes: bool,
    data: Option<usize>,
) -> Asked<'a> {
    let quiet = writes && line.is_quiet();
    if key.len() > KEY_BYTES_MAX {
        return refused(Refusal::BadLine, quiet);
    }
    let rest = line.text.get(end..).unwrap_or_default();
    Asked::Keyed(Keyed {
        key,
        line: line.text.get(..end).unwrap_or_default(),
        writes,
        quiet,
        as_it_is: !line.is_cut && rest.iter().all(|&byte| byte == b' '),
        data,
    })
}

/// Commands with data; `words`: how many there are without `noreply`.
#[inline]
fn storage<'a>(line: &Line<'a>, words: usize) -> (Asked<'a>, bool) {
    let count = line.count();
    if count != words && count != words + 1 {
        return (refused(Refusal::Unknown, false), false);
    }
    let is_sound = number(line.word(2), u64::from(u32::MAX)).is_some()
        && is_exptime(line.word(3))
        && (words == 5 || number(line.word(5), u64::MAX).is_some());
    let data = number(line.word(4), DATA_BYTES_MAX)
        .filter(|_| is_sound)
        .and_then(|data| usize::try_from(data).ok());
    let Some(data) = data else {
        return (refused(Refusal::BadLine, line.is_quiet()), false);
    };
    let is_negative = line.word(3).starts_with(b"-");
    let has_other_word = count == words + 1 && !line.is_quiet();
    (
        keyed(line, line.word(1), line.end_of(words - 1), true, Some(data)),
        !is_negative && !has_other_word,
    )
}

fn delta<'a>(line: &Line<'a>) -> Asked<'a> {
    if !matches!(line.count(), 3 | 4) {
        return refused(Refusal::Unknown, false);
    }
    if line.word(1).len() > KEY_BYTES_MAX {
        return refused(Refusal::BadLine, line.is_quiet());
    }
    match number(line.word(2), u64::MAX) {
        Some(_) => keyed(line, line.word(1), line.end_of(2), true, None),
        None => refused(Refusal::BadDelta, line.is_quiet()),
    }
}

fn touch<'a>(line: &Line<'a>) -> Asked<'a> {
    if !matches!(line.count(), 3 | 4) {
        return refused(Refusal::Unknown, false);
    }
    if line.word(1).len() > KEY_BYTES_MAX {
        return refused(Refusal::BadLine, line.is_quiet());
    }
    match is_exptime(line.word(2)) {
        true => keyed(line, line.word(1), line.end_of(2), true, None),
        false => refused(Refusal::BadExptime, line.is_quiet()),
    }
}

fn delete<'a>(line: &Line<'a>) -> (Asked<'a>, bool) {
    let key = line.word(1);
    let count = line.count();
    if !matches!(count, 2..=4) {
        return (refused(Refusal::Unknown, false), false);
    }
    let has_zero = count > 2 && line.word(2) == b"0";
    let quiet = count > 2 && line.is_quiet();
    let is_sound = match count {
        2 => true,
        3 => has_zero || quiet,
        _ => has_zero && quiet,
    };
    if !is_sound {
        return (refused(Refusal::BadDelete, quiet), false);
    }
    // A key of this name, and no word for it.
    if count == 2 && key == b"noreply" {
        return (
            Asked::Keyed(Keyed {
                key,
                line: line.text.get(..line.end_of(1)).unwrap_or_default(),
                writes: true,
                quiet: false,
                as_it_is: !line.is_cut,
                data: None,
            }),
            true,
        );
    }
    let last = if has_zero { 2 } else { 1 };
    (keyed(line, key, line.end_of(last), true, None), !has_zero)
}

fn flush_all<'a>(line: &Line<'a>) -> Asked<'a> {
    let quiet = line.is_quiet();
    let words = line.count() - usize::from(quiet);
    match words {
        1 => {}
        2 if is_exptime(line.word(1)) => {}
        2 => return refused(Refusal::BadExptime, quiet),
        _ => return refused(Refusal::Unknown, false),
    }
    Asked::FlushAll {
        line: line.text.get(..line.end_of(words - 1)).unwrap_or_default(),
        quiet,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> (Asked<'_>, bool) {
        asked(&Line::of(text.as_bytes()))
    }

    fn key_line(text: &str) -> (String, String, bool, bool) {
        let Asked::Keyed(keyed) = of(text).0 else {
            panic!("{text}: {:?}", of(text))
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (
            text(keyed.key),
            text(keyed.line),
            keyed.quiet,
            keyed.as_it_is,
        )
    }

    #[test]
    fn what_goes_out_has_no_noreply_and_one_reply() {
        for (text, key, line, quiet, as_it_is) in [
            ("get k", "k", "get k", false, true),
            ("get noreply", "noreply", "get noreply", false, true),
            (" get  k ", "k", " get  k", false, true),
            ("gat -1 k", "k", "gat -1 k", false, true),
            ("set k 1 -1 3", "k", "set k 1 -1 3", false, true),
            ("set k 1 0 3 noreply", "k", "set k 1 0 3", true, false),
            (
                "set noreply 1 0 3",
                "noreply",
                "set noreply 1 0 3",
                false,
                true,
            ),
            ("set k 1 0 3 other", "k", "set k 1 0 3", false, false),
            (
                "cas k 1 0 3 18446744073709551615 noreply",
                "k",
                "cas k 1 0 3 18446744073709551615",
                true,
                false,
            ),
            ("incr k 5 noreply", "k", "incr k 5", true, false),
            ("touch k 5 other", "k", "touch k 5", false, false),
            ("delete k", "k", "delete k", false, true),
            ("delete k 0", "k", "delete k 0", false, true),
            ("delete k 0 noreply", "k", "delete k 0", true, false),
            ("delete k noreply", "k", "delete k", true, false),
            ("delete noreply", "noreply", "delete noreply", false, true),
            (
                "delete noreply noreply",
                "noreply",
                "delete noreply",
                true,
                false,
            ),
            ("get k\0 x", "k", "get k", false, false),
        ] {
            let (key, line) = (key.to_owned(), line.to_owned());
            assert_eq!(key_line(text), (key, line, quiet, as_it_is), "{text}");
        }
    }

    #[test]
    fn what_memcached_would_not_answer_as_asked_is_refused() {
        let long = "k".repeat(251);
        for (text, refusal, quiet) in [
            ("", Refusal::Unknown, false),
            ("GET k", Refusal::Unknown, false),
            ("get", Refusal::Unknown, false),
            ("gat 1", Refusal::Unknown, false),
            ("gat x k", Refusal::BadExptime, false),
            (&format!("get {long}"), Refusal::BadLine, false),
            ("set k 0 0", Refusal::Unknown, false),
            ("set k 0 0 1 2 3", Refusal::Unknown, false),
            ("set k 0 0 noreply", Refusal::BadLine, true),
            ("set k -1 0 1", Refusal::BadLine, false),
            ("set k 4294967296 0 1", Refusal::BadLine, false),
            ("set k 0 1s 1", Refusal::BadLine, false),
            ("set k 0 0 -1", Refusal::BadLine, false),
            ("set k 0 0 2147483646", Refusal::BadLine, false),
            (&format!("set {long} 0 0 1 noreply"), Refusal::BadLine, true),
            ("cas k 0 0 1", Refusal::Unknown, false),
            ("cas k 0 0 1 x", Refusal::BadLine, false),
            ("incr k noreply", Refusal::BadDelta, true),
            ("decr k -1", Refusal::BadDelta, false),
            (&format!("incr {long} x"), Refusal::BadLine, false),
            ("touch k noreply", Refusal::BadExptime, true),
            ("touch k", Refusal::Unknown, false),
            ("delete k 1", Refusal::BadDelete, false),
            ("delete k noreply noreply", Refusal::BadDelete, true),
            ("delete k 0 0", Refusal::BadDelete, false),
            ("delete", Refusal::Unknown, false),
            ("flush_all x", Refusal::BadExptime, false),
            ("flush_all 1 2", Refusal::Unknown, false),
            ("stats items", Refusal::Unsupported("stats"), false),
            ("POST / HTTP/1.1", Refusal::Http, false),
        ] {
            assert_eq!(of(text).0, refused(refusal, quiet), "{text}");
        }
    }

    #[test]
    fn several_keys_come_in_their_order_behind_their_head() {
        for (text, head) in [
            ("get a  b a ", "get"),
            (" gets a b a", " gets"),
            ("gat  10 a b a", "gat  10"),
        ] {
            let Asked::Several(several) = of(text).0 else {
                panic!("{text}")
            };
            assert_eq!(several.head, head.as_bytes());
            assert_eq!(several.keys().collect::<Vec<_>>(), [b"a", b"b", b"a"]);
        }
    }

    #[test]
    fn the_original_takes_less() {
        for (text, taken) in [
            ("get a b", true),
            ("gat 1 a", false),
            ("set k 0 0 1", true),
            ("set k 0 -1 1", false),
            ("set k 0 0 1 x", false),
            ("delete k 0", false),
            ("delete k noreply", true),
            ("touch k -1", true),
            ("version", true),
            ("version x", false),
            ("flush_all", false),
        ] {
            assert_eq!(of(text).1, taken, "{text}");
        }
    }
}
