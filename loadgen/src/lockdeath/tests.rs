//! Whole scenes over the wire, on two servers that share one account in memory; and what is shown of them.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use uuid::Uuid;
use zbl_client::{Change, Client, Guarantee, Money, Phase, Reason};

use super::*;
use crate::attack::stop;
use crate::attack::tests::fake::{Fake, Fault};
use crate::verdict::Verdict;

/// Both servers work, and so does one of two deductions that nothing goes wrong with.
const FINE: Fault = Fault::Late(Duration::ZERO);

fn death(name: &str, lines: Lines) -> Death {
    Death { name: name.to_owned(), by: By::Lines(lines), strategies: vec!["fake".to_owned()] }
}

fn breaking(line: &str) -> Lines {
    Lines { breaks: line.to_owned(), ..Lines::default() }
}

async fn plan(fake: &Fake, deaths: Vec<Death>) -> Plan {
    Plan { holder: fake.serve().await, rival: fake.serve().await, lease: Duration::from_millis(1), deaths }
}

async fn played(plan: &Plan) -> Result<Report, LockDeathError> {
    let nobody = async |_: &str| Err("nobody is there".to_owned());
    run(plan, nobody, &watch::Sender::default(), &stop().1).await
}

fn valid(report: &Report) -> Value {
    let schema: Value = serde_json::from_str(include_str!("../../lockdeath.schema.json")).unwrap();
    let result = serde_json::to_value(report).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<_> = validator.iter_errors(&result).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}\n{result}");
    result
}

#[tokio::test]
async fn a_scene_has_its_order_and_what_is_lost_in_it_its_witness() {
    let order = std::env::temp_dir().join(format!("loadgen-lockdeath-{}", std::process::id()));
    let note = |step: &str| format!("echo $ZBL_STRATEGY $ZBL_USER_ID {step} >> {}", order.display());
    let lines = Lines {
        prepare: Some(note("prepare")),
        breaks: note("break"),
        mend: Some(note("mend")),
        restore: Some(note("restore")),
    };
    // Two to see that all works, the holder's, and the rival's on what it had read before; then the same and no loss.
    let fake = Fake::new([FINE, FINE, FINE, Fault::Overwritten]);
    let report = played(&plan(&fake, vec![death("written over", lines)]).await).await.unwrap();
    let noted = fs::read_to_string(&order).unwrap();
    fs::remove_file(&order).unwrap();

    let steps = ["prepare", "break", "mend", "restore"].map(|step| format!("fake 1 {step}\n")).concat();
    assert_eq!(noted, steps.repeat(PLACES.len()));
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(report.verdict("fake"), Some((Guarantee::Always, Verdict::Lost)));
    let result = valid(&report);
    let places = &result["cells"][0]["places"];
    assert_eq!((&places[0]["phase"], &places[1]["phase"]), (&"WRITE".into(), &"COMMIT".into()));
    let [lost, clean] = [0, 1].map(|place| &places[place]["played"]);
    assert_eq!((&lost["verdict"], &lost["lost"], &lost["rival"]), (&"LOST".into(), &"10.00".into(), &"STOOD".into()));
    assert_eq!((&clean["verdict"], &clean["lost"]), (&"CLEAN".into(), &"0.00".into()));
    let shown = text(&report);
    for told in [
        "10.00 (10.00, 0)",
        "written over, fake, before WRITE: 10.00 lost",
        "B had read v1, and its v3 wrote over A's v2",
    ] {
        assert!(shown.contains(told), "{told}: {shown}");
    }
}

#[tokio::test]
async fn what_could_not_be_broken_is_no_zero_and_is_mended_all_the_same() {
    let mended = std::env::temp_dir().join(format!("loadgen-mended-{}", std::process::id()));
    let restore = Some(format!("echo mended >> {}", mended.display()));
    let lines = Lines { restore, ..breaking("echo no such process; exit 1") };
    let fake = Fake::new([]);
    let report = played(&plan(&fake, vec![death("not broken", lines)]).await).await.unwrap();
    let noted = fs::read_to_string(&mended).unwrap();
    fs::remove_file(&mended).unwrap();

    assert_eq!(noted, "mended\n".repeat(PLACES.len()));
    assert!(!report.is_complete() && report.verdict("fake").is_none(), "{report:?}");
    valid(&report);
    let shown = text(&report);
    assert!(shown.contains("?  ") || shown.contains("? \n") || shown.contains(" ?\n"), "{shown}");
    assert!(shown.contains("could not be played\n  break: `echo no such process; exit 1` ended with exit status: 1"));
}

#[tokio::test]
async fn a_stage_that_does_not_work_ends_the_run() {
    // The second scene finds that the servers are away for good.
    let fake = Fake::new([FINE, FINE, FINE, FINE, Fault::TurnedAway(zbl_client::Reason::StrategyUnavailable)]);
    let report = played(&plan(&fake, vec![death("x", breaking("true"))]).await).await.unwrap();
    assert!(report.halted.as_deref().unwrap().contains("STRATEGY_UNAVAILABLE"), "{report:?}");
    assert_eq!((report.cells.len(), report.cells[0].places.len()), (1, 1));
    assert!(!report.is_complete());
    valid(&report);
}

#[tokio::test]
async fn a_rival_kept_off_by_a_breaker_is_no_zero() {
    for (reason, is_of_the_lock) in [(Reason::CircuitOpen, false), (Reason::BackendDown, true)] {
        let fake = Fake::new([Fault::TurnedAway(reason)]);
        let change = Change {
            user_id: 1,
            amount: Money::from_minor(1),
            request_id: Uuid::new_v4(),
            strategy: "fake".to_owned(),
        };
        let end = fake.serve().await.with_retry(zbl_client::Retry::NEVER).deduct(&change).await;
        let came = Rival::ended(Duration::ZERO, end);
        assert_eq!(matches!(came, Ok(Rival::TurnedAway { .. })), is_of_the_lock, "{came:?}");
        assert_eq!(came.is_err_and(|error| error.contains("--breaker-least")), !is_of_the_lock);
    }
}

#[tokio::test]
async fn what_cannot_be_played_is_refused_before_anything_is_broken() {
    let fake = Fake::new([]);
    let deaths = vec![Death { strategies: vec!["elsewhere".to_owned()], ..death("x", breaking("false")) }];
    let unavailable = played(&plan(&fake, deaths.clone()).await).await.unwrap_err();
    assert!(matches!(unavailable, LockDeathError::Setup(AttackError::StrategyUnavailable { .. })), "{unavailable}");
    let holder = fake.serve().await;
    let rival = Client::connect_lazy(&format!("http://{}", holder.address())).unwrap();
    let twice = played(&Plan { holder, rival, lease: Duration::from_secs(1), deaths }).await.unwrap_err();
    assert!(matches!(twice, LockDeathError::OneServer(_)), "{twice}");
}

#[tokio::test]
async fn without_anybody_there_nothing_is_broken_by_hand() {
    let fake = Fake::new([]);
    let by_hand = Death { strategies: vec!["fake".to_owned()], ..Death::by_hand() };
    let report = played(&plan(&fake, vec![by_hand]).await).await.unwrap();
    assert!(!report.is_complete() && text(&report).contains("nobody is there"), "{report:?}");
}

fn scene(verdict: Verdict, rival: Rival, noticed: bool) -> Result<Played, String> {
    let lost = Money::from_minor(if verdict == Verdict::Lost { 1_000 } else { 0 });
    let (doubts, story, lost_updates) = (Vec::new(), vec!["it was so".to_owned()], Vec::new());
    Ok(Played { user_id: 1, verdict, lost, rival, noticed, doubts, story, lost_updates })
}

#[test]
fn each_cell_tells_the_money_and_where() {
    let stood = || Rival::Stood { after: Duration::from_secs(1), attempt: 1 };
    let out = || Rival::KeptOut { after: Duration::from_secs(3) };
    let gone = || Rival::TurnedAway { after: Duration::ZERO, error: "BACKEND_DOWN: gone".to_owned() };
    let cell = |before_write, before_commit| {
        let mut cell = Cell::new(&death("x", breaking("true")), "fake", Guarantee::WhileLeaseHolds);
        let places = [(Phase::Write, before_write), (Phase::Commit, before_commit)];
        cell.places.extend(places.map(|(phase, played)| Place::new(phase, played)));
        cell
    };
    for (before_write, before_commit, figure) in [
        (scene(Verdict::Clean, stood(), true), scene(Verdict::Lost, stood(), false), "10.00 (noticed, 10.00)"),
        (scene(Verdict::Lost, stood(), false), scene(Verdict::Lost, stood(), false), "20.00 (10.00)"),
        (scene(Verdict::Clean, stood(), true), scene(Verdict::Clean, gone(), false), "0 (noticed, turned away)"),
        (scene(Verdict::Clean, out(), false), scene(Verdict::Clean, out(), false), "0 (kept out)"),
        (scene(Verdict::Clean, stood(), false), scene(Verdict::Clean, stood(), false), "0"),
        (Err("not broken".to_owned()), scene(Verdict::Clean, out(), false), "? (?, kept out)"),
        (Err("not broken".to_owned()), scene(Verdict::Lost, stood(), false), "10.00 (?, 10.00)"),
        (scene(Verdict::Inconclusive, stood(), false), Err("not broken".to_owned()), "?"),
    ] {
        let played = cell(before_write, before_commit);
        let plan_free = |cells| Report {
            schema_version: 1,
            store: "memory".to_owned(),
            holder: "a:1".to_owned(),
            rival: "b:2".to_owned(),
            lease_ms: 1_000,
            opening: Money::from_minor(10_000),
            amount: Money::from_minor(1_000),
            cells,
            halted: None,
        };
        let report = plan_free(vec![played]);
        let shown = table(&report);
        let row = shown.lines().nth(2).unwrap();
        assert_eq!(row.split_once(' ').unwrap().1.trim(), figure, "{shown}");
        valid(&report);
    }
}
