//! The advice follows from the figures, and is silent where they are.

use std::collections::BTreeMap;

use super::*;
use crate::report::bench::sample::{closed, open};
use crate::report::bench::{BenchVerdict, Method, MethodFigures};

/// Strategies that servers have, and that results of another one know nothing of.
const KNOWN: [&str; 4] = ["batched", "atomic", "pessimistic", "optimistic"];

const OWN_COMMIT: Cost = Cost { round_trips: 5.0, commits: 1.0, lock_held_us: 80.0, attempts: 1.0 };

fn measured(strategy: &str, accounts: u32, concurrency: u32, cost: Option<Cost>) -> Bench {
    let pacing = Pacing::Closed { concurrency };
    Bench { strategy: Some(strategy.to_owned()), accounts, pacing, cost, failed: BTreeMap::new(), ..closed() }
}

fn advised(bench: &Bench, expected: &str) {
    let advice = for_bench(bench).unwrap();
    assert!(advice.contains(expected), "{advice}");
    assert!(advice.ends_with('.') && !advice.contains(". "), "one sentence: {advice}");
    let others = KNOWN.into_iter().filter(|name| bench.strategy.as_deref() != Some(name));
    assert!(others.into_iter().all(|name| !advice.contains(name)), "names what was not measured: {advice}");
}

#[test]
fn a_loss_is_never_praised_for_its_speed() {
    advised(&open(), "none lost acknowledged money, which no speed makes up for; take one that the server lists");
    // Where it promised not to, another choice is not the cure.
    let broken = Bench { strategy: Some("batched".to_owned()), guarantee: Some(Guarantee::Always), ..open() };
    advised(&broken, "though it promises never to: do not use it until the cause is found");
    let lucky = Bench { guarantee: Some(Guarantee::LosesUpdates), ..measured("none", 1, 64, Some(OWN_COMMIT)) };
    advised(&lucky, "none guards nothing");
}

#[test]
fn collisions_call_for_shared_commits() {
    let mut bench = measured("optimistic", 1, 64, None);
    bench.failed.insert("CONTENDED".to_owned(), 40_000);
    bench.attempts = 300_000;
    advised(
        &bench,
        "40 % were turned away, and an acknowledged deduction took 3.0 attempts; a strategy that shares commits",
    );
    // It shares them already.
    bench.cost = Some(Cost { commits: 0.1, ..OWN_COMMIT });
    advised(&bench, "fewer callers at once are all that helps");
}

#[test]
fn attempts_of_refused_deductions_are_no_collisions() {
    // An account that is empty: the server tries, and refuses, nineteen times for each that it can pay for.
    let mut bench = measured("atomic", 1, 64, Some(Cost { attempts: 19.5, ..OWN_COMMIT }));
    bench.failed.insert("INSUFFICIENT_BALANCE".to_owned(), 95_000);
    let deduct = MethodFigures { acknowledged: 5_000, failed: 95_000, ..closed().methods[&Method::Deduct] };
    bench.methods.insert(Method::Deduct, deduct);
    bench.attempts = 5_000;
    assert_eq!(for_bench(&bench), None);
}

#[test]
fn a_hot_lock_calls_for_shared_commits_and_a_cold_one_is_not_blamed() {
    // 9 899 deductions a second, 80 µs each: locked 79 % of the time.
    advised(
        &measured("pessimistic", 1, 64, Some(OWN_COMMIT)),
        "held 79 % of the time and is the limit; a strategy that",
    );
    advised(&measured("pessimistic", 10_000, 64, Some(OWN_COMMIT)), "would save most of them");
    advised(&measured("pessimistic", 10_000, 2, Some(OWN_COMMIT)), "any strategy suits that never loses");
    // With s = 2 the first of many accounts takes 61 % of the operations.
    let skewed =
        Bench { zipf: Some(2.0), ..measured("atomic", 10_000, 64, Some(Cost { lock_held_us: 100.0, ..OWN_COMMIT })) };
    advised(&skewed, "held 60 % of the time and is the limit");
}

#[test]
fn shared_commits_are_praised() {
    let shared = Cost { commits: 0.02, ..OWN_COMMIT };
    advised(&measured("batched", 1, 64, Some(shared)), "About 50 deductions shared each commit: batched suits");
}

#[test]
fn an_open_loop_has_as_many_calls_in_flight_as_its_rate_and_latency_say() {
    let bench = |rate_per_s| {
        let pacing = Pacing::Open { rate_per_s, max_in_flight: 10_000 };
        Bench { pacing, ..measured("atomic", 10_000, 1, Some(OWN_COMMIT)) }
    };
    advised(&bench(10_000.0), "would save most of them");
    advised(&bench(1_000.0), "any strategy suits");
}

#[test]
fn without_figures_there_is_no_advice() {
    assert_eq!(for_bench(&measured("atomic", 1, 64, None)), None);
    let health = MethodFigures { ..closed().methods[&Method::Deduct] };
    let methods = BTreeMap::from([(Method::Health, health)]);
    assert_eq!(for_bench(&Bench { strategy: None, methods, verdict: None::<BenchVerdict>, ..closed() }), None);
}

mod runs {
    use super::super::*;
    use crate::report::tests::{clean, lost};

    fn run(strategy: &str, throughput_per_s: f64) -> Report {
        Report { strategy: strategy.to_owned(), throughput_per_s, ..clean() }
    }

    #[test]
    fn the_clearly_fastest_that_lost_nothing_is_advised() {
        let fast_and_wrong = Report { throughput_per_s: 9_000.0, ..lost() };
        let one_process = Report { guarantee: Guarantee::OneProcess, ..run("mutex", 8_000.0) };
        let runs =
            [fast_and_wrong, one_process, run("atomic", 500.0), run("batched", 2_000.0), run("optimistic", 100.0)];
        let expected =
            "For 100 workers on one account: batched, 2000 answers/s and 4.0 times the next that lost nothing, atomic.";
        assert_eq!(for_runs(&runs).as_deref(), Some(expected));
    }

    #[test]
    fn a_small_lead_is_none() {
        let runs = [run("atomic", 1_000.0), run("batched", 1_100.0), run("serializable", 100.0)];
        let expected = "For 100 workers on one account any of batched, atomic suits: none is clearly faster.";
        assert_eq!(for_runs(&runs).as_deref(), Some(expected));
    }

    #[test]
    fn one_safe_strategy_is_no_comparison() {
        assert_eq!(for_runs(&[run("atomic", 1_000.0), lost()]), None);
        assert_eq!(for_runs(&[]), None);
    }
}
