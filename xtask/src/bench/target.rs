//! A database with a server on it, and the measurements made there. One case is one process of `loadgen bench` (or of
//! another's tool), watched and bounded in time; what fails is kept by its name and not measured again.

use std::{collections::BTreeMap, fmt, fs, path::Path, process::Command, time::Duration};

use serde::de::DeserializeOwned;
use test_support::Process;
use zbl_client::Client;

use super::{
    case::{Case, OPENING, RedisPart, Strategy, seeds},
    database::{Accounts, Database},
    effort::Effort,
    interrupt::Interrupt,
    redis::RedisServers,
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

/// What every server is told. No limiter stands before the strategies; what is logged at `info` would be logged per call.
const SERVER_SETTINGS: [&str; 4] = ["--log", "warn", "--demo-account", "false"];
/// What one without Redis is told besides, and one with it.
const CACHE_OFF: [&str; 2] = ["--cache", "false"];
const CACHE_ON: [&str; 2] = ["--cache", "true"];
/// The server ends as soon as it is asked to: nobody calls it then.
const END_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a case may take besides the calls: settling what was left unknown, and reading the journals of every account
/// that was touched, on a machine that does other things too.
const AUDIT_TIMEOUT: Duration = Duration::from_secs(180);
/// Asking for the strategies takes milliseconds.
const ASKING_TIMEOUT: Duration = Duration::from_secs(10);

/// A database with a server on it, with or without Redis.
pub(crate) struct Target<'a> {
    // Declared, and so dropped, before its database and its Redis.
    server: Server<'a>,
    database: Database,
    redis: Option<RedisServers>,
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
    /// Starts a server on a database, and on Redis servers if there are any.
    pub(crate) fn start(
        setting: Setting<'a>,
        database: Database,
        redis: Option<RedisServers>,
    ) -> Result<Self, Failure> {
        let settings = server_settings(redis.as_ref().map(RedisServers::settings));
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let server = Server::start_with(setting.stage, database.url(), &settings)?;
        let (accounts, samples, failures) = Default::default();
        Ok(Self { server, database, redis, setting, accounts, samples, failures })
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
        let redis = if self.redis.is_some() { RedisPart::Told } else { RedisPart::Absent };
        available(&self.server.address().to_string(), redis)
    }

    /// Opens the accounts that the cases spread over or read.
    pub(crate) fn seed<'case>(&mut self, cases: impl IntoIterator<Item = &'case Case>) -> Result<(), Failure> {
        self.accounts = seeds(cases);
        for accounts in self.accounts.values() {
            self.setting.interrupt.check()?;
            self.database.seed(*accounts, OPENING)?;
        }
        let Some(redis) = &self.redis else { return Ok(()) };
        // What the server keeps in Redis of which accounts there are does not know these: both begin anew.
        self.server.terminate(END_TIMEOUT)?;
        redis.flush()?;
        self.server.restart()
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
        let (metrics, pids): (Vec<Metric>, Vec<u32>) = self.processes(&loadgen).unzip();
        let watch = Watch::start(pids);
        let ended = self.setting.interrupt.wait(&mut loadgen, self.time_limit());
        let looks = watch.stop();
        let code = ended?.code();
        if code != Some(0) {
            return Err(Failure::Failed(format!("{line}: exit {code:?}\n{}", loadgen.output())));
        }
        let mut sample = read::<Outcome>(&file)?.sample(&looks, &metrics, self.setting.ticks_per_s);
        if let Some(seen) = watcher.map(Watcher::end).transpose()? {
            sample.extend([(Metric::SpansSeen, seen.spans as f64), (Metric::EventsMissed, seen.missed as f64)]);
        }
        Ok(sample)
    }

    /// The processes that are looked at, and where their processor time goes; the database may be on another machine.
    fn processes(&self, loadgen: &Process) -> impl Iterator<Item = (Metric, u32)> {
        let own = [(Metric::ServerCpuMs, self.server.pid()), (Metric::ClientCpuMs, loadgen.pid())];
        let database = self.database.pid().map(|pid| (Metric::DatabaseCpuMs, pid));
        let redis = self.redis.iter().flat_map(RedisServers::pids).map(|pid| (Metric::RedisCpuMs, pid));
        own.into_iter().chain(database).chain(redis)
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

/// What a server is told.
fn server_settings(redis: Option<[String; 4]>) -> Vec<String> {
    let cache = if redis.is_some() { CACHE_ON } else { CACHE_OFF };
    let settings = SERVER_SETTINGS.into_iter().chain(cache).map(str::to_owned);
    settings.chain(redis.into_iter().flatten()).collect()
}

/// The strategies that can be used on a server, with what Redis has to do with them there.
fn available(address: &str, redis: RedisPart) -> Result<Vec<Strategy>, Failure> {
    let failed = |reason: &dyn fmt::Display| Failure::Failed(format!("asking for the strategies: {reason}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let listed = runtime.map_err(|error| failed(&error))?.block_on(async {
        let client = Client::connect_lazy(address).map_err(|error| failed(&error))?;
        client.with_deadline(ASKING_TIMEOUT).strategies().await.map_err(|error| failed(&error))
    })?;
    let available = listed.all.into_iter().filter(|strategy| strategy.unavailable.is_none());
    Ok(available.map(|strategy| Strategy { name: strategy.name, guarantee: strategy.guarantee, redis }).collect())
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
        let failure = available(&nowhere, RedisPart::Absent).unwrap_err();
        assert!(failure.reason().contains("asking for the strategies: "), "{failure:?}");
    }

    #[test]
    fn only_one_server_has_redis_and_reads_from_it() {
        let settings = |redis| server_settings(redis).join(" ");
        assert_eq!(settings(None), "--log warn --demo-account false --cache false");
        let redis = ["--redis-url", "redis://a", "--redlock-urls", "redis://b,redis://c,redis://d"];
        assert_eq!(
            settings(Some(redis.map(str::to_owned))),
            "--log warn --demo-account false --cache true --redis-url redis://a \
             --redlock-urls redis://b,redis://c,redis://d"
        );
    }
}
