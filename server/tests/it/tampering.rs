//! The hash chain, on each database: what the service writes is sound, and what somebody changes behind its back is found
//! and named.

mod command;

use std::sync::Arc;

use diesel::{Connection, SqliteConnection, connection::SimpleConnection};
use uuid::Uuid;
use zbl_server::{
    account::{Change, Direction, Entry},
    ledger::{Fate, Resolve},
    store::Store,
    strategy::{self, REGISTRY},
    verify::{Anchor, Finding, Scope, Tally, Told, What, verify},
};

use crate::app::{Bench, Database, deduction, money};

const OFF: &str = "--hash-chain=false";

fn store(bench: &Bench) -> &dyn Store {
    &*bench.ledger.bench().store
}

/// What there is to find, and how much was looked at.
async fn verified(bench: &Bench, scope: Scope) -> (Vec<Finding>, Tally) {
    let mut findings = Vec::new();
    let tally = verify(store(bench), scope, |told| {
        if let Told::Found(finding) = told {
            findings.push(finding.clone());
        }
        Ok(())
    });
    let tally = tally.await.unwrap();
    assert_eq!(findings.len() as u64, tally.findings);
    (findings, tally)
}

async fn found(bench: &Bench, user_id: i64) -> Vec<What> {
    verified(bench, Scope::One(user_id, None)).await.0.into_iter().map(|finding| finding.what).collect()
}

/// Runs a statement past the service.
fn execute(database: &Database, sql: &str) {
    match database.url.strip_prefix("sqlite://") {
        Some(path) => {
            let mut connection = SqliteConnection::establish(path).unwrap();
            connection.batch_execute(&format!("PRAGMA busy_timeout = 5000; {sql}")).unwrap();
        }
        None => drop(test_support::query(&database.url, sql).unwrap()),
    }
}

async fn apply(bench: &Bench, change: Change, strategy: &str) {
    bench.ledger.apply(change, Some(strategy::find(strategy).unwrap())).await.unwrap();
}

/// An account with entries of versions 1 to 5; that of version 3 is by `none`, whom the database does not hold to anything.
async fn account(bench: &Bench) -> i64 {
    let user_id = bench.account("1000.00").await;
    for strategy in ["atomic", "none", "batched", "event_sourced"] {
        apply(bench, deduction(user_id), strategy).await;
    }
    user_id
}

fn text(entry: &Entry, created_at: &str) -> String {
    let Entry { user_id, version, request_id, kind, delta, balance_after, version_before, strategy, .. } = entry;
    let (id, kind, created_at) = (request_id.simple(), kind.name(), entry.created_at.format(created_at));
    format!("{user_id}|{version}|{id}|{kind}|{delta}|{balance_after}|{version_before}|{strategy}|{created_at}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_every_strategy_writes_is_sound() {
    for database in Database::each() {
        let bench = Bench::open(&database.url, &[]).await;
        let user_ids = [bench.account("1000.00").await, bench.account("0.05").await, bench.account("7.00").await];
        for row in REGISTRY {
            for user_id in user_ids {
                let deposit = Change { direction: Direction::Deposit, amount: money("10.07"), ..deduction(user_id) };
                apply(&bench, deposit, row.name).await;
                apply(&bench, deduction(user_id), row.name).await;
            }
            let void = bench.ledger.fate(user_ids[0], Uuid::new_v4(), Resolve::Finally).await.unwrap();
            assert_eq!(void, Fate::Voided);
        }
        // A batch of several accounts and several entries of each, in whatever order.
        let batched = Some(strategy::find("batched").unwrap());
        let calls = (0..30).map(|at| {
            let ledger = Arc::clone(&bench.ledger);
            tokio::spawn(async move { ledger.apply(deduction(user_ids[at % 2 * 2]), batched).await })
        });
        for call in calls.collect::<Vec<_>>() {
            // Not all of them have the money.
            let _ = call.await.unwrap();
        }
        bench.ledger.reset(user_ids[1], money("1000.00"), Uuid::new_v4()).await.unwrap();
        apply(&bench, deduction(user_ids[1]), "pessimistic").await;

        let (findings, tally) = verified(&bench, Scope::All).await;
        assert_eq!(findings, []);
        assert_eq!(tally.accounts, 3);
        assert!(tally.entries > 80 && tally.covered == tally.entries, "{tally:?}");

        // What the database renders is what the service says of an entry.
        let form = if database.url.starts_with("sqlite") { "%F %T%.3f" } else { "%F %T%.6f" };
        for user_id in user_ids {
            let journal = bench.journal(user_id).await;
            let records = store(&bench).records((user_id, 0), journal.len() as i64).await.unwrap();
            assert_eq!(records.len(), journal.len());
            for (entry, record) in journal.iter().zip(records) {
                assert_eq!(record.text, text(entry, form));
            }
        }
    }
}

/// Column, and what to set it to by one byte, one cent, one tick of the clock: in MySQL, and in SQLite.
const COLUMNS: [[&str; 3]; 7] = [
    ["kind", "'DEDUCU'", "'DEDUCU'"],
    ["delta", "delta + 0.01", "delta + 1"],
    ["balance_after", "balance_after - 0.01", "balance_after - 1"],
    ["version_before", "version_before - 1", "version_before - 1"],
    ["strategy", "'nonf'", "'nonf'"],
    [
        "created_at",
        "created_at + INTERVAL 1 MICROSECOND",
        "substr(created_at, 1, 22) || iif(substr(created_at, 23) = '0', '1', '0')",
    ],
    [
        "digest",
        "UNHEX(CONCAT(LEFT(HEX(digest), 63), IF(RIGHT(HEX(digest), 1) = '0', '1', '0')))",
        "unhex(substr(hex(digest), 1, 63) || iif(substr(hex(digest), 64) = '0', '1', '0'))",
    ],
];

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_any_column_is_found_and_named() {
    for (at, database) in Database::each().iter().enumerate() {
        let bench = Bench::open(&database.url, &[]).await;
        for columns in COLUMNS {
            let (column, value) = (columns[0], columns[if at == 0 { 2 } else { 1 }]);
            let user_id = account(&bench).await;
            assert_eq!(found(&bench, user_id).await, [], "before {column}");
            execute(
                database,
                &format!("UPDATE entries SET {column} = {value} WHERE user_id = {user_id} AND version = 3"),
            );
            assert_eq!(found(&bench, user_id).await, [What::Changed { version: 3 }], "{column}");
        }
        let user_id = account(&bench).await;
        let request_id = bench.journal(user_id).await[2].request_id;
        let other = Uuid::from_u128(request_id.as_u128() ^ 1).simple().to_string();
        execute(
            database,
            &format!("UPDATE entries SET request_id = X'{other}' WHERE user_id = {user_id} AND version = 3"),
        );
        assert_eq!(found(&bench, user_id).await, [What::Changed { version: 3 }], "request_id");
        // Its key: it goes elsewhere, and is missing here.
        let (from, to) = (account(&bench).await, account(&bench).await);
        execute(
            database,
            &format!("UPDATE entries SET user_id = {to}, version = 6 WHERE user_id = {from} AND version = 3"),
        );
        assert_eq!(found(&bench, from).await, [What::Missing { versions: (3, 3) }]);
        assert_eq!(
            found(&bench, to).await,
            [What::Changed { version: 6 }, What::Inserted { versions: (6, 6), account: Some(5) }]
        );
        // Among all accounts each is named.
        let (findings, tally) = verified(&bench, Scope::All).await;
        assert_eq!((findings.len(), tally.accounts), (COLUMNS.len() + 1 + 3, 10));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_removed_inserted_or_swapped_are_found_and_named() {
    for database in Database::each() {
        let bench = Bench::open(&database.url, &[]).await;
        let removed = account(&bench).await;
        execute(&database, &format!("DELETE FROM entries WHERE user_id = {removed} AND version = 3"));
        assert_eq!(found(&bench, removed).await, [What::Missing { versions: (3, 3) }]);
        let cut = account(&bench).await;
        execute(&database, &format!("DELETE FROM entries WHERE user_id = {cut} AND version > 3"));
        assert_eq!(found(&bench, cut).await, [What::Missing { versions: (4, 5) }]);
        let emptied = account(&bench).await;
        execute(&database, &format!("DELETE FROM entries WHERE user_id = {emptied}"));
        assert_eq!(found(&bench, emptied).await, [What::Missing { versions: (1, 5) }]);

        let inserted = account(&bench).await;
        let insert = |version: i64| {
            let id = Uuid::new_v4().simple().to_string();
            let values = format!("X'{id}', 'DEPOSIT', 5, 5, {}, 'atomic'", version - 1);
            format!(
                "INSERT INTO entries (user_id, version, request_id, kind, delta, balance_after, version_before, strategy) \
                 VALUES ({inserted}, {version}, {values})"
            )
        };
        execute(&database, &insert(6));
        let beyond = What::Inserted { versions: (6, 6), account: Some(5) };
        assert_eq!(found(&bench, inserted).await, [What::Unchained { versions: (6, 6) }, beyond]);
        // The account is made to agree.
        execute(&database, &format!("UPDATE accounts SET version = 6, balance = 5 WHERE user_id = {inserted}"));
        assert_eq!(found(&bench, inserted).await, [What::Unchained { versions: (6, 6) }]);

        let swapped = account(&bench).await;
        for (from, to) in [(3, 9), (4, 3), (9, 4)] {
            let sql = format!(
                "UPDATE entries SET strategy = 'none', version = {to} WHERE user_id = {swapped} AND version = {from}"
            );
            execute(&database, &sql);
        }
        assert_eq!(
            found(&bench, swapped).await,
            [What::Changed { version: 3 }, What::Changed { version: 4 }, What::Changed { version: 5 }]
        );

        let orphaned = account(&bench).await;
        execute(&database, &format!("DELETE FROM accounts WHERE user_id = {orphaned}"));
        assert_eq!(found(&bench, orphaned).await, [What::Inserted { versions: (1, 5), account: None }]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_changed_by_hand_is_found() {
    for database in Database::each() {
        let bench = Bench::open(&database.url, &[]).await;
        let user_id = account(&bench).await;
        execute(&database, &format!("UPDATE accounts SET balance = balance + 1 WHERE user_id = {user_id}"));
        let [What::Balance { version: 5, entry, account }] = &found(&bench, user_id).await[..] else { panic!() };
        assert_eq!(entry, "960.00");
        assert_ne!(account, entry);
        execute(&database, &format!("UPDATE accounts SET version = version - 1 WHERE user_id = {user_id}"));
        assert_eq!(found(&bench, user_id).await, [What::Inserted { versions: (5, 5), account: Some(4) }]);
    }
}

/// Whoever can compute digests is found one entry further; at the end of a journal, or if he writes it anew to its end,
/// only by an anchor.
#[tokio::test(flavor = "multi_thread")]
async fn a_digest_made_anew_is_found_at_the_next_entry() {
    let database = Database::mysql();
    let bench = Bench::open(&database.url, &[]).await;
    let user_id = account(&bench).await;
    let anchor = verified(&bench, Scope::One(user_id, None)).await.1.newest.unwrap();
    assert_eq!(anchor.version, 5);
    // As somebody with a MySQL client would do it.
    let redigest = |version: i64| {
        let text = "CONCAT_WS('|', e.user_id, e.version, LOWER(HEX(e.request_id)), e.kind, e.delta, e.balance_after, \
                    e.version_before, e.strategy, e.created_at)";
        let sql = format!(
            "UPDATE entries e JOIN entries p ON p.user_id = e.user_id AND p.version = e.version - 1 \
             SET e.digest = UNHEX(SHA2(CONCAT(p.digest, {text}), 256)) WHERE e.user_id = {user_id} AND e.version = {version}"
        );
        execute(&database, &sql);
    };
    execute(&database, &format!("UPDATE entries SET delta = -9 WHERE user_id = {user_id} AND version = 3"));
    assert_eq!(found(&bench, user_id).await, [What::Changed { version: 3 }]);
    redigest(3);
    assert_eq!(found(&bench, user_id).await, [What::Changed { version: 4 }]);
    redigest(4);
    assert_eq!(found(&bench, user_id).await, [What::Changed { version: 5 }]);
    redigest(5);
    assert_eq!(found(&bench, user_id).await, []);
    let (findings, _) = verified(&bench, Scope::One(user_id, Some(anchor))).await;
    assert!(
        matches!(findings[..], [Finding { what: What::Anchor { version: 5, digest: Some(_) }, .. }]),
        "{findings:?}"
    );

    // Cut off, and the account's row with it.
    let cut = account(&bench).await;
    let anchor = verified(&bench, Scope::One(cut, None)).await.1.newest.unwrap();
    execute(&database, &format!("DELETE FROM entries WHERE user_id = {cut} AND version = 5"));
    execute(&database, &format!("UPDATE accounts SET version = 4, balance = 970 WHERE user_id = {cut}"));
    assert_eq!(found(&bench, cut).await, []);
    let (findings, _) = verified(&bench, Scope::One(cut, Some(anchor))).await;
    assert_eq!(findings[0].what, What::Anchor { version: 5, digest: None });
    // It holds for what was written since.
    let sound = account(&bench).await;
    let anchor: Anchor = verified(&bench, Scope::One(sound, None)).await.1.newest.unwrap();
    apply(&bench, deduction(sound), "atomic").await;
    assert_eq!(verified(&bench, Scope::One(sound, Some(anchor))).await.0, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_chain_nothing_is_covered() {
    for database in Database::each() {
        let (off, on) = (Bench::open(&database.url, &[OFF]).await, Bench::open(&database.url, &[]).await);
        let user_id = account(&off).await;
        let (findings, tally) = verified(&off, Scope::All).await;
        assert_eq!((findings.len(), tally.entries, tally.covered), (0, 5, 0));
        let records = store(&off).records((user_id, 0), 10).await.unwrap();
        assert!(records.iter().all(|record| record.digest.is_none()));
        // Turned on, the chain begins.
        for strategy in ["batched", "atomic_three_trips", "pessimistic"] {
            apply(&on, deduction(user_id), strategy).await;
        }
        let (findings, tally) = verified(&on, Scope::All).await;
        assert_eq!((findings.len(), tally.entries, tally.covered), (0, 8, 3));
        // Beside a server without it there are entries that anybody may have written.
        apply(&off, deduction(user_id), "batched").await;
        apply(&off, deduction(user_id), "atomic").await;
        apply(&on, deduction(user_id), "batched").await;
        assert_eq!(found(&on, user_id).await, [What::Unchained { versions: (9, 10) }]);
    }
}

/// Several servers and strategies on one account at once, and others beside it; verified while they write, and afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn writers_at_once_leave_a_sound_chain_and_raise_no_false_alarm() {
    const STRATEGIES: [&str; 6] =
        ["batched", "pessimistic", "event_sourced", "atomic_three_trips", "optimistic", "serializable"];
    for database in Database::each() {
        let patient = ["--max-attempts=1000", "--operation-timeout=60s"];
        let servers = [Bench::open(&database.url, &patient).await, Bench::open(&database.url, &patient).await];
        let (hot, other) = (servers[0].account("100000.00").await, servers[0].account("100000.00").await);
        let writers: Vec<_> = (0..18)
            .map(|at| {
                let ledger = Arc::clone(&servers[at % 2].ledger);
                let row = strategy::find(STRATEGIES[at % STRATEGIES.len()]).unwrap();
                tokio::spawn(async move {
                    for turn in 0..12 {
                        let user_id = if turn % 6 == 5 { other } else { hot };
                        ledger.apply(deduction(user_id), Some(row)).await.unwrap();
                    }
                })
            })
            .collect();
        let mut times = 0;
        while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
            let (findings, _) = verified(&servers[0], Scope::All).await;
            assert_eq!(findings, [], "{} after {times} times", store(&servers[0]).name());
            times += 1;
        }
        for writer in writers {
            writer.await.unwrap();
        }
        let (findings, tally) = verified(&servers[1], Scope::All).await;
        assert_eq!(findings, []);
        assert_eq!((tally.entries, tally.covered), (18 * 12 + 2, 18 * 12 + 2));
        assert!(times > 3, "verified only {times} times beside the writers");
    }
}

/// More accounts, and a longer journal, than a page holds.
#[tokio::test(flavor = "multi_thread")]
async fn what_takes_several_pages_is_verified_whole() {
    let database = Database::sqlite();
    let bench = Bench::open(&database.url, &[OFF]).await;
    let fill = "WITH RECURSIVE seq (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM seq WHERE n < 2500) \
                INSERT INTO entries (user_id, version, request_id, kind, delta, balance_after, version_before, strategy)";
    let id = "unhex(printf('%032x', n))";
    execute(&database, &format!("{fill} SELECT 1000, n, {id}, 'DEPOSIT', 1, n, n - 1, 'atomic' FROM seq"));
    execute(&database, &format!("{fill} SELECT 1000 + n, 1, {id}, 'OPEN', 7, 7, 0, '' FROM seq WHERE n <> 1200"));
    let accounts = "WITH RECURSIVE seq (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM seq WHERE n < 2500) \
                    INSERT INTO accounts (user_id, balance, version)";
    execute(
        &database,
        &format!("{accounts} SELECT 1000 + n, iif(n = 0, 2500, 7), iif(n = 0, 2500, 1) FROM seq WHERE n <> 1700"),
    );
    let (findings, tally) = verified(&bench, Scope::All).await;
    let what: Vec<_> = findings.into_iter().map(|finding| (finding.user_id, finding.what)).collect();
    assert_eq!(
        what,
        [(2200, What::Missing { versions: (1, 1) }), (2700, What::Inserted { versions: (1, 1), account: None })]
    );
    assert_eq!((tally.accounts, tally.entries, tally.covered), (2501, 4999, 0));
}
