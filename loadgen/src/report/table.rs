//! Several runs side by side.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, TableComponent, presets::NOTHING};

use super::Report;
use super::text::millis;

const COLUMNS: [&str; 11] = [
    "strategy",
    "verdict",
    "acknowledged",
    "refused",
    "contended",
    "lost",
    "per s",
    "x none",
    "p50/p99 ms",
    "attempts",
    "retries",
];

/// Columns that hold words, and are read from the left.
const WORDS: usize = 2;

/// One row per run: `per s` is answers per second, and `x none` compares it with the run of the strategy that guards
/// nothing, where there is one. Notes on contention follow.
pub fn table(runs: &[Report]) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(COLUMNS);
    table.set_style(TableComponent::HeaderLines, '─').set_style(TableComponent::MiddleHeaderIntersections, '─');
    let unguarded = runs.iter().find(|run| run.guarantee == zbl_client::Guarantee::LosesUpdates);
    for run in runs {
        table.add_row(row(run, unguarded.map(|none| none.throughput_per_s)));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index >= WORDS {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let notes = runs.iter().filter_map(Report::contention_note).map(|note| format!("\n{note}\n"));
    table.trim_fmt() + "\n" + &notes.collect::<String>()
}

fn row(run: &Report, unguarded: Option<f64>) -> Vec<Cell> {
    let ratio = unguarded.filter(|none| *none > 0.0).map(|none| run.throughput_per_s / none);
    let optional = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.2}"));
    [
        run.strategy.clone(),
        run.verdict.to_string(),
        run.acknowledged.count.to_string(),
        run.refused().to_string(),
        run.contended().to_string(),
        run.lost.to_string(),
        format!("{:.0}", run.throughput_per_s),
        optional(ratio),
        format!("{}/{}", millis(run.latency_us.p50), millis(run.latency_us.p99)),
        optional(run.attempts_per_acknowledged()),
        run.contended_retries.to_string(),
    ]
    .into_iter()
    .map(Cell::new)
    .collect()
}
