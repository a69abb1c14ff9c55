//! JSON as Lua values.

use mlua::{Lua, LuaString, Table, Value};

use super::Options;
use crate::store::scripts::arguments::fail;

/// Tables inside tables, whatever the option says.
const DEPTH_MAX: i64 = 1_000_000;

/// The value of a text.
pub(super) fn decode(lua: &Lua, options: Options, text: &[u8]) -> mlua::Result<Value> {
    if text.len() >= 2 && (text[0] == 0 || text[1] == 0) {
        return Err(fail(lua, "JSON parser does not support UTF-16 or UTF-32"));
    }
    let mut parser = Parser {
        lua,
        options,
        text,
        at: 0,
        depth: 0,
    };
    let token = parser.next();
    let value = parser.value(token)?;
    let token = parser.next();
    match token.kind {
        Kind::End => Ok(value),
        _ => Err(parser.unexpected("the end", &token)),
    }
}

#[derive(Debug)]
enum Kind {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Text(Vec<u8>),
    Number(f64),
    Truth(bool),
    Null,
    Colon,
    Comma,
    End,
    Wrong(&'static str),
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Kind::ObjectBegin => "T_OBJ_BEGIN",
            Kind::ObjectEnd => "T_OBJ_END",
            Kind::ArrayBegin => "T_ARR_BEGIN",
            Kind::ArrayEnd => "T_ARR_END",
            Kind::Text(_) => "T_STRING",
            Kind::Number(_) => "T_NUMBER",
            Kind::Truth(_) => "T_BOOLEAN",
            Kind::Null => "T_NULL",
            Kind::Colon => "T_COLON",
            Kind::Comma => "T_COMMA",
            Kind::End => "T_END",
            Kind::Wrong(words) => words,
        }
    }
}

#[derive(Debug)]
struct Token {
    kind: Kind,
    index: usize,
}

/// What is not whole yet.
enum Open {
    Object { table: Table, key: LuaString },
    Array { table: Table, len: i64 },
}

struct Parser<'a> {
    lua: &'a Lua,
    options: Options,
    text: &'a [u8],
    at: usize,
    depth: i64,
}

impl Parser<'_> {
    /// A byte of the text; zero behind its end, as C has it.
    fn byte(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(0)
    }

    fn rest(&self) -> &[u8] {
        self.text.get(self.at..).unwrap_or(&[])
    }

    fn unexpected(&self, wanted: &str, found: &Token) -> mlua::Error {
        let words = format!(
            "Expected {wanted} but found {} at character {}",
            found.kind.name(),
            found.index + 1
        );
        fail(self.lua, &words)
    }

    fn descend(&mut self) -> mlua::Result<()> {
        self.depth += 1;
        if self.depth <= self.options.decode_depth_max.min(DEPTH_MAX) {
            return Ok(());
        }
        let words = format!(
            "Found too many nested data structures ({}) at character {}",
            self.depth, self.at
        );
        Err(fail(self.lua, &words))
    }

    /// The value that begins with a token. What is not whole yet is not on the thread's
    /// stack: how deep it may be is the option's business.
    fn value(&mut self, mut token: Token) -> mlua::Result<Value> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            let mut value = match token.kind {
                Kind::Text(text) => Value::String(self.lua.create_string(text)?),
                Kind::Number(number) => Value::Number(number),
                Kind::Truth(value) => Value::Boolean(value),
                Kind::Null => Value::NULL,
                Kind::ObjectBegin => {
                    self.descend()?;
                    let table = self.lua.create_table()?;
                    token = self.next();
                    if !matches!(token.kind, Kind::ObjectEnd) {
                        let key = self.key(token)?;
                        open.push(Open::Object { table, key });
                        token = self.next();
                        continue;
                    }
                    self.depth -= 1;
                    Value::Table(table)
                }
                Kind::ArrayBegin => {
                    self.descend()?;
                    let table = self.lua.create_table()?;
                    token = self.next();
                    if !matches!(token.kind, Kind::ArrayEnd) {
                        open.push(Open::Array { table, len: 0 });
                        continue;
                    }
                    self.depth -= 1;
                    Value::Table(table)
                }
                _ => return Err(self.unexpected("value", &token)),
            };
            // What is whole belongs to what is open, which may be whole then.
            loop {
                let Some(innermost) = open.last_mut() else {
                    return Ok(value);
                };
                let (is_object, wanted) = match innermost {
                    Open::Object { table, key } => {
                        table.raw_set(&*key, value)?;
                        (true, "comma or object end")
                    }
                    Open::Array { table, len } => {
                        *len += 1;
                        table.raw_set(*len, value)?;
                        (false, "comma or array end")
                    }
                };
                token = self.next();
                match (&token.kind, is_object) {
                    (Kind::ObjectEnd, true) | (Kind::ArrayEnd, false) => {
                        self.depth -= 1;
                        value = match open.pop() {
                            Some(Open::Object { table, .. } | Open::Array { table, .. }) => {
                                Value::Table(table)
                            }
                            None => Value::Nil,
                        };
                    }
                    (Kind::Comma, _) => {
                        token = self.next();
                        if let Some(Open::Object { key, .. }) = open.last_mut() {
                            *key = self.key(token)?;
                            token = self.next();
                        }
                        break;
                    }
                    _ => return Err(self.unexpected(wanted, &token)),
                }
            }
        }
    }

    /// A key of an object, and the colon behind it.
    fn key(&mut self, token: Token) -> mlua::Result<LuaString> {
        let Kind::Text(key) = token.kind else {
            return Err(self.unexpected("object key string", &token));
        };
        let colon = self.next();
        match colon.kind {
            Kind::Colon => self.lua.create_string(key),
            _ => Err(self.unexpected("colon", &colon)),
        }
    }

    fn next(&mut self) -> Token {
        while matches!(self.byte(self.at), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        let index = self.at;
        let byte = self.byte(index);
        let single = match byte {
            b'{' => Some(Kind::ObjectBegin),
            b'}' => Some(Kind::ObjectEnd),
            b'[' => Some(Kind::ArrayBegin),
            b']' => Some(Kind::ArrayEnd),
            b',' => Some(Kind::Comma),
            b':' => Some(Kind::Colon),
            _ => None,
        };
        if let Some(kind) = single {
            self.at += 1;
            return Token { kind, index };
        }
        let invalid = self.options.decodes_invalid;
        let kind = match byte {
            0 => Kind::End,
            b'"' => return self.string(index),
            b'-' | b'0'..=b'9' => match !invalid && self.is_invalid_number() {
                true => Kind::Wrong("invalid number"),
                false => self.number(),
            },
            _ if self.rest().starts_with(b"true") => self.word(4, Kind::Truth(true)),
            _ if self.rest().starts_with(b"false") => self.word(5, Kind::Truth(false)),
            _ if self.rest().starts_with(b"null") => self.word(4, Kind::Null),
            b'f' | b'i' | b'I' | b'n' | b'N' | b't' | b'+'
                if invalid && self.is_invalid_number() =>
            {
                self.number()
            }
            _ => Kind::Wrong("invalid token"),
        };
        Token { kind, index }
    }

    fn word(&mut self, len: usize, kind: Kind) -> Kind {
        self.at += len;
        kind
    }

    fn string(&mut self, index: usize) -> Token {
        let mut text = Vec::new();
        self.at += 1;
        loop {
            let byte = self.byte(self.at);
            match byte {
                b'"' => break,
                0 => return self.wrong("unexpected end of string"),
                b'\\' => {
                    let plain = match self.byte(self.at + 1) {
                        plain @ (b'"' | b'\\' | b'/') => plain,
                        b'b' => 8,
                        b't' => b'\t',
                        b'n' => b'\n',
                        b'f' => 12,
                        b'r' => b'\r',
                        b'u' => {
                            if self.unicode(&mut text).is_none() {
                                return self.wrong("invalid unicode escape code");
                            }
                            continue;
                        }
                        _ => return self.wrong("invalid escape code"),
                    };
                    text.push(plain);
                    self.at += 2;
                }
                plain => {
                    text.push(plain);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        let kind = Kind::Text(text);
        Token { kind, index }
    }

    fn wrong(&self, words: &'static str) -> Token {
        Token {
            kind: Kind::Wrong(words),
            index: self.at,
        }
    }

    fn four_digits(&self, at: usize) -> Option<u32> {
        let digits = self.text.get(at..at + 4)?;
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        digits
            .iter()
            .try_fold(0, |code, byte| Some(code << 4 | digit(byte)?))
    }

    /// `\uXXXX`, and a second one if it is the first half of a pair.
    fn unicode(&mut self, text: &mut Vec<u8>) -> Option<()> {
        let mut code = self.four_digits(self.at + 2)?;
        let mut len = 6;
        if code & 0xF800 == 0xD800 {
            let is_low = code & 0x400 != 0;
            let next = (self.byte(self.at + 6), self.byte(self.at + 7));
            if is_low || next != (b'\\', b'u') {
                return None;
            }
            let low = self.four_digits(self.at + 8)?;
            if low & 0xFC00 != 0xDC00 {
                return None;
            }
            code = (((code & 0x3FF) << 10) | (low & 0x3FF)) + 0x1_0000;
            len = 12;
        }
        let mut utf8 = [0; 4];
        let utf8 = char::from_u32(code)?.encode_utf8(&mut utf8);
        text.extend_from_slice(utf8.as_bytes());
        self.at += len;
        Some(())
    }

    /// What `strtod` takes and JSON does not have.
    fn is_invalid_number(&self) -> bool {
        let mut at = self.at;
        match self.byte(at) {
            b'+' => return true,
            b'-' => at += 1,
            _ => {}
        }
        let first = self.byte(at);
        if first == b'0' {
            return matches!(self.byte(at + 1), b'x' | b'X' | b'0'..=b'9');
        }
        if first <= b'9' {
            return false;
        }
        let word = self.text.get(at..at + 3).unwrap_or(&[]);
        word.eq_ignore_ascii_case(b"inf") || word.eq_ignore_ascii_case(b"nan")
    }

    fn number(&mut self) -> Kind {
        match strtod(self.rest()) {
            Some((number, len)) => {
                self.at += len;
                Kind::Number(number)
            }
            None => Kind::Wrong("invalid number"),
        }
    }
}

/// C's `strtod` at the beginning of a text: the number, and how long it is.
fn strtod(text: &[u8]) -> Option<(f64, usize)> {
    let sign = usize::from(matches!(text.first(), Some(b'-' | b'+')));
    let is_negative = text.first() == Some(&b'-');
    let signed = |number: f64| if is_negative { -number } else { number };
    let rest = text.get(sign..)?;
    let begins = |word: &[u8]| {
        let head = rest.get(..word.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(word))
    };
    for (word, value) in [
        (&b"infinity"[..], f64::INFINITY),
        (b"inf", f64::INFINITY),
        (b"nan", f64::NAN),
    ] {
        if begins(word) {
            return Some((signed(value), sign + word.len()));
        }
    }
    if begins(b"0x")
        && let Some((number, len)) = hexadecimal(rest.get(2..)?)
    {
        return Some((signed(number), sign + 2 + len));
    }
    let digits = |from: usize| {
        let rest = rest.get(from..).unwrap_or(&[]);
        rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
    };
    let whole = digits(0);
    let mut end = whole;
    let mut fraction = 0;
    if rest.get(end) == Some(&b'.') {
        fraction = digits(end + 1);
        if whole + fraction > 0 {
            end += 1 + fraction;
        }
    }
    if whole + fraction == 0 {
        return None;
    }
    if matches!(rest.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(rest.get(end + 1), Some(b'-' | b'+')));
        let power = digits(end + 1 + sign);
        if power > 0 {
            end += 1 + sign + power;
        }
    }
    let written = std::str::from_utf8(rest.get(..end)?).ok()?;
    Some((signed(written.parse().ok()?), sign + end))
}

fn hexadecimal(text: &[u8]) -> Option<(f64, usize)> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let (mut value, mut len, mut scale) = (0.0, 0, None::<f64>);
    let mut digits = 0;
    for byte in text {
        match (digit(byte), scale) {
            (Some(digit), None) => value = value * 16.0 + f64::from(digit),
            (Some(digit), Some(of)) => {
                value += f64::from(digit) * of;
                scale = Some(of / 16.0);
            }
            (None, None) if *byte == b'.' => {
                scale = Some(1.0 / 16.0);
                len += 1;
                continue;
            }
            _ => break,
        }
        digits += 1;
        len += 1;
    }
    if digits == 0 {
        return None;
    }
    let rest = text.get(len..).unwrap_or(&[]);
    if let [b'p' | b'P', power @ ..] = rest {
        let sign = usize::from(matches!(power.first(), Some(b'-' | b'+')));
        let digits = power.get(sign..).unwrap_or(&[]);
        let count = digits
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let written = power
            .get(..sign + count)
            .and_then(|of| std::str::from_utf8(of).ok());
        if count > 0
            && let Some(power) = written.and_then(|written| written.parse::<i32>().ok())
        {
            value *= 2_f64.powi(power);
            len += 1 + sign + count;
        }
    }
    Some((value, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_end_where_strtod_ends_them() {
        for (text, value, len) in [
            ("12,", 12.0, 2),
            ("-1.5e3]", -1500.0, 6),
            ("1e", 1.0, 1),
            ("1.", 1.0, 2),
            ("0x10", 16.0, 4),
            ("0x.8p1", 1.0, 6),
            ("0xg", 0.0, 1),
            ("007", 7.0, 3),
            ("inf", f64::INFINITY, 3),
        ] {
            assert_eq!(strtod(text.as_bytes()), Some((value, len)), "{text}");
        }
        assert_eq!(strtod(b"-"), None);
        assert_eq!(strtod(b"."), None);
    }
}
