//! One target's connection: batches out, replies in, what they mean.
//!
//! ```text
//! queue -> parked (waits for its database) -> flights (sent, not answered)
//!             SELECT is sent when nothing is under way, and awaited alone
//! ```
//!
//! A key that takes several requests is judged when the last of them is
//! answered. If some were refused and it got its name all the same, it is
//! there in part, and a DEL follows.
//!
//! A lane that is told to stop, or finds a reason to, takes no more batches but
//! waits for what is under way, and removes a value whose parts stopped coming:
//! temporary names are gone then.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use crate::rdb::Lost;
use crate::resp::{ReplyScanner, write_command};
use crate::restore::{Reply, Verdict};
use crate::router::address::ShardAddress;
use crate::upstream::Session;
use crate::upstream::socket::{ReadHalf, WriteHalf};

use super::batch::{Batch, Op, What};
use super::error::{LoadError, is_about_server};
use super::tally::{NotLoaded, Tally, shown};
use super::{OnConflict, TARGET_SILENCE_S_MAX};

const READ_BYTES: usize = 64 * 1024;
const SILENCE_MAX: Duration = Duration::from_secs(TARGET_SILENCE_S_MAX);

pub(super) struct Lane {
    target: ShardAddress,
    reader: ReadHalf,
    writer: WriteHalf,
    inbox: BytesMut,
    scanner: ReplyScanner,
    outbox: VecDeque<Bytes>,
    flights: VecDeque<Flight>,
    parked: Option<Batch>,
    /// The connection's database once a SELECT was answered.
    db: u32,
    on_conflict: OnConflict,
    tally: Arc<Tally>,
    /// The first refusal among the parts of the value at hand.
    part_refused: Option<String>,
    /// Temporary name of a value some of whose parts are there.
    unfinished: Option<Bytes>,
    /// Why nothing more is taken.
    ended: Option<LoadError>,
}

/// A batch that was sent.
struct Flight {
    replies: std::vec::IntoIter<Reply>,
    ops: std::vec::IntoIter<Op>,
    names: Vec<u8>,
    db: u32,
    current: Option<Judged>,
    _share: Option<OwnedSemaphorePermit>,
}

/// An op some of whose replies have come.
struct Judged {
    what: What,
    requests: usize,
    left: usize,
    /// The first refusal.
    refused: Option<String>,
    exists: bool,
    /// Its temporary name was not there to be renamed.
    unnamed: bool,
    lost: Lost,
}

enum Wake {
    Read(std::io::Result<usize>),
    Wrote(std::io::Result<usize>),
    Batch(Option<Batch>),
    Silence,
    Stop,
}

impl Lane {
    pub(super) fn new(
        target: ShardAddress,
        session: Session,
        on_conflict: OnConflict,
        tally: Arc<Tally>,
    ) -> Lane {
        let (reader, writer) = session.split();
        let (reader, inbox) = reader.into_raw();
        Lane {
            target,
            reader,
            writer: writer.into_raw(),
            inbox,
            scanner: ReplyScanner::new(),
            outbox: VecDeque::new(),
            flights: VecDeque::new(),
            parked: None,
            db: 0,
            on_conflict,
            tally,
            part_refused: None,
            unfinished: None,
            ended: None,
        }
    }

    /// Carries batches until there are no more, or `stop` is true, and all are answered.
    pub(super) async fn run(
        mut self,
        mut queue: mpsc::Receiver<Batch>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), LoadError> {
        let mut open = true;
        loop {
            if !open && self.flights.is_empty() && self.parked.is_none() {
                // The rest of it will not come.
                match self.unfinished.take() {
                    Some(temporary) => self.request(&[b"DEL", &temporary], What::Removal),
                    None => break,
                }
            }
            let takes = open && self.parked.is_none();
            let owed = !self.flights.is_empty();
            let Lane {
                reader,
                writer,
                inbox,
                outbox,
                ..
            } = &mut self;
            let out = outbox.front().map_or(&[][..], |bytes| &bytes[..]);
            inbox.reserve(READ_BYTES);
            let wake = tokio::select! {
                read = reader.read_buf(inbox) => Wake::Read(read),
                wrote = writer.write(out), if !out.is_empty() => Wake::Wrote(wrote),
                batch = queue.recv(), if takes => Wake::Batch(batch),
                () = tokio::time::sleep(SILENCE_MAX), if owed => Wake::Silence,
                _ = stop.wait_for(|stop| *stop), if open => Wake::Stop,
            };
            match wake {
                Wake::Read(read) => self.on_read(read)?,
                Wake::Wrote(wrote) => self.on_wrote(wrote)?,
                Wake::Batch(Some(batch)) => self.park(batch),
                Wake::Batch(None) | Wake::Stop => open = false,
                Wake::Silence => {
                    return Err(self.lost(format!("no reply for {TARGET_SILENCE_S_MAX} s")));
                }
            }
            if self.ended.is_some() || *stop.borrow() {
                open = false;
                self.parked = None;
                // Their shares of the budget go with them, and the feeder stops.
                queue.close();
                while queue.try_recv().is_ok() {}
            }
        }
        self.ended.map_or(Ok(()), Err)
    }

    fn park(&mut self, batch: Batch) {
        self.parked = Some(batch);
        self.unpark();
    }

    /// Sends the parked batch, or the SELECT that it needs, if that is possible now.
    fn unpark(&mut self) {
        let Some(batch) = &self.parked else { return };
        match batch.db.filter(|db| *db != self.db) {
            None => {
                if let Some(batch) = self.parked.take() {
                    self.send(batch);
                }
            }
            Some(db) if self.flights.is_empty() => {
                self.request(&[b"SELECT", db.to_string().as_bytes()], What::Select(db));
            }
            Some(_) => {}
        }
    }

    /// Sends a request of our own.
    fn request(&mut self, args: &[&[u8]], what: What) {
        let mut batch = Batch::default();
        write_command(&mut batch.bytes, args);
        batch.replies.push(Reply::Accepted);
        batch.add(0, what);
        self.send(batch);
    }

    fn send(&mut self, batch: Batch) {
        self.outbox.push_back(batch.bytes.into());
        self.flights.push_back(Flight {
            replies: batch.replies.into_iter(),
            ops: batch.ops.into_iter(),
            names: batch.names,
            db: batch.db.unwrap_or(self.db),
            current: None,
            _share: batch.share,
        });
    }

    fn on_wrote(&mut self, wrote: std::io::Result<usize>) -> Result<(), LoadError> {
        let wrote = wrote.map_err(|error| self.lost(error.to_string()))?;
        if wrote == 0 {
            return Err(self.lost("it takes no more bytes".to_owned()));
        }
        if let Some(front) = self.outbox.front_mut() {
            front.advance(wrote.min(front.len()));
            if front.is_empty() {
                self.outbox.pop_front();
            }
        }
        Ok(())
    }

    fn on_read(&mut self, read: std::io::Result<usize>) -> Result<(), LoadError> {
        let read = read.map_err(|error| self.lost(error.to_string()))?;
        if read == 0 {
            return Err(self.lost("the target closed the connection".to_owned()));
        }
        loop {
            let scanned = self.scanner.scan(&self.inbox);
            let reply = scanned.map_err(|error| self.lost(format!("not a reply: {error}")))?;
            let Some(reply) = reply else { return Ok(()) };
            let bytes = self.inbox.split_to(reply.len);
            self.on_reply(&bytes)?;
        }
    }

    /// One whole reply: it answers the oldest request.
    fn on_reply(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        let Some(flight) = self.flights.front_mut() else {
            return Err(self.lost("a reply that nothing asked for".to_owned()));
        };
        let (Some(reply), Some(judged)) = (flight.replies.next(), flight.current()) else {
            return Err(self.lost("a reply that nothing asked for".to_owned()));
        };
        match reply.judge(bytes) {
            Verdict::Done => {}
            Verdict::DoneBut(loss) => judged.lost.add(loss),
            Verdict::Exists => judged.exists = true,
            Verdict::Refused => {
                let text = error_text(bytes);
                judged.unnamed |= text.contains("no such key");
                judged.refused.get_or_insert(text);
            }
        }
        judged.left = judged.left.saturating_sub(1);
        if judged.left > 0 {
            return Ok(());
        }
        let Some(judged) = flight.current.take() else {
            return Ok(());
        };
        let db = flight.db;
        let name = match judged.what {
            What::Key { start, end, .. } => {
                let name = flight.names.get(start..end);
                Bytes::copy_from_slice(name.unwrap_or_default())
            }
            _ => Bytes::new(),
        };
        if flight.ops.len() == 0 {
            self.flights.pop_front();
        }
        if let Err(error) = self.settle(judged, db, &name) {
            self.ended.get_or_insert(error);
        } else if self.ended.is_none() {
            self.unpark();
        }
        Ok(())
    }

    /// All requests of an op are answered.
    fn settle(&mut self, mut judged: Judged, db: u32, name: &[u8]) -> Result<(), LoadError> {
        match &judged.what {
            What::Part(temporary) => self.unfinished = Some(temporary.clone()),
            What::Key { .. } | What::Abandoned => self.unfinished = None,
            _ => {}
        }
        if matches!(judged.what, What::Key { .. } | What::Abandoned)
            && let Some(refused) = self.part_refused.take()
        {
            judged.requests += 1;
            judged.refused.get_or_insert(refused);
        }
        if matches!(judged.what, What::Abandoned) {
            // Why it cannot be whole was told already.
            return Ok(());
        }
        if let Some(reply) = &judged.refused {
            return self.refused(&judged, reply, db, name);
        }
        match judged.what {
            What::Select(db) => self.db = db,
            What::Library(_) => self.tally.rare().libraries += 1,
            What::Script => self.tally.rare().scripts += 1,
            What::Removal | What::Part(_) | What::Abandoned => {}
            What::Key { .. } if judged.exists => {
                if self.on_conflict == OnConflict::Fail {
                    return Err(LoadError::Exists {
                        target: self.target.clone(),
                        db,
                        key: shown(name),
                    });
                }
                self.tally.rare().existing += 1;
            }
            What::Key { .. } => {
                self.tally.loaded();
                if !judged.lost.is_empty() {
                    self.tally.lost(name, judged.lost);
                }
            }
        }
        Ok(())
    }

    fn refused(
        &mut self,
        judged: &Judged,
        reply: &str,
        db: u32,
        name: &[u8],
    ) -> Result<(), LoadError> {
        if let What::Select(db) = judged.what {
            return Err(LoadError::NoDatabase {
                target: self.target.clone(),
                db,
                reply: reply.to_owned(),
            });
        }
        let (what, name_shown) = match &judged.what {
            What::Library(name) => ("function library", name.clone()),
            What::Script => ("script", String::new()),
            _ => ("key", shown(name)),
        };
        if is_about_server(reply) || matches!(judged.what, What::Removal) {
            return Err(LoadError::TargetRefuses {
                target: self.target.clone(),
                what: format!("{what} `{name_shown}`"),
                reply: reply.to_owned(),
            });
        }
        if matches!(judged.what, What::Part(_)) {
            self.part_refused.get_or_insert_with(|| reply.to_owned());
            return Ok(());
        }
        if judged.requests > 1 && !judged.unnamed && !judged.exists {
            self.request(&[b"DEL", name], What::Removal);
        }
        self.tally.not_loaded(NotLoaded {
            what,
            db: matches!(judged.what, What::Key { .. }).then_some(db),
            name: name_shown,
            target: self.target.clone(),
            why: reply.to_owned(),
        });
        Ok(())
    }

    fn lost(&self, what: String) -> LoadError {
        LoadError::TargetLost {
            target: self.target.clone(),
            what,
        }
    }
}

impl Flight {
    /// The op that the next reply belongs to.
    fn current(&mut self) -> Option<&mut Judged> {
        if self.current.is_none() {
            let op = self.ops.next()?;
            let lost = match op.what {
                What::Key { lost, .. } => lost,
                _ => Lost::EMPTY,
            };
            self.current = Some(Judged {
                what: op.what,
                requests: op.requests,
                left: op.requests,
                refused: None,
                exists: false,
                unnamed: false,
                lost,
            });
        }
        self.current.as_mut()
    }
}

/// The words of an error reply.
fn error_text(bytes: &[u8]) -> String {
    let text = bytes.strip_prefix(b"-").unwrap_or(bytes);
    String::from_utf8_lossy(text.strip_suffix(b"\r\n").unwrap_or(text)).into_owned()
}
