//! The nodes as one: a lock is held where more than half of them say so. With one node that is the ordinary lock, with
//! more it is Redlock. It owns counting and the arithmetic of validity; it refuses waiting and renewing.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};
use tracing::Instrument;

use crate::{
    Error, Lost, Settings,
    hold::{Hold, fence_key},
    node::{Answer, Down, Node, Ours},
};

/// How much the clocks of two machines may part, as a share of the lease: one percent is a hundred times what quartz does.
const DRIFT_SHARE: u32 = 100;
/// And the grain of a Redis clock, which expires keys by the millisecond, twice.
const DRIFT_GRAIN: Duration = Duration::from_millis(2);

/// All nodes of a lock.
#[derive(Debug)]
pub(crate) struct Quorum {
    nodes: Vec<Arc<Node>>,
    lease: Duration,
    /// The counter of tokens, where one node hands them out. Several would count each for itself.
    fence: Option<String>,
}

/// An answer of a node, by its number.
type Answered<T> = (usize, Result<T, Down>);

/// A lock that was taken, and what is needed to give it back everywhere.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) token: Option<i64>,
    /// Until when it is ours.
    pub(crate) until: Instant,
    pub(crate) sent: Sent,
}

/// Why a lock was not taken.
#[derive(Debug)]
pub(crate) enum Refusal {
    Down(String),
    /// Somebody else has it, or a part of it; `next` if we are the next process to get it.
    Held {
        owner: Option<String>,
        left: Option<Duration>,
        next: bool,
    },
}

/// Requests for a lock that have been sent. A node may not be asked to give it back before it has answered, or the two
/// may reach it in the wrong order.
#[derive(Debug)]
pub(crate) struct Sent {
    hold: Arc<Hold>,
    /// Where it has been taken, or may have been: no answer came.
    taken: Vec<usize>,
    /// What is still to come.
    answers: mpsc::Receiver<Answered<Answer>>,
}

impl Sent {
    /// What was asked for.
    pub(crate) fn hold(&self) -> Arc<Hold> {
        Arc::clone(&self.hold)
    }
}

impl Quorum {
    pub(crate) fn new(nodes: Vec<Node>, settings: &Settings) -> Self {
        let fence = (nodes.len() == 1).then(|| fence_key(settings));
        Self { nodes: nodes.into_iter().map(Arc::new).collect(), lease: settings.lease, fence }
    }

    /// How many nodes there are.
    pub(crate) fn nodes(&self) -> usize {
        self.nodes.len()
    }

    fn needed(&self) -> usize {
        self.nodes.len() / 2 + 1
    }

    /// With more than so many against it, there is no majority.
    fn spare(&self) -> usize {
        self.nodes.len() - self.needed()
    }

    /// Until when a lease holds that nodes were asked for at `asked`. Their clocks began later.
    fn until(&self, asked: Instant) -> Instant {
        let drift = self.lease / DRIFT_SHARE + DRIFT_GRAIN;
        asked + self.lease.saturating_sub(drift)
    }

    /// Tries once to take a lock, and ends as soon as a majority has decided. What was taken in vain is given back in the
    /// background.
    pub(crate) async fn take(&self, hold: Hold) -> Result<Taken, Refusal> {
        let asked = Instant::now();
        let hold = Arc::new(hold);
        let mut answers = self.ask(|node| {
            let (hold, fence) = (Arc::clone(&hold), self.fence.clone());
            async move { node.acquire(&hold, fence.as_deref()).await }
        });
        let mut tally = Tally::default();
        while tally.yes < self.needed() && tally.against() <= self.spare() {
            let Some((at, answer)) = answers.recv().await else { break };
            tally.count(at, answer);
        }
        let until = self.until(asked);
        let sent = Sent { hold, taken: tally.taken, answers };
        if tally.yes >= self.needed() && Instant::now() < until {
            let token = self.fence.is_some().then_some(tally.token);
            return Ok(Taken { token, until, sent });
        }
        let late = tally.yes >= self.needed();
        self.give_back(sent);
        if late {
            return Err(Refusal::Down(format!("the lock came too late to be of use: {:?} of lease", self.lease)));
        }
        if tally.down.len() > self.spare() {
            return Err(Refusal::Down(sentence(&tally.down)));
        }
        let (owner, left) = tally.held.unzip();
        Err(Refusal::Held { owner, left: left.flatten(), next: tally.next })
    }

    /// Lets a lease begin anew and tells until when it holds.
    ///
    /// # Errors
    /// [`Error::Lost`] where a majority is no longer possible, [`Error::Down`] where it did not come about.
    pub(crate) async fn extend(&self, hold: &Arc<Hold>) -> Result<Instant, Error> {
        let asked = Instant::now();
        let answers = self.ask(|node| {
            let hold = Arc::clone(hold);
            async move { node.extend(&hold).await }
        });
        self.majority(answers).await.map(|()| self.until(asked))
    }

    /// Gives a lock back wherever it was asked for; ends when a majority has done so, at the latest after two commands.
    ///
    /// # Errors
    /// [`Error::Lost`] where it was not ours any more, [`Error::Down`] where too few answered: it then runs out by itself.
    pub(crate) async fn release(&self, sent: Sent) -> Result<(), Error> {
        let done = self.send_releases(sent);
        self.majority(done).await
    }

    fn give_back(&self, sent: Sent) {
        drop(self.send_releases(sent));
    }

    /// Asks each node to give a lock back as soon as it has answered whether it gave it.
    fn send_releases(&self, sent: Sent) -> mpsc::Receiver<Answered<Ours>> {
        let Sent { hold, taken, mut answers } = sent;
        let (tell, done) = mpsc::channel(self.nodes.len());
        let release = move |node: Arc<Node>| {
            let hold = Arc::clone(&hold);
            async move { node.release(&hold).await }
        };
        for (at, node) in self.all().filter(|(at, _)| taken.contains(at)) {
            send(at, release(Arc::clone(node)), &tell);
        }
        if taken.len() < self.nodes.len() {
            let nodes = self.nodes.clone();
            let late = async move {
                while let Some((at, answer)) = answers.recv().await {
                    if let (Ok(Answer::Taken(_)) | Err(_), Some(node)) = (&answer, nodes.get(at)) {
                        send(at, release(Arc::clone(node)), &tell);
                    }
                }
            };
            tokio::spawn(late.in_current_span());
        }
        done
    }

    /// Raises the counter of tokens.
    ///
    /// # Errors
    /// [`Error::Token`] where there is none, [`Error::Down`].
    pub(crate) async fn raise(&self, at_least: i64) -> Result<(), Error> {
        let (Some(fence), Some(node)) = (&self.fence, self.nodes.first()) else {
            return Err(Error::Token("Redlock hands out no fencing tokens; use a lock with one node".to_owned()));
        };
        node.raise(fence, at_least).await.map_err(|Down(why)| Error::Down(why))
    }

    /// Who holds each of some locks, by the word of a majority.
    ///
    /// # Errors
    /// [`Error::Down`] where fewer than a majority of the nodes answered.
    pub(crate) async fn owners(&self, locks: Vec<String>) -> Result<Vec<Option<String>>, Error> {
        let locks = Arc::new(locks);
        let mut answers = self.ask(|node| {
            let locks = Arc::clone(&locks);
            async move { node.owners(&locks).await }
        });
        let (mut told, mut down) = (Vec::new(), Vec::new());
        while let Some((_, answer)) = answers.recv().await {
            match answer {
                Ok(owners) => told.push(owners),
                Err(why) => down.push(why),
            }
        }
        if told.len() < self.needed() {
            return Err(Error::Down(sentence(&down)));
        }
        let of = |at: usize| {
            let all: Vec<&String> = told.iter().filter_map(|owners| owners.get(at)?.as_ref()).collect();
            let votes = |owner: &String| all.iter().filter(|other| **other == owner).count();
            all.iter().find(|owner| votes(owner) >= self.needed()).map(|owner| (*owner).clone())
        };
        Ok((0..locks.len()).map(of).collect())
    }

    async fn majority(&self, mut answers: mpsc::Receiver<Answered<Ours>>) -> Result<(), Error> {
        let (mut yes, mut no, mut down) = (0, 0, Vec::new());
        while let Some((_, answer)) = answers.recv().await {
            match answer {
                Ok(Ours::Yes) => yes += 1,
                Ok(Ours::No) => no += 1,
                Err(why) => down.push(why),
            }
            if yes >= self.needed() {
                return Ok(());
            }
            if no > self.spare() {
                return Err(Lost::NotOurs.into());
            }
        }
        Err(if down.is_empty() { Lost::NotOurs.into() } else { Error::Down(sentence(&down)) })
    }

    fn all(&self) -> impl Iterator<Item = (usize, &Arc<Node>)> {
        self.nodes.iter().enumerate()
    }

    /// Asks all nodes at once.
    fn ask<T: Send + 'static, F: Future<Output = Result<T, Down>> + Send + 'static>(
        &self,
        request: impl Fn(Arc<Node>) -> F,
    ) -> mpsc::Receiver<Answered<T>> {
        let (tell, answers) = mpsc::channel(self.nodes.len());
        for (at, node) in self.all() {
            send(at, request(Arc::clone(node)), &tell);
        }
        answers
    }
}

/// Sends one request in a task of its own: who no longer listens does not call it back, and a node that is silent keeps
/// nobody from hearing the others.
fn send<T: Send + 'static>(
    at: usize,
    request: impl Future<Output = Result<T, Down>> + Send + 'static,
    tell: &mpsc::Sender<Answered<T>>,
) {
    let tell = tell.clone();
    let task = async move {
        // There is room for an answer of each node, and nobody may listen any more.
        let _ = tell.send((at, request.await)).await;
    };
    tokio::spawn(task.in_current_span());
}

/// What nodes said to one try.
#[derive(Debug, Default)]
struct Tally {
    yes: usize,
    no: usize,
    down: Vec<Down>,
    taken: Vec<usize>,
    token: i64,
    next: bool,
    /// Who holds it, and for how long.
    held: Option<(String, Option<Duration>)>,
}

impl Tally {
    fn against(&self) -> usize {
        self.no + self.down.len()
    }

    fn count(&mut self, at: usize, answer: Result<Answer, Down>) {
        match answer {
            Ok(Answer::Taken(token)) => {
                self.yes += 1;
                self.token = token;
                self.taken.push(at);
            }
            Ok(Answer::Held { owner, left, next }) => {
                self.no += 1;
                self.next |= next;
                self.held = Some((owner, left));
            }
            Ok(Answer::Turn) => self.no += 1,
            Err(why) => {
                self.down.push(why);
                self.taken.push(at);
            }
        }
    }
}

/// What went wrong at the first of the nodes that are down, and at how many more.
fn sentence(down: &[Down]) -> String {
    match down {
        [] => "too few nodes answered; check that they run".to_owned(),
        [Down(only)] => format!("{only}; check that it runs and can be reached"),
        [Down(first), rest @ ..] => format!("{first}, and {} more; check that they run", rest.len()),
    }
}
