//! `listen:` and the lines under `servers:`, taken apart from the right as the
//! original does.
//!
//! ```text
//! host:port:weight [name]          host may hold colons (IPv6, no brackets)
//! /path/of/socket:weight [name]    the path may not
//! ```

use std::net::ToSocketAddrs;

use crate::reuseport::address::{ListenAddress, UNIX_PATH_BYTES_MAX};
use crate::router::spec::ShardSpec;

use super::umask::mode_left;

const SERVER_FORM: &str = "has an invalid \"hostname:port:weight [name]\"or \"/path/unix_socket:weight [name]\" format string";
const LISTEN_MODE: &str =
    "has an invalid file permission in \"socket_path permission\" format string";

/// Decimal digits only, as large as a C `int`.
pub fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number: u32 = digits.then(|| text.parse().ok()).flatten()?;
    i32::try_from(number).is_ok().then_some(number)
}

fn port(text: &str) -> Option<u16> {
    let port = u16::try_from(number(text)?).ok()?;
    (port > 0).then_some(port)
}

/// One server.
pub fn server(line: &str) -> Result<ShardSpec, String> {
    let form = || SERVER_FORM.to_owned();
    let (address, name) = match line.rsplit_once(' ') {
        Some((address, name)) => (address, Some(name)),
        None => (line, None),
    };
    let (place, weight) = address.rsplit_once(':').ok_or_else(form)?;
    let is_socket = line.starts_with('/');
    let typed_port = match place.rsplit_once(':') {
        Some(_) if is_socket => return Err(form()),
        None if !is_socket => return Err(form()),
        Some((_, port)) => Some(port),
        None => None,
    };
    let told = |what: &str| format!("has {what} in \"hostname:port:weight [name]\" format string");
    let weight = number(weight).ok_or_else(|| told("an invalid weight"))?;
    if weight == 0 {
        return Err(told("a zero weight"));
    }
    if typed_port.is_some_and(|typed| port(typed).is_none()) {
        return Err(told("an invalid port"));
    }
    if name == Some("") || place.is_empty() {
        return Err(form());
    }
    Ok(ShardSpec {
        name: name.map(str::to_owned),
        addr: if is_socket {
            format!("unix:{place}")
        } else {
            place.to_owned()
        },
        weight,
        slots: None,
    })
}

/// Where clients connect. A host name is looked up now; its first address
/// counts.
pub fn listen(text: &str) -> Result<ListenAddress, String> {
    if text.starts_with('/') {
        return listen_socket(text);
    }
    let (host, typed) = text
        .rsplit_once(':')
        .ok_or("has an invalid \"hostname:port\" format string")?;
    let port = port(typed).ok_or("has an invalid port in \"hostname:port\" format string")?;
    let unknown = || format!("names the host '{host}', which cannot be resolved");
    let mut found = (host, port).to_socket_addrs().map_err(|_| unknown())?;
    found.next().map(ListenAddress::Tcp).ok_or_else(unknown)
}

fn listen_socket(text: &str) -> Result<ListenAddress, String> {
    let (path, mode) = match text.rsplit_once(' ') {
        None => (text, mode_left()),
        Some((path, octal)) => match u32::from_str_radix(octal, 8) {
            Ok(mode) if mode <= 0o777 => (path, mode),
            _ => return Err(LISTEN_MODE.to_owned()),
        },
    };
    if path.len() > UNIX_PATH_BYTES_MAX {
        return Err(format!(
            "has a path of more than {UNIX_PATH_BYTES_MAX} bytes"
        ));
    }
    Ok(ListenAddress::Unix {
        path: path.into(),
        mode,
    })
}
