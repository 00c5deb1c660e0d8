//! FindSchedule, over the wire.

use tonic::{Code, Streaming};
use zbl_proto::v1::{
    FindExhausted, FindScheduleRequest, FindScheduleResponse, GetStatusRequest, RunAttackRequest, RunScheduleRequest,
    ScheduleResult, Verdict, find_schedule_response::Event, run_schedule_response,
};

use crate::app::{Database, Served, until};

fn of(strategies: &[&str]) -> FindScheduleRequest {
    let strategies = strategies.iter().map(ToString::to_string).collect();
    FindScheduleRequest { strategies, ..Default::default() }
}

async fn find(served: &Served, request: FindScheduleRequest) -> Streaming<FindScheduleResponse> {
    served.lab().find_schedule(request).await.unwrap().into_inner()
}

/// The end of a search, and how many schedules it had played at each time it told so.
async fn end(events: &mut Streaming<FindScheduleResponse>) -> (Event, Vec<i64>) {
    let mut told = Vec::new();
    loop {
        match events.message().await.unwrap().expect("no end").event.unwrap() {
            Event::Progress(progress) => told.push(progress.played),
            end => {
                assert!(events.message().await.unwrap().is_none(), "the end is the last");
                return (end, told);
            }
        }
    }
}

/// Plays a schedule to its end.
async fn played(served: &Served, strategies: &[&str], schedule: &str) -> ScheduleResult {
    let strategies = strategies.iter().map(ToString::to_string).collect();
    let request = RunScheduleRequest { strategies, schedule: schedule.to_owned(), ..Default::default() };
    let mut events = served.lab().run_schedule(request).await.unwrap().into_inner();
    loop {
        if let run_schedule_response::Event::Result(result) = events.message().await.unwrap().unwrap().event.unwrap() {
            return result;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_losing_schedule_is_found_and_loses_again() {
    for database in Database::each() {
        let served = Served::start(&database.url, &[]).await;
        for strategies in [&["none"][..], &["none", "optimistic"]] {
            let (end, _) = end(&mut find(&served, of(strategies)).await).await;
            let Event::Found(found) = end else { panic!("{strategies:?}: {end:?}") };
            assert_eq!((found.verdict(), found.lost.as_str()), (Verdict::Lost, "10.00"));
            let again = played(&served, strategies, &found.schedule).await;
            let said = |result: &ScheduleResult| (result.verdict(), result.lost.clone(), result.token.clone());
            assert_eq!(said(&again), said(&found));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_lost_all_of_them_were_played() {
    let served = Served::start(&Database::sqlite().url, &[]).await;
    let (end_of_all, told) = end(&mut find(&served, of(&["pessimistic"])).await).await;
    let Event::Exhausted(FindExhausted { played: count, all: true }) = end_of_all else { panic!("{end_of_all:?}") };
    assert!(count > 1 && told.is_sorted() && told.iter().all(|told| *told <= count), "{count}: {told:?}");
    // With room for fewer a sample says that it is one.
    let fewer = FindScheduleRequest { limit: 1, ..of(&["optimistic"]) };
    let (sampled, _) = end(&mut find(&served, fewer).await).await;
    assert_eq!(sampled, Event::Exhausted(FindExhausted { played: 1, all: false }));
}

/// What the server itself writes in the background would move what waits and what does not: it rests meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn the_background_rests_while_the_lab_is_played_in() {
    for database in Database::each() {
        let served = Served::start(&database.url, &["--project-every=1ms", "--reconcile-every=1ms"]).await;
        let three = FindScheduleRequest { operations: 3, limit: 10_000, ..of(&["pessimistic"]) };
        let (end, _) = end(&mut find(&served, three).await).await;
        assert!(matches!(end, Event::Exhausted(FindExhausted { all: true, .. })), "{}: {end:?}", database.url);
        until("the reports are kept up again", async || {
            let status = served.lab().get_status(GetStatusRequest {}).await.unwrap().into_inner().status.unwrap();
            status.projection.is_some_and(|projection| projection.behind == 0)
        })
        .await;
    }
}

/// Others may use the service meanwhile; what was seen may then be the work of theirs, and is not called all there is.
#[tokio::test(flavor = "multi_thread")]
async fn a_search_beside_others_is_not_called_whole() {
    let served = Served::start(&Database::sqlite().url, &[]).await;
    let three = FindScheduleRequest { operations: 3, limit: 10_000, ..of(&["pessimistic"]) };
    let mut search = find(&served, three).await;
    let first = search.message().await.unwrap().unwrap().event.unwrap();
    assert!(matches!(first, Event::Progress(_)), "{first:?}");
    served.bench.account("10.00").await;
    let (end, _) = end(&mut search).await;
    assert!(matches!(end, Event::Exhausted(FindExhausted { all: false, .. })), "{end:?}");
}

/// What is played before it is known that there are too many was played, too.
#[tokio::test(flavor = "multi_thread")]
async fn progress_never_goes_back() {
    let served = Served::start(&Database::sqlite().url, &[]).await;
    let sampled = FindScheduleRequest { operations: 3, limit: 200, ..of(&["optimistic"]) };
    let (end, told) = end(&mut find(&served, sampled).await).await;
    assert_eq!(end, Event::Exhausted(FindExhausted { played: 200, all: false }));
    assert!(told.is_sorted() && told.last().is_some_and(|last| *last > 200), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_searched_is_refused() {
    let served = Served::start(&Database::sqlite().url, &[]).await;
    for wrong in [
        FindScheduleRequest { limit: -1, ..of(&["none"]) },
        FindScheduleRequest { limit: 10_001, ..of(&["none"]) },
        FindScheduleRequest { operations: 5, ..of(&["none"]) },
        FindScheduleRequest { operations: 3, ..of(&["none", "atomic"]) },
        FindScheduleRequest { amounts: vec!["0".to_owned()], ..of(&["none"]) },
        of(&["hope"]),
    ] {
        let refused = served.lab().find_schedule(wrong.clone()).await.map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{wrong:?}: {refused:?}");
    }
}

/// A search has the lab for itself, and gives it up when nobody listens any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_search_is_alone_and_ends_with_its_stream() {
    let served = Served::start(&Database::sqlite().url, &[]).await;
    let run = served.lab().run_schedule(RunScheduleRequest::default()).await.unwrap();
    let refused = served.lab().find_schedule(of(&["none"])).await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    drop(run);

    // Too many for a test to see the end of it.
    let long = FindScheduleRequest { operations: 4, limit: 10_000, ..of(&["pessimistic"]) };
    let mut search = None;
    until("the run has ended", async || {
        search = served.lab().find_schedule(long.clone()).await.ok();
        search.is_some()
    })
    .await;
    let mut search = search.unwrap().into_inner();
    let Event::Progress(progress) = search.message().await.unwrap().unwrap().event.unwrap() else { panic!("an end") };
    assert!(progress.played > 0);
    let run = served.lab().run_schedule(RunScheduleRequest::default()).await.map(drop);
    let attack = served.lab().run_attack(RunAttackRequest::default()).await.map(drop);
    for refused in [run, attack] {
        assert_eq!(refused.unwrap_err().code(), Code::ResourceExhausted);
    }
    drop(search);
    until("the search ends", async || served.lab().run_schedule(RunScheduleRequest::default()).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_ends_the_search() {
    let database = Database::sqlite();
    let mut served = Served::start(&database.url, &[]).await;
    let long = FindScheduleRequest { operations: 4, limit: 10_000, ..of(&["pessimistic"]) };
    let mut search = find(&served, long).await;
    search.message().await.unwrap().unwrap();
    served.ask_to_stop();
    let ended = loop {
        if let Err(ended) = search.message().await {
            break ended;
        }
    };
    assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
    drop(search);
    served.stopped().await;
}
