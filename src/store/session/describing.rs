//! COMMAND: what commands there are, and which arguments of one are keys.

use crate::store::commands::described::{self, Begin, Described, Find, KeySpec};
use crate::store::commands::{Args, Command, Failure, Reply};
use crate::store::format::glob;

use super::shard::Shard;

/// By a command's name and its categories.
type Filter = Box<dyn Fn(&str, &str) -> bool>;

/// A key's argument, and what is done to it.
type KeyWithFlags = (usize, &'static str);

impl Shard {
    pub(super) fn command_command(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        if args.len() == 1 {
            let all = self.command_names();
            self.command_info(key, &all);
        } else if args.is(1, "COUNT") {
            let count = self.table.iter().len();
            self.clients[key].reply.count(count);
        } else if args.is(1, "INFO") {
            let named: Vec<String> = match args.len() {
                2 => self.command_names(),
                _ => args.from(2).map(lower).collect(),
            };
            self.command_info(key, &named);
        } else if args.is(1, "DOCS") {
            self.command_docs(key, args);
        } else if args.is(1, "LIST") {
            self.command_list(key, args)?;
        } else if args.is(1, "GETKEYS") {
            let keys = self.keys_of(args)?;
            let reply = &mut self.clients[key].reply;
            reply.array(keys.len());
            for (number, _) in keys {
                reply.bulk(args.rest(2).at(number));
            }
        } else if args.is(1, "GETKEYSANDFLAGS") {
            let keys = self.keys_of(args)?;
            let reply = &mut self.clients[key].reply;
            reply.array(keys.len());
            for (number, flags) in keys {
                reply.array(2);
                reply.bulk(args.rest(2).at(number));
                statuses(reply, flags, "");
            }
        } else {
            return Err(super::connection::unknown_subcommand("command", args));
        }
        Ok(())
    }

    fn command_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.table.iter().map(|of| of.name.to_owned()).collect();
        names.sort();
        names
    }

    fn command_info(&mut self, key: usize, names: &[String]) {
        let reply = &mut self.clients[key].reply;
        reply.array(names.len());
        for name in names {
            let top = name.split('|').next().unwrap_or(name);
            match (self.table.find(top.as_bytes()), described::find(name)) {
                (Some(_), Some(described)) => tell(reply, described),
                (Some(command), None) if top == name => tell_own(reply, command),
                _ => reply.null(),
            }
        }
    }

    fn command_docs(&mut self, key: usize, args: Args<'_>) {
        let names: Vec<String> = match args.len() {
            2 => self.command_names(),
            _ => args.from(2).map(lower).collect(),
        };
        let is_here = |name: &&String| {
            let top = name.split('|').next().unwrap_or(name);
            self.table.find(top.as_bytes()).is_some()
        };
        let known: Vec<&Described> = names
            .iter()
            .filter(is_here)
            .filter_map(|name| described::find(name))
            .collect();
        let reply = &mut self.clients[key].reply;
        reply.map(known.len());
        for described in known {
            tell_docs(reply, described);
        }
    }

    fn command_list(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        let is_wanted: Filter = match args.len() {
            2 => Box::new(|_, _| true),
            5 if args.is(2, "FILTERBY") && args.is(3, "MODULE") => Box::new(|_, _| false),
            5 if args.is(2, "FILTERBY") && args.is(3, "ACLCAT") => {
                let wanted = lower(args.at(4));
                Box::new(move |_, categories| categories.split(' ').any(|of| of == wanted))
            }
            5 if args.is(2, "FILTERBY") && args.is(3, "PATTERN") => {
                let pattern = args.at(4).to_vec();
                Box::new(move |name, _| glob::matches_ignoring_case(&pattern, name.as_bytes()))
            }
            _ => return Err(Failure::SYNTAX),
        };
        let mut found: Vec<&'static str> = Vec::new();
        for command in self.table.iter() {
            let categories =
                described::find(command.name).map_or(command.categories, |of| of.categories);
            if is_wanted(command.name, categories) {
                found.push(command.name);
            }
            let subcommands = described::subcommands(command.name).into_iter();
            let wanted = subcommands.filter(|of| is_wanted(of.name, of.categories));
            found.extend(wanted.map(|of| of.name));
        }
        found.sort_unstable();
        let reply = &mut self.clients[key].reply;
        reply.array(found.len());
        for name in found {
            reply.bulk(name.as_bytes());
        }
        Ok(())
    }

    /// The keys of the command in `args`, from the third argument on.
    fn keys_of(&self, args: Args<'_>) -> Result<Vec<KeyWithFlags>, Failure> {
        let asked = args.rest(2);
        let unknown = || Failure::words("ERR Invalid command specified");
        let command = self.table.find(asked.at(0)).ok_or_else(unknown)?;
        let subcommand = match described::is_container(command.name) && asked.len() > 1 {
            true => {
                let found = described::subcommand(command.name, asked.at(1));
                Some(found.ok_or_else(unknown)?)
            }
            false => None,
        };
        let described = subcommand.or_else(|| described::find(command.name));
        let specs = described.map(Described::key_specs).unwrap_or_default();
        // Channels of a shard have specs, and are no keys.
        if specs.iter().all(|spec| spec.flags == "not_key") {
            return Err(Failure::words("ERR The command has no key arguments"));
        }
        let takes = match subcommand {
            Some(subcommand) => subcommand.takes(asked.len()),
            None => command.takes(asked.len()),
        };
        if !takes {
            return Err(Failure::words(
                "ERR Invalid number of arguments specified for command",
            ));
        }
        let keys = keys_with_flags(command, &specs, asked);
        let may_have_none = described.is_some_and(|of| of.has_flag("no_mandatory_keys"));
        if keys.is_empty() && !may_have_none {
            return Err(Failure::words(
                "ERR Invalid arguments specified for command",
            ));
        }
        Ok(keys)
    }
}

/// By the specs; where only the command knows, by our table.
fn keys_with_flags(command: &Command, specs: &[KeySpec], asked: Args<'_>) -> Vec<KeyWithFlags> {
    let mut keys: Vec<KeyWithFlags> = Vec::new();
    let mut flags_of_others = None;
    for spec in specs.iter().filter(|spec| spec.flags != "not_key") {
        match spec.numbers(asked) {
            Some(numbers) => keys.extend(numbers.into_iter().map(|number| (number, spec.flags))),
            None => flags_of_others = Some(spec.flags),
        }
    }
    if let Some(flags) = flags_of_others {
        for number in command.keys.numbers(asked) {
            if !keys.iter().any(|(known, _)| *known == number) {
                keys.push((number, flags));
            }
        }
    }
    keys
}

fn lower(name: &[u8]) -> String {
    String::from_utf8_lossy(name).to_ascii_lowercase()
}

/// Words as a set of statuses.
fn statuses(reply: &mut Reply, words: &str, before: &str) {
    let words: Vec<&str> = words.split(' ').filter(|word| !word.is_empty()).collect();
    reply.set(words.len());
    for word in words {
        reply.status(&format!("{before}{word}"));
    }
}

fn tell(reply: &mut Reply, described: &Described) {
    reply.array(10);
    reply.bulk(described.name.as_bytes());
    reply.integer(described.arity.into());
    statuses(reply, described.flags, "");
    for number in described.keys {
        reply.integer(number);
    }
    statuses(reply, described.categories, "@");
    let tips: Vec<&str> = described
        .tips
        .split(';')
        .filter(|tip| !tip.is_empty())
        .collect();
    reply.set(tips.len());
    for tip in tips {
        reply.bulk(tip.as_bytes());
    }
    let specs = described.key_specs();
    reply.set(specs.len());
    for spec in &specs {
        tell_spec(reply, spec);
    }
    let subcommands = described::subcommands(described.name);
    match subcommands.len() {
        0 => reply.set(0),
        count => reply.array(count),
    }
    for subcommand in subcommands {
        tell(reply, subcommand);
    }
}

/// A command that Redis does not have.
fn tell_own(reply: &mut Reply, command: &Command) {
    reply.array(10);
    reply.bulk(command.name.as_bytes());
    reply.integer(command.arity.into());
    statuses(reply, command.flags, "");
    let (first, last, step) = command.keys.as_told();
    for number in [first, last, step] {
        reply.integer(number);
    }
    statuses(reply, command.categories, "@");
    for _ in 0..3 {
        reply.set(0);
    }
}

fn tell_spec(reply: &mut Reply, spec: &KeySpec) {
    reply.map(if spec.notes.is_empty() { 3 } else { 4 });
    if !spec.notes.is_empty() {
        reply.bulk(b"notes");
        reply.bulk(spec.notes.as_bytes());
    }
    reply.bulk(b"flags");
    statuses(reply, spec.flags, "");
    reply.bulk(b"begin_search");
    match spec.begin {
        Begin::Index(at) => tell_typed(reply, "index", &[("index", at)]),
        Begin::Keyword(word, from) => {
            typed(reply, "keyword", 2);
            reply.bulk(b"keyword");
            reply.bulk(word.as_bytes());
            reply.bulk(b"startfrom");
            reply.integer(from);
        }
        Begin::Unknown => tell_typed(reply, "unknown", &[]),
    }
    reply.bulk(b"find_keys");
    match spec.find {
        Find::Range { last, step, limit } => {
            let fields = [("lastkey", last), ("keystep", step), ("limit", limit)];
            tell_typed(reply, "range", &fields);
        }
        Find::Number { index, first, step } => {
            let fields = [("keynumidx", index), ("firstkey", first), ("keystep", step)];
            tell_typed(reply, "keynum", &fields);
        }
        Find::Unknown => tell_typed(reply, "unknown", &[]),
    }
}

fn typed(reply: &mut Reply, kind: &str, fields: usize) {
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
    reply.map(fields);
}

fn tell_typed(reply: &mut Reply, kind: &str, fields: &[(&str, i64)]) {
    typed(reply, kind, fields.len());
    for (name, value) in fields {
        reply.bulk(name.as_bytes());
        reply.integer(*value);
    }
}

fn tell_docs(reply: &mut Reply, described: &Described) {
    let fields = [
        ("summary", described.summary),
        ("since", described.since),
        ("group", described.group),
        ("complexity", described.complexity),
    ];
    let fields: Vec<_> = fields.iter().filter(|(_, text)| !text.is_empty()).collect();
    let subcommands = described::subcommands(described.name);
    reply.bulk(described.name.as_bytes());
    reply.map(fields.len() + usize::from(!subcommands.is_empty()));
    for (name, text) in fields {
        reply.bulk(name.as_bytes());
        reply.bulk(text.as_bytes());
    }
    if !subcommands.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(subcommands.len());
        for subcommand in subcommands {
            tell_docs(reply, subcommand);
        }
    }
}
