//! The schedule explorer: what it finds for `none` is exactly what theory says, what promises Always loses in no
//! schedule, and what it found it finds again.

use std::collections::BTreeSet;

use zbl_server::{
    explore::{self, Answer, Bounds, Coverage, Crashes, Found, Onward, Outcome, Part, Scene, Stage, Token},
    strategy::{self, Guarantee, REGISTRY, Row},
};

use crate::app::{Database, config, money};

/// Beyond what two operations have.
const ALL: Bounds = Bounds { limit: 20_000, seed: 1 };

fn scene(strategies: &[&'static Row], instances: usize) -> Scene {
    let parts = strategies.iter().map(|strategy| Part { strategy, amount: money("10.00") }).collect();
    Scene { parts, opening: money("100.00"), instances, crashes: Crashes::Never }
}

fn named(name: &str) -> &'static Row {
    strategy::find(name).unwrap()
}

async fn stage(database: &Database, instances: usize) -> Stage {
    Stage::open(&config(&database.url, &[]), instances).await.unwrap()
}

/// Every schedule of a scene.
async fn all(stage: &Stage, scene: &Scene) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let explored = explore::explore(stage, scene, ALL, |found| {
        if let Found::Outcome(outcome) = found {
            outcomes.push(*outcome);
        }
        Onward::Continue
    });
    let explored = explored.await.unwrap();
    assert_eq!((explored.coverage, explored.diverged), (Coverage::All, 0), "{}", scene.strategies());
    outcomes
}

/// What theory says of two operations without any guard: their reads see what was committed before them, the row lock
/// of a write is held until the commit, and so whoever writes first commits first. Money is lost if each read before
/// the other had committed.
fn theory() -> (BTreeSet<String>, BTreeSet<String>) {
    let chain = ["r", "c", "w", "k"];
    let (mut schedules, mut losing) = (BTreeSet::new(), BTreeSet::new());
    for choice in 0..1_u32 << 8 {
        if choice.count_ones() != 4 {
            continue;
        }
        // The bits say whose step comes next.
        let mut done = [0, 0];
        let steps: Vec<String> = (0..8)
            .map(|at| {
                let who = (choice >> at & 1) as usize;
                done[who] += 1;
                format!("{}{}", chain[done[who] - 1], who + 1)
            })
            .collect();
        let at = |step: &str| steps.iter().position(|other| other == step).unwrap();
        if (at("w1") < at("w2")) != (at("k1") < at("k2")) {
            continue;
        }
        let schedule = steps.join(" ");
        if at("r2") < at("k1") && at("r1") < at("k2") {
            losing.insert(schedule.clone());
        }
        schedules.insert(schedule);
    }
    (schedules, losing)
}

#[tokio::test(flavor = "multi_thread")]
async fn none_loses_in_exactly_the_schedules_that_theory_says() {
    let (schedules, losing) = theory();
    for database in Database::each() {
        let (stage, scene) = (stage(&database, 1).await, scene(&[named("none"); 2], 1));
        let outcomes = all(&stage, &scene).await;
        let texts = |outcomes: &mut dyn Iterator<Item = &Outcome>| -> BTreeSet<String> {
            outcomes.map(|outcome| outcome.schedule.to_string()).collect()
        };
        assert_eq!(texts(&mut outcomes.iter()), schedules, "{}", stage.store_name());
        assert_eq!(texts(&mut outcomes.iter().filter(|o| o.is_losing())), losing, "{}", stage.store_name());
        // Where the second wrote while the first held the row.
        let blocked = |text: &str| {
            let at = |step: &str| text.find(step).unwrap();
            let (first, second) = if at("w1") < at("w2") { ('1', '2') } else { ('2', '1') };
            at(&format!("w{second}")) < at(&format!("k{first}"))
        };
        for outcome in &outcomes {
            let text = outcome.schedule.to_string();
            assert_eq!(outcome.blocked, blocked(&text), "{text} on {}", stage.store_name());
            assert!(!outcome.deadlocked && !outcome.is_refused());
            assert_eq!(outcome.broken_promise(&scene), None);
            let lost = if outcome.is_losing() { money("10.00") } else { money("0.00") };
            assert_eq!(outcome.judgement.lost, lost, "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_promises_always_loses_in_no_schedule() {
    for database in Database::each() {
        let stage = stage(&database, 1).await;
        for row in REGISTRY.iter().filter(|row| row.guarantee != Guarantee::LosesUpdates) {
            let scene = scene(&[row, row], 1);
            let outcomes = all(&stage, &scene).await;
            let count = |what: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| what(outcome)).count();
            let label = format!("{} on {}: {} schedules", row.name, stage.store_name(), outcomes.len());
            assert_eq!(count(Outcome::is_losing), 0, "{label}");
            assert!(outcomes.iter().all(|outcome| outcome.broken_promise(&scene).is_none()), "{label}");
            // That they met at all: one waited for the other, or was turned away.
            assert!(count(|outcome| outcome.blocked) > 0 && outcomes.len() > 2, "{label}");
        }
    }
}

/// One operation's deadlock is another's progress, and a loser of a race tries again: that these were met is what makes
/// the result above worth anything.
#[tokio::test(flavor = "multi_thread")]
async fn deadlocks_refusals_and_repeats_are_met() {
    let stage = stage(&Database::mysql(), 1).await;
    let outcomes = all(&stage, &scene(&[named("serializable"); 2], 1)).await;
    assert!(outcomes.iter().any(|outcome| outcome.deadlocked));
    let outcomes = all(&stage, &scene(&[named("optimistic"); 2], 1)).await;
    let repeated = |outcome: &Outcome| {
        outcome.calls.iter().any(|call| matches!(&call.answer, Answer::Acknowledged(receipt) if receipt.attempts == 2))
    };
    assert!(outcomes.iter().any(repeated));
    let scarce = Scene { opening: money("15.00"), ..scene(&[named("atomic"); 2], 1) };
    let outcomes = all(&stage, &scarce).await;
    assert!(outcomes.iter().all(|outcome| outcome.is_refused() && !outcome.is_losing()));
    let deposits = |row| Part { strategy: row, amount: money("-10.00") };
    let deposits = Scene { parts: vec![deposits(named("none")); 2], ..scene(&[named("none"); 2], 1) };
    let lost = all(&stage, &deposits).await.into_iter().filter(Outcome::is_losing);
    assert!(lost.map(|outcome| outcome.judgement.lost).all(|lost| lost == money("-10.00")));
}

/// Beside one that overwrites, a strategy that promises Always may lose, but never overwrites. What keeps operations
/// apart in one process does so no longer in two.
#[tokio::test(flavor = "multi_thread")]
async fn mixed_strategies_and_two_instances_keep_their_promises() {
    for database in Database::each() {
        let (one, two) = (stage(&database, 1).await, stage(&database, 2).await);
        for row in REGISTRY.iter().filter(|row| row.guarantee == Guarantee::Always) {
            let mixed = scene(&[named("none"), row], 1);
            let outcomes = all(&one, &mixed).await;
            assert!(outcomes.iter().any(Outcome::is_losing), "{}", row.name);
            for outcome in outcomes {
                assert_eq!(outcome.broken_promise(&mixed), None, "{}", outcome.token(&mixed));
            }
        }
        let across = |row: &&Row| matches!(row.guarantee, Guarantee::Always | Guarantee::WhileLeaseHolds);
        for row in REGISTRY.iter().filter(across) {
            let outcomes = all(&two, &scene(&[row, row], 2)).await;
            assert!(outcomes.iter().any(|outcome| outcome.blocked), "{}", row.name);
            assert!(!outcomes.iter().any(Outcome::is_losing), "{}", row.name);
        }
        let mutexes = scene(&[named("mutex"); 2], 2);
        let outcomes = all(&two, &mutexes).await;
        assert!(outcomes.iter().any(Outcome::is_losing));
        assert!(outcomes.iter().all(|outcome| outcome.broken_promise(&mutexes).is_none()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_plays_the_same_again_and_an_impossible_step_is_refused() {
    for database in Database::each() {
        let stage = stage(&database, 1).await;
        let text = "zbl1:none+none:100.00:10.00+10.00:i1:r1c1r2c2w1w2k1k2";
        let token: Token = text.parse().unwrap();
        for _ in 0..20 {
            let outcome = explore::replay(&stage, &token).await.unwrap();
            assert_eq!(outcome.token(&token.scene).to_string(), text);
            assert_eq!((outcome.is_losing(), outcome.balance), (true, money("90.00")));
            assert!(outcome.blocked && outcome.race().is_some());
        }
        let impossible: Token = "zbl1:none+none:100.00:10.00+10.00:i1:r1c1r2c2w1w2k2".parse().unwrap();
        let refused = explore::replay(&stage, &impossible).await.unwrap_err().to_string();
        assert!(refused.contains("k2") && refused.contains("possible are: k1"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_operations_are_sampled_as_the_seed_says() {
    let stage = stage(&Database::sqlite(), 1).await;
    let (scene, bounds) = (scene(&[named("none"); 3], 1), Bounds { limit: 20, seed: 7 });
    let mut samples = Vec::new();
    for _ in 0..2 {
        let mut schedules = Vec::new();
        let explored = explore::explore(&stage, &scene, bounds, |found| {
            match found {
                Found::Outcome(outcome) => schedules.push(outcome.schedule.to_string()),
                Found::TooMany => schedules.clear(),
            }
            Onward::Continue
        });
        let Coverage::Sample { seed: 7, of_about } = explored.await.unwrap().coverage else { panic!("not a sample") };
        assert!(of_about > 1000.0, "{of_about}");
        assert_eq!(schedules.iter().collect::<BTreeSet<_>>().len(), 20);
        samples.push(schedules);
    }
    assert_eq!(samples[0], samples[1]);
}

/// An operation dies at any point, and the rest goes on: nothing a client was told is lost, and what nobody was told is
/// settled.
#[tokio::test(flavor = "multi_thread")]
async fn crashes_lose_nothing_and_leave_nothing_unknown() {
    for database in Database::each() {
        let (one, two) = (stage(&database, 1).await, stage(&database, 2).await);
        for (name, instances) in [("mutex", 1), ("optimistic", 1), ("serializable", 1), ("batched", 1), ("batched", 2)]
        {
            let crashing = Scene { crashes: Crashes::One, ..scene(&[named(name); 2], instances) };
            let outcomes = all(if instances == 1 { &one } else { &two }, &crashing).await;
            let (mut succeeded, mut voided) = (0, 0);
            for outcome in &outcomes {
                assert_eq!(outcome.broken_promise(&crashing), None, "{}", outcome.token(&crashing));
                let applied = outcome.calls.iter().filter(|call| match call.answer {
                    Answer::Acknowledged(_) => true,
                    Answer::UnknownThenSucceeded => {
                        succeeded += 1;
                        true
                    }
                    Answer::UnknownThenVoided => {
                        voided += 1;
                        false
                    }
                    Answer::Refused(_) => false,
                });
                let left = 10_000 - 1_000 * i64::try_from(applied.count()).unwrap();
                assert_eq!(outcome.balance.minor(), left, "{}", outcome.token(&crashing));
            }
            assert!(succeeded > 0 && voided > succeeded, "{name}: {succeeded}, {voided}");
        }
    }
}
