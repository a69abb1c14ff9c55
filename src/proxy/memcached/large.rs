//! Requests with large data: passed on while they arrive, as those of Redis are
//! (`../large_requests.rs`), and data that are not wanted, which go nowhere.

use crate::memcached::Started;
use crate::router::epoch::Route;
use crate::upstream::pipe::LARGE_BYTES_MIN;

use super::super::client::{Pause, Unread};
use super::super::core::PoolCore;
use super::super::dispatch::Verdict;
use super::super::large_requests::{Start, Upload, UploadTail};
use super::super::private_pipes::Role;
use super::super::reader::Reader;
use super::forward::class_of;

impl PoolCore {
    /// What becomes of a request whose line is here.
    pub(in super::super) fn start_text(
        &mut self,
        key: u32,
        bytes: &[u8],
        reader: &mut Reader,
    ) -> Start {
        let started = reader.text.started(bytes);
        let Some(started) = started.filter(|started| started.total > LARGE_BYTES_MIN) else {
            return Start::Keep;
        };
        let Some(client) = self.clients.get(key as usize) else {
            return Start::End;
        };
        if client.eof {
            return Start::Keep;
        }
        if client.owed() > 0 {
            return Start::Wait(Pause::Lane);
        }
        let quiet = started.keyed.quiet;
        let refusal = match self.routing.place(started.keyed.key) {
            Route::To(shard) => {
                let shared = self.seat(key).and_then(|seat| self.pipe_for(&seat, shard));
                let Some(shared) = shared else {
                    return Start::End;
                };
                if self.open_pipe(shared) {
                    let Some(pipe) = self.take_private(shared) else {
                        let freed = self.freed_pipes;
                        return Start::Wait(Pause::Private { freed });
                    };
                    let upload = self.pass_text(key, pipe, &started);
                    reader.text.reset();
                    return upload;
                }
                self.refuse_for(key, shared, quiet)
            }
            other => self.stop_text(key, other, quiet),
        };
        match refusal {
            Verdict::Wait(pause) => Start::Wait(pause),
            _ => {
                reader.text.reset();
                Start::Pass(Upload::nowhere(UploadTail::Data(started.missing)))
            }
        }
    }

    /// Sends the beginning of a request.
    fn pass_text(&mut self, key: u32, pipe: u32, started: &Started<'_>) -> Start {
        let Some(seat) = self.seat(key) else {
            return Start::End;
        };
        self.open_pipe(pipe);
        let Some(place) = self.pipes.get_mut(pipe as usize) else {
            return Start::End;
        };
        place.role = Role::Private {
            client: key,
            arriving: true,
        };
        let keyed = &started.keyed;
        let pieces = [keyed.line, b"\r\n", started.data];
        self.send_pieces(&seat, pipe, class_of(keyed), &pieces, keyed.quiet);
        self.counters.requests_total.inc();
        self.counters.large_requests_total.inc();
        Start::Pass(Upload {
            tail: UploadTail::Data(started.missing),
            pipe: Some(pipe),
            passed_bytes: started.data.len() as u64,
            quiet: keyed.quiet,
        })
    }

    /// Skips `bytes` that are no request; says how many of them are in `rest`.
    /// Those to come go nowhere.
    pub(super) fn skip_data(&mut self, key: u32, rest: &[u8], bytes: u64) -> usize {
        let missing = bytes.saturating_sub(rest.len() as u64);
        if missing == 0 {
            return usize::try_from(bytes).unwrap_or(rest.len());
        }
        let reader = self.take_reader();
        if let Some(client) = self.clients.get_mut(key as usize) {
            client.unread = Some(Box::new(Unread {
                bytes: Vec::new(),
                reader,
                upload: Some(Upload::nowhere(UploadTail::Data(missing))),
            }));
        }
        rest.len()
    }
}
