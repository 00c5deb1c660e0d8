//! kill -9 of whoever keeps the reports: of the server and of the projector process beside it, in turns, fifty times, each after a
//! random number of entries was projected since the last, while attacks are under way and the reports are being rebuilt. At the end
//! the read models are what the journal comes to, by SQL that knows nothing of either.

use std::time::Duration;

use test_support::{MariaDb, Process, poll_until};

use super::{
    attack::{Attack, ensure_clean},
    checks::{Checks, ensure},
    stage::{Server, Stage},
};
use crate::command::Failure;

/// How often somebody is killed.
const KILLS: u64 = 50;
/// Where the random numbers begin: the same ones every time.
const SEED: u64 = 0x5eed_0008;
/// The most entries between two kills: some steps of a projector under load.
const MOST_BETWEEN: u64 = 120;
/// Kills after which the projector process is started to rebuild the reports.
const REBUILD_AT: [u64; 3] = [5, 21, 37];
/// A few entries take some hundred milliseconds, after a restart some seconds, in a debug build on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The generation that is read.
const ACTIVE: &str = "(SELECT generation FROM zbl.projections WHERE state = 1)";

/// What the journal comes to, summed up by the database.
const FLOW: &str = "SUM(IF(kind = 'DEDUCT', -delta, 0)) AS spent, SUM(IF(kind = 'DEPOSIT', delta, 0)) AS deposited, \
                    SUM(kind = 'DEDUCT') AS deductions, SUM(kind = 'DEPOSIT') AS deposits";
/// The same columns of the read models.
const SAME: &str =
    "r.spent = f.spent AND r.deposited = f.deposited AND r.deductions = f.deductions AND r.deposits = f.deposits";

pub(super) fn run(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    let database = MariaDb::start()?;
    database.create_database("zbl")?;
    let url = database.url("zbl");
    // An attack sits out an outage of half a minute, and an open breaker is one.
    let mut server = Server::start_with(stage, &url, &["--breaker-open=200ms", "--project-every=50ms"])?;
    let mut scene = Scene { stage, database, url, random: SEED, attacks: Vec::new(), begun: 0, finished: 0 };
    checks.check_and_note("kill -9 of server and projector, 50 times: every attack is CLEAN", || {
        scene.kill_many(&mut server)
    });
    checks.check_and_note("the read models are what the journal comes to", || scene.compare());
    Ok(())
}

struct Scene<'a> {
    stage: &'a Stage,
    database: MariaDb,
    url: String,
    random: u64,
    attacks: Vec<Attack>,
    begun: usize,
    finished: usize,
}

impl Scene<'_> {
    fn kill_many(&mut self, server: &mut Server<'_>) -> Result<String, Failure> {
        let mut projector = self.projector(&[])?;
        let mut projected = 0;
        for kill in 0..KILLS {
            self.keep_attacking(server)?;
            let goal = projected + 1 + self.random() % MOST_BETWEEN;
            projected = self.until_projected(server, goal)?;
            if kill % 2 == 0 {
                server.kill()?;
                server.restart()?;
            } else {
                projector.kill()?;
                let rebuild: &[&str] = if REBUILD_AT.contains(&kill) { &["--rebuild"] } else { &[] };
                projector = self.projector(rebuild)?;
            }
        }
        for attack in std::mem::take(&mut self.attacks) {
            self.finish(attack)?;
        }
        self.until_caught_up()?;
        Ok(format!("({} attacks, {projected} entries projected by the last kill)", self.finished))
    }

    /// A number out of a sequence that is the same every time (splitmix64).
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn projector(&self, arguments: &[&str]) -> Result<Process, Failure> {
        let settings = ["projector", "--json", "--project-every=50ms", "--database-url", &self.url];
        let arguments: Vec<&str> = settings.into_iter().chain(arguments.iter().copied()).collect();
        Ok(Process::spawn(self.stage.command("zbl-server", &arguments))?)
    }

    /// Judges the attacks that have ended, and sees to it that two are under way.
    fn keep_attacking(&mut self, server: &Server<'_>) -> Result<(), Failure> {
        for mut attack in std::mem::take(&mut self.attacks) {
            if attack.is_under_way() {
                self.attacks.push(attack);
            } else {
                self.finish(attack)?;
            }
        }
        while self.attacks.len() < 2 {
            let strategy = ["batched", "pessimistic", "optimistic", "atomic"][self.begun % 4];
            self.begun += 1;
            let (name, user) = (format!("projector-{}", self.begun), (100 + self.begun).to_string());
            let workload = ["--user", &user, "--workers", "8", "--deductions", "100", "--amount", "0.01"];
            let rest = ["--opening", "1000.00", "--strategy", strategy, "--expect", "clean"];
            let arguments: Vec<&str> = workload.into_iter().chain(rest).collect();
            self.attacks.push(Attack::start(self.stage, &name, &[server.address()], &arguments)?);
        }
        Ok(())
    }

    fn finish(&mut self, attack: Attack) -> Result<(), Failure> {
        ensure_clean(&attack.finish()?.expect(0, "CLEAN")?.result)?;
        self.finished += 1;
        Ok(())
    }

    /// Waits until so many entries are projected, with attacks under way all the while; says how many there are then.
    fn until_projected(&mut self, server: &Server<'_>, goal: u64) -> Result<u64, Failure> {
        let mut failure = None;
        let reached = poll_until(PATIENCE, || {
            if let Err(error) = self.keep_attacking(server) {
                failure = Some(error);
                return Some(0);
            }
            self.number(&format!("SELECT entries FROM zbl.projections WHERE generation = {ACTIVE}"))
                .filter(|n| *n >= goal)
        });
        match (failure, reached) {
            (Some(failure), _) => Err(failure),
            (None, Some(reached)) => Ok(reached),
            (None, None) => Err(Failure::Failed(format!("{goal} entries are not projected within {PATIENCE:?}"))),
        }
    }

    /// Nothing is journaled any more; waits until all of it is projected and no rebuild is under way.
    fn until_caught_up(&self) -> Result<(), Failure> {
        let behind = "SELECT (SELECT COUNT(*) FROM zbl.projections) - 1 + (SELECT COUNT(*) FROM zbl.entries) - entries \
                      FROM zbl.projections WHERE state = 1";
        let caught_up = poll_until(PATIENCE, || self.number(behind).filter(|behind| *behind == 0));
        caught_up.map(drop).ok_or_else(|| Failure::Failed(format!("not caught up within {PATIENCE:?}")))
    }

    fn number(&self, sql: &str) -> Option<u64> {
        self.database.query(sql).ok()?.first()?.first()?.parse().ok()
    }

    /// Counts the rows of either side that have no equal on the other.
    fn compare(&self) -> Result<String, Failure> {
        let differing = |what: &str, fold: &str, table: &str, same: &str| {
            let equal = format!(
                "SELECT COUNT(*) FROM ({fold}) AS f JOIN {table} AS r ON r.generation = {ACTIVE} AND {same} AND {SAME}"
            );
            let due = self.number(&format!("SELECT COUNT(*) FROM ({fold}) AS f")).unwrap_or_default();
            let there = self.number(&format!("SELECT COUNT(*) FROM {table} WHERE generation = {ACTIVE}"));
            let equal = self.number(&equal);
            ensure(due > 0 && there == Some(due) && equal == Some(due), || {
                format!("{what}: {due} in the journal, {there:?} in the read model, {equal:?} of them equal")
            })?;
            Ok::<u64, Failure>(due)
        };
        let by_account = format!("SELECT user_id, MAX(version) AS version, {FLOW} FROM zbl.entries GROUP BY user_id");
        let accounts = differing(
            "accounts",
            &by_account,
            "zbl.report_accounts",
            "r.user_id = f.user_id AND r.version = f.version",
        )?;
        let by_day = format!(
            "SELECT user_id, DATE(created_at) AS day, {FLOW} FROM zbl.entries WHERE kind IN ('DEDUCT', 'DEPOSIT') \
             GROUP BY user_id, DATE(created_at)"
        );
        let days = differing("days", &by_day, "zbl.report_days", "r.user_id = f.user_id AND r.day = f.day")?;
        let all = format!(
            "SELECT COUNT(DISTINCT user_id) AS accounts, COUNT(*) AS entries, SUM(IF(kind = 'OPEN', delta, 0)) AS opened, \
             {FLOW} FROM zbl.entries"
        );
        let same = "r.accounts = f.accounts AND r.entries = f.entries AND r.opened = f.opened";
        differing("totals", &all, "zbl.projections", same)?;
        let generation = self.number(&format!("SELECT {ACTIVE}")).unwrap_or_default();
        ensure(generation > 1, || "no rebuild was finished".to_owned())?;
        let entries = self.number("SELECT COUNT(*) FROM zbl.entries").unwrap_or_default();
        Ok(format!("({entries} entries, {accounts} accounts, {days} days, generation {generation})"))
    }
}
