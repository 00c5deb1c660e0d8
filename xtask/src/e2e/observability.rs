//! What is deployed to watch the service, checked by its own tools and then really run: a Prometheus and an Alertmanager,
//! with the deployed rules, watch a server under attack. What fires, what stays silent, and whether the dashboard has
//! anything to show is read from them; nothing here evaluates a rule by itself.

mod deployed;
mod expressions;
mod monitor;

use std::time::Duration;

use serde_json::Value;
use test_support::{RabbitMq, Redis, fresh_database, poll_until};
use zbl_client::{Client, Money};

use self::monitor::Monitor;
use super::{
    attack::Attack,
    checks::{Checks, ensure},
    queue::Poison,
    stage::{Server, Stage},
};
use crate::{
    command::{Failure, answers},
    test::{Foreign, ensure_installed},
};

const MONITORS: [Foreign; 2] = [
    Foreign {
        package: "prometheus",
        is_installed: || answers("prometheus", &["--version"]) && answers("promtool", &["--version"]),
    },
    Foreign {
        package: "prometheus-alertmanager",
        is_installed: || answers("prometheus-alertmanager", &["--version"]) && answers("amtool", &["--version"]),
    },
];

/// What is asked for here is there within a second or two on an idle machine.
const TIMEOUT: Duration = Duration::from_secs(60);
/// A comparison of all strategies takes some tens of seconds, in a debug build.
const LOAD_TIMEOUT: Duration = Duration::from_secs(300);

/// Journal and balances are compared all the time, so that nothing here waits for the next turn; every limit is in force,
/// and far away; breakers and retries end soon, so that a little load shows each of them.
const SETTINGS: [&str; 6] = [
    "--reconcile-every=100ms",
    "--rate-limit=100000",
    "--user-rate-limit=100000",
    "--max-attempts=2",
    "--breaker-window=1s",
    "--breaker-open=1s",
];
/// How many rounds of comparing are longer than the second that an alert waits: two turns each, and ten to be sure.
const ROUNDS: u32 = 20;

/// The Redis servers of redlock; the first is also that of the other locks and of the cache.
const NODES: usize = 3;

/// The alerts of a loss above 100.
const LOSS: &str = r#"ALERTS{alertname=~"BalanceLoss|BalanceLossOver100"}"#;

pub(super) fn run(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    ensure_installed(&MONITORS)?;
    deployed::check(stage, checks);
    let mut nodes = (0..NODES).map(|_| Redis::start()).collect::<Result<Vec<_>, _>>()?;
    let urls: Vec<String> = nodes.iter().map(Redis::url).collect();
    let redis = ["--redis-url", &urls[0], "--redlock-urls", &urls.join(",")];
    let broker = RabbitMq::start()?;
    let queue = ["--amqp-url", &broker.url(), "--worker=true"];
    let settings: Vec<&str> = SETTINGS.into_iter().chain(redis).chain(queue).collect();
    let server = Server::start_with(stage, &fresh_database()?, &settings)?;
    let monitor = Monitor::start(stage, server.http_address())?;
    let scene = Scene { stage, server: &server, monitor: &monitor };
    monitor.found(r#"up{job="zbl"} == 1"#)?;

    checks.check("an attack with atomic, and the loss alerts stay inactive", || scene.stays_silent());
    let mut lossy = None;
    checks.check_and_note("one with none, and they are pending, then firing", || {
        let (user_id, lost) = scene.fires()?;
        lossy = Some(user_id);
        Ok(format!("(lost {lost})"))
    });
    checks.check("Alertmanager has them: who is woken for the critical one is not told the other", || scene.is_told());
    checks.check("ResetAccount closes them", || scene.closes(lossy));

    scene.load(&mut nodes[0], &broker)?;
    checks.check("promtool check metrics: clean", || scene.exposition());
    let rules = monitor.rules()?;
    checks.check_and_note("every rule is evaluated, and says what to do", || deployed::check_rules(&rules));
    let panels = expressions::of_dashboard(&deployed::dashboard()?)?;
    let queries =
        rules.iter().filter_map(|rule| rule["query"].as_str()).chain(panels.iter().map(|panel| &*panel.query));
    checks.check_and_note("every metric and label in rules and dashboard is exported", || scene.exports(queries));
    checks.check_and_note("every panel of the dashboard has something to show", || scene.shows(&panels));
    Ok(())
}

/// A server, and what watches it.
struct Scene<'a> {
    stage: &'a Stage,
    server: &'a Server<'a>,
    monitor: &'a Monitor<'a>,
}

impl Scene<'_> {
    fn attack(&self, strategy: &str, verdict: &str) -> Result<Value, Failure> {
        let arguments = ["--strategy", strategy, "--expect", verdict];
        let attack = Attack::start(self.stage, &format!("watched-{strategy}"), &[self.server.address()], &arguments)?;
        Ok(attack.finish()?.expect(0, &verdict.to_uppercase())?.result)
    }

    fn stays_silent(&self) -> Result<(), Failure> {
        let entries = "sum(reconciliation_entries_total)";
        let before = self.monitor.value(entries)?;
        let acknowledged = &self.attack("atomic", "clean")?["acknowledged"]["count"];
        // Everything was read, and then compared often enough for an alert to be over its waiting time.
        self.monitor.found(&format!("{entries} > {before} + {acknowledged}"))?;
        let rounds = self.monitor.value("reconciliation_rounds_total")?;
        self.monitor.found(&format!("reconciliation_rounds_total > {rounds} + {ROUNDS}"))?;
        self.monitor.found("balance_loss_amount == 0")?;
        let alerts = self.monitor.query(&format!("count_over_time({LOSS}[1h])"))?;
        ensure(alerts.is_empty(), || format!("not silent: {alerts:?}"))
    }

    /// Returns the account that lost, and how much.
    fn fires(&self) -> Result<(i64, String), Failure> {
        let result = self.attack("none", "lost")?;
        let user_id = result["user_id"].as_i64().unwrap_or_default();
        let lost = result["lost"].as_str().unwrap_or_default().to_owned();
        self.monitor.found(&format!("max(balance_loss_amount) == {lost}"))?;
        for alert in ["BalanceLoss", "BalanceLossOver100"] {
            self.monitor.found(&format!(r#"ALERTS{{alertname="{alert}",alertstate="firing"}}"#))?;
            let [pending, firing] = ["pending", "firing"].map(|state| {
                let history = format!(r#"ALERTS{{alertname="{alert}",alertstate="{state}"}}[1h]"#);
                self.monitor.query(&history).map(|series| times(&series))
            });
            let (pending, firing) = (pending?, firing?);
            ensure(!pending.is_empty() && pending.last() < firing.first(), || {
                format!("{alert} was pending at {pending:?} and firing at {firing:?}")
            })?;
        }
        Ok((user_id, lost))
    }

    fn is_told(&self) -> Result<(), Failure> {
        for (alert, receiver, state) in
            [("BalanceLossOver100", "woken", "active"), ("BalanceLoss", "told-in-the-morning", "suppressed")]
        {
            self.monitor.told(|told| {
                told["labels"]["alertname"] == alert
                    && told["receivers"][0]["name"] == receiver
                    && told["status"]["state"] == state
            })?;
        }
        Ok(())
    }

    fn closes(&self, lossy: Option<i64>) -> Result<(), Failure> {
        let user_id = lossy.ok_or_else(|| Failure::Failed("no account has lost anything".into()))?;
        let failed = |reason: String| Failure::Failed(format!("ResetAccount: {reason}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| failed(error.to_string()))?.block_on(async {
            let client = Client::connect_lazy(&self.server.address().to_string());
            let client = client.map_err(|error| failed(error.to_string()))?;
            let reset = client.reset_account(user_id, Money::from_minor(100_000)).await;
            reset.map(drop).map_err(|error| failed(error.to_string()))
        })?;
        self.monitor.found("balance_loss_amount == 0")?;
        self.monitor.found(&format!("absent({LOSS})"))
    }

    /// A little of everything: every strategy, reads, a Redis that goes and comes back, the queue, and a message that is no deduction.
    fn load(&self, redis: &mut Redis, broker: &RabbitMq) -> Result<(), Failure> {
        let address = self.server.address().to_string();
        let loadgen = |arguments: &[&str]| {
            let mut command = self.stage.command("loadgen", &arguments[..1]);
            command.args(["--addr", &address]).args(&arguments[1..]);
            self.stage.run(command, LOAD_TIMEOUT)
        };
        loadgen(&["compare", "--workers", "20", "--deductions", "5"])?.expect(0)?;
        let mixed = ["bench", "--mix", "deduct=50,balance=50", "--accounts", "10", "--concurrency", "8"];
        loadgen(&[&mixed[..], &["--warmup", "200ms", "--duration", "2s"]].concat())?.expect(0)?;
        redis.kill()?;
        for strategy in ["redis_lock", "batched"] {
            // What is down is not waited for long. How it ends is checked elsewhere.
            let arguments = ["attack", "--workers", "10", "--deductions", "2", "--outage", "1s", "--expect", "clean"];
            loadgen(&[&arguments[..], &["--strategy", strategy]].concat())?;
        }
        redis.restart()?;
        loadgen(&["attack", "--async", "--workers", "20", "--deductions", "5", "--expect", "clean"])?.expect(0)?;
        Poison::new(&broker.url())?.put()?;
        self.monitor.found("sum(worker_dead_letters_total) > 0")?;
        // The comparison has attacked with `none` as well.
        self.monitor.found(&format!("{LOSS} == 1"))
    }

    fn exposition(&self) -> Result<(), Failure> {
        // Not through a pipe: of nothing at all promtool has nothing to say.
        let url = format!("http://{}/metrics", self.server.http_address());
        let line =
            format!("curl -sf -o metrics.txt {url} && test -s metrics.txt && promtool check metrics <metrics.txt");
        let mut shell = self.stage.foreign("sh");
        shell.args(["-c", &line]);
        let ended = self.stage.run(shell, TIMEOUT)?.expect(0)?;
        ensure(ended.output.trim().is_empty(), || format!("{line}:\n{}", ended.output))
    }

    fn exports<'q>(&self, queries: impl Iterator<Item = &'q str>) -> Result<String, Failure> {
        let mut selectors: Vec<String> = queries.flat_map(expressions::selectors).collect();
        selectors.sort();
        selectors.dedup();
        let mut missing = Vec::new();
        for selector in &selectors {
            // Whenever it was: a single scrape may fail on a loaded machine.
            if self.monitor.query(&format!("count_over_time({selector}[1h])"))?.is_empty() {
                missing.push(selector.as_str());
            }
        }
        ensure(!selectors.is_empty() && missing.is_empty(), || format!("not exported:\n{}", missing.join("\n")))?;
        Ok(format!("({} selectors)", selectors.len()))
    }

    fn shows(&self, panels: &[expressions::Shown]) -> Result<String, Failure> {
        for panel in panels {
            let mut series = Vec::new();
            let shown = poll_until(TIMEOUT, || {
                series = self.monitor.query(&panel.query).ok()?;
                let mut values = series.iter().filter_map(|one| one["value"][1].as_str());
                values.any(|value| value != "NaN").then_some(())
            });
            ensure(shown.is_some(), || format!("{:?} shows nothing: {}\n{series:?}", panel.title, panel.query))?;
        }
        ensure(!panels.is_empty(), || "it has no panel".to_owned())?;
        Ok(format!("({} expressions)", panels.len()))
    }
}

/// When there was a sample of these series, in seconds since 1970, in order.
fn times(series: &[Value]) -> Vec<f64> {
    let samples = series.iter().flat_map(|one| one["values"].as_array().into_iter().flatten());
    let mut times: Vec<f64> = samples.filter_map(|sample| sample[0].as_f64()).collect();
    times.sort_by(f64::total_cmp);
    times
}
