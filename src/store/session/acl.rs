//! ACL.
//!
//! Users are in memory. CONFIG REWRITE keeps them for the next start, as a Redis without an
//! `aclfile` does.

use crate::store::acl::{
    self, CATEGORIES, Category, Denied, Event, Selector, User, catalog, merge_selectors,
};
use crate::store::commands::failure::up_to_zero;
use crate::store::commands::table::{Command, Keys, Run, Verb};
use crate::store::commands::{Args, Failure, Reply};

use super::shard::Shard;

/// Bits of the longest password of ACL GENPASS, and of one when nothing is said.
const PASSWORD_BITS_MAX: i64 = 4096;
const PASSWORD_BITS_DEFAULT: i64 = 256;
/// Entries that ACL LOG tells when nothing is said.
const TOLD_DEFAULT: usize = 10;
/// Of an unknown category, this much is told.
const CATEGORY_BYTES_MAX: usize = 128;

/// The family.
pub const COMMANDS: &[Command] = &[Command {
    name: "acl",
    arity: -2,
    flags: "",
    keys: Keys::None,
    categories: "slow",
    run: Run::Session(Verb::Acl),
}];

impl Shard {
    pub(super) fn acl(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        match args.at(1).to_ascii_lowercase().as_slice() {
            b"cat" if args.len() <= 3 => self.acl_cat(key, args)?,
            b"deluser" => self.acl_deluser(key, args)?,
            b"dryrun" => self.acl_dryrun(key, args)?,
            b"genpass" if args.len() <= 3 => self.acl_genpass(key, args)?,
            b"getuser" => self.acl_getuser(key, args),
            b"list" => {
                let lines = self.users.lines();
                tell_all(
                    &mut self.clients[key].reply,
                    lines.iter().map(Vec::as_slice),
                );
            }
            b"load" | b"save" => {
                return Err(Failure::words(
                    "ERR This Redis instance is not configured to use an ACL file. You may want \
                     to specify users via the ACL SETUSER command and then issue a CONFIG \
                     REWRITE (assuming you have a Redis configuration file set) in order to \
                     store users in the Redis configuration.",
                ));
            }
            b"log" if args.len() <= 3 => self.acl_log(key, args)?,
            b"setuser" => self.acl_setuser(key, args)?,
            b"users" => {
                let names = self.users.iter().map(|(name, _)| name);
                tell_all(&mut self.clients[key].reply, names);
            }
            b"whoami" => {
                let client = &mut self.clients[key];
                client.reply.bulk(self.users.name(client.user));
            }
            _ => {
                return Err(super::connection::wrong_count("ACL", args));
            }
        }
        Ok(())
    }

    fn acl_cat(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        let reply = &mut self.clients[key].reply;
        let Some(name) = args.get(2) else {
            tell_all(reply, CATEGORIES.iter().map(|name| name.as_bytes()));
            return Ok(());
        };
        let told = name.get(..CATEGORY_BYTES_MAX).unwrap_or(name);
        let unknown = || Failure::quoting("ERR Unknown category '", told, "'");
        let category = Category::find(name).ok_or_else(unknown)?;
        let found = catalog().all().filter(|of| catalog().is_of(*of, category));
        let names: Vec<&[u8]> = found.map(|of| catalog().name(of).as_bytes()).collect();
        tell_all(reply, names.into_iter());
        Ok(())
    }

    fn acl_setuser(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        let name = args.at(2);
        if !acl::is_name(name) {
            return Err(Failure::words(
                "ERR Usernames can't contain spaces or null characters",
            ));
        }
        let rules = merge_selectors(args.from(3)).map_err(|begun| {
            let before = "ERR Unmatched parenthesis in acl selector starting at '";
            Failure::quoting(before, args.at(3 + begun.0), "'.")
        })?;
        let user = self.users.staged(name, &rules).map_err(|(number, why)| {
            let rule = rules.get(number).map_or(&[][..], Vec::as_slice);
            let why = format!("': {why}");
            Failure::quoting("ERR Error in ACL SETUSER modifier '", rule, &why)
        })?;
        if let Some(id) = self.users.find(name) {
            self.end_listeners(id, &user, key);
        }
        self.users.put(name, user);
        self.clients[key].reply.ok();
        Ok(())
    }

    fn acl_deluser(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        if args.from(2).any(|name| name == acl::DEFAULT) {
            return Err(Failure::words("ERR The 'default' user cannot be removed"));
        }
        let mut deleted = 0;
        for name in args.from(2) {
            if let Some(id) = self.users.find(name) {
                self.end_clients_of(id, key);
                deleted += usize::from(self.users.remove(name));
            }
        }
        self.clients[key].reply.count(deleted);
        Ok(())
    }

    fn acl_getuser(&mut self, key: usize, args: Args<'_>) {
        let reply = &mut self.clients[key].reply;
        let found = self.users.find(args.at(2));
        match found.and_then(|id| self.users.get(id)) {
            Some(user) => tell_user(reply, user),
            None => reply.null(),
        }
    }

    fn acl_dryrun(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        let unknown = || Failure::quoting("ERR User '", args.at(2), "' not found");
        let id = self.users.find(args.at(2)).ok_or_else(unknown)?;
        let asked = args.rest(3);
        let name = asked.at(0);
        let unknown = || Failure::quoting("ERR Command '", name, "' not found");
        let command = Some(name).filter(|name| !name.contains(&b'|'));
        let mut number = command.and_then(|name| catalog().find(name));
        if let (Some(of), Some(second)) = (number, asked.get(1))
            && !catalog().subcommands(of).is_empty()
        {
            number = catalog().find(&[name, b"|", second].concat());
        }
        let number = number.ok_or_else(unknown)?;
        let described = catalog().described(number).ok_or_else(unknown)?;
        if !described.takes(asked.len()) {
            return Err(Failure::arity(described.name));
        }
        let user = self.users.get(id);
        let checked = user.map_or(Ok(()), |user| user.check(number, asked));
        let reply = &mut self.clients[key].reply;
        let (what, named): (&str, &[u8]) = match checked {
            Ok(()) => {
                reply.ok();
                return Ok(());
            }
            Err(Denied::Command) => ("command", described.name.as_bytes()),
            Err(Denied::Key(number)) => ("key", asked.at(number)),
            Err(Denied::Channel(number)) => ("channel", asked.at(number)),
        };
        let verb = if what == "command" { "run" } else { "access" };
        let before = format!("This user has no permissions to {verb} the '");
        let after = format!("' {what}");
        let named = up_to_zero(named);
        reply.bulk(&[before.as_bytes(), named, after.as_bytes()].concat());
        Ok(())
    }

    fn acl_genpass(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        let bits = match args.len() {
            3 => args.integer(2)?,
            _ => PASSWORD_BITS_DEFAULT,
        };
        if !(1..=PASSWORD_BITS_MAX).contains(&bits) {
            return Err(Failure::words(
                "ERR ACL GENPASS argument must be the number of bits for the output password, a \
                 positive number up to 4096",
            ));
        }
        let digits = usize::try_from(bits).unwrap_or(0).div_ceil(4);
        let password = random_digits(digits)?;
        self.clients[key].reply.bulk(&password);
        Ok(())
    }

    fn acl_log(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        let reply = &mut self.clients[key].reply;
        let count = match args.len() {
            3 if args.is(2, "RESET") => {
                self.refusals.clear();
                reply.ok();
                return Ok(());
            }
            3 => usize::try_from(args.integer(2)?).unwrap_or(0),
            _ => TOLD_DEFAULT,
        };
        let now_ms = self.keyspace.now_ms();
        let events = self.refusals.last(count);
        reply.array(events.len());
        for event in events {
            tell_refusal(reply, event, now_ms);
        }
        Ok(())
    }
}

fn tell_all<'n>(reply: &mut Reply, names: impl ExactSizeIterator<Item = &'n [u8]>) {
    reply.array(names.len());
    names.for_each(|name| reply.bulk(name));
}

fn tell_user(reply: &mut Reply, user: &User) {
    reply.map(6);
    reply.bulk(b"flags");
    let flags = user.flags();
    reply.set(flags.len());
    for flag in flags {
        reply.bulk(flag.as_bytes());
    }
    reply.bulk(b"passwords");
    reply.array(user.passwords().len());
    for hash in user.passwords() {
        reply.bulk(hash);
    }
    let mut selectors = user.selectors();
    if let Some(root) = selectors.next() {
        tell_selector(reply, root);
    }
    reply.bulk(b"selectors");
    let others: Vec<&Selector> = selectors.collect();
    reply.array(others.len());
    for selector in others {
        reply.map(3);
        tell_selector(reply, selector);
    }
}

fn tell_selector(reply: &mut Reply, selector: &Selector) {
    let fields: [(&str, Vec<u8>); 3] = [
        ("commands", selector.commands_told().into_bytes()),
        ("keys", selector.keys_told()),
        ("channels", selector.channels_told()),
    ];
    for (name, text) in fields {
        reply.bulk(name.as_bytes());
        reply.bulk(&text);
    }
}

fn tell_refusal(reply: &mut Reply, event: &Event, now_ms: u64) {
    reply.map(7);
    reply.bulk(b"count");
    reply.integer(i64::try_from(event.count).unwrap_or(i64::MAX));
    let texts: [(&str, &[u8]); 4] = [
        ("reason", event.reason.name().as_bytes()),
        ("context", event.context.name().as_bytes()),
        ("object", &event.object),
        ("username", &event.user),
    ];
    for (name, text) in texts {
        reply.bulk(name.as_bytes());
        reply.bulk(text);
    }
    reply.bulk(b"age-seconds");
    reply.double(now_ms.saturating_sub(event.at_ms) as f64 / 1000.0);
    reply.bulk(b"client-info");
    reply.bulk(event.client.as_bytes());
}

/// Hex digits of the system's randomness.
fn random_digits(count: usize) -> Result<Vec<u8>, Failure> {
    let mut random = vec![0; count];
    let mut filled = 0;
    while filled < count {
        let flags = rustix::rand::GetRandomFlags::empty();
        match rustix::rand::getrandom(&mut random[filled..], flags) {
            Ok(got) => filled += got,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                return Err(Failure::text(format!(
                    "ERR the system gives no random bytes: {error}"
                )));
            }
        }
    }
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    Ok(random
        .iter()
        .map(|byte| DIGITS[usize::from(byte & 15)])
        .collect())
}

#[cfg(test)]
mod tests;
