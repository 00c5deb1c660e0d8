//! The HTTP port: is the process up, is it ready, what has it counted, the page, and the calls of browsers and of curl.
//! Owns what every answer says to browsers. Refuses to judge readiness; the caller's check does, within a time limit.

pub(crate) mod envelope;
mod metrics;
mod origin;
mod page;
mod source;

use std::{net::IpAddr, time::Duration};

use axum::{
    Router,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::time::timeout;

use self::envelope::refusal;
pub use self::metrics::{begin_to_count, count};

/// How long the readiness check may take: a probe's usual period is a few seconds, and an answer after that is none.
const READINESS_DEADLINE: Duration = Duration::from_secs(2);

/// What browsers are told with every answer. The page may load its own files and call its own server, and nothing else;
/// nobody may frame it, and no other page may have what is answered here.
const SAID_TO_BROWSERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; \
         font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// What a browser may be made to ask for: the page, the source it shows and the `calls`, of a server that is `bound` to
/// this address. Foreign pages are refused.
pub fn site(bound: IpAddr, calls: Router) -> Router {
    page::router::<page::Built>()
        .merge(source::router())
        .merge(calls)
        .route_layer(middleware::from_fn_with_state(bound, origin::own))
}

/// `/healthz` (the process is up), `/readyz` (it can do its work: `check` says so, or why not), `/metrics` (after
/// `read_gauges`, for whom `turn_away` has no refusal) and the `site`; anything else is a JSON 404.
pub fn router<C, F, G, A>(check: C, read_gauges: G, turn_away: A, site: Router) -> Router
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
        .merge(site)
        .fallback(async |uri: Uri| not_found(&uri))
        .method_not_allowed_fallback(async || {
            refusal(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "this path is for another method")
        })
        .layer(middleware::map_response(say_to_browsers))
}

async fn say_to_browsers(mut answer: Response) -> Response {
    answer.headers_mut().extend(SAID_TO_BROWSERS.map(|(name, text)| (name, HeaderValue::from_static(text))));
    answer
}

fn not_found(uri: &Uri) -> Response {
    refusal(StatusCode::NOT_FOUND, "NOT_FOUND", &format!("there is no {}", uri.path()))
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
