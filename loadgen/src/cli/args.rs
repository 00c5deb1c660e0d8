//! Flags, their defaults and their explanations.

use std::process;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use zbl_client::{ConnectionFlags, FlagsError, Money};
use zbl_loadgen::attack::{Attack, Manner, Patience};
use zbl_loadgen::expectation::Expectation;
use zbl_loadgen::pacer::Pacer;
use zbl_loadgen::workload::Workload;
use zbl_trace::{Endpoint, Program, Ratio, StartError, Traces};

use super::bench::BenchArgs;
use super::lockdeath::LockDeathArgs;
use super::report::ReportArgs;
use super::soak::SoakArgs;

/// The longest wait that can be asked for: no run is meant to last longer, and clocks can add it.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

const EXIT_CODES: &str = "\
Exit codes:
  0   the verdict is the expected one
  2   the command cannot be carried out as given
  3   the server was never reached, or the run was cut short
  10  the verdict is not the expected one; a loss that is proven also when the run was cut short
  11  a threshold is not kept
  12  the verdict is INCONCLUSIVE";

const ATTACK_EXAMPLES: &str = "\
Examples:
  See money lost: 100 workers sell from one balance that nothing guards
    loadgen attack --strategy none
  The same attack on a strategy that keeps its promise
    loadgen attack --strategy atomic
  Two servers on one database, the result kept for a script
    loadgen attack --strategy mutex --addr 127.0.0.1:50051 --addr 127.0.0.1:50052 --json result.json
  Callers that hang up: a third of the calls is cancelled on the way, and no cent may go astray
    loadgen attack --strategy batched --cancel 30
  By the queue: deductions are accepted, made by a worker, and followed until each is decided
    loadgen attack --async --drain 60s
  A burst that is larger than the queue may grow: what is refused as QUEUE_FULL is counted, not repeated
    loadgen attack --async --workers 500 --deductions 100 --opening 500000.00 --retry-contended 0
  Fail a build unless nothing is lost
    loadgen attack --strategy optimistic --workers 20 --expect clean";

const COMPARE_EXAMPLES: &str = "\
Examples:
  Every strategy of the local server, one table
    loadgen compare
  With enough money for every deduction, so that throughput is not the throughput of refusals
    loadgen compare --opening 10000.00 --json compare.json";

const BENCH_EXAMPLES: &str = "\
Examples:
  One hot account, 64 calls in flight
    loadgen bench --strategy batched
  10 000 accounts, some much busier than others, and balances read in between
    loadgen bench --accounts 10000 --zipf 0.99 --mix deduct=80,balance=20
  Latency at a fixed rate, counted from when each call was due; fail a build when it is too long
    loadgen bench --rate 5000 --duration 30s --threshold 'p99<20ms' --threshold 'dropped==0'
  The ceiling of the same server, and a page with charts
    loadgen bench --method health --html health.html
  Open a million accounts once, measure on them again later
    loadgen bench --accounts 1000000 --from-user ID";

const SOAK_EXAMPLES: &str = "\
Examples:
  Ten minutes against the local server, the result kept
    loadgen soak --json soak.json
  A night at 500 operations a second, and no more than 5 % of memory
    loadgen soak --duration 8h --rate 500 --memory-growth 5";

const REPORT_EXAMPLES: &str = "\
Examples:
  What a change did to the figures
    loadgen report before.json after.json
  The same as a page with charts, and as Markdown for a pull request
    loadgen report before.json after.json --html diff.html --markdown";

const LOCKDEATH_EXAMPLES: &str = "\
Examples:
  A file of deaths to begin with
    loadgen lockdeath --example > deaths.toml
  What its deaths cost, on two servers that were started with --lease 1s --breaker-least 1000000
    loadgen lockdeath --addr 127.0.0.1:50051 --addr 127.0.0.1:50052 --lease 1s --deaths deaths.toml
  Break something by hand
    loadgen lockdeath --addr 127.0.0.1:50051 --addr 127.0.0.1:50052 --lease 1s --strategy redis_lock";

/// Attacks an account service with concurrent deductions and accounts for every lost cent.
///
/// Every acknowledgement is held against the account's journal. LOST means that acknowledged money is gone; the result
/// then names each lost deduction, who wrote over it, and how much it cost.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, after_help = EXIT_CODES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) traces: TraceArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Traces")]
pub(crate) struct TraceArgs {
    /// Send spans of the calls to this collector, by OTLP over gRPC, such as http://127.0.0.1:4317
    #[arg(long, value_name = "URL", global = true)]
    otlp_endpoint: Option<Endpoint>,
    /// With --otlp-endpoint, how many of the calls are recorded in traces, here and by the servers: from 0 (none) to 1
    /// (all). Recording costs: what is measured with all of them is not what is measured with none
    #[arg(long, value_name = "RATIO", global = true, default_value_t = Ratio::HUNDREDTH)]
    trace_sample: Ratio,
}

impl TraceArgs {
    /// The traces of this process, where there is somebody to send them to.
    pub(crate) fn start(&self) -> Result<Option<Traces>, StartError> {
        let Some(endpoint) = &self.otlp_endpoint else { return Ok(None) };
        let instance = process::id().to_string();
        let program = Program { name: "loadgen", version: env!("CARGO_PKG_VERSION"), instance };
        Traces::start(program, Some(endpoint), self.trace_sample).map(Some)
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Attack one strategy and judge it
    ///
    /// Opens a fresh account and lets many workers deduct from it at once, each one deduction after another. Then every
    /// unknown outcome is settled, the journal is read and the run is judged. Ctrl-C ends it early with a partial result.
    #[command(after_help = EXIT_CODES, after_long_help = format!("{ATTACK_EXAMPLES}\n\n{EXIT_CODES}"))]
    Attack(AttackArgs),
    /// Attack every available strategy, each on a fresh account, and print one table
    ///
    /// Exits with 0 only if each strategy's verdict is what its guarantee promises: the one that guards nothing must be
    /// caught losing.
    #[command(after_help = EXIT_CODES, after_long_help = format!("{COMPARE_EXAMPLES}\n\n{EXIT_CODES}"))]
    Compare(CompareArgs),
    /// Measure how fast a server answers, and judge that nothing was lost
    ///
    /// Sends calls in a closed loop (--concurrency) or at fixed times (--rate), on one account or many, and tells
    /// throughput and latency. Then every account that was touched is held against its journal, as after an attack.
    /// Refused calls are counted and not repeated. Ctrl-C ends it early with a partial result.
    #[command(after_help = EXIT_CODES, after_long_help = format!("{BENCH_EXAMPLES}\n\n{EXIT_CODES}"))]
    Bench(Box<BenchArgs>),
    /// Work for a long time, and see whether memory grows, latency drifts or a cent is lost
    ///
    /// Every safe strategy and DeductStream are used side by side at a steady rate, balances are read and the timeline
    /// is watched; the server's memory is looked at by its /metrics. Then every account is held against its journal.
    /// Ctrl-C ends it early with a partial result.
    #[command(after_help = EXIT_CODES, after_long_help = format!("{SOAK_EXAMPLES}\n\n{EXIT_CODES}"))]
    Soak(SoakArgs),
    /// Show results again, or several side by side, each against the first
    ///
    /// Reads what bench, attack and compare wrote with --json. Where a difference lies within the noise of the runs' own
    /// seconds, it says so.
    #[command(after_long_help = REPORT_EXAMPLES)]
    Report(ReportArgs),
    /// Let locks die under their holders, and see what each strategy loses by it
    ///
    /// On two running servers of one database, the holder of a lock is stopped before its WRITE, and again before its
    /// COMMIT; the lock is broken, by the lines of a file or by you; a rival comes; then both go on and the verdict
    /// counts what is lost. It breaks nothing but what you name: use servers that you have started for this.
    #[command(after_help = EXIT_CODES, after_long_help = format!("{LOCKDEATH_EXAMPLES}\n\n{EXIT_CODES}"))]
    Lockdeath(LockDeathArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AttackArgs {
    /// The strategy to attack, as the server lists it; the server's default when left out
    #[arg(long, default_value = "", hide_default_value = true)]
    strategy: String,
    /// Attack this account, reset to the opening balance, instead of a fresh one; the server's lab must be on
    #[arg(long, allow_hyphen_values = true)]
    user: Option<i64>,
    /// The verdict that counts as success; what the strategy guarantees when left out
    #[arg(long, value_enum)]
    pub(crate) expect: Option<Expect>,
    /// Deduct by DeductAsync: each deduction is accepted and made later by a worker. All that were accepted are followed to
    /// their end, and the verdict is on what they ended as; latency is that of the acceptance. The server needs a RabbitMQ
    /// and somewhere a worker: zbl-server serve --amqp-url URL --worker
    #[arg(long = "async")]
    asynchronous: bool,
    /// With --async, how long it may take from the last acceptance until all are decided; what is not by then makes the
    /// verdict INCONCLUSIVE
    #[arg(long, default_value = "120s", value_parser = duration, requires = "asynchronous")]
    drain: Duration,
    #[command(flatten)]
    pub(crate) common: Common,
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What both commands share.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// The server, as http://HOST:PORT, https://HOST:PORT or HOST:PORT; repeat it to spread the workers over several
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50051")]
    pub(crate) addr: Vec<String>,
    /// Workers that deduct at the same time
    #[arg(long, default_value_t = 100)]
    workers: u32,
    /// Deductions each worker makes, one after another
    #[arg(long, default_value_t = 10)]
    deductions: u32,
    /// What each deduction takes
    #[arg(long, default_value = "10.00", allow_hyphen_values = true, value_parser = Money::parse)]
    amount: Money,
    /// The balance the account begins with
    #[arg(long, default_value = "1000.00", allow_hyphen_values = true, value_parser = Money::parse)]
    opening: Money,
    /// Makes the request ids; random when left out, and part of the result
    #[arg(long)]
    seed: Option<u64>,
    /// How long one call may take before its outcome counts as unknown
    #[arg(long, default_value = "5s", value_parser = duration)]
    deadline: Duration,
    /// How long workers wait for a server that is away, repeating the same request id
    #[arg(long, default_value = "30s", value_parser = duration)]
    outage: Duration,
    /// How often a deduction turned away, by contention or for load, is repeated under the same request id
    #[arg(long, value_name = "TIMES", default_value_t = Patience::default().contended)]
    retry_contended: u32,
    /// How many of a hundred calls their callers cancel while they are under way; what became of them is settled at the end
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    cancel: u8,
    /// Connections per server, shared by the workers
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    connections: u16,
    /// Write the result as JSON to this file; - for standard output, the text then goes to standard error
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<String>,
    #[command(flatten)]
    connection: ConnectionFlags,
}

/// The verdicts that can be expected.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Expect {
    /// Nothing is lost
    Clean,
    /// Money is lost
    Lost,
    /// Either, as long as it can be judged
    Any,
}

impl From<Expect> for Expectation {
    fn from(expect: Expect) -> Self {
        match expect {
            Expect::Clean => Self::Clean,
            Expect::Lost => Self::Lost,
            Expect::Any => Self::Any,
        }
    }
}

impl AttackArgs {
    /// The attack that is asked for.
    pub(crate) fn plan(&self) -> Result<Attack, FlagsError> {
        let mut attack = self.common.plan()?;
        attack.workload.strategy.clone_from(&self.strategy);
        attack.workload.user_id = self.user;
        if self.asynchronous {
            attack.manner = Manner::DeductAsync { drain: self.drain };
        }
        Ok(attack)
    }
}

impl Common {
    /// The attack that is asked for, on a fresh account with the server's default strategy.
    pub(crate) fn plan(&self) -> Result<Attack, FlagsError> {
        let mut clients = Vec::new();
        for _ in 0..self.connections {
            for address in &self.addr {
                clients.push(self.connection.client(address)?.with_deadline(self.deadline));
            }
        }
        Ok(Attack {
            clients,
            workload: Workload {
                workers: self.workers,
                deductions: self.deductions,
                amount: self.amount,
                opening: self.opening,
                strategy: String::new(),
                user_id: None,
                seed: self.seed.unwrap_or_else(rand::random),
            },
            pacer: Pacer::ClosedLoop,
            patience: Patience { outage: self.outage, contended: self.retry_contended, cancelled_percent: self.cancel },
            manner: Manner::Deduct,
        })
    }
}

/// A duration with its unit, such as `500ms`, `5s` or `2m`; more than nothing, or every call would fail, and at most
/// [`LONGEST`].
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() => Err("must be more than 0s".to_owned()),
        Ok(duration) if duration > LONGEST => Err("must be at most one day, 24h".to_owned()),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!("{error}; give a number with its unit, such as 500ms, 5s or 2m")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn attack(flags: &[&str]) -> Result<AttackArgs, String> {
        let given = ["loadgen", "attack"].iter().chain(flags);
        match Cli::try_parse_from(given).map_err(|error| error.to_string())?.command {
            Command::Attack(args) => Ok(args),
            _ => Err("not an attack".to_owned()),
        }
    }

    #[test]
    fn the_flags_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[tokio::test]
    async fn defaults_are_the_documented_attack() {
        let plan = attack(&[]).unwrap().plan().unwrap();
        assert_eq!((plan.workload.workers, plan.workload.deductions, plan.workload.affordable()), (100, 10, 100));
        assert_eq!((plan.clients.len(), plan.patience.outage), (4, Duration::from_secs(30)));
        assert_eq!(plan.workload.check(), Ok(()));
    }

    #[tokio::test]
    async fn deductions_are_accepted_where_that_is_asked_for() {
        assert_eq!(attack(&[]).unwrap().plan().unwrap().manner, Manner::Deduct);
        let manner = |flags: &[&str]| attack(flags).unwrap().plan().unwrap().manner;
        assert_eq!(manner(&["--async"]), Manner::DeductAsync { drain: Duration::from_secs(120) });
        assert_eq!(manner(&["--async", "--drain", "5s"]), Manner::DeductAsync { drain: Duration::from_secs(5) });
        assert!(attack(&["--drain", "5s"]).unwrap_err().contains("--async"));
    }

    #[tokio::test]
    async fn connections_alternate_between_the_servers() {
        let plan = attack(&["--addr", "a:1", "--addr", "http://b:2", "--connections", "2"]).unwrap().plan().unwrap();
        let addresses: Vec<_> = plan.clients.iter().map(zbl_client::Client::address).collect();
        assert_eq!(addresses, ["a:1", "http://b:2", "a:1", "http://b:2"]);
    }

    #[test]
    fn malformed_flags_are_named() {
        for (flags, named) in [
            (["--amount", "1.001"], "not a decimal amount"),
            (["--amount", "-1"], "not a decimal amount"),
            (["--opening", "1e9"], "not a decimal amount"),
            (["--deadline", "5"], "give a number with its unit"),
            (["--outage", "0s"], "more than 0s"),
            (["--deadline", "20000years"], "at most one day"),
            (["--outage", "86401s"], "at most one day"),
            (["--connections", "0"], "1..=256"),
            (["--expect", "fine"], "clean, lost, any"),
            (["--workers", "many"], "--workers"),
        ] {
            let error = attack(&flags).unwrap_err();
            assert!(error.contains(named), "{flags:?}: {error}");
        }
    }
}
