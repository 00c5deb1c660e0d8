//! `AccountService`: one method per RPC, each the same three steps (read, ask the ledger, answer).

use std::sync::Arc;

use tonic::{
    Request, Response, Status, Streaming,
    metadata::{MetadataMap, MetadataValue},
};
use zbl_proto::{
    CACHE_KEY, REPLAYED_KEY,
    v1::{self, account_service_server::AccountService, get_balance_request},
};

use super::{
    convert,
    deadline::{answer_by, within},
    deduct_stream::{self, Desk},
    deduction, entries, follow,
    status::{reason, status},
    tally::{self, Changes},
    timeline::Watch,
};
use crate::{
    account::{Direction, Receipt, Refusal},
    cache::{Freshness, Served},
    call::Call,
    error::Error,
    layer::Deadline,
    ledger::{Ledger, Resolve},
    limit::Limits,
    outbox::{Accepted, Outbox},
};

/// The service.
pub struct AccountRpc {
    ledger: Arc<Ledger>,
    outbox: Arc<Outbox>,
    limits: Arc<Limits>,
    changes: Arc<Changes>,
    watch: Watch,
}

impl AccountRpc {
    /// The service over a ledger and its outbox, which counts in `changes`, with the timeline's streams served by `watch`.
    pub fn new(
        ledger: Arc<Ledger>,
        outbox: Arc<Outbox>,
        limits: Arc<Limits>,
        changes: Arc<Changes>,
        watch: Watch,
    ) -> Self {
        tally::begin();
        Self { ledger, outbox, limits, changes, watch }
    }

    async fn apply(&self, request: &Request<impl Sized>, order: Order<'_>) -> Result<Receipt, Status> {
        let work = async {
            let change = convert::change(order.user_id, order.direction, order.amount, order.request_id)?;
            let strategy = convert::strategy(order.strategy)?;
            // Only changes: what one account can keep others waiting by is its row, and reads take no lock. Nor may
            // whoever asks what became of a change be refused.
            self.limits.change_of(change.user_id).await?;
            self.ledger.apply_by(answer_by(request.extensions()), change, strategy).await
        };
        let applied = match order.direction {
            Direction::Deduct => {
                let strategy = convert::counted_as(order.strategy, &self.ledger);
                tally::deduction(&self.changes, strategy, work).await
            }
            Direction::Deposit => tally::deposit(&self.changes, work).await,
        };
        applied.map_err(|error| status(&error))
    }

    async fn balance_as_of(
        &self,
        request: &Request<v1::GetBalanceRequest>,
        as_of: &get_balance_request::AsOf,
    ) -> Result<Response<v1::GetBalanceResponse>, Status> {
        let work = async {
            let user_id = convert::user_id(request.get_ref().user_id)?;
            self.ledger.entry_as_of(user_id, convert::as_of(as_of)?).await
        };
        let entry = within(request.extensions(), work).await.map_err(|error| {
            let mut status = status(&error);
            mark(status.metadata_mut(), Served::Bypass);
            status
        })?;
        let mut response = Response::new(v1::GetBalanceResponse {
            user_id: entry.user_id,
            balance: entry.balance_after.to_string(),
            version: entry.version,
            entry_time: Some(convert::timestamp(entry.created_at)),
        });
        mark(response.metadata_mut(), Served::Bypass);
        Ok(response)
    }
}

/// What Deduct and Deposit have in common.
struct Order<'a> {
    direction: Direction,
    user_id: i64,
    amount: &'a str,
    request_id: &'a str,
    strategy: &'a str,
}

/// An answer, marked when it repeats an earlier one.
pub(super) fn answer<T>(message: T, replayed: bool) -> Response<T> {
    let mut response = Response::new(message);
    if replayed {
        response.metadata_mut().insert(REPLAYED_KEY, MetadataValue::from_static("true"));
    }
    response
}

/// Says where a balance, or its absence, came from.
fn mark(metadata: &mut MetadataMap, served: Served) {
    metadata.insert(CACHE_KEY, MetadataValue::from_static(served.name()));
}

#[tonic::async_trait]
impl AccountService for AccountRpc {
    async fn open_account(
        &self,
        request: Request<v1::OpenAccountRequest>,
    ) -> Result<Response<v1::OpenAccountResponse>, Status> {
        let message = request.get_ref();
        let opening = if message.opening_balance.is_empty() { "0" } else { &message.opening_balance };
        let work = async {
            let user_id = convert::new_user_id(message.user_id)?;
            let balance = convert::balance("opening_balance", opening)?;
            let request_id = convert::request_id(&message.request_id)?;
            Ok::<_, Error>((self.ledger.open(user_id, balance, request_id).await?, request_id))
        };
        let (opened, request_id) = within(request.extensions(), work).await.map_err(|error| status(&error))?;
        let message = v1::OpenAccountResponse {
            user_id: opened.user_id,
            balance: opened.state.balance.to_string(),
            version: opened.state.version,
            request_id: request_id.to_string(),
        };
        Ok(answer(message, opened.replayed))
    }

    async fn deduct(&self, request: Request<v1::DeductRequest>) -> Result<Response<v1::DeductResponse>, Status> {
        let v1::DeductRequest { user_id, amount, request_id, strategy } = request.get_ref();
        let order = Order { direction: Direction::Deduct, user_id: *user_id, amount, request_id, strategy };
        let receipt = self.apply(&request, order).await?;
        let replayed = receipt.is_replay();
        Ok(answer(convert::deduct_response(receipt), replayed))
    }

    type DeductStreamStream = deduct_stream::Answers;

    async fn deduct_stream(
        &self,
        request: Request<Streaming<v1::DeductStreamRequest>>,
    ) -> Result<Response<Self::DeductStreamStream>, Status> {
        let desk = Desk {
            ledger: Arc::clone(&self.ledger),
            limits: Arc::clone(&self.limits),
            changes: Arc::clone(&self.changes),
            deadline: Deadline::of(request.extensions()),
            call: Call::current(),
        };
        Ok(Response::new(desk.answer(request.into_inner(), self.watch.stopping.clone())))
    }

    async fn deposit(&self, request: Request<v1::DepositRequest>) -> Result<Response<v1::DepositResponse>, Status> {
        let v1::DepositRequest { user_id, amount, request_id, strategy } = request.get_ref();
        let order = Order { direction: Direction::Deposit, user_id: *user_id, amount, request_id, strategy };
        let receipt = self.apply(&request, order).await?;
        let replayed = receipt.is_replay();
        Ok(answer(convert::deposit_response(receipt), replayed))
    }

    async fn get_balance(
        &self,
        request: Request<v1::GetBalanceRequest>,
    ) -> Result<Response<v1::GetBalanceResponse>, Status> {
        if let Some(as_of) = &request.get_ref().as_of {
            return self.balance_as_of(&request, as_of).await;
        }
        let freshness = if request.get_ref().consistent { Freshness::Consistent } else { Freshness::Cached };
        let work = async {
            let user_id = convert::user_id(request.get_ref().user_id)?;
            Ok::<_, Error>((user_id, self.ledger.balance(user_id, freshness).await?))
        };
        let (user_id, (found, served)) = within(request.extensions(), work).await.map_err(|error| status(&error))?;
        let Some(state) = found else {
            let mut status = status(&Refusal::AccountNotFound { user_id }.into());
            mark(status.metadata_mut(), served);
            return Err(status);
        };
        let balance = state.balance.to_string();
        let mut response =
            Response::new(v1::GetBalanceResponse { user_id, balance, version: state.version, entry_time: None });
        mark(response.metadata_mut(), served);
        Ok(response)
    }

    async fn rebuild_balance(
        &self,
        request: Request<v1::RebuildBalanceRequest>,
    ) -> Result<Response<v1::RebuildBalanceResponse>, Status> {
        let work = async {
            let user_id = convert::user_id(request.get_ref().user_id)?;
            let mending = convert::mending(request.get_ref())?;
            Ok::<_, Error>((self.ledger.rebuild(user_id, mending).await?, mending))
        };
        let (rebuilt, mending) = within(request.extensions(), work).await.map_err(|error| status(&error))?;
        Ok(answer(convert::rebuild_response(&rebuilt, mending), rebuilt.replayed))
    }

    async fn get_deduction(
        &self,
        request: Request<v1::GetDeductionRequest>,
    ) -> Result<Response<v1::GetDeductionResponse>, Status> {
        let message = request.get_ref();
        let resolve = if message.resolve { Resolve::Finally } else { Resolve::Look };
        let work = async {
            let user_id = convert::user_id(message.user_id)?;
            self.ledger.fate(user_id, convert::given_request_id(&message.request_id)?, resolve).await
        };
        let fate = within(request.extensions(), work).await.map_err(|error| status(&error))?;
        Ok(Response::new(deduction::told(fate)))
    }

    async fn deduct_async(
        &self,
        request: Request<v1::DeductAsyncRequest>,
    ) -> Result<Response<v1::DeductAsyncResponse>, Status> {
        let v1::DeductAsyncRequest { user_id, amount, request_id, strategy } = request.get_ref();
        let work = async {
            let change = convert::change(*user_id, Direction::Deduct, amount, request_id)?;
            let strategy = convert::strategy(strategy)?;
            self.limits.change_of(change.user_id).await?;
            Ok::<_, Error>((self.outbox.accept(change, strategy).await?, change))
        };
        let answered = within(request.extensions(), work).await;
        let outcome = match &answered {
            Ok((Accepted::Now, _)) => "accepted",
            Ok((Accepted::Before, _)) => "repeated",
            Ok((Accepted::Decided, _)) => "decided",
            Err(error) => reason(error).as_str(),
        };
        metrics::counter!("queue_acceptances_total", "outcome" => outcome).increment(1);
        let (accepted, change) = answered.map_err(|error| status(&error))?;
        let acceptance = match accepted {
            Accepted::Now | Accepted::Before => v1::Acceptance::Accepted,
            Accepted::Decided => v1::Acceptance::Decided,
        };
        let message = v1::DeductAsyncResponse {
            user_id: change.user_id,
            request_id: change.request_id.to_string(),
            acceptance: acceptance.into(),
        };
        Ok(answer(message, accepted != Accepted::Now))
    }

    type WatchDeductionStream = deduction::DeductionStream;

    async fn watch_deduction(
        &self,
        request: Request<v1::WatchDeductionRequest>,
    ) -> Result<Response<Self::WatchDeductionStream>, Status> {
        let stream = deduction::watch(&self.ledger, &self.watch, request.get_ref());
        stream.map(Response::new).map_err(|error| status(&error))
    }

    async fn list_entries(
        &self,
        request: Request<v1::ListEntriesRequest>,
    ) -> Result<Response<v1::ListEntriesResponse>, Status> {
        let work = entries::list(&self.ledger, request.get_ref());
        within(request.extensions(), work).await.map(Response::new).map_err(|error| status(&error))
    }

    type StreamEntriesStream = follow::EntryStream;

    async fn stream_entries(
        &self,
        request: Request<v1::StreamEntriesRequest>,
    ) -> Result<Response<Self::StreamEntriesStream>, Status> {
        let work = follow::follow(&self.ledger, &self.watch, request.get_ref());
        within(request.extensions(), work).await.map(Response::new).map_err(|error| status(&error))
    }

    async fn list_strategies(
        &self,
        _: Request<v1::ListStrategiesRequest>,
    ) -> Result<Response<v1::ListStrategiesResponse>, Status> {
        Ok(Response::new(v1::ListStrategiesResponse {
            strategies: self.ledger.strategies().map(convert::strategy_message).collect(),
            default_strategy: self.ledger.default_strategy().name.to_owned(),
            store: self.ledger.bench().store.name().to_owned(),
        }))
    }

    type StreamTimelineStream = super::timeline::EventStream;

    async fn stream_timeline(
        &self,
        request: Request<v1::StreamTimelineRequest>,
    ) -> Result<Response<Self::StreamTimelineStream>, Status> {
        self.watch.stream(request.get_ref()).map(Response::new).map_err(|error| status(&error))
    }
}
