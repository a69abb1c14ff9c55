//! A TCP forwarder in front of one server, to break links at will.
//!
//! ```text
//! client ---> listener ==> pump up   ==> target
//!        <---          <== pump down <==
//! ```
//!
//! - [`Forwarder::cut`] ends all links now, [`Forwarder::cut_after`] once so many
//!   more bytes went down: with it a cut falls on an exact byte;
//! - [`Forwarder::stall`] holds all bytes back until [`Forwarder::go_on`];
//! - [`Forwarder::refuse`] ends new links at once until [`Forwarder::admit`];
//! - [`Forwarder::point_at`] sends new links to another server; links that are
//!   up stay where they are.
//!
//! What was read before a cut is either sent whole or dropped whole.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

const READ_BYTES: usize = 64 * 1024;

/// See the head of this file.
pub struct Forwarder {
    address: String,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    target: String,
    links: Vec<Link>,
    stalled: bool,
    refusing: bool,
    closed: bool,
    /// Bytes that still go down before everything is cut.
    cut_after: Option<usize>,
    /// Links that reached a target so far.
    links_made: usize,
    /// Connections that were taken or refused so far.
    tries: usize,
    down_bytes: u64,
}

struct Link {
    id: usize,
    client: TcpStream,
    server: TcpStream,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Up,
    Down,
}

impl Forwarder {
    /// Listens on a port of the system's choice and forwards to `target`
    /// (`host:port`).
    pub fn start(target: &str) -> Forwarder {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
        let address = listener.local_addr().expect("a bound socket").to_string();
        let state = State {
            target: target.to_owned(),
            ..State::default()
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let accepting = Arc::clone(&shared);
        let acceptor = thread::spawn(move || accept(&listener, &accepting));
        Forwarder {
            address,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// Where clients connect, `host:port`.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// The port alone.
    pub fn port(&self) -> u16 {
        let port = self.address.rsplit(':').next().expect("host:port");
        port.parse().expect("a port")
    }

    /// Ends all links now. New ones are taken.
    pub fn cut(&self) {
        self.shared.lock().cut();
        self.shared.changed.notify_all();
    }

    /// Ends all links after exactly `bytes` more bytes were sent to clients.
    pub fn cut_after(&self, bytes: usize) {
        self.shared.lock().cut_after = Some(bytes);
    }

    /// Holds back what comes from now on, in both directions; links stay up.
    pub fn stall(&self) {
        self.shared.lock().stalled = true;
    }

    /// Ends a stall.
    pub fn go_on(&self) {
        self.shared.lock().stalled = false;
        self.shared.changed.notify_all();
    }

    /// From now on a new connection is closed as soon as it is made.
    pub fn refuse(&self) {
        self.shared.lock().refusing = true;
    }

    /// Takes new connections again.
    pub fn admit(&self) {
        self.shared.lock().refusing = false;
    }

    /// New connections go to `target`.
    pub fn point_at(&self, target: &str) {
        target.clone_into(&mut self.shared.lock().target);
    }

    /// Links made to a target so far.
    pub fn links_made(&self) -> usize {
        self.shared.lock().links_made
    }

    /// Connections so far, refused ones too.
    pub fn tries(&self) -> usize {
        self.shared.lock().tries
    }

    /// Bytes sent to clients so far.
    pub fn down_bytes(&self) -> u64 {
        self.shared.lock().down_bytes
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.closed = true;
            state.cut();
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
}

impl State {
    fn cut(&mut self) {
        self.cut_after = None;
        for link in self.links.drain(..) {
            let _ = link.client.shutdown(Shutdown::Both);
            let _ = link.server.shutdown(Shutdown::Both);
        }
    }

    fn is_up(&self, id: usize) -> bool {
        self.links.iter().any(|link| link.id == id)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut pumps = Vec::new();
    loop {
        let Ok((client, _)) = listener.accept() else {
            break;
        };
        // A thread that has ended keeps its stack until nobody can join it.
        pumps.retain(|pump: &JoinHandle<()>| !pump.is_finished());
        let target = {
            let mut state = shared.lock();
            if state.closed {
                break;
            }
            state.tries += 1;
            (!state.refusing).then(|| state.target.clone())
        };
        let Some(Ok(server)) = target.map(TcpStream::connect) else {
            continue;
        };
        for stream in [&client, &server] {
            stream.set_nodelay(true).expect("a TCP socket");
        }
        let copy = |stream: &TcpStream| stream.try_clone().expect("one more descriptor");
        let id = {
            let mut state = shared.lock();
            state.links_made += 1;
            let id = state.links_made;
            state.links.push(Link {
                id,
                client: copy(&client),
                server: copy(&server),
            });
            id
        };
        let (from, to) = (copy(&client), copy(&server));
        for (way, from, to) in [(Way::Up, from, to), (Way::Down, server, client)] {
            let shared = Arc::clone(shared);
            pumps.push(thread::spawn(move || {
                pump(&shared, way, id, from, to);
            }));
        }
    }
    for pump in pumps {
        let _ = pump.join();
    }
}

fn pump(shared: &Shared, way: Way, id: usize, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = from.read(&mut buffer).unwrap_or(0);
        let mut state = shared.lock();
        while state.stalled && state.is_up(id) {
            state = shared
                .changed
                .wait(state)
                .expect("no panic while it was held");
        }
        if read == 0 || !state.is_up(id) {
            break;
        }
        let mut send = read;
        let mut last = false;
        if way == Way::Down {
            if let Some(left) = &mut state.cut_after {
                send = read.min(*left);
                *left -= send;
                last = *left == 0;
            }
            state.down_bytes += send as u64;
        }
        drop(state);
        if to.write_all(&buffer[..send]).is_err() {
            break;
        }
        if last {
            shared.lock().cut();
            shared.changed.notify_all();
            break;
        }
    }
    // One direction's end is the end of both: that is what a broken link is.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
    shared.lock().links.retain(|link| link.id != id);
}
