//! What a schedule is, and how it is written: steps such as `r1`, a scene they are played in, and the token that holds
//! both. Pure text and values.
//!
//! A token is `zbl1:none+optimistic:100.00:10.00+10.00:i1:r1r2c1c2w1k1w2k2`: version, the operations' strategies, the
//! opening balance, their amounts (a negative one is a deposit), how many instances, the steps. Nothing in it means
//! anything to a shell.

use std::{collections::HashSet, fmt, str::FromStr};

use crate::{
    account::{Direction, Money},
    gate::Point,
    strategy::{self, Guarantee, Row},
    timeline::Phase,
};

/// The version of tokens: others are refused.
const TOKEN: &str = "zbl1";

/// The most operations of a schedule: its steps name them by one digit, and already four have more schedules than
/// anybody waits for.
pub const OPERATIONS_MOST: usize = 4;

/// The most instances: one for each operation.
pub const INSTANCES_MOST: usize = OPERATIONS_MOST;

/// The most steps of a schedule. Operations that keep each other from coming to an end would go on for ever.
pub const STEPS_MOST: usize = 200;

/// What is done at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// The operation goes on from this point.
    Pass(Point),
    /// It dies where it stands.
    Crash,
}

/// One step: which operation, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    /// The operation, from 0; written from 1.
    pub operation: usize,
    /// What it does.
    pub act: Act,
}

/// The letters of a schedule.
const LETTERS: [(char, Act); 7] = [
    ('l', Act::Pass(Point::Before(Phase::LockWait))),
    ('r', Act::Pass(Point::Before(Phase::Read))),
    ('c', Act::Pass(Point::Before(Phase::Compute))),
    ('w', Act::Pass(Point::Before(Phase::Write))),
    ('k', Act::Pass(Point::Before(Phase::Commit))),
    ('a', Act::Pass(Point::Answer)),
    ('x', Act::Crash),
];

impl Act {
    fn letter(self) -> char {
        LETTERS.iter().find(|(_, act)| *act == self).map_or('?', |(letter, _)| *letter)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.act.letter(), self.operation + 1)
    }
}

/// A schedule, or the beginning of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Schedule(pub Vec<Step>);

impl fmt::Display for Schedule {
    /// With blanks between the steps, or without in the alternate form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            let blank = if at == 0 || f.alternate() { "" } else { " " };
            write!(f, "{blank}{step}")?;
        }
        Ok(())
    }
}

/// A text that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

impl Malformed {
    /// Says where the malformed text was given.
    pub(super) fn of(place: &str, why: &impl fmt::Display) -> Self {
        Self(format!("{place}: {why}"))
    }
}

fn malformed<T>(text: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed(text.into()))
}

impl FromStr for Schedule {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut characters = text.chars().filter(|character| !character.is_whitespace());
        let mut steps = Vec::new();
        while let Some(letter) = characters.next() {
            let number = steps.len() + 1;
            let Some((_, act)) = LETTERS.into_iter().find(|(known, _)| *known == letter) else {
                return malformed(format!("step {number}: `{letter}` is not one of l r c w k a x"));
            };
            let digit = characters.next();
            let operation = digit.and_then(|digit| digit.to_digit(10)).map(|digit| digit as usize);
            match operation {
                Some(operation @ 1..=OPERATIONS_MOST) => steps.push(Step { operation: operation - 1, act }),
                _ => {
                    let found = digit.map_or_else(|| "the end".to_owned(), |digit| format!("`{digit}`"));
                    return malformed(format!("step {number}: {found} after `{letter}` is not an operation's number"));
                }
            }
            if steps.len() > STEPS_MOST {
                return malformed(format!("more than {STEPS_MOST} steps"));
            }
        }
        Ok(Self(steps))
    }
}

impl Schedule {
    /// How often it goes from one operation to another.
    pub fn switches(&self) -> usize {
        self.0.windows(2).filter(|pair| pair[0].operation != pair[1].operation).count()
    }

    /// Whether it holds points that only a schedule with crashes has.
    pub fn has_crash_points(&self) -> bool {
        self.0.iter().any(|step| matches!(step.act, Act::Crash | Act::Pass(Point::Answer)))
    }
}

/// One operation of a scene.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Its strategy.
    pub strategy: &'static Row,
    /// How much it takes, minor units; negative: it adds so much.
    pub amount: Money,
}

impl Part {
    /// Which way it moves money, and how much.
    pub fn movement(&self) -> (Direction, Money) {
        if self.amount < Money::ZERO {
            // A negative i64 turned around is at most its maximum but for one value, which no scene has.
            (Direction::Deposit, Money::from_minor(self.amount.minor().saturating_neg()))
        } else {
            (Direction::Deduct, self.amount)
        }
    }
}

/// Whether operations may crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crashes {
    /// None does.
    Never,
    /// At most one of them, wherever it can be held.
    One,
}

/// What is played: operations on a fresh account.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The operations.
    pub parts: Vec<Part>,
    /// The balance the account is opened with, minor units.
    pub opening: Money,
    /// How many instances of the service there are; operations take turns among them.
    pub instances: usize,
    /// Whether operations may crash.
    pub crashes: Crashes,
}

impl Scene {
    /// The strategies, as `--strategy` takes them: one name where all are the same.
    pub fn strategies(&self) -> String {
        let names: Vec<&str> = self.parts.iter().map(|part| part.strategy.name).collect();
        if names.windows(2).all(|pair| pair[0] == pair[1]) { names[..1].concat() } else { names.join(",") }
    }

    /// Whether operations of this guarantee must never overwrite another one here.
    pub fn promises(&self, guarantee: Guarantee) -> bool {
        match guarantee {
            Guarantee::LosesUpdates => false,
            // Nobody else writes, and they all see each other.
            Guarantee::OneProcess => {
                self.instances == 1 && self.parts.iter().all(|part| part.strategy.guarantee == guarantee)
            }
            Guarantee::WhileLeaseHolds | Guarantee::Always => true,
        }
    }

    /// Whether some schedule must lose money, or else nothing was tested: an operation overwrites whatever it meets, or
    /// two are kept apart by one process alone and are not in one.
    pub fn must_lose(&self) -> bool {
        let with = |guarantee| {
            let parts = self.parts.iter().enumerate().filter(move |(_, part)| part.strategy.guarantee == guarantee);
            parts.map(|(at, _)| at % self.instances)
        };
        let apart = with(Guarantee::OneProcess).collect::<HashSet<_>>().len() > 1;
        with(Guarantee::LosesUpdates).next().is_some() || apart
    }

    /// Refuses a scene that cannot be played.
    ///
    /// # Errors
    /// [`Malformed`], which says what would be right.
    pub fn check(&self) -> Result<(), Malformed> {
        if !(2..=OPERATIONS_MOST).contains(&self.parts.len()) {
            return malformed(format!("{} operations; there must be 2 to {OPERATIONS_MOST}", self.parts.len()));
        }
        if !(1..=INSTANCES_MOST).contains(&self.instances) {
            return malformed(format!("{} instances; there must be 1 to {INSTANCES_MOST}", self.instances));
        }
        if self.opening < Money::ZERO {
            return malformed(format!("the opening balance {} is negative", self.opening));
        }
        let amounts = self.parts.iter().map(|part| i128::from(part.amount.minor()).abs());
        let all = i128::from(self.opening.minor()) + amounts.clone().sum::<i128>();
        if amounts.clone().any(|amount| amount == 0) || all > i128::from(i64::MAX) {
            return malformed("amounts must not be zero, and with the opening balance stay below 92233720368547758.07");
        }
        Ok(())
    }
}

/// A schedule and the scene it was played in: all that is needed to play it again.
#[derive(Clone, Debug)]
pub struct Token {
    /// The scene.
    pub scene: Scene,
    /// The schedule.
    pub schedule: Schedule,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scene, schedule } = self;
        let joined = |text: fn(&Part) -> String| scene.parts.iter().map(text).collect::<Vec<_>>().join("+");
        let (names, amounts) = (joined(|part| part.strategy.name.to_owned()), joined(|part| part.amount.to_string()));
        write!(f, "{TOKEN}:{names}:{}:{amounts}:i{}:{schedule:#}", scene.opening, scene.instances)
    }
}

impl FromStr for Token {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let fields: Vec<&str> = text.trim().split(':').collect();
        let [version, names, opening, amounts, instances, schedule] = fields[..] else {
            return malformed(format!("a token has six fields with `:` between them, this has {}", fields.len()));
        };
        if version != TOKEN {
            return malformed(format!("`{version}` is not {TOKEN}: another version made this token"));
        }
        let schedule: Schedule = schedule.parse()?;
        let crashes = if schedule.has_crash_points() { Crashes::One } else { Crashes::Never };
        let instances = instances.strip_prefix('i').and_then(|count| count.parse().ok());
        let Some(instances) = instances else { return malformed("instances are written as `i1` or `i2`") };
        let strategies = names.split('+').map(find).collect::<Result<Vec<_>, _>>()?;
        let amounts = amounts.split('+').map(money).collect::<Result<Vec<_>, _>>()?;
        if strategies.len() != amounts.len() {
            return malformed(format!("{} strategies and {} amounts", strategies.len(), amounts.len()));
        }
        let parts = strategies.into_iter().zip(amounts).map(|(strategy, amount)| Part { strategy, amount }).collect();
        let scene = Scene { parts, opening: money(opening)?, instances, crashes };
        scene.check()?;
        if let Some(step) = schedule.0.iter().find(|step| step.operation >= scene.parts.len()) {
            return malformed(format!("step {step}: there are {} operations", scene.parts.len()));
        }
        Ok(Self { scene, schedule })
    }
}

/// The strategy of that name.
///
/// # Errors
/// [`Malformed`], which lists the names there are.
pub fn find(name: &str) -> Result<&'static Row, Malformed> {
    strategy::find(name).map_err(|unknown| Malformed(unknown.to_string()))
}

/// A signed amount.
///
/// # Errors
/// [`Malformed`].
pub fn money(text: &str) -> Result<Money, Malformed> {
    Money::parse_signed(text).map_err(|error| Malformed(format!("`{text}`: {error}")))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;
    use crate::strategy::REGISTRY;

    prop_compose! {
        fn tokens()(count in 2..=OPERATIONS_MOST)(
            names in vec(0..REGISTRY.len(), count),
            amounts in vec((1..1_000_000_i64, any::<bool>()), count),
            steps in vec((select(LETTERS.map(|(_, act)| act).to_vec()), 0..count), 0..40),
            opening in 0..1_000_000_i64,
            instances in 1..=INSTANCES_MOST,
        ) -> Token {
            let amount = |(minor, adds): (i64, bool)| Money::from_minor(if adds { -minor } else { minor });
            let parts = names.into_iter().zip(amounts.into_iter().map(amount));
            let parts = parts.map(|(row, amount)| Part { strategy: &REGISTRY[row], amount }).collect();
            let schedule = Schedule(steps.into_iter().map(|(act, operation)| Step { operation, act }).collect());
            let crashes = if schedule.has_crash_points() { Crashes::One } else { Crashes::Never };
            let scene = Scene { parts, opening: Money::from_minor(opening), instances, crashes };
            Token { scene, schedule }
        }
    }

    proptest! {
        #[test]
        fn a_token_is_read_back_as_it_was_written(token in tokens()) {
            let text = token.to_string();
            let again: Token = text.parse().unwrap();
            prop_assert_eq!(again.to_string(), text);
            prop_assert_eq!(&again.schedule, &token.schedule);
            prop_assert_eq!(again.scene.crashes, token.scene.crashes);
            let spaced: Schedule = token.schedule.to_string().parse().unwrap();
            prop_assert_eq!(spaced, token.schedule);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,60}", fields in vec("[a-z0-9.+-]{0,8}", 0..8)) {
            let _ = text.parse::<Token>();
            let _ = format!("{TOKEN}:{}", fields.join(":")).parse::<Token>();
        }
    }

    #[test]
    fn errors_name_the_place() {
        let good = "zbl1:none:100.00:10.00:i1:r1";
        assert!(good.parse::<Token>().unwrap_err().to_string().contains("1 operations"));
        for (token, says) in [
            ("zbl0:none+none:100.00:1+1:i1:r1", "another version"),
            ("zbl1:none+hope:100.00:1+1:i1:r1", "hope"),
            ("zbl1:none+none:100.00:1+0:i1:r1", "zero"),
            ("zbl1:none+none:-1:1+1:i1:r1", "negative"),
            ("zbl1:none+none:100.00:1+1:2:r1", "i1"),
            ("zbl1:none+none:100.00:1+1:i9:r1", "9 instances"),
            ("zbl1:none+none:100.00:1+1:i1:r1q2", "step 2: `q`"),
            ("zbl1:none+none:100.00:1+1:i1:r1r", "step 2: the end after `r`"),
            ("zbl1:none+none:100.00:1+1:i1:r3", "r3"),
            ("zbl1:none", "six fields"),
        ] {
            let error = token.parse::<Token>().unwrap_err().to_string();
            assert!(error.contains(says), "{token}: {error}");
        }
    }
}
