//! A timeline across lost streams: where it resumes, and that nothing is delivered twice.

use tonic::{Code, Status};
use zbl_client::{Start, Timeline, TimelineItem};
use zbl_proto::Reason;
use zbl_proto::v1::stream_timeline_response::Event;
use zbl_proto::v1::{Gap, GapReason, Heartbeat, Span, StreamTimelineResponse};

use crate::scripted::{Script, failure};

fn event(epoch: &str, sequence: i64, event: Event) -> StreamTimelineResponse {
    StreamTimelineResponse { epoch: epoch.to_owned(), sequence, instance: String::new(), event: Some(event) }
}

fn span(epoch: &str, sequence: i64) -> StreamTimelineResponse {
    event(epoch, sequence, Event::Span(Span::default()))
}

/// What comes until the script ends, in short.
async fn follow(mut timeline: Timeline) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        seen.push(match timeline.next().await {
            Ok(TimelineItem::Connected) => "up".to_owned(),
            Ok(TimelineItem::Disconnected { .. }) => "down".to_owned(),
            Ok(TimelineItem::Event(event)) => format!("{}{}", event.epoch, event.sequence),
            Err(error) => {
                assert_eq!(error.code(), Code::Unimplemented, "only the script's end is final: {error}");
                return seen;
            }
        });
    }
}

#[tokio::test]
async fn resumes_after_the_last_event_without_repeating_any() {
    let script = Script::default().sessions([
        vec![Ok(span("a", 1)), Ok(span("a", 4)), Err(Status::unavailable("killed"))],
        // A server that errs on the safe side sends the last ones again.
        vec![Ok(span("a", 1)), Ok(span("a", 4)), Ok(span("a", 5)), Ok(event("a", 9, Event::Heartbeat(Heartbeat {})))],
        vec![Ok(event("a", 9, Event::Heartbeat(Heartbeat {}))), Ok(span("a", 10))],
    ]);
    let timeline = script.serve().await.timeline(Some(7), Start::Retained);
    let seen = follow(timeline).await;

    assert_eq!(seen, ["up", "a1", "a4", "down", "up", "a5", "a9", "down", "up", "a9", "a10", "down"]);
    let asked = &script.asked().timelines;
    let resumed: Vec<_> = asked.iter().map(|ask| (ask.epoch.as_str(), ask.after_sequence)).collect();
    assert_eq!(resumed, [("", 0), ("a", 4), ("a", 9), ("a", 10)]);
    assert!(asked.iter().all(|ask| ask.user_id == 7));
    assert_eq!(asked.iter().map(|ask| ask.include_retained).collect::<Vec<_>>(), [true, false, false, false]);
}

#[tokio::test]
async fn a_restarted_server_begins_a_new_epoch_behind_a_gap() {
    let gap = Gap { reason: GapReason::EpochChanged.into(), after_sequence: 8, next_sequence: 1 };
    let script = Script::default().sessions([
        vec![Ok(span("a", 8)), Err(failure(Code::Unavailable, Reason::ShuttingDown))],
        vec![Ok(event("b", 0, Event::Gap(gap))), Ok(span("b", 1))],
        vec![],
    ]);
    let seen = follow(script.serve().await.timeline(None, Start::Now)).await;

    assert_eq!(seen, ["up", "a8", "down", "up", "b0", "b1", "down", "up", "down"]);
    let resumed: Vec<_> = script.asked().timelines.iter().map(|ask| (ask.epoch.clone(), ask.after_sequence)).collect();
    assert_eq!(resumed[1..], [("a".to_owned(), 8), ("b".to_owned(), 1), ("b".to_owned(), 1)]);
}

#[tokio::test]
async fn a_server_that_sheds_load_is_waited_for() {
    let shed = |reason| vec![Err(failure(Code::ResourceExhausted, reason))];
    let script = Script::default().sessions([shed(Reason::Overloaded), shed(Reason::RateLimited)]);
    let seen = follow(script.serve().await.timeline(None, Start::Now)).await;
    assert_eq!(seen, ["up", "down", "up", "down"]);
}
