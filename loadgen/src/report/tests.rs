//! The published form holds, and the words say what the figures say.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;
use zbl_client::{Guarantee, Money};

use super::*;
use crate::verdict::{Doubt, State};

fn workload() -> Workload {
    Workload {
        workers: 100,
        deductions: 10,
        amount: Money::from_minor(1_000),
        opening: Money::from_minor(100_000),
        strategy: "none".to_owned(),
        user_id: None,
        seed: u64::MAX,
    }
}

const VICTIM: u128 = 0xa1 << 96;
const OVERWRITER: u128 = 0xb2 << 96;

fn run(strategy: &str, guarantee: Guarantee) -> Run {
    Run {
        strategy: strategy.to_owned(),
        guarantee,
        cure: Some("atomic".to_owned()),
        store: "sqlite".to_owned(),
        servers: 1,
        user_id: 42,
        interrupted: false,
        latency: Latency { p50: 1_250, p90: 2_000, p99: 9_990, p999: 10_000, max: 12_000 },
        attempts: 11,
        cancelled: 0,
        contended_retries: 3,
        outage_retries: 0,
        elapsed: Duration::from_millis(500),
        accepting: None,
        cost: None,
    }
}

fn write(id: u128, read: (i64, i64), wrote: (i64, i64)) -> Write {
    let state = |(balance, version)| State { balance: Money::from_minor(balance), version };
    Write { request_id: Uuid::from_u128(id), read: state(read), wrote: state(wrote) }
}

fn judgement() -> Judgement {
    Judgement {
        verdict: Verdict::Clean,
        acknowledged: Tally { count: 10, amount: Money::from_minor(10_000) },
        failed: BTreeMap::from([("CONTENDED", 900), ("INSUFFICIENT_BALANCE", 90)]),
        unknown: 0,
        undecided: 0,
        forgotten: vec![],
        lost: Money::ZERO,
        unattributed: Money::ZERO,
        difference: Money::ZERO,
        doubled: 0,
        missing: vec![],
        differing: vec![],
        miscalculated: vec![],
        lost_updates: vec![],
        doubts: vec![],
    }
}

pub(super) fn clean() -> Report {
    Report::new(&workload(), run("optimistic", Guarantee::Always), judgement(), Money::from_minor(90_000))
}

/// Every list filled, so that the schema sees one of each.
pub(super) fn lost() -> Report {
    let lost = |amount| LostUpdate {
        victim: write(VICTIM, (99_000, 2), (98_000, 3)),
        overwriter: write(OVERWRITER, (99_000, 2), (98_000, 4)),
        amount: Money::from_minor(amount),
    };
    let found = Judgement {
        verdict: Verdict::Lost,
        lost: Money::from_minor(2_005),
        unattributed: Money::from_minor(5),
        lost_updates: vec![lost(1_000), lost(1_000)],
        missing: vec![Uuid::from_u128(3)],
        differing: vec![Uuid::from_u128(4)],
        miscalculated: vec![9],
        undecided: 1,
        forgotten: vec![Uuid::from_u128(5)],
        doubts: vec![Doubt::Unknown(2), Doubt::Unrooted],
        ..judgement()
    };
    let cost = Some(Cost { round_trips: 6.0, commits: 1.0, lock_held_us: 812.34, attempts: 1.1 });
    let (lasted, draining) = (Duration::from_millis(400), Duration::from_millis(100));
    let accepting = Some(Accepting { accepted: 12, lasted, draining });
    let run = Run { cost, accepting, ..run("none", Guarantee::LosesUpdates) };
    Report::new(&workload(), run, found, Money::from_minor(-5))
}

fn valid(result: &Value) -> bool {
    let schema: Value = serde_json::from_str(include_str!("../../result.schema.json")).unwrap();
    jsonschema::validator_for(&schema).unwrap().is_valid(result)
}

#[test]
fn results_follow_the_published_schema() {
    let (clean, lost) = (clean(), lost());
    assert!(valid(&serde_json::to_value(&clean).unwrap()));
    assert!(valid(&serde_json::to_value(&lost).unwrap()));
    assert!(valid(&serde_json::to_value(Comparison { runs: &[clean, lost] }).unwrap()));
}

#[test]
fn the_schema_refuses_what_results_are_not() {
    let broken = |field: &str, value: Value| {
        let mut result = serde_json::to_value(lost()).unwrap();
        result[field] = value;
        result
    };
    for (field, value) in [
        ("schema_version", json!(2)),
        ("verdict", json!("FINE")),
        ("lost", json!(20.05)),
        ("lost", json!("20.5")),
        ("failed", json!({ "CONTENDED": 0 })),
        ("invented", json!(1)),
    ] {
        assert!(!valid(&broken(field, value.clone())), "{field}: {value}");
    }
    let mut incomplete = serde_json::to_value(lost()).unwrap();
    incomplete.as_object_mut().unwrap().remove("seed");
    assert!(!valid(&incomplete));
}

#[test]
fn amounts_are_decimal_strings_and_the_balance_is_called_final() {
    let result = serde_json::to_value(lost()).unwrap();
    assert_eq!(result["final"], "-0.05");
    assert_eq!(result["lost"], "20.05");
    assert_eq!(result["guarantee"], "LOSES_UPDATES");
    assert_eq!(result["acknowledged"], json!({ "count": 10, "amount": "100.00" }));
    assert_eq!(result["throughput_per_s"], 200.0);
    assert_eq!(result["lost_updates"][0]["victim"]["balance_before"], "990.00");
    let queued = json!({ "accepted": 12, "accepted_per_s": 30.0, "accepting_ms": 400, "drain_ms": 100, "undecided": 1,
        "forgotten": [Uuid::from_u128(5)] });
    assert_eq!(result["queued"], queued);
}

#[test]
fn a_witness_names_reads_writes_and_the_loss() {
    let report = lost();
    assert_eq!(
        witness(&report.lost_updates[0]),
        "A 000000a1 read 990.00 at version 2; B 000000b2, which had read the same, wrote over it at version 4: 10.00 gone"
    );
    let stale = Pair {
        overwriter: side(&write(OVERWRITER, (100_000, 1), (99_000, 4))),
        amount: Money::from_minor(-700),
        ..report.lost_updates[0]
    };
    assert_eq!(
        witness(&stale),
        "A 000000a1 read 990.00 at version 2; B 000000b2, which had read 1000.00 at version 1, wrote over it at version 4: \
         a deposit of 7.00 gone"
    );
}

#[test]
fn the_text_leads_with_the_verdict_and_the_sum() {
    let text = text(&lost());
    assert!(text.starts_with("LOST  none on sqlite: 20.05 gone in 2 lost updates\n"), "{text}");
    assert!(text.contains("doubt: operations with an unknown outcome: 2"), "{text}");
    assert!(text.contains("missing         1"), "{text}");
}

#[test]
fn contention_that_keeps_from_selling_is_said() {
    let note =
        "optimistic: turned 900 operations away (CONTENDED 900); it sold 10 of the 100 the balance could pay for";
    assert!(text(&clean()).contains(note), "{}", text(&clean()));
    let table = table(&[lost(), clean()]);
    assert!(table.contains(note), "{table}");
    assert!(table.contains("CLEAN") && table.contains("1.00"), "{table}");
}

#[test]
fn only_decisions_are_answers_and_every_turning_away_is_said() {
    let failed = BTreeMap::from([
        ("BACKEND_DOWN", 100),
        ("INSUFFICIENT_BALANCE", 90),
        ("OVERLOADED", 200),
        ("RATE_LIMITED", 50),
        ("VOIDED", 400),
    ]);
    let found = Judgement { failed, ..judgement() };
    let report = Report::new(&workload(), run("atomic", Guarantee::Always), found, Money::from_minor(90_000));
    assert!((report.throughput_per_s - 200.0).abs() < 0.1, "10 acknowledged and 90 refused in half a second");
    let note = report.contention_note().unwrap();
    assert!(note.contains("250 operations away (OVERLOADED 200, RATE_LIMITED 50); it sold 10 of the 100"), "{note}");
}

#[test]
fn a_loss_without_lost_updates_says_what_does_not_hold() {
    let forgotten = Report {
        lost: Money::ZERO,
        lost_updates: vec![],
        missing: vec![],
        differing: vec![],
        miscalculated: vec![],
        ..lost()
    };
    let headline = "LOST  none on sqlite: 1 operation accepted and forgotten\n";
    assert!(text(&forgotten).starts_with(headline), "{}", text(&forgotten));
    let accepted = "accepted        12 deductions in 0.40 s (30/s), decided 0.10 s after the last; 1 not decided\n";
    assert!(text(&forgotten).contains(accepted), "{}", text(&forgotten));
    let receipts = Report { queued: None, differing: vec![Uuid::from_u128(4)], ..forgotten };
    let headline = "LOST  none on sqlite: 1 operation acknowledged with another result than the journal's\n";
    assert!(text(&receipts).starts_with(headline), "{}", text(&receipts));
    let unexplained = Report { lost: Money::from_minor(5), differing: vec![], ..receipts };
    let headline = "LOST  none on sqlite: 0.05 gone, which no lost update explains\n";
    assert!(text(&unexplained).starts_with(headline), "{}", text(&unexplained));
}

#[test]
fn one_of_a_thing_is_told_in_the_singular() {
    let mut report = clean();
    (report.workers, report.deductions, report.acknowledged.count) = (1, 1, 1);
    let text = text(&report);
    assert!(
        text.contains("1 worker x 1 deduction of 10.00\n") && text.contains("1 deduction, 100.00 in all"),
        "{text}"
    );
}

#[test]
fn what_a_deduction_cost_is_told_where_the_server_does() {
    let card = table(&[lost(), clean()]);
    assert!(card.contains("per acknowledged deduction, with the work for those refused\n"), "{card}");
    assert!(card.lines().any(|line| line.split_whitespace().eq(["none", "6.00", "1.00", "812", "1.10"])), "{card}");
    assert!(card.lines().any(|line| line.split_whitespace().eq(["optimistic", "-", "-", "-", "-"])), "{card}");
    assert!(!table(&[clean()]).contains("per acknowledged deduction"));
    let told = "6.00 round trips, 1.00 commits, 1.10 attempts, locks held 812 µs per acknowledged deduction";
    assert!(text(&lost()).contains(told), "{}", text(&lost()));
}

/// Even with the largest figures that the default workload can bring about.
#[test]
fn the_table_fits_a_hundred_columns() {
    let slow = Latency { p50: 1_234_567, p99: 9_876_543, ..Latency::default() };
    let wide = Report {
        strategy: "redis_lock_fenced".to_owned(),
        acknowledged: Taken { count: 1_000, amount: Money::from_minor(1_000_000) },
        failed: BTreeMap::from([("CONTENDED", 1_000), ("INSUFFICIENT_BALANCE", 1_000)]),
        lost: Money::from_minor(990_000),
        throughput_per_s: 12_345.6,
        latency_us: slow,
        ..clean()
    };
    let table = table(&[lost(), wide]);
    let widest = table.lines().map(|line| line.chars().count()).max();
    assert!(widest.is_some_and(|columns| columns <= 100), "{table}");
    assert!(table.contains("1234/9876"), "{table}");
}

#[test]
fn the_table_says_what_must_be_known_to_read_it() {
    let report = |opening| Report { affordable: opening, ..clean() };
    let (poor, rich) = (table(&[report(100)]), table(&[report(1_000)]));
    assert!(poor.contains("per s: answers, refusals included; loadgen's --opening 10000.00 pays for all"), "{poor}");
    assert!(!rich.contains("per s:"), "{rich}");
    assert!(poor.contains("sqlite: its single writer"), "{poor}");
    let elsewhere = Report { store: "mysql".to_owned(), ..clean() };
    assert!(!table(&[elsewhere]).contains("single writer"));
}

#[test]
fn a_promise_for_one_process_is_told_as_such() {
    let mutex = |servers| {
        let run = Run { servers, ..run("mutex", Guarantee::OneProcess) };
        Report::new(&workload(), run, judgement(), Money::ZERO)
    };
    let alone = "mutex: its promise is for one server process; with several it loses money\n";
    let beyond =
        "mutex: its promise is for one server process; 2 were attacked here, so that a loss counts as expected\n";
    assert!(table(&[mutex(1)]).contains(alone) && text(&mutex(1)).contains(alone));
    assert!(table(&[mutex(2)]).contains(beyond) && text(&mutex(2)).contains(beyond));
    assert_eq!(clean().scope_note(), None);
}
