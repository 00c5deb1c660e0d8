//! Results read back to be shown or compared: those of `bench`, and those of `attack` and `compare` as far as they share
//! figures. It owns telling them apart, and refuses files that are none of them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::{Bench, known_version, printable};
use crate::recorder::Latency;
use crate::report::{Cost, Taken};
use crate::verdict::Verdict;

/// A result under a name.
#[derive(Clone, Debug)]
pub struct Exhibit {
    /// Where it came from.
    pub label: String,
    /// What all kinds of results share.
    pub figures: Figures,
    /// The result itself where it is a bench.
    pub bench: Option<Box<Bench>>,
}

/// What all kinds of results share.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// The strategy's name; for a bench without deductions the method's.
    pub subject: String,
    /// The verdict; `None` when nothing was deducted.
    pub verdict: Option<Verdict>,
    /// Operations: acknowledged, failed or unknown.
    pub requests: u64,
    /// Those without effect.
    pub failed: u64,
    /// Acknowledged operations per second.
    pub acknowledged_per_s: f64,
    /// Latencies in microseconds.
    pub latency_us: Latency,
    /// What an acknowledged deduction cost; `None` when the server did not tell.
    pub cost: Option<Cost>,
}

/// Why a text is no result.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not JSON, or a field is missing or of another form.
    #[error("{0}; give a file that bench, attack or compare wrote with --json")]
    Malformed(#[from] serde_json::Error),
    /// JSON, but nothing that says what it is.
    #[error("it is no result of loadgen; give a file that bench, attack or compare wrote with --json")]
    NoResult,
    /// A comparison of nothing.
    #[error("it holds no runs; compare again, and let a run come to its end")]
    NoRuns,
}

/// What tells the kinds apart; everything else is passed over without being kept.
#[derive(Deserialize)]
struct Head {
    kind: Option<IgnoredAny>,
    runs: Option<IgnoredAny>,
    strategy: Option<IgnoredAny>,
}

/// Of `attack`'s result, what a bench has too. Its lost updates, which may be a million, are not kept.
#[derive(Deserialize)]
struct Run {
    #[serde(deserialize_with = "known_version", rename = "schema_version")]
    _schema_version: u32,
    strategy: String,
    verdict: Verdict,
    acknowledged: Taken,
    failed: BTreeMap<String, u64>,
    unknown: u64,
    duration_ms: u64,
    latency_us: Latency,
    cost: Option<Cost>,
}

#[derive(Deserialize)]
struct Runs {
    runs: Vec<Run>,
}

/// Reads a result; a comparison gives one for each of its runs.
///
/// # Errors
/// [`ReadError`] says what is wrong with it.
pub fn read(label: &str, json: &[u8]) -> Result<Vec<Exhibit>, ReadError> {
    match parsed(json)? {
        Head { kind: Some(_), .. } => Ok(vec![Exhibit::of(label.to_owned(), parsed::<Bench>(json)?.printable())]),
        Head { runs: Some(_), .. } => {
            let Runs { runs } = parsed(json)?;
            if runs.is_empty() {
                return Err(ReadError::NoRuns);
            }
            Ok(runs.into_iter().map(|run| run.exhibit(format!("{label}:{}", printable(&run.strategy)))).collect())
        }
        Head { strategy: Some(_), .. } => Ok(vec![parsed::<Run>(json)?.exhibit(label.to_owned())]),
        Head { .. } => Err(ReadError::NoResult),
    }
}

fn parsed<T: DeserializeOwned>(json: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(json)
}

impl Exhibit {
    /// A bench under a name.
    pub fn of(label: String, bench: Bench) -> Self {
        let figures = Figures {
            subject: bench.subject(),
            verdict: bench.verdict.as_ref().map(|judged| judged.verdict),
            requests: bench.requests,
            failed: bench.failures(),
            acknowledged_per_s: bench.acknowledged_per_s,
            latency_us: bench.latency_us,
            cost: bench.cost,
        };
        Self { label, figures, bench: Some(Box::new(bench)) }
    }
}

impl Run {
    fn exhibit(&self, label: String) -> Exhibit {
        let failed = self.failed.values().fold(0, |sum: u64, count| sum.saturating_add(*count));
        let figures = Figures {
            subject: printable(&self.strategy),
            verdict: Some(self.verdict),
            requests: self.acknowledged.count.saturating_add(failed).saturating_add(self.unknown),
            failed,
            acknowledged_per_s: self.acknowledged.count as f64 * 1e3 / self.duration_ms.max(1) as f64,
            latency_us: self.latency_us,
            cost: self.cost,
        };
        Exhibit { label, figures, bench: None }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::closed;
    use super::super::{Form, Window, comparison, page, text};
    use super::*;

    const RUN: &str = r#"{"schema_version": 1, "strategy": "atomic", "verdict": "CLEAN", "later": [1],
        "acknowledged": {"count": 100, "amount": "1000.00"}, "failed": {"INSUFFICIENT_BALANCE": 890}, "unknown": 10,
        "duration_ms": 2000, "throughput_per_s": 990.0, "latency_us": {"p50": 1, "p90": 2, "p99": 3, "p999": 4, "max": 5}}"#;

    #[test]
    fn every_kind_of_result_is_told_by_itself() {
        let bench = closed();
        let json = serde_json::to_vec(&bench).unwrap();
        let [exhibit] = read("b", &json).unwrap().try_into().unwrap();
        assert_eq!((exhibit.label.as_str(), exhibit.bench.as_deref()), ("b", Some(&bench)));
        assert_eq!((exhibit.figures.subject.as_str(), exhibit.figures.failed), ("batched", 1_000));

        let [one] = read("a", RUN.as_bytes()).unwrap().try_into().unwrap();
        assert_eq!((one.label.as_str(), one.figures.requests, one.figures.cost), ("a", 1_000, None));
        assert!((one.figures.acknowledged_per_s - 50.0).abs() < 1e-9, "{one:?}");
        let both = read("c", format!(r#"{{"runs": [{RUN}, {RUN}]}}"#).as_bytes()).unwrap();
        assert_eq!(both.iter().map(|run| run.label.as_str()).collect::<Vec<_>>(), ["c:atomic", "c:atomic"]);
        assert_eq!(both[1].figures, one.figures);
    }

    #[test]
    fn no_count_is_too_large_and_no_text_moves_the_cursor() {
        let hostile = "a\u{1b}[2J\nb";
        let mut bench = Bench { strategy: Some(hostile.to_owned()), store: hostile.to_owned(), ..closed() };
        bench.failed.insert(hostile.to_owned(), u64::MAX);
        bench.remarks.push(hostile.to_owned());
        bench.series.iter_mut().for_each(|window| (window.acknowledged, window.failed) = (u64::MAX, u64::MAX));
        bench.series.push(Window { at_ms: u64::MAX, length_ms: u64::MAX, ..bench.series[0] });
        bench.thresholds[0].value = hostile.to_owned();
        bench.advice = Some(hostile.to_owned());
        let one = read("b", &serde_json::to_vec(&bench).unwrap()).unwrap();
        let told = text(one[0].bench.as_ref().unwrap());
        assert!(!told.contains('\u{1b}') && !told.contains("\nb"), "{told}");
        assert!(told.contains(&format!("{} (CONTENDED", u64::MAX)), "{told}");
        assert!(page(&one).contains("<svg"));

        let run = RUN.replace("\"unknown\": 10", &format!("\"unknown\": {}", u64::MAX));
        let run = run.replace("890}", &format!("{}}}", u64::MAX)).replace("\"atomic\"", r#""a\u001b[2J""#);
        let both = read("c", format!(r#"{{"runs": [{run}, {run}]}}"#).as_bytes()).unwrap();
        assert_eq!((both[0].figures.requests, both[0].figures.failed), (u64::MAX, u64::MAX));
        let told = comparison(&both, Form::Text);
        assert!(!told.contains('\u{1b}') && told.contains("a?[2J"), "{told}");
    }

    #[test]
    fn what_is_no_result_is_told_why() {
        let old = RUN.replace("\"schema_version\": 1", "\"schema_version\": 7");
        let unfinished = RUN.replace("\"unknown\": 10,", "");
        for (json, named) in [
            ("", "EOF"),
            ("not json", "expected"),
            ("[]", "expected"),
            ("{}", "give a file that bench, attack or compare wrote with --json"),
            (r#"{"kind": "soup"}"#, "soup"),
            (r#"{"kind": "bench"}"#, "missing field `schema_version`"),
            (r#"{"runs": []}"#, "it holds no runs"),
            (old.as_str(), "schema_version 7 is not the 1"),
            (unfinished.as_str(), "missing field `unknown`"),
        ] {
            let error = read("x", json.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(named), "{json}: {error}");
        }
    }
}
