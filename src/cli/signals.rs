//! Signals as what they ask for.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What somebody outside asks of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// SIGHUP: reopen the log, reload the config.
    Reload,
    /// SIGTERM, SIGINT: end.
    Stop,
    /// SIGTTIN: one level more in the log.
    Louder,
    /// SIGTTOU: one level less.
    Quieter,
}

/// Signals of this process, from the moment this is made.
#[derive(Debug)]
pub struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    tty_in: Signal,
    tty_out: Signal,
}

impl Signals {
    /// Takes the signals over; from now on they do not end the process.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            tty_in: signal(SignalKind::from_raw(libc_number::SIGTTIN))?,
            tty_out: signal(SignalKind::from_raw(libc_number::SIGTTOU))?,
        })
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.hangup.recv() => Asked::Reload,
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            _ = self.tty_in.recv() => Asked::Louder,
            _ = self.tty_out.recv() => Asked::Quieter,
        }
    }

    /// Waits until somebody asks to stop.
    pub async fn stop(&mut self) {
        while self.next().await != Asked::Stop {}
    }
}

/// Numbers that `SignalKind` has no name for; the same on every Linux and BSD.
mod libc_number {
    pub const SIGTTIN: i32 = 21;
    pub const SIGTTOU: i32 = 22;
}
