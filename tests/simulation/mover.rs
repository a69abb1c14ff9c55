//! A model of taps and lanes: what the sources wrote is applied at the targets, in
//! batches with their checkpoints, over connections that break.

use super::event::{Batch, Event};
use super::job::Job;
use super::server::Item;
use super::world::{Mistake, SOURCES, TARGETS, World, lane_of};

/// Writes of one batch, at most.
const BATCH_WRITES_MAX: usize = 3;

impl World {
    /// A new process reads on where its targets' checkpoints say.
    pub fn start_taps(&mut self) {
        for source in 0..SOURCES {
            let lanes = source * TARGETS..(source + 1) * TARGETS;
            let mut lowest = usize::MAX;
            for lane in lanes {
                let target = SOURCES + lane % TARGETS;
                let kept = self.servers[target].checkpoints.get(&lane);
                let kept = kept.copied().unwrap_or_default();
                let link = self.job.lanes[lane].link + 1;
                self.job.lanes[lane].link = link;
                self.job.lanes[lane].is_linked = true;
                self.job.lanes[lane].flights.clear();
                self.job.lanes[lane].made = kept.number;
                self.job.lanes[lane].position = kept.position;
                self.job.lanes[lane].behind = self.now;
                lowest = lowest.min(kept.position);
            }
            self.job.taps[source].read = lowest;
            self.job.taps[source].marker = None;
            let life = self.job.life;
            self.queue
                .put(self.now + 10, Event::TapReads { life, source });
        }
    }

    pub fn break_all_lanes(&mut self) {
        for lane in &mut self.job.lanes {
            lane.link += 1;
            lane.flights.clear();
        }
    }

    pub fn publish_markers(&mut self) {
        self.job.markers += 1;
        let (life, marker) = (self.job.life, self.job.markers);
        self.job.cut = Some(marker);
        for source in 0..SOURCES {
            self.job.taps[source].marker = None;
            let at = self.now + self.delay();
            let event = Event::MarkerReaches {
                life,
                source,
                marker,
            };
            self.queue.put(at, event);
        }
        if self.mistake == Mistake::MarkerIgnored {
            self.job.cut = None;
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
            Event::TapReads { life, source } if self.is_life(life) => self.tap_reads(source),
            Event::BatchReaches { lane, link, batch } if self.is_link(lane, link) => {
                self.batch_reaches(lane, link, &batch);
            }
            Event::CheckpointReaches {
                lane,
                link,
                number,
                position,
            } if self.is_link(lane, link) => {
                self.servers[SOURCES + lane % TARGETS].keep(lane, number, position);
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
        let (life, mut budget) = (self.job.life, self.rng.usize(1..12));
        let mut batches: Vec<Batch> = Vec::new();
        let base = source * TARGETS;
        for lane in base..base + TARGETS {
            batches.push(empty_batch(self.job.lanes[lane].made + 1));
        }
        while budget > 0 && self.job.taps[source].marker.is_none() {
            let at = self.job.taps[source].read;
            let Some(item) = self.servers[source].stream.get(at).copied() else {
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
            let lane = lane_of(key);
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
        // A switched job lets go of its sources.
        if self.job.journal != super::job::Journaled::Switched {
            self.queue.put(again, Event::TapReads { life, source });
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
        self.servers[SOURCES + lane % TARGETS].apply(lane, batch, with_checkpoint);
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
        let target = SOURCES + lane % TARGETS;
        let kept = self.servers[target].checkpoints.get(&lane);
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
    fn look_at_markers(&mut self) {
        let Some(cut) = self.job.cut else { return };
        let shown = |tap: &super::job::Tap| tap.marker.is_some_and(|(marker, _)| marker == cut);
        let is_through = self.job.taps.iter().all(shown)
            && self.job.lanes.iter().all(|lane| lane.flights.is_empty());
        let is_marking = matches!(
            self.job.machine,
            Some(keyferry::reshard::cutover::Cutover::Marking(_))
        );
        if is_through && is_marking {
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
