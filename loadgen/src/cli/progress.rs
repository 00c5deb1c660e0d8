//! The progress bar: on a terminal only, on standard error, so that results can be piped.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;
use zbl_loadgen::attack::{Progress, Stage};

const TEMPLATE: &str = "{prefix:>14} [{bar:40}] {pos}/{len}  {msg}";

/// Draws what comes through the channel until its sender is gone.
pub(crate) async fn draw(strategy: String, mut progress: watch::Receiver<Progress>) {
    if !stderr().is_terminal() {
        return;
    }
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(strategy);
    while progress.changed().await.is_ok() {
        let now = *progress.borrow_and_update();
        bar.set_length(now.total);
        bar.set_position(now.done);
        bar.set_message(message(now));
    }
    bar.finish_and_clear();
}

fn message(progress: Progress) -> String {
    match progress.stage {
        Stage::Preparing => "opening the account".to_owned(),
        Stage::Attacking if progress.waiting > 0 => {
            format!("{} acknowledged, {} workers wait for the server", progress.acknowledged, progress.waiting)
        }
        Stage::Attacking => format!("{} acknowledged", progress.acknowledged),
        Stage::Settling => "settling unknown outcomes".to_owned(),
        Stage::Judging => "reading the journal".to_owned(),
    }
}
