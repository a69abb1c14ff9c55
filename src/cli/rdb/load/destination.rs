//! `--to`: a URL of one server, or a LAYOUT file.
//!
//! ```text
//! redis://[USER:PASSWORD@]HOST:PORT[/DB]     USER and PASSWORD percent-encoded
//! unix:/PATH
//! anything else                              the name of a LAYOUT file
//! ```

use std::path::Path;
use std::sync::Arc;

use crate::config::load_layout;
use crate::rdbfile::load::Destination;
use crate::router::address::ShardAddress;
use crate::router::layout::Layout;
use crate::upstream::{Credentials, Secret, UpstreamConfig};

/// Where to, as it was meant.
#[derive(Debug)]
pub struct To {
    /// The servers.
    pub destination: Destination,
    /// The database that all keys go to, if one was named.
    pub database: Option<u32>,
    /// With credentials.
    pub upstream: UpstreamConfig,
}

impl To {
    /// Reads `--to`, `--user` and `--password-file`.
    ///
    /// # Errors
    /// What is wrong, laid out as an error; secrets are not in it.
    pub fn parse(
        text: &str,
        user: Option<&str>,
        password_file: Option<&Path>,
    ) -> Result<To, String> {
        let filed = password_file
            .map(|file| credentials(user, file))
            .transpose()?;
        let (destination, database, written) = if let Some(rest) = text.strip_prefix("redis://") {
            let url = parse_url(rest)?;
            (
                Destination::Server(url.address),
                url.database,
                url.credentials,
            )
        } else if text.starts_with("unix:") {
            (Destination::Server(address(text)?), None, None)
        } else if text.contains("://") {
            return Err(wrong("only redis:// is spoken, without TLS"));
        } else {
            (layout(Path::new(text))?, None, None)
        };
        if written.is_some() && filed.is_some() {
            return Err(wrong("the password is in the URL and in --password-file"));
        }
        let upstream = UpstreamConfig {
            credentials: written.or(filed),
            ..UpstreamConfig::default()
        };
        Ok(To {
            destination,
            database,
            upstream,
        })
    }
}

fn wrong(what: &str) -> String {
    format!(
        "error: --to: {what}\n  help: write redis://[USER:PASSWORD@]HOST:PORT[/DB], unix:/PATH or the name of a LAYOUT file"
    )
}

struct Url {
    address: ShardAddress,
    database: Option<u32>,
    credentials: Option<Credentials>,
}

fn parse_url(rest: &str) -> Result<Url, String> {
    let (login, place) = match rest.rsplit_once('@') {
        Some((login, place)) => (Some(login), place),
        None => (None, rest),
    };
    let (place, database) = match place.split_once('/') {
        Some((place, "")) => (place, None),
        Some((place, number)) => {
            let number = number.parse();
            let number =
                number.map_err(|_| wrong("behind the / stands the number of a database"))?;
            (place, Some(number))
        }
        None => (place, None),
    };
    let credentials = match login {
        None => None,
        Some(login) => {
            let (user, password) = login.split_once(':').unwrap_or(("", login));
            let (user, password) = (decoded(user)?, decoded(password)?);
            Some(Credentials {
                username: (!user.is_empty()).then_some(user),
                password: Secret::new(password),
            })
        }
    };
    Ok(Url {
        address: address(place)?,
        database,
        credentials,
    })
}

fn address(text: &str) -> Result<ShardAddress, String> {
    text.parse().map_err(|error| wrong(&format!("{error}")))
}

/// Undoes percent-encoding.
fn decoded(text: &str) -> Result<String, String> {
    let bad = || wrong("in USER and PASSWORD, % is followed by two hex digits");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || {
            let digit = char::from(rest.next().unwrap_or(b' ')).to_digit(16);
            digit
                .and_then(|digit| u8::try_from(digit).ok())
                .ok_or_else(bad)
        };
        bytes.push(digit()? << 4 | digit()?);
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

fn layout(file: &Path) -> Result<Destination, String> {
    let spec = load_layout(file).map_err(|error| error.to_string())?;
    let layout = Layout::new(spec).map_err(|error| format!("error: {error}"))?;
    Ok(Destination::Layout(Arc::new(layout)))
}

fn credentials(user: Option<&str>, file: &Path) -> Result<Credentials, String> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        format!(
            "error: cannot read {}: {error}\n  help: put the password into it and let this user read it",
            file.display()
        )
    })?;
    let line = text.lines().next().unwrap_or_default();
    Ok(Credentials {
        username: user.map(str::to_owned),
        password: Secret::new(line),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_server_and_perhaps_a_login_and_a_database() {
        let to = To::parse("redis://u%40x:p%3a@[::1]:7/3", None, None).unwrap();
        assert_eq!(to.database, Some(3));
        let Destination::Server(address) = &to.destination else {
            panic!("{to:?}")
        };
        assert_eq!(address.to_string(), "[::1]:7");
        let login = to.upstream.credentials.unwrap();
        assert_eq!(login.username.as_deref(), Some("u@x"));
        assert_eq!(login.password.reveal(), "p:");
        let to = To::parse("redis://:secret@h:1", None, None).unwrap();
        let login = to.upstream.credentials.unwrap();
        assert_eq!((login.username, login.password.reveal()), (None, "secret"));
        let to = To::parse("redis://h:1/", None, None).unwrap();
        assert!(to.upstream.credentials.is_none() && to.database.is_none());
        assert!(To::parse("unix:/run/r.sock", None, None).is_ok());
    }

    #[test]
    fn mistakes_are_told_without_the_password() {
        for text in [
            "redis://h",
            "redis://u:secret@h",
            "redis://u:secret@h:1/x",
            "redis://u:secret%zz@h:1",
            "rediss://u:secret@h:1",
            "/nowhere/layout.toml",
        ] {
            let error = To::parse(text, None, None).unwrap_err();
            assert!(error.starts_with("error: "), "{text}: {error}");
            assert!(!error.contains("secret"), "{text}: {error}");
        }
    }
}
