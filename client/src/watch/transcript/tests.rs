//! Transcripts, literally.

use zbl_proto::v1::{Gap, GapReason, Phase, Span};

use super::*;
use crate::watch::sample::{B, event, heartbeat, lost_update, span, state};

/// Drives a transcript of one server, or of several.
struct Told {
    transcript: Transcript,
    text: String,
}

impl Told {
    fn by(addresses: &[&str], paint: Paint) -> Self {
        let addresses: Vec<_> = addresses.iter().map(|&address| address.to_owned()).collect();
        Self { transcript: Transcript::new(&addresses, paint), text: String::new() }
    }

    fn plain() -> Self {
        Self::by(&["127.0.0.1:50051"], Paint::Plain)
    }

    fn take(&mut self, source: usize, news: News) {
        self.transcript.take(Arrival { arrived_us: 1_000_000, source, news }, &mut self.text);
    }

    fn events(mut self, events: impl IntoIterator<Item = StreamTimelineResponse>) -> Self {
        events.into_iter().for_each(|event| self.take(0, News::Event(event)));
        self
    }

    fn settled(mut self) -> String {
        self.transcript.settle(&mut self.text);
        self.text
    }
}

#[track_caller]
fn check(drawn: &str, expected: &str) {
    assert_eq!(drawn, expected.trim_start_matches('\n'), "\n{drawn}");
}

#[test]
fn a_lost_update_reads_in_the_order_it_began() {
    let mut told = Told::plain();
    told.take(0, News::Connected { after: None });
    let told = told.events(lost_update());
    assert!(told.transcript.is_holding());
    check(&told.settled(), "
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
      2.100   W              2      7  none          write        1  a91c4f02      0.400  wrote 990.00@v3
      2.500   #              2      7  none          commit       1  a91c4f02      1.100  committed 990.00@v3  destroyed 10.00
      3.600  !! RACE  user 7: a91c4f02 had read 1000.00@v1 and wrote 990.00@v3; struck out: -10.00 of 5be0d113 (v2); destroyed 10.00
");
}

#[test]
fn the_stream_itself_is_told() {
    let gap = |reason: GapReason| Gap { reason: reason.into(), after_sequence: 120, next_sequence: 4100 };
    let gaps = [GapReason::SlowReader, GapReason::Unspecified];
    let gaps = gaps.map(|reason| event(4099, Event::Gap(gap(reason))));
    let mut told = Told::plain().events([heartbeat()]).events(gaps);
    let error = "Unavailable: the server ended the stream".to_owned();
    told.take(0, News::Disconnected { error, retry_in_ms: 200 });
    told.take(0, News::Connected { after: Some(4099) });
    check(
        &told.events([crate::watch::sample::gap()]).settled(),
        "
-- epoch 01234567 of host-1
-- alive: host-1 has nothing new after event 120
-- GAP  events between 120 and 4100 are gone: the server holds no more than its ring
-- GAP  events between 120 and 4100 are missing
-- connection lost (Unavailable: the server ended the stream); trying again in 200 ms
-- connected again; resuming epoch 01234567 after event 4099
-- lanes: L lock wait, R read, C compute, W write, # commit, | in between
      at ms  lanes        lane   user  strategy      phase      try  request     took ms  what
-- epoch fedcba98 of host-1
-- GAP  the server was restarted: what its last run did after event 4099 is not told
",
    );
}

#[test]
fn a_span_longer_than_the_window_is_marked_late() {
    let waited = Span { failed: true, failure: "CONTENDED".to_owned(), ..span(2, Phase::LockWait, 20, 500_000) };
    let spans = [span(1, Phase::Read, 0, 10), span(1, Phase::Read, 50, 200_050), waited];
    let told = Told::plain().events((1..).zip(spans).map(|(sequence, span)| event(sequence, Event::Span(span))));
    check(
        &told.settled(),
        "
-- epoch 01234567 of host-1
      0.000  R               1      7  none          read         1  5be0d113      0.010
      0.050  R               1      7  none          read         1  5be0d113    200.000
      0.020< |L              2      7  none          lock wait    1  a91c4f02    499.980  failed CONTENDED
",
    );
}

/// Two servers, the same lane numbers, another clock: the second saw version 2, so its clock is put behind the commit.
#[test]
fn servers_are_told_apart_and_ordered_by_version() {
    let mut told = Told::by(&["a:1", "b:1"], Paint::Plain);
    told.take(0, News::Connected { after: None });
    told.take(1, News::Connected { after: None });
    let from = |epoch: &str, sequence, span| {
        News::Event(StreamTimelineResponse { epoch: epoch.to_owned(), ..event(sequence, Event::Span(span)) })
    };
    told.take(0, from("aaaa", 1, Span { seen: state("1000.00", 1), ..span(1, Phase::Read, 0, 1000) }));
    told.take(1, from("bbbb", 1, Span { start_ns: 7, seen: state("1000.00", 1), ..span(1, Phase::Read, 0, 1000) }));
    told.take(
        1,
        from("bbbb", 2, Span { start_ns: 1_000_007, seen: state("990.00", 2), ..span(1, Phase::Read, 0, 500) }),
    );
    told.take(0, from("aaaa", 2, Span { written: state("990.00", 2), ..span(1, Phase::Commit, 3000, 4000) }));
    told.take(
        1,
        from("bbbb", 3, Span { start_ns: 1_600_007, request_id: B.to_owned(), ..span(1, Phase::Compute, 0, 10) }),
    );
    check(
        &told.settled(),
        "
-- srv 1: connected to a:1
-- lanes: L lock wait, R read, C compute, W write, # commit, | in between
-- clocks are not comparable: servers stand by arrival, then by version
      at ms  srv lanes        lane   user  strategy      phase      try  request     took ms  what
-- srv 2: connected to b:1
-- srv 1: epoch aaaa of host-1
-- srv 2: epoch bbbb of host-1
      0.000    1 R               1      7  none          read         1  5be0d113      1.000  read 1000.00@v1
      1.500    2 R               1      7  none          read         1  5be0d113      1.000  read 1000.00@v1
      2.500    2 R               1      7  none          read         1  5be0d113      0.500  read 990.00@v2
      3.000    1 #               1      7  none          commit       1  5be0d113      1.000  committed 990.00@v2
      3.100    2 C               1      7  none          compute      1  a91c4f02      0.010
",
    );
}

#[test]
fn colours_change_no_letter() {
    let told = |paint| Told::by(&["a:1"], paint).events(lost_update()).settled();
    let (plain, coloured) = (told(Paint::Plain), told(Paint::Ansi));
    assert!(coloured.contains("\u{1b}[34m") && coloured.contains("\u{1b}[1m"), "{coloured}");
    assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), plain);
}

#[test]
fn nothing_supplied_steers_the_terminal() {
    let hostile = "\x1b[2J\r\u{9b}1m\n".to_owned();
    let mut told = Told::plain();
    told.take(0, News::Disconnected { error: hostile.clone(), retry_in_ms: 1 });
    let failed = Span {
        request_id: hostile.clone(),
        strategy: hostile.clone(),
        failed: true,
        failure: hostile.clone(),
        destroyed: hostile.clone(),
        seen: state(&hostile, 1),
        ..span(1, Phase::Write, 0, 1)
    };
    let event = event(1, Event::Span(failed));
    let text = told.events([StreamTimelineResponse { epoch: hostile.clone(), instance: hostile, ..event }]).settled();
    assert_eq!(text.lines().count(), 3, "{text:?}");
    assert!(!text.contains(|character: char| character.is_control() && character != '\n'), "{text:?}");
}
