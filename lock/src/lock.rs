//! The lock itself: waiting for it, taking it for a caller who may go away, and what there is to tell of it.

use std::{collections::HashSet, fmt, sync::Arc};

use tokio::{
    sync::oneshot,
    time::{self, Instant},
};
use tracing::Instrument;

use crate::{
    Error, Figures, Holding, Lease, Owner, Settings,
    figures::Counters,
    hold::{Hold, lock_key},
    lease::Held,
    node::{Company, Node},
    owner::nonce,
    pace::Pace,
    queue::{Queue, Seat},
    quorum::{Quorum, Refusal, Taken},
};

/// As far as the counter of tokens can be raised: a billion tokens a day take twelve thousand years to come so far, and one
/// damaged number may not use up the tokens of all others.
const MOST_RAISED: i64 = 1 << 52;

/// Fewer nodes than this have no majority that survives the loss of one.
const MIN_NODES: usize = 3;
/// More nodes make each acquisition slower and hardly any safer.
const MAX_NODES: usize = 31;
/// Longer keys are no names any more; Redis would keep them.
const MAX_KEY: usize = 512;

/// A lock for any number of keys, shared by all processes that use the same nodes and prefix. Cheap to clone.
///
/// It belongs to the tokio runtime in which it is first used.
#[derive(Clone)]
pub struct Lock(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) quorum: Quorum,
    pub(crate) queue: Arc<Queue>,
    pub(crate) counters: Counters,
    /// Who we are when processes take turns.
    process: String,
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("settings", &self.0.settings).field("nodes", &self.0.quorum).finish()
    }
}

impl Lock {
    /// A lock on one Redis, which hands out fencing tokens. It does not connect: the server may come later.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Settings`].
    pub fn single(url: &str, settings: Settings) -> Result<Self, Error> {
        Self::on(&[url.to_owned()], settings)
    }

    /// A lock on an odd number of Redis servers that know nothing of each other, held where a majority says so. This is
    /// [Redlock], and subject to [its critique]: it lives by the clocks of all who take part, and no token protects what
    /// is written after a pause that was longer than the lease. What holds is: **while the lease holds**, nobody else has
    /// it, if no clock jumps and no node forgets. A node that restarts without its memory within a lease can give a
    /// lock away a second time; keep it down for the longest lease, or let it sync every write.
    ///
    /// [Redlock]: https://redis.io/docs/latest/develop/clients/patterns/distributed-locks/
    /// [its critique]: https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html
    ///
    /// # Errors
    /// [`Error::Url`] also if the nodes are fewer than three, an even number, or not all different;
    /// [`Error::Settings`].
    pub fn redlock(urls: &[String], settings: Settings) -> Result<Self, Error> {
        if !(MIN_NODES..=MAX_NODES).contains(&urls.len()) || urls.len().is_multiple_of(2) {
            let given = urls.len();
            return Err(Error::Url(format!(
                "Redlock needs an odd number of nodes, {MIN_NODES} to {MAX_NODES}, and was given {given}; \
                 an even one would survive no more failures than one less"
            )));
        }
        Self::on(urls, settings)
    }

    fn on(urls: &[String], settings: Settings) -> Result<Self, Error> {
        settings.validate()?;
        let company = if urls.len() == 1 { Company::None } else { Company::Others };
        let nodes = urls.iter().map(|url| Node::new(url, settings.command, company)).collect::<Result<Vec<_>, _>>()?;
        let different: HashSet<_> = nodes.iter().map(Node::address).collect();
        if different.len() < nodes.len() {
            return Err(Error::Url("the nodes must be different servers: one of them is named twice".to_owned()));
        }
        Ok(Self(Arc::new(Inner {
            quorum: Quorum::new(nodes, &settings),
            queue: Arc::default(),
            counters: Counters::new(&settings.name),
            process: format!("{}/{}", settings.instance, nonce()),
            settings,
        })))
    }

    /// Takes the lock of a key, waiting in turn for at most [`Settings::wait`], and for the answer to the last question
    /// (at most [`Settings::command`]). An owner that holds it gets in at once; two calls of one owner at the same time,
    /// neither of which holds it yet, take turns.
    ///
    /// It may be cancelled at any time: what was or is still being taken for the caller is given back in the background.
    /// Only if the process or its runtime ends first does the lock stay taken until its lease ends.
    ///
    /// # Errors
    /// [`Error::Busy`], [`Error::Down`], [`Error::Crowded`], [`Error::Key`].
    pub async fn acquire(&self, key: &str, owner: &Owner) -> Result<Lease, Error> {
        let Settings { name, instance, .. } = &self.0.settings;
        let owner = owner.text(instance);
        let begun = Instant::now();
        let span = tracing::debug_span!("lock_acquire", lock = name, key, owner, outcome = tracing::field::Empty);
        let result = self.wait_and_take(key, &owner, begun).instrument(span.clone()).await;
        match &result {
            Ok(_) => span.record("outcome", "acquired"),
            Err(error) => span.record("outcome", tracing::field::display(error)),
        };
        self.0.counters.asked(&result, begun.elapsed());
        result
    }

    async fn wait_and_take(&self, key: &str, owner: &str, begun: Instant) -> Result<Lease, Error> {
        check_key(key)?;
        let deadline = begun + self.0.settings.wait;
        let waiter = self.0.queue.join(key, owner)?;
        let Ok(seat) = time::timeout_at(deadline, waiter.seat()).await else {
            return Err(self.0.busy(key, Asked::Nobody, begun));
        };
        let (result, mine) = oneshot::channel();
        let lock = Arc::clone(&self.0);
        let taking =
            lock.take_for(result, Wanted { key: key.to_owned(), owner: owner.to_owned(), begun, deadline, seat });
        tokio::spawn(taking.in_current_span());
        let taken = mine.await.unwrap_or_else(|_| Err(Error::Down("the runtime is shutting down".to_owned())))?;
        // From here to the lease nothing is awaited: nobody can be cancelled between coming for it and having it.
        let _ = taken.come_for.send(());
        Ok(Lease::new(taken.held))
    }

    /// Lets the next fencing token be greater than `at_least`. A Redis that lost its memory counts from one again, and
    /// whoever guards something with tokens knows how far they had come.
    ///
    /// # Errors
    /// [`Error::Token`] for Redlock, and above 2⁵²; [`Error::Down`].
    pub async fn raise_token(&self, at_least: i64) -> Result<(), Error> {
        if at_least > MOST_RAISED {
            return Err(Error::Token(format!(
                "the fencing token cannot be raised to {at_least}, which no counter has come to: {MOST_RAISED} at most; \
                 correct what claims to have seen it"
            )));
        }
        self.0.quorum.raise(at_least).await
    }

    /// What this process knows of the locks that it holds or waits for, by key. It asks nobody.
    pub fn leases(&self) -> Vec<Holding> {
        self.0.queue.holdings()
    }

    /// How many callers of this process are kept out at this instant by somebody else, by the word of the nodes: theirs is
    /// a lock that another owner holds. Whoever waits for a lock that has just become free is not counted.
    ///
    /// # Errors
    /// [`Error::Down`].
    pub async fn blocked(&self) -> Result<usize, Error> {
        let before = self.0.queue.waiters();
        if before.is_empty() {
            return Ok(0);
        }
        let keys: Vec<_> = before.keys().collect();
        let locks = keys.iter().map(|key| lock_key(&self.0.settings, key)).collect();
        let owners = self.0.quorum.owners(locks).await?;
        // Those who waited before and after waited when the nodes were asked.
        let after = self.0.queue.waiters();
        let blocked = keys.into_iter().zip(owners).map(|(key, owner)| {
            let (Some(owner), Some(before), Some(after)) = (owner, before.get(key), after.get(key)) else { return 0 };
            before.iter().filter(|(number, waiter)| after.get(number) == Some(waiter) && **waiter != owner).count()
        });
        Ok(blocked.sum())
    }

    /// What has been done so far.
    pub fn figures(&self) -> Figures {
        self.0.counters.read()
    }
}

/// What a caller wants.
struct Wanted {
    key: String,
    owner: String,
    begun: Instant,
    deadline: Instant,
    seat: Arc<Seat>,
}

/// Who said that a lock is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// The nodes.
    Nodes,
    /// Nobody: others of this process were first.
    Nobody,
}

/// A lock that is ready for its caller, who says when it has come for it.
struct Ready {
    held: Arc<Held>,
    come_for: oneshot::Sender<()>,
}

type Caller = oneshot::Sender<Result<Ready, Error>>;

impl Inner {
    /// Takes a lock in a task of its own, and gives it back if nobody comes for it.
    async fn take_for(self: Arc<Self>, mut caller: Caller, wanted: Wanted) {
        let taken = match self.take(&wanted, &mut caller).await {
            Ok(taken) => taken,
            Err(error) => return drop(caller.send(Err(error))),
        };
        let held = Arc::new(Held::new(self, wanted.key, taken, wanted.seat));
        let (come_for, came) = oneshot::channel();
        // The caller may be gone, or go with this unread in its hands: either way nobody says that it came.
        let _ = caller.send(Ok(Ready { held: Arc::clone(&held), come_for }));
        if came.await.is_err() {
            let given_back = held.release().await;
            tracing::debug!(?given_back, "nobody came for the lock");
        }
    }

    /// Asks the nodes again and again until they give the lock, the time is over, or the caller gone.
    async fn take(&self, wanted: &Wanted, caller: &mut Caller) -> Result<Taken, Error> {
        let Wanted { key, owner, begun, deadline, .. } = wanted;
        let mut pace = Pace::of_nodes(self.quorum.nodes());
        loop {
            let hold = Hold::new(&self.settings, &self.process, key, owner);
            let next = match self.quorum.take(hold).await {
                Ok(taken) => return Ok(taken),
                Err(Refusal::Down(why)) => return Err(Error::Down(why)),
                Err(Refusal::Held { owner, left, next }) => {
                    if let Some(owner) = owner {
                        self.queue.saw(key, &owner, left.and_then(|left| Instant::now().checked_add(left)));
                    }
                    next
                }
            };
            if Instant::now() >= *deadline {
                return Err(self.busy(key, Asked::Nodes, *begun));
            }
            let pause = time::sleep_until((Instant::now() + pace.pause(next)).min(*deadline));
            tokio::select! {
                () = pause => {}
                () = caller.closed() => return Err(self.busy(key, Asked::Nodes, *begun)),
            }
        }
    }

    fn busy(&self, key: &str, asked: Asked, begun: Instant) -> Error {
        let holder = self.queue.holder(key).unwrap_or_else(|| "somebody unknown".to_owned());
        Error::Busy { holder, asked: asked == Asked::Nodes, waited: begun.elapsed() }
    }
}

fn check_key(key: &str) -> Result<(), Error> {
    if (1..=MAX_KEY).contains(&key.len()) {
        return Ok(());
    }
    Err(Error::Key(format!("a key must have 1 to {MAX_KEY} bytes, this one has {}", key.len())))
}
