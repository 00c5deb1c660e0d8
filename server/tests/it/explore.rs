//! The schedule explorer: what it finds for `none` is exactly what theory says, what promises Always loses in no
//! schedule, and what it found it finds again.

use std::collections::BTreeSet;

use zbl_server::{
    explore::{self, Bounds, Coverage, Crashes, Found, Onward, Outcome, Part, Scene, Stage},
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
            let outcomes = all(&stage, &scene(&[row, row], 1)).await;
            let count = |what: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| what(outcome)).count();
            let label = format!("{} on {}: {} schedules", row.name, stage.store_name(), outcomes.len());
            assert_eq!(count(Outcome::is_losing), 0, "{label}");
            // That they met at all: one waited for the other, or was turned away.
            assert!(count(|outcome| outcome.blocked) > 0 && outcomes.len() > 2, "{label}");
        }
    }
}
