//! A result to test with: every field filled, so that the schema and each face of it see one of everything.

use uuid::Uuid;

use super::super::Side;
use super::*;

/// A deduction bench in a closed loop on one account, ten seconds long, nothing lost.
pub(crate) fn closed() -> Bench {
    let latency = Latency { p50: 1_000, p90: 5_000, p99: 12_300, p999: 19_000, max: 25_040 };
    let deduct = MethodFigures {
        requests: 100_000,
        acknowledged: 98_990,
        failed: 1_000,
        unknown: 10,
        throughput_per_s: 9_999.0,
        latency_us: latency,
    };
    Bench {
        schema_version: SCHEMA_VERSION,
        kind: Kind::Bench,
        method: Some(Method::Deduct),
        mix: None,
        stream: false,
        strategy: Some("batched".to_owned()),
        guarantee: Some(Guarantee::Always),
        store: "mariadb".to_owned(),
        servers: 1,
        accounts: 1,
        first_user: Some(42),
        zipf: None,
        amount: Some(Money::from_minor(1)),
        opening: Some(Money::from_minor(10_000_000_000)),
        seed: u64::MAX,
        pacing: Pacing::Closed { concurrency: 64 },
        connections: 4,
        warmup_ms: 2_000,
        began_unix_ms: 1_767_225_600_000,
        duration_ms: 10_000,
        interrupted: false,
        requests: 100_000,
        acknowledged: 98_990,
        failed: BTreeMap::from([("INSUFFICIENT_BALANCE".to_owned(), 990), ("CONTENDED".to_owned(), 10)]),
        unknown: 10,
        throughput_per_s: 9_998.0,
        acknowledged_per_s: 9_899.0,
        latency_us: latency,
        methods: BTreeMap::from([(Method::Deduct, deduct)]),
        observed_latency_us: None,
        schedule: None,
        series: (0..10).map(|second| window(second, 9_850 + second * 10)).collect(),
        spectrum: vec![(0.0, 200), (0.5, 1_000), (0.9, 5_000), (0.99, 12_300), (0.999, 19_000), (1.0, 25_040)],
        attempts: 98_990,
        outage_retries: 0,
        cost: Some(Cost { round_trips: 0.12, commits: 0.02, lock_held_us: 31.5, attempts: 1.0 }),
        remarks: vec!["some calls had no known outcome".to_owned()],
        advice: Some("one hot account: batched suits it".to_owned()),
        thresholds: vec![Checked { expression: "p99<20ms".to_owned(), value: "12.3ms".to_owned(), passed: true }],
        verdict: Some(judged()),
    }
}

/// The same in an open loop over many accounts with a mix of methods, and with money lost.
pub(crate) fn open() -> Bench {
    let closed = closed();
    let deduct = closed.methods[&Method::Deduct];
    let balance = MethodFigures { requests: 25_000, acknowledged: 25_000, failed: 0, unknown: 0, ..deduct };
    let side = |id, version| Side {
        request_id: Uuid::from_u128(id),
        version_before: 1,
        balance_before: Money::from_minor(1_000),
        version,
        balance_after: Money::from_minor(999),
    };
    let pair = Pair { victim: side(1, 2), overwriter: side(2, 3), amount: Money::from_minor(1) };
    Bench {
        method: None,
        mix: Some(BTreeMap::from([(Method::Deduct, 80), (Method::Balance, 20)])),
        strategy: Some("none".to_owned()),
        guarantee: Some(Guarantee::LosesUpdates),
        accounts: 10_000,
        first_user: Some(42),
        zipf: Some(0.99),
        opening: None,
        pacing: Pacing::Open { rate_per_s: 12_500.5, max_in_flight: 10_000 },
        interrupted: true,
        requests: 125_000,
        methods: BTreeMap::from([(Method::Deduct, deduct), (Method::Balance, balance)]),
        observed_latency_us: Some(Latency { p50: 900, ..closed.latency_us }),
        schedule: Some(Schedule { sent: 125_000, late: 500, dropped: 125, lag_us: Latency::default() }),
        cost: None,
        advice: None,
        thresholds: vec![Checked { expression: "p99<1ms".to_owned(), value: "12.3ms".to_owned(), passed: false }],
        verdict: Some(BenchVerdict {
            verdict: Verdict::Lost,
            lost_updates_count: 1,
            lost: Money::from_minor(1),
            doubts: vec!["operations with an unknown outcome: 2".to_owned()],
            lost_updates: vec![LostOn { user_id: 42, pair }],
            ..judged()
        }),
        ..closed
    }
}

fn judged() -> BenchVerdict {
    BenchVerdict {
        verdict: Verdict::Clean,
        accounts_checked: 1,
        acknowledged: Taken { count: 118_790, amount: Money::from_minor(118_790) },
        lost_updates_count: 0,
        lost: Money::ZERO,
        unattributed: Money::ZERO,
        difference: Money::ZERO,
        doubts: vec![],
        lost_updates: vec![],
    }
}

/// One second of a run.
pub(crate) fn window(second: u64, acknowledged: u64) -> Window {
    Window {
        at_ms: second * 1_000,
        length_ms: 1_000,
        acknowledged,
        failed: 0,
        p50_us: 1_000,
        p99_us: 12_300,
        max_us: 25_040,
    }
}
