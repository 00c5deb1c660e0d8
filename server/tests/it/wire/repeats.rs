//! Requests made again, and questions about requests made before.

use zbl_proto::v1::{
    DeductRequest, DeductionState, DepositRequest, Entry, EntryKind, GetDeductionRequest, GetDeductionResponse,
    ListEntriesRequest, ListEntriesResponse, OpenAccountRequest, ResetAccountRequest,
};
use zbl_server::strategy::REGISTRY;

use super::{deduct, deposit, fresh, is_replay, state};
use crate::app::{Database, Served};

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_gets_the_first_answer_and_says_so() {
    for database in Database::each() {
        let served = Served::start(&database.url, &[]).await;
        let (mut account, mut lab) = (served.account(), served.lab());

        // The server picks the id, and picks the same one again.
        let open = OpenAccountRequest { user_id: 0, opening_balance: "25.00".to_owned(), request_id: fresh() };
        let first = account.open_account(open.clone()).await.unwrap();
        let again = account.open_account(open).await.unwrap();
        assert_eq!((is_replay(&first), is_replay(&again), again.get_ref()), (false, true, first.get_ref()));
        let user_id = first.get_ref().user_id;

        for row in REGISTRY {
            let take = DeductRequest { strategy: row.name.to_owned(), ..deduct(user_id, "20") };
            let (first, again) = (account.deduct(take.clone()).await.unwrap(), account.deduct(take).await.unwrap());
            assert_eq!((is_replay(&first), is_replay(&again)), (false, true), "{}", row.name);
            let (first, mut again) = (first.into_inner(), again.into_inner());
            assert_eq!((first.attempts, std::mem::replace(&mut again.attempts, 1)), (1, 0), "{}", row.name);
            assert_eq!(again, first);

            let give = DepositRequest { strategy: row.name.to_owned(), ..deposit(user_id, "20") };
            let (first, again) = (account.deposit(give.clone()).await.unwrap(), account.deposit(give).await.unwrap());
            assert_eq!((is_replay(&first), is_replay(&again)), (false, true), "{}", row.name);
            assert_eq!(again.get_ref().version, first.get_ref().version);
        }

        let reset = ResetAccountRequest { user_id, balance: "7.00".to_owned(), request_id: fresh() };
        let first = lab.reset_account(reset.clone()).await.unwrap();
        let again = lab.reset_account(reset).await.unwrap();
        assert_eq!((is_replay(&first), is_replay(&again), again.get_ref()), (false, true, first.get_ref()));

        let entries = 2 + 2 * i64::try_from(REGISTRY.len()).unwrap();
        assert_eq!(state(&served, user_id).await, ("7.00".to_owned(), entries), "each was applied once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_left_out_is_made_and_told() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &[]).await;
    let mut account = served.account();
    let opened = account.open_account(OpenAccountRequest::default()).await.unwrap().into_inner();
    assert_eq!(opened.balance, "0.00");
    let give = DepositRequest { request_id: String::new(), ..deposit(opened.user_id, "1") };
    let first = account.deposit(give.clone()).await.unwrap().into_inner();
    let other = account.deposit(give.clone()).await.unwrap().into_inner();
    assert_ne!(first.request_id, other.request_id);
    let again = account.deposit(DepositRequest { request_id: first.request_id, ..give }).await.unwrap();
    assert!(is_replay(&again));
    assert_eq!(state(&served, opened.user_id).await, ("2.00".to_owned(), 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_applied_by_one_server_is_repeated_by_another() {
    let database = Database::mysql();
    let (one, other) = (Served::start(&database.url, &[]).await, Served::start(&database.url, &[]).await);
    let user_id = one.bench.account("10.00").await;
    for row in REGISTRY {
        let take = DeductRequest { strategy: row.name.to_owned(), ..deduct(user_id, "10") };
        let first = one.account().deduct(take.clone()).await.unwrap();
        let again = other.account().deduct(take).await.unwrap();
        assert_eq!((is_replay(&first), is_replay(&again)), (false, true), "{}", row.name);
        assert_eq!(again.get_ref().version, first.get_ref().version, "{}", row.name);
        assert_eq!(state(&other, user_id).await.0, "0.00", "{}", row.name);
        other.account().deposit(deposit(user_id, "10")).await.unwrap();
    }
}

async fn fate(served: &Served, user_id: i64, request_id: &str, resolve: bool) -> GetDeductionResponse {
    let which = GetDeductionRequest { user_id, request_id: request_id.to_owned(), resolve };
    served.account().get_deduction(which).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_became_of_a_request() {
    for database in Database::each() {
        let served = Served::start(&database.url, &[]).await;
        let (mut account, mut lab) = (served.account(), served.lab());
        let open = OpenAccountRequest { user_id: 7, opening_balance: "50".to_owned(), request_id: fresh() };
        account.open_account(open.clone()).await.unwrap();
        let (take, give) = (deduct(7, "10"), deposit(7, "1"));
        let receipt = account.deduct(take.clone()).await.unwrap().into_inner();
        account.deposit(give.clone()).await.unwrap();
        let reset = ResetAccountRequest { user_id: 7, balance: "3".to_owned(), request_id: fresh() };
        lab.reset_account(reset.clone()).await.unwrap();

        for resolve in [false, true] {
            let found = fate(&served, 7, &take.request_id, resolve).await;
            assert_eq!(
                (found.state(), found.kind(), found.r#final),
                (DeductionState::Succeeded, EntryKind::Deduct, true)
            );
            assert_eq!(found.receipt, Some(zbl_proto::v1::DeductResponse { attempts: 0, ..receipt.clone() }));
            let others = [
                (&open.request_id, EntryKind::Open),
                (&give.request_id, EntryKind::Deposit),
                (&reset.request_id, EntryKind::Reset),
            ];
            for (id, kind) in others {
                let found = fate(&served, 7, id, resolve).await;
                assert_eq!((found.state(), found.kind(), found.r#final), (DeductionState::Succeeded, kind, true));
            }
        }

        let absent = fresh();
        for (resolve, expected) in [
            (false, (DeductionState::NotFound, EntryKind::Unspecified, false)),
            (true, (DeductionState::Voided, EntryKind::Void, true)),
            (true, (DeductionState::Voided, EntryKind::Void, true)),
            (false, (DeductionState::Voided, EntryKind::Void, true)),
        ] {
            let found = fate(&served, 7, &absent, resolve).await;
            assert_eq!((found.state(), found.kind(), found.r#final), expected);
            assert_eq!(found.receipt, None);
        }
        assert_eq!(state(&served, 7).await, ("3.00".to_owned(), 5), "voided once, without effect");
    }
}

async fn page(served: &Served, user_id: i64, page_size: i32, page_token: &str) -> ListEntriesResponse {
    let page = ListEntriesRequest { user_id, page_size, page_token: page_token.to_owned(), ..Default::default() };
    served.account().list_entries(page).await.unwrap().into_inner()
}

/// Pages through a journal that grows while it is read.
#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_each_entry_once_and_in_order() {
    for database in Database::each() {
        let served = Served::start(&database.url, &[]).await;
        let user_id = served.bench.account("1000.00").await;
        let mut taken = Vec::new();
        for _ in 0..8 {
            taken.push(served.account().deduct(deduct(user_id, "10")).await.unwrap().into_inner());
        }
        let first = page(&served, user_id, 3, "").await;
        let mut entries = first.entries.clone();
        let mut token = first.next_page_token.clone();
        for _ in 0..2 {
            taken.push(served.account().deduct(deduct(user_id, "10")).await.unwrap().into_inner());
            assert_eq!(page(&served, user_id, 3, "").await, first, "appending changes no page");
            let next = page(&served, user_id, 4, &token).await;
            assert_eq!(next.entries.len(), 4);
            entries.extend(next.entries);
            token = next.next_page_token;
        }
        // The pages held 3 + 4 + 4 of 1 + 8 + 2 entries: the last is full, and still known to be the last.
        assert_eq!(token, "");
        let of_deductions = |entry: &Entry| (entry.version, entry.request_id.clone(), entry.balance_after.clone());
        let expected =
            taken.iter().map(|receipt| (receipt.version, receipt.request_id.clone(), receipt.balance.clone()));
        assert!(entries[1..].iter().map(of_deductions).eq(expected), "{entries:#?}");
        assert_eq!((entries[0].version, entries[0].kind(), entries[0].delta.as_str()), (1, EntryKind::Open, "1000.00"));
        for entry in &entries[1..] {
            assert_eq!((entry.kind(), entry.delta.as_str()), (EntryKind::Deduct, "-10.00"));
            assert_eq!((entry.version_before, entry.strategy.as_str()), (entry.version - 1, "batched"));
        }
        assert!(entries.iter().all(|entry| entry.create_time.is_some_and(|time| time.seconds > 1_700_000_000)));
        let beyond = page(&served, user_id, 3, "after-version-11").await;
        assert_eq!(beyond, ListEntriesResponse::default());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_without_a_size_has_a_hundred_entries_and_none_more_than_a_thousand() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &[]).await;
    let user_id = served.bench.account("0.00").await;
    for _ in 0..1000 {
        let reset = zbl_server::account::Money::ZERO;
        served.bench.ledger.reset(user_id, reset, uuid::Uuid::new_v4()).await.unwrap();
    }
    for (size, expected) in [(0, 100), (999, 999), (1000, 1000), (1001, 1000), (i32::MAX, 1000)] {
        let page = page(&served, user_id, size, "").await;
        assert_eq!((page.entries.len(), page.next_page_token.is_empty()), (expected, false), "of {size}");
    }
}
