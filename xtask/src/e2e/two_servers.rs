//! Two servers on one database. A mutex guards the memory of one process only, and loses; what the database itself
//! guards does not.

use test_support::fresh_database;

use super::{
    attack::{Attack, Finished, ensure_accounted_loss, ensure_clean},
    checks::{Checks, ensure},
    stage::{Server, Stage},
};
use crate::command::Failure;

/// The strategies that promise never to overwrite, with any number of servers; `ListStrategies` must name the same.
pub(super) const ALWAYS: [&str; 4] = ["optimistic", "pessimistic", "atomic", "serializable"];

/// The race is wide: of a hundred workers on two servers, some overwrite in practically every attack.
const TRIES: u32 = 5;
/// What the opening balance pays for.
const AFFORDABLE: u64 = 100;

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
    for strategy in ALWAYS {
        checks.check_and_note(&format!("{strategy} on two servers is CLEAN"), || {
            let name = format!("two-{strategy}");
            let attack = Attack::start(stage, &name, &servers, &["--strategy", strategy])?;
            let Finished { result, .. } = attack.finish()?.expect(0, "CLEAN")?;
            ensure_clean(&result)?;
            sold_what_there_was(&result)
        });
    }
    Ok(())
}

/// Fails unless exactly the affordable deductions were acknowledged, or fewer and some were refused for contention.
pub(super) fn sold_what_there_was(result: &serde_json::Value) -> Result<String, Failure> {
    let sold = result["acknowledged"]["count"].as_u64().unwrap_or_default();
    let contended = result["failed"]["CONTENDED"].as_u64().unwrap_or_default();
    let is_right = sold == AFFORDABLE || (sold < AFFORDABLE && contended > 0);
    ensure(is_right, || format!("sold {sold} of {AFFORDABLE}, {contended} refused for contention: {result}"))?;
    Ok(format!("(sold {sold}, {contended} refused for contention)"))
}
