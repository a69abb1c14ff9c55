//! What MIGRATE sends to another server, over a connection of its own.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::resp::ReplyScanner;
use crate::store::session::{Carried, Courier, Lost, MasterAddress};
use crate::store::sync::resolve;

/// Replies of RESTORE, AUTH and SELECT are short: more than this is none.
const REPLIES_BYTES_MAX: usize = 16 << 20;
const READ_BYTES: usize = 16 * 1024;

/// Dials anew for each MIGRATE.
#[derive(Debug)]
pub(super) struct TcpCourier;

impl Courier for TcpCourier {
    fn carry(
        &mut self,
        to: &MasterAddress,
        requests: &[u8],
        replies: usize,
        wait: Duration,
    ) -> Carried {
        let mut carried = Carried::default();
        let mut stream = match connect(to, wait) {
            Ok(stream) => stream,
            Err(error) => {
                // As Redis tells it: that nobody listens is seen by the first write.
                carried.lost = Some(match error.kind() {
                    io::ErrorKind::ConnectionRefused => Lost::Writing,
                    _ => Lost::Connecting,
                });
                return carried;
            }
        };
        if stream.write_all(requests).is_err() {
            carried.lost = Some(Lost::Writing);
            return carried;
        }
        if read(&mut stream, replies, &mut carried.replies).is_err() {
            carried.lost = Some(Lost::Reading);
        }
        carried
    }
}

fn connect(to: &MasterAddress, wait: Duration) -> io::Result<TcpStream> {
    if to.port == 0 {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    let always = || true;
    let address = resolve(&to.host, to.port, wait, &always)?;
    let stream = TcpStream::connect_timeout(&address, wait)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(wait))?;
    stream.set_write_timeout(Some(wait))?;
    Ok(stream)
}

fn read(stream: &mut TcpStream, count: usize, replies: &mut Vec<Vec<u8>>) -> io::Result<()> {
    let mut scanner = ReplyScanner::new();
    let (mut input, mut total) = (Vec::new(), 0);
    let mut buffer = [0; READ_BYTES];
    while replies.len() < count {
        let read = stream.read(&mut buffer)?;
        total += read;
        if read == 0 || total > REPLIES_BYTES_MAX {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        input.extend_from_slice(buffer.get(..read).unwrap_or(&[]));
        while let Some(reply) = scanner
            .scan(&input)
            .map_err(|_| io::ErrorKind::InvalidData)?
        {
            replies.push(input.drain(..reply.len).collect());
        }
    }
    Ok(())
}
