//! `loadgen attack` as a process, and what its result file says.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use test_support::Process;

use super::{
    checks::{Checks, ensure, hundredths},
    stage::{Ended, Stage, argument},
};
use crate::command::{Failure, line};

/// The longest attack here takes some tens of seconds on an idle machine, in a debug build.
const TIMEOUT: Duration = Duration::from_secs(300);

/// An attack under way.
pub(crate) struct Attack {
    line: String,
    process: Process,
    file: PathBuf,
}

/// An attack that has ended: how, and its result.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) ended: Ended,
    /// The result file; null when none was written.
    pub(crate) result: Value,
}

impl Attack {
    /// Starts an attack on one or more servers. `name` names its result file.
    pub(crate) fn start(
        stage: &Stage,
        name: &str,
        servers: &[SocketAddr],
        arguments: &[&str],
    ) -> Result<Self, Failure> {
        let file = stage.path(&format!("{name}.json"));
        let mut command = stage.command("loadgen", &["attack", "--json", &argument(&file)]);
        for server in servers {
            command.args(["--addr", &server.to_string()]);
        }
        command.args(arguments);
        Ok(Self { line: line(&command), process: Process::spawn(command)?, file })
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_under_way(&mut self) -> bool {
        self.process.is_running()
    }

    /// Waits for its end and reads its result.
    pub(crate) fn finish(mut self) -> Result<Finished, Failure> {
        let status = self.process.wait(TIMEOUT)?;
        let ended = Ended { line: self.line, code: status.code(), output: self.process.output() };
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        Ok(Finished { ended, result: serde_json::from_str(&text).unwrap_or_default() })
    }
}

impl Finished {
    /// Fails unless the attack ended with `code` and this verdict.
    pub(crate) fn expect(self, code: i32, verdict: &str) -> Result<Self, Failure> {
        let Self { ended, result } = self;
        let ended = ended.expect(code)?;
        let actual = result["verdict"].as_str().unwrap_or("no verdict");
        ensure(actual == verdict, || format!("{}: {actual}, expected {verdict}\n{}", ended.line, ended.output))?;
        Ok(Self { ended, result })
    }
}

/// Fails unless a result says that nothing was lost, and its figures agree with each other.
pub(crate) fn ensure_clean(result: &Value) -> Result<(), Failure> {
    let is_clean = result["verdict"] == "CLEAN" && result["unknown"] == 0 && result["doubled"] == 0;
    ensure(is_clean, || format!("not CLEAN with nothing unknown or doubled: {result}"))?;
    for figure in ["lost", "unattributed", "difference"] {
        ensure(amount(&result[figure])? == 0, || format!("{figure} is not zero: {result}"))?;
    }
    let acknowledged = amount(&result["acknowledged"]["amount"])?;
    ensure(acknowledged > 0, || format!("nothing was acknowledged: {result}"))?;
    ensure(amount(&result["opening"])? - acknowledged == amount(&result["final"])?, || {
        format!("opening less acknowledged is not final: {result}")
    })
}

/// Fails unless a result names every lost cent: the pairs add up to the loss.
pub(crate) fn ensure_accounted_loss(result: &Value) -> Result<(), Failure> {
    let lost = amount(&result["lost"])?;
    let pairs = result["lost_updates"].as_array().map(Vec::as_slice).unwrap_or_default();
    let sum = pairs.iter().map(|pair| amount(&pair["amount"])).sum::<Result<i64, Failure>>()?;
    ensure(lost > 0 && sum == lost, || format!("lost {lost}, the pairs add up to {sum} (hundredths): {result}"))
}

/// The runs of a result file with several.
pub(crate) fn runs(file: &Path) -> Result<Vec<Value>, Failure> {
    let unreadable = |error: String| Failure::Failed(format!("{}: {error}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| unreadable(error.to_string()))?;
    let result: Value = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    result["runs"].as_array().cloned().ok_or_else(|| unreadable(format!("no runs in {text}")))
}

/// Checks that every run whose strategy has this guarantee is CLEAN and sold what there was; there must be these.
pub(crate) fn check_clean(checks: &mut Checks, place: &str, runs: &[Value], guarantee: &str, names: &[&str]) {
    let found: Vec<&Value> = runs.iter().filter(|run| run["guarantee"] == guarantee).collect();
    for name in names.iter().filter(|name| !found.iter().any(|run| run["strategy"] == **name)) {
        checks.fail(&format!("{name} on {place}"), &format!("no run of it among those that promise {guarantee}"));
    }
    for run in found {
        let name = run["strategy"].as_str().unwrap_or_default();
        checks.check_and_note(&format!("{name} on {place} is CLEAN and sells what there was"), || {
            ensure_clean(run)?;
            sold_what_there_was(run)
        });
    }
}

/// Fails unless exactly the affordable deductions were acknowledged, or fewer and some were refused for contention.
fn sold_what_there_was(result: &Value) -> Result<String, Failure> {
    let [sold, affordable, contended] =
        [&result["acknowledged"]["count"], &result["affordable"], &result["failed"]["CONTENDED"]]
            .map(|count| count.as_u64().unwrap_or_default());
    let is_right = affordable > 0 && (sold == affordable || (sold < affordable && contended > 0));
    ensure(is_right, || format!("sold {sold} of {affordable}, {contended} refused for contention: {result}"))?;
    Ok(format!("(sold {sold}, {contended} refused for contention)"))
}

/// An amount of a result file, in hundredths.
pub(crate) fn amount(value: &Value) -> Result<i64, Failure> {
    value.as_str().and_then(hundredths).ok_or_else(|| Failure::Failed(format!("{value} is not an amount")))
}
