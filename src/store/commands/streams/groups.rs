//! XGROUP.

use crate::rdb::StreamId;
use crate::store::commands::args::Args;
use crate::store::commands::context::{Context, Outcome};
use crate::store::commands::failure::{Failure, up_to_zero};
use crate::store::commands::settings::EventClass;
use crate::store::keyspace::Tells;
use crate::store::kinds::stream::{self, Group, Membership};

use super::{Held, changing, ids, join, lookup, no_group_of, put, put_untold, told};

const NO_KEY: Failure = Failure::words(
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to \
     use the MKSTREAM option to create an empty stream automatically.",
);
/// Of a subcommand's name this much is told.
const NAME_BYTES_MAX: usize = 128;

/// What is asked of XGROUP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Create,
    SetId,
    Destroy,
    CreateConsumer,
    DeleteConsumer,
}

impl Wish {
    fn of(args: Args<'_>) -> Option<Self> {
        Some(match &args.at(1).to_ascii_uppercase()[..] {
            b"CREATE" => Wish::Create,
            b"SETID" => Wish::SetId,
            b"DESTROY" => Wish::Destroy,
            b"CREATECONSUMER" => Wish::CreateConsumer,
            b"DELCONSUMER" => Wish::DeleteConsumer,
            _ => return None,
        })
    }

    /// Whether it takes so many arguments.
    fn takes(self, args: usize) -> bool {
        match self {
            Wish::Create => (5..=8).contains(&args),
            Wish::SetId => args == 5 || args == 7,
            Wish::Destroy => args == 4,
            Wish::CreateConsumer | Wish::DeleteConsumer => args == 5,
        }
    }
}

/// A subcommand that there is not, or not with so many arguments.
pub(super) fn wrong(container: &str, args: Args<'_>) -> Failure {
    let name = up_to_zero(args.at(1));
    let name = name.get(..NAME_BYTES_MAX).unwrap_or(name);
    let before = "ERR unknown subcommand or wrong number of arguments for '";
    Failure::quoting(before, name, &format!("'. Try {container} HELP."))
}

/// Behind the id of CREATE and SETID.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    makes_stream: bool,
    entries_read: Option<u64>,
}

impl Options {
    fn parse(args: Args<'_>, wish: Wish) -> Result<Self, Failure> {
        let mut options = Self::default();
        let is_create = wish == Wish::Create;
        let takes_read = is_create || wish == Wish::SetId;
        let mut at = 5;
        while at < args.len() {
            if is_create && args.is(at, "MKSTREAM") {
                options.makes_stream = true;
                at += 1;
            } else if takes_read && args.is(at, "ENTRIESREAD") && at + 1 < args.len() {
                options.entries_read = match args.integer(at + 1)? {
                    -1 => None,
                    read => Some(u64::try_from(read).map_err(|_| {
                        Failure::words("ERR value for ENTRIESREAD must be positive or -1")
                    })?),
                };
                at += 2;
            } else {
                return Err(wrong("XGROUP", args));
            }
        }
        Ok(options)
    }
}

pub(super) fn xgroup(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    let wish = Wish::of(args).filter(|_| args.len() >= 4);
    let wish = wish.ok_or_else(|| wrong("XGROUP", args))?;
    let options = Options::parse(args, wish)?;
    let (key, name) = (args.at(2), args.at(3));
    let held = lookup(context, key)?;
    if wish == Wish::Create {
        return create(context, args, options, held);
    }
    let held = held.ok_or(NO_KEY)?;
    let group = stream::group(context.keyspace.rows_read(), &held.stream, name)?;
    if wish == Wish::Destroy {
        return destroy(context, key, held, group);
    }
    let group = group.ok_or_else(|| no_group_of(key, name))?;
    if !wish.takes(args.len()) {
        return Err(wrong("XGROUP", args));
    }
    match wish {
        Wish::SetId => set_id(context, args, options, &held, group),
        Wish::CreateConsumer => create_consumer(context, args, held, group),
        _ => delete_consumer(context, args, &held, group),
    }
}

fn create(
    context: &mut Context<'_>,
    args: Args<'_>,
    options: Options,
    held: Option<Held>,
) -> Outcome {
    let (key, name) = (args.at(2), args.at(3));
    if held.is_none() && !options.makes_stream {
        return Err(NO_KEY);
    }
    if !Wish::Create.takes(args.len()) {
        return Err(wrong("XGROUP", args));
    }
    let last = match args.at(4) {
        b"$" => held.as_ref().map_or(StreamId::MIN, |held| held.stream.last),
        text => ids::strict(text, 0)?,
    };
    let is_new = held.is_none();
    let mut held = match held {
        Some(held) => held,
        None => Held::new(context),
    };
    if stream::group(context.keyspace.rows_read(), &held.stream, name)?.is_some() {
        return Err(Failure::words(
            "BUSYGROUP Consumer Group name already exists",
        ));
    }
    let open = stream::create_group(&mut held.stream, name, last, options.entries_read);
    open.put(context.keyspace.rows(), &held.stream);
    match is_new {
        true => put(context, key, held)?,
        false => put_untold(context, key, held)?,
    }
    context.reply.ok();
    context.event(EventClass::Stream, "xgroup-create", key);
    Ok(())
}

fn set_id(
    context: &mut Context<'_>,
    args: Args<'_>,
    options: Options,
    held: &Held,
    mut group: Group,
) -> Outcome {
    group.last = match args.at(4) {
        b"$" => held.stream.last,
        text => ids::loose(text, 0)?,
    };
    group.entries_read = options.entries_read;
    Membership::open(group).put(context.keyspace.rows(), &held.stream);
    context.keyspace.note_change();
    context.reply.ok();
    context.event(EventClass::Stream, "xgroup-setid", args.at(2));
    Ok(())
}

fn destroy(context: &mut Context<'_>, key: &[u8], mut held: Held, group: Option<Group>) -> Outcome {
    let Some(group) = group else {
        context.reply.integer(0);
        return Ok(());
    };
    let destroyed = stream::destroy_group(context.keyspace.rows(), &mut held.stream, &group);
    changing(context, destroyed.map_err(Failure::from))?;
    put_untold(context, key, held)?;
    // Who reads for it is told so.
    let db = context.db;
    context.keyspace.tell(db, key, Tells::Waiters);
    context.reply.integer(1);
    context.event(EventClass::Stream, "xgroup-destroy", key);
    Ok(())
}

fn create_consumer(
    context: &mut Context<'_>,
    args: Args<'_>,
    mut held: Held,
    group: Group,
) -> Outcome {
    let (key, name) = (args.at(2), args.at(4));
    let rows = context.keyspace.rows_read();
    if stream::consumer(rows, &held.stream, &group, name)?.is_some() {
        context.reply.integer(0);
        return Ok(());
    }
    let mut open = Membership::open(group);
    join(context, key, &mut held, &mut open, name)?;
    open.put(context.keyspace.rows(), &held.stream);
    put_untold(context, key, held)?;
    context.reply.integer(1);
    Ok(())
}

fn delete_consumer(
    context: &mut Context<'_>,
    args: Args<'_>,
    held: &Held,
    group: Group,
) -> Outcome {
    let mut open = Membership::open(group);
    let rows = context.keyspace.rows();
    let left = open.leave(rows, &held.stream, args.at(4));
    let left = changing(context, left.map_err(Failure::from))?;
    if left.is_some() {
        open.put(context.keyspace.rows(), &held.stream);
        context.keyspace.note_change();
        context.event(EventClass::Stream, "xgroup-delconsumer", args.at(2));
    }
    context.reply.integer(told(left.unwrap_or(0)));
    Ok(())
}
