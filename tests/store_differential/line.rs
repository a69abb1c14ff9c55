//! One command of a sequence, and how it is written in a report.

use std::fmt;

/// How much of a word a report shows.
const SHOWN_WORD_BYTES: usize = 80;

/// How many words of a command a report shows.
const SHOWN_WORDS: usize = 24;

/// Which connection of a side sends a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The one that sends nearly everything.
    First,
    /// Another client, for WATCH.
    Second,
}

/// One command.
#[derive(Clone)]
pub struct Line {
    /// Its words, the name first.
    pub words: Vec<Vec<u8>>,
    /// Who sends it.
    pub who: Who,
    /// What must come right behind it.
    next: Option<Box<Line>>,
}

/// Lines that are kept or dropped together.
pub type Unit = Vec<Line>;

/// A line of one or more words parted by blanks.
pub fn line(words: &str) -> Line {
    Line {
        words: words.split(' ').map(|word| word.into()).collect(),
        who: Who::First,
        next: None,
    }
}

impl Line {
    /// A command of this name, whatever is in it.
    pub fn named(name: &str) -> Line {
        Line {
            words: vec![name.into()],
            who: Who::First,
            next: None,
        }
    }

    /// With one more word.
    pub fn word(mut self, word: impl AsRef<[u8]>) -> Line {
        self.words.push(word.as_ref().to_vec());
        self
    }

    /// With a number as one more word.
    pub fn number(self, number: i64) -> Line {
        self.word(number.to_string())
    }

    /// With more words.
    pub fn words<W: AsRef<[u8]>>(self, words: impl IntoIterator<Item = W>) -> Line {
        words.into_iter().fold(self, Line::word)
    }

    /// With another line right behind it.
    pub fn then(mut self, next: Line) -> Line {
        self.next = Some(Box::new(match self.next.take() {
            Some(between) => between.then(next),
            None => next,
        }));
        self
    }

    /// Sent by the other client.
    pub fn by_second(mut self) -> Line {
        self.who = Who::Second;
        self
    }

    /// This line and all that follow it.
    pub fn into_unit(self) -> Unit {
        let mut unit = Vec::new();
        let mut next = Some(Box::new(self));
        while let Some(mut line) = next {
            next = line.next.take();
            unit.push(*line);
        }
        unit
    }

    /// The command's name in capitals.
    pub fn name(&self) -> String {
        upper(self.words.first())
    }

    /// The name under which it is counted: a container's with its subcommand.
    pub fn counted_as(&self) -> String {
        let name = self.name();
        if super::table::is_container(&name) && self.words.len() > 1 {
            format!("{name}|{}", upper(self.words.get(1)))
        } else {
            name
        }
    }
}

/// A word in capitals; nothing when there is none.
pub fn upper(word: Option<&Vec<u8>>) -> String {
    let word = word.map(Vec::as_slice).unwrap_or_default();
    String::from_utf8_lossy(word).to_uppercase()
}

impl fmt::Display for Line {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.who == Who::Second {
            out.write_str("(second client) ")?;
        }
        for (at, word) in self.words.iter().take(SHOWN_WORDS).enumerate() {
            let gap = if at == 0 { "" } else { " " };
            write!(out, "{gap}{}", shown(word))?;
        }
        if self.words.len() > SHOWN_WORDS {
            write!(out, " ... ({} words)", self.words.len())?;
        }
        Ok(())
    }
}

/// A word as `redis-cli` takes it.
pub fn shown(word: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'\\');
    if !word.is_empty() && word.len() <= SHOWN_WORD_BYTES && word.iter().all(plain) {
        return String::from_utf8_lossy(word).into_owned();
    }
    let cut = &word[..word.len().min(SHOWN_WORD_BYTES)];
    let rest = word.len() - cut.len();
    let tail = match rest {
        0 => String::new(),
        rest => format!("...(and {rest} bytes)"),
    };
    format!("\"{}\"{tail}", cut.escape_ascii())
}
