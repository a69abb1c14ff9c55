//! Patterns of KEYS, SCAN, PSUBSCRIBE and CONFIG GET.
//!
//! `*` any bytes, `?` one byte, `[a-c]` one of, `[^a]` none of, `\x` that byte. As Redis
//! 7.0 reads them (util.c, `stringmatchlen`): a class that is not closed ends with the
//! pattern, a backslash at the end stands for itself, and what is empty matches only the
//! empty pattern, not even `*`.

/// Whether `text` matches `pattern`.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    // Where to go on when what follows the last `*` fits no longer.
    let mut retry: Option<(usize, usize)> = None;
    let (mut at, mut in_text) = (0, 0);
    loop {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            if at == pattern.len() {
                return true;
            }
            retry = Some((at, in_text));
            continue;
        }
        let step = match (pattern.get(at), text.get(in_text)) {
            (None, None) => return true,
            (Some(_), Some(&byte)) => one(&pattern[at..], byte),
            _ => None,
        };
        if let Some(length) = step {
            at += length;
            in_text += 1;
            continue;
        }
        match retry {
            Some((after_star, from)) if from < text.len() => {
                retry = Some((after_star, from + 1));
                (at, in_text) = (after_star, from + 1);
            }
            _ => return false,
        }
    }
}

/// The same, with ASCII letters of either case alike.
pub fn matches_ignoring_case(pattern: &[u8], text: &[u8]) -> bool {
    matches(&pattern.to_ascii_lowercase(), &text.to_ascii_lowercase())
}

/// How many bytes of `pattern`, which is not empty, take `byte`.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', ..] => class(pattern, byte),
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [first, ..] => (*first == byte).then_some(1),
        [] => None,
    }
}

fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let is_negated = pattern.get(1) == Some(&b'^');
    let mut at = 1 + usize::from(is_negated);
    let mut is_in = false;
    let length = loop {
        match &pattern[at.min(pattern.len())..] {
            [b'\\', escaped, _, ..] => {
                is_in |= *escaped == byte;
                at += 2;
            }
            [b']', ..] => break at + 1,
            [] => break pattern.len(),
            [from, b'-', to, ..] => {
                let (low, high) = (*from.min(to), *from.max(to));
                is_in |= (low..=high).contains(&byte);
                at += 3;
            }
            [only, ..] => {
                is_in |= *only == byte;
                at += 1;
            }
        }
    };
    (is_in != is_negated).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_redis_matches_them() {
        for (pattern, text, is_match) in [
            ("*", "", false),
            ("a*", "a", true),
            ("", "", true),
            ("", "a", false),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcd", false),
            ("h?llo", "hello", true),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h\\*llo", "h*llo", true),
            ("h\\*llo", "hello", false),
            ("[ab", "a", true),
            ("**a", "bba", true),
            (
                "*a*a*a*a*b",
                "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                false,
            ),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                is_match,
                "{pattern} {text}"
            );
        }
        assert!(matches_ignoring_case(b"MAX*", b"maxmemory"));
    }
}
