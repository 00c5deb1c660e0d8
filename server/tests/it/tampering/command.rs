//! `zbl-server verify`, the program: what it prints, and its exit codes.

use std::process::{Command, Output};

use serde_json::Value;

use super::{account, execute};
use crate::app::{Bench, Database};

async fn run(words: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zbl-server"));
    let directory = tempfile::tempdir().unwrap();
    command.current_dir(&directory).env_clear().arg("verify").args(words);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let Output { status, stdout, stderr } = output;
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_findings_by_lines_and_by_its_exit_code() {
    for database in Database::each() {
        let bench = Bench::open(&database.url, &[]).await;
        let (user_id, other) = (account(&bench).await, account(&bench).await);
        let url = format!("--database-url={}", database.url);
        let (code, said, _) = run(&[&url]).await;
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("10 entries of 2 accounts") && said.ends_with("sound\n"), "{said}");

        let user = format!("--user={user_id}");
        let (code, said, _) = run(&[&url, &user]).await;
        let anchor = said.lines().find_map(|line| line.strip_prefix("anchor: ")).unwrap().to_owned();
        assert!(code == Some(0) && anchor.ends_with("@5"), "{said}");
        let expect = format!("--expect={anchor}");
        assert_eq!(run(&[&url, &user, &expect]).await.0, Some(0));
        let elsewhere = format!("--user={other}");
        let (code, said, _) = run(&[&url, &elsewhere, &expect]).await;
        assert!(code == Some(10) && said.contains("not the one that the anchor was taken of"), "{said}");

        execute(&database, &format!("UPDATE entries SET balance_after = 0 WHERE user_id = {user_id} AND version = 2"));
        let (code, said, _) = run(&[&url]).await;
        assert_eq!(code, Some(10));
        assert!(said.starts_with(&format!("account {user_id}: entry 2 was changed")), "{said}");
        assert!(said.ends_with("unsound; findings: 1\n"), "{said}");
        let (code, said, _) = run(&[&url, "--json"]).await;
        let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [finding, last] = &lines[..] else { panic!("{said}") };
        assert_eq!((code, &finding["finding"], &finding["version"]), (Some(10), &"changed".into(), &2.into()));
        let summary = &last["summary"];
        assert_eq!((&summary["verdict"], &summary["entries"]), (&"unsound".into(), &10.into()));
        assert_eq!((&summary["covered"], &summary["findings"]), (&10.into(), &1.into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_what_keeps_it_from_a_result() {
    let database = Database::sqlite();
    let url = format!("--database-url={}", database.url);
    let (code, _, error) = run(&[&url]).await;
    assert!(code == Some(3) && error.contains("does not exist; name the database"), "{error}");
    Bench::open(&database.url, &[]).await;
    let (code, _, error) = run(&[&url, "--user=7"]).await;
    assert!(code == Some(3) && error.contains("account 7 does not exist"), "{error}");
    let (code, _, error) = run(&["--database-url=mysql://root@127.0.0.1:1/zbl"]).await;
    assert!(code == Some(3) && error.contains("127.0.0.1:1"), "{error}");
    for words in [&["--expect=12"][..], &["--user=1", "--expect=12@1"], &["--user=0"], &["--hash-chain=perhaps"]] {
        let (code, _, error) = run(words).await;
        assert_eq!(code, Some(2), "{words:?}: {error}");
    }
}
