//! One connection and its share of the load: sends what is due, as far as there is room, and takes what has ended. Closed
//! and open loop are this one loop; when an operation is due is the pacer's to say.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hdrhistogram::CreationError;
use tokio::time::{Instant, sleep_until};
use zbl_client::{Backoff, Effect, Error};

use super::alarm::Alarm;
use super::choice::Choice;
use super::exchange::{Backlog, Ended, Event, Exchange};
use super::operation::{Answer, Operation};
use super::shared::{Counting, Shared, Unsettled};
use super::sheet::{Outcome, Part, Sheet};
use crate::attack::{FIRST_PAUSE, LONGEST_PAUSE, Stop};
use crate::pacer::{Pacer, WhenFull};
use crate::report::bench::Method;

/// How often a lane looks at what no event tells: calls that have expired, a second that is over, its progress.
const TICK: Duration = Duration::from_millis(100);

/// A lane's operations are numbered above this bit by the lane, below by the operation: 2^44 of them take years.
const LANE_SHIFT: u32 = 44;

/// A lane at work.
pub(super) struct Lane {
    number: u16,
    shared: Arc<Shared>,
    pacer: Pacer,
    /// The most operations in flight.
    limit: usize,
    choice: Choice,
    stop: Stop,
    /// Operations that were due so far.
    due: u64,
    /// Operations to be sent, those to be repeated first.
    waiting: VecDeque<Operation>,
    in_flight: usize,
    away: Option<Away>,
    closing: Closing,
    /// From when on what ends is no part of the figures.
    counts_until: Instant,
    next_tick: Instant,
    /// The second the part belongs to, counted from when operations count.
    second: u64,
    part: Part,
    haul: Haul,
    /// Operations that ended since progress was last told, and those of them that were acknowledged.
    untold: (u64, u64),
}

/// What a lane brings back.
pub(super) struct Haul {
    pub(super) sheet: Sheet,
    /// From when operations counted to when the last of them ended, or to when they no longer counted.
    pub(super) measured: Duration,
    /// Whether operations were left undone.
    pub(super) cut_short: bool,
    /// The first failure there was.
    pub(super) failure: Option<Error>,
}

/// A server that is away.
struct Away {
    since: Instant,
    /// When it is tried again.
    until: Instant,
    backoff: Backoff,
}

/// How far a lane is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    /// It goes on.
    Not,
    /// Nothing is due any more; what was begun is brought to its end.
    InOrder,
    /// Nothing is sent any more, not even again.
    AtOnce,
}

impl Lane {
    /// A lane that shall have at most `limit` operations in flight.
    pub(super) fn new(
        number: u16,
        shared: Arc<Shared>,
        pacer: Pacer,
        limit: usize,
        choice: Choice,
        stop: Stop,
    ) -> Result<Self, CreationError> {
        Ok(Self {
            number,
            counts_until: shared.until,
            shared,
            pacer,
            limit,
            choice,
            stop,
            due: 0,
            waiting: VecDeque::new(),
            in_flight: 0,
            away: None,
            closing: Closing::Not,
            next_tick: Instant::now() + TICK,
            second: 0,
            part: Part::new()?,
            haul: Haul { sheet: Sheet::new()?, measured: Duration::ZERO, cut_short: false, failure: None },
            untold: (0, 0),
        })
    }

    /// Works on connections that `dial` makes until nothing is due any more and all has ended.
    pub(super) async fn run<X, F>(mut self, dial: impl Fn() -> F) -> Haul
    where
        X: Exchange,
        F: Future<Output = Result<X, Error>> + Send,
    {
        loop {
            self.rest().await;
            if self.is_done() {
                break;
            }
            let dialled = tokio::select! {
                dialled = dial() => dialled,
                // What was sent before is as unknown as it was; nothing is in flight.
                () = self.stop.wait(), if self.closing != Closing::AtOnce => {
                    self.break_off();
                    continue;
                }
            };
            let lost = match dialled {
                Ok(mut exchange) => {
                    let Err(lost) = self.converse(&mut exchange).await else { break };
                    for operation in exchange.abandon() {
                        self.in_flight -= 1;
                        self.fail(operation, &lost, Instant::now());
                    }
                    lost
                }
                Err(lost) => lost,
            };
            self.miss(&lost, Instant::now());
            if !lost.is_transient() {
                self.break_off();
            }
            self.tell();
        }
        self.tell();
        if self.shared.counting == Counting::WhatEnds {
            self.haul.measured = self.counts_until.saturating_duration_since(self.shared.counts_from);
        }
        self.shared.series().advance(self.number.into(), &self.part, None);
        self.haul
    }

    /// Waits until a server that is away is to be tried again.
    async fn rest(&mut self) {
        while !self.is_done()
            && let Some(until) = self.away.as_ref().map(|away| away.until).filter(|until| *until > Instant::now())
        {
            tokio::select! {
                () = sleep_until(until.min(self.next_tick)) => {}
                () = self.stop.wait(), if self.closing != Closing::AtOnce => self.break_off(),
            }
            let now = Instant::now();
            self.take_due(now);
            if now >= self.next_tick {
                self.look_round(now);
            }
        }
    }

    /// Sends and takes on one connection.
    async fn converse<X: Exchange>(&mut self, exchange: &mut X) -> Result<(), Error> {
        let mut alarm = Alarm::new();
        loop {
            let now = Instant::now();
            if now >= self.next_tick {
                self.tick(exchange, now);
            }
            self.take_due(now);
            let backlog = poll_fn(|context| Poll::Ready(self.send(exchange, now, context))).await?;
            if self.is_done() {
                return Ok(());
            }
            alarm.set(self.wake(now), now);
            tokio::select! {
                biased;
                event = poll_fn(|context| exchange.poll_event(context, backlog)) => {
                    if let Event::Ended(ended) = event? {
                        self.end(ended);
                    }
                }
                () = alarm.ring() => {}
                () = self.stop.wait(), if self.closing != Closing::AtOnce => self.break_off(),
            }
        }
    }
}

impl Lane {
    /// Whether nothing is due any more and all that was begun has ended.
    fn is_done(&self) -> bool {
        self.closing != Closing::Not && self.waiting.is_empty() && self.in_flight == 0
    }

    /// When there is something to do that no event tells.
    fn wake(&self, now: Instant) -> Instant {
        let mut wake = self.next_tick;
        if let Some(away) = &self.away
            && away.until > now
        {
            wake = wake.min(away.until);
        }
        let open = self.closing == Closing::Not && self.pacer.when_full() == WhenFull::Drop;
        if open { wake.min(self.pacer.due(self.due, wake)) } else { wake }
    }

    fn tick(&mut self, exchange: &mut impl Exchange, now: Instant) {
        exchange.expire(now);
        self.look_round(now);
    }

    fn look_round(&mut self, now: Instant) {
        self.next_tick = now + TICK;
        self.turn_over(now);
        self.tell();
        if self.shared.is_halted() {
            self.break_off();
        }
    }

    /// Notes what has become due.
    fn take_due(&mut self, now: Instant) {
        while self.closing == Closing::Not {
            let due = self.pacer.due(self.due, now);
            let full = self.waiting.len() + self.in_flight >= self.limit;
            if due >= self.shared.until {
                self.haul.cut_short |= self.shared.is_short();
                self.closing = Closing::InOrder;
                return;
            }
            if due > now || (full && self.pacer.when_full() == WhenFull::Wait) {
                return;
            }
            let counts = due >= self.shared.counts_from;
            // What is dropped is none of the operations that were asked for.
            let left = !counts || if full { !self.shared.is_exhausted() } else { self.shared.take_one() };
            if !left {
                self.closing = Closing::InOrder;
                return;
            }
            if full {
                self.haul.sheet.punctuality.dropped += u64::from(counts);
            } else {
                let operation = self.operation(due, counts);
                self.waiting.push_back(operation);
            }
            self.due += 1;
        }
    }

    fn operation(&mut self, due: Instant, counts: bool) -> Operation {
        let (method, account) = self.choice.draw();
        let number = u64::from(self.number) << LANE_SHIFT | self.due;
        Operation { method, account, number, due, sent: None, counts, effect: Effect::None, reason: None }
    }

    /// Sends what waits, as far as the connection has room.
    fn send(
        &mut self,
        exchange: &mut impl Exchange,
        now: Instant,
        context: &mut Context<'_>,
    ) -> Result<Backlog, Error> {
        if self.away.as_ref().is_some_and(|away| away.until > now) {
            return Ok(Backlog::None);
        }
        while let Some(operation) = self.waiting.front_mut() {
            if exchange.poll_room(context)?.is_pending() {
                return Ok(Backlog::Waiting);
            }
            if operation.sent.is_none() && operation.counts {
                self.haul.sheet.punctuality.record_sending(now - operation.due);
            }
            operation.sent = operation.sent.or(Some(now));
            exchange.send(*operation, now)?;
            self.waiting.pop_front();
            self.in_flight += 1;
        }
        Ok(Backlog::None)
    }

    fn end(&mut self, ended: Ended) {
        let now = Instant::now();
        self.in_flight -= 1;
        match ended.outcome {
            Ok(answer) => {
                self.away = None;
                let outcome = self.acknowledge(&ended.operation, &answer);
                self.close(&ended.operation, outcome, now);
            }
            Err(error) => {
                self.miss(&error, now);
                self.fail(ended.operation, &error, now);
            }
        }
    }

    fn acknowledge(&self, operation: &Operation, answer: &Answer) -> Outcome {
        let Answer::Deducted { receipt, attempts } = answer else { return Outcome::Acknowledged { attempts: 0 } };
        let Shared { tally, wording, .. } = &*self.shared;
        tally.acknowledge(operation.account, wording.ids.id(operation.number), wording.delta, receipt);
        Outcome::Acknowledged { attempts: *attempts }
    }

    /// Notes that the server is away if that is what the error says, and when to try again.
    fn miss(&mut self, error: &Error, now: Instant) {
        if self.haul.failure.is_none() {
            self.haul.failure = Some(error.clone());
        }
        if !error.is_transient() {
            return;
        }
        let away = self.away.get_or_insert_with(|| Away {
            since: now,
            until: now,
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
        });
        // Of many that fail together, the first one counts.
        if away.until <= now {
            away.until = now + away.backoff.pause().max(error.retry_delay().unwrap_or_default().min(LONGEST_PAUSE));
        }
        if now - away.since >= self.shared.outage {
            self.break_off();
        }
    }

    /// Repeats an operation later if that may help, under its id; otherwise it has ended.
    fn fail(&mut self, mut operation: Operation, error: &Error, now: Instant) {
        if error.effect() == Effect::Unknown {
            operation.effect = Effect::Unknown;
        }
        operation.reason = error.reason();
        if error.is_transient() && self.closing != Closing::AtOnce {
            self.haul.sheet.outage_retries += u64::from(self.counts(&operation, now));
            self.waiting.push_front(operation);
            return;
        }
        self.close(&operation, known(&operation), now);
    }

    /// Sends nothing any more. What was to be repeated stays as it is known; what was due and never sent is dropped.
    fn break_off(&mut self) {
        self.haul.cut_short |= self.closing == Closing::Not || !self.waiting.is_empty();
        self.closing = Closing::AtOnce;
        let now = Instant::now();
        for operation in std::mem::take(&mut self.waiting) {
            if operation.sent.is_some() {
                self.close(&operation, known(&operation), now);
            } else {
                self.haul.sheet.punctuality.dropped += u64::from(operation.counts);
            }
        }
        self.counts_until = self.counts_until.min(now);
    }

    /// Whether an operation that ends now is part of the figures.
    fn counts(&self, operation: &Operation, now: Instant) -> bool {
        match self.shared.counting {
            Counting::WhatEnds => (self.shared.counts_from..self.counts_until).contains(&now),
            Counting::WhatIsDue => operation.counts,
        }
    }

    /// Records an operation that has come to its end.
    fn close(&mut self, operation: &Operation, outcome: Outcome, now: Instant) {
        self.untold.0 += 1;
        self.untold.1 += u64::from(matches!(outcome, Outcome::Acknowledged { .. }));
        if operation.method == Method::Deduct && !matches!(outcome, Outcome::Acknowledged { .. }) {
            self.shared.tally.touch(operation.account);
            if outcome == Outcome::Unknown {
                let request_id = self.shared.wording.ids.id(operation.number);
                self.shared.keep(Unsettled { account: operation.account, request_id });
            }
        }
        // What nobody answers was under way all the same, and is not forgotten for ending too late to count.
        let unknown = outcome == Outcome::Unknown && now >= self.shared.counts_from;
        if !(self.counts(operation, now) || unknown && self.shared.counting == Counting::WhatEnds) {
            return;
        }
        self.turn_over(now);
        let latency = now - operation.due;
        self.part.record(operation.method, outcome, latency);
        self.haul.sheet.record(operation.method, outcome, latency);
        if outcome.is_decided() && self.pacer.when_full() == WhenFull::Drop {
            self.haul.sheet.punctuality.observed.record(now - operation.sent.unwrap_or(operation.due));
        }
        if self.shared.counting == Counting::WhatIsDue {
            self.haul.measured = now.saturating_duration_since(self.shared.counts_from);
        }
    }

    /// Hands over what was measured in a second that is over.
    fn turn_over(&mut self, now: Instant) {
        let second = now.saturating_duration_since(self.shared.counts_from).as_secs();
        if second > self.second {
            self.shared.series().advance(self.number.into(), &self.part, Some(second));
            self.part.clear();
            self.second = second;
        }
    }

    fn tell(&mut self) {
        let (ended, acknowledged) = std::mem::take(&mut self.untold);
        self.shared.progress.send_modify(|progress| {
            progress.done += ended;
            progress.acknowledged += acknowledged;
        });
    }
}

/// What is known of an operation whose tries have all failed. A try that ended unknown may commit after a later one was
/// refused.
fn known(operation: &Operation) -> Outcome {
    match (operation.effect, operation.reason) {
        (Effect::None, Some(reason)) => Outcome::Failed(reason.as_str()),
        _ => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests;
