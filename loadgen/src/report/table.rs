//! Several runs side by side.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, TableComponent, presets::NOTHING};

use zbl_client::Money;

use super::text::millis;
use super::{Report, advice, cost};

/// Ten columns fit a hundred characters; what else there is to know, the JSON has.
const COLUMNS: [&str; 10] =
    ["strategy", "verdict", "acked", "refused", "contended", "lost", "per s", "×none", "p50/p99 ms", "attempts"];

/// Columns that hold words, and are read from the left.
const WORDS: usize = 2;

/// The store whose one writer at a time evens out what tells strategies apart.
const SINGLE_WRITER: &str = "sqlite";

/// One row per run: `per s` is answers per second, `×none` compares it with the run of the strategy that guards nothing,
/// where there is one, and `attempts` are those of an acknowledged operation. What must be known to read it follows.
pub fn table(runs: &[Report]) -> String {
    let mut table = plain(&COLUMNS);
    let unguarded = runs.iter().find(|run| run.guarantee == zbl_client::Guarantee::LosesUpdates);
    for run in runs {
        table.add_row(row(run, unguarded.map(|none| none.throughput_per_s)));
    }
    aligned(&mut table, WORDS);
    let notes = notes(runs);
    let gap = if notes.is_empty() { "\n" } else { "\n\n" };
    let shown = table.trim_fmt() + &cost_card(runs) + gap;
    notes.iter().fold(shown, |out, note| out + note + "\n")
}

/// What an acknowledged deduction cost, run by run; empty when no server told.
fn cost_card(runs: &[Report]) -> String {
    if runs.iter().all(|run| run.cost.is_none()) {
        return String::new();
    }
    let mut card = plain(&cost::COLUMNS);
    for run in runs {
        card.add_row(cost::row(&run.strategy, run.cost));
    }
    aligned(&mut card, 1);
    format!("\n\n{}\n{}", cost::CAPTION, card.trim_fmt())
}

/// A table with a line below its header and no others.
pub(crate) fn plain(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(columns.to_vec());
    table.set_style(TableComponent::HeaderLines, '─').set_style(TableComponent::MiddleHeaderIntersections, '─');
    table
}

/// Sets columns close together, the first `words` of them read from the left, figures from the right.
pub(crate) fn aligned(table: &mut Table, words: usize) {
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 1));
        if index >= words {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn notes(runs: &[Report]) -> Vec<String> {
    let of_each = |note: fn(&Report) -> Option<String>| runs.iter().filter_map(note);
    // The workload is the same for all of them.
    let mut notes: Vec<String> = runs.first().and_then(caption).into_iter().collect();
    if runs.iter().any(|run| run.store == SINGLE_WRITER) {
        notes.push(format!(
            "{SINGLE_WRITER}: its single writer makes strategies look alike; MySQL and MariaDB tell them apart"
        ));
    }
    notes.extend(of_each(Report::scope_note));
    notes.extend(of_each(Report::contention_note));
    notes.extend(advice::for_runs(runs));
    notes
}

/// What `per s` measures where the balance cannot pay for everything.
fn caption(run: &Report) -> Option<String> {
    let operations = u64::from(run.workers) * u64::from(run.deductions);
    // Checked by the workload: the sum of all deductions is money.
    let enough = Money::from_minor(run.amount.minor().saturating_mul(i64::try_from(operations).unwrap_or(i64::MAX)));
    (run.affordable < operations).then(|| {
        format!("per s: answers, refusals included; loadgen's --opening {enough} pays for all, and measures sales")
    })
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
    ]
    .into_iter()
    .map(Cell::new)
    .collect()
}
