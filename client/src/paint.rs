//! The colours and letters of phases and races, shared by the timeline's lines and the picture of a race. Decides
//! whether to colour at all; refuses to know where anything is printed.

use std::{borrow::Cow, fmt::Write as _};

use anstream::{AutoStream, ColorChoice, stream::RawStream};
use anstyle::{AnsiColor, Style};
use zbl_proto::v1::{Phase, Span};

/// Whether text carries colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Text alone.
    Plain,
    /// Text with ANSI escape sequences.
    Ansi,
}

impl Paint {
    /// What suits a stream: colours on a terminal, none elsewhere, unless NO_COLOR, CLICOLOR_FORCE, TERM=dumb or a
    /// global choice made through `anstream` say otherwise.
    pub fn suiting(stream: &impl RawStream) -> Self {
        if AutoStream::choice(stream) == ColorChoice::Never { Self::Plain } else { Self::Ansi }
    }

    /// Appends text in a style, made [`printable`].
    pub(crate) fn push(self, out: &mut String, style: Style, text: &str) {
        let text = printable(text);
        // Writing to a string cannot fail.
        let _ = match self {
            Self::Ansi if style != PLAIN => write!(out, "{style}{text}{style:#}"),
            _ => write!(out, "{text}"),
        };
    }
}

/// Text with its control characters replaced: what a server or a recording supplies must not steer the terminal.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) {
        Cow::Owned(text.replace(char::is_control, "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// No style.
pub(crate) const PLAIN: Style = Style::new();
/// For what only guides the eye.
pub(crate) const FAINT: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::BrightBlack)));
/// For what is lost and whoever lost it.
pub(crate) const RACE: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red))).bold();

/// A phase's colour.
pub(crate) fn style(phase: Phase) -> Style {
    match phase {
        Phase::Unspecified => PLAIN,
        Phase::Queued | Phase::LockWait => FAINT,
        Phase::Read => AnsiColor::Blue.on_default(),
        Phase::Compute => AnsiColor::Yellow.on_default(),
        Phase::Write => AnsiColor::Green.on_default(),
        Phase::Commit => AnsiColor::Green.on_default().bold(),
    }
}

/// A phase's name in words.
pub(crate) fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Unspecified => "?",
        Phase::Queued => "queued",
        Phase::LockWait => "lock wait",
        Phase::Read => "read",
        Phase::Compute => "compute",
        Phase::Write => "write",
        Phase::Commit => "commit",
    }
}

/// How much of a wait in the queue is drawn, nanoseconds: as much as a phase takes. It may have lasted for minutes, beside which
/// nothing else would be seen; the label says for how long.
const QUEUED_DRAWN_NS: i64 = 1_000_000;

/// When a span begins, as it is drawn.
pub(crate) fn begin_ns(span: &Span) -> i64 {
    let hidden_ns = if span.phase() == Phase::Queued { (span.duration_ns - QUEUED_DRAWN_NS).max(0) } else { 0 };
    span.start_ns.saturating_add(hidden_ns)
}

/// A time as a person says it: `3.2 s`.
pub(crate) fn rough(ns: i64) -> String {
    match ns as f64 / 1e9 {
        s if s >= 60.0 => format!("{:.1} min", s / 60.0),
        s if s >= 1.0 => format!("{s:.1} s"),
        s => format!("{:.1} ms", s * 1e3),
    }
}

/// A phase's name in one character.
pub(crate) fn letter(phase: Phase) -> char {
    match phase {
        Phase::Unspecified => '?',
        Phase::Queued => 'Q',
        Phase::LockWait => 'L',
        Phase::Read => 'R',
        Phase::Compute => 'C',
        Phase::Write => 'W',
        Phase::Commit => '#',
    }
}

/// The first eight digits of a request id: enough to tell the operations of one screen apart.
pub(crate) fn short(request_id: &str) -> &str {
    request_id.get(..8).unwrap_or(request_id)
}
