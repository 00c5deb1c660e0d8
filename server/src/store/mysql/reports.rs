//! Reports on MySQL and MariaDB. Comments name the lock a statement takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
    sync::Arc,
};

use async_trait::async_trait;
use chrono::{NaiveDate, NaiveDateTime};
use diesel::expression::SqlLiteral;
use diesel_async::{AsyncMysqlConnection, RunQueryDsl, SimpleAsyncConnection, methods::LoadQuery};

use super::{MysqlStore, transaction::MysqlTransaction};
use crate::{
    account::Entry,
    report::{AccountTurnover, Models, Turnover},
    store::{
        Error, Isolation, Result, Transaction,
        meter::LockedSince,
        reports::{
            Projection, Projections, Ranking, Reports, Sequenced, Span, Standing, Step, Swept,
            text::{self, Dialect, JournalEndRow},
        },
        statements,
    },
};

const DIALECT: Dialect = Dialect::Mysql;

impl MysqlStore {
    /// Loads rows outside a transaction.
    pub(super) async fn found<ST, U: Send>(&self, query: SqlLiteral<ST>) -> Result<Vec<U>>
    where
        SqlLiteral<ST>: LoadQuery<'static, AsyncMysqlConnection, U> + 'static,
    {
        let mut lease = self.pool.lease(None).await?;
        let rows = self.wire.answered_unprepared(query.load(lease.connection()?)).await;
        self.ended(lease, rows)
    }

    fn report_transaction(&self, isolation: Isolation) -> MysqlTransaction {
        MysqlTransaction::new(self.pool.clone(), Arc::clone(&self.wire), self.chaining, isolation, None)
    }

    /// Reads where it stands and, of the same moment, what `query` says of the generation that is active then.
    async fn as_of_now<ST, U: Send>(
        &self,
        query: impl FnOnce(i64) -> SqlLiteral<ST> + Send,
    ) -> Result<(Standing, Vec<U>)>
    where
        SqlLiteral<ST>: LoadQuery<'static, AsyncMysqlConnection, U> + 'static,
    {
        let mut transaction = self.report_transaction(Isolation::Snapshot);
        let standing = standing(&mut transaction).await?;
        let found = transaction.rows(query(standing.projection.generation)).await?;
        finish(transaction).await;
        Ok((standing, found))
    }
}

async fn standing(transaction: &mut MysqlTransaction) -> Result<Standing> {
    let projection = text::the_active(transaction.rows(text::active()).await?)?;
    let end: Vec<JournalEndRow> = transaction.rows(text::journal_end(projection.read_seq)).await?;
    Ok(text::standing(projection, &end))
}

/// Ends a transaction that only read: how that goes changes nothing.
async fn finish(transaction: MysqlTransaction) {
    let _ = Transaction::commit(Box::new(transaction)).await;
}

#[async_trait]
impl Reports for MysqlStore {
    async fn standing(&self) -> Result<Standing> {
        let mut transaction = self.report_transaction(Isolation::Snapshot);
        let standing = standing(&mut transaction).await?;
        finish(transaction).await;
        Ok(standing)
    }

    async fn days(
        &self,
        user_id: i64,
        within: RangeInclusive<NaiveDate>,
        limit: i64,
    ) -> Result<(Standing, Vec<(NaiveDate, Turnover)>)> {
        let query = |generation| text::days_of(generation, user_id, &within, limit);
        let (standing, rows) = self.as_of_now(query).await?;
        Ok((standing, rows.into_iter().map(text::keyed).collect()))
    }

    async fn top(&self, ranking: Ranking) -> Result<(Standing, Vec<(i64, Turnover)>)> {
        let (standing, rows) = self.as_of_now(|generation| DIALECT.top(generation, &ranking)).await?;
        Ok((standing, rows.into_iter().map(text::keyed).collect()))
    }

    async fn rebuild(&self) -> Result<i64> {
        let mut lease = self.pool.lease(None).await?;
        let begun = self.wire.answered(lease.connection()?.batch_execute(text::BEGIN_BUILDING)).await;
        match self.ended(lease, begun) {
            Ok(()) => self.wire.meter.committed(&LockedSince::default()),
            // Another did at the same time.
            Err(Error::Duplicate(_)) => {}
            Err(error) => return Err(error),
        }
        text::the_newest(&self.projections().await?)
    }
}

#[async_trait]
impl Projections for MysqlStore {
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
        Box::new(self.report_transaction(Isolation::ReadCommitted))
    }
}

#[async_trait]
impl Step for MysqlTransaction {
    async fn lock(&mut self, generation: i64) -> Result<Option<Projection>> {
        // X.
        let found = self.rows(DIALECT.lock(generation)).await?;
        found.into_iter().next().map(text::projection).transpose()
    }

    async fn accounts(&mut self, generation: i64, user_ids: &BTreeSet<i64>) -> Result<BTreeMap<i64, AccountTurnover>> {
        Ok(self.rows(text::accounts(generation, user_ids)).await?.into_iter().map(text::account).collect())
    }

    async fn days(
        &mut self,
        generation: i64,
        days: &BTreeSet<(i64, NaiveDate)>,
    ) -> Result<BTreeMap<(i64, NaiveDate), Turnover>> {
        Ok(self.rows(text::days(generation, days)).await?.into_iter().map(text::day).collect())
    }

    async fn journal(&mut self, spans: &[Span], limit: i64) -> Result<Vec<Entry>> {
        self.rows(text::journal(spans, limit)).await?.into_iter().map(statements::entry).collect()
    }

    async fn write(&mut self, projection: &Projection, models: &Models) -> Result<()> {
        // X on the rows that are there, and on what is put between them.
        self.run(&DIALECT.write(projection, models).join("; ")).await
    }

    async fn supersede(&mut self, active: i64, building: i64) -> Result<()> {
        self.run(&text::supersede(active, building).join("; ")).await
    }

    async fn remove(&mut self, generation: i64, limit: i64) -> Result<usize> {
        for removal in DIALECT.removals(generation, limit) {
            // X on what is removed.
            let removed = self.change(&removal).await?;
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
