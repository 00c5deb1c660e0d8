//! The broker's disk is lost, with every message on it. The promises are in the database, and the statement that docs/QUEUE.md prints
//! has them sent once more.

use std::fs;

use test_support::{MariaDb, RabbitMq, poll_until};

use super::{PATIENCE, Queue, number};
use crate::{
    command::{Failure, workspace},
    e2e::{
        attack::{Attack, ensure_clean},
        checks::ensure,
        stage::Stage,
    },
};

const SETTINGS: [&str; 1] = ["--queue-name=zbl.lost"];
/// Deductions of account 77, by four callers.
const ACCEPTED: u64 = 100;
const WORKLOAD: [&str; 6] = ["--user", "77", "--workers", "4", "--deductions", "25"];
const REST: [&str; 6] = ["--async", "--opening", "1000.00", "--drain", "180s", "--expect=clean"];

const SENT: &str = "SELECT COUNT(*) FROM zbl.deduction_outbox WHERE user_id = 77 AND state = 'SENT'";
const MADE: &str = "SELECT COUNT(*) FROM zbl.entries WHERE user_id = 77 AND kind = 'DEDUCT'";

/// Has deductions accepted, loses the disk, and has them made all the same.
pub(super) fn run(stage: &Stage, database: &MariaDb, broker: &mut RabbitMq) -> Result<String, Failure> {
    let queue = Queue { database: database.url("zbl"), broker: broker.url(), settings: &SETTINGS };
    let server = queue.server(stage)?;
    let arguments: Vec<&str> = WORKLOAD.into_iter().chain(REST).collect();
    let attack = Attack::start(stage, "lost-disk", &[server.address()], &arguments)?;
    let sent = poll_until(PATIENCE, || number(database, SENT).filter(|sent| *sent == ACCEPTED));
    ensure(sent.is_some(), || format!("{:?} of {ACCEPTED} were accepted", number(database, SENT)))?;
    broker.kill()?;
    let data = broker.directory().join("data");
    fs::remove_dir_all(&data).map_err(|error| Failure::Failed(format!("{}: {error}", data.display())))?;
    broker.restart()?;
    let _worker = queue.worker(stage)?;
    ensure(number(database, MADE) == Some(0), || "the messages were not lost".to_owned())?;
    database.query(&remedy()?.replacen("deduction_outbox", "zbl.deduction_outbox", 1))?;
    let result = attack.finish()?.expect(0, "CLEAN")?.result;
    ensure_clean(&result)?;
    let made = &result["acknowledged"]["count"];
    ensure(*made == ACCEPTED, || format!("{made} of {ACCEPTED} were made: {result}"))?;
    Ok(format!("({made} made, of {ACCEPTED} accepted before)"))
}

/// The statement as it is printed.
fn remedy() -> Result<String, Failure> {
    let page = workspace().join("docs/QUEUE.md");
    let text = fs::read_to_string(&page).map_err(|error| Failure::Failed(format!("{}: {error}", page.display())))?;
    let begin = text.find("UPDATE deduction_outbox");
    let statement = begin.and_then(|begin| Some(&text[begin..begin + text[begin..].find(';')?]));
    statement.map(str::to_owned).ok_or_else(|| Failure::Failed(format!("{}: no statement", page.display())))
}
