//! `LabService`: what the lab may do and production must not. `access.rs` says who may; both ports ask it
//! before they come here.

mod attack;
mod find;
mod hold;
mod schedule;
mod snapshot;

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, stream};
use tokio::sync::{Semaphore, watch};
use tonic::{Request, Response, Status};
use zbl_client::{Client, Credentials};
use zbl_proto::v1::{self, lab_service_server::LabService};

use self::schedule::Schedules;
use super::{account::answer, convert, deadline::within, status::status, tally::Changes};
use crate::{
    config::{Secret, TraceUrl},
    depth::Depth,
    error::Error,
    ledger::Ledger,
    limit::Limits,
    port::BackDoor,
    projector::Progress,
    quiet::Quiet,
    reconcile::Finding,
    worker::Hands,
};

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
pub struct LabRpc {
    lab: Arc<Lab>,
}

/// The server that a lab is in.
pub struct Premises {
    /// The service under attack.
    pub ledger: Arc<Ledger>,
    /// The instance's name.
    pub instance: String,
    /// This server as its clients see it: attacks are made of calls like any other.
    pub own: OwnService,
    /// When the server was started.
    pub started: Instant,
    /// How much the server takes on.
    pub limits: Arc<Limits>,
    /// The changes that its callers were answered.
    pub changes: Arc<Changes>,
    /// Where a trace can be looked at.
    pub trace_url: Option<TraceUrl>,
    /// What comparing journal and balances has found; `None` where that is off.
    pub finding: Option<watch::Receiver<Finding>>,
    /// How far the reports are; `None` where another keeps them.
    pub progress: Option<watch::Receiver<Progress>>,
    /// How long the queue is; `None` where there is none.
    pub depth: Option<watch::Receiver<Depth>>,
    /// What the worker here has in hand; `None` where there is none.
    pub hands: Option<Hands>,
    /// Makes what goes on in the background rest.
    pub quiet: Quiet,
    /// Becomes true when the server is to stop; streams end then.
    pub stopping: watch::Receiver<bool>,
}

/// What the lab's calls work with.
struct Lab {
    premises: Premises,
    /// One attack at a time: two would measure each other.
    attacks: Arc<Semaphore>,
    /// The schedule being played.
    schedules: Schedules,
    /// Room for operations that are held.
    holds: Arc<Semaphore>,
}

/// How the lab calls the service that it is part of: like any client, through its port.
pub struct OwnService {
    /// The way there.
    pub way: OwnWay,
    /// What the service asks for.
    pub token: Option<Secret>,
}

/// The way to the own port.
pub enum OwnWay {
    /// The network.
    Address(SocketAddr),
    /// A connection within the process, where a client would have to show a certificate that the server does not have.
    BackDoor(BackDoor),
}

impl OwnService {
    /// A client with a connection of its own.
    fn client(&self) -> Result<Client, Error> {
        let bug = |error: &dyn std::fmt::Display| Error::Bug(format!("the lab's way to its own service: {error}"));
        let mut credentials = Credentials::default();
        if let Some(token) = &self.token {
            credentials = credentials.with_token(token.expose()).map_err(|error| bug(&error))?;
        }
        match &self.way {
            OwnWay::Address(address) => {
                Client::connect_lazy_with(&address.to_string(), &credentials).map_err(|error| bug(&error))
            }
            OwnWay::BackDoor(door) => {
                let door = door.clone();
                Ok(Client::inside(&credentials, move || door.enter()))
            }
        }
    }
}

impl Lab {
    /// A lab with nothing under way in it.
    fn new(premises: Premises) -> Self {
        Self {
            premises,
            attacks: Arc::new(Semaphore::new(1)),
            schedules: Schedules::default(),
            holds: Arc::new(Semaphore::new(hold::HOLDS_MOST)),
        }
    }
}

impl LabRpc {
    /// The lab. Whoever comes here has been let in by `access.rs`.
    pub fn new(premises: Premises) -> Self {
        Self { lab: Arc::new(Lab::new(premises)) }
    }
}

#[tonic::async_trait]
impl LabService for LabRpc {
    async fn reset_account(
        &self,
        request: Request<v1::ResetAccountRequest>,
    ) -> Result<Response<v1::ResetAccountResponse>, Status> {
        let lab = &self.lab;
        let message = request.get_ref();
        let work = async {
            let user_id = convert::user_id(message.user_id)?;
            let balance = convert::balance("balance", &message.balance)?;
            let request_id = convert::request_id(&message.request_id)?;
            Ok::<_, Error>((lab.premises.ledger.reset(user_id, balance, request_id).await?, request_id))
        };
        let (reset, request_id) = within(request.extensions(), work).await.map_err(|error| status(&error))?;
        let message = v1::ResetAccountResponse {
            user_id: reset.user_id,
            balance: reset.state.balance.to_string(),
            version: reset.state.version,
            request_id: request_id.to_string(),
        };
        Ok(answer(message, reset.replayed))
    }

    type HoldOperationStream = Answers<v1::HoldOperationResponse>;

    async fn hold_operation(
        &self,
        request: Request<v1::HoldOperationRequest>,
    ) -> Result<Response<Self::HoldOperationStream>, Status> {
        let lab = &self.lab;
        let events = hold::start(lab, request.get_ref()).map_err(|error| status(&error))?;
        Ok(Response::new(Box::pin(events)))
    }

    type RunAttackStream = Answers<v1::RunAttackResponse>;

    async fn run_attack(
        &self,
        request: Request<v1::RunAttackRequest>,
    ) -> Result<Response<Self::RunAttackStream>, Status> {
        let lab = &self.lab;
        let steps = attack::start(lab, request.get_ref()).map_err(|error| status(&error))?;
        Ok(Response::new(Box::pin(steps)))
    }

    type RunScheduleStream = Answers<v1::RunScheduleResponse>;

    async fn run_schedule(
        &self,
        request: Request<v1::RunScheduleRequest>,
    ) -> Result<Response<Self::RunScheduleStream>, Status> {
        let lab = &self.lab;
        let events = schedule::start(lab, request.get_ref()).await.map_err(|error| status(&error))?;
        Ok(Response::new(Box::pin(events)))
    }

    async fn advance_schedule(
        &self,
        request: Request<v1::AdvanceScheduleRequest>,
    ) -> Result<Response<v1::AdvanceScheduleResponse>, Status> {
        let lab = &self.lab;
        let step = lab.schedules.advance(request.get_ref()).await.map_err(|error| status(&error))?;
        Ok(Response::new(v1::AdvanceScheduleResponse { step: Some(step) }))
    }

    type FindScheduleStream = Answers<v1::FindScheduleResponse>;

    async fn find_schedule(
        &self,
        request: Request<v1::FindScheduleRequest>,
    ) -> Result<Response<Self::FindScheduleStream>, Status> {
        let lab = &self.lab;
        let events = find::start(lab, request.get_ref()).await.map_err(|error| status(&error))?;
        Ok(Response::new(Box::pin(events)))
    }

    async fn clear_timeline(
        &self,
        _: Request<v1::ClearTimelineRequest>,
    ) -> Result<Response<v1::ClearTimelineResponse>, Status> {
        let cleared = self.lab.premises.ledger.bench().timeline.clear();
        Ok(Response::new(v1::ClearTimelineResponse { cleared: cleared.try_into().unwrap_or(i64::MAX) }))
    }

    async fn get_status(&self, _: Request<v1::GetStatusRequest>) -> Result<Response<v1::GetStatusResponse>, Status> {
        let lab = &self.lab;
        Ok(Response::new(v1::GetStatusResponse { status: Some(lab.snapshot()) }))
    }

    type WatchStatusStream = Answers<v1::WatchStatusResponse>;

    async fn watch_status(
        &self,
        request: Request<v1::WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        let lab = Arc::clone(&self.lab);
        let interval = convert::interval(request.get_ref().interval.as_ref()).map_err(|error| status(&error.into()))?;
        let room = lab.premises.limits.watch().map_err(|error| status(&error))?;
        let statuses = stream::unfold(Some((lab, room, Duration::ZERO)), move |watching| async move {
            let (lab, room, wait) = watching?;
            let mut stopping = lab.premises.stopping.clone();
            tokio::select! {
                () = tokio::time::sleep(wait) => {
                    let message = v1::WatchStatusResponse { status: Some(lab.snapshot()) };
                    Some((Ok(message), Some((lab, room, interval))))
                }
                _ = stopping.wait_for(|stopping| *stopping) => Some((Err(status(&Error::Stopping)), None)),
            }
        });
        Ok(Response::new(Box::pin(statuses)))
    }
}
