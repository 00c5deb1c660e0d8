//! A circuit breaker: once most of what is asked of a server fails, nothing more is asked of it for a while, so that callers
//! are told at once instead of waiting one after the other for what is not there.
//!
//! ```text
//!            most of the window failed                 the time is over, or it was seen alive
//!   closed ─────────────────────────────► open ──────────────────────────────► half open
//!      ▲                                    ▲                                      │
//!      │                                    └──────────── one probe failed ────────┤
//!      └───────────────────────────────────────────────── all probes succeeded ────┘
//! ```
//!
//! It knows nothing of what it protects: whoever asks says what came of it, and whether that was the server's fault.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The slots of a window: what is older than a window is forgotten a tenth of it at a time.
const SLOTS: usize = 10;

/// When to come back while all probes are out: about as long as one takes.
const RETRY_HALF_OPEN: Duration = Duration::from_secs(1);

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How far back outcomes count.
    pub window: Duration,
    /// How much of them must have failed, percent.
    pub failed_percent: u32,
    /// Fewer outcomes than this prove nothing.
    pub least: u32,
    /// How long nothing is asked.
    pub open: Duration,
    /// How many must then succeed before all are let in again, and are let in until then.
    pub probes: u32,
}

/// What a breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Everything.
    Closed,
    /// A few probes.
    HalfOpen,
    /// Nothing.
    Open,
}

/// The server is not asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When it may be again.
    pub retry_after: Duration,
}

/// A breaker in front of one server.
pub struct Breaker {
    name: &'static str,
    circuit: Mutex<Circuit>,
    refused: AtomicU64,
}

/// What a breaker looks like from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// What it is called in metrics and logs.
    pub name: &'static str,
    /// What it lets through.
    pub position: Position,
    /// Outcomes within the window that count against it; none unless it is closed.
    pub failed: u64,
    /// Outcomes within the window, or of probes, that count for it.
    pub succeeded: u64,
    /// How long nothing will be asked yet; zero unless it is open.
    pub retry_after: Duration,
    /// Callers turned away since it was made.
    pub refused: u64,
}

/// Leave to ask once. Whoever has it says what came of it, or drops it where nothing did.
pub struct Leave {
    breaker: Arc<Breaker>,
    /// The position it was given in, by number: what comes of it later says nothing about another.
    era: u64,
    told: bool,
}

impl Breaker {
    /// A closed one, and what it is called in metrics and logs.
    pub fn new(name: &'static str, settings: Settings) -> Arc<Self> {
        let circuit = Circuit { settings, era: 0, now: State::Closed(Box::default()), begun: Instant::now() };
        let breaker = Self { name, circuit: Mutex::new(circuit), refused: AtomicU64::new(0) };
        breaker.tell(Position::Closed);
        // Told as none from the start, so that the first is seen as one more.
        breaker.refusals().increment(0);
        Arc::new(breaker)
    }

    /// Leave to ask, if there is any.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn enter(self: &Arc<Self>) -> Result<Leave, Refused> {
        let entered = self.change(|circuit| circuit.enter(Instant::now()));
        if entered.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            self.refusals().increment(1);
        }
        Ok(Leave { breaker: Arc::clone(self), era: entered?, told: false })
    }

    /// The server has answered somebody who asked without leave: there is no reason to wait any longer before probing.
    pub fn seen_alive(&self) {
        self.change(Circuit::seen_alive);
    }

    /// What it looks like now.
    pub fn figures(&self) -> Figures {
        let now = Instant::now();
        let circuit = self.circuit();
        let (failed, succeeded, retry_after) = match &circuit.now {
            State::Closed(window) => {
                let Slot { failed, succeeded, .. } = window.sum(circuit.slot(now));
                (failed, succeeded, Duration::ZERO)
            }
            State::Open { until } => (0, 0, until.saturating_duration_since(now)),
            State::HalfOpen { succeeded, .. } => (0, (*succeeded).into(), Duration::ZERO),
        };
        // Once its time is over the next caller is let in, though nobody has come yet.
        let is_over = circuit.position() == Position::Open && retry_after.is_zero();
        let position = if is_over { Position::HalfOpen } else { circuit.position() };
        let refused = self.refused.load(Ordering::Relaxed);
        Figures { name: self.name, position, failed, succeeded, retry_after, refused }
    }

    fn refusals(&self) -> metrics::Counter {
        metrics::counter!("breaker_refused_total", "breaker" => self.name)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Circuit) -> T) -> T {
        let mut circuit = self.circuit();
        let before = circuit.position();
        let result = change(&mut circuit);
        let after = circuit.position();
        if before != after {
            self.tell(after);
        }
        result
    }

    fn tell(&self, position: Position) {
        let breaker = self.name;
        metrics::counter!("breaker_transitions_total", "breaker" => breaker, "to" => position.name()).increment(1);
        match position {
            Position::Open => tracing::warn!(breaker, "most calls failed: nothing more is asked for a while"),
            position => tracing::info!(breaker, "the breaker is {}", position.name()),
        }
    }

    /// A poisoned lock only means that another thread panicked between two plain moves; what is counted is still good.
    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Position {
    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

impl Leave {
    /// The server did its part, whatever it said.
    pub fn succeeded(mut self) {
        self.told = true;
        self.breaker.change(|circuit| circuit.succeeded(self.era, Instant::now()));
    }

    /// It did not.
    pub fn failed(mut self) {
        self.told = true;
        self.breaker.change(|circuit| circuit.failed(self.era, Instant::now()));
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        if !self.told {
            self.breaker.change(|circuit| circuit.came_to_nothing(self.era));
        }
    }
}

/// The breaker itself; time is told to it.
struct Circuit {
    settings: Settings,
    /// Counts positions.
    era: u64,
    now: State,
    begun: Instant,
}

enum State {
    Closed(Box<Window>),
    Open { until: Instant },
    HalfOpen { out: u32, succeeded: u32 },
}

impl Circuit {
    fn enter(&mut self, now: Instant) -> Result<u64, Refused> {
        if let State::Open { until } = self.now {
            let retry_after = until.saturating_duration_since(now);
            if !retry_after.is_zero() {
                return Err(Refused { retry_after });
            }
            self.seen_alive();
        }
        if let State::HalfOpen { out, succeeded } = &mut self.now {
            if *out + *succeeded >= self.settings.probes {
                return Err(Refused { retry_after: RETRY_HALF_OPEN });
            }
            *out += 1;
        }
        Ok(self.era)
    }

    fn seen_alive(&mut self) {
        if let State::Open { .. } = self.now {
            self.turn(State::HalfOpen { out: 0, succeeded: 0 });
        }
    }

    fn succeeded(&mut self, era: u64, now: Instant) {
        let slot = self.slot(now);
        match &mut self.now {
            _ if era != self.era => {}
            State::Closed(window) => window.at(slot).succeeded += 1,
            State::HalfOpen { out, succeeded } => {
                (*out, *succeeded) = (out.saturating_sub(1), *succeeded + 1);
                if *succeeded >= self.settings.probes {
                    self.turn(State::Closed(Box::default()));
                }
            }
            State::Open { .. } => {}
        }
    }

    fn failed(&mut self, era: u64, now: Instant) {
        let (slot, Settings { failed_percent, least, open, .. }) = (self.slot(now), self.settings);
        let opens = match &mut self.now {
            _ if era != self.era => false,
            State::Closed(window) => {
                window.at(slot).failed += 1;
                let Slot { failed, succeeded, .. } = window.sum(slot);
                failed + succeeded >= u64::from(least)
                    && failed * 100 >= (failed + succeeded) * u64::from(failed_percent)
            }
            State::HalfOpen { .. } => true,
            State::Open { .. } => false,
        };
        if opens {
            self.turn(State::Open { until: now + open });
        }
    }

    fn came_to_nothing(&mut self, era: u64) {
        if let State::HalfOpen { out, .. } = &mut self.now
            && era == self.era
        {
            *out = out.saturating_sub(1);
        }
    }

    fn turn(&mut self, next: State) {
        self.now = next;
        self.era += 1;
    }

    fn position(&self) -> Position {
        match self.now {
            State::Closed(_) => Position::Closed,
            State::Open { .. } => Position::Open,
            State::HalfOpen { .. } => Position::HalfOpen,
        }
    }

    /// The number of the slot that a moment falls into, from one on.
    fn slot(&self, now: Instant) -> u64 {
        let length = (self.settings.window / SLOTS as u32).as_nanos().max(1);
        let passed = now.saturating_duration_since(self.begun).as_nanos() / length;
        u64::try_from(passed).unwrap_or(u64::MAX - 1) + 1
    }
}

/// Outcomes of the last while, by when they came.
#[derive(Default)]
struct Window([Slot; SLOTS]);

#[derive(Clone, Copy, Default)]
struct Slot {
    number: u64,
    succeeded: u64,
    failed: u64,
}

impl Window {
    fn at(&mut self, number: u64) -> &mut Slot {
        let slot = &mut self.0[(number % SLOTS as u64) as usize];
        if slot.number != number {
            *slot = Slot { number, ..Slot::default() };
        }
        slot
    }

    fn sum(&self, number: u64) -> Slot {
        let recent = self.0.iter().filter(|slot| slot.number + SLOTS as u64 > number);
        recent.fold(Slot::default(), |sum, slot| Slot {
            number,
            succeeded: sum.succeeded + slot.succeeded,
            failed: sum.failed + slot.failed,
        })
    }
}

#[cfg(test)]
mod tests;
