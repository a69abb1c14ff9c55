//! A cut: its marker was met, and what is left to do before it is through.
//!
//! ```text
//! met --read on until nothing is pending--> lanes empty --> told, held
//!   '---- taken back meanwhile: a mere barrier -----------'     '-- until `uncut`
//! ```
//!
//! Invariant: it is told as through only when no key is pending and every lane
//! was answered for all before it.

use tokio::sync::mpsc;

use super::super::error::MoveError;
use super::Source;

/// A cut whose marker was met.
#[derive(Debug)]
pub(super) struct Cut {
    pub(super) number: u64,
    pub(super) passed: mpsc::Sender<()>,
}

impl Source {
    /// After each event: the cut is through if nothing is left to do.
    pub(super) async fn pass_cut(&mut self) -> Result<(), MoveError> {
        let Some(cut) = &self.cut else {
            return Ok(());
        };
        let is_in_force = *self.parts.cut.borrow() == Some(cut.number);
        if is_in_force && !self.parts.pending.is_empty() {
            return Ok(());
        }
        let Some(Cut { number, passed }) = self.cut.take() else {
            return Ok(());
        };
        self.barrier(&passed);
        // Our own word: a source without lanes has shown the marker, too.
        let _ = passed.try_send(());
        self.flush_all().await?;
        let mut cut = self.parts.cut.clone();
        // Ended by `uncut`, by the next cut, or with the mover.
        let _ = cut.wait_for(|cut| *cut != Some(number)).await;
        Ok(())
    }
}
