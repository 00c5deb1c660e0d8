//! A database with a server on it, and the measurements made there. One case is one process of `loadgen bench` (or of
//! another's tool), watched and bounded in time; what fails is kept by its name and not measured again.

use std::{collections::BTreeMap, fmt, fs, path::Path, process::Command, time::Duration};

use serde::de::DeserializeOwned;
use test_support::Process;
use zbl_client::Client;

use super::{
    case::{Case, OPENING, Strategy, seeds},
    database::{Accounts, Database},
    effort::Effort,
    interrupt::Interrupt,
    report::{Samples, median},
    sample::{Metric, Outcome, Sample},
    tools::Tool,
    usage::Watch,
    watcher::Watcher,
};
use crate::{
    command::{Failure, line},
    stage::{Server, Stage, argument},
};

/// What the server is told. No limiter stands before the strategies; what is logged at `info` would be logged per call.
const SERVER_SETTINGS: [&str; 4] = ["--log", "warn", "--demo-account", "false"];
/// How long a case may take besides the calls: settling what was left unknown, and reading the journals of every account
/// that was touched, on a machine that does other things too.
const AUDIT_TIMEOUT: Duration = Duration::from_secs(180);
/// Asking for the strategies takes milliseconds.
const ASKING_TIMEOUT: Duration = Duration::from_secs(10);

/// A database with a server on it.
pub(crate) struct Target<'a> {
    // Declared, and so dropped, before its database.
    server: Server<'a>,
    database: Database,
    setting: Setting<'a>,
    accounts: BTreeMap<Case, Accounts>,
    samples: Samples,
    failures: BTreeMap<Case, String>,
}

/// What every measurement shares.
#[derive(Clone, Copy)]
pub(crate) struct Setting<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) effort: Effort,
    pub(crate) ticks_per_s: f64,
}

impl<'a> Target<'a> {
    /// Starts a server on a database.
    pub(crate) fn start(setting: Setting<'a>, database: Database) -> Result<Self, Failure> {
        let server = Server::start_with(setting.stage, database.url(), &SERVER_SETTINGS)?;
        let (accounts, samples, failures) = Default::default();
        Ok(Self { server, database, setting, accounts, samples, failures })
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// The samples of every case that never failed, one for each round.
    pub(crate) fn samples(&self) -> &Samples {
        &self.samples
    }

    /// Why cases failed.
    pub(crate) fn failures(&self) -> &BTreeMap<Case, String> {
        &self.failures
    }

    /// The strategies that can be used on the server, with what they promise.
    pub(crate) fn strategies(&self) -> Result<Vec<Strategy>, Failure> {
        available(&self.server.address().to_string())
    }

    /// Opens the accounts that the cases spread over.
    pub(crate) fn seed(&mut self, cases: &[Case]) -> Result<(), Failure> {
        self.accounts = seeds(cases);
        for accounts in self.accounts.values() {
            self.setting.interrupt.check()?;
            self.database.seed(*accounts, OPENING)?;
        }
        Ok(())
    }

    /// Measures a case once more, unless it has failed before; says what it came to.
    ///
    /// # Errors
    /// Only an interruption: that the case fails is noted.
    pub(crate) fn measure(&mut self, case: &Case) -> Result<String, Failure> {
        if self.failures.contains_key(case) {
            return Ok("has failed before".into());
        }
        match self.sample(case) {
            Ok(sample) => {
                let rate = sample.get(&Metric::RatePerS).copied().unwrap_or_default();
                self.samples.entry(case.clone()).or_default().push(sample);
                Ok(format!("{rate:.0}/s"))
            }
            Err(failure) => {
                self.setting.interrupt.check()?;
                self.samples.remove(case);
                self.failures.insert(case.clone(), failure.reason().to_owned());
                Ok(format!("FAILED: {}", failure.reason()))
            }
        }
    }

    /// The calls per second that a case is to make, where that is fixed: half of what its strategy's peak came to.
    fn rate(&self, case: &Case) -> Result<Option<f64>, Failure> {
        let Case::HalfPeak(_, peak) = case else { return Ok(None) };
        let hot = self.samples.iter().find_map(|(other, samples)| match other {
            Case::Hot(strategy) if strategy.name == *peak => median(samples, Metric::RatePerS),
            _ => None,
        });
        hot.map(|rate| Some(rate / 2.0)).ok_or_else(|| Failure::Failed(format!("the peak of {peak} was not measured")))
    }

    fn sample(&self, case: &Case) -> Result<Sample, Failure> {
        if let Case::Foreign(tool) = case {
            return self.foreign(*tool);
        }
        let file = self.setting.stage.path("bench.json");
        let [warmup, duration] =
            [self.setting.effort.warmup, self.setting.effort.duration].map(|time| format!("{}ms", time.as_millis()));
        let mut command =
            self.loadgen(&["bench", "--json", &argument(&file), "--warmup", &warmup, "--duration", &duration]);
        command.args(case.arguments(self.accounts.get(case).copied(), self.rate(case)?));
        let line = line(&command);
        // It watches before the first call is made.
        let watcher = match case {
            Case::Watched(_) => Some(self.watcher()?),
            _ => None,
        };
        let mut loadgen = Process::spawn(command)?;
        let pids = [Some(self.server.pid()), Some(loadgen.pid()), self.database.pid()];
        let watch = Watch::start(pids.into_iter().flatten().collect());
        let ended = self.setting.interrupt.wait(&mut loadgen, self.time_limit());
        let looks = watch.stop();
        let code = ended?.code();
        if code != Some(0) {
            return Err(Failure::Failed(format!("{line}: exit {code:?}\n{}", loadgen.output())));
        }
        let mut sample = read::<Outcome>(&file)?.sample(&looks, self.setting.ticks_per_s);
        if let Some(seen) = watcher.map(Watcher::end).transpose()? {
            sample.extend([(Metric::SpansSeen, seen.spans as f64), (Metric::EventsMissed, seen.missed as f64)]);
        }
        Ok(sample)
    }

    fn foreign(&self, tool: Tool) -> Result<Sample, Failure> {
        let mut report = String::new();
        // What came before the last one is a warm-up.
        for command in tool.commands(self.setting.stage, self.server.address(), &self.setting.effort)? {
            let line = line(&command);
            let (code, output) = self.run(command, self.time_limit())?;
            if code != Some(0) {
                return Err(Failure::Failed(format!("{line}: exit {code:?}\n{output}")));
            }
            report = output;
        }
        Ok(Sample::from([(Metric::RatePerS, tool.rate_per_s(&report)?)]))
    }

    /// Somebody who watches the whole timeline.
    fn watcher(&self) -> Result<Watcher, Failure> {
        let address = self.server.address().to_string();
        Watcher::start(self.setting.stage.command("timeline", &["--addr", &address, "--output", "ndjson"]))
    }

    /// `loadgen` with arguments, aimed at the server.
    fn loadgen(&self, arguments: &[&str]) -> Command {
        let mut command = self.setting.stage.command("loadgen", arguments);
        command.args(["--addr", &self.server.address().to_string()]);
        command
    }

    fn run(&self, command: Command, timeout: Duration) -> Result<(Option<i32>, String), Failure> {
        let mut process = Process::spawn(command)?;
        let status = self.setting.interrupt.wait(&mut process, timeout)?;
        Ok((status.code(), process.output()))
    }

    fn time_limit(&self) -> Duration {
        self.setting.effort.warmup + self.setting.effort.duration + AUDIT_TIMEOUT
    }
}

/// The strategies that can be used on a server.
fn available(address: &str) -> Result<Vec<Strategy>, Failure> {
    let failed = |reason: &dyn fmt::Display| Failure::Failed(format!("asking for the strategies: {reason}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let listed = runtime.map_err(|error| failed(&error))?.block_on(async {
        let client = Client::connect_lazy(address).map_err(|error| failed(&error))?;
        client.with_deadline(ASKING_TIMEOUT).strategies().await.map_err(|error| failed(&error))
    })?;
    let available = listed.all.into_iter().filter(|strategy| strategy.unavailable.is_none());
    Ok(available.map(|strategy| Strategy { name: strategy.name, guarantee: strategy.guarantee }).collect())
}

fn read<T: DeserializeOwned>(file: &Path) -> Result<T, Failure> {
    let unreadable = |error: String| Failure::Failed(format!("{}: {error}", file.display()));
    let text = fs::read_to_string(file).map_err(|error| unreadable(error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use test_support::free_port;

    use super::*;
    use crate::stage::loopback;

    #[test]
    fn a_server_that_is_not_there_is_told() {
        let nowhere = loopback(free_port().unwrap()).to_string();
        let failure = available(&nowhere).unwrap_err();
        assert!(failure.reason().contains("asking for the strategies: "), "{failure:?}");
    }
}
