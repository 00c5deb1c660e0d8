//! A scene in words, told from what was seen and what the journal holds: who had the lock, how it died, who came in, who
//! wrote over whom.

use uuid::Uuid;
use zbl_client::Phase;

use super::report::Rival;
use super::{Seconds, phase_name};
use crate::history::{Operation, Outcome};
use crate::report::short;
use crate::verdict::LostUpdate;

/// What was seen of a scene.
pub(super) struct Facts {
    /// Of the holder's server and of the rival's.
    pub(super) addresses: [String; 2],
    pub(super) death: String,
    /// Where the holder stood.
    pub(super) phase: Phase,
    /// In which attempt it stood there.
    pub(super) attempt: u32,
    /// Who held the lock when the holder stood, and when the rival stood, as their servers told.
    pub(super) leases: [Option<String>; 2],
    pub(super) came: Rival,
    /// The attempt the holder began when it had found out.
    pub(super) noticed: Option<u32>,
}

impl Facts {
    /// The story of a scene whose operations are the holder's, called A, and the rival's, called B.
    pub(super) fn tell(&self, operations: &[Operation; 2], lost: &[LostUpdate]) -> Vec<String> {
        let [holder, rival] = operations;
        let [at, elsewhere] = &self.addresses;
        let (a, b) = (short(holder.request_id), short(rival.request_id));
        let attempt = if self.attempt == 1 { String::new() } else { format!(" in attempt {}", self.attempt) };
        let mut story = vec![
            format!("A {a} on {at} stood before its {}{attempt}{}", phase_name(self.phase), told(&self.leases[0])),
            format!("the lock died: {}", self.death),
            format!("B {b} on {elsewhere}: {}{}", self.came, told(&self.leases[1])),
        ];
        story.extend(self.noticed.map(|attempt| {
            format!("A found that the lock was not its own any more, rolled back, and began attempt {attempt}")
        }));
        // In the order in which they were written; what was not written comes last.
        let mut ends = [("A", holder), ("B", rival)];
        ends.sort_by_key(|(_, operation)| version(operation).unwrap_or(i64::MAX));
        story.extend(ends.map(|(name, operation)| format!("{name} {}", end(operation))));
        let named = |id: Uuid| if id == holder.request_id { "A" } else { "B" };
        story.extend(lost.iter().map(|lost| {
            let (victim, overwriter) = (named(lost.victim.request_id), named(lost.overwriter.request_id));
            let (wrote, over) = (lost.overwriter.wrote.version, lost.victim.wrote.version);
            let amount = lost.amount;
            format!(
                "{overwriter} had read v{}, and its v{wrote} wrote over {victim}'s v{over}: {amount} lost",
                lost.overwriter.read.version
            )
        }));
        story
    }
}

/// What a server told of a lease.
fn told(lease: &Option<String>) -> String {
    lease.as_ref().map_or_else(String::new, |lease| format!("; {lease}"))
}

fn version(operation: &Operation) -> Option<i64> {
    match &operation.outcome {
        Outcome::Acknowledged(receipt) => Some(receipt.version),
        Outcome::Failed { .. } | Outcome::Unknown | Outcome::Accepted | Outcome::Forgotten => None,
    }
}

fn end(operation: &Operation) -> String {
    match &operation.outcome {
        Outcome::Acknowledged(receipt) => {
            format!(
                "read v{}, wrote v{}: acknowledged, {} left",
                receipt.version_before, receipt.version, receipt.balance
            )
        }
        Outcome::Failed { reason } => format!("wrote nothing: {reason}"),
        // Nothing is asked for that is made later.
        Outcome::Unknown | Outcome::Accepted | Outcome::Forgotten => "got no answer".to_owned(),
    }
}

/// What became of a rival while the holder stood.
impl std::fmt::Display for Rival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stood { after, attempt } => {
                let attempt = if *attempt == 1 { String::new() } else { format!(", in attempt {attempt}") };
                write!(f, "it got in {} after that{attempt}, read, and stood before its WRITE", Seconds(*after))
            }
            Self::KeptOut { after } => write!(f, "it was kept out, {} long", Seconds(*after)),
            Self::TurnedAway { after, error } => write!(f, "it was turned away after {}: {error}", Seconds(*after)),
            Self::Ended { after } => write!(f, "it came to its end after {}", Seconds(*after)),
        }
    }
}
