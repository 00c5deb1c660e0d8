//! Somebody who watches the timeline while a case is measured, and the proof that they did: what arrived is kept in memory
//! and counted afterwards, so that neither a disk nor the counting slows down what is measured.

use std::{
    io::{self, Read},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread::{self, JoinHandle},
    time::Duration,
};

use serde::{Deserialize, de::IgnoredAny};

use crate::command::Failure;

/// Opening one stream on a machine that does nothing else takes milliseconds.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// A case's spans are some hundred bytes each, and a million of them would be many.
const MOST_BYTES: u64 = 1 << 30;

/// A running `timeline`, ended when dropped.
pub(crate) struct Watcher {
    child: Child,
    /// Until the end, when it is taken.
    arrived: Option<JoinHandle<io::Result<Vec<u8>>>>,
}

/// What one who watched was told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Spans that arrived.
    pub(crate) spans: u64,
    /// Events that the server said are missing.
    pub(crate) missed: u64,
}

impl Watcher {
    /// Starts `timeline -o ndjson`, and waits until its stream is open.
    pub(crate) fn start(mut timeline: Command) -> Result<Self, Failure> {
        let mut child = timeline
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::Failed(format!("starting the watcher: {error}")))?;
        let output = child.stdout.take().ok_or_else(|| Failure::Failed("the watcher has no output".into()))?;
        let (arrived, opened) = keep(output);
        let watcher = Self { child, arrived: Some(arrived) };
        match opened.recv_timeout(OPEN_TIMEOUT) {
            Ok(()) => Ok(watcher),
            Err(error) => Err(Failure::Failed(format!("the watcher's stream does not open: {error}"))),
        }
    }

    /// Ends the watching; says what arrived.
    ///
    /// # Errors
    /// The watcher had ended before, had lost its stream, or nothing arrived.
    pub(crate) fn end(mut self) -> Result<Seen, Failure> {
        let failed = |reason: String| Failure::Failed(format!("nobody watched to the end: {reason}"));
        if let Some(status) = self.child.try_wait().map_err(|error| failed(error.to_string()))? {
            return Err(failed(status.to_string()));
        }
        self.child.kill().map_err(|error| failed(error.to_string()))?;
        let arrived = self.arrived.take().map(JoinHandle::join).and_then(Result::ok);
        let arrived = arrived.ok_or_else(|| failed("its output was not read".into()))?;
        Seen::of(&arrived.map_err(|error| failed(error.to_string()))?).map_err(failed)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // One that has ended is only waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps what arrives, in a thread of its own; tells when the first of it does.
fn keep(mut output: impl Read + Send + 'static) -> (JoinHandle<io::Result<Vec<u8>>>, Receiver<()>) {
    let (first, opened) = mpsc::channel();
    let arrived = thread::spawn(move || {
        let mut arrived = vec![0];
        output.read_exact(&mut arrived)?;
        // Whoever waits for it may have given up.
        let _ = first.send(());
        if output.take(MOST_BYTES).read_to_end(&mut arrived)? as u64 == MOST_BYTES {
            return Err(io::Error::other(format!("more than {MOST_BYTES} bytes arrived")));
        }
        Ok(arrived)
    });
    (arrived, opened)
}

/// A line of `timeline -o ndjson`, as far as it is counted.
#[derive(Deserialize)]
struct Line {
    event: Option<Event>,
    disconnected: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Event {
    span: Option<IgnoredAny>,
    gap: Option<Gap>,
}

#[derive(Deserialize)]
struct Gap {
    after_sequence: i64,
    next_sequence: i64,
}

impl Seen {
    /// Counts. The last line may be cut: the watcher was ended while it wrote.
    fn of(arrived: &[u8]) -> Result<Self, String> {
        let whole = arrived.iter().rposition(|byte| *byte == b'\n').map_or(&[][..], |end| &arrived[..end]);
        let mut seen = Self::default();
        for line in serde_json::Deserializer::from_slice(whole).into_iter::<Line>() {
            let Line { event, disconnected } = line.map_err(|error| format!("it wrote no arrival: {error}"))?;
            if disconnected.is_some() {
                return Err("its stream was lost".into());
            }
            let Some(Event { span, gap }) = event else { continue };
            seen.spans += u64::from(span.is_some());
            if let Some(Gap { after_sequence, next_sequence }) = gap {
                let missed = next_sequence.saturating_sub(after_sequence).saturating_sub(1);
                seen.missed = seen.missed.saturating_add(u64::try_from(missed).unwrap_or(0));
            }
        }
        if seen.spans == 0 { Err("no span arrived".into()) } else { Ok(seen) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENED: &str = r#"{"arrived_us":1,"source":0,"connected":{"after":null}}"#;
    const SPAN: &str =
        r#"{"arrived_us":2,"source":0,"event":{"epoch":"e","sequence":5,"instance":"i","span":{"user_id":7}}}"#;
    const GAP: &str = r#"{"arrived_us":3,"source":0,"event":{"epoch":"e","sequence":9,"instance":"i","gap":{"reason":"LAGGED","after_sequence":5,"next_sequence":9}}}"#;
    const LOST: &str = r#"{"arrived_us":4,"source":0,"disconnected":{"error":"gone","retry_in_ms":93}}"#;

    fn seen(lines: &[&str]) -> Result<Seen, String> {
        Seen::of(lines.concat().as_bytes())
    }

    #[test]
    fn spans_and_what_is_missing_are_counted() {
        let whole = [OPENED, "\n", SPAN, "\n", GAP, "\n", SPAN, "\n"];
        assert_eq!(seen(&whole), Ok(Seen { spans: 2, missed: 3 }));
        // Cut while it was written.
        assert_eq!(seen(&[OPENED, "\n", SPAN, "\n", &SPAN[..40]]), Ok(Seen { spans: 1, missed: 0 }));
    }

    #[test]
    fn who_saw_nothing_has_not_watched() {
        for (lines, named) in [
            (&[OPENED, "\n"][..], "no span arrived"),
            (&[], "no span arrived"),
            (&[SPAN, "\n", LOST, "\n"], "its stream was lost"),
            (&["no server\n"], "no arrival"),
        ] {
            let reason = seen(lines).unwrap_err();
            assert!(reason.contains(named), "{lines:?}: {reason}");
        }
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn it_begins_with_the_first_arrival_and_is_counted_at_the_end() {
        let watcher = Watcher::start(shell(&format!("echo '{SPAN}'; exec sleep 60"))).unwrap();
        assert_eq!(watcher.end().ok(), Some(Seen { spans: 1, missed: 0 }));
        let silent = Watcher::start(shell("exit 3")).map(drop).unwrap_err();
        assert!(silent.reason().contains("does not open"), "{silent:?}");
    }
}
