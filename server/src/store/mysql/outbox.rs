//! The outbox on MySQL and MariaDB. Comments name the lock a statement takes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::NaiveDateTime;
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use uuid::Uuid;

use super::{MysqlStore, transaction::MysqlTransaction};
use crate::{
    account::Entry,
    store::{
        Error, Isolation, Matched, Result, Transaction,
        meter::LockedSince,
        outbox::{Ending, Key, NewOutgoing, OutboxTable, Outgoing, Recorded, Swept, text},
        reports::text::Dialect,
        statements,
    },
};

const DIALECT: Dialect = Dialect::Mysql;

/// How often a batch is tried of which some turn out to be there: once without looking, once having looked, and once more for
/// those that came between.
const TRIES: usize = 3;

impl MysqlStore {
    fn outbox_transaction(&self) -> MysqlTransaction {
        MysqlTransaction::new(self.pool.clone(), Arc::clone(&self.wire), self.chaining, Isolation::ReadCommitted, None)
    }

    /// Rows, without a lock.
    pub(super) async fn outgoing_rows(&self, keys: &[Key]) -> Result<Vec<Outgoing>> {
        self.found(DIALECT.outgoing(keys)).await?.into_iter().map(text::outgoing).collect()
    }

    /// One statement, which is a transaction.
    async fn done(&self, statement: &str) -> Result<()> {
        let mut lease = self.pool.lease(None).await?;
        let done = self.wire.answered(lease.connection()?.batch_execute(statement)).await;
        self.ended(lease, done)?;
        self.wire.meter.committed(&LockedSince::default());
        Ok(())
    }

    /// The same, and whether it found a row.
    async fn changed(&self, statement: &str) -> Result<Matched> {
        let mut lease = self.pool.lease(None).await?;
        let change = diesel::sql_query(statement).execute(lease.connection()?);
        let rows = self.wire.answered_unprepared(change).await;
        let matched = self.ended(lease, rows).map(Matched::from_rows)?;
        self.wire.meter.committed(&LockedSince::default());
        Ok(matched)
    }

    /// Inserts rows, and finds those among them that are journaled: they are taken out again.
    async fn insert(&self, rows: &[&NewOutgoing], claim: Duration) -> Result<HashMap<Key, Entry>> {
        if rows.is_empty() {
            return Ok(HashMap::new());
        }
        let keys: Vec<Key> = rows.iter().map(|row| row.key).collect();
        let mut transaction = self.outbox_transaction();
        // X on the new rows, and then S on their entries: whoever journals one, a VOID for instance, takes these two locks the
        // other way round, so that one of the two sees the other's.
        let inserted = transaction.run(&DIALECT.record(rows.iter().copied(), claim)).await;
        let journaled = match inserted {
            Ok(()) => transaction.rows(DIALECT.journaled(&keys)).await,
            Err(error) => Err(error),
        };
        let journaled = match journaled {
            Ok(journaled) => journaled,
            Err(error) => {
                Transaction::rollback(Box::new(transaction)).await;
                return Err(error);
            }
        };
        let journaled: HashMap<Key, Entry> = journaled
            .into_iter()
            .map(|row| statements::entry(row).map(|entry| (Key::of(&entry), entry)))
            .collect::<Result<_>>()?;
        if !journaled.is_empty() {
            let keys: Vec<Key> = journaled.keys().copied().collect();
            transaction.run(&DIALECT.remove(&keys)).await?;
        }
        Transaction::commit(Box::new(transaction)).await.map(|()| journaled)
    }
}

#[async_trait]
impl OutboxTable for MysqlStore {
    async fn record(&self, mut rows: Vec<NewOutgoing>, claim: Duration) -> Result<Vec<Recorded>> {
        let asked: Vec<Key> = rows.iter().map(|row| row.key).collect();
        rows.sort_unstable_by_key(|row| row.key);
        let mut there: HashMap<Key, Outgoing> = HashMap::new();
        for attempt in 1.. {
            let new: Vec<&NewOutgoing> = rows.iter().filter(|row| !there.contains_key(&row.key)).collect();
            match self.insert(&new, claim).await {
                Ok(mut journaled) => {
                    let recorded = |key| match (there.remove(key), journaled.remove(key)) {
                        (Some(row), _) => Recorded::There(row),
                        (None, Some(entry)) => Recorded::Journaled(entry),
                        (None, None) => Recorded::New,
                    };
                    return Ok(asked.iter().map(recorded).collect());
                }
                Err(Error::Duplicate(reason)) if attempt == TRIES => return Err(Error::Contended(reason)),
                // Most are new, so they are looked for only when one is not.
                Err(Error::Duplicate(_)) => {
                    let found = self.outgoing_rows(&asked).await?;
                    there = found.into_iter().map(|row| (row.key, row)).collect();
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Unexpected("tries are not bounded".to_owned()))
    }

    async fn mark_sent(&self, mut keys: Vec<Key>) -> Result<()> {
        keys.sort_unstable();
        // X on each row.
        self.done(&DIALECT.mark_sent(&keys)).await
    }

    async fn withdraw(&self, key: Key, sender: Uuid, margin: Duration) -> Result<Matched> {
        // X.
        self.changed(&DIALECT.withdraw(key, sender, margin)).await
    }

    async fn give_up(&self, key: Key, sender: Uuid) -> Result<()> {
        // X.
        self.done(&DIALECT.give_up(key, sender)).await
    }

    async fn claim(&self, sender: Uuid, claim: Duration, limit: i64) -> Result<Vec<Outgoing>> {
        let mut keys: Vec<Key> =
            self.found(DIALECT.claimable(limit)).await?.iter().map(text::key).collect::<Result<_>>()?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        keys.sort_unstable();
        // X on each row; of two relays that found the same one, the second finds it claimed.
        self.done(&DIALECT.claim(&keys, sender, claim)).await?;
        self.found(DIALECT.claimed(&keys, sender)).await?.into_iter().map(text::outgoing).collect()
    }

    async fn end(&self, ending: Ending) -> Result<()> {
        // X.
        self.done(&DIALECT.end(&ending)).await
    }

    async fn requeue(&self, key: Key, sender: Uuid, claim: Duration) -> Result<Matched> {
        // X.
        self.changed(&DIALECT.requeue(key, sender, claim)).await
    }

    async fn remove(&self, mut keys: Vec<Key>) -> Result<()> {
        keys.sort_unstable();
        // X on each row.
        self.done(&DIALECT.remove(&keys)).await
    }

    async fn sweep(&self, after: Option<(NaiveDateTime, Key)>, age: Duration, limit: i64) -> Result<Swept> {
        text::outbox_swept(self.found(DIALECT.outbox_sweep(after, age, limit)).await?)
    }

    async fn oldest(&self) -> Result<Option<NaiveDateTime>> {
        Ok(text::oldest_of(&self.found(text::oldest()).await?))
    }
}
