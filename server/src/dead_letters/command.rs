//! `zbl-server dlq`: dead letters on the command line. It opens RabbitMQ and the database itself, so that no server need run.

use std::{
    io::{self, BufRead, IsTerminal as _, Write},
    sync::Arc,
};

use chrono::SecondsFormat;
use clap::{Args, Subcommand};
use comfy_table::{ContentArrangement, Table, presets::NOTHING};
use serde::Serialize;

use super::{DeadLetters, Tally, Verdict, reason_of};
use crate::{app, config::Config, error, queue::DeadLetter, timeline::Timeline};

/// Letters that `list` tells unless it is told otherwise.
const LISTED: u16 = 100;

/// The options of `dlq`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
    /// Write JSON objects to standard output, one a line, instead of text
    #[arg(long, global = true)]
    json: bool,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
enum Action {
    /// List dead letters, oldest first
    List {
        /// At most so many of them
        #[arg(long, value_name = "N", default_value_t = LISTED, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
    },
    /// Tell everything of one
    Show {
        /// Its message id
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Put dead letters back into the queue, to be tried as often as at first
    Requeue(Meant),
    /// Give dead letters up: bar their deductions from ever taking effect, and remove them
    Purge {
        #[command(flatten)]
        meant: Meant,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Which dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
struct Meant {
    /// Their message ids, as `list` tells them
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all", num_args = 1..=1000)]
    ids: Vec<String>,
    /// All there are
    #[arg(long)]
    all: bool,
}

const HELP: &str = "\
Deductions that could not be made for too long (--queue-attempts), and messages that are none, are laid aside in NAME.dead, where NAME
is --queue-name. GetDeduction says DEAD_LETTERED of them until somebody decides here, or by zbl.v1.QueueService.

  zbl-server dlq list  --amqp-url amqp://127.0.0.1 --database-url mysql://root@127.0.0.1/zbl
  zbl-server dlq show 6f9619ff-8b86-d011-b42d-00cf4fc964ff
  zbl-server dlq requeue 6f9619ff-8b86-d011-b42d-00cf4fc964ff
  zbl-server dlq requeue --all
  zbl-server dlq purge --all --yes
  zbl-server dlq list --json | jq -r 'select(.reason == \"CONTENDED\").message_id' | xargs zbl-server dlq requeue

Give it the servers' --database-url: both sides of a decision are recorded there. To put one back or give one up again after an
interruption does no harm; what was made meanwhile is only removed. What cannot be read can be shown and purged, and is left by
requeue. While letters are looked at, others who look find them missing; at most 1000 are looked at at a time.

--json: `list` and `show` write an object for each letter (message_id, reason, message, user_id, request_id, amount, strategy, attempts,
accepted_at, history; `show` also body), without the fields of the deduction where it cannot be read; `requeue` and `purge` write one
with done, decided (removed, because the deduction was made or had failed by other means) and left.

Exit codes: 0 done; 10 some were left, because they cannot be read or are not there; 1 RabbitMQ or the database does not answer, or
there is no such letter; 2 usage, as without --amqp-url.";

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// All that was asked for.
    Done,
    /// Some letters were left.
    SomeLeft,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no queue.
    #[error("dead letters are in a queue; name its RabbitMQ with --amqp-url, as in --amqp-url amqp://127.0.0.1")]
    NoQueue,
    /// Nobody is there to be asked.
    #[error("purge cannot be undone and asks on a terminal; where there is none, say --yes")]
    Unconfirmed,
    /// The database cannot be opened.
    #[error(transparent)]
    App(#[from] app::Error),
    /// RabbitMQ or the database does not answer, or there is no such letter.
    #[error(transparent)]
    Service(#[from] error::Error),
    /// Standard output failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Arguments {
    /// Does it, writing to `out`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn run(self, mut config: Config, out: &mut impl Write) -> Result<Conclusion, Error> {
        if config.amqp_url.is_none() {
            return Err(Error::NoQueue);
        }
        if let Action::Purge { yes: false, .. } = self.action
            && !io::stdin().is_terminal()
        {
            return Err(Error::Unconfirmed);
        }
        // No balance is read here.
        config.cache = false;
        let timeline = Arc::new(Timeline::new(config.timeline_capacity));
        let (ledger, outbox) = app::ledger_and_outbox(&config, timeline).await?;
        let letters = DeadLetters::of(&ledger, &outbox)?;
        let json = self.json;
        match self.action {
            Action::List { limit } => {
                let (found, total) = letters.list(limit.into()).await?;
                list(out, json, &found, total)?;
                Ok(Conclusion::Done)
            }
            Action::Show { id } => {
                let letter = letters.find(&id).await?;
                show(out, json, &letter)?;
                Ok(Conclusion::Done)
            }
            Action::Requeue(meant) => told(out, json, "put back", &decide(&letters, &meant, Verdict::Requeue).await?),
            Action::Purge { meant, yes } => {
                if !yes && !confirmed(&letters, &meant).await? {
                    return Ok(Conclusion::SomeLeft);
                }
                told(out, json, "given up", &decide(&letters, &meant, Verdict::Purge).await?)
            }
        }
    }
}

/// Goes on with `--all` for as long as there are more and some of them can be decided on: what is left comes first each time.
async fn decide(letters: &DeadLetters, meant: &Meant, verdict: Verdict) -> Result<Tally, Error> {
    let mut sum = Tally::default();
    loop {
        let tally = letters.decide(&meant.ids, verdict).await?;
        sum = Tally { done: sum.done + tally.done, decided: sum.decided + tally.decided, ..tally };
        if !meant.all || !tally.more || tally.done + tally.decided == 0 {
            return Ok(sum);
        }
    }
}

async fn confirmed(letters: &DeadLetters, meant: &Meant) -> Result<bool, Error> {
    let count = if meant.all { letters.list(1).await?.1 } else { meant.ids.len() as u64 };
    write!(io::stderr().lock(), "Give {} up for good? [y/N] ", counted(count))?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn counted(count: u64) -> String {
    format!("{count} dead letter{}", if count == 1 { "" } else { "s" })
}

/// A letter, as JSON tells it.
#[derive(Serialize)]
struct Told<'a> {
    message_id: &'a str,
    reason: &'a str,
    message: &'a str,
    #[serde(flatten)]
    deduction: Option<Deduction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
}

#[derive(Serialize)]
struct Deduction {
    user_id: i64,
    request_id: String,
    amount: String,
    strategy: String,
    attempts: u32,
    accepted_at: String,
    history: Vec<String>,
}

impl<'a> Told<'a> {
    fn of(letter: &'a DeadLetter) -> Self {
        let (reason, message) = reason_of(letter);
        let deduction = letter.raw.decode().ok().map(|deduction| Deduction {
            user_id: deduction.user_id,
            request_id: deduction.request_id.to_string(),
            amount: deduction.amount.to_string(),
            strategy: deduction.strategy,
            attempts: deduction.attempts,
            accepted_at: deduction.accepted_at.and_utc().to_rfc3339_opts(SecondsFormat::Millis, true),
            history: deduction.history,
        });
        Self { message_id: &letter.id, reason, message, deduction, body: None }
    }
}

fn list(out: &mut impl Write, json: bool, letters: &[DeadLetter], total: u64) -> io::Result<()> {
    if json {
        return letters.iter().try_for_each(|letter| line(out, &Told::of(letter)));
    }
    if !letters.is_empty() {
        let mut table = Table::new();
        table.load_preset(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["message id", "reason", "user", "amount", "attempts", "accepted"]);
        for letter in letters {
            let Told { message_id, reason, deduction, .. } = Told::of(letter);
            let of_deduction = deduction.map_or_else(Default::default, |deduction| {
                let Deduction { user_id, amount, attempts, accepted_at, .. } = deduction;
                [user_id.to_string(), amount, attempts.to_string(), accepted_at]
            });
            table.add_row([printable(message_id), printable(reason)].into_iter().chain(of_deduction));
        }
        writeln!(out, "{}\n", table.trim_fmt())?;
    }
    let shown = letters.len();
    let rest = if total > shown as u64 { format!(", the oldest {shown} shown") } else { String::new() };
    writeln!(out, "{}{rest}", counted(total))
}

fn show(out: &mut impl Write, json: bool, letter: &DeadLetter) -> io::Result<()> {
    let body = String::from_utf8_lossy(letter.raw.body()).into_owned();
    let told = Told { body: Some(body), ..Told::of(letter) };
    if json {
        return line(out, &told);
    }
    writeln!(out, "message id  {}", printable(told.message_id))?;
    writeln!(out, "reason      {}: {}", printable(told.reason), printable(told.message))?;
    if let Some(deduction) = &told.deduction {
        let Deduction { user_id, request_id, amount, strategy, attempts, accepted_at, history } = deduction;
        let strategy = if strategy.is_empty() { "(the worker's)" } else { strategy };
        let strategy = printable(strategy);
        writeln!(out, "deduction   {amount} of account {user_id}, request {request_id}, strategy {strategy}")?;
        writeln!(out, "accepted    {accepted_at}")?;
        writeln!(out, "attempts    {attempts}")?;
        for line in history {
            writeln!(out, "            {}", printable(line))?;
        }
    }
    writeln!(out, "body        {}", printable(&told.body.unwrap_or_default()))
}

fn told(out: &mut impl Write, json: bool, done: &str, tally: &Tally) -> Result<Conclusion, Error> {
    let Tally { done: count, decided, left, .. } = *tally;
    if json {
        line(out, &serde_json::json!({ "done": count, "decided": decided, "left": left }))?;
    } else {
        writeln!(out, "{} {done}, {decided} decided by other means and removed, {left} left", counted(count))?;
    }
    Ok(if left == 0 { Conclusion::Done } else { Conclusion::SomeLeft })
}

fn line(out: &mut impl Write, told: &impl Serialize) -> io::Result<()> {
    writeln!(out, "{}", serde_json::to_string(told)?)
}

/// What strangers wrote, without what a terminal would obey.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_wrote_cannot_drive_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc"), "a\u{fffd}[2Jb\u{fffd}c");
    }
}
