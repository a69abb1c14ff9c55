//! JSON answers: what is said carries `"v":1`, also when it is a refusal.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::proxy::control::{RefusalReason, SwitchRefusal};

/// Version of the API's answers.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Versioned<T> {
    v: u32,
    #[serde(flatten)]
    body: T,
}

/// An object without fields.
#[derive(Serialize)]
pub struct Done {}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<RefusalReason>,
}

/// A request that was not done: status, and a text that says what to do.
#[derive(Debug)]
pub struct Refused {
    status: StatusCode,
    reason: Option<RefusalReason>,
    error: String,
}

impl Refused {
    /// Refused by this side of the API, before any pool was asked.
    pub fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            reason: None,
            error: error.into(),
        }
    }
}

impl From<SwitchRefusal> for Refused {
    fn from(refusal: SwitchRefusal) -> Self {
        let status = match refusal.reason {
            // The same call may succeed later, here or after a restart.
            RefusalReason::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            RefusalReason::StateNotWritten => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::CONFLICT,
        };
        Self {
            status,
            reason: Some(refusal.reason),
            error: refusal.error,
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let body = ErrorBody {
            error: &self.error,
            reason: self.reason,
        };
        json(self.status, body)
    }
}

/// A JSON object with `"v":1` and the fields of `body`.
pub fn json(status: StatusCode, body: impl Serialize) -> Response {
    let body = Versioned { v: VERSION, body };
    match serde_json::to_vec(&body) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            let kind = [(header::CONTENT_TYPE, "application/json")];
            (status, kind, bytes).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "an answer of the admin API is no JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
