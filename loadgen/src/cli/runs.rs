//! Making the runs and showing them.

use tokio::sync::watch;
use zbl_loadgen::attack::{self, Attack, Stop, Stopper, stop};
use zbl_loadgen::expectation::{Conclusion, Expectation};
use zbl_loadgen::report::{Comparison, Report, table, text};
use zbl_loadgen::verdict::Verdict;

use super::args::{AttackArgs, CompareArgs};
use super::output::{Json, to_stderr};
use super::{Ending, Failure, progress};

const STOPPING: &str = "\nstopping: calls in flight are finished and settled; Ctrl-C again ends at once\n";

pub(crate) async fn attack(args: AttackArgs) -> Result<Ending, Failure> {
    let plan = args.plan()?;
    let json = Json::open(args.common.json.as_deref())?;
    let report = until_interrupted(async |stop| one(&plan, &stop).await).await?;

    let promised = Expectation::of(report.guarantee, report.servers);
    let expected = args.expect.map_or(promised, Expectation::from);
    let conclusion = expected.conclude(report.verdict);
    let shown = format!("{}{}{}", text(&report), cure(&report), expectation_note(&report, expected, conclusion));
    json.show(&shown, &report)?;
    Ok(if report.interrupted { Ending::Aborted } else { conclusion.into() })
}

pub(crate) async fn compare(args: CompareArgs) -> Result<Ending, Failure> {
    let plan = args.common.plan()?;
    let json = Json::open(args.common.json.as_deref())?;
    let (runs, complete) = until_interrupted(async |stop| every(&plan, &stop).await).await?;

    let mut ending = Ending::AsExpected;
    let mut shown = table(&runs);
    for run in &runs {
        let expected = Expectation::of(run.guarantee, run.servers);
        let conclusion = expected.conclude(run.verdict);
        shown += &expectation_note(run, expected, conclusion);
        ending = worse(ending, conclusion.into());
    }
    json.show(&shown, &Comparison { runs: &runs })?;
    Ok(if complete { ending } else { Ending::Aborted })
}

/// One run, with its progress drawn.
async fn one(plan: &Attack, stop: &Stop) -> Result<Report, Failure> {
    let (sender, receiver) = watch::channel(attack::Progress::default());
    let drawn = tokio::spawn(progress::draw(progress::bar(&plan.workload), receiver));
    let report = attack::run(plan, &sender, stop).await;
    drop(sender);
    // The bar is decoration: a failure to draw it changes nothing.
    let _ = drawn.await;
    Ok(report?)
}

/// A run of every available strategy, and whether all of them came to their end.
async fn every(plan: &Attack, stop: &Stop) -> Result<(Vec<Report>, bool), Failure> {
    let mut runs: Vec<Report> = Vec::new();
    for strategy in attack::available_strategies(plan).await? {
        let mut plan = plan.clone();
        plan.workload.strategy = strategy.name;
        runs.push(one(&plan, stop).await?);
        if stop.requested() {
            return Ok((runs, false));
        }
    }
    let complete = !runs.iter().any(|run| run.interrupted);
    Ok((runs, complete))
}

/// Runs until done; Ctrl-C asks it to stop, a second one drops it.
async fn until_interrupted<T>(work: impl AsyncFnOnce(Stop) -> Result<T, Failure>) -> Result<T, Failure> {
    let (stopper, stop) = stop();
    tokio::select! {
        done = work(stop) => done,
        () = interrupted_twice(&stopper) => Err(Failure::Interrupted),
    }
}

async fn interrupted_twice(stopper: &Stopper) {
    // Where Ctrl-C cannot be listened to, the run goes on to its end.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
    stopper.stop();
    let _ = to_stderr(STOPPING);
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn worse(one: Ending, other: Ending) -> Ending {
    match (one, other) {
        (Ending::AsExpected, other) => other,
        (Ending::Inconclusive, Ending::NotAsExpected) => other,
        (one, _) => one,
    }
}

fn expectation_note(report: &Report, expected: Expectation, conclusion: Conclusion) -> String {
    let promised = match expected {
        Expectation::Clean => "CLEAN",
        Expectation::Lost => "LOST",
        Expectation::Any => "CLEAN or LOST",
    };
    match conclusion {
        Conclusion::AsExpected => String::new(),
        Conclusion::NotAsExpected | Conclusion::Inconclusive => {
            format!("\n{}: {promised} was expected, the verdict is {}\n", report.strategy, report.verdict)
        }
    }
}

/// For a loss, the same command with a strategy that loses nothing.
fn cure(report: &Report) -> String {
    match &report.cure {
        Some(strategy) if report.verdict == Verdict::Lost && *strategy != report.strategy => {
            format!("\n  Cure: {}\n", command_with(std::env::args().skip(1), strategy))
        }
        _ => String::new(),
    }
}

/// The command line with another strategy; an expectation that suited the old one is left out.
fn command_with(args: impl Iterator<Item = String>, strategy: &str) -> String {
    let mut command = vec!["loadgen".to_owned()];
    let mut args = args.peekable();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--strategy" | "--expect" => {
                args.next();
            }
            text if text.starts_with("--strategy=") || text.starts_with("--expect=") => {}
            text => command.push(quoted(text)),
        }
    }
    command.extend(["--strategy".to_owned(), strategy.to_owned()]);
    command.join(" ")
}

/// An argument as a shell takes it.
fn quoted(arg: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=./:,@%+".contains(&byte);
    if !arg.is_empty() && arg.bytes().all(plain) { arg.to_owned() } else { format!("'{}'", arg.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cure_is_the_same_command_with_another_strategy() {
        let given = |args: &[&str]| command_with(args.iter().map(ToString::to_string), "atomic");
        assert_eq!(given(&["attack"]), "loadgen attack --strategy atomic");
        assert_eq!(
            given(&["attack", "--strategy", "none", "--expect=lost", "--workers", "7", "--json", "my result"]),
            "loadgen attack --workers 7 --json 'my result' --strategy atomic"
        );
    }

    #[test]
    fn the_worst_verdict_decides() {
        use Ending::{AsExpected, Inconclusive, NotAsExpected};
        assert_eq!(worse(AsExpected, Inconclusive), Inconclusive);
        assert_eq!(worse(Inconclusive, NotAsExpected), NotAsExpected);
        assert_eq!(worse(NotAsExpected, Inconclusive), NotAsExpected);
        assert_eq!(worse(Inconclusive, AsExpected), Inconclusive);
    }
}
