//! Two servers on one database. A mutex guards the memory of one process only, and loses; what the database itself
//! guards does not.

use std::time::Duration;

use test_support::fresh_database;

use super::{
    attack::{Attack, Finished, check_clean, ensure_accounted_loss, ensure_clean, runs},
    checks::Checks,
    stage::{Server, Stage, argument},
};
use crate::command::Failure;

/// The strategies that promise never to overwrite, with any number of servers, and need nothing but the database.
pub(super) const ALWAYS: [&str; 6] =
    ["optimistic", "pessimistic", "atomic", "atomic_three_trips", "serializable", "batched"];

/// The race is wide: of a hundred workers on two servers, some overwrite in practically every attack.
const TRIES: u32 = 5;
/// One attack takes some tens of seconds on an idle machine, in a debug build; this is one for each strategy.
const COMPARE_TIMEOUT: Duration = Duration::from_secs(600);

pub(super) fn run(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    let url = fresh_database()?;
    let (one, other) = (Server::start(stage, &url)?, Server::start(stage, &url)?);
    let servers = [one.address(), other.address()];
    checks.check_and_note("mutex on two servers is LOST, every cent accounted for", || {
        for attempt in 1..=TRIES {
            let arguments = ["--strategy", "mutex", "--expect", "lost"];
            let finished = Attack::start(stage, "two-mutex", &servers, &arguments)?.finish()?;
            if finished.result["verdict"] == "LOST" {
                let Finished { result, .. } = finished.expect(0, "LOST")?;
                ensure_accounted_loss(&result)?;
                return Ok(format!("(lost {} in attack {attempt} of at most {TRIES})", result["lost"]));
            }
            finished.ended.expect(10)?;
        }
        Err(Failure::Failed(format!("{TRIES} attacks lost nothing")))
    });
    checks.check("mutex on one of them is CLEAN", || {
        let attack = Attack::start(stage, "one-mutex", &servers[..1], &["--strategy", "mutex"])?;
        ensure_clean(&attack.finish()?.expect(0, "CLEAN")?.result)
    });
    let mut compared = Vec::new();
    checks.check("compare attacks every strategy over both servers, none is caught", || {
        let file = stage.path("two-servers.json");
        let mut compare = stage.command("loadgen", &["compare", "--json", &argument(&file)]);
        for server in servers {
            compare.args(["--addr", &server.to_string()]);
        }
        stage.run(compare, COMPARE_TIMEOUT)?.expect(0)?;
        compared = runs(&file)?;
        Ok(())
    });
    check_clean(checks, "two servers", &compared, "ALWAYS", &ALWAYS);
    Ok(())
}
