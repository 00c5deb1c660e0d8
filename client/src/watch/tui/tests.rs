//! Frames, literally, and what keys do to them.

use std::time::Duration;

use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::{Color, Modifier},
};

use super::{
    app::{Action, App, Mode},
    draw::draw,
    keys,
};
use crate::{
    Paint,
    watch::{Feed, Intake, News, Recorder, Recording, Speed, arrival::Arrival, sample},
};

fn lost_update() -> Vec<Arrival> {
    let connected = News::Connected { after: None };
    let events = sample::lost_update().into_iter().map(News::Event);
    let news = std::iter::once(connected).chain(events);
    news.map(|news| Arrival { arrived_us: 1_000_000, source: 0, news }).collect()
}

fn app(arrivals: Vec<Arrival>) -> App {
    let mut app = App::new(&["127.0.0.1:50051".to_owned()], Paint::Ansi);
    arrivals.into_iter().for_each(|arrival| app.take(arrival));
    app.tick(Duration::from_millis(500));
    app.act(Action::ZoomIn);
    app.act(Action::ZoomIn);
    app
}

fn terminal(app: &mut App, width: u16, height: u16) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    // The first frame tells the app how much room there is.
    terminal.draw(|frame| draw(frame, app)).unwrap();
    terminal.draw(|frame| draw(frame, app)).unwrap();
    terminal.backend().clone()
}

fn text(app: &mut App, width: u16, height: u16) -> String {
    let backend = terminal(app, width, height);
    let cells = backend.buffer().content().chunks(width.into());
    let line = |cells: &[ratatui::buffer::Cell]| cells.iter().map(ratatui::buffer::Cell::symbol).collect::<String>();
    cells.map(|cells| line(cells).trim_end().to_owned() + "\n").collect()
}

#[track_caller]
fn check(drawn: &str, expected: &str) {
    assert_eq!(drawn, expected.trim_start_matches('\n'), "\n{drawn}");
}

#[test]
fn a_lost_update_live() {
    check(
        &text(&mut app(lost_update()), 100, 10),
        "
LIVE  connected  18/s  gaps 0  127.0.0.1:50051 host-1 epoch 01234567
!! races 1, 10.00 destroyed  1 column = 0.064 ms, 5 ms wide
account 7  head v3 (read v1)  balance 990.00  !! races 1
   1 5be0d113                              [  R  ]C  ×  ][     commit     ]
                                                  ╰─ -10.00 LOST
   2 a91c4f02                                 [R][         compute         ][ !  ][     commit     ]
                                                ╰─ 1000.00@v1 ──────────────╯ overwrites 5be0d113

account 7 v3: 990.00  !! expected 980.00, 10.00 destroyed  head v3 <- v1, since watching began
q quit  space pause  n/p race  +/- zoom  arrows  / filter  ? help
",
    );
}

#[test]
fn a_race_marks_its_own_account_only() {
    let news = sample::lost_update_beside_its_twin().into_iter().map(News::Event);
    let mut app = app(news.map(|news| Arrival { arrived_us: 1_000_000, source: 0, news }).collect());
    let drawn = text(&mut app, 100, 20);
    let (racers, twins) = drawn.split_once("account 8  head").unwrap();
    let twins = twins.split_once("\n\n").unwrap().0;
    for sign in ["×", "!", "LOST", "overwrites"] {
        assert!(racers.contains(sign) && !twins.contains(sign), "{sign}: {drawn}");
    }
    assert!(twins.contains("5be0d113") && twins.contains("a91c4f02"), "{drawn}");
}

#[test]
fn forty_columns_are_enough() {
    check(
        &text(&mut app(lost_update()), 40, 9),
        "
LIVE  connected  18/s  gaps 0  127.0.0.1
!! races 1, 10.00 destroyed  1 column =
account 7  head v3 (read v1)  balance 99
   1  [commit ]
   2  [compute ][ !  ][     commit     ]
                ╰─ overwrites 5be0d113

account 7 v3: 990.00  !! expected 980.00
q quit  space pause  n/p race  +/- zoom
",
    );
}

#[test]
fn a_selected_race_is_centred_and_pictured() {
    let mut app = app(lost_update());
    text(&mut app, 100, 20);
    app.act(Action::NextRace);
    check(
        &text(&mut app, 100, 20),
        "
PAUSED  connected  18/s  gaps 0  127.0.0.1:50051 host-1 epoch 01234567
!! races 1, 10.00 destroyed  1 column = 0.064 ms, 5 ms wide
account 7  head v3 (read v1)  balance 990.00  !! races 1
   1 5be0d113                       [  R  ]C  ×  ][     commit     ]
                                           ╰─ -10.00 LOST
   2 a91c4f02                          [R][         compute         ][ !  ][     commit     ]
                                         ╰─ 1000.00@v1 ──────────────╯ overwrites 5be0d113




────────────────────────────────────────────────────────────────────────────────────────────────────
race 1: account 7, destroyed 10.00
            ── time, stretched; the order is exact ───────────────────────────────────────→ 3.600 ms
A 5be0d113  [  read 1000.00@v1  ]─[compute]─[write 990.00@v2]─[commit]
                                            ╰─ -10.00 LOST
B a91c4f02     [read 1000.00@v1]─[               compute               ]─[write 990.00@v3]─[commit]
                               ╰─ still believes 1000.00@v1 ─────────────╯ overwrites A
account 7 v3: 990.00  !! expected 980.00, 10.00 destroyed  head v3 <- v1, since watching began
q quit  space pause  n/p race  +/- zoom  arrows  / filter  ? help
",
    );
    app.act(Action::Escape);
    assert!(app.selected.is_none() && app.is_paused());
    app.act(Action::Escape);
    assert!(!app.is_paused());
}

/// What is recorded and replayed looks as it did live.
#[tokio::test]
async fn a_replay_renders_the_same() {
    let file = tempfile::NamedTempFile::new().unwrap();
    Recorder::create(file.path(), &["127.0.0.1:50051".to_owned()]).unwrap().add(&lost_update()).unwrap();
    let recording = Recording::open(file.path()).unwrap();
    let feed = Feed::replay(&recording, None, Speed::Unpaced).unwrap();
    let mut intake = Intake { feed, recorder: None, limit: None };
    let mut replayed = Vec::new();
    loop {
        let known = replayed.len();
        intake.next_batch(&mut replayed).await.unwrap();
        if replayed.len() == known {
            break;
        }
    }
    let frame = |arrivals| {
        let mut app = app(arrivals);
        app.act(Action::NextRace);
        terminal(&mut app, 120, 32)
    };
    assert_eq!(frame(replayed).buffer(), frame(lost_update()).buffer());
}

#[test]
fn a_race_shows_without_colours() {
    let mut coloured = app(lost_update());
    let mut plain = app(lost_update());
    plain.paint = Paint::Plain;
    assert_eq!(text(&mut plain, 100, 12), text(&mut coloured, 100, 12));
    let colours = |app: &mut App| {
        terminal(app, 100, 12).buffer().content().iter().map(|cell| cell.fg).collect::<std::collections::HashSet<_>>()
    };
    assert_eq!(colours(&mut plain), [Color::Reset].into());
    for colour in [Color::Blue, Color::Green, Color::Yellow, Color::Red, Color::DarkGray] {
        assert!(colours(&mut coloured).contains(&colour), "{colour:?}");
    }
    let struck = |app: &mut App| {
        let backend = terminal(app, 100, 12);
        backend.buffer().content().iter().any(|cell| cell.modifier.contains(Modifier::CROSSED_OUT))
    };
    assert!(struck(&mut plain));
}

#[test]
fn a_pause_holds_the_picture_while_the_stream_goes_on() {
    let mut app = app(lost_update());
    app.act(Action::Pause);
    let before = text(&mut app, 100, 10);
    let later = sample::event(
        10,
        zbl_proto::v1::stream_timeline_response::Event::Span(sample::span(
            3,
            zbl_proto::v1::Phase::Read,
            90_000,
            95_000,
        )),
    );
    app.take(Arrival { arrived_us: 1_000_000, source: 0, news: News::Event(later) });
    assert_eq!(text(&mut app, 100, 10), before);
    app.act(Action::Pause);
    assert!(text(&mut app, 100, 10).contains("   3 a91c4f02"), "the new lane alone");
    assert_eq!(app.live().totals.events, 10);
}

#[test]
fn the_stream_is_told() {
    let mut app = app(lost_update());
    app.take(Arrival { arrived_us: 1, source: 0, news: News::Event(sample::gap()) });
    let news = News::Disconnected { error: "Unavailable: gone".to_owned(), retry_in_ms: 93 };
    app.take(Arrival { arrived_us: 1, source: 0, news });
    let drawn = text(&mut app, 150, 8);
    assert!(
        drawn.starts_with("LIVE  CONNECTION LOST, trying again in 93 ms  18/s  gaps 1 (the last: server restarted)"),
        "{drawn}"
    );
    assert!(drawn.contains("epoch fedcba98 (Unavailable: gone)"), "{drawn}");
}

#[test]
fn several_servers_are_one_picture() {
    let mut app = App::new(&["a:1".to_owned(), "b:1".to_owned()], Paint::Plain);
    for source in [0, 1] {
        app.take(Arrival { arrived_us: 1_000_000, source, news: News::Connected { after: None } });
    }
    // The victim's phases come from the first server, the overwriter's and the race from the second.
    for arrival in lost_update().into_iter().skip(1) {
        let overwriters =
            serde_json::to_string(&arrival).unwrap().contains(&format!("\"request_id\":\"{}\",\"lane\"", sample::B));
        let race = arrival.user_id().is_some() && !arrival.is_span();
        app.take(Arrival { source: usize::from(overwriters || race), ..arrival });
    }
    app.act(Action::ZoomIn);
    let drawn = text(&mut app, 120, 10);
    for told in
        ["2 of 2 connected", "clocks not comparable", " 1:1 5be0d113", " 2:2 a91c4f02", "-10.00 LOST", "overwrites"]
    {
        assert!(drawn.contains(told), "{told}: {drawn}");
    }
}

fn press(app: &mut App, code: KeyCode) {
    let action = keys::action(KeyEvent::new(code, KeyModifiers::NONE), &app.mode).expect("a key that does something");
    assert!(app.act(action));
}

#[test]
fn a_filter_is_typed_and_hides_what_does_not_match() {
    for (filter, shown) in [("7", true), ("8", false), ("none", true), ("atomic", false), ("5be0", true)] {
        let mut app = app(lost_update());
        for code in std::iter::once('/').chain(filter.chars()).map(KeyCode::Char) {
            press(&mut app, code);
        }
        assert!(text(&mut app, 100, 10).contains(&format!("/{filter}_")));
        press(&mut app, KeyCode::Enter);
        assert_eq!(app.mode, Mode::Watching);
        assert_eq!(text(&mut app, 100, 10).contains("account 7  head"), shown, "{filter}");
        press(&mut app, KeyCode::Esc);
        assert!(app.filter.is_empty());
    }
}

#[test]
fn keys_stay_within_bounds() {
    let mut app = app(lost_update());
    for code in [KeyCode::Char('-'), KeyCode::Char('+'), KeyCode::Left, KeyCode::Right, KeyCode::PageDown, KeyCode::Up]
    {
        for _ in 0..100 {
            press(&mut app, code);
        }
        text(&mut app, 40, 6);
    }
    for (width, height) in [(1, 1), (3, 2), (40, 3), (500, 100)] {
        press(&mut app, KeyCode::Char('?'));
        press(&mut app, KeyCode::Char('n'));
        text(&mut app, width, height);
    }
    let quit = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(keys::action(quit, &Mode::Filtering(String::new())), Some(Action::Quit));
    assert!(!app.act(Action::Quit));
}

#[test]
fn help_lies_over_the_lanes() {
    let mut app = app(lost_update());
    press(&mut app, KeyCode::Char('?'));
    let drawn = text(&mut app, 80, 24);
    for (keys, what) in keys::HELP {
        assert!(drawn.contains(keys) && drawn.contains(what), "{keys}: {drawn}");
    }
}
