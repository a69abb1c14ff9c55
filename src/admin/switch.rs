//! `/api/v1/pools`: the pools, the job that works on one, the steps of a switch.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::metrics::summary::ShardLatencySummary;
use crate::proxy::control::{PoolStatus, SwitchTarget};

use super::answer::{Done, Refused, json};
use super::server::AdminState;

#[derive(Serialize)]
struct Pools {
    pools: Vec<Pool>,
}

#[derive(Serialize)]
struct Pool {
    #[serde(flatten)]
    status: PoolStatus,
    /// What the shards took to answer since they are served.
    latency: Vec<ShardLatencySummary>,
}

/// `GET /api/v1/pools`.
pub async fn list<T: SwitchTarget>(State(state): State<Arc<AdminState<T>>>) -> Response {
    let targets = state.pools();
    let mut pools = Vec::with_capacity(targets.len());
    for target in targets.iter() {
        pools.push(Pool {
            status: target.status().await,
            latency: state.registry().shard_latencies(target.name()),
        });
    }
    json(StatusCode::OK, Pools { pools })
}

/// `POST /api/v1/pools/{pool}/switch/{step}`.
pub async fn step<T: SwitchTarget>(
    State(state): State<Arc<AdminState<T>>>,
    path: Result<Path<(String, String)>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    let Path((pool, step)) = path.map_err(|bad| Refused::new(bad.status(), bad.body_text()))?;
    let body = body.map_err(|bad| Refused::new(bad.status(), bad.body_text()))?;
    let target = find(&state, &pool)?;
    match step.as_str() {
        "stage" => target.stage(read(&body)?).await?,
        "hold" => target.hold(read(&body)?).await?,
        "arm" => target.arm(read(&body)?).await?,
        "abort" => target.abort(read(&body)?).await?,
        "commit" => {
            let report = target.commit(read(&body)?).await?;
            return Ok(json(StatusCode::OK, report));
        }
        _ => {
            return Err(not_found(
                "the steps of a switch are stage, hold, arm, commit, abort",
            ));
        }
    }
    Ok(json(StatusCode::OK, Done {}))
}

/// `POST /api/v1/pools/{pool}/job`.
pub async fn announce<T: SwitchTarget>(
    State(state): State<Arc<AdminState<T>>>,
    path: Result<Path<String>, PathRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refused> {
    let Path(pool) = path.map_err(|bad| Refused::new(bad.status(), bad.body_text()))?;
    let body = body.map_err(|bad| Refused::new(bad.status(), bad.body_text()))?;
    find(&state, &pool)?.announce(read(&body)?).await?;
    Ok(json(StatusCode::OK, Done {}))
}

fn find<T: SwitchTarget>(state: &AdminState<T>, pool: &str) -> Result<T, Refused> {
    let targets = state.pools();
    let found = targets.iter().find(|target| target.name() == pool);
    found.cloned().ok_or_else(|| {
        let names: Vec<_> = targets.iter().map(SwitchTarget::name).collect();
        not_found(format!(
            "there is no pool `{pool}`; there is {}",
            names.join(", ")
        ))
    })
}

fn not_found(error: impl Into<String>) -> Refused {
    Refused::new(StatusCode::NOT_FOUND, error)
}

fn read<B: DeserializeOwned>(body: &[u8]) -> Result<B, Refused> {
    serde_json::from_slice(body).map_err(|error| {
        Refused::new(
            StatusCode::BAD_REQUEST,
            format!("the body is not what this step takes: {error}"),
        )
    })
}
