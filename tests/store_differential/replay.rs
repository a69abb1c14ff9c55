//! Sends a sequence to both sides and compares all that they say, then what they hold.
//!
//! ```text
//!   units --> lines --> pipeline of up to BATCH_LINES --> both sides --> judge
//!                `----> alone: drawn, scanned, directed (they need replies to go on)
//! ```
//!
//! The reference is also asked for the encoding of keys whose order of elements
//! depends on it, right before the command that shows it.

use super::digest::Holding;
use super::judge::{How, how, judge};
use super::line::{Line, Unit, Who};
use super::reply::{self, Raw};
use super::sides::{Broken, Protocol, Side};
use super::tally::Tally;
use super::{digest, directions, drawn, lexical, scanned};
use crate::support::client::encode;

/// Commands sent before replies are read, and their bytes.
const BATCH_LINES: usize = 200;
const BATCH_BYTES: usize = 48 * 1024;

/// Both servers.
pub struct Pair {
    /// Who is right.
    pub reference: Side,
    /// Who is tested.
    pub other: Side,
    /// How it is seen whether they hold the same.
    pub holding: Holding,
}

/// Where they differ.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The last unit that was needed; none if it shows at the end only.
    pub unit: Option<usize>,
    /// The command, or what was compared.
    pub of: String,
    /// What each said.
    pub reference: String,
    /// What each said.
    pub other: String,
    /// What is wrong about it.
    pub why: String,
}

/// What two replies were found to be.
pub type Verdict = Result<(), Clash>;

/// Two replies that do not agree.
pub struct Clash {
    /// What each said.
    pub reference: String,
    /// What each said.
    pub other: String,
    /// What is wrong about it.
    pub why: String,
}

impl Clash {
    /// Of two replies.
    pub fn of(reference: &[u8], other: &[u8], why: impl Into<String>) -> Clash {
        Clash {
            reference: reply::shown(reference),
            other: reply::shown(other),
            why: why.into(),
        }
    }
}

/// One side gives no reply any more.
impl From<Broken> for Clash {
    fn from(why: Broken) -> Clash {
        Clash {
            reference: String::new(),
            other: String::new(),
            why,
        }
    }
}

/// A line that waits for its replies.
struct Waiting<'l> {
    unit: usize,
    line: &'l Line,
    how: How,
}

/// What a client is doing.
#[derive(Default)]
struct Transaction {
    /// How the queued commands' replies are compared.
    queued: Option<Vec<How>>,
}

struct Replay<'p> {
    pair: &'p mut Pair,
    tally: &'p mut Tally,
    transactions: [Transaction; 2],
}

impl Pair {
    /// From empty servers on, all of `units`; then the servers hold the same.
    pub fn replay(
        &mut self,
        protocol: Protocol,
        units: &[Unit],
        tally: &mut Tally,
    ) -> Option<Difference> {
        let begun = [&mut self.reference, &mut self.other].map(|side| {
            side.afresh(protocol)
                .map_err(|why| format!("{}: {why}", side.name))
        });
        if let Some(why) = begun.into_iter().find_map(Result::err) {
            return Some(Difference::at_end(Clash::from(why), "the start"));
        }
        let mut replay = Replay {
            pair: self,
            tally,
            transactions: Default::default(),
        };
        if let Err(difference) = replay.all(units) {
            return Some(*difference);
        }
        let found = digest::compare(self);
        found
            .err()
            .map(|clash| Difference::at_end(clash, "what they hold at the end"))
    }
}

impl Difference {
    fn at(unit: usize, line: &Line, clash: Clash) -> Box<Difference> {
        Box::new(Difference {
            unit: Some(unit),
            ..Difference::at_end(clash, &line.to_string())
        })
    }

    fn at_end(clash: Clash, of: &str) -> Difference {
        Difference {
            unit: None,
            of: of.to_owned(),
            reference: clash.reference,
            other: clash.other,
            why: clash.why,
        }
    }
}

impl Replay<'_> {
    fn all(&mut self, units: &[Unit]) -> Result<(), Box<Difference>> {
        let mut waiting: Vec<Waiting> = Vec::new();
        let mut bytes = 0;
        let lines = units.iter().enumerate();
        for (unit, line) in
            lines.flat_map(|(unit, lines)| lines.iter().map(move |line| (unit, line)))
        {
            let how = how(line);
            let is_alone = how.is_alone() || directions::is_direction(line);
            let turns = waiting.last().is_some_and(|last| last.line.who != line.who);
            if is_alone || turns || waiting.len() >= BATCH_LINES || bytes >= BATCH_BYTES {
                self.exchange(&waiting)?;
                waiting.clear();
                bytes = 0;
            }
            let in_transaction = self.transaction(line.who).queued.is_some();
            if is_alone && !in_transaction {
                let done = self.alone(line, how);
                done.map_err(|clash| Difference::at(unit, line, clash))?;
                continue;
            }
            bytes += line.words.iter().map(Vec::len).sum::<usize>();
            waiting.push(Waiting { unit, line, how });
        }
        self.exchange(&waiting)
    }

    fn transaction(&mut self, who: Who) -> &mut Transaction {
        match who {
            Who::First => &mut self.transactions[0],
            Who::Second => &mut self.transactions[1],
        }
    }

    fn alone(&mut self, line: &Line, how: How) -> Verdict {
        let said = match how {
            How::Drawn => drawn::compare(self.pair, line)?,
            How::Scanned => scanned::compare(self.pair, line)?,
            How::Lexical => match lexical::compare(self.pair, line)? {
                Some(said) => said,
                None => return Ok(()),
            },
            _ => directions::follow(self.pair, line)?,
        };
        self.tally.count(line, &said);
        Ok(())
    }

    /// A pipeline; all its lines are of one client.
    fn exchange(&mut self, waiting: &[Waiting]) -> Result<(), Box<Difference>> {
        let Some(first) = waiting.first() else {
            return Ok(());
        };
        let who = first.line.who;
        let (mut to_reference, mut to_other) = (Vec::new(), Vec::new());
        let mut in_transaction = self.transaction(who).queued.is_some();
        let mut probes = Vec::with_capacity(waiting.len());
        for Waiting { line, how, .. } in waiting {
            match line.name().as_str() {
                "MULTI" => in_transaction = true,
                "EXEC" | "DISCARD" | "RESET" => in_transaction = false,
                _ => {}
            }
            let key = line
                .words
                .get(1)
                .filter(|_| how.needs_encoding() && !in_transaction);
            if let Some(key) = key {
                encode(&mut to_reference, &[b"OBJECT", b"ENCODING".as_slice(), key]);
            }
            probes.push(key.is_some());
            encode(&mut to_reference, &line.words);
            encode(&mut to_other, &line.words);
        }
        let sent = [
            self.pair.reference.send(who, &to_reference),
            self.pair.other.send(who, &to_other),
        ];
        let last = &waiting[waiting.len() - 1];
        for sent in sent {
            sent.map_err(|why| Difference::at(last.unit, last.line, why.into()))?;
        }
        let mut lines = waiting.iter().zip(probes);
        while let Some((Waiting { unit, line, how }, probed)) = lines.next() {
            if let Err(clash) = self.read_and_judge(line, *how, probed) {
                // What is still on its way would be carried out after the servers were
                // emptied for the next replay.
                lines.for_each(|(_, probed)| self.read_unjudged(who, probed));
                return Err(Difference::at(*unit, line, clash));
            }
        }
        Ok(())
    }

    fn read_unjudged(&mut self, who: Who, probed: bool) {
        for _ in 0..=u32::from(probed) {
            let _ = self.pair.reference.read(who);
        }
        let _ = self.pair.other.read(who);
    }

    fn read_and_judge(&mut self, line: &Line, how: How, probed: bool) -> Verdict {
        let who = line.who;
        let encoding = probed.then(|| self.pair.reference.read(who)).transpose()?;
        let is_table = encoding.map(|raw| reply::text(&raw) == Some(b"hashtable"));
        let wanted = self
            .pair
            .reference
            .read(who)
            .map_err(|why| format!("reference: {why}"))?;
        let found = self.pair.other.read(who).map_err(|why| Clash {
            reference: reply::shown(&wanted),
            other: why,
            why: "one side gives no reply".into(),
        })?;
        self.tally.count(line, &wanted);
        let hows = self.follow(line, how, &wanted);
        if wanted == found {
            return Ok(());
        }
        let why = match hows {
            Some(hows) => judge_all(&hows, &wanted, &found),
            None => judge(how, is_table, &wanted, &found),
        };
        why.map_or(Ok(()), |why| Err(Clash::of(&wanted, &found, why)))
    }

    /// Keeps what is queued; at EXEC gives how its replies are compared.
    fn follow(&mut self, line: &Line, how: How, wanted: &Raw) -> Option<Vec<How>> {
        let transaction = self.transaction(line.who);
        let name = line.name();
        match name.as_str() {
            "MULTI" if wanted == b"+OK\r\n" => transaction.queued = Some(Vec::new()),
            "DISCARD" | "RESET" if !reply::is_error(wanted) => transaction.queued = None,
            // With a wrong number of arguments, which is -ERR, it goes on.
            "EXEC" if !wanted.starts_with(b"-ERR") => return transaction.queued.take(),
            _ if wanted == b"+QUEUED\r\n" => {
                if let Some(queued) = &mut transaction.queued {
                    queued.push(how);
                }
            }
            _ => {}
        }
        None
    }
}

/// Of EXEC's replies, each by its own measure.
fn judge_all(hows: &[How], wanted: &[u8], found: &[u8]) -> Option<String> {
    let (parts, others) = (reply::elements(wanted), reply::elements(found));
    if parts.len() != hows.len() || parts.len() != others.len() {
        return Some("EXEC's replies are not as many".into());
    }
    let pairs = parts.iter().zip(others).enumerate();
    pairs.zip(hows).find_map(|((at, (wanted, found)), how)| {
        let why = judge(*how, None, wanted, found)?;
        Some(format!("reply {} of EXEC: {why}", at + 1))
    })
}
