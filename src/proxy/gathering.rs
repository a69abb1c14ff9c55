//! How long a turn of a worker gathers before it writes.

/// Waits of one turn; all but the first do not sleep.
const WAITS_PER_TURN_MAX: usize = 5;
/// Events after which a turn writes, so that nobody waits for long.
const EVENTS_PER_TURN_MAX: usize = 256;
/// What one turn gathered before it writes: while the worker reads, more
/// arrives, and what is written together costs fewer system calls on both sides.
#[derive(Default)]
pub(super) struct Gathering {
    waits: usize,
    events: usize,
}

impl Gathering {
    /// Whether something was read in this turn already.
    pub(super) fn is_begun(&self) -> bool {
        self.waits > 0
    }

    /// Whether to look for more events before writing; `events` came just now.
    pub(super) fn goes_on(&mut self, events: usize) -> bool {
        self.waits += 1;
        self.events += events;
        // With one client there is nothing to gather, and looking costs a call.
        let enough = if self.waits == 1 { 2 } else { 1 };
        let goes_on = events >= enough
            && self.waits < WAITS_PER_TURN_MAX
            && self.events < EVENTS_PER_TURN_MAX;
        if !goes_on {
            *self = Self::default();
        }
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_gathers_only_while_more_comes_and_within_bounds() {
        let turn = |waits: &[usize]| {
            let mut gathered = Gathering::default();
            waits
                .iter()
                .map(|&events| gathered.goes_on(events))
                .collect::<Vec<_>>()
        };
        assert_eq!(turn(&[1, 1]), [false, false]);
        assert_eq!(turn(&[2, 1, 0, 2]), [true, true, false, true]);
        assert_eq!(turn(&[2, 2, 2, 2, 2]), [true, true, true, true, false]);
        assert_eq!(turn(&[200, 56, 0]), [true, false, false]);
    }
}
