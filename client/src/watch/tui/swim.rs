//! The swim lanes: one row per lane that has anything in the window, under its account, and beneath it, where there is
//! something to say, what was stale and what was lost. Pure: the app's state in, rows of styled text out.

use std::collections::HashMap;

use anstyle::Style;
use zbl_proto::v1::{Phase, Race, Span};

use super::{
    app::App,
    scene::{Account, LaneKey},
};
use crate::{
    lanes::{Detail, Row, at, label, signed},
    paint::{FAINT, PLAIN, RACE, begin_ns, letter, short, style},
    watch::arrival::end_ns,
};

/// Columns before the lanes: the lane's number, and from [`ROOMY`] columns on the request id.
const MARGIN: usize = 6;
const ROOMY_MARGIN: usize = 15;
const ROOMY: usize = 72;

/// How long an operation counts as in flight after its last phase; as in the lines of text.
const STALE_NS: i64 = 1_000_000_000;

/// What races say of one operation; where many race, one often both overwrote and was overwritten.
#[derive(Default)]
struct Mark<'a> {
    overwrote: Option<&'a Race>,
    /// The change that was lost.
    lost: Option<&'a str>,
}

/// The victims named beside a band: the race's own picture names the others.
const VICTIMS_NAMED: usize = 2;

/// By account and request id: a request id is unique within its account only.
type Marks<'a> = HashMap<(i64, &'a str), Mark<'a>>;

fn mark<'a>(marks: &'a Marks<'_>, span: &'a Span) -> Option<&'a Mark<'a>> {
    marks.get(&(span.user_id, span.request_id.as_str()))
}

/// The columns before the lanes on a terminal of this width.
pub(super) fn margin(width: usize) -> usize {
    if width < ROOMY { MARGIN } else { ROOMY_MARGIN }
}

/// The rows of all lanes, of which only those in sight are made.
pub(super) struct Sheet {
    first: usize,
    height: usize,
    /// The rows in sight.
    pub(super) rows: Vec<Row>,
    /// How many there are in all.
    pub(super) total: usize,
}

impl Sheet {
    fn add(&mut self, row: impl FnOnce() -> Row) {
        if self.total >= self.first && self.rows.len() < self.height {
            self.rows.push(row());
        }
        self.total += 1;
    }
}

/// The rows from `app.first_row` on, `height` of them, `width` columns wide with the margin.
pub(super) fn sheet(app: &App, width: usize, height: usize) -> Sheet {
    let scene = app.scene();
    let (from_ns, to_ns) = app.window_ns();
    let scale = Scale { from_ns, to_ns, column_ns: app.scale_ns, margin: margin(width), width };
    let marks = marks(app, from_ns);
    let mut sheet = Sheet { first: app.first_row, height, rows: Vec::new(), total: 0 };
    let mut account = None;
    for (key, mut spans) in scene.lanes_between(from_ns, to_ns) {
        spans.retain(|span| app.shows(span));
        if spans.is_empty() {
            continue;
        }
        if account != Some(key.user_id) {
            account = Some(key.user_id);
            sheet.add(|| heading(key.user_id, scene.account_of(key.user_id)));
        }
        sheet.add(|| lane(key, &spans, &marks, &scale, scene.servers.len()));
        let remarkable = |span: &&Span| span.phase() == Phase::Write && mark(&marks, span).is_some();
        if spans.iter().any(remarkable) {
            sheet.add(|| remarks(&spans, &marks, &scale));
        }
    }
    sheet
}

/// What the races say that can be seen.
fn marks(app: &App, from_ns: i64) -> Marks<'_> {
    let mut marks = Marks::new();
    for noticed in app.scene().races().filter(|noticed| noticed.at_ns >= from_ns) {
        for victim in &noticed.race.victims {
            marks.entry((noticed.race.user_id, &victim.request_id)).or_default().lost = Some(&victim.delta);
        }
        if let Some(overwriter) = &noticed.race.overwriter {
            marks.entry((noticed.race.user_id, &overwriter.request_id)).or_default().overwrote = Some(&noticed.race);
        }
    }
    marks
}

/// From times to columns.
struct Scale {
    from_ns: i64,
    to_ns: i64,
    column_ns: i64,
    margin: usize,
    width: usize,
}

impl Scale {
    /// The column of a time; the edge's for one beyond it.
    fn column(&self, ns: i64) -> usize {
        let column = ns.clamp(self.from_ns, self.to_ns).saturating_sub(self.from_ns) / self.column_ns.max(1);
        (self.margin + usize::try_from(column).unwrap_or(0)).min(self.width)
    }

    /// The columns of a span: at least one.
    fn extent(&self, span: &Span) -> (usize, usize) {
        let from = self.column(begin_ns(span)).min(self.width.saturating_sub(1));
        (from, self.column(end_ns(span)).max(from + 1))
    }
}

fn heading(user_id: i64, account: Option<&Account>) -> Row {
    let mut row = Row::default();
    let title = format!("account {user_id}");
    row.put(0, &title, PLAIN.bold());
    if let Some(Account { version, version_before, balance, races, .. }) = account {
        let head = format!("  head v{version} (read v{version_before})  balance {balance}");
        row.put(title.len(), &head, FAINT);
        if *races > 0 {
            row.put(title.len() + head.len(), &format!("  !! races {races}"), RACE);
        }
    }
    row
}

fn lane(key: LaneKey, spans: &[&Span], marks: &Marks<'_>, scale: &Scale, servers: usize) -> Row {
    let mut row = Row::default();
    let number = if servers > 1 { format!("{}:{}", key.source + 1, key.lane) } else { key.lane.to_string() };
    row.put(0, &format!("{number:>4}"), FAINT);
    if let (ROOMY_MARGIN, Some(last)) = (scale.margin, spans.last()) {
        row.put(5, short(&last.request_id), PLAIN);
    }
    for (index, span) in spans.iter().enumerate() {
        let end = scale.extent(span).1;
        let until = match spans.get(index + 1) {
            Some(next) if next.request_id == span.request_id => scale.extent(next).0,
            Some(_) => end,
            None if is_over(span) || scale.to_ns.saturating_sub(end_ns(span)) > STALE_NS => end,
            None => scale.width,
        };
        row.put(end, &"─".repeat(until.saturating_sub(end)), FAINT);
    }
    // The longest first, so that a short one beside it is not drawn over.
    let mut blocks: Vec<_> = spans.iter().map(|span| (scale.extent(span), *span)).collect();
    blocks.sort_by_key(|((from, to), _)| std::cmp::Reverse(to - from));
    for ((from, to), span) in blocks {
        let (text, style) = block(span, mark(marks, span), to - from);
        row.put(from, &text, style);
    }
    row
}

fn is_over(span: &Span) -> bool {
    span.failed || span.phase() == Phase::Commit
}

/// A span's box: the most telling label that has room, and a sign where it took part in a race.
fn block(span: &Span, mark: Option<&Mark<'_>>, columns: usize) -> (String, Style) {
    let phase = span.phase();
    let (sign, style) = match mark {
        Some(Mark { lost: Some(_), .. }) if phase == Phase::Write => ("×", RACE.strikethrough()),
        Some(Mark { overwrote: Some(_), .. }) if phase == Phase::Write => ("!", RACE),
        _ => ("", style(phase)),
    };
    let plain = letter(phase).to_string();
    let short_label = if sign.is_empty() { plain.as_str() } else { sign };
    if columns < 3 {
        return (format!("{short_label}{:]<1$}", "", columns - 1), style);
    }
    let inner = columns - 2;
    let labels = [Detail::Values, Detail::Versions].map(|detail| format!("{sign}{}", label(span, detail)));
    let fits = labels.iter().find(|label| label.chars().count() <= inner);
    let text = fits.map_or(short_label, String::as_str);
    (format!("[{text:^inner$}]"), style)
}

/// The row beneath a lane: stale windows and losses.
fn remarks(spans: &[&Span], marks: &Marks<'_>, scale: &Scale) -> Row {
    let operations = spans.chunk_by(|a, b| a.request_id == b.request_id);
    let remarks: Vec<_> = operations.filter_map(|operation| remark(operation, marks, scale)).collect();
    let mut row = Row::default();
    for (index, (column, text)) in remarks.iter().enumerate() {
        // The next remark stands where its operation does, so this one ends before it.
        let room =
            remarks.get(index + 1).map_or(scale.width, |(next, _)| next.saturating_sub(1)).saturating_sub(*column);
        row.put(*column, &text.chars().take(room).collect::<String>(), RACE);
    }
    row
}

/// What the races say of an operation, and the column where it belongs.
fn remark(operation: &[&Span], marks: &Marks<'_>, scale: &Scale) -> Option<(usize, String)> {
    let write = operation.iter().rfind(|span| span.phase() == Phase::Write)?;
    let Mark { overwrote, lost } = mark(marks, write)?;
    let column = scale.extent(write).0;
    let read = operation.iter().rfind(|span| span.phase() == Phase::Read);
    let loss = lost.map(|delta| format!("╰─ {} LOST", signed(delta)));
    Some(match (overwrote, read) {
        (Some(race), Some(read)) => {
            let from = scale.extent(read).1.saturating_sub(1);
            let loss = loss.map_or_else(String::new, |loss| format!(" {loss}"));
            (from, band(race, column.saturating_sub(from)) + &loss)
        }
        // Its read is too long ago to be in the window.
        (Some(race), None) => {
            let loss = loss.map_or_else(|| "╰─ ".to_owned(), |loss| loss + ", ");
            (column, format!("{loss}overwrites {}", victims(race)))
        }
        (None, _) => (column, loss?),
    })
}

/// The stale window, `columns` wide, and whom its write cut off.
fn band(race: &Race, columns: usize) -> String {
    let believed = race.seen.as_ref().map_or_else(String::new, at);
    let tellings = [format!("╰─ still believes {believed} "), format!("╰─ {believed} "), "╰─ stale ".to_owned()];
    let telling = tellings.iter().find(|telling| telling.chars().count() <= columns).map_or("╰", String::as_str);
    format!("{telling:─<columns$}╯ overwrites {}", victims(race))
}

/// Whom a race cut off.
fn victims(race: &Race) -> String {
    let named = race.victims.iter().take(VICTIMS_NAMED).map(|victim| short(&victim.request_id).to_owned());
    let unnamed = race.victims.len().saturating_sub(VICTIMS_NAMED) + usize::try_from(race.victims_omitted).unwrap_or(0);
    let more = (unnamed > 0).then(|| format!("{unnamed} more"));
    named.chain(more).collect::<Vec<_>>().join(", ")
}
