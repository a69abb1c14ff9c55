//! Why a rule is none, in Redis' words; and how rules stand in requests and lines.

use crate::resp::{RequestLimits, RequestScanner};

/// Why a rule is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// It is none.
    #[error("Syntax error")]
    Syntax,
    /// It names what is no command or category.
    #[error("Unknown command or category name in ACL")]
    Unknown,
    /// It adds keys to all keys.
    #[error(
        "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not \
         have any effect. Try 'resetkeys' to start with an empty list of patterns"
    )]
    AfterAllKeys,
    /// It adds channels to all channels.
    #[error(
        "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does \
         not have any effect. Try 'resetchannels' to start with an empty list of channels"
    )]
    AfterAllChannels,
    /// It removes a password that is none.
    #[error("The password you are trying to remove from the user does not exist")]
    NoSuchPassword,
    /// It holds no hash.
    #[error(
        "The password hash must be exactly 64 characters and contain only lowercase hexadecimal \
         characters"
    )]
    Hash,
    /// It opens a subcommand for one argument.
    #[error("Allowing first-arg of a subcommand is not supported")]
    FirstArgumentOfSubcommand,
}

/// A selector that begins and does not end; the number of the rule in which it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmatched(pub usize);

/// Puts selectors together again whose words stand apart: `(+get` `~k)` is one rule.
///
/// # Errors
/// [`Unmatched`].
pub fn merge_selectors<'r>(
    rules: impl Iterator<Item = &'r [u8]>,
) -> Result<Vec<Vec<u8>>, Unmatched> {
    let mut merged = Vec::new();
    let mut open: Option<(usize, Vec<u8>)> = None;
    for (number, rule) in rules.enumerate() {
        let ends = rule.last() == Some(&b')');
        if rule.first() == Some(&b'(') && !ends {
            open = Some((number, rule.to_vec()));
            continue;
        }
        let Some((begun, mut selector)) = open.take() else {
            merged.push(rule.to_vec());
            continue;
        };
        selector.push(b' ');
        selector.extend_from_slice(rule);
        match ends {
            true => merged.push(selector),
            false => open = Some((begun, selector)),
        }
    }
    match open {
        Some((number, _)) => Err(Unmatched(number)),
        None => Ok(merged),
    }
}

/// The words of a line, which may be quoted as in a config file. Nothing if quotes do not
/// match, as Redis takes it.
pub(super) fn words(line: &[u8]) -> Vec<Vec<u8>> {
    // An inline request is such a line; its first word is there so that none is an array.
    let mut inline = b"rules ".to_vec();
    inline.extend(line.iter().map(|byte| match byte {
        b'\r' | b'\n' | 0 => b' ',
        other => *other,
    }));
    inline.extend_from_slice(b"\r\n");
    let limits = RequestLimits {
        takes_inline: true,
        inline_bytes_max: SELECTOR_BYTES_MAX,
        ..RequestLimits::default()
    };
    // A line is judged when a byte behind it is here.
    inline.push(b'*');
    let mut scanner = RequestScanner::new(limits);
    match scanner.scan(&inline) {
        Ok(Some(request)) => {
            let words = request.args.iter().skip(1);
            words.map(|span| span.of(request.bytes).to_vec()).collect()
        }
        _ => Vec::new(),
    }
}

/// Longest selector.
const SELECTOR_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_put_together() {
        let merged = |line: &str| {
            let rules = line.split(' ').map(str::as_bytes);
            let merged = merge_selectors(rules)?;
            let texts = merged
                .iter()
                .map(|of| String::from_utf8_lossy(of).into_owned());
            Ok(texts.collect::<Vec<_>>().join(","))
        };
        assert_eq!(merged("on (+get ~k) >p"), Ok("on,(+get ~k),>p".to_owned()));
        assert_eq!(merged("( +get ) (x)"), Ok("( +get ),(x)".to_owned()));
        assert_eq!(merged("on (+get ~k >p"), Err(Unmatched(1)));
    }

    #[test]
    fn words_may_be_quoted() {
        assert_eq!(words(b" +get  ~k "), [b"+get".to_vec(), b"~k".to_vec()]);
        assert_eq!(words(b"~\"a b\" x"), [b"~a b".to_vec(), b"x".to_vec()]);
        assert!(words(b"~\"a").is_empty());
        assert!(words(b"").is_empty());
    }
}
