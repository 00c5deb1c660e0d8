//! `zbl-server explore`: plays what the command line asks for, and prints what was found.

use std::{
    collections::{BTreeSet, VecDeque},
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use indicatif::{ProgressBar, ProgressStyle};
use tempfile::TempDir;
use tokio::sync::oneshot;
use zbl_client::Paint;

use super::{
    Error,
    arguments::{Instances, Task},
    finding::Finding,
    report,
    schedule::{Scene, Token},
    search::{self, Bounds, Coverage, Explored, Onward},
    stage::Stage,
};
use crate::{
    config::{Config, DatabaseUrl},
    screen,
    shutdown::Shutdown,
};

/// What was found, held against what the strategies promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// It agrees.
    AsPromised,
    /// It does not.
    NotAsPromised,
    /// So far it does, but not everything was played.
    Incomplete,
}

/// What was found, and why nothing more was.
struct Found {
    findings: Vec<Finding>,
    /// Scenes that were not played, or not to their end.
    missing: usize,
    failure: Option<Error>,
}

/// Where the accounts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// In a private SQLite file, removed at the end.
    Nothing,
    /// In the database the configuration names.
    Configured,
}

/// An exploration to be made.
#[derive(Debug)]
pub struct Exploration {
    /// The server's configuration.
    pub config: Config,
    /// Which database.
    pub keep: Keep,
    /// What is to be played.
    pub task: Task,
    /// Where to write the JSON; `-` is standard output.
    pub json: Option<PathBuf>,
}

impl Exploration {
    /// Makes it, printing to standard output.
    ///
    /// # Errors
    /// [`Error`], after what was found before it has been told.
    pub async fn run(mut self) -> Result<Conclusion, Error> {
        let output = Output::open(self.json.as_deref())?;
        let scratch = self.scratch()?;
        let Shutdown { asked, insisted } = Shutdown::listen()?;
        let played = async {
            match &self.task {
                Task::Explore { scenes, instances, limit, seed } => {
                    let bounds = Bounds { limit: *limit, seed: *seed };
                    Explorer { config: &self.config, output: &output, bounds, asked }.play(scenes, *instances).await
                }
                Task::Replay { token, times } => replay(&self.config, &output, token, *times).await,
            }
        };
        let concluded = tokio::select! {
            findings = played => findings,
            Ok(()) = insisted => Err(Error::Interrupted),
        };
        drop(scratch);
        let Found { findings, missing, failure } = concluded?;
        output.document(&findings, missing)?;
        let disagreements: Vec<String> = findings.iter().flat_map(Finding::disagreements).collect();
        for disagreement in &disagreements {
            output.say(&format!("NOT AS PROMISED: {disagreement}\n"))?;
        }
        match failure {
            Some(failure) if disagreements.is_empty() => Err(failure),
            Some(failure) => {
                output.say(&format!("and then: {failure}\n"))?;
                Ok(Conclusion::NotAsPromised)
            }
            None if !disagreements.is_empty() => Ok(Conclusion::NotAsPromised),
            None if missing > 0 => {
                output.say(&format!("Incomplete: {missing} of the scenes were not played to their end.\n"))?;
                Ok(Conclusion::Incomplete)
            }
            None => {
                output.say("What was found agrees with what the strategies promise.\n")?;
                Ok(Conclusion::AsPromised)
            }
        }
    }

    /// Points the configuration at a temporary database, unless one was asked for.
    fn scratch(&mut self) -> io::Result<Option<TempDir>> {
        if self.keep == Keep::Configured {
            return Ok(None);
        }
        let directory = tempfile::Builder::new().prefix("zbl-explore-").tempdir()?;
        self.config.database_url = DatabaseUrl::Sqlite(directory.path().join("zbl.db"));
        Ok(Some(directory))
    }
}

/// The stages that were opened, each at the number of its instances.
type Stages = Vec<Option<Stage>>;

/// Plays scenes one after the other.
struct Explorer<'a> {
    config: &'a Config,
    output: &'a Output,
    bounds: Bounds,
    /// Resolves when what there is shall do.
    asked: oneshot::Receiver<()>,
}

impl Explorer<'_> {
    async fn play(mut self, scenes: &[Scene], instances: Instances) -> Result<Found, Error> {
        let mut findings: Vec<Finding> = Vec::new();
        let mut stages = Stages::new();
        let mut to_play = self.playable(scenes, &mut stages).await?;
        let mut failure = None;
        while let Some(scene) = to_play.pop_front() {
            let finding = match self.explore(&mut stages, &scene).await {
                Ok(finding) => finding,
                Err(error) => {
                    to_play.push_front(scene);
                    failure = Some(error);
                    break;
                }
            };
            // What keeps operations apart in the process alone does so no longer where there are two of them.
            let alone = scene.parts.windows(2).all(|pair| pair[0].strategy.name == pair[1].strategy.name);
            let given = instances == Instances::Given || scene.instances > 1;
            if !given && alone && finding.waits_in_the_process() {
                to_play.push_front(Scene { instances: 2, ..scene });
            }
            let is_over = finding.explored.coverage == Coverage::Interrupted;
            findings.push(finding);
            if is_over {
                break;
            }
        }
        self.tell(&findings)?;
        let missing = to_play.len() + findings.iter().filter(|finding| !finding.is_complete()).count();
        Ok(Found { findings, missing, failure })
    }

    /// The scenes whose strategies have what they need. Of several the others are left out, and told; a single one that
    /// cannot be played is an error.
    async fn playable(&self, scenes: &[Scene], stages: &mut Stages) -> Result<VecDeque<Scene>, Error> {
        let (mut playable, mut lacking) = (VecDeque::new(), BTreeSet::new());
        for scene in scenes {
            match self.stage(stages, scene.instances).await?.lacks(scene) {
                None => playable.push_back(scene.clone()),
                Some(error) if scenes.len() == 1 => return Err(error.into()),
                Some(error) => _ = lacking.insert(error.to_string()),
            }
        }
        for text in lacking {
            self.output.say(&format!("left out: {text}\n"))?;
        }
        Ok(playable)
    }

    async fn stage(&self, stages: &mut Stages, instances: usize) -> Result<Stage, Error> {
        stages.resize(stages.len().max(instances + 1), None);
        Ok(match &stages[instances] {
            Some(stage) => stage.clone(),
            None => stages[instances].insert(Stage::open(self.config, instances).await?).clone(),
        })
    }

    async fn explore(&mut self, stages: &mut Stages, scene: &Scene) -> Result<Finding, Error> {
        let stage = self.stage(stages, scene.instances).await?;
        let began = Instant::now();
        let mut finding = Finding::new(scene, stage.store_name());
        let bar = bar(scene);
        let asked = &mut self.asked;
        let explored = search::explore(&stage, scene, self.bounds, |found| {
            match found {
                search::Found::Outcome(outcome) => finding.add(*outcome),
                search::Found::TooMany => finding.count_anew(),
            }
            bar.set_message(format!("{} schedules, {} losing", finding.schedules, finding.losing.len()));
            bar.tick();
            // An error says that nobody can ask any more.
            if matches!(asked.try_recv(), Ok(())) { Onward::Stop } else { Onward::Continue }
        });
        let in_scene = |source| Error::Scene { strategies: scene.strategies(), source: Box::new(source) };
        finding.explored = explored.await.map_err(in_scene)?;
        bar.finish_and_clear();
        finding.took = began.elapsed();
        Ok(finding)
    }

    fn tell(&self, findings: &[Finding]) -> Result<(), Error> {
        let Some(first) = findings.first() else { return Ok(()) };
        self.output.say(&report::heading(&first.scene, first.store))?;
        self.output.say(&format!("\n{}\n", report::table(findings)))?;
        for finding in findings {
            self.output.say(&report::notes(finding))?;
        }
        // In the matrix the plainest loss is enough.
        let told = if findings.len() > 2 { 1 } else { findings.len() };
        for finding in findings.iter().filter(|finding| finding.shortest.is_some()).take(told) {
            self.output.say(&report::losing(finding))?;
            if let Some(shortest) = &finding.shortest {
                self.output.say(&report::picture(shortest, &finding.scene, screen::width(), self.output.paint()))?;
                self.output.say(&report::again(&shortest.token(&finding.scene)))?;
                self.output.say("\n")?;
            }
        }
        Ok(())
    }
}

async fn replay(config: &Config, output: &Output, token: &Token, times: u32) -> Result<Found, Error> {
    let stage = Stage::open(config, token.scene.instances).await?;
    let began = Instant::now();
    let mut finding = Finding::new(&token.scene, stage.store_name());
    let first = search::replay(&stage, token).await?;
    output.say(&report::heading(&token.scene, finding.store))?;
    output.say(&format!("{}\n\n", first.schedule))?;
    output.say(&report::picture(&first, &token.scene, screen::width(), output.paint()))?;
    let verdict = (first.judgement.verdict, first.judgement.lost, first.schedule.clone());
    finding.add(first);
    let mut alike = 1;
    for _ in 1..times {
        match search::replay(&stage, token).await {
            Ok(outcome) => {
                let came = (outcome.judgement.verdict, outcome.judgement.lost, outcome.schedule.clone());
                alike += u32::from(came == verdict);
                finding.add(outcome);
            }
            // What was possible the first time is not any more.
            Err(Error::NotPossible { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    if times > 1 {
        output.say(&format!("  the same {alike} times of {times}\n"))?;
    }
    output.say("\n")?;
    let unlike = (times - alike) as usize;
    finding.explored = Explored { coverage: Coverage::Replay, diverged: unlike, given_up: 0 };
    if unlike > 0 {
        finding.broken.push(format!("{unlike} of {times} replays came out otherwise than the first"));
    }
    finding.took = began.elapsed();
    Ok(Found { findings: vec![finding], missing: 0, failure: None })
}

/// A line that counts, on a terminal only, on standard error.
fn bar(scene: &Scene) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_prefix(scene.strategies());
    match ProgressStyle::with_template("{spinner} {prefix}: {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Where results go: text for people, and JSON where it is asked for. A reader that is gone is no error.
struct Output {
    json: Option<Json>,
}

enum Json {
    Stdout,
    File(PathBuf, fs::File),
}

impl Output {
    /// A file that cannot be written is refused now, not after the exploration.
    fn open(json: Option<&Path>) -> Result<Self, Error> {
        let json = match json {
            None => None,
            Some(path) if path == Path::new("-") => Some(Json::Stdout),
            Some(path) => {
                let failed = |source| Error::Json { path: path.to_owned(), source };
                Some(Json::File(path.to_owned(), fs::File::create(path).map_err(failed)?))
            }
        };
        Ok(Self { json })
    }

    fn paint(&self) -> Paint {
        match self.json {
            Some(Json::Stdout) => Paint::suiting(&io::stderr()),
            _ => Paint::suiting(&io::stdout()),
        }
    }

    fn say(&self, text: &str) -> io::Result<()> {
        match self.json {
            Some(Json::Stdout) => unless_gone(io::stderr().lock().write_all(text.as_bytes())),
            _ => unless_gone(io::stdout().lock().write_all(text.as_bytes())),
        }
    }

    fn document(&self, findings: &[Finding], missing: usize) -> Result<(), Error> {
        let Some(json) = &self.json else { return Ok(()) };
        let text = serde_json::to_string_pretty(&report::document(findings, missing)).map_err(io::Error::from)? + "\n";
        match json {
            Json::Stdout => Ok(unless_gone(io::stdout().lock().write_all(text.as_bytes()))?),
            Json::File(path, file) => {
                let mut file = file;
                file.write_all(text.as_bytes()).map_err(|source| Error::Json { path: path.clone(), source })
            }
        }
    }
}

fn unless_gone(written: io::Result<()>) -> io::Result<()> {
    written.or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
}
