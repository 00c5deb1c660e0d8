//! `zbl-server reconcile` as a process: its exit codes, what it tells, and that it ends when it is told to.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Output, Stdio},
    sync::Arc,
};

use serde_json::Value;
use uuid::Uuid;
use zbl_server::{
    account::{EntryKind, Money, NewEntry},
    reconcile::Reconciler,
    store::{AccountWrite, Isolation, RowLock},
};

use super::{loss, race};
use crate::app::{Bench, Database, deduction, money};

fn command(url: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zbl-server"));
    command.env_clear().current_dir(std::env::temp_dir()).args(["reconcile", "--database-url", url]).args(words);
    command
}

/// Exit code and standard output.
async fn run(url: &str, words: &[&str]) -> (i32, String) {
    let mut command = command(url, words);
    let Output { status, stdout, stderr } =
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let told = String::from_utf8_lossy(&stderr);
    assert!(!told.contains("panicked"), "{told}");
    (status.code().unwrap(), String::from_utf8(stdout).unwrap())
}

/// The same as JSON objects, by their types.
async fn run_json(url: &str, words: &[&str]) -> (i32, [Vec<Value>; 3]) {
    let (code, text) = run(url, &[words, &["--json"]].concat()).await;
    let objects: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| objects.iter().filter(|object| object["type"] == kind).cloned().collect();
    assert_eq!(objects.last().unwrap()["type"], "summary");
    (code, [of("lost_update"), of("account"), of("summary")])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_is_found_told_and_repaired_beside_a_running_server() {
    for database in Database::each() {
        let bench = Bench::open(&database.url, &[]).await;
        let mut gauge = Reconciler::new(Arc::clone(&bench.ledger.bench().store));
        let url = &database.url;
        let (sound, user_id) = (bench.account("7.00").await, bench.account("1000.00").await);
        race(
            &bench,
            [deduction(sound), deduction(sound)]
                .map(|change| zbl_server::account::Change { amount: money("1.00"), ..change }),
        )
        .await;
        bench.ledger.reset(sound, money("7.00"), Uuid::new_v4()).await.unwrap();
        let (code, [lost, off, summary]) = run_json(url, &[]).await;
        assert_eq!((code, lost.len(), off.len()), (0, 1, 0), "{summary:?}");
        assert_eq!((&lost[0]["settled"], &lost[0]["user_id"]), (&true.into(), &sound.into()));

        let pair = [deduction(user_id), deduction(user_id)];
        race(&bench, pair).await;
        let (code, [lost, off, summary]) = run_json(url, &[]).await;
        assert_eq!((code, lost.len(), off.len()), (10, 2, 1));
        let update = lost.iter().find(|update| update["settled"] == false).unwrap();
        assert_eq!(update["request_id"], pair[0].request_id.to_string());
        assert_eq!(update["overwriter"]["request_id"], pair[1].request_id.to_string());
        assert_eq!((&update["version_before"], &update["overwriter"]["version"]), (&1.into(), &3.into()));
        assert_eq!((&update["amount"], &off[0]["difference"]), (&"10.00".into(), &"10.00".into()));
        assert_eq!((&off[0]["balance"], &off[0]["expected"]), (&"990.00".into(), &"980.00".into()));
        let figures = ["accounts", "entries", "lost_updates", "settled_lost_updates", "accounts_off"];
        assert_eq!(figures.map(|figure| summary[0][figure].as_i64().unwrap()), [2, 7, 1, 1, 1]);
        assert_eq!((&summary[0]["off_by"], &summary[0]["complete"]), (&"10.00".into(), &true.into()));
        assert_eq!(loss(&mut gauge).await, 1000, "looking repairs nothing");

        let (code, text) = run(url, &["--user", &user_id.to_string()]).await;
        assert_eq!(code, 10, "{text}");
        let [victim, overwriter] = pair.map(|change| change.request_id);
        let tree = format!(
            "account {user_id}\n  v1 ─┬─ ✗ v2 DEDUCT -10.00 by none: 10.00 lost, request {victim}\n      \
             └─   v3 DEDUCT -10.00 by none: had read v1 and wrote over them, request {overwriter}\n"
        );
        assert!(text.starts_with(&tree), "{text}");
        assert!(text.contains("comes to 980.00; difference 10.00\n"), "{text}");

        let (code, text) = run(url, &["--user", &user_id.to_string(), "--repair"]).await;
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("; repaired by v4\n"), "{text}");
        assert_eq!(bench.journal(user_id).await.pop().unwrap().kind, EntryKind::Repair);
        assert_eq!(loss(&mut gauge).await, 0, "the gauge closes");
        for words in [["--all"], ["--repair"]] {
            let (code, [lost, off, _]) = run_json(url, &words).await;
            assert_eq!((code, lost.len(), off.len()), (0, 2, 0), "settled, both of them");
        }
        assert_eq!(bench.ledger.state(user_id).await.unwrap().version, 4, "nothing was left to repair");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_has_a_code_of_its_own() {
    let database = Database::mysql();
    let bench = Bench::open(&database.url, &[]).await;
    let (broken, poor) = (bench.account("1000.00").await, bench.account("15.00").await);
    assert_eq!(run(&database.url, &["--user", "404"]).await.0, 3);
    assert_eq!(run("sqlite:///nowhere/zbl.db", &[]).await.0, 3);
    assert_eq!(run("mysql://root@127.0.0.1:1/zbl", &[]).await.0, 3);
    for usage in [&["--user", "x"][..], &["--user", "0"], &["--user", "1", "--all"], &["--nope"]] {
        assert_eq!(run(&database.url, usage).await.0, 2, "{usage:?}");
    }

    for _ in 2..=4 {
        bench.ledger.apply(deduction(broken), None).await.unwrap();
    }
    let damage = format!("DELETE FROM entries WHERE version = 3 AND user_id = {broken}");
    test_support::query(&database.url, &damage).unwrap();
    let (code, [_, accounts, summary]) = run_json(&database.url, &["--repair"]).await;
    assert_eq!((code, &summary[0]["broken"]), (3, &1.into()));
    assert!(accounts[0]["broken"].as_str().unwrap().contains("version 3 is missing"), "{accounts:?}");

    // A loss that cannot be repaired is a loss, whatever else there is.
    race(&bench, [deduction(poor), deduction(poor)]).await;
    let (code, [_, accounts, summary]) = run_json(&database.url, &["--repair"]).await;
    assert_eq!((code, &summary[0]["repaired"]), (10, &0.into()));
    let failure = accounts.iter().find_map(|account| account["failure"].as_str()).unwrap();
    assert!(failure.contains("deposit at least 5.00"), "{failure}");
}

/// Its reader has stopped reading, so that it stands in the midst of its work; told to end there, it tells what it found.
#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_it_with_what_was_found_so_far() {
    const LOST: i64 = 20_000;
    let database = Database::sqlite();
    let bench = Bench::open(&database.url, &[]).await;
    let user_id = bench.account("1000.00").await;
    for page in 0..LOST / 1000 {
        let mut transaction = bench.ledger.bench().store.transaction(Isolation::ReadCommitted, None);
        transaction.read(user_id, RowLock::Exclusive).await.unwrap();
        let entry = |version| NewEntry {
            user_id,
            version,
            request_id: Uuid::new_v4(),
            kind: EntryKind::Deposit,
            delta: Money::from_minor(1),
            balance_after: money("1000.01"),
            version_before: 1,
            strategy: "none",
        };
        let entries: Vec<NewEntry> = (1..=1000).map(|more| entry(page * 1000 + 1 + more)).collect();
        let account = AccountWrite { user_id, balance: money("1000.01"), entries: 1000 };
        transaction.write_many(&entries, &[account]).await.unwrap();
        transaction.commit().await.unwrap();
    }
    let mut child = command(&database.url, &["--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let read = tokio::task::spawn_blocking(move || {
        let mut told = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        told.read_line(&mut first).unwrap();
        let signal = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(signal.success());
        let mut rest = String::new();
        told.read_to_string(&mut rest).unwrap();
        (child.wait().unwrap().code(), first + &rest)
    });
    let (code, told) = read.await.unwrap();
    let objects: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (summary, lost) = objects.split_last().unwrap();
    assert_eq!((code, &summary["complete"], &summary["failure"]), (Some(3), &false.into(), &"interrupted".into()));
    assert_eq!(summary["lost_updates"], lost.len());
    assert!((1..LOST as usize - 1).contains(&lost.len()), "{}", lost.len());
}
