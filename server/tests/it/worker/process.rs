//! `zbl-server worker` and `zbl-server dlq` as processes.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
};

use futures::future::join_all;
use zbl_server::queue::{Destination, Message, Published};

use super::{Scene, message, rabbit};
use crate::app::{Database, deduction, money, until};

fn program(database: &Database, broker: &str, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zbl-server"));
    command.args(words).args(["--database-url", &database.url, "--amqp-url", broker, "--http-addr", "127.0.0.1:0"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// A worker that says it is ready.
fn start(database: &Database, broker: &str, queue: &str) -> Child {
    let mut child = program(database, broker, &["worker", "--queue-name", queue]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("zbl-server worker") && line.contains("http://127.0.0.1:"), "{line:?}");
    child
}

fn dlq(database: &Database, broker: &str, words: &[&str]) -> Output {
    program(database, broker, &[&["dlq"], words].concat()).output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_are_killed_lose_nothing_and_double_nothing() {
    let database = Database::mysql();
    let scene = Scene::open(&database.url, &[]).await;
    let (broker, user_id) = (rabbit().await, scene.bench.account("10000.00").await);
    join_all((0..500).map(|_| scene.accept(deduction(user_id), Some("atomic")))).await;
    for left in [400, 250] {
        let mut child = start(&database, &broker, &scene.name);
        let left = money("5000.00").minor() + left * money("10.00").minor();
        until("it is in the middle of them", async || scene.bench.balance(user_id).await.minor() <= left).await;
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let mut child = start(&database, &broker, &scene.name);
    until("all are made", async || scene.bench.balance(user_id).await == money("5000.00")).await;
    until("none is left", async || scene.queue().depths().await.unwrap().ready == 0).await;
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    assert_eq!((scene.bench.balance(user_id).await, scene.deductions(user_id).await), (money("5000.00"), 500));
}

#[test]
fn without_a_queue_neither_runs() {
    let database = Database::sqlite();
    for words in [&["worker"][..], &["dlq", "list"], &["serve", "--worker", "true"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_zbl-server"))
            .args(words)
            .args(["--database-url", &database.url, "--http-addr", "127.0.0.1:0", "--grpc-addr", "127.0.0.1:0"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains("--amqp-url"), "{words:?}: {output:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_shown_and_decided_on() {
    let database = Database::sqlite();
    let scene = Scene::open(&database.url, &[]).await;
    let (broker, user_id) = (rabbit().await, scene.bench.account("1000.00").await);
    let change = deduction(user_id);
    let reason = Some("UNKNOWN_STRATEGY: there is none \u{1b}[2J".to_owned());
    let letter = Message { strategy: "nonesuch".to_owned(), reason, ..message(change) };
    assert_eq!(scene.queue().publish(&letter, Destination::Dead).await, Published::Confirmed);
    until("it is there", async || scene.queue().depths().await.unwrap().dead == 1).await;

    let id = change.request_id.to_string();
    let run = |words: &[&str]| dlq(&database, &broker, &[words, &["--queue-name", &scene.name]].concat());
    let listed = run(&["list", "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(
        (told["message_id"].as_str(), told["reason"].as_str()),
        (Some(&*id), Some("UNKNOWN_STRATEGY")),
        "{told}"
    );
    assert_eq!((told["amount"].as_str(), told["user_id"].as_i64()), (Some("10.00"), Some(user_id)));
    let shown = run(&["show", &id]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.status.success() && text.contains("strategy nonesuch") && !text.contains('\u{1b}'), "{text}");
    assert_eq!(run(&["show", "nobody"]).status.code(), Some(1));
    assert_eq!(run(&["purge", "--all"]).status.code(), Some(2), "nobody is there to be asked");
    assert_eq!(run(&["requeue", "nobody"]).status.code(), Some(10));
    let purged = run(&["purge", &id, "--yes", "--json"]);
    let told: serde_json::Value = serde_json::from_slice(&purged.stdout).unwrap();
    assert_eq!((purged.status.code(), told["done"].as_i64()), (Some(0), Some(1)), "{told}");
    let text = String::from_utf8(run(&["list"]).stdout).unwrap();
    assert_eq!(text.trim(), "0 dead letters");
}
