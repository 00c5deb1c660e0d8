//! The demo's claims, read off its result file: `none` loses, and every lost cent is accounted for; every safe strategy
//! loses nothing and sells what there was.

use std::time::Duration;

use serde_json::Value;
use test_support::{free_port, fresh_database};

use super::{
    attack::{check_clean, ensure_accounted_loss, runs},
    checks::{Checks, ensure},
    stage::{Stage, argument, loopback},
    three_servers::ALWAYS,
};
use crate::command::Failure;

/// The demo aims at half a minute in a debug build on an idle machine.
const TIMEOUT: Duration = Duration::from_secs(300);

pub(super) fn run(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    let mariadb = fresh_database()?;
    // Without a database named, the demo keeps its own in a temporary file.
    for (store, database) in [("SQLite", vec![]), ("MariaDB", vec!["--database-url", &mariadb])] {
        let mut shown = Vec::new();
        checks.check(&format!("demo --exit on {store} ends with 0 and shows a race"), || {
            shown = demo(stage, store, &database)?;
            Ok(())
        });
        checks.check(&format!("none on {store} is LOST, every cent accounted for"), || {
            let none = shown.iter().find(|run| run["strategy"] == "none");
            let none = none.ok_or_else(|| Failure::Failed("no run of it".into()))?;
            ensure(none["verdict"] == "LOST", || none.to_string())?;
            ensure_accounted_loss(none)
        });
        check_clean(checks, store, &shown, "ONE_PROCESS", &["mutex"]);
        check_clean(checks, store, &shown, "ALWAYS", &ALWAYS);
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
    let witness = ["which had read", "wrote over it", "gone"];
    // What the picture of a race says below its two lanes.
    let picture = ["-10.00 LOST", "overwrites A"];
    stage.run(command, TIMEOUT)?.expect(0)?.saying(&witness)?.saying(&picture)?;
    runs(&file)
}
