//! Reads one client's requests: the scanner, and what its last request's
//! command was, so that a pipeline of one command looks it up once.

use crate::memcached;
use crate::metrics::latency::CommandClass;
use crate::resp::{ProtocolError, Request, RequestLimits, RequestScanner, RequestTail, Started};
use crate::router::commands::{ArgList, Command, CommandFlags, Handling, Refusal, resolve};
use crate::upstream::pipe::LARGE_BYTES_MIN;

/// See the head of this file.
#[derive(Debug)]
pub struct Reader {
    scanner: RequestScanner,
    simple: Option<Simple>,
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
}

impl Meant {
    /// The command of either.
    pub fn command(&self) -> &'static Command {
        match self {
            Self::Simple(simple) => simple.command,
            Self::Other(command, _) => command,
        }
    }
}

impl Reader {
    /// At the start of a connection.
    pub fn new(limits: RequestLimits) -> Self {
        Self {
            text: memcached::RequestScanner::new(limits.request_bytes_max),
            scanner: RequestScanner::new(limits),
            simple: None,
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
        match mean(&args) {
            Ok(Meant::Simple(simple)) if simple.key < started.args.len() => {
                Some((simple, started.args.get(simple.key)?.of(input)))
            }
            _ => None,
        }
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
