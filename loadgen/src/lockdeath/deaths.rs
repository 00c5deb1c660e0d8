//! The deaths a file names: what breaks a lock and what mends it. It owns the file's form and refuses what cannot be
//! played before anything is broken; it runs nothing.

use std::collections::HashSet;

use serde::Deserialize;

/// The strategies that are played where neither the file nor the command line names any.
pub const STRATEGIES: [&str; 3] = ["redis_lock", "redlock", "redis_lock_fenced"];

/// A file to begin with, with all there is to know about its form.
pub const EXAMPLE: &str = include_str!("example.toml");

/// Each death is played six times, some seconds each: more than this nobody waits for.
const DEATHS_MOST: usize = 64;

/// A name heads a row of the table.
const NAME_MOST: usize = 80;

/// A way for a lock to die.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// What it is called in the table.
    pub name: String,
    /// What brings it about.
    pub by: By,
    /// The strategies it is played with.
    pub strategies: Vec<String>,
}

/// What brings a death about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// Lines for `sh`.
    Lines(Lines),
    /// Whoever sits at the terminal.
    Hand,
}

/// The lines of a death, in the order in which they are run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// Before anything else.
    pub prepare: Option<String>,
    /// When the holder stands.
    pub breaks: String,
    /// Before the holder goes on.
    pub mend: Option<String>,
    /// When both have ended, and always when something may be broken.
    pub restore: Option<String>,
}

/// Why a file of deaths cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum DeathsError {
    /// It is not TOML, or has other keys.
    #[error("it is not a list of deaths: {0}")]
    Form(#[from] toml::de::Error),
    /// It names none.
    #[error("it names no death; `loadgen lockdeath --example` shows how")]
    None,
    /// It names more than can be played.
    #[error("these are {0} deaths; give at most {DEATHS_MOST}")]
    TooMany(usize),
    /// A name is no name.
    #[error("the name of death {number} is {name:?}; give one line of 1 to {NAME_MOST} characters")]
    Name {
        /// Which death, from 1.
        number: usize,
        /// Its name.
        name: String,
    },
    /// Two rows of the table would look the same.
    #[error("two deaths are named {0:?}; give each its own name")]
    Twice(String),
    /// A line that does nothing.
    #[error("{line} of {death:?} is empty; write what is to be run, or leave it out if it is not `break`")]
    EmptyLine {
        /// The death.
        death: String,
        /// The key of the line.
        line: &'static str,
    },
    /// A death nobody dies.
    #[error("{0:?} is played with no strategy; name one, or leave `strategies` out for {names}", names = STRATEGIES.join(", "))]
    NoStrategy(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    death: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    prepare: Option<String>,
    #[serde(rename = "break")]
    breaks: String,
    mend: Option<String>,
    restore: Option<String>,
    strategies: Option<Vec<String>>,
}

impl Death {
    /// The death that a person brings about.
    pub fn by_hand() -> Self {
        Self { name: "by hand".to_owned(), by: By::Hand, strategies: STRATEGIES.map(str::to_owned).to_vec() }
    }

    /// Reads the deaths of a file.
    ///
    /// # Errors
    /// [`DeathsError`] names what to change.
    pub fn parse(text: &str) -> Result<Vec<Self>, DeathsError> {
        let File { death: entries } = toml::from_str(text)?;
        match entries.len() {
            0 => return Err(DeathsError::None),
            count if count > DEATHS_MOST => return Err(DeathsError::TooMany(count)),
            _ => {}
        }
        let mut names = HashSet::new();
        let deaths = (1..).zip(entries).map(|(number, entry)| {
            let death = entry.check(number)?;
            if names.insert(death.name.clone()) { Ok(death) } else { Err(DeathsError::Twice(death.name)) }
        });
        deaths.collect()
    }
}

impl Entry {
    fn check(self, number: usize) -> Result<Death, DeathsError> {
        let Self { name, prepare, breaks, mend, restore, strategies } = self;
        let is_name = (1..=NAME_MOST).contains(&name.trim().chars().count()) && !name.contains(char::is_control);
        if !is_name {
            return Err(DeathsError::Name { number, name });
        }
        let optional = |line: &Option<String>| line.as_ref().is_some_and(|line| line.trim().is_empty());
        let lines = [
            ("break", breaks.trim().is_empty()),
            ("prepare", optional(&prepare)),
            ("mend", optional(&mend)),
            ("restore", optional(&restore)),
        ];
        if let Some((line, _)) = lines.into_iter().find(|(_, is_empty)| *is_empty) {
            return Err(DeathsError::EmptyLine { death: name, line });
        }
        let strategies = strategies.unwrap_or_else(|| STRATEGIES.map(str::to_owned).to_vec());
        if strategies.is_empty() {
            return Err(DeathsError::NoStrategy(name));
        }
        Ok(Death { name, by: By::Lines(Lines { prepare, breaks, mend, restore }), strategies })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_what_it_says() {
        let deaths = Death::parse(EXAMPLE).unwrap();
        assert_eq!(deaths.len(), 4);
        assert_eq!(deaths[0].strategies, STRATEGIES);
        assert_eq!(deaths[2].strategies, ["redis_lock", "redis_lock_fenced"]);
        let By::Lines(paused) = &deaths[0].by else { panic!("{deaths:?}") };
        assert_eq!((paused.breaks.as_str(), paused.mend.as_deref()), ("kill -STOP 4711", Some("kill -CONT 4711")));
        assert!(paused.prepare.is_none() && paused.restore.is_none());
    }

    #[test]
    fn what_cannot_be_played_is_named() {
        let many = "[[death]]\nname = 'x'\nbreak = 'true'\n".repeat(DEATHS_MOST + 1);
        let long = format!("[[death]]\nname = '{}'\nbreak = 'true'", "x".repeat(NAME_MOST + 1));
        for (text, named) in [
            ("", "names no death"),
            ("death = 3", "not a list of deaths"),
            ("[[death]]\nname = 'x'", "missing field `break`"),
            ("[[death]]\nbreak = 'true'", "missing field `name`"),
            ("[[death]]\nname = 'x'\nbreak = 'true'\nmends = 'true'", "unknown field `mends`"),
            ("[[deaths]]\nname = 'x'\nbreak = 'true'", "unknown field `deaths`"),
            ("[[death]]\nname = ' '\nbreak = 'true'", "the name of death 1 is \" \""),
            ("[[death]]\nname = \"a\\nb\"\nbreak = 'true'", "give one line"),
            (&long, "1 to 80 characters"),
            ("[[death]]\nname = 'x'\nbreak = ' '", "break of \"x\" is empty"),
            ("[[death]]\nname = 'x'\nbreak = 'true'\nmend = ''", "mend of \"x\" is empty"),
            ("[[death]]\nname = 'x'\nbreak = 'true'\nstrategies = []", "\"x\" is played with no strategy"),
            ("[[death]]\nname='x'\nbreak='a'\n[[death]]\nname='x'\nbreak='b'", "two deaths are named \"x\""),
            (&many, "these are 65 deaths"),
        ] {
            let error = Death::parse(text).unwrap_err().to_string();
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
