//! A picture of one lost update: a lane per operation, time from left to right, the window in which the overwriter
//! believed an old balance, and the money that fell into it. Pure: spans and a race in, text out. Draws the race's own
//! operations and refuses to draw bystanders.

mod axis;

use anstyle::Style;
use zbl_proto::v1::{Contender, Phase, Race, Span, State};

use self::axis::{Axis, Extent};
use crate::paint::{FAINT, PLAIN, Paint, RACE, begin_ns, letter, name, rough, short, style};

/// The most victims drawn, newest first: a stale write can cut off a hundred, and four already tell the story.
const VICTIMS_DRAWN: usize = 4;

/// The columns before a lane: a letter, eight digits of the request id, blanks.
const MARGIN: usize = 12;

/// The columns of a box around its label: brackets, and one of the line that leads on to the next box.
const FRAME: usize = 3;

/// The widest picture, label and line drawn: beyond any screen, and below the 65,535 columns that formatting can fill.
const WIDEST: usize = 4096;

/// Draws the lanes of the operations in `race` from those of `spans` that are theirs, `width` columns wide. The order of
/// all events is exact; their distances are stretched. Labels are shortened until they fit; a width too small for the
/// shortest ones is exceeded, and one above 4096 is taken for 4096. Without a span of the race's operations there is nothing to draw, and the text says so.
pub fn picture(spans: &[Span], race: &Race, width: usize, paint: Paint) -> String {
    rows(spans, race, width).iter().map(|row| row.render(paint)).collect()
}

/// Draws the lanes of operations of one account that did not race, as [`picture`] draws those that did.
pub fn peaceful(spans: &[Span], operations: &[Contender], width: usize, paint: Paint) -> String {
    let operations = operations.iter().map(|operation| (Role::Bystander, operation));
    let operations = lettered(spans, spans.first().map_or(0, |span| span.user_id), operations);
    drawn(&operations, &Race::default(), width.min(WIDEST)).iter().map(|row| row.render(paint)).collect()
}

/// The rows of the picture.
pub(crate) fn rows(spans: &[Span], race: &Race, width: usize) -> Vec<Row> {
    drawn(&operations(spans, race), race, width.min(WIDEST))
}

fn drawn(operations: &[Operation<'_>], race: &Race, width: usize) -> Vec<Row> {
    if operations.iter().all(|operation| operation.spans.is_empty()) {
        let mut row = Row::default();
        row.put(0, "(the spans of this race are no longer retained)", PLAIN);
        return vec![row];
    }
    let (axis, detail) = layout(operations, race, width.saturating_sub(MARGIN));
    let mut rows = vec![ruler(&axis, width)];
    for operation in operations {
        rows.push(operation.lane(&axis, detail));
        rows.push(match operation.role {
            Role::Victim => operation.loss(&axis, width),
            Role::Overwriter => operation.stale_window(&axis, race, operations),
            Role::Bystander => Row::default(),
        });
    }
    let undrawn = race.victims.len().saturating_sub(VICTIMS_DRAWN) + usize::try_from(race.victims_omitted).unwrap_or(0);
    if undrawn > 0 {
        let mut row = Row::default();
        row.put(MARGIN, &format!("and {undrawn} older victims, not drawn"), RACE);
        rows.push(row);
    }
    rows.retain(|row| !row.cells.is_empty());
    rows
}

/// How much a box's label says.
#[derive(Clone, Copy)]
pub(crate) enum Detail {
    /// `[read 990.00@v7]`
    Values,
    /// `[read@v7]`
    Versions,
    /// `[R]`
    Letters,
}

#[derive(PartialEq, Eq)]
enum Role {
    Victim,
    Overwriter,
    Bystander,
}

/// One side of the race and what it did.
struct Operation<'a> {
    letter: char,
    role: Role,
    contender: &'a Contender,
    spans: Vec<&'a Span>,
}

/// The victims that are drawn, oldest first, then the overwriter: the order in which they committed.
fn operations<'a>(spans: &'a [Span], race: &'a Race) -> Vec<Operation<'a>> {
    let victims = race.victims.iter().take(VICTIMS_DRAWN).rev().map(|victim| (Role::Victim, victim));
    let overwriter = race.overwriter.iter().map(|overwriter| (Role::Overwriter, overwriter));
    lettered(spans, race.user_id, victims.chain(overwriter))
}

/// Operations of an account with their spans, and a letter for each.
fn lettered<'a>(
    spans: &'a [Span],
    user_id: i64,
    contenders: impl Iterator<Item = (Role, &'a Contender)>,
) -> Vec<Operation<'a>> {
    let of = |contender: &Contender| {
        let mut own: Vec<_> =
            spans.iter().filter(|span| span.user_id == user_id && span.request_id == contender.request_id).collect();
        own.sort_by_key(|span| begin_ns(span));
        own
    };
    ('A'..)
        .zip(contenders)
        .map(|(letter, (role, contender))| Operation { letter, role, contender, spans: of(contender) })
        .collect()
}

/// The most telling labels that fit, and the axis they fit on. The stale window gets the room its words need before
/// balances give way to versions.
fn layout(operations: &[Operation<'_>], race: &Race, width: usize) -> (Axis, Detail) {
    let window = || {
        let overwriter = operations.last().filter(|last| last.role == Role::Overwriter)?;
        let (from_ns, to_ns) = overwriter.window_ns()?;
        // The window is widened where it is longest anyhow, which is the phase between read and write if there is one.
        let inside = overwriter.spans.iter().filter(|span| from_ns <= span.start_ns && end_ns(span) <= to_ns);
        let longest = inside.max_by_key(|span| span.duration_ns).map(|span| (span.start_ns, end_ns(span)));
        let (start_ns, end_ns) = longest.unwrap_or((from_ns, to_ns));
        Some(Extent { start_ns, end_ns, columns: belief(race).chars().count() })
    };
    let extents = |detail, window: Option<Extent>| -> Vec<Extent> {
        let spans = operations.iter().flat_map(|operation| &operation.spans);
        let extent = |span: &&Span| Extent {
            start_ns: begin_ns(span),
            end_ns: end_ns(span),
            columns: label(span, detail).chars().count() + FRAME,
        };
        spans.map(extent).chain(window).collect()
    };
    [(Detail::Values, window()), (Detail::Values, None), (Detail::Versions, window()), (Detail::Versions, None)]
        .into_iter()
        .find_map(|(detail, window)| Some((Axis::fit(&extents(detail, window), width)?, detail)))
        .unwrap_or_else(|| {
            let letters = extents(Detail::Letters, None);
            (Axis::fit(&letters, width).unwrap_or_else(|| Axis::tightest(&letters)), Detail::Letters)
        })
}

/// What the overwriter takes for true in its stale window.
fn belief(race: &Race) -> String {
    race.seen.as_ref().map_or_else(String::new, |seen| format!("╰─ still believes {} ", at(seen)))
}

fn end_ns(span: &Span) -> i64 {
    // A clock too coarse for the phase must not make it disappear.
    span.start_ns.saturating_add(span.duration_ns.max(1))
}

/// What a box says.
pub(crate) fn label(span: &Span, detail: Detail) -> String {
    let phase = span.phase();
    // A commit may repeat what its write wrote; once is enough.
    let state = match phase {
        Phase::Read => span.seen.as_ref(),
        Phase::Write => span.written.as_ref(),
        _ => None,
    };
    let failed = if span.failed { " failed" } else { "" };
    match (detail, state) {
        (Detail::Letters, _) => letter(phase).to_string(),
        (_, None) if phase == Phase::Queued => format!("{} {}", name(phase), rough(span.duration_ns)),
        (Detail::Values, Some(state)) => format!("{} {}{failed}", name(phase), at(state)),
        (Detail::Versions, Some(state)) => format!("{}@v{}{failed}", name(phase), state.version),
        (_, None) => format!("{}{failed}", name(phase)),
    }
}

/// A balance at a version, as it is written everywhere: `990.00@v7`.
pub(crate) fn at(state: &State) -> String {
    format!("{}@v{}", state.balance, state.version)
}

impl Operation<'_> {
    fn lane(&self, axis: &Axis, detail: Detail) -> Row {
        let mut row = Row::default();
        let emphasis = if self.role == Role::Victim { RACE } else { PLAIN };
        row.put(0, &format!("{} {}", self.letter, short(&self.contender.request_id)), emphasis);
        if let (Some(first), Some(last)) = (self.spans.first(), self.spans.last()) {
            let (from, to) = (axis.column(begin_ns(first)), axis.column(end_ns(last)));
            row.put(MARGIN + from, &"─".repeat(to.saturating_sub(from + 1)), FAINT);
        } else {
            row.put(MARGIN, "(not retained)", FAINT);
        }
        for span in &self.spans {
            let (from, to) = (axis.column(begin_ns(span)), axis.column(end_ns(span)));
            let inner = to.saturating_sub(from + FRAME).min(WIDEST);
            row.put(MARGIN + from, &format!("[{:^inner$}]", label(span, detail)), style(span.phase()));
        }
        row
    }

    /// Marks the victim's write with what was lost of it.
    fn loss(&self, axis: &Axis, width: usize) -> Row {
        let mut row = Row::default();
        let write = self.spans.iter().rfind(|span| span.phase() == Phase::Write).or(self.spans.last());
        let column = MARGIN + write.map_or(0, |span| axis.column(span.start_ns));
        let text = format!("{} LOST", signed(&self.contender.delta));
        let (before, after) = (format!("{text} ─╯"), format!("╰─ {text}"));
        if column + after.chars().count() <= width || column < before.chars().count() {
            row.put(column, &after, RACE);
        } else {
            row.put(column + 1 - before.chars().count(), &before, RACE);
        }
        row
    }

    /// From the end of the read to the start of the write.
    fn window_ns(&self) -> Option<(i64, i64)> {
        let last = |phase| self.spans.iter().rfind(|span| span.phase() == phase);
        Some((end_ns(last(Phase::Read)?), last(Phase::Write)?.start_ns))
    }

    /// Marks the time between the overwriter's read and its write, in which what it had read stopped being true.
    fn stale_window(&self, axis: &Axis, race: &Race, all: &[Operation<'_>]) -> Row {
        let mut row = Row::default();
        let Some((start_ns, end_ns)) = self.window_ns() else { return row };
        // From under the bracket that closes the read to under the one that opens the write.
        let (from, to) = (axis.column(start_ns).saturating_sub(2), axis.column(end_ns));
        let fill = to.saturating_sub(from).min(WIDEST);
        let victims = all.iter().filter(|other| other.role == Role::Victim);
        let letters = victims.map(|victim| victim.letter.to_string()).collect::<Vec<_>>().join(", ");
        let tellings = [belief(race), "╰─ stale ".to_owned()];
        let telling = tellings.iter().find(|telling| telling.chars().count() <= fill).map_or("╰", String::as_str);
        row.put(MARGIN + from, &format!("{telling:─<fill$}╯ overwrites {letters}"), RACE);
        row
    }
}

/// A delta with its sign: journals write `-10.00` and `10.00`.
pub(crate) fn signed(delta: &str) -> String {
    if delta.starts_with('-') { delta.to_owned() } else { format!("+{delta}") }
}

fn ruler(axis: &Axis, width: usize) -> Row {
    let mut row = Row::default();
    let end = format!("→ {} ms", milliseconds(axis.span_ns()));
    let fill = width.saturating_sub(MARGIN + end.chars().count());
    let legend =
        Some("── time, stretched; the order is exact ").filter(|text| text.chars().count() < fill).unwrap_or("");
    row.put(MARGIN, &format!("{legend:─<fill$}{end}"), FAINT);
    row
}

/// Nanoseconds as milliseconds with three decimals, cut off, by whole-number arithmetic.
pub(crate) fn milliseconds(ns: i64) -> String {
    let micros = ns / 1000;
    let sign = if micros < 0 { "-" } else { "" };
    format!("{sign}{}.{:03}", micros.unsigned_abs() / 1000, micros.unsigned_abs() % 1000)
}

/// A line of styled characters.
#[derive(Default)]
pub(crate) struct Row {
    cells: Vec<(char, Style)>,
}

impl Row {
    /// Writes over the cells from `column` on.
    pub(crate) fn put(&mut self, column: usize, text: &str, style: Style) {
        for (index, character) in (column..).zip(text.chars()) {
            if self.cells.len() <= index {
                self.cells.resize(index + 1, (' ', PLAIN));
            }
            self.cells[index] = (character, style);
        }
    }

    /// The row's texts, one for each stretch of the same style.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (String, Style)> {
        self.cells.chunk_by(|a, b| a.1 == b.1).map(|run| (run.iter().map(|cell| cell.0).collect(), run[0].1))
    }

    fn render(&self, paint: Paint) -> String {
        let mut out = String::new();
        for (text, style) in self.runs() {
            paint.push(&mut out, style, &text);
        }
        out.push('\n');
        out
    }
}

#[cfg(test)]
mod tests;
