//! RunSchedule and AdvanceSchedule: the explorer's play on this very server, one at a time. The stream owns the run: when
//! it is dropped, or the server is to stop, the operations are let go.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot, watch},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use uuid::Uuid;
use zbl_proto::v1::{self, run_schedule_response::Event as Body};

use super::{
    super::{convert, status::status},
    Lab,
};
use crate::{
    error::{Error, Invalid, InvalidReason},
    explore::{self, Answer, Crashes, OPERATIONS_MOST, Outcome, Part, Play, Position, Scene, Schedule, Stage, Step},
    gate::Point,
    ledger::Ledger,
    quiet::Kept,
    strategy::Row,
    timeline::Event,
};

/// How long a run waits for its next step: long enough to think, short enough not to keep the lab from others.
const IDLE_MOST: Duration = Duration::from_secs(60);

/// How long a run may go on: it holds locks that others may want.
pub(super) const RUN_MOST: Duration = Duration::from_secs(5 * 60);

/// Events that may wait for a slow reader; then the run waits.
pub(super) const EVENTS_WAITING: usize = 16;

const OPENING_DEFAULT: &str = "100.00";
const AMOUNT_DEFAULT: &str = "10.00";
const OPERATIONS_DEFAULT: usize = 2;

/// The run there is, if any.
#[derive(Clone, Default)]
pub struct Schedules(Arc<Mutex<Option<Open>>>);

/// How a run is reached.
struct Open {
    run_id: Uuid,
    /// Taken up only where the run does not follow a schedule.
    steps: mpsc::Sender<Advance>,
}

/// A step that somebody asks for, and where to tell what came of it.
struct Advance {
    step: Step,
    answer: oneshot::Sender<Result<v1::ScheduleStep, Error>>,
}

/// Gives up the place of a run when it is over.
struct Turn {
    schedules: Schedules,
    run_id: Uuid,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.schedules.lock().take_if(|open| open.run_id == self.run_id);
    }
}

impl Schedules {
    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Result<(Turn, mpsc::Receiver<Advance>), Error> {
        let mut open = self.lock();
        if open.is_some() {
            return Err(Error::Overloaded("another schedule is being played; one at a time".to_owned()));
        }
        let run_id = Uuid::new_v4();
        let (steps, asked) = mpsc::channel(1);
        *open = Some(Open { run_id, steps });
        Ok((Turn { schedules: self.clone(), run_id }, asked))
    }

    /// Takes a step of the run.
    pub(super) async fn advance(&self, request: &v1::AdvanceScheduleRequest) -> Result<v1::ScheduleStep, Error> {
        let gone = || invalid("run_id", "no such run waits for a step; it may have ended".to_owned());
        let steps: Schedule = parsed("step", &request.step)?;
        let [step] = steps.0[..] else { return Err(invalid("step", "give one step, such as w1".to_owned())) };
        let run_id = convert::request_id(&request.run_id)?;
        let asked = self.lock().as_ref().filter(|open| open.run_id == run_id).map(|open| open.steps.clone());
        let (answer, answered) = oneshot::channel();
        asked.ok_or_else(gone)?.send(Advance { step, answer }).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// The lab's only place, taken.
pub(super) struct Place {
    pub(super) stage: Stage,
    turn: Turn,
    /// An attack would be counted among the lock waits that tell who is blocked.
    _alone: OwnedSemaphorePermit,
    /// So would what the server does in the background.
    _quiet: Kept,
    /// Dropped, the run takes no steps.
    asked: mpsc::Receiver<Advance>,
}

/// A run under way.
struct Run {
    place: Place,
    scene: Scene,
    /// Empty: each step is asked for.
    schedule: Schedule,
    told: mpsc::Sender<Result<v1::RunScheduleResponse, Status>>,
}

/// Begins a run and returns what happens in it.
pub(super) async fn start(
    lab: &Arc<Lab>,
    request: &v1::RunScheduleRequest,
) -> Result<ReceiverStream<Result<v1::RunScheduleResponse, Status>>, Error> {
    let schedule: Schedule = parsed("schedule", &request.schedule)?;
    let v1::RunScheduleRequest { strategies, amounts, opening_balance, operations, crashes, .. } = request;
    let crashes = if *crashes || schedule.has_crash_points() { Crashes::One } else { Crashes::Never };
    let asked = Asked { strategies, amounts, opening_balance, operations: *operations, crashes };
    let scene = scene(&lab.premises.ledger, &asked)?;
    let place = place(lab).await?;
    let (told, events) = mpsc::channel(EVENTS_WAITING);
    let run = Run { place, scene, schedule, told };
    tokio::spawn(run.play(lab.premises.stopping.clone()));
    Ok(ReceiverStream::new(events))
}

/// Takes the lab's place, for as long as what is returned lives.
pub(super) async fn place(lab: &Lab) -> Result<Place, Error> {
    let closed = || invalid("schedule", "this server holds no operations; start it with the lab open".to_owned());
    let (turn, asked) = lab.schedules.take()?;
    let attacked = |_| Error::Overloaded("an attack is under way; a schedule is played alone".to_owned());
    let alone = Arc::clone(&lab.attacks).try_acquire_owned().map_err(attacked)?;
    let quiet = lab.premises.quiet.keep().await?;
    // In this order a change that begins now is seen either in flight or among those of others.
    let stage = Stage::on(&lab.premises.ledger).ok_or_else(closed)?;
    if lab.premises.ledger.in_flight() > 0 {
        return Err(Error::Overloaded("other changes are in flight; a schedule is played alone".to_owned()));
    }
    Ok(Place { stage, turn, _alone: alone, _quiet: quiet, asked })
}

impl Run {
    /// Plays to the end, unless nobody listens any more or the server is to stop; then the operations are let go.
    async fn play(mut self, mut stopping: watch::Receiver<bool>) {
        let told = self.told.clone();
        let last = tokio::select! {
            played = timeout(RUN_MOST, self.finish()) => {
                let late = |_| Err(Error::Overloaded(format!("the run was ended after {RUN_MOST:?}")));
                played.unwrap_or_else(late).map(|result| v1::RunScheduleResponse { event: Some(Body::Result(result)) })
            }
            () = told.closed() => return,
            _ = stopping.wait_for(|stopping| *stopping) => Err(Error::Stopping),
        };
        // Over before its end is told: the next run may begin.
        drop(self);
        let _ = told.send(last.map_err(|error| status(&error))).await;
    }

    async fn finish(&mut self) -> Result<v1::ScheduleResult, Error> {
        let mut play = Play::begin(&self.place.stage, &self.scene).await.map_err(failed)?;
        self.tell(Body::Begun(v1::ScheduleBegun {
            run_id: self.place.turn.run_id.to_string(),
            user_id: play.user_id(),
            request_ids: play.request_ids().map(|id| id.to_string()).collect(),
            positions: positions(&play),
            choices: choices(&play),
        }))
        .await;
        let steps = std::mem::take(&mut self.schedule.0);
        let mut is_asked_for = steps.is_empty();
        for step in steps {
            self.take(&mut play, step).await?;
        }
        while let Some(first) = play.choices().first().copied() {
            if !is_asked_for {
                self.take(&mut play, first).await?;
                continue;
            }
            match timeout(IDLE_MOST, self.place.asked.recv()).await {
                Ok(Some(Advance { step, answer })) => {
                    // A step that cannot be taken is the asker's affair; the run goes on.
                    let _ = answer.send(self.take(&mut play, step).await);
                }
                Ok(None) | Err(_) => is_asked_for = false,
            }
        }
        let outcome = play.end().await.map_err(failed)?;
        Ok(result(&outcome, &self.scene))
    }

    async fn take(&self, play: &mut Play, step: Step) -> Result<v1::ScheduleStep, Error> {
        play.take(step).await.map_err(failed)?;
        let spans = play.events().into_iter().filter_map(|event| match event {
            Event::Span(span) => Some(convert::span(&span)),
            Event::Race(_) => None,
        });
        let step = v1::ScheduleStep {
            step: step.to_string(),
            spans: spans.collect(),
            positions: positions(play),
            choices: choices(play),
        };
        self.tell(Body::Step(step.clone())).await;
        Ok(step)
    }

    /// Nobody listening is noticed elsewhere.
    async fn tell(&self, event: Body) {
        let _ = self.told.send(Ok(v1::RunScheduleResponse { event: Some(event) })).await;
    }
}

fn positions(play: &Play) -> Vec<v1::OperationPosition> {
    let position = |(at, position): (usize, Position)| {
        let (state, phase, attempt) = match position {
            Position::Standing(Point::Before(phase), attempt) => {
                (v1::OperationState::Standing, convert::phase(phase), attempt)
            }
            Position::Standing(Point::Publish | Point::Published | Point::Answer, attempt) => {
                (v1::OperationState::Standing, v1::Phase::Unspecified, attempt)
            }
            Position::Blocked => (v1::OperationState::Blocked, v1::Phase::Unspecified, 0),
            Position::Ended => (v1::OperationState::Ended, v1::Phase::Unspecified, 0),
            Position::Crashed => (v1::OperationState::Crashed, v1::Phase::Unspecified, 0),
        };
        v1::OperationPosition {
            operation: i32::try_from(at + 1).unwrap_or(i32::MAX),
            state: state.into(),
            phase: phase.into(),
            attempt: i32::try_from(attempt).unwrap_or(i32::MAX),
        }
    };
    play.positions().into_iter().enumerate().map(position).collect()
}

fn choices(play: &Play) -> Vec<String> {
    play.choices().iter().map(Step::to_string).collect()
}

pub(super) fn result(outcome: &Outcome, scene: &Scene) -> v1::ScheduleResult {
    let answered = |answer: &Answer| match answer {
        Answer::Acknowledged(receipt) => v1::OperationOutcome {
            answer: v1::OperationAnswer::Acknowledged.into(),
            version: receipt.version,
            version_before: receipt.version_before,
            balance: receipt.balance.to_string(),
            attempts: receipt.attempts.try_into().unwrap_or(i32::MAX),
            refusal: String::new(),
        },
        Answer::Refused(refusal) => v1::OperationOutcome {
            answer: v1::OperationAnswer::Refused.into(),
            refusal: refusal.to_string(),
            ..Default::default()
        },
        Answer::UnknownThenSucceeded => {
            v1::OperationOutcome { answer: v1::OperationAnswer::UnknownThenSucceeded.into(), ..Default::default() }
        }
        Answer::UnknownThenVoided => {
            v1::OperationOutcome { answer: v1::OperationAnswer::UnknownThenVoided.into(), ..Default::default() }
        }
    };
    let lost_updates = outcome.judgement.lost_updates.iter().map(|lost| v1::LostUpdate {
        victim_request_id: lost.victim.request_id.to_string(),
        victim_version: lost.victim.wrote.version,
        overwriter_request_id: lost.overwriter.request_id.to_string(),
        overwriter_version: lost.overwriter.wrote.version,
        amount: lost.amount.to_string(),
    });
    v1::ScheduleResult {
        schedule: outcome.schedule.to_string(),
        token: outcome.token(scene).to_string(),
        verdict: super::attack::verdict(outcome.judgement.verdict).into(),
        lost: outcome.judgement.lost.to_string(),
        final_balance: outcome.balance.to_string(),
        lost_updates: lost_updates.collect(),
        outcomes: outcome.calls.iter().map(|call| answered(&call.answer)).collect(),
        blocked: outcome.blocked,
        deadlocked: outcome.deadlocked,
    }
}

/// What operations are asked for; fields as in the contract.
pub(super) struct Asked<'a> {
    pub(super) strategies: &'a [String],
    pub(super) amounts: &'a [String],
    pub(super) opening_balance: &'a str,
    pub(super) operations: i32,
    pub(super) crashes: Crashes,
}

/// The scene of what is asked for.
pub(super) fn scene(ledger: &Ledger, request: &Asked<'_>) -> Result<Scene, Error> {
    let rows = request.strategies.iter().map(|name| Ok(convert::strategy(name)?.unwrap_or(ledger.default_strategy())));
    let mut rows: Vec<&'static Row> = rows.collect::<Result<_, Error>>()?;
    let mut amounts: Vec<_> =
        request.amounts.iter().map(|text| explore::money(text)).collect::<Result<_, _>>().map_err(|error| {
            let description = error.to_string();
            invalid("amounts", description)
        })?;
    let given = rows.len().max(amounts.len());
    let count = match usize::try_from(request.operations) {
        Ok(0) => {
            if given > 1 {
                given
            } else {
                OPERATIONS_DEFAULT
            }
        }
        Ok(count) if count <= OPERATIONS_MOST => count,
        _ => return Err(invalid("operations", format!("there may be 2 to {OPERATIONS_MOST}"))),
    };
    if rows.is_empty() {
        rows.push(ledger.default_strategy());
    }
    if amounts.is_empty() {
        amounts.push(convert::balance("amounts", AMOUNT_DEFAULT)?);
    }
    for (field, length) in [("strategies", rows.len()), ("amounts", amounts.len())] {
        if ![1, count].contains(&length) {
            return Err(invalid(field, format!("{length} for {count} operations; give one, or one for each")));
        }
    }
    let opening = Some(request.opening_balance).filter(|text| !text.is_empty()).unwrap_or(OPENING_DEFAULT);
    let parts = (0..count).map(|at| Part { strategy: rows[at % rows.len()], amount: amounts[at % amounts.len()] });
    let opening = convert::balance("opening_balance", opening)?;
    let scene = Scene { parts: parts.collect(), opening, instances: 1, crashes: request.crashes };
    scene.check().map_err(|error| invalid("operations", error.to_string()))?;
    Ok(scene)
}

fn parsed(field: &'static str, text: &str) -> Result<Schedule, Error> {
    text.parse().map_err(|error: explore::Malformed| invalid(field, error.to_string()))
}

pub(super) fn invalid(field: &'static str, description: String) -> Error {
    Invalid { field, reason: InvalidReason::Schedule, description }.into()
}

/// What an explorer's error is to a caller.
pub(super) fn failed(error: explore::Error) -> Error {
    match error {
        explore::Error::Service(error) => error,
        error @ (explore::Error::NotPossible { .. } | explore::Error::Endless { .. }) => {
            invalid("schedule", error.to_string())
        }
        // Others write to the same database: the projector of this server is enough, with three operations.
        error @ (explore::Error::NotDeterministic { .. }
        | explore::Error::Restless { .. }
        | explore::Error::Deadlocked { .. }) => Error::Overloaded(error.to_string()),
        error => Error::Bug(error.to_string()),
    }
}
