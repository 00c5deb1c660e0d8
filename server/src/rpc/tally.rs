//! Deductions, counted and timed as their callers see them: by strategy, and by what came of them. Whose they are is told
//! nowhere.

use std::{collections::HashMap, sync::LazyLock, time::Instant};

use metrics::{Counter, Histogram, counter, histogram};

use zbl_proto::Reason;

use super::status::reason;
use crate::{
    account::Receipt,
    error::Error,
    strategy::{REGISTRY, Row},
};

/// What is counted of deductions that name a strategy which is not in the registry.
const UNKNOWN: &str = "unknown";

/// What is counted of a strategy. Kept, because to look it up would cost more than to count.
struct Of {
    ok: Counter,
    attempts: Counter,
    time: Histogram,
}

/// Outcomes that are waited for: told as none from the start, or the first of them would not be seen as one more.
const RARE: [Reason; 3] = [Reason::Contended, Reason::OutcomeUnknown, Reason::Bug];

impl Of {
    fn new(strategy: &'static str) -> Self {
        for reason in RARE {
            counter!("deduct_requests_total", "status" => reason.as_str(), "strategy" => strategy).increment(0);
        }
        Self {
            ok: counter!("deduct_requests_total", "status" => "OK", "strategy" => strategy),
            attempts: counter!("deduct_attempts_total", "strategy" => strategy),
            time: histogram!("deduct_duration_seconds", "strategy" => strategy),
        }
    }
}

static ALL: LazyLock<HashMap<&'static str, Of>> =
    LazyLock::new(|| REGISTRY.iter().map(|row| row.name).chain([UNKNOWN]).map(|name| (name, Of::new(name))).collect());

/// Begins to count, at nothing.
pub(super) fn begin() {
    LazyLock::force(&ALL);
}

/// Counts a deduction by `strategy` (`None`: one that does not exist), which began then.
pub(super) async fn deduction(
    strategy: Option<&'static Row>,
    work: impl Future<Output = Result<Receipt, Error>>,
) -> Result<Receipt, Error> {
    let strategy = strategy.map_or(UNKNOWN, |row| row.name);
    let began = Instant::now();
    let result = work.await;
    if let Some(of) = ALL.get(strategy) {
        of.time.record(began.elapsed().as_secs_f64());
        match &result {
            Ok(receipt) => {
                of.ok.increment(1);
                of.attempts.increment(receipt.attempts.into());
            }
            Err(error) => {
                if let Error::Contended { attempts, .. } = error {
                    of.attempts.increment((*attempts).into());
                }
                let status = reason(error).as_str();
                counter!("deduct_requests_total", "status" => status, "strategy" => strategy).increment(1);
            }
        }
    }
    result
}
