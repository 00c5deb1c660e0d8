//! The HTTP port: is the process up, is it ready, what has it counted, and the JSON facade. Refuses to judge readiness; the caller's
//! check does, within a time limit.

pub(crate) mod envelope;
mod metrics;

use std::time::Duration;

use axum::{
    Router,
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::time::timeout;

use self::envelope::refusal;
pub use self::metrics::{begin_to_count, count};

/// How long the readiness check may take: a probe's usual period is a few seconds, and an answer after that is none.
const READINESS_DEADLINE: Duration = Duration::from_secs(2);

/// `/healthz` (the process is up), `/readyz` (it can do its work: `check` says so, or why not), `/metrics` (after
/// `read_gauges`, for whom `turn_away` has no refusal) and the `facade`'s routes; anything else is a JSON 404.
pub fn router<C, F, G, A>(check: C, read_gauges: G, turn_away: A, facade: Router) -> Router
where
    A: Fn(&HeaderMap) -> Option<Response> + Clone + Send + Sync + 'static,
    G: Fn() + Clone + Send + Sync + 'static,
    C: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<(), String>> + Send,
{
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(async move || readiness(check()).await))
        .route(
            "/metrics",
            get(async move |headers: HeaderMap| {
                if let Some(refused) = turn_away(&headers) {
                    return refused;
                }
                read_gauges();
                metrics::metrics().await
            }),
        )
        .merge(facade)
        .fallback(async |uri: Uri| refusal(StatusCode::NOT_FOUND, "NOT_FOUND", &format!("there is no {}", uri.path())))
        .method_not_allowed_fallback(async || {
            refusal(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "this path is for another method")
        })
}

async fn readiness(check: impl Future<Output = Result<(), String>>) -> Response {
    let reason = match timeout(READINESS_DEADLINE, check).await {
        Ok(Ok(())) => return "ok".into_response(),
        Ok(Err(reason)) => reason,
        Err(_) => format!("the readiness check did not finish within {} s", READINESS_DEADLINE.as_secs()),
    };
    refusal(StatusCode::SERVICE_UNAVAILABLE, "NOT_READY", &reason)
}

#[cfg(test)]
mod tests {
    use std::future;

    use axum::{
        body::{Body, to_bytes},
        http::Request,
    };
    use tower::ServiceExt;

    use super::*;

    async fn ask<C, F>(check: C, method: &str, path: &str) -> (u16, String)
    where
        C: Fn() -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<(), String>> + Send,
    {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = router(check, || (), |_: &HeaderMap| None, Router::new()).oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 16).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn up_and_ready_are_two_questions() {
        let ready = || future::ready(Ok(()));
        let broken = || future::ready(Err("the database is down".to_owned()));
        assert_eq!(ask(ready, "GET", "/healthz").await, (200, "ok".to_owned()));
        assert_eq!(ask(ready, "GET", "/readyz").await, (200, "ok".to_owned()));
        assert_eq!(ask(broken, "GET", "/healthz").await, (200, "ok".to_owned()));
        let (status, body) = ask(broken, "GET", "/readyz").await;
        assert_eq!(
            (status, body.as_str()),
            (503, r#"{"code":503,"message":"the database is down","reason":"NOT_READY"}"#)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_is_not_ready() {
        let (status, body) = ask(future::pending, "GET", "/readyz").await;
        assert_eq!(status, 503);
        assert!(body.contains("did not finish within 2 s"), "{body}");
    }

    #[tokio::test]
    async fn what_is_not_there_is_said_in_json() {
        let ready = || future::ready(Ok(()));
        let (status, body) = ask(ready, "GET", "/nope").await;
        assert_eq!(
            (status, body.as_str()),
            (404, r#"{"code":404,"message":"there is no /nope","reason":"NOT_FOUND"}"#)
        );
        assert_eq!(ask(ready, "POST", "/healthz").await.0, 405);
    }
}
