//! The client itself: one method per call of the contract. Every call has a deadline, and every call that changes
//! something carries a request id made here or by the caller, which is what makes repeating it safe.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Uri};
use tokio::io::DuplexStream;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use uuid::Uuid;
use zbl_proto::v1::account_service_client::AccountServiceClient;
use zbl_proto::v1::lab_service_client::LabServiceClient;
use zbl_proto::v1::queue_service_client::QueueServiceClient;
use zbl_proto::v1::report_service_client::ReportServiceClient;
use zbl_proto::{Effect, Money, REPLAYED_KEY, v1};
use zbl_trace::Tracer;

use crate::account::{
    self, Account, AsOf, Change, Entry, EntryPage, Fate, Mending, PastBalance, Rebuilt, Receipt, Strategies,
};
use crate::address::Server;
use crate::channel::Calls;
use crate::connection::{Connection, Medium, Route};
use crate::credentials::{Bearer, Credentials};
use crate::deduct_stream::{DeductStream, NotOpened, Unanswered};
use crate::entries::{EntryFilter, EntryStream};
use crate::timeline::{Start, Timeline};
use crate::{AddressError, Error, Hold, Retry};

/// The deadline of a call unless [`Client::with_deadline`] sets another: long for a transaction, short for a person.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

/// The longest deadline: no call of this service is worth a day's wait, and `grpc-timeout` has eight digits, which tonic
/// panics rather than exceeds.
pub const LONGEST_DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);

/// Entries per page when a whole journal is read: the most the server gives.
const JOURNAL_PAGE: i32 = 1_000;

/// The longest journal that is read, ten million entries: some 200 bytes each, so about 2 GB when all are kept.
const JOURNAL_PAGES: usize = 10_000;

/// A connection to one server. Clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    address: String,
    server: Server,
    stubs: Stubs,
    deadline: Duration,
    retry: Retry,
}

/// The generated stubs over one channel.
#[derive(Clone, Debug)]
pub(crate) struct Stubs {
    calls: Calls,
    pub(crate) account: AccountServiceClient<Calls>,
    lab: LabServiceClient<Calls>,
    pub(crate) queue: QueueServiceClient<Calls>,
    pub(crate) report: ReportServiceClient<Calls>,
}

impl Stubs {
    fn over(calls: Calls) -> Self {
        let (account, lab) = (AccountServiceClient::new(calls.clone()), LabServiceClient::new(calls.clone()));
        let (queue, report) = (QueueServiceClient::new(calls.clone()), ReportServiceClient::new(calls.clone()));
        Self { calls, account, lab, queue, report }
    }
}

impl Client {
    /// A client of the server at `http://host:port`, `https://host:port` or `host:port`, which is connected to when the
    /// first call is made and reconnected to when the connection is lost. It shows no token, and trusts whom the system
    /// trusts; see [`Client::connect_lazy_with`].
    ///
    /// # Errors
    /// [`AddressError`] names what is wrong with a malformed address.
    ///
    /// # Panics
    /// Outside a Tokio runtime, like everything that opens a socket.
    pub fn connect_lazy(address: &str) -> Result<Self, AddressError> {
        Self::connect_lazy_with(address, &Credentials::default())
    }

    /// The same with credentials. Certificates are for `https` alone.
    ///
    /// # Errors
    /// [`AddressError`], also where the address and the credentials do not go together.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn connect_lazy_with(address: &str, credentials: &Credentials) -> Result<Self, AddressError> {
        let server = Server::at(address, credentials)?;
        Ok(Self::of(address.to_owned(), server, credentials.bearer().clone()))
    }

    /// A client of a server in this process, at the other end of connections that `dial` makes.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn inside(
        credentials: &Credentials,
        dial: impl Fn() -> io::Result<DuplexStream> + Send + Sync + 'static,
    ) -> Self {
        let route = Route { authority: "this process".to_owned(), medium: Medium::Inside(Arc::new(dial)) };
        Self::of(route.authority.clone(), Server::inside("http://localhost", route), credentials.bearer().clone())
    }

    fn of(address: String, server: Server, bearer: Bearer) -> Self {
        let stubs = Stubs::over(Calls { channel: server.channel(), bearer, tracer: None });
        Self { address, server, stubs, deadline: DEFAULT_DEADLINE, retry: Retry::default() }
    }

    /// The same client over a connection of its own.
    #[must_use]
    pub fn apart(&self) -> Self {
        let calls = Calls { channel: self.server.channel(), ..self.stubs.calls.clone() };
        Self { stubs: Stubs::over(calls), ..self.clone() }
    }

    /// A bare connection to the server, for callers with a transport of their own: show [`Client::authorization`] with
    /// each call.
    ///
    /// # Errors
    /// What stood in the way.
    pub async fn dial(&self) -> Result<Connection, Error> {
        self.server.route.dial().await.map_err(Error::lost)
    }

    /// The `authorization` of calls, where there is a token.
    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.stubs.calls.bearer.header()
    }

    /// The scheme, host and port of the server, as calls name it.
    pub fn uri(&self) -> &Uri {
        self.server.uri()
    }

    /// The same client with another deadline per try, at most [`LONGEST_DEADLINE`].
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline: deadline.min(LONGEST_DEADLINE), ..self }
    }

    /// The same client with another way to repeat calls.
    #[must_use]
    pub fn with_retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// The same client, whose calls begin traces. Without this they say nothing of a trace.
    #[must_use]
    pub fn with_tracer(self, tracer: Tracer) -> Self {
        let calls = Calls { tracer: Some(tracer), ..self.stubs.calls };
        Self { stubs: Stubs::over(calls), ..self }
    }

    /// What begins the traces of its calls.
    pub fn tracer(&self) -> Option<&Tracer> {
        self.stubs.calls.tracer.as_ref()
    }

    /// The address as it was given.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The host and port of the address.
    pub fn authority(&self) -> &str {
        &self.server.route.authority
    }

    /// The deadline per try.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    pub(crate) fn stubs(&self) -> Stubs {
        self.stubs.clone()
    }

    /// Opens an account with a balance; without an id the server picks one.
    ///
    /// # Errors
    /// Any [`Error`]; [`zbl_proto::Reason::AccountExists`] when the id is taken.
    pub async fn open_account(&self, user_id: Option<i64>, opening: Money) -> Result<Account, Error> {
        let message = v1::OpenAccountRequest {
            user_id: user_id.unwrap_or(0),
            opening_balance: opening.to_string(),
            request_id: Uuid::new_v4().to_string(),
        };
        let call = |mut stubs: Stubs, request| async move { stubs.account.open_account(request).await };
        let answer = self.call(message, call).await?.into_inner();
        account(answer.user_id, &answer.balance, answer.version)
    }

    /// Takes money.
    ///
    /// # Errors
    /// Any [`Error`]; judge what happened by [`Error::effect`].
    pub async fn deduct(&self, change: &Change) -> Result<Receipt, Error> {
        let message = account::deduct_request(change);
        let call = |mut stubs: Stubs, request| async move { stubs.account.deduct(request).await };
        let answer = self.call(message, call).await?;
        let replayed = is_replayed(&answer);
        account::receipt(answer.into_inner(), replayed)
    }

    /// Takes money many times over one stream, for callers that have many deductions at once: it spares each the cost of
    /// a call of its own. Answers come as deductions end, in any order, each with its request id; a deduction that fails
    /// does not end the stream. The stream ends when `changes` has ended and all is answered.
    ///
    /// `changes` is asked for the next one only as fast as the server takes them, and the server takes them only as fast
    /// as answers are read: read answers while sending. A deduction has no deadline of its own here, and none is repeated.
    ///
    /// ```no_run
    /// # async fn example(client: zbl_client::Client, payroll: Vec<zbl_client::Change>) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut answers = client.deduct_stream(tokio_stream::iter(payroll)).await?;
    /// while let Some(answered) = answers.next().await {
    ///     match answered {
    ///         Ok(answered) => println!("{}: {:?}", answered.request_id, answered.result),
    ///         // What is in `answers.unanswered()` may or may not have taken effect.
    ///         Err(broken) => return Err(broken.into()),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NotOpened`] when the stream cannot be opened within the deadline, with what `changes` had given by then: it may
    /// have taken effect, if the connection broke after it was sent.
    pub async fn deduct_stream<S>(&self, changes: S) -> Result<DeductStream, NotOpened>
    where
        S: Stream<Item = Change> + Send + 'static,
    {
        let unanswered = Unanswered::default();
        let mut stubs = self.stubs();
        let opened = stubs.account.deduct_stream(unanswered.note(changes));
        let error = match tokio::time::timeout(self.deadline, opened).await {
            Ok(Ok(answers)) => return Ok(DeductStream::new(answers.into_inner(), unanswered)),
            Ok(Err(status)) => Error::from_status(&status),
            Err(_) => Error::no_answer_within(self.deadline),
        };
        Err(NotOpened { error, unanswered: unanswered.changes() })
    }

    /// Adds money.
    ///
    /// # Errors
    /// Any [`Error`]; judge what happened by [`Error::effect`].
    pub async fn deposit(&self, change: &Change) -> Result<Receipt, Error> {
        let message = v1::DepositRequest {
            user_id: change.user_id,
            amount: change.amount.to_string(),
            request_id: change.request_id.to_string(),
            strategy: change.strategy.clone(),
        };
        let call = |mut stubs: Stubs, request| async move { stubs.account.deposit(request).await };
        let answer = self.call(message, call).await?;
        let replayed = is_replayed(&answer);
        account::receipt(account::deposit_as_deduction(answer.into_inner()), replayed)
    }

    /// Reads the stored balance.
    ///
    /// # Errors
    /// Any [`Error`]; reading changes nothing, whatever the error's effect says.
    pub async fn balance(&self, user_id: i64) -> Result<Account, Error> {
        let call = |mut stubs: Stubs, request| async move { stubs.account.get_balance(request).await };
        let answer =
            self.call(v1::GetBalanceRequest { user_id, consistent: false, as_of: None }, call).await?.into_inner();
        account(answer.user_id, &answer.balance, answer.version)
    }

    /// Reads what an account held once: the newest entry as of then.
    ///
    /// # Errors
    /// Any [`Error`]; [`Reason::InvalidAsOf`](crate::Reason::InvalidAsOf) for a version that the account has not reached,
    /// [`Reason::AccountNotFound`](crate::Reason::AccountNotFound) for a time before it was opened.
    pub async fn balance_as_of(&self, user_id: i64, as_of: AsOf) -> Result<PastBalance, Error> {
        let call = |mut stubs: Stubs, request| async move { stubs.account.get_balance(request).await };
        let message = v1::GetBalanceRequest { user_id, consistent: false, as_of: Some(as_of.into()) };
        account::past_balance(&self.call(message, call).await?.into_inner())
    }

    /// Holds the stored balance against its journal, and sets it right where they differ, if `mending` says so. It reads
    /// every entry back to the newest OPEN, RESET or REPAIR: give a long journal a longer deadline.
    ///
    /// # Errors
    /// Any [`Error`]; after one whose effect is unknown, repeat the call under the same request id.
    pub async fn rebuild_balance(&self, user_id: i64, mending: Mending) -> Result<Rebuilt, Error> {
        let call = |mut stubs: Stubs, request| async move { stubs.account.rebuild_balance(request).await };
        let answer = self.call(mending.request(user_id), call).await?;
        let replayed = is_replayed(&answer);
        account::rebuilt(answer.into_inner(), replayed)
    }

    /// Looks a request id up as things stand. "Not found" proves nothing while an attempt may be in flight; use
    /// [`Client::resolve`] to know.
    ///
    /// # Errors
    /// Any [`Error`]; looking changes nothing.
    pub async fn look_up(&self, user_id: i64, request_id: Uuid) -> Result<Fate, Error> {
        self.get_deduction(user_id, request_id, false).await
    }

    /// Settles a request id for good: its receipt when it took effect, `None` when it did not and, from now on, never
    /// will.
    ///
    /// # Errors
    /// Any [`Error`]; the request is then as unsettled as before, and asking again is safe.
    pub async fn resolve(&self, user_id: i64, request_id: Uuid) -> Result<Option<Receipt>, Error> {
        match self.settle(user_id, request_id).await? {
            Fate::Succeeded(receipt) => Ok(Some(receipt)),
            // The latter where the same id was given to DeductAsync.
            Fate::Voided | Fate::Failed(_) => Ok(None),
            Fate::NotFound | Fate::Pending | Fate::DeadLettered(_) => Err(Error::undecided(request_id)),
        }
    }

    /// The same for a request id that was given to [`Client::deduct_async`]: what was accepted stays so and is told as it
    /// stands, [`Fate::Pending`] perhaps; anything else is settled for good.
    ///
    /// # Errors
    /// Any [`Error`]; [`Reason::Contended`](crate::Reason::Contended) while a call may yet accept it. Asking again is safe.
    pub async fn settle(&self, user_id: i64, request_id: Uuid) -> Result<Fate, Error> {
        match self.get_deduction(user_id, request_id, true).await? {
            Fate::NotFound => Err(Error::broken_answer("NOT_FOUND in answer to resolve=true")),
            fate => Ok(fate),
        }
    }

    async fn get_deduction(&self, user_id: i64, request_id: Uuid, resolve: bool) -> Result<Fate, Error> {
        let message = v1::GetDeductionRequest { user_id, request_id: request_id.to_string(), resolve };
        let call = |mut stubs: Stubs, request| async move { stubs.account.get_deduction(request).await };
        account::fate(self.call(message, call).await?.into_inner())
    }

    /// Reads one page of the journal, oldest first: at most `page_size` entries (the server's default when 0), from the
    /// beginning or from where `after` says.
    ///
    /// # Errors
    /// Any [`Error`]; reading changes nothing.
    pub async fn entries(&self, user_id: i64, page_size: i32, after: Option<&str>) -> Result<EntryPage, Error> {
        self.entries_where(user_id, &EntryFilter::default(), page_size, after).await
    }

    /// Reads one page of those entries that the filter admits. It may be short, or empty, and still not be the last: that
    /// one has no [`EntryPage::next`]. A further page has to be asked for with the same filter.
    ///
    /// # Errors
    /// Any [`Error`]; reading changes nothing.
    pub async fn entries_where(
        &self,
        user_id: i64,
        filter: &EntryFilter,
        page_size: i32,
        after: Option<&str>,
    ) -> Result<EntryPage, Error> {
        let message = filter.request(user_id, page_size, after);
        let call = |mut stubs: Stubs, request| async move { stubs.account.list_entries(request).await };
        account::entry_page(self.call(message, call).await?.into_inner())
    }

    /// Follows an account's journal from behind a version (0: from its opening) and for ever, across reconnections: every
    /// entry once and in order, whichever server wrote it.
    pub fn stream_entries(&self, user_id: i64, after_version: i64) -> EntryStream {
        EntryStream::new(self.clone(), user_id, after_version)
    }

    /// Reads the whole journal from `first_version` on, in order of version.
    ///
    /// # Errors
    /// Any [`Error`]; also when more than ten million entries would have to be held.
    pub async fn journal_from(&self, user_id: i64, first_version: i64) -> Result<Vec<Entry>, Error> {
        let mut journal = Vec::new();
        let mut after = None;
        for _ in 0..JOURNAL_PAGES {
            let page = self.entries(user_id, JOURNAL_PAGE, after.as_deref()).await?;
            journal.extend(page.entries.into_iter().filter(|entry| entry.version >= first_version));
            if page.next.is_none() {
                return Ok(journal);
            }
            after = page.next;
        }
        Err(Error::from_status(&Status::out_of_range(format!(
            "the journal of account {user_id} has more than {JOURNAL_PAGES} pages; use an account with fewer entries"
        ))))
    }

    /// Lists the strategies, what they promise and whether they can be used.
    ///
    /// # Errors
    /// Any [`Error`]; reading changes nothing.
    pub async fn strategies(&self) -> Result<Strategies, Error> {
        let call = |mut stubs: Stubs, request| async move { stubs.account.list_strategies(request).await };
        Ok(account::strategies(self.call(v1::ListStrategiesRequest {}, call).await?.into_inner()))
    }

    /// Sets an account's balance by a journaled RESET, opening the account when there is none. Only where the lab is on.
    ///
    /// # Errors
    /// Any [`Error`]; code `Unimplemented` or a lab reason where the lab is off.
    pub async fn reset_account(&self, user_id: i64, balance: Money) -> Result<Account, Error> {
        let message =
            v1::ResetAccountRequest { user_id, balance: balance.to_string(), request_id: Uuid::new_v4().to_string() };
        let call = |mut stubs: Stubs, request| async move { stubs.lab.reset_account(request).await };
        let answer = self.call(message, call).await?.into_inner();
        account(answer.user_id, &answer.balance, answer.version)
    }

    /// Asks what the server is doing. Only where the lab is on.
    ///
    /// # Errors
    /// Any [`Error`]; asking changes nothing.
    pub async fn status(&self) -> Result<v1::ServerStatus, Error> {
        let call = |mut stubs: Stubs, request| async move { stubs.lab.get_status(request).await };
        let answer = self.call(v1::GetStatusRequest {}, call).await?.into_inner();
        answer.status.ok_or_else(|| Error::broken_answer("it has no status"))
    }

    /// Holds the operation that will be called under `request_id` before one of its phases, in whatever attempt it comes
    /// there, until the [`Hold`] is dropped. Only where the lab is on. Call the operation afterwards. A further hold on
    /// the same operation takes the place of the first for all places it has not come to yet.
    ///
    /// # Errors
    /// Any [`Error`]; nothing is held then.
    pub async fn hold(&self, request_id: Uuid, phase: v1::Phase) -> Result<Hold, Error> {
        let message = v1::HoldOperationRequest { request_id: request_id.to_string(), phase: phase.into() };
        let mut lab = self.stubs().lab;
        let armed = async {
            let events = lab.hold_operation(message).await.map_err(|status| Error::from_status(&status))?;
            Hold::armed(events.into_inner()).await
        };
        tokio::time::timeout(self.deadline, armed).await.unwrap_or_else(|_| Err(Error::no_answer_within(self.deadline)))
    }

    /// Watches what operations do, on one account or on all, across reconnections.
    pub fn timeline(&self, user_id: Option<i64>, start: Start) -> Timeline {
        Timeline::new(self.clone(), user_id, start)
    }

    /// Makes a call, and makes it again while its failure is transient and [`Retry`] allows.
    pub(crate) async fn call<M, R, F>(
        &self,
        message: M,
        send: impl Fn(Stubs, Request<M>) -> F,
    ) -> Result<Response<R>, Error>
    where
        M: Clone,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let mut backoff = self.retry.backoff();
        let mut effect = Effect::None;
        let mut tries = 0;
        loop {
            let mut request = Request::new(message.clone());
            request.set_timeout(self.deadline);
            let error = match tokio::time::timeout(self.deadline, send(self.stubs(), request)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) => Error::from_status(&status),
                Err(_) => Error::no_answer_within(self.deadline),
            }
            .after(effect);
            tries += 1;
            if tries >= self.retry.tries || !error.is_transient() {
                return Err(error);
            }
            effect = error.effect();
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}

fn account(user_id: i64, balance: &str, version: i64) -> Result<Account, Error> {
    Ok(Account { user_id, balance: account::money("balance", balance)?, version })
}

fn is_replayed<T>(answer: &Response<T>) -> bool {
    answer.metadata().get(REPLAYED_KEY).is_some_and(|value| value == "true")
}
