//! From a client's bytes to its requests. What is not here yet waits as the
//! requests of Redis do (`../intake.rs`).

use crate::memcached::{Asked, Refusal, Request};

use super::super::client::Pause;
use super::super::core::PoolCore;
use super::super::dispatch::{Seat, Verdict};
use super::super::intake::Run;
use super::super::reader::Reader;

impl PoolCore {
    /// Takes the requests that `input` starts with.
    pub(in super::super) fn take_texts(
        &mut self,
        key: u32,
        input: &[u8],
        reader: &mut Reader,
    ) -> Run {
        let mut run = Run {
            consumed: 0,
            pause: None,
        };
        let Some(mut seat) = self.seat(key) else {
            return run;
        };
        let mut requests = 0;
        while let Some(rest) = input.get(run.consumed..).filter(|rest| !rest.is_empty()) {
            if (seat.stale || seat.budget == 0) && !self.renew(&mut seat, input) {
                run.pause = Some(Pause::Owed);
                break;
            }
            let request = match reader.text.scan(rest) {
                Ok(Some(request)) => request,
                Ok(None) => break,
                Err(refusal) => {
                    self.flush(&mut seat, input);
                    self.refuse_text(&seat, refusal, false);
                    run.consumed = input.len();
                    break;
                }
            };
            match self.take_text(&mut seat, &request, input, run.consumed) {
                Verdict::Taken | Verdict::Empty => requests += 1,
                Verdict::Wait(reason) => {
                    run.pause = Some(reason);
                    break;
                }
                Verdict::End => {
                    run.consumed = input.len();
                    break;
                }
            }
            run.consumed += request.bytes.len();
            if request.skip > 0 {
                let rest = input.get(run.consumed..).unwrap_or_default();
                run.consumed += self.skip_data(key, rest, request.skip);
            }
        }
        self.flush(&mut seat, input);
        if run.pause.is_some() {
            reader.reset(); // the request is read again when the client goes on
        }
        self.counters.requests_total.add(requests);
        run
    }

    /// Takes one request, which stands at `at` of `input`.
    #[inline]
    fn take_text(
        &mut self,
        seat: &mut Seat,
        request: &Request<'_>,
        input: &[u8],
        at: usize,
    ) -> Verdict {
        if let Asked::Keyed(keyed) = &request.asked
            && (request.in_original || !self.is_strict())
        {
            return self.forward_keyed(seat, keyed, request, input, at);
        }
        self.flush(seat, input);
        seat.stale = true;
        if !request.in_original && self.is_strict() {
            return self.end_client(seat.key);
        }
        match &request.asked {
            Asked::Keyed(keyed) => self.forward_keyed(seat, keyed, request, input, at),
            Asked::Several(several) => self.retrieve(seat, several, request.bytes),
            Asked::Version => self.version(seat),
            Asked::Quit => self.end_client(seat.key),
            Asked::FlushAll { line, quiet } if self.config.allow_flush => {
                self.flush_all(seat, line, *quiet)
            }
            Asked::FlushAll { quiet, .. } => self.refuse_text(seat, Refusal::FlushRefused, *quiet),
            Asked::Refused { refusal, quiet } => self.refuse_text(seat, *refusal, *quiet),
        }
    }
}
