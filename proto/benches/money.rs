//! Money on the wire: every call reads an amount and writes balances, so both must stay far below what a call costs.

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use zbl_proto::Money;

/// Short and long amounts, as requests carry them.
const AMOUNTS: [&str; 4] = ["0.01", "10.00", "1234567.5", "9999999999999999.99"];

fn money(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("money");
    group.throughput(Throughput::Elements(AMOUNTS.len() as u64));
    group.bench_function("parse", |bencher| {
        bencher.iter(|| AMOUNTS.map(|amount| Money::parse(black_box(amount))));
    });
    let values = AMOUNTS.map(|amount| Money::parse(amount).unwrap_or_default());
    group.bench_function("display", |bencher| {
        let mut text = String::with_capacity(64);
        bencher.iter(|| {
            text.clear();
            // Writing to a String cannot fail.
            black_box(values).map(|value| write!(text, "{value}"))
        });
    });
    group.bench_function("sum", |bencher| {
        let add = |sum: Option<Money>, value: Money| sum?.checked_add(value);
        bencher.iter(|| black_box(values).into_iter().fold(Some(Money::ZERO), add));
    });
    group.finish();
}

criterion_group!(benches, money);
criterion_main!(benches);
