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
    paint::{FAINT, PLAIN, RACE, letter, short, style},
    watch::arrival::end_ns,
};

/// Columns before the lanes: the lane's number, and from [`ROOMY`] columns on the request id.
const MARGIN: usize = 6;
const ROOMY_MARGIN: usize = 15;
const ROOMY: usize = 72;

/// How long an operation counts as in flight after its last phase; as in the lines of text.
const STALE_NS: i64 = 1_000_000_000;

/// What a race says of one of its operations.
enum Mark<'a> {
    Overwrote(&'a Race),
    Lost(&'a str),
}

type Marks<'a> = HashMap<&'a str, Mark<'a>>;

/// The columns before the lanes on a terminal of this width.
pub(super) fn margin(width: usize) -> usize {
    if width < ROOMY { MARGIN } else { ROOMY_MARGIN }
}

/// All rows, `width` columns wide, margin included.
pub(super) fn rows(app: &App, width: usize) -> Vec<Row> {
    let scene = app.scene();
    let (from_ns, to_ns) = app.window_ns();
    let scale = Scale { from_ns, to_ns, column_ns: app.scale_ns, margin: margin(width), width };
    let marks = marks(app, from_ns);
    let mut rows = Vec::new();
    let mut account = None;
    for (key, mut spans) in scene.lanes_between(from_ns, to_ns) {
        spans.retain(|span| app.shows(span));
        if spans.is_empty() {
            continue;
        }
        if account != Some(key.user_id) {
            account = Some(key.user_id);
            rows.push(heading(key.user_id, scene.account_of(key.user_id)));
        }
        rows.push(lane(key, &spans, &marks, &scale, scene.servers.len()));
        rows.extend(remarks(&spans, &marks, &scale));
    }
    rows
}

/// What the races say that can be seen.
fn marks(app: &App, from_ns: i64) -> Marks<'_> {
    let mut marks = Marks::new();
    for noticed in app.scene().races().filter(|noticed| noticed.at_ns >= from_ns) {
        for victim in &noticed.race.victims {
            // An operation that overwrote and was overwritten is shown as overwritten: that is what became of it.
            marks.insert(&victim.request_id, Mark::Lost(&victim.delta));
        }
        if let Some(overwriter) = &noticed.race.overwriter {
            marks.entry(&overwriter.request_id).or_insert(Mark::Overwrote(&noticed.race));
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
        let from = self.column(span.start_ns).min(self.width.saturating_sub(1));
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
            row.put(title.len() + head.len(), &format!("  !! {races} races"), RACE);
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
        let (text, style) = block(span, marks.get(span.request_id.as_str()), to - from);
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
        Some(Mark::Overwrote(_)) if phase == Phase::Write => ("!", RACE),
        Some(Mark::Lost(_)) if phase == Phase::Write => ("×", RACE.strikethrough()),
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

/// The row beneath a lane: stale windows and losses; none when there is nothing to say.
fn remarks(spans: &[&Span], marks: &Marks<'_>, scale: &Scale) -> Option<Row> {
    let mut row = Row::default();
    let mut said = false;
    for operation in spans.chunk_by(|a, b| a.request_id == b.request_id) {
        let Some(write) = operation.iter().rfind(|span| span.phase() == Phase::Write) else { continue };
        let column = scale.extent(write).0;
        match marks.get(write.request_id.as_str()) {
            Some(Mark::Lost(delta)) => row.put(column, &format!("╰─ {} LOST", signed(delta)), RACE),
            Some(Mark::Overwrote(race)) => {
                let read = operation.iter().rfind(|span| span.phase() == Phase::Read);
                let from = read.map_or(scale.margin, |read| scale.extent(read).1.saturating_sub(1));
                row.put(from, &band(race, column.saturating_sub(from)), RACE);
            }
            None => continue,
        }
        said = true;
    }
    said.then_some(row)
}

/// The stale window, `columns` wide, and whom its write cut off.
fn band(race: &Race, columns: usize) -> String {
    let believed = race.seen.as_ref().map_or_else(String::new, at);
    let tellings = [format!("╰─ still believes {believed} "), format!("╰─ {believed} "), "╰─ stale ".to_owned()];
    let telling = tellings.iter().find(|telling| telling.chars().count() <= columns).map_or("╰", String::as_str);
    let victims = race.victims.iter().map(|victim| short(&victim.request_id)).collect::<Vec<_>>().join(", ");
    format!("{telling:─<columns$}╯ overwrites {victims}")
}
