//! What a command did, as the log and replicas are told.
//!
//! ```text
//! handler --> Unit (this command's effects) --> Effects (the turn's frame)
//! ```
//! A command that changed something is told as it came, unless it names other effects
//! itself (SPOP: SREM). A unit of several effects is wrapped in MULTI and EXEC, so that
//! nobody sees a part. A SELECT stands before the first effect in another database.

use std::ops::Range;

use crate::resp::write_command;

/// Effects of one command, or of one EXEC.
#[derive(Debug, Default)]
pub struct Unit {
    effects: Vec<Effect>,
    is_named: bool,
    /// Where the effects of the command that runs now begin.
    begin: usize,
    /// Where the request of the command that it was made for is.
    made_for: Option<Range<*const u8>>,
    /// Its only effect is that request, in this database.
    as_it_came: Option<usize>,
}

#[derive(Debug)]
struct Effect {
    db: usize,
    request: Vec<u8>,
}

impl Unit {
    /// By who has the request at hand: it need not be copied, see [`Effects::push_of`].
    pub fn of(request: &[u8]) -> Self {
        Self {
            made_for: Some(request.as_ptr_range()),
            ..Self::default()
        }
    }

    /// A command is told as it came.
    pub fn add_as_it_came(&mut self, db: usize, request: &[u8]) {
        let is_its_own = self.made_for == Some(request.as_ptr_range());
        match is_its_own && self.effects.is_empty() {
            true => self.as_it_came = Some(db),
            false => self.add_request(db, request.to_vec()),
        }
    }

    /// Names an effect: the command itself is not told then.
    pub fn name(&mut self, db: usize, words: &[&[u8]]) {
        self.is_named = true;
        self.add(db, words);
    }

    /// The command is told by what was named, or not at all.
    pub fn name_nothing(&mut self) {
        self.is_named = true;
    }

    /// Whether the command named its effects.
    pub fn is_named(&self) -> bool {
        self.is_named
    }

    /// An effect beside what the command names.
    pub fn add(&mut self, db: usize, words: &[&[u8]]) {
        let mut request = Vec::new();
        write_command(&mut request, words);
        self.add_request(db, request);
    }

    /// The same, as RESP.
    pub fn add_request(&mut self, db: usize, request: Vec<u8>) {
        self.effects.push(Effect { db, request });
    }

    /// An effect that came before the command's others: a key that had expired.
    pub fn put_first(&mut self, db: usize, words: &[&[u8]]) {
        let mut request = Vec::new();
        write_command(&mut request, words);
        self.effects.insert(self.begin, Effect { db, request });
    }

    /// The next command of the same EXEC names its own.
    pub fn begin_next(&mut self) {
        self.is_named = false;
        self.begin = self.effects.len();
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty() && self.as_it_came.is_none()
    }
}

/// Effects of a turn, as RESP.
#[derive(Debug, Default)]
pub struct Effects {
    bytes: Vec<u8>,
    selected: Option<usize>,
    /// What is done here is nobody's business: on a replica only its master's is told.
    is_muted: bool,
}

impl Effects {
    /// The next effect has a SELECT before it whatever its database is.
    pub fn forget_selected(&mut self) {
        self.selected = None;
    }

    /// The database that is selected behind the last effect.
    pub fn selected(&self) -> Option<usize> {
        self.selected
    }

    /// Says which database is selected: after the log was replayed.
    pub fn set_selected(&mut self, selected: Option<usize>) {
        self.selected = selected;
    }

    /// Says whether what is pushed is dropped.
    pub fn set_muted(&mut self, is_muted: bool) {
        self.is_muted = is_muted;
    }

    /// Adds what a master told, as it is; `selected` is selected behind it.
    pub fn push_verbatim(&mut self, requests: &[u8], selected: usize) {
        self.bytes.extend_from_slice(requests);
        self.selected = Some(selected);
    }

    /// Adds a unit that [`Unit::of`] made for this request.
    pub fn push_of(&mut self, unit: Unit, request: &[u8]) {
        match unit.as_it_came {
            None => self.push(unit),
            Some(_) if self.is_muted => {}
            Some(db) => {
                self.select(db);
                self.bytes.extend_from_slice(request);
            }
        }
    }

    fn select(&mut self, db: usize) {
        if self.selected != Some(db) {
            self.selected = Some(db);
            let db = db.to_string();
            write_command(&mut self.bytes, &[b"SELECT", db.as_bytes()]);
        }
    }

    /// Adds a unit, whole.
    pub fn push(&mut self, unit: Unit) {
        if self.is_muted {
            return;
        }
        let is_several = unit.effects.len() > 1;
        for (number, effect) in unit.effects.into_iter().enumerate() {
            self.select(effect.db);
            if is_several && number == 0 {
                write_command(&mut self.bytes, &[b"MULTI"]);
            }
            self.bytes.extend_from_slice(&effect.request);
        }
        if is_several {
            write_command(&mut self.bytes, &[b"EXEC"]);
        }
    }

    /// Adds what belongs to no database.
    pub fn push_plain(&mut self, words: &[&[u8]]) {
        if self.is_muted {
            return;
        }
        write_command(&mut self.bytes, words);
    }

    /// The turn's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The turn is over.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(effects: &Effects) -> String {
        let text = String::from_utf8_lossy(effects.bytes()).into_owned();
        let words = text
            .split("\r\n")
            .filter(|line| !line.starts_with(['*', '$']));
        words.collect::<Vec<_>>().join(" ").trim().to_owned()
    }

    #[test]
    fn units_are_whole_and_databases_are_selected_once() {
        let mut effects = Effects::default();
        let mut one = Unit::default();
        one.add(0, &[b"SET", b"a", b"1"]);
        effects.push(one);
        let mut several = Unit::default();
        several.name(0, &[b"SREM", b"s", b"m"]);
        several.put_first(0, &[b"DEL", b"k"]);
        effects.push(several);
        let mut elsewhere = Unit::default();
        elsewhere.add(3, &[b"INCR", b"n"]);
        effects.push(elsewhere);
        effects.push(Unit::default());
        let request = b"*2\r\n$4\r\nINCR\r\n$1\r\nm\r\n";
        let mut as_it_came = Unit::of(request);
        as_it_came.add_as_it_came(4, request);
        assert!(!as_it_came.is_empty());
        effects.push_of(as_it_came, request);
        let mut behind_another = Unit::of(request);
        behind_another.put_first(4, &[b"DEL", b"k"]);
        behind_another.add_as_it_came(4, request);
        effects.push_of(behind_another, request);
        assert_eq!(
            text(&effects),
            "SELECT 0 SET a 1 MULTI DEL k SREM s m EXEC SELECT 3 INCR n \
             SELECT 4 INCR m MULTI DEL k INCR m EXEC"
        );
    }
}
