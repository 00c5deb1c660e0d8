//! An account service that answers `Deduct`, `DeductAsync` and the streams from a script and writes down what it was asked.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};
use zbl_client::Client;
use zbl_proto::v1::account_service_server::{AccountService, AccountServiceServer};
use zbl_proto::v1::*;
use zbl_proto::{ERROR_DOMAIN, REPLAYED_KEY, Reason};

/// What a timeline stream sends before it ends, and how it ends.
pub(crate) type Session = Vec<Result<StreamTimelineResponse, Status>>;

/// What a stream of entries sends before it ends, and how it ends.
pub(crate) type Following = Vec<Result<StreamEntriesResponse, Status>>;

/// What a `WatchDeduction` sends before it ends, and how it ends.
pub(crate) type Watching = Vec<Result<WatchDeductionResponse, Status>>;

/// What one `DeductAsync` is answered.
pub(crate) type Accepting = Result<Acceptance, Status>;

/// What one `Deduct` is answered.
pub(crate) type Answer = Result<Response<DeductResponse>, Status>;

/// What one item of a `DeductStream` is answered, or how the stream breaks.
pub(crate) type ItemAnswer = Result<DeductStreamResponse, Status>;

#[derive(Clone, Default)]
pub(crate) struct Script {
    deducts: Arc<Mutex<VecDeque<Answer>>>,
    sessions: Arc<Mutex<VecDeque<Session>>>,
    followings: Arc<Mutex<VecDeque<Following>>>,
    acceptings: Arc<Mutex<VecDeque<Accepting>>>,
    watchings: Arc<Mutex<VecDeque<Watching>>>,
    lingering: bool,
    never_opening: bool,
    pages: Arc<Mutex<HashMap<String, ListEntriesResponse>>>,
    streamed: Arc<Mutex<Option<Vec<ItemAnswer>>>>,
    asked: Arc<Mutex<Asked>>,
}

#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) deducts: Vec<DeductRequest>,
    pub(crate) timelines: Vec<StreamTimelineRequest>,
    pub(crate) followed: Vec<StreamEntriesRequest>,
    pub(crate) accepted: Vec<DeductAsyncRequest>,
    pub(crate) watched: Vec<WatchDeductionRequest>,
    pub(crate) listed: Vec<ListEntriesRequest>,
    /// What the calls of the timeline said of their trace.
    pub(crate) parents: Vec<String>,
    pub(crate) streamed: Vec<DeductRequest>,
}

impl Script {
    pub(crate) fn deducts(self, answers: impl IntoIterator<Item = Answer>) -> Self {
        self.deducts.lock().unwrap().extend(answers);
        self
    }

    pub(crate) fn sessions(self, sessions: impl IntoIterator<Item = Session>) -> Self {
        self.sessions.lock().unwrap().extend(sessions);
        self
    }

    pub(crate) fn followings(self, followings: impl IntoIterator<Item = Following>) -> Self {
        self.followings.lock().unwrap().extend(followings);
        self
    }

    pub(crate) fn acceptings(self, answers: impl IntoIterator<Item = Accepting>) -> Self {
        self.acceptings.lock().unwrap().extend(answers);
        self
    }

    pub(crate) fn watchings(self, watchings: impl IntoIterator<Item = Watching>) -> Self {
        self.watchings.lock().unwrap().extend(watchings);
        self
    }

    /// Never answers the call that opens a `DeductStream`.
    pub(crate) fn never_opening(self) -> Self {
        Self { never_opening: true, ..self }
    }

    /// Keeps each session's stream open behind its last event.
    pub(crate) fn lingering(self) -> Self {
        Self { lingering: true, ..self }
    }

    /// What a `DeductStream` is answered once as many items have come; nothing more is read then. Without it, nothing is
    /// read at all.
    pub(crate) fn streams(self, answers: impl IntoIterator<Item = ItemAnswer>) -> Self {
        *self.streamed.lock().unwrap() = Some(answers.into_iter().collect());
        self
    }

    pub(crate) fn page(self, token: &str, page: ListEntriesResponse) -> Self {
        self.pages.lock().unwrap().insert(token.to_owned(), page);
        self
    }

    /// Serves the script on a free port; the runtime's end stops it.
    pub(crate) async fn serve(&self) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = AccountServiceServer::new(self.clone());
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
        Client::connect_lazy(&address.to_string()).unwrap()
    }

    pub(crate) fn asked(&self) -> std::sync::MutexGuard<'_, Asked> {
        self.asked.lock().unwrap()
    }
}

/// A status as the service makes it.
pub(crate) fn failure(code: Code, reason: Reason) -> Status {
    let details = ErrorDetails::with_error_info(reason.as_str(), ERROR_DOMAIN, HashMap::new());
    Status::with_error_details(code, "as scripted", details)
}

/// A receipt for the id, replayed or fresh.
pub(crate) fn receipt(request_id: uuid::Uuid, replayed: &'static str) -> Response<DeductResponse> {
    let mut answer = Response::new(DeductResponse {
        user_id: 1,
        balance: "990.00".to_owned(),
        version: 2,
        version_before: 1,
        strategy: "atomic".to_owned(),
        attempts: 1,
        request_id: request_id.to_string(),
    });
    answer.metadata_mut().insert(REPLAYED_KEY, replayed.parse().unwrap());
    answer
}

#[tonic::async_trait]
impl AccountService for Script {
    async fn deduct(&self, request: Request<DeductRequest>) -> Result<Response<DeductResponse>, Status> {
        self.asked().deducts.push(request.into_inner());
        self.deducts.lock().unwrap().pop_front().unwrap_or_else(|| Err(Status::resource_exhausted("script ended")))
    }

    type StreamTimelineStream = Pin<Box<dyn Stream<Item = Result<StreamTimelineResponse, Status>> + Send>>;

    async fn stream_timeline(
        &self,
        request: Request<StreamTimelineRequest>,
    ) -> Result<Response<Self::StreamTimelineStream>, Status> {
        let parent = request.metadata().get("traceparent").map(|parent| parent.to_str().unwrap().to_owned());
        self.asked().parents.extend(parent);
        self.asked().timelines.push(request.into_inner());
        let session = self.sessions.lock().unwrap().pop_front();
        let session = session.ok_or_else(|| Status::unimplemented("script ended"))?;
        let told = tokio_stream::iter(session);
        let stream: Self::StreamTimelineStream =
            if self.lingering { Box::pin(told.chain(tokio_stream::pending())) } else { Box::pin(told) };
        Ok(Response::new(stream))
    }

    async fn deduct_async(
        &self,
        request: Request<DeductAsyncRequest>,
    ) -> Result<Response<DeductAsyncResponse>, Status> {
        let DeductAsyncRequest { user_id, request_id, .. } = request.get_ref().clone();
        self.asked().accepted.push(request.into_inner());
        let accepting = self.acceptings.lock().unwrap().pop_front();
        let acceptance = accepting.unwrap_or_else(|| Err(Status::resource_exhausted("script ended")))?;
        Ok(Response::new(DeductAsyncResponse { user_id, request_id, acceptance: acceptance.into() }))
    }

    type WatchDeductionStream = Pin<Box<dyn Stream<Item = Result<WatchDeductionResponse, Status>> + Send>>;

    async fn watch_deduction(
        &self,
        request: Request<WatchDeductionRequest>,
    ) -> Result<Response<Self::WatchDeductionStream>, Status> {
        self.asked().watched.push(request.into_inner());
        let watching = self.watchings.lock().unwrap().pop_front();
        let watching = watching.ok_or_else(|| Status::unimplemented("script ended"))?;
        let told = tokio_stream::iter(watching);
        let stream: Self::WatchDeductionStream =
            if self.lingering { Box::pin(told.chain(tokio_stream::pending())) } else { Box::pin(told) };
        Ok(Response::new(stream))
    }

    type StreamEntriesStream = Pin<Box<dyn Stream<Item = Result<StreamEntriesResponse, Status>> + Send>>;

    async fn stream_entries(
        &self,
        request: Request<StreamEntriesRequest>,
    ) -> Result<Response<Self::StreamEntriesStream>, Status> {
        self.asked().followed.push(request.into_inner());
        let following = self.followings.lock().unwrap().pop_front();
        let following = following.ok_or_else(|| Status::unimplemented("script ended"))?;
        Ok(Response::new(Box::pin(tokio_stream::iter(following))))
    }

    async fn list_entries(
        &self,
        request: Request<ListEntriesRequest>,
    ) -> Result<Response<ListEntriesResponse>, Status> {
        let request = request.into_inner();
        let page = self.pages.lock().unwrap().get(&request.page_token).cloned();
        self.asked().listed.push(request);
        page.map(Response::new).ok_or_else(|| Status::not_found("no such page"))
    }

    async fn open_account(&self, _: Request<OpenAccountRequest>) -> Result<Response<OpenAccountResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    type DeductStreamStream = ReceiverStream<ItemAnswer>;

    async fn deduct_stream(
        &self,
        items: Request<tonic::Streaming<DeductStreamRequest>>,
    ) -> Result<Response<Self::DeductStreamStream>, Status> {
        if self.never_opening {
            std::future::pending::<()>().await;
        }
        let (sender, answers) = mpsc::channel(1);
        let (script, mut items) = (self.clone(), items.into_inner());
        tokio::spawn(async move {
            let Some(told) = script.streamed.lock().unwrap().take() else {
                // The stream stays open, and unread.
                sender.closed().await;
                drop(items);
                return;
            };
            for _ in 0..told.len() {
                let item = items.message().await.unwrap().unwrap();
                script.asked().streamed.push(item.deduct.unwrap());
            }
            for answer in told {
                sender.send(answer).await.unwrap();
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn deposit(&self, _: Request<DepositRequest>) -> Result<Response<DepositResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn get_balance(&self, _: Request<GetBalanceRequest>) -> Result<Response<GetBalanceResponse>, Status> {
        // A balance no money type holds: the client must refuse it, not round it.
        Ok(Response::new(GetBalanceResponse { user_id: 1, balance: "9.999".to_owned(), version: 1, entry_time: None }))
    }

    async fn get_deduction(&self, _: Request<GetDeductionRequest>) -> Result<Response<GetDeductionResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn rebuild_balance(
        &self,
        _: Request<RebuildBalanceRequest>,
    ) -> Result<Response<RebuildBalanceResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn list_strategies(
        &self,
        _: Request<ListStrategiesRequest>,
    ) -> Result<Response<ListStrategiesResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
}
