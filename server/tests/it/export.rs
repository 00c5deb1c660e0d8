//! The journal as files: whole, as the formats want it, and never half.

use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
};

use test_support::Process;
use uuid::Uuid;
use zbl_server::{
    account::{Entry, EntryKind, Money},
    cli::{self, Invocation},
    export::{Error, Exported},
};

use crate::{
    app::{Bench, Database, PATIENCE, money, until},
    entries::history::History,
};

/// Runs `export` as the command line says.
async fn export(url: &str, words: &[&str]) -> Result<Exported, Error> {
    let all = [&["zbl-server", "--database-url", url, "export"], words].concat();
    let invocation = Invocation::parse(all.into_iter().map(Into::into), &|_| None, Path::new("/nowhere")).unwrap();
    let cli::Command::Export(arguments) = invocation.command else { panic!("{:?}", invocation.command) };
    arguments.run(&invocation.config).await
}

/// An export into a file, and what is in it.
async fn exported(url: &str, words: &[&str]) -> (Exported, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("journal");
    let exported = export(url, &[words, &["--output", file.to_str().unwrap()]].concat()).await.unwrap();
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "something is left beside it");
    (exported, fs::read_to_string(file).unwrap())
}

/// Two accounts of more than a page together, one of them with branches, and one without a change.
async fn journal(bench: &Bench) -> Vec<Entry> {
    let store = &bench.ledger.bench().store;
    History::of(5, 1).append(&**store, 700, |version| (EntryKind::Deduct, version - 1)).await;
    History::of(6, 2).grow(&**store, 1000).await;
    History::of(7, 3).append(&**store, 1, |_| unreachable!()).await;
    let mut journal = Vec::new();
    for user_id in 5..=7 {
        journal.extend(store.entries(user_id, 0, 10_000).await.unwrap());
    }
    assert_eq!(journal.len(), 1701);
    journal
}

fn fields(entry: &Entry) -> [String; 9] {
    [
        entry.user_id.to_string(),
        entry.version.to_string(),
        entry.request_id.to_string(),
        entry.kind.name().to_owned(),
        entry.delta.to_string(),
        entry.balance_after.to_string(),
        entry.version_before.to_string(),
        entry.strategy.clone(),
        entry.created_at.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_hold_every_entry_once() {
    for database in Database::each() {
        let bench = Bench::open(&database.url, &[]).await;
        let journal = journal(&bench).await;
        let (told, csv) = exported(&database.url, &["--all", "--format", "csv"]).await;
        assert_eq!(told, Exported { entries: 1701, accounts: 3 });
        assert!(csv.lines().count() == 1702 && csv.matches("\r\n").count() == 1702, "RFC 4180 ends lines with both");
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        let header = reader.headers().unwrap().clone();
        let rows: Vec<Vec<String>> =
            reader.records().map(|row| row.unwrap().iter().map(str::to_owned).collect()).collect();
        assert!(rows.iter().zip(&journal).all(|(row, entry)| *row == fields(entry)));

        let (_, lines) = exported(&database.url, &["--all", "--format", "ndjson"]).await;
        assert_eq!(lines.lines().count(), 1701);
        for (line, entry) in lines.lines().zip(&journal) {
            let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).unwrap();
            assert_eq!(object.len(), header.len());
            for (name, field) in header.iter().zip(fields(entry)) {
                let text = object[name].as_str().map_or_else(|| object[name].to_string(), str::to_owned);
                assert_eq!(text, field, "{name}");
            }
        }

        let (told, one) = exported(&database.url, &["--user", "6", "--format", "csv"]).await;
        assert_eq!((told, one.lines().count()), (Exported { entries: 1000, accounts: 1 }, 1001));
    }
}

/// What stands in a posting: account, amount, and the balance asserted.
type Posting = (String, Money, Option<Money>);

/// The transactions of a file of books: code, title and postings.
fn transactions(books: &str) -> Vec<(String, Vec<Posting>)> {
    let mut transactions: Vec<(String, Vec<Posting>)> = Vec::new();
    for line in books.lines().filter(|line| !line.trim_start().starts_with(';') && !line.is_empty()) {
        let Some(posting) = line.strip_prefix("    ") else {
            let (date, title) = line.split_once(" * ").unwrap();
            date.parse::<chrono::NaiveDate>().unwrap();
            transactions.push((title.to_owned(), Vec::new()));
            continue;
        };
        // Two blanks end the account's name.
        let (account, amounts) = posting.split_once("  ").unwrap();
        let (amount, left) = match amounts.split_once('=') {
            Some((amount, left)) => (amount, Some(money(left.trim()))),
            None => (amounts, None),
        };
        transactions.last_mut().unwrap().1.push((account.to_owned(), money(amount.trim()), left));
    }
    transactions
}

/// Checks what a program for such books checks, and adds up the accounts.
fn balances(transactions: &[(String, Vec<Posting>)]) -> BTreeMap<String, i64> {
    let mut balances = BTreeMap::new();
    for (title, postings) in transactions {
        assert_eq!(postings.iter().map(|(_, amount, _)| amount.minor()).sum::<i64>(), 0, "{title} does not balance");
        for (account, amount, left) in postings {
            let balance = balances.entry(account.clone()).or_insert(0);
            *balance += amount.minor();
            assert!(left.is_none_or(|left| left.minor() == *balance), "{title}: {account} is {balance}, not {left:?}");
        }
    }
    balances
}

#[tokio::test(flavor = "multi_thread")]
async fn books_balance_and_tell_what_was_lost() {
    for database in Database::each() {
        let bench = Bench::open(&database.url, &[]).await;
        let journal = journal(&bench).await;
        let (_, books) = exported(&database.url, &["--all", "--format", "ledger"]).await;
        let transactions = transactions(&books);
        assert_eq!(transactions.len(), 1701);
        let asserted = |(_, postings): &(String, Vec<Posting>)| postings.iter().any(|(.., left)| left.is_some());
        assert!(transactions.iter().all(asserted));
        let balances = balances(&transactions);
        for user_id in 5..=7 {
            let last = journal.iter().rfind(|entry| entry.user_id == user_id).unwrap();
            assert_eq!(balances[&format!("Assets:Account:{user_id}")], last.balance_after.minor());
        }
        let of = |kind: EntryKind| journal.iter().filter(|e| e.kind == kind).map(|e| e.delta.minor()).sum::<i64>();
        for (account, kind) in [
            ("Equity:Opening", EntryKind::Open),
            ("Expenses:Deductions", EntryKind::Deduct),
            ("Income:Deposits", EntryKind::Deposit),
            ("Equity:Reset", EntryKind::Reset),
            ("Equity:Repair", EntryKind::Repair),
        ] {
            assert_eq!(balances[account], -of(kind), "{account}");
        }
        // The sum of what each write destroyed: what its parent left behind less what was there.
        let left = |user_id, version| {
            let found = journal.iter().find(|entry| (entry.user_id, entry.version) == (user_id, version));
            found.map_or(0, |entry| entry.balance_after.minor())
        };
        let destroyed =
            |entry: &Entry| left(entry.user_id, entry.version_before) - left(entry.user_id, entry.version - 1);
        let lost: i64 = journal.iter().filter(|entry| entry.user_id == 6).map(destroyed).sum();
        assert_ne!(lost, 0);
        assert_eq!(balances["Loss:Overwritten"], -lost);
        assert!(!balances.contains_key("Equity:Unjournaled"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_period_begins_with_what_was_carried_forward() {
    let database = Database::sqlite();
    let bench = Bench::open(&database.url, &[]).await;
    let store = &bench.ledger.bench().store;
    let mut history = History::of(5, 1);
    for _ in 0..30 {
        history.grow(&**store, 10).await;
    }
    let journal = store.entries(5, 0, 1000).await.unwrap();
    let [from, to] = [100, 200].map(|at: usize| journal[at].created_at);
    let inside: Vec<_> = journal.iter().filter(|entry| (from..to).contains(&entry.created_at)).collect();
    let [from, to] = [from, to].map(|time| time.and_utc().to_rfc3339());
    let period = ["--all", "--from", &from, "--to", &to, "--format"];
    let (told, csv) = exported(&database.url, &[&period[..], &["csv"]].concat()).await;
    assert_eq!((told.entries, csv.lines().count()), (inside.len() as u64, inside.len() + 1));
    let (_, books) = exported(&database.url, &[&period[..], &["ledger"]].concat()).await;
    let transactions = transactions(&books);
    let balances = balances(&transactions);
    assert_eq!(balances["Assets:Account:5"], inside.last().unwrap().balance_after.minor());
    let before = journal[usize::try_from(inside[0].version).unwrap() - 2].balance_after;
    assert_eq!(balances["Equity:Carried"], -before.minor());
    let swapped = ["--all", "--from", &to, "--to", &from, "--format", "csv"];
    assert!(matches!(export(&database.url, &swapped).await, Err(Error::Period)));
}

/// A change of the balance that the journal does not explain is told, not hidden in an entry.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_entry_explains_stands_apart() {
    let database = Database::mysql();
    let bench = Bench::open(&database.url, &[]).await;
    let user_id = bench.account("100.00").await;
    test_support::query(&database.url, &format!("UPDATE accounts SET balance = 130 WHERE user_id = {user_id}"))
        .unwrap();
    bench.ledger.reset(user_id, money("50.00"), Uuid::new_v4()).await.unwrap();
    let (_, books) = exported(&database.url, &["--all", "--format", "ledger"]).await;
    let balances = balances(&transactions(&books));
    let expected = [("Equity:Opening", -10_000), ("Equity:Reset", 8000), ("Equity:Unjournaled", -3000)];
    for (account, balance) in expected {
        assert_eq!(balances[account], balance, "{account}: {books}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_replaced_whole_or_not_at_all() {
    let database = Database::sqlite();
    let bench = Bench::open(&database.url, &[]).await;
    let user_id = bench.account("1.00").await.to_string();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("journal.csv");
    fs::write(&file, "before").unwrap();
    let words = |user: &str, file: &Path| {
        ["--user", user, "--format", "csv", "--output", file.to_str().unwrap()].map(str::to_owned)
    };
    let run = async |user: &str, file: &Path| {
        let words = words(user, file);
        export(&database.url, &words.each_ref().map(String::as_str)).await
    };
    assert!(matches!(run("404", &file).await, Err(Error::NoAccount(404))));
    assert_eq!(fs::read_to_string(&file).unwrap(), "before");
    for wrong in [directory.path().to_owned(), directory.path().join("absent/journal.csv")] {
        assert!(matches!(run(&user_id, &wrong).await, Err(Error::Output { .. })), "{}", wrong.display());
    }
    // A pipe that somebody reads is not replaced by a file.
    let pipe = directory.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(matches!(run(&user_id, &pipe).await, Err(Error::Output { .. })));
    assert!(!pipe.is_file());
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 2, "something is left beside it");
    run(&user_id, &file).await.unwrap();
    assert!(fs::read_to_string(&file).unwrap().starts_with("user_id,version,"));
}

fn program(url: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zbl-server"));
    command.env_clear().current_dir("/").args(["--database-url", url, "export"]).args(words);
    command
}

/// Whoever reads the pipe has had enough.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_pipe_is_no_failure() {
    let database = Database::sqlite();
    let bench = Bench::open(&database.url, &[]).await;
    History::of(5, 1).append(&*bench.ledger.bench().store, 5000, |version| (EntryKind::Deduct, version - 1)).await;
    let mut child = program(&database.url, &["--all", "--format", "ndjson"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 10];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"{\"user_id\"");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Interrupted while it waits for a database that does not answer.
#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_leaves_no_half_file() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("mysql://root@{}/zbl", silent.local_addr().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("journal.csv");
    let command = program(&url, &["--all", "--format", "csv", "--output", file.to_str().unwrap()]);
    let mut export = Process::spawn(command).unwrap();
    let left = || fs::read_dir(&directory).unwrap().count();
    until("it has begun", async || left() == 1).await;
    // When it asks the database it listens for signals.
    let _link = tokio::task::spawn_blocking(move || silent.accept().unwrap()).await.unwrap();
    let interrupted = Command::new("kill").args(["-INT", &export.pid().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let status = export.wait(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(1), "{}", export.output());
    assert!(export.output().contains("interrupted"), "{}", export.output());
    assert_eq!(left(), 0, "something is left behind");
}
