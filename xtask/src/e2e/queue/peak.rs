//! Peak shaving: a worker that makes one deduction after the other on a hot account is the bottleneck, and a burst comes that is far
//! above what it makes. It is accepted as fast as it comes, and made at the worker's own pace; beyond the queue's limit it is refused.

use serde_json::Value;
use test_support::{MariaDb, Process, RabbitMq, poll_until};
use zbl_client::{Change, Client, Money, Reason, Retry};

use super::{PATIENCE, Queue, number};
use crate::{
    command::Failure,
    e2e::{
        attack::{Attack, ensure_clean},
        checks::{Checks, ensure},
        stage::{Server, Stage},
    },
};

/// Callers, and what each asks for: one at rest; many, to measure what the worker makes; and as many again for so long that
/// a queue builds up, which the latency of acceptance should not show.
const REST: (u64, u64) = (1, 50);
const MEASURED: (u64, u64) = (128, 4);
const BURST: (u64, u64) = (128, 10);
/// A queue that is smaller than the burst.
const LIMIT: u64 = 500;

/// A worker that takes them one by one, and thinks about each.
const ONE_BY_ONE: [&str; 4] =
    ["--queue-name=zbl.peak", "--prefetch=1", "--strategy=pessimistic", "--compute-delay=5ms"];
/// The same, with a queue of its own that is soon full.
const SOON_FULL: [&str; 4] = ["--queue-name=zbl.full", "--queue-limit=500", "--prefetch=16", "--strategy=batched"];

pub(super) fn run(stage: &Stage, checks: &mut Checks, database: &MariaDb, broker: &RabbitMq) -> Result<(), Failure> {
    let queue = |settings| Queue { database: database.url("zbl"), broker: broker.url(), settings };
    let slow = queue(&ONE_BY_ONE);
    let (server, worker) = (slow.server(stage)?, slow.worker(stage)?);
    checks
        .check_and_note("a burst above capacity is accepted as it comes, and made at the worker's pace: CLEAN", || {
            shave(stage, &server)
        });
    drop((server, worker));
    let full = queue(&SOON_FULL);
    let server = full.server(stage)?;
    checks.check_and_note("beyond --queue-limit: QUEUE_FULL, and what was accepted is made: CLEAN", || {
        fill(stage, &server, database, || full.worker(stage))
    });
    Ok(())
}

/// Measures at rest, at capacity and in a burst.
fn shave(stage: &Stage, server: &Server<'_>) -> Result<String, Failure> {
    let at_rest = offer(stage, server, "rest", REST, &[])?.finish()?.expect(0, "CLEAN")?.result;
    let measured = offer(stage, server, "capacity", MEASURED, &[])?.finish()?.expect(0, "CLEAN")?.result;
    let burst = offer(stage, server, "burst", BURST, &[])?.finish()?.expect(0, "CLEAN")?.result;
    ensure_clean(&burst)?;
    let (offered, accepted) = (BURST.0 * BURST.1, &burst["queued"]["accepted"]);
    ensure(*accepted == offered && burst["acknowledged"]["count"] == offered, || {
        format!("of {offered} {accepted} were accepted: {burst}")
    })?;
    let [capacity, rate] = [&measured["throughput_per_s"], &burst["queued"]["accepted_per_s"]]
        .map(|rate| rate.as_f64().unwrap_or_default());
    let latency = |result: &Value| {
        let [p50, p99] = ["p50", "p99"].map(|which| result["latency_us"][which].as_f64().unwrap_or_default() / 1_000.0);
        format!("p50 {p50:.1} p99 {p99:.1} ms")
    };
    Ok(format!(
        "(capacity {capacity:.0}/s; {offered} accepted at {rate:.0}/s, {:.1} times that, the last made {} ms later; acceptance: \
         {} by {} caller at rest, {} by {} and a short queue, {} in the burst)",
        rate / capacity,
        burst["queued"]["drain_ms"],
        latency(&at_rest),
        REST.0,
        latency(&measured),
        MEASURED.0,
        latency(&burst),
    ))
}

/// Lets a burst meet a queue that nobody works off, until it is full; then a worker comes.
fn fill(
    stage: &Stage,
    server: &Server<'_>,
    database: &MariaDb,
    worker: impl FnOnce() -> Result<Process, Failure>,
) -> Result<String, Failure> {
    let attack = offer(stage, server, "full", BURST, &["--retry-contended", "0"])?;
    let waiting = "SELECT COUNT(*) FROM zbl.deduction_outbox WHERE state = 'SENT'";
    let is_full = poll_until(PATIENCE, || number(database, waiting).filter(|waiting| *waiting >= LIMIT));
    ensure(is_full.is_some(), || format!("{:?} of {LIMIT} wait after {PATIENCE:?}", number(database, waiting)))?;
    until_refused(server)?;
    let _worker = worker()?;
    let result = attack.finish()?.expect(0, "CLEAN")?.result;
    ensure_clean(&result)?;
    let refused = result["failed"]["QUEUE_FULL"].as_u64().unwrap_or_default();
    let (offered, accepted) = (BURST.0 * BURST.1, result["queued"]["accepted"].as_u64().unwrap_or_default());
    ensure(refused > 0 && accepted + refused == offered && result["acknowledged"]["count"] == accepted, || {
        format!("of {offered} {accepted} were accepted and {refused} refused: {result}")
    })?;
    Ok(format!("({accepted} accepted and made, {refused} refused)"))
}

/// Has deductions accepted until one is refused.
fn until_refused(server: &Server<'_>) -> Result<(), Failure> {
    let failed = |error: String| Failure::Failed(error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| failed(error.to_string()))?.block_on(async {
        let client = Client::connect_lazy(&server.address().to_string()).map_err(|error| failed(error.to_string()))?;
        let account = client.open_account(None, Money::from_minor(1_000_000)).await;
        let account = account.map_err(|error| failed(error.to_string()))?;
        let client = client.with_retry(Retry::NEVER);
        for _ in 0..LIMIT {
            match client.deduct_async(&Change::new(account.user_id, Money::from_minor(1))).await {
                Ok(_) => {}
                Err(error) if error.reason() == Some(Reason::QueueFull) => return Ok(()),
                Err(error) => return Err(failed(error.to_string())),
            }
        }
        Err(failed(format!("{LIMIT} more were accepted")))
    })
}

/// Offers so many deductions by so many callers.
fn offer(
    stage: &Stage,
    server: &Server<'_>,
    name: &str,
    (workers, deductions): (u64, u64),
    more: &[&str],
) -> Result<Attack, Failure> {
    let [workers, deductions] = [workers, deductions].map(|number| number.to_string());
    let workload = ["--async", "--workers", &workers, "--deductions", &deductions, "--amount", "0.01"];
    let rest = ["--opening", "1000.00", "--drain", "180s", "--expect", "clean"];
    let arguments: Vec<&str> = workload.into_iter().chain(rest).chain(more.iter().copied()).collect();
    Attack::start(stage, &format!("peak-{name}"), &[server.address()], &arguments)
}
