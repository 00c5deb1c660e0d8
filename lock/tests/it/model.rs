//! The states of a lock, in any order: whatever several owners do, no two of them hold a live lease by Redis's own clock.
//! Time is let pass by shortening what Redis keeps, so that an hour costs nothing.

use proptest::{collection, prelude::*, sample::Index};
use test_support::Redis;
use zbl_lock::{Error, Lease, Lock, Owner, Settings};

use crate::{ask, lock, ms, settings};

const OWNERS: usize = 3;
/// Long against what a case takes by the real clock, so that only the time of the model passes.
const LEASE_MIN: u64 = 60;

#[derive(Debug, Clone)]
enum Step {
    Acquire(usize),
    Extend(usize, Index),
    Release(usize, Index),
    Drop(usize, Index),
    /// Minutes.
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let owner = 0..OWNERS;
    let step = prop_oneof![
        4 => owner.clone().prop_map(Step::Acquire),
        2 => (owner.clone(), any::<Index>()).prop_map(|(o, i)| Step::Extend(o, i)),
        2 => (owner.clone(), any::<Index>()).prop_map(|(o, i)| Step::Release(o, i)),
        1 => (owner, any::<Index>()).prop_map(|(o, i)| Step::Drop(o, i)),
        3 => (10..LEASE_MIN + 20).prop_map(Step::Pass),
    ];
    collection::vec(step, 1..40)
}

/// A lease in somebody's hands, and until when it was promised.
struct Promise {
    lease: Lease,
    until: u64,
}

/// What the owners have, and what they may rely on.
struct World {
    redis: &'static Redis,
    settings: Settings,
    /// Each owner in a process of its own: the queue in a process would keep them apart by itself.
    owners: Vec<(Lock, Owner, Vec<Promise>)>,
    now: u64,
    /// Until when Redis keeps the lock at most.
    kept: u64,
    /// Until when a dropped lease may keep others out.
    abandoned: u64,
    /// The newest token, and whose it is.
    newest: (i64, usize),
}

impl World {
    fn new() -> Self {
        let redis = Redis::shared().unwrap();
        let settings = Settings { lease: ms(LEASE_MIN * 60_000), wait: ms(0), ..settings() };
        let owners = (0..OWNERS).map(|name| (lock(redis, &settings), Owner::new(name), Vec::new())).collect();
        Self { redis, settings, owners, now: 0, kept: 0, abandoned: 0, newest: (0, 0) }
    }

    fn live(&self, owner: usize) -> bool {
        self.owners[owner].2.iter().any(|promise| promise.until > self.now)
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Acquire(owner) => self.acquire(*owner).await,
            Step::Extend(owner, which) => self.extend(*owner, which).await,
            Step::Release(owner, which) => {
                if let Some(promise) = self.take(*owner, which) {
                    let live = promise.until > self.now;
                    let released = promise.lease.release().await;
                    // A lock that ran out may still be this owner's: an inner hold let it begin anew.
                    assert!(released.is_ok() || !live, "{released:?} of a live lease");
                }
            }
            Step::Drop(owner, which) => {
                if self.take(*owner, which).is_some() {
                    self.abandoned = self.kept;
                }
            }
            Step::Pass(minutes) => self.pass(*minutes),
        }
        let live: Vec<_> = (0..OWNERS).filter(|owner| self.live(*owner)).collect();
        assert!(live.len() <= 1, "{live:?} all hold it");
    }

    async fn acquire(&mut self, owner: usize) {
        // Whose turn it is, is another matter.
        ask(self.redis, &["DEL", &format!("{}wanted:k", self.settings.prefix)]);
        // A hold that ran out may still be kept by Redis: another of the same owner let the lock begin anew.
        let others = (0..OWNERS).any(|other| other != owner && !self.owners[other].2.is_empty());
        let free = self.kept <= self.now || (!others && self.abandoned <= self.now);
        let (process, name, promises) = &mut self.owners[owner];
        match process.acquire("k", name).await {
            Ok(lease) => {
                let token = lease.token().unwrap();
                assert!(token > self.newest.0 || (token, owner) == self.newest, "{token} after {:?}", self.newest);
                self.newest = (token, owner);
                promises.push(Promise { lease, until: self.now + LEASE_MIN });
                self.keep();
            }
            Err(Error::Busy { holder, .. }) => assert!(!free, "free, and yet held by {holder}"),
            Err(error) => panic!("{error}"),
        }
    }

    async fn extend(&mut self, owner: usize, which: &Index) {
        let now = self.now;
        let promises = &mut self.owners[owner].2;
        if promises.is_empty() {
            return;
        }
        let at = which.index(promises.len());
        let promise = &mut promises[at];
        match promise.lease.extend().await {
            Ok(()) => {
                promise.until = now + LEASE_MIN;
                self.keep();
            }
            Err(Error::Lost(_)) => {
                assert!(promise.until <= now, "a live lease was lost");
                promises.remove(at);
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Redis lets the lock begin anew, with all of its holds.
    fn keep(&mut self) {
        self.kept = self.now + LEASE_MIN;
        if self.abandoned > self.now {
            self.abandoned = self.kept;
        }
    }

    fn take(&mut self, owner: usize, which: &Index) -> Option<Promise> {
        let promises = &mut self.owners[owner].2;
        (!promises.is_empty()).then(|| promises.remove(which.index(promises.len())))
    }

    /// Lets Redis believe that time has passed.
    fn pass(&mut self, minutes: u64) {
        self.now += minutes;
        let key = format!("{}lock:k", self.settings.prefix);
        let left: i64 = ask(self.redis, &["PTTL", &key]).parse().unwrap();
        if left > 0 {
            // To the minute, as the model counts: a few ms have really passed.
            let left = u64::try_from(left).unwrap().div_ceil(60_000).saturating_sub(minutes) * 60_000;
            ask(self.redis, &["PEXPIRE", &key, &left.to_string()]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_two_owners_hold_a_live_lease(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for step in &steps {
                world.step(step).await;
            }
        });
    }
}
