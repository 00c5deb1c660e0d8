//! The JSON facade for those who use curl. It is a second spelling of the gRPC calls, not a second service: each request
//! becomes the contract's message and goes through the same handler, so checks and errors are the same; and so are the
//! limits, which gRPC meets in its layers.
//!
//! Amounts may be JSON strings or numbers; a number is taken by its digits, never through a float. Balances are answered
//! as numbers with two decimals.

mod swimlane;

use std::{collections::BTreeMap, error::Error as _};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, MatchedPath, Path, Query, State, rejection::JsonRejection},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::Response,
    routing::{get, post},
};
use chrono::DateTime;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use zbl_proto::{
    CACHE_KEY, Reason,
    v1::{self, account_service_server::AccountService, get_balance_request::AsOf, lab_service_server::LabService},
};
use zbl_trace::{
    KeyValue,
    names::{HTTP_REQUEST_METHOD, HTTP_RESPONSE_STATUS_CODE, HTTP_ROUTE, OTHER_METHOD},
};

use super::{Handlers, convert::timestamp, status};
use crate::{
    call::Call,
    error::Error,
    http::envelope::{ok, refusal},
    layer::{Deadline, Timed},
};

/// The largest body: a deduction is some 200 bytes, and nobody has a reason to send more.
const BODY_MOST: usize = 16 * 1024;

/// `POST /deduct`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeductBody {
    user_id: i64,
    amount: Box<RawValue>,
    #[serde(default)]
    strategy: String,
    #[serde(default)]
    request_id: String,
}

/// A balance, and what there is to say about how it came about.
#[derive(Serialize)]
struct Balance {
    user_id: i64,
    balance: Option<Box<RawValue>>,
    version: i64,
    #[serde(flatten)]
    receipt: BTreeMap<&'static str, String>,
}

/// The facade's routes over the handlers.
pub fn router(handlers: Handlers) -> Router {
    Router::new()
        .route("/deduct", post(deduct))
        .route("/balance/{user_id}", get(balance))
        .route_layer(middleware::from_fn_with_state(handlers.clone(), limited))
        .route("/api/swimlane", get(swimlane))
        .route_layer(middleware::from_fn_with_state(handlers.clone(), authenticated))
        .route("/api/swimlane/clear", post(clear))
        .layer(DefaultBodyLimit::max(BODY_MOST))
        // Outside of all that refuses.
        .route_layer(middleware::from_fn_with_state(handlers.clone(), traced))
        .with_state(handlers)
}

/// Lets in whoever may call the service.
async fn authenticated(State(handlers): State<Handlers>, request: axum::extract::Request, next: Next) -> Response {
    match handlers.access.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => refused(&error),
    }
}

/// What the layers of gRPC do about traces.
async fn traced(
    State(handlers): State<Handlers>,
    route: MatchedPath,
    request: axum::extract::Request,
    next: Next,
) -> Response {
    // Others are about to be refused; callers may invent as many as they like.
    let method = match *request.method() {
        Method::POST => "POST",
        Method::GET => "GET",
        _ => OTHER_METHOD,
    };
    let call = Call::begin(&handlers.tracer, format!("{method} {}", route.as_str()), request.headers());
    let span = call.span().clone();
    span.set(|| [KeyValue::new(HTTP_REQUEST_METHOD, method), KeyValue::new(HTTP_ROUTE, route.as_str().to_owned())]);
    let mut answer = call.clone().scope(next.run(request)).await;
    span.set(|| [KeyValue::new(HTTP_RESPONSE_STATUS_CODE, i64::from(answer.status().as_u16()))]);
    span.end(answer.status().is_server_error().then_some("5xx"));
    call.mark(answer.headers_mut());
    answer
}

/// What the layers of gRPC do about load and time.
async fn limited(State(handlers): State<Handlers>, mut request: axum::extract::Request, next: Next) -> Response {
    let deadline = Deadline::new(None, handlers.max_deadline);
    request.extensions_mut().insert(deadline);
    let request = request.map(|body| Body::new(Timed::new(body, deadline.message_by())));
    let room = handlers.limits.enter().and_then(|room| handlers.limits.call().map(|()| room));
    match room {
        Ok(room) => {
            let answer = next.run(request).await;
            drop(room);
            answer
        }
        Err(error) => refused(&error),
    }
}

/// The contract's message as a call, with the deadline that this one got.
fn call<T>(message: T, deadline: Deadline) -> Request<T> {
    let mut call = Request::new(message);
    call.extensions_mut().insert(deadline);
    call
}

async fn deduct(
    State(handlers): State<Handlers>,
    Extension(deadline): Extension<Deadline>,
    body: Result<Json<DeductBody>, JsonRejection>,
) -> Response {
    let Json(body) = match body {
        Ok(body) => body,
        Err(rejection) => return rejected(&rejection),
    };
    let message = v1::DeductRequest {
        user_id: body.user_id,
        amount: digits(&body.amount),
        request_id: body.request_id,
        strategy: body.strategy,
    };
    match handlers.account.deduct(call(message, deadline)).await {
        Ok(response) => {
            let receipt = response.into_inner();
            let told = [("request_id", receipt.request_id), ("strategy", receipt.strategy)];
            ok(&Balance {
                user_id: receipt.user_id,
                balance: number(receipt.balance),
                version: receipt.version,
                receipt: told.into(),
            })
        }
        Err(status) => failed(&status),
    }
}

/// `GET /balance/{user_id}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BalanceQuery {
    #[serde(default)]
    consistent: bool,
    as_of_version: Option<i64>,
    /// RFC 3339.
    as_of_time: Option<String>,
}

impl BalanceQuery {
    /// The point of the account's history that is asked for, if one is.
    fn point(self) -> Result<Option<AsOf>, (&'static str, String)> {
        match (self.as_of_version, self.as_of_time) {
            (None, None) => Ok(None),
            (Some(version), None) => Ok(Some(AsOf::AsOfVersion(version))),
            (None, Some(text)) => match DateTime::parse_from_rfc3339(&text) {
                Ok(time) => Ok(Some(AsOf::AsOfTime(timestamp(time.naive_utc())))),
                Err(error) => {
                    let message = format!("as_of_time: {error}; give it as in 2026-11-23T20:15:00Z");
                    Err((Reason::InvalidAsOf.as_str(), message))
                }
            },
            (Some(_), Some(_)) => Err(("INVALID_QUERY", "give as_of_version or as_of_time, not both".to_owned())),
        }
    }
}

async fn balance(
    State(handlers): State<Handlers>,
    Extension(deadline): Extension<Deadline>,
    Path(user_id): Path<String>,
    query: Result<Query<BalanceQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Query(query) = match query {
        Ok(query) => query,
        Err(rejection) => return refusal(StatusCode::BAD_REQUEST, "INVALID_QUERY", &rejection.body_text()),
    };
    let consistent = query.consistent;
    let as_of = match query.point() {
        Ok(as_of) => as_of,
        Err((reason, message)) => return refusal(StatusCode::BAD_REQUEST, reason, &message),
    };
    let Ok(user_id) = user_id.parse() else {
        let message = format!("`{user_id}` is not a user id: a positive whole number");
        return refusal(StatusCode::BAD_REQUEST, zbl_proto::Reason::InvalidUserId.as_str(), &message);
    };
    match handlers.account.get_balance(call(v1::GetBalanceRequest { user_id, consistent, as_of }, deadline)).await {
        Ok(response) => {
            let (metadata, message, _) = response.into_parts();
            let v1::GetBalanceResponse { user_id, balance, version, entry_time } = message;
            let told = entry_time.map(|time| ("entry_time", time.to_string()));
            let answer =
                ok(&Balance { user_id, balance: number(balance), version, receipt: told.into_iter().collect() });
            with_cache_header(answer, &metadata)
        }
        Err(status) => with_cache_header(failed(&status), status.metadata()),
    }
}

/// The answer, with the header that says whether it came from the cache.
fn with_cache_header(mut answer: Response, metadata: &tonic::metadata::MetadataMap) -> Response {
    let served = metadata.get(CACHE_KEY).and_then(|served| HeaderValue::from_bytes(served.as_bytes()).ok());
    if let Some(served) = served {
        answer.headers_mut().insert(CACHE_KEY, served);
    }
    answer
}

async fn swimlane(
    State(handlers): State<Handlers>,
    query: Result<Query<swimlane::Selection>, axum::extract::rejection::QueryRejection>,
) -> Response {
    match query {
        Ok(Query(selection)) => ok(&swimlane::events(&handlers.timeline, &selection)),
        Err(rejection) => refusal(StatusCode::BAD_REQUEST, "INVALID_QUERY", &rejection.body_text()),
    }
}

async fn clear(State(handlers): State<Handlers>, headers: HeaderMap) -> Response {
    let json = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/json");
    if !headers.get(header::CONTENT_TYPE).is_some_and(json) {
        return content_type("a content type that no form can send");
    }
    // The lab's own door: a token, where one is asked for, is in the same header.
    if let Err(error) = handlers.access.check_lab(&headers) {
        return refused(&error);
    }
    match handlers.lab.clear_timeline(Request::new(v1::ClearTimelineRequest {})).await {
        Ok(response) => ok(&BTreeMap::from([("cleared", response.into_inner().cleared)])),
        Err(status) => failed(&status),
    }
}

/// A body that is not the JSON asked for.
fn rejected(rejection: &JsonRejection) -> Response {
    if let Some(late) = status_within(rejection) {
        return refusal(StatusCode::REQUEST_TIMEOUT, Reason::Expired.as_str(), late.message());
    }
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            refusal(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", &rejection.body_text())
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => content_type(&rejection.body_text()),
        _ => refusal(StatusCode::BAD_REQUEST, "INVALID_JSON", &rejection.body_text()),
    }
}

/// The status that ended a body, if one did: it was late.
fn status_within(rejection: &JsonRejection) -> Option<&Status> {
    std::iter::successors(rejection.source(), |error| (*error).source()).find_map(|error| error.downcast_ref())
}

/// The content type is insisted on: a foreign web page can make a browser post anything else to this port without
/// asking, but not that.
fn content_type(wanted: &str) -> Response {
    let message = format!("{wanted}; with curl: -H 'content-type: application/json'");
    refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "INVALID_CONTENT_TYPE", &message)
}

/// An amount as it stands in the JSON: the text of a string, the digits of a number.
fn digits(raw: &RawValue) -> String {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| raw.get().to_owned())
}

/// A decimal string as a JSON number with the same digits.
fn number(decimal: String) -> Option<Box<RawValue>> {
    RawValue::from_string(decimal).ok()
}

/// The HTTP form of an error.
pub fn refused(error: &Error) -> Response {
    failed(&status(error))
}

/// The HTTP form of a gRPC status.
fn failed(status: &Status) -> Response {
    let http = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        // Nobody knows whether it happened: the gateway, so to speak, did not hear.
        Code::DeadlineExceeded | Code::Unknown => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let reason = status.get_details_error_info().map_or_else(|| "UNKNOWN".to_owned(), |info| info.reason);
    let mut answer = refusal(http, &reason, status.message());
    // What limits and tokens say of themselves is said in HTTP's own words already.
    let said = status.metadata().clone().into_headers();
    answer.headers_mut().extend(said.into_iter().filter(|(name, _)| name.as_ref().is_some_and(is_of_http)));
    answer
}

fn is_of_http(name: &header::HeaderName) -> bool {
    *name == header::WWW_AUTHENTICATE || *name == header::RETRY_AFTER || name.as_str().starts_with("ratelimit-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_keep_their_digits() {
        for (json, amount) in
            [("\"10.00\"", "10.00"), ("10.00", "10.00"), ("10.10", "10.10"), ("1e1", "1e1"), ("0.1", "0.1")]
        {
            let raw: Box<RawValue> = serde_json::from_str(json).unwrap();
            assert_eq!(digits(&raw), amount, "{json}");
        }
    }

    #[test]
    fn balances_keep_two_decimals() {
        let raw = number("92233720368547758.07".to_owned()).unwrap();
        assert_eq!(serde_json::to_string(&raw).unwrap(), "92233720368547758.07");
        assert_eq!(number("10.00".to_owned()).unwrap().get(), "10.00");
    }
}
