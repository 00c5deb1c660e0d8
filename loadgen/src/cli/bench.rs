//! `loadgen bench`: its flags, and how its result is shown.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::time::Duration;

use clap::Args;
use tokio::sync::watch;
use zbl_client::{ConnectionFlags, FlagsError, Money};
use zbl_loadgen::attack::Stop;
use zbl_loadgen::bench::plan::MAX_SEED;
use zbl_loadgen::bench::threshold::Threshold;
use zbl_loadgen::bench::{self, Length, Plan, Transport};
use zbl_loadgen::expectation::{Conclusion, Expectation};
use zbl_loadgen::report::bench::{Bench, Exhibit, Method, Pacing, UnknownMethod, page, text};
use zbl_loadgen::verdict::Verdict;
use zbl_trace::Tracer;

use super::args::{Expect, duration};
use super::output::{Json, create};
use super::runs::{expectation_note, until_interrupted};
use super::{Ending, Failure, progress, traced};

/// Counted once everything is warm: connections, prepared statements, the database's pages.
const WARMUP: &str = "2s";

/// Long enough for ten windows, which is what comparing two runs takes.
const DURATION: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// The server, as http://HOST:PORT, https://HOST:PORT or HOST:PORT; repeat it to spread the connections over several
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50051")]
    addr: Vec<String>,
    /// What is called: health does nothing and shows the ceiling of the same server
    #[arg(long, value_name = "health|balance|deduct", default_value = "deduct")]
    method: Method,
    /// Several methods by their shares, such as deduct=80,balance=20
    #[arg(long, value_name = "METHOD=SHARE,…", value_parser = mix, conflicts_with = "method")]
    mix: Option<Mix>,
    /// The strategy of the deductions, as the server lists it; the server's default when left out
    #[arg(long, default_value = "", hide_default_value = true)]
    strategy: String,
    /// Send deductions over DeductStream, one stream per connection, instead of a call for each
    #[arg(long)]
    stream: bool,
    #[command(flatten)]
    accounts: AccountArgs,
    #[command(flatten)]
    load: LoadArgs,
    #[command(flatten)]
    result: ResultArgs,
    #[command(flatten)]
    connection: ConnectionFlags,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Accounts")]
struct AccountArgs {
    /// Accounts the operations are spread over; 1 is a hot account
    #[arg(long, default_value_t = 1)]
    accounts: u32,
    /// Take some accounts more often than others, by a Zipf distribution with this exponent; 0.99 is usual
    #[arg(long, value_name = "EXPONENT")]
    zipf: Option<f64>,
    /// Use the accounts from this id on, which are there already, instead of opening fresh ones
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    from_user: Option<i64>,
    /// What each deduction takes
    #[arg(long, default_value = "0.01", allow_hyphen_values = true, value_parser = Money::parse)]
    amount: Money,
    /// The balance each fresh account begins with
    #[arg(long, default_value = "100000000.00", allow_hyphen_values = true, value_parser = Money::parse)]
    opening: Money,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
struct LoadArgs {
    /// Closed loop: calls in flight in all, each followed by the next
    #[arg(long, value_name = "CALLS", default_value_t = 64, conflicts_with = "rate")]
    concurrency: u32,
    /// Open loop: operations per second, due at fixed times whatever became of those before; latency counts from then
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    rate: Option<f64>,
    /// Open loop: calls in flight in all; what is due beyond it is counted as dropped
    #[arg(long, value_name = "CALLS", default_value_t = 10_000, requires = "rate")]
    max_in_flight: u32,
    /// Connections per server, which the calls share
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: u16,
    /// How long to measure [default: 10s]
    #[arg(long, value_parser = duration, conflicts_with = "requests")]
    duration: Option<Duration>,
    /// Measure this many operations instead
    #[arg(long, value_name = "OPERATIONS")]
    requests: Option<u64>,
    /// How long to send before it counts; what is sent then is judged all the same. 0s for none
    #[arg(long, default_value = WARMUP, value_parser = warmup)]
    warmup: Duration,
    /// How long one call may take before it is given up, and repeated under its request id while --outage allows; one that
    /// is never answered has an unknown outcome
    #[arg(long, default_value = "5s", value_parser = duration)]
    deadline: Duration,
    /// How long a server that is away is waited for, repeating the same request ids
    #[arg(long, default_value = "30s", value_parser = duration)]
    outage: Duration,
    /// Which of the accounts and methods come when is chosen from it; request ids, and accounts that are opened, are fresh
    /// in every run. Random when left out, and part of the result
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=MAX_SEED))]
    seed: Option<u64>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Result")]
struct ResultArgs {
    /// What must be reached, such as p99<20ms, acknowledged>10000/s or failed<1%; repeat it for several
    #[arg(long = "threshold", value_name = "FIGURE<LIMIT")]
    thresholds: Vec<Threshold>,
    /// The verdict that counts as success; what the strategy guarantees when left out
    #[arg(long, value_enum)]
    expect: Option<Expect>,
    /// Write the result as JSON to this file; - for standard output, the text then goes to standard error
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
    /// Write the result as one self-contained page with charts to this file
    #[arg(long, value_name = "FILE")]
    html: Option<String>,
    /// Write every second's latencies to this file as a histogram log, for HdrHistogram's plotters
    #[arg(long, value_name = "FILE")]
    hlog: Option<String>,
}

/// The shares of a mix.
type Mix = BTreeMap<Method, u32>;

pub(crate) async fn bench(args: BenchArgs, tracer: Option<&Tracer>) -> Result<Ending, Failure> {
    let plan = args.plan()?;
    let plan = Plan { clients: traced(plan.clients, tracer), ..plan };
    plan.check().map_err(bench::BenchError::from)?;
    // What cannot be written is refused now, not after the run.
    let json = Json::open(args.result.json.as_deref())?;
    let html = args.result.html.as_deref().map(|path| create(path, "--html")).transpose()?;
    let hlog = args.result.hlog.as_deref().map(|path| create(path, "--hlog")).transpose()?;
    let bench = until_interrupted(async |stop| one(&plan, hlog.map(BufWriter::new), &stop).await).await?;

    let (conclusion, note) = concluded(&bench, args.result.expect);
    // First what cannot be had again; the page can be made from it.
    json.show(&(text(&bench) + &note), &bench)?;
    let ending = ending(&bench, conclusion);
    let drawn = html.zip(args.result.html).map_or(Ok(()), |(file, path)| draw(file, path, &bench));
    Ok(drawn.map_or_else(|failure| ending.and_also(verdict(&bench), failure.tell()), |()| ending))
}

/// Writes the page.
fn draw(mut file: File, path: String, bench: &Bench) -> Result<(), Failure> {
    let page = page(&[Exhibit::of("bench".to_owned(), bench.clone())]);
    file.write_all(page.as_bytes()).map_err(|source| Failure::Output { path, flag: "--html", source })
}

fn verdict(bench: &Bench) -> Option<Verdict> {
    bench.verdict.as_ref().map(|judged| judged.verdict)
}

impl BenchArgs {
    fn plan(&self) -> Result<Plan, FlagsError> {
        let deadline = self.load.deadline;
        let client = |address: &String| self.connection.client(address).map(|client| client.with_deadline(deadline));
        let LoadArgs { concurrency, max_in_flight, .. } = self.load;
        Ok(Plan {
            clients: self.addr.iter().map(client).collect::<Result<_, _>>()?,
            connections: self.load.connections,
            mix: self.mix.clone().unwrap_or_else(|| BTreeMap::from([(self.method, 1)])),
            transport: if self.stream { Transport::Stream } else { Transport::Unary },
            strategy: self.strategy.clone(),
            accounts: self.accounts.accounts,
            zipf: self.accounts.zipf,
            first_user: self.accounts.from_user,
            amount: self.accounts.amount,
            opening: self.accounts.opening,
            pacing: match self.load.rate {
                Some(rate_per_s) => Pacing::Open { rate_per_s, max_in_flight },
                None => Pacing::Closed { concurrency },
            },
            length: match self.load.requests {
                Some(requests) => Length::Requests(requests),
                None => Length::Time(self.load.duration.unwrap_or(DURATION)),
            },
            warmup: self.load.warmup,
            outage: self.load.outage,
            seed: self.load.seed.unwrap_or_else(|| rand::random::<u64>() & MAX_SEED),
            thresholds: self.result.thresholds.clone(),
        })
    }
}

/// One bench, with its progress drawn.
async fn one(plan: &Plan, log: Option<BufWriter<File>>, stop: &Stop) -> Result<Bench, Failure> {
    let (sender, receiver) = watch::channel(bench::Progress::default());
    let drawn = tokio::spawn(progress::draw_bench(receiver));
    let bench = bench::run(plan, log, &sender, stop).await;
    drop(sender);
    // The bar is decoration: a failure to draw it changes nothing.
    let _ = drawn.await;
    Ok(bench?)
}

/// The verdict held against what is expected, and what there is to say about it.
fn concluded(bench: &Bench, expect: Option<Expect>) -> (Conclusion, String) {
    let (Some(judged), Some(guarantee)) = (&bench.verdict, bench.guarantee) else {
        return (Conclusion::AsExpected, String::new());
    };
    let expected = expect.map_or(Expectation::of(guarantee, bench.servers), Expectation::from);
    let conclusion = expected.conclude(judged.verdict);
    (conclusion, expectation_note(&bench.subject(), judged.verdict, expected))
}

/// How it ends: with the worst there is to tell, and with a loss above all.
fn ending(bench: &Bench, conclusion: Conclusion) -> Ending {
    let interrupted = if bench.interrupted { Ending::Aborted } else { Ending::AsExpected };
    let kept = bench.thresholds.iter().all(|checked| checked.passed);
    let thresholds = if kept { Ending::AsExpected } else { Ending::ThresholdFailed };
    Ending::from(conclusion).and_also(verdict(bench), interrupted.or_worse(thresholds))
}

/// Shares such as `deduct=80,balance=20`.
fn mix(text: &str) -> Result<Mix, String> {
    let mut mix = Mix::new();
    for part in text.split(',') {
        let (method, share) = part.split_once('=').ok_or("give METHOD=SHARE,…, such as deduct=80,balance=20")?;
        let method: Method = method.parse().map_err(|error: UnknownMethod| error.to_string())?;
        let share = share.parse().map_err(|_| format!("{share:?} is not a share; give a number such as 80"))?;
        if mix.insert(method, share).is_some() {
            return Err(format!("{method} is named twice; give each method one share"));
        }
    }
    Ok(mix)
}

/// A rate per second, with or without `/s`.
fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    number.parse().map_err(|_| "give operations per second as a number, such as 5000".to_owned())
}

/// A duration that may be nothing.
fn warmup(text: &str) -> Result<Duration, String> {
    if humantime::parse_duration(text).is_ok_and(|warmup| warmup.is_zero()) {
        Ok(Duration::ZERO)
    } else {
        duration(text)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::{Cli, Command};
    use super::*;

    fn parsed(flags: &[&str]) -> Result<Plan, String> {
        let given = ["loadgen", "bench"].iter().chain(flags);
        match Cli::try_parse_from(given).map_err(|error| error.to_string())?.command {
            Command::Bench(args) => args.plan().map_err(|error| error.to_string()),
            _ => Err("not a bench".to_owned()),
        }
    }

    #[tokio::test]
    async fn defaults_are_the_documented_bench() {
        let plan = parsed(&[]).unwrap();
        assert_eq!(plan.check(), Ok(()));
        assert_eq!((plan.mix, plan.transport), (BTreeMap::from([(Method::Deduct, 1)]), Transport::Unary));
        assert_eq!((plan.accounts, plan.connections, plan.clients.len()), (1, 4, 1));
        assert_eq!(plan.pacing, Pacing::Closed { concurrency: 64 });
        assert!(plan.seed <= MAX_SEED, "{}", plan.seed);
        assert_eq!((plan.length, plan.warmup), (Length::Time(DURATION), Duration::from_secs(2)));
        assert_eq!((plan.amount, plan.opening), (Money::from_minor(1), Money::from_minor(10_000_000_000)));
    }

    #[tokio::test]
    async fn flags_say_what_is_measured() {
        let plan = parsed(&["--mix", "deduct=80,balance=20", "--rate", "500/s", "--requests", "9", "--warmup", "0s"]);
        let plan = plan.unwrap();
        assert_eq!(plan.mix, BTreeMap::from([(Method::Deduct, 80), (Method::Balance, 20)]));
        assert_eq!(plan.pacing, Pacing::Open { rate_per_s: 500.0, max_in_flight: 10_000 });
        assert_eq!((plan.length, plan.warmup), (Length::Requests(9), Duration::ZERO));
        let plan = parsed(&["--stream", "--from-user", "7", "--accounts", "5", "--zipf", "0.99"]).unwrap();
        assert_eq!((plan.transport, plan.first_user, plan.accounts), (Transport::Stream, Some(7), 5));
    }

    #[tokio::test]
    async fn malformed_flags_are_named() {
        for (flags, named) in [
            (vec!["--method", "deposit"], "health, balance, deduct"),
            (vec!["--mix", "deduct"], "such as deduct=80,balance=20"),
            (vec!["--mix", "deduct=1,deduct=2"], "named twice"),
            (vec!["--mix", "deduct=much"], "not a share"),
            (vec!["--mix", "deduct=1", "--method", "health"], "cannot be used with"),
            (vec!["--rate", "fast"], "operations per second"),
            (vec!["--rate", "5", "--concurrency", "2"], "cannot be used with"),
            (vec!["--max-in-flight", "5"], "--rate"),
            (vec!["--duration", "1s", "--requests", "5"], "cannot be used with"),
            (vec!["--duration", "0s"], "more than 0s"),
            (vec!["--warmup", "5"], "give a number with its unit"),
            (vec!["--seed", "9007199254740992"], "9007199254740991"),
            (vec!["--threshold", "p99"], "compares nothing"),
            (vec!["--addr", "nowhere"], "the port is missing"),
        ] {
            let error = parsed(&flags).unwrap_err();
            assert!(error.contains(named), "{flags:?}: {error}");
        }
    }
}
