//! A frame: header, lanes, the selected race, footer. Draws the app's state and decides nothing but what fits.

use anstyle::{AnsiColor, Color as Ansi, Effects, Style as Look};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph},
};

use zbl_proto::v1::GapReason;

use super::{
    app::{App, Mode, Selected},
    keys::HELP,
    scene::{Link, Scene, Server},
    swim,
};
use crate::{
    Paint,
    lanes::{self, Row, milliseconds},
    paint::{FAINT, PLAIN, RACE, short},
    watch::line::toll,
};

/// The rows above and below the lanes.
const HEADER: u16 = 2;
const FOOTER: u16 = 2;

/// The race's picture takes at most this part of the height, so that the lanes stay in sight.
const PICTURE_PARTS: u16 = 2;

/// Draws the app's state, and tells it how much of the lanes can be seen.
pub(super) fn draw(frame: &mut Frame<'_>, app: &mut App) {
    let area = frame.area();
    let picture = app.selected.as_ref().map_or_else(Vec::new, |selected| picture(selected, area.width.into()));
    let picture_height = u16::try_from(picture.len()).unwrap_or(u16::MAX).min(area.height / PICTURE_PARTS);
    let constraints = [
        Constraint::Length(HEADER),
        Constraint::Min(0),
        Constraint::Length(picture_height),
        Constraint::Length(FOOTER),
    ];
    let [header_area, lanes_area, picture_area, footer_area] = Layout::vertical(constraints).areas(area);
    let width = usize::from(area.width);
    app.lanes_area = (area.width.saturating_sub(swim::margin(width) as u16), lanes_area.height);

    let height = usize::from(lanes_area.height);
    let mut lanes = swim::sheet(app, width, height);
    let last_first_row = lanes.total.saturating_sub(height);
    if app.first_row > last_first_row {
        app.first_row = last_first_row;
        lanes = swim::sheet(app, width, height);
    }
    let below = lanes.total - app.first_row - lanes.rows.len();
    put(frame, header_area, &header(app, below), app.paint);
    put(frame, lanes_area, &lanes.rows, app.paint);
    put(frame, picture_area, &picture, app.paint);
    put(frame, footer_area, &[account(app), prompt(app)], app.paint);
    if app.mode == Mode::Help {
        help(frame, area, app.paint);
    }
}

fn put(frame: &mut Frame<'_>, area: Rect, rows: &[Row], paint: Paint) {
    let rows = rows.iter().take(area.height.into());
    let lines: Vec<_> = rows
        .map(|row| row.runs().map(|(text, look)| Span::styled(text, style(look, paint))).collect::<Line<'_>>())
        .collect();
    frame.render_widget(Paragraph::new(lines), area);
}

/// What can be seen of a style: without colours its effects alone.
fn style(look: Look, paint: Paint) -> Style {
    let mut style = Style::new();
    if let (Paint::Ansi, Some(Ansi::Ansi(colour))) = (paint, look.get_fg_color()) {
        style = style.fg(match colour {
            AnsiColor::Blue => Color::Blue,
            AnsiColor::Yellow => Color::Yellow,
            AnsiColor::Green => Color::Green,
            AnsiColor::Red => Color::Red,
            _ => Color::DarkGray,
        });
    }
    let effects = [(Effects::BOLD, Modifier::BOLD), (Effects::STRIKETHROUGH, Modifier::CROSSED_OUT)];
    effects
        .into_iter()
        .filter(|(effect, _)| look.get_effects().contains(*effect))
        .fold(style, |style, (_, modifier)| style.add_modifier(modifier))
}

/// Texts one after the other, two blanks between them.
fn row(parts: impl IntoIterator<Item = (String, Look)>) -> Row {
    let mut row = Row::default();
    let mut column = 0;
    for (text, look) in parts {
        row.put(column, &text, look);
        column += text.chars().count() + 2;
    }
    row
}

/// The stream, then the view; the most important first, since a narrow terminal cuts off the rest.
fn header(app: &App, below: usize) -> [Row; 2] {
    let live = app.live();
    let state = if app.is_paused() {
        "PAUSED"
    } else if app.ended {
        "ENDED"
    } else {
        "LIVE"
    };
    let cause = match live.last_gap {
        Some(GapReason::EpochChanged) => " (the last: server restarted)",
        Some(GapReason::SlowReader) => " (the last: this watcher was too slow)",
        Some(GapReason::Cleared) => " (the last: cleared by the lab)",
        Some(GapReason::Unspecified) | None => "",
    };
    let gaps = (format!("gaps {}{cause}", live.totals.gaps), if live.totals.gaps > 0 { RACE } else { PLAIN });
    let stream = [(state.to_owned(), PLAIN.bold()), link(live), (format!("{}/s", app.rate()), PLAIN), gaps];
    let window_ns = app.scale_ns.saturating_mul(app.lanes_area.0.into());
    let races = (live.totals.races > 0)
        .then(|| (format!("!! races {}, {} destroyed", live.totals.races, live.totals.destroyed), RACE));
    let filter = (!app.filter.is_empty()).then(|| (format!("only {}", app.filter), PLAIN.bold()));
    let more = (below > 0).then(|| (format!("{below} more rows below"), FAINT));
    let clocks =
        (live.servers.len() > 1).then(|| ("clocks not comparable: by arrival, then by version".to_owned(), FAINT));
    let scale = format!("1 column = {} ms, {} ms wide", milliseconds(app.scale_ns), window_ns / 1_000_000);
    let view = races.into_iter().chain(filter).chain([(scale, FAINT)]).chain(more).chain(clocks);
    [row(stream.into_iter().chain(names(live))), row(view)]
}

/// How the streams are.
fn link(scene: &Scene) -> (String, Look) {
    let up = scene.servers.iter().filter(|server| server.link == Link::Up).count();
    match &scene.servers[..] {
        [Server { link: Link::Up, .. }] => ("connected".to_owned(), PLAIN),
        [Server { link: Link::Connecting, .. }] => ("connecting".to_owned(), RACE),
        [Server { link: Link::Down { retry_in_ms, .. }, .. }] => {
            (format!("CONNECTION LOST, trying again in {retry_in_ms} ms"), RACE)
        }
        servers => (format!("{up} of {} connected", servers.len()), if up == servers.len() { PLAIN } else { RACE }),
    }
}

/// Who and which run the servers are.
fn names(scene: &Scene) -> impl Iterator<Item = (String, Look)> {
    scene.servers.iter().map(|Server { address, instance, epoch, link }| {
        let run = if epoch.is_empty() { "(no event yet)".to_owned() } else { format!("epoch {}", short(epoch)) };
        let trouble = if let Link::Down { error, .. } = link { format!(" ({error})") } else { String::new() };
        let name = [address, instance, &run].map(String::as_str).join(" ");
        (name.replace("  ", " ") + &trouble, FAINT)
    })
}

/// The account's head, and what it should be.
fn account(app: &App) -> Row {
    let Some((user_id, account)) = app.account().and_then(|id| Some((id, app.scene().account_of(id)?))) else {
        return row([("no commit seen yet".to_owned(), FAINT)]);
    };
    let head = format!("account {user_id} v{}: {}", account.version, account.balance);
    let verdict = match account.expected() {
        Some(expected) if expected == account.balance => ("as expected".to_owned(), PLAIN),
        Some(expected) => (format!("!! expected {expected}, {} destroyed", account.destroyed), RACE),
        None => (format!("!! {} destroyed", account.destroyed), RACE),
    };
    let history = format!("head v{} <- v{}, since watching began", account.version, account.version_before);
    row([(head, PLAIN.bold()), verdict, (history, FAINT)])
}

fn prompt(app: &App) -> Row {
    match &app.mode {
        Mode::Filtering(typed) => row([
            (format!("/{typed}_"), PLAIN.bold()),
            ("account, start of a request id, or strategy".to_owned(), FAINT),
        ]),
        _ => row([("q quit  space pause  n/p race  +/- zoom  arrows  / filter  ? help".to_owned(), FAINT)]),
    }
}

fn picture(selected: &Selected, width: usize) -> Vec<Row> {
    let Selected { number, race, spans } = selected;
    let title = format!("race {number}: account {}, {}", race.user_id, toll(&race.destroyed));
    let mut rows = vec![row([("─".repeat(width), FAINT)]), row([(title, RACE)])];
    rows.extend(lanes::rows(spans, race, width));
    rows
}

fn help(frame: &mut Frame<'_>, area: Rect, paint: Paint) {
    let legend = [
        ("R read", crate::paint::style(zbl_proto::v1::Phase::Read)),
        ("C compute", crate::paint::style(zbl_proto::v1::Phase::Compute)),
        ("W write", crate::paint::style(zbl_proto::v1::Phase::Write)),
        ("# commit", crate::paint::style(zbl_proto::v1::Phase::Commit)),
        ("L lock wait", FAINT),
    ];
    let mut rows: Vec<_> = HELP
        .iter()
        .map(|(keys, what)| row([(format!("{keys:<9}"), PLAIN.bold()), ((*what).to_owned(), PLAIN)]))
        .collect();
    rows.push(row(legend.map(|(text, look)| (text.to_owned(), look))));
    rows.push(row([("! overwrote what it had not seen".to_owned(), RACE), ("× was lost".to_owned(), RACE)]));
    let height = (rows.len() as u16 + 2).min(area.height);
    let width = 64.min(area.width);
    let place = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    let frame_of_help = Block::bordered().title(" timeline ");
    frame.render_widget(Clear, place);
    put(frame, frame_of_help.inner(place), &rows, paint);
    frame.render_widget(frame_of_help, place);
}
