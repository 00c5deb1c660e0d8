//! The table of the outbox behind the database's breaker.

use std::time::Duration;

use async_trait::async_trait;
use chrono::NaiveDateTime;
use uuid::Uuid;

use super::Circuit;
use crate::store::{
    Matched, Result,
    outbox::{Ending, Key, NewOutgoing, OutboxTable, Outgoing, Recorded, Swept},
};

#[async_trait]
impl OutboxTable for Circuit<dyn OutboxTable> {
    async fn record(&self, rows: Vec<NewOutgoing>, claim: Duration) -> Result<Vec<Recorded>> {
        self.asked(move |table| async move { table.record(rows, claim).await }).await
    }

    async fn mark_sent(&self, keys: Vec<Key>) -> Result<()> {
        self.asked(|table| async move { table.mark_sent(keys).await }).await
    }

    async fn withdraw(&self, key: Key, sender: Uuid, margin: Duration) -> Result<Matched> {
        self.asked(move |table| async move { table.withdraw(key, sender, margin).await }).await
    }

    async fn give_up(&self, key: Key, sender: Uuid) -> Result<()> {
        self.asked(move |table| async move { table.give_up(key, sender).await }).await
    }

    async fn claim(&self, sender: Uuid, claim: Duration, limit: i64) -> Result<Vec<Outgoing>> {
        self.asked(move |table| async move { table.claim(sender, claim, limit).await }).await
    }

    async fn end(&self, ending: Ending) -> Result<()> {
        self.asked(|table| async move { table.end(ending).await }).await
    }

    async fn requeue(&self, key: Key, sender: Uuid, claim: Duration) -> Result<Matched> {
        self.asked(move |table| async move { table.requeue(key, sender, claim).await }).await
    }

    async fn remove(&self, keys: Vec<Key>) -> Result<()> {
        self.asked(|table| async move { table.remove(keys).await }).await
    }

    async fn sweep(&self, after: Option<(NaiveDateTime, Key)>, age: Duration, limit: i64) -> Result<Swept> {
        self.asked(move |table| async move { table.sweep(after, age, limit).await }).await
    }

    async fn oldest(&self) -> Result<Option<NaiveDateTime>> {
        self.asked(|table| async move { table.oldest().await }).await
    }
}
