//! A link from the job to one proxy's admin API that knows the steps of a switch:
//! a test may stop the world at exactly one of them.
//!
//! ```text
//!  job ---> listener == POST .../switch/commit ==> proxy
//!                         ^ Rule: pass, stall it until `release`, or lose its answer
//! ```

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const READ_BYTES: usize = 64 * 1024;

/// What happens to a step on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// It waits here until [`AdminLink::release`] names it, and then reaches the proxy.
    Stall,
    /// It reaches the proxy; the link breaks before the answer is back.
    LoseAnswer,
}

/// See the head of this file.
pub struct AdminLink {
    address: String,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    target: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    rules: Vec<(String, Rule)>,
    /// Steps that came, in order.
    seen: Vec<String>,
    /// How many steps were stalled so far.
    stalls: u64,
    /// Those that wait here still.
    stalled: Vec<(u64, String)>,
    closed: bool,
    refusing: bool,
    links: Vec<TcpStream>,
}

impl AdminLink {
    /// Listens, and forwards to `target` (`host:port`).
    pub fn start(target: &str) -> AdminLink {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
        let address = listener.local_addr().expect("a bound socket").to_string();
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        let acceptor = thread::spawn(move || accept(&listener, &accepting));
        AdminLink {
            address,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// As `--proxy` takes it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on the next `step` (stage, hold, arm, commit, abort) meets `rule`.
    pub fn at(&self, step: &str, rule: Rule) {
        self.shared.lock().rules.push((step.to_owned(), rule));
    }

    /// Steps of before count no more.
    pub fn forget_seen(&self) {
        self.shared.lock().seen.clear();
    }

    /// Lets `step` go on, and takes rules for it away.
    pub fn release(&self, step: &str) {
        let mut state = self.shared.lock();
        state.stalled.retain(|(_, stalled)| stalled != step);
        state.rules.retain(|(at, _)| at != step);
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Lets everything go on.
    pub fn release_all(&self) {
        let mut state = self.shared.lock();
        state.stalled.clear();
        state.rules.clear();
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Ends every connection, and takes none until [`AdminLink::admit`]. What is
    /// stalled here never arrives.
    pub fn cut(&self) {
        let mut state = self.shared.lock();
        state.refusing = true;
        for link in state.links.drain(..) {
            let _ = link.shutdown(Shutdown::Both);
        }
        drop(state);
        self.release_all();
    }

    /// Takes connections again.
    pub fn admit(&self) {
        self.shared.lock().refusing = false;
    }

    /// Waits until a `step` has come since the last look; false when it did not within `limit`.
    pub fn wait_seen(&self, step: &str, limit: Duration) -> bool {
        let state = self.shared.lock();
        let missing = |state: &mut State| !state.seen.iter().any(|seen| seen == step);
        let waited = self
            .shared
            .changed
            .wait_timeout_while(state, limit, missing);
        let (mut state, waited) = waited.expect("no panic while it was held");
        state.seen.clear();
        !waited.timed_out()
    }
}

impl Drop for AdminLink {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.closed = true;
            for link in state.links.drain(..) {
                let _ = link.shutdown(Shutdown::Both);
            }
        }
        self.shared.changed.notify_all();
        // Wakes the acceptor.
        let _ = TcpStream::connect(&self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while it was held")
    }

    /// Called with what the job sent; whether its answer is to be lost.
    fn pass(&self, bytes: &[u8]) -> bool {
        let Some(step) = step_of(bytes) else {
            return false;
        };
        let mut state = self.lock();
        state.seen.push(step.clone());
        let at = state.rules.iter().position(|(at, _)| *at == step);
        let rule = at.map(|at| state.rules.remove(at).1);
        let mut turn = None;
        if rule == Some(Rule::Stall) {
            state.stalls += 1;
            turn = Some(state.stalls);
            let number = state.stalls;
            state.stalled.push((number, step));
        }
        self.changed.notify_all();
        let waits = |state: &State| {
            let mut stalled = state.stalled.iter();
            !state.closed && stalled.any(|(number, _)| Some(*number) == turn)
        };
        while waits(&state) {
            state = self
                .changed
                .wait(state)
                .expect("no panic while it was held");
        }
        rule == Some(Rule::LoseAnswer)
    }
}

/// The step that a request names.
fn step_of(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let (_, rest) = text.split_once("/switch/")?;
    let step: String = rest.chars().take_while(char::is_ascii_lowercase).collect();
    (!step.is_empty()).then_some(step)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut pumps = Vec::new();
    while let Ok((job, _)) = listener.accept() {
        let (closed, refusing) = {
            let state = shared.lock();
            (state.closed, state.refusing)
        };
        if closed {
            break;
        }
        if refusing {
            continue;
        }
        // A thread that has ended keeps its stack until nobody can join it.
        pumps.retain(|pump: &JoinHandle<()>| !pump.is_finished());
        let Ok(proxy) = TcpStream::connect(&shared.target) else {
            continue;
        };
        let copy = |stream: &TcpStream| stream.try_clone().expect("one more descriptor");
        for stream in [&job, &proxy] {
            stream.set_nodelay(true).expect("a TCP socket");
            shared.lock().links.push(copy(stream));
        }
        let (from, to) = (copy(&proxy), copy(&job));
        let lose = Arc::new(Mutex::new(false));
        let (losing, up) = (Arc::clone(&lose), Arc::clone(shared));
        pumps.push(thread::spawn(move || {
            // A proxy may drop a request whose sender is gone, and a step that was
            // stalled is to reach it: the job's end is not handed on.
            pump(job, proxy, |bytes| {
                if up.pass(bytes) {
                    *losing.lock().expect("no panic while it was held") = true;
                }
                true
            });
        }));
        pumps.push(thread::spawn(move || {
            let job = copy(&to);
            pump(from, to, |_| {
                !*lose.lock().expect("no panic while it was held")
            });
            let _ = job.shutdown(Shutdown::Both);
        }));
    }
    for pump in pumps {
        let _ = pump.join();
    }
}

/// Copies until an end, which is not handed on, or until `goes_on` says no.
fn pump(mut from: TcpStream, mut to: TcpStream, mut goes_on: impl FnMut(&[u8]) -> bool) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = from.read(&mut buffer).unwrap_or(0);
        if read == 0 {
            return;
        }
        if !goes_on(&buffer[..read]) || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
