//! `loadgen lockdeath`: what each lock loses when it dies under its holder, and by whose hand.

use std::io::{self, BufRead as _};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::{mpsc, watch};
use zbl_client::{ConnectionFlags, Guarantee};
use zbl_loadgen::attack::Stop;
use zbl_loadgen::expectation::{Conclusion, Expectation};
use zbl_loadgen::lockdeath::{self, Death, DeathsError, EXAMPLE, Plan, Progress, Report, text};
use zbl_loadgen::verdict::Verdict;
use zbl_trace::Tracer;

use super::args::{Expect, duration};
use super::output::{Json, to_stderr, to_stdout};
use super::runs::{expectation_note, until_interrupted};
use super::{Ending, Failure};

const TEMPLATE: &str = "[{bar:30}] {pos}/{len}  {msg}";

#[derive(Debug, Args)]
pub(crate) struct LockDeathArgs {
    /// The two servers, as http://HOST:PORT, https://HOST:PORT or HOST:PORT: first the holder's, then the rival's
    #[arg(long, value_name = "ADDR", required_unless_present = "example")]
    addr: Vec<String>,
    /// What breaks and what mends, as --example shows; without it you are asked to, and press Enter
    #[arg(long, value_name = "FILE")]
    deaths: Option<String>,
    /// Play with this strategy, whichever the deaths name; repeat it for several
    #[arg(long, value_name = "NAME")]
    strategy: Vec<String>,
    /// The lease that both servers were started with; more than some seconds, and a paused server is taken for gone
    #[arg(long, default_value = "10s", value_parser = duration)]
    lease: Duration,
    /// The verdict on each strategy that counts as success; left out: clean for those that promise it always, else any
    #[arg(long, value_enum)]
    expect: Option<Expect>,
    /// Write the result as JSON to this file; - for standard output, the text then goes to standard error
    #[arg(long, value_name = "FILE")]
    json: Option<String>,
    /// Print a file of deaths to begin with, and do nothing else
    #[arg(long)]
    example: bool,
    #[command(flatten)]
    connection: ConnectionFlags,
}

/// Why nothing can be played.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockDeathFailure {
    #[error("cannot read {path}: {source}")]
    Unreadable { path: String, source: io::Error },
    #[error("{path}: {source}")]
    Deaths { path: String, source: DeathsError },
    #[error("these are {0} addresses; give two with --addr, the holder's server first, the rival's second")]
    Addresses(usize),
}

/// Plays every death and shows what it cost.
pub(crate) async fn lockdeath(args: LockDeathArgs, tracer: Option<&Tracer>) -> Result<Ending, Failure> {
    if args.example {
        to_stdout(EXAMPLE)?;
        return Ok(Ending::AsExpected);
    }
    let plan = plan(&args)?;
    let plan = match tracer {
        Some(tracer) => {
            let [holder, rival] = [plan.holder, plan.rival].map(|client| client.with_tracer(tracer.clone()));
            Plan { holder, rival, ..plan }
        }
        None => plan,
    };
    let json = Json::open(args.json.as_deref())?;
    let report = until_interrupted(async |stop| played(&plan, args.deaths.is_some(), &stop).await).await?;
    let (ending, notes) = judged(&report, args.expect.map(Expectation::from));
    json.show(&(text(&report) + &notes), &report)?;
    Ok(ending)
}

fn plan(args: &LockDeathArgs) -> Result<Plan, Failure> {
    let [holder, rival] = args.addr.as_slice() else {
        return Err(LockDeathFailure::Addresses(args.addr.len()).into());
    };
    let mut deaths = match &args.deaths {
        Some(path) => read(path)?,
        None => vec![Death::by_hand()],
    };
    if !args.strategy.is_empty() {
        deaths.iter_mut().for_each(|death| death.strategies.clone_from(&args.strategy));
    }
    let (holder, rival) = (args.connection.client(holder)?, args.connection.client(rival)?);
    Ok(Plan { holder, rival, lease: args.lease, deaths })
}

fn read(path: &str) -> Result<Vec<Death>, LockDeathFailure> {
    let unreadable = |source| LockDeathFailure::Unreadable { path: path.to_owned(), source };
    let content = std::fs::read_to_string(path).map_err(unreadable)?;
    Death::parse(&content).map_err(|source| LockDeathFailure::Deaths { path: path.to_owned(), source })
}

async fn played(plan: &Plan, has_lines: bool, stop: &Stop) -> Result<Report, Failure> {
    let (progress, shown) = watch::channel(Progress::default());
    // A bar would be drawn over what a person is asked.
    let drawn = has_lines.then(|| tokio::spawn(draw(shown)));
    let mut person = Person::default();
    let report = lockdeath::run(plan, async |prompt: &str| person.ask(prompt).await, &progress, stop).await;
    drop(progress);
    if let Some(drawn) = drawn {
        // The bar is decoration: a failure to draw it changes nothing.
        let _ = drawn.await;
    }
    Ok(report?)
}

/// How it ends, and what there is to say about strategies that are not as expected.
fn judged(report: &Report, expected: Option<Expectation>) -> (Ending, String) {
    let (mut ending, mut notes, mut proven) = (Ending::AsExpected, String::new(), false);
    for strategy in report.strategies() {
        let Some((guarantee, verdict)) = report.verdict(strategy) else { continue };
        let expected = expected.unwrap_or(promised(guarantee));
        let conclusion = expected.conclude(verdict);
        proven = proven || (verdict == Verdict::Lost && conclusion == Conclusion::NotAsExpected);
        ending = ending.or_worse(conclusion.into());
        notes += &expectation_note(strategy, verdict, expected);
    }
    let cut_short = if report.is_complete() { Ending::AsExpected } else { Ending::Aborted };
    (if proven { Ending::NotAsExpected } else { ending.or_worse(cut_short) }, notes)
}

/// What a guarantee promises where locks die: here a lease does not hold, and there are two processes.
const fn promised(guarantee: Guarantee) -> Expectation {
    match guarantee {
        Guarantee::Always => Expectation::Clean,
        Guarantee::WhileLeaseHolds | Guarantee::OneProcess | Guarantee::LosesUpdates | Guarantee::Unspecified => {
            Expectation::Any
        }
    }
}

/// Whoever sits at the terminal.
#[derive(Default)]
struct Person {
    enters: Option<mpsc::Receiver<()>>,
}

impl Person {
    /// Asks for something, and returns when Enter is pressed.
    async fn ask(&mut self, prompt: &str) -> Result<(), String> {
        to_stderr(&format!("{prompt}: ")).map_err(|error| error.to_string())?;
        let gone = || "standard input has ended; give --deaths FILE to play without anybody there".to_owned();
        self.enters.get_or_insert_with(enters).recv().await.ok_or_else(gone)
    }
}

/// The Enters that are pressed. A thread of its own reads them: the runtime would wait at its end for one that blocks.
fn enters() -> mpsc::Receiver<()> {
    let (pressed, enters) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            if line.is_err() || pressed.blocking_send(()).is_err() {
                return;
            }
        }
    });
    enters
}

/// Draws how far it is until the channel's sender is gone.
async fn draw(mut progress: watch::Receiver<Progress>) {
    // On anything but a terminal it stays hidden.
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        bar.set_style(style.progress_chars("=> "));
    }
    while progress.changed().await.is_ok() {
        let Progress { done, total, now } = progress.borrow_and_update().clone();
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        bar.set_message(now);
    }
    bar.finish_and_clear();
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use zbl_client::{Money, Phase};
    use zbl_loadgen::lockdeath::{Cell, Outcome, Place, Played, Rival};

    use super::super::{Cli, Command};
    use super::*;

    /// A scene of each verdict; `None` could not be played.
    fn report(guarantee: Guarantee, verdicts: &[Option<Verdict>]) -> Report {
        let place = |verdict: &Option<Verdict>| {
            let outcome = match *verdict {
                None => Outcome::Failed("not broken".to_owned()),
                Some(verdict) => Outcome::Played(Box::new(Played {
                    user_id: 1,
                    verdict,
                    lost: Money::ZERO,
                    rival: Rival::KeptOut { after: Duration::ZERO },
                    noticed: false,
                    doubts: Vec::new(),
                    story: Vec::new(),
                    lost_updates: Vec::new(),
                })),
            };
            Place { phase: Phase::Write, outcome }
        };
        let places = verdicts.iter().map(place).collect();
        let cell = Cell { death: "x".to_owned(), strategy: "y".to_owned(), guarantee, places };
        Report {
            schema_version: 1,
            store: "mariadb".to_owned(),
            holder: "a:1".to_owned(),
            rival: "b:2".to_owned(),
            lease_ms: 1_000,
            opening: Money::ZERO,
            amount: Money::ZERO,
            cells: vec![cell],
            halted: None,
        }
    }

    #[test]
    fn the_guarantee_says_what_may_be_lost() {
        let [clean, lost, doubted] = [Verdict::Clean, Verdict::Lost, Verdict::Inconclusive].map(Some);
        let (always, while_held) = (Guarantee::Always, Guarantee::WhileLeaseHolds);
        let (be_clean, lose) = (Some(Expectation::Clean), Some(Expectation::Lost));
        for (guarantee, verdicts, expected, ending) in [
            (always, [clean, clean], None, Ending::AsExpected),
            (always, [clean, lost], None, Ending::NotAsExpected),
            (while_held, [clean, lost], None, Ending::AsExpected),
            (while_held, [clean, lost], be_clean, Ending::NotAsExpected),
            (while_held, [clean, clean], lose, Ending::NotAsExpected),
            (while_held, [doubted, clean], None, Ending::Inconclusive),
            // What was not played is no success, and hides no loss.
            (while_held, [None, lost], None, Ending::Aborted),
            (always, [None, lost], None, Ending::NotAsExpected),
            (always, [None, None], None, Ending::Aborted),
        ] {
            let (ended, notes) = judged(&report(guarantee, &verdicts), expected);
            assert_eq!(ended, ending, "{guarantee:?} {verdicts:?} {expected:?}: {notes}");
        }
        let halted = Report { halted: Some("asked to".to_owned()), ..report(always, &[clean]) };
        assert_eq!(judged(&halted, None).0, Ending::Aborted);
    }

    fn planned(flags: &[&str]) -> Result<Plan, String> {
        let given = ["loadgen", "lockdeath"].iter().chain(flags);
        match Cli::try_parse_from(given).map_err(|error| error.to_string())?.command {
            Command::Lockdeath(args) => plan(&args).map_err(|failure| failure.to_string()),
            _ => Err("not a lockdeath".to_owned()),
        }
    }

    #[tokio::test]
    async fn two_servers_are_needed_and_strategies_can_be_chosen() {
        let servers = ["--addr", "a:1", "--addr", "b:2"];
        let plan = planned(&[&servers[..], &["--strategy", "mutex"]].concat()).unwrap();
        assert_eq!((plan.holder.address(), plan.rival.address()), ("a:1", "b:2"));
        assert_eq!((plan.deaths.len(), &plan.deaths[0].strategies), (1, &vec!["mutex".to_owned()]));
        for (flags, named) in [
            (&[][..], "--addr"),
            (&servers[..2], "these are 1 addresses"),
            (&[servers, servers].concat(), "these are 4 addresses"),
            (&[&servers[..], &["--deaths", "/no/such"]].concat(), "cannot read /no/such"),
            (&[&servers[..], &["--deaths", "Cargo.toml"]].concat(), "Cargo.toml: it is not a list of deaths"),
            (&[&servers[..], &["--lease", "1"]].concat(), "give a number with its unit"),
        ] {
            let error = planned(flags).unwrap_err();
            assert!(error.contains(named), "{flags:?}: {error}");
        }
    }
}
