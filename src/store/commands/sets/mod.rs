//! Commands on sets.
//!
//! ```text
//! mod       SADD SREM SISMEMBER SMISMEMBER SCARD SMEMBERS SMOVE SSCAN
//! drawn     SPOP SRANDMEMBER
//! algebra   SINTER SUNION SDIFF, their STORE forms, SINTERCARD
//! ```

mod algebra;
mod drawn;
#[cfg(test)]
mod tests;

use crate::store::format::object::{Collection, Object, Value};
use crate::store::kinds::Element;
use crate::store::kinds::set::{self, SetLimits};

use super::args::Args;
use super::context::{Context, Outcome};
use super::failure::Failure;
use super::scanning::{self, ScanOptions};
use super::settings::{EventClass, Settings};
use super::table::{Command, Keys, Run};

type Handler = fn(&mut Context<'_>, Args<'_>) -> Outcome;

const fn command(
    name: &'static str,
    arity: i8,
    flags: &'static str,
    keys: Keys,
    run: Handler,
) -> Command {
    Command {
        name,
        arity,
        flags,
        keys,
        categories: "set",
        run: Run::Data(run),
    }
}

const COUNTED: Keys = Keys::Counted {
    number: 1,
    store: 0,
};

/// The family.
pub const COMMANDS: &[Command] = &[
    command("sadd", -3, "write denyoom fast", Keys::FIRST, sadd),
    command("scard", 2, "readonly fast", Keys::FIRST, scard),
    command("sdiff", -2, "readonly", Keys::ALL, algebra::sdiff),
    command(
        "sdiffstore",
        -3,
        "write denyoom",
        Keys::ALL,
        algebra::sdiffstore,
    ),
    command("sinter", -2, "readonly", Keys::ALL, algebra::sinter),
    command(
        "sintercard",
        -3,
        "readonly movablekeys",
        COUNTED,
        algebra::sintercard,
    ),
    command(
        "sinterstore",
        -3,
        "write denyoom",
        Keys::ALL,
        algebra::sinterstore,
    ),
    command("sismember", 3, "readonly fast", Keys::FIRST, sismember),
    command("smembers", 2, "readonly", Keys::FIRST, smembers),
    command("smismember", -3, "readonly fast", Keys::FIRST, smismember),
    command("smove", 4, "write fast", Keys::FIRST_TWO, smove),
    command("spop", -2, "write fast", Keys::FIRST, drawn::spop),
    command(
        "srandmember",
        -2,
        "readonly",
        Keys::FIRST,
        drawn::srandmember,
    ),
    command("srem", -3, "write fast", Keys::FIRST, srem),
    command("sscan", -3, "readonly", Keys::FIRST, sscan),
    command("sunion", -2, "readonly", Keys::ALL, algebra::sunion),
    command(
        "sunionstore",
        -3,
        "write denyoom",
        Keys::ALL,
        algebra::sunionstore,
    ),
];

fn limits(settings: &Settings) -> SetLimits {
    SetLimits {
        intset_entries_max: settings.set_max_intset_entries,
    }
}

fn set_of(object: Object) -> Result<Collection, Failure> {
    match object.value {
        Value::Set(set) => Ok(set),
        _ => Err(Failure::WRONG_TYPE),
    }
}

fn read(context: &mut Context<'_>, key: &[u8]) -> Result<Option<Collection>, Failure> {
    context.read(key)?.map(set_of).transpose()
}

/// A set that is being changed.
struct Edit<'k> {
    key: &'k [u8],
    expires_at_ms: Option<u64>,
    /// As it was; `None` of a key that was not there.
    before: Option<Collection>,
    set: Collection,
    has_changed: bool,
}

impl<'k> Edit<'k> {
    /// The set of a key, an empty one if there is none.
    fn open(context: &mut Context<'_>, key: &'k [u8]) -> Result<Self, Failure> {
        let found = context.lookup(key)?;
        Self::of(key, found)
    }

    /// Of what was found.
    fn of(key: &'k [u8], found: Option<Object>) -> Result<Self, Failure> {
        let expires_at_ms = found.as_ref().and_then(|object| object.expires_at_ms);
        let before = found.map(set_of).transpose()?;
        Ok(Self {
            key,
            expires_at_ms,
            set: before.clone().unwrap_or_else(set::empty),
            before,
            has_changed: false,
        })
    }

    /// True if it is new.
    fn add(&mut self, context: &mut Context<'_>, member: &[u8]) -> Result<bool, Failure> {
        let limits = limits(context.settings);
        let outcome = set::add(context.keyspace, &mut self.set, member, limits);
        self.noted(context, outcome.map_err(Failure::from))
    }

    /// True if it was there.
    fn remove(&mut self, context: &mut Context<'_>, member: &[u8]) -> Result<bool, Failure> {
        let outcome = set::remove(context.keyspace, &mut self.set, member);
        self.noted(context, outcome.map_err(Failure::from))
    }

    /// An error behind a change leaves rows that the meta row does not know: that is told
    /// as a change, so that nothing more is written.
    fn noted(
        &mut self,
        context: &mut Context<'_>,
        outcome: Result<bool, Failure>,
    ) -> Result<bool, Failure> {
        match outcome {
            Ok(has_changed) => self.has_changed |= has_changed,
            Err(_) if self.has_changed => context.keyspace.touch(context.db, self.key),
            Err(_) => {}
        }
        outcome
    }

    /// Puts the meta row if it is another one.
    fn keep(self, context: &mut Context<'_>) -> Outcome {
        if self.before.as_ref() == Some(&self.set) {
            context.keyspace.touch(context.db, self.key);
            return Ok(());
        }
        let object = Object {
            expires_at_ms: self.expires_at_ms,
            value: Value::Set(self.set),
        };
        context.put(self.key, object)
    }

    /// The same, after members were removed: an empty set is removed and told so.
    fn keep_or_remove(self, context: &mut Context<'_>) -> Outcome {
        match set::len(&self.set) {
            0 => context.remove(self.key).map(drop),
            _ => self.keep(context),
        }
    }
}

fn sadd(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let key = args.at(1);
    let mut edit = Edit::open(context, key)?;
    let mut added = 0;
    for member in args.from(2) {
        added += i64::from(edit.add(context, member)?);
    }
    if added > 0 {
        edit.keep(context)?;
        context.event(EventClass::Set, "sadd", key);
    }
    context.reply.integer(added);
    Ok(())
}

fn srem(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let key = args.at(1);
    let mut edit = Edit::open(context, key)?;
    let mut removed = 0;
    for member in args.from(2) {
        if set::len(&edit.set) == 0 {
            break;
        }
        removed += i64::from(edit.remove(context, member)?);
    }
    if removed > 0 {
        context.event(EventClass::Set, "srem", key);
        edit.keep_or_remove(context)?;
    }
    context.reply.integer(removed);
    Ok(())
}

fn smove(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let (from, to, member) = (args.at(1), args.at(2), args.at(3));
    let source = context.lookup(from)?;
    let target = context.lookup(to)?;
    if source.is_none() {
        context.reply.integer(0);
        return Ok(());
    }
    let mut source = Edit::of(from, source)?;
    let mut target = Edit::of(to, target)?;
    if from == to {
        let is_there = set::contains(context.keyspace.rows(), &source.set, member)?;
        context.reply.flag(is_there);
        return Ok(());
    }
    if !source.remove(context, member)? {
        context.reply.integer(0);
        return Ok(());
    }
    // What fails from here on fails behind a change.
    target.has_changed = true;
    let is_new = target.add(context, member)?;
    context.event(EventClass::Set, "srem", from);
    source.keep_or_remove(context)?;
    if is_new {
        target.keep(context)?;
        context.event(EventClass::Set, "sadd", to);
    }
    context.reply.integer(1);
    Ok(())
}

fn scard(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let set = read(context, args.at(1))?;
    let len = set.as_ref().map_or(0, set::len);
    context
        .reply
        .integer(i64::try_from(len).unwrap_or(i64::MAX));
    Ok(())
}

fn sismember(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let is_there = match read(context, args.at(1))? {
        None => false,
        Some(set) => set::contains(context.keyspace.rows(), &set, args.at(2))?,
    };
    context.reply.flag(is_there);
    Ok(())
}

fn smismember(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let set = read(context, args.at(1))?;
    context.reply.array(args.len() - 2);
    for member in args.from(2) {
        let is_there = match &set {
            None => false,
            Some(set) => set::contains(context.keyspace.rows(), set, member)?,
        };
        context.reply.flag(is_there);
    }
    Ok(())
}

fn smembers(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let set = read(context, args.at(1))?;
    tell_all(context, set.as_ref())
}

/// All members of a set, as a set.
fn tell_all(context: &mut Context<'_>, set: Option<&Collection>) -> Outcome {
    let len = set.map_or(0, set::len);
    context
        .reply
        .set(usize::try_from(len).unwrap_or(usize::MAX));
    if let Some(set) = set {
        for element in set::iter(context.keyspace.rows(), set)? {
            context.reply.bulk(&element?.member);
        }
    }
    Ok(())
}

fn sscan(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let cursor = scanning::cursor(args.at(2))?;
    let Some(set) = read(context, args.at(1))? else {
        scanning::reply_part(context.reply, 0, 0);
        return Ok(());
    };
    let options = ScanOptions::parse(args, 3)?;
    let part = set::scan(context.keyspace.rows(), &set, cursor, options.count)?;
    let wanted = |element: &&Element| options.wants(&element.member);
    let count = part.elements.iter().filter(wanted).count();
    scanning::reply_part(context.reply, part.next, count);
    for element in part.elements.iter().filter(wanted) {
        context.reply.bulk(&element.member);
    }
    Ok(())
}
