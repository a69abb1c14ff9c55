//! What the runner tells of the keyferry under test.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::expect::{Checked, holds};

#[derive(Clone)]
pub struct Proxy {
    pub host: String,
    pub port: u16,
    pub shards: Vec<String>,
    /// Host and port of the runner's control server.
    control: String,
}

impl Proxy {
    /// # Errors
    /// The variable that is missing.
    pub fn of_environment() -> Result<Self, &'static str> {
        let setting = |name| std::env::var(name).map_err(|_| name);
        let control = setting("KEYFERRY_CONTROL")?;
        Ok(Self {
            host: setting("KEYFERRY_HOST")?,
            port: setting("KEYFERRY_PORT")?
                .parse()
                .map_err(|_| "KEYFERRY_PORT")?,
            shards: setting("KEYFERRY_SHARDS")?
                .split(',')
                .map(String::from)
                .collect(),
            control: control.trim_start_matches("http://").to_owned(),
        })
    }

    pub fn url(&self, options: &str) -> String {
        format!("redis://{}:{}/{options}", self.host, self.port)
    }

    /// Ends keyferry and starts it again; returns when it listens.
    pub async fn restart(&self) -> Checked {
        let mut socket = TcpStream::connect(&self.control).await?;
        let request = format!(
            "POST /restart HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.control
        );
        socket.write_all(request.as_bytes()).await?;
        let mut status = [0; 12];
        socket.read_exact(&mut status).await?;
        let status = String::from_utf8_lossy(&status);
        holds(status.ends_with(" 200"), || {
            format!("the runner answered {status} to /restart")
        })
    }
}
