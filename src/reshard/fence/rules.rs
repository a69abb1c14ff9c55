//! The rules of the pool's user, as ACL LIST tells them, given to another name.
//!
//! ```text
//! user app on #2bb80d... sanitize-payload ~app:* &* -@all +get +set (~q:* +lpop)
//!      name '-- state and passwords: left out  '-- rules: copied word for word --'
//! ```
//! The words of a selector, `(...)`, stay apart: SETUSER puts them together again.
//! Our own selector is added where the pool's user may not read our keys.

use super::{EpochUser, Rights, Words};

/// What a proxy that is late may still do: log in, and read our own keys. MULTI,
/// but nothing in it and no EXEC: one that is begun under the fence takes in what
/// is refused, and so is given up whole by an EXEC after the fence is gone.
const FENCED: [&str; 16] = [
    "~__keyferry:*",
    "+get",
    "+multi",
    "+ping",
    "+echo",
    "+auth",
    "+hello",
    "+select",
    "+client",
    "+discard",
    "+unwatch",
    "+subscribe",
    "+unsubscribe",
    "+psubscribe",
    "+punsubscribe",
    "+time",
];

/// The right to read our own keys, and nothing else, beside the pool user's rights.
const SELECTOR: &str = "(~__keyferry:* +get)";

/// Rules of a user, without its name, state and passwords.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    words: Vec<String>,
    /// Redis 7 and later: rights may be given for some keys alone.
    knows_selectors: bool,
}

/// Why there are no rules to copy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// ACL LIST does not have the user we are logged in as.
    #[error("ACL LIST does not show user {0}, which is ours")]
    Missing(String),
    /// It may not do what a fence needs.
    #[error("user {0} may not ACL SETUSER: allow +acl, or choose --fence proxies")]
    MayNot(String),
}

impl Rules {
    /// The rules of `user` among the lines of ACL LIST, of a server that knows
    /// selectors or does not.
    ///
    /// # Errors
    /// [`RulesError`].
    pub fn of<'l>(
        user: &str,
        lines: impl IntoIterator<Item = &'l str>,
        knows_selectors: bool,
    ) -> Result<Self, RulesError> {
        let found = lines.into_iter().find_map(|line| {
            let (name, rest) = line.strip_prefix("user ")?.split_once(' ')?;
            (name == user).then_some(rest)
        });
        let rest = found.ok_or_else(|| RulesError::Missing(user.to_owned()))?;
        let words = rest
            .split(' ')
            .filter(|word| !word.is_empty() && !is_of_the_login(word))
            .map(str::to_owned)
            .collect();
        let rules = Self {
            words,
            knows_selectors,
        };
        if rules.may_set_users() {
            Ok(rules)
        } else {
            Err(RulesError::MayNot(user.to_owned()))
        }
    }

    /// Whether these rules let a user run ACL SETUSER; the last word counts.
    fn may_set_users(&self) -> bool {
        self.last_word(|word| match word {
            "+@all" | "allcommands" | "+@admin" | "+@dangerous" | "+@slow" | "+acl" => Some(true),
            "-@all" | "nocommands" | "-@admin" | "-@dangerous" | "-@slow" | "-acl"
            | "-acl|setuser" => Some(false),
            "+acl|setuser" => Some(true),
            _ => None,
        })
    }

    /// Whether our own keys can be read with them.
    fn may_read_ours(&self) -> bool {
        let may_get = self.last_word(|word| match word {
            "+@all" | "allcommands" | "+@read" | "+@string" | "+@fast" | "+get" => Some(true),
            "-@all" | "nocommands" | "-@read" | "-@string" | "-@fast" | "-get" => Some(false),
            _ => None,
        });
        may_get && self.of_root().any(|word| word == "~*" || word == "allkeys")
    }

    fn last_word(&self, says: impl Fn(&str) -> Option<bool>) -> bool {
        let said = self.of_root();
        said.fold(false, |may, word| says(word).unwrap_or(may))
    }

    /// The words outside of selectors, which come last.
    fn of_root(&self) -> impl Iterator<Item = &str> {
        let words = self.words.iter().map(String::as_str);
        words.take_while(|word| !word.starts_with('('))
    }

    /// The request that gives `user` these rules, or what is left under a fence.
    /// Repeating it changes nothing. Channels stay as they are: subscribers would
    /// be cut off otherwise.
    pub fn set_user(&self, user: &EpochUser, rights: Rights) -> Words {
        let password = format!(">{}", user.password.reveal());
        let mut request: Vec<&str> = vec!["ACL", "SETUSER", &user.name];
        match rights {
            Rights::Open => {
                request.extend(["reset", "on", &password]);
                request.extend(self.words.iter().map(String::as_str));
                match (self.may_read_ours(), self.knows_selectors) {
                    (true, _) => {}
                    (false, true) => request.push(SELECTOR),
                    // As near as such a server comes to it.
                    (false, false) => request.extend(["~__keyferry:*", "+get"]),
                }
            }
            Rights::Fenced => {
                request.extend(["on", &password, "-@all", "resetkeys"]);
                if self.knows_selectors {
                    request.push("clearselectors");
                }
                request.extend(FENCED);
            }
        }
        super::words(&request)
    }
}

/// `on`, `off`, `nopass` and hashes belong to the user, not to its rights.
fn is_of_the_login(word: &str) -> bool {
    matches!(word, "on" | "off" | "nopass") || word.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::config::Secret;

    fn user() -> EpochUser {
        EpochUser {
            name: "keyferry-p-e3".to_owned(),
            password: Secret::new("pw"),
        }
    }

    fn text(words: &Words) -> String {
        let words: Vec<_> = words
            .iter()
            .map(|word| String::from_utf8_lossy(word))
            .collect();
        words.join(" ")
    }

    #[test]
    fn rules_are_copied_without_name_state_and_passwords() {
        let lines = [
            "user other on nopass ~* &* +@all",
            "user app on #aa11 #bb22 sanitize-payload ~app:* &ch* -@all +get +acl|setuser (~q:* -@all +lpop)",
        ];
        let rules = Rules::of("app", lines, true).unwrap();
        assert!(!format!("{rules:?}").contains('#'));
        assert_eq!(
            text(&rules.set_user(&user(), Rights::Open)),
            "ACL SETUSER keyferry-p-e3 reset on >pw sanitize-payload ~app:* &ch* -@all +get \
             +acl|setuser (~q:* -@all +lpop) (~__keyferry:* +get)"
        );
        let fenced = text(&rules.set_user(&user(), Rights::Fenced));
        assert!(
            fenced.starts_with(
                "ACL SETUSER keyferry-p-e3 on >pw -@all resetkeys clearselectors ~__keyferry:* +get"
            ),
            "{fenced}"
        );
        assert!(!fenced.contains("reset ") && !fenced.contains("resetchannels"));
    }

    #[test]
    fn who_has_all_keys_needs_none_added() {
        let rules = Rules::of("default", ["user default on nopass ~* &* +@all"], true).unwrap();
        assert_eq!(
            text(&rules.set_user(&user(), Rights::Open)),
            "ACL SETUSER keyferry-p-e3 reset on >pw ~* &* +@all"
        );
    }

    /// Nobody may do more under the epoch's name than under the pool's.
    #[test]
    fn the_right_to_read_is_for_our_keys_alone() {
        let line = "user app on nopass ~* -@all +acl +set -get";
        let given = |knows| {
            let rules = Rules::of("app", [line], knows).unwrap();
            text(&rules.set_user(&user(), Rights::Open))
        };
        assert!(given(true).ends_with("+set -get (~__keyferry:* +get)"));
        assert!(given(false).ends_with("+set -get ~__keyferry:* +get"));
        let fenced = Rules::of("app", [line], false).unwrap();
        let fenced = text(&fenced.set_user(&user(), Rights::Fenced));
        assert!(!fenced.contains("selectors"), "{fenced}");
        assert!(fenced.contains("+multi") && !fenced.contains("+exec"));
    }

    #[test]
    fn a_user_that_may_not_set_users_is_told() {
        for (rules, may) in [
            ("+@all", true),
            ("+@all -@admin", false),
            ("+@all -@dangerous +acl", true),
            ("+@all -acl", false),
            ("-@all +@read +@write", false),
            ("-@all +acl|setuser", true),
            ("-@all (+@all)", false),
        ] {
            let line = format!("user app on nopass ~* {rules}");
            let found = Rules::of("app", [line.as_str()], true);
            assert_eq!(found.is_ok(), may, "{rules}");
        }
        let missing = Rules::of("app", ["user default on nopass ~* +@all"], true);
        assert_eq!(missing, Err(RulesError::Missing("app".to_owned())));
    }
}
