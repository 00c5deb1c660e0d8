//! The form of every JSON answer of the HTTP port.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// Every answer.
#[derive(Serialize)]
struct Envelope<T> {
    /// The HTTP status again, for clients that only see the body.
    code: u16,
    /// "ok", or what is wrong.
    message: String,
    /// The reason of the error table; absent on success.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<T>,
}

/// A success.
pub(crate) fn ok(data: &impl Serialize) -> Response {
    Json(Envelope { code: 200, message: "ok".to_owned(), reason: None, data: Some(data) }).into_response()
}

/// A failure, with the reason of the error table or one like it.
pub(crate) fn refusal(status: StatusCode, reason: &str, message: &str) -> Response {
    let envelope = Envelope::<()> {
        code: status.as_u16(),
        message: message.to_owned(),
        reason: Some(reason.to_owned()),
        data: None,
    };
    (status, Json(envelope)).into_response()
}
