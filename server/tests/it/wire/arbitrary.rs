//! Arbitrary requests: whatever the fields hold, the answer is an answer or a refusal with a reason, and what was
//! refused had no effect.

use std::cell::Cell;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use prost_types::Timestamp;
use tokio::runtime::Runtime;
use tonic::{Code, Status};
use uuid::Uuid;
use zbl_proto::{
    Effect, Reason,
    v1::{
        DeductRequest, DepositRequest, GetBalanceRequest, GetDeductionRequest, ListEntriesRequest, OpenAccountRequest,
        RebuildBalanceRequest, ResetAccountRequest, StreamEntriesRequest, StreamTimelineRequest,
        get_balance_request::AsOf,
    },
};
use zbl_server::strategy::REGISTRY;

use super::{Said, state};
use crate::app::{Database, Served, money};

/// The account that is watched; requests aim at it more often than not.
const WATCHED: i64 = 1;

/// Enough for every request to meet every kind of text several times, in a few seconds.
const CASES: u32 = 1500;

#[derive(Clone, Debug)]
enum Call {
    Open(OpenAccountRequest),
    Deduct(DeductRequest),
    Deposit(DepositRequest),
    Balance(GetBalanceRequest),
    Rebuild(RebuildBalanceRequest),
    Fate(GetDeductionRequest),
    Entries(ListEntriesRequest),
    Follow(StreamEntriesRequest),
    Reset(ResetAccountRequest),
    Watch(StreamTimelineRequest),
}

fn user() -> impl Strategy<Value = i64> {
    prop_oneof![4 => Just(WATCHED), 1 => -2..5_i64, 1 => any::<i64>()]
}

/// Texts of every kind in every field: right ones, nearly right ones, and any.
fn text() -> impl Strategy<Value = String> {
    let strategies: Vec<&str> = REGISTRY.iter().map(|row| row.name).collect();
    prop_oneof![
        4 => "(0|[1-9][0-9]{0,3})(\\.[0-9]{1,2})?",
        1 => "[+-]?[0-9]{0,20}\\.?[0-9]{0,3}",
        3 => (0_u128..6).prop_map(|id| Uuid::from_u128(id).to_string()),
        1 => "[0-9a-f-]{30,38}",
        2 => prop::sample::select(strategies).prop_map(str::to_owned),
        1 => "(after|before)-version-[0-9]{0,20}(\\.[0-9]{1,3}){0,2}(-[0-9a-f]{16})?",
        2 => Just(String::new()),
        2 => any::<String>(),
    ]
}

/// A filter, sensible as often as not.
fn filter() -> impl Strategy<Value = ListEntriesRequest> {
    let time =
        || prop::option::of((any::<i64>(), any::<i32>()).prop_map(|(seconds, nanos)| Timestamp { seconds, nanos }));
    let kinds = prop::collection::vec(-1..8, 0..3);
    (time(), time(), kinds, prop::collection::vec(text(), 0..2), any::<bool>(), -1..4, text()).prop_map(
        |(from_time, to_time, kinds, strategies, lost_only, order, page_token)| ListEntriesRequest {
            from_time,
            to_time,
            kinds,
            strategies,
            lost_only,
            order,
            page_token,
            ..Default::default()
        },
    )
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        (user(), text(), text()).prop_map(|(user_id, opening_balance, request_id)| Call::Open(OpenAccountRequest {
            user_id,
            opening_balance,
            request_id
        })),
        (user(), text(), text(), text()).prop_map(|(user_id, amount, request_id, strategy)| Call::Deduct(
            DeductRequest { user_id, amount, request_id, strategy }
        )),
        (user(), text(), text(), text()).prop_map(|(user_id, amount, request_id, strategy)| Call::Deposit(
            DepositRequest { user_id, amount, request_id, strategy }
        )),
        user().prop_map(|user_id| Call::Balance(GetBalanceRequest { user_id, consistent: false, as_of: None })),
        (user(), any::<i64>(), any::<i32>(), any::<bool>()).prop_map(|(user_id, seconds, nanos, by_version)| {
            let as_of = if by_version {
                AsOf::AsOfVersion(seconds)
            } else {
                AsOf::AsOfTime(prost_types::Timestamp { seconds, nanos })
            };
            Call::Balance(GetBalanceRequest { user_id, consistent: false, as_of: Some(as_of) })
        }),
        (user(), any::<bool>(), text()).prop_map(|(user_id, dry_run, request_id)| {
            Call::Rebuild(RebuildBalanceRequest { user_id, dry_run, request_id })
        }),
        (user(), text(), any::<bool>()).prop_map(|(user_id, request_id, resolve)| Call::Fate(GetDeductionRequest {
            user_id,
            request_id,
            resolve
        })),
        (user(), any::<i32>(), text()).prop_map(|(user_id, page_size, page_token)| Call::Entries(ListEntriesRequest {
            user_id,
            page_size,
            page_token,
            ..Default::default()
        })),
        (user(), filter()).prop_map(|(user_id, filter)| Call::Entries(ListEntriesRequest { user_id, ..filter })),
        (user(), any::<i64>())
            .prop_map(|(user_id, after_version)| Call::Follow(StreamEntriesRequest { user_id, after_version })),
        (user(), text(), text()).prop_map(|(user_id, balance, request_id)| Call::Reset(ResetAccountRequest {
            user_id,
            balance,
            request_id
        })),
        (user(), text(), any::<i64>(), any::<bool>()).prop_map(|(user_id, epoch, after_sequence, include_retained)| {
            Call::Watch(StreamTimelineRequest { user_id, epoch, after_sequence, include_retained })
        }),
    ]
}

async fn make(served: &Served, call: Call) -> Result<(), Status> {
    let mut account = served.account();
    match call {
        Call::Open(request) => account.open_account(request).await.map(drop),
        Call::Deduct(request) => account.deduct(request).await.map(drop),
        Call::Deposit(request) => account.deposit(request).await.map(drop),
        Call::Rebuild(request) => account.rebuild_balance(request).await.map(drop),
        Call::Balance(request) => account.get_balance(request).await.map(drop),
        Call::Fate(request) => account.get_deduction(request).await.map(drop),
        Call::Entries(request) => account.list_entries(request).await.map(drop),
        Call::Reset(request) => served.lab().reset_account(request).await.map(drop),
        Call::Follow(request) => account.stream_entries(request).await.map(drop),
        Call::Watch(request) => account.stream_timeline(request).await.map(drop),
    }
}

#[test]
fn every_answer_is_an_answer_or_a_reason() {
    let runtime = Runtime::new().unwrap();
    let database = Database::sqlite();
    let served = runtime.block_on(async {
        let served = Served::start(&database.url, &[]).await;
        served.bench.ledger.open(WATCHED, money("1000.00"), Uuid::new_v4()).await.unwrap();
        served
    });
    let (accepted, refused) = (Cell::new(0), Cell::new(0));
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&call(), |call| {
        runtime.block_on(async {
            let before = state(&served, WATCHED).await;
            let Err(status) = make(&served, call).await else {
                accepted.set(accepted.get() + 1);
                return Ok(());
            };
            refused.set(refused.get() + 1);
            let said = Said::by(&status);
            let reason = Reason::from_wire(&said.reason);
            prop_assert_eq!(reason.map(Reason::effect), Some(Effect::None), "{:?}", said);
            prop_assert!(![Code::Internal, Code::Unknown].contains(&said.code), "{:?}", said);
            prop_assert_eq!(state(&served, WATCHED).await, before, "{:?} had an effect", said);
            Ok(())
        })
    });
    outcome.unwrap();
    let rare = CASES / 20;
    assert!(accepted.get() > rare && refused.get() > rare, "{} accepted, {} refused", accepted.get(), refused.get());
}
