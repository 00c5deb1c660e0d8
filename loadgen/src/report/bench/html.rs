//! A result, or several, as one page that needs nothing else: no script, no font, no request. It owns the page; figures
//! and remarks are those of the texts. Everything that comes from a result is escaped.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::text::found;
use super::{Bench, BenchVerdict, Exhibit, Schedule, diff};
use crate::recorder::Latency;
use crate::report::text::{millis, witness};
use crate::report::{cost, counted};
use crate::verdict::Verdict;

mod chart;
mod charts;

use chart::grouped;

const STYLE: &str = include_str!("html/style.css");

/// Lost updates that are told one by one; the JSON has more.
const WITNESSES: usize = 10;

/// Nothing may be loaded and nothing run, whatever a result holds.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The page of one result, or of several, each against the first.
pub fn page(exhibits: &[Exhibit]) -> String {
    match exhibits {
        [Exhibit { bench: Some(bench), .. }] => document(&headline(bench), &single(bench)),
        several => document(&format!("{} results side by side", several.len()), &compared(several)),
    }
}

fn document(title: &str, body: &str) -> String {
    let title = escaped(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n{body}</main>\n</body>\n</html>\n"
    )
}

fn headline(bench: &Bench) -> String {
    format!("loadgen bench: {} on {}", bench.subject(), bench.store)
}

fn single(bench: &Bench) -> String {
    let workload = diff::workload(bench);
    let [calls, _, _, accounts, _, _, pacing, ..] = &workload;
    let mut out = format!(
        "<p class=\"soft\">{}; accounts: {}; {}; {:.1} s after a warm-up of {:.1} s</p>\n",
        escaped(&calls.1),
        escaped(&accounts.1),
        escaped(&pacing.1),
        bench.duration_ms as f64 / 1e3,
        bench.warmup_ms as f64 / 1e3
    );
    if bench.interrupted {
        out += "<p class=\"failed\">Stopped before its end: these are the figures until then.</p>\n";
    }
    out += &bench.verdict.as_ref().map_or_else(String::new, verdict);
    out += &tiles(bench);
    out += &list(&bench.remarks);
    let exhibits = [Exhibit::of(String::new(), bench.clone())];
    for (heading, chart) in [
        ("Latency spectrum", charts::spectrum(&exhibits)),
        ("Throughput over time", charts::throughput(&exhibits)),
        ("Latency over time", charts::latency(&exhibits)),
    ] {
        out += &section(heading, &chart.drawn());
    }
    out += &section("Figures", &figures(bench));
    if !bench.thresholds.is_empty() {
        out += &section("Thresholds", &thresholds(bench));
    }
    out += &cost_card(bench);
    let rows: Vec<_> = workload.into_iter().map(|(what, value)| [what.to_owned(), value]).collect();
    let seed = [
        ["duration".to_owned(), format!("{:.3} s", bench.duration_ms as f64 / 1e3)],
        ["seed".to_owned(), bench.seed.to_string()],
    ];
    out + &section("Workload", &table(2, &["", ""], rows.into_iter().chain(seed)))
}

fn compared(exhibits: &[Exhibit]) -> String {
    let mut tables = table(3, &diff::COLUMNS, diff::rows(exhibits));
    let costs = diff::cost_rows(exhibits);
    if !costs.is_empty() {
        let _ = write!(tables, "<p class=\"soft\">{}</p>", cost::CAPTION);
        tables += &table(1, &cost::COLUMNS, costs);
    }
    let mut out = section("Figures", &(tables + &list(&diff::remarks(exhibits))));
    if exhibits.iter().all(|exhibit| exhibit.bench.is_none()) {
        return out;
    }
    for (heading, chart) in [
        ("Latency spectrum", charts::spectrum(exhibits)),
        ("Throughput over time", charts::throughput(exhibits)),
        ("p99 over time", charts::latency(exhibits)),
    ] {
        out += &section(heading, &chart.drawn());
    }
    out
}

/// The verdict in words and in colour, with what is behind it.
fn verdict(judged: &BenchVerdict) -> String {
    let (class, sign) = match judged.verdict {
        Verdict::Clean => ("clean", "✓"),
        Verdict::Lost => ("lost", "✗"),
        Verdict::Inconclusive => ("doubtful", "?"),
    };
    let BenchVerdict { acknowledged, accounts_checked, lost_updates_count, unattributed, difference, .. } = judged;
    let mut remarks: Vec<_> = judged.doubts.clone();
    remarks.extend(
        judged
            .lost_updates
            .iter()
            .take(WITNESSES)
            .map(|lost| format!("account {}: {}", lost.user_id, witness(&lost.pair))),
    );
    format!(
        "<div class=\"verdict {class}\"><p><strong>{sign} {}</strong> {}</p><p class=\"soft\">{}, {} in all, held \
         against the journals of {}; lost updates: {lost_updates_count}; unattributed: {unattributed}; difference: \
         {difference}</p>{}</div>\n",
        judged.verdict,
        escaped(&found(judged)),
        counted(acknowledged.count, "deduction"),
        acknowledged.amount,
        counted(*accounts_checked, "account"),
        list(&remarks)
    )
}

fn tiles(bench: &Bench) -> String {
    let in_ms = |micros| format!("{} ms", millis(micros));
    let mut tiles = vec![
        ("acknowledged per second", grouped(&format!("{:.0}", bench.acknowledged_per_s))),
        ("p50", in_ms(bench.latency_us.p50)),
        ("p99", in_ms(bench.latency_us.p99)),
        ("max", in_ms(bench.latency_us.max)),
        ("failed", diff::share(bench.failures(), bench.requests)),
    ];
    if let Some(Schedule { sent, late, .. }) = bench.schedule {
        tiles.push(("sent late", diff::share(late, sent)));
    }
    let mut out = "<dl class=\"tiles\">".to_owned();
    for (name, value) in tiles {
        let _ = write!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    out + "</dl>\n"
}

fn figures(bench: &Bench) -> String {
    let header = ["latency in ms", "operations", "p50", "p90", "p99", "p99.9", "max"];
    let row = |name: &str, count: u64, latency: &Latency| {
        let Latency { p50, p90, p99, p999, max } = *latency;
        let mut row = vec![name.to_owned(), grouped(&count.to_string())];
        row.extend([p50, p90, p99, p999, max].map(millis));
        row
    };
    let mut rows = vec![row("all", bench.requests, &bench.latency_us)];
    if bench.methods.len() > 1 {
        let of_methods = bench.methods.iter().map(|(method, part)| row(method.name(), part.requests, &part.latency_us));
        rows.extend(of_methods);
    }
    rows.extend(bench.observed_latency_us.map(|observed| row("from the sending", bench.requests, &observed)));
    rows.extend(bench.schedule.map(|schedule| row("sent after it was due", schedule.sent, &schedule.lag_us)));

    let mut counts = vec![
        ("requests", bench.requests.to_string()),
        ("acknowledged", bench.acknowledged.to_string()),
        ("answered per second, refusals included", format!("{:.0}", bench.throughput_per_s)),
        ("unknown", bench.unknown.to_string()),
        ("repeated after an outage", bench.outage_retries.to_string()),
    ];
    if let Some(Schedule { sent, late, dropped, .. }) = bench.schedule {
        counts.extend([("sent", sent.to_string()), ("sent late", late.to_string()), ("dropped", dropped.to_string())]);
    }
    let failed = bench.failed.iter().map(|(reason, count)| [format!("failed: {reason}"), grouped(&count.to_string())]);
    let counts = counts.into_iter().map(|(name, count)| [name.to_owned(), grouped(&count)]).chain(failed);
    table(1, &header, rows) + "<br>" + &table(1, &["count", ""], counts)
}

fn thresholds(bench: &Bench) -> String {
    let rows = bench.thresholds.iter().map(|checked| {
        let passed = if checked.passed { "✓ passed" } else { "✗ failed" };
        [checked.expression.clone(), checked.value.clone(), passed.to_owned()]
    });
    table(1, &["threshold", "measured", ""], rows)
}

/// What a deduction cost and what to choose; nothing where neither is known.
fn cost_card(bench: &Bench) -> String {
    let exhibit = [Exhibit::of(bench.subject(), bench.clone())];
    let costs = diff::cost_rows(&exhibit);
    let mut card = String::new();
    if !costs.is_empty() {
        let _ = write!(card, "<p class=\"soft\">{}</p>", cost::CAPTION);
        card += &table(1, &cost::COLUMNS, costs);
    }
    if let Some(advice) = &bench.advice {
        let _ = write!(card, "<p>{}</p>", escaped(advice));
    }
    if card.is_empty() { card } else { section("Cost", &card) }
}

fn section(heading: &str, body: &str) -> String {
    format!("<section><h2>{heading}</h2>{body}</section>\n")
}

fn list(items: &[String]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let items = items.iter().fold(String::new(), |out, item| out + "<li>" + &escaped(item) + "</li>");
    format!("<ul>{items}</ul>")
}

/// A table whose first `words` columns (at most three) are words, and the others figures.
fn table<R: IntoIterator<Item = String>>(words: usize, header: &[&str], rows: impl IntoIterator<Item = R>) -> String {
    let mut out = format!("<div class=\"scroll\"><table class=\"w{words}\">");
    if header.iter().any(|name| !name.is_empty()) {
        let names =
            header.iter().fold(String::new(), |out, name| out + "<th scope=\"col\">" + &escaped(name) + "</th>");
        let _ = write!(out, "<thead><tr>{names}</tr></thead>");
    }
    out += "<tbody>";
    for row in rows {
        let cells = row.into_iter().fold(String::new(), |out, cell| out + "<td>" + &escaped(&cell) + "</td>");
        let _ = write!(out, "<tr>{cells}</tr>");
    }
    out + "</tbody></table></div>"
}

/// Text as HTML and its attributes take it.
fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            other => out.push(other),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests;
