//! EVAL, EVALSHA and SCRIPT: scripts that clients bring.
//!
//! ```text
//! EVAL --sha known?--> run         SCRIPT LOAD --> known by its SHA-1
//!        '-- no: compiled, known   SCRIPT FLUSH --> (none)
//! ```
//! What a script changed is told to the log as the effects of its commands, as one unit.
//! Scripts are not kept over a restart; their number is bounded by what their interpreter
//! may hold in memory.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use crate::store::commands::table::{Command, Keys, Run, Verb};
use crate::store::commands::{Args, Failure, OwnedRequest, Reply, Unit};
use crate::store::scripts::{
    Dice, Failed, Flags, Function, Given, Libraries, Vm, script_flags, sha1_hex,
};

use super::calling::ScriptHost;
use super::following::STALE;
use super::shard::Shard;

const SHA1_HEX_LEN: usize = 40;

const fn verb(name: &'static str, arity: i8, flags: &'static str, verb: Verb) -> Command {
    Command {
        name,
        arity,
        flags,
        keys: Keys::Counted {
            number: 2,
            store: 0,
        },
        categories: "scripting",
        run: Run::Session(verb),
    }
}

const RUNS: &str = "noscript stale skip-monitor no-mandatory-keys movablekeys";
const RUNS_READONLY: &str = "readonly noscript stale skip-monitor no-mandatory-keys movablekeys";

/// The family.
pub const COMMANDS: &[Command] = &[
    verb("eval", -3, RUNS, Verb::Eval),
    verb("eval_ro", -3, RUNS_READONLY, Verb::Eval),
    verb("evalsha", -3, RUNS, Verb::Evalsha),
    verb("evalsha_ro", -3, RUNS_READONLY, Verb::Evalsha),
    verb("fcall", -3, RUNS, Verb::Fcall),
    verb("fcall_ro", -3, RUNS_READONLY, Verb::Fcall),
    Command {
        keys: Keys::None,
        categories: "",
        ..verb("function", -2, "", Verb::Function)
    },
    Command {
        keys: Keys::None,
        categories: "",
        ..verb("script", -2, "", Verb::Script)
    },
];

#[derive(Debug)]
struct Script {
    function: Function,
    /// Nothing without a first line that says some.
    flags: Option<Flags>,
    bytes: usize,
}

/// The script or function that runs now.
#[derive(Debug)]
pub(super) struct Runs {
    /// Its SHA-1, or the function's name.
    pub(super) name: String,
    pub(super) is_eval: bool,
    /// Whose it is.
    pub(super) client: usize,
    pub(super) request: OwnedRequest,
    pub(super) since: Instant,
    pub(super) is_read_only: bool,
    pub(super) has_written: bool,
    /// It has run for so long that others are told to wait.
    pub(super) is_slow: bool,
    pub(super) is_killed: bool,
    /// The database of its commands.
    pub(super) db: usize,
}

/// All that is known of scripts and functions.
#[derive(Debug, Default)]
pub(super) struct Scripts {
    vm: Option<Vm>,
    dice: Dice,
    known: HashMap<String, Script, RandomState>,
    pub(super) libraries: Libraries,
    pub(super) runs: Option<Runs>,
    /// The failure that is being told was one of a command, which was counted.
    pub(super) is_counted: bool,
    /// A script was ended in the midst of its writes: what is in memory is not in the log.
    pub(super) is_torn: bool,
}

/// How many scripts, functions and libraries there are, and what they take.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ScriptCounts {
    pub(super) scripts: usize,
    pub(super) functions: usize,
    pub(super) libraries: usize,
    pub(super) eval_bytes: usize,
    pub(super) function_bytes: usize,
    pub(super) text_bytes: usize,
}

impl ScriptCounts {
    /// As INFO names them.
    pub(super) fn tell(self, tell: &mut dyn FnMut(&str, usize)) {
        tell("used_memory_vm_eval", self.eval_bytes);
        tell("used_memory_lua", self.eval_bytes);
        tell("used_memory_scripts_eval", self.text_bytes);
        tell("number_of_cached_scripts", self.scripts);
        tell("number_of_functions", self.functions);
        tell("number_of_libraries", self.libraries);
        tell("used_memory_vm_functions", self.function_bytes);
        tell(
            "used_memory_vm_total",
            self.eval_bytes + self.function_bytes,
        );
        tell("used_memory_functions", self.function_bytes);
        tell("used_memory_scripts", self.text_bytes + self.function_bytes);
    }
}

impl Scripts {
    pub(super) fn counts(&self) -> ScriptCounts {
        ScriptCounts {
            scripts: self.known.len(),
            functions: self.libraries.function_count(),
            libraries: self.libraries.iter().len(),
            eval_bytes: self.vm.as_ref().map_or(0, Vm::used_bytes),
            function_bytes: self.libraries.used_bytes(),
            text_bytes: self.known.values().map(|script| script.bytes).sum(),
        }
    }

    /// None yet, that throw the same dice.
    pub(super) fn fresh_libraries(&self) -> Libraries {
        Libraries::new(self.dice.clone())
    }

    /// The SHA-1 of a script, which is known from then on.
    fn learn(&mut self, text: &[u8]) -> Result<String, Failure> {
        let sha = sha1_hex(text);
        if self.known.contains_key(&sha) {
            return Ok(sha);
        }
        let (flags, code) = script_flags(text)
            .map_err(|error| Failure::Reply([b"ERR ", &*error.0].concat().into()))?;
        let function = self.vm()?.compile(code, "@user_script").map_err(|words| {
            let before = b"ERR Error compiling script (new function): ".as_slice();
            Failure::Reply([before, &words].concat().into())
        })?;
        let script = Script {
            function,
            flags,
            bytes: text.len(),
        };
        self.known.insert(sha.clone(), script);
        Ok(sha)
    }

    fn vm(&mut self) -> Result<&mut Vm, Failure> {
        match &mut self.vm {
            Some(vm) => Ok(vm),
            none => {
                let made = Vm::new(&self.dice, true);
                let vm = made.map_err(|error| Failure::text(format!("ERR {error}")))?;
                Ok(none.insert(vm))
            }
        }
    }
}

/// `numkeys`, keys and arguments.
pub(super) fn split_keys(args: Args<'_>, keys: i64) -> Result<usize, Failure> {
    let given = args.len().saturating_sub(3);
    match usize::try_from(keys) {
        Err(_) => Err(Failure::words("ERR Number of keys can't be negative")),
        Ok(keys) if keys > given => Err(Failure::words(
            "ERR Number of keys can't be greater than number of args",
        )),
        Ok(keys) => Ok(keys),
    }
}

impl Shard {
    pub(super) fn run_script_verb(
        &mut self,
        key: usize,
        verb: Verb,
        args: Args<'_>,
        unit: &mut Unit,
    ) -> Result<(), Failure> {
        let ran = self.script_verb(key, verb, args, unit);
        ran.map_err(|failure| match failure {
            // As Redis sends errors: without the end of the line that a script had.
            Failure::Reply(words) => Failure::Reply(without_end(&words).to_vec().into()),
            failure => failure,
        })
    }

    fn script_verb(
        &mut self,
        key: usize,
        verb: Verb,
        args: Args<'_>,
        unit: &mut Unit,
    ) -> Result<(), Failure> {
        match verb {
            Verb::Eval => {
                let keys = split_keys(args, args.integer(2)?)?;
                let sha = self.scripts.learn(args.at(1))?;
                self.eval(key, sha, keys, args, unit)
            }
            Verb::Evalsha => {
                let none = Failure::words("NOSCRIPT No matching script. Please use EVAL.");
                if args.at(1).len() != SHA1_HEX_LEN {
                    return Err(none);
                }
                let keys = split_keys(args, args.integer(2)?)?;
                let sha = String::from_utf8_lossy(args.at(1)).to_ascii_lowercase();
                match self.scripts.known.contains_key(&sha) {
                    true => self.eval(key, sha, keys, args, unit),
                    false => Err(none),
                }
            }
            Verb::Fcall => self.fcall(key, args, unit),
            Verb::Script => self.script(key, args),
            _ => self.function(key, args, unit),
        }
    }

    fn eval(
        &mut self,
        key: usize,
        sha: String,
        keys: usize,
        args: Args<'_>,
        unit: &mut Unit,
    ) -> Result<(), Failure> {
        let Some(script) = self.scripts.known.get(&sha) else {
            return Ok(());
        };
        let (function, flags) = (script.function.clone(), script.flags);
        let runs = self.admit_script(key, sha, flags, args)?;
        let Some(vm) = self.scripts.vm.take() else {
            return Ok(());
        };
        let (vm, ran) = self.run_script(vm, &function, runs, keys, args, unit);
        self.scripts.vm = Some(vm);
        ran
    }

    /// What must be right before a script runs; `flags` are none for one without a first line.
    pub(super) fn admit_script(
        &self,
        key: usize,
        name: String,
        flags: Option<Flags>,
        args: Args<'_>,
    ) -> Result<Runs, Failure> {
        let is_command_ro = args.at(0).to_ascii_lowercase().ends_with(b"_ro");
        let may_be_stale = flags.is_some_and(|flags| flags.has(Flags::ALLOW_STALE));
        if self.is_stale() && !may_be_stale {
            return Err(STALE);
        }
        let writes_nothing = flags.is_some_and(|flags| flags.has(Flags::NO_WRITES));
        if flags.is_some() && !writes_nothing {
            self.admit_write()?;
            if is_command_ro {
                return Err(Failure::words(
                    "ERR Can not execute a script with write flag using *_ro command.",
                ));
            }
        }
        Ok(Runs {
            name,
            is_eval: !args.at(0).to_ascii_lowercase().starts_with(b"fcall"),
            client: key,
            request: OwnedRequest::of(args),
            since: Instant::now(),
            is_read_only: is_command_ro || writes_nothing,
            has_written: false,
            is_slow: false,
            is_killed: false,
            db: self.clients[key].db,
        })
    }

    pub(super) fn run_script(
        &mut self,
        mut vm: Vm,
        function: &Function,
        runs: Runs,
        keys: usize,
        args: Args<'_>,
        unit: &mut Unit,
    ) -> (Vm, Result<(), Failure>) {
        let given: Vec<&[u8]> = args.from(3).collect();
        let (keys, arguments) = given.split_at(keys.min(given.len()));
        let patience_ms = u64::try_from(self.parameters.number("busy-reply-threshold"));
        let patience = patience_ms.ok().filter(|ms| *ms > 0);
        let given = Given {
            keys,
            arguments,
            are_global: runs.is_eval,
            patience: patience.map(Duration::from_millis),
        };
        let (key, name) = (runs.client, runs.name.clone());
        self.scripts.runs = Some(runs);
        let mut reply = Reply::new(self.clients[key].reply.is_resp3());
        let mut host = ScriptHost {
            shard: self,
            key,
            unit,
        };
        let ran = vm.run(&mut host, function, given, &mut reply);
        let told = self.clients[key].reply.raw();
        told.extend_from_slice(reply.bytes());
        unit.begin_next();
        let runs = self.scripts.runs.take();
        if let Some(runs) = runs.filter(|runs| runs.is_slow) {
            self.end_slow_script(&runs, unit);
        }
        let told = ran.map_err(|failed| self.failure_of(&name, failed));
        (vm, told)
    }

    fn failure_of(&mut self, name: &str, failed: Failed) -> Failure {
        self.scripts.is_counted = failed.is_counted;
        let mut words = failed.words;
        if let Some((source, line)) = failed.place {
            let place = format!(" script: {name}, on {source}:{line}.");
            words.extend_from_slice(place.as_bytes());
        }
        Failure::Reply(words.into())
    }

    fn script(&mut self, key: usize, args: Args<'_>) -> Result<(), Failure> {
        let is_one = args.len() == 3;
        if args.is(1, "LOAD") && is_one {
            let sha = self.scripts.learn(args.at(2))?;
            self.clients[key].reply.bulk(sha.as_bytes());
        } else if args.is(1, "EXISTS") {
            let known: Vec<bool> = args
                .from(2)
                .map(|sha| {
                    let sha = String::from_utf8_lossy(sha).to_ascii_lowercase();
                    self.scripts.known.contains_key(&sha)
                })
                .collect();
            let reply = &mut self.clients[key].reply;
            reply.array(known.len());
            known.into_iter().for_each(|is_known| reply.flag(is_known));
        } else if args.is(1, "FLUSH") {
            let is_mode = is_one && (args.is(2, "SYNC") || args.is(2, "ASYNC"));
            if args.len() != 2 && !is_mode {
                return Err(Failure::words(
                    "ERR SCRIPT FLUSH only support SYNC|ASYNC option",
                ));
            }
            self.scripts.known.clear();
            self.scripts.vm = None;
            self.clients[key].reply.ok();
        } else if args.is(1, "KILL") {
            self.kill_script(key, true)?;
        } else if args.is(1, "DEBUG") {
            // There is no debugger: scripts run as if it had not been asked for.
            if !["NO", "YES", "SYNC"].iter().any(|word| args.is(2, word)) {
                return Err(Failure::words("ERR Use SCRIPT DEBUG YES/SYNC/NO"));
            }
            self.clients[key].reply.ok();
        } else {
            return Err(super::connection::unknown_subcommand("script", args));
        }
        Ok(())
    }
}

fn without_end(words: &[u8]) -> &[u8] {
    let is_end = |byte: &&u8| matches!(byte, b'\r' | b'\n');
    let behind = words.iter().rev().take_while(is_end).count();
    words.get(..words.len() - behind).unwrap_or(words)
}

#[cfg(test)]
mod tests;
