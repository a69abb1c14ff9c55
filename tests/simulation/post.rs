//! The job's posts at the servers: a fence with its marker, its way back, the route
//! record. One order at a time at each server, sent again until it is answered; what
//! a process sent before it died arrives all the same.

use keyferry::reshard::cutover::{Cutover, Event as Told};

use super::event::{Event, Order, PostAnswer, Us};
use super::job::Way;
use super::world::{Mistake, SOURCES, TARGETS, World};

/// How long an answer of a server is waited for.
const POST_LIMIT: Us = 10_000;

impl World {
    /// Every source, or every server, is told; what comes of it is told the machine.
    pub fn order(&mut self, order: Order) {
        let servers = match order {
            Order::KeepRoute { .. } => 0..SOURCES + TARGETS,
            Order::Raise { .. } | Order::Lower { .. } => self.job.way.sources(),
        };
        self.job.done_at.clear();
        for server in servers {
            self.job.posts[server].orders.push_back(order);
            self.post_next(server);
        }
    }

    fn post_next(&mut self, server: usize) {
        if !self.job.posts[server].is_busy && !self.job.posts[server].orders.is_empty() {
            self.job.posts[server].is_busy = true;
            self.post_sends(server, None);
        }
    }

    /// A fence is sent in two parts: the WATCH, and what it guards.
    fn post_sends(&mut self, server: usize, watched: Option<u64>) {
        let Some(order) = self.job.posts[server].orders.front().copied() else {
            return;
        };
        self.job.posts[server].number += 1;
        let (life, number) = (self.job.life, self.job.posts[server].number);
        let late = Event::PostTimesOut {
            life,
            server,
            number,
        };
        self.queue.put(self.now + POST_LIMIT, late);
        if self.is_lost() {
            return;
        }
        let event = Event::PostReaches {
            life,
            server,
            number,
            order,
            watched,
        };
        let at = self.now + self.step_delay();
        self.queue.put(at, event);
    }

    #[allow(
        clippy::needless_pass_by_value,
        reason = "as events go everywhere here"
    )]
    pub fn post_happens(&mut self, event: Event) {
        match event {
            Event::PostReaches {
                life,
                server,
                number,
                order,
                watched,
            } => self.post_reaches((life, server, number), order, watched),
            Event::PostAnswered {
                life,
                server,
                number,
                answer,
            } if self.is_awaited(life, server, number) => self.post_answered(server, answer),
            Event::PostTimesOut {
                life,
                server,
                number,
            } if self.is_awaited(life, server, number) => {
                if self.is_given_up(server) {
                    return self.post_done(server);
                }
                self.post_sends(server, None);
            }
            _ => {}
        }
    }

    fn is_awaited(&self, life: u32, server: usize, number: u64) -> bool {
        let post = &self.job.posts[server];
        self.is_life(life) && post.is_busy && post.number == number
    }

    /// A fence that nobody wants any more.
    fn is_given_up(&self, server: usize) -> bool {
        match self.job.posts[server].orders.front() {
            Some(Order::Raise { marker, .. }) => self.job.wanted != Some(*marker),
            _ => false,
        }
    }

    fn post_reaches(
        &mut self,
        (life, server, number): (u32, usize, u64),
        order: Order,
        watched: Option<u64>,
    ) {
        // Who dials ends older connections of its post first, so that what was sent on
        // them arrives before or never.
        let is_ended = life != self.job.life || number < self.job.posts[server].number;
        let is_dialled = self.job.posts[server].number > 0 && is_ended;
        let lingers = match order {
            Order::Raise { .. } => [Mistake::OldPostsLinger, Mistake::FenceNotWatched],
            _ => [Mistake::OldPostsLinger; 2],
        };
        if is_dialled && !lingers.contains(&self.mistake) {
            return;
        }
        let is_watched = self.mistake != Mistake::FenceNotWatched;
        let at = &mut self.servers[server];
        let answer = match order {
            Order::Raise { .. } if watched.is_none() => PostAnswer::Watched(at.fence_version),
            Order::Raise { epoch, marker } => {
                match at.raise(epoch, marker, watched.filter(|_| is_watched)) {
                    true => PostAnswer::Done,
                    false => PostAnswer::Nothing,
                }
            }
            Order::Lower { epoch } => {
                at.lower(epoch);
                PostAnswer::Done
            }
            Order::KeepRoute { epoch } => {
                let is_source = Way::to(epoch).sources().contains(&server);
                at.keep_route(epoch, is_source);
                PostAnswer::Done
            }
        };
        if self.is_lost() {
            return;
        }
        let at = self.now + self.step_delay();
        let event = Event::PostAnswered {
            life,
            server,
            number,
            answer,
        };
        self.queue.put(at, event);
    }

    fn post_answered(&mut self, server: usize, answer: PostAnswer) {
        let given_up = self.is_given_up(server);
        match (answer, self.job.posts[server].orders.front().copied()) {
            (PostAnswer::Watched(version), _) if !given_up => {
                self.post_sends(server, Some(version));
            }
            (PostAnswer::Nothing, Some(Order::Raise { .. })) if !given_up => {
                self.post_done(server);
                let is_awaited = matches!(self.job.machine, Some(Cutover::Fencing(_)));
                if is_awaited {
                    self.tell(Told::FenceFailed("the fence key was changed".into()));
                }
            }
            (PostAnswer::Done, Some(order)) => {
                self.post_done(server);
                self.order_done(server, order);
            }
            _ => self.post_done(server),
        }
    }

    fn post_done(&mut self, server: usize) {
        self.job.posts[server].orders.pop_front();
        self.job.posts[server].is_busy = false;
        self.post_next(server);
    }

    fn order_done(&mut self, server: usize, order: Order) {
        let told = match (order, &self.job.machine) {
            (Order::Raise { marker, .. }, Some(Cutover::Fencing(_)))
                if self.job.wanted == Some(marker) =>
            {
                Told::Fenced
            }
            (Order::Lower { .. }, Some(Cutover::Unfencing { .. })) => Told::Unfenced,
            (Order::KeepRoute { .. }, Some(Cutover::Publishing(_))) => {
                return self.tell(Told::RouteKept);
            }
            _ => return,
        };
        self.job.done_at.insert(server);
        if self.job.done_at.len() == SOURCES {
            self.tell(told);
            self.look_at_markers();
        }
    }
}
