//! What `zbl-server reconcile` prints, as it is found: trees for people, or JSON, one object a line. It keeps the victims
//! of one overwriter at a time, and of those only what is shown. A reader that is gone is no error: the exit code tells.

use std::{
    io::{self, Write},
    time::Duration,
};

use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::command::Error;
use crate::{
    account::{Entry, Money, State},
    error,
    history::{
        Broken,
        losses::{Expected, Lost, Survivor},
    },
};

/// Victims drawn below one overwriter; an attack can leave hundreds.
const DRAWN_MOST: usize = 5;

/// How it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Json,
}

/// What there is to say of an account whose balance is not what it should be.
pub(super) enum Finding {
    /// It is off.
    Off {
        expected: Expected,
        difference: Money,
        /// The version of its REPAIR (0: it was sound by then), or why there is none; `None` where none was asked for.
        repair: Option<Result<i64, error::Error>>,
    },
    /// What it should be cannot be told.
    Broken(Broken),
}

/// What was found in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) accounts: u64,
    pub(super) entries: u64,
    /// Lost updates since the newest OPEN, RESET or REPAIR of their accounts.
    pub(super) lost: u64,
    /// Those before it.
    pub(super) settled: u64,
    /// Accounts whose balances were off.
    pub(super) off: u64,
    /// By how much, either way, in all, minor units.
    pub(super) gone: u128,
    /// Those of them that are sound now.
    pub(super) repaired: u64,
    /// Accounts whose journals cannot be folded.
    pub(super) broken: u64,
    pub(super) took: Duration,
}

/// The updates that one entry wrote over.
struct Tree {
    overwriter: Survivor,
    /// The newest of the victims.
    victims: Vec<Lost>,
    more: u64,
}

pub(super) struct Report {
    form: Form,
    /// Whose line has to make room for ours.
    bar: ProgressBar,
    tree: Option<Tree>,
    /// Whether this account's heading is written.
    headed: bool,
}

impl Report {
    pub(super) const fn new(form: Form, bar: ProgressBar) -> Self {
        Self { form, bar, tree: None, headed: false }
    }

    fn say(&self, text: &str) -> io::Result<()> {
        let write = || io::stdout().lock().write_all(text.as_bytes());
        let written = self.bar.suspend(write);
        written.or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
    }

    fn object(&self, object: &Value) -> io::Result<()> {
        self.say(&format!("{object}\n"))
    }

    /// The next lost update. Those of one overwriter come one after the other.
    pub(super) fn lost(&mut self, lost: Lost) -> io::Result<()> {
        if self.form == Form::Json {
            return self.object(&lost_update(&lost));
        }
        match &mut self.tree {
            Some(tree) if tree.overwriter == lost.overwriter && tree.victims.len() < DRAWN_MOST => {
                tree.victims.push(lost);
            }
            Some(tree) if tree.overwriter == lost.overwriter => tree.more += 1,
            _ => {
                self.draw(lost.entry.user_id)?;
                self.tree = Some(Tree { overwriter: lost.overwriter.clone(), victims: vec![lost], more: 0 });
            }
        }
        Ok(())
    }

    /// The account's journal is read to its end.
    pub(super) fn end_of_journal(&mut self, user_id: i64) -> io::Result<()> {
        self.draw(user_id)?;
        self.headed = false;
        Ok(())
    }

    fn draw(&mut self, user_id: i64) -> io::Result<()> {
        let Some(tree) = self.tree.take() else { return Ok(()) };
        let heading = if self.headed { String::new() } else { format!("account {user_id}\n") };
        self.headed = true;
        self.say(&(heading + &tree.drawn()))
    }

    /// An account whose balance is not what it should be.
    pub(super) fn account(&self, user_id: i64, stored: State, finding: &Finding) -> io::Result<()> {
        match self.form {
            Form::Json => self.object(&account(user_id, stored, finding)),
            Form::Text => self.say(&line(user_id, stored, finding)),
        }
    }

    /// The end, and why it came early.
    pub(super) fn summary(&self, summary: &Summary, failure: Option<&Error>) -> io::Result<()> {
        match self.form {
            Form::Json => self.object(&summary_object(summary, failure)),
            Form::Text => self.say(&summary_text(summary, failure)),
        }
    }
}

impl Tree {
    /// The entry that was read, and what hangs below it: the victims, and their overwriter last.
    fn drawn(&self) -> String {
        let Self { overwriter, victims, more } = self;
        let mut stem = format!("  v{} ─┬─ ", overwriter.version_before);
        let below = format!("{}├─ ", " ".repeat(stem.chars().count() - 3));
        let mut drawn = String::new();
        let mut branch = |text: String| {
            drawn += &std::mem::replace(&mut stem, below.clone());
            drawn += &text;
            drawn.push('\n');
        };
        if *more > 0 {
            branch(format!("✗ {more} older ones"));
        }
        for Lost { entry, amount, settled, .. } in victims.iter().rev() {
            let Entry { version, version_before, request_id, .. } = entry;
            let read = if *version_before == overwriter.version_before {
                String::new()
            } else {
                format!(", had read v{version_before}")
            };
            let settled = if *settled { ", settled since" } else { "" };
            let what = change(entry.kind.name(), entry.delta, &entry.strategy);
            branch(format!("✗ v{version} {what}: {amount} lost{settled}{read}, request {request_id}"));
        }
        let last = format!("{}└─ ", " ".repeat(below.chars().count() - 3));
        let what = change(overwriter.kind.name(), overwriter.delta, &overwriter.strategy);
        let had_read = format!("had read v{} and wrote over them", overwriter.version_before);
        drawn + &format!("{last}  v{} {what}: {had_read}, request {}\n", overwriter.version, overwriter.request_id)
    }
}

fn change(kind: &str, delta: Money, strategy: &str) -> String {
    let by = if strategy.is_empty() { String::new() } else { format!(" by {strategy}") };
    format!("{kind} {delta}{by}")
}

fn line(user_id: i64, stored: State, finding: &Finding) -> String {
    let State { balance, version } = stored;
    match finding {
        Finding::Broken(broken) => format!("account {user_id} cannot be judged: {broken}\n"),
        Finding::Off { expected: Expected { balance: expected, since, lost }, difference, repair } => {
            let explained = match *lost == *difference {
                true => String::new(),
                false => format!("; lost updates make {lost} of it, the balance was changed otherwise as well"),
            };
            let repair = match repair {
                None => String::new(),
                Some(Ok(0)) => "; it was right again before it could be repaired".to_owned(),
                Some(Ok(version)) => format!("; repaired by v{version}"),
                Some(Err(error)) => format!("; NOT REPAIRED: {error}"),
            };
            format!(
                "account {user_id}: the balance is {balance} at v{version}, its journal since v{since} comes to {expected}; \
                 difference {difference}{explained}{repair}\n"
            )
        }
    }
}

fn summary_text(summary: &Summary, failure: Option<&Error>) -> String {
    let Summary { accounts, entries, lost, settled, off, gone, repaired, broken, took } = *summary;
    let rate = entries as f64 / took.as_secs_f64();
    let mut text = format!(
        "{accounts} accounts, {entries} entries in {:.1} s ({rate:.0} a second); lost updates: {lost}, and {settled} \
         that are settled\n",
        took.as_secs_f64()
    );
    let mut say = |line: &str| text += line;
    match off {
        0 => say("Every balance is what its journal comes to.\n"),
        _ => say(&format!("Balances that were off: {off}, by {} in all; repaired: {repaired}.\n", decimal(gone))),
    }
    if broken > 0 {
        say(&format!("Journals that are broken, so that nobody can judge their balances: {broken}.\n"));
    }
    if let Some(failure) = failure {
        say(&format!("It did not come to its end: {failure}\n"));
    }
    text
}

fn lost_update(lost: &Lost) -> Value {
    let Lost { entry, overwriter, amount, settled } = lost;
    json!({
        "type": "lost_update",
        "user_id": entry.user_id,
        "version": entry.version,
        "request_id": entry.request_id,
        "kind": entry.kind.name(),
        "delta": entry.delta.to_string(),
        "strategy": entry.strategy,
        "version_before": entry.version_before,
        "amount": amount.to_string(),
        "settled": settled,
        "overwriter": {
            "version": overwriter.version,
            "request_id": overwriter.request_id,
            "kind": overwriter.kind.name(),
            "delta": overwriter.delta.to_string(),
            "strategy": overwriter.strategy,
            "version_before": overwriter.version_before,
        },
    })
}

fn account(user_id: i64, stored: State, finding: &Finding) -> Value {
    let State { balance, version } = stored;
    let mut account = json!({
        "type": "account",
        "user_id": user_id,
        "version": version,
        "balance": balance.to_string(),
    });
    let more = match finding {
        Finding::Broken(broken) => json!({ "broken": broken.to_string() }),
        Finding::Off { expected, difference, repair } => json!({
            "expected": expected.balance.to_string(),
            "since_version": expected.since,
            "difference": difference.to_string(),
            "explained": expected.lost.to_string(),
            "repaired": matches!(repair, Some(Ok(_))),
            "repair_version": repair.as_ref().and_then(|repair| repair.as_ref().ok()).filter(|version| **version > 0),
            "failure": repair.as_ref().and_then(|repair| repair.as_ref().err()).map(ToString::to_string),
        }),
    };
    if let (Some(account), Value::Object(more)) = (account.as_object_mut(), more) {
        account.extend(more);
    }
    account
}

fn summary_object(summary: &Summary, failure: Option<&Error>) -> Value {
    let Summary { accounts, entries, lost, settled, off, gone, repaired, broken, took } = *summary;
    json!({
        "type": "summary",
        "accounts": accounts,
        "entries": entries,
        "lost_updates": lost,
        "settled_lost_updates": settled,
        "accounts_off": off,
        "off_by": decimal(gone),
        "repaired": repaired,
        "broken": broken,
        "complete": failure.is_none(),
        "failure": failure.map(ToString::to_string),
        "duration_ms": took.as_millis() as u64,
    })
}

/// Minor units as a decimal string: a sum over accounts may be more than one of them can hold.
fn decimal(minor: u128) -> String {
    format!("{}.{:02}", minor / 100, minor % 100)
}
