//! The timeline as a trace in Chrome's JSON format, which ui.perfetto.dev opens: accounts are processes, lanes threads,
//! phases slices; a stale window is an asynchronous slice, an arrow leads from the stale read to the write that
//! overwrote, and a counter shows the balance in minor units. Times are microseconds, to the nanosecond, from the first
//! event shown.
//!
//! The format wants slices of a thread nested or apart. A lane has one operation at a time, so they are apart, except
//! where clocks are coarse or were moved: a slice then begins where the one before it ended.

use std::collections::{HashMap, VecDeque};

use serde_json::{Value, json};
use zbl_proto::Money;
use zbl_proto::v1::{Phase, Race, Span, State, StreamTimelineResponse, stream_timeline_response::Event};

use super::{
    arrival::{Arrival, News, end_ns},
    clocks::Clocks,
    render::Render,
};
use crate::{lanes::at, paint::name};

/// The operations whose reads and writes are remembered for a race to point at: far more than are ever in flight.
const OPERATIONS: usize = 1 << 14;

/// The accounts remembered; one that comes back after so many others gets a second process of the same name.
const ACCOUNTS: usize = 1 << 12;

/// Threads of one server begin at a multiple of this, so that servers do not share lanes.
const LANES_PER_SERVER: i64 = 10_000;

/// A trace under construction.
#[derive(Default)]
pub(super) struct Perfetto {
    clocks: Clocks,
    origin_ns: Option<i64>,
    begun: bool,
    /// Small numbers for accounts: the format's process ids have 32 bits.
    processes: HashMap<i64, usize>,
    numbered: usize,
    /// The end of the last slice of each thread.
    threads: HashMap<(usize, i64), i64>,
    operations: HashMap<OperationKey, Operation>,
    /// The operations in the order they came up, to forget the oldest.
    known: VecDeque<OperationKey>,
    races: u64,
}

/// An account and a request id, which is unique within its account only.
type OperationKey = (i64, String);

/// What a race needs to know of an operation.
#[derive(Clone, Copy, Default)]
struct Operation {
    read: Option<Slice>,
    write: Option<Slice>,
}

/// A slice that was written.
#[derive(Clone, Copy)]
struct Slice {
    process: usize,
    thread: i64,
    start_ns: i64,
    end_ns: i64,
}

impl Perfetto {
    /// An empty trace of so many servers.
    pub(super) fn new(servers: usize) -> Self {
        Self { clocks: Clocks::of(servers), ..Self::default() }
    }

    fn push(&mut self, event: &Value, out: &mut String) {
        out.push_str(if self.begun { ",\n" } else { OPENING });
        out.push_str(&event.to_string());
        self.begun = true;
    }

    /// A time on the trace's axis.
    fn ts(&self, ns: i64) -> Value {
        micros(ns.saturating_sub(self.origin_ns.unwrap_or(ns)))
    }

    fn process(&mut self, user_id: i64, out: &mut String) -> usize {
        if let Some(known) = self.processes.get(&user_id) {
            return *known;
        }
        if self.processes.len() == ACCOUNTS {
            self.processes.clear();
            self.threads.clear();
        }
        self.numbered += 1;
        let process = self.numbered;
        self.processes.insert(user_id, process);
        let label = json!({"name": format!("account {user_id}")});
        self.push(&json!({"ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": label}), out);
        process
    }

    /// Where the thread's last slice ended.
    fn thread_end(&mut self, process: usize, thread: i64, source: usize, out: &mut String) -> i64 {
        if let Some(end_ns) = self.threads.get(&(process, thread)) {
            return *end_ns;
        }
        let lane = thread % LANES_PER_SERVER;
        let label = if source == 0 { format!("lane {lane}") } else { format!("lane {lane} of server {}", source + 1) };
        let args = json!({"name": label});
        self.push(&json!({"ph": "M", "name": "thread_name", "pid": process, "tid": thread, "args": args}), out);
        i64::MIN
    }

    fn span(&mut self, source: usize, span: &Span, out: &mut String) {
        self.origin_ns.get_or_insert(span.start_ns);
        let process = self.process(span.user_id, out);
        let thread = i64::try_from(source).unwrap_or(0) * LANES_PER_SERVER + i64::from(span.lane);
        let start_ns = span.start_ns.max(self.thread_end(process, thread, source, out));
        let end_ns = end_ns(span).max(start_ns);
        self.threads.insert((process, thread), end_ns);
        let slice = Slice { process, thread, start_ns, end_ns };
        let phase = span.phase();
        self.push(
            &json!({
                "ph": "X", "cat": "phase", "name": name(phase), "pid": process, "tid": thread,
                "ts": self.ts(start_ns), "dur": micros(end_ns - start_ns), "args": arguments(span),
            }),
            out,
        );
        match phase {
            Phase::Read => self.operation(span).read = Some(slice),
            Phase::Write => self.operation(span).write = Some(slice),
            _ => {}
        }
        if let (Phase::Commit, false, Some(State { balance, .. })) = (phase, span.failed, &span.written)
            && let Ok(balance) = Money::parse_signed(balance)
        {
            let args = json!({"minor units": balance.minor()});
            let ts = self.ts(end_ns);
            self.push(&json!({"ph": "C", "name": "balance", "pid": process, "tid": 0, "ts": ts, "args": args}), out);
        }
    }

    fn operation(&mut self, span: &Span) -> &mut Operation {
        let key = (span.user_id, span.request_id.clone());
        if !self.operations.contains_key(&key) {
            if self.known.len() == OPERATIONS
                && let Some(oldest) = self.known.pop_front()
            {
                self.operations.remove(&oldest);
            }
            self.known.push_back(key.clone());
        }
        self.operations.entry(key).or_default()
    }

    /// The stale window and the arrow; neither, when the overwriter's read or write came before the trace.
    fn race(&mut self, race: &Race, out: &mut String) {
        let Some(overwriter) = &race.overwriter else { return };
        let key = (race.user_id, overwriter.request_id.clone());
        let Some(&Operation { read: Some(read), write: Some(write) }) = self.operations.get(&key) else { return };
        self.races += 1;
        let id = self.races;
        let believed = race.seen.as_ref().map_or_else(String::new, at);
        let label = format!("stale: believes {believed}, destroys {}", race.destroyed);
        let victims: Vec<_> = race.victims.iter().map(|victim| victim.request_id.as_str()).collect();
        let event = |ph: &str, slice: Slice, ts: Value| json!({"ph": ph, "cat": "race", "name": label, "id": id, "pid": slice.process, "tid": slice.thread, "ts": ts});
        let window_end_ns = write.start_ns.max(read.end_ns);
        let mut begin = event("b", read, self.ts(read.end_ns));
        begin["args"] = json!({"overwriter": overwriter.request_id, "victims": victims, "destroyed": race.destroyed});
        self.push(&begin, out);
        self.push(&event("e", write, self.ts(window_end_ns)), out);
        self.push(&event("s", read, self.ts(i64::midpoint(read.start_ns, read.end_ns))), out);
        let mut arrives = event("f", write, self.ts(i64::midpoint(write.start_ns, write.end_ns)));
        arrives["bp"] = json!("e");
        self.push(&arrives, out);
    }
}

impl Render for Perfetto {
    fn take(&mut self, arrival: Arrival, out: &mut String) {
        let News::Event(StreamTimelineResponse { epoch, event, .. }) = arrival.news else { return };
        match event {
            Some(Event::Span(mut span)) => {
                // What is already written stays where it is.
                let _ = self.clocks.place(arrival.source, &epoch, arrival.arrived_us, &mut span);
                self.span(arrival.source, &span, out);
            }
            Some(Event::Race(race)) => self.race(&race, out),
            Some(Event::Gap(gap)) => {
                let newest_ns = self.threads.values().copied().max().or(self.origin_ns).unwrap_or(0);
                let name = format!("gap: {}", gap.reason().as_str_name());
                let args = json!({"after_sequence": gap.after_sequence, "next_sequence": gap.next_sequence});
                let ts = self.ts(newest_ns);
                self.push(&json!({"ph": "i", "s": "g", "name": name, "pid": 0, "tid": 0, "ts": ts, "args": args}), out);
            }
            Some(Event::Heartbeat(_)) | None => {}
        }
    }

    fn finish(&mut self, out: &mut String) {
        if !self.begun {
            out.push_str(OPENING);
        }
        out.push_str("\n]}\n");
    }
}

const OPENING: &str = "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n";

/// What a slice says of its phase when it is clicked.
fn arguments(span: &Span) -> Value {
    let mut arguments = json!({"request": span.request_id, "strategy": span.strategy, "attempt": span.attempt});
    let read = span.seen.as_ref().map(|state| ("read", at(state)));
    let written = span.written.as_ref().map(|state| ("written", at(state)));
    let destroyed = (!span.destroyed.is_empty()).then(|| ("destroyed", span.destroyed.clone()));
    let failed = span.failed.then(|| ("failed", span.failure.clone()));
    let trace = (!span.trace_id.is_empty()).then(|| ("trace", span.trace_id.clone()));
    for (key, value) in [read, written, destroyed, failed, trace].into_iter().flatten() {
        arguments[key] = value.into();
    }
    arguments
}

/// Nanoseconds as microseconds. A double holds a hundred days of them to the nanosecond.
fn micros(ns: i64) -> Value {
    json!(ns as f64 / 1000.0)
}

#[cfg(test)]
mod tests;
