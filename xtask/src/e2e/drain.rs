//! SIGTERM under load: said first, while everybody is still served; then streams end by name, what was accepted is kept,
//! and the process ends with 0. What is stuck is cut off when the time to stop is over.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use test_support::{MariaDb, poll_until};
use zbl_client::{Change, Client, Error, Money, Reason, Retry, Start, TimelineItem};

use super::{
    callers::{Callers, Ended},
    checks::{Checks, ensure},
    load::Load,
    probe::get,
    stage::{Server, Stage},
    wire::{Wire, ended, framed},
};
use crate::command::Failure;

/// Long enough to look around in, on a busy machine.
const DELAY: Duration = Duration::from_secs(5);
const DELAY_SETTING: &str = "--drain-delay=5s";
const GRACE: Duration = Duration::from_secs(3);
const GRACE_SETTING: &str = "--shutdown-grace=3s";
/// The end of the server falls into it, and its second beginning.
const LENGTH: Duration = Duration::from_secs(12);
/// What a busy machine makes of a moment.
const SLACK: Duration = Duration::from_secs(5);
/// Nothing here takes so long.
const TIMEOUT: Duration = Duration::from_secs(60);

const STREAMS: [&str; 3] = ["StreamTimeline", "WatchStatus", "DeductStream"];

pub(super) fn run(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    let database = MariaDb::start()?;
    database.create_database("zbl")?;
    under_load(stage, checks, &database)?;
    stuck(stage, checks, &database);
    Ok(())
}

fn under_load(stage: &Stage, checks: &mut Checks, database: &MariaDb) -> Result<(), Failure> {
    let mut server = Server::start_with(stage, &database.url("zbl"), &[DELAY_SETTING, GRACE_SETTING])?;
    let load = Load::start(stage, "drain", server.address(), LENGTH, &["--strategy", "batched", "--concurrency", "8"])?;
    let callers = Callers::start(server.address(), 4, "batched")?;
    let watch = streams(&server)?;
    let under_way = poll_until(TIMEOUT, || callers.ended(Ended::is_done).first().copied());
    ensure(under_way.is_some(), || "no call succeeds".into())?;

    let told = signal(stage, &server)?;
    checks.check_and_note("SIGTERM: NOT_SERVING and /readyz 503 first, while calls still succeed", || {
        let http = server.http_address();
        let ready = poll_until(DELAY, || get(http, "/readyz").ok().filter(|(status, _)| *status == 503));
        ensure(ready.is_some(), || "/readyz does not say 503".into())?;
        let address = server.address().to_string();
        let health = stage.command("zbl-server", &["healthcheck", "--grpc-addr", &address]);
        stage.run(health, TIMEOUT)?.expect(1)?.saying(&["NOT_SERVING"])?;
        let said = Instant::now();
        let served = poll_until(DELAY, || callers.ended(|call| call.begun > said && call.is_done()).first().copied());
        let served = served.ok_or_else(|| Failure::Failed("nobody is served any more".into()))?;
        ensure(watch.try_recv().is_err(), || "a stream has ended already".into())?;
        Ok(format!("(served {:.1?} after SIGTERM)", served.begun - told))
    });
    for _ in STREAMS {
        let (name, told) = watch.recv_timeout(TIMEOUT).map_err(|error| Failure::Failed(error.to_string()))?;
        checks.check(&format!("{name} ends UNAVAILABLE, SHUTTING_DOWN"), || {
            let is_named = told.as_ref().is_some_and(|error| error.reason() == Some(Reason::ShuttingDown));
            ensure(is_named && told.as_ref().is_some_and(|error| error.code() as i32 == 14), || format!("{told:?}"))
        });
    }
    checks.check_and_note("the process ends with 0, after the delay and within the grace", || {
        let code = server.terminated(TIMEOUT)?;
        let took = told.elapsed();
        ensure(code == Some(0), || format!("exit {code:?}\n{}", server.output()))?;
        ensure((DELAY..=DELAY + GRACE + SLACK).contains(&took), || format!("it took {took:?}"))?;
        Ok(format!("(after {took:.1?})"))
    });
    drop(callers);
    server.restart()?;
    checks.check_and_note("nothing accepted is lost, nothing unknown: CLEAN", || {
        let result = load.finish()?;
        ensure(result["outage_retries"].as_u64() > Some(0), || format!("it met no outage: {result}"))?;
        Ok(format!("({} calls repeated over it)", result["outage_retries"]))
    });
    Ok(())
}

/// A call that cannot end keeps a server no longer than it may.
fn stuck(stage: &Stage, checks: &mut Checks, database: &MariaDb) {
    checks.check_and_note("a call that is stuck is cut off at the hard stop", || {
        let settings = [GRACE_SETTING, "--lock-wait=60s", "--strategy=pessimistic"];
        let mut server = Server::start_with(stage, &database.url("zbl"), &settings)?;
        thread::scope(|scope| {
            let hold = "BEGIN; SELECT 1 FROM zbl.accounts WHERE user_id = 1 FOR UPDATE; DO SLEEP(120)";
            // It ends in an error, when it is killed below.
            scope.spawn(|| database.query(hold).err());
            let sleeping = "SELECT id FROM information_schema.processlist WHERE state = 'User sleep'";
            let session = poll_until(TIMEOUT, || database.query(sleeping).ok()?.concat().pop());
            let session = session.ok_or_else(|| Failure::Failed("no session holds the row".into()))?;
            let cut = cut_off(stage, database, &mut server);
            database.query(&format!("KILL {session}"))?;
            cut
        })
    });
}

fn cut_off(stage: &Stage, database: &MariaDb, server: &mut Server<'_>) -> Result<String, Failure> {
    let address = server.address().to_string();
    let call = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
        runtime.block_on(async {
            let client = Client::connect_lazy(&address).ok()?.with_deadline(TIMEOUT).with_retry(Retry::NEVER);
            client.deduct(&Change::new(1, Money::from_minor(1))).await.err()
        })
    });
    let waits = "SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'";
    let is_stuck = poll_until(TIMEOUT, || (database.query(waits).ok()?.first()?.get(1)? != "0").then_some(()));
    ensure(is_stuck.is_some(), || "the call does not wait".into())?;
    let told = signal(stage, server)?;
    let code = server.terminated(TIMEOUT)?;
    let took = told.elapsed();
    let output = server.output();
    ensure(code == Some(0) && output.contains("still in flight"), || format!("exit {code:?}\n{output}"))?;
    ensure((GRACE..=GRACE + SLACK).contains(&took), || format!("it took {took:?}"))?;
    let lost = call.join().ok().flatten();
    ensure(lost.is_some(), || "the stuck call succeeded".into())?;
    Ok(format!("(after {took:.1?})"))
}

/// Sends SIGTERM; when.
fn signal(stage: &Stage, server: &Server<'_>) -> Result<Instant, Failure> {
    let mut kill = stage.foreign("kill");
    kill.args(["-TERM", &server.pid().to_string()]);
    stage.run(kill, TIMEOUT)?.expect(0)?;
    Ok(Instant::now())
}

/// Opens one stream of each kind; tells how each ends.
fn streams(server: &Server<'_>) -> Result<mpsc::Receiver<(&'static str, Option<Error>)>, Failure> {
    let (tell, told) = mpsc::channel();
    let (opened, open) = mpsc::channel();
    let address = server.address();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Failed(error.to_string()))?;
    thread::spawn(move || {
        runtime.block_on(async {
            let [timeline, status, deductions] = STREAMS;
            let (first, second, third) = (opened.clone(), opened.clone(), opened);
            tokio::join!(
                async { drop(tell.send((timeline, watch_timeline(address, first).await))) },
                async { drop(tell.send((status, watch_status(address, second).await))) },
                async { drop(tell.send((deductions, stream_deductions(address, third).await))) },
            );
        });
    });
    for _ in STREAMS {
        open.recv_timeout(TIMEOUT).map_err(|_| Failure::Failed("not every stream opens".into()))?;
    }
    Ok(told)
}

async fn watch_timeline(server: std::net::SocketAddr, opened: mpsc::Sender<()>) -> Option<Error> {
    let mut timeline = Client::connect_lazy(&server.to_string()).ok()?.timeline(None, Start::Now);
    loop {
        match timeline.next().await {
            Ok(TimelineItem::Connected) => opened.send(()).ok()?,
            Ok(TimelineItem::Event(_)) => {}
            Ok(TimelineItem::Disconnected { error, .. }) | Err(error) => return Some(error),
        }
    }
}

async fn watch_status(server: std::net::SocketAddr, opened: mpsc::Sender<()>) -> Option<Error> {
    let mut wire = Wire::dial(server).await.ok()?;
    let mut call = wire.begin("/zbl.v1.LabService/WatchStatus", &[]).await.ok()?;
    call.body.send_data(framed(&[]), true).ok()?;
    let (_body, mut answers) = call.opened().await.ok()?;
    opened.send(()).ok()?;
    let trailers = ended(&mut answers).await.ok()??;
    Error::check_trailers(&trailers).err()
}

async fn stream_deductions(server: std::net::SocketAddr, opened: mpsc::Sender<()>) -> Option<Error> {
    let client = Client::connect_lazy(&server.to_string()).ok()?;
    let account = client.open_account(None, Money::from_minor(100)).await.ok()?;
    let (changes, waiting) = tokio::sync::mpsc::channel(1);
    changes.send(Change::new(account.user_id, Money::from_minor(1))).await.ok()?;
    // It is kept open by its sender, which has nothing more to send.
    let mut answers = client.deduct_stream(tokio_stream::wrappers::ReceiverStream::new(waiting)).await.ok()?;
    answers.next().await?.ok()?.result.ok()?;
    opened.send(()).ok()?;
    let end = answers.next().await?.err();
    drop(changes);
    end
}
