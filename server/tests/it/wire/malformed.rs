//! Malformed fields: each is named, by its own reason, before anything is touched.

use prost_types::Timestamp;
use zbl_proto::{
    Reason,
    v1::{
        DeductRequest, DepositRequest, EntryKind, EntryOrder, GetBalanceRequest, GetDeductionRequest,
        ListEntriesRequest, OpenAccountRequest, ResetAccountRequest, StreamEntriesRequest, StreamTimelineRequest,
    },
};
use zbl_server::strategy::REGISTRY;

use super::{Said, deduct, deposit, fresh, refused};
use crate::app::{Database, Served};

/// Texts that are no amount of money at all.
const NO_AMOUNTS: [&str; 17] = [
    "-1",
    "1.001",
    "NaN",
    "inf",
    "1e9",
    "123456789012345678901234567890",
    "12345678901234567",
    " 1",
    "1 ",
    "01",
    "1.",
    ".5",
    "+1",
    "1,00",
    "0x1",
    "\u{ff11}",
    "1\0",
];

/// Texts that are no UUID.
const NO_IDS: [&str; 5] = [
    "1",
    "request-1",
    "6ba7b8109dad11d180b400c04fd430c",
    "6ba7b810-9dad-11d1-80b4-00c04fd430cg",
    " 6ba7b810-9dad-11d1-80b4-00c04fd430c8",
];

async fn on_sqlite() -> (Served, i64, Database) {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &[]).await;
    let user_id = served.bench.account("1000.00").await;
    (served, user_id, database)
}

#[tokio::test(flavor = "multi_thread")]
async fn amounts() {
    let (served, user_id, _database) = on_sqlite().await;
    let (mut account, mut lab) = (served.account(), served.lab());
    let amount = Said::invalid(Reason::InvalidAmount, "amount");
    for text in NO_AMOUNTS.into_iter().chain(["", "0", "0.0", "0.00"]) {
        refused(&served, user_id, account.deduct(deduct(user_id, text)), &amount).await;
        refused(&served, user_id, account.deposit(deposit(user_id, text)), &amount).await;
    }
    // A balance may be zero, and an opening balance may be left out.
    let opening = Said::invalid(Reason::InvalidAmount, "opening_balance");
    for text in NO_AMOUNTS {
        let open = OpenAccountRequest { opening_balance: text.to_owned(), ..OpenAccountRequest::default() };
        refused(&served, user_id, account.open_account(open), &opening).await;
    }
    let balance = Said::invalid(Reason::InvalidAmount, "balance");
    for text in NO_AMOUNTS.into_iter().chain([""]) {
        let reset = ResetAccountRequest { user_id, balance: text.to_owned(), request_id: fresh() };
        refused(&served, user_id, lab.reset_account(reset), &balance).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn user_ids() {
    let (served, user_id, _database) = on_sqlite().await;
    let (mut account, mut lab) = (served.account(), served.lab());
    let expected = Said::invalid(Reason::InvalidUserId, "user_id");
    for wrong in [0, -1, i64::MIN] {
        refused(&served, user_id, account.deduct(deduct(wrong, "1")), &expected).await;
        refused(&served, user_id, account.deposit(deposit(wrong, "1")), &expected).await;
        refused(
            &served,
            user_id,
            account.get_balance(GetBalanceRequest { user_id: wrong, consistent: false, as_of: None }),
            &expected,
        )
        .await;
        let which = GetDeductionRequest { user_id: wrong, request_id: fresh(), resolve: true };
        refused(&served, user_id, account.get_deduction(which), &expected).await;
        let page = ListEntriesRequest { user_id: wrong, ..ListEntriesRequest::default() };
        refused(&served, user_id, account.list_entries(page), &expected).await;
        let reset = ResetAccountRequest { user_id: wrong, balance: "1".to_owned(), request_id: fresh() };
        refused(&served, user_id, lab.reset_account(reset), &expected).await;
    }
    // Here 0 means: the server picks one, and every account.
    for wrong in [-1, i64::MIN] {
        let open = OpenAccountRequest { user_id: wrong, ..OpenAccountRequest::default() };
        refused(&served, user_id, account.open_account(open), &expected).await;
        let watch = StreamTimelineRequest { user_id: wrong, ..StreamTimelineRequest::default() };
        refused(&served, user_id, account.stream_timeline(watch), &expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn request_ids() {
    let (served, user_id, _database) = on_sqlite().await;
    let (mut account, mut lab) = (served.account(), served.lab());
    let expected = Said::invalid(Reason::InvalidRequestId, "request_id");
    for wrong in NO_IDS {
        let request_id = wrong.to_owned();
        let take = DeductRequest { request_id: request_id.clone(), ..deduct(user_id, "1") };
        refused(&served, user_id, account.deduct(take), &expected).await;
        let give = DepositRequest { request_id: request_id.clone(), ..deposit(user_id, "1") };
        refused(&served, user_id, account.deposit(give), &expected).await;
        let open = OpenAccountRequest { request_id: request_id.clone(), ..OpenAccountRequest::default() };
        refused(&served, user_id, account.open_account(open), &expected).await;
        let reset = ResetAccountRequest { user_id, balance: "1".to_owned(), request_id };
        refused(&served, user_id, lab.reset_account(reset), &expected).await;
    }
    // Asking after a request needs its id; everywhere else the server makes one.
    for wrong in NO_IDS.into_iter().chain([""]) {
        let which = GetDeductionRequest { user_id, request_id: wrong.to_owned(), resolve: true };
        refused(&served, user_id, account.get_deduction(which), &expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strategies() {
    let (served, user_id, _database) = on_sqlite().await;
    let mut account = served.account();
    let expected = Said::invalid(Reason::UnknownStrategy, "strategy");
    for wrong in ["lucky", "None", "none ", "optimistic,none"] {
        let take = DeductRequest { strategy: wrong.to_owned(), ..deduct(user_id, "1") };
        refused(&served, user_id, account.deduct(take.clone()), &expected).await;
        let give = DepositRequest { strategy: wrong.to_owned(), ..deposit(user_id, "1") };
        refused(&served, user_id, account.deposit(give), &expected).await;
        let status = account.deduct(take).await.unwrap_err();
        assert!(REGISTRY.iter().all(|row| status.message().contains(row.name)), "{}", status.message());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_positions() {
    let (served, user_id, _database) = on_sqlite().await;
    let mut account = served.account();
    let token = Said::invalid(Reason::InvalidPage, "page_token");
    let tokens =
        ["1", "x", "after-version-", "after-version-0", "after-version--1", "after-version-9223372036854775808"];
    for wrong in tokens {
        let page = ListEntriesRequest { user_id, page_size: 0, page_token: wrong.to_owned(), ..Default::default() };
        refused(&served, user_id, account.list_entries(page), &token).await;
    }
    let size = Said::invalid(Reason::InvalidPage, "page_size");
    for wrong in [-1, i32::MIN] {
        let page = ListEntriesRequest { user_id, page_size: wrong, ..Default::default() };
        refused(&served, user_id, account.list_entries(page), &size).await;
    }
    let position = Said::invalid(Reason::InvalidResume, "after_sequence");
    for wrong in [-1, i64::MIN] {
        let watch = StreamTimelineRequest { after_sequence: wrong, ..StreamTimelineRequest::default() };
        refused(&served, user_id, account.stream_timeline(watch), &position).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_and_positions_of_journals() {
    let (served, user_id, _database) = on_sqlite().await;
    let mut account = served.account();
    let list = || ListEntriesRequest { user_id, ..Default::default() };
    let at = |seconds, nanos| Some(Timestamp { seconds, nanos });
    let unspecified = EntryKind::Unspecified.into();
    let filter = |field| Said::invalid(Reason::InvalidFilter, field);
    for (wrong, expected) in [
        (ListEntriesRequest { kinds: vec![EntryKind::Deduct.into(), unspecified], ..list() }, filter("kinds")),
        (ListEntriesRequest { kinds: vec![99], ..list() }, filter("kinds")),
        (ListEntriesRequest { order: 99, ..list() }, filter("order")),
        (ListEntriesRequest { order: EntryOrder::OldestFirst.into(), lost_only: true, ..list() }, filter("order")),
        (ListEntriesRequest { from_time: at(2, 0), to_time: at(1, 999_999_999), ..list() }, filter("from_time")),
        (ListEntriesRequest { from_time: at(0, -1), ..list() }, filter("from_time")),
        (ListEntriesRequest { to_time: at(i64::MAX, 0), ..list() }, filter("to_time")),
        (ListEntriesRequest { to_time: at(-62_135_596_801, 0), ..list() }, filter("to_time")),
        (
            ListEntriesRequest { strategies: vec!["none".to_owned(), "wishful".to_owned()], ..list() },
            Said::invalid(Reason::UnknownStrategy, "strategies"),
        ),
    ] {
        refused(&served, user_id, account.list_entries(wrong), &expected).await;
    }
    // The first and the last moment there can be are none too many.
    for time in [at(-62_135_596_800, 0), at(253_402_300_799, 999_999_000)] {
        account.list_entries(ListEntriesRequest { from_time: time, ..list() }).await.unwrap();
    }
    let position = Said::invalid(Reason::InvalidResume, "after_version");
    for after_version in [-1, 2, i64::MAX] {
        let follow = StreamEntriesRequest { user_id, after_version };
        refused(&served, user_id, account.stream_entries(follow), &position).await;
    }
}
