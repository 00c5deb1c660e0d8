//! The page as a browser meets it, with a build of the tests' own and without any.

use axum::{
    body::to_bytes,
    http::{HeaderMap, Request},
};
use tower::ServiceExt;

use super::*;
use crate::http::router as port;

#[derive(Embed)]
#[folder = "src/http/page/fixture"]
struct Fixture;

#[derive(Embed)]
#[folder = "src/http/page/nowhere"]
#[allow_missing = true]
struct Nothing;

/// Status, head and body of what is answered.
async fn asked<Page: Embed>(method: &str, path: &str, head: &[(&str, &str)]) -> (u16, HeaderMap, String) {
    let request = Request::builder().method(method).uri(path);
    let request = head.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let port = port(async || Ok(()), || (), |_: &HeaderMap| None, router::<Page>());
    let answer = port.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = answer.into_parts();
    let body = to_bytes(body, 1 << 16).await.unwrap();
    (parts.status.as_u16(), parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn each_file_has_its_type_and_says_how_long_it_keeps() {
    for (path, kind, caching, body) in [
        ("/", "text/html; charset=utf-8", CHECKED, "<!doctype html><title>the page</title>\n"),
        ("/favicon.svg", "image/svg+xml", CHECKED, "<svg/>\n"),
        ("/assets/main-a1.js", "text/javascript; charset=utf-8", KEPT, "console.log(1);\n"),
        ("/assets/main-b2.css", "text/css; charset=utf-8", KEPT, "body{}\n"),
    ] {
        let (status, head, text) = asked::<Fixture>("GET", path, &[]).await;
        assert_eq!((status, text.as_str()), (200, body), "{path}");
        assert_eq!(
            (&head["content-type"], &head["cache-control"]),
            (&kind.parse().unwrap(), &caching.parse().unwrap())
        );
        assert_eq!(head["vary"], "accept-encoding", "{path}");
        let (status, same, text) = asked::<Fixture>("HEAD", path, &[]).await;
        assert_eq!((status, text.as_str(), &same["etag"]), (200, "", &head["etag"]), "{path}");
        assert_eq!(same["content-length"], body.len().to_string().as_str(), "{path}");
    }
}

#[tokio::test]
async fn what_the_browser_has_is_not_sent_again() {
    let (_, head, _) = asked::<Fixture>("GET", "/", &[]).await;
    let tag = head["etag"].to_str().unwrap();
    for has in [tag, &format!("W/{tag}"), &format!("\"other\", {tag}"), "*"] {
        let (status, head, body) = asked::<Fixture>("GET", "/", &[("if-none-match", has)]).await;
        assert_eq!((status, body.as_str(), head["etag"].to_str().unwrap()), (304, "", tag), "{has}");
        assert_eq!(
            (&head["cache-control"], &head["vary"]),
            (&CHECKED.parse().unwrap(), &"accept-encoding".parse().unwrap())
        );
    }
    for has in ["\"other\"", "", "\"\""] {
        assert_eq!(asked::<Fixture>("GET", "/", &[("if-none-match", has)]).await.0, 200, "{has}");
    }
    // What is compressed is another thing.
    let gzip = [("if-none-match", tag), ("accept-encoding", "gzip")];
    assert_eq!(asked::<Fixture>("GET", "/", &gzip).await.0, 200);
}

#[tokio::test]
async fn whoever_takes_gzip_gets_it_where_there_is_any() {
    for (accepted, body) in [
        ("gzip, deflate, br", "main, gzipped\n"),
        ("br;q=1.0, GZIP;q=0.5", "main, gzipped\n"),
        ("identity", "console.log(1);\n"),
        ("gzip;q=0", "console.log(1);\n"),
        ("gzip;q=0.0", "console.log(1);\n"),
        ("x-gzip", "console.log(1);\n"),
    ] {
        let (_, head, text) = asked::<Fixture>("GET", "/assets/main-a1.js", &[("accept-encoding", accepted)]).await;
        assert_eq!(text, body, "{accepted}");
        assert_eq!(head.contains_key("content-encoding"), body.contains("gzipped"), "{accepted}");
        assert_eq!(head["content-type"], "text/javascript; charset=utf-8");
    }
    let (status, head, text) = asked::<Fixture>("GET", "/assets/main-b2.css", &[("accept-encoding", "gzip")]).await;
    assert_eq!((status, text.as_str(), head.contains_key("content-encoding")), (200, "body{}\n", false));
}

#[tokio::test]
async fn nothing_beside_the_page_is_served() {
    for path in [
        "/index.html",
        "/assets/",
        "/assets/none.js",
        "/assets/..%2findex.html",
        "/assets/../index.html",
        "/assets/%2e%2e%2f%2e%2e%2fpage.rs",
        "/assets/sub/main-a1.js",
    ] {
        let (status, _, body) = asked::<Fixture>("GET", path, &[]).await;
        assert_eq!(status, 404, "{path}");
        assert!(body.contains("NOT_FOUND"), "{path}: {body}");
    }
    assert_eq!(asked::<Fixture>("POST", "/", &[]).await.0, 405);
}

#[tokio::test]
async fn a_server_without_its_page_says_how_to_get_it() {
    let (status, head, body) = asked::<Nothing>("GET", "/", &[]).await;
    assert_eq!((status, &head["cache-control"]), (200, &CHECKED.parse().unwrap()));
    assert!(body.contains("cargo xtask demo") && body.contains("Node 20.19"), "{body}");
    // What the policy forbids would not be seen.
    assert!(!body.contains("<script") && !body.contains("style=") && !body.contains("<style"), "{body}");
    assert_eq!(asked::<Nothing>("GET", "/assets/main-a1.js", &[]).await.0, 404);
}

#[tokio::test]
async fn every_answer_says_what_a_browser_may_do_with_it() {
    for path in ["/", "/assets/main-a1.js", "/healthz", "/metrics", "/nowhere"] {
        let (_, head, _) = asked::<Fixture>("GET", path, &[]).await;
        let policy = head["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        for (name, said) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(head[name], said, "{path}");
        }
        assert!(!head.contains_key("access-control-allow-origin") && !head.contains_key("strict-transport-security"));
    }
}
