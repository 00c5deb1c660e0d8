//! What processes use, read from `/proc`: processor time and resident memory, looked at while they work.

use std::{
    fs,
    process::Command,
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use crate::command::Failure;

/// How often processes are looked at: often enough for a window of a second, rarely enough to cost nothing.
const INTERVAL: Duration = Duration::from_millis(50);

/// What one process has used up to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Usage {
    /// Processor time, user and system, in the kernel's ticks.
    ticks: u64,
    resident_kib: u64,
}

impl Usage {
    /// `None` for a process that is not there.
    fn of(pid: u32) -> Option<Self> {
        let file = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
        Some(Self { ticks: ticks(&file("stat")?)?, resident_kib: resident_kib(&file("status")?)? })
    }
}

/// `utime` and `stime` of `/proc/PID/stat`, the 14th and 15th field. The second, the program's name in parentheses, may
/// hold blanks and parentheses of its own.
fn ticks(stat: &str) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    user.checked_add(system)
}

/// `VmRSS` of `/proc/PID/status`, which is always in KiB.
fn resident_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// How many ticks the kernel counts in a second.
pub(crate) fn ticks_per_s() -> Result<f64, Failure> {
    let output = Command::new("getconf").arg("CLK_TCK").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    text.parse().map_err(|_| Failure::Failed(format!("getconf CLK_TCK says {text:?}, not how many ticks a second has")))
}

/// Looks at some processes again and again, in a thread of its own.
pub(crate) struct Watch {
    stop: Sender<()>,
    looks: JoinHandle<Looks>,
}

/// What was seen: for each look its time on the wall clock, which the result files speak of as well, and each process in
/// the order given.
#[derive(Debug, Default)]
pub(crate) struct Looks(Vec<(SystemTime, Vec<Option<Usage>>)>);

impl Watch {
    pub(crate) fn start(pids: Vec<u32>) -> Self {
        let (stop, stopped) = mpsc::channel();
        let looks = std::thread::spawn(move || {
            let mut looks = Looks::default();
            loop {
                looks.0.push((SystemTime::now(), pids.iter().map(|pid| Usage::of(*pid)).collect()));
                if stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    return looks;
                }
            }
        });
        Self { stop, looks }
    }

    pub(crate) fn stop(self) -> Looks {
        // It may have ended; either way it is joined.
        let _ = self.stop.send(());
        self.looks.join().unwrap_or_default()
    }
}

impl Looks {
    /// The processor time that a process took per second between two moments, in ticks: the looks nearest to them and
    /// between them decide. `None` when fewer than two looks saw it.
    pub(crate) fn ticks_per_s(&self, process: usize, from: SystemTime, to: SystemTime) -> Option<f64> {
        let mut seen = self.0.iter().filter(|(at, _)| (from..=to).contains(at)).filter_map(|(at, usages)| {
            let usage = usages.get(process).copied().flatten()?;
            Some((*at, usage.ticks))
        });
        let first = seen.next()?;
        let last = seen.next_back()?;
        let ticks = last.1.checked_sub(first.1)?;
        Some(ticks as f64 / last.0.duration_since(first.0).ok()?.as_secs_f64())
    }

    /// What looks would have seen that found each process to have used so many ticks.
    #[cfg(test)]
    pub(crate) fn of<const LOOKS: usize, const PROCESSES: usize>(
        seen: [(SystemTime, [u64; PROCESSES]); LOOKS],
    ) -> Self {
        let usages = |ticks: [u64; PROCESSES]| ticks.map(|ticks| Some(Usage { ticks, resident_kib: 0 })).into();
        Self(seen.map(|(at, ticks)| (at, usages(ticks))).into())
    }

    /// The most resident memory that any look saw, in MiB.
    pub(crate) fn peak_mib(&self, process: usize) -> Option<f64> {
        let seen = self.0.iter().filter_map(|(_, usages)| usages.get(process).copied().flatten());
        seen.map(|usage| usage.resident_kib).max().map(|kib| kib as f64 / 1024.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_behind_the_name_whatever_the_name() {
        let line =
            |name: &str| format!("4242 ({name}) S 1 4242 4242 0 -1 4194560 900 0 7 0 1234 66 0 0 20 0 5 0 99 1 2");
        for name in ["zbl-server", "a b", "odd) S 1 (name"] {
            assert_eq!(ticks(&line(name)), Some(1300), "{name}");
        }
        for broken in ["", "4242 zbl-server S 1", "4242 (zbl-server) S 1 2 3"] {
            assert_eq!(ticks(broken), None, "{broken}");
        }
    }

    #[test]
    fn resident_memory_is_read_with_its_unit() {
        assert_eq!(resident_kib("Name:\tx\nVmHWM:\t   99 kB\nVmRSS:\t   12345 kB\nThreads:\t3\n"), Some(12345));
        assert_eq!((resident_kib("Name:\tx\n"), resident_kib("VmRSS:\t12 MB\n")), (None, None));
    }

    #[test]
    fn this_process_is_seen_and_an_ended_one_is_not() {
        let mut ended = Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let looks = Watch::start(vec![std::process::id(), ended.id()]).stop();
        assert!(looks.peak_mib(0).unwrap() > 0.1);
        assert_eq!(looks.peak_mib(1), None);
        assert!(ticks_per_s().unwrap() >= 1.0);
    }

    #[test]
    fn processor_time_is_that_between_the_two_moments() {
        let began = SystemTime::now();
        let at = |ms| began + Duration::from_millis(ms);
        let look = |ms, ticks| (at(ms), vec![Some(Usage { ticks, resident_kib: 2048 * (ticks + 1) })]);
        // 10 ticks in the warm-up, 100 in the second that counts, 500 after it; one look found nothing.
        let looks = Looks(vec![look(0, 0), look(1000, 10), (at(1500), vec![None]), look(2000, 110), look(3000, 610)]);
        assert_eq!(looks.ticks_per_s(0, at(900), at(2100)), Some(100.0));
        assert_eq!(looks.ticks_per_s(0, at(1400), at(2100)), None);
        assert_eq!(looks.peak_mib(0), Some(1222.0));
    }
}
