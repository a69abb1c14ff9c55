//! What can go wrong at a tap: which server, at which step, whose fault, and
//! whether attaching again is safe.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::rdb::ScanError;
use crate::resp::ProtocolError;
use crate::upstream::{Blame, Retry, SessionError, SessionErrorKind, SessionStep, ShardAddress};

/// What the tap was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapStep {
    /// Connecting.
    Connect,
    /// AUTH.
    Authenticate,
    /// PING.
    Ping,
    /// REPLCONF.
    Replconf,
    /// PSYNC, up to its answer.
    Psync,
    /// Getting the snapshot's own socket ready.
    SecondSocket,
    /// Receiving the snapshot.
    Snapshot,
    /// Following the command stream.
    Stream,
}

impl fmt::Display for TapStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting",
            Self::Authenticate => "authenticating",
            Self::Ping => "PING",
            Self::Replconf => "REPLCONF",
            Self::Psync => "PSYNC",
            Self::SecondSocket => "opening the snapshot's own connection",
            Self::Snapshot => "receiving the snapshot",
            Self::Stream => "following the command stream",
        })
    }
}

/// A tap that cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("source {address}: {step}: {kind}")]
pub struct TapError {
    /// Which server.
    pub address: ShardAddress,
    /// What the tap was doing.
    pub step: TapStep,
    /// What went wrong.
    #[source]
    pub kind: TapErrorKind,
}

/// What went wrong at a tap.
#[derive(Debug, thiserror::Error)]
pub enum TapErrorKind {
    /// The system's word.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A bound was reached.
    #[error("not a byte within {0:?}")]
    Silent(Duration),
    /// The server closed the connection.
    #[error(
        "the server closed the connection (its log says why; often client-output-buffer-limit \
         replica or repl-timeout)"
    )]
    Closed,
    /// AUTH was answered with an error.
    #[error("credentials refused: {0}; check user and password of this source")]
    WrongPassword(String),
    /// The server wants AUTH and we have nothing to say.
    #[error("the server wants a password: {0}; set the credentials of this source")]
    PasswordRequired(String),
    /// The server does not let us be a replica.
    #[error(
        "PSYNC is not available: {0}; the source must be a Redis-protocol server that takes \
         replicas, with PSYNC neither renamed nor denied (an ACL user needs +psync +replconf +ping)"
    )]
    PsyncNotAvailable(String),
    /// The server cannot take replicas now.
    #[error("not now: {0}")]
    NotNow(String),
    /// The source broke the snapshot off.
    #[error("the server gave up the snapshot: {0}")]
    Aborted(String),
    /// An answer that no step of the protocol has.
    #[error("unexpected answer \"{0}\"")]
    UnexpectedAnswer(String),
    /// The server does not speak RESP.
    #[error(transparent)]
    NotResp(Box<SessionErrorKind>),
    /// The snapshot is damaged or of a kind we cannot read.
    #[error(transparent)]
    Rdb(Box<ScanError>),
    /// The snapshot ended at another byte than its frame said.
    #[error("the snapshot's frame promised {promised} bytes, its content ended after {read}")]
    FrameLength {
        /// Bytes of the frame.
        promised: u64,
        /// Bytes of the RDB.
        read: u64,
    },
    /// The mark that ends a diskless snapshot is not there.
    #[error("the snapshot is not followed by the mark its frame promised")]
    FrameMark,
    /// The frame and what is in it do not end at the same byte.
    #[error(
        "the snapshot's content ends {apart} bytes {} its frame does",
        if *content_first { "before" } else { "after" }
    )]
    EndsDiffer {
        /// Which of the two ended first.
        content_first: bool,
        /// Bytes between the two ends that were seen so far.
        apart: u64,
    },
    /// The directory of the spool cannot be used.
    #[error(
        "cannot spool in {path}: {error}; give the job another directory, or make this one writable"
    )]
    SpoolUnusable {
        /// The directory.
        path: PathBuf,
        /// The system's word.
        error: io::Error,
    },
    /// A spool file cannot be read back.
    #[error("cannot read the spool back from {path}: {error}; the source has to be copied again")]
    SpoolUnreadable {
        /// The file.
        path: PathBuf,
        /// The system's word.
        error: io::Error,
    },
    /// A spool file does not hold what was written to it.
    #[error(
        "the spool file {path} is damaged at byte {at}: {why}; the source has to be copied again"
    )]
    SpoolDamaged {
        /// The file.
        path: PathBuf,
        /// Offset of the block in it.
        at: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// The source was importing cluster slots when the snapshot was taken: whose keys
    /// they are cannot be told from it.
    #[error("the source is importing cluster slots; let that end, then start again")]
    SlotImport,
    /// The stream is no sequence of commands.
    #[error("the stream breaks at offset {offset}: {error}")]
    Stream {
        /// Offset before the command.
        offset: u64,
        /// What is wrong with it.
        error: ProtocolError,
    },
    /// The stream has a byte where a command should start.
    #[error("the stream has byte 0x{byte:02x} at offset {offset}, where a command should start")]
    NotACommand {
        /// Offset before the byte.
        offset: u64,
        /// The byte.
        byte: u8,
    },
    /// A command of the stream that cannot stand where it is.
    #[error("the stream has {command} at offset {offset}, where it cannot be")]
    Misplaced {
        /// Offset before the command.
        offset: u64,
        /// The command.
        command: &'static str,
    },
}

impl TapErrorKind {
    pub(super) fn at(self, address: &ShardAddress, step: TapStep) -> TapError {
        TapError {
            address: address.clone(),
            step,
            kind: self,
        }
    }
}

impl TapError {
    /// Whether attaching again can help. A tap changes nothing on the source,
    /// so it is always safe; with a [`super::ResumePoint`] it also loses nothing.
    #[must_use]
    pub fn retry(&self) -> Retry {
        match self.kind {
            TapErrorKind::Io(_)
            | TapErrorKind::Silent(_)
            | TapErrorKind::Closed
            | TapErrorKind::NotNow(_)
            | TapErrorKind::Aborted(_)
            | TapErrorKind::SpoolUnreadable { .. }
            | TapErrorKind::SpoolDamaged { .. }
            | TapErrorKind::SlotImport => Retry::Safe,
            // Bytes damaged on their way may come undamaged the next time.
            TapErrorKind::FrameLength { .. }
            | TapErrorKind::FrameMark
            | TapErrorKind::EndsDiffer { .. } => Retry::Safe,
            TapErrorKind::WrongPassword(_)
            | TapErrorKind::PasswordRequired(_)
            | TapErrorKind::PsyncNotAvailable(_)
            | TapErrorKind::UnexpectedAnswer(_)
            | TapErrorKind::NotResp(_)
            | TapErrorKind::SpoolUnusable { .. }
            | TapErrorKind::Rdb(_)
            | TapErrorKind::Stream { .. }
            | TapErrorKind::NotACommand { .. }
            | TapErrorKind::Misplaced { .. } => Retry::Never,
        }
    }

    /// Whose doing it is.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self.kind {
            TapErrorKind::WrongPassword(_)
            | TapErrorKind::PasswordRequired(_)
            | TapErrorKind::PsyncNotAvailable(_)
            | TapErrorKind::SpoolUnusable { .. } => Blame::Configuration,
            _ => Blame::Shard,
        }
    }

    /// A session's error while the tap was at `step`.
    pub(super) fn of_session(error: SessionError, step: TapStep) -> Self {
        let step = match error.step {
            SessionStep::Connect => TapStep::Connect,
            SessionStep::Authenticate => TapStep::Authenticate,
            SessionStep::Send | SessionStep::Receive => step,
        };
        let kind = match error.kind {
            SessionErrorKind::Io(error) => TapErrorKind::Io(error),
            SessionErrorKind::TimedOut(limit) => TapErrorKind::Silent(limit),
            SessionErrorKind::Closed => TapErrorKind::Closed,
            // AUTH is said first, so a server that starts may refuse it, too.
            SessionErrorKind::AuthRefused(text) if text.starts_with("LOADING") => {
                TapErrorKind::NotNow(text)
            }
            SessionErrorKind::AuthRefused(text) => TapErrorKind::WrongPassword(text),
            other => TapErrorKind::NotResp(Box::new(other)),
        };
        TapError {
            address: error.address,
            step,
            kind,
        }
    }
}
