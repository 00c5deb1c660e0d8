//! What an exploration found, for people and for programs. Pure: findings in, text out.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, TableComponent, presets::NOTHING};
use serde::Serialize;
use zbl_client::{Paint, lanes};
use zbl_proto::v1;

use super::{
    finding::Finding,
    outcome::{Answer, Call, Outcome},
    schedule::{Crashes, Part, Scene, Schedule, Token},
    search::Coverage,
};
use crate::{
    rpc::{contender_message, race_message, span_message},
    timeline::{Contender, Event},
};

/// The version of the JSON.
const SCHEMA_VERSION: u32 = 1;

const COLUMNS: [&str; 9] =
    ["strategy", "instances", "schedules", "losing", "doubled", "refused", "blocked", "deadlocked", "s"];

/// Losing schedules listed; the JSON has them all.
const LOSING_LISTED: usize = 60;

/// Of these a line holds three.
const LOSING_A_LINE: usize = 3;

/// One row for each finding.
pub fn table(findings: &[Finding]) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(COLUMNS);
    table.set_style(TableComponent::HeaderLines, '─').set_style(TableComponent::MiddleHeaderIntersections, '─');
    for finding in findings {
        let schedules = match finding.explored.coverage {
            Coverage::All => finding.schedules.to_string(),
            Coverage::Sample { of_about, .. } => format!("{} of ~{of_about:.0}", finding.schedules),
            Coverage::Replay => finding.schedules.to_string(),
            Coverage::Interrupted => format!("{}, interrupted", finding.schedules),
        };
        let counts = [finding.doubled, finding.refused, finding.blocked, finding.deadlocked].map(|n| n.to_string());
        let head = [finding.scene.strategies(), finding.scene.instances.to_string(), schedules];
        let cells = head.into_iter().chain([finding.losing.len().to_string()]).chain(counts);
        table.add_row(cells.chain([format!("{:.1}", finding.took.as_secs_f64())]).map(Cell::new));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index > 0 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt() + "\n"
}

/// What the findings have in common.
pub fn heading(scene: &Scene, store: &str) -> String {
    let amounts: Vec<String> = scene.parts.iter().map(|part| part.amount.to_string()).collect();
    let crashes = match scene.crashes {
        Crashes::Never => "",
        Crashes::One => ", of which one may crash",
    };
    format!(
        "{} operations, taking {}, on a fresh account of {}{crashes}; on {store}\n",
        scene.parts.len(),
        amounts.join(" and "),
        scene.opening
    )
}

/// What there is to say about a finding beyond its row.
pub fn notes(finding: &Finding) -> String {
    let name = finding.scene.strategies();
    let mut out = String::new();
    let mut say = |line: String| out += &(line + "\n");
    if let Coverage::Sample { seed, of_about } = finding.explored.coverage {
        let sampled = finding.schedules;
        say(format!("{name}: a sample of {sampled} schedules (seed {seed}) of about {of_about:.0}"));
    }
    let (succeeded, voided) = (finding.unknown_succeeded, finding.unknown_voided);
    if succeeded + voided > 0 {
        say(format!(
            "{name}: {} calls got no answer; GetDeduction settled them all: {succeeded} SUCCEEDED, {voided} VOIDED",
            succeeded + voided
        ));
    }
    if finding.explored.diverged > 0 {
        say(format!("{name}: {} schedules did not go as they had gone before", finding.explored.diverged));
    }
    out
}

/// The losing schedules of a finding, a few on a line.
pub fn losing(finding: &Finding) -> String {
    let Some(shortest) = &finding.shortest else { return String::new() };
    let (lost, all) = (finding.losing.len(), finding.schedules);
    let name = finding.scene.strategies();
    let listed: Vec<String> = finding.losing.iter().take(LOSING_LISTED).map(Schedule::to_string).collect();
    let mut out = format!("{name} loses money in {lost} of {all} schedules:\n\n");
    for line in listed.chunks(LOSING_A_LINE) {
        out += &format!("  {}\n", line.join("    "));
    }
    if lost > listed.len() {
        out += &format!("  and {} more; --json has them all\n", lost - listed.len());
    }
    out + &format!("\nThe shortest, with the fewest switches, is {}:\n\n", shortest.schedule)
}

/// The lanes of a schedule, what each caller was told, and the verdict.
pub fn picture(outcome: &Outcome, scene: &Scene, width: usize, paint: Paint) -> String {
    let is_span = |event: &Event| if let Event::Span(span) = event { Some(span_message(span)) } else { None };
    let spans: Vec<v1::Span> = outcome.events.iter().filter_map(is_span).collect();
    let lanes = match outcome.race() {
        Some(race) => lanes::picture(&spans, &race_message(race), width, paint),
        None => lanes::peaceful(&spans, &outcome.calls.iter().map(contender).collect::<Vec<_>>(), width, paint),
    };
    let mut out = lanes + "\n";
    for (at, (call, part)) in outcome.calls.iter().zip(&scene.parts).enumerate() {
        out += &format!("  {}\n", answer(at, call, part));
    }
    let lost = if outcome.is_losing() { format!(", {} lost", outcome.judgement.lost) } else { String::new() };
    out + &format!("  {}{lost}: the balance is {}\n", outcome.judgement.verdict, outcome.balance)
}

fn contender(call: &Call) -> v1::Contender {
    let (version, balance_after) = match &call.answer {
        Answer::Acknowledged(receipt) => (receipt.version, receipt.balance),
        _ => Default::default(),
    };
    contender_message(&Contender { request_id: call.request_id, version, delta: call.delta, balance_after })
}

fn answer(at: usize, call: &Call, part: &Part) -> String {
    let told = match &call.answer {
        Answer::Acknowledged(receipt) => {
            let attempts =
                if receipt.attempts > 1 { format!(" in attempt {}", receipt.attempts) } else { String::new() };
            format!("acknowledged, {}@v{}{attempts}", receipt.balance, receipt.version)
        }
        Answer::Refused(refusal) => format!("refused: {refusal}"),
        Answer::UnknownThenSucceeded => "no answer; GetDeduction says SUCCEEDED".to_owned(),
        Answer::UnknownThenVoided => "no answer; GetDeduction says VOIDED".to_owned(),
    };
    format!("operation {} ({}, {}): {told}", at + 1, part.strategy.name, call.delta)
}

/// How to see a schedule again.
pub fn again(token: &Token) -> String {
    format!("  again: zbl-server explore --replay {token}\n")
}

/// The JSON document of some findings.
#[derive(Serialize)]
pub struct Document {
    schema_version: u32,
    runs: Vec<Record>,
    schedules: u64,
    losing: u64,
    as_promised: bool,
    complete: bool,
    duration_ms: u64,
}

#[derive(Serialize)]
struct Record {
    strategy: String,
    store: &'static str,
    instances: usize,
    operations: usize,
    schedules: u64,
    losing: usize,
    doubled: u64,
    refused: u64,
    blocked: u64,
    deadlocked: u64,
    unknown_succeeded: u64,
    unknown_voided: u64,
    diverged: usize,
    coverage: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    of_about: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seed: Option<u64>,
    token: Option<String>,
    losing_schedules: Vec<String>,
    as_promised: bool,
    duration_ms: u64,
}

/// The findings as a document. So many scenes are `missing`: not played, or not to their end.
pub fn document(findings: &[Finding], missing: usize) -> Document {
    let runs: Vec<Record> = findings.iter().map(record).collect();
    Document {
        schema_version: SCHEMA_VERSION,
        schedules: runs.iter().map(|run| run.schedules).sum(),
        losing: runs.iter().map(|run| run.losing as u64).sum(),
        as_promised: runs.iter().all(|run| run.as_promised),
        complete: missing == 0,
        duration_ms: runs.iter().map(|run| run.duration_ms).sum(),
        runs,
    }
}

fn record(finding: &Finding) -> Record {
    let (coverage, of_about, seed) = match finding.explored.coverage {
        Coverage::All => ("all", None, None),
        Coverage::Sample { seed, of_about } => ("sample", Some(of_about.round()), Some(seed)),
        Coverage::Replay => ("replay", None, None),
        Coverage::Interrupted => ("interrupted", None, None),
    };
    Record {
        strategy: finding.scene.strategies(),
        store: finding.store,
        instances: finding.scene.instances,
        operations: finding.scene.parts.len(),
        schedules: finding.schedules,
        losing: finding.losing.len(),
        doubled: finding.doubled,
        refused: finding.refused,
        blocked: finding.blocked,
        deadlocked: finding.deadlocked,
        unknown_succeeded: finding.unknown_succeeded,
        unknown_voided: finding.unknown_voided,
        diverged: finding.explored.diverged,
        coverage,
        of_about,
        seed,
        token: finding.token(),
        losing_schedules: finding.losing.iter().map(Schedule::to_string).collect(),
        as_promised: finding.disagreements().is_empty(),
        duration_ms: u64::try_from(finding.took.as_millis()).unwrap_or(u64::MAX),
    }
}
