//! `cargo xtask bench`: every claim about speed, measured again. It builds the release programs, starts private servers,
//! measures every case in turns, round after round, and writes what came out. A case that fails, or whose verdict is not
//! what its strategy guarantees, fails the command, and nothing is published.

mod case;
mod criterion;
mod database;
mod effort;
mod figures;
mod interrupt;
mod machine;
mod redis;
mod render;
mod report;
mod sample;
mod target;
mod tools;
mod usage;
mod watcher;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use self::{
    case::{Case, cases, chosen, half_peak_cases},
    database::Database,
    effort::Effort,
    figures::Aim,
    interrupt::Interrupt,
    machine::Machine,
    redis::RedisServers,
    report::{Goal, Measured, Report},
    target::{Setting, Target},
    tools::Tool,
    usage::ticks_per_s,
};
use crate::{
    command::{Failure, Profile, cargo, run as run_command, say, workspace},
    stage::Stage,
    test::ensure_servers,
};

/// Where the report is published.
const MARKDOWN: &str = "docs/PERFORMANCE.md";
const JSON: &str = "docs/performance.json";

/// The longest that the verdict over a million operations should take, seconds.
const VERDICT_AIM: Aim = Aim::AtMost(2.0);

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    quick: bool,
    /// Where the JSON goes besides; it is written even when a case failed.
    json: Option<PathBuf>,
}

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let request = Request::parse(arguments)?;
    ensure_servers()?;
    run_command(&mut cargo(&["build", "--release", "--workspace", "--bins"]))?;
    let verdict = Goal::new("verdict over 10⁶ operations, s", Some(criterion::verdict_s()?), Some(VERDICT_AIM));
    let (tools, left_out) = foreign_tools();
    let interrupt = Interrupt::listen()?;

    let begun = Instant::now();
    let machine = Machine::describe()?;
    let databases: Vec<Database> = [Some(Database::private()?), Database::given()?].into_iter().flatten().collect();
    let effort = if request.quick { Effort::quick(databases.len()) } else { Effort::FULL };
    let stage = Stage::new(Profile::Release)?;
    let setting = Setting { stage: &stage, interrupt: &interrupt, effort, ticks_per_s: ticks_per_s()? };
    let mut plans =
        databases.into_iter().map(|database| Plan::new(setting, database, &tools)).collect::<Result<Vec<_>, _>>()?;
    for part in [Part::Peaks, Part::HalfPeaks] {
        for round in 0..effort.rounds {
            for plan in &mut plans {
                plan.round(part, round, effort.rounds)?;
            }
        }
    }

    let mut report = Report::new(machine, effort, plans.iter().map(Plan::measured).collect(), vec![verdict]);
    report.left_out = left_out;
    report.failures = plans.iter().flat_map(Plan::failures).collect();
    report.took_s = begun.elapsed().as_secs();
    publish(&report, request.json.as_deref())
}

/// The tools that are there, and why the others are not.
fn foreign_tools() -> (Vec<Tool>, BTreeMap<String, String>) {
    let (mut tools, mut left_out) = (Vec::new(), BTreeMap::new());
    for tool in Tool::ALL {
        match tool.ensure() {
            Ok(()) => tools.push(tool),
            Err(failure) => {
                say(&format!("without {tool}: {}", failure.reason()));
                left_out.insert(Case::Foreign(tool).to_string(), failure.reason().to_owned());
            }
        }
    }
    (tools, left_out)
}

impl Request {
    fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let mut request = Self::default();
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--quick" => request.quick = true,
                "--json" => {
                    let file = words.next().ok_or_else(|| Failure::Usage("--json needs a file".into()))?;
                    request.json = Some(file.into());
                }
                other => return Err(Failure::Usage(format!("bench takes --quick and --json FILE, not {other:?}"))),
            }
        }
        Ok(request)
    }
}

/// What is measured together.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// All cases but those that follow from them.
    Peaks,
    /// Those whose rate is half of a peak.
    HalfPeaks,
}

/// The cases of one database, in the order of the report.
struct Plan<'a> {
    /// A server without Redis. Whatever can do without is measured on it: with a Redis every commit tells the cache.
    without: Target<'a>,
    /// One with it, and with a database of its own on the same database server, because a cache is not told what a server
    /// without Redis writes.
    with: Target<'a>,
    /// What the Redis servers are: product and version.
    redis: String,
    peaks: Vec<Case>,
    half_peaks: Vec<Case>,
}

impl<'a> Plan<'a> {
    fn new(setting: Setting<'a>, database: Database, tools: &[Tool]) -> Result<Self, Failure> {
        let (twin, servers) = (database.twin()?, RedisServers::start()?);
        let redis = servers.name();
        let mut without = Target::start(setting, database, None)?;
        let mut with = Target::start(setting, twin, Some(servers))?;
        let strategies = chosen(without.strategies()?, with.strategies()?);
        let peaks = cases(&strategies, tools);
        say(&format!("{}: opening accounts by SQL", without.database().description().name));
        without.seed(peaks.iter().filter(|case| !case.is_with_redis()))?;
        with.seed(peaks.iter().filter(|case| case.is_with_redis()))?;
        Ok(Self { without, with, redis, peaks, half_peaks: half_peak_cases(&strategies) })
    }

    fn target(&mut self, case: &Case) -> &mut Target<'a> {
        if case.is_with_redis() { &mut self.with } else { &mut self.without }
    }

    /// Measures each case of a part once. Every round begins with another case, and every other one goes backwards: what
    /// a case leaves behind for the next, such as pages still to be written, does not always meet the same.
    fn round(&mut self, part: Part, round: usize, rounds: usize) -> Result<(), Failure> {
        let mut cases = match part {
            Part::Peaks => self.peaks.clone(),
            Part::HalfPeaks => self.half_peaks.clone(),
        };
        let count = cases.len();
        cases.rotate_left(round * count / rounds);
        if round % 2 == 1 {
            cases.reverse();
        }
        let name = self.without.database().description().name.clone();
        for (number, case) in cases.iter().enumerate() {
            let outcome = self.target(case).measure(case)?;
            say(&format!("{name}, round {} of {rounds}, {:2} of {count}: {case}: {outcome}", round + 1, number + 1));
        }
        Ok(())
    }

    fn measured(&self) -> Measured {
        let order: Vec<Case> = self.peaks.iter().chain(&self.half_peaks).cloned().collect();
        let samples = [&self.without, &self.with].into_iter().flat_map(|target| target.samples().clone()).collect();
        Measured::new(self.without.database().description().clone(), self.redis.clone(), &order, &samples)
    }

    fn failures(&self) -> impl Iterator<Item = (String, String)> {
        let name = &self.without.database().description().name;
        let failures = self.without.failures().iter().chain(self.with.failures());
        failures.map(move |(case, reason)| (format!("{name}, {case}"), reason.clone()))
    }
}

/// Prints the ratios and writes the report, or names what failed.
fn publish(report: &Report, json: Option<&Path>) -> Result<(), Failure> {
    say(&render::goal_tables(report));
    let text =
        serde_json::to_string_pretty(report).map_err(|error| Failure::Failed(format!("the report: {error}")))? + "\n";
    if let Some(file) = json {
        write(file, &text)?;
    }
    if !report.failures.is_empty() {
        let failures = report.failures.iter().map(|(case, reason)| format!("{case}: {reason}"));
        return Err(Failure::Failed(format!(
            "failed, so nothing is published:\n{}",
            failures.collect::<Vec<_>>().join("\n")
        )));
    }
    write(&workspace().join(JSON), &text)?;
    write(&workspace().join(MARKDOWN), &render::markdown(report))?;
    say(&format!("written: {MARKDOWN}, {JSON}"));
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    fs::write(file, text).map_err(|error| Failure::Failed(format!("{}: {error}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Request, Failure> {
        Request::parse(&words.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_asked_for_is_understood_or_refused() {
        assert_eq!(parse(&[]).unwrap(), Request::default());
        let both = Request { quick: true, json: Some("a.json".into()) };
        assert_eq!(parse(&["--json", "a.json", "--quick"]).unwrap(), both);
        for wrong in [&["--slow"][..], &["--json"], &["quick"]] {
            assert!(matches!(parse(wrong), Err(Failure::Usage(_))), "{wrong:?}");
        }
    }
}
