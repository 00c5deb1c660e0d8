//! A report for people: the ratio table in the terminal, and the whole as Markdown. Every figure comes from the report.

use super::{
    case::{CONCURRENCY, CONNECTIONS, FEW, OPEN_LOOP_MOST, STREAMED, UNIFORM},
    database::Description,
    figures::Aim,
    report::{Figures, Goal, Measured, Report},
    sample::Metric,
};

/// Where a figure was not measured.
const ABSENT: &str = "–";

/// The columns of the figures behind the rate: the metric, its heading, its decimals.
const COLUMNS: [(Metric, &str, usize); 11] = [
    (Metric::P50Ms, "p50 ms", 2),
    (Metric::P99Ms, "p99 ms", 2),
    (Metric::RefusedShare, "refused %", 1),
    (Metric::DroppedShare, "dropped %", 1),
    (Metric::RoundTrips, "trips", 2),
    (Metric::Commits, "commits", 3),
    (Metric::ServerCpuMs, "server", 1),
    (Metric::DatabaseCpuMs, "database", 1),
    (Metric::RedisCpuMs, "Redis", 1),
    (Metric::ClientCpuMs, "client", 1),
    (Metric::BusyCores, "cores", 2),
];

/// What was aimed at, for the terminal.
pub(crate) fn goal_tables(report: &Report) -> String {
    let ratios =
        |measured: &Measured| format!("\n{}\n\n{}", measured.database.name, goal_table("ratio", &measured.ratios));
    let tables: String = report.databases.iter().map(ratios).collect();
    format!("{tables}\n{}", goal_table("figure", &report.pure))
}

/// The whole report; what is the same in each stands in `page.md`.
pub(crate) fn markdown(report: &Report) -> String {
    let Report { machine, effort, .. } = report;
    format!(
        include_str!("render/page.md"),
        date = machine.date,
        length = if effort.quick { "the quick one" } else { "the full one" },
        rounds = effort.rounds,
        duration = effort.duration,
        warmup = effort.warmup,
        took = minutes(report.took_s),
        commit = machine.commit,
        processor = machine.processor,
        cores = machine.cores,
        memory = grouped(machine.memory_mib as f64),
        kernel = machine.kernel,
        compiler = machine.compiler,
        flush = decimal(machine.flush_ms.median),
        flush_min = decimal(machine.flush_ms.min),
        flush_max = decimal(machine.flush_ms.max),
        databases = report.databases.iter().map(section).collect::<String>(),
        pure = goal_table("figure", &report.pure),
        left_out = left_out(report),
        uniform = grouped(f64::from(UNIFORM)),
        concurrency = CONCURRENCY,
        connections = CONNECTIONS,
        streamed = STREAMED,
        open_loop_most = OPEN_LOOP_MOST,
        few = FEW,
    )
}

/// What was measured on one database.
fn section(measured: &Measured) -> String {
    let Measured { database, redis, cases, .. } = measured;
    let [name, about] = [&database.name, &about(database)];
    let [ratios, figures] = [goal_table("ratio", &measured.ratios), figure_table(cases)];
    let seen: String = cases.iter().filter_map(seen).collect();
    let beside = format!("Beside it {redis}, private, started for this run, for the cases that need it or name it.");
    format!("## {name}\n\n{about}\n{beside}\n\n### Ratios\n\n{ratios}\n### Figures\n\n{figures}\n{seen}")
}

fn about(database: &Description) -> String {
    let origin =
        if database.private { "Private, started for this run." } else { "A given server, which other work may share." };
    let settings: Vec<String> = database.settings.iter().map(|(name, value)| format!("`{name}` {value}")).collect();
    format!("{origin} {}.", settings.join(", "))
}

fn goal_table(heading: &str, goals: &[Goal]) -> String {
    let row = |goal: &Goal| {
        let (median, range) = match &goal.figure {
            Some(spread) => (short(spread.median), format!("{} to {}", short(spread.min), short(spread.max))),
            None => (ABSENT.to_owned(), ABSENT.to_owned()),
        };
        let aim = match goal.aim {
            Some(Aim::AtLeast(least)) => format!("≥ {}", short(least)),
            Some(Aim::AtMost(most)) => format!("≤ {}", short(most)),
            None => String::new(),
        };
        let reached = match (goal.aim, goal.reached) {
            (None, _) => "",
            (Some(_), Some(true)) => "reached",
            (Some(_), Some(false)) => "missed",
            (Some(_), None) => "not measured",
        };
        vec![goal.name.clone(), median, range, aim, reached.to_owned()]
    };
    table(&[heading, "median", "min to max", "aim", ""], goals.iter().map(row))
}

fn figure_table(cases: &[Figures]) -> String {
    let mut header = vec!["case", "per second", "min to max"];
    header.extend(COLUMNS.map(|(_, name, _)| name));
    header.push("peak MiB");
    let row = |case: &Figures| {
        let figure = |metric| case.figures.get(&metric);
        let rate = figure(Metric::RatePerS);
        let mut row = vec![case.case.clone()];
        row.push(rate.map_or(ABSENT.into(), |rate| grouped(rate.median)));
        row.push(rate.map_or(ABSENT.into(), |rate| format!("{} to {}", grouped(rate.min), grouped(rate.max))));
        row.extend(COLUMNS.map(|(metric, _, decimals)| {
            let scale = if matches!(metric, Metric::RefusedShare | Metric::DroppedShare) { 100.0 } else { 1.0 };
            figure(metric).map_or(ABSENT.into(), |spread| format!("{:.decimals$}", spread.median * scale))
        }));
        row.push(figure(Metric::ServerPeakMib).map_or(ABSENT.into(), |spread| format!("{:.0}", spread.max)));
        row
    };
    table(&header, cases.iter().map(row))
}

/// What one who watched was told, in the median round.
fn seen(case: &Figures) -> Option<String> {
    let figure = |metric| Some(grouped(case.figures.get(&metric)?.median));
    let (spans, missed) = (figure(Metric::SpansSeen)?, figure(Metric::EventsMissed)?);
    Some(format!("Of *{}*, the watcher received {spans} spans; {missed} events were missing.\n\n", case.case))
}

fn left_out(report: &Report) -> String {
    if report.left_out.is_empty() {
        return String::new();
    }
    let rows = report.left_out.iter().map(|(what, why)| format!("- {what}: {}", why.replace('\n', " ")));
    format!("## Left out\n\n{}\n\n", rows.collect::<Vec<_>>().join("\n"))
}

/// A table that reads well as text and as Markdown. Figures stand to the right.
fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut lines = vec![header.iter().map(ToString::to_string).collect::<Vec<_>>()];
    lines.extend(rows);
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &Vec<String>| {
        let cells = cells.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("| {cell:width$} "),
            _ => format!("| {cell:>width$} "),
        });
        cells.collect::<String>() + "|\n"
    };
    let rule = widths.iter().enumerate().map(|(column, width)| match column {
        0 => format!("| {} ", "-".repeat(*width)),
        _ => format!("| {}: ", "-".repeat(width.saturating_sub(1))),
    });
    let rule = rule.collect::<String>() + "|\n";
    lines.iter().take(1).map(line).chain([rule]).chain(lines.iter().skip(1).map(line)).collect()
}

/// A small number: three digits that count.
fn short(number: f64) -> String {
    let decimals = if number >= 100.0 {
        0
    } else if number >= 10.0 {
        1
    } else {
        2
    };
    format!("{number:.decimals$}")
}

fn decimal(number: f64) -> String {
    format!("{number:.2}")
}

/// A whole number with its thousands apart.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let lead = digits.len() % 3;
    let (first, rest) = digits.split_at(lead);
    let groups = rest.as_bytes().chunks(3).map(|group| String::from_utf8_lossy(group).into_owned());
    [first.to_owned()].into_iter().filter(|group| !group.is_empty()).chain(groups).collect::<Vec<_>>().join(" ")
}

fn minutes(seconds: u64) -> String {
    format!("{} min {} s", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests;
