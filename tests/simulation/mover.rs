//! A model of taps and lanes: what the sources wrote is applied at the targets, in
//! batches with their checkpoints, over connections that break.

use keyferry::reshard::fence::FenceLevel;

use super::event::{Batch, Event, Key};
use super::job::{Job, Way};
use super::server::Item;
use super::world::{Mistake, SOURCES, TARGETS, World, source_of, target_of};

/// Writes of one batch, at most.
const BATCH_WRITES_MAX: usize = 3;

impl World {
    /// A new process reads on where its targets' checkpoints say; the first of the way
    /// back where the switch was.
    pub fn start_taps(&mut self) {
        for source in 0..SOURCES {
            let lanes = source * TARGETS..(source + 1) * TARGETS;
            let begin = match self.job.way {
                Way::There => 0,
                Way::Back => self.job.positions[source],
            };
            let mut lowest = usize::MAX;
            for lane in lanes {
                let (_, target) = self.ends_of(lane);
                let kept = self.servers[target].checkpoints.get(&self.key_of(lane));
                let kept = kept.copied().unwrap_or_default();
                let link = self.job.lanes[lane].link + 1;
                self.job.lanes[lane].link = link;
                self.job.lanes[lane].is_linked = true;
                self.job.lanes[lane].flights.clear();
                self.job.lanes[lane].made = kept.number;
                self.job.lanes[lane].position = kept.position.max(begin);
                self.job.lanes[lane].behind = self.now;
                lowest = lowest.min(self.job.lanes[lane].position);
            }
            self.job.taps[source].read = lowest;
            self.job.taps[source].marker = None;
            self.job.tapping += 1;
            self.job.taps[source].turn = self.job.tapping;
            let (life, turn) = (self.job.life, self.job.tapping);
            let event = Event::TapReads { life, source, turn };
            self.queue.put(self.now + 10, event);
        }
    }

    /// The servers of a lane: from which, to which.
    fn ends_of(&self, lane: usize) -> (usize, usize) {
        match self.job.way {
            Way::There => (lane / TARGETS, SOURCES + lane % TARGETS),
            Way::Back => (SOURCES + lane / TARGETS, lane % TARGETS),
        }
    }

    /// Its checkpoint's key: each way has its own.
    fn key_of(&self, lane: usize) -> usize {
        match self.job.way {
            Way::There => lane,
            Way::Back => SOURCES * TARGETS + lane,
        }
    }

    fn lane_of(&self, key: Key) -> usize {
        let (source, target) = (source_of(key), target_of(key) - SOURCES);
        match self.job.way {
            Way::There => source * TARGETS + target,
            Way::Back => target * TARGETS + source,
        }
    }

    pub fn break_all_lanes(&mut self) {
        for lane in &mut self.job.lanes {
            lane.link += 1;
            lane.flights.clear();
        }
    }

    /// Behind its marker nothing is applied any more.
    pub fn cut(&mut self) -> u64 {
        self.job.markers += 1;
        self.job.cut = Some(self.job.markers);
        for source in 0..SOURCES {
            self.job.taps[source].marker = None;
        }
        self.job.markers
    }

    pub fn publish_markers(&mut self) {
        let (life, marker) = (self.job.life, self.cut());
        for source in 0..SOURCES {
            let at = self.now + self.delay();
            let event = Event::MarkerReaches {
                life,
                source: self.ends_of(source * TARGETS).0,
                marker,
            };
            self.queue.put(at, event);
        }
        if self.mistake == Mistake::MarkerIgnored && self.job.level < FenceLevel::Acl {
            self.job.cut = None;
            self.take_positions();
            self.tell(Job::applied());
        }
    }

    pub fn uncut(&mut self) {
        if self.job.cut.take().is_none() {
            return;
        }
        for source in 0..SOURCES {
            self.job.taps[source].marker = None;
        }
    }

    pub fn mover_happens(&mut self, event: Event) {
        match event {
            Event::MarkerReaches { source, marker, .. } => {
                self.servers[source].stream.push(Item::Marker(marker));
            }
            Event::TapReads { life, source, turn }
                if self.is_life(life) && self.job.taps[source].turn == turn =>
            {
                self.tap_reads(source);
            }
            Event::BatchReaches { lane, link, batch } if self.is_link(lane, link) => {
                self.batch_reaches(lane, link, &batch);
            }
            Event::CheckpointReaches {
                lane,
                link,
                number,
                position,
            } if self.is_link(lane, link) => {
                let (target, key) = (self.ends_of(lane).1, self.key_of(lane));
                self.servers[target].keep(key, number, position);
            }
            Event::BatchAnswered { lane, link, number } if self.is_link(lane, link) => {
                let flights = &mut self.job.lanes[lane].flights;
                flights.retain(|batch| batch.number > number);
                self.look_at_markers();
            }
            Event::LaneBreaks { lane } if self.job.is_up => {
                self.job.lanes[lane].link += 1;
                self.job.lanes[lane].is_linked = false;
                let link = self.job.lanes[lane].link;
                let at = self.now + self.rng.u64(500..20_000);
                self.queue.put(at, Event::LaneComesBack { lane, link });
            }
            Event::LaneComesBack { lane, link } if self.is_link(lane, link) => {
                self.lane_comes_back(lane);
            }
            _ => {}
        }
    }

    fn is_link(&self, lane: usize, link: u32) -> bool {
        self.job.is_up && self.job.lanes[lane].link == link
    }

    fn tap_reads(&mut self, source: usize) {
        let mut budget = self.rng.usize(1..12);
        let server = self.ends_of(source * TARGETS).0;
        let mut batches: Vec<Batch> = Vec::new();
        let base = source * TARGETS;
        for lane in base..base + TARGETS {
            batches.push(empty_batch(self.job.lanes[lane].made + 1));
        }
        while budget > 0 && self.job.taps[source].marker.is_none() {
            let at = self.job.taps[source].read;
            let Some(item) = self.servers[server].stream.get(at).copied() else {
                break;
            };
            budget -= 1;
            self.job.taps[source].read = at + 1;
            if let Item::Marker(marker) = item
                && self.job.cut == Some(marker)
            {
                self.job.taps[source].marker = Some((marker, at + 1));
            }
            let Item::Write(key, op) = item else {
                continue;
            };
            let lane = self.lane_of(key);
            // Its target has it already: another lane was further behind.
            if at < self.job.lanes[lane].position {
                continue;
            }
            let batch = &mut batches[lane - base];
            batch.writes.push((key, op));
            batch.position = at + 1;
            if batch.writes.len() == BATCH_WRITES_MAX {
                let next = empty_batch(batch.number + 1);
                let full = std::mem::replace(batch, next);
                self.send_batch(lane, full);
            }
        }
        for (at, batch) in batches.into_iter().enumerate() {
            if !batch.writes.is_empty() {
                self.send_batch(base + at, batch);
            }
        }
        self.look_at_markers();
        let again = self.now + self.rng.u64(200..1_500);
        // A job that has ended lets go of its sources.
        if self.job.journal != super::job::Journaled::Ended {
            let (life, turn) = (self.job.life, self.job.taps[source].turn);
            let event = Event::TapReads { life, source, turn };
            self.queue.put(again, event);
        }
    }

    fn send_batch(&mut self, lane: usize, batch: Batch) {
        self.job.lanes[lane].made = batch.number;
        self.job.lanes[lane].flights.push_back(batch.clone());
        if self.job.lanes[lane].is_linked {
            self.put_batch(lane, batch);
        }
    }

    fn put_batch(&mut self, lane: usize, batch: Batch) {
        let delay = self.delay();
        let link = self.job.lanes[lane].link;
        let mut at = (self.now + delay).max(self.job.lanes[lane].behind);
        if self.mistake == Mistake::LanesReordered {
            at = self.now + delay;
        }
        self.job.lanes[lane].behind = at;
        self.queue
            .put(at, Event::BatchReaches { lane, link, batch });
    }

    fn batch_reaches(&mut self, lane: usize, link: u32, batch: &Batch) {
        let with_checkpoint = self.mistake != Mistake::CheckpointOutsideMulti;
        let (target, key) = (self.ends_of(lane).1, self.key_of(lane));
        self.servers[target].apply(key, batch, with_checkpoint);
        let (number, position) = (batch.number, batch.position);
        if !with_checkpoint {
            let event = Event::CheckpointReaches {
                lane,
                link,
                number,
                position,
            };
            self.queue.put(self.now + 300, event);
        }
        let at = self.now + self.delay();
        self.queue
            .put(at, Event::BatchAnswered { lane, link, number });
    }

    /// The checkpoint decides what of the batches under way was applied.
    fn lane_comes_back(&mut self, lane: usize) {
        let (_, target) = self.ends_of(lane);
        let kept = self.servers[target].checkpoints.get(&self.key_of(lane));
        let kept = kept.copied().unwrap_or_default();
        let flights = &mut self.job.lanes[lane].flights;
        if self.mistake != Mistake::BatchAppliedTwice {
            flights.retain(|batch| batch.number > kept.number);
        }
        self.job.lanes[lane].is_linked = true;
        let flights = &self.job.lanes[lane].flights;
        let again: Vec<Batch> = flights.iter().cloned().collect();
        self.job.lanes[lane].behind = self.now;
        for batch in again {
            self.put_batch(lane, batch);
        }
        self.look_at_markers();
    }

    /// Once every source has shown the marker and every lane is through.
    pub fn look_at_markers(&mut self) {
        let Some(cut) = self.job.cut else { return };
        let shown = |tap: &super::job::Tap| tap.marker.is_some_and(|(marker, _)| marker == cut);
        let is_through = self.job.taps.iter().all(shown)
            && self.job.lanes.iter().all(|lane| lane.flights.is_empty());
        let is_marking = matches!(
            self.job.machine,
            Some(keyferry::reshard::cutover::Cutover::Marking(_))
        );
        if is_through && is_marking {
            self.take_positions();
            self.tell(Job::applied());
        }
    }
}

/// A batch of nothing yet.
fn empty_batch(number: u64) -> Batch {
    Batch {
        number,
        writes: Vec::new(),
        position: 0,
    }
}
