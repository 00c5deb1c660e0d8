//! The page, in a real browser against the real server: `web/e2e`, run by npm, each of its tests a check of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use test_support::fresh_database;

use super::{
    checks::{Checks, ensure},
    stage::{Ended, Stage, argument},
};
use crate::command::{Failure, Profile, binaries, workspace};

/// All tests together, on a busy machine: they take about two minutes.
const TIMEOUT: Duration = Duration::from_secs(900);
/// What a soak takes beside its own time: starting, and judging.
const SOAK_SETUP: Duration = Duration::from_secs(300);

pub(super) fn run(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    tests(stage, checks, &[], &[], TIMEOUT)
}

/// The one about memory, for that long.
pub(super) fn soak(length: Duration, stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    let seconds = length.as_secs().to_string();
    tests(stage, checks, &["soak.test.ts"], &[("ZBL_SOAK_SECONDS", &seconds)], length + SOAK_SETUP)
}

/// Runs the browser tests, or those in the named files, and counts each.
fn tests(
    stage: &Stage,
    checks: &mut Checks,
    files: &[&str],
    settings: &[(&str, &str)],
    timeout: Duration,
) -> Result<(), Failure> {
    let report = stage.path("web.json");
    let binary = |name| argument(&binaries(Profile::Debug).join(name));
    let mut command = stage.foreign("npm");
    command.current_dir(workspace().join("web")).args(["run", "--silent", "e2e", "--"]).args(files);
    command.arg("--reporter=json").arg(format!("--outputFile={}", argument(&report)));
    command.envs(settings.iter().copied()).env("ZBL_DATABASE_URL", fresh_database()?);
    command.env("ZBL_SERVER", binary("zbl-server")).env("ZBL_LOADGEN", binary("loadgen"));
    let ended = stage.run(command, timeout)?;
    let outcomes = read(&report).map_err(|failure| no_report(&failure, &ended))?;
    for Outcome { name, result } in &outcomes {
        checks.check_and_note(name, || result.clone().map_err(Failure::Failed));
    }
    let is_told = ended.code == Some(0) || outcomes.iter().any(|outcome| outcome.result.is_err());
    ensure(is_told, || format!("{}: exit {:?}\n{}", ended.line, ended.code, ended.output))
}

fn no_report(failure: &Failure, ended: &Ended) -> Failure {
    Failure::Failed(format!("{}\n{}: exit {:?}\n{}", failure.reason(), ended.line, ended.code, ended.output))
}

/// What became of a browser test.
#[derive(Debug, PartialEq)]
struct Outcome {
    name: String,
    /// What it adds, or why it failed.
    result: Result<String, String>,
}

fn read(report: &Path) -> Result<Vec<Outcome>, Failure> {
    let unreadable = |error: &dyn std::fmt::Display| Failure::Failed(format!("{}: {error}", report.display()));
    let text = fs::read_to_string(report).map_err(|error| unreadable(&error))?;
    let report: Value = serde_json::from_str(&text).map_err(|error| unreadable(&error))?;
    let files = report["testResults"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(files.iter().flat_map(outcomes).collect())
}

/// The tests of a file; the file itself where it failed before any test did. What was not run has failed.
fn outcomes(file: &Value) -> Vec<Outcome> {
    let tests = file["assertionResults"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut outcomes: Vec<Outcome> = tests.iter().map(outcome).collect();
    if file["status"] != "passed" && outcomes.iter().all(|outcome| outcome.result.is_ok()) {
        let name = PathBuf::from(text(&file["name"])).file_name().unwrap_or_default().display().to_string();
        outcomes.push(Outcome { name, result: Err(text(&file["message"])) });
    }
    outcomes
}

fn outcome(test: &Value) -> Outcome {
    let status = text(&test["status"]);
    let result = if status == "passed" {
        let seconds = test["duration"].as_f64().unwrap_or_default() / 1000.0;
        let note = test["meta"]["note"].as_str().map(|note| format!("({note}) ")).unwrap_or_default();
        Ok(format!("{note}({seconds:.1} s)"))
    } else {
        let messages = test["failureMessages"].as_array().map(Vec::as_slice).unwrap_or_default();
        Err([vec![status], messages.iter().map(text).collect()].concat().join("\n"))
    };
    Outcome { name: text(&test["title"]), result }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_test_that_did_not_pass_failed_and_so_did_a_file_without_its_tests() {
        let test = |title: &str, status: &str| json!({"title": title, "status": status, "failureMessages": ["why"]});
        let passed = json!({"title": "a", "status": "passed", "duration": 1500.0, "meta": {"note": "7 kB"}});
        let named = |outcomes: Vec<Outcome>| -> Vec<_> {
            outcomes.into_iter().map(|outcome| (outcome.name, outcome.result)).collect()
        };
        let file = json!({"status": "failed", "assertionResults": [passed, test("b", "failed"), test("c", "pending")]});
        assert_eq!(
            named(outcomes(&file)),
            [
                ("a".into(), Ok("(7 kB) (1.5 s)".into())),
                ("b".into(), Err("failed\nwhy".into())),
                ("c".into(), Err("pending\nwhy".into())),
            ]
        );
        let broken =
            json!({"name": "/web/e2e/x.test.ts", "status": "failed", "message": "no server", "assertionResults": []});
        assert_eq!(named(outcomes(&broken)), [("x.test.ts".into(), Err("no server".into()))]);
    }
}
