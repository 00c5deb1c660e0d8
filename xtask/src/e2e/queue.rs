//! Deductions that are accepted first and made later, by a worker in a process of its own, while everything in between is killed:
//! each is made once or refused once, none is forgotten, and what ends among the dead letters is what was put in as poison. And a
//! burst that is larger than what can be made at once.
//!
//! Kills come when so many are accepted or decided, which is read from the database, beside the service.

mod lost_disk;
mod peak;
mod poison;

use std::{collections::BTreeSet, time::Duration};

use test_support::{MariaDb, Process, RabbitMq, poll_until};
use zbl_client::Client;

use super::{
    attack::{Attack, ensure_clean},
    checks::{Checks, ensure},
    stage::{Server, Stage},
};
use crate::command::Failure;
pub(super) use poison::Poison;

/// A part of the run takes some seconds, on a loaded machine with a broker that is starting some tens of them.
const PATIENCE: Duration = Duration::from_secs(180);
/// The account that is attacked, 9 in what is asked of the database below.
const USER: u64 = 9;
/// What is asked for.
const WORKERS: u64 = 40;
const DEDUCTIONS: u64 = 250;
const TOTAL: u64 = WORKERS * DEDUCTIONS;

/// What the servers and workers are told beside where everything is.
const SETTINGS: [&str; 1] = ["--breaker-open=200ms"];

/// What is made of what the account was asked for.
const DECIDED: &str = "SELECT COUNT(*) FROM zbl.entries WHERE user_id = 9 AND kind = 'DEDUCT'";
/// The same and what is promised; its row goes some time after it is made.
const ACCEPTED: &str = "SELECT COUNT(DISTINCT request_id) FROM (\
                        SELECT request_id FROM zbl.deduction_outbox WHERE user_id = 9 AND state = 'SENT' UNION ALL \
                        SELECT request_id FROM zbl.entries WHERE user_id = 9 AND kind = 'DEDUCT') AS known";
/// Promises that are not kept, or not swept away yet.
const OPEN: &str = "SELECT COUNT(*) FROM zbl.deduction_outbox";

/// Who is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Broker,
    Worker,
    MariaDb,
}

/// When.
#[derive(Clone, Copy, Debug)]
enum When {
    Accepted(u64),
    Decided(u64),
}

/// Whom it strikes, when, in order. The broker once while deductions are being accepted, once while they are being made.
const KILLS: [(When, Victim); 8] = [
    (When::Decided(300), Victim::Worker),
    (When::Accepted(1_500), Victim::Broker),
    (When::Decided(2_000), Victim::Worker),
    (When::Accepted(4_000), Victim::MariaDb),
    (When::Decided(4_500), Victim::Worker),
    (When::Decided(6_000), Victim::Worker),
    (When::Decided(7_000), Victim::Broker),
    (When::Decided(8_500), Victim::Worker),
];

pub(super) fn run(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    let (mut database, mut broker) = (MariaDb::start()?, RabbitMq::start()?);
    database.create_database("zbl")?;
    let queue = Queue { database: database.url("zbl"), broker: broker.url(), settings: &SETTINGS };
    let server = queue.server(stage)?;
    let mut worker = queue.worker(stage)?;
    let mut poison = Poison::new(&broker.url())?;
    checks.check_and_note(
        "10 000 accepted; broker killed 2 times, worker 5, MariaDB once: CLEAN, none forgotten, none doubled",
        || {
            let mut attack = attack(stage, &server)?;
            let killed = kill_all(stage, &queue, &mut attack, &mut worker, (&mut database, &mut broker), &mut poison);
            let finished = attack.finish()?;
            // What became of the attack says more than that a kill did not come off.
            let result = finished.expect(0, "CLEAN")?.result;
            killed?;
            ensure_clean(&result)?;
            let queued = &result["queued"];
            let is_whole = result["acknowledged"]["count"] == TOTAL && queued["undecided"] == 0;
            ensure(is_whole && queued["forgotten"].as_array().is_some_and(Vec::is_empty), || {
                format!("not whole: {result}")
            })?;
            let retries = result["outage_retries"].as_u64().unwrap_or_default();
            ensure(retries > 0, || format!("no kill met a call: {result}"))?;
            Ok(format!(
                "({} made, {retries} calls repeated, accepted in {} ms, the last decided {} ms later)",
                result["acknowledged"]["count"], queued["accepting_ms"], queued["drain_ms"]
            ))
        },
    );
    checks.check_and_note("the dead letters are exactly the poison", || dead_letters(&server, &poison));
    checks.check("no promise is left over in the database", || {
        let swept = poll_until(PATIENCE, || number(&database, OPEN).filter(|open| *open == 0));
        swept.map(drop).ok_or_else(|| Failure::Failed(format!("{:?} rows are left", number(&database, OPEN))))
    });
    for command in ["reconcile", "verify"] {
        checks.check(&format!("zbl-server {command}: the balance is what the journal comes to"), || {
            let command = stage.command("zbl-server", &[command, "--database-url", &queue.database]);
            stage.run(command, PATIENCE)?.expect(0).map(drop)
        });
    }
    drop((server, worker));
    peak::run(stage, checks, &database, &broker)?;
    checks.check_and_note("the broker's disk is lost: what was accepted is sent once more, and made", || {
        lost_disk::run(stage, &database, &mut broker)
    });
    Ok(())
}

/// Where a queue is, and how it is used.
struct Queue<'a> {
    database: String,
    broker: String,
    settings: &'a [&'a str],
}

impl Queue<'_> {
    fn server<'a>(&self, stage: &'a Stage) -> Result<Server<'a>, Failure> {
        let settings: Vec<&str> =
            ["--amqp-url", &self.broker].into_iter().chain(self.settings.iter().copied()).collect();
        Server::start_with(stage, &self.database, &settings)
    }

    /// A worker, connected to both.
    fn worker(&self, stage: &Stage) -> Result<Process, Failure> {
        let places =
            ["worker", "--http-addr=127.0.0.1:0", "--database-url", &self.database, "--amqp-url", &self.broker];
        let arguments: Vec<&str> = places.into_iter().chain(self.settings.iter().copied()).collect();
        let mut worker = Process::spawn(stage.command("zbl-server", &arguments))?;
        worker.wait_for_line("zbl-server worker", PATIENCE)?;
        Ok(worker)
    }
}

fn attack(stage: &Stage, server: &Server<'_>) -> Result<Attack, Failure> {
    let [user, workers, deductions] = [USER, WORKERS, DEDUCTIONS].map(|number| number.to_string());
    let workload = ["--user", &user, "--workers", &workers, "--deductions", &deductions, "--amount", "0.01"];
    let rest = ["--opening", "1000.00", "--strategy", "batched", "--outage", "120s", "--expect", "clean"];
    let arguments: Vec<&str> = ["--async", "--drain", "180s"].into_iter().chain(workload).chain(rest).collect();
    Attack::start(stage, "queue", &[server.address()], &arguments)
}

/// Kills them all, each when its time has come; some poison before each.
fn kill_all(
    stage: &Stage,
    queue: &Queue<'_>,
    attack: &mut Attack,
    worker: &mut Process,
    (database, broker): (&mut MariaDb, &mut RabbitMq),
    poison: &mut Poison,
) -> Result<(), Failure> {
    for (when, victim) in KILLS {
        let (what, goal) = match when {
            When::Accepted(goal) => (ACCEPTED, goal),
            When::Decided(goal) => (DECIDED, goal),
        };
        let reached = poll_until(PATIENCE, || {
            let is_over = !attack.is_under_way();
            number(database, what).filter(|number| *number >= goal).map(Ok).or_else(|| is_over.then_some(Err(())))
        });
        let reached = reached.and_then(Result::ok);
        ensure(reached.is_some_and(|reached| reached < TOTAL), || {
            format!("{when:?}: not reached, or all was over by then: {reached:?}; {victim:?} was not killed")
        })?;
        poison.put()?;
        match victim {
            Victim::Broker => broker.restart()?,
            Victim::MariaDb => database.restart()?,
            Victim::Worker => {
                worker.kill()?;
                *worker = queue.worker(stage)?;
            }
        }
    }
    Ok(())
}

/// Waits until all the poison is there, and sees that nothing else is.
fn dead_letters(server: &Server<'_>, poison: &Poison) -> Result<String, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(error.to_string()))?;
    runtime.block_on(async {
        let client = Client::connect_lazy(&server.address().to_string());
        let client = client.map_err(|error| Failure::Failed(error.to_string()))?;
        let begun = tokio::time::Instant::now();
        loop {
            let listed = client.dead_letters(1_000).await.map_err(|error| Failure::Failed(error.to_string()))?;
            let found: BTreeSet<String> = listed.dead_letters.iter().map(|letter| letter.message_id.clone()).collect();
            if found == *poison.ids() {
                let letters = listed.dead_letters.len();
                return Ok(format!("({} of them, {} copies)", found.len(), letters - found.len()));
            }
            let foreign: Vec<_> = found.difference(poison.ids()).collect();
            ensure(foreign.is_empty(), || format!("no poison: {foreign:?} in {listed:?}"))?;
            ensure(begun.elapsed() < PATIENCE, || format!("{} of {} are there", found.len(), poison.ids().len()))?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
}

fn number(database: &MariaDb, sql: &str) -> Option<u64> {
    database.query(sql).ok()?.first()?.first()?.parse().ok()
}
