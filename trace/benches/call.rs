//! What a call of five phases costs by its trace: where nobody records it, and where it is recorded and sent to a
//! collector that is away.

// A bench that cannot be set up has nothing to tell.
#![allow(clippy::unwrap_used)]

use std::{hint::black_box, time::Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use tokio::runtime::Runtime;
use zbl_trace::{KeyValue, Part, Program, Ratio, SpanKind, TraceContext, Tracer, Traces, names};

/// Lock-wait, read, compute, write, commit.
const PHASES: usize = 5;

fn call(tracer: &Tracer, parent: Option<TraceContext>) {
    let span = tracer.begin("zbl.v1.AccountService/Deduct", SpanKind::Server, parent);
    span.set(|| [KeyValue::new(names::USER_ID, 7)]);
    let began = Instant::now();
    for _ in 0..PHASES {
        span.record(|| {
            let attributes = vec![KeyValue::new(names::DB_OPERATION_NAME, "SELECT"), KeyValue::new(names::ATTEMPT, 1)];
            Part { name: "read", kind: SpanKind::Client, time: began..Instant::now(), attributes, error: None }
        });
    }
    black_box(span.context().trace_id().to_string());
    span.end_call(0);
}

fn calls(criterion: &mut Criterion) {
    let parent = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let nobody = Tracer::unrecorded(Ratio::ALL);
    criterion.bench_function("a call that nobody records", |bencher| bencher.iter(|| call(&nobody, parent)));

    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    let program = Program { name: "bench", version: "0", instance: String::new() };
    // Nobody listens: the spans are queued and dropped, as at the end of a collector's patience.
    let traces = Traces::start(program, Some(&"http://127.0.0.1:1".parse().unwrap()), Ratio::ALL).unwrap();
    criterion.bench_function("a call that is recorded", |bencher| bencher.iter(|| call(traces.tracer(), parent)));
}

criterion_group!(benches, calls);
criterion_main!(benches);
