//! Where a request that was refused (`refused.rs`) goes by the routing of now.
//!
//! ```text
//! GET a       one shard: to the connection of its client's lane there
//! MGET a b    the new route parts a and b:  MGET a -> s1, MGET b -> s2
//!             their replies become the request's, or the part's that it was
//! ```
//! Invariant: a request is sent only if all its keys have a place now.

use crate::resp::Request;
use crate::router::commands::{Command, Handling, SessionCommand, SplitKind};
use crate::router::epoch::Route;
use crate::router::layout::ShardIndex;

use super::core::PoolCore;
use super::reader::Meant;
use super::refused::Waiting;
use super::split::stride;

/// Where a refused request goes now.
pub(super) enum Target {
    Pipe(u32),
    /// To several: it is sent part by part.
    Parts(SplitKind),
    /// The gate is held.
    Later,
    Nowhere,
}

impl PoolCore {
    /// Where a request goes by the routing of now.
    pub(super) fn target_of(&mut self, waiting: &Waiting) -> Target {
        let mut reader = self.take_reader();
        let route = match reader.read(&waiting.request) {
            Ok(Some(read)) => match read.meant {
                Ok(Meant::Other(_, Handling::Split(kind)))
                    if self.part_by_keys(waiting, kind, &read.request) =>
                {
                    self.forget(reader);
                    return Target::Parts(kind);
                }
                Ok(Meant::Simple(simple)) => {
                    Some((self.routing.route(read.request.arg(simple.key)), None))
                }
                Ok(Meant::Other(command, handling)) => self
                    .route_of_keys(command, handling, &read.request)
                    .map(|route| (route, Some((command, read.request)))),
                Ok(Meant::Original(_)) | Err(_) => None,
            },
            Ok(None) | Err(_) => None,
        };
        let target = match route {
            Some((Route::To(shard), script)) => {
                let pipe = self.pipe_of_lane(waiting.lane, waiting.ticket.client, shard);
                if let (Some(pipe), Some((command, request))) = (pipe, script) {
                    self.load_script_of(pipe, command, &request);
                }
                pipe.map_or(Target::Nowhere, Target::Pipe)
            }
            Some((Route::Wait, _)) => Target::Later,
            Some((Route::TryAgain | Route::Reserved, _)) | None => Target::Nowhere,
        };
        self.forget(reader);
        target
    }

    /// Notes where each key of a split command goes; false if they are not on several
    /// connections.
    fn part_by_keys(&mut self, waiting: &Waiting, kind: SplitKind, request: &Request<'_>) -> bool {
        let mut split = std::mem::take(&mut self.split);
        split.begin();
        let mut all_go = true;
        for index in (1..request.len()).step_by(stride(kind)) {
            let pipe = match self.routing.route(request.arg(index)) {
                Route::To(shard) => self.pipe_of_lane(waiting.lane, waiting.ticket.client, shard),
                _ => None,
            };
            match pipe {
                Some(pipe) => split.add(pipe),
                None => all_go = false,
            }
        }
        let is_parted = all_go && split.parts.len() > 1;
        self.split = split;
        is_parted
    }

    /// What [`PoolCore::part_by_keys`] noted.
    pub(super) fn send_in_parts(&mut self, waiting: &Waiting, kind: SplitKind) {
        let mut reader = self.take_reader();
        if let Ok(Some(read)) = reader.read(&waiting.request) {
            let mut split = std::mem::take(&mut self.split);
            self.send_parts(waiting.ticket, kind, &read.request, &mut split);
            self.split = split;
        }
        self.forget(reader);
    }

    fn route_of_keys(
        &mut self,
        command: &'static Command,
        handling: Handling,
        request: &Request<'_>,
    ) -> Option<Route> {
        match handling {
            Handling::Session(SessionCommand::Publish) => {
                return Some(self.routing.place(request.arg(1)));
            }
            Handling::Forward | Handling::Split(_) => {}
            _ => return None,
        }
        command.keys(request, &mut self.key_args).ok()?;
        let mut first = None;
        for arg in &self.key_args {
            let route = self.routing.route(request.arg(arg.index as usize));
            match first {
                None => first = Some(route),
                Some(first) if first == route => {}
                Some(_) if route == Route::Wait => first = Some(route),
                Some(Route::Wait) => {}
                Some(_) => return None,
            }
        }
        first
    }

    fn pipe_of_lane(&self, lane: u32, client: u32, shard: ShardIndex) -> Option<u32> {
        let lane = self.lanes.get(lane as usize)?;
        let of_shard = usize::from(shard.0) * lane.connections;
        let index = of_shard + client as usize % lane.connections.max(1);
        lane.pipes.get(index).copied()
    }
}
