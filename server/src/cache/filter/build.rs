//! The builder: sees to it that there is a filter that counts, in the Redis that is there, and large enough. One server
//! builds at a time, only to spare the others the work; what a filter is worth is decided by the database alone.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::Rng;
use redis::{FromRedisValue, Script, ScriptInvocation};

use super::{Believed, DISBELIEF, Hashes, turn};
use crate::{
    cache::{
        link::Lane,
        shelf::{Shelf, filter_script, milliseconds, token},
    },
    store::{Filter, FilterState, Store},
};

/// Bits for each id: with 7 probes, one absent id in a hundred is mistaken for an account (Bloom, 1970).
const BITS_PER_ID: u64 = 10;

/// The smallest filter, bytes: room for some thousand accounts, so that a new service does not rebuild again and again.
const LEAST_BYTES: u64 = 8 * 1024;

/// The largest, bytes: 50 million accounts. With more of them it mistakes more, which costs queries and nothing else.
const MOST_BYTES: u64 = 64 * 1024 * 1024;

/// Ids read and added at once: some milliseconds of Redis's time.
const PAGE: i64 = 500;

/// How long one step of a build may wait for Redis. No caller waits for it.
const STEP: Duration = Duration::from_secs(2);

/// How long the right to build lasts beyond a step.
const LEASE: Duration = Duration::from_secs(10);

/// How long a filter lives that nobody has made count, or that no longer does.
const LEFT_OVER: Duration = Duration::from_secs(3600);

/// How often it is looked after when nobody asks.
const LOOK_AFTER: Duration = Duration::from_secs(60);

/// How often building is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// The shortest rest between two builds. After a long one it is ten times as long as that took, so that servers that
/// disturb each other (one without Redis that opens accounts) do not keep the database busy with scans.
const REST: Duration = Duration::from_secs(1);

/// Builds filters.
pub(in crate::cache) struct Builder {
    store: Arc<dyn Store>,
    shelf: Arc<Shelf>,
    believed: Arc<Believed>,
    /// Who we are, for the lease.
    token: String,
    build: Script,
    add: Script,
    holds: Script,
    lease: Script,
}

impl Builder {
    /// A builder of filters on a shelf, of the accounts of a store.
    pub(in crate::cache) fn new(store: Arc<dyn Store>, shelf: Arc<Shelf>, believed: Arc<Believed>) -> Self {
        Self {
            store,
            shelf,
            believed,
            token: token(),
            build: filter_script(include_str!("../scripts/build.lua")),
            add: filter_script(include_str!("../scripts/add.lua")),
            holds: filter_script(include_str!("../scripts/holds.lua")),
            lease: Script::new(include_str!("../scripts/lease.lua")),
        }
    }

    /// Looks after the filter for as long as it is polled.
    pub(in crate::cache) async fn run(self) {
        loop {
            let began = Instant::now();
            let next = match self.look_after().await {
                Some(()) => LOOK_AFTER,
                None => TRY_AGAIN,
            };
            tokio::time::sleep((began.elapsed() * 10).max(REST)).await;
            let _ = tokio::time::timeout(next, self.believed.wanted.notified()).await;
        }
    }

    /// Builds one where it is needed. `None`: something failed, and the filter is as little believed as before.
    async fn look_after(&self) -> Option<()> {
        let mut filter = self.store.filter().await.ok()?;
        if filter.state == FilterState::Sound && self.is_enough(filter.build).await? {
            return Some(());
        }
        if !self.may_build().await? {
            return Some(());
        }
        if filter.state == FilterState::Sound {
            filter = self.turn(filter, FilterState::Revoked).await?;
        }
        if filter.state == FilterState::Revoked {
            tokio::time::sleep(DISBELIEF).await;
        }
        if filter.state != FilterState::Off {
            // Others may come first. Where it was being built, its builder has died, or is too slow to be waited for.
            let _ = self.turn(filter, FilterState::Off).await;
            filter = self.store.filter().await.ok()?;
        }
        if filter.state != FilterState::Off {
            return None;
        }
        let sound = self.build(filter).await?;
        self.believed.forget();
        tracing::info!(build = sound.build, "the filter of accounts is built");
        Some(())
    }

    /// Whether a filter is there and has room, as far as it may have.
    async fn is_enough(&self, build: i64) -> Option<bool> {
        let script = self.holds.key(self.shelf.filter(build));
        let (bits, ids): (u64, u64) = self.run_script("filter_holds", &script).await?;
        Some(bits > 0 && (ids <= bits / BITS_PER_ID || bits >= MOST_BYTES * 8))
    }

    async fn may_build(&self) -> Option<bool> {
        let mut script = self.lease.key(format!("{}filter-builder", self.shelf.prefix));
        script.arg(&self.token).arg(milliseconds(LEASE));
        self.run_script("filter_lease", &script).await
    }

    async fn turn(&self, from: Filter, state: FilterState) -> Option<Filter> {
        turn(&*self.store, from, from.turned(state)).await
    }

    async fn build(&self, off: Filter) -> Option<Filter> {
        let accounts = self.count().await?;
        let bytes = (2 * accounts * BITS_PER_ID / 8).clamp(LEAST_BYTES, MOST_BYTES);
        let build = rand::rng().random_range(1..i64::MAX);
        let mut script = self.build.key(self.shelf.filter(build));
        script.arg(bytes).arg(milliseconds(LEFT_OVER));
        if !self.run_script::<bool>("filter_build", &script).await? {
            tracing::warn!("Redis does not tell its run id (INFO server): there is no filter of accounts");
            return None;
        }
        let building = turn(&*self.store, off, Filter { build, state: FilterState::Building }).await?;
        let sound = match self.fill(build).await {
            Some(()) => self.turn(building, FilterState::Sound).await,
            None => None,
        };
        let Some(sound) = sound else {
            self.turn(building, FilterState::Off).await;
            return None;
        };
        // Where this fails it runs out, and is built again.
        self.command("filter_keep", redis::cmd("PERSIST").arg(self.shelf.filter(build))).await;
        let old = self.shelf.filter(off.build);
        self.command("filter_drop", redis::cmd("PEXPIRE").arg(old).arg(milliseconds(LEFT_OVER))).await;
        Some(sound)
    }

    /// How many accounts there are. In pages, because counting them all in one statement could take longer than one may.
    async fn count(&self) -> Option<u64> {
        let (mut accounts, mut last) = (0, 0);
        while let Some(ids) = self.page_after(last).await? {
            accounts += ids.len() as u64;
            last = ids.last().copied().unwrap_or(i64::MAX);
        }
        Some(accounts)
    }

    /// Adds every id there is.
    async fn fill(&self, build: i64) -> Option<()> {
        let mut last = 0;
        while let Some(ids) = self.page_after(last).await? {
            let mut script = self.add.key(self.shelf.filter(build));
            for hashes in ids.iter().copied().map(Hashes::of) {
                script.arg(hashes.first).arg(hashes.second);
            }
            let added: bool = self.run_script("filter_add", &script).await?;
            added.then_some(())?;
            last = ids.last().copied().unwrap_or(i64::MAX);
        }
        Some(())
    }

    /// The next ids, or `None` when there are no more.
    async fn page_after(&self, last: i64) -> Option<Option<Vec<i64>>> {
        // Where another has taken over meanwhile, the row says so in the end.
        let _ = self.may_build().await;
        let ids = self.store.account_ids(last, PAGE).await.ok()?;
        Some(Some(ids).filter(|ids| !ids.is_empty()))
    }

    async fn run_script<T: FromRedisValue>(&self, operation: &'static str, script: &ScriptInvocation<'_>) -> Option<T> {
        let call = async |mut connection| script.invoke_async(&mut connection).await;
        self.shelf.link.call(Lane::Shared, operation, STEP, call).await
    }

    async fn command(&self, operation: &'static str, command: &redis::Cmd) {
        let call = async |mut connection| command.query_async::<()>(&mut connection).await;
        let _ = self.shelf.link.call(Lane::Shared, operation, STEP, call).await;
    }
}
