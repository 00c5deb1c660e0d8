//! What a process holds of the machine's memory over time, and whether that grows.

use std::fs;

use crate::{command::Failure, e2e::checks::ensure};

/// Samples of one process.
#[derive(Debug)]
pub(super) struct Memory {
    pid: u32,
    /// Resident, in kB.
    samples: Vec<u64>,
}

impl Memory {
    /// That of a process; nothing is known of it yet.
    pub(super) const fn of(pid: u32) -> Self {
        Self { pid, samples: Vec::new() }
    }

    /// Takes a sample.
    pub(super) fn look(&mut self) -> Result<(), Failure> {
        let path = format!("/proc/{}/status", self.pid);
        let status = fs::read_to_string(&path).map_err(|error| Failure::Failed(format!("{path}: {error}")))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        self.samples.push(kilobytes.ok_or_else(|| Failure::Failed(format!("{path} tells no VmRSS")))?);
        Ok(())
    }

    /// Fails if the last quarter holds more than the second, beyond what is noise. The first is for warming up.
    pub(super) fn judge(&self, noise_percent: u64) -> Result<String, Failure> {
        let quarter = self.samples.len() / 4;
        ensure(quarter >= 3, || format!("only {} samples", self.samples.len()))?;
        let (second, last) = (median(&self.samples[quarter..2 * quarter]), median(&self.samples[3 * quarter..]));
        let most = self.samples.iter().max().copied().unwrap_or_default();
        let figures = format!("{} samples: median {second} kB, then {last} kB, at most {most} kB", self.samples.len());
        let allowed = second + second * noise_percent / 100;
        ensure(last <= allowed, || format!("it grows: {figures}"))?;
        Ok(format!("({figures})"))
    }
}

fn median(samples: &[u64]) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(samples: impl Iterator<Item = u64>) -> bool {
        Memory { pid: 0, samples: samples.collect() }.judge(10).is_ok()
    }

    #[test]
    fn what_grows_is_told_from_what_warms_up_and_from_noise() {
        assert!(judged((0..100).map(|n| 50_000 + n % 7 * 300)), "noise");
        assert!(judged((0..100).map(|n| if n < 20 { 20_000 + n * 2_000 } else { 60_000 })), "warming up");
        assert!(!judged((0..100).map(|n| 50_000 + n * 400)), "a leak");
        assert!(!judged(std::iter::repeat_n(50_000, 5)), "too few to tell");
    }
}
