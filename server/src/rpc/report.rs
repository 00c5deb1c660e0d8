//! `ReportService`: what the read models say, each answer with how far they lag behind the journal. It reads past the ledger: nothing
//! is decided here, and nothing that is read is a promise.

use std::{pin::Pin, sync::Arc, time::Duration};

use chrono::NaiveDate;
use futures::{Stream, stream};
use tokio::{sync::watch, time::Instant};
use tonic::{Request, Response, Status};
use zbl_proto::v1::{self, report_service_server::ReportService};

use super::{convert, deadline::within, status::status};
use crate::{
    error::{Error, Invalid, InvalidReason},
    ledger::backend,
    limit::{Limits, Room},
    projector,
    report::{Sum, Totals, Turnover},
    store::{
        self,
        reports::{Ranking, Reports, Standing},
    },
};

/// How often a watcher is told, at most: each look is a query of three rows, and there are 64 watchers.
const TOLD_EVERY: Duration = Duration::from_millis(500);

/// What page tokens begin with, so that a text out of the blue is told from a token.
const DAY_TOKEN_PREFIX: &str = "from-day-";
const SPENDER_TOKEN_PREFIX: &str = "after-spender-";

/// The days there are: no clock of a database was ever before the first, and the last is the last that databases know.
const FIRST_DAY: NaiveDate = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
const LAST_DAY: NaiveDate = NaiveDate::from_ymd_opt(9999, 12, 31).unwrap();

/// The service.
pub struct ReportRpc {
    desk: Desk,
}

/// What its calls work with.
#[derive(Clone)]
pub struct Desk {
    /// The read models.
    pub reports: Arc<dyn Reports>,
    /// How many may watch.
    pub limits: Arc<Limits>,
    /// How long a stream may be silent.
    pub heartbeat: Duration,
    /// Becomes true when the server is to stop; streams end then.
    pub stopping: watch::Receiver<bool>,
}

/// The stream of one watcher.
type TotalsStream = Pin<Box<dyn Stream<Item = Result<v1::WatchTotalsResponse, Status>> + Send>>;

impl ReportRpc {
    /// The service.
    pub const fn new(desk: Desk) -> Self {
        Self { desk }
    }
}

/// Reads, once more where the link turns out to be dead: the pool hands out only newer ones after that.
async fn reading<T, F>(read: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = store::Result<T>>,
{
    match read().await {
        Err(store::Error::Lost(_)) => read().await,
        result => result,
    }
    .map_err(backend)
}

#[tonic::async_trait]
impl ReportService for ReportRpc {
    async fn list_daily_spending(
        &self,
        request: Request<v1::ListDailySpendingRequest>,
    ) -> Result<Response<v1::ListDailySpendingResponse>, Status> {
        let message = request.get_ref();
        let work = async {
            let user_id = convert::user_id(message.user_id)?;
            let [from, to] = [day("from_day", &message.from_day)?, day("to_day", &message.to_day)?];
            let (from, to) = (from.unwrap_or(FIRST_DAY), to.unwrap_or(LAST_DAY));
            if from > to {
                return Err(invalid_day("to_day", format!("{to} lies before from_day, {from}")).into());
            }
            let size = convert::page_size(message.page_size)?;
            let from = day_token(&message.page_token)?.map_or(from, |next| next.max(from));
            let (standing, days) = reading(|| self.desk.reports.days(user_id, from..=to, size + 1)).await?;
            Ok::<_, Error>((standing, page(days, size)))
        };
        let (standing, (days, next)) = within(request.extensions(), work).await.map_err(|error| status(&error))?;
        Ok(Response::new(v1::ListDailySpendingResponse {
            days: days.into_iter().map(daily).collect(),
            // The first day that is not on this page.
            next_page_token: next.map_or_else(String::new, |(day, _)| format!("{DAY_TOKEN_PREFIX}{day}")),
            as_of: Some(as_of(&standing)),
        }))
    }

    async fn list_top_spenders(
        &self,
        request: Request<v1::ListTopSpendersRequest>,
    ) -> Result<Response<v1::ListTopSpendersResponse>, Status> {
        let message = request.get_ref();
        let work = async {
            let size = convert::page_size(message.page_size)?;
            let (day, after) = (day("day", &message.day)?, spender_token(&message.page_token)?);
            let ranking = Ranking { day, after, limit: size + 1 };
            let (standing, spenders) = reading(|| self.desk.reports.top(ranking)).await?;
            Ok::<_, Error>((standing, page(spenders, size)))
        };
        let (standing, (spenders, next)) = within(request.extensions(), work).await.map_err(|error| status(&error))?;
        let last = spenders.last().filter(|_| next.is_some());
        let token = |(user_id, turnover): &(i64, Turnover)| {
            format!("{SPENDER_TOKEN_PREFIX}{}-{user_id}", turnover.spent.minor())
        };
        Ok(Response::new(v1::ListTopSpendersResponse {
            next_page_token: last.map_or_else(String::new, token),
            spenders: spenders.into_iter().map(spender).collect(),
            as_of: Some(as_of(&standing)),
        }))
    }

    async fn get_totals(
        &self,
        request: Request<v1::GetTotalsRequest>,
    ) -> Result<Response<v1::GetTotalsResponse>, Status> {
        let work = reading(|| self.desk.reports.standing());
        let standing = within(request.extensions(), work).await.map_err(|error| status(&error))?;
        let totals = Some(totals(&standing.projection.totals));
        Ok(Response::new(v1::GetTotalsResponse { totals, as_of: Some(as_of(&standing)) }))
    }

    type WatchTotalsStream = TotalsStream;

    async fn watch_totals(
        &self,
        _: Request<v1::WatchTotalsRequest>,
    ) -> Result<Response<Self::WatchTotalsStream>, Status> {
        let room = self.desk.limits.watch().map_err(|error| status(&error))?;
        let watcher = Watcher { desk: self.desk.clone(), _room: room, told: None };
        Ok(Response::new(Box::pin(stream::unfold(Some(watcher), |watcher| async {
            let mut watcher = watcher?;
            let next = watcher.next().await.map_err(|error| status(&error));
            // After an error the stream is over.
            let rest = next.is_ok().then_some(watcher);
            Some((next, rest))
        }))))
    }

    async fn rebuild_reports(
        &self,
        request: Request<v1::RebuildReportsRequest>,
    ) -> Result<Response<v1::RebuildReportsResponse>, Status> {
        // Once more is as good: it begins none where one is under way.
        let work = reading(|| self.desk.reports.rebuild());
        let generation = within(request.extensions(), work).await.map_err(|error| status(&error))?;
        Ok(Response::new(v1::RebuildReportsResponse { generation }))
    }
}

/// One watcher, and what it was told last.
struct Watcher {
    desk: Desk,
    _room: Room,
    told: Option<(Totals, i64, Instant)>,
}

impl Watcher {
    /// The totals, as soon as they are others or there was nothing to tell for too long.
    async fn next(&mut self) -> Result<v1::WatchTotalsResponse, Error> {
        let mut stopping = self.desk.stopping.clone();
        loop {
            if self.told.is_some() {
                tokio::select! {
                    () = tokio::time::sleep(TOLD_EVERY) => {}
                    _ = stopping.wait_for(|stopping| *stopping) => return Err(Error::Stopping),
                }
            }
            let standing = reading(|| self.desk.reports.standing()).await?;
            let now = (standing.projection.totals, standing.projection.generation);
            let is_news = self.told.is_none_or(|(totals, generation, told)| {
                (totals, generation) != now || told.elapsed() >= self.desk.heartbeat
            });
            if is_news {
                self.told = Some((now.0, now.1, Instant::now()));
                let totals = Some(totals(&now.0));
                return Ok(v1::WatchTotalsResponse { totals, as_of: Some(as_of(&standing)) });
            }
        }
    }
}

/// A page of what was read, and the first that is beyond it.
fn page<T>(mut rows: Vec<T>, size: i64) -> (Vec<T>, Option<T>) {
    let next = if rows.len() as i64 > size { rows.pop() } else { None };
    (rows, next)
}

fn invalid_day(field: &'static str, description: String) -> Invalid {
    Invalid { field, reason: InvalidReason::Day, description }
}

fn parse_day(text: &str) -> Option<NaiveDate> {
    let day: NaiveDate = text.parse().ok()?;
    // Written in one way only.
    ((FIRST_DAY..=LAST_DAY).contains(&day) && day.to_string() == text).then_some(day)
}

/// A day; `None` for "".
fn day(field: &'static str, text: &str) -> Result<Option<NaiveDate>, Invalid> {
    if text.is_empty() {
        return Ok(None);
    }
    let wrong = || invalid_day(field, format!("not a day from {FIRST_DAY} to {LAST_DAY}, written like that"));
    parse_day(text).map(Some).ok_or_else(wrong)
}

fn unknown_token() -> Invalid {
    let description = "not a next_page_token of this call; leave it empty for the first page".to_owned();
    Invalid { field: "page_token", reason: InvalidReason::Page, description }
}

/// The day with which a page begins.
fn day_token(token: &str) -> Result<Option<NaiveDate>, Invalid> {
    if token.is_empty() {
        return Ok(None);
    }
    token.strip_prefix(DAY_TOKEN_PREFIX).and_then(parse_day).map(Some).ok_or_else(unknown_token)
}

/// Whom a page comes after.
fn spender_token(token: &str) -> Result<Option<(Sum, i64)>, Invalid> {
    if token.is_empty() {
        return Ok(None);
    }
    let parts = token.strip_prefix(SPENDER_TOKEN_PREFIX).and_then(|rest| rest.split_once('-'));
    let read = |(spent, user_id): (&str, &str)| {
        let spent = Sum::from_minor(spent.parse().ok()?)?;
        Some((spent, user_id.parse().ok().filter(|user_id| *user_id > 0)?))
    };
    parts.and_then(read).map(Some).ok_or_else(unknown_token)
}

fn as_of(standing: &Standing) -> v1::AsOf {
    let Standing { projection, newest_seq, waiting_since } = standing;
    v1::AsOf {
        position: projection.seq,
        read_position: projection.read_seq,
        newest_position: *newest_seq,
        behind: (newest_seq - projection.read_seq).max(0),
        lag: projector::lag(*waiting_since).try_into().ok(),
        generation: projection.generation,
    }
}

fn turnover(turnover: &Turnover) -> v1::Turnover {
    v1::Turnover {
        spent: turnover.spent.to_string(),
        deposited: turnover.deposited.to_string(),
        deductions: turnover.deductions,
        deposits: turnover.deposits,
    }
}

fn daily((day, of_day): (NaiveDate, Turnover)) -> v1::DailySpending {
    v1::DailySpending { day: day.to_string(), turnover: Some(turnover(&of_day)) }
}

fn spender((user_id, of_account): (i64, Turnover)) -> v1::Spender {
    v1::Spender { user_id, turnover: Some(turnover(&of_account)) }
}

fn totals(totals: &Totals) -> v1::Totals {
    v1::Totals {
        accounts: totals.accounts,
        entries: totals.entries,
        opened: totals.opened.to_string(),
        adjusted: totals.adjusted.to_string(),
        resets: totals.resets,
        turnover: Some(turnover(&totals.turnover)),
    }
}
