//! Reports: what accounts spent by day, who spent most, and totals. They lag behind the journal, and each answer says how far.
//! Sums stay the decimal strings of the contract: they can be longer than an account's [`zbl_proto::Money`] ever is.

use tonic::{Status, Streaming};
use zbl_proto::v1;

use crate::calls::Stubs;
use crate::{Client, Error};

/// Which days of an account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Days {
    /// The first, such as `2026-11-23`; empty: from the beginning.
    pub from: String,
    /// The last, included; empty: up to the newest.
    pub to: String,
}

/// Which accounts that spent most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spenders {
    /// On a day, such as `2026-11-23`; empty: of all time.
    pub day: String,
}

impl Client {
    /// One page of an account's days, at most `page_size` (the server's default when 0), from the beginning or from where `after`
    /// says, a `next_page_token`.
    ///
    /// # Errors
    /// Any [`Error`]; reading changes nothing.
    pub async fn daily_spending(
        &self,
        user_id: i64,
        days: &Days,
        page_size: i32,
        after: Option<&str>,
    ) -> Result<v1::ListDailySpendingResponse, Error> {
        let message = v1::ListDailySpendingRequest {
            user_id,
            from_day: days.from.clone(),
            to_day: days.to.clone(),
            page_size,
            page_token: after.unwrap_or_default().to_owned(),
        };
        let call = |mut stubs: Stubs, request| async move { stubs.report.list_daily_spending(request).await };
        Ok(self.call(message, call).await?.into_inner())
    }

    /// One page of the accounts that spent most, paged like [`Client::daily_spending`].
    ///
    /// # Errors
    /// Any [`Error`]; reading changes nothing.
    pub async fn top_spenders(
        &self,
        spenders: &Spenders,
        page_size: i32,
        after: Option<&str>,
    ) -> Result<v1::ListTopSpendersResponse, Error> {
        let page_token = after.unwrap_or_default().to_owned();
        let message = v1::ListTopSpendersRequest { day: spenders.day.clone(), page_size, page_token };
        let call = |mut stubs: Stubs, request| async move { stubs.report.list_top_spenders(request).await };
        Ok(self.call(message, call).await?.into_inner())
    }

    /// What all accounts together come to, and as of when.
    ///
    /// # Errors
    /// Any [`Error`]; also when an answer lacks one of the two.
    pub async fn totals(&self) -> Result<(v1::Totals, v1::AsOf), Error> {
        let call = |mut stubs: Stubs, request| async move { stubs.report.get_totals(request).await };
        let answer = self.call(v1::GetTotalsRequest {}, call).await?.into_inner();
        answer.totals.zip(answer.as_of).ok_or_else(|| Error::broken_answer("it has no totals"))
    }

    /// The totals whenever they change, until the stream is dropped or the server stops. It is not reconnected.
    ///
    /// # Errors
    /// Any [`Error`] when it cannot be opened within the deadline.
    pub async fn watch_totals(&self) -> Result<Streaming<v1::WatchTotalsResponse>, Error> {
        let mut report = self.stubs().report;
        let opened = tokio::time::timeout(self.deadline(), report.watch_totals(v1::WatchTotalsRequest {})).await;
        let opened = opened.map_err(|_| Error::no_answer_within(self.deadline()))?;
        opened.map(tonic::Response::into_inner).map_err(|status: Status| Error::from_status(&status))
    }

    /// Begins to make the reports anew, unless that is under way, and says which generation of them it is; they are answered from
    /// it when `as_of` names it.
    ///
    /// # Errors
    /// Any [`Error`]; it may have been begun, and asking again is safe.
    pub async fn rebuild_reports(&self) -> Result<i64, Error> {
        let call = |mut stubs: Stubs, request| async move { stubs.report.rebuild_reports(request).await };
        Ok(self.call(v1::RebuildReportsRequest {}, call).await?.into_inner().generation)
    }
}
