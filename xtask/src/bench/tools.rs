//! Other people's load generators, held against ours on the method that does nothing: h2load in C, which knows HTTP/2
//! only, and ghz in Go, which knows gRPC. One that cannot be had leaves its row out, with the reason.

use std::{fmt, net::SocketAddr, path::PathBuf, process::Command, sync::OnceLock, time::Duration};

use serde::Deserialize;

use super::{
    case::{CONCURRENCY, CONNECTIONS},
    effort::Effort,
};
use crate::{
    apt,
    command::{Failure, answers, run as run_command, target},
    stage::{Stage, argument},
};

/// The version of ghz that is built where it is not installed.
const GHZ: &str = "github.com/bojand/ghz/cmd/ghz@v0.120.0";
/// The longest that building it may take, as `timeout` reads it: half a minute on two cores.
const GHZ_BUILD_LIMIT: &str = "5m";
/// The health check as HTTP/2 has it: its path, and an empty message behind gRPC's five bytes of framing.
const PATH: &str = "/grpc.health.v1.Health/Check";
const EMPTY_MESSAGE: [u8; 5] = [0; 5];

/// Another load generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tool {
    H2load,
    Ghz,
}

impl Tool {
    pub(crate) const ALL: [Self; 2] = [Self::H2load, Self::Ghz];

    /// Makes sure that it is installed.
    ///
    /// # Errors
    /// Why it is not, and what would install it.
    pub(crate) fn ensure(self) -> Result<(), Failure> {
        match self {
            Self::H2load if answers("h2load", &["--version"]) => Ok(()),
            Self::H2load => apt::install(&["nghttp2-client"]),
            Self::Ghz if ghz().is_some() => Ok(()),
            Self::Ghz if !answers("go", &["version"]) => {
                Err(Failure::Failed("neither ghz nor Go to build it with is installed".into()))
            }
            Self::Ghz => {
                let mut install = Command::new("timeout");
                install.args([GHZ_BUILD_LIMIT, "go", "install", GHZ]).env("GOBIN", own_directory());
                run_command(&mut install)
            }
        }
    }

    /// The commands that call the health check for as long as a case lasts, with as many connections, calls in flight and
    /// threads as ours. The last one measures; what comes before warms up, where the tool cannot do so itself.
    pub(crate) fn commands(self, stage: &Stage, address: SocketAddr, effort: &Effort) -> Result<Vec<Command>, Failure> {
        match self {
            Self::H2load => Ok(vec![h2load(stage, address, effort)?]),
            Self::Ghz => {
                [effort.warmup, effort.duration].map(|lasts| ghz_for(stage, address, lasts)).into_iter().collect()
            }
        }
    }

    /// The calls per second that it reports.
    ///
    /// # Errors
    /// It reports none, or calls that failed.
    pub(crate) fn rate_per_s(self, output: &str) -> Result<f64, Failure> {
        let rate = match self {
            Self::H2load => h2load_rate(output),
            Self::Ghz => ghz_rate(output),
        };
        rate.ok_or_else(|| Failure::Failed(format!("{self} reports no rate, or failed calls:\n{output}")))
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::H2load => "h2load",
            Self::Ghz => "ghz",
        })
    }
}

/// h2load, which warms up by itself.
fn h2load(stage: &Stage, address: SocketAddr, effort: &Effort) -> Result<Command, Failure> {
    let message = stage.path("empty-message");
    std::fs::write(&message, EMPTY_MESSAGE)
        .map_err(|error| Failure::Failed(format!("{}: {error}", message.display())))?;
    let [warmup, duration] = [effort.warmup, effort.duration].map(in_ms);
    let mut command = stage.foreign("h2load");
    command.args(["--clients", &CONNECTIONS.to_string(), "--threads", &threads().to_string()]);
    command.args(["--max-concurrent-streams", &(CONCURRENCY / CONNECTIONS).to_string()]);
    command.arg(format!("--warm-up-time={warmup}")).arg(format!("--duration={duration}"));
    command.args(["--data", &argument(&message), "--header=te: trailers"]);
    command.arg("--header=content-type: application/grpc").arg(format!("http://{address}{PATH}"));
    Ok(command)
}

/// As many as `loadgen` works with, which is one for each core, and at most one for each connection.
fn threads() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
    cores.min(CONNECTIONS)
}

/// ghz for some time. It uses all cores by itself.
fn ghz_for(stage: &Stage, address: SocketAddr, lasts: Duration) -> Result<Command, Failure> {
    let program = ghz().ok_or_else(|| Failure::Failed("ghz has gone".into()))?;
    let mut command = stage.foreign(program);
    command.args(["--insecure", "--call", "grpc.health.v1.Health.Check", "--format", "json"]);
    command.args(["--connections", &CONNECTIONS.to_string(), "--concurrency", &CONCURRENCY.to_string()]);
    // Calls under way at the end are finished, not counted as failed.
    command.args(["--duration-stop", "wait", "--duration", &in_ms(lasts)]);
    command.arg(address.to_string());
    Ok(command)
}

fn in_ms(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}

/// Where what is built for this command goes.
fn own_directory() -> PathBuf {
    target().join("tools")
}

/// The installed ghz, or the one built here before.
fn ghz() -> Option<PathBuf> {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Some(found.clone());
    }
    let candidates = [PathBuf::from("ghz"), own_directory().join("ghz")];
    let found = candidates.into_iter().find(|program| answers(&program.to_string_lossy(), &["--version"]))?;
    Some(FOUND.get_or_init(|| found).clone())
}

/// Reads `finished in 2.00s, 48000.50 req/s, …`, unless a call failed, erred or ran out of time.
fn h2load_rate(output: &str) -> Option<f64> {
    let line = |start: &str| output.lines().find_map(|line| line.strip_prefix(start));
    let failures = line("requests: ")?.split(", ").filter(|part| {
        ["failed", "errored", "timeout"].iter().any(|word| part.ends_with(word)) && !part.starts_with("0 ")
    });
    if failures.count() > 0 {
        return None;
    }
    line("finished in ")?.split(", ").find_map(|part| part.strip_suffix(" req/s")).and_then(|rate| rate.parse().ok())
}

/// Reads `rps` of a report all of whose calls were answered OK.
fn ghz_rate(output: &str) -> Option<f64> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Report {
        rps: f64,
        count: u64,
        status_code_distribution: std::collections::BTreeMap<String, u64>,
    }
    let report: Report = serde_json::from_str(output).ok()?;
    (report.count > 0 && report.status_code_distribution.keys().eq(["OK"])).then_some(report.rps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        command::{Profile, line},
        stage::loopback,
    };

    #[test]
    fn h2load_works_with_as_many_threads_as_loadgen() {
        let stage = Stage::new(Profile::Debug).unwrap();
        let commands = Tool::H2load.commands(&stage, loopback(1), &Effort::FULL).unwrap();
        let [command] = commands.as_slice() else { panic!("{commands:?}") };
        let line = line(command);
        let cores = std::thread::available_parallelism().unwrap().get();
        let expected =
            format!("--clients 4 --threads {} --max-concurrent-streams 64 --warm-up-time=2000ms", cores.min(4));
        assert!(line.contains(&expected), "{line}");
    }

    #[test]
    fn h2load_is_believed_when_no_call_failed() {
        let report = |failed: u32| {
            format!(
                "starting benchmark...\nWarm-up phase is over.\n\nfinished in 2.00s, 48000.50 req/s, 4.10MB/s\n\
                 requests: 96001 total, 96065 started, 96001 done, 96001 succeeded, {failed} failed, 0 errored, 0 timeout\n"
            )
        };
        assert_eq!(Tool::H2load.rate_per_s(&report(0)).ok(), Some(48_000.5));
        assert!(Tool::H2load.rate_per_s(&report(10)).is_err());
        assert!(Tool::H2load.rate_per_s("could not connect").is_err());
    }

    #[test]
    fn ghz_is_believed_when_every_call_was_answered() {
        let report = |codes: &str| format!(r#"{{"count": 9, "rps": 8123.5, "statusCodeDistribution": {codes}}}"#);
        assert_eq!(Tool::Ghz.rate_per_s(&report(r#"{"OK": 9}"#)).ok(), Some(8123.5));
        assert!(Tool::Ghz.rate_per_s(&report(r#"{"OK": 8, "Unavailable": 1}"#)).is_err());
        assert!(Tool::Ghz.rate_per_s("{}").is_err());
    }
}
