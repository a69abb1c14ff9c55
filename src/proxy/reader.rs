//! Reads one client's requests: the scanner, and what its last request's
//! command was, so that a pipeline of one command looks it up once.

use crate::memcached;
use crate::metrics::latency::CommandClass;
use crate::resp::{ProtocolError, Request, RequestLimits, RequestScanner, RequestTail, Started};
use crate::router::commands::original::{self, Accepted};
use crate::router::commands::{ArgList, Command, CommandFlags, Handling, Refusal, resolve};
use crate::upstream::pipe::LARGE_BYTES_MIN;

use super::config::Compat;

/// CR LF, `$`, five digits, CR LF, and CR LF at its end: what an argument that
/// arrives has beside its own bytes.
const ARRIVING_MORE_BYTES: usize = 12;

/// See the head of this file.
#[derive(Debug)]
pub struct Reader {
    scanner: RequestScanner,
    simple: Option<Simple>,
    compat: Compat,
    /// In place of both, in a pool of memcacheds.
    pub(super) text: memcached::RequestScanner,
}

/// A command that is forwarded by one key at a fixed place.
#[derive(Debug, Clone, Copy)]
pub struct Simple {
    /// The command.
    pub command: &'static Command,
    /// Which argument is its key.
    pub key: usize,
    /// What its latency is counted under.
    pub class: CommandClass,
}

/// What a request is.
pub enum Meant {
    /// The usual case.
    Simple(Simple),
    /// Any other command, and how it is handled.
    Other(&'static Command, Handling),
    /// The same, where it is meant as twemproxy means it.
    Original(Accepted),
}

impl Meant {
    /// The command, where we know it by more than its name.
    pub fn command(&self) -> Option<&'static Command> {
        match self {
            Self::Simple(simple) => Some(simple.command),
            Self::Other(command, _) => Some(command),
            Self::Original(_) => None,
        }
    }

    /// What twemproxy makes of every request that begins as this one and whose
    /// arguments are short. (A script's number of keys may become wrong.)
    fn holds_for_repeats(&self) -> Option<Simple> {
        match self {
            Self::Simple(simple) if simple.key == 1 => Some(*simple),
            _ => None,
        }
    }
}

impl Reader {
    /// At the start of a connection.
    pub fn new(limits: RequestLimits, compat: Compat) -> Self {
        let takes_inline = compat == Compat::Redis;
        Self {
            text: memcached::RequestScanner::new(limits.request_bytes_max),
            scanner: RequestScanner::new(RequestLimits {
                takes_inline,
                ..limits
            }),
            simple: None,
            compat,
        }
    }

    /// See [`RequestScanner::scan_repeated`]: the usual next request of a pipeline.
    #[inline(always)]
    pub fn read_repeated<'a>(&'a mut self, input: &'a [u8]) -> Option<(Simple, Request<'a>)> {
        Some((self.simple?, self.scanner.scan_repeated(input)?))
    }

    /// See [`RequestScanner::scan`]; what a request means is told beside it.
    pub fn read<'a>(&'a mut self, input: &'a [u8]) -> Result<Option<Read<'a>>, ProtocolError> {
        let Some(request) = self.scanner.scan(input)? else {
            return Ok(None);
        };
        if self.compat == Compat::Twemproxy {
            let meant = mean_as_original(&request);
            self.simple = meant.holds_for_repeats();
            let meant = Ok(meant);
            return Ok(Some(Read { request, meant }));
        }
        let meant = match (request.repeats, self.simple) {
            (true, Some(simple)) => Ok(Meant::Simple(simple)),
            _ => mean(&request),
        };
        self.simple = match meant {
            Ok(Meant::Simple(simple)) => Some(simple),
            _ => None,
        };
        Ok(Some(Read { request, meant }))
    }

    /// What the large request means whose beginning is `input`, and its key, if
    /// that is here already. `None`: it is not large, or its bytes can't go out
    /// before all are here.
    pub fn large<'a>(&'a self, input: &'a [u8]) -> Option<(Simple, &'a [u8])> {
        let started = self.scanner.started()?;
        if started.bytes_min <= LARGE_BYTES_MIN {
            return None;
        }
        let args = ArrivedArgs {
            bytes: input,
            started,
        };
        let meant = match self.compat {
            Compat::Redis => mean(&args),
            Compat::Twemproxy => Ok(mean_as_original(&args)),
        };
        match meant {
            Ok(Meant::Simple(simple)) if simple.key < started.args.len() => {
                Some((simple, started.args.get(simple.key)?.of(input)))
            }
            _ => None,
        }
    }

    /// How many arguments the request has whose beginning is `input`, and those
    /// that are here; `None` if not even that is known.
    pub fn beginning<'a>(&'a self, input: &'a [u8]) -> Option<Beginning<'a>> {
        let started = self.scanner.started()?;
        Some(Beginning {
            args: ArrivedArgs {
                bytes: input,
                started,
            },
            compat: self.compat,
        })
    }

    /// Lets go of a request that passes on without its end.
    ///
    /// # Errors
    /// See [`RequestScanner::take_tail`].
    pub fn take_tail(&mut self, input: &[u8]) -> Result<Option<RequestTail>, ProtocolError> {
        self.simple = None;
        self.scanner.take_tail(input)
    }

    /// Forgets a partial request.
    pub fn reset(&mut self) {
        self.scanner.reset();
        self.simple = None;
        self.text.reset();
    }
}

/// A whole request and what it means.
pub struct Read<'a> {
    /// As the client sent it.
    pub request: Request<'a>,
    /// Its command, or why no server would look at it.
    pub meant: Result<Meant, Refusal>,
}

/// A request that is not whole.
pub struct Beginning<'a> {
    args: ArrivedArgs<'a>,
    compat: Compat,
}

impl Beginning<'_> {
    /// Arguments that it says it has.
    pub fn args_total(&self) -> usize {
        self.args.len()
    }

    /// Whether one of them is longer than `bytes_max` (of five digits), also if
    /// so far it only says so.
    pub fn has_arg_over(&self, bytes_max: usize) -> bool {
        let started = &self.args.started;
        let whole_end = started.args.last().map_or(0, |arg| arg.end as usize);
        let arriving = started.bytes_min.saturating_sub(whole_end);
        arriving > bytes_max + ARRIVING_MORE_BYTES
            || started
                .args
                .iter()
                .any(|arg| (arg.end - arg.start) as usize > bytes_max)
    }

    /// Whether twemproxy, if that is whom we follow, would have closed by now.
    pub fn is_closed_on(&self) -> bool {
        let whole = self.args.started.args.len();
        self.compat == Compat::Twemproxy && !original::may_go_on(&self.args, self.args.len(), whole)
    }
}

/// The arguments of a request that is not whole; those to come are empty.
struct ArrivedArgs<'a> {
    bytes: &'a [u8],
    started: Started<'a>,
}

impl ArgList for ArrivedArgs<'_> {
    fn len(&self) -> usize {
        self.started.args_total
    }

    fn arg(&self, index: usize) -> &[u8] {
        match self.started.args.get(index) {
            Some(span) => span.of(self.bytes),
            None => &[],
        }
    }
}

fn mean(args: &impl ArgList) -> Result<Meant, Refusal> {
    let command = resolve(args)?;
    let handling = command.handling_for(args);
    Ok(match (handling, command.first_key_fast()) {
        (Handling::Forward, Some(key)) => Meant::Simple(Simple {
            command,
            key,
            class: class_of(command),
        }),
        _ => Meant::Other(command, handling),
    })
}

fn mean_as_original(args: &impl ArgList) -> Meant {
    match original::judge(args) {
        Accepted::Key(command, key) => Meant::Simple(Simple {
            command,
            key,
            class: class_of(command),
        }),
        other => Meant::Original(other),
    }
}

/// What a forwarded command's latency is counted under.
pub fn class_of(command: &Command) -> CommandClass {
    if command.flags.contains(CommandFlags::NO_MANDATORY_KEYS) {
        CommandClass::Script
    } else if command.is_write() {
        CommandClass::Write
    } else {
        CommandClass::Read
    }
}
