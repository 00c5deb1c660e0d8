//! The errors that take a database in trouble: held locks, a lost answer, no database at all. Whatever the client is
//! told, asking again with the same request id ends in exactly one deduction.

use std::{path::Path, thread, time::Duration};

use test_support::{Cut, CutProxy, MariaDb, NewConnections, poll_until};

use super::{refusals::expect, tool::Grpcurl};
use crate::{
    command::Failure,
    e2e::{
        checks::{Checks, ensure},
        stage::{Server, Stage},
    },
};

const UNKNOWN: i32 = 2;
const ABORTED: i32 = 10;
const UNAVAILABLE: i32 = 14;

/// A session takes a lock within milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);

const BALANCE: &str = r#"{"user_id":1}"#;
const DEDUCT: &str = r#"{"user_id":1,"amount":"10.00","request_id":"7b3c9a52-6d0e-4f5b-9b1d-2f6f0a8c1e05"}"#;

/// Gets a scene into trouble, says what the client is told, and gets it out again.
type Trouble = fn(&mut Scene<'_>) -> Result<(), Failure>;

/// A database of its own with a server on it, reached through a proxy that can cut the link.
struct Scene<'a> {
    database: MariaDb,
    proxy: CutProxy,
    grpcurl: Grpcurl<'a>,
    // Kept alive, not looked at.
    _server: Server<'a>,
}

pub(super) fn run(stage: &Stage, program: &Path, checks: &mut Checks) {
    let troubles: [(&str, Trouble); 3] = [
        ("CONTENDED: another session holds the row", contended),
        ("OUTCOME_UNKNOWN: the answer to COMMIT is lost and the database out of reach", outcome_unknown),
        ("BACKEND_DOWN: MariaDB is killed", backend_down),
    ];
    for (name, trouble) in troubles {
        checks.check(name, || trouble(&mut Scene::set(stage, program)?));
    }
}

impl<'a> Scene<'a> {
    /// One connection, so that a lost one is missed at once, and little patience. Committers of batches have others.
    fn set(stage: &'a Stage, program: &Path) -> Result<Self, Failure> {
        let database = MariaDb::start()?;
        database.create_database("zbl")?;
        let proxy = CutProxy::start(&database.url("zbl"))?;
        let impatient = ["--pool-size=1", "--max-attempts=1", "--lock-wait=1s", "--settle-timeout=1s"];
        // What is told is the trouble itself, not that it has lasted.
        // And the cut is for the deduction, not for what else commits.
        let settings =
            [&impatient[..], &["--strategy=pessimistic", "--breaker-least=1000", "--project-every=0s"]].concat();
        let server = Server::start_with(stage, &proxy.url("zbl"), &settings)?;
        let grpcurl = Grpcurl::new(stage, program.to_path_buf(), server.address());
        Ok(Self { database, proxy, grpcurl, _server: server })
    }

    /// Deducts 10.00, always under the same request id, and fails unless the first receipt comes back.
    fn deduct_once(&self) -> Result<(), Failure> {
        for attempt in ["first", "second"] {
            let receipt = self.grpcurl.call("AccountService/Deduct", DEDUCT)?;
            let is_first = receipt["balance"] == "990.00" && receipt["version"] == "2";
            ensure(is_first, || format!("the {attempt} answer: {receipt}"))?;
        }
        Ok(())
    }

    fn ensure_untouched(&self) -> Result<(), Failure> {
        let stored = self.grpcurl.call("AccountService/GetBalance", BALANCE)?;
        ensure(stored["balance"] == "1000.00" && stored["version"] == "1", || stored.to_string())
    }
}

fn contended(scene: &mut Scene<'_>) -> Result<(), Failure> {
    let Scene { database, grpcurl, .. } = &*scene;
    thread::scope(|scope| {
        let hold = "BEGIN; SELECT 1 FROM zbl.accounts WHERE user_id = 1 FOR UPDATE; DO SLEEP(60)";
        // It ends in an error, when it is killed below.
        scope.spawn(|| database.query(hold).err());
        let sleeping = "SELECT id FROM information_schema.processlist WHERE state = 'User sleep'";
        let session = poll_until(LOCK_TIMEOUT, || database.query(sleeping).ok()?.concat().pop());
        let session = session.ok_or_else(|| Failure::Failed("no session holds the row".into()))?;
        let refused = expect(grpcurl, "AccountService/Deduct", DEDUCT, ABORTED, "CONTENDED");
        database.query(&format!("KILL {session}"))?;
        refused
    })?;
    scene.ensure_untouched()?;
    scene.deduct_once()
}

fn outcome_unknown(scene: &mut Scene<'_>) -> Result<(), Failure> {
    let Scene { proxy, grpcurl, .. } = &*scene;
    proxy.set_new_connections(NewConnections::Refuse);
    proxy.arm(Cut::BehindCommit, 1);
    expect(grpcurl, "AccountService/Deduct", DEDUCT, UNKNOWN, "OUTCOME_UNKNOWN")?;
    ensure(proxy.cuts() == 1, || format!("{} cuts", proxy.cuts()))?;
    proxy.set_new_connections(NewConnections::Pass);
    let ask = r#"{"user_id":1,"request_id":"7b3c9a52-6d0e-4f5b-9b1d-2f6f0a8c1e05","resolve":true}"#;
    let found = grpcurl.call("AccountService/GetDeduction", ask)?;
    ensure(found["state"] == "DEDUCTION_STATE_SUCCEEDED" && found["final"] == true, || found.to_string())?;
    scene.deduct_once()
}

fn backend_down(scene: &mut Scene<'_>) -> Result<(), Failure> {
    scene.database.kill()?;
    expect(&scene.grpcurl, "AccountService/Deduct", DEDUCT, UNAVAILABLE, "BACKEND_DOWN")?;
    expect(&scene.grpcurl, "AccountService/GetBalance", BALANCE, UNAVAILABLE, "BACKEND_DOWN")?;
    scene.database.restart()?;
    scene.ensure_untouched()?;
    scene.deduct_once()
}
