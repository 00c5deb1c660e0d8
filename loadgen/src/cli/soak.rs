//! `loadgen soak`: its flags, and how its result is shown.

use std::time::Duration;

use clap::Args;
use http::Uri;
use tokio::sync::watch;
use zbl_client::{ConnectionFlags, FlagsError};
use zbl_loadgen::bench::Progress;
use zbl_loadgen::bench::plan::MAX_SEED;
use zbl_loadgen::expectation::Expectation;
use zbl_loadgen::report::bench::Bench;
use zbl_loadgen::soak::{self, Limits, Plan, Soak, text};
use zbl_trace::Tracer;

use super::args::duration;
use super::output::Json;
use super::runs::until_interrupted;
use super::{Ending, Failure, progress, traced};

/// Where servers serve HTTP unless they are told otherwise.
const HTTP_PORT: u16 = 8080;

/// A call of a soak is never hurried.
const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct SoakArgs {
    /// The server, as http://HOST:PORT, https://HOST:PORT or HOST:PORT; repeat it to spread the work over several
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50051")]
    addr: Vec<String>,
    #[command(flatten)]
    connection: ConnectionFlags,
    /// Where the first server serves /metrics: its memory is looked at there; its --addr with port 8080 when left out
    #[arg(long, value_name = "ADDR")]
    http_addr: Option<String>,
    /// A strategy to work with; repeat it for several. Every one that promises never to overwrite when left out
    #[arg(long)]
    strategy: Vec<String>,
    /// Accounts of each strategy's work
    #[arg(long, default_value_t = 20)]
    accounts: u32,
    /// Operations per second, all together: well below what the server can do, or it is no soak
    #[arg(long, value_name = "PER_SECOND", default_value_t = 100.0)]
    rate: f64,
    /// How long
    #[arg(long, default_value = "10m", value_parser = duration)]
    duration: Duration,
    /// How long a server that is away is waited for, repeating the same request ids
    #[arg(long, default_value = "30s", value_parser = duration)]
    outage: Duration,
    /// By how much the server's memory may grow from the second quarter to the last
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0)]
    memory_growth: f64,
    /// By how much the 99th percentile of latency may
    #[arg(long, value_name = "PERCENT", default_value_t = 100.0)]
    p99_drift: f64,
    /// Which of the accounts come when is chosen from it; random when left out
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=MAX_SEED))]
    seed: Option<u64>,
    /// Write the result as JSON to this file; - for standard output, the text then goes to standard error
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
}

pub(crate) async fn soak(args: SoakArgs, tracer: Option<&Tracer>) -> Result<Ending, Failure> {
    let plan = args.plan()?;
    let plan = Plan { clients: traced(plan.clients, tracer), ..plan };
    let json = Json::open(args.json.as_deref())?;
    let soak = until_interrupted(async |stop| {
        let (sender, receiver) = watch::channel(Progress::default());
        let drawn = tokio::spawn(progress::draw_bench(receiver));
        let soak = soak::run(&plan, &sender, &stop).await;
        drop(sender);
        // The bar is decoration: a failure to draw it changes nothing.
        let _ = drawn.await;
        Ok(soak?)
    });
    let soak = soak.await?;
    json.show(&text(&soak), &soak)?;
    Ok(ending(&soak))
}

impl SoakArgs {
    fn plan(&self) -> Result<Plan, FlagsError> {
        let client = |address: &String| Ok(self.connection.client(address)?.with_deadline(DEADLINE));
        let clients = self.addr.iter().map(client).collect::<Result<Vec<_>, FlagsError>>()?;
        let metrics = match (&self.http_addr, clients.first()) {
            (None, Some(first)) => beside(first.uri()),
            (given, _) => given.clone().unwrap_or_default(),
        };
        Ok(Plan {
            clients,
            metrics: self.connection.http_port(&metrics)?,
            strategies: self.strategy.clone(),
            accounts: self.accounts,
            rate_per_s: self.rate,
            length: self.duration,
            outage: self.outage,
            seed: self.seed.unwrap_or_else(|| rand::random::<u64>() & MAX_SEED),
            limits: Limits { memory_growth_percent: self.memory_growth, p99_drift_percent: self.p99_drift },
        })
    }
}

/// The HTTP port of the server that has this address.
fn beside(uri: &Uri) -> String {
    format!("{}://{}:{HTTP_PORT}", uri.scheme_str().unwrap_or("http"), uri.host().unwrap_or_default())
}

/// How it ends: with the worst there is to tell, and with a loss above all.
fn ending(soak: &Soak) -> Ending {
    let interrupted = if soak.interrupted { Ending::Aborted } else { Ending::AsExpected };
    let kept = soak.limits.iter().all(|limit| limit.passed);
    let limits = if kept { Ending::AsExpected } else { Ending::ThresholdFailed };
    let judged = soak.works.iter().map(of_work).fold(Ending::AsExpected, Ending::or_worse);
    judged.and_also(Some(soak.verdict), interrupted.or_worse(limits))
}

fn of_work(work: &Bench) -> Ending {
    match (&work.verdict, work.guarantee) {
        (Some(judged), Some(guarantee)) => Expectation::of(guarantee, work.servers).conclude(judged.verdict).into(),
        _ => Ending::AsExpected,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::{Cli, Command};
    use super::*;

    fn metrics(flags: &[&str]) -> Result<String, FlagsError> {
        let cli = Cli::try_parse_from(["loadgen", "soak"].iter().chain(flags)).unwrap();
        let Command::Soak(args) = cli.command else { panic!("not a soak") };
        Ok(args.plan()?.metrics.address().to_owned())
    }

    #[tokio::test]
    async fn memory_is_looked_at_beside_the_first_server_unless_told_where() {
        for (flags, address) in [
            (&[][..], "http://127.0.0.1:8080"),
            (&["--addr", "https://[::1]:50051", "--addr", "b:2"], "https://[::1]:8080"),
            (&["--addr", "a:1", "--http-addr", "https://b:2"], "https://b:2"),
        ] {
            assert_eq!(metrics(flags).unwrap(), address);
        }
        for bad in ["", ":80", "server", "ftp://server:1"] {
            metrics(&["--http-addr", bad]).unwrap_err();
        }
    }
}
