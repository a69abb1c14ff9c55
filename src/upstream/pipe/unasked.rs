//! Replies that answer no request: what a connection that subscribed receives.

use std::mem;

use super::{Pipe, PipeError};

impl<T: Copy> Pipe<T> {
    /// Takes bytes from the socket of a pipe that expects no replies; whole ones
    /// are appended to `out` as they come.
    ///
    /// # Errors
    /// The pipe must then be failed with the error returned.
    pub fn receive_unasked(
        &mut self,
        bytes: &[u8],
        now_us: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), PipeError> {
        let mut held = mem::take(&mut self.partial);
        held.extend_from_slice(bytes);
        let start = self.take_greeting(&held, now_us)?;
        let mut end = start;
        while let Some(rest) = held.get(end..).filter(|rest| !rest.is_empty()) {
            match self.scanner.scan(rest)? {
                Some(reply) => end += reply.len,
                None => break,
            }
        }
        out.extend_from_slice(held.get(start..end).unwrap_or_default());
        held.drain(..end);
        self.partial = held;
        Ok(())
    }
}
