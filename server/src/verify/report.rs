//! A verification as a command: progress on standard error, findings and the summary on standard output, for people or for
//! programs. A reader that is gone is no error: the exit code still tells.

use std::{
    io::{self, Write as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::{Arguments, Error, Finding, Scope, Tally, Told, verify};
use crate::{
    app,
    config::{Config, DatabaseUrl},
    shutdown::Shutdown,
};

/// The version of the JSON.
const SCHEMA_VERSION: u32 = 1;

/// What a verification came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was found.
    Sound,
    /// Something was found.
    Unsound,
}

/// Verifies the configured database, and prints what comes of it.
///
/// # Errors
/// [`Error`]; what was found until then has been printed.
pub async fn run(arguments: Arguments, config: &Config) -> Result<Verdict, Error> {
    let Shutdown { mut asked, .. } = Shutdown::listen()?;
    if let DatabaseUrl::Sqlite(path) = &config.database_url
        && !path.exists()
    {
        // Opening it would make it.
        return Err(Error::NoSuchFile { path: path.display().to_string() });
    }
    let mut output = Output { arguments, bar: bar(), began: Instant::now(), so_far: Tally::default() };
    let verified = tokio::select! {
        verified = async {
            let store = app::open_store(config).await?;
            verify(&*store, arguments.scope(), |told| output.tell(told)).await
        } => verified,
        _ = &mut asked => Err(Error::Interrupted),
    };
    output.bar.finish_and_clear();
    match verified {
        Ok(tally) => {
            let (verdict, name) =
                if tally.findings == 0 { (Verdict::Sound, "sound") } else { (Verdict::Unsound, "unsound") };
            output.summary(&tally, name)?;
            Ok(verdict)
        }
        Err(Error::Interrupted) => {
            output.summary(&output.so_far, "interrupted")?;
            Err(Error::Interrupted)
        }
        Err(error) => Err(error),
    }
}

/// A line that counts, on a terminal only, on standard error.
fn bar() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    match ProgressStyle::with_template("{spinner} {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

struct Output {
    arguments: Arguments,
    bar: ProgressBar,
    began: Instant,
    so_far: Tally,
}

#[derive(Serialize)]
struct FindingLine<'a> {
    finding: &'a str,
    user_id: i64,
    version: i64,
    to_version: i64,
    message: String,
}

#[derive(Serialize)]
struct SummaryLine<'a> {
    summary: Summary<'a>,
}

#[derive(Serialize)]
struct Summary<'a> {
    schema_version: u32,
    verdict: &'a str,
    accounts: u64,
    entries: u64,
    covered: u64,
    not_covered: u64,
    findings: u64,
    /// Of `--user` alone: DIGEST@VERSION.
    anchor: Option<String>,
    duration_ms: u64,
    entries_per_s: u64,
}

impl Output {
    fn tell(&mut self, told: Told<'_>) -> io::Result<()> {
        match told {
            Told::Found(finding) => self.bar.suspend(|| self.found(finding)),
            Told::SoFar(tally) => {
                self.so_far = *tally;
                let Tally { accounts, entries, findings, .. } = tally;
                self.bar.set_message(format!("{entries} entries of {accounts} accounts, {findings} findings"));
                self.bar.tick();
                Ok(())
            }
        }
    }

    fn found(&self, finding: &Finding) -> io::Result<()> {
        let Finding { user_id, what } = finding;
        if !self.arguments.json {
            return say(&format!("account {user_id}: {what}\n"));
        }
        let (version, to_version) = what.versions();
        let message = what.to_string();
        say_json(&FindingLine { finding: what.label(), user_id: *user_id, version, to_version, message })
    }

    fn summary(&self, tally: &Tally, verdict: &str) -> io::Result<()> {
        let took = self.began.elapsed();
        let of_one = matches!(self.arguments.scope(), Scope::One(..));
        let anchor = tally.newest.filter(|_| of_one).map(|anchor| anchor.to_string());
        if !self.arguments.json {
            return say(&text(tally, verdict, anchor.as_deref(), took));
        }
        let Tally { accounts, entries, covered, findings, .. } = *tally;
        say_json(&SummaryLine {
            summary: Summary {
                schema_version: SCHEMA_VERSION,
                verdict,
                accounts,
                entries,
                covered,
                not_covered: entries - covered,
                findings,
                anchor,
                duration_ms: took.as_millis() as u64,
                entries_per_s: rate(entries, took),
            },
        })
    }
}

/// The summary, for people.
fn text(tally: &Tally, verdict: &str, anchor: Option<&str>, took: Duration) -> String {
    let Tally { accounts, entries, covered, findings, .. } = *tally;
    let (seconds, rate) = (took.as_secs_f64(), rate(entries, took));
    let mut text = format!("{entries} entries of {accounts} accounts in {seconds:.1} s, {rate} a second\n");
    if covered == 0 && entries > 0 {
        text += "not one of them has a digest: they were written without the chain (--hash-chain)\n";
    } else if covered < entries {
        text += &format!("{} of them are not covered: no digest, or behind a gap\n", entries - covered);
    }
    if let Some(anchor) = anchor {
        text += &format!("anchor: {anchor}\n");
    }
    text + &match findings {
        0 => format!("{verdict}\n"),
        findings => format!("{verdict}; findings: {findings}\n"),
    }
}

fn rate(entries: u64, took: Duration) -> u64 {
    (entries as f64 / took.as_secs_f64().max(f64::EPSILON)) as u64
}

fn say_json(line: &impl Serialize) -> io::Result<()> {
    say(&(serde_json::to_string(line).map_err(io::Error::from)? + "\n"))
}

fn say(text: &str) -> io::Result<()> {
    let said = io::stdout().lock().write_all(text.as_bytes());
    said.or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
}
