//! The timeline as a watcher gets it: spans and races as they happen, each once and in order, or a gap that says exactly
//! what is missing.

use std::time::Duration;

use tokio::{runtime::Handle, time::timeout};
use tonic::{Streaming, transport::Endpoint};
use uuid::Uuid;
use zbl_proto::v1::{
    Contender, DeductRequest, DeductResponse, Gap, GapReason, Phase, Race, Span, State, StreamTimelineRequest,
    StreamTimelineResponse, account_service_client::AccountServiceClient, stream_timeline_response::Event,
};
use zbl_server::{
    gate::Script,
    strategy::REGISTRY,
    timeline::{self, Noted},
};

use crate::app::{Database, PATIENCE, Served, until};

/// Streams without heartbeats: what is expected next is the next event.
const QUIET: [&str; 2] = ["--heartbeat", "1h"];

/// One watcher's stream.
struct Watcher(Streaming<StreamTimelineResponse>);

impl Watcher {
    async fn open(served: &Served, request: StreamTimelineRequest) -> Self {
        Self(served.account().stream_timeline(request).await.unwrap().into_inner())
    }

    async fn next(&mut self) -> StreamTimelineResponse {
        let next = timeout(PATIENCE, self.0.message()).await.expect("the timeline is silent");
        next.unwrap().expect("the timeline ended")
    }

    async fn take(&mut self, count: usize) -> Vec<StreamTimelineResponse> {
        let mut events = Vec::with_capacity(count);
        while events.len() < count {
            events.push(self.next().await);
        }
        events
    }

    async fn gap(&mut self) -> (i64, Gap) {
        let next = self.next().await;
        let Some(Event::Gap(gap)) = next.event else { panic!("no gap: {next:?}") };
        (next.sequence, gap)
    }
}

/// Everything that the server still holds, and what follows.
fn from_the_start() -> StreamTimelineRequest {
    StreamTimelineRequest { include_retained: true, ..StreamTimelineRequest::default() }
}

fn after(event: &StreamTimelineResponse) -> StreamTimelineRequest {
    let (epoch, after_sequence) = (event.epoch.clone(), event.sequence);
    StreamTimelineRequest { epoch, after_sequence, ..StreamTimelineRequest::default() }
}

fn sequences(events: &[StreamTimelineResponse]) -> Vec<i64> {
    events.iter().map(|event| event.sequence).collect()
}

fn span(event: &StreamTimelineResponse) -> &Span {
    let Some(Event::Span(span)) = &event.event else { panic!("not a span: {event:?}") };
    span
}

fn take(user_id: i64, strategy: &str) -> DeductRequest {
    let request_id = Uuid::new_v4().to_string();
    DeductRequest { user_id, amount: "10".to_owned(), request_id, strategy: strategy.to_owned() }
}

async fn deduct(served: &Served, user_id: i64) -> DeductResponse {
    served.account().deduct(take(user_id, "none")).await.unwrap().into_inner()
}

fn hold(served: &Served, request: &DeductRequest, phase: timeline::Phase) -> Script {
    served.bench.gates.hold(request.request_id.parse().unwrap(), phase)
}

fn at(balance: &str, version: i64) -> Option<State> {
    Some(State { balance: balance.to_owned(), version })
}

/// How many spans a deduction by `none` makes: read, compute, write, commit.
const SPANS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_deduction_is_told_phase_by_phase() {
    for database in Database::each() {
        let served = Served::start(&database.url, &["--heartbeat", "1h", "--instance", "one"]).await;
        let user_id = served.bench.account("1000.00").await;
        let mut watcher = Watcher::open(&served, from_the_start()).await;
        let receipt = deduct(&served, user_id).await;
        let events = watcher.take(SPANS).await;
        assert_eq!(sequences(&events), [1, 2, 3, 4]);
        assert!(events.iter().all(|event| event.epoch == events[0].epoch && event.instance == "one"));
        let spans: Vec<&Span> = events.iter().map(span).collect();
        let (seen, written) = (at("1000.00", 1), at("990.00", 2));
        let expected = [
            (Phase::Read, seen, None),
            (Phase::Compute, None, None),
            (Phase::Write, None, written.clone()),
            (Phase::Commit, None, written),
        ];
        for (span, expected) in spans.iter().zip(expected) {
            assert_eq!((span.phase(), span.seen.clone(), span.written.clone()), expected);
            assert_eq!(
                (span.user_id, &span.request_id, span.strategy.as_str()),
                (user_id, &receipt.request_id, "none")
            );
            assert_eq!((span.lane, span.attempt, span.failed, span.destroyed.as_str()), (1, 1, false, ""));
        }
        assert!(spans.windows(2).all(|pair| pair[0].start_ns + pair[0].duration_ns <= pair[1].start_ns), "{spans:#?}");
    }
}

/// Whatever the strategy, the last word of a deduction is the commit of what its receipt says.
#[tokio::test(flavor = "multi_thread")]
async fn every_strategy_tells_what_it_committed() {
    for database in Database::each() {
        let served = Served::start(&database.url, &QUIET).await;
        let mut watcher = Watcher::open(&served, from_the_start()).await;
        for row in REGISTRY {
            let user_id = served.bench.account("15.00").await;
            served.account().deduct(take(user_id, row.name)).await.unwrap();
            let last = loop {
                let event = watcher.next().await;
                assert_eq!((span(&event).strategy.as_str(), span(&event).failed), (row.name, false));
                if span(&event).phase() == Phase::Commit {
                    break span(&event).clone();
                }
            };
            assert_eq!((last.user_id, last.written), (user_id, at("5.00", 2)), "{}", row.name);

            served.account().deduct(take(user_id, row.name)).await.unwrap_err();
            let failure = loop {
                let event = watcher.next().await;
                if span(&event).failed {
                    break span(&event).failure.clone();
                }
            };
            assert_eq!(failure, "REFUSED", "{}", row.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_of_one_account_gets_that_account_only() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &QUIET).await;
    let (mine, other) = (served.bench.account("1000.00").await, served.bench.account("1000.00").await);
    let request = StreamTimelineRequest { user_id: mine, ..from_the_start() };
    let mut watcher = Watcher::open(&served, request.clone()).await;
    for user_id in [other, mine, other, mine] {
        deduct(&served, user_id).await;
    }
    let events = watcher.take(2 * SPANS).await;
    assert!(events.iter().all(|event| span(event).user_id == mine));
    assert_eq!(sequences(&events), [5, 6, 7, 8, 13, 14, 15, 16]);

    let mut resumed = Watcher::open(&served, StreamTimelineRequest { user_id: mine, ..after(&events[2]) }).await;
    assert_eq!(resumed.take(5).await, events[3..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_watcher_gets_exactly_the_rest() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &QUIET).await;
    let user_id = served.bench.account("1000.00").await;
    for _ in 0..3 {
        deduct(&served, user_id).await;
    }
    let all = Watcher::open(&served, from_the_start()).await.take(3 * SPANS).await;
    assert_eq!(sequences(&all), (1..=12).collect::<Vec<_>>());
    for cut in 0..all.len() {
        let mut resumed = Watcher::open(&served, after(&all[cut])).await;
        assert_eq!(resumed.take(all.len() - cut - 1).await, all[cut + 1..], "after event {}", cut + 1);
    }

    // Neither a watcher that has seen everything, nor one from a future that never was, nor one that wants only what
    // happens next gets anything twice or misses what comes.
    let last = &all[all.len() - 1];
    let mut watchers = [
        Watcher::open(&served, after(last)).await,
        Watcher::open(&served, StreamTimelineRequest { after_sequence: i64::MAX, ..after(last) }).await,
        Watcher::open(&served, StreamTimelineRequest::default()).await,
    ];
    deduct(&served, user_id).await;
    for watcher in &mut watchers {
        assert_eq!(sequences(&watcher.take(SPANS).await), [13, 14, 15, 16]);
    }
}

/// The server is restarted: positions of the old run mean nothing, and the watcher is told so before anything else.
#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_from_before_a_restart_is_told_first() {
    let database = Database::sqlite();
    let mut served = Served::start(&database.url, &QUIET).await;
    let user_id = served.bench.account("1000.00").await;
    deduct(&served, user_id).await;
    let before = Watcher::open(&served, from_the_start()).await.take(SPANS).await;
    served.ask_to_stop();
    served.stopped().await;

    let served = Served::start(&database.url, &QUIET).await;
    deduct(&served, user_id).await;
    let mut watcher = Watcher::open(&served, after(&before[2])).await;
    let changed = GapReason::EpochChanged.into();
    assert_eq!(watcher.gap().await, (0, Gap { reason: changed, after_sequence: 3, next_sequence: 1 }));
    let events = watcher.take(SPANS).await;
    assert_eq!(sequences(&events), [1, 2, 3, 4]);
    assert_ne!(events[0].epoch, before[0].epoch);
}

/// A span such as an operation would record.
fn recorded(served: &Served) {
    served.bench.ledger.bench().timeline.record(timeline::Event::Span(timeline::Span {
        trace_id: None,
        user_id: 1,
        request_id: Uuid::nil(),
        lane: 1,
        strategy: "none",
        phase: timeline::Phase::Read,
        attempt: 1,
        start_ns: 0,
        duration: Duration::ZERO,
        noted: Noted::default(),
        failure: None,
    }));
}

/// More than ring, stream window and the server's send buffer hold together (1024, about 350 and about 2200 events).
const FLOOD: i64 = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_watcher_learns_exactly_what_it_missed() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &["--heartbeat", "1h", "--timeline-capacity", "1024"]).await;
    recorded(&served);
    // The smallest windows HTTP/2 lets a receiver have unless it says otherwise on the wire.
    let window = 65_535;
    let channel = Endpoint::from_shared(format!("http://{}", served.grpc))
        .unwrap()
        .initial_stream_window_size(window)
        .initial_connection_window_size(window)
        .connect_lazy();
    let stream = AccountServiceClient::new(channel).stream_timeline(from_the_start()).await.unwrap();
    let mut watcher = Watcher(stream.into_inner());
    assert_eq!(watcher.next().await.sequence, 1);
    for _ in 1..FLOOD {
        recorded(&served);
    }

    let (mut complete_to, mut missed) = (1, 0);
    while complete_to < FLOOD {
        let event = watcher.next().await;
        match event.event {
            Some(Event::Span(_)) => {
                complete_to += 1;
                assert_eq!(event.sequence, complete_to, "an event is missing, or here twice, and no gap says so");
            }
            Some(Event::Gap(gap)) => {
                assert_eq!(gap.reason(), GapReason::SlowReader);
                assert_eq!(gap.after_sequence, complete_to);
                assert!(gap.next_sequence > complete_to + 1, "{gap:?} is empty");
                assert_eq!(event.sequence, gap.next_sequence - 1);
                missed += event.sequence - complete_to;
                complete_to = event.sequence;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(missed > 0, "the watcher was not slow: the test tests nothing");
}

/// A watcher resumes after the ring has moved past its position.
#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_comes_back_too_late_gets_the_same_gap() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &["--heartbeat", "1h", "--timeline-capacity", "1024"]).await;
    recorded(&served);
    let first = Watcher::open(&served, from_the_start()).await.next().await;
    for _ in 1..3000 {
        recorded(&served);
    }
    let mut watcher = Watcher::open(&served, after(&first)).await;
    let (reason, oldest) = (GapReason::SlowReader.into(), 3000 - 1024 + 1);
    assert_eq!(watcher.gap().await, (oldest - 1, Gap { reason, after_sequence: 1, next_sequence: oldest }));
    assert_eq!(sequences(&watcher.take(1024).await), (oldest..=3000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_timeline_shows_signs_of_life() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &["--heartbeat", "100ms"]).await;
    let user_id = served.bench.account("1000.00").await;
    let mut watcher = Watcher::open(&served, StreamTimelineRequest::default()).await;
    let heartbeat = watcher.next().await;
    assert!(matches!(heartbeat.event, Some(Event::Heartbeat(_))), "{heartbeat:?}");
    assert_eq!(heartbeat.sequence, 0);
    deduct(&served, user_id).await;
    // A heartbeat between two spans, of a slow machine, repeats the position; the last of them all is after the spans.
    let mut position = 0;
    while position < 4 {
        let event = watcher.next().await;
        let step = i64::from(matches!(event.event, Some(Event::Span(_))));
        assert_eq!(event.sequence, position + step, "{event:?}");
        position = event.sequence;
    }
    let heartbeat = watcher.next().await;
    assert!(matches!(heartbeat.event, Some(Event::Heartbeat(_))), "{heartbeat:?}");
    assert_eq!(heartbeat.sequence, 4);
    let resumed = Watcher::open(&served, after(&heartbeat)).await.next().await;
    assert!(matches!(resumed.event, Some(Event::Heartbeat(_))), "nothing is repeated: {resumed:?}");
}

/// Two deductions by `none`, both past their reads when the first one writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_race_names_who_overwrote_whom() {
    for database in Database::each() {
        let served = Served::start(&database.url, &QUIET).await;
        let user_id = served.bench.account("1000.00").await;
        let (victim, overwriter) = (take(user_id, "none"), take(user_id, "none"));
        let mut calls = Vec::new();
        for request in [&victim, &overwriter] {
            let gate = hold(&served, request, timeline::Phase::Write);
            let (mut account, request) = (served.account(), request.clone());
            let call = tokio::spawn(async move { account.deduct(request).await.unwrap() });
            gate.arrived().await;
            calls.push((gate, call));
        }
        for (gate, call) in calls {
            gate.release();
            call.await.unwrap();
        }

        let events = Watcher::open(&served, from_the_start()).await.take(2 * SPANS + 1).await;
        let lane_of = |id: &str| events[..8].iter().map(span).find(|span| span.request_id == id).unwrap().lane;
        assert_eq!((lane_of(&victim.request_id), lane_of(&overwriter.request_id)), (1, 2));
        let commits = events[..8].iter().map(span).filter(|span| span.phase() == Phase::Commit);
        let commits: Vec<_> = commits.map(|span| (span.request_id.as_str(), span.destroyed.as_str())).collect();
        assert_eq!(commits, [(victim.request_id.as_str(), ""), (overwriter.request_id.as_str(), "10.00")]);

        let side = |request: DeductRequest, version| Contender {
            request_id: request.request_id,
            version,
            delta: "-10.00".to_owned(),
            balance_after: "990.00".to_owned(),
        };
        let race = Race {
            user_id,
            overwriter: Some(side(overwriter, 3)),
            seen: at("1000.00", 1),
            victims: vec![side(victim, 2)],
            victims_omitted: 0,
            destroyed: "10.00".to_owned(),
        };
        assert_eq!(events[8].event, Some(Event::Race(race)));
    }
}

/// Looks in a row at a number that has to have settled.
const STEADY: usize = 20;

/// The caller hangs up in mid-transaction: the server drops its call, and the transaction ends all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_cuts_no_transaction() {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    for database in Database::each() {
        let served = Served::start(&database.url, &QUIET).await;
        let user_id = served.bench.account("1000.00").await;
        deduct(&served, user_id).await;
        let (mut idle, mut unchanged) = (0, 0);
        until("the tasks of the first call are over", async || {
            let before = std::mem::replace(&mut idle, tasks());
            unchanged = if before == idle { unchanged + 1 } else { 0 };
            unchanged == STEADY
        })
        .await;

        let request = take(user_id, "pessimistic");
        let gate = hold(&served, &request, timeline::Phase::Commit);
        let mut account = served.account();
        let call = tokio::spawn(async move { account.deduct(request).await });
        gate.arrived().await;
        assert!(tasks() > idle + 1, "the call keeps tasks of its own on both sides");
        call.abort();
        // What is left is the operation's own task: the server has noticed.
        until("the server drops the call", async || tasks() <= idle + 1).await;
        gate.release();
        let committed = async || served.bench.ledger.state(user_id).await.unwrap().version == 3;
        until("the transaction commits", committed).await;
        assert_eq!(served.bench.balance(user_id).await.to_string(), "980.00");
    }
}
