//! Which key asks for what.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::app::{Action, Mode};

/// What the help says, beside the code that makes it true.
pub(super) const HELP: [(&str, &str); 9] = [
    ("space", "hold the picture still, or go on"),
    ("← → h l", "earlier, later"),
    ("↑ ↓ k j", "lanes above, below; PgUp, PgDn by the page"),
    ("+ -", "stretch, shrink time"),
    ("n p", "next, previous race, with its picture"),
    ("/", "filter: account, start of a request id, or strategy"),
    ("esc", "close; then: no filter, live again"),
    ("?", "this help"),
    ("q Ctrl-C", "quit"),
];

/// What a key asks for, which depends on what the keyboard is for.
pub(super) fn action(key: KeyEvent, mode: &Mode) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == KeyCode::Char('c')).then_some(Action::Quit);
    }
    if matches!(mode, Mode::Filtering(_)) {
        return match key.code {
            KeyCode::Char(character) => Some(Action::Type(character)),
            KeyCode::Backspace => Some(Action::Erase),
            KeyCode::Enter => Some(Action::Enter),
            KeyCode::Esc => Some(Action::Escape),
            _ => None,
        };
    }
    Some(match key.code {
        KeyCode::Char(' ') => Action::Pause,
        KeyCode::Left | KeyCode::Char('h') => Action::Left,
        KeyCode::Right | KeyCode::Char('l') => Action::Right,
        KeyCode::Up | KeyCode::Char('k') => Action::Up,
        KeyCode::Down | KeyCode::Char('j') => Action::Down,
        KeyCode::PageUp => Action::PageUp,
        KeyCode::PageDown => Action::PageDown,
        KeyCode::Char('+' | '=') => Action::ZoomIn,
        KeyCode::Char('-') => Action::ZoomOut,
        KeyCode::Char('n') => Action::NextRace,
        KeyCode::Char('p') => Action::PreviousRace,
        KeyCode::Char('/') => Action::Filter,
        KeyCode::Char('?') => Action::Help,
        KeyCode::Esc => Action::Escape,
        KeyCode::Char('q') => Action::Quit,
        _ => return None,
    })
}
