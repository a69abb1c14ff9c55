//! One kept-alive HTTP/1.1 connection to a proxy's admin API.
//!
//! Invariant: after an error or a wait that ran out the connection is dropped,
//! so an answer that comes late is never taken for the answer to another call.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::wire::{self, PoolView, PoolsAnswer, RefusalAnswer, ShardLogin, SwitchAnswer};
use super::{ASK_MS_MAX, CALL_MS_MAX, CONNECT_MS_MAX, ProxyError, STAGE_MS_MAX, SwitchTerms};
use crate::reshard::cutover::{Call, Pause};
use crate::upstream::config::Secret;

const POOLS_PATH: &str = "/api/v1/pools";

/// Longest answer that is read: the layouts of all pools.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Admin address of one proxy: `http://host:port`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProxyUrl {
    authority: String,
}

/// Why a text is no proxy address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// TLS to the admin API.
    #[error("\"{0}\": https is not in this build; write http://host:port of [admin].http")]
    Https(String),
    /// Anything else.
    #[error("\"{0}\" is not a proxy's address; write http://host:port of its [admin].http")]
    Form(String),
}

impl FromStr for ProxyUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text.starts_with("https:") {
            return Err(UrlError::Https(text.to_owned()));
        }
        let form = || UrlError::Form(text.to_owned());
        let rest = text.strip_prefix("http://").unwrap_or(text);
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = authority.rsplit_once(':').ok_or_else(form)?;
        let port_fits = port.parse::<u16>().is_ok_and(|port| port > 0);
        let host_fits = !host.is_empty()
            && host
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || ".-_[]:".contains(c))
            && (host.starts_with('[') == host.contains(':'));
        if !port_fits || !host_fits {
            return Err(form());
        }
        Ok(Self {
            authority: authority.to_owned(),
        })
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

/// A connection that dials when it is needed.
#[derive(Debug)]
pub struct Connection {
    url: ProxyUrl,
    token: Option<Secret>,
    live: Option<Live>,
}

#[derive(Debug)]
struct Live {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// A connection to the proxy at `url`; nothing is dialled yet.
    pub fn new(url: ProxyUrl, token: Option<Secret>) -> Self {
        Self {
            url,
            token,
            live: None,
        }
    }

    /// What the proxy says of `pool`.
    ///
    /// # Errors
    /// [`ProxyError`].
    pub async fn pool(&mut self, pool: &str) -> Result<PoolView, ProxyError> {
        let doing = "GET pools";
        let wait = Duration::from_millis(ASK_MS_MAX);
        let reused = self.live.is_some();
        let mut answer = self
            .ask(Method::GET, POOLS_PATH, Bytes::new(), doing, wait)
            .await;
        // An idle connection may have been closed meanwhile; asking again changes nothing.
        if reused && matches!(answer, Err(ProxyError::Unreachable { .. })) {
            answer = self
                .ask(Method::GET, POOLS_PATH, Bytes::new(), doing, wait)
                .await;
        }
        let answer = answer?;
        let answer: PoolsAnswer = self.read(&answer, doing)?;
        if answer.v != wire::VERSION {
            return Err(self.bad_answer(doing, format!("version {} of the API", answer.v)));
        }
        let known: Vec<String> = answer.pools.iter().map(|view| view.name.clone()).collect();
        let found = answer.pools.into_iter().find(|view| view.name == pool);
        found.ok_or_else(|| ProxyError::UnknownPool {
            proxy: self.url.clone(),
            pool: pool.to_owned(),
            known,
        })
    }

    /// One step of a switch.
    ///
    /// # Errors
    /// [`ProxyError`].
    pub async fn switch(
        &mut self,
        pool: &str,
        call: Call,
        terms: &SwitchTerms,
    ) -> Result<Pause, ProxyError> {
        let doing = call.name();
        let wait = match call {
            Call::Stage => Duration::from_millis(STAGE_MS_MAX),
            // A hold answers when all is drained; the coordinator's own deadline is shorter.
            Call::Hold => terms.lease + Duration::from_millis(CALL_MS_MAX),
            Call::Arm | Call::Commit | Call::Abort => Duration::from_millis(CALL_MS_MAX),
        };
        let path = format!("/api/v1/pools/{pool}/switch/{doing}");
        let body = wire::body(call, terms)
            .map_err(|error| self.bad_answer(doing, format!("the question: {error}")))?;
        let answer = self
            .ask(Method::POST, &path, body.into(), doing, wait)
            .await?;
        let answer: SwitchAnswer = self.read(&answer, doing)?;
        Ok(answer.into())
    }

    /// Tells the proxy that a job works on `pool` for the next `lease`; zero: no
    /// more. With `logins` it answers when all its connections log in as these;
    /// without any of them, as its config says.
    ///
    /// # Errors
    /// [`ProxyError`]; `Refused` with reason `other_job` when another one does.
    pub async fn announce(
        &mut self,
        pool: &str,
        (job, incarnation): (&str, u64),
        lease: Duration,
        logins: Option<&[ShardLogin]>,
    ) -> Result<(), ProxyError> {
        let doing = "job";
        let body = wire::announcement(job, incarnation, lease, logins)
            .map_err(|error| self.bad_answer(doing, format!("the question: {error}")))?;
        let path = format!("/api/v1/pools/{pool}/job");
        let wait = Duration::from_millis(ASK_MS_MAX);
        self.ask(Method::POST, &path, body.into(), doing, wait)
            .await
            .map(drop)
    }

    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        doing: &'static str,
        wait: Duration,
    ) -> Result<Bytes, ProxyError> {
        let mut live = match self.live.take() {
            Some(live) if !live.sender.is_closed() => live,
            _ => self.dial(doing).await?,
        };
        let request = self.request(method, path, body, doing)?;
        let exchange = async {
            live.sender.ready().await.map_err(|e| e.to_string())?;
            let answer = live.sender.send_request(request).await;
            let (head, body) = answer.map_err(|e| e.to_string())?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|e| e.to_string())?.to_bytes();
            Ok::<_, String>((head.status, body))
        };
        match timeout(wait, exchange).await {
            Ok(Ok((status, body))) => {
                self.live = Some(live);
                self.judge(status, body, path, doing)
            }
            Ok(Err(what)) => Err(self.unreachable(doing, what)),
            Err(_) => Err(ProxyError::Late {
                proxy: self.url.clone(),
                doing,
                waited_ms: wait.as_millis() as u64,
            }),
        }
    }

    async fn dial(&self, doing: &'static str) -> Result<Live, ProxyError> {
        let dialled = async {
            let stream = TcpStream::connect(&self.url.authority)
                .await
                .map_err(|error| error.to_string())?;
            stream
                .set_nodelay(true)
                .map_err(|error| error.to_string())?;
            http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| error.to_string())
        };
        let wait = Duration::from_millis(CONNECT_MS_MAX);
        match timeout(wait, dialled).await {
            Ok(Ok((sender, connection))) => Ok(Live {
                sender,
                // Its error, if any, comes out of the request that waits for it.
                driver: tokio::spawn(async move { drop(connection.await) }),
            }),
            Ok(Err(what)) => Err(self.unreachable(doing, what)),
            Err(_) => {
                Err(self.unreachable(doing, format!("no connection within {CONNECT_MS_MAX} ms")))
            }
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        doing: &'static str,
    ) -> Result<Request<Full<Bytes>>, ProxyError> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.url.authority.as_str());
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.reveal()));
        }
        // The error would print a header's value: the token's.
        request
            .body(Full::new(body))
            .map_err(|_| self.bad_answer(doing, "the token or the pool's name is not HTTP".into()))
    }

    fn judge(
        &self,
        status: StatusCode,
        body: Bytes,
        path: &str,
        doing: &'static str,
    ) -> Result<Bytes, ProxyError> {
        if status == StatusCode::OK {
            return Ok(body);
        }
        let proxy = self.url.clone();
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            return Err(ProxyError::Unauthorized { proxy, doing });
        }
        if !status.is_client_error() && !status.is_server_error() {
            return Err(self.bad_answer(doing, format!("HTTP {status} for {path}")));
        }
        let RefusalAnswer { error, reason } = serde_json::from_slice(&body).unwrap_or_default();
        let message = if error.is_empty() {
            format!("HTTP {status} for {path}")
        } else {
            error
        };
        Err(if status.is_client_error() {
            ProxyError::Refused {
                proxy,
                doing,
                message,
                reason,
            }
        } else {
            ProxyError::Failed {
                proxy,
                doing,
                message,
                reason,
            }
        })
    }

    fn read<T: serde::de::DeserializeOwned>(
        &self,
        body: &[u8],
        doing: &'static str,
    ) -> Result<T, ProxyError> {
        serde_json::from_slice(body).map_err(|error| self.bad_answer(doing, error.to_string()))
    }

    fn bad_answer(&self, doing: &'static str, what: String) -> ProxyError {
        ProxyError::BadAnswer {
            proxy: self.url.clone(),
            doing,
            what,
        }
    }

    fn unreachable(&self, doing: &'static str, what: String) -> ProxyError {
        ProxyError::Unreachable {
            proxy: self.url.clone(),
            doing,
            what,
        }
    }
}
