//! `zbl-server projector`: the projector as a process of its own, beside servers or in place of theirs. It tells how far it is, on a
//! terminal or in JSON, and ends when it is told to, or when it has caught up.

use std::{io, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::{
    app,
    config::Config,
    projector::{Patience, Progress, Projector},
    quiet::Quiet,
    store::{self, reports::Projection},
};

/// How often the journal is looked at where the setting says never: that is meant for servers.
const EVERY: Duration = Duration::from_millis(200);

/// How often progress is told: as often as a person reads it.
const TOLD_EVERY: Duration = Duration::from_millis(500);

/// What the process is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(after_help = HELP)]
pub struct Arguments {
    /// Make the reports anew from the whole journal; they are read as they were until that is done
    #[arg(long)]
    pub rebuild: bool,
    /// End when everything is in them that was journaled by now, instead of going on until Ctrl-C
    #[arg(long)]
    pub until_caught_up: bool,
    /// Tell progress on stdout, one JSON object a line, twice a second and at the end
    #[arg(long)]
    pub json: bool,
}

const HELP: &str = "\
Any number of projectors may run, in servers (--project-every) and by themselves; one at a time does the work.

A line of --json has: generation (the one that is read), seq (every entry up to it is in the reports), entries, lag_entries,
lag_seconds, and rebuilding: null, or the generation that is being made with its own seq and entries.

Examples:
  zbl-server projector --database-url mysql://root@127.0.0.1/zbl
  zbl-server projector --rebuild --until-caught-up --json

Exit codes: 0 caught up, or stopped as asked; 1 the database cannot be opened or the rebuild not be begun. An outage later on is
sat out.";

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] app::Error),
    /// The database does not answer.
    #[error("{0}")]
    Store(#[from] store::Error),
    /// Progress cannot be written.
    #[error("cannot write progress: {0}")]
    Output(#[from] io::Error),
}

/// A line of progress.
#[derive(Serialize)]
struct Line {
    generation: i64,
    seq: i64,
    entries: i64,
    lag_entries: i64,
    lag_seconds: f64,
    rebuilding: Option<Rebuilding>,
}

#[derive(Serialize)]
struct Rebuilding {
    generation: i64,
    seq: i64,
    entries: i64,
}

impl Line {
    fn of(progress: &Progress, active: &Projection) -> Self {
        Self {
            generation: active.generation,
            seq: active.seq,
            entries: active.totals.entries,
            lag_entries: progress.lag_entries(),
            lag_seconds: progress.lag().as_secs_f64(),
            rebuilding: progress.building.map(|building| Rebuilding {
                generation: building.generation,
                seq: building.seq,
                entries: building.totals.entries,
            }),
        }
    }
}

impl Arguments {
    /// Projects until `asked`, or until it has caught up where that is wanted. `line` is given each line of JSON.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn run(
        self,
        config: &Config,
        asked: impl Future<Output = ()>,
        mut line: impl FnMut(&str) -> io::Result<()>,
    ) -> Result<(), Error> {
        let (reports, projections) = app::read_side(config).await?;
        let (newest_seq, _) = projections.journal_end(i64::MAX).await?;
        let generation = if self.rebuild { reports.rebuild().await? } else { 0 };
        let projector = Projector::new(projections, Patience::default());
        let mut progress = projector.progress();
        let every = if config.project_every.is_zero() { EVERY } else { config.project_every };
        let is_done = |progress: &Progress| {
            let is_there = |active: Projection| active.generation >= generation && active.read_seq >= newest_seq;
            self.until_caught_up
                && progress.swept
                && progress.building.is_none()
                && progress.active.is_some_and(is_there)
        };
        let screen = Screen::new(self.json);
        let tell = async {
            let mut told = tokio::time::interval(TOLD_EVERY);
            loop {
                let done = tokio::select! {
                    done = progress.wait_for(is_done) => done.is_ok(),
                    _ = told.tick() => false,
                };
                let seen = *progress.borrow();
                if let Some(active) = &seen.active {
                    let told = Line::of(&seen, active);
                    screen.show(&told);
                    if self.json {
                        line(&serde_json::to_string(&told).map_err(io::Error::from)?)?;
                    }
                }
                if done {
                    return Ok(());
                }
            }
        };
        tokio::select! {
            () = projector.run(every, Quiet::default()) => Ok(()),
            () = asked => Ok(()),
            told = tell => told,
        }
    }
}

/// The line on a terminal.
struct Screen(ProgressBar);

impl Screen {
    fn new(json: bool) -> Self {
        let target = if json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target);
        Self(bar.with_style(
            ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
        ))
    }

    fn show(&self, line: &Line) {
        let Line { entries, lag_entries, lag_seconds, rebuilding, .. } = line;
        let rebuilding = rebuilding.as_ref().map_or_else(String::new, |building| {
            format!("; generation {} being made: {} entries", building.generation, building.entries)
        });
        self.0
            .set_message(format!("{entries} entries projected, {lag_entries} behind, {lag_seconds:.1} s{rebuilding}"));
        self.0.tick();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.0.finish();
    }
}
