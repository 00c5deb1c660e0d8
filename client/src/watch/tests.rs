//! Transcripts, literally.

use zbl_proto::v1::{Contender, Gap, GapReason, Heartbeat, Phase, Race, Span, State};

use super::*;

const A: &str = "5be0d113-0000-4000-8000-000000000001";
const B: &str = "a91c4f02-0000-4000-8000-000000000002";

fn transcript(limit: Option<u64>) -> Transcript {
    Transcript::new(View { paint: Paint::Plain, limit })
}

fn event(sequence: i64, event: Event) -> StreamTimelineResponse {
    StreamTimelineResponse {
        epoch: "0123456789abcdef".to_owned(),
        sequence,
        instance: "host-1".to_owned(),
        event: Some(event),
    }
}

fn span(lane: i32, phase: Phase, start_us: i64, end_us: i64) -> Span {
    Span {
        user_id: 7,
        request_id: if lane == 1 { A } else { B }.to_owned(),
        lane,
        strategy: "none".to_owned(),
        phase: phase.into(),
        attempt: 1,
        start_ns: 1_000_000_000 + start_us * 1000,
        duration_ns: (end_us - start_us) * 1000,
        ..Default::default()
    }
}

fn state(balance: &str, version: i64) -> Option<State> {
    Some(State { balance: balance.to_owned(), version })
}

fn contender(request_id: &str, version: i64) -> Contender {
    Contender {
        request_id: request_id.to_owned(),
        version,
        delta: "-10.00".to_owned(),
        balance_after: "990.00".to_owned(),
    }
}

/// A lost update as the server tells it: in the order the phases ended.
fn lost_update() -> Vec<StreamTimelineResponse> {
    let race = Race {
        user_id: 7,
        overwriter: Some(contender(B, 3)),
        seen: state("1000.00", 1),
        victims: vec![contender(A, 2)],
        victims_omitted: 0,
        destroyed: "10.00".to_owned(),
    };
    [
        Event::Span(Span { seen: state("1000.00", 1), ..span(2, Phase::Read, 150, 390) }),
        Event::Span(Span { seen: state("1000.00", 1), ..span(1, Phase::Read, 0, 400) }),
        Event::Span(span(1, Phase::Compute, 400, 410)),
        Event::Span(Span { written: state("990.00", 2), ..span(1, Phase::Write, 410, 900) }),
        Event::Span(Span { written: state("990.00", 2), ..span(1, Phase::Commit, 900, 2000) }),
        Event::Span(span(2, Phase::Compute, 390, 2100)),
        Event::Span(Span {
            written: state("990.00", 3),
            destroyed: "10.00".to_owned(),
            ..span(2, Phase::Write, 2100, 2500)
        }),
        Event::Span(span(2, Phase::Commit, 2500, 3600)),
        Event::Race(race),
    ]
    .into_iter()
    .zip(1..)
    .map(|(kind, sequence)| event(sequence, kind))
    .collect()
}

#[track_caller]
fn check(drawn: &str, expected: &str) {
    assert_eq!(drawn, expected.trim_start_matches('\n'), "\n{drawn}");
}

#[test]
fn a_lost_update_reads_in_the_order_it_began() {
    let mut transcript = transcript(None);
    let mut text = transcript.connected("127.0.0.1:50051", None);
    for event in lost_update() {
        text += &transcript.event(event);
    }
    assert!(transcript.is_holding());
    text += &transcript.settle();
    check(&text, "
-- connected to 127.0.0.1:50051
-- lanes: L lock wait, R read, C compute, W write, # commit, | in between
      at ms  lanes        lane   user  strategy      phase      try  request     took ms  what
-- epoch 01234567 of host-1
      0.000  R               1      7  none          read         1  5be0d113      0.400  read 1000.00@v1
      0.150  |R              2      7  none          read         1  a91c4f02      0.240  read 1000.00@v1
      0.390  |C              2      7  none          compute      1  a91c4f02      1.710
      0.400  C|              1      7  none          compute      1  5be0d113      0.010
      0.410  W|              1      7  none          write        1  5be0d113      0.490  wrote 990.00@v2
      0.900  #|              1      7  none          commit       1  5be0d113      1.100  committed 990.00@v2
      2.100   W              2      7  none          write        1  a91c4f02      0.400  wrote 990.00@v3  destroyed 10.00
      2.500   #              2      7  none          commit       1  a91c4f02      1.100
      3.600  !! RACE  user 7: a91c4f02 had read 1000.00@v1 and wrote 990.00@v3; struck out: -10.00 of 5be0d113 (v2); destroyed 10.00
");
}

#[test]
fn the_stream_itself_is_told() {
    let mut transcript = transcript(None);
    let mut text = transcript.event(event(120, Event::Heartbeat(Heartbeat {})));
    for reason in [GapReason::SlowReader, GapReason::Unspecified] {
        let gap = Gap { reason: reason.into(), after_sequence: 120, next_sequence: 4100 };
        text += &transcript.event(event(4099, Event::Gap(gap)));
    }
    let lost = Error::from_status(&tonic::Status::unavailable("the server ended the stream"));
    text += &transcript.disconnected(&lost, Duration::from_millis(200));
    text += &transcript.connected("127.0.0.1:50051", Some(4099));
    let gap = Gap { reason: GapReason::EpochChanged.into(), after_sequence: 4099, next_sequence: 1 };
    text += &transcript.event(StreamTimelineResponse { epoch: "fedcba98".to_owned(), ..event(0, Event::Gap(gap)) });
    check(
        &text,
        "
-- epoch 01234567 of host-1
-- alive: host-1 has nothing new after event 120
-- GAP  events between 120 and 4100 are gone: the server holds no more than its ring
-- GAP  events between 120 and 4100 are missing
-- connection lost (Unavailable: the server ended the stream); trying again in 200 ms
-- connected again; resuming epoch 01234567 after event 4099
-- epoch fedcba98 of host-1
-- GAP  the server was restarted: what its last run did at the end is not told
",
    );
}

#[test]
fn a_span_longer_than_the_window_is_marked_late() {
    let mut transcript = transcript(None);
    let mut text = transcript.event(event(1, Event::Span(span(1, Phase::Read, 0, 10))));
    text += &transcript.event(event(2, Event::Span(span(1, Phase::Read, 50, 200_050))));
    text += &transcript.event(event(3, Event::Span(Span { failed: true, ..span(2, Phase::LockWait, 20, 500_000) })));
    text += &transcript.settle();
    check(
        &text,
        "
-- epoch 01234567 of host-1
      0.000  R               1      7  none          read         1  5be0d113      0.010
      0.050  R               1      7  none          read         1  5be0d113    200.000
      0.020< |L              2      7  none          lock wait    1  a91c4f02    499.980  failed
",
    );
}

#[test]
fn the_limit_counts_spans() {
    let mut transcript = transcript(Some(3));
    let text: String = lost_update().into_iter().map(|event| transcript.event(event)).collect();
    assert!(!transcript.is_complete());
    let text = text + &transcript.settle();
    assert!(transcript.is_complete());
    assert_eq!(text.lines().filter(|line| line.contains("none")).count(), 3, "{text}");
}

#[test]
fn colours_change_no_letter() {
    let told = |paint| {
        let mut transcript = Transcript::new(View { paint, limit: None });
        let text: String = lost_update().into_iter().map(|event| transcript.event(event)).collect();
        text + &transcript.settle()
    };
    let (plain, coloured) = (told(Paint::Plain), told(Paint::Ansi));
    assert!(coloured.contains("\u{1b}[34m") && coloured.contains("\u{1b}[1m"), "{coloured}");
    assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), plain);
}
