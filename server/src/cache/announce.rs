//! Where the cache listens: a store whose transactions tell Redis what they journal. The journal is the only way anything
//! happens, so nothing else has to tell, and no strategy knows of it.
//!
//! Around a COMMIT stand two calls. Before it, while the row locks are held, the versions are *announced*; after it they
//! are *published*, before the caller is answered. Where the announcement fails, the accounts are remembered first
//! (`owed.rs`): the commit goes on, because a cache must not stop a bank.
//!
//! Whoever finds an entry in the journal by its request is about to acknowledge it, after a lost COMMIT or to one who asks
//! again. Nobody knows that it was ever published, so it is published then.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use async_trait::async_trait;
use uuid::Uuid;

use super::{
    link::Lane,
    owed::{Owed, Remembrance},
    shelf::{Announcement, Shelf},
};
use crate::{
    account::{Entry, Money, NewEntry, State},
    chain::Record,
    store::{
        AccountWrite, BlindWrite, Error, FencedRead, Filter, IfLocked, Isolation, LockWaits, Matched, PoolState,
        Result, RowLock, Selection, Store, Transaction, Work,
        outbox::{Ending, Key, Outgoing},
    },
};

/// Who tells Redis.
pub(super) struct Announcer {
    pub(super) shelf: Arc<Shelf>,
    pub(super) owed: Arc<Owed>,
}

impl Announcer {
    /// Before a COMMIT is sent.
    async fn before(&self, lane: Lane, written: &BTreeMap<i64, State>) -> Said {
        let versions = versions(written);
        match self.shelf.announce(lane, &versions).await {
            Some(announcement) => Said::Announced(announcement),
            None => Said::Owed(self.owed.remember(versions)),
        }
    }

    /// When it was answered, or is lost.
    async fn after(&self, lane: Lane, written: &BTreeMap<i64, State>, said: Said, committed: &Result<()>) {
        match (committed, said) {
            (Ok(()), Said::Announced(_)) => self.publish(lane, written).await,
            // Redis may have been told by now, and have forgotten again before the commit: it is told once more. A lost one
            // may have happened, or happen yet; that it did, `find` will tell.
            (Ok(()), Said::Owed(_)) | (Err(Error::CommitLost(_)), _) => {
                self.owed.remember(versions(written));
            }
            (Err(_), Said::Announced(announcement)) => {
                // Where this fails the announcement stands, and costs reads a way to the database until it runs out.
                let _ = self.shelf.retract(lane, written.keys(), &announcement).await;
            }
            (Err(_), Said::Owed(remembrance)) => self.owed.withdraw(remembrance, written.keys().copied()),
        }
    }

    /// When it is certain that accounts got these states, and before anybody is told.
    async fn publish(&self, lane: Lane, committed: &BTreeMap<i64, State>) {
        if self.shelf.publish(lane, committed).await.is_none() {
            // The announcement stands, unless Redis loses its memory just now.
            self.owed.remember(versions(committed));
        }
    }

    /// When entries were found that somebody may be about to acknowledge.
    async fn found(&self, lane: Lane, entries: impl IntoIterator<Item = &Entry>) {
        let mut newest = BTreeMap::new();
        for Entry { user_id, balance_after: balance, version, .. } in entries {
            note(&mut newest, *user_id, State { balance: *balance, version: *version });
        }
        if !newest.is_empty() {
            self.publish(lane, &newest).await;
        }
    }
}

/// What became of an announcement.
enum Said {
    /// Redis has it.
    Announced(Announcement),
    /// Redis was not told, or did not confirm it.
    Owed(Remembrance),
}

/// Keeps the newest state of each account.
fn note(newest: &mut BTreeMap<i64, State>, user_id: i64, state: State) {
    let known = newest.entry(user_id).or_insert(state);
    if state.version > known.version {
        *known = state;
    }
}

fn versions(written: &BTreeMap<i64, State>) -> BTreeMap<i64, i64> {
    written.iter().map(|(user_id, state)| (*user_id, state.version)).collect()
}

/// A store that tells Redis what is committed in it.
pub(super) struct Announced {
    pub(super) inner: Arc<dyn Store>,
    pub(super) announcer: Arc<Announcer>,
}

impl Announced {
    fn announced(&self, inner: Box<dyn Transaction>, lane: Lane) -> Box<dyn Transaction> {
        Box::new(AnnouncedTransaction { inner, announcer: Arc::clone(&self.announcer), lane, written: BTreeMap::new() })
    }
}

#[async_trait]
impl Store for Announced {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn read(&self, user_id: i64) -> Result<Option<State>> {
        self.inner.read(user_id).await
    }

    async fn read_fenced(&self, user_id: i64, token: i64, until: Option<Instant>) -> Result<Option<FencedRead>> {
        self.inner.read_fenced(user_id, token, until).await
    }

    async fn find(&self, user_id: i64, request_id: Uuid) -> Result<Option<Entry>> {
        let found = self.inner.find(user_id, request_id).await?;
        self.announcer.found(Lane::Shared, &found).await;
        Ok(found)
    }

    async fn outgoing(&self, key: Key) -> Result<Option<Outgoing>> {
        self.inner.outgoing(key).await
    }

    async fn entries(&self, user_id: i64, after_version: i64, limit: i64) -> Result<Vec<Entry>> {
        self.inner.entries(user_id, after_version, limit).await
    }

    async fn select(&self, selection: Selection) -> Result<Vec<Entry>> {
        self.inner.select(selection).await
    }

    async fn entries_of_accounts(&self, after_user_id: i64, limit: i64) -> Result<Vec<Entry>> {
        self.inner.entries_of_accounts(after_user_id, limit).await
    }

    async fn records(&self, after: (i64, i64), limit: i64) -> Result<Vec<Record>> {
        self.inner.records(after, limit).await
    }

    async fn snapshot(&self, user_id: i64) -> Result<State> {
        self.inner.snapshot(user_id).await
    }

    async fn keyspace(&self) -> Result<String> {
        self.inner.keyspace().await
    }

    async fn filter(&self) -> Result<Filter> {
        self.inner.filter().await
    }

    async fn turn_filter(&self, from: Filter, to: Filter) -> Result<Matched> {
        self.inner.turn_filter(from, to).await
    }

    async fn account_ids(&self, after: i64, limit: i64) -> Result<Vec<i64>> {
        self.inner.account_ids(after, limit).await
    }

    async fn accounts(&self, after_user_id: i64, limit: i64) -> Result<Vec<(i64, State)>> {
        self.inner.accounts(after_user_id, limit).await
    }

    fn transaction(&self, isolation: Isolation, until: Option<Instant>) -> Box<dyn Transaction> {
        self.announced(self.inner.transaction(isolation, until), Lane::Shared)
    }

    fn transaction_apart(&self, isolation: Isolation) -> Box<dyn Transaction> {
        self.announced(self.inner.transaction_apart(isolation), Lane::Apart)
    }

    fn settlement(&self) -> Box<dyn Transaction> {
        self.announced(self.inner.settlement(), Lane::Shared)
    }

    fn pool(&self) -> PoolState {
        self.inner.pool()
    }

    fn work(&self) -> Work {
        self.inner.work()
    }

    async fn lock_waits(&self) -> Result<LockWaits> {
        self.inner.lock_waits().await
    }

    async fn links(&self) -> Result<Option<u64>> {
        self.inner.links().await
    }

    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }
}

struct AnnouncedTransaction {
    inner: Box<dyn Transaction>,
    announcer: Arc<Announcer>,
    lane: Lane,
    /// The newest state that was journaled of each account.
    written: BTreeMap<i64, State>,
}

impl AnnouncedTransaction {
    fn note(&mut self, entry: &NewEntry) {
        let state = State { balance: entry.balance_after, version: entry.version };
        note(&mut self.written, entry.user_id, state);
    }
}

#[async_trait]
impl Transaction for AnnouncedTransaction {
    async fn read(&mut self, user_id: i64, lock: RowLock) -> Result<Option<State>> {
        self.inner.read(user_id, lock).await
    }

    async fn write(&mut self, user_id: i64, balance: Money) -> Result<Matched> {
        self.inner.write(user_id, balance).await
    }

    async fn overtaken(&mut self, user_id: i64, version_read: i64) -> Result<Option<BlindWrite>> {
        self.inner.overtaken(user_id, version_read).await
    }

    async fn write_if_version(&mut self, user_id: i64, balance: Money, version: i64) -> Result<Matched> {
        self.inner.write_if_version(user_id, balance, version).await
    }

    async fn write_if_fence(&mut self, user_id: i64, balance: Money, token: i64) -> Result<Matched> {
        self.inner.write_if_fence(user_id, balance, token).await
    }

    async fn add_within(&mut self, user_id: i64, delta: Money, applicable: (Money, Money)) -> Result<Matched> {
        self.inner.add_within(user_id, delta, applicable).await
    }

    async fn begin_and_add(
        &mut self,
        user_id: i64,
        delta: Money,
        applicable: (Money, Money),
    ) -> Result<Option<(Matched, State)>> {
        self.inner.begin_and_add(user_id, delta, applicable).await
    }

    async fn append_and_commit(mut self: Box<Self>, entry: &NewEntry) -> Result<()> {
        self.note(entry);
        let Self { inner, announcer, lane, written } = *self;
        let said = announcer.before(lane, &written).await;
        let committed = inner.append_and_commit(entry).await;
        announcer.after(lane, &written, said, &committed).await;
        committed
    }

    async fn lock_many(&mut self, user_ids: &BTreeSet<i64>, if_locked: IfLocked) -> Result<BTreeMap<i64, State>> {
        self.inner.lock_many(user_ids, if_locked).await
    }

    async fn find_many(&mut self, requests: &BTreeMap<i64, Vec<Uuid>>) -> Result<Vec<Entry>> {
        let found = self.inner.find_many(requests).await?;
        self.announcer.found(self.lane, &found).await;
        Ok(found)
    }

    async fn write_many(&mut self, entries: &[NewEntry], accounts: &[AccountWrite]) -> Result<()> {
        self.inner.write_many(entries, accounts).await?;
        entries.iter().for_each(|entry| self.note(entry));
        Ok(())
    }

    async fn insert_account(&mut self, user_id: i64, balance: Money) -> Result<()> {
        self.inner.insert_account(user_id, balance).await
    }

    async fn find(&mut self, user_id: i64, request_id: Uuid) -> Result<Option<Entry>> {
        let found = self.inner.find(user_id, request_id).await?;
        self.announcer.found(self.lane, &found).await;
        Ok(found)
    }

    async fn entries_before(&mut self, user_id: i64, before_version: i64, limit: i64) -> Result<Vec<Entry>> {
        self.inner.entries_before(user_id, before_version, limit).await
    }

    async fn append(&mut self, entry: &NewEntry) -> Result<()> {
        self.inner.append(entry).await?;
        self.note(entry);
        Ok(())
    }

    async fn keep_snapshot(&mut self, user_id: i64, state: State) -> Result<()> {
        self.inner.keep_snapshot(user_id, state).await
    }

    async fn filter(&mut self) -> Result<Filter> {
        self.inner.filter().await
    }

    async fn move_filter(&mut self, from: Filter, to: Filter) -> Result<Matched> {
        self.inner.move_filter(from, to).await
    }

    async fn outgoing(&mut self, key: Key) -> Result<Option<Outgoing>> {
        self.inner.outgoing(key).await
    }

    async fn end_outgoing(&mut self, ending: &Ending) -> Result<()> {
        self.inner.end_outgoing(ending).await
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        let Self { inner, announcer, lane, written } = *self;
        if written.is_empty() {
            return inner.commit().await;
        }
        let said = announcer.before(lane, &written).await;
        let committed = inner.commit().await;
        announcer.after(lane, &written, said, &committed).await;
        committed
    }

    async fn rollback(self: Box<Self>) {
        // Nothing has been announced yet.
        self.inner.rollback().await;
    }
}
