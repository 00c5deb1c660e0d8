//! What the demonstration says. Pure, but for a look at the timeline's ring.

use std::time::Duration;

use zbl_client::{Paint, lanes};
use zbl_loadgen::{
    expectation::Conclusion,
    report::{Pair, Report, witness},
};
use zbl_proto::v1;

use super::{AMOUNT, DEDUCTIONS, Keep, OPENING, WORKERS, conclude};
use crate::{
    rpc::{race_message, span_message},
    screen,
    timeline::{Event, Race, Timeline},
};

pub(super) fn opening(store: &str, compute_delay: Duration, page: &str) -> String {
    let asked = u64::from(WORKERS) * u64::from(DEDUCTIONS);
    let delay = if compute_delay.is_zero() {
        "Nothing is slowed down to help the race.".to_owned()
    } else {
        format!("Each operation is held for {compute_delay:?} between read and write, to widen the race.")
    };
    format!(
        "Open {page} to watch it in a browser.\n\nZero Balance Loss: break, show, cure (on {store})\n\n\
         {WORKERS} workers take {AMOUNT} {DEDUCTIONS} times each from one account of {OPENING}: {asked} deductions, of which it can pay 100.\n\
         {delay}\n\n1. Break it: no concurrency control\n\n"
    )
}

/// Between the loss and its cures.
pub(super) const fn turn() -> &'static str {
    "\n2. Cure it: the same attack on every other strategy\n\n"
}

pub(super) fn line(report: &Report) -> String {
    let caveat = match report.guarantee {
        zbl_client::Guarantee::OneProcess => "   (in this one process; beside a second server it loses money)",
        zbl_client::Guarantee::WhileLeaseHolds => "   (while no holder outlives its lease)",
        _ => "",
    };
    let mark = if conclude(report) == Conclusion::AsExpected { "ok " } else { "!! " };
    format!(
        "  {mark}{:<16}{:<13} sold {} of {}, {:.1} s{caveat}\n",
        report.strategy,
        report.verdict.to_string(),
        report.acknowledged.count,
        report.affordable,
        Duration::from_millis(report.duration_ms).as_secs_f64()
    )
}

pub(super) fn closing(runs: &[Report]) -> String {
    let surprises = surprises(runs);
    if surprises.is_empty() {
        return "Every strategy did what it promises; the unsafe one was caught, to the cent.\n".to_owned();
    }
    surprises.iter().map(|surprise| format!("NOT AS PROMISED: {surprise}\n")).collect()
}

/// What did not go as the guarantees say.
pub(super) fn surprises(runs: &[Report]) -> Vec<String> {
    let verdicts = runs
        .iter()
        .filter(|run| conclude(run) != Conclusion::AsExpected)
        .map(|run| format!("{} ended {}", run.strategy, run.verdict));
    // A loss that is not accounted for pair by pair is not understood.
    let unexplained = runs
        .iter()
        .filter(|run| run.unattributed.minor() != 0)
        .map(|run| format!("{} lost {} that no overwriting explains", run.strategy, run.unattributed));
    verdicts.chain(unexplained).collect()
}

/// The lanes of one lost update that the verdict confirms, and its witness. The plainest there is: of one victim, both
/// sides of which had read the same, and short, because there the phases are easiest to see.
pub(super) fn picture(timeline: &Timeline, report: &Report) -> String {
    let events: Vec<Event> = timeline.retained(0, report.user_id).map(|(_, event)| event).collect();
    let races = events.iter().filter_map(|event| match event {
        Event::Race(race) => Some((race, confirmed(race, &report.lost_updates)?)),
        Event::Span(_) => None,
    });
    let plainness = |race: &Race, pair: &Pair| {
        let others = race.victims.len() + race.victims_omitted as usize;
        let read_apart = pair.victim.version_before != pair.overwriter.version_before;
        (others, read_apart, race.overwriter.version - race.seen.version)
    };
    let Some((race, pair)) = races.min_by_key(|(race, pair)| plainness(race, pair)) else {
        return String::new();
    };
    let spans: Vec<v1::Span> = events
        .iter()
        .filter_map(|event| match event {
            Event::Span(span) => Some(span_message(span)),
            Event::Race(_) => None,
        })
        .collect();
    let lanes = lanes::picture(&spans, &race_message(race), screen::width(), Paint::suiting(&std::io::stdout()));
    format!("One of them, as it happened:\n\n{lanes}\n  {}\n", witness(pair))
}

/// The pair of the verdict that a race is, with the newest of its victims.
fn confirmed<'a>(race: &Race, pairs: &'a [Pair]) -> Option<&'a Pair> {
    let newest = race.victims.first()?.request_id;
    pairs
        .iter()
        .find(|pair| (pair.victim.request_id, pair.overwriter.request_id) == (newest, race.overwriter.request_id))
}

/// What the reader is left with.
pub(super) const fn still_serving(keep: Keep) -> &'static str {
    match keep {
        Keep::Nothing => "Still serving, on a database that goes with this process. This is not for production.",
        Keep::Configured => "Still serving, on the database you named; the accounts attacked stay in it.",
    }
}
