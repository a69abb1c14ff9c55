//! The HTTP server: bind, serve, stop.
//!
//! Invariant: `Admin::bind` fails before anything is served; after it nothing
//! but the process' end closes the port.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::metrics::registry::Registry;
use crate::proxy::control::SwitchTarget;

use super::answer::Refused;
use super::guard::Guard;
use super::listener::BoundedListener;
use super::switch;
use super::token::Token;

/// Longest body of a request: a layout of some ten thousand shards.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Kind of text that `/metrics` answers.
const METRICS_KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where to listen and whom to answer.
#[derive(Debug)]
pub struct AdminSettings {
    /// Port 0 lets the system choose.
    pub http: SocketAddr,
    /// What callers must know.
    pub token: Option<Token>,
}

/// Whether clients should be sent here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet.
    Starting,
    /// Every worker listens.
    Ready,
    /// Not any more: the process is about to end.
    Draining,
}

/// What the handlers show and change.
pub struct AdminState<T> {
    pools: ArcSwap<Vec<T>>,
    registry: Arc<Registry>,
    readiness: watch::Receiver<Readiness>,
}

impl<T: SwitchTarget> AdminState<T> {
    /// Of these pools.
    pub fn new(
        pools: Vec<T>,
        registry: Arc<Registry>,
        readiness: watch::Receiver<Readiness>,
    ) -> Arc<Self> {
        let pools = ArcSwap::from_pointee(pools);
        Arc::new(Self {
            pools,
            registry,
            readiness,
        })
    }

    /// A reload changed the pools.
    pub fn replace_pools(&self, pools: Vec<T>) {
        self.pools.store(Arc::new(pools));
    }

    pub(super) fn pools(&self) -> Arc<Vec<T>> {
        self.pools.load_full()
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }
}

/// The port could not be opened or failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address is taken, is not ours, or needs rights.
    #[error("cannot listen on {address} for `admin.http`: {cause}")]
    Bind {
        /// As configured.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
}

/// A bound admin port.
pub struct Admin {
    listener: TcpListener,
    guard: Guard,
}

impl Admin {
    /// Opens the port.
    ///
    /// # Errors
    /// [`AdminError::Bind`]: ours to fix in the config, or wait for the
    /// process that has the port.
    pub async fn bind(settings: AdminSettings) -> Result<Self, AdminError> {
        let address = settings.http;
        let failed = |cause| AdminError::Bind { address, cause };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let token = settings.token;
        Ok(Self {
            listener,
            guard: Guard { bound, token },
        })
    }

    /// The address with the port the system chose.
    pub fn address(&self) -> SocketAddr {
        self.guard.bound
    }

    /// Serves until `stop` is true or its sender is gone; then answers what
    /// was asked and returns.
    pub async fn serve<T: SwitchTarget>(
        self,
        state: Arc<AdminState<T>>,
        mut stop: watch::Receiver<bool>,
    ) {
        let guard = Arc::new(self.guard);
        let router = Router::new()
            .route("/livez", get(|| async { "alive\n" }))
            .route("/readyz", get(readyz::<T>))
            .route("/metrics", get(metrics::<T>))
            .route("/api/v1/pools", get(switch::list::<T>))
            .route("/api/v1/pools/{pool}/job", post(switch::announce::<T>))
            .route(
                "/api/v1/pools/{pool}/switch/{step}",
                post(switch::step::<T>),
            )
            .fallback(|| async {
                Refused::new(StatusCode::NOT_FOUND, "there is nothing at this path")
            })
            .method_not_allowed_fallback(|| async {
                Refused::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "read by GET, change by POST",
                )
            })
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .layer(from_fn_with_state(guard, checked))
            .with_state(state);
        let stopped = async move {
            // An error means that its sender is gone, which also ends us.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        let served = axum::serve(BoundedListener::new(self.listener), router);
        if let Err(error) = served.with_graceful_shutdown(stopped).await {
            tracing::error!(%error, "the admin port failed");
        }
    }
}

async fn checked(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.check(request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

async fn readyz<T: SwitchTarget>(
    State(state): State<Arc<AdminState<T>>>,
) -> (StatusCode, &'static str) {
    match *state.readiness.borrow() {
        Readiness::Ready => (StatusCode::OK, "ready\n"),
        Readiness::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Readiness::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

async fn metrics<T: SwitchTarget>(State(state): State<Arc<AdminState<T>>>) -> Response {
    let kind = [(header::CONTENT_TYPE, METRICS_KIND)];
    (kind, state.registry.render()).into_response()
}
