//! The service as callers meet it: over the wire.

mod arbitrary;
mod limits;
mod malformed;
mod outages;
mod refusals;
mod repeats;
pub(crate) mod serving;

use std::{collections::BTreeMap, future::Future};

use tonic::{Code, Response, Status};
use tonic_types::StatusExt;
use uuid::Uuid;
use zbl_proto::{ERROR_DOMAIN, REPLAYED_KEY, Reason, v1};

use crate::app::Served;

/// What an RPC comes to.
type Answer<T> = Result<Response<T>, Status>;

/// Everything a refusal says but its text: comparing two leaves no detail out.
#[derive(Debug, PartialEq)]
pub(crate) struct Said {
    code: Code,
    pub(crate) reason: String,
    metadata: BTreeMap<String, String>,
    /// The fields that its BadRequest names.
    fields: Vec<String>,
    /// Whether it says when to come back (RetryInfo).
    retry: bool,
    /// Whether it says which bound was met (QuotaFailure).
    quota: bool,
}

impl Said {
    pub(crate) fn by(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().unwrap_or_else(|| panic!("a status without ErrorInfo: {status:?}"));
        assert_eq!(info.domain, ERROR_DOMAIN, "{status:?}");
        let violations = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
        assert!(violations.iter().all(|violation| !violation.description.is_empty()), "{status:?}");
        Self {
            code: status.code(),
            reason: info.reason.clone(),
            metadata: info.metadata.clone().into_iter().collect(),
            fields: violations.iter().map(|violation| violation.field.clone()).collect(),
            retry: details.retry_info().is_some_and(|retry| retry.retry_delay.is_some_and(|delay| !delay.is_zero())),
            quota: details.quota_failure().is_some_and(|quota| !quota.violations.is_empty()),
        }
    }

    /// A refusal with these metadata and no other detail.
    fn plain(code: Code, reason: Reason, metadata: &[(&str, &str)]) -> Self {
        let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self { code, reason: reason.as_str().to_owned(), metadata, fields: Vec::new(), retry: false, quota: false }
    }

    /// A refusal of one field.
    pub(crate) fn invalid(reason: Reason, field: &str) -> Self {
        let plain = Self::plain(Code::InvalidArgument, reason, &[("field", field)]);
        Self { fields: vec![field.to_owned()], ..plain }
    }
}

/// What the call's refusal says. It must be refused.
async fn said<T: std::fmt::Debug>(call: impl Future<Output = Answer<T>>) -> Said {
    Said::by(&call.await.expect_err("the call was to be refused"))
}

/// Balance and version, as a caller is told them.
async fn state(served: &Served, user_id: i64) -> (String, i64) {
    let answer = served
        .account()
        .get_balance(v1::GetBalanceRequest { user_id, consistent: false, as_of: None })
        .await
        .unwrap()
        .into_inner();
    (answer.balance, answer.version)
}

/// Asserts that the call is refused as expected, and that account `user_id` is what it was.
#[track_caller]
fn refused<T: std::fmt::Debug>(
    served: &Served,
    user_id: i64,
    call: impl Future<Output = Answer<T>>,
    expected: &Said,
) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let before = state(served, user_id).await;
        assert_eq!(&said(call).await, expected, "at {caller}");
        assert_eq!(state(served, user_id).await, before, "{} had an effect, at {caller}", expected.reason);
    }
}

/// Whether the answer is marked as a repetition of an earlier one.
fn is_replay<T>(answer: &Response<T>) -> bool {
    answer.metadata().get(REPLAYED_KEY).is_some_and(|value| value == "true")
}

/// A new request id.
fn fresh() -> String {
    Uuid::new_v4().to_string()
}

/// A deduction under a new id, by the server's own strategy.
pub(crate) fn deduct(user_id: i64, amount: &str) -> v1::DeductRequest {
    v1::DeductRequest { user_id, amount: amount.to_owned(), request_id: fresh(), strategy: String::new() }
}

/// The credit twin of [`deduct`].
fn deposit(user_id: i64, amount: &str) -> v1::DepositRequest {
    v1::DepositRequest { user_id, amount: amount.to_owned(), request_id: fresh(), strategy: String::new() }
}
