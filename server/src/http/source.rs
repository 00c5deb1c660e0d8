//! The strategies' source, as it was compiled: the page shows it beside what it does. Serves no other file.

use axum::{
    Router,
    extract::Path,
    http::{HeaderMap, Uri},
    routing::get,
};
use rust_embed::{Embed, EmbeddedFile};

use super::{
    not_found,
    page::{CHECKED, told},
};
use crate::strategy;

/// Each strategy has a file by its name there.
#[derive(Embed)]
#[folder = "src/strategy"]
struct Files;

/// `/source/<strategy>.rs`.
pub(super) fn router() -> Router {
    let answer = async |Path(name): Path<String>, uri: Uri, headers: HeaderMap| match file(&name) {
        Some(file) => told(file, "text/plain; charset=utf-8", CHECKED, &headers),
        None => not_found(&uri),
    };
    Router::new().route("/source/{name}", get(answer))
}

fn file(name: &str) -> Option<EmbeddedFile> {
    let row = strategy::find(name.strip_suffix(".rs")?).ok()?;
    Files::get(&format!("{}.rs", row.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_strategy_has_its_source_and_nothing_else_is_told() {
        for row in strategy::REGISTRY {
            let source = file(&format!("{}.rs", row.name)).expect(row.name);
            let text = std::str::from_utf8(&source.data).unwrap();
            assert!(text.starts_with("//!") && text.contains(row.summary), "{}", row.name);
        }
        for name in ["", ".rs", "none", "operation.rs", "claim.rs", "batched/plan.rs", "../strategy.rs", "none.rs.rs"] {
            assert!(file(name).is_none(), "{name}");
        }
    }
}
