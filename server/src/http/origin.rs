//! Who may ask, as far as a browser tells: a page of ours, or no page at all. Without this any web page that somebody has
//! open could call a service on their own machine, where nobody asks for a token. Nothing is granted to others: no answer
//! ever has a header of CORS, so what a browser asks about first it does not send.

use std::net::IpAddr;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, StatusCode, header, uri::Authority},
    middleware::Next,
    response::Response,
};
use url::Url;

use super::envelope::refusal;

/// Where a browser says what the page has to do with us that asks: nothing, the same origin, site, or another.
const FETCH_SITE: &str = "sec-fetch-site";

/// Where it says how: `navigate` for the window itself.
const FETCH_MODE: &str = "sec-fetch-mode";

/// Refuses what a foreign page asks for.
///
/// On loopback the Host a request names must be loopback too: a foreign page whose name is made to resolve to this
/// machine (DNS rebinding) would otherwise be taken for our own.
pub(super) async fn own(State(bound): State<IpAddr>, request: Request, next: Next) -> Response {
    // HTTP/2 has it in place of the Host.
    let authority = request.uri().authority().map(Authority::as_str);
    let host = authority.or_else(|| text(request.headers(), header::HOST.as_str())).unwrap_or_default();
    if bound.is_loopback() && !is_loopback(host) {
        let message = format!("this server answers on loopback only, not as `{host}`");
        return refusal(StatusCode::FORBIDDEN, "FOREIGN_HOST", &message);
    }
    if is_foreign(host, request.headers()) && !is_visit(&request) {
        let origin = text(request.headers(), header::ORIGIN.as_str()).unwrap_or("another site");
        let message = format!("a page of `{origin}` asks, and this is answered to pages of `{host}` only");
        return refusal(StatusCode::FORBIDDEN, "FOREIGN_ORIGIN", &message);
    }
    next.run(request).await
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// Whether a page asks that is not of `host`. Programs that are no browsers say nothing of pages.
fn is_foreign(host: &str, headers: &HeaderMap) -> bool {
    let site = headers.get(FETCH_SITE).map(|site| site.as_bytes());
    let is_elsewhere = site.is_some_and(|site| !matches!(site, b"same-origin" | b"none"));
    is_elsewhere || headers.contains_key(header::ORIGIN) && !text(headers, "origin").is_some_and(|it| is_of(host, it))
}

/// Whether an origin is that of `host`. Its scheme is the browser's word: TLS may end before us. An origin that is not
/// told (`null`) is nobody's.
fn is_of(host: &str, origin: &str) -> bool {
    let Ok(origin) = Url::parse(origin) else { return false };
    let own = Url::parse(&format!("{}://{host}", origin.scheme()));
    own.is_ok_and(|own| own.origin() == origin.origin())
}

/// Whether somebody follows a link to the page, which another site may well have.
fn is_visit(request: &Request) -> bool {
    let navigates = text(request.headers(), FETCH_MODE) == Some("navigate");
    navigates && request.method() == Method::GET && request.uri().path() == "/"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_few_names() {
        for host in ["localhost", "LOCALHOST:1", "127.0.0.1", "127.9.9.9:80", "[::1]", "[::1]:8080"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", "localhost.example", "127.0.0.1.example:80", "10.0.0.1", "[::2]:80", ":80"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn an_origin_is_its_name_and_port() {
        for (host, origin) in [
            ("localhost:8080", "http://localhost:8080"),
            // TLS ended before us.
            ("bank.example", "https://bank.example"),
            ("bank.example:443", "https://bank.example"),
            ("Bank.example", "http://bank.example"),
            ("[::1]:8080", "http://[::1]:8080"),
        ] {
            assert!(is_of(host, origin), "{host} {origin}");
        }
        for (host, origin) in [
            ("localhost:8080", "http://localhost:3000"),
            ("localhost:8080", "http://localhost"),
            ("localhost:8080", "http://127.0.0.1:8080"),
            ("bank.example", "https://bank.example.org"),
            ("bank.example", "https://evil.example"),
            ("bank.example", "http://bank.example@evil.example"),
            ("bank.example", "null"),
            ("bank.example", ""),
            ("", "null"),
            ("", "http://"),
            ("bank.example", "chrome-extension://bank.example"),
        ] {
            assert!(!is_of(host, origin), "{host} {origin}");
        }
    }
}
