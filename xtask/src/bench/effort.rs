//! How long is measured, and how often. More rounds make the medians firmer.

use std::time::Duration;

use serde::Serialize;

/// The length of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Effort {
    /// Whether it is the short one.
    pub(crate) quick: bool,
    /// How often every case is measured, in turns.
    pub(crate) rounds: usize,
    /// How long each works before it counts.
    #[serde(rename = "warmup_ms", serialize_with = "in_ms")]
    pub(crate) warmup: Duration,
    /// How long it counts.
    #[serde(rename = "duration_ms", serialize_with = "in_ms")]
    pub(crate) duration: Duration,
}

impl Effort {
    /// For figures to be published: half an hour for one database.
    pub(crate) const FULL: Self =
        Self { quick: false, rounds: 5, warmup: Duration::from_secs(2), duration: Duration::from_secs(5) };

    /// For a look: about five minutes after the build, whatever is measured.
    pub(crate) const fn quick(databases: usize) -> Self {
        let rounds = if databases > 1 { 1 } else { 2 };
        Self { quick: true, rounds, warmup: Duration::from_millis(500), duration: Duration::from_secs(2) }
    }
}

fn in_ms<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
