//! kill -9 in mid-attack: of the server, and of MariaDB under it. Each is started again and the attack goes on. At the
//! end no acknowledged deduction is lost, none is done twice, and none is unknown.
//!
//! That the kill struck in the middle is checked: entries before it are counted by SQL, beside the service, and calls
//! that the attack had to repeat over the outage were under way when it struck.

use std::time::Duration;

use serde_json::Value;
use test_support::{MariaDb, poll_until};

use super::{
    attack::{Attack, ensure_clean},
    checks::{Checks, ensure},
    stage::{Server, Stage},
};
use crate::command::Failure;

/// Long enough for the attack to be well under way, in a debug build on a loaded machine.
const UNDER_WAY_TIMEOUT: Duration = Duration::from_secs(120);
/// What the attack is: so many deductions take several seconds, and the balance pays for all of them.
const WORKERS: i64 = 20;
const DEDUCTIONS: i64 = 150;
const TOTAL: i64 = WORKERS * DEDUCTIONS;
/// The kill comes when a quarter is done; at least another quarter must come after it.
const QUARTER: i64 = TOTAL / 4;
/// On SQLite the timeline tells that the attack is under way. A deduction there has at most six phases, and those of
/// the one writer apart only lock waits are shown: so many spans are some hundreds of deductions, and no quarter.
const SPANS: &str = "2000";

/// Who is killed.
#[derive(Clone, Copy)]
enum Victim {
    Server,
    MariaDb,
}

const RUNS: [(&str, Victim, &str); 7] = [
    ("the server on MariaDB, pessimistic", Victim::Server, "pessimistic"),
    ("the server on MariaDB, optimistic", Victim::Server, "optimistic"),
    ("MariaDB, atomic", Victim::MariaDb, "atomic"),
    ("MariaDB, serializable", Victim::MariaDb, "serializable"),
    ("the server on MariaDB, batched", Victim::Server, "batched"),
    ("MariaDB, batched", Victim::MariaDb, "batched"),
    ("the server on MariaDB, event_sourced", Victim::Server, "event_sourced"),
];

pub(super) fn run(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    checks.check_and_note("kill -9 of the server on SQLite, pessimistic: CLEAN, nothing unknown", || {
        let mut server = Server::start(stage, &stage.sqlite_url("kill.db"))?;
        kill_on_sqlite(stage, &mut server)
    });
    let mut database = MariaDb::start()?;
    database.create_database("zbl")?;
    // An attack sits out an outage of half a minute, and an open breaker is one.
    let mut server = Server::start_with(stage, &database.url("zbl"), &["--breaker-open=1s"])?;
    for (user, (name, victim, strategy)) in (100..).zip(RUNS) {
        checks.check_and_note(&format!("kill -9 of {name}: CLEAN, nothing unknown"), || {
            let attack = start(stage, &server, user, strategy)?;
            let before = poll_until(UNDER_WAY_TIMEOUT, || entries(&database, user).filter(|count| *count >= QUARTER));
            let before = before.ok_or_else(|| Failure::Failed(format!("not under way in {UNDER_WAY_TIMEOUT:?}")))?;
            match victim {
                Victim::Server => {
                    server.kill()?;
                    server.restart()?;
                }
                Victim::MariaDb => {
                    database.kill()?;
                    database.restart()?;
                }
            }
            let note = finish(attack)?;
            let after = entries(&database, user).unwrap_or_default() - before;
            ensure(after >= QUARTER, || format!("not in the middle: {before} entries before the kill, {after} after"))?;
            Ok(format!("({before} entries before, {after} after, {note})"))
        });
    }
    Ok(())
}

fn kill_on_sqlite(stage: &Stage, server: &mut Server<'_>) -> Result<String, Failure> {
    let user = 99;
    let (address, number) = (server.address().to_string(), user.to_string());
    // Ended by the limit, when the attack is under way.
    let watch = ["--addr", &address, "--user", &number, "--retained", "--limit", SPANS];
    let attack = start(stage, server, user, "pessimistic")?;
    stage.run(stage.command("timeline", &watch), UNDER_WAY_TIMEOUT)?.expect(0)?;
    server.kill()?;
    server.restart()?;
    Ok(format!("({})", finish(attack)?))
}

/// Starts an attack that takes long enough to be killed in its middle.
fn start(stage: &Stage, server: &Server<'_>, user: i64, strategy: &str) -> Result<Attack, Failure> {
    let [user_id, workers, deductions] = [user, WORKERS, DEDUCTIONS].map(|number| number.to_string());
    let workload = ["--user", &user_id, "--workers", &workers, "--deductions", &deductions];
    let money = ["--amount", "0.01", "--opening", "1000.00", "--strategy", strategy, "--expect", "clean"];
    let arguments: Vec<&str> = workload.into_iter().chain(money).collect();
    Attack::start(stage, &format!("kill-{user}"), &[server.address()], &arguments)
}

/// Waits for the end of an attack that a kill has struck, and judges it.
fn finish(attack: Attack) -> Result<String, Failure> {
    let result = attack.finish()?.expect(0, "CLEAN")?.result;
    ensure_clean(&result)?;
    let [acknowledged, retries] = [&result["acknowledged"]["count"], &result["outage_retries"]].map(Value::as_i64);
    let (acknowledged, retries) = (acknowledged.unwrap_or_default(), retries.unwrap_or_default());
    ensure(retries > 0, || format!("the kill met no call: {result}"))?;
    let contended = result["failed"]["CONTENDED"].as_i64().unwrap_or_default();
    ensure(acknowledged + contended == TOTAL, || format!("{acknowledged} of {TOTAL} acknowledged: {result}"))?;
    Ok(format!("{retries} calls repeated over the outage, {acknowledged} of {TOTAL} acknowledged"))
}

/// How many entries the account's journal has.
fn entries(database: &MariaDb, user: i64) -> Option<i64> {
    let rows = database.query(&format!("SELECT COUNT(*) FROM zbl.entries WHERE user_id = {user}")).ok()?;
    rows.first()?.first()?.parse().ok()
}
