//! What a lock is told at its making, and within which ranges. It refuses what could not work, by name.

use std::{ops::RangeInclusive, time::Duration};

use crate::Error;

/// Shorter, and a lease ends while a busy machine renews it: a third of 50 ms is what a scheduler takes under load.
const MIN_LEASE: Duration = Duration::from_millis(50);
/// Longer, and a holder that died keeps everybody out for more than a day.
const MAX_LEASE: Duration = Duration::from_secs(24 * 60 * 60);
/// Nobody waits for a lock longer than this; it also keeps arithmetic on time far from its limits.
const MAX_WAIT: Duration = Duration::from_secs(60 * 60);
/// Less does not reach a healthy server in the same room under load.
pub(crate) const MIN_COMMAND: Duration = Duration::from_millis(5);
/// A label of metrics and a part of keys, and who reads them: not longer than a line.
const MAX_NAME: usize = 64;

/// How a lock works. Those who share locks must share the prefix and should share the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The lock's name among others of this process: the label `lock` of its metrics.
    pub name: String,
    /// This process's name, which those who wait for it are told.
    pub instance: String,
    /// What every key in Redis begins with.
    pub prefix: String,
    /// How long the lock stays taken after its holder was last heard of: 50 ms to 24 h.
    pub lease: Duration,
    /// How long to wait for a lock that somebody else holds: up to an hour; zero asks once.
    pub wait: Duration,
    /// How long one command to one node may take, connecting included: 5 ms to half of the lease.
    pub command: Duration,
}

impl Settings {
    /// Ten seconds of lease, five of waiting, half a second for a command; keys begin with `zbl:<name>:`.
    pub fn new(name: impl Into<String>, instance: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            prefix: format!("zbl:{name}:"),
            name,
            instance: instance.into(),
            lease: Duration::from_secs(10),
            wait: Duration::from_secs(5),
            command: Duration::from_millis(500),
        }
    }

    /// # Errors
    /// [`Error::Settings`], naming the setting and its range.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        name("name", &self.name)?;
        name("instance", &self.instance)?;
        name("prefix", &self.prefix)?;
        within("lease", self.lease, MIN_LEASE..=MAX_LEASE)?;
        within("wait", self.wait, Duration::ZERO..=MAX_WAIT)?;
        // An acquisition may take as long as one command, and what is left of the lease then must be worth having.
        within("command", self.command, MIN_COMMAND..=self.lease / 2)
    }

    pub(crate) fn lease_ms(&self) -> u64 {
        u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX)
    }
}

fn within(what: &str, value: Duration, range: RangeInclusive<Duration>) -> Result<(), Error> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = range.into_inner();
    Err(Error::Settings(format!("{what} is {value:?}; choose between {least:?} and {most:?}")))
}

fn name(what: &str, value: &str) -> Result<(), Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    if (1..=MAX_NAME).contains(&value.len()) && value.chars().all(plain) {
        return Ok(());
    }
    Err(Error::Settings(format!("{what} must be 1 to {MAX_NAME} letters, digits or ._:- in ASCII")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silly_settings_are_refused_by_name() {
        type Change = fn(&mut Settings);
        let silly: [(&str, Change); 8] = [
            ("lease", |s| s.lease = Duration::from_millis(1)),
            ("lease", |s| s.lease = Duration::MAX),
            ("wait", |s| s.wait = Duration::MAX),
            ("command", |s| s.command = Duration::ZERO),
            ("command", |s| s.command = s.lease),
            ("name", |s| s.name = "a b".to_owned()),
            ("instance", |s| s.instance = String::new()),
            ("prefix", |s| s.prefix = "x".repeat(65)),
        ];
        assert_eq!(Settings::new("a", "b").validate(), Ok(()));
        for (named, change) in silly {
            let mut settings = Settings::new("a", "b");
            change(&mut settings);
            let Err(Error::Settings(text)) = settings.validate() else { panic!("{settings:?} passed") };
            assert!(text.starts_with(named), "{text}");
        }
    }
}
