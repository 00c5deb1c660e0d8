//! Reports on SQLite. Whoever reads has a snapshot of the file for as long as its transaction lasts.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use async_trait::async_trait;
use chrono::{NaiveDate, NaiveDateTime};
use diesel::{
    Connection, QueryResult, RunQueryDsl, SqliteConnection, connection::SimpleConnection, expression::SqlLiteral,
    query_dsl::methods::LoadQuery,
};

use super::{SqliteStore, transaction::SqliteTransaction};
use crate::{
    account::Entry,
    report::{AccountTurnover, Models, Turnover},
    store::{
        Result, Transaction,
        reports::{
            Projection, Projections, Ranking, Reports, Sequenced, Span, Standing, Step, Swept,
            text::{self, Dialect, JournalEndRow, ProjectionRow},
        },
        statements,
    },
};

const DIALECT: Dialect = Dialect::Sqlite;

/// The active generation and the end of the journal.
fn standing(c: &mut SqliteConnection) -> QueryResult<(Vec<ProjectionRow>, Vec<JournalEndRow>)> {
    let active: Vec<ProjectionRow> = text::active().load(c)?;
    let read_seq = active.first().map_or(0, |row| row.3);
    let end = text::journal_end(read_seq).load(c)?;
    Ok((active, end))
}

impl SqliteStore {
    /// Loads rows outside a transaction.
    async fn found<ST, U>(&self, query: SqlLiteral<ST>) -> Result<Vec<U>>
    where
        U: Send + 'static,
        SqlLiteral<ST>: for<'a> LoadQuery<'a, SqliteConnection, U> + Send + 'static,
    {
        self.reading(move |c| query.load(c)).await
    }

    /// Reads where it stands and, of the same moment, what `query` says of the generation that is active then.
    async fn as_of_now<ST, U>(
        &self,
        query: impl FnOnce(i64) -> SqlLiteral<ST> + Send + 'static,
    ) -> Result<(Standing, Vec<U>)>
    where
        U: Send + 'static,
        SqlLiteral<ST>: for<'a> LoadQuery<'a, SqliteConnection, U> + 'static,
    {
        let read = self.reading(move |c| {
            c.transaction(|c| {
                let (active, end) = standing(c)?;
                let found = query(active.first().map_or(0, |row| row.0)).load(c)?;
                Ok((active, end, found))
            })
        });
        let (active, end, found) = read.await?;
        Ok((text::standing(text::the_active(active)?, &end), found))
    }
}

#[async_trait]
impl Reports for SqliteStore {
    async fn standing(&self) -> Result<Standing> {
        let (active, end) = self.reading(|c| c.transaction(standing)).await?;
        Ok(text::standing(text::the_active(active)?, &end))
    }

    async fn days(
        &self,
        user_id: i64,
        within: RangeInclusive<NaiveDate>,
        limit: i64,
    ) -> Result<(Standing, Vec<(NaiveDate, Turnover)>)> {
        let query = move |generation| text::days_of(generation, user_id, &within, limit);
        let (standing, rows) = self.as_of_now(query).await?;
        Ok((standing, rows.into_iter().map(text::keyed).collect()))
    }

    async fn top(&self, ranking: Ranking) -> Result<(Standing, Vec<(i64, Turnover)>)> {
        let (standing, rows) = self.as_of_now(move |generation| DIALECT.top(generation, &ranking)).await?;
        Ok((standing, rows.into_iter().map(text::keyed).collect()))
    }

    async fn rebuild(&self) -> Result<i64> {
        let mut transaction = self.begin_with_first_statement(None);
        transaction.run(|c| c.batch_execute(text::BEGIN_BUILDING)).await?;
        Transaction::commit(Box::new(transaction)).await?;
        text::the_newest(&self.projections().await?)
    }
}

#[async_trait]
impl Projections for SqliteStore {
    async fn projections(&self) -> Result<Vec<Projection>> {
        self.found(text::projections()).await?.into_iter().map(text::projection).collect()
    }

    async fn journal_end(&self, beyond: i64) -> Result<(i64, Option<NaiveDateTime>)> {
        Ok(self.found(text::journal_end(beyond)).await?.into_iter().next().unwrap_or_default())
    }

    async fn tail(&self, after: i64, ranges: &[(i64, i64)], limit: i64) -> Result<Vec<Sequenced>> {
        self.found(DIALECT.tail(after, ranges, limit)).await?.into_iter().map(text::sequenced).collect()
    }

    async fn sweep(&self, generation: i64, after_user_id: i64, limit: i64) -> Result<Swept> {
        Ok(text::swept(&self.found(text::sweep(generation, after_user_id, limit)).await?))
    }

    fn step(&self) -> Box<dyn Step> {
        Box::new(self.begin_with_first_statement(None))
    }
}

#[async_trait]
impl Step for SqliteTransaction {
    async fn lock(&mut self, generation: i64) -> Result<Option<Projection>> {
        let found: Vec<ProjectionRow> = self.run(move |c| DIALECT.lock(generation).load(c)).await?;
        found.into_iter().next().map(text::projection).transpose()
    }

    async fn accounts(&mut self, generation: i64, user_ids: &BTreeSet<i64>) -> Result<BTreeMap<i64, AccountTurnover>> {
        let query = text::accounts(generation, user_ids);
        Ok(self.run(move |c| query.load(c)).await?.into_iter().map(text::account).collect())
    }

    async fn days(
        &mut self,
        generation: i64,
        days: &BTreeSet<(i64, NaiveDate)>,
    ) -> Result<BTreeMap<(i64, NaiveDate), Turnover>> {
        let query = text::days(generation, days);
        Ok(self.run(move |c| query.load(c)).await?.into_iter().map(text::day).collect())
    }

    async fn journal(&mut self, spans: &[Span], limit: i64) -> Result<Vec<Entry>> {
        let query = text::journal(spans, limit);
        self.run(move |c| query.load(c)).await?.into_iter().map(statements::entry).collect()
    }

    async fn write(&mut self, projection: &Projection, models: &Models) -> Result<()> {
        let statements = DIALECT.write(projection, models).join("; ");
        self.run(move |c| c.batch_execute(&statements)).await
    }

    async fn supersede(&mut self, active: i64, building: i64) -> Result<()> {
        let statements = text::supersede(active, building).join("; ");
        self.run(move |c| c.batch_execute(&statements)).await
    }

    async fn remove(&mut self, generation: i64, limit: i64) -> Result<usize> {
        for removal in DIALECT.removals(generation, limit) {
            let removed = self.run(move |c| diesel::sql_query(removal).execute(c)).await?;
            if removed > 0 {
                return Ok(removed);
            }
        }
        Ok(0)
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        Transaction::commit(self).await
    }

    async fn rollback(self: Box<Self>) {
        Transaction::rollback(self).await;
    }
}
