//! When a breaker opens and closes, in words over `+` (succeeded), `-` (failed) and seconds. Refuses to wait: time is told.

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const SETTINGS: Settings = Settings {
    window: Duration::from_secs(10),
    failed_percent: 60,
    least: 3,
    open: Duration::from_secs(60),
    probes: 3,
};

/// A circuit, and a clock of its own.
struct Scene {
    circuit: Circuit,
    now: Instant,
}

impl Scene {
    fn new() -> Self {
        let now = Instant::now();
        Self { circuit: Circuit { settings: SETTINGS, era: 0, now: State::Closed(Box::default()), begun: now }, now }
    }

    /// One after the other: `+` succeeds, `-` fails, and a digit lets so many seconds pass.
    fn play(mut self, events: &str) -> Self {
        for event in events.chars() {
            match event {
                '+' => {
                    let era = self.enter().unwrap();
                    self.circuit.succeeded(era, self.now);
                }
                '-' => {
                    let era = self.enter().unwrap();
                    self.circuit.failed(era, self.now);
                }
                seconds => self.now += seconds.to_digit(10).unwrap() * SECOND,
            }
        }
        self
    }

    fn enter(&mut self) -> Result<u64, Refused> {
        self.circuit.enter(self.now)
    }

    fn after(mut self, pause: Duration) -> Self {
        self.now += pause;
        self
    }

    #[track_caller]
    fn is(self, position: Position) -> Self {
        assert_eq!(self.circuit.position(), position);
        self
    }
}

#[test]
fn it_opens_when_most_of_at_least_three_failed() {
    for closed in ["", "-", "--", "+++--", "++--+-"] {
        Scene::new().play(closed).is(Position::Closed);
    }
    for open in ["---", "+--", "++---", "++++------"] {
        Scene::new().play(open).is(Position::Open);
    }
}

#[test]
fn what_is_older_than_the_window_does_not_count() {
    Scene::new().play("--99-").is(Position::Closed);
    Scene::new().play("--9-").is(Position::Open);
    // Long successes do not hide a failure that is here now.
    Scene::new().play("++++++++++9911---").is(Position::Open);
    Scene::new().play("++++++++++---").is(Position::Closed);
}

#[test]
fn it_says_how_long_it_stays_open() {
    let mut scene = Scene::new().play("---9");
    assert_eq!(scene.enter(), Err(Refused { retry_after: 51 * SECOND }));
    scene.now += 50 * SECOND;
    assert_eq!(scene.enter(), Err(Refused { retry_after: SECOND }));
    scene.now += SECOND;
    scene.enter().unwrap();
    scene.is(Position::HalfOpen);
}

#[test]
fn three_probes_and_no_more_are_let_in_together() {
    let mut scene = Scene::new().play("---").after(SETTINGS.open);
    let probes: Vec<_> = (0..3).map(|_| scene.enter().unwrap()).collect();
    assert_eq!(scene.enter(), Err(Refused { retry_after: RETRY_HALF_OPEN }));
    for era in probes {
        assert_eq!(scene.circuit.position(), Position::HalfOpen);
        scene.circuit.succeeded(era, scene.now);
    }
    scene.is(Position::Closed).play("+--").is(Position::Open);
}

#[test]
fn one_probe_that_fails_is_enough() {
    let mut scene = Scene::new().play("---").after(SETTINGS.open).play("++-").is(Position::Open);
    assert_eq!(scene.enter(), Err(Refused { retry_after: SETTINGS.open }));
}

#[test]
fn a_probe_that_came_to_nothing_is_let_in_again() {
    let mut scene = Scene::new().play("---").after(SETTINGS.open);
    for _ in 0..10 {
        let era = scene.enter().unwrap();
        scene.circuit.came_to_nothing(era);
    }
    scene.play("+++").is(Position::Closed);
}

/// Calls that began before the server failed end at any time, in either way.
#[test]
fn what_began_under_another_position_says_nothing() {
    let mut scene = Scene::new();
    let old: Vec<_> = (0..6).map(|_| scene.enter().unwrap()).collect();
    let mut scene = scene.play("---");
    scene.circuit.succeeded(old[0], scene.now);
    scene.circuit.failed(old[1], scene.now);
    assert_eq!(scene.enter(), Err(Refused { retry_after: SETTINGS.open }));
    let mut scene = scene.after(SETTINGS.open).play("+");
    scene.circuit.failed(old[2], scene.now);
    scene.circuit.succeeded(old[3], scene.now);
    scene.circuit.succeeded(old[4], scene.now);
    scene.circuit.came_to_nothing(old[5]);
    scene.is(Position::HalfOpen).play("++").is(Position::Closed);
}

#[test]
fn a_server_seen_alive_is_probed_at_once() {
    let mut scene = Scene::new().play("---");
    scene.circuit.seen_alive();
    scene.is(Position::HalfOpen).play("+++").is(Position::Closed);
    let mut scene = Scene::new();
    scene.circuit.seen_alive();
    scene.is(Position::Closed);
}

#[test]
fn leave_that_is_dropped_is_given_back() {
    let settings = Settings { open: Duration::ZERO, least: 1, probes: 1, ..SETTINGS };
    let breaker = Breaker::new("test", settings);
    breaker.enter().unwrap().failed();
    // Its time is over at once, and that is told though nobody has asked yet.
    assert_eq!(breaker.figures().position, Position::HalfOpen);
    drop(breaker.enter().unwrap());
    let probe = breaker.enter().unwrap();
    assert!(breaker.enter().is_err());
    probe.succeeded();
    assert_eq!(breaker.figures().position, Position::Closed);
}
