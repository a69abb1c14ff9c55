//! Redis's own patterns (`stringmatchlen` in its `src/util.c`), any case:
//! `*`, `?`, `[a-z]`, `[^a]`, `\x`.

/// Whether all of `text` fits. Recursion is as deep as the pattern has stars,
/// which is at most [`STARS_MAX`]; a pattern with more fits nothing.
pub fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let stars = pattern.iter().filter(|&&byte| byte == b'*').count();
    stars <= STARS_MAX && fits_from(pattern, text)
}

/// More are of no use to find a parameter or a command.
const STARS_MAX: usize = 8;

fn fits_from(mut pattern: &[u8], mut text: &[u8]) -> bool {
    while let Some((&first, rest)) = pattern.split_first() {
        if first == b'*' {
            return (0..=text.len()).any(|skip| fits_from(rest, text.get(skip..).unwrap_or(&[])));
        }
        let Some((&byte, text_rest)) = text.split_first() else {
            return false;
        };
        let (is_same, rest) = match (first, rest.split_first()) {
            (b'?', _) => (true, rest),
            (b'[', _) => in_class(rest, byte),
            (b'\\', Some((escaped, rest))) => (escaped.eq_ignore_ascii_case(&byte), rest),
            _ => (first.eq_ignore_ascii_case(&byte), rest),
        };
        if !is_same {
            return false;
        }
        (pattern, text) = (rest, text_rest);
    }
    text.is_empty()
}

/// Whether `byte` is in the class that begins `pattern`, and what follows it.
fn in_class(pattern: &[u8], byte: u8) -> (bool, &[u8]) {
    let byte = byte.to_ascii_lowercase();
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
                found |= escaped.to_ascii_lowercase() == byte;
                after
            }
            [from, b'-', to, after @ ..] => {
                let (from, to) = (from.to_ascii_lowercase(), to.to_ascii_lowercase());
                found |= (from.min(to)..=from.max(to)).contains(&byte);
                after
            }
            [one, after @ ..] => {
                found |= one.to_ascii_lowercase() == byte;
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
            ("*********", "x", false),
        ] {
            assert_eq!(
                fits(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }
}
