//! The rules of the pool's user, as ACL LIST tells them, given to another name.
//!
//! ```text
//! user app on #2bb80d... sanitize-payload ~app:* &* -@all +get +set (~q:* +lpop)
//!      name '-- state and passwords: left out  '-- rules: copied word for word --'
//! ```
//! The words of a selector, `(...)`, stay apart: SETUSER puts them together again.

use super::{EpochUser, Rights, Words};

/// What a proxy that is late may still do: log in, and read our own keys.
const FENCED: [&str; 15] = [
    "~__keyferry:*",
    "+get",
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

/// Rules of a user, without its name, state and passwords.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules(Vec<String>);

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
    /// The rules of `user` among the lines of ACL LIST.
    ///
    /// # Errors
    /// [`RulesError`].
    pub fn of<'l>(
        user: &str,
        lines: impl IntoIterator<Item = &'l str>,
    ) -> Result<Self, RulesError> {
        let found = lines.into_iter().find_map(|line| {
            let (name, rest) = line.strip_prefix("user ")?.split_once(' ')?;
            (name == user).then_some(rest)
        });
        let rest = found.ok_or_else(|| RulesError::Missing(user.to_owned()))?;
        let rules = Self(
            rest.split(' ')
                .filter(|word| !word.is_empty() && !is_of_the_login(word))
                .map(str::to_owned)
                .collect(),
        );
        if rules.may_set_users() {
            Ok(rules)
        } else {
            Err(RulesError::MayNot(user.to_owned()))
        }
    }

    /// Whether these rules let a user run ACL SETUSER; the last word counts.
    fn may_set_users(&self) -> bool {
        let own = self.0.iter().take_while(|word| !word.starts_with('('));
        own.fold(false, |may, word| match word.as_str() {
            "+@all" | "allcommands" | "+@admin" | "+@dangerous" | "+@slow" | "+acl" => true,
            "-@all" | "nocommands" | "-@admin" | "-@dangerous" | "-@slow" | "-acl"
            | "-acl|setuser" => false,
            "+acl|setuser" => true,
            _ => may,
        })
    }

    fn has_selectors(&self) -> bool {
        self.0.iter().any(|word| word.starts_with('('))
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
                request.extend(self.0.iter().map(String::as_str));
                let all_keys = |word: &String| word == "~*" || word == "allkeys";
                if !self.0.iter().any(all_keys) {
                    // Before a selector, whose words would take them in.
                    let at = request.iter().position(|word| word.starts_with('('));
                    let at = at.unwrap_or(request.len());
                    request.splice(at..at, ["~__keyferry:*", "+get"]);
                }
            }
            Rights::Fenced => {
                request.extend(["on", &password, "-@all", "resetkeys"]);
                // Older servers do not know the word, and have no selectors.
                if self.has_selectors() {
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
        let rules = Rules::of("app", lines).unwrap();
        assert!(!format!("{rules:?}").contains('#'));
        assert_eq!(
            text(&rules.set_user(&user(), Rights::Open)),
            "ACL SETUSER keyferry-p-e3 reset on >pw sanitize-payload ~app:* &ch* -@all +get \
             +acl|setuser ~__keyferry:* +get (~q:* -@all +lpop)"
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
        let rules = Rules::of("default", ["user default on nopass ~* &* +@all"]).unwrap();
        assert_eq!(
            text(&rules.set_user(&user(), Rights::Open)),
            "ACL SETUSER keyferry-p-e3 reset on >pw ~* &* +@all"
        );
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
            let found = Rules::of("app", [line.as_str()]);
            assert_eq!(found.is_ok(), may, "{rules}");
        }
        let missing = Rules::of("app", ["user default on nopass ~* +@all"]);
        assert_eq!(missing, Err(RulesError::Missing("app".to_owned())));
    }
}
