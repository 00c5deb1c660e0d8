//! Deductions, counted and timed as their callers see them: by strategy, and by what came of them. Whose they are is told
//! nowhere.

use std::{collections::HashMap, sync::LazyLock, time::Instant};

use metrics::{Counter, Histogram, counter, histogram};

use super::status::reason;
use crate::{
    error::Error,
    strategy::{REGISTRY, Row},
};

/// What is counted of deductions that name a strategy which is not in the registry.
const UNKNOWN: &str = "unknown";

/// What is counted of a strategy. Kept, because to look it up would cost more than to count.
struct Of {
    ok: Counter,
    time: Histogram,
}

impl Of {
    fn new(strategy: &'static str) -> Self {
        Self {
            ok: counter!("deduct_requests_total", "status" => "OK", "strategy" => strategy),
            time: histogram!("deduct_duration_seconds", "strategy" => strategy),
        }
    }
}

/// Counts a deduction by `strategy` (`None`: one that does not exist), which began then.
pub(super) async fn deduction<T>(
    strategy: Option<&'static Row>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    static ALL: LazyLock<HashMap<&'static str, Of>> = LazyLock::new(|| {
        REGISTRY.iter().map(|row| row.name).chain([UNKNOWN]).map(|name| (name, Of::new(name))).collect()
    });
    let strategy = strategy.map_or(UNKNOWN, |row| row.name);
    let began = Instant::now();
    let result = work.await;
    if let Some(of) = ALL.get(strategy) {
        of.time.record(began.elapsed().as_secs_f64());
        match &result {
            Ok(_) => of.ok.increment(1),
            Err(error) => {
                let status = reason(error).as_str();
                counter!("deduct_requests_total", "status" => status, "strategy" => strategy).increment(1);
            }
        }
    }
    result
}
