//! FindSchedule: the explorer's search on this very server, in the place of a run. The stream owns the search: when it is
//! dropped, or the server is to stop, the operations are let go.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use zbl_proto::v1::{self, find_schedule_response::Event};

use super::{
    super::status::status,
    Lab,
    schedule::{Asked, EVENTS_WAITING, Place, RUN_MOST, failed, invalid, place, result, scene},
};
use crate::{
    error::Error,
    explore::{self, Bounds, Coverage, Crashes, Found, Onward, Scene},
};

/// How many schedules are played where the request does not say: of two operations there are some tens.
const LIMIT_DEFAULT: usize = 1000;

/// The most: each takes some milliseconds.
const LIMIT_MOST: usize = 10_000;

/// What a sample follows from: the same question has the same answer.
const SEED: u64 = 1;

/// How often progress is told: as often as an eye can use it.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// A search under way.
struct Search {
    place: Place,
    scene: Scene,
    limit: usize,
    told: mpsc::Sender<Result<v1::FindScheduleResponse, Status>>,
}

/// Begins a search and returns how it goes.
pub(super) async fn start(
    lab: &Arc<Lab>,
    request: &v1::FindScheduleRequest,
) -> Result<ReceiverStream<Result<v1::FindScheduleResponse, Status>>, Error> {
    let v1::FindScheduleRequest { strategies, amounts, opening_balance, operations, limit } = request;
    let limit = match usize::try_from(*limit) {
        Ok(0) => LIMIT_DEFAULT,
        Ok(limit) if limit <= LIMIT_MOST => limit,
        _ => return Err(invalid("limit", format!("{limit} is not between 1 and {LIMIT_MOST}"))),
    };
    let asked = Asked { strategies, amounts, opening_balance, operations: *operations, crashes: Crashes::Never };
    let scene = scene(&lab.premises.ledger, &asked)?;
    let place = place(lab).await?;
    let (told, events) = mpsc::channel(EVENTS_WAITING);
    let search = Search { place, scene, limit, told };
    tokio::spawn(search.run(lab.premises.stopping.clone()));
    Ok(ReceiverStream::new(events))
}

impl Search {
    /// Searches to the end, unless nobody listens any more or the server is to stop; then the operations are let go.
    async fn run(self, mut stopping: watch::Receiver<bool>) {
        let last = tokio::select! {
            found = self.search() => found.map(message),
            () = self.told.closed() => return,
            _ = stopping.wait_for(|stopping| *stopping) => Err(Error::Stopping),
        };
        let told = self.told.clone();
        // Over before its end is told: what was found may be played.
        drop(self);
        let _ = told.send(last.map_err(|error| status(&error))).await;
    }

    async fn search(&self) -> Result<Event, Error> {
        let (mut seen, mut played, mut losing) = (0_i64, 0_i64, None);
        let (began, mut told_at) = (Instant::now(), Instant::now());
        let bounds = Bounds { limit: self.limit, seed: SEED };
        let explored = explore::explore(&self.place.stage, &self.scene, bounds, |found| {
            match found {
                Found::Outcome(outcome) => {
                    seen += 1;
                    played += 1;
                    losing = outcome.is_losing().then_some(outcome);
                }
                // They no longer count: a sample follows.
                Found::TooMany => played = 0,
            }
            if told_at.elapsed() >= PROGRESS_INTERVAL {
                told_at = Instant::now();
                // A slow reader is told less.
                let _ = self.told.try_send(Ok(message(Event::Progress(v1::FindProgress { played: seen }))));
            }
            if losing.is_some() || began.elapsed() >= RUN_MOST { Onward::Stop } else { Onward::Continue }
        });
        let explored = explored.await.map_err(failed)?;
        Ok(match losing {
            Some(outcome) => Event::Found(result(&outcome, &self.scene)),
            None => {
                // Schedules may also be missing because they did not go the same way twice, and what others did meanwhile
                // may have held up an operation that would have gone on.
                let is_alone = self.place.stage.others() == 0;
                let all = explored.coverage == Coverage::All && explored.given_up == 0 && is_alone;
                Event::Exhausted(v1::FindExhausted { played, all })
            }
        })
    }
}

const fn message(event: Event) -> v1::FindScheduleResponse {
    v1::FindScheduleResponse { event: Some(event) }
}
