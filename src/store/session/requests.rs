//! From a client's bytes to requests.
//!
//! ```text
//!   input    | request | request | .. | part of one |
//!              `---- some are found ahead: what they will look up is brought near,
//!                    then they are run one by one
//! ```
//! A request that was found ahead and cannot be run yet stays in the input, and is found
//! again.

use crate::resp::{ProtocolError, RequestScanner, Span};
use crate::store::commands::table::Keys;
use crate::store::commands::{Args, Command, OwnedRequest, Run};

use super::client::CloseReason;
use super::execute::Flow;
use super::shard::Shard;

/// As many requests are found before the first of them is run.
const AHEAD_MAX: usize = 32;

/// An input buffer larger than this is given back when it is empty.
const KEPT_INPUT_BYTES_MAX: usize = 64 * 1024;

/// Requests that were found and not run.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    requests: Vec<Found>,
    /// Arguments of all of them.
    spans: Vec<Span>,
    /// One of them may write.
    has_writes: bool,
}

#[derive(Debug)]
struct Found {
    command: Option<&'static Command>,
    /// Where it is in the input.
    start: usize,
    end: usize,
    first_span: usize,
    end_span: usize,
    /// An inline command, which is not in the input as the array that it is.
    inline: Option<Box<OwnedRequest>>,
}

impl Found {
    fn args<'a>(&'a self, input: &'a [u8], spans: &'a [Span]) -> Args<'a> {
        match &self.inline {
            Some(request) => request.args(),
            None => Args::new(
                input.get(self.start..self.end).unwrap_or(&[]),
                spans.get(self.first_span..self.end_span).unwrap_or(&[]),
            ),
        }
    }

    fn is_empty(&self) -> bool {
        self.inline.is_none() && self.first_span == self.end_span
    }
}

impl Ahead {
    fn clear(&mut self) {
        self.requests.clear();
        self.spans.clear();
        self.has_writes = false;
    }
}

impl Shard {
    /// Runs what a client's input has in whole requests.
    pub fn run_requests(&mut self, key: usize) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        if client.is_stopped() {
            return;
        }
        client.active_at_ms = self.keyspace.now_ms();
        let db = client.db;
        self.ran_at = None;
        let mut input = std::mem::take(&mut client.input);
        let fresh = RequestScanner::new(self.limits.request);
        let mut scanner = std::mem::replace(&mut client.scanner, fresh);
        // Others' requests may be run while one of these is: by a script's.
        let mut ahead = std::mem::take(&mut self.ahead);
        let mut taken = 0;
        let refused = loop {
            let refused = self.look_ahead(&mut scanner, &input, taken, &mut ahead);
            if ahead.requests.is_empty() {
                break refused;
            }
            self.warm(db, &input, &ahead);
            let (before, all) = (taken, ahead.requests.len());
            let ran = self.run_ahead(key, &input, &ahead, &mut taken);
            if ran < all {
                scanner.reset();
                break None;
            }
            debug_assert!(taken > before, "a request has bytes");
            if refused.is_some() || !self.goes_on(key) {
                break refused.filter(|_| self.goes_on(key));
            }
        };
        ahead.clear();
        self.ahead = ahead;
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        input.drain(..taken);
        if input.is_empty() && input.capacity() > KEPT_INPUT_BYTES_MAX {
            input = Vec::new();
        }
        (client.input, client.scanner) = (input, scanner);
        if let Some(error) = refused {
            let words = [b"ERR Protocol error: ".as_slice(), &error.words()].concat();
            let reply = client.reply.raw();
            reply.push(b'-');
            reply.extend_from_slice(&words);
            reply.extend_from_slice(b"\r\n");
            client.closing = Some(CloseReason::Protocol);
            self.mark(key);
        }
    }

    /// Whether a client's next request may be run.
    fn goes_on(&self, key: usize) -> bool {
        let client = self.clients.get(key);
        client.is_some_and(|client| !client.is_stopped()) && self.may_read(key)
    }

    /// Finds the next requests. What is behind them may be none.
    fn look_ahead(
        &self,
        scanner: &mut RequestScanner,
        input: &[u8],
        from: usize,
        ahead: &mut Ahead,
    ) -> Option<ProtocolError> {
        ahead.clear();
        let mut start = from;
        let mut last: Option<&'static Command> = None;
        while ahead.requests.len() < AHEAD_MAX {
            let request = match scanner.scan(input.get(start..).unwrap_or(&[])) {
                Ok(Some(request)) => request,
                Ok(None) => return None,
                Err(error) => return Some(error),
            };
            let first_span = ahead.spans.len();
            let args = Args::new(request.bytes, request.args);
            let inline = request.inline && !request.is_empty();
            if !request.inline {
                ahead.spans.extend_from_slice(request.args);
            }
            if !request.repeats || last.is_none() {
                last = self.table.find(args.at(0));
                ahead.has_writes |= last.is_some_and(|command| command.has_flag("write"));
            }
            let end = start + request.consumed;
            ahead.requests.push(Found {
                command: last,
                start,
                end,
                first_span,
                end_span: ahead.spans.len(),
                inline: inline.then(|| Box::new(OwnedRequest::of(args))),
            });
            start = end;
        }
        None
    }

    /// Brings near what requests will look up; of a single one that would be no faster.
    fn warm(&self, db: usize, input: &[u8], ahead: &Ahead) {
        if ahead.requests.len() < 2 {
            return;
        }
        let keys = ahead.requests.iter().flat_map(|found| {
            let args = found.args(input, &ahead.spans);
            let numbers = match found.command {
                Some(Command {
                    run: Run::Data(_),
                    keys: keys @ Keys::Range { .. },
                    ..
                }) => keys.range(args.len()),
                _ => None,
            };
            let numbers = numbers.into_iter().flatten();
            numbers.map(move |number| args.at(number))
        });
        self.keyspace.warm(db, keys, ahead.has_writes);
    }

    /// Runs requests until the client must not go on; how many were taken from the input.
    fn run_ahead(&mut self, key: usize, input: &[u8], ahead: &Ahead, taken: &mut usize) -> usize {
        for (number, found) in ahead.requests.iter().enumerate() {
            if number > 0 && !self.goes_on(key) {
                return number;
            }
            if !found.is_empty() {
                let args = found.args(input, &ahead.spans);
                if self.request(key, found.command, args) == Flow::Postponed {
                    return number;
                }
            }
            *taken = found.end;
        }
        ahead.requests.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::world::World;
    use super::AHEAD_MAX;

    fn pipeline(lines: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for line in lines {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            crate::resp::write_command(&mut bytes, &words);
        }
        bytes
    }

    fn run(world: &mut World, client: usize, bytes: &[u8]) -> String {
        let input = world.shard.input_of(client).expect("a client");
        input.extend_from_slice(bytes);
        world.shard.run_requests(client);
        world.owed(client)
    }

    #[test]
    fn requests_found_ahead_run_in_order_however_they_are_cut_and_written() {
        let mut bytes = pipeline(&["SET a 1", "get a", "GET b"]);
        bytes.extend_from_slice(b"*0\r\n\r\nSET b 2\r\nGET b\r\n");
        bytes.extend(pipeline(&["MGET a b", "SELECT 1", "GET a"]));
        let told = "OK $1 nil OK $2 [$1 $2] OK nil";
        for cut in 0..=bytes.len() {
            let mut world = World::new();
            let client = world.client();
            let (one, other) = bytes.split_at(cut);
            let first = run(&mut world, client, one);
            let second = run(&mut world, client, other);
            let both = [first, second].join(" ").trim().to_owned();
            assert_eq!(both, told.replace('$', ""), "cut at {cut}");
        }
    }

    #[test]
    fn more_than_are_found_at_once_are_all_run() {
        let mut world = World::new();
        let client = world.client();
        let lines = vec!["INCR n"; 3 * AHEAD_MAX + 1];
        run(&mut world, client, &pipeline(&lines));
        let count = format!("{}", lines.len());
        assert_eq!(run(&mut world, client, &pipeline(&["GET n"])), count);
    }

    #[test]
    fn what_stands_behind_a_wait_a_pause_or_an_end_is_not_run_with_what_is_before_it() {
        let mut world = World::new();
        let (waits, other) = (world.client(), world.client());
        let lines = ["SET a 1", "BLPOP list 0", "SET a 2", "GET a"];
        assert_eq!(run(&mut world, waits, &pipeline(&lines)), "OK");
        assert_eq!(world.say(other, "GET a"), "1");
        assert_eq!(world.say(other, "RPUSH list x"), ":1");
        assert_eq!(world.owed(waits), "[list x] OK 2");

        let paused = ["CLIENT PAUSE 50 WRITE", "GET a", "SET a 3", "GET a"];
        assert_eq!(run(&mut world, waits, &pipeline(&paused)), "OK 2");
        world.shard.set_now_ms(1_700_000_000_060);
        for resumed in world.shard.take_resumed() {
            world.shard.run_requests(resumed);
        }
        assert_eq!(world.owed(waits), "OK 3");

        let ended = ["QUIT", "SET a 4"];
        assert_eq!(run(&mut world, waits, &pipeline(&ended)), "OK");
        assert_eq!(world.say(other, "GET a"), "3");
    }

    #[test]
    fn what_is_no_request_is_told_behind_what_came_before_it() {
        let mut world = World::new();
        let client = world.client();
        let mut bytes = pipeline(&["SET a 1", "GET a"]);
        bytes.extend_from_slice(b"*1\r\n$x\r\n");
        let told = run(&mut world, client, &bytes);
        assert!(told.starts_with("OK 1 -ERR Protocol error"), "{told}");
    }
}
