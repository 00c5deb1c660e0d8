//! Making the runs and showing them.

use tokio::sync::watch;
use zbl_loadgen::attack::{self, Attack, Stop, Stopper, stop};
use zbl_loadgen::expectation::{Conclusion, Expectation};
use zbl_loadgen::report::{Comparison, Report, table, text};
use zbl_loadgen::verdict::Verdict;
use zbl_trace::Tracer;

use super::args::{AttackArgs, CompareArgs};
use super::output::{Json, to_stderr};
use super::{Ending, Failure, progress, traced};

const STOPPING: &str = "\nstopping: calls in flight are finished and settled; Ctrl-C again ends at once\n";

pub(crate) async fn attack(args: AttackArgs, tracer: Option<&Tracer>) -> Result<Ending, Failure> {
    let plan = args.plan()?;
    let plan = Attack { clients: traced(plan.clients, tracer), ..plan };
    let json = Json::open(args.common.json.as_deref())?;
    let report = until_interrupted(async |stop| one(&plan, &stop).await).await?;

    let promised = Expectation::of(report.guarantee, report.servers);
    let expected = args.expect.map_or(promised, Expectation::from);
    let conclusion = expected.conclude(report.verdict);
    let shown =
        format!("{}{}{}", text(&report), cure(&report), expectation_note(&report.strategy, report.verdict, expected));
    json.show(&shown, &report)?;
    Ok(ending(&report, conclusion))
}

pub(crate) async fn compare(args: CompareArgs, tracer: Option<&Tracer>) -> Result<Ending, Failure> {
    let plan = args.common.plan()?;
    let plan = Attack { clients: traced(plan.clients, tracer), ..plan };
    let json = Json::open(args.common.json.as_deref())?;
    let mut runs = Vec::new();
    let end = until_interrupted(async |stop| every(&plan, &stop, &mut runs).await).await;
    compared(&runs, end, &json)
}

/// Shows the finished runs, however the comparison came to its `end`, which says whether all of them are there.
fn compared(runs: &[Report], end: Result<bool, Failure>, json: &Json) -> Result<Ending, Failure> {
    if runs.is_empty() {
        return Err(end.err().unwrap_or(Failure::NothingToCompare));
    }
    let (mut ending, mut proven) = (Ending::AsExpected, false);
    let mut shown = table(runs);
    for run in runs {
        let expected = Expectation::of(run.guarantee, run.servers);
        let conclusion = expected.conclude(run.verdict);
        shown += &expectation_note(&run.strategy, run.verdict, expected);
        proven = proven || (run.verdict == Verdict::Lost && conclusion == Conclusion::NotAsExpected);
        ending = ending.or_worse(conclusion.into());
    }
    json.show(&shown, &Comparison { runs })?;
    match end {
        Ok(true) => Ok(ending),
        Ok(false) if proven => Ok(Ending::NotAsExpected),
        Ok(false) => Ok(Ending::Aborted),
        Err(failure) if proven => {
            failure.tell();
            Ok(Ending::NotAsExpected)
        }
        Err(failure) => Err(failure),
    }
}

/// How one run ends: one that was cut short may have proven a loss all the same.
fn ending(report: &Report, conclusion: Conclusion) -> Ending {
    let cut_short = if report.interrupted { Ending::Aborted } else { Ending::AsExpected };
    Ending::from(conclusion).and_also(Some(report.verdict), cut_short)
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

/// Adds a run of every available strategy to `runs`, and says whether all of them came to their end.
async fn every(plan: &Attack, stop: &Stop, runs: &mut Vec<Report>) -> Result<bool, Failure> {
    for strategy in attack::available_strategies(plan).await? {
        let mut plan = plan.clone();
        plan.workload.strategy = strategy.name;
        runs.push(one(&plan, stop).await?);
        if stop.requested() {
            return Ok(false);
        }
    }
    Ok(!runs.iter().any(|run| run.interrupted))
}

/// Runs until done; Ctrl-C asks it to stop, a second one drops it.
pub(super) async fn until_interrupted<T>(work: impl AsyncFnOnce(Stop) -> Result<T, Failure>) -> Result<T, Failure> {
    let (stopper, stop) = stop();
    tokio::select! {
        // A run holds much; on the heap nobody has to move it.
        done = Box::pin(work(stop)) => done,
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

/// Says so when the verdict on `subject` is not the one expected.
pub(super) fn expectation_note(subject: &str, verdict: Verdict, expected: Expectation) -> String {
    let promised = match expected {
        Expectation::Clean => "CLEAN",
        Expectation::Lost => "LOST",
        Expectation::Any => "CLEAN or LOST",
    };
    match expected.conclude(verdict) {
        Conclusion::AsExpected => String::new(),
        Conclusion::NotAsExpected | Conclusion::Inconclusive => {
            format!("\n{subject}: {promised} was expected, the verdict is {verdict}\n")
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
    use std::time::Duration;

    use zbl_client::{Guarantee, Money};
    use zbl_loadgen::recorder::Latency;
    use zbl_loadgen::report::Run;
    use zbl_loadgen::verdict::{Evidence, Journal, State, judge};
    use zbl_loadgen::workload::Workload;

    use super::*;

    fn finished_run() -> Report {
        let (opening, strategy) = (Money::from_minor(1_000), "atomic".to_owned());
        let workload =
            Workload { workers: 1, deductions: 1, amount: opening, opening, strategy, user_id: None, seed: 1 };
        let root = State { balance: opening, version: 1 };
        let evidence = Evidence { operations: &[], journal: Journal { root, entries: &[] }, last: root };
        let run = Run {
            strategy: workload.strategy.clone(),
            guarantee: Guarantee::Always,
            cure: None,
            store: "sqlite".to_owned(),
            servers: 1,
            user_id: 1,
            interrupted: false,
            latency: Latency::default(),
            attempts: 0,
            cancelled: 0,
            contended_retries: 0,
            outage_retries: 0,
            elapsed: Duration::from_secs(1),
            accepting: None,
            cost: None,
        };
        Report::new(&workload, run, judge(&evidence).unwrap(), opening)
    }

    #[test]
    fn finished_runs_are_kept_when_a_later_one_fails_and_an_older_result_is_not() {
        let file = std::env::temp_dir().join(format!("loadgen-compare-{}.json", std::process::id()));
        std::fs::write(&file, "an earlier result").unwrap();
        let json = Json::open(file.to_str()).unwrap();
        let none = compared(&[], Err(Failure::Interrupted), &json);
        let emptied = std::fs::read_to_string(&file).unwrap();
        let some = compared(&[finished_run()], Err(Failure::Interrupted), &json);
        let kept: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        std::fs::remove_file(&file).unwrap();

        assert!(matches!(none, Err(Failure::Interrupted)));
        assert_eq!(emptied, "");
        assert!(matches!(some, Err(Failure::Interrupted)), "{some:?}");
        assert_eq!(kept["runs"][0]["strategy"], "atomic");
        assert_eq!(compared(&[finished_run()], Ok(true), &Json::Nowhere).unwrap(), Ending::Inconclusive);
        assert!(matches!(compared(&[], Ok(true), &Json::Nowhere), Err(Failure::NothingToCompare)));
    }

    #[test]
    fn a_proven_loss_outlasts_what_cut_the_run_short() {
        let cut_short = |verdict| Report { verdict, interrupted: true, ..finished_run() };
        let conclusion = |verdict| Expectation::Clean.conclude(verdict);
        let ended = |verdict| ending(&cut_short(verdict), conclusion(verdict));
        assert_eq!(ended(Verdict::Lost), Ending::NotAsExpected);
        assert_eq!(ended(Verdict::Clean), Ending::Aborted);
        for end in [Ok(false), Err(Failure::Interrupted)] {
            assert_eq!(compared(&[cut_short(Verdict::Lost)], end, &Json::Nowhere).unwrap(), Ending::NotAsExpected);
        }
        assert_eq!(compared(&[cut_short(Verdict::Clean)], Ok(false), &Json::Nowhere).unwrap(), Ending::Aborted);
    }

    #[test]
    fn the_cure_is_the_same_command_with_another_strategy() {
        let given = |args: &[&str]| command_with(args.iter().map(ToString::to_string), "atomic");
        assert_eq!(given(&["attack"]), "loadgen attack --strategy atomic");
        assert_eq!(
            given(&["attack", "--strategy", "none", "--expect=lost", "--workers", "7", "--json", "my result"]),
            "loadgen attack --workers 7 --json 'my result' --strategy atomic"
        );
    }
}
