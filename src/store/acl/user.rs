//! One user: how it logs in, and what its selectors allow.
//!
//! ```text
//! user app on #5e88.. ~app:* resetchannels -@all +get (~log:* resetchannels -@all +xadd)
//!          state, passwords '----- root selector -----' '------ more selectors ------'
//! ```
//! A request is allowed if one of the selectors allows it.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::store::commands::Args;

use super::catalog::CommandNumber;
use super::keys;
use super::rule::{self, RuleError};
use super::selector::{ChannelDefault, Denied, Selector, allows_channel};

/// SHA-256 of a password, in hex digits.
pub type PasswordHash = [u8; 64];

/// Whether what a user's RESTORE brings is looked through; it always is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sanitize {
    Skip,
    Always,
}

/// See the head of this file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    is_enabled: bool,
    /// Any password is right.
    is_open: bool,
    /// Only what was said is told.
    sanitize: Option<Sanitize>,
    passwords: Vec<PasswordHash>,
    root: Selector,
    selectors: Vec<Selector>,
    channel_default: ChannelDefault,
}

impl User {
    /// One that may not log in, and may do nothing.
    pub fn new(channel_default: ChannelDefault) -> Self {
        Self {
            is_enabled: false,
            is_open: false,
            sanitize: None,
            passwords: Vec::new(),
            root: Selector::new(channel_default),
            selectors: Vec::new(),
            channel_default,
        }
    }

    /// The user `default` as it is when nothing is said: it needs no password, and may do all.
    pub fn all_powerful() -> Self {
        let mut user = Self::new(ChannelDefault::All);
        user.channel_default = ChannelDefault::None;
        for rule in ["+@all", "~*", "on", "nopass"] {
            // They are rules.
            let _ = user.apply(rule.as_bytes());
        }
        user
    }

    /// Whether it may log in.
    pub fn is_enabled(&self) -> bool {
        self.is_enabled
    }

    /// Whether it needs no password.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether it may do all.
    pub fn is_unrestricted(&self) -> bool {
        self.root.is_unrestricted() || self.selectors.iter().any(Selector::is_unrestricted)
    }

    /// Root first.
    pub fn selectors(&self) -> impl Iterator<Item = &Selector> {
        std::iter::once(&self.root).chain(&self.selectors)
    }

    /// Hashes of its passwords.
    pub fn passwords(&self) -> &[PasswordHash] {
        &self.passwords
    }

    /// Sets what selectors that are made from now on allow of channels.
    pub fn set_channel_default(&mut self, to: ChannelDefault) {
        self.channel_default = to;
    }

    /// Words about the user itself, as ACL GETUSER tells them.
    pub fn flags(&self) -> Vec<&'static str> {
        let flags = [
            (self.is_enabled, "on"),
            (!self.is_enabled, "off"),
            (self.is_open, "nopass"),
            (
                self.sanitize == Some(Sanitize::Skip),
                "skip-sanitize-payload",
            ),
            (self.sanitize == Some(Sanitize::Always), "sanitize-payload"),
        ];
        let set = flags.iter().filter(|(is_set, _)| *is_set);
        set.map(|(_, name)| *name).collect()
    }

    /// Takes one rule.
    ///
    /// # Errors
    /// [`RuleError`]; nothing is changed then.
    pub fn apply(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        match rule.to_ascii_lowercase().as_slice() {
            b"" => {}
            b"on" => self.is_enabled = true,
            b"off" => self.is_enabled = false,
            b"skip-sanitize-payload" => self.sanitize = Some(Sanitize::Skip),
            b"sanitize-payload" => self.sanitize = Some(Sanitize::Always),
            b"nopass" => {
                self.is_open = true;
                self.passwords.clear();
            }
            b"resetpass" => {
                self.is_open = false;
                self.passwords.clear();
            }
            b"clearselectors" => self.selectors.clear(),
            b"reset" => {
                *self = Self {
                    sanitize: Some(Sanitize::Always),
                    ..Self::new(self.channel_default)
                };
            }
            _ => match rule {
                [b'>', password @ ..] => self.add_password(hash(password)),
                [b'#', hash @ ..] => self.add_password(parse_hash(hash)?),
                [b'<', password @ ..] => self.remove_password(&hash(password))?,
                [b'!', hash @ ..] => self.remove_password(&parse_hash(hash)?)?,
                [b'(', inner @ .., b')'] => {
                    let mut selector = Selector::new(self.channel_default);
                    for word in rule::words(inner) {
                        selector.apply(&word)?;
                    }
                    self.selectors.push(selector);
                }
                _ => self.root.apply(rule)?,
            },
        }
        Ok(())
    }

    fn add_password(&mut self, hash: PasswordHash) {
        if !self.passwords.contains(&hash) {
            self.passwords.push(hash);
        }
        self.is_open = false;
    }

    fn remove_password(&mut self, hash: &PasswordHash) -> Result<(), RuleError> {
        let at = self.passwords.iter().position(|of| of == hash);
        self.passwords.remove(at.ok_or(RuleError::NoSuchPassword)?);
        Ok(())
    }

    /// Whether it may log in with this.
    pub fn admits(&self, password: &[u8]) -> bool {
        if !self.is_enabled || self.is_open {
            return self.is_enabled;
        }
        let hash = hash(password);
        // All are looked at, so that the time does not tell which one fits.
        let fits = self
            .passwords
            .iter()
            .fold(subtle::Choice::from(0), |fits, of| fits | of.ct_eq(&hash));
        fits.into()
    }

    /// Whether it may run a request that its command takes.
    ///
    /// # Errors
    /// [`Denied`]: of what the selectors say the nearest to being allowed.
    pub fn check(&self, of: CommandNumber, args: Args<'_>) -> Result<(), Denied> {
        if self.is_unrestricted() {
            return Ok(());
        }
        let keys = keys::keys_of(of, args);
        let mut nearest = Denied::Command;
        for selector in self.selectors() {
            match selector.check(of, args, &keys) {
                Ok(()) => return Ok(()),
                Err(denied) => nearest = nearest.max(denied),
            }
        }
        Err(nearest)
    }

    /// Whether it may read whatever key, with a command that it may run.
    pub fn may_read_all_keys(&self, of: CommandNumber, args: Args<'_>) -> bool {
        self.selectors()
            .any(|selector| selector.may_read_all_keys(of, args))
    }

    /// Whether it may listen to a channel, or to this pattern of channels.
    pub fn may_listen(&self, channel: &[u8], is_pattern: bool) -> bool {
        self.selectors().any(|selector| {
            selector.has_all_channels() || allows_channel(selector.channels(), channel, is_pattern)
        })
    }

    /// The rules that lead here, as ACL LIST tells them behind the name.
    pub fn describe(&self) -> Vec<u8> {
        let mut told = Vec::new();
        for flag in self.flags() {
            told.extend_from_slice(flag.as_bytes());
            told.push(b' ');
        }
        for hash in &self.passwords {
            told.push(b'#');
            told.extend_from_slice(hash);
            told.push(b' ');
        }
        told.extend_from_slice(&self.root.describe());
        for selector in &self.selectors {
            told.extend_from_slice(b" (");
            told.extend_from_slice(&selector.describe());
            told.push(b')');
        }
        told
    }
}

/// As ACL SETUSER takes it behind `#`.
pub fn hash(password: &[u8]) -> PasswordHash {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = [0; 64];
    for (place, byte) in hex.chunks_exact_mut(2).zip(Sha256::digest(password)) {
        place.copy_from_slice(&[
            DIGITS[usize::from(byte >> 4)],
            DIGITS[usize::from(byte & 15)],
        ]);
    }
    hex
}

fn parse_hash(text: &[u8]) -> Result<PasswordHash, RuleError> {
    let hash: PasswordHash = text.try_into().map_err(|_| RuleError::Hash)?;
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    match hash.iter().all(is_digit) {
        true => Ok(hash),
        false => Err(RuleError::Hash),
    }
}
