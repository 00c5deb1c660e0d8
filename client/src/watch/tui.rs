//! The timeline on a terminal: live swim lanes. Owns the terminal and the pace, one redraw per tick at most whatever
//! comes in; what is shown is `app`'s and `scene`'s, how it looks `draw`'s and `swim`'s. It leaves the terminal
//! as it found it, also on an error and on a panic.

mod app;
mod draw;
mod keys;
mod scene;
mod swim;
#[cfg(test)]
mod tests;

use std::{
    io,
    time::{Duration, Instant},
};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event},
};
use tokio::time::{MissedTickBehavior, interval};

use self::app::App;
use super::{Intake, WatchError, interrupted};
use crate::Paint;

/// The time between redraws: ten a second read as live and cost little.
const TICK: Duration = Duration::from_millis(100);

/// How often the keyboard is looked at: an answer within this feels immediate.
const KEYS: Duration = Duration::from_millis(25);

/// How often arrivals are taken in: in bunches, which is cheaper than one by one and sooner than they are drawn.
const INTAKE: Duration = Duration::from_millis(50);

/// Shows what is watched on the terminal until the user quits, SIGTERM or SIGINT comes, or an error. When a replay or
/// the limit ends, the picture stays.
///
/// # Errors
/// [`WatchError`]; the terminal is restored before it is returned.
pub async fn show(intake: &mut Intake, paint: Paint) -> Result<(), WatchError> {
    let mut app = App::new(intake.feed.addresses(), paint);
    let mut screen = Screen::open()?;
    let mut interrupted = std::pin::pin!(interrupted());
    let [mut ticks, mut keys, mut intakes] = [TICK, KEYS, INTAKE].map(|period| {
        let mut interval = interval(period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    });
    let mut batch = Vec::new();
    let mut drawn = Instant::now();
    loop {
        tokio::select! {
            _ = keys.tick() => match pressed(&mut app)? {
                Pressed::Nothing => {}
                Pressed::Something => screen.draw(&mut app)?,
                Pressed::Quit => return Ok(()),
            },
            _ = ticks.tick() => {
                app.tick(drawn.elapsed());
                drawn = Instant::now();
                screen.draw(&mut app)?;
            }
            received = async { intakes.tick().await; intake.next_batch(&mut batch).await }, if !app.ended => {
                received?;
                app.ended = batch.is_empty();
                batch.drain(..).for_each(|arrival| app.take(arrival));
            }
            () = &mut interrupted => return Ok(()),
        }
    }
}

/// What the keyboard said.
enum Pressed {
    Nothing,
    Something,
    Quit,
}

/// Acts on the keys pressed since the last look.
fn pressed(app: &mut App) -> io::Result<Pressed> {
    let mut pressed = Pressed::Nothing;
    while event::poll(Duration::ZERO)? {
        pressed = Pressed::Something;
        if let Event::Key(key) = event::read()?
            && let Some(action) = keys::action(key, &app.mode)
            && !app.act(action)
        {
            return Ok(Pressed::Quit);
        }
    }
    Ok(pressed)
}

/// The terminal while it is ours.
struct Screen(DefaultTerminal);

impl Screen {
    /// Takes the terminal over, or leaves it as it was; a panic restores it before it is reported.
    fn open() -> io::Result<Self> {
        let opened = ratatui::try_init().map(Self);
        if opened.is_err() {
            // The error that is returned says more than one of restoring.
            let _ = ratatui::try_restore();
        }
        opened
    }

    fn draw(&mut self, app: &mut App) -> io::Result<()> {
        self.0.draw(|frame| draw::draw(frame, app)).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Without a terminal there is nothing to restore.
        let _ = ratatui::try_restore();
    }
}
