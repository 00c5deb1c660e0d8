//! The outbox on SQLite. There is one writer, so that whoever records finds everything as it is.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use chrono::NaiveDateTime;
use diesel::{QueryResult, RunQueryDsl, SqliteConnection, connection::SimpleConnection};
use uuid::Uuid;

use super::SqliteStore;
use crate::store::{
    Matched, Result, Transaction,
    outbox::{
        Ending, Key, NewOutgoing, OutboxTable, Outgoing, Recorded, Swept,
        text::{self, KeyRow, OutgoingRow},
    },
    reports::text::Dialect,
    statements::{self, EntryRow},
};

const DIALECT: Dialect = Dialect::Sqlite;

/// What is there of some deductions: rows, and entries.
type There = (Vec<OutgoingRow>, Vec<EntryRow>);

impl SqliteStore {
    /// A row, as readers see it.
    pub(super) async fn outgoing_row(&self, key: Key) -> Result<Option<Outgoing>> {
        let rows = self.reading(move |c| DIALECT.outgoing(&[key]).load(c)).await?;
        rows.into_iter().next().map(text::outgoing).transpose()
    }

    /// Work in a transaction of its own.
    async fn writing<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SqliteConnection) -> QueryResult<T> + Send + 'static,
    ) -> Result<T> {
        let mut transaction = self.begin_with_first_statement(None);
        let done = transaction.run(work).await?;
        Transaction::commit(Box::new(transaction)).await.map(|()| done)
    }

    /// One statement.
    async fn changed(&self, statement: String) -> Result<Matched> {
        self.writing(move |c| diesel::sql_query(statement).execute(c)).await.map(Matched::from_rows)
    }
}

/// Records those that are neither in the table nor in the journal.
fn record(c: &mut SqliteConnection, rows: &[NewOutgoing], claim: Duration) -> QueryResult<There> {
    let keys: Vec<Key> = rows.iter().map(|row| row.key).collect();
    let there: Vec<OutgoingRow> = DIALECT.outgoing(&keys).load(c)?;
    let journaled: Vec<EntryRow> = DIALECT.journaled(&keys).load(c)?;
    let known = |key: &Key| {
        let is = |user_id: i64, id: &[u8]| user_id == key.user_id && id == key.request_id.as_bytes();
        there.iter().any(|row| is(row.0, &row.1)) || journaled.iter().any(|row| is(row.0, &row.2))
    };
    let new: Vec<&NewOutgoing> = rows.iter().filter(|row| !known(&row.key)).collect();
    if !new.is_empty() {
        c.batch_execute(&DIALECT.record(new, claim))?;
    }
    Ok((there, journaled))
}

#[async_trait]
impl OutboxTable for SqliteStore {
    async fn record(&self, rows: Vec<NewOutgoing>, claim: Duration) -> Result<Vec<Recorded>> {
        let asked: Vec<Key> = rows.iter().map(|row| row.key).collect();
        let (there, journaled) = self.writing(move |c| record(c, &rows, claim)).await?;
        let mut found = HashMap::new();
        for row in journaled {
            let entry = statements::entry(row)?;
            found.insert(Key::of(&entry), Recorded::Journaled(entry));
        }
        for row in there {
            let row = text::outgoing(row)?;
            found.insert(row.key, Recorded::There(row));
        }
        Ok(asked.iter().map(|key| found.remove(key).unwrap_or(Recorded::New)).collect())
    }

    async fn mark_sent(&self, keys: Vec<Key>) -> Result<()> {
        self.changed(DIALECT.mark_sent(&keys)).await.map(drop)
    }

    async fn withdraw(&self, key: Key, sender: Uuid, margin: Duration) -> Result<Matched> {
        self.changed(DIALECT.withdraw(key, sender, margin)).await
    }

    async fn give_up(&self, key: Key, sender: Uuid) -> Result<()> {
        self.changed(DIALECT.give_up(key, sender)).await.map(drop)
    }

    async fn claim(&self, sender: Uuid, claim: Duration, limit: i64) -> Result<Vec<Outgoing>> {
        // Readers look first: whoever has nothing to claim takes no writer from anybody.
        let found: Vec<KeyRow> = self.reading(move |c| DIALECT.claimable(limit).load(c)).await?;
        let keys: Vec<Key> = found.iter().map(text::key).collect::<Result<_>>()?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let claimed: Vec<OutgoingRow> = self
            .writing(move |c| {
                diesel::sql_query(DIALECT.claim(&keys, sender, claim)).execute(c)?;
                DIALECT.claimed(&keys, sender).load(c)
            })
            .await?;
        claimed.into_iter().map(text::outgoing).collect()
    }

    async fn end(&self, ending: Ending) -> Result<()> {
        self.changed(DIALECT.end(&ending)).await.map(drop)
    }

    async fn requeue(&self, key: Key, sender: Uuid, claim: Duration) -> Result<Matched> {
        self.changed(DIALECT.requeue(key, sender, claim)).await
    }

    async fn remove(&self, keys: Vec<Key>) -> Result<()> {
        self.changed(DIALECT.remove(&keys)).await.map(drop)
    }

    async fn sweep(&self, after: Option<(NaiveDateTime, Key)>, age: Duration, limit: i64) -> Result<Swept> {
        text::outbox_swept(self.reading(move |c| DIALECT.outbox_sweep(after, age, limit).load(c)).await?)
    }

    async fn oldest(&self) -> Result<Option<NaiveDateTime>> {
        Ok(text::oldest_of(&self.reading(|c| text::oldest().load(c)).await?))
    }
}
