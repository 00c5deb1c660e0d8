//! Journals listed under filters, against a naive filter over all their entries; and pages that stay as they were while
//! the journal grows.

pub(crate) mod history;

use std::collections::{BTreeMap, BTreeSet};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tokio::runtime::Runtime;
use tonic::Code;
use zbl_proto::{
    Reason,
    v1::{self, EntryKind, EntryOrder, ListEntriesRequest, ListEntriesResponse},
};
use zbl_server::account::{self, Entry, NewEntry};

use self::history::{History, STRATEGIES};
use crate::{
    app::{Database, Served},
    wire::Said,
};

/// The most versions that a page looks at.
const LOOKED_AT_MOST: i64 = 10_000;

async fn page(served: &Served, request: &ListEntriesRequest) -> ListEntriesResponse {
    served.account().list_entries(request.clone()).await.unwrap().into_inner()
}

/// All pages of a listing: what each holds, as versions and their overwriters. `between` is run behind each page.
async fn pages(
    served: &Served,
    mut request: ListEntriesRequest,
    mut between: impl AsyncFnMut(),
) -> Vec<Vec<(i64, i64)>> {
    let mut pages = Vec::new();
    loop {
        let page = page(served, &request).await;
        pages.push(page.entries.iter().map(|entry| (entry.version, entry.overwritten_by)).collect());
        if page.next_page_token.is_empty() {
            return pages;
        }
        request.page_token = page.next_page_token;
        between().await;
    }
}

/// What overwrote each entry that did not survive: the one survivor that had read less and wrote later.
fn overwriters(journal: &[Entry]) -> BTreeMap<i64, i64> {
    let parents: BTreeMap<i64, i64> = journal.iter().map(|entry| (entry.version, entry.version_before)).collect();
    let newest = journal.last().unwrap().version;
    let survivors: BTreeSet<i64> =
        std::iter::successors(Some(newest), |version| parents.get(version).copied()).collect();
    let lost = parents.keys().filter(|version| !survivors.contains(version));
    lost.map(|&version| {
        let mut over = survivors.iter().filter(|over| **over > version && parents[over] < version);
        (version, *over.next().unwrap())
    })
    .collect()
}

/// The listing as one would make it of the whole journal in memory.
fn naive(journal: &[Entry], request: &ListEntriesRequest) -> Vec<(i64, i64)> {
    let overwriters = overwriters(journal);
    let nanos = |time: &prost_types::Timestamp| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    let written = |entry: &Entry| i128::from(entry.created_at.and_utc().timestamp_nanos_opt().unwrap());
    let kind = |entry: &Entry| EntryKind::from_str_name(&format!("ENTRY_KIND_{}", entry.kind.name())).unwrap() as i32;
    let mut chosen: Vec<(i64, i64)> = journal
        .iter()
        .filter(|entry| request.from_time.as_ref().is_none_or(|from| written(entry) >= nanos(from)))
        .filter(|entry| request.to_time.as_ref().is_none_or(|to| written(entry) < nanos(to)))
        .filter(|entry| request.kinds.is_empty() || request.kinds.contains(&kind(entry)))
        .filter(|entry| request.strategies.is_empty() || request.strategies.contains(&entry.strategy))
        .filter(|entry| !request.lost_only || overwriters.contains_key(&entry.version))
        .map(|entry| {
            let overwriter = overwriters.get(&entry.version).filter(|_| request.lost_only);
            (entry.version, overwriter.copied().unwrap_or_default())
        })
        .collect();
    if request.lost_only || request.order() == EntryOrder::NewestFirst {
        chosen.reverse();
    }
    chosen
}

/// Filters, with times at, just before and just behind those of entries.
fn filter(user_id: i64, journal: &[Entry]) -> impl Strategy<Value = ListEntriesRequest> + use<> {
    let times: Vec<_> = journal.iter().map(|entry| entry.created_at.and_utc()).collect();
    let time = move || {
        let near = (prop::sample::select(times.clone()), -1..=1_i32).prop_map(|(time, off)| {
            let time = time + chrono::TimeDelta::nanoseconds(off.into());
            prost_types::Timestamp { seconds: time.timestamp(), nanos: time.timestamp_subsec_nanos().cast_signed() }
        });
        let far = prop::sample::select(vec![(-62_135_596_800, 0), (253_402_300_799, 999_999_999)]);
        let far = far.prop_map(|(seconds, nanos)| prost_types::Timestamp { seconds, nanos });
        prop::option::of(prop_oneof![9 => near, 1 => far])
    };
    let kinds = prop::sample::subsequence(vec![1, 2, 3, 4, 5, 6], 0..=3);
    let strategies = prop::sample::subsequence(STRATEGIES.to_vec(), 0..=2);
    let order = prop::sample::select(vec![EntryOrder::Unspecified, EntryOrder::NewestFirst]);
    (time(), time(), kinds, strategies, any::<bool>(), order, 1..60).prop_map(
        move |(one, other, kinds, strategies, lost_only, order, page_size)| {
            let swapped = matches!((&one, &other), (Some(a), Some(b)) if (a.seconds, a.nanos) > (b.seconds, b.nanos));
            let (from_time, to_time) = if swapped { (other, one) } else { (one, other) };
            let strategies = strategies.into_iter().map(str::to_owned).collect();
            let (page_token, order) = (String::new(), order.into());
            ListEntriesRequest {
                user_id,
                page_size,
                page_token,
                from_time,
                to_time,
                kinds,
                strategies,
                lost_only,
                order,
            }
        },
    )
}

#[test]
fn filters_choose_what_a_naive_filter_chooses() {
    let runtime = Runtime::new().unwrap();
    for database in Database::each() {
        let (served, journal) = runtime.block_on(async {
            let served = Served::start(&database.url, &[]).await;
            let store = &served.bench.ledger.bench().store;
            // Another account's entries are none of this one's.
            History::of(6, 1).grow(&**store, 50).await;
            let mut history = History::of(7, 2);
            for _ in 0..10 {
                history.grow(&**store, 20).await;
            }
            let journal = store.entries(7, 0, 1000).await.unwrap();
            (served, journal)
        });
        assert!(overwriters(&journal).len() > 20, "{}", overwriters(&journal).len());
        let config = Config { cases: 150, failure_persistence: None, ..Config::default() };
        let outcome = TestRunner::new(config).run(&filter(7, &journal), |request| {
            let listed = runtime.block_on(pages(&served, request.clone(), async || {}));
            let size = usize::try_from(request.page_size).unwrap();
            prop_assert!(listed.iter().all(|page| page.len() <= size));
            prop_assert_eq!(listed.concat(), naive(&journal, &request));
            Ok(())
        });
        outcome.unwrap();
    }
}

/// What is written between two pages would shift all of them if they were counted from the newest entry, and tell another
/// tree if the path were looked for anew.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_between_pages_moves_none() {
    for database in Database::each() {
        let served = Served::start(&database.url, &[]).await;
        let store = &served.bench.ledger.bench().store;
        let mut history = History::of(7, 3);
        history.grow(&**store, 100).await;
        let (newest, lost) = (EntryOrder::NewestFirst.into(), true);
        for request in [
            ListEntriesRequest { user_id: 7, page_size: 9, order: newest, ..Default::default() },
            ListEntriesRequest { user_id: 7, page_size: 4, lost_only: lost, ..Default::default() },
            ListEntriesRequest { user_id: 7, page_size: 9, kinds: vec![2], order: newest, ..Default::default() },
        ] {
            let before = store.entries(7, 0, 1000).await.unwrap();
            let expected = naive(&before, &request);
            assert!(expected.len() > 9, "{expected:?}");
            let listed = pages(&served, request, async || {
                history.grow(&**store, 3).await;
                // It has read the opening only: all that came between is lost.
                history.overwrite_all(&**store).await;
            })
            .await;
            assert_eq!(listed.concat(), expected);
        }
        // Oldest first, they come at the end.
        let request = ListEntriesRequest { user_id: 7, page_size: 200, ..Default::default() };
        let mut left = 3;
        let listed = pages(&served, request, async || {
            if left > 0 {
                left -= 1;
                history.grow(&**store, 50).await;
            }
        })
        .await;
        assert!(listed.concat().into_iter().map(|(version, _)| version).eq(1..=history.newest()));
    }
}

/// A writer that never waits: no page may leave out what it wrote while the page was read.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_grows_under_the_reader_is_read_without_a_gap() {
    for database in Database::each() {
        let served = Served::start(&database.url, &[]).await;
        let store = std::sync::Arc::clone(&served.bench.ledger.bench().store);
        let mut history = History::of(7, 4);
        history.grow(&*store, 10).await;
        let writer = tokio::spawn(async move {
            for _ in 0..150 {
                history.grow(&*store, 2).await;
            }
        });
        let kinds = (1..=6).collect();
        let request = ListEntriesRequest { user_id: 7, page_size: 5, kinds, ..Default::default() };
        loop {
            let all_written = writer.is_finished();
            let listed = pages(&served, request.clone(), async || {}).await.concat();
            let newest = listed.len() as i64;
            assert!(listed.into_iter().map(|(version, _)| version).eq(1..=newest));
            if all_written {
                assert_eq!(newest, 310);
                break;
            }
        }
        writer.await.unwrap();
    }
}

/// However few of them are wanted, a page looks at so many versions and no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_looks_at_so_many_versions_and_no_more() {
    for database in Database::each() {
        let served = Served::start(&database.url, &[]).await;
        let store = &served.bench.ledger.bench().store;
        let mut history = History::of(7, 5);
        let deposit = LOOKED_AT_MOST * 3 / 2;
        let line = |version| {
            (if version == deposit { account::EntryKind::Deposit } else { account::EntryKind::Deduct }, version - 1)
        };
        history.append(&**store, 2 * LOOKED_AT_MOST + 499, line).await;
        // It has read all but the deposit and what came after it.
        history.append(&**store, 1, |_| (account::EntryKind::Deduct, deposit - 1)).await;
        let newest = history.newest();
        assert_eq!(newest, 2 * LOOKED_AT_MOST + 500);

        let deposits = |order: EntryOrder| ListEntriesRequest {
            user_id: 7,
            kinds: vec![EntryKind::Deposit.into()],
            order: order.into(),
            ..Default::default()
        };
        let oldest_first = pages(&served, deposits(EntryOrder::OldestFirst), async || {}).await;
        assert_eq!(oldest_first, [vec![], vec![(deposit, 0)], vec![]]);
        let newest_first = pages(&served, deposits(EntryOrder::NewestFirst), async || {}).await;
        assert_eq!(newest_first, [vec![(deposit, 0)], vec![], vec![]]);
        let lost = ListEntriesRequest { lost_only: true, ..deposits(EntryOrder::NewestFirst) };
        assert_eq!(pages(&served, lost.clone(), async || {}).await, [vec![(deposit, newest)], vec![], vec![]]);
        let lost = ListEntriesRequest { kinds: Vec::new(), page_size: 1000, ..lost };
        let all = pages(&served, lost, async || {}).await.concat();
        assert!(all.into_iter().eq((deposit..newest).rev().map(|version| (version, newest))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_of_its_own_filter_alone() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &[]).await;
    let store = &served.bench.ledger.bench().store;
    for user_id in [6, 7] {
        History::of(user_id, 8).grow(&**store, 50).await;
    }
    let all = ListEntriesRequest { user_id: 7, page_size: 2, ..Default::default() };
    let deductions = ListEntriesRequest { kinds: vec![EntryKind::Deduct.into()], ..all.clone() };
    let lost = ListEntriesRequest { lost_only: true, ..all.clone() };
    let another = ListEntriesRequest { user_id: 6, ..deductions.clone() };
    let listings = [all, deductions, lost, another];
    for of in &listings {
        let page_token = page(&served, of).await.next_page_token;
        for under in &listings {
            // The size of a page is its own affair.
            let next = ListEntriesRequest { page_token: page_token.clone(), page_size: 3, ..under.clone() };
            let answer = served.account().list_entries(next).await;
            match answer {
                Ok(_) => assert_eq!(of, under),
                Err(status) => {
                    assert_ne!(of, under, "{status}");
                    assert_eq!(Said::by(&status), Said::invalid(Reason::InvalidPage, "page_token"));
                }
            }
        }
    }
}

/// By real operations: two that have read the same, and a listing that tells the one that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_lost_update_is_listed_with_its_overwriter() {
    for database in Database::each() {
        let served = Served::start(&database.url, &[]).await;
        let user_id = served.bench.account("1000.00").await;
        let take = || v1::DeductRequest { strategy: "none".to_owned(), ..crate::wire::deduct(user_id, "10") };
        let (slow, quick) = (take(), take());
        let gate = served.bench.gates.hold(slow.request_id.parse().unwrap(), zbl_server::timeline::Phase::Compute);
        let mut account = served.account();
        let call = tokio::spawn(async move { account.deduct(slow).await });
        gate.arrived().await;
        served.account().deduct(quick.clone()).await.unwrap();
        gate.release();
        call.await.unwrap().unwrap();
        let lost = page(&served, &ListEntriesRequest { user_id, lost_only: true, ..Default::default() }).await;
        let [entry] = &lost.entries[..] else { panic!("{lost:#?}") };
        assert_eq!((entry.version, entry.overwritten_by, &entry.request_id), (2, 3, &quick.request_id));
        let absent = ListEntriesRequest { user_id: user_id + 1, lost_only: true, ..Default::default() };
        assert_eq!(served.account().list_entries(absent).await.unwrap_err().code(), Code::NotFound);
    }
}

/// That the histories of these tests are ones: their entries are what they are made as.
#[tokio::test(flavor = "multi_thread")]
async fn histories_are_written_as_they_are_made() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &[]).await;
    let store = &served.bench.ledger.bench().store;
    let made: Vec<NewEntry> = History::of(7, 9).grow(&**store, 30).await;
    let written = store.entries(7, 0, 100).await.unwrap();
    let same = |(made, written): (&NewEntry, &Entry)| {
        (made.version, made.version_before, made.kind, made.delta)
            == (written.version, written.version_before, written.kind, written.delta)
    };
    assert!(made.len() == written.len() && made.iter().zip(&written).all(same));
}
