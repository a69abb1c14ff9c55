//! Redis's own patterns (`stringmatchlen` in its `src/util.c`):
//! `*`, `?`, `[a-z]`, `[^a]`, `\x`.

/// Whether letters of the other case fit, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// Names of commands and parameters.
    Any,
    /// Channels.
    Same,
}

impl Case {
    fn of(self, byte: u8) -> u8 {
        match self {
            Self::Any => byte.to_ascii_lowercase(),
            Self::Same => byte,
        }
    }
}

/// Whether all of `text` fits. Takes time as `pattern.len() * text.len()` at most:
/// only the latest star is ever made to stand for more.
pub fn fits(pattern: &[u8], text: &[u8], case: Case) -> bool {
    let (mut pattern_rest, mut text_rest) = (pattern, text);
    // After the latest star, and what it does not stand for yet.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some(after) = pattern_rest.strip_prefix(b"*") {
            star = Some((after, text_rest));
            pattern_rest = after;
            continue;
        }
        let step = match text_rest.split_first() {
            None if pattern_rest.is_empty() => return true,
            None => return false,
            Some((&byte, rest)) => one_fits(pattern_rest, byte, case).map(|after| (after, rest)),
        };
        (pattern_rest, text_rest) = match (step, star) {
            (Some(next), _) => next,
            (None, Some((after, [_, rest @ ..]))) => {
                star = Some((after, rest));
                (after, rest)
            }
            (None, _) => return false,
        };
    }
}

/// What of a pattern follows its first element, if that is no star and `byte` fits it.
fn one_fits(pattern: &[u8], byte: u8, case: Case) -> Option<&[u8]> {
    let (&first, rest) = pattern.split_first()?;
    let (is_same, rest) = match (first, rest.split_first()) {
        (b'?', _) => (true, rest),
        (b'[', _) => in_class(rest, byte, case),
        (b'\\', Some((escaped, rest))) => (case.of(*escaped) == case.of(byte), rest),
        _ => (case.of(first) == case.of(byte), rest),
    };
    is_same.then_some(rest)
}

/// Whether `byte` is in the class that begins `pattern`, and what follows it.
fn in_class(pattern: &[u8], byte: u8, case: Case) -> (bool, &[u8]) {
    let byte = case.of(byte);
    let (negated, mut rest) = match pattern.strip_prefix(b"^") {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    let mut found = false;
    loop {
        rest = match rest {
            [] => break,
            [b']', after @ ..] => {
                rest = after;
                break;
            }
            [b'\\', escaped, after @ ..] => {
                found |= case.of(*escaped) == byte;
                after
            }
            [from, b'-', to, after @ ..] => {
                let (from, to) = (case.of(*from), case.of(*to));
                found |= (from.min(to)..=from.max(to)).contains(&byte);
                after
            }
            [one, after @ ..] => {
                found |= case.of(*one) == byte;
                after
            }
        };
    }
    (found != negated, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_redis_has_them() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("max*", "MAXMEMORY", true),
            ("m?x*y", "maxmemory", true),
            ("m?x", "maxmemory", false),
            ("*memory*", "maxmemory-policy", true),
            ("[a-c]x", "Bx", true),
            ("[^a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("[abc", "b", true),
            ("", "x", false),
            ("x**", "x", true),
            ("*********", "x", true),
            ("*a*b*c", "xaxbxbxc", true),
            ("*a*b*c", "xaxbxbxcx", false),
            ("*[a-b]?*\\*", "xxbc*", true),
            ("a*", "", false),
        ] {
            assert_eq!(
                fits(pattern.as_bytes(), text.as_bytes(), Case::Any),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn channels_have_a_case() {
        let same =
            |pattern: &str, text: &str| fits(pattern.as_bytes(), text.as_bytes(), Case::Same);
        assert!(same("News.*", "News.x") && same("[A-C]?", "Bx"));
        assert!(!same("news.*", "News.x") && !same("[a-c]?", "Bx") && !same("\\A", "a"));
    }

    #[test]
    fn many_stars_take_no_long_time() {
        let (pattern, text) = ("a*".repeat(50) + "b", "a".repeat(5_000));
        assert!(!fits(pattern.as_bytes(), text.as_bytes(), Case::Same));
    }
}
