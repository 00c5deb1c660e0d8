//! One line per happening, as text. Pure: what to print is decided here, when and whether elsewhere.

use anstyle::Style;
use zbl_proto::v1::{Contender, Gap, GapReason, Phase, Race, Span};

use super::board::{COLUMNS, Cell};
use crate::{
    lanes::{at, milliseconds, signed},
    paint::{FAINT, PLAIN, Paint, RACE, letter, name, short, style},
};

/// Which columns there are.
#[derive(Clone, Copy)]
pub(super) enum Layout {
    /// All lines come from one server.
    OneServer,
    /// A column tells the servers apart.
    Servers,
}

/// The columns' names; the letters of the lanes are explained beside them.
pub(super) fn header(layout: Layout, paint: Paint) -> String {
    let legend = [Phase::LockWait, Phase::Read, Phase::Compute, Phase::Write, Phase::Commit]
        .map(|phase| format!("{} {}", letter(phase), name(phase)))
        .join(", ");
    let server = match layout {
        Layout::OneServer => "",
        Layout::Servers => "srv ",
    };
    let columns = format!(
        "{:>11}  {server}{:COLUMNS$} {:>4} {:>6}  {:<12}  {:<9}  {:>3}  {:8}  {:>9}  what",
        "at ms", "lanes", "lane", "user", "strategy", "phase", "try", "request", "took ms"
    );
    let clocks = match layout {
        Layout::OneServer => String::new(),
        Layout::Servers => notice("clocks are not comparable: servers stand by arrival, then by version", paint),
    };
    notice(&format!("lanes: {legend}, | in between"), paint) + &clocks + &whole(FAINT, &columns, paint)
}

/// Where a line stands among the others.
pub(super) struct Place {
    /// When it began, counted from the first line.
    pub(super) at_ns: i64,
    /// Whether it began before a line already printed.
    pub(super) late: bool,
    /// Its server's number, from 1, where there are several.
    pub(super) server: Option<usize>,
}

/// A span.
pub(super) fn span(span: &Span, place: &Place, cells: [Cell; COLUMNS], paint: Paint) -> String {
    let phase = span.phase();
    let colour = style(phase);
    let mut line = format!("{:>11}{} ", milliseconds(place.at_ns), if place.late { '<' } else { ' ' });
    line += &place.server.map_or_else(String::new, |server| format!("{server:>3} "));
    for cell in cells {
        match cell {
            Cell::Idle => line.push(' '),
            Cell::Busy => paint.push(&mut line, FAINT, "|"),
            Cell::This(phase) => paint.push(&mut line, colour, &letter(phase).to_string()),
            Cell::Beyond(_) => paint.push(&mut line, colour, "+"),
        }
    }
    let Span { lane, user_id, strategy, attempt, .. } = span;
    paint.push(&mut line, PLAIN, &format!(" {lane:>4} {user_id:>6}  {strategy:<12}  "));
    paint.push(&mut line, colour, &format!("{:<9}", name(phase)));
    let took = milliseconds(span.duration_ns);
    paint.push(&mut line, PLAIN, &format!("  {attempt:>3}  {:8}  {took:>9}", short(&span.request_id)));
    let seen = span.seen.as_ref().map(|seen| (colour, format!("read {}", at(seen))));
    let wrote = if phase == Phase::Commit { "committed" } else { "wrote" };
    let written = span.written.as_ref().map(|written| (colour, format!("{wrote} {}", at(written))));
    let failed = span.failed.then(|| (colour, format!("failed {}", span.failure).trim_end().to_owned()));
    let destroyed = (!span.destroyed.is_empty()).then(|| (RACE, toll(&span.destroyed)));
    for (style, deed) in [seen, written, failed, destroyed].into_iter().flatten() {
        line += "  ";
        paint.push(&mut line, style, &deed);
    }
    line.push('\n');
    line
}

/// A lost update.
pub(super) fn race(race: &Race, at_ns: i64, paint: Paint) -> String {
    let mut told = format!("{:>11}  !! RACE  user {}: ", milliseconds(at_ns), race.user_id);
    if let Some(Contender { request_id, version, balance_after, .. }) = &race.overwriter {
        let believed = race.seen.as_ref().map_or_else(|| "nothing".to_owned(), at);
        told += &format!("{} had read {believed} and wrote {balance_after}@v{version}", short(request_id));
    }
    let struck = race.victims.iter().map(|victim| {
        let Contender { request_id, version, delta, .. } = victim;
        format!("{} of {} (v{version})", signed(delta), short(request_id))
    });
    let more = (race.victims_omitted > 0).then(|| format!("{} more", race.victims_omitted));
    told += &format!("; struck out: {}; {}", struck.chain(more).collect::<Vec<_>>().join(", "), toll(&race.destroyed));
    whole(RACE, &told, paint)
}

/// A signed destroyed amount in words.
pub(super) fn toll(destroyed: &str) -> String {
    match destroyed.strip_prefix('-') {
        Some(amount) => format!("brought back {amount}"),
        None => format!("destroyed {destroyed}"),
    }
}

/// Events this stream does not have.
pub(super) fn gap(gap: &Gap, server: Option<usize>, paint: Paint) -> String {
    let Gap { after_sequence, next_sequence, .. } = gap;
    let told = match gap.reason() {
        GapReason::SlowReader => {
            format!(
                "events between {after_sequence} and {next_sequence} are gone: the server holds no more than its ring"
            )
        }
        GapReason::EpochChanged => {
            format!("the server was restarted: what its last run did after event {after_sequence} is not told")
        }
        GapReason::Cleared => "the timeline was cleared".to_owned(),
        GapReason::Unspecified => format!("events between {after_sequence} and {next_sequence} are missing"),
    };
    let of = server.map_or_else(String::new, |server| format!("srv {server}: "));
    whole(RACE, &format!("-- GAP  {of}{told}"), paint)
}

/// Nothing happened, and the stream is alive.
pub(super) fn alive(instance: &str, sequence: i64) -> String {
    format!("alive: {instance} has nothing new after event {sequence}")
}

/// A remark about the stream itself.
pub(super) fn notice(text: &str, paint: Paint) -> String {
    whole(FAINT, &format!("-- {text}"), paint)
}

/// A line in one style.
fn whole(style: Style, text: &str, paint: Paint) -> String {
    let mut line = String::new();
    paint.push(&mut line, style, text);
    line.push('\n');
    line
}
