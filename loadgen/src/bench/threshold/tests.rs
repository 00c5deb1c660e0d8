//! What is asked for is what is held against the result, and what was not measured never passes.

use std::collections::BTreeMap;

use super::*;
use crate::recorder::Latency;
use crate::report::bench::Schedule;
use crate::report::bench::sample::{closed, open};

fn parsed(text: &str) -> Threshold {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn checked(text: &str, bench: &Bench) -> (String, bool) {
    let Checked { value, passed, .. } = parsed(text).check(bench);
    (value, passed)
}

#[test]
fn figures_are_held_against_their_limits() {
    for (text, value, passed) in [
        ("p99<20ms", "12.3ms", true),
        ("p99<12.3ms", "12.3ms", false),
        ("p99<=12.3ms", "12.3ms", true),
        ("p99 < 12300us", "12.3ms", false),
        ("p50>=1000µs", "1ms", true),
        ("p90==5ms", "5ms", true),
        ("p999<0.02s", "19ms", true),
        ("max<25.04ms", "25.04ms", false),
        ("throughput>9000", "9998/s", true),
        ("throughput>=9998/s", "9998/s", true),
        ("throughput>10000", "9998/s", false),
        ("failed<1%", "1.00%", false),
        ("failed<=1%", "1.00%", true),
        ("failed==0", "1000", false),
        ("unknown==10", "10", true),
        ("unknown<0.1%", "0.01%", true),
        ("unknown<0.005%", "0.01%", false),
        ("deduct.throughput>9998", "9999/s", true),
        ("deduct.failed==1000", "1000", true),
    ] {
        let bench = if text.contains("unknown") { closed() } else { known() };
        assert_eq!(checked(text, &bench), (value.to_owned(), passed), "{text}");
    }
}

/// 98 990 operations were acknowledged and 990 refused within the time told, and none is unknown.
fn known() -> Bench {
    Bench { unknown: 0, ..closed() }
}

#[test]
fn what_was_never_answered_is_later_than_any_other() {
    // Each hundredth was: the 99th percentile is their edge, and higher ones are within.
    let some = Bench { unknown: 1_000, requests: 100_990, ..closed() };
    assert_eq!(checked("p50<20ms", &some), ("5ms".to_owned(), true), "the next point of the curve");
    assert_eq!(checked("p99<20ms", &some), ("25.04ms".to_owned(), false));
    for text in ["p999<1s", "max<1s"] {
        assert_eq!(checked(text, &some), ("not measured".to_owned(), false), "{text}");
    }
    let schedule = Some(Schedule { sent: 99_990, late: 0, dropped: 2_000, lag_us: Latency::default() });
    let dropped = Bench { schedule, ..known() };
    assert_eq!(checked("p99<1s", &dropped), ("not measured".to_owned(), false));
    assert_eq!(checked("p90<20ms", &dropped), ("12.3ms".to_owned(), true));
    assert_eq!(checked("deduct.p99<1s", &dropped), ("not measured".to_owned(), false));
}

#[test]
fn refusals_are_no_acknowledgements() {
    for (text, value, passed) in [
        ("acknowledged>9000/s", "9899/s", true),
        ("acknowledged>9900/s", "9899/s", false),
        ("acknowledged==98990", "98990", true),
        ("acknowledged>99.5%", "98.99%", false),
        ("deduct.acknowledged>=9899/s", "9899/s", true),
    ] {
        assert_eq!(checked(text, &closed()), (value.to_owned(), passed), "{text}");
    }
    let failed = BTreeMap::from([("INSUFFICIENT_BALANCE".to_owned(), 100)]);
    let nothing = Bench { requests: 100, acknowledged: 0, acknowledged_per_s: 0.0, unknown: 0, failed, ..closed() };
    for text in ["acknowledged>0/s", "acknowledged>0", "acknowledged>0%"] {
        assert!(!checked(text, &nothing).1, "{text}");
    }
}

#[test]
fn schedules_and_methods_are_held_too() {
    for (text, value, passed) in [
        ("late<1%", "0.40%", true),
        ("late<500", "500", false),
        ("dropped==0", "125", false),
        ("dropped<0.1%", "0.10%", true),
        ("balance.failed==0", "0", true),
        ("deduct.p99<20ms", "19ms", true),
    ] {
        assert_eq!(checked(text, &open()), (value.to_owned(), passed), "{text}");
    }
}

#[test]
fn what_was_not_measured_never_passes() {
    let not_measured = ("not measured".to_owned(), false);
    for text in ["late<1%", "dropped==0", "balance.p99<20ms", "health.failed==0"] {
        assert_eq!(checked(text, &closed()), not_measured, "{text}");
    }
    let silent = Bench { requests: 10, acknowledged: 0, failed: BTreeMap::new(), unknown: 10, ..closed() };
    assert_eq!(checked("p99<20ms", &silent), not_measured);
    let empty = Bench { requests: 0, acknowledged: 0, failed: BTreeMap::new(), unknown: 0, ..closed() };
    for text in ["p99<20ms", "throughput>=0", "failed<1%", "unknown==0"] {
        assert_eq!(checked(text, &empty), not_measured, "{text}");
    }
}

#[test]
fn what_cannot_be_measured_is_refused_before_the_bench() {
    let (closed, open) = (closed().pacing, open().pacing);
    let fits = |text: &str, pacing: &Pacing| parsed(text).fits([Method::Deduct], pacing);
    assert_eq!(fits("deduct.p99<1ms", &closed), Ok(()));
    assert_eq!(fits("p99<1ms", &closed), Ok(()));
    assert_eq!(fits("late<1%", &open), Ok(()));
    assert_eq!(fits("late < 1%", &closed), Err(ThresholdError::NoSchedule("late<1%".to_owned())));
    assert_eq!(fits("health.p99<1ms", &open), Err(ThresholdError::NotCalled(Method::Health)));
}

#[test]
fn errors_name_the_fix() {
    for (text, named) in [
        ("", "compares nothing"),
        ("p99", "compares nothing"),
        ("p99=20ms", "compares nothing"),
        ("p95<20ms", "p50, p90, p99, p999, max, throughput, acknowledged, failed, unknown, late, dropped"),
        ("<20ms", "is no figure"),
        ("deposit.p99<20ms", "health, balance, deduct"),
        (".p99<20ms", "health, balance, deduct"),
        ("deduct.late<1%", "whole run only"),
        ("p99<20", "us, ms or s"),
        ("p99<20m", "us, ms or s"),
        ("p99<ms", "us, ms or s"),
        ("p99<-1ms", "us, ms or s"),
        ("p99<infs", "us, ms or s"),
        ("p99<1e3ms", "us, ms or s"),
        ("p99<1.2.3ms", "us, ms or s"),
        ("p99<<20ms", "us, ms or s"),
        ("throughput>10k", "operations per second as a number"),
        ("throughput>1%", "operations per second as a number"),
        ("failed<1ms", "a share with %"),
        ("failed<", "a share with %"),
        (&"9".repeat(100), "at most 64 characters"),
    ] {
        let error = text.parse::<Threshold>().unwrap_err().to_string();
        assert!(error.contains(named), "{text}: {error}");
    }
}

proptest::proptest! {
    /// No text makes it panic, and what is read shows itself as it is read again.
    #[test]
    fn what_is_read_is_shown_and_read_again(text in "(deduct\\.|x\\.)?(p99|failed|late|throughput|q)(<|<=|==|=|>)[0-9.]{0,6}(ms|s|us|%|/s|)") {
        if let Ok(threshold) = text.parse::<Threshold>() {
            proptest::prop_assert_eq!(threshold.to_string().parse(), Ok(threshold));
        }
    }
}
