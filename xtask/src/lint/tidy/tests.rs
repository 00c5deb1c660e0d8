//! Each breach is found, and what only looks like one is not.

use super::*;

#[test]
fn a_breach_is_named_with_its_place() {
    let long = "//! x\n".repeat(LINES_MAX + 1);
    for (name, text, expected) in [
        ("loadgen/src/a.rs", "//! x\n", ""),
        ("loadgen/src/a.rs", long.as_str(), "501 lines"),
        ("loadgen/src/a/mod.rs", "//! x\n", "beside it"),
        ("loadgen/src/a.rs", "use std::io;\n", ":1: open it"),
        ("loadgen/src/a.rs", "//! x\nuse tonic::Status;\n", ":2: tonic stays"),
        ("loadgen/src/a.rs", "//! x\nlet x = tonic_types::f();\n", ":2: tonic stays"),
        ("loadgen/src/a.rs", "//! x\n    // tonic::Status\nuse architectonic::Status;\n", ""),
        ("server/src/rpc/status.rs", "//! x\nuse tonic::Status;\n", ""),
        ("server/src/rpc/status.rs", "//! x\nuse diesel_async::X;\n", ":2: diesel stays"),
        ("server/tests/it/a.rs", "//! x\nuse tonic::Status;\n", ""),
        ("loadgen/src/attack/tests.rs", "//! x\nuse tonic::Status;\n", ""),
        ("server/src/store/mysql.rs", "//! x\nuse diesel_async::X;\n", ""),
    ] {
        let breaches = breaches_of(name, text).join("\n");
        assert!(breaches.contains(expected) && breaches.is_empty() == expected.is_empty(), "{text:?}: {breaches}");
    }
}
