//! The table on each database: each guarded step does what it says, and nothing where its guard does not hold.

use std::{collections::BTreeSet, time::Duration};

use uuid::Uuid;
use zbl_server::{
    account::{Change, EntryKind, NewEntry},
    error::Error,
    ledger::{Failed, Fate, Resolve},
    store::{
        Isolation, Matched, RowLock,
        outbox::{Key, NewOutgoing, Recorded, Standing},
    },
};

use super::{LONG, Scene, Set, another_programs, execute, key, ordered};
use crate::app::{Database, PATIENCE, deduction, money};

/// Run out as soon as it is given.
const NO_TIME: Duration = Duration::ZERO;

fn row(change: Change, sender: Uuid) -> NewOutgoing {
    NewOutgoing {
        key: key(change),
        amount: change.amount,
        strategy: "atomic",
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        sender,
    }
}

async fn scene(database: &Database) -> Scene {
    Scene::with(database, None, Set::default()).await
}

impl Scene {
    async fn record(&self, change: Change, claim: Duration) -> (Recorded, Uuid) {
        let sender = Uuid::new_v4();
        let mut recorded = self.table.record(vec![row(change, sender)], claim).await.unwrap();
        (recorded.remove(0), sender)
    }

    async fn standing(&self, key: Key) -> Option<Standing> {
        self.outbox.row_of(key).await.unwrap().map(|row| row.standing)
    }

    async fn resolve(&self, change: Change) -> Result<Fate, Error> {
        self.ledger().fate(change.user_id, change.request_id, Resolve::Finally).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_says_of_each_what_it_was_and_records_the_rest() {
    for database in Database::each() {
        let scene = scene(&database).await;
        let made = ordered(&scene).await;
        scene.ledger().apply(made, None).await.unwrap();
        let (there, new, other) = (deduction(made.user_id), deduction(made.user_id), deduction(made.user_id + 1));
        let (recorded, _) = scene.record(there, LONG).await;
        assert_eq!(recorded, Recorded::New);

        let rows = [there, made, other, new].map(|change| row(change, Uuid::new_v4())).to_vec();
        let recorded = scene.table.record(rows, LONG).await.unwrap();
        let [Recorded::There(found), Recorded::Journaled(entry), Recorded::New, Recorded::New] = &recorded[..] else {
            panic!("{recorded:?}");
        };
        assert_eq!((found.key, found.amount, found.standing), (key(there), there.amount, Standing::Claimed));
        assert_eq!((&*found.strategy, found.traceparent.len()), ("atomic", 55));
        assert_eq!((entry.request_id, entry.kind), (made.request_id, EntryKind::Deduct));
        assert_eq!(scene.standing(key(made)).await, None, "what is journaled is not recorded");
        assert_eq!(scene.rows(&database), 3);
    }
}

/// As large as they get, each row of another account: one statement says of all what they were.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_the_largest_size_is_one_statement() {
    for database in Database::each() {
        let scene = scene(&database).await;
        let changes: Vec<Change> = (1..=500).map(deduction).collect();
        let record = || scene.table.record(changes.iter().map(|change| row(*change, Uuid::new_v4())).collect(), LONG);
        assert!(record().await.unwrap().iter().all(|recorded| *recorded == Recorded::New));
        assert!(record().await.unwrap().iter().all(|recorded| matches!(recorded, Recorded::There(_))));
        let keys: Vec<Key> = changes.iter().map(|change| key(*change)).collect();
        scene.table.mark_sent(keys.clone()).await.unwrap();
        assert_eq!(scene.in_state(&database, "SENT"), 500);
        scene.table.remove(keys).await.unwrap();
        assert_eq!(scene.rows(&database), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_withdrawn_by_its_sender_alone_and_only_while_nothing_is_promised() {
    for database in Database::each() {
        let scene = scene(&database).await;
        let (withdrawn, lapsed, sent) = (ordered(&scene).await, ordered(&scene).await, ordered(&scene).await);
        let (_, sender) = scene.record(withdrawn, LONG).await;
        assert_eq!(scene.table.withdraw(key(withdrawn), Uuid::new_v4(), NO_TIME).await.unwrap(), Matched::No);
        let late = scene.table.withdraw(key(withdrawn), sender, 2 * LONG).await.unwrap();
        assert_eq!(late, Matched::No, "its claim is nearly over");
        assert_eq!(scene.table.withdraw(key(withdrawn), sender, NO_TIME).await.unwrap(), Matched::Yes);
        assert_eq!(scene.standing(key(withdrawn)).await, None);

        let (_, sender) = scene.record(lapsed, NO_TIME).await;
        assert_eq!(scene.table.withdraw(key(lapsed), sender, NO_TIME).await.unwrap(), Matched::No, "the claim ran out");
        assert_eq!(scene.standing(key(lapsed)).await, Some(Standing::Recorded));

        let (_, sender) = scene.record(sent, LONG).await;
        scene.table.mark_sent(vec![key(sent)]).await.unwrap();
        assert_eq!(scene.table.withdraw(key(sent), sender, NO_TIME).await.unwrap(), Matched::No, "it was sent");
        assert_eq!(scene.standing(key(sent)).await, Some(Standing::Sent));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_claim_the_oldest_and_never_the_same() {
    for database in Database::each() {
        let scene = scene(&database).await;
        let user_id = scene.bench.account("1000.00").await;
        let mut free = Vec::new();
        for _ in 0..40 {
            let change = deduction(user_id);
            scene.record(change, NO_TIME).await;
            free.push(key(change));
        }
        let (claimed, sent) = (deduction(user_id), deduction(user_id));
        scene.record(claimed, LONG).await;
        scene.record(sent, NO_TIME).await;
        scene.table.mark_sent(vec![key(sent)]).await.unwrap();

        let first = scene.table.claim(Uuid::new_v4(), LONG, 8).await.unwrap();
        let first: BTreeSet<Key> = first.into_iter().map(|row| row.key).collect();
        // Times are told in milliseconds on SQLite: of those of one no order is kept.
        assert_eq!(first.len(), 8);
        assert!(first.iter().all(|key| free[..16].contains(key)), "the oldest first");

        let several = (0..4).map(|_| scene.table.claim(Uuid::new_v4(), LONG, 100));
        let mut all: Vec<Key> = Vec::from_iter(first);
        for claimed in futures::future::join_all(several).await {
            all.extend(claimed.unwrap().into_iter().map(|row| row.key));
        }
        assert_eq!(all.len(), 40, "nobody claims what another has");
        assert_eq!(BTreeSet::from_iter(all), BTreeSet::from_iter(free));
        assert_eq!(scene.table.claim(Uuid::new_v4(), LONG, 100).await.unwrap(), []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_programs_row_is_the_relays_at_once_and_one_that_is_no_deduction_is_refused() {
    for database in Database::each() {
        let scene = scene(&database).await;
        let change = ordered(&scene).await;
        execute(&database, &format!("BEGIN; {}; ROLLBACK", another_programs(&database, change)));
        assert_eq!(scene.rows(&database), 0);
        execute(&database, &format!("BEGIN; {}; COMMIT", another_programs(&database, change)));
        assert_eq!(
            scene.fate(change).await,
            Fate::Pending(scene.outbox.row_of(key(change)).await.unwrap().unwrap().created_at)
        );
        let claimed = scene.table.claim(Uuid::new_v4(), LONG, 10).await.unwrap();
        assert_eq!(claimed.len(), 1);
        assert_eq!((claimed[0].key, claimed[0].amount, &*claimed[0].strategy), (key(change), change.amount, ""));
        assert!(matches!(scene.fate(change).await, Fate::Pending(_)), "a promise stays one while the relay sends it");

        for wrong in [Change { amount: money("0.00"), ..deduction(1) }, Change { user_id: 0, ..deduction(1) }] {
            let refused = std::panic::catch_unwind(|| execute(&database, &another_programs(&database, wrong)));
            assert!(refused.is_err(), "{wrong:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_rules_refuse_has_failed_for_good_and_says_why() {
    for database in Database::each() {
        let scene = scene(&database).await;
        let change = ordered(&scene).await;
        scene.record(change, LONG).await;
        scene.table.mark_sent(vec![key(change)]).await.unwrap();
        let detail = "it's \"too little\"; DROP TABLE 余额 \\";
        let fail = || scene.outbox.fail(key(change), change.amount, "INSUFFICIENT_BALANCE", detail);
        assert_eq!(fail().await.unwrap(), Failed::Now);
        let Fate::Failed(why) = scene.fate(change).await else { panic!("{:?}", scene.fate(change).await) };
        assert_eq!((&*why.reason, &*why.detail, why.is_barred), ("INSUFFICIENT_BALANCE", detail, true));

        // Whatever comes later under the id changes nothing.
        assert!(matches!(fail().await.unwrap(), Failed::Journaled(entry) if entry.kind == EntryKind::Void));
        scene.outbox.dead_letter(key(change), change.amount, "CONTENDED", "").await.unwrap();
        scene.table.mark_sent(vec![key(change)]).await.unwrap();
        scene.table.remove(vec![key(change)]).await.unwrap();
        assert!(scene.ledger().apply(change, None).await.is_err());
        assert_eq!(scene.fate(change).await, Fate::Failed(why.clone()));
        assert_eq!(scene.resolve(change).await.unwrap(), Fate::Failed(why));
        assert_eq!(scene.bench.balance(change.user_id).await, money("1000.00"));

        // One that was made cannot fail, and one without a row can.
        let made = deduction(change.user_id);
        scene.ledger().apply(made, None).await.unwrap();
        let failed = scene.outbox.fail(key(made), made.amount, "PURGED", "").await.unwrap();
        assert!(matches!(failed, Failed::Journaled(entry) if entry.kind == EntryKind::Deduct));
        assert!(matches!(scene.fate(made).await, Fate::Journaled(_)));
        let unknown = deduction(change.user_id);
        assert_eq!(scene.outbox.fail(key(unknown), unknown.amount, "PURGED", "").await.unwrap(), Failed::Now);
        assert!(matches!(scene.fate(unknown).await, Fate::Failed(why) if why.reason == "PURGED"));

        // Where there is no account there is no journal.
        let nobody = deduction(987_654_321);
        assert_eq!(scene.outbox.fail(key(nobody), nobody.amount, "ACCOUNT_NOT_FOUND", "").await.unwrap(), Failed::Now);
        assert!(matches!(scene.fate(nobody).await, Fate::Failed(why) if !why.is_barred));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_aside_can_be_taken_up_again_once() {
    for database in Database::each() {
        let scene = scene(&database).await;
        let change = ordered(&scene).await;
        scene.record(change, LONG).await;
        scene.table.mark_sent(vec![key(change)]).await.unwrap();
        assert_eq!(scene.outbox.requeue(key(change)).await.unwrap().map(|row| row.key), None, "it is on its way");
        scene.outbox.dead_letter(key(change), change.amount, "CONTENDED", &"ü".repeat(600)).await.unwrap();
        let Fate::DeadLettered(why) = scene.fate(change).await else { panic!("{:?}", scene.fate(change).await) };
        assert_eq!((&*why.reason, why.detail.chars().count()), ("CONTENDED", 500));
        let kept = scene.resolve(change).await.unwrap();
        assert!(matches!(kept, Fate::DeadLettered(_)), "who decides is the operator: {kept:?}");

        let again = scene.outbox.requeue(key(change)).await.unwrap().unwrap();
        assert_eq!((again.standing, &*again.reason), (Standing::Recorded, ""), "it cannot be taken back");
        assert!(matches!(scene.fate(change).await, Fate::Pending(_)));
        assert_eq!(scene.table.claim(Uuid::new_v4(), LONG, 10).await.unwrap(), [], "it is in hand");
        scene.outbox.sent(key(change)).await.unwrap();
        assert!(matches!(scene.fate(change).await, Fate::Pending(_)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_promised_is_not_voided_and_what_is_voided_is_not_recorded() {
    for database in Database::each() {
        let scene = scene(&database).await;
        let change = ordered(&scene).await;
        // A call is at it: nothing is promised, and nothing voided behind its back.
        let (_, sender) = scene.record(change, LONG).await;
        assert_eq!(scene.fate(change).await, Fate::NotFound);
        let refused = scene.resolve(change).await;
        assert!(matches!(refused, Err(Error::Contended { .. })), "{refused:?}");
        assert_eq!(scene.bench.journal(change.user_id).await.len(), 1);
        assert_eq!(scene.table.withdraw(key(change), sender, NO_TIME).await.unwrap(), Matched::Yes);
        assert_eq!(scene.resolve(change).await.unwrap(), Fate::Voided);
        let (recorded, _) = scene.record(change, LONG).await;
        assert!(matches!(recorded, Recorded::Journaled(entry) if entry.kind == EntryKind::Void));
        assert_eq!(scene.rows(&database), 0);

        // Its claim ran out, or it was sent.
        let lapsed = deduction(change.user_id);
        scene.record(lapsed, NO_TIME).await;
        assert!(matches!(scene.resolve(lapsed).await.unwrap(), Fate::Pending(_)));
        scene.table.mark_sent(vec![key(lapsed)]).await.unwrap();
        assert!(matches!(scene.resolve(lapsed).await.unwrap(), Fate::Pending(_)));
        scene.ledger().apply(lapsed, None).await.unwrap();
        assert!(matches!(scene.resolve(lapsed).await.unwrap(), Fate::Journaled(_)), "nothing barred it");
    }
}

/// One of the two sees the other, whichever way they come: a deduction is recorded or voided, never both.
#[tokio::test(flavor = "multi_thread")]
async fn recording_and_voiding_at_the_same_moment_agree() {
    for database in Database::each() {
        let scene = scene(&database).await;
        let user_id = scene.bench.account("1000.00").await;
        let (mut voided, mut recorded) = (0, 0);
        for turn in 0_u64..150 {
            let change = deduction(user_id);
            // Now the one comes first, now the other, and mostly they meet.
            let [record_after, resolve_after] = if turn % 2 == 0 { [turn / 30, 0] } else { [0, turn / 30] };
            let (record, resolve) = tokio::join!(
                async {
                    tokio::time::sleep(Duration::from_millis(record_after)).await;
                    scene.table.record(vec![row(change, Uuid::new_v4())], LONG).await
                },
                async {
                    tokio::time::sleep(Duration::from_millis(resolve_after)).await;
                    scene.resolve(change).await
                },
            );
            let is_recorded = match record {
                Ok(found) => found == [Recorded::New],
                // They met, and this one gave way.
                Err(error) => {
                    assert!(matches!(error, zbl_server::store::Error::Contended(_)), "{error:?}");
                    false
                }
            };
            let is_voided = match resolve {
                Ok(fate) => fate == Fate::Voided,
                Err(error) => {
                    assert!(matches!(error, Error::Contended { .. }), "{error:?}");
                    false
                }
            };
            assert!(!(is_recorded && is_voided), "recorded and voided in turn {turn}");
            (recorded, voided) = (recorded + u32::from(is_recorded), voided + u32::from(is_voided));
        }
        assert!(recorded > 0 && voided > 0, "{recorded} recorded, {voided} voided");
    }
}

/// The look at the journal is a locking one: it waits for whoever is about to journal the same request, and for nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn recording_waits_for_the_same_request_and_for_no_other() {
    let database = Database::mysql();
    let scene = scene(&database).await;
    let (change, other) = (ordered(&scene).await, ordered(&scene).await);
    let mut transaction = scene.ledger().bench().store.transaction(Isolation::ReadCommitted, None);
    let state = transaction.read(change.user_id, RowLock::Exclusive).await.unwrap().unwrap();
    let after = money("990.00");
    transaction.write(change.user_id, after).await.unwrap();
    let entry = NewEntry {
        user_id: change.user_id,
        version: state.version + 1,
        request_id: change.request_id,
        kind: EntryKind::Deduct,
        delta: change.delta(),
        balance_after: after,
        version_before: state.version,
        strategy: "atomic",
    };
    transaction.append(&entry).await.unwrap();

    for free in [deduction(change.user_id), other] {
        let (recorded, _) = tokio::time::timeout(PATIENCE / 10, scene.record(free, LONG)).await.expect("it waits");
        assert_eq!(recorded, Recorded::New);
    }
    let mut recording = Box::pin(scene.record(change, LONG));
    crate::app::until("it waits", async || {
        assert!(futures::poll!(&mut recording).is_pending());
        scene.ledger().blocked().await.unwrap() > 0
    })
    .await;
    transaction.commit().await.unwrap();
    assert!(matches!(recording.await.0, Recorded::Journaled(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sweep_finds_what_is_journaled_page_by_page() {
    for database in Database::each() {
        let scene = scene(&database).await;
        let user_id = scene.bench.account("1000.00").await;
        let (mut settled, mut sent) = (BTreeSet::new(), 0);
        for number in 0..20 {
            let change = deduction(user_id);
            scene.record(change, LONG).await;
            scene.table.mark_sent(vec![key(change)]).await.unwrap();
            if number % 3 == 0 {
                scene.ledger().apply(change, None).await.unwrap();
                settled.insert(key(change));
            }
            sent += 1;
        }
        let recorded = deduction(user_id);
        scene.record(recorded, LONG).await;
        let put_aside = deduction(user_id);
        scene.outbox.dead_letter(key(put_aside), put_aside.amount, "CONTENDED", "").await.unwrap();
        assert_eq!(scene.table.sweep(None, LONG, 100).await.unwrap().last, None, "nothing is as old as that");

        let (mut found, mut after) = (BTreeSet::new(), None);
        // On SQLite, times are in milliseconds: nothing is older than none before the next has begun.
        crate::app::until("all are old enough", async || {
            scene.table.sweep(None, NO_TIME, 100).await.unwrap().settled.len() == settled.len()
        })
        .await;
        loop {
            let page = scene.table.sweep(after, NO_TIME, 7).await.unwrap();
            assert!(page.settled.len() <= 7);
            found.extend(page.settled);
            after = page.last;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, settled);
        assert!(scene.outbox.oldest().await.unwrap().is_some());
        scene.table.remove(settled.into_iter().collect()).await.unwrap();
        assert_eq!(scene.in_state(&database, "SENT"), sent - 7);
    }
}
