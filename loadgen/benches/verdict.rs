//! The verdict over a million operations, clean and with a fifth of them lost, and the search for races in its journal.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use rand::rngs::StdRng;
use rand::{Rng as _, RngCore as _, SeedableRng as _};
use uuid::Builder;
use zbl_client::{Entry, EntryKind, Money};
use zbl_loadgen::history::{Acknowledgement, Operation, Outcome};
use zbl_loadgen::verdict::{Evidence, Journal, State, judge};

const OPERATIONS: usize = 1_000_000;

/// Operations are heard worker by worker, and journaled in another order: as many workers as an attack has by default.
const WORKERS: usize = 100;

const OPENING: i64 = 1_000_000_000_000;
const AMOUNT: i64 = 1;

/// The version before the first.
const ROOT: i64 = 1;

/// What a run of [`OPERATIONS`] deductions leaves behind.
struct Run {
    operations: Vec<Operation>,
    entries: Vec<Entry>,
}

impl Run {
    /// One in `stale_every` deductions is decided on a value a few versions old, and cuts off what was written since;
    /// `None` loses nothing.
    fn new(stale_every: Option<u32>) -> Self {
        let mut random = StdRng::seed_from_u64(1);
        let mut entries: Vec<Entry> = Vec::with_capacity(OPERATIONS);
        for index in 0..OPERATIONS {
            let stale =
                stale_every.filter(|every| random.random_ratio(1, *every)).map_or(0, |_| random.random_range(1..8));
            let read = index.saturating_sub(stale);
            let before = read.checked_sub(1).map_or(OPENING, |read| entries[read].balance_after.minor());
            let mut id = [0; 16];
            random.fill_bytes(&mut id);
            entries.push(Entry {
                version: ROOT + 1 + index as i64,
                request_id: Builder::from_random_bytes(id).into_uuid(),
                kind: EntryKind::Deduct,
                delta: Money::from_minor(-AMOUNT),
                balance_after: Money::from_minor(before - AMOUNT),
                version_before: ROOT + read as i64,
                strategy: "none".to_owned(),
                created_at: None,
                overwritten_by: None,
            });
        }
        let heard = (0..WORKERS).flat_map(|worker| entries.iter().skip(worker).step_by(WORKERS));
        Self { operations: heard.map(acknowledged).collect(), entries }
    }

    fn journal(&self) -> Journal<'_> {
        let root = State { balance: Money::from_minor(OPENING), version: ROOT };
        Journal { root, entries: &self.entries }
    }

    fn evidence(&self) -> Evidence<'_> {
        let journal = self.journal();
        let version = journal.newest();
        let last = State { balance: journal.balance_at(version).unwrap_or_default(), version };
        Evidence { operations: &self.operations, journal, last }
    }
}

fn acknowledged(entry: &Entry) -> Operation {
    let Entry { balance_after: balance, version, version_before, .. } = *entry;
    let outcome = Outcome::Acknowledged(Acknowledgement { balance, version, version_before });
    Operation { request_id: entry.request_id, delta: entry.delta, outcome }
}

fn verdict(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("verdict");
    // Each takes a good part of a second; ten are enough to see a change of a few per cent.
    group.sample_size(10).throughput(Throughput::Elements(OPERATIONS as u64));
    let runs = [("clean", Run::new(None)), ("a fifth lost", Run::new(Some(16)))];
    for (name, run) in &runs {
        // What is dropped afterwards is not part of the verdict.
        group.bench_function(*name, |bencher| {
            bencher.iter_batched(|| run.evidence(), |evidence| judge(black_box(&evidence)), BatchSize::PerIteration);
        });
    }
    let [_, (_, racing)] = &runs;
    group.bench_function("races", |bencher| {
        let journal = racing.journal();
        let versions = ROOT + 1..=journal.newest();
        bencher.iter(|| {
            versions
                .clone()
                .filter(|version| journal.destroyed(*version).is_some_and(|money| money != Money::ZERO))
                .count()
        });
    });
    group.finish();
}

criterion_group!(benches, verdict);
criterion_main!(benches);
