//! The shards: GET is answered by `$64` and as many bytes, PING by `+PONG`, all
//! else by `+OK`.
//!
//! A request that has its lengths where the one before it had them is skipped
//! without looking at it again.

use std::io::{self, Read};
use std::net::SocketAddr;
use std::rc::Rc;

use keyferry::resp::{Request, RequestLimits, RequestScanner};
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Poll, Token};

use crate::bench_support::Output;

/// Arguments of a request whose shape is worth knowing.
const SHAPE_ARGS_MAX: usize = 3;
/// Tokens below this are listeners.
const CONNECTIONS: usize = 1024;

/// All shards.
pub struct Shards {
    listeners: Vec<TcpListener>,
    connections: Vec<Option<Connection>>,
    get: Rc<[u8]>,
}

struct Connection {
    stream: TcpStream,
    output: Output,
    /// The beginning of a request whose end has not arrived.
    partial: Vec<u8>,
    reader: Reader,
}

impl Shards {
    /// One on each port; tokens start at 0.
    pub fn listen(poll: &Poll, ports: &[usize], value_bytes: usize) -> Self {
        let listen = |(at, &port): (usize, &usize)| {
            let address = SocketAddr::from(([127, 0, 0, 1], port as u16));
            let mut listener = TcpListener::bind(address).expect("the port is free");
            poll.registry()
                .register(&mut listener, Token(at), Interest::READABLE)
                .expect("a registered listener");
            listener
        };
        let value = "x".repeat(value_bytes);
        Self {
            listeners: ports.iter().enumerate().map(listen).collect(),
            connections: Vec::new(),
            get: Rc::from(format!("${value_bytes}\r\n{value}\r\n").into_bytes()),
        }
    }

    /// Something happened at the token `at`.
    pub fn serve(&mut self, poll: &Poll, at: usize, scratch: &mut [u8]) {
        if at < CONNECTIONS {
            self.accept(poll, at);
        } else if let Some(place) = self.connections.get_mut(at - CONNECTIONS)
            && let Some(connection) = place
            && connection.serve(scratch).is_err()
        {
            *place = None;
        }
    }

    fn accept(&mut self, poll: &Poll, listener: usize) {
        while let Ok((mut stream, _)) = self.listeners[listener].accept() {
            stream.set_nodelay(true).expect("a socket");
            let token = Token(CONNECTIONS + self.connections.len());
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry()
                .register(&mut stream, token, both)
                .expect("a registered connection");
            self.connections.push(Some(Connection {
                stream,
                output: Output::default(),
                partial: Vec::new(),
                reader: Reader::new(Rc::clone(&self.get)),
            }));
        }
    }
}

impl Connection {
    /// Reads until a read comes back short, and writes what is to be said once.
    fn serve(&mut self, scratch: &mut [u8]) -> io::Result<()> {
        loop {
            let taken = match self.stream.read(scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(taken) => taken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            let bytes = &scratch[..taken];
            if self.partial.is_empty() {
                let used = self.reader.answer(bytes, &mut self.output.bytes)?;
                self.partial.extend_from_slice(&bytes[used..]);
            } else {
                self.partial.extend_from_slice(bytes);
                let used = self.reader.answer(&self.partial, &mut self.output.bytes)?;
                self.partial.drain(..used);
            }
            if taken < scratch.len() {
                break;
            }
        }
        self.output.write_to(&mut self.stream)
    }
}

/// What stood around the arguments of the last request, and its reply.
#[derive(Default)]
struct Shape {
    /// Offset and bytes of all that is neither key nor value.
    headers: Vec<(usize, Vec<u8>)>,
    length: usize,
    reply: Reply,
}

#[derive(Clone, Copy, Default)]
enum Reply {
    #[default]
    Ok,
    Pong,
    Value,
}

struct Reader {
    scanner: RequestScanner,
    shape: Shape,
    get: Rc<[u8]>,
}

impl Reader {
    fn new(get: Rc<[u8]>) -> Self {
        Self {
            scanner: RequestScanner::new(RequestLimits::default()),
            shape: Shape::default(),
            get,
        }
    }

    /// Answers all whole requests of `bytes`; how many bytes they take.
    fn answer(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<usize> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if !self.scanner.is_partial() && self.shape.is_of(rest) {
                at += self.shape.length;
            } else {
                let scanned = self.scanner.scan(rest);
                match scanned.map_err(|_| io::ErrorKind::InvalidData)? {
                    Some(request) => {
                        at += request.consumed;
                        self.shape.learn(&request);
                    }
                    None => break,
                }
            }
            out.extend_from_slice(match self.shape.reply {
                Reply::Ok => b"+OK\r\n",
                Reply::Pong => b"+PONG\r\n",
                Reply::Value => &self.get,
            });
        }
        Ok(at)
    }
}

impl Shape {
    #[inline]
    fn is_of(&self, bytes: &[u8]) -> bool {
        self.length != 0
            && self.length <= bytes.len()
            && (self.headers.iter())
                .all(|(at, header)| bytes.get(*at..*at + header.len()) == Some(header))
    }

    fn learn(&mut self, request: &Request<'_>) {
        let name = request.arg(0).to_ascii_uppercase();
        self.reply = match name.as_slice() {
            b"GET" => Reply::Value,
            b"PING" => Reply::Pong,
            _ => Reply::Ok,
        };
        self.headers.clear();
        if request.args.len() > SHAPE_ARGS_MAX {
            self.length = 0; // an MSET has as many keys as fell to this shard
            return;
        }
        self.length = request.consumed;
        let mut from = 0;
        for arg in request.args.iter().skip(1) {
            let (start, end) = (arg.start as usize, arg.end as usize);
            self.headers
                .push((from, request.bytes[from..start].to_vec()));
            from = end;
        }
        self.headers.push((from, request.bytes[from..].to_vec()));
    }
}
