//! What came of a schedule: the calls' answers held against the journal by the same verdict as everywhere, and whether
//! what happened is what the strategies promise.

use uuid::Uuid;
use zbl_client::EntryKind as ClientKind;
use zbl_loadgen::{
    history::{Acknowledgement, Operation, Outcome as Told},
    verdict::{self, Doubt, Journal, Judgement, Verdict},
};

use super::{
    Error,
    schedule::{Scene, Schedule, Token},
};
use crate::{
    account::{Entry, EntryKind, Money, Receipt, Refusal, State},
    error, rpc, store,
    strategy::Failure,
    timeline::{Event, Race},
};

/// The most entries of an account that is made for one schedule: its operations', a VOID for each, and some to notice
/// what does not belong there.
pub(super) const ENTRIES_MOST: i64 = 100;

/// What a call's caller came to know.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It was applied.
    Acknowledged(Receipt),
    /// The rules refused it.
    Refused(Refusal),
    /// It got no answer; asked later, the service found it applied.
    UnknownThenSucceeded,
    /// It got no answer; asked later, the service saw to it that it never will be applied.
    UnknownThenVoided,
}

/// One operation and its answer.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its request id.
    pub request_id: Uuid,
    /// The signed change it asked for, minor units.
    pub delta: Money,
    /// What its caller came to know.
    pub answer: Answer,
}

/// What there is besides the answers.
pub(super) struct Evidence {
    /// The account's entries but the first.
    pub(super) entries: Vec<Entry>,
    /// The account, read after them.
    pub(super) state: State,
    /// What the timeline holds of it.
    pub(super) events: Vec<Event>,
}

/// A schedule that was played to its end.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The steps.
    pub schedule: Schedule,
    /// The operations, in their order.
    pub calls: Vec<Call>,
    /// The verdict, and every figure behind it.
    pub judgement: Judgement,
    /// The balance at the end, minor units.
    pub balance: Money,
    /// Whether an operation was blocked at some point.
    pub blocked: bool,
    /// Whether the database broke a deadlock.
    pub deadlocked: bool,
    /// What the operations did, phase by phase.
    pub events: Vec<Event>,
}

impl Outcome {
    pub(super) fn of(
        schedule: Schedule,
        scene: &Scene,
        calls: Vec<Call>,
        evidence: Evidence,
        blocked: bool,
    ) -> Result<Self, Error> {
        let Evidence { entries, state, events } = evidence;
        let operations: Vec<Operation> = calls.iter().map(operation).collect();
        let entries: Vec<zbl_client::Entry> = entries.into_iter().map(journaled).collect();
        let root = verdict::State { balance: scene.opening, version: 1 };
        let judgement = verdict::judge(&verdict::Evidence {
            operations: &operations,
            journal: Journal { root, entries: &entries },
            last: verdict::State { balance: state.balance, version: state.version },
        })?;
        // No lock wait runs out here, so contention is a deadlock.
        let contended = Failure::Store(store::Error::Contended(String::new())).label();
        let deadlocked =
            events.iter().any(|event| matches!(event, Event::Span(span) if span.failure == Some(contended)));
        Ok(Self { schedule, calls, judgement, balance: state.balance, blocked, deadlocked, events })
    }

    /// Whether acknowledged money is gone.
    pub fn is_losing(&self) -> bool {
        self.judgement.verdict == Verdict::Lost
    }

    /// Whether the rules refused an operation.
    pub fn is_refused(&self) -> bool {
        self.calls.iter().any(|call| matches!(call.answer, Answer::Refused(_)))
    }

    /// What makes it play again.
    pub fn token(&self, scene: &Scene) -> Token {
        Token { scene: scene.clone(), schedule: self.schedule.clone() }
    }

    /// The race in which something was lost, if the timeline holds it: the first that the verdict confirms.
    pub fn race(&self) -> Option<&Race> {
        let overwrote = |race: &&Race| {
            self.judgement.lost_updates.iter().any(|lost| lost.overwriter.request_id == race.overwriter.request_id)
        };
        let mut races =
            self.events.iter().filter_map(|event| if let Event::Race(race) = event { Some(race) } else { None });
        races.find(overwrote)
    }

    /// How it breaks what the strategies of its scene promise.
    pub fn broken_promise(&self, scene: &Scene) -> Option<String> {
        let Judgement { missing, differing, miscalculated, doubled, unattributed, doubts, .. } = &self.judgement;
        let overwriter = self.judgement.lost_updates.iter().find_map(|lost| {
            let at = self.calls.iter().position(|call| call.request_id == lost.overwriter.request_id)?;
            let row = scene.parts[at].strategy;
            scene.promises(row.guarantee).then(|| format!("{} overwrote another operation", row.name))
        });
        let unexplained = !(missing.is_empty() && differing.is_empty() && miscalculated.is_empty())
            || *doubled > 0
            || *unattributed != Money::ZERO
            || doubts.iter().any(|doubt| *doubt != Doubt::NothingAcknowledged);
        let unexplained = unexplained.then(|| format!("answers, journal and balance disagree: {:?}", self.judgement));
        overwriter.or_else(|| self.saved_by_the_key()).or(unexplained)
    }

    /// Whether an operation was kept from overwriting another by the journal's key alone. That is the second line of
    /// defence: whose own guard holds never comes so far.
    fn saved_by_the_key(&self) -> Option<String> {
        let duplicate = Failure::Store(store::Error::Duplicate(String::new())).label();
        let mut spans =
            self.events.iter().filter_map(|event| if let Event::Span(span) = event { Some(span) } else { None });
        let saved = spans.find(|span| span.failure == Some(duplicate))?;
        Some(format!("{} was kept from overwriting by the journal's key alone", saved.strategy))
    }
}

fn operation(call: &Call) -> Operation {
    let outcome = match &call.answer {
        Answer::Acknowledged(Receipt { balance, version, version_before, .. }) => {
            let (balance, version, version_before) = (*balance, *version, *version_before);
            Told::Acknowledged(Acknowledgement { balance, version, version_before })
        }
        Answer::Refused(refusal) => Told::Failed { reason: rpc::reason(&error::Error::Refused(*refusal)).as_str() },
        // The journal holds the settlement.
        Answer::UnknownThenSucceeded | Answer::UnknownThenVoided => Told::Unknown,
    };
    Operation { request_id: call.request_id, delta: call.delta, outcome }
}

fn journaled(entry: Entry) -> zbl_client::Entry {
    zbl_client::Entry {
        version: entry.version,
        request_id: entry.request_id,
        kind: match entry.kind {
            EntryKind::Open => ClientKind::Open,
            EntryKind::Deduct => ClientKind::Deduct,
            EntryKind::Deposit => ClientKind::Deposit,
            EntryKind::Reset => ClientKind::Reset,
            EntryKind::Void => ClientKind::Void,
            EntryKind::Repair => ClientKind::Repair,
        },
        delta: entry.delta,
        balance_after: entry.balance_after,
        version_before: entry.version_before,
        strategy: entry.strategy,
        created_at: None,
        overwritten_by: None,
    }
}
