//! The cases of a run, and what `loadgen bench` is told for each.

use super::*;

fn strategy(name: &str, guarantee: Guarantee) -> Strategy {
    Strategy { name: name.into(), guarantee, redis: RedisPart::Absent }
}

/// What the server with Redis has: all of the other's, and one that locks there.
fn with_redis() -> Vec<Strategy> {
    let there = strategies().into_iter().chain([strategy("locking", Guarantee::WhileLeaseHolds)]);
    there.map(|strategy| Strategy { redis: RedisPart::Told, ..strategy }).collect()
}

fn strategies() -> Vec<Strategy> {
    vec![
        strategy("none", Guarantee::LosesUpdates),
        strategy(ATOMIC, Guarantee::Always),
        strategy("novel", Guarantee::Always),
        strategy(BATCHED, Guarantee::Always),
    ]
}

#[test]
fn every_strategy_of_the_server_is_measured_hot_and_uniform() {
    let cases = cases(&strategies(), &[Tool::H2load]);
    for strategy in strategies() {
        assert!(cases.contains(&Case::Hot(strategy.clone())), "{strategy:?}");
        assert!(cases.contains(&Case::Spread(strategy.clone(), UNIFORM)), "{strategy:?}");
    }
    let titles: Vec<String> = cases.iter().map(Case::to_string).collect();
    for title in ["health check", "health check by h2load", "hot novel", "batched over 1000000 accounts"] {
        assert!(titles.contains(&title.to_owned()), "{title}: {titles:?}");
    }
}

#[test]
fn redis_is_measured_where_it_is_needed_and_beside_batched() {
    let chosen = chosen(strategies(), with_redis());
    let cases = cases(&chosen, &[Tool::H2load]);
    let (with, without): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(|case| case.is_with_redis());
    let titles = |cases: &[&Case]| cases.iter().map(ToString::to_string).collect::<Vec<_>>();
    let expected = [
        "hot batched with Redis",
        "uniform batched with Redis",
        "hot locking",
        "uniform locking",
        "hot balance, cache on",
        "balance over 1000 accounts, cache on",
    ];
    assert_eq!(titles(&with), expected);
    // Whatever needs no Redis is measured without one, as if there were none.
    let mut alone = self::cases(&strategies(), &[Tool::H2load]);
    alone.retain(|case| !case.is_with_redis());
    assert_eq!(titles(&without), titles(&alone.iter().collect::<Vec<_>>()));
    assert_eq!(half_peak_cases(&chosen), half_peak_cases(&strategies()));
}

#[test]
fn what_a_redis_changes_is_measured_side_by_side() {
    let cases = cases(&chosen(strategies(), with_redis()), &[]);
    let titles: Vec<String> = cases.iter().map(Case::to_string).collect();
    for pair in [
        ["hot batched", "hot batched with Redis"],
        ["uniform batched", "uniform batched with Redis"],
        ["hot balance, cache off", "hot balance, cache on"],
        ["balance over 1000 accounts, cache off", "balance over 1000 accounts, cache on"],
    ] {
        assert!(titles.windows(2).any(|titles| titles == pair), "{pair:?}: {titles:?}");
    }
}

#[test]
fn without_the_strategies_that_the_aims_name_the_others_are_measured_all_the_same() {
    let others = [strategy("novel", Guarantee::Always)];
    // The health check, it hot and uniform, and the balances.
    assert_eq!(cases(&others, &[]).len(), 3 + 4);
    assert_eq!(half_peak_cases(&others), []);
    assert_eq!(half_peak_cases(&strategies()).len(), 4);
}

#[test]
fn no_two_cases_share_accounts() {
    let seeds = seeds(&cases(&strategies(), &[]));
    assert_eq!(seeds.len(), strategies().len() + 2 + 4);
    let mut ranges: Vec<Accounts> = seeds.into_values().collect();
    ranges.sort();
    for pair in ranges.windows(2) {
        assert!(pair[0].first + i64::from(pair[0].count) <= pair[1].first, "{pair:?}");
    }
}

#[test]
fn loadgen_is_asked_for_what_the_case_says() {
    let asked = |case: Case, accounts, rate| case.arguments(accounts, rate).join(" ");
    let (none, batched) = (strategy("none", Guarantee::LosesUpdates), strategy(BATCHED, Guarantee::Always));
    let accounts = Some(Accounts { first: 7, count: UNIFORM });
    for (asked, expected) in [
        (asked(Case::Health, None, None), "--connections 4 --concurrency 256 --method health"),
        (
            asked(Case::Hot(none.clone()), None, None),
            "--connections 4 --concurrency 256 --strategy none --opening 100000000.00",
        ),
        (
            asked(Case::Spread(none, UNIFORM), accounts, None),
            "--connections 4 --concurrency 256 --strategy none --accounts 10000 --from-user 7 --expect any",
        ),
        (
            asked(Case::Streamed(batched.clone()), None, None),
            "--connections 4 --concurrency 2048 --strategy batched --opening 100000000.00 --stream",
        ),
        (
            asked(Case::Many(batched.clone()), None, None),
            "--connections 4 --concurrency 2048 --strategy batched --opening 100000000.00",
        ),
        (
            asked(Case::Balance(Cache::On, 1), Some(Accounts { first: 9, count: 1 }), None),
            "--connections 4 --concurrency 256 --mix balance=100 --accounts 1 --from-user 9",
        ),
        (
            asked(Case::Balance(Cache::Off, FEW), Some(Accounts { first: 9, count: FEW }), None),
            "--connections 4 --concurrency 256 --mix balance=100 --accounts 1000 --from-user 9",
        ),
        (
            asked(Case::HalfPeak(batched, ATOMIC.into()), None, Some(717.4)),
            "--connections 4 --rate 717 --max-in-flight 1000 --strategy batched --opening 100000000.00",
        ),
    ] {
        assert_eq!(asked, expected);
    }
}
