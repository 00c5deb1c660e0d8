//! What the user sees of the scene: which part of it, how far stretched, held still or not. Pure: keys come in as
//! [`Action`]s, and what is drawn is a function of this state alone.

use std::{collections::VecDeque, time::Duration};

use zbl_proto::v1::{Phase, Race, Span};

use super::scene::Scene;
use crate::{
    Paint,
    watch::arrival::{Arrival, end_ns},
};

/// The finest and the coarsest scale, in nanoseconds per column: from a microsecond to a second.
const FINEST_NS: i64 = 1_000;
const COARSEST_NS: i64 = 1_024_000_000;

/// The scale to begin with: an operation of some ten milliseconds then has room for its words.
const FIRST_SCALE_NS: i64 = 256_000;

/// A step to the side, as a part of the width.
const STEPS_PER_WIDTH: i64 = 4;

/// The ticks over which the rate is averaged: a second of them.
const RATE_TICKS: usize = 10;

/// The longest filter: a whole request id.
const LONGEST_FILTER: usize = 36;

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Pause,
    Left,
    Right,
    Up,
    Down,
    PageUp,
    PageDown,
    ZoomIn,
    ZoomOut,
    NextRace,
    PreviousRace,
    /// Begins to type a filter.
    Filter,
    Help,
    /// Back to the live picture of everything.
    Escape,
    Quit,
    /// While a filter is typed.
    Type(char),
    Erase,
    Enter,
}

/// What the keyboard is for at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Watching,
    /// Typing a filter; what was typed so far.
    Filtering(String),
    Help,
}

/// A race being looked at.
#[derive(Clone, Debug)]
pub(super) struct Selected {
    pub(super) number: u64,
    pub(super) race: Race,
    pub(super) spans: Vec<Span>,
}

/// The terminal's whole state.
#[derive(Debug)]
pub(super) struct App {
    live: Scene,
    /// The scene at the moment of the pause, and the right edge of the part that is seen.
    frozen: Option<(Box<Scene>, i64)>,
    pub(super) mode: Mode,
    pub(super) filter: String,
    pub(super) selected: Option<Selected>,
    /// The first row of lanes that is seen.
    pub(super) first_row: usize,
    /// Nanoseconds per column.
    pub(super) scale_ns: i64,
    /// The columns and rows that the lanes had when last drawn.
    pub(super) lanes_area: (u16, u16),
    pub(super) paint: Paint,
    /// Nothing more will come: a replay or the limit has ended.
    pub(super) ended: bool,
    /// Events and time of the last ticks.
    ticks: VecDeque<(u64, Duration)>,
    events_at_tick: u64,
}

impl App {
    /// Nothing has arrived yet.
    pub(super) fn new(addresses: &[String], paint: Paint) -> Self {
        Self {
            live: Scene::new(addresses),
            frozen: None,
            mode: Mode::Watching,
            filter: String::new(),
            selected: None,
            first_row: 0,
            scale_ns: FIRST_SCALE_NS,
            lanes_area: (80, 20),
            paint,
            ended: false,
            ticks: VecDeque::new(),
            events_at_tick: 0,
        }
    }

    /// Takes in what arrived, also while the picture is held still.
    pub(super) fn take(&mut self, arrival: Arrival) {
        self.live.take(arrival);
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, elapsed: Duration) {
        if self.ticks.len() == RATE_TICKS {
            self.ticks.pop_front();
        }
        self.ticks.push_back((self.live.totals.events - self.events_at_tick, elapsed));
        self.events_at_tick = self.live.totals.events;
    }

    /// Events per second of late.
    pub(super) fn rate(&self) -> u64 {
        let (events, time) = self.ticks.iter().fold((0, Duration::ZERO), |sum, tick| (sum.0 + tick.0, sum.1 + tick.1));
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        (events * 1000).checked_div(millis).unwrap_or(0)
    }

    /// The stream as it is now.
    pub(super) fn live(&self) -> &Scene {
        &self.live
    }

    /// What is seen: the live scene, or the one held still.
    pub(super) fn scene(&self) -> &Scene {
        self.frozen.as_ref().map_or(&self.live, |(scene, _)| scene)
    }

    /// Whether the picture is held still.
    pub(super) fn is_paused(&self) -> bool {
        self.frozen.is_some()
    }

    /// The times at the left and the right edge of the lanes.
    pub(super) fn window_ns(&self) -> (i64, i64) {
        let right_ns = self.frozen.as_ref().map_or(self.live.newest_ns, |(_, right_ns)| *right_ns);
        (right_ns.saturating_sub(self.width_ns()), right_ns)
    }

    /// Whether a span passes the filter: an account, the beginning of a request id, or a strategy.
    pub(super) fn shows(&self, span: &Span) -> bool {
        let wanted = self.filter.as_str();
        wanted.is_empty()
            || span.strategy == wanted
            || span.request_id.starts_with(wanted)
            || wanted.parse() == Ok(span.user_id)
    }

    /// The account that the footer tells of: the selected race's, the filter's, or the newest span's.
    pub(super) fn account(&self) -> Option<i64> {
        let filtered = || self.filter.parse().ok().filter(|user_id| self.scene().account_of(*user_id).is_some());
        self.selected.as_ref().map(|selected| selected.race.user_id).or_else(filtered).or(self.scene().newest_user)
    }

    /// Does what a key asks for; `false` when that is to end.
    pub(super) fn act(&mut self, action: Action) -> bool {
        match action {
            Action::Quit => return false,
            Action::Pause if self.is_paused() => self.resume(),
            Action::Pause => self.pause(),
            Action::Left => self.pan(-(self.width_ns() / STEPS_PER_WIDTH)),
            Action::Right => self.pan(self.width_ns() / STEPS_PER_WIDTH),
            Action::Up => self.first_row = self.first_row.saturating_sub(1),
            Action::Down => self.first_row = self.first_row.saturating_add(1),
            Action::PageUp => self.first_row = self.first_row.saturating_sub(self.lanes_area.1.into()),
            Action::PageDown => self.first_row = self.first_row.saturating_add(self.lanes_area.1.into()),
            Action::ZoomIn => self.zoom(self.scale_ns / 2),
            Action::ZoomOut => self.zoom(self.scale_ns * 2),
            Action::NextRace => {
                self.select(|scene, now| scene.races().find(|race| race.number > now).map(|race| race.number));
            }
            Action::PreviousRace => {
                self.select(|scene, now| scene.races().rfind(|race| race.number < now).map(|race| race.number));
            }
            Action::Filter => self.mode = Mode::Filtering(self.filter.clone()),
            Action::Help => self.mode = if self.mode == Mode::Help { Mode::Watching } else { Mode::Help },
            Action::Escape => self.escape(),
            Action::Type(_) | Action::Erase | Action::Enter => self.edit(action),
        }
        true
    }

    fn width_ns(&self) -> i64 {
        self.scale_ns.saturating_mul(i64::from(self.lanes_area.0.max(1)))
    }

    fn pause(&mut self) {
        if self.frozen.is_none() {
            self.frozen = Some((Box::new(self.live.clone()), self.live.newest_ns));
        }
    }

    fn resume(&mut self) {
        (self.frozen, self.selected) = (None, None);
    }

    fn pan(&mut self, by_ns: i64) {
        self.pause();
        if let Some((_, right_ns)) = &mut self.frozen {
            *right_ns = right_ns.saturating_add(by_ns);
        }
    }

    /// Changes the scale: around the middle when held still, else from the right edge.
    fn zoom(&mut self, scale_ns: i64) {
        let before_ns = self.width_ns();
        self.scale_ns = scale_ns.clamp(FINEST_NS, COARSEST_NS);
        let grown_ns = self.width_ns() - before_ns;
        if let Some((_, right_ns)) = &mut self.frozen {
            *right_ns = right_ns.saturating_add(grown_ns / 2);
        }
    }

    /// Holds the picture still and looks at another race: the first after the one being looked at, or the last before.
    fn select(&mut self, neighbour: impl FnOnce(&Scene, u64) -> Option<u64>) {
        self.pause();
        let now = self.selected.as_ref().map_or(u64::MAX, |selected| selected.number);
        let scene = self.scene();
        // Without one being looked at, either key begins with the newest.
        let number =
            if now == u64::MAX { scene.races().next_back().map(|race| race.number) } else { neighbour(scene, now) };
        let Some(found) = number.and_then(|number| scene.races().find(|race| race.number == number)) else { return };
        let spans = scene.spans_of(&found.race);
        let (number, race, at_ns) = (found.number, found.race.clone(), found.at_ns);
        self.centre(&race, &spans, at_ns);
        self.selected = Some(Selected { number, race, spans });
    }

    /// Moves the picture so that the stale window, from read to write, is in its middle, and shrinks time until it fits.
    /// Without those spans, the moment the race was noticed has to do.
    fn centre(&mut self, race: &Race, spans: &[Span], at_ns: i64) {
        let overwriter = race.overwriter.as_ref().map_or("", |overwriter| &overwriter.request_id);
        let own = |phase| spans.iter().rfind(|span| span.request_id == overwriter && span.phase() == phase);
        let (from_ns, to_ns) = match (own(Phase::Read), own(Phase::Write)) {
            (Some(read), Some(write)) => (read.start_ns, end_ns(write)),
            _ => (at_ns, at_ns),
        };
        while self.width_ns() < to_ns.saturating_sub(from_ns) && self.scale_ns < COARSEST_NS {
            self.scale_ns *= 2;
        }
        let half_ns = self.width_ns() / 2;
        if let Some((_, right_ns)) = &mut self.frozen {
            *right_ns = i64::midpoint(from_ns, to_ns).saturating_add(half_ns);
        }
    }

    fn escape(&mut self) {
        match self.mode {
            Mode::Watching if self.selected.is_some() => self.selected = None,
            Mode::Watching => {
                self.filter.clear();
                self.resume();
            }
            Mode::Filtering(_) | Mode::Help => self.mode = Mode::Watching,
        }
    }

    fn edit(&mut self, action: Action) {
        let Mode::Filtering(typed) = &mut self.mode else { return };
        match action {
            Action::Type(character) if typed.len() < LONGEST_FILTER => typed.push(character),
            Action::Erase => drop(typed.pop()),
            Action::Enter => {
                self.filter = std::mem::take(typed).trim().to_owned();
                (self.mode, self.first_row) = (Mode::Watching, 0);
            }
            _ => {}
        }
    }
}
