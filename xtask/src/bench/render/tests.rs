//! What people read is what was measured.

use std::time::Duration;

use super::*;
use crate::bench::{
    case::Case,
    effort::Effort,
    figures::Spread,
    machine::Machine,
    report::tests::{database, samples},
};

fn report() -> Report {
    let machine = Machine {
        processor: "Some(R) CPU".into(),
        cores: 2,
        memory_mib: 24_105,
        kernel: "Linux 6.1".into(),
        compiler: "rustc 1.95.0".into(),
        commit: "0123456789ab-dirty".into(),
        date: "2026-01-02".into(),
        flush_ms: Spread { median: 2.5, min: 1.25, max: 9.0 },
    };
    let effort =
        Effort { quick: true, rounds: 2, warmup: Duration::from_millis(500), duration: Duration::from_secs(2) };
    let order: Vec<Case> = samples().into_keys().collect();
    let measured = Measured::new(database("MariaDB 10.11.19"), "Redis 7.0.15".into(), &order, &samples());
    let figure = Some(Spread { median: 0.375, min: 0.25, max: 0.5 });
    let pure = vec![Goal::new("verdict over 10⁶ operations, s", figure, Some(Aim::AtMost(2.0)))];
    let mut report = Report::new(machine, effort, vec![measured], pure);
    report.left_out.insert("health check by ghz".into(), "neither ghz\nnor Go".into());
    report.took_s = 250;
    report
}

/// The cells of the row that begins with `name`.
fn cells(text: &str, name: &str) -> Vec<String> {
    let row = text.lines().find(|line| line.trim_start_matches("| ").starts_with(name));
    let row = row.unwrap_or_else(|| panic!("no row {name:?} in\n{text}"));
    row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

#[test]
fn the_ratio_table_tells_what_was_reached_and_what_was_missed() {
    let text = goal_tables(&report());
    for row in [
        ["hot: batched ÷ pessimistic", "12.0", "12.0 to 12.0", "≥ 9.00", "reached"],
        ["hot: batched ÷ no-op ceiling", "0.60", "0.60 to 0.60", "≥ 0.70", "missed"],
        ["no-op: loadgen ÷ ghz", "–", "–", "", ""],
        ["hot: batched ÷ best rival (atomic_one_trip)", "6.00", "6.00 to 6.00", "", ""],
        ["hot balance: cache on ÷ off", "1.50", "1.50 to 1.50", "", ""],
        ["uniform: batched with Redis ÷ without", "0.25", "0.25 to 0.25", "", ""],
        ["verdict over 10⁶ operations, s", "0.38", "0.25 to 0.50", "≤ 2.00", "reached"],
    ] {
        assert_eq!(cells(&text, row[0]), row);
    }
}

#[test]
fn the_page_holds_the_figures_the_machine_and_what_is_missing() {
    let text = markdown(&report());
    assert_eq!(cells(&text, "hot batched ")[..3], ["hot batched", "9 000", "6 000 to 12 000"]);
    assert_eq!(cells(&text, "hot atomic at half the peak of batched")[4], "800.00");
    let told = cells(&text, "hot batched with Redis");
    assert_eq!((told[1].as_str(), told[11].as_str()), ("6 750", "12.5"));
    assert_eq!(cells(&text, "hot redis_lock")[1], "225");
    assert_eq!(cells(&text, "balance over 1000 accounts, cache on")[4], "15.00");
    for held in [
        "Beside it Redis 7.0.15, private",
        "Some(R) CPU, 2 cores",
        "0123456789ab-dirty",
        "median 2.50 ms (1.25 to 9.00)",
        "2 rounds of 2s after 500ms of warm-up, 4 min 10 s in all",
        "`log_bin` OFF",
        "- health check by ghz: neither ghz nor Go",
        "*uniform* 10 000 of them",
        "Of *hot batched watched*, the watcher received 9 000 spans; 1 200 events were missing.",
    ] {
        assert!(text.contains(held), "{held:?} is not in\n{text}");
    }
}

#[test]
fn a_table_lines_up() {
    let text = table(
        &["name", "n"],
        [vec!["a ÷ b".to_owned(), "1".to_owned()], vec!["c".to_owned(), "23".to_owned()]].into_iter(),
    );
    assert_eq!(text, "| name  |  n |\n| ----- | -: |\n| a ÷ b |  1 |\n| c     | 23 |\n");
}

#[test]
fn numbers_are_written_for_people() {
    for (number, text) in [(0.0, "0"), (999.4, "999"), (1000.0, "1 000"), (1_234_567.0, "1 234 567")] {
        assert_eq!(grouped(number), text);
    }
    for (ratio, text) in [(0.123, "0.12"), (9.0, "9.00"), (12.34, "12.3"), (250.4, "250")] {
        assert_eq!(short(ratio), text);
    }
    assert_eq!(minutes(61), "1 min 1 s");
}
