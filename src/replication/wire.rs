//! The receiving side of a link: reads whole buffers, with a bound on silence.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::error::TapErrorKind;
use crate::upstream::socket::ReadHalf;

/// Room made for reads: large enough that the kernel's buffer is emptied by one.
const READ_BYTES: usize = 256 * 1024;

/// With less room than this a read would be a small one.
const READ_BYTES_MIN: usize = 32 * 1024;

/// An answer line or frame line, in bytes; some vendors add words to theirs.
pub(super) const LINE_BYTES_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Wire {
    half: ReadHalf,
    /// What was received and not taken yet.
    buffer: BytesMut,
    silence_max: Duration,
}

impl Wire {
    pub(super) fn new(half: ReadHalf, buffer: BytesMut, silence_max: Duration) -> Self {
        Self {
            half,
            buffer,
            silence_max,
        }
    }

    /// The next bytes, as many as there are. Pieces of one allocation are
    /// neighbours, so that they can be joined again without a copy.
    pub(super) async fn chunk(&mut self) -> Result<BytesMut, TapErrorKind> {
        if self.buffer.is_empty() {
            self.fill().await?;
        }
        Ok(self.buffer.split())
    }

    /// Waits for more bytes.
    async fn fill(&mut self) -> Result<(), TapErrorKind> {
        if self.buffer.capacity() - self.buffer.len() < READ_BYTES_MIN {
            self.buffer.reserve(READ_BYTES);
        }
        let read = self.half.read_buf(&mut self.buffer);
        match timeout(self.silence_max, read).await {
            Ok(Ok(0)) => Err(TapErrorKind::Closed),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(TapErrorKind::Io(error)),
            Err(_) => Err(TapErrorKind::Silent(self.silence_max)),
        }
    }

    /// Waits for a line, as long as bytes keep coming.
    pub(super) async fn line(&mut self) -> Result<Bytes, TapErrorKind> {
        loop {
            if let Some(line) = take_line(&mut self.buffer)? {
                return Ok(line);
            }
            self.fill().await?;
        }
    }
}

/// Takes a line without its CR LF. Newlines before it are keepalives.
pub(super) fn take_line(buffer: &mut BytesMut) -> Result<Option<Bytes>, TapErrorKind> {
    let keepalives = buffer.iter().take_while(|&&byte| byte == b'\n').count();
    buffer.advance(keepalives);
    let window = buffer.get(..LINE_BYTES_MAX).unwrap_or(buffer);
    match window.windows(2).position(|pair| pair == b"\r\n") {
        Some(end) => {
            let line = buffer.split_to(end).freeze();
            buffer.advance(2);
            Ok(Some(line))
        }
        None if buffer.len() >= LINE_BYTES_MAX => Err(unexpected(window)),
        None => Ok(None),
    }
}

/// The start of an answer, printable, for an error.
pub(super) fn unexpected(answer: &[u8]) -> TapErrorKind {
    let shown = answer.get(..80).unwrap_or(answer);
    TapErrorKind::UnexpectedAnswer(shown.escape_ascii().to_string())
}
