//! From samples to ratios: the right two cases, round by round, against the right aim.

use zbl_client::Guarantee;

use super::*;

pub(crate) fn strategy(name: &str, guarantee: Guarantee) -> Strategy {
    Strategy { name: name.into(), guarantee, redis: RedisPart::Absent }
}

pub(crate) fn database(name: &str) -> Description {
    let settings = [("innodb_flush_log_at_trx_commit", "1"), ("log_bin", "OFF")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Description { name: name.into(), private: true, settings }
}

fn rates(rates: &[f64]) -> Vec<Sample> {
    rates.iter().map(|rate| Sample::from([(Metric::RatePerS, *rate)])).collect()
}

fn p99s(p99s: &[f64]) -> Vec<Sample> {
    read(500.0, p99s)
}

fn read(rate: f64, p99s: &[f64]) -> Vec<Sample> {
    p99s.iter().map(|ms| Sample::from([(Metric::RatePerS, rate), (Metric::P99Ms, *ms)])).collect()
}

fn with_redis(with_redis: &[f64]) -> Vec<Sample> {
    rates(with_redis)
        .into_iter()
        .map(|sample| sample.into_iter().chain([(Metric::RedisCpuMs, 12.5)]).collect())
        .collect()
}

fn watched(watched: &[f64]) -> Vec<Sample> {
    let seen = [(Metric::SpansSeen, 9_000.0), (Metric::EventsMissed, 1_200.0)];
    rates(watched).into_iter().map(|sample| sample.into_iter().chain(seen).collect()).collect()
}

/// Two rounds; in the second everything is half as fast.
pub(crate) fn samples() -> Samples {
    let always = |name| strategy(name, Guarantee::Always);
    let half = |name, peak: &str| Case::HalfPeak(always(name), peak.into());
    let told = || Strategy { redis: RedisPart::Told, ..always(BATCHED) };
    let locks = |name, guarantee| Strategy { redis: RedisPart::Locks, ..strategy(name, guarantee) };
    Samples::from([
        (Case::Health, rates(&[20_000.0, 10_000.0])),
        (Case::Foreign(Tool::H2load), rates(&[25_000.0, 12_500.0])),
        (Case::Hot(strategy("none", Guarantee::LosesUpdates)), rates(&[9_000.0, 4_500.0])),
        (Case::Hot(always(PESSIMISTIC)), rates(&[1_000.0, 500.0])),
        (Case::Hot(always(ATOMIC)), rates(&[1_500.0, 750.0])),
        (Case::Hot(always("atomic_one_trip")), rates(&[2_000.0, 1_000.0])),
        (Case::Hot(always(BATCHED)), rates(&[12_000.0, 6_000.0])),
        (Case::Streamed(always(BATCHED)), rates(&[30_000.0, 15_000.0])),
        (Case::Many(always(BATCHED)), rates(&[15_000.0, 7_500.0])),
        (Case::Watched(always(BATCHED)), watched(&[11_400.0, 5_700.0])),
        (Case::Spread(always(ATOMIC), UNIFORM), rates(&[4_000.0, 2_000.0])),
        (Case::Spread(always(BATCHED), UNIFORM), rates(&[8_000.0, 4_000.0])),
        (Case::Spread(always(BATCHED), FEW), rates(&[8_000.0, 4_000.0])),
        (Case::Spread(always(BATCHED), MANY), rates(&[6_000.0, 3_000.0])),
        (Case::Hot(told()), with_redis(&[9_000.0, 4_500.0])),
        (Case::Spread(told(), UNIFORM), rates(&[2_000.0, 1_000.0])),
        (Case::Hot(locks("redis_lock", Guarantee::WhileLeaseHolds)), rates(&[300.0, 150.0])),
        (Case::Balance(Cache::Off, 1), read(20_000.0, &[8.0, 16.0])),
        (Case::Balance(Cache::On, 1), read(30_000.0, &[6.0, 12.0])),
        (Case::Balance(Cache::Off, FEW), read(10_000.0, &[8.0, 16.0])),
        (Case::Balance(Cache::On, FEW), read(11_000.0, &[10.0, 20.0])),
        (half(BATCHED, BATCHED), p99s(&[8.0, 12.0])),
        (half(ATOMIC, BATCHED), p99s(&[800.0, 800.0])),
    ])
}

fn ratio_of(name: &str, product: &str) -> Goal {
    ratio_in(&samples(), name, product)
}

fn ratio_in(samples: &Samples, name: &str, product: &str) -> Goal {
    let measured = Measured::new(database(product), "Redis 7.0.15".into(), &[], samples);
    let found = measured.ratios.into_iter().find(|ratio| ratio.name.contains(name));
    found.unwrap_or_else(|| panic!("no ratio {name:?}"))
}

#[test]
fn ratios_are_of_the_cases_they_name() {
    for (name, expected, reached) in [
        ("hot: batched ÷ pessimistic", 12.0, Some(true)),
        ("hot: batched ÷ no-op ceiling", 0.6, Some(false)),
        ("uniform: batched ÷ atomic", 2.0, Some(false)),
        // With as many in flight on either side.
        ("DeductStream ÷ unary batched, 2048 in flight each", 2.0, Some(true)),
        ("DeductStream (2048 in flight) ÷ pessimistic (256)", 30.0, Some(true)),
        ("unary batched, 2048 in flight ÷ 256", 1.25, None),
        ("half the peak of batched", 0.0125, Some(true)),
        ("watched", 0.95, Some(false)),
        ("10⁶ accounts", 0.75, Some(false)),
        ("loadgen ÷ h2load", 0.8, Some(true)),
        ("hot: batched ÷ best rival (atomic_one_trip)", 6.0, None),
        ("uniform: batched ÷ best rival (atomic)", 2.0, None),
        ("hot balance: cache on ÷ off", 1.5, None),
        ("p99, hot balance: cache on ÷ off", 0.75, None),
        ("balance over 1000 accounts: cache on ÷ off", 1.1, None),
        ("p99, balance over 1000 accounts: cache on ÷ off", 1.25, None),
        ("hot: batched with Redis ÷ without", 0.75, None),
        ("uniform: batched with Redis ÷ without", 0.25, None),
    ] {
        let ratio = ratio_of(name, "MariaDB 10.11.19");
        let median = ratio.figure.unwrap_or_else(|| panic!("{name} was not computed")).median;
        assert!((median - expected).abs() < 1e-9, "{name}: {median}, expected {expected}");
        assert_eq!(ratio.reached, reached, "{name}");
    }
}

#[test]
fn a_machine_that_slows_down_does_not_spread_a_ratio() {
    let ratio = ratio_of("hot: batched ÷ pessimistic", "MariaDB 10.11.19").figure.unwrap();
    assert_eq!((ratio.min, ratio.max), (12.0, 12.0));
}

#[test]
fn the_aim_on_mysql_is_the_one_of_its_dearer_commit() {
    let ratio = ratio_of("hot: batched ÷ pessimistic", "MySQL 9.7.0");
    assert_eq!((ratio.aim, ratio.reached), (Some(Aim::AtLeast(50.0)), Some(false)));
}

#[test]
fn what_was_not_measured_has_no_ratio_and_reaches_nothing() {
    for name in ["half the peak of atomic", "loadgen ÷ ghz"] {
        let ratio = ratio_of(name, "MariaDB 10.11.19");
        assert_eq!((ratio.figure, ratio.reached), (None, None), "{name}");
    }
    let nothing = Measured::new(database("MariaDB 10.11.19"), "Redis 7.0.15".into(), &[], &Samples::new()).ratios;
    assert!(!nothing.is_empty() && nothing.iter().all(|ratio| ratio.figure.is_none() && ratio.reached.is_none()));
}

#[test]
fn what_was_measured_with_redis_stands_in_for_nothing() {
    let mut samples = samples();
    samples.remove(&Case::Hot(strategy(BATCHED, Guarantee::Always)));
    for name in ["hot: batched ÷ pessimistic", "hot: batched ÷ best rival", "hot: batched with Redis ÷ without"] {
        assert_eq!(ratio_in(&samples, name, "MariaDB 10.11.19").figure, None, "{name}");
    }
}

#[test]
fn the_report_keeps_the_order_of_the_cases_and_leaves_out_what_failed() {
    let batched = strategy(BATCHED, Guarantee::Always);
    let order = [Case::Hot(batched.clone()), Case::Foreign(Tool::Ghz), Case::Health];
    let measured = Measured::new(database("MariaDB 10.11.19"), "Redis 7.0.15".into(), &order, &samples());
    let names: Vec<&str> = measured.cases.iter().map(|case| case.case.as_str()).collect();
    assert_eq!(names, ["hot batched", "health check"]);
    let spread = Spread { median: 9_000.0, min: 6_000.0, max: 12_000.0 };
    assert_eq!(measured.cases[0].figures, [(Metric::RatePerS, spread)].into());
}
