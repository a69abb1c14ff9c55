//! What a selector allows: commands, and the keys and channels they may name.

use crate::store::commands::Args;
use crate::store::format::glob;

use super::catalog::{Category, CommandNumber, catalog};
use super::keys::{Access, KeyUse};
use super::rights::Rights;
use super::rule::RuleError;

/// Whether channels are open to who is not told of any: `acl-pubsub-default`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelDefault {
    /// All of them.
    All,
    /// None.
    #[default]
    None,
}

/// Keys that match a pattern, and what may be done to them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KeyPattern {
    pattern: Box<[u8]>,
    access: Access,
}

/// See the head of this file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    rights: Rights,
    has_all_keys: bool,
    keys: Vec<KeyPattern>,
    has_all_channels: bool,
    channels: Vec<Box<[u8]>>,
}

/// Why a command may not be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    /// Not at all.
    Command,
    /// Not with the key that this argument is.
    Key(usize),
    /// Not with the channel that this argument is.
    Channel(usize),
}

impl Selector {
    /// It allows nothing, but what is open to all.
    pub fn new(channels: ChannelDefault) -> Self {
        Self {
            has_all_channels: channels == ChannelDefault::All,
            ..Self::default()
        }
    }

    /// Whether it refuses nothing.
    pub fn is_unrestricted(&self) -> bool {
        self.rights.is_all() && self.has_all_keys && self.has_all_channels
    }

    /// Whether it refuses no channel.
    pub fn has_all_channels(&self) -> bool {
        self.has_all_channels
    }

    /// Patterns of channels.
    pub fn channels(&self) -> &[Box<[u8]>] {
        &self.channels
    }

    /// Takes one rule.
    ///
    /// # Errors
    /// [`RuleError`]; nothing is changed then.
    pub fn apply(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        match rule.to_ascii_lowercase().as_slice() {
            b"allkeys" | b"~*" => {
                self.has_all_keys = true;
                self.keys.clear();
            }
            b"resetkeys" => {
                self.has_all_keys = false;
                self.keys.clear();
            }
            b"allchannels" | b"&*" => {
                self.has_all_channels = true;
                self.channels.clear();
            }
            b"resetchannels" => {
                self.has_all_channels = false;
                self.channels.clear();
            }
            b"allcommands" | b"+@all" => self.rights = Rights::all(),
            b"nocommands" | b"-@all" => self.rights = Rights::none(),
            _ => match rule {
                [b'~', pattern @ ..] => self.add_keys(pattern, Access::ALL)?,
                [b'%', rest @ ..] => {
                    self.refuse_if_all_keys()?;
                    let (access, pattern) = access_before_pattern(rest)?;
                    self.add_keys(pattern, access)?;
                }
                [b'&', pattern @ ..] => self.add_channels(pattern)?,
                [sign @ (b'+' | b'-'), b'@', name @ ..] => {
                    let category = Category::find(name).ok_or(RuleError::Unknown)?;
                    self.rights.change_category(category, *sign == b'+');
                }
                [b'+', name @ ..] => self.allow_command(name)?,
                [b'-', name @ ..] => {
                    let of = catalog().find(name).ok_or(RuleError::Unknown)?;
                    self.rights.change(of, false);
                }
                _ => return Err(RuleError::Syntax),
            },
        }
        Ok(())
    }

    fn refuse_if_all_keys(&self) -> Result<(), RuleError> {
        match self.has_all_keys {
            true => Err(RuleError::AfterAllKeys),
            false => Ok(()),
        }
    }

    fn add_keys(&mut self, pattern: &[u8], access: Access) -> Result<(), RuleError> {
        self.refuse_if_all_keys()?;
        if has_blanks(pattern) {
            return Err(RuleError::Syntax);
        }
        match self.keys.iter_mut().find(|of| *of.pattern == *pattern) {
            Some(known) => known.access = known.access.and(access),
            None => self.keys.push(KeyPattern {
                pattern: pattern.into(),
                access,
            }),
        }
        Ok(())
    }

    fn add_channels(&mut self, pattern: &[u8]) -> Result<(), RuleError> {
        if self.has_all_channels {
            return Err(RuleError::AfterAllChannels);
        }
        if has_blanks(pattern) {
            return Err(RuleError::Syntax);
        }
        if !self.channels.iter().any(|of| **of == *pattern) {
            self.channels.push(pattern.into());
        }
        Ok(())
    }

    /// `+name`, `+container|subcommand` or `+name|first-argument`.
    fn allow_command(&mut self, name: &[u8]) -> Result<(), RuleError> {
        let catalog = catalog();
        let Some(bar) = name.iter().rposition(|byte| *byte == b'|') else {
            let of = catalog.find(name).ok_or(RuleError::Unknown)?;
            self.rights.change(of, true);
            return Ok(());
        };
        let (command, argument) = (&name[..bar], &name[bar + 1..]);
        let of = catalog.find(command).ok_or(RuleError::Unknown)?;
        if catalog.is_subcommand(of) {
            return Err(RuleError::FirstArgumentOfSubcommand);
        }
        if argument.is_empty() {
            return Err(RuleError::Syntax);
        }
        if catalog.subcommands(of).is_empty() {
            self.rights.allow_first_argument(of, argument);
        } else {
            let subcommand = catalog.find(name).ok_or(RuleError::Unknown)?;
            self.rights.change(subcommand, true);
        }
        Ok(())
    }

    /// Whether a command with these arguments may be run; `keys` finds its keys, once.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn check(&self, of: CommandNumber, args: Args<'_>, keys: &[KeyUse]) -> Result<(), Denied> {
        let catalog = catalog();
        let is_open = catalog
            .described(of)
            .is_some_and(|described| described.has_flag("no_auth"));
        let argument_at = if catalog.is_subcommand(of) { 2 } else { 1 };
        if !is_open && !self.rights.allow(of, args.get(argument_at)) {
            return Err(Denied::Command);
        }
        if !self.has_all_keys {
            let denied = keys
                .iter()
                .find(|key| !self.may_use(args.at(key.number), key.access));
            if let Some(key) = denied {
                return Err(Denied::Key(key.number));
            }
        }
        if !self.has_all_channels {
            let last = args.len().saturating_sub(1);
            let (numbers, is_literal) = match catalog.name(of) {
                "publish" | "spublish" => (1..=1, false),
                "subscribe" | "ssubscribe" => (1..=last, false),
                "psubscribe" => (1..=last, true),
                _ => return Ok(()),
            };
            for number in numbers {
                if !allows_channel(&self.channels, args.at(number), is_literal) {
                    return Err(Denied::Channel(number));
                }
            }
        }
        Ok(())
    }

    /// Whether a key may be used so.
    pub fn may_use(&self, key: &[u8], access: Access) -> bool {
        let allows =
            |of: &KeyPattern| of.access.includes(access) && glob::matches(&of.pattern, key);
        self.has_all_keys || self.keys.iter().any(allows)
    }

    /// Whether any key may be read, in a command that may be run.
    pub fn may_read_all_keys(&self, of: CommandNumber, args: Args<'_>) -> bool {
        let allows = |of: &KeyPattern| of.access.includes(Access::READ) && *of.pattern == *b"*";
        let has_keys = self.has_all_keys || self.keys.iter().any(allows);
        has_keys && self.rights.allow(of, args.get(1))
    }

    /// As ACL GETUSER tells of commands.
    pub fn commands_told(&self) -> String {
        self.rights.describe()
    }

    /// As ACL GETUSER tells of keys.
    pub fn keys_told(&self) -> Vec<u8> {
        if self.has_all_keys {
            return b"~*".to_vec();
        }
        let told = self
            .keys
            .iter()
            .map(|of| [of.access.sign(), &of.pattern].concat());
        told.collect::<Vec<_>>().join(&b' ')
    }

    /// As ACL GETUSER tells of channels.
    pub fn channels_told(&self) -> Vec<u8> {
        if self.has_all_channels {
            return b"&*".to_vec();
        }
        let told = self.channels.iter().map(|of| [b"&", &**of].concat());
        told.collect::<Vec<_>>().join(&b' ')
    }

    /// As ACL LIST tells of it: the rules that lead here from a new selector.
    pub fn describe(&self) -> Vec<u8> {
        let mut told = self.keys_told();
        if !told.is_empty() {
            told.push(b' ');
        }
        if !self.has_all_channels {
            told.extend_from_slice(b"resetchannels ");
        }
        let channels = self.channels_told();
        told.extend_from_slice(&channels);
        if !channels.is_empty() {
            told.push(b' ');
        }
        told.extend_from_slice(self.rights.describe().as_bytes());
        told
    }
}

/// Whether one of these patterns allows a channel; a pattern of PSUBSCRIBE only if it is
/// that one.
pub(super) fn allows_channel(patterns: &[Box<[u8]>], channel: &[u8], is_literal: bool) -> bool {
    patterns.iter().any(|pattern| match is_literal {
        true => **pattern == *channel,
        false => glob::matches(pattern, channel),
    })
}

/// `RW~pattern`, `R~pattern` .. Without the `~` it is the empty pattern, as in Redis.
fn access_before_pattern(rest: &[u8]) -> Result<(Access, &[u8]), RuleError> {
    let (mut access, mut at) = (Access::NONE, 0);
    loop {
        let letter = match rest.get(at).map(u8::to_ascii_uppercase) {
            Some(b'R') => Access::READ,
            Some(b'W') => Access::WRITE,
            Some(b'~') | None if access != Access::NONE => {
                return Ok((access, rest.get(at + 1..).unwrap_or(&[])));
            }
            _ => return Err(RuleError::Syntax),
        };
        if access.includes(letter) {
            return Err(RuleError::Syntax);
        }
        access = access.and(letter);
        at += 1;
    }
}

/// What could not be told of in a line of words.
pub(super) fn has_blanks(text: &[u8]) -> bool {
    text.iter()
        .any(|byte| matches!(byte, 0 | b' ' | b'\t'..=b'\r'))
}
