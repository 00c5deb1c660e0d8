//! The files under `deploy/`: what their own tools say of them, what every alert must bring along, and the copy of them
//! that a test can wait for.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use super::super::{
    checks::{Checks, ensure},
    stage::{Stage, argument},
};
use crate::command::{Failure, workspace};

/// The unit tests of the rules replay days, a minute at a time; half a minute on an idle machine.
const TOOL_TIMEOUT: Duration = Duration::from_secs(300);

/// How often the deployed configuration looks, and how often the copy does. A scrape may take as long as the time to the
/// next one, which on a loaded machine must not be too short.
const INTERVALS: [(&str, &str); 2] = [
    ("scrape_interval: 15s\n", "scrape_interval: 1s\n"),
    ("evaluation_interval: 15s\n", "evaluation_interval: 250ms\n"),
];
const TARGET: &str = "server:8080";
const ALERTMANAGER: &str = "alertmanager:9093";

/// Every alert has a row in it that says what to do.
const GUIDE: &str = "docs/OPERATIONS.md";

/// A file that is deployed.
pub(super) fn path(name: &str) -> PathBuf {
    workspace().join("deploy").join(name)
}

fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))
}

/// The dashboard.
pub(super) fn dashboard() -> Result<Value, Failure> {
    let path = path("grafana/dashboards/zero-balance-loss.json");
    serde_json::from_str(&read(&path)?).map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))
}

/// What the tools say without running anything.
pub(super) fn check(stage: &Stage, checks: &mut Checks) {
    for (tool, arguments, file) in [
        ("promtool", &["check", "config"][..], "prometheus/prometheus.yml"),
        ("promtool", &["check", "rules", "--lint=all", "--lint-fatal"], "prometheus/alerts.yml"),
        ("promtool", &["test", "rules"], "prometheus/alerts.test.yml"),
        ("amtool", &["check-config"], "alertmanager/alertmanager.yml"),
    ] {
        checks.check(&format!("{tool} {} deploy/{file}", arguments.join(" ")), || {
            let mut command = stage.foreign(tool);
            command.args(arguments).arg(path(file));
            stage.run(command, TOOL_TIMEOUT)?.expect(0).map(drop)
        });
    }
}

/// Every alert says how bad it is, what it means and where it is written what to do; that is written there; and there is
/// a case in which it fires.
pub(super) fn check_rules(rules: &[Value]) -> Result<String, Failure> {
    let (guide, cases) = (read(&workspace().join(GUIDE))?, read(&path("prometheus/alerts.test.yml"))?);
    let alerts: Vec<&Value> = rules.iter().filter(|rule| rule["type"] == "alerting").collect();
    for alert in &alerts {
        let (name, annotations) = (alert["name"].as_str().unwrap_or_default(), &alert["annotations"]);
        let is_graded = ["critical", "warning"].iter().any(|severity| alert["labels"]["severity"] == *severity);
        let is_told =
            ["summary", "description"].iter().all(|text| annotations[text].as_str().is_some_and(|t| !t.is_empty()));
        ensure(is_graded && is_told, || format!("severity, summary or description is missing: {alert}"))?;
        let link = annotations["runbook_url"].as_str().unwrap_or_default();
        let row = link.split_once('#').filter(|(file, _)| *file == GUIDE).map(|(_, row)| format!(r#"id="{row}""#));
        ensure(row.is_some_and(|row| guide.contains(&row)), || format!("{name}: {link:?} leads nowhere"))?;
        let case = format!(r#"alertname="{name}",alertstate="firing""#);
        ensure(cases.contains(&case), || format!("{name}: no case in alerts.test.yml in which it fires"))?;
    }
    ensure(!alerts.is_empty(), || "there are no alerts".to_owned())?;
    Ok(format!("({} alerts)", alerts.len()))
}

/// Writes a copy of Prometheus' configuration and rules that watches `target`, tells `alertmanager`, and looks more often.
/// Expressions stay as they are. Only what an alert waits for, before it fires and before it is closed, is seconds
/// where it was minutes: the order of things is the same, and a test need not last as long as an outage.
pub(super) fn copy(directory: &Path, target: SocketAddr, alertmanager: SocketAddr) -> Result<PathBuf, Failure> {
    let mut config = read(&path("prometheus/prometheus.yml"))?;
    let addresses = [(TARGET, target.to_string()), (ALERTMANAGER, alertmanager.to_string())];
    let intervals = INTERVALS.map(|(from, to)| (from, to.to_owned()));
    for (from, to) in addresses.into_iter().chain(intervals) {
        ensure(config.matches(from).count() == 1, || format!("prometheus.yml does not say {from:?} once"))?;
        config = config.replace(from, &to);
    }
    let rules = in_seconds(&read(&path("prometheus/alerts.yml"))?)?;
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::write(&path, text).map_err(|error| Failure::Failed(format!("{}: {error}", argument(&path)))).map(|()| path)
    };
    write("alerts.yml", &rules)?;
    write("prometheus.yml", &config)
}

/// The rules, with the minutes that an alert waits made seconds.
fn in_seconds(rules: &str) -> Result<String, Failure> {
    let line = |line: &str| {
        let Some((name, time)) = line.split_once(": ").filter(|(name, _)| is_wait(name)) else {
            return Ok(format!("{line}\n"));
        };
        let minutes = time.strip_suffix('m').filter(|number| number.parse::<u32>().is_ok());
        let minutes = minutes.ok_or_else(|| Failure::Failed(format!("not in whole minutes: {line:?}")))?;
        Ok(format!("{name}: {minutes}s\n"))
    };
    rules.lines().map(line).collect()
}

fn is_wait(name: &str) -> bool {
    matches!(name.trim_start(), "for" | "keep_firing_for")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_waits_are_shortened() {
        let rules = "- expr: rate(a[5m]) > 0 # for: 1m\n  for: 10m\n  keep_firing_for: 5m\n  summary: 5m\n";
        let expected = "- expr: rate(a[5m]) > 0 # for: 1m\n  for: 10s\n  keep_firing_for: 5s\n  summary: 5m\n";
        assert_eq!(in_seconds(rules).unwrap(), expected);
        in_seconds("  for: 1h30m\n").unwrap_err();
    }
}
