//! The progress bar: on a terminal only, on standard error, so that results can be piped.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;
use zbl_loadgen::attack::{Progress, Stage};
use zbl_loadgen::bench;
use zbl_loadgen::workload::Workload;

const BENCH_TEMPLATE: &str = "{spinner} {elapsed:>4} {prefix}: {msg}";

const TEMPLATE: &str = "{prefix:>14} [{bar:40}] {pos}/{len}  {msg}";

/// The bar of a run, not drawn yet. It has its length from the beginning: one without would be drawn as full.
pub(crate) fn bar(workload: &Workload) -> ProgressBar {
    // On anything but a terminal it stays hidden.
    let bar = ProgressBar::new(workload.operations()).with_prefix(workload.strategy.clone());
    match ProgressStyle::with_template(TEMPLATE) {
        Ok(style) => bar.with_style(style.progress_chars("=> ")),
        Err(_) => bar,
    }
}

/// Draws what comes through the channel until its sender is gone.
pub(crate) async fn draw(bar: ProgressBar, mut progress: watch::Receiver<Progress>) {
    while progress.changed().await.is_ok() {
        let now = *progress.borrow_and_update();
        bar.set_position(now.done);
        bar.set_message(message(now, bar.elapsed()));
        if now.stage == Stage::Draining {
            bar.set_length(now.acknowledged);
            bar.set_position(now.decided);
        }
    }
    bar.finish_and_clear();
}

fn message(progress: Progress, elapsed: Duration) -> String {
    let Progress { acknowledged, decided, .. } = progress;
    match progress.stage {
        Stage::Preparing => "opening the account".to_owned(),
        Stage::Attacking if progress.waiting > 0 => {
            format!("{} acknowledged, {} workers wait for the server", progress.acknowledged, progress.waiting)
        }
        Stage::Attacking => format!("{} acknowledged", progress.acknowledged),
        Stage::Settling => "settling unknown outcomes".to_owned(),
        Stage::Draining => {
            let rate = decided as f64 / elapsed.as_secs_f64().max(0.001);
            format!("{acknowledged} accepted, {decided} decided, {rate:.0}/s")
        }
        Stage::Judging => "reading the journal".to_owned(),
    }
}

/// Draws how far a bench is until the channel's sender is gone.
pub(crate) async fn draw_bench(mut progress: watch::Receiver<bench::Progress>) {
    // On anything but a terminal it stays hidden.
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template(BENCH_TEMPLATE) {
        bar.set_style(style);
    }
    let mut stage = None;
    while progress.changed().await.is_ok() {
        let now = *progress.borrow_and_update();
        if stage.replace(now.stage) != Some(now.stage) {
            bar.reset_elapsed();
        }
        bar.set_prefix(named(now.stage));
        bar.set_message(bench_message(now, bar.elapsed()));
        bar.tick();
    }
    bar.finish_and_clear();
}

const fn named(stage: bench::Stage) -> &'static str {
    match stage {
        bench::Stage::Opening => "preparing accounts",
        bench::Stage::Measuring => "measuring",
        bench::Stage::Settling => "settling outcomes",
        bench::Stage::Judging => "reading journals",
    }
}

fn bench_message(progress: bench::Progress, elapsed: Duration) -> String {
    let bench::Progress { stage, total, done, acknowledged } = progress;
    match (stage, total) {
        (bench::Stage::Measuring, _) => {
            let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
            format!("{done} ended, {acknowledged} acknowledged, {rate:.0}/s")
        }
        (_, Some(total)) => format!("{done} of {total}"),
        (_, None) => done.to_string(),
    }
}
