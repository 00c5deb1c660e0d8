//! Deductions to be made later: how they are accepted and followed to their end, and the queue in between, for those who
//! operate it. It refuses to take an acceptance for a deduction: what became of it is asked for.

use std::time::Duration;

use tonic::Request;
use uuid::Uuid;
use zbl_proto::v1::{self, WatchDeductionRequest, WatchDeductionResponse};

use crate::account::{self, Change, Fate};
use crate::calls::Stubs;
use crate::link::{Link, Linked};
use crate::{Client, Error, Retry};

/// What it means that a deduction was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// It will be made or refused, once, whatever is restarted meanwhile.
    Accepted,
    /// An earlier call under the same request id and with the same payload is decided by now; [`Client::look_up`] says how.
    Decided,
}

/// What a [`FateStream`] yields.
#[derive(Clone, Debug)]
pub enum FateStreamItem {
    /// The stream is open, for the first time or again.
    Connected,
    /// The stream was lost or could not be opened; it will be tried again.
    Disconnected {
        /// Why.
        error: Error,
        /// When it will be tried again, from now.
        retry_in: Duration,
    },
    /// What has become of the request so far; the same again as a sign of life.
    Fate(Fate),
}

/// What becomes of a request, across reconnections. Ask [`FateStream::next`] for one item after the other.
#[derive(Debug)]
pub struct FateStream {
    client: Client,
    user_id: i64,
    request_id: Uuid,
    link: Link<WatchDeductionResponse>,
    is_decided: bool,
}

impl FateStream {
    /// The next item, as long as it takes; `None` behind one that [is decided](Fate::is_decided). Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// An [`Error`] that no reconnection would cure; the stream has ended then.
    pub async fn next(&mut self) -> Result<Option<FateStreamItem>, Error> {
        if self.is_decided {
            return Ok(None);
        }
        let item = match self.link.next().await {
            Linked::Open => match self.open().await {
                Ok(()) => FateStreamItem::Connected,
                Err(error) => self.lose(error)?,
            },
            Linked::Message(message) => {
                let told = message.deduction.ok_or_else(|| Error::broken_answer("it tells of no deduction"))?;
                let fate = account::fate(told)?;
                self.is_decided = fate.is_decided();
                FateStreamItem::Fate(fate)
            }
            Linked::Lost(error) => self.lose(error)?,
        };
        Ok(Some(item))
    }

    async fn open(&mut self) -> Result<(), Error> {
        let message = WatchDeductionRequest { user_id: self.user_id, request_id: self.request_id.to_string() };
        let mut stub = self.client.stubs().account;
        self.link.open(self.client.deadline(), stub.watch_deduction(Request::new(message))).await
    }

    fn lose(&mut self, error: Error) -> Result<FateStreamItem, Error> {
        self.link.lose(error).map(|(error, retry_in)| FateStreamItem::Disconnected { error, retry_in })
    }
}

impl Client {
    /// Has money taken later: it is answered once the deduction is recorded and its message is safe, and repeated like
    /// [`Client::deduct`]. What becomes of it is told by [`Client::look_up`], [`Client::watch_deduction`] and
    /// [`Client::await_decision`].
    ///
    /// # Errors
    /// Any [`Error`]; judge by [`Error::effect`] whether it may have been accepted all the same, and repeat it under the same
    /// request id if so.
    pub async fn deduct_async(&self, change: &Change) -> Result<Acceptance, Error> {
        let v1::DeductRequest { user_id, amount, request_id, strategy } = account::deduct_request(change);
        let message = v1::DeductAsyncRequest { user_id, amount, request_id, strategy };
        let call = |mut stubs: Stubs, request| async move { stubs.account.deduct_async(request).await };
        match self.call(message, call).await?.into_inner().acceptance() {
            v1::Acceptance::Accepted => Ok(Acceptance::Accepted),
            v1::Acceptance::Decided => Ok(Acceptance::Decided),
            v1::Acceptance::Unspecified => Err(Error::broken_answer("the acceptance is unspecified")),
        }
    }

    /// Follows a request to its end, across reconnections.
    pub fn watch_deduction(&self, user_id: i64, request_id: Uuid) -> FateStream {
        FateStream { client: self.clone(), user_id, request_id, link: Link::new(), is_decided: false }
    }

    /// Waits until a request is decided: made, refused, voided or laid aside. One that nobody knows may still come, so it
    /// is waited for, too.
    ///
    /// # Errors
    /// Any [`Error`] that waiting would not cure; [`tonic::Code::DeadlineExceeded`] where it is not decided `within` this
    /// time: ask again, nothing is lost.
    pub async fn await_decision(&self, user_id: i64, request_id: Uuid, within: Duration) -> Result<Fate, Error> {
        let mut fates = self.watch_deduction(user_id, request_id);
        let decision = async {
            while let Some(item) = fates.next().await? {
                if let FateStreamItem::Fate(fate) = item
                    && fate.is_decided()
                {
                    return Ok(fate);
                }
            }
            Err(Error::broken_answer("the stream ended without a decision"))
        };
        tokio::time::timeout(within, decision)
            .await
            .unwrap_or_else(|_| Err(Error::not_decided_within(request_id, within)))
    }

    /// How long the queue is.
    ///
    /// # Errors
    /// Any [`Error`]; [`crate::Reason::QueueUnavailable`] where the server has none.
    pub async fn queue(&self) -> Result<v1::GetQueueResponse, Error> {
        let call = |mut stubs: Stubs, request| async move { stubs.queue.get_queue(request).await };
        Ok(self.call(v1::GetQueueRequest {}, call).await?.into_inner())
    }

    /// The oldest dead letters, at most `page_size` (the server's default when 0), and how many there are in all.
    ///
    /// # Errors
    /// Any [`Error`]; reading changes nothing.
    pub async fn dead_letters(&self, page_size: i32) -> Result<v1::ListDeadLettersResponse, Error> {
        let call = |mut stubs: Stubs, request| async move { stubs.queue.list_dead_letters(request).await };
        Ok(self.call(v1::ListDeadLettersRequest { page_size }, call).await?.into_inner())
    }

    /// Everything of one dead letter.
    ///
    /// # Errors
    /// Any [`Error`]; [`crate::Reason::DeadLetterNotFound`] where there is none under this id.
    pub async fn dead_letter(&self, message_id: &str) -> Result<v1::DeadLetter, Error> {
        let call = |mut stubs: Stubs, request| async move { stubs.queue.get_dead_letter(request).await };
        let answer =
            self.call(v1::GetDeadLetterRequest { message_id: message_id.to_owned() }, call).await?.into_inner();
        answer.dead_letter.ok_or_else(|| Error::broken_answer("it has no dead letter"))
    }

    /// Puts dead letters back into the queue: these, or the oldest thousand where none are named. It is not repeated, and
    /// many take long: give it a longer deadline.
    ///
    /// # Errors
    /// Any [`Error`]; some may have been put back.
    pub async fn requeue_dead_letters(&self, message_ids: &[String]) -> Result<v1::RequeueDeadLettersResponse, Error> {
        let message = v1::RequeueDeadLettersRequest { message_ids: message_ids.to_vec() };
        let call = |mut stubs: Stubs, request| async move { stubs.queue.requeue_dead_letters(request).await };
        // "The oldest" would be others the second time.
        Ok(self.clone().with_retry(Retry::NEVER).call(message, call).await?.into_inner())
    }

    /// Gives dead letters up for good: these, or the oldest thousand where none are named. It is not repeated, and many
    /// take long: give it a longer deadline.
    ///
    /// # Errors
    /// Any [`Error`]; some may have been given up.
    pub async fn purge_dead_letters(&self, message_ids: &[String]) -> Result<v1::PurgeDeadLettersResponse, Error> {
        let message = v1::PurgeDeadLettersRequest { message_ids: message_ids.to_vec() };
        let call = |mut stubs: Stubs, request| async move { stubs.queue.purge_dead_letters(request).await };
        Ok(self.clone().with_retry(Retry::NEVER).call(message, call).await?.into_inner())
    }
}
