//! The two servers, and whether they are fit to be played on: every scene begins with both of them working, on one
//! database, or is not played at all.

use std::slice;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use uuid::Uuid;
use zbl_client::{Change, Client, Error, Money, Reason};

use super::Seconds;
use crate::attack::{BRIEF, patiently};

/// How long servers may take to work again after they and what they need were mended: pools and links to Redis come back
/// within seconds, a lock whose holder was given up within its lease.
const READY_MOST: Duration = Duration::from_secs(30);

/// What is tried, and from what.
const OPENING: Money = Money::from_minor(1_000);
const TRIED: Money = Money::from_minor(100);

/// Two servers on one database.
pub(super) struct Stage {
    pub(super) holder: Client,
    pub(super) rival: Client,
    /// What both were started with.
    pub(super) lease: Duration,
}

impl Stage {
    /// Both, the holder's first.
    pub(super) fn clients(&self) -> [Client; 2] {
        [self.holder.clone(), self.rival.clone()]
    }

    /// Who holds an account's lock in Redis, in the words of a server; `None` where it knows of none.
    pub(super) async fn lease_of(&self, server: &Client, user_id: i64) -> Option<String> {
        let status = timeout(BRIEF, server.status()).await.ok()?.ok()?;
        let lease =
            status.leases.into_iter().find(|lease| lease.key == user_id.to_string() && !lease.holder.is_empty())?;
        let left: Duration = lease.ttl?.try_into().ok()?;
        Some(format!("{} held by {} for {} more", lease.lock, lease.holder, Seconds(left)))
    }

    /// Returns when both servers deduct from one account by a strategy.
    pub(super) async fn ready(&self, strategy: &str) -> Result<(), String> {
        let until = Instant::now() + READY_MOST;
        let told = |client: &Client, error: Error| {
            format!("{}: {}", client.address(), kept_off(&error).unwrap_or_else(|| error.to_string()))
        };
        let open = |client: Client| async move { client.open_account(None, OPENING).await };
        let opened = patiently(slice::from_ref(&self.holder), until, open).await;
        let user_id = opened.map_err(|error| told(&self.holder, error))?.user_id;
        for client in [&self.holder, &self.rival] {
            let change = Change { user_id, amount: TRIED, request_id: Uuid::new_v4(), strategy: strategy.to_owned() };
            let deduct = |client: Client| {
                let change = change.clone();
                async move { client.deduct(&change).await }
            };
            patiently(slice::from_ref(client), until, deduct).await.map_err(|error| told(client, error))?;
        }
        Ok(())
    }
}

/// An error that tells of the scenes before this one, with what to do about it: whoever keeps breaking Redis opens the
/// breaker of a server that asks it, and a rival kept off by that says nothing of the lock.
pub(super) fn kept_off(error: &Error) -> Option<String> {
    let remedy = "start both servers with --breaker-least 1000000, or their breakers stop what should be seen";
    (error.reason() == Some(Reason::CircuitOpen)).then(|| format!("{error}; {remedy}"))
}
