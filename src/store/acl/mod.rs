//! Access control lists as those of Redis 7.0: who may log in, and what they may do. Pure.
//!
//! ```text
//! catalog    all commands by number, and categories
//! rights     which of them may be run
//! keys       the keys of a request, and what is done to them
//! rule       rules in requests and lines, and why one is none
//! selector   rights, keys and channels together
//! user       logins and selectors
//! Users      all of them by name; `default` is always there
//! log        what was refused lately
//! ```
//! Invariant: a [`UserId`] is good until its user is removed; who removes one sees to it
//! that nobody has it any more.

mod catalog;
mod keys;
mod log;
mod rights;
mod rule;
mod selector;
#[cfg(test)]
mod tests;
mod user;

use std::collections::BTreeMap;

use slab::Slab;

pub use catalog::{CATEGORIES, Catalog, Category, CommandNumber, catalog};
pub use keys::{Access, sort_reads_by_pattern};
pub use log::{Event, Reason, RefusalLog, Surroundings};
pub use rule::{RuleError, Unmatched, merge_selectors};
pub use selector::{ChannelDefault, Denied, Selector};
pub use user::{PasswordHash, User, hash};

/// The user that clients are until they log in as another one.
pub const DEFAULT: &[u8] = b"default";

/// Number of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UserId(usize);

#[derive(Debug)]
struct Named {
    name: Box<[u8]>,
    user: User,
    /// What [`User::is_unrestricted`] says.
    is_unrestricted: bool,
}

/// All users.
#[derive(Debug)]
pub struct Users {
    by_name: BTreeMap<Box<[u8]>, UserId>,
    all: Slab<Named>,
    default: UserId,
    channel_default: ChannelDefault,
}

/// Why a line is no user's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It does not begin so.
    #[error("it does not begin with `user` and a name")]
    NoUser,
    /// There are two of one name.
    #[error("there are two lines for user {0}")]
    Twice(String),
    /// A selector does not end.
    #[error("a selector of user {0} has no end")]
    Unmatched(String),
    /// A rule is none.
    #[error("user {user}, rule {rule}: {why}")]
    Rule {
        /// Of whom.
        user: String,
        /// Which one; passwords are left out.
        rule: String,
        /// Why.
        why: RuleError,
    },
}

impl Default for Users {
    fn default() -> Self {
        Self::new()
    }
}

impl Users {
    /// Only `default`, who may do all.
    pub fn new() -> Self {
        let mut all = Slab::new();
        let default = UserId(all.insert(Named {
            name: DEFAULT.into(),
            user: User::all_powerful(),
            is_unrestricted: true,
        }));
        Self {
            by_name: BTreeMap::from([(DEFAULT.into(), default)]),
            all,
            default,
            channel_default: ChannelDefault::None,
        }
    }

    /// Sets whether channels are open to new users and selectors: `acl-pubsub-default`.
    pub fn set_channel_default(&mut self, to: ChannelDefault) {
        self.channel_default = to;
    }

    /// The id of `default`.
    pub fn default_id(&self) -> UserId {
        self.default
    }

    /// The user `default`.
    pub fn default_user(&self) -> &User {
        &self.all[self.default.0].user
    }

    /// Whether clients need not log in.
    pub fn is_open(&self) -> bool {
        let user = self.default_user();
        user.is_open() && user.is_enabled()
    }

    /// By name.
    pub fn find(&self, name: &[u8]) -> Option<UserId> {
        self.by_name.get(name).copied()
    }

    /// One.
    pub fn get(&self, id: UserId) -> Option<&User> {
        self.all.get(id.0).map(|named| &named.user)
    }

    /// Its name.
    pub fn name(&self, id: UserId) -> &[u8] {
        self.all.get(id.0).map_or(&[], |named| &named.name)
    }

    /// Whether it may do all: a look, since each request asks.
    pub fn is_unrestricted(&self, id: UserId) -> bool {
        self.all
            .get(id.0)
            .is_some_and(|named| named.is_unrestricted)
    }

    /// All names and ids, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], UserId)> {
        self.by_name.iter().map(|(name, id)| (&**name, *id))
    }

    /// What a user is to become by rules, that is not there yet or is: nothing is changed.
    ///
    /// # Errors
    /// The first rule that is none, and why.
    pub fn staged(&self, name: &[u8], rules: &[Vec<u8>]) -> Result<User, (usize, RuleError)> {
        let known = self.find(name).and_then(|id| self.get(id)).cloned();
        let mut user = known.unwrap_or_else(|| User::new(self.channel_default));
        user.set_channel_default(self.channel_default);
        for (number, rule) in rules.iter().enumerate() {
            user.apply(rule).map_err(|why| (number, why))?;
        }
        Ok(user)
    }

    /// Puts a user, in place of the one of its name if there is one.
    pub fn put(&mut self, name: &[u8], user: User) -> UserId {
        let is_unrestricted = user.is_unrestricted();
        if let Some(id) = self.find(name)
            && let Some(named) = self.all.get_mut(id.0)
        {
            (named.user, named.is_unrestricted) = (user, is_unrestricted);
            return id;
        }
        let id = UserId(self.all.insert(Named {
            name: name.into(),
            user,
            is_unrestricted,
        }));
        self.by_name.insert(name.into(), id);
        id
    }

    /// Removes a user. `default` stays. Nobody may have the id any more.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        if name == DEFAULT {
            return false;
        }
        match self.by_name.remove(name) {
            Some(id) => self.all.try_remove(id.0).is_some(),
            None => false,
        }
    }

    /// Gives `default` this password alone, or opens it: what `requirepass` does.
    pub fn set_default_password(&mut self, password: Option<&[u8]>) {
        let mut user = self.default_user().clone();
        let rule = match password {
            Some(password) => [b">", password].concat(),
            None => b"nopass".to_vec(),
        };
        for rule in [b"resetpass".to_vec(), rule] {
            // They are rules.
            let _ = user.apply(&rule);
        }
        self.put(DEFAULT, user);
    }

    /// All users as lines of a config, as ACL LIST tells them.
    pub fn lines(&self) -> Vec<Vec<u8>> {
        let users = self.iter();
        users.map(|(name, id)| self.line(name, id)).collect()
    }

    fn line(&self, name: &[u8], id: UserId) -> Vec<u8> {
        let told = self.get(id).map(User::describe).unwrap_or_default();
        [b"user ", name, b" ", &told].concat()
    }

    /// The lines that another process needs to have the same users, if it gives `default`
    /// this password by itself.
    pub fn lines_beside(&self, password: Option<&[u8]>) -> Vec<Vec<u8>> {
        let mut without = Users::new();
        without.set_default_password(password);
        let is_plain = self.default_user().describe() == without.default_user().describe();
        let users = self.iter();
        let kept = users.filter(|(name, _)| !(is_plain && *name == DEFAULT));
        kept.map(|(name, id)| self.line(name, id)).collect()
    }

    /// Puts the users of lines such as [`Users::lines`] gives; each begins anew, `default`,
    /// too.
    ///
    /// # Errors
    /// [`LineError`]; nothing is changed then.
    pub fn load<'l>(&mut self, lines: impl Iterator<Item = &'l [u8]>) -> Result<(), LineError> {
        let mut loaded: Vec<(Vec<u8>, User)> = Vec::new();
        for line in lines {
            // A name may be empty.
            let mut words = line.trim_ascii().split(u8::is_ascii_whitespace);
            let (Some(b"user"), Some(name)) = (words.next(), words.next()) else {
                return Err(LineError::NoUser);
            };
            let told = || String::from_utf8_lossy(name).into_owned();
            if loaded.iter().any(|(known, _)| known == name) {
                return Err(LineError::Twice(told()));
            }
            let rules = words.filter(|word| !word.is_empty());
            let rules = merge_selectors(rules).map_err(|_| LineError::Unmatched(told()))?;
            let mut user = User::new(self.channel_default);
            for rule in rules {
                user.apply(&rule).map_err(|why| LineError::Rule {
                    user: told(),
                    rule: without_password(&rule),
                    why,
                })?;
            }
            loaded.push((name.to_vec(), user));
        }
        for (name, user) in loaded {
            self.put(&name, user);
        }
        Ok(())
    }
}

fn without_password(rule: &[u8]) -> String {
    match rule.first() {
        Some(sign @ (b'>' | b'<')) => format!("{}(a password)", char::from(*sign)),
        _ => String::from_utf8_lossy(rule).into_owned(),
    }
}

/// What may not be in a user's name.
pub fn is_name(name: &[u8]) -> bool {
    !selector::has_blanks(name)
}
