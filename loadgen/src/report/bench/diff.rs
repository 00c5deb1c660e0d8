//! Results side by side, each against the first. It owns the ratios and the honest remarks to them: what was not the same
//! workload, and which difference the runs' own noise explains.

use comfy_table::{Table, presets::ASCII_MARKDOWN};

use super::noise::{self, Difference, LEVEL, MIN_WINDOWS};
use super::{Bench, Exhibit, Pacing};
use crate::report::cost;
use crate::report::table::{aligned, plain};
use crate::report::text::millis;

pub(super) const COLUMNS: [&str; 10] =
    ["result", "measured", "verdict", "acked/s", "×", "p50 ms", "×", "p99 ms", "×", "failed"];

/// Columns that hold words, and are read from the left.
const WORDS: usize = 3;

/// The part of a label that a table of a hundred columns has room for; its end is what tells files apart.
const LABEL_LENGTH: usize = 20;

/// How a comparison is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For a terminal.
    Text,
    /// For a page that renders Markdown.
    Markdown,
}

/// Tables of the results, each against the first, and what must be known to read them.
pub fn comparison(exhibits: &[Exhibit], form: Form) -> String {
    let mut out = rendered(&COLUMNS, WORDS, rows(exhibits), form);
    let costs = cost_rows(exhibits);
    if !costs.is_empty() {
        out += &format!("\n{}\n\n", cost::CAPTION);
        out += &rendered(&cost::COLUMNS, 1, costs, form);
    }
    let remarks = remarks(exhibits);
    if !remarks.is_empty() {
        out += "\n";
    }
    let bullet = if form == Form::Markdown { "- " } else { "" };
    remarks.iter().fold(out, |out, remark| out + bullet + remark + "\n")
}

fn rendered(columns: &[&str], words: usize, rows: Vec<Vec<String>>, form: Form) -> String {
    let mut table: Table = plain(columns);
    if form == Form::Markdown {
        table.load_preset(ASCII_MARKDOWN);
    }
    for mut row in rows {
        match (form, row.as_mut_slice()) {
            (Form::Text, [label, ..]) => *label = shortened(label),
            (Form::Markdown, cells) => cells.iter_mut().for_each(|cell| *cell = cell.replace('|', "\\|")),
            (Form::Text, []) => {}
        }
        table.add_row(row);
    }
    if form == Form::Text {
        aligned(&mut table, words);
    }
    table.trim_fmt() + "\n"
}

pub(super) fn rows(exhibits: &[Exhibit]) -> Vec<Vec<String>> {
    let Some(first) = exhibits.first() else { return Vec::new() };
    let row = |exhibit: &Exhibit| {
        let (ours, base) = (&exhibit.figures, &first.figures);
        let latency = |of: fn(&crate::recorder::Latency) -> u64| {
            let (ours, base) = (of(&ours.latency_us), of(&base.latency_us));
            [millis(ours), ratio(ours as f64, base as f64)]
        };
        let [p50, p50_ratio] = latency(|latency| latency.p50);
        let [p99, p99_ratio] = latency(|latency| latency.p99);
        vec![
            exhibit.label.clone(),
            ours.subject.clone(),
            ours.verdict.map_or_else(|| "-".to_owned(), |verdict| verdict.to_string()),
            format!("{:.0}", ours.acknowledged_per_s),
            ratio(ours.acknowledged_per_s, base.acknowledged_per_s),
            p50,
            p50_ratio,
            p99,
            p99_ratio,
            share(ours.failed, ours.requests),
        ]
    };
    exhibits.iter().map(row).collect()
}

pub(super) fn cost_rows(exhibits: &[Exhibit]) -> Vec<Vec<String>> {
    if exhibits.iter().all(|exhibit| exhibit.figures.cost.is_none()) {
        return Vec::new();
    }
    exhibits.iter().map(|exhibit| cost::row(&exhibit.label, exhibit.figures.cost).to_vec()).collect()
}

/// How many times the first one's figure it is.
pub(super) fn ratio(ours: f64, base: f64) -> String {
    if base > 0.0 { format!("×{:.2}", ours / base) } else { "-".to_owned() }
}

pub(super) fn share(count: u64, of: u64) -> String {
    match (count, of) {
        (0, _) | (_, 0) => "0 %".to_owned(),
        (count, of) => format!("{:.2} %", count as f64 * 100.0 / of as f64),
    }
}

fn shortened(label: &str) -> String {
    let length = label.chars().count();
    if length <= LABEL_LENGTH {
        return label.to_owned();
    }
    // Room for the sign that something is missing.
    let end: String = label.chars().skip(length - LABEL_LENGTH + 1).collect();
    format!("…{end}")
}

/// What must be known to read a comparison.
pub(super) fn remarks(exhibits: &[Exhibit]) -> Vec<String> {
    let [first, others @ ..] = exhibits else { return Vec::new() };
    let mut remarks = Vec::new();
    for other in others {
        if let (Some(one), Some(two)) = (&first.bench, &other.bench) {
            remarks
                .extend(not_the_same(one, two).map(|what| format!("{}: not the same workload, {what}", other.label)));
            remarks.extend(noise(one, two).map(|what| format!("{}: {what}", other.label)));
        }
    }
    if exhibits.iter().any(|exhibit| exhibit.bench.is_none()) && !others.is_empty() {
        remarks.push("results of attack and compare have no windows: what in them is noise cannot be told".to_owned());
    }
    if !others.is_empty() {
        remarks.push(
            "× is the figure divided by the first one's; one run each does not show what varies between runs"
                .to_owned(),
        );
    }
    remarks
}

/// In what the workloads differ, the strategy apart: that is what one compares.
fn not_the_same(one: &Bench, other: &Bench) -> Option<String> {
    let pairs = workload(one).into_iter().zip(workload(other));
    let differing: Vec<_> = pairs
        .filter(|((_, one), (_, other))| one != other)
        .map(|((what, one), (_, other))| format!("{what}: {one} → {other}"))
        .collect();
    (!differing.is_empty()).then(|| differing.join("; "))
}

/// What was asked of the servers, in words.
pub(super) fn workload(bench: &Bench) -> [(&'static str, String); 9] {
    let spread = match bench.zipf {
        Some(exponent) => format!("{} (Zipf {exponent})", bench.accounts),
        None => bench.accounts.to_string(),
    };
    let pacing = match bench.pacing {
        Pacing::Closed { concurrency } => format!("closed loop, {concurrency} in flight"),
        Pacing::Open { rate_per_s, .. } => format!("open loop, {rate_per_s} per second"),
    };
    let calls = if bench.stream { format!("{} over a stream", bench.calls()) } else { bench.calls() };
    [
        ("calls", calls),
        ("store", bench.store.clone()),
        ("servers", bench.servers.to_string()),
        ("accounts", spread),
        ("amount", bench.amount.map_or_else(|| "-".to_owned(), |amount| amount.to_string())),
        ("opening", bench.opening.map_or_else(|| "-".to_owned(), |opening| opening.to_string())),
        ("pacing", pacing),
        ("connections", format!("{} per server", bench.connections)),
        ("warm-up", format!("{:.1} s", bench.warmup_ms as f64 / 1e3)),
    ]
}

/// Which of the differences in the table the windows of the two runs do not bear out. The rate of a run is the mean of its
/// windows' rates; its p99 is not that of any window, so that what is tested is named.
fn noise(one: &Bench, other: &Bench) -> Option<String> {
    let tests = [("acked/s", noise::rates as fn(&Bench) -> Vec<f64>), ("the windows' p99", noise::tails)];
    let mut within = Vec::new();
    for (what, of) in tests {
        match noise::difference(&of(one), &of(other)) {
            Difference::WithinNoise => within.push(what),
            Difference::BeyondNoise => {}
            Difference::TooFewWindows => {
                return Some(format!(
                    "too short to tell a difference from noise; measure at least {MIN_WINDOWS} s, with --duration {MIN_WINDOWS}s"
                ));
            }
        }
    }
    (!within.is_empty()).then(|| {
        let [n, of] = [one, other].map(|bench| bench.whole_windows().count());
        let what = within.join(" and ");
        format!("its difference in {what} could not be told from noise (Mann–Whitney on {n} and {of} windows, {LEVEL})")
    })
}

#[cfg(test)]
mod tests {
    use super::super::sample::{closed, open, window};
    use super::*;

    fn exhibit(label: &str, bench: Bench) -> Exhibit {
        Exhibit::of(label.to_owned(), bench)
    }

    fn faster(by: u64) -> Bench {
        let closed = closed();
        let series = closed
            .series
            .iter()
            .map(|window| super::super::Window { acknowledged: window.acknowledged * by / 100, ..*window });
        Bench { acknowledged_per_s: closed.acknowledged_per_s * by as f64 / 100.0, series: series.collect(), ..closed }
    }

    fn row(table: &str, label: &str) -> Vec<String> {
        let line = table.lines().find(|line| line.starts_with(label));
        line.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn ratios_are_to_the_first() {
        let exhibits = [exhibit("base", closed()), exhibit("fast", faster(150)), exhibit("open", open())];
        let text = comparison(&exhibits, Form::Text);
        let expected = ["fast", "batched", "CLEAN", "14848", "×1.50", "1.0", "×1.00", "12.3", "×1.00", "1.00", "%"];
        assert_eq!(row(&text, "fast"), expected, "{text}");
        assert_eq!(row(&text, "base")[4], "×1.00", "{text}");
        assert!(text.contains("\nper acknowledged deduction, with the work for those refused\n"), "{text}");
        let widest = text.lines().take_while(|line| !line.is_empty()).map(|line| line.chars().count()).max();
        assert!(widest.is_some_and(|columns| columns <= 100), "{text}");
    }

    #[test]
    fn differences_within_the_noise_are_said_to_be() {
        let remark = "its difference in acked/s and the windows' p99 could not be told from noise (Mann–Whitney on 10 and 10 windows, 1 % level)";
        let same = comparison(&[exhibit("a", closed()), exhibit("b", closed())], Form::Text);
        assert!(same.contains(&format!("b: {remark}")), "{same}");
        let apart = comparison(&[exhibit("a", closed()), exhibit("b", faster(150))], Form::Text);
        assert!(apart.contains("b: its difference in the windows' p99 could not"), "{apart}");
        let short = Bench { series: vec![window(0, 1)], ..closed() };
        let short = comparison(&[exhibit("a", closed()), exhibit("b", short)], Form::Text);
        assert!(short.contains("b: too short to tell a difference from noise"), "{short}");
    }

    #[test]
    fn what_is_tested_is_what_the_table_shows() {
        // Refusals make answers of either run as many; what was sold differs, in the table and in every window.
        let answers = |bench: Bench| Bench { throughput_per_s: 20_000.0, ..bench };
        let text = comparison(&[exhibit("a", answers(closed())), exhibit("b", answers(faster(150)))], Form::Text);
        assert_eq!(row(&text, "b")[4], "×1.50", "{text}");
        assert!(!text.contains("its difference in acked/s"), "{text}");
    }

    #[test]
    fn another_workload_is_named() {
        let same = comparison(&[exhibit("a", closed()), exhibit("b", faster(150))], Form::Text);
        assert!(!same.contains("not the same workload"), "{same}");
        let text = comparison(&[exhibit("a", closed()), exhibit("b", open())], Form::Text);
        for what in
            ["accounts: 1 → 10000 (Zipf 0.99)", "pacing: closed loop, 64 in flight → open loop, 12500.5 per second"]
        {
            assert!(text.contains(what), "{what}: {text}");
        }
    }

    #[test]
    fn markdown_has_a_row_for_each_and_long_labels_keep_their_end() {
        let exhibits = [exhibit("results/of/a/long|path/before", closed()), exhibit("b", closed())];
        let markdown = comparison(&exhibits, Form::Markdown);
        assert!(markdown.starts_with("| result "), "{markdown}");
        assert!(markdown.lines().nth(1).is_some_and(|line| line.starts_with("|---")), "{markdown}");
        assert!(markdown.contains("results/of/a/long\\|path/before"), "{markdown}");
        let text = comparison(&exhibits, Form::Text);
        assert!(text.contains("\n…/a/long|path/before  batched"), "{text}");
        assert!(markdown.contains("\n- b: its difference"), "{markdown}");
    }

    #[test]
    fn nothing_and_zeroes_divide_nothing() {
        assert!(comparison(&[], Form::Text).starts_with("result"));
        let idle = Bench { acknowledged_per_s: 0.0, ..closed() };
        let text = comparison(&[exhibit("idle", idle), exhibit("b", closed())], Form::Text);
        assert_eq!(row(&text, "b")[4], "-", "{text}");
    }
}
