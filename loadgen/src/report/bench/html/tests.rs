//! The page stands alone, says what the figures say, and believes no text.

use super::super::sample::{closed, open};
use super::*;

const HOSTILE: &str = "</style><script>alert('1')</script>&\"";

fn of(bench: Bench) -> String {
    page(&[Exhibit::of("one".to_owned(), bench)])
}

/// What would make a browser ask for something else.
fn stands_alone(page: &str) {
    for reference in ["src=", "href=", "url(", "@import", "<script", "<link", "<img", "<iframe", "http://", "https://"]
    {
        assert!(!page.contains(reference), "{reference}");
    }
    assert!(page.contains("default-src 'none'") && page.contains("prefers-color-scheme: dark"));
}

/// Every element that is opened is closed, in order: what an XML parser would ask, without those HTML never closes.
fn well_formed(page: &str) {
    let body = page.split_once("</head>").unwrap().1;
    let mut open = Vec::new();
    for tag in body.split('<').skip(1) {
        let name = tag.split([' ', '>']).next().unwrap();
        let tag = tag.split('>').next().unwrap();
        match name.strip_prefix('/') {
            // Opened before the body.
            Some("html") => {}
            Some(name) => assert_eq!(open.pop(), Some(name), "{tag}"),
            None if name == "br" || tag.ends_with('/') => {}
            None => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn one_result_is_told_whole() {
    let page = of(closed());
    stands_alone(&page);
    for told in [
        "loadgen bench: batched on mariadb",
        "✓ CLEAN",
        "<dt>acknowledged per second</dt><dd>9,899</dd>",
        "<td>9,998</td>",
        "<li>some calls had no known outcome</li>",
        "12.3 ms",
        "Latency spectrum",
        "Throughput over time",
        "failed: INSUFFICIENT_BALANCE",
        "p99&lt;20ms",
        "✓ passed",
        "one hot account: batched suits it",
        "closed loop, 64 in flight",
    ] {
        assert!(page.contains(told), "{told}");
    }
    assert_eq!(page.matches("<svg class=\"chart\"").count(), 3);
    assert!(!page.contains("Stopped before its end"));
}

#[test]
fn what_went_wrong_is_told_too() {
    let page = of(open());
    for told in [
        "✗ LOST",
        "0.01 gone in 1 lost update",
        "account 42: A 00000000",
        "Stopped before its end",
        "✗ failed",
        "sent late",
        "dropped",
    ] {
        assert!(page.contains(told), "{told}");
    }
    assert!(!page.contains("<h2>Cost</h2>"));
}

#[test]
fn several_results_share_their_charts() {
    let exhibits = [Exhibit::of("before".to_owned(), closed()), Exhibit::of("after".to_owned(), open())];
    let page = page(&exhibits);
    stands_alone(&page);
    for told in ["2 results side by side", "<td>before</td>", "<li>after: not the same workload", "×1.00"] {
        assert!(page.contains(told), "{told}");
    }
    assert_eq!(page.matches("<svg class=\"chart\"").count(), 3);
}

#[test]
fn no_text_of_a_result_is_believed() {
    let mut bench = closed();
    bench.store = HOSTILE.to_owned();
    bench.strategy = Some(HOSTILE.to_owned());
    bench.advice = Some(HOSTILE.to_owned());
    bench.remarks.push(HOSTILE.to_owned());
    bench.failed.insert(HOSTILE.to_owned(), 1);
    bench.thresholds[0].expression = HOSTILE.to_owned();
    bench.thresholds[0].value = HOSTILE.to_owned();
    if let Some(judged) = &mut bench.verdict {
        judged.doubts.push(HOSTILE.to_owned());
    }
    let exhibits = [Exhibit::of(HOSTILE.to_owned(), bench.clone()), Exhibit::of(HOSTILE.to_owned(), bench.clone())];
    for page in [of(bench), page(&exhibits)] {
        assert!(!page.contains("<script") && !page.contains("alert('"), "{page}");
        assert!(page.contains("&lt;/style&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;&quot;"));
        well_formed(&page);
    }
}

#[test]
fn every_element_is_closed() {
    for bench in [closed(), open(), Bench { series: vec![], spectrum: vec![], verdict: None, ..closed() }] {
        well_formed(&of(bench));
    }
    well_formed(&page(&[]));
}
