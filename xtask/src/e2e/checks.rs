//! Checks, their outcome, and the count of both. A check that fails does not keep the next from running.

use std::time::{Duration, Instant};

use crate::command::{Failure, say};

/// The checks made so far.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    part: &'static str,
    passed: usize,
    failed: usize,
}

impl Checks {
    /// Says which part the checks to come belong to.
    pub(crate) fn begin(&mut self, part: &'static str) {
        self.part = part;
    }

    /// Makes one check.
    pub(crate) fn check(&mut self, name: &str, check: impl FnOnce() -> Result<(), Failure>) {
        self.check_and_note(name, || check().map(|()| String::new()));
    }

    /// Makes one check that has something to add when it passes.
    pub(crate) fn check_and_note(&mut self, name: &str, check: impl FnOnce() -> Result<String, Failure>) {
        let begun = Instant::now();
        match check() {
            Ok(note) => {
                self.passed += 1;
                let note = [note, slow(begun.elapsed())].join(" ");
                say(&format!("  ok    {}: {name} {note}", self.part));
            }
            Err(failure) => self.fail(name, failure.reason()),
        }
    }

    /// Counts a failure.
    pub(crate) fn fail(&mut self, name: &str, reason: &str) {
        self.failed += 1;
        say(&format!("  FAIL  {}: {name}\n          {}", self.part, reason.trim().replace('\n', "\n          ")));
    }

    /// Ends with the count as the last line, said here or by whoever reports the failure. No check is no success.
    pub(crate) fn close(self) -> Result<(), Failure> {
        let count = format!("{} passed, {} failed", self.passed, self.failed);
        if self.failed > 0 || self.passed == 0 {
            return Err(Failure::Failed(count));
        }
        say(&count);
        Ok(())
    }
}

/// How long a check took, where that is worth knowing.
fn slow(elapsed: Duration) -> String {
    if elapsed < Duration::from_secs(1) { String::new() } else { format!("({:.1} s)", elapsed.as_secs_f32()) }
}

/// Fails with `reason` unless `holds`.
pub(crate) fn ensure(holds: bool, reason: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(Failure::Failed(reason())) }
}

/// A decimal string's hundredths; `None` for any other text. For sums of what the binaries report.
pub(crate) fn hundredths(amount: &str) -> Option<i64> {
    let (whole, fraction) = amount.split_once('.')?;
    let is_negative = whole.starts_with('-');
    let (whole, fraction): (i64, i64) = (whole.parse().ok()?, (fraction.len() == 2).then(|| fraction.parse().ok())??);
    whole.checked_mul(100)?.checked_add(if is_negative { -fraction } else { fraction })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_exactly() {
        for (amount, expected) in [
            ("10.00", Some(1000)),
            ("-0.10", Some(-10)),
            ("0.07", Some(7)),
            ("10", None),
            ("1.5", None),
            ("x.00", None),
        ] {
            assert_eq!(hundredths(amount), expected, "{amount}");
        }
    }
}
