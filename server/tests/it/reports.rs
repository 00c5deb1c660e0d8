//! `ReportService` over the wire, by the typed client.

use std::{collections::HashSet, time::Duration};

use futures::StreamExt as _;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use zbl_client::{Client, Credentials, Days, Reason, Retry, Spenders};
use zbl_proto::v1::{AsOf, GetStatusRequest, Totals, report_service_client::ReportServiceClient};
use zbl_server::{
    account::{Change, Direction},
    strategy,
};

use crate::app::{Database, PATIENCE, Served, deduction, money, until};

const OFTEN: &str = "--project-every=20ms";

fn client(served: &Served) -> Client {
    Client::connect_lazy(&served.grpc.to_string()).unwrap().with_retry(Retry { tries: 1, ..Retry::default() })
}

async fn change(served: &Served, user_id: i64, direction: Direction, amount: &str) {
    let change = Change { direction, amount: money(amount), ..deduction(user_id) };
    served.bench.ledger.apply(change, Some(strategy::find("atomic").unwrap())).await.unwrap();
}

/// The totals, as soon as so many entries are in them.
async fn totals(client: &Client, entries: i64) -> (Totals, AsOf) {
    until("the entries are projected", async || client.totals().await.unwrap().0.entries >= entries).await;
    client.totals().await.unwrap()
}

/// Every page of the top spenders, and what is done between two of them.
async fn top(client: &Client, spenders: &Spenders, size: i32, mut between: impl AsyncFnMut()) -> Vec<(i64, String)> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = client.top_spenders(spenders, size, after.as_deref()).await.unwrap();
        assert!(page.spenders.len() <= size as usize && page.as_of.unwrap().generation > 0);
        all.extend(page.spenders.into_iter().map(|spender| (spender.user_id, spender.turnover.unwrap().spent)));
        if page.next_page_token.is_empty() {
            return all;
        }
        after = Some(page.next_page_token);
        between().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_spent_most_is_listed_in_pages_that_stay_in_order() {
    for database in Database::each() {
        let served = Served::start(&database.url, &[OFTEN]).await;
        let client = client(&served);
        let mut user_ids = Vec::new();
        for spent in ["1.00", "2.00", "2.00", "2.00", "30.00", "0.50"] {
            let user_id = served.bench.account("100.00").await;
            change(&served, user_id, Direction::Deduct, spent).await;
            user_ids.push(user_id);
        }
        let idle = served.bench.account("5.00").await;
        change(&served, idle, Direction::Deposit, "7.25").await;
        let (totals, as_of) = totals(&client, 14).await;
        assert_eq!((totals.accounts, totals.opened.as_str(), totals.adjusted.as_str()), (7, "605.00", "0.00"));
        let turnover = totals.turnover.unwrap();
        assert_eq!((turnover.spent.as_str(), turnover.deposited.as_str()), ("37.50", "7.25"));
        assert_eq!((turnover.deductions, turnover.deposits), (6, 1));
        assert_eq!((as_of.position, as_of.newest_position, as_of.behind, as_of.generation), (14, 14, 0, 1));

        let mut tied = [1, 2, 3].map(|at| user_ids[at]);
        tied.sort_unstable();
        let ranked = [user_ids[4], tied[0], tied[1], tied[2], user_ids[0], user_ids[5]];
        let today = client.daily_spending(idle, &Days::default(), 0, None).await.unwrap().days.remove(0).day;
        for spenders in [Spenders::default(), Spenders { day: today.clone() }] {
            for size in [1, 2, 3, 6, 1000] {
                let listed = top(&client, &spenders, size, async || {}).await;
                assert_eq!(listed.iter().map(|(user_id, _)| *user_id).collect::<Vec<_>>(), ranked, "by {size}");
            }
        }
        // The last one overtakes all others between two pages; the rest are listed as before.
        let mut entries = 14;
        let listed = top(&client, &Spenders::default(), 2, async || {
            change(&served, user_ids[5], Direction::Deduct, "45.00").await;
            entries += 1;
            until("it is projected", async || client.totals().await.unwrap().0.entries >= entries).await;
        })
        .await;
        let listed: Vec<i64> = listed.into_iter().map(|(user_id, _)| user_id).collect();
        assert_eq!(listed, ranked[..5]);
        assert_eq!(listed.iter().collect::<HashSet<_>>().len(), 5);
        let nobody = client.top_spenders(&Spenders { day: "2001-01-01".to_owned() }, 0, None).await.unwrap();
        assert!(nobody.spenders.is_empty() && nobody.next_page_token.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accounts_days_are_listed_in_pages() {
    let database = Database::mysql();
    let served = Served::start(&database.url, &[OFTEN]).await;
    let client = client(&served);
    let user_id = served.bench.account("1000.00").await;
    for amount in ["1.00", "2.50"] {
        change(&served, user_id, Direction::Deduct, amount).await;
    }
    // The days of the past, which no clock gives: four of them, the last in its last microsecond.
    let sql = format!(
        "INSERT INTO entries (user_id, version, request_id, kind, delta, balance_after, version_before, strategy, created_at) \
         SELECT {user_id}, 3 + n.i, UNHEX(LPAD(HEX(n.i), 32, '0')), IF(n.i = 2, 'DEPOSIT', 'DEDUCT'), IF(n.i = 2, 4, -n.i), \
                0, 2 + n.i, 'atomic', '2026-01-0{{}} 23:59:59.999999' + INTERVAL n.i - 1 DAY \
         FROM (SELECT 1 AS i UNION SELECT 2 UNION SELECT 3 UNION SELECT 4) AS n; \
         UPDATE accounts SET version = 7 WHERE user_id = {user_id}"
    );
    test_support::query(&database.url, &sql.replace("{}", "1")).unwrap();
    totals(&client, 7).await;
    for size in [1, 2, 5, 1000] {
        let (mut days, mut after) = (Vec::new(), None);
        loop {
            let page = client.daily_spending(user_id, &Days::default(), size, after.as_deref()).await.unwrap();
            days.extend(page.days);
            if page.next_page_token.is_empty() {
                break;
            }
            after = Some(page.next_page_token);
        }
        let past: Vec<_> =
            days[..4].iter().map(|day| (day.day.as_str(), day.turnover.as_ref().unwrap().spent.as_str())).collect();
        assert_eq!(
            past,
            [("2026-01-01", "1.00"), ("2026-01-02", "0.00"), ("2026-01-03", "3.00"), ("2026-01-04", "4.00")]
        );
        assert_eq!((days.len(), days[4].turnover.as_ref().unwrap().spent.as_str()), (5, "3.50"));
    }
    let within = Days { from: "2026-01-02".to_owned(), to: "2026-01-03".to_owned() };
    let found = client.daily_spending(user_id, &within, 0, None).await.unwrap().days;
    assert_eq!(found.iter().map(|day| day.day.as_str()).collect::<Vec<_>>(), ["2026-01-02", "2026-01-03"]);
    assert!(client.daily_spending(404, &Days::default(), 0, None).await.unwrap().days.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_asked_is_refused_by_name() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &[]).await;
    let client = client(&served);
    let days = |from: &str, to: &str| Days { from: from.to_owned(), to: to.to_owned() };
    let whole = Days::default();
    for (user_id, days, size, token, reason) in [
        (0, &whole, 0, "", Reason::InvalidUserId),
        (1, &whole, -1, "", Reason::InvalidPage),
        (1, &whole, 0, "2026-01-01", Reason::InvalidPage),
        (1, &whole, 0, "from-day-yesterday", Reason::InvalidPage),
        (1, &days("2026-1-1", ""), 0, "", Reason::InvalidDay),
        (1, &days("1969-12-31", ""), 0, "", Reason::InvalidDay),
        (1, &days("", "10000-01-01"), 0, "", Reason::InvalidDay),
        (1, &days("", "2026-02-29"), 0, "", Reason::InvalidDay),
        (1, &days("2026-01-02", "2026-01-01"), 0, "", Reason::InvalidDay),
    ] {
        let refused = client.daily_spending(user_id, days, size, Some(token)).await.unwrap_err();
        assert_eq!((refused.code(), refused.reason()), (Code::InvalidArgument, Some(reason)), "{days:?} {token}");
    }
    for (day, token, reason) in [
        ("today", "", Reason::InvalidDay),
        ("", "after-spender-1", Reason::InvalidPage),
        ("", "after-spender-x-1", Reason::InvalidPage),
        ("", "after-spender-1-0", Reason::InvalidPage),
        ("", "after-spender-999999999999999999999999999999999999999-1", Reason::InvalidPage),
        ("", "from-day-2026-01-01", Reason::InvalidPage),
    ] {
        let refused = client.top_spenders(&Spenders { day: day.to_owned() }, 0, Some(token)).await.unwrap_err();
        assert_eq!(refused.reason(), Some(reason), "{day} {token}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_are_told_of_changes_and_of_silence_and_are_few() {
    let database = Database::sqlite();
    let mut served = Served::start(&database.url, &[OFTEN, "--heartbeat=1s"]).await;
    let client = client(&served);
    let user_id = served.bench.account("10.00").await;
    totals(&client, 1).await;
    let mut watched = client.watch_totals().await.unwrap();
    let entries = |told: Option<Result<zbl_proto::v1::WatchTotalsResponse, _>>| {
        told.unwrap()
            .map(|told: zbl_proto::v1::WatchTotalsResponse| told.totals.unwrap().entries)
            .map_err(|e: tonic::Status| e)
    };
    assert_eq!(entries(watched.next().await).unwrap(), 1, "at once");
    assert_eq!(entries(watched.next().await).unwrap(), 1, "a sign of life");
    change(&served, user_id, Direction::Deduct, "1.00").await;
    until("the change is told", async || entries(watched.next().await).unwrap() == 2).await;

    let mut others = Vec::new();
    for _ in 0..63 {
        others.push(client.watch_totals().await.unwrap());
    }
    assert_eq!(client.watch_totals().await.map(drop).unwrap_err().reason(), Some(Reason::Overloaded));
    drop(others);
    until("there is room again", async || client.watch_totals().await.is_ok()).await;

    served.ask_to_stop();
    let end = tokio::time::timeout(PATIENCE, async {
        loop {
            match watched.next().await {
                Some(Ok(_)) => {}
                end => return end,
            }
        }
    });
    assert_eq!(end.await.unwrap().unwrap().unwrap_err().code(), Code::Unavailable);
    served.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_is_begun_at_once_and_the_status_tells_of_it() {
    for database in Database::each() {
        let served = Served::start(&database.url, &[OFTEN]).await;
        let client = client(&served);
        let user_id = served.bench.account("10.00").await;
        change(&served, user_id, Direction::Deduct, "4.00").await;
        let before = totals(&client, 2).await.0;
        let generation = client.rebuild_reports().await.unwrap();
        assert_eq!(generation, 2);
        until("it is answered from", async || {
            let (totals, as_of) = client.totals().await.unwrap();
            assert_eq!(totals, before);
            as_of.generation == generation
        })
        .await;
        let status = async || served.lab().get_status(GetStatusRequest {}).await.unwrap().into_inner().status.unwrap();
        until("the status says so", async || {
            status().await.projection.is_some_and(|told| told.generation == generation)
        })
        .await;
        let told = status().await.projection.unwrap();
        assert_eq!((told.entries, told.behind, told.building_generation), (2, 0, 0));
        assert_eq!(Duration::try_from(told.lag.unwrap()).unwrap(), Duration::ZERO);
    }
}

/// It is served like the account service: told of by health, behind the token, within the limits.
#[tokio::test(flavor = "multi_thread")]
async fn the_rules_of_calls_are_those_of_accounts() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &["--auth-token=secret", "--rate-limit=1", "--rate-burst=2"]).await;
    let service = "zbl.v1.ReportService".to_owned();
    HealthClient::new(served.channel()).check(HealthCheckRequest { service }).await.unwrap();
    let stranger = ReportServiceClient::new(served.channel()).get_totals(zbl_proto::v1::GetTotalsRequest {}).await;
    assert_eq!(stranger.unwrap_err().code(), Code::Unauthenticated);
    let credentials = Credentials::default().with_token("secret").unwrap();
    let known = Client::connect_lazy_with(&served.grpc.to_string(), &credentials).unwrap();
    let known = known.with_retry(Retry { tries: 1, ..Retry::default() });
    let mut reasons = Vec::new();
    for _ in 0..4 {
        reasons.push(known.totals().await.err().and_then(|refused| refused.reason()));
    }
    assert!(reasons[0].is_none() && reasons.contains(&Some(Reason::RateLimited)), "{reasons:?}");
}
