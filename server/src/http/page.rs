//! The page: what `web/` was built to, embedded in the binary, so that a server needs no files beside it. It holds no
//! secret and asks for no token; what it calls does. Where it was not built, the server says so in its place.

use std::borrow::Cow;

use axum::{
    Router,
    body::Body,
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use rust_embed::{Embed, EmbeddedFile};

use super::not_found;

/// What `npm run build` has made, each text beside its gzipped form: it is compressed once, there, and never here.
#[derive(Embed)]
#[folder = "../web/dist"]
#[allow_missing = true]
pub(super) struct Built;

/// What is served in its place where there is none. Nothing but itself: the policy lets nothing else in.
const NOT_BUILT: &str = include_str!("page/not-built.html");

/// To be asked for again each time; an answer is 304 as long as it is the same.
pub(super) const CHECKED: &str = "no-cache";

/// For a year, without asking: the names of such files change with what is in them.
const KEPT: &str = "public, max-age=31536000, immutable";

/// The routes of the page.
pub(super) fn router<Page: Embed>() -> Router {
    Router::new()
        .route("/", get(async |headers: HeaderMap| index::<Page>(&headers)))
        .route(
            "/favicon.svg",
            get(async |uri: Uri, headers: HeaderMap| {
                file::<Page>("favicon.svg", CHECKED, &headers).unwrap_or_else(|| not_found(&uri))
            }),
        )
        .route(
            "/assets/{name}",
            get(async |Path(name): Path<String>, uri: Uri, headers: HeaderMap| {
                file::<Page>(&format!("assets/{name}"), KEPT, &headers).unwrap_or_else(|| not_found(&uri))
            }),
        )
}

fn index<Page: Embed>(headers: &HeaderMap) -> Response {
    file::<Page>("index.html", CHECKED, headers).unwrap_or_else(|| {
        ([(header::CONTENT_TYPE, kind("html")), (header::CACHE_CONTROL, CHECKED)], NOT_BUILT).into_response()
    })
}

/// A file of the page, as the browser takes it.
fn file<Page: Embed>(name: &str, caching: &'static str, headers: &HeaderMap) -> Option<Response> {
    let kind = kind(name.rsplit_once('.').map_or("", |(_, extension)| extension));
    let gzipped = takes_gzip(headers).then(|| Page::get(&format!("{name}.gz"))).flatten();
    let is_gzipped = gzipped.is_some();
    let mut answer = told(gzipped.or_else(|| Page::get(name))?, kind, caching, headers);
    answer.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if is_gzipped {
        answer.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Some(answer)
}

/// An embedded file; 304 where the caller has it.
pub(super) fn told(file: EmbeddedFile, kind: &'static str, caching: &'static str, headers: &HeaderMap) -> Response {
    let digest = file.metadata.sha256_hash();
    let tag = digest[..16].iter().fold(String::from('"'), |tag, byte| tag + &format!("{byte:02x}")) + "\"";
    let head = [(header::ETAG, tag.clone()), (header::CACHE_CONTROL, caching.to_owned())];
    if has(headers, &tag) {
        return (StatusCode::NOT_MODIFIED, head).into_response();
    }
    let body: Cow<'static, [u8]> = file.data;
    (head, [(header::CONTENT_TYPE, kind)], Body::from(body)).into_response()
}

/// Whether the caller has what goes by this tag.
fn has(headers: &HeaderMap, tag: &str) -> bool {
    let is_it = |one: &str| one == "*" || one.trim_start_matches("W/") == tag;
    listed(headers, &header::IF_NONE_MATCH).any(is_it)
}

/// Whether it takes gzip: `gzip`, unless it says that it is worth nothing to it.
fn takes_gzip(headers: &HeaderMap) -> bool {
    listed(headers, &header::ACCEPT_ENCODING).any(|coding| {
        let (name, worth) = coding.split_once(';').unwrap_or((coding, ""));
        let worth = worth.trim().strip_prefix("q=").map_or(Ok(1.0), str::parse);
        name.trim().eq_ignore_ascii_case("gzip") && worth.is_ok_and(|worth: f32| worth > 0.0)
    })
}

/// What a header lists between commas.
fn listed<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> impl Iterator<Item = &'a str> {
    let texts = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',').map(str::trim))
}

/// The content type of what has this extension.
const fn kind(extension: &str) -> &'static str {
    match extension.as_bytes() {
        b"html" => "text/html; charset=utf-8",
        b"js" => "text/javascript; charset=utf-8",
        b"css" => "text/css; charset=utf-8",
        b"svg" => "image/svg+xml",
        b"png" => "image/png",
        b"woff2" => "font/woff2",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests;
