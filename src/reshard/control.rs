//! The socket on which a running job is asked and told.
//!
//! ```text
//! client -> {"v":1,"verb":"switch"}\n   or {"v":1,"verb":{"set":{"rate_bytes_per_s":{"at":1000}}}}\n
//! job    -> {"v":1,"ending":"done","message":"...","status":{...}}\n
//! ```
//! One question a connection; `watch` gets a line for every change until the
//! job ends. `DIR/control.sock`, mode 0600: who may write there may switch.
//!
//! Invariant: at most [`CLIENTS_MAX`] connections and one line of
//! [`LINE_BYTES_MAX`] each are kept; a silent client is dropped.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::ending::Ending;
use super::mover::ThrottleChange;
use super::status::JobStatus;

/// Connections served at the same time.
pub const CLIENTS_MAX: usize = 32;

/// Longest question.
pub const LINE_BYTES_MAX: u64 = 64 * 1024;

/// Longest wait for a question, and for an answer to be taken.
pub const CLIENT_MS_MAX: u64 = 10_000;

/// Questions that wait for the job's attention.
pub const QUESTIONS_MAX: usize = 16;

const VERSION: u32 = 1;

/// What can be asked of a running job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Where it is.
    Status,
    /// Where it is, again at every change.
    Watch,
    /// Compare again.
    Verify,
    /// Switch now.
    Switch,
    /// Do not switch until `Resume`.
    Pause,
    /// Ends a pause.
    Resume,
    /// Give up before the switch.
    Cancel,
    /// Before the switch the same; after it the switch back to the old layout.
    Rollback,
    /// Let go of a switched job, which the asking process completes.
    Complete,
    /// Turn the throttle.
    Set(ThrottleChange),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    v: u32,
    verb: Verb,
}

/// What the job answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Version of this shape.
    pub v: u32,
    /// How the question's command ends.
    pub ending: Ending,
    /// What happened, for people.
    pub message: String,
    /// Where the job is.
    pub status: Option<JobStatus>,
}

impl Answer {
    /// An answer without a status; the socket adds the current one.
    pub fn new(ending: Ending, message: impl Into<String>) -> Self {
        Self {
            v: VERSION,
            ending,
            message: message.into(),
            status: None,
        }
    }
}

/// A question on its way to the job's driver.
#[derive(Debug)]
pub struct Request {
    /// What is asked.
    pub verb: Verb,
    /// Where the answer goes; a client that left does not matter.
    pub reply: Reply,
}

/// Where an answer goes.
#[derive(Debug)]
pub struct Reply(oneshot::Sender<Answer>);

impl Reply {
    /// Answers.
    pub fn send(self, ending: Ending, message: impl Into<String>) {
        // The client may have gone; the job goes on.
        let _ = self.0.send(Answer::new(ending, message));
    }

    /// A reply and where it comes out.
    pub fn channel() -> (Self, oneshot::Receiver<Answer>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }
}

/// Why a job cannot be reached or offer its socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket cannot be made.
    #[error("control socket {path}: {source}{}", if too_long(.path) { "; the path is too long for a socket, use a shorter --state directory" } else { "" })]
    Bind {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The job broke off or answered nonsense.
    #[error("control socket {path}: {what}")]
    Broken {
        /// Its path.
        path: PathBuf,
        /// What happened.
        what: String,
    },
}

/// Room for a path in `sockaddr_un`, without the final zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

fn too_long(path: &Path) -> bool {
    path.as_os_str().len() > SOCKET_PATH_BYTES_MAX
}

/// The listening side; ends when dropped.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    server: JoinHandle<()>,
}

impl ControlSocket {
    /// Listens at `path`, in place of what a killed process left there: the
    /// caller holds the directory's lock.
    ///
    /// # Errors
    /// [`ControlError::Bind`].
    pub fn listen(
        path: &Path,
        questions: mpsc::Sender<Request>,
        status: watch::Receiver<JobStatus>,
    ) -> Result<Self, ControlError> {
        let failed = |source| ControlError::Bind {
            path: path.to_path_buf(),
            source,
        };
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self {
            path: path.to_path_buf(),
            server: tokio::spawn(serve(listener, questions, status)),
        })
    }
}

impl ControlSocket {
    /// Takes no more questions and lets the answers that are on their way out.
    pub async fn close(mut self) {
        let _ = fs::remove_file(&self.path);
        let grace = Duration::from_millis(CLOSE_MS_MAX);
        if timeout(grace, &mut self.server).await.is_err() {
            self.server.abort();
        }
    }
}

/// Longest wait for clients to take their last answers.
const CLOSE_MS_MAX: u64 = 1_000;

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        self.server.abort();
    }
}

async fn serve(
    listener: UnixListener,
    questions: mpsc::Sender<Request>,
    status: watch::Receiver<JobStatus>,
) {
    let mut clients = JoinSet::new();
    let mut ended = status.clone();
    loop {
        if clients.len() >= CLIENTS_MAX {
            clients.join_next().await;
            continue;
        }
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    clients.spawn(answer_client(stream, questions.clone(), status.clone()));
                }
            }
            () = job_ended(&mut ended) => break,
        }
    }
    drop(questions);
    while clients.join_next().await.is_some() {}
}

/// The driver owns the status' sending side as long as the job runs.
async fn job_ended(status: &mut watch::Receiver<JobStatus>) {
    while status.changed().await.is_ok() {}
}

async fn answer_client(
    stream: UnixStream,
    questions: mpsc::Sender<Request>,
    mut status: watch::Receiver<JobStatus>,
) {
    let (read, mut write) = stream.into_split();
    let mut line = Vec::new();
    let mut read = BufReader::new(read.take(LINE_BYTES_MAX));
    let wait = Duration::from_millis(CLIENT_MS_MAX);
    match timeout(wait, read.read_until(b'\n', &mut line)).await {
        Ok(Ok(length)) if length > 0 => {}
        _ => return,
    }
    let question: Question = match serde_json::from_slice(&line) {
        Ok(question) => question,
        Err(error) => {
            let answer = Answer::new(Ending::Usage, format!("not a question: {error}"));
            send(&mut write, &answer).await;
            return;
        }
    };
    if question.v != VERSION {
        let what = format!("version {} of the socket is not known", question.v);
        send(&mut write, &Answer::new(Ending::Usage, what)).await;
        return;
    }
    if question.verb == Verb::Watch {
        return watch_job(&mut write, &mut status).await;
    }
    let mut answer = match question.verb {
        Verb::Status => Answer::new(Ending::Done, ""),
        verb => ask(&questions, verb).await,
    };
    answer.status = Some(status.borrow().clone());
    send(&mut write, &answer).await;
}

async fn ask(questions: &mpsc::Sender<Request>, verb: Verb) -> Answer {
    let (reply, answered) = Reply::channel();
    if questions.try_send(Request { verb, reply }).is_err() {
        return Answer::new(
            Ending::Temporary,
            "the job is busy or ending; ask again, or look at its journal",
        );
    }
    answered.await.unwrap_or_else(|_| {
        Answer::new(
            Ending::Temporary,
            "the job ended before it answered; see `keyferry reshard status`",
        )
    })
}

async fn watch_job(
    write: &mut tokio::net::unix::OwnedWriteHalf,
    status: &mut watch::Receiver<JobStatus>,
) {
    loop {
        let mut answer = Answer::new(Ending::Done, "");
        answer.status = Some(status.borrow_and_update().clone());
        if !send(write, &answer).await || status.changed().await.is_err() {
            return;
        }
    }
}

async fn send(write: &mut tokio::net::unix::OwnedWriteHalf, answer: &Answer) -> bool {
    let Ok(mut line) = serde_json::to_vec(answer) else {
        return false;
    };
    line.push(b'\n');
    let wait = Duration::from_millis(CLIENT_MS_MAX);
    matches!(timeout(wait, write.write_all(&line)).await, Ok(Ok(())))
}

/// The asking side: one question, then answers line by line.
#[derive(Debug)]
pub struct Asked {
    path: PathBuf,
    answers: BufReader<UnixStream>,
}

/// Asks the job that runs behind `path`; `None` when none does.
///
/// # Errors
/// [`ControlError::Broken`].
pub async fn ask_job(path: &Path, verb: Verb) -> Result<Option<Asked>, ControlError> {
    let broken = |error: io::Error| ControlError::Broken {
        path: path.to_path_buf(),
        what: error.to_string(),
    };
    let mut stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(broken(error)),
    };
    let question = Question { v: VERSION, verb };
    let mut line = serde_json::to_vec(&question)
        .map_err(io::Error::from)
        .map_err(broken)?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(broken)?;
    Ok(Some(Asked {
        path: path.to_path_buf(),
        answers: BufReader::new(stream),
    }))
}

impl Asked {
    /// The next answer; `None` when the job closed the socket.
    ///
    /// # Errors
    /// [`ControlError::Broken`].
    pub async fn next(&mut self) -> Result<Option<Answer>, ControlError> {
        let mut line = Vec::new();
        let read = self.answers.read_until(b'\n', &mut line).await;
        let broken = |what: String| ControlError::Broken {
            path: self.path.clone(),
            what,
        };
        match read {
            Ok(0) => Ok(None),
            Ok(_) => serde_json::from_slice(&line)
                .map(Some)
                .map_err(|error| broken(format!("the answer makes no sense: {error}"))),
            Err(error) => Err(broken(error.to_string())),
        }
    }
}
