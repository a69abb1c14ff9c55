//! What one replica is given, from its request to its end.
//!
//! ```text
//! Continue  +CONTINUE ---------------------------------------------------.
//! Full      +FULLRESYNC -> snapshot is taken -> $EOF: snapshot, mark -> first ACK -> stream
//!             (SYNC: none)   newlines           $len: file, snapshot -------------'
//! ```
//! Invariant: between the snapshot, or the answer, and the stream nothing else is sent.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::time::{Duration, Instant};

use super::link::{Link, LinkEnd, TICK};
use super::shared::Phase;
use super::snapshot::{self, Contents, Told};
use crate::store::oplog::{LogReader, fresh_replid};
use crate::store::rows::{RowSnapshot, SnapshotTicket};
use crate::store::session::{FollowRequest, Wish};

/// Read of the log at once.
const STREAM_BYTES: usize = 256 * 1024;
/// Read of a file at once.
const FILE_BYTES: usize = 256 * 1024;
/// A replica that waits hears a newline this often.
const KEEPALIVE: Duration = Duration::from_secs(1);
/// A snapshot is waited for in pieces of this.
const SNAPSHOT_WAIT: Duration = Duration::from_millis(100);

/// How a replica begins.
pub(super) enum Start {
    /// Where it was.
    Continue {
        /// Our id, which it takes on.
        replid: String,
    },
    /// With everything.
    Full(Box<Full>),
}

/// A full sync.
pub(super) struct Full {
    pub(super) snapshot: Awaited,
    pub(super) contents: Contents,
    pub(super) replid: String,
    /// Of the snapshot.
    pub(super) offset: u64,
    /// Selected there.
    pub(super) selected_db: u16,
    pub(super) now_ms: u64,
}

/// A snapshot that was asked for.
pub(super) enum Awaited {
    /// No keys are wanted.
    Nothing,
    Ticket(SnapshotTicket),
    Taken(RowSnapshot),
}

/// See the head of the file.
pub(super) struct Feed {
    pub(super) link: Link,
    pub(super) owed: Vec<u8>,
    pub(super) request: FollowRequest,
    pub(super) start: Start,
    /// Where the stream begins.
    pub(super) reader: LogReader,
}

impl Feed {
    /// The thread.
    pub(super) fn run(self) {
        let from = self.request.address.clone();
        match self.serve() {
            Ok(()) | Err(LinkEnd::Stopped) => tracing::info!(%from, "a replica was served"),
            Err(end) => tracing::warn!(%from, reason = %end, "a replica is gone"),
        }
    }

    fn serve(mut self) -> Result<(), LinkEnd> {
        self.link.send(&std::mem::take(&mut self.owed))?;
        match self.start {
            Start::Continue { replid } => {
                let answer = match self.request.announced.knows_psync2 {
                    true => format!("+CONTINUE {replid}\r\n"),
                    false => "+CONTINUE\r\n".to_owned(),
                };
                self.link.send(answer.as_bytes())?;
            }
            Start::Full(full) => {
                if let Wish::Psync { .. } = self.request.wish {
                    let answer = format!("+FULLRESYNC {} {}\r\n", full.replid, full.offset);
                    self.link.send(answer.as_bytes())?;
                }
                let announced = &self.request.announced;
                full_sync(&mut self.link, *full, announced.takes_eof)?;
                if announced.is_rdb_only {
                    // What lies unread when a socket is closed may cost the peer what it
                    // did not read.
                    return self.link.wait(Duration::ZERO);
                }
                if announced.takes_eof {
                    wait_for_first_ack(&mut self.link)?;
                }
            }
        }
        let acknowledges = self.request.wish != Wish::Sync;
        stream(&mut self.link, self.reader, acknowledges)
    }
}

fn full_sync(link: &mut Link, full: Full, takes_eof: bool) -> Result<(), LinkEnd> {
    let mut keepalive = Keepalive(Instant::now());
    let rows = taken(link, full.snapshot, &mut keepalive)?;
    let told = Told {
        replid: &full.replid,
        offset: full.offset,
        selected_db: full.selected_db,
        now_ms: full.now_ms,
    };
    if !takes_eof {
        return send_as_file(link, rows.as_ref(), &full.contents, &told, &mut keepalive);
    }
    let mark = fresh_replid();
    link.set_phase(Phase::TakesSnapshot);
    link.send(&[b"$EOF:", &mark[..], b"\r\n"].concat())?;
    let mut send = |piece: &[u8]| link.send(piece);
    snapshot::write(rows.as_ref(), &full.contents, &told, &mut send)?;
    drop(rows);
    link.forget_acks();
    link.send(&mark)
}

/// Where the snapshot ends is known to the replica when it has the mark: what came right
/// behind would be taken for a part of it.
fn wait_for_first_ack(link: &mut Link) -> Result<(), LinkEnd> {
    let sent_at = Instant::now();
    while !link.has_acked() {
        link.wait(TICK)?;
        // Loading may take longer than that; it says newlines meanwhile.
        if sent_at.elapsed() > link.common().timeout() {
            link.check_silence()?;
        }
    }
    Ok(())
}

/// Newlines while a replica waits.
struct Keepalive(Instant);

impl Keepalive {
    fn say(&mut self, link: &mut Link) -> Result<(), LinkEnd> {
        if self.0.elapsed() < KEEPALIVE {
            return Ok(());
        }
        self.0 = Instant::now();
        link.wait(Duration::ZERO)?;
        link.send(b"\n")
    }
}

fn taken(
    link: &mut Link,
    snapshot: Awaited,
    keepalive: &mut Keepalive,
) -> Result<Option<RowSnapshot>, LinkEnd> {
    let mut ticket = match snapshot {
        Awaited::Nothing => return Ok(None),
        Awaited::Taken(rows) => return Ok(Some(rows)),
        Awaited::Ticket(ticket) => ticket,
    };
    loop {
        if let Some(rows) = ticket.wait(SNAPSHOT_WAIT)? {
            return Ok(Some(rows));
        }
        link.wait(Duration::ZERO)?;
        keepalive.say(link)?;
    }
}

/// The length stands before the snapshot, so it is made whole first: in a file without a
/// name, which is gone with us.
fn send_as_file(
    link: &mut Link,
    rows: Option<&RowSnapshot>,
    contents: &Contents,
    told: &Told<'_>,
    keepalive: &mut Keepalive,
) -> Result<(), LinkEnd> {
    let mut file = tempfile::tempfile_in(&link.common().dir).map_err(LinkEnd::Spool)?;
    let mut len: u64 = 0;
    snapshot::write(rows, contents, told, &mut |piece| {
        file.write_all(piece).map_err(LinkEnd::Spool)?;
        len += piece.len() as u64;
        keepalive.say(link)
    })?;
    file.rewind().map_err(LinkEnd::Spool)?;
    link.set_phase(Phase::TakesSnapshot);
    link.send(format!("${len}\r\n").as_bytes())?;
    send_file(link, &mut file)
}

fn send_file(link: &mut Link, file: &mut File) -> Result<(), LinkEnd> {
    let mut bytes = vec![0; FILE_BYTES];
    loop {
        let read = file.read(&mut bytes).map_err(LinkEnd::Spool)?;
        if read == 0 {
            return Ok(());
        }
        link.send(bytes.get(..read).unwrap_or(&[]))?;
    }
}

fn stream(link: &mut Link, mut reader: LogReader, acknowledges: bool) -> Result<(), LinkEnd> {
    link.set_phase(Phase::Online);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let read = reader.read(&mut bytes, STREAM_BYTES)?;
        if read > 0 {
            link.note_stream(reader.offset());
            link.send(&bytes)?;
            // There may be no end of it: acknowledgements are heard in between.
            link.glance()?;
        } else if link.is_stopping() {
            return Ok(());
        } else {
            link.sleep(&reader)?;
        }
        if acknowledges {
            link.check_silence()?;
        }
    }
}
