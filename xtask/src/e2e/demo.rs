//! The demo's claims, read off its result file: `none` loses, and every lost cent is accounted for; every safe strategy
//! loses nothing and sells what there was.

use std::{fs, time::Duration};

use serde_json::Value;
use test_support::{free_port, fresh_database};

use super::{
    attack::{ensure_accounted_loss, ensure_clean},
    checks::{Checks, ensure},
    stage::{Stage, argument, loopback},
    two_servers::{ALWAYS, sold_what_there_was},
};
use crate::command::Failure;

/// The demo aims at half a minute in a debug build on an idle machine.
const TIMEOUT: Duration = Duration::from_secs(300);

pub(super) fn run(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    let mariadb = fresh_database()?;
    // Without a database named, the demo keeps its own in a temporary file.
    for (store, database) in [("SQLite", vec![]), ("MariaDB", vec!["--database-url", &mariadb])] {
        let mut runs = Vec::new();
        checks.check(&format!("demo --exit on {store} ends with 0 and shows a race"), || {
            runs = demo(stage, store, &database)?;
            Ok(())
        });
        let find = |strategy: &str| {
            let found = runs.iter().find(|run| run["strategy"] == strategy);
            found.ok_or_else(|| Failure::Failed(format!("no run of {strategy} in {runs:?}")))
        };
        checks.check(&format!("none on {store} is LOST, every cent accounted for"), || {
            let run = find("none")?;
            ensure(run["verdict"] == "LOST", || run.to_string())?;
            ensure_accounted_loss(run)
        });
        for strategy in ["mutex"].into_iter().chain(ALWAYS) {
            checks.check_and_note(&format!("{strategy} on {store} is CLEAN and sells what there was"), || {
                let run = find(strategy)?;
                ensure_clean(run)?;
                sold_what_there_was(run)
            });
        }
    }
    Ok(())
}

/// Runs the demo and returns the runs of its result file.
fn demo(stage: &Stage, store: &str, database: &[&str]) -> Result<Vec<Value>, Failure> {
    let file = stage.path(&format!("demo-{store}.json"));
    let (grpc, http) = (loopback(free_port()?).to_string(), loopback(free_port()?).to_string());
    let arguments = ["demo", "--exit", "--json", &argument(&file)];
    let mut command = stage.command("zbl-server", &arguments);
    command.args(["--grpc-addr", &grpc, "--http-addr", &http]).args(database);
    stage.run(command, TIMEOUT)?.expect(0)?.saying(&["which had read", "wrote over it", "gone"])?;
    let text = fs::read_to_string(&file).map_err(|error| Failure::Failed(format!("{}: {error}", file.display())))?;
    let result: Value = serde_json::from_str(&text).map_err(|error| Failure::Failed(format!("{error}: {text}")))?;
    result["runs"].as_array().cloned().ok_or_else(|| Failure::Failed(format!("no runs in {text}")))
}
