//! A private Prometheus and Alertmanager with the deployed rules, and what they say through their HTTP APIs.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use serde_json::Value;
use test_support::{Process, free_port, poll_until};

use super::{
    super::{
        checks::ensure,
        stage::{Stage, argument, loopback},
    },
    TIMEOUT, deployed,
};
use crate::command::Failure;

/// How long curl waits, in seconds, and how long curl is waited for.
const MAX_TIME_S: &str = "30";
const CURL_TIMEOUT: Duration = Duration::from_secs(40);

/// Both of them, watching one server. Killed when dropped.
pub(super) struct Monitor<'a> {
    stage: &'a Stage,
    prometheus: SocketAddr,
    alertmanager: SocketAddr,
    _running: [Process; 2],
}

impl<'a> Monitor<'a> {
    /// Starts them and waits until both are ready.
    pub(super) fn start(stage: &'a Stage, target: SocketAddr) -> Result<Self, Failure> {
        let directory = stage.path("monitor");
        fs::create_dir_all(&directory).map_err(|error| Failure::Failed(format!("{}: {error}", directory.display())))?;
        let (prometheus, alertmanager) = (loopback(free_port()?), loopback(free_port()?));
        let config = deployed::copy(&directory, target, alertmanager)?;
        let start = |program: &str, address: SocketAddr, config: PathBuf, options: &[String]| {
            let mut command = stage.foreign(program);
            command.args([&format!("--web.listen-address={address}"), "--log.level=warn"]).args(options);
            command.arg(format!("--config.file={}", argument(&config)));
            let mut process = Process::spawn(command)?;
            process.wait_for_port(address, TIMEOUT).map(|()| process)
        };
        let storage = |option: &str| format!("{option}={}", argument(&directory.join(option)));
        let running = [
            // It is alone.
            start(
                "prometheus-alertmanager",
                alertmanager,
                deployed::path("alertmanager/alertmanager.yml"),
                &[storage("--storage.path"), "--cluster.listen-address=".to_owned()],
            )?,
            start("prometheus", prometheus, config, &[storage("--storage.tsdb.path")])?,
        ];
        let monitor = Self { stage, prometheus, alertmanager, _running: running };
        [alertmanager, prometheus].into_iter().try_for_each(|address| monitor.ready(address))?;
        Ok(monitor)
    }

    /// Waits until it answers: it listens before it has read what it stored.
    fn ready(&self, address: SocketAddr) -> Result<(), Failure> {
        let url = format!("http://{address}/-/ready");
        let ready = poll_until(TIMEOUT, || {
            let mut curl = self.stage.foreign("curl");
            curl.args(["--silent", "--fail", "--max-time", MAX_TIME_S, &url]);
            self.stage.run(curl, CURL_TIMEOUT).ok()?.expect(0).ok()
        });
        ready.map(drop).ok_or_else(|| Failure::Failed(format!("not within {TIMEOUT:?}: {url}")))
    }

    /// What an expression comes to now: its series, or none.
    pub(super) fn query(&self, expression: &str) -> Result<Vec<Value>, Failure> {
        let answer = self.ask(self.prometheus, "/api/v1/query", &[("query", expression)])?;
        let series = answer["data"]["result"].as_array().filter(|_| answer["status"] == "success");
        series.cloned().ok_or_else(|| Failure::Failed(format!("{expression}: {answer}")))
    }

    /// Waits until an expression has a series, and shows it in what failed if it never has.
    pub(super) fn found(&self, expression: &str) -> Result<(), Failure> {
        let found = poll_until(TIMEOUT, || match self.query(expression) {
            Ok(series) => (!series.is_empty()).then_some(Ok(())),
            Err(failure) => Some(Err(failure)),
        });
        found.unwrap_or_else(|| Err(Failure::Failed(format!("not within {TIMEOUT:?}: {expression}"))))
    }

    /// The value of an expression that has one, as Prometheus writes it.
    pub(super) fn value(&self, expression: &str) -> Result<String, Failure> {
        self.found(expression)?;
        let series = self.query(expression)?;
        let value = series.first().and_then(|one| one["value"][1].as_str());
        value.map(str::to_owned).ok_or_else(|| Failure::Failed(format!("{expression} has no value: {series:?}")))
    }

    /// The rules as they are loaded, once all have been evaluated.
    pub(super) fn rules(&self) -> Result<Vec<Value>, Failure> {
        let mut rules = Vec::new();
        let evaluated = poll_until(TIMEOUT, || {
            let answer = self.ask(self.prometheus, "/api/v1/rules", &[]).ok()?;
            let groups = answer["data"]["groups"].as_array()?;
            rules = groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect();
            rules.iter().all(|rule| rule["health"] == "ok").then_some(())
        });
        ensure(evaluated.is_some() && !rules.is_empty(), || format!("not all were evaluated: {rules:?}"))?;
        Ok(rules)
    }

    /// Waits until Alertmanager has an alert like this.
    pub(super) fn told(&self, is_like: impl Fn(&Value) -> bool) -> Result<(), Failure> {
        let mut last = Value::Null;
        let told = poll_until(TIMEOUT, || {
            last = self.ask(self.alertmanager, "/api/v2/alerts", &[]).ok()?;
            last.as_array()?.iter().any(&is_like).then_some(())
        });
        told.ok_or_else(|| Failure::Failed(format!("Alertmanager has {last}")))
    }

    fn ask(&self, address: SocketAddr, path: &str, parameters: &[(&str, &str)]) -> Result<Value, Failure> {
        let mut curl = self.stage.foreign("curl");
        curl.args(["--silent", "--show-error", "--max-time", MAX_TIME_S, "--get"]);
        for (name, value) in parameters {
            curl.args(["--data-urlencode", &format!("{name}={value}")]);
        }
        curl.arg(format!("http://{address}{path}"));
        let output = self.stage.run(curl, CURL_TIMEOUT)?.expect(0)?.output;
        serde_json::from_str(&output).map_err(|error| Failure::Failed(format!("{path}: {error}: {output}")))
    }
}
