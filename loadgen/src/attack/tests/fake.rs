//! An account service on one account in memory that goes wrong as a script wants.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};
use zbl_client::{Client, Money, Reason};
use zbl_proto::ERROR_DOMAIN;
use zbl_proto::v1::account_service_server::{AccountService, AccountServiceServer};
use zbl_proto::v1::deduct_stream_response::Outcome;
use zbl_proto::v1::lab_service_server::LabServiceServer;
use zbl_proto::v1::*;

use crate::attack::Stopper;

mod lab;

/// Items of a stream worked on at a time.
const STREAMED: usize = 64;

/// How often the journal is looked at for those who follow it.
const LOOKS: Duration = Duration::from_millis(5);

/// How a `Deduct` or a `DeductAsync` goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Turned away for this reason.
    TurnedAway(Reason),
    /// Not begun: the backend is away.
    BackendDown,
    /// Done, but the answer is lost.
    AnswerLost,
    /// Not done, and the client cannot know.
    RequestLost,
    /// Acknowledged, but written over.
    Overwritten,
    /// Done, but answered so much later; on a stream, others are answered meanwhile.
    Late(Duration),
    /// Nothing answers until the script is changed.
    Dead,
    /// Accepted, and laid aside.
    LaidAside,
    /// Accepted, and never made.
    Stuck,
    /// Accepted, and not known any more.
    Forgotten,
}

/// An account service on one account in memory, which keeps its journal honestly whatever happens to the balance.
#[derive(Clone)]
pub(crate) struct Fake(Arc<Mutex<Books>>);

#[derive(Default)]
pub(crate) struct Books {
    pub(crate) balance: i64,
    pub(crate) entries: Vec<Entry>,
    pub(crate) faults: VecDeque<Fault>,
    /// Why the next settlements and readings are turned away.
    pub(crate) turned_away: VecDeque<Reason>,
    deducts: u64,
    pub(crate) stop_after: Option<(u64, Stopper)>,
    /// What was accepted and not made, by request id.
    queue: HashMap<String, (DeductRequest, Queued)>,
    /// By request id, until the deduction comes.
    holds: HashMap<String, Held>,
}

/// What becomes of an accepted deduction.
#[derive(Clone, Copy, PartialEq)]
enum Queued {
    /// It is made when somebody looks.
    Due,
    Refused,
    LaidAside,
    Stuck,
}

/// A deduction to be held: tells that it has come, and learns when it may go on.
struct Held {
    arrives: oneshot::Sender<()>,
    gone: oneshot::Receiver<()>,
}

impl Books {
    fn turn_away(&mut self) -> Result<(), Status> {
        self.turned_away.pop_front().map_or(Ok(()), |reason| Err(failure(Code::ResourceExhausted, reason)))
    }

    fn version(&self) -> i64 {
        self.entries.len() as i64
    }

    fn write(&mut self, request_id: &str, kind: EntryKind, delta: i64, version_before: i64, balance: i64) {
        self.balance = balance;
        self.entries.push(Entry {
            user_id: 1,
            version: self.version() + 1,
            request_id: request_id.to_owned(),
            kind: kind.into(),
            delta: Money::from_minor(delta).to_string(),
            balance_after: Money::from_minor(balance).to_string(),
            version_before,
            ..Entry::default()
        });
    }

    fn receipt(&self, request_id: &str) -> Option<DeductResponse> {
        let entry =
            self.entries.iter().find(|entry| entry.request_id == request_id && entry.kind() == EntryKind::Deduct)?;
        Some(DeductResponse {
            user_id: 1,
            balance: entry.balance_after.clone(),
            version: entry.version,
            version_before: entry.version_before,
            strategy: "fake".to_owned(),
            attempts: 1,
            request_id: request_id.to_owned(),
        })
    }

    /// A deduction, on the newest value or, for the overwriter, on the one before it.
    fn deduct(&mut self, request: &DeductRequest, stale: bool) -> Result<DeductResponse, Status> {
        let amount = Money::parse(&request.amount).unwrap().minor();
        let is_void = |entry: &Entry| entry.request_id == request.request_id && entry.kind() == EntryKind::Void;
        if self.entries.iter().any(is_void) {
            return Err(failure(Code::InvalidArgument, Reason::RequestIdReused));
        }
        if self.receipt(&request.request_id).is_none() {
            let newest = self.version();
            let (read, version_before) = match self.entries.last() {
                Some(last) if stale && newest > 1 => {
                    let seen = Money::parse_signed(&self.entries[last.version_before as usize - 1].balance_after);
                    (seen.unwrap().minor(), last.version_before)
                }
                _ => (self.balance, newest),
            };
            if read < amount {
                return Err(failure(Code::FailedPrecondition, Reason::InsufficientBalance));
            }
            self.write(&request.request_id, EntryKind::Deduct, -amount, version_before, read - amount);
        }
        Ok(self.receipt(&request.request_id).unwrap())
    }
}

impl Books {
    /// Accepts a deduction as the next fault wants it.
    fn accept(&mut self, request: &DeductRequest) -> Result<(), Status> {
        let fault = self.faults.pop_front();
        let queued = match fault {
            None | Some(Fault::AnswerLost) => Some(Queued::Due),
            Some(Fault::LaidAside) => Some(Queued::LaidAside),
            Some(Fault::Stuck) => Some(Queued::Stuck),
            Some(Fault::Forgotten) => None,
            Some(Fault::TurnedAway(reason)) => return Err(failure(Code::ResourceExhausted, reason)),
            fault => return Err(Status::unimplemented(format!("{fault:?}"))),
        };
        if let Some(queued) = queued {
            self.queue.insert(request.request_id.clone(), (request.clone(), queued));
        }
        match fault {
            Some(Fault::AnswerLost) => Err(failure(Code::DeadlineExceeded, Reason::OutcomeUnknown)),
            _ => Ok(()),
        }
    }

    /// Makes what is due.
    fn work_off(&mut self) {
        let due = self.queue.extract_if(|_, (_, queued)| *queued == Queued::Due).collect::<Vec<_>>();
        for (request_id, (request, _)) in due {
            if self.deduct(&request, false).is_err() {
                let (version, balance) = (self.version(), self.balance);
                self.write(&request_id, EntryKind::Void, 0, version, balance);
                self.queue.insert(request_id, (request, Queued::Refused));
            }
        }
    }

    /// What the next fault makes of a deduction, and how late it is told.
    fn answer(&mut self, request: &DeductRequest) -> (Result<DeductResponse, Status>, Duration) {
        self.deducts += 1;
        if let Some((after, stopper)) = &self.stop_after
            && self.deducts >= *after
        {
            stopper.stop();
        }
        let fault = match self.faults.front() {
            Some(Fault::Dead) => Some(Fault::Dead),
            _ => self.faults.pop_front(),
        };
        let late = if let Some(Fault::Late(by)) = fault { by } else { Duration::ZERO };
        let answer = match fault {
            None | Some(Fault::Late(_)) => self.deduct(request, false),
            Some(Fault::Overwritten) => self.deduct(request, true),
            Some(Fault::TurnedAway(reason)) => Err(failure(Code::Aborted, reason)),
            Some(Fault::BackendDown) => Err(failure(Code::Unavailable, Reason::BackendDown)),
            Some(Fault::RequestLost | Fault::Dead | Fault::LaidAside | Fault::Stuck | Fault::Forgotten) => {
                Err(Status::unavailable("connection reset"))
            }
            Some(Fault::AnswerLost) => {
                let lost = |_| Err(failure(Code::Unknown, Reason::OutcomeUnknown));
                self.deduct(request, false).and_then(lost)
            }
        };
        (answer, late)
    }
}

fn failure(code: Code, reason: Reason) -> Status {
    Status::with_error_details(
        code,
        "as scripted",
        ErrorDetails::with_error_info(reason.as_str(), ERROR_DOMAIN, HashMap::new()),
    )
}

impl Fake {
    pub(crate) fn new(faults: impl IntoIterator<Item = Fault>) -> Self {
        Self(Arc::new(Mutex::new(Books { faults: faults.into_iter().collect(), ..Books::default() })))
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap()
    }

    pub(crate) async fn serve(&self) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = Server::builder()
            .add_service(AccountServiceServer::new(self.clone()))
            .add_service(LabServiceServer::new(self.clone()));
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        Client::connect_lazy(&address).unwrap()
    }
}

#[tonic::async_trait]
impl AccountService for Fake {
    async fn open_account(
        &self,
        request: Request<OpenAccountRequest>,
    ) -> Result<Response<OpenAccountResponse>, Status> {
        let request = request.into_inner();
        let opening = Money::parse(&request.opening_balance).unwrap().minor();
        let mut books = self.books();
        // There is one account; the newest is the one that counts.
        books.entries.clear();
        books.write(&request.request_id, EntryKind::Open, opening, 0, opening);
        let answer =
            OpenAccountResponse { user_id: 1, balance: request.opening_balance, version: 1, ..Default::default() };
        Ok(Response::new(answer))
    }

    async fn deduct(&self, request: Request<DeductRequest>) -> Result<Response<DeductResponse>, Status> {
        let request = request.into_inner();
        let held = self.books().holds.remove(&request.request_id);
        if let Some(Held { arrives, gone }) = held {
            let _ = arrives.send(());
            let _ = gone.await;
        }
        let (answer, late) = self.books().answer(&request);
        tokio::time::sleep(late).await;
        answer.map(Response::new)
    }

    async fn get_deduction(
        &self,
        request: Request<GetDeductionRequest>,
    ) -> Result<Response<GetDeductionResponse>, Status> {
        let request = request.into_inner();
        let mut books = self.books();
        books.turn_away()?;
        books.work_off();
        let reason = |reason: Reason| reason.as_str().to_owned();
        let queued = books.queue.get(&request.request_id).map(|(_, queued)| match queued {
            Queued::Due | Queued::Stuck => (DeductionState::Pending, String::new()),
            Queued::LaidAside => (DeductionState::DeadLettered, reason(Reason::Contended)),
            Queued::Refused => (DeductionState::Failed, reason(Reason::InsufficientBalance)),
        });
        if let Some((state, reason)) = queued {
            return Ok(Response::new(GetDeductionResponse { state: state.into(), reason, ..Default::default() }));
        }
        if !request.resolve && books.receipt(&request.request_id).is_none() {
            let state = DeductionState::NotFound.into();
            return Ok(Response::new(GetDeductionResponse { state, ..Default::default() }));
        }
        let receipt = books.receipt(&request.request_id);
        let state = if receipt.is_some() { DeductionState::Succeeded } else { DeductionState::Voided };
        if receipt.is_none() {
            let (version, balance) = (books.version(), books.balance);
            books.write(&request.request_id, EntryKind::Void, 0, version, balance);
        }
        Ok(Response::new(GetDeductionResponse { state: state.into(), receipt, ..Default::default() }))
    }

    async fn get_balance(&self, _: Request<GetBalanceRequest>) -> Result<Response<GetBalanceResponse>, Status> {
        let mut books = self.books();
        books.turn_away()?;
        let balance = Money::from_minor(books.balance).to_string();
        Ok(Response::new(GetBalanceResponse { user_id: 1, balance, version: books.version(), entry_time: None }))
    }

    async fn list_entries(&self, _: Request<ListEntriesRequest>) -> Result<Response<ListEntriesResponse>, Status> {
        let mut books = self.books();
        books.turn_away()?;
        let entries = books.entries.clone();
        Ok(Response::new(ListEntriesResponse { entries, next_page_token: String::new() }))
    }

    async fn rebuild_balance(
        &self,
        _: Request<RebuildBalanceRequest>,
    ) -> Result<Response<RebuildBalanceResponse>, Status> {
        Err(Status::unimplemented("not attacked"))
    }

    async fn list_strategies(
        &self,
        _: Request<ListStrategiesRequest>,
    ) -> Result<Response<ListStrategiesResponse>, Status> {
        let strategy = |name: &str, available| Strategy {
            name: name.to_owned(),
            guarantee: Guarantee::Always.into(),
            available,
            unavailable_reason: "no such server".to_owned(),
            ..Default::default()
        };
        let strategies = vec![strategy("elsewhere", false), strategy("fake", true)];
        let store = "memory".to_owned();
        Ok(Response::new(ListStrategiesResponse { strategies, default_strategy: "fake".to_owned(), store }))
    }

    async fn deposit(&self, _: Request<DepositRequest>) -> Result<Response<DepositResponse>, Status> {
        Err(Status::unimplemented("not attacked"))
    }

    type DeductStreamStream = Pin<Box<dyn Stream<Item = Result<DeductStreamResponse, Status>> + Send>>;

    /// What a call of its own would fail with, an item fails with; but a status without a reason ends the stream.
    async fn deduct_stream(
        &self,
        items: Request<Streaming<DeductStreamRequest>>,
    ) -> Result<Response<Self::DeductStreamStream>, Status> {
        let fake = self.clone();
        let answers = items.into_inner().map(move |item| {
            let fake = fake.clone();
            async move {
                let deduct = item?.deduct.unwrap_or_default();
                let request_id = deduct.request_id.clone();
                let outcome = match fake.deduct(Request::new(deduct)).await {
                    Ok(receipt) => Outcome::Receipt(receipt.into_inner()),
                    Err(status) => match status.get_details_error_info() {
                        Some(info) => Outcome::Error(DeductError {
                            code: status.code().into(),
                            reason: info.reason,
                            message: status.message().to_owned(),
                        }),
                        None => return Err(status),
                    },
                };
                Ok(DeductStreamResponse { request_id, outcome: Some(outcome), replayed: false })
            }
        });
        Ok(Response::new(Box::pin(answers.buffer_unordered(STREAMED))))
    }

    async fn deduct_async(
        &self,
        request: Request<DeductAsyncRequest>,
    ) -> Result<Response<DeductAsyncResponse>, Status> {
        let DeductAsyncRequest { user_id, amount, request_id, strategy } = request.into_inner();
        self.books().accept(&DeductRequest { user_id, amount, request_id: request_id.clone(), strategy })?;
        let acceptance = Acceptance::Accepted.into();
        Ok(Response::new(DeductAsyncResponse { user_id, request_id, acceptance }))
    }

    type WatchDeductionStream = tokio_stream::Empty<Result<WatchDeductionResponse, Status>>;

    async fn watch_deduction(
        &self,
        _: Request<WatchDeductionRequest>,
    ) -> Result<Response<Self::WatchDeductionStream>, Status> {
        Err(Status::unimplemented("not attacked"))
    }

    type StreamEntriesStream = Pin<Box<dyn Stream<Item = Result<StreamEntriesResponse, Status>> + Send>>;

    async fn stream_entries(
        &self,
        request: Request<StreamEntriesRequest>,
    ) -> Result<Response<Self::StreamEntriesStream>, Status> {
        let after = request.into_inner().after_version as usize;
        let entries = stream::unfold((self.clone(), after), async |(fake, after)| {
            tokio::time::sleep(LOOKS).await;
            let entries = {
                let mut books = fake.books();
                books.work_off();
                books.entries.get(after..).unwrap_or_default().to_vec()
            };
            let after = after + entries.len();
            Some((Ok(StreamEntriesResponse { entries }), (fake, after)))
        });
        Ok(Response::new(Box::pin(entries)))
    }

    type StreamTimelineStream = tokio_stream::Empty<Result<StreamTimelineResponse, Status>>;

    async fn stream_timeline(
        &self,
        _: Request<StreamTimelineRequest>,
    ) -> Result<Response<Self::StreamTimelineStream>, Status> {
        Err(Status::unimplemented("not attacked"))
    }
}
