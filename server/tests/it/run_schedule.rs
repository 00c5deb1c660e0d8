//! RunSchedule and AdvanceSchedule, over the wire.

use tonic::{Code, Streaming};
use zbl_proto::v1::{
    AdvanceScheduleRequest, OperationAnswer, OperationState, Phase, RunScheduleRequest, RunScheduleResponse,
    ScheduleBegun, ScheduleResult, ScheduleStep, Verdict, run_schedule_response::Event,
};

use crate::app::{Database, Served, until};

async fn run(served: &Served, strategies: &[&str], schedule: &str) -> Streaming<RunScheduleResponse> {
    let strategies = strategies.iter().map(ToString::to_string).collect();
    let request = RunScheduleRequest { strategies, schedule: schedule.to_owned(), ..Default::default() };
    served.lab().run_schedule(request).await.unwrap().into_inner()
}

async fn begun(events: &mut Streaming<RunScheduleResponse>) -> ScheduleBegun {
    match events.message().await.unwrap().unwrap().event.unwrap() {
        Event::Begun(begun) => begun,
        other => panic!("{other:?}"),
    }
}

/// The rest of a run.
async fn rest(events: &mut Streaming<RunScheduleResponse>) -> (Vec<ScheduleStep>, ScheduleResult) {
    let mut steps = Vec::new();
    loop {
        match events.message().await.unwrap().expect("no result").event.unwrap() {
            Event::Step(step) => steps.push(step),
            Event::Result(result) => {
                assert!(events.message().await.unwrap().is_none(), "the result is the last");
                return (steps, result);
            }
            Event::Begun(begun) => panic!("{begun:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_played_and_each_step_tells_what_it_read_and_wrote() {
    for database in Database::each() {
        let served = Served::start(&database.url, &[]).await;
        let mut events = run(&served, &["none"], "r1 r2 c1 w1 c2 w2").await;
        let begun = begun(&mut events).await;
        assert_eq!(begun.choices, ["r1", "r2"]);
        let (steps, result) = rest(&mut events).await;
        let texts: Vec<&str> = steps.iter().map(|step| step.step.as_str()).collect();
        assert_eq!(texts, ["r1", "r2", "c1", "w1", "c2", "w2", "k1", "k2"]);
        let read = steps[1].spans[0].seen.clone().unwrap();
        assert_eq!((read.balance.as_str(), read.version), ("100.00", 1));
        // The first holds the row: the second waits for it, and goes on when it has committed.
        let state = |step: usize, operation: usize| steps[step].positions[operation].state();
        assert_eq!((state(5, 0), state(5, 1)), (OperationState::Standing, OperationState::Blocked));
        assert_eq!(steps[5].positions[0].phase(), Phase::Commit);
        assert_eq!((state(6, 0), state(6, 1)), (OperationState::Ended, OperationState::Standing));
        let wrote = steps[6].spans.iter().find(|span| span.phase() == Phase::Write).unwrap().written.clone().unwrap();
        assert_eq!((wrote.balance.as_str(), wrote.version), ("90.00", 3));
        assert_eq!(
            (result.verdict(), result.lost.as_str(), result.final_balance.as_str()),
            (Verdict::Lost, "10.00", "90.00")
        );
        assert_eq!(result.token, "zbl1:none+none:100.00:10.00+10.00:i1:r1r2c1w1c2w2k1k2");
        assert_eq!(result.lost_updates[0].overwriter_request_id, begun.request_ids[1]);
        assert!(result.blocked && result.outcomes.iter().all(|one| one.answer() == OperationAnswer::Acknowledged));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_are_asked_for_one_by_one_and_what_cannot_be_is_refused() {
    let served = Served::start(&Database::sqlite().url, &[]).await;
    let mut events = run(&served, &["none", "optimistic"], "").await;
    let run_id = begun(&mut events).await.run_id;
    let advance = async |run_id: &str, step: &str| {
        let request = AdvanceScheduleRequest { run_id: run_id.to_owned(), step: step.to_owned() };
        served.lab().advance_schedule(request).await.map(|answer| answer.into_inner().step.unwrap())
    };
    assert_eq!(advance(&run_id, "r1").await.unwrap().choices, ["c1", "r2"]);
    for (run_id, step) in
        [(run_id.as_str(), "w1"), (&run_id, "r1 r2"), (&run_id, "no"), (&uuid::Uuid::nil().to_string(), "c1")]
    {
        assert_eq!(advance(run_id, step).await.unwrap_err().code(), Code::InvalidArgument, "{step}");
    }
    let busy = served.lab().run_schedule(RunScheduleRequest::default()).await.unwrap_err();
    assert_eq!(busy.code(), Code::ResourceExhausted);
    for step in ["c1", "r2", "c2", "w2", "k2", "w1"] {
        advance(&run_id, step).await.unwrap();
    }
    assert!(advance(&run_id, "k1").await.unwrap().choices.is_empty());
    let (steps, result) = rest(&mut events).await;
    assert_eq!((steps.len(), result.verdict()), (8, Verdict::Lost));
    assert_eq!(advance(&run_id, "k1").await.unwrap_err().code(), Code::InvalidArgument, "it is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crashed_operation_is_unknown_and_then_settled() {
    for database in Database::each() {
        let served = Served::start(&database.url, &[]).await;
        for (schedule, answer) in [
            ("r1 c1 w1 x1", OperationAnswer::UnknownThenVoided),
            ("r1 c1 w1 k1 x1", OperationAnswer::UnknownThenSucceeded),
        ] {
            let mut events = run(&served, &["pessimistic"], schedule).await;
            begun(&mut events).await;
            let (steps, result) = rest(&mut events).await;
            let crashed = &steps.iter().find(|step| step.step == "x1").unwrap().positions[0];
            assert_eq!(crashed.state(), OperationState::Crashed);
            assert_eq!((result.outcomes[0].answer(), result.verdict()), (answer, Verdict::Clean));
        }
    }
}

/// Whoever goes away lets the operations go, and the next run may begin.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_ends_with_its_stream() {
    let served = Served::start(&Database::sqlite().url, &[]).await;
    let mut events = run(&served, &["pessimistic"], "").await;
    let user_id = begun(&mut events).await.user_id;
    drop(events);
    until("both operations run to their end", async || served.bench.journal(user_id).await.len() == 3).await;
    until("another run begins", async || served.lab().run_schedule(RunScheduleRequest::default()).await.is_ok()).await;
}
