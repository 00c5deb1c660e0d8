//! One time axis for all that arrives. Each server counts from its own start by its own clock, and those clocks are not
//! comparable. A server's first span is placed where it arrived; from there its own clock leads. Where versions tell
//! more they rule: nobody sees a version before its commit began, so a server that seems to is moved later.

use std::collections::{HashMap, VecDeque};

use zbl_proto::v1::{Phase, Span};

use super::arrival::end_ns;

/// The accounts whose versions are remembered: an attack opens one account after the other.
const ACCOUNTS: usize = 64;

/// The versions remembered of an account: more than are in flight at once.
const VERSIONS: usize = 256;

/// The servers' places on the axis, which counts nanoseconds since 1970.
#[derive(Clone, Debug, Default)]
pub(super) struct Clocks {
    sources: Vec<Clock>,
    accounts: HashMap<i64, VecDeque<Version>>,
}

/// A server was placed too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shift {
    pub(super) source: usize,
    pub(super) by_ns: i64,
}

/// One span tells of at most two versions.
pub(super) type Shifts = std::iter::Flatten<std::array::IntoIter<Option<Shift>, 2>>;

/// What is added to a server's times.
#[derive(Clone, Debug, Default)]
struct Clock {
    epoch: String,
    offset_ns: i64,
}

/// Who committed a version and who saw it, each in its own server's time.
#[derive(Clone, Debug)]
struct Version {
    version: i64,
    committed: Option<Instant>,
    seen: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Instant {
    source: usize,
    ns: i64,
}

impl Clocks {
    /// The clocks of so many servers. Versions need no heed where there is but one.
    pub(super) fn of(servers: usize) -> Self {
        Self { sources: vec![Clock::default(); servers], accounts: HashMap::new() }
    }

    /// Moves a span onto the axis. When it tells that a server, not necessarily its own, has been placed too early, that
    /// server's spans belong later from now on: those already placed by as much as is returned.
    pub(super) fn place(&mut self, source: usize, epoch: &str, arrived_us: i64, span: &mut Span) -> Shifts {
        let Some(clock) = self.sources.get_mut(source) else { return [None, None].into_iter().flatten() };
        if clock.epoch != epoch {
            let offset_ns = arrived_us.saturating_mul(1000).saturating_sub(end_ns(span));
            *clock = Clock { epoch: epoch.to_owned(), offset_ns };
            for versions in self.accounts.values_mut() {
                versions.retain(|version| !version.is_known_from(source));
            }
        }
        let shifts = if self.sources.len() > 1 { self.heed_versions(source, span) } else { [None, None] };
        span.start_ns = span.start_ns.saturating_add(self.sources[source].offset_ns);
        shifts.into_iter().flatten()
    }

    /// Notes which version a span tells of, and heeds what that says about the clocks.
    fn heed_versions(&mut self, source: usize, span: &Span) -> [Option<Shift>; 2] {
        let seen = Instant { source, ns: end_ns(span) };
        if let Some(state) = &span.seen {
            return [self.heed(span.user_id, state.version, |version| version.seen = Some(seen)), None];
        }
        if let (Some(state), Phase::Commit, false) = (&span.written, span.phase(), span.failed) {
            let committed = Instant { source, ns: span.start_ns };
            // The version before was there, or this one would be that.
            let before = self.heed(span.user_id, state.version.saturating_sub(1), |version| version.seen = Some(seen));
            return [before, self.heed(span.user_id, state.version, |version| version.committed = Some(committed))];
        }
        [None, None]
    }

    /// Enters what is new about a version, and moves the server later that saw it before its commit began.
    fn heed(&mut self, user_id: i64, number: i64, enter: impl FnOnce(&mut Version)) -> Option<Shift> {
        if self.accounts.len() >= ACCOUNTS && !self.accounts.contains_key(&user_id) {
            self.accounts.clear();
        }
        let versions = self.accounts.entry(user_id).or_default();
        let index = versions.iter().rposition(|known| known.version == number).unwrap_or_else(|| {
            if versions.len() == VERSIONS {
                versions.pop_front();
            }
            versions.push_back(Version { version: number, committed: None, seen: None });
            versions.len() - 1
        });
        let version = &mut versions[index];
        enter(version);
        let (committed, seen) = version.committed.zip(version.seen)?;
        // By as much as to end a nanosecond after the commit began, so that their order is plain.
        let early_ns = self.on_axis(committed).saturating_sub(self.on_axis(seen)).saturating_add(1);
        if committed.source == seen.source || early_ns <= 0 {
            return None;
        }
        let offset_ns = &mut self.sources[seen.source].offset_ns;
        *offset_ns = offset_ns.saturating_add(early_ns);
        Some(Shift { source: seen.source, by_ns: early_ns })
    }

    fn on_axis(&self, instant: Instant) -> i64 {
        instant.ns.saturating_add(self.sources[instant.source].offset_ns)
    }
}

impl Version {
    fn is_known_from(&self, source: usize) -> bool {
        [self.committed, self.seen].iter().flatten().any(|instant| instant.source == source)
    }
}

#[cfg(test)]
mod tests {
    use zbl_proto::v1::State;

    use super::*;

    fn span(phase: Phase, version: i64, start_ns: i64, end_ns: i64) -> Span {
        let state = Some(State { balance: "1.00".to_owned(), version });
        let (seen, written) = if phase == Phase::Read { (state, None) } else { (None, state) };
        let duration_ns = end_ns - start_ns;
        Span { user_id: 7, phase: phase.into(), start_ns, duration_ns, seen, written, ..Span::default() }
    }

    fn placed(clocks: &mut Clocks, source: usize, arrived_us: i64, mut span: Span) -> i64 {
        let _ = clocks.place(source, "epoch", arrived_us, &mut span);
        span.start_ns
    }

    #[test]
    fn a_clock_leads_once_its_first_span_has_arrived() {
        let mut clocks = Clocks::of(2);
        assert_eq!(placed(&mut clocks, 0, 1_000, span(Phase::Read, 1, 100, 300)), 999_800);
        assert_eq!(
            placed(&mut clocks, 0, 9_000, span(Phase::Read, 1, 400, 500)),
            1_000_100,
            "arrival no longer counts"
        );
        let mut restarted = span(Phase::Read, 1, 0, 50);
        let _ = clocks.place(0, "another epoch", 20_000, &mut restarted);
        assert_eq!(restarted.start_ns, 19_999_950);
    }

    #[test]
    fn versions_move_the_server_that_saw_too_early() {
        let mut clocks = Clocks::of(2);
        placed(&mut clocks, 0, 1_000, span(Phase::Read, 1, 0, 0));
        placed(&mut clocks, 1, 1_000, span(Phase::Read, 1, 0, 0));
        let committed = placed(&mut clocks, 0, 1_100, span(Phase::Commit, 2, 90_000, 95_000));
        let seen = placed(&mut clocks, 1, 1_100, span(Phase::Read, 2, 60_000, 70_000));
        assert_eq!(seen + 10_000, committed + 1, "the read cannot have ended before the commit began");
        // What comes in the other order is heeded as well, for what follows.
        placed(&mut clocks, 0, 1_200, span(Phase::Read, 3, 100_000, 105_000));
        placed(&mut clocks, 1, 1_200, span(Phase::Commit, 3, 90_000, 95_000));
        assert_eq!(placed(&mut clocks, 0, 1_300, span(Phase::Compute, 0, 105_000, 106_000)), 1_110_002);
    }

    #[test]
    fn memory_is_bounded() {
        let mut clocks = Clocks::of(2);
        for number in 0..2_000 {
            placed(&mut clocks, 0, 1, Span { user_id: number % 100, ..span(Phase::Commit, number, 0, 1) });
            placed(&mut clocks, 1, 1, Span { user_id: 7, ..span(Phase::Read, number, 0, 1) });
        }
        assert!(clocks.accounts.len() <= ACCOUNTS);
        assert!(clocks.accounts.values().all(|versions| versions.len() <= VERSIONS));
    }
}
