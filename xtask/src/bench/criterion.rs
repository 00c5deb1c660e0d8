//! The verdict over a million operations, which needs no server: loadgen's own criterion bench, run and read.

use std::{fs, path::Path, process::Command};

use serde::Deserialize;

use super::figures::Spread;
use crate::command::{Failure, cargo, run as run_command, target, workspace};

/// The bench of loadgen's, and the one of its measurements that loses nothing: what a run at full speed must go through.
const BENCH: &str = "verdict";
const MEASUREMENT: &str = "clean";
/// The longest that building and measuring may take, as `timeout` reads it: minutes and some seconds on two cores.
const TIME_LIMIT: &str = "20m";

/// What criterion writes, as much of it as is told; nanoseconds.
#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
    confidence_interval: Interval,
}

#[derive(Deserialize)]
struct Interval {
    lower_bound: f64,
    upper_bound: f64,
}

/// Seconds for a verdict. It builds the bench first, so it comes before whatever is bounded in time.
pub(crate) fn verdict_s() -> Result<Spread, Failure> {
    let file = target().join("criterion").join(BENCH).join(MEASUREMENT).join("new/estimates.json");
    // What an earlier run has left must not be taken for this one's.
    let _ = fs::remove_file(&file);
    let filter = format!("{BENCH}/{MEASUREMENT}");
    let bench = cargo(&["bench", "--package", "zbl-loadgen", "--bench", BENCH, "--", "--quick", &filter]);
    let mut bounded = Command::new("timeout");
    bounded.arg(TIME_LIMIT).arg(bench.get_program()).args(bench.get_args()).current_dir(workspace());
    run_command(&mut bounded)?;
    read(&file)
}

fn read(file: &Path) -> Result<Spread, Failure> {
    let unreadable = |error: String| Failure::Failed(format!("{}: {error}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| unreadable(error.to_string()))?;
    let Estimates { median } = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    let seconds = |nanoseconds: f64| nanoseconds / 1e9;
    let Interval { lower_bound, upper_bound } = median.confidence_interval;
    Ok(Spread { median: seconds(median.point_estimate), min: seconds(lower_bound), max: seconds(upper_bound) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_read_as_seconds() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("estimates.json");
        let estimate = r#"{"point_estimate": 4e8, "standard_error": 1.0,
            "confidence_interval": {"confidence_level": 0.95, "lower_bound": 3e8, "upper_bound": 5e8}}"#;
        fs::write(&file, format!(r#"{{"mean": {estimate}, "median": {estimate}}}"#)).unwrap();
        assert_eq!(read(&file).unwrap(), Spread { median: 0.4, min: 0.3, max: 0.5 });
        assert!(read(&directory.path().join("absent.json")).unwrap_err().reason().contains("absent.json"));
    }
}
