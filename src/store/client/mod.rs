//! A connection to a running shard, for the commands of its operators.
//!
//! ```text
//! Target (where, login) --open--> Connection: dialled, logged in
//!                                   ask    one command, one reply
//!                                   read   what comes, for a snapshot
//! ```
//! It blocks, in short waits: whoever asks it to stop is heard soon, and a shard that says
//! nothing for long is given up.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::resp::write_command;
use crate::store::format::lines::take_line;

/// Longest wait for a connection.
const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// Longest silence of a shard that owes something; it says newlines while it prepares.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// A wait is looked up from this often.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Longest line.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Longest reply.
const REPLY_BYTES_MAX: usize = 16 << 20;
const READ_BYTES: usize = 256 * 1024;

/// Where a shard listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A name or IP address, and a port.
    Tcp(String, u16),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What AUTH is told; it is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The default user if none is named.
    pub user: Option<String>,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// A shard that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where.
    pub place: Place,
    /// As whom.
    pub login: Option<Login>,
}

/// Why a shard could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error("{place} cannot be reached: {cause}")]
    Dial {
        /// Where.
        place: Place,
        /// Why.
        cause: io::Error,
    },
    /// It was there.
    #[error("the connection to {place} failed: {cause}")]
    Lost {
        /// Where.
        place: Place,
        /// Why.
        cause: io::Error,
    },
    /// It answered with an error.
    #[error("{place} refused {asked}: {words}")]
    Refused {
        /// Where.
        place: Place,
        /// What was asked.
        asked: String,
        /// Its words.
        words: String,
    },
    /// It answered what no such server answers.
    #[error(
        "{place} answered {asked} with {found}: it is no Redis-protocol server, or a newer one"
    )]
    Answer {
        /// Where.
        place: Place,
        /// What was asked.
        asked: String,
        /// What came.
        found: String,
    },
    /// Somebody asked us to.
    #[error("it was interrupted")]
    Interrupted,
}

impl ClientError {
    /// Whether the same may succeed later, with nothing mended.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::Interrupted => true,
            Self::Refused { words, .. } => {
                let passing = ["LOADING", "NOMASTERLINK", "MASTERDOWN", "BUSY", "TRYAGAIN"];
                passing.iter().any(|word| words.starts_with(word))
            }
            Self::Dial { .. } | Self::Answer { .. } => false,
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// See the head of the file.
pub struct Connection<'a> {
    stream: Stream,
    place: Place,
    stop: &'a AtomicBool,
    /// Read, and not taken.
    input: Vec<u8>,
    buffer: Box<[u8]>,
}

impl<'a> Connection<'a> {
    /// Dials and logs in; `stop` ends all waits.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn open(target: &Target, stop: &'a AtomicBool) -> Result<Self, ClientError> {
        let place = target.place.clone();
        let stream = dial(&place).map_err(|cause| ClientError::Dial {
            place: place.clone(),
            cause,
        })?;
        let mut connection = Self {
            stream,
            place,
            stop,
            input: Vec::new(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
        };
        if let Some(login) = &target.login {
            match &login.user {
                Some(user) => connection.ask(&["AUTH", user, &login.password])?,
                None => connection.ask(&["AUTH", &login.password])?,
            };
        }
        Ok(connection)
    }

    /// Where it leads.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Asks, and waits for the answer: a line, or one string.
    ///
    /// # Errors
    /// [`ClientError`]; an error that is answered is one.
    pub fn ask(&mut self, words: &[&str]) -> Result<String, ClientError> {
        self.say(words)?;
        // What follows the name may be a secret.
        let asked = words.first().copied().unwrap_or_default();
        let line = self.line()?;
        let Some(length) = line.strip_prefix('$') else {
            return self.plain(asked, &line);
        };
        let length = length
            .parse()
            .ok()
            .filter(|length| *length <= REPLY_BYTES_MAX);
        let Some(length) = length else {
            return Err(self.answered(asked, &line));
        };
        while self.input.len() < length + 2 {
            let more = self.receive()?;
            self.input.extend_from_slice(&more);
        }
        let body: Vec<u8> = self.input.drain(..length + 2).take(length).collect();
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Says something whose answer comes by [`Connection::line`].
    ///
    /// # Errors
    /// [`ClientError::Lost`].
    pub fn say(&mut self, words: &[&str]) -> Result<(), ClientError> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let mut request = Vec::new();
        write_command(&mut request, &words);
        let sent = match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(&request),
            Stream::Unix(stream) => stream.write_all(&request),
        };
        sent.map_err(|cause| self.lost(cause))
    }

    /// The next line that is not empty, without its end.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn line(&mut self) -> Result<String, ClientError> {
        loop {
            if let Some(line) = take_line(&mut self.input) {
                return Ok(line);
            }
            if self.input.len() > LINE_BYTES_MAX {
                return Err(self.answered("the handshake", "an endless line"));
            }
            let more = self.receive()?;
            self.input.extend_from_slice(&more);
        }
    }

    /// What comes next, as much as there is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn read(&mut self) -> Result<Vec<u8>, ClientError> {
        match self.input.is_empty() {
            true => self.receive(),
            false => Ok(std::mem::take(&mut self.input)),
        }
    }

    /// That something was refused in these words, or makes no sense.
    pub fn answered(&self, asked: &str, line: &str) -> ClientError {
        let (place, asked) = (self.place.clone(), asked.to_owned());
        match line.strip_prefix('-') {
            Some(words) => ClientError::Refused {
                place,
                asked,
                words: words.to_owned(),
            },
            None => ClientError::Answer {
                place,
                asked,
                found: format!("{:?}", line.chars().take(64).collect::<String>()),
            },
        }
    }

    fn plain(&self, asked: &str, line: &str) -> Result<String, ClientError> {
        match line.strip_prefix(['+', ':']) {
            Some(text) => Ok(text.to_owned()),
            None => Err(self.answered(asked, line)),
        }
    }

    fn lost(&self, cause: io::Error) -> ClientError {
        ClientError::Lost {
            place: self.place.clone(),
            cause,
        }
    }

    fn receive(&mut self) -> Result<Vec<u8>, ClientError> {
        let since = Instant::now();
        loop {
            if self.stop.load(Ordering::Acquire) {
                return Err(ClientError::Interrupted);
            }
            let read = match &mut self.stream {
                Stream::Tcp(stream) => stream.read(&mut self.buffer),
                Stream::Unix(stream) => stream.read(&mut self.buffer),
            };
            match read {
                Ok(0) => return Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => return Ok(self.buffer.get(..read).unwrap_or(&[]).to_vec()),
                Err(error) if is_wait(&error) && since.elapsed() < SILENCE_LIMIT => {}
                Err(error) if is_wait(&error) => {
                    return Err(self.lost(io::ErrorKind::TimedOut.into()));
                }
                Err(error) => return Err(self.lost(error)),
            }
        }
    }
}

fn is_wait(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

fn dial(place: &Place) -> io::Result<Stream> {
    match place {
        Place::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(LOOK_EVERY))?;
            stream.set_write_timeout(Some(SILENCE_LIMIT))?;
            Ok(Stream::Unix(stream))
        }
        Place::Tcp(host, port) => {
            let mut refused = io::Error::from(io::ErrorKind::NotFound);
            for address in (host.as_str(), *port).to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, DIAL_LIMIT) {
                    Ok(stream) => {
                        stream.set_read_timeout(Some(LOOK_EVERY))?;
                        stream.set_write_timeout(Some(SILENCE_LIMIT))?;
                        return Ok(Stream::Tcp(stream));
                    }
                    Err(error) => refused = error,
                }
            }
            Err(refused)
        }
    }
}
