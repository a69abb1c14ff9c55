//! A small blocking RESP2/RESP3 client. It is written apart from `src/resp` on
//! purpose: a mistake made in both places is less likely than one made once.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Long enough for any reply a test waits for, short enough to end a hung test.
const REPLY_LIMIT: Duration = Duration::from_secs(60);

/// One reply.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// `+`
    Simple(String),
    /// `-`
    Error(String),
    /// `:`
    Int(i64),
    /// `$`
    Bulk(Vec<u8>),
    /// `$-1`, `*-1`, `_`
    Null,
    /// `*`
    Array(Vec<Value>),
    /// `%`
    Map(Vec<(Value, Value)>),
    /// `~`
    Set(Vec<Value>),
    /// `>`
    Push(Vec<Value>),
    /// `,` as it was written
    Double(String),
    /// `#`
    Bool(bool),
    /// `(`
    BigNumber(String),
    /// `=` with its three-letter kind
    Verbatim(Vec<u8>),
}

impl Value {
    /// A bulk string of `text`.
    pub fn bulk(text: impl AsRef<[u8]>) -> Value {
        Value::Bulk(text.as_ref().to_vec())
    }

    /// `+OK`.
    pub fn ok() -> Value {
        Value::Simple("OK".into())
    }

    /// True for `-...`.
    pub fn is_error(&self) -> bool {
        matches!(self, Value::Error(_))
    }

    /// The integer; panics on anything else.
    pub fn int(&self) -> i64 {
        match self {
            Value::Int(number) => *number,
            other => panic!("an integer was expected, not {other:?}"),
        }
    }

    /// The bytes of a bulk or simple string; panics on anything else.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Value::Bulk(bytes) => bytes,
            Value::Simple(text) => text.as_bytes(),
            other => panic!("a string was expected, not {other:?}"),
        }
    }

    /// The string, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    /// The elements of an array or set; panics on anything else.
    pub fn items(&self) -> &[Value] {
        match self {
            Value::Array(items) | Value::Set(items) | Value::Push(items) => items,
            other => panic!("an array was expected, not {other:?}"),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Simple(text) => write!(out, "+{text}"),
            Value::Error(text) => write!(out, "-{text}"),
            Value::Int(number) => write!(out, ":{number}"),
            Value::Bulk(bytes) => write!(out, "\"{}\"", bytes.escape_ascii()),
            Value::Null => out.write_str("null"),
            Value::Array(items) => items.fmt(out),
            Value::Map(pairs) => write!(out, "map{pairs:?}"),
            Value::Set(items) => write!(out, "set{items:?}"),
            Value::Push(items) => write!(out, "push{items:?}"),
            Value::Double(text) => write!(out, ",{text}"),
            Value::Bool(yes) => write!(out, "#{yes}"),
            Value::BigNumber(text) => write!(out, "({text}"),
            Value::Verbatim(bytes) => write!(out, "={}", bytes.escape_ascii()),
        }
    }
}

/// Appends one command as an array of bulks.
pub fn encode<A: AsRef<[u8]>>(out: &mut Vec<u8>, args: &[A]) {
    out.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
    for arg in args {
        let arg = arg.as_ref();
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// One connection.
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects; panics when that fails.
    pub fn connect(address: &str) -> Client {
        Client::try_connect(address).unwrap_or_else(|err| panic!("connect {address}: {err}"))
    }

    /// Connects.
    pub fn try_connect(address: &str) -> io::Result<Client> {
        let target = address
            .to_socket_addrs()?
            .next()
            .ok_or_else(|| io::Error::other("no such address"))?;
        let stream = TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_LIMIT))?;
        stream.set_write_timeout(Some(REPLY_LIMIT))?;
        Ok(Client {
            reader: BufReader::with_capacity(64 * 1024, stream),
        })
    }

    /// Sets how long a read may take.
    pub fn set_reply_limit(&self, limit: Duration) {
        self.reader
            .get_ref()
            .set_read_timeout(Some(limit))
            .expect("a socket takes a timeout");
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.try_send_raw(bytes)
            .expect("the connection takes bytes");
    }

    /// Sends bytes as they are.
    pub fn try_send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Sends one command without waiting for its reply.
    pub fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        let mut out = Vec::new();
        encode(&mut out, args);
        self.send_raw(&out);
    }

    /// One command, one reply; panics when the connection breaks.
    pub fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Value {
        self.try_call(args).unwrap_or_else(|err| {
            let shown: Vec<_> = args
                .iter()
                .map(|arg| arg.as_ref().escape_ascii().to_string())
                .collect();
            panic!("no reply to {shown:?}: {err}")
        })
    }

    /// One command, one reply.
    pub fn try_call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Value> {
        let mut out = Vec::new();
        encode(&mut out, args);
        self.try_send_raw(&out)?;
        self.try_read()
    }

    /// Sends all commands at once, then reads as many replies.
    pub fn pipeline<C: AsRef<[A]>, A: AsRef<[u8]>>(&mut self, commands: &[C]) -> Vec<Value> {
        let mut out = Vec::new();
        for command in commands {
            encode(&mut out, command.as_ref());
        }
        self.send_raw(&out);
        commands.iter().map(|_| self.read()).collect()
    }

    /// The next reply; panics when the connection breaks.
    pub fn read(&mut self) -> Value {
        self.try_read()
            .unwrap_or_else(|err| panic!("no reply: {err}"))
    }

    /// The next reply.
    pub fn try_read(&mut self) -> io::Result<Value> {
        read_value(&mut self.reader, &mut Vec::new())
    }

    /// The next reply's exact bytes.
    pub fn read_reply_bytes(&mut self) -> io::Result<Vec<u8>> {
        let mut raw = Vec::new();
        read_value(&mut self.reader, &mut raw)?;
        Ok(raw)
    }

    /// Sends `request` as it is and reads one reply's exact bytes.
    pub fn exchange_bytes(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        self.try_send_raw(request)?;
        self.read_reply_bytes()
    }

    /// Everything until the server closes.
    pub fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        match self.reader.read_to_end(&mut out) {
            // A close with our bytes unread arrives as a reset.
            Err(err) if err.kind() == io::ErrorKind::ConnectionReset => Ok(out),
            Err(err) => Err(err),
            Ok(_) => Ok(out),
        }
    }

    /// The bytes that the server sends, for reading a reply piece by piece.
    pub fn reader(&mut self) -> &mut impl BufRead {
        &mut self.reader
    }

    /// A second handle on the same socket, for reading in another thread.
    pub fn try_clone_stream(&self) -> io::Result<TcpStream> {
        self.reader.get_ref().try_clone()
    }
}

/// The reply that these bytes are.
pub fn parse(mut bytes: &[u8]) -> io::Result<Value> {
    read(&mut bytes)
}

/// The next reply, or request, of `input`.
pub fn read(input: &mut impl BufRead) -> io::Result<Value> {
    read_value(input, &mut Vec::new())
}

fn read_line(input: &mut impl BufRead, raw: &mut Vec<u8>) -> io::Result<String> {
    let from = raw.len();
    input.read_until(b'\n', raw)?;
    let line = &raw[from..];
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let Some(line) = line.strip_suffix(b"\r\n") else {
        return Err(bad(format!("a line without CRLF: {}", line.escape_ascii())));
    };
    Ok(String::from_utf8_lossy(line).into_owned())
}

fn bad(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn number(text: &str) -> io::Result<i64> {
    text.parse()
        .map_err(|_| bad(format!("not a number: {text:?}")))
}

/// Reads one reply, and appends its bytes to `raw`.
fn read_value(input: &mut impl BufRead, raw: &mut Vec<u8>) -> io::Result<Value> {
    let line = read_line(input, raw)?;
    let Some((kind, rest)) = line.split_at_checked(1) else {
        return Err(bad("an empty line where a reply was expected".into()));
    };
    Ok(match kind {
        "+" => Value::Simple(rest.to_owned()),
        "-" => Value::Error(rest.to_owned()),
        ":" => Value::Int(number(rest)?),
        "_" => Value::Null,
        "," => Value::Double(rest.to_owned()),
        "#" => Value::Bool(rest == "t"),
        "(" => Value::BigNumber(rest.to_owned()),
        "$" | "=" => {
            let length = number(rest)?;
            if length < 0 {
                return Ok(Value::Null);
            }
            let bytes = read_exactly(input, usize::try_from(length).unwrap(), raw)?;
            if kind == "$" {
                Value::Bulk(bytes)
            } else {
                Value::Verbatim(bytes)
            }
        }
        "*" | "~" | ">" => {
            let count = number(rest)?;
            if count < 0 {
                return Ok(Value::Null);
            }
            let items = (0..count)
                .map(|_| read_value(input, raw))
                .collect::<io::Result<Vec<_>>>()?;
            match kind {
                "*" => Value::Array(items),
                "~" => Value::Set(items),
                _ => Value::Push(items),
            }
        }
        "%" => {
            let pairs = (0..number(rest)?)
                .map(|_| Ok((read_value(input, raw)?, read_value(input, raw)?)))
                .collect::<io::Result<Vec<_>>>()?;
            Value::Map(pairs)
        }
        _ => return Err(bad(format!("not a reply: {line:?}"))),
    })
}

fn read_exactly(input: &mut impl BufRead, length: usize, raw: &mut Vec<u8>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length + 2];
    input.read_exact(&mut bytes)?;
    raw.extend_from_slice(&bytes);
    if !bytes.ends_with(b"\r\n") {
        return Err(bad("a bulk string without CRLF at its end".into()));
    }
    bytes.truncate(length);
    Ok(bytes)
}
