//! Well-formed requests that the rules refuse: what each is told, on each store and by each strategy, and that nothing
//! was changed.

use std::net::Ipv4Addr;

use tonic::{Code, Request};
use zbl_proto::{
    Reason,
    v1::{
        DeductRequest, DepositRequest, GetBalanceRequest, GetDeductionRequest, ListEntriesRequest, OpenAccountRequest,
        ResetAccountRequest, StreamEntriesRequest,
    },
};
use zbl_server::{strategy::REGISTRY, timeline::Phase};

use super::{Said, deduct, deposit, fresh, refused, said, state};
use crate::app::{Database, Served, deduction};

#[tokio::test(flavor = "multi_thread")]
async fn too_little_and_too_much() {
    for database in Database::each() {
        let served = Served::start(&database.url, &[]).await;
        let mut account = served.account();
        let poor = served.bench.account("5.00").await;
        let rich = served.bench.account("92233720368547758.00").await;
        let code = Code::FailedPrecondition;
        let balance = [("balance", "5.00"), ("amount", "5.01")];
        let insufficient = Said::plain(code, Reason::InsufficientBalance, &balance);
        let balance = [("balance", "92233720368547758.00"), ("amount", "0.08")];
        let overflow = Said::plain(code, Reason::BalanceOverflow, &balance);
        for row in REGISTRY {
            let take = DeductRequest { strategy: row.name.to_owned(), ..deduct(poor, "5.01") };
            refused(&served, poor, account.deduct(take), &insufficient).await;
            let give = DepositRequest { strategy: row.name.to_owned(), ..deposit(rich, "0.08") };
            refused(&served, rich, account.deposit(give), &overflow).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_such_account() {
    for database in Database::each() {
        let served = Served::start(&database.url, &[]).await;
        let mut account = served.account();
        let user_id = served.bench.account("5.00").await;
        let absent = user_id + 1;
        let expected = Said::plain(Code::NotFound, Reason::AccountNotFound, &[("user_id", &absent.to_string())]);
        for row in REGISTRY {
            let take = DeductRequest { strategy: row.name.to_owned(), ..deduct(absent, "1") };
            refused(&served, user_id, account.deduct(take), &expected).await;
            let give = DepositRequest { strategy: row.name.to_owned(), ..deposit(absent, "1") };
            refused(&served, user_id, account.deposit(give), &expected).await;
        }
        refused(
            &served,
            user_id,
            account.get_balance(GetBalanceRequest { user_id: absent, consistent: false, as_of: None }),
            &expected,
        )
        .await;
        for resolve in [false, true] {
            let which = GetDeductionRequest { user_id: absent, request_id: fresh(), resolve };
            refused(&served, user_id, account.get_deduction(which), &expected).await;
        }
        let page = ListEntriesRequest { user_id: absent, ..ListEntriesRequest::default() };
        refused(&served, user_id, account.list_entries(page), &expected).await;
        let follow = StreamEntriesRequest { user_id: absent, after_version: 0 };
        refused(&served, user_id, account.stream_entries(follow), &expected).await;
        // None of them made it exist.
        let open = OpenAccountRequest { user_id: absent, ..OpenAccountRequest::default() };
        assert_eq!(account.open_account(open).await.unwrap().into_inner().version, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_exists() {
    for database in Database::each() {
        let served = Served::start(&database.url, &[]).await;
        let user_id = served.bench.account("5.00").await;
        let expected = Said::plain(Code::AlreadyExists, Reason::AccountExists, &[("user_id", &user_id.to_string())]);
        let open = OpenAccountRequest { user_id, opening_balance: "5.00".to_owned(), request_id: fresh() };
        refused(&served, user_id, served.account().open_account(open), &expected).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_with_another_payload() {
    for database in Database::each() {
        let served = Served::start(&database.url, &[]).await;
        let (mut account, mut lab) = (served.account(), served.lab());
        let open = OpenAccountRequest { user_id: 7, opening_balance: "50".to_owned(), request_id: fresh() };
        account.open_account(open.clone()).await.unwrap();
        let take = deduct(7, "10");
        account.deduct(take.clone()).await.unwrap();
        let voided = fresh();
        let which = GetDeductionRequest { user_id: 7, request_id: voided.clone(), resolve: true };
        account.get_deduction(which).await.unwrap();

        let reused = |request_id: &str, journaled: &str| {
            let metadata = [("request_id", request_id), ("journaled", journaled)];
            Said::plain(Code::InvalidArgument, Reason::RequestIdReused, &metadata)
        };
        let (opening, deduction) = (open.request_id.clone(), take.request_id.clone());
        // Another balance, or another kind of request that happened to leave the same balance.
        let (opened, deducted) = (reused(&opening, "OPEN 50.00"), reused(&deduction, "DEDUCT -10.00"));
        for (id, balance, expected) in [(&opening, "51", &opened), (&deduction, "40", &deducted)] {
            let open =
                OpenAccountRequest { opening_balance: balance.to_owned(), request_id: id.clone(), ..open.clone() };
            refused(&served, 7, account.open_account(open), expected).await;
            let reset = ResetAccountRequest { user_id: 7, balance: balance.to_owned(), request_id: id.clone() };
            refused(&served, 7, lab.reset_account(reset), expected).await;
        }
        for row in REGISTRY {
            let strategy = row.name.to_owned();
            for (id, journaled) in [(&deduction, "DEDUCT -10.00"), (&opening, "OPEN 50.00"), (&voided, "VOID 0.00")] {
                let expected = reused(id, journaled);
                let take = DeductRequest { request_id: id.clone(), strategy: strategy.clone(), ..deduct(7, "10.01") };
                refused(&served, 7, account.deduct(take), &expected).await;
                // As much as the opening gave: the kind counts too.
                let give = DepositRequest { request_id: id.clone(), strategy: strategy.clone(), ..deposit(7, "50") };
                refused(&served, 7, account.deposit(give), &expected).await;
            }
        }
    }
}

/// One attempt only, which another writer overtakes.
#[tokio::test(flavor = "multi_thread")]
async fn contention() {
    for database in Database::each() {
        let served = Served::start(&database.url, &["--max-attempts", "1", "--strategy", "optimistic"]).await;
        let user_id = served.bench.account("1000.00").await;
        let slow = deduction(user_id);
        let gate = served.bench.gates.hold(slow.request_id, Phase::Write);
        let take = DeductRequest { request_id: slow.request_id.to_string(), ..deduct(user_id, "10") };
        let mut account = served.account();
        let call = tokio::spawn(async move { said(account.deduct(take)).await });
        gate.arrived().await;
        served.account().deduct(deduct(user_id, "1")).await.unwrap();
        gate.release();
        let plain = Said::plain(Code::Aborted, Reason::Contended, &[("attempts", "1")]);
        assert_eq!(call.await.unwrap(), Said { retry: true, ..plain });
        assert_eq!(state(&served, user_id).await, ("999.00".to_owned(), 2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lab_asks_for_its_token() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &["--lab-token", "open sesame"]).await;
    let user_id = served.bench.account("5.00").await;
    let expected = Said::plain(Code::Unauthenticated, Reason::LabUnauthenticated, &[]);
    let request = |authorization: Option<&'static str>| {
        let mut request =
            Request::new(ResetAccountRequest { user_id, balance: "9".to_owned(), request_id: String::new() });
        if let Some(value) = authorization {
            request.metadata_mut().insert("authorization", value.parse().unwrap());
        }
        request
    };
    for wrong in [None, Some("Bearer open"), Some("open sesame"), Some("Bearer ")] {
        refused(&served, user_id, served.lab().reset_account(request(wrong)), &expected).await;
    }
    served.lab().reset_account(request(Some("Bearer open sesame"))).await.unwrap();
    assert_eq!(state(&served, user_id).await, ("9.00".to_owned(), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lab_is_off_beyond_loopback() {
    let database = Database::sqlite();
    let served = Served::bound_to(Ipv4Addr::UNSPECIFIED.into(), &database.url, &[]).await;
    let user_id = served.bench.account("5.00").await;
    let reset = ResetAccountRequest { user_id, balance: "9".to_owned(), request_id: fresh() };
    let expected = Said::plain(Code::PermissionDenied, Reason::LabDisabled, &[]);
    refused(&served, user_id, served.lab().reset_account(reset), &expected).await;
}
