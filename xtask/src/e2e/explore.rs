//! The schedule explorer as a user runs it: it catches `none` and prints a token that loses again every time, finds no
//! losing schedule of what promises Always, and is through with the whole matrix on MariaDB within a minute.

use std::{fs, time::Duration};

use serde_json::Value;
use test_support::fresh_database;

use super::{
    checks::{Checks, ensure},
    stage::{Ended, Stage, argument},
};
use crate::command::Failure;

/// The explorer's own limit for operations that do not come to rest is a minute.
const TIMEOUT: Duration = Duration::from_secs(300);
/// What the whole matrix of two operations may take on MariaDB.
const MATRIX_MOST_MS: u64 = 60_000;

const NO_RESULT: i32 = 3;

pub(super) fn run(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    let mariadb = fresh_database()?;
    for (store, database) in [("SQLite", vec![]), ("MariaDB", vec!["--database-url", mariadb.as_str()])] {
        let mut token = String::new();
        checks.check(&format!("none on {store}: losing schedules, lanes and a token"), || {
            let (ended, found) = explore(stage, &database, &["--strategy", "none"])?;
            ended.saying(&["still believes", "overwrites A", "explore --replay zbl1:"])?;
            let run = &found["runs"][0];
            // Of 50 interleavings that the row lock allows, only the two one after the other lose nothing.
            ensure(run["schedules"] == 50 && run["losing"] == 48, || run.to_string())?;
            token = run["token"].as_str().unwrap_or_default().to_owned();
            Ok(())
        });
        checks.check(&format!("its token loses 20 times of 20 on {store}"), || {
            let (ended, _) = explore(stage, &database, &["--replay", &token, "--times", "20"])?;
            ended.saying(&["the same 20 times of 20", "LOST, 10.00 lost"]).map(drop)
        });
    }
    checks.check_and_note("the whole matrix on MariaDB is as promised, within a minute", || matrix(stage, &mariadb));
    checks.check("operations that crash: what nobody was told is settled", || {
        let (ended, found) = explore(stage, &["--database-url", &mariadb], &["--strategy", "batched", "--crash"])?;
        ended.saying(&["GetDeduction settled them all"])?;
        ensure(found["as_promised"] == true && found["losing"] == 0, || found.to_string())
    });
    checks.check("a step that is not possible is exit 3, and what is possible is told", || {
        let token = "zbl1:none+none:100.00:10.00+10.00:i1:w1";
        let ended = stage.run(stage.command("zbl-server", &["explore", "--replay", token]), TIMEOUT)?;
        ended.expect(NO_RESULT)?.saying(&["w1", "r1 r2"]).map(drop)
    });
    Ok(())
}

/// Explores, and reads the result.
fn explore(stage: &Stage, database: &[&str], arguments: &[&str]) -> Result<(Ended, Value), Failure> {
    let file = stage.path("explore.json");
    let mut command = stage.command("zbl-server", &["explore", "--json", &argument(&file)]);
    command.args(database).args(arguments);
    let ended = stage.run(command, TIMEOUT)?.expect(0)?;
    let failed = |error: &dyn std::fmt::Display| Failure::Failed(format!("{}: {error}", file.display()));
    let text = fs::read_to_string(&file).map_err(|error| failed(&error))?;
    Ok((ended, serde_json::from_str(&text).map_err(|error| failed(&error))?))
}

fn matrix(stage: &Stage, mariadb: &str) -> Result<String, Failure> {
    let (_, found) = explore(stage, &["--database-url", mariadb], &[])?;
    let took = found["duration_ms"].as_u64().unwrap_or(u64::MAX);
    ensure(found["as_promised"] == true, || found.to_string())?;
    ensure(took <= MATRIX_MOST_MS, || format!("it took {took} ms"))?;
    Ok(format!("({} schedules in {:.1} s)", found["schedules"], took as f64 / 1000.0))
}
