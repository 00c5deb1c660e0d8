//! Traces against the rules of Chrome's JSON format that ui.perfetto.dev relies on.

use std::collections::BTreeMap;

use super::*;
use crate::watch::sample::{self, event, lost_update, span};

fn trace(events: Vec<StreamTimelineResponse>) -> Vec<Value> {
    let mut perfetto = Perfetto::new(1);
    let mut text = String::new();
    for event in events {
        perfetto.take(Arrival { arrived_us: 5_000_000, source: 0, news: News::Event(event) }, &mut text);
    }
    perfetto.finish(&mut text);
    let mut trace: Value = serde_json::from_str(&text).unwrap();
    let Value::Array(events) = trace["traceEvents"].take() else { panic!("no array of events: {text}") };
    validate(&events);
    events
}

/// A number in nanoseconds.
#[track_caller]
fn ns(event: &Value, key: &str) -> i64 {
    let micros = event[key].as_f64().unwrap_or_else(|| panic!("{key} of {event}"));
    (micros * 1000.0).round() as i64
}

type Thread = (i64, i64);

#[track_caller]
fn thread(event: &Value) -> Thread {
    (event["pid"].as_i64().expect("pid"), event["tid"].as_i64().expect("tid"))
}

/// Panics where the events break the format.
#[track_caller]
fn validate(events: &[Value]) {
    let mut slices: BTreeMap<Thread, Vec<(i64, i64)>> = BTreeMap::new();
    let mut windows: BTreeMap<u64, Vec<(&str, i64)>> = BTreeMap::new();
    let mut flows: BTreeMap<u64, Vec<(&str, Thread, i64)>> = BTreeMap::new();
    for event in events {
        assert!(event["name"].is_string(), "{event}");
        match event["ph"].as_str().expect("phase type") {
            "M" => assert!(event["args"]["name"].is_string(), "{event}"),
            "X" => {
                assert!(ns(event, "dur") >= 0, "{event}");
                slices.entry(thread(event)).or_default().push((ns(event, "ts"), ns(event, "ts") + ns(event, "dur")));
            }
            "C" => assert!(event["args"].as_object().unwrap().values().all(Value::is_i64), "{event}"),
            kind @ ("b" | "e") => {
                windows.entry(event["id"].as_u64().unwrap()).or_default().push((kind, ns(event, "ts")));
            }
            kind @ ("s" | "f") => {
                assert!(kind == "s" || event["bp"] == "e", "binds to the enclosing slice: {event}");
                flows.entry(event["id"].as_u64().unwrap()).or_default().push((kind, thread(event), ns(event, "ts")));
            }
            "i" => assert_eq!(event["s"], "g"),
            other => panic!("unknown phase type {other}"),
        }
    }
    for (thread, slices) in &mut slices {
        slices.sort_unstable();
        assert!(slices.windows(2).all(|pair| pair[0].1 <= pair[1].0), "overlap on {thread:?}: {slices:?}");
        let named = |kind: &str| events.iter().any(|event| event["name"] == kind && event["pid"] == thread.0);
        assert!(named("process_name") && named("thread_name"), "{thread:?}");
    }
    for window in windows.values() {
        assert!(matches!(window[..], [("b", from), ("e", to)] if from <= to), "{window:?}");
    }
    for flow in flows.values() {
        assert!(matches!(flow[..], [("s", _, from), ("f", _, to)] if from <= to), "{flow:?}");
        for (_, thread, at) in flow {
            assert!(slices[thread].iter().any(|(from, to)| from <= at && at <= to), "no slice around {flow:?}");
        }
    }
}

#[test]
fn a_lost_update_is_two_lanes_a_window_an_arrow_and_a_counter() {
    let events = trace(lost_update());
    let of = |ph: &str| events.iter().filter(|event| event["ph"] == ph).collect::<Vec<_>>();
    assert_eq!(of("X").len(), 8);
    assert_eq!(
        of("M").iter().map(|event| event["args"]["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["account 7", "lane 2", "lane 1"]
    );
    let (begin, end) = (of("b")[0], of("e")[0]);
    assert_eq!((ns(begin, "ts"), ns(end, "ts")), (240_000, 1_950_000), "from the first event's begin, 150 µs");
    assert_eq!(begin["args"]["victims"], json!([sample::A]));
    assert_eq!(begin["name"], "stale: believes 1000.00@v1, destroys 10.00");
    assert_eq!((of("s").len(), of("f").len()), (1, 1));
    let balances: Vec<_> = of("C").iter().map(|event| event["args"]["minor units"].as_i64().unwrap()).collect();
    assert_eq!(balances, [99_000, 99_000]);
}

#[test]
fn a_race_is_drawn_on_its_own_account() {
    // The twin's spans last, so that they would replace the racers' if accounts were not told apart.
    let mut told = sample::lost_update_beside_its_twin();
    told.rotate_left(8);
    let race = told.remove(8);
    told.push(race);
    let events = trace(told);
    let racers = events.iter().find(|event| event["args"]["name"] == "account 7").unwrap();
    let marks: Vec<_> = events.iter().filter(|event| event["cat"] == "race").collect();
    assert_eq!(marks.len(), 4);
    assert!(marks.iter().all(|mark| mark["pid"] == racers["pid"]), "{marks:?}");
}

#[test]
fn coarse_and_moved_clocks_do_not_overlap() {
    let spans = [(0, 100), (50, 120), (120, 120), (30, 60), (120, 130)];
    let events =
        (1..).zip(spans).map(|(sequence, (from, to))| event(sequence, Event::Span(span(1, Phase::Read, from, to))));
    let slices = trace(events.collect());
    assert_eq!(slices.iter().filter(|event| event["ph"] == "X").count(), spans.len());
}

#[test]
fn a_race_whose_beginning_is_not_in_the_trace_is_left_out() {
    let events = trace(lost_update().split_off(5));
    assert!(!events.iter().any(|event| event["ph"] == "b" || event["ph"] == "s"));
}

#[test]
fn nothing_and_gaps_are_traces_too() {
    assert!(trace(Vec::new()).is_empty());
    assert_eq!(trace(vec![sample::heartbeat(), sample::gap()])[0]["name"], "gap: GAP_REASON_EPOCH_CHANGED");
}

#[test]
fn memory_is_bounded() {
    let mut perfetto = Perfetto::new(1);
    let mut text = String::new();
    for number in 0..40_000_i64 {
        let span =
            Span { user_id: number % 5000, request_id: number.to_string(), ..span(1, Phase::Read, number, number) };
        perfetto.span(0, &span, &mut text);
        text.clear();
    }
    assert!(perfetto.operations.len() <= OPERATIONS && perfetto.known.len() <= OPERATIONS);
    assert!(perfetto.processes.len() <= ACCOUNTS && perfetto.threads.len() <= ACCOUNTS);
}
