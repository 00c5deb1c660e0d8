//! The batched strategy under attack: on each store, on two servers at a time, and with callers that hang up. It is never
//! caught, and what was cancelled is settled like everything else. (That it survives kills is checked with the others.)

use std::net::SocketAddr;

use test_support::fresh_database;

use super::{
    attack::{Attack, Finished, amount, ensure_clean},
    checks::{Checks, ensure},
    stage::{Server, Stage},
};
use crate::command::Failure;

/// Attacks in a row of each kind; a strategy that loses is caught in nearly every one.
const ATTACKS: u32 = 3;

/// Callers that hang up, in a hundred.
const CANCELLED: &str = "30";

pub(super) fn run(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    let url = fresh_database()?;
    let (one, other) = (Server::start(stage, &url)?, Server::start(stage, &url)?);
    let sqlite = Server::start(stage, &stage.sqlite_url("batched.db"))?;
    let places = [
        ("SQLite", vec![sqlite.address()]),
        ("MariaDB", vec![one.address()]),
        ("two servers on one MariaDB", vec![one.address(), other.address()]),
    ];
    for (place, servers) in places {
        checks.check(&format!("{ATTACKS} attacks on {place} are CLEAN and sell what there is"), || {
            (0..ATTACKS).try_for_each(|_| {
                let result = attack(stage, &servers, &[])?.result;
                ensure(result["acknowledged"]["count"] == result["affordable"], || result.to_string())
            })
        });
        checks.check_and_note(
            &format!("{CANCELLED} % of the callers on {place} hang up: CLEAN, nothing unknown"),
            || {
                let plenty = ["--opening", "10000.00", "--cancel", CANCELLED];
                let result = attack(stage, &servers, &plenty)?.result;
                let cancelled = result["cancelled"].as_u64().unwrap_or_default();
                ensure(cancelled > 0, || format!("nobody hung up: {result}"))?;
                let voided = result["failed"]["VOIDED"].as_u64().unwrap_or_default();
                ensure(voided < cancelled, || {
                    format!("none of {cancelled} cancelled calls had taken effect: {result}")
                })?;
                ensure(amount(&result["acknowledged"]["amount"])? > 0, || result.to_string())?;
                Ok(format!("({cancelled} cancelled, {voided} of them without effect)"))
            },
        );
    }
    Ok(())
}

fn attack(stage: &Stage, servers: &[SocketAddr], arguments: &[&str]) -> Result<Finished, Failure> {
    let arguments: Vec<&str> = ["--strategy", "batched"].iter().chain(arguments).copied().collect();
    let finished = Attack::start(stage, "batched", servers, &arguments)?.finish()?.expect(0, "CLEAN")?;
    ensure_clean(&finished.result)?;
    Ok(finished)
}
