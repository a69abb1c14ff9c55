//! Who may ask: the `Host`, the token, the kind of body.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, Method, StatusCode, Uri, header};

use super::answer::Refused;
use super::token::Token;

/// Paths that ask for no token.
const OPEN_PATHS: [&str; 2] = ["/livez", "/readyz"];

/// What requests are held against.
#[derive(Debug)]
pub struct Guard {
    /// Where we listen.
    pub bound: SocketAddr,
    /// What callers must know.
    pub token: Option<Token>,
}

impl Guard {
    /// # Errors
    /// 421 for a `Host` that is not ours, 401 without the token, 415 for a
    /// POST that is not JSON.
    pub fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refused> {
        self.check_host(headers)?;
        if !OPEN_PATHS.contains(&uri.path()) {
            self.check_token(headers)?;
        }
        if method == Method::POST {
            check_json(headers)?;
        }
        Ok(())
    }

    /// On loopback only a page that was rebound to us by DNS names another
    /// host; elsewhere we cannot know our names, and there is a token.
    fn check_host(&self, headers: &HeaderMap) -> Result<(), Refused> {
        if !self.bound.ip().is_loopback() {
            return Ok(());
        }
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        if host.is_some_and(is_loopback_name) {
            return Ok(());
        }
        Err(Refused::new(
            StatusCode::MISDIRECTED_REQUEST,
            format!("this listens on loopback: ask for Host {}", self.bound),
        ))
    }

    fn check_token(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let Some(token) = &self.token else {
            return Ok(());
        };
        let given = headers
            .get(header::AUTHORIZATION)
            .map(|value| value.as_bytes());
        let bearer = given.and_then(|value| value.strip_prefix(b"Bearer "));
        if bearer.is_some_and(|given| token.matches(given)) {
            return Ok(());
        }
        Err(Refused::new(
            StatusCode::UNAUTHORIZED,
            "send the token of [admin] as `Authorization: Bearer TOKEN`",
        ))
    }
}

fn is_loopback_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        // The colons of a bare IPv6 address are its own.
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !port.is_empty() => name,
        _ => host,
    };
    let bare = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(name);
    let address = bare.parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn check_json(headers: &HeaderMap) -> Result<(), Refused> {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    if kind.trim().eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Refused::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "send the body as `Content-Type: application/json`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names() {
        for host in [
            "localhost",
            "LocalHost:80",
            "127.0.0.1",
            "127.8.9.1:9180",
            "[::1]",
            "[::1]:9180",
        ] {
            assert!(is_loopback_name(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9180",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            ":80",
        ] {
            assert!(!is_loopback_name(host), "{host}");
        }
    }
}
