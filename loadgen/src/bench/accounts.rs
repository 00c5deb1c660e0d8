//! The accounts a bench works on: fresh ones, opened for it, or such as were there.

use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::watch;
use zbl_client::{Client, Error};

use super::plan::Plan;
use super::{BenchError, Progress, Stage};
use crate::verdict::State;

/// Accounts opened at a time: opening commits, and commits that wait together are made together.
const AT_A_TIME: usize = 64;

/// The first of the ids that fresh accounts get is below this; JSON's numbers are exact up to it.
const FIRST_BELOW: i64 = 1 << 52;

/// The accounts of a run: their ids follow one another.
#[derive(Clone, Debug)]
pub(super) struct Accounts {
    pub(super) first: i64,
    /// What each began with; `None` for accounts that were there, which tell it in their journals. To ask a million of
    /// them beforehand would take longer than the run.
    pub(super) root: Option<State>,
}

impl Accounts {
    /// None are needed.
    pub(super) fn none() -> Self {
        Self { first: 1, root: None }
    }

    /// Opens the accounts, or looks whether the first and the last of those that are there exist.
    ///
    /// # Errors
    /// [`BenchError`] when the server does not do it.
    pub(super) async fn prepare(
        client: &Client,
        plan: &Plan,
        progress: &watch::Sender<Progress>,
    ) -> Result<Self, BenchError> {
        let setup = |source: Error| BenchError::setup(client.address(), source);
        if let Some(first) = plan.first_user {
            for user_id in [first, first + i64::from(plan.accounts.saturating_sub(1))] {
                client.balance(user_id).await.map_err(setup)?;
            }
            return Ok(Self { first, root: None });
        }
        let total = Some(u64::from(plan.accounts));
        progress.send_modify(|progress| *progress = Progress { stage: Stage::Opening, total, ..Progress::default() });
        let first = rand::random_range(1..FIRST_BELOW);
        let opened = stream::iter(0..plan.accounts).map(|number| async move {
            let account = client.open_account(Some(first + i64::from(number)), plan.opening).await;
            progress.send_modify(|progress| progress.done += 1);
            account
        });
        let mut opened = opened.buffered(AT_A_TIME);
        let mut root = None;
        while let Some(account) = opened.try_next().await.map_err(setup)? {
            root = Some(State { balance: account.balance, version: account.version });
        }
        Ok(Self { first, root })
    }
}
