//! One scene, from the opening of its account to the judgement. Each step waits for the one before it to be seen, at the
//! gates of the two servers; time decides only what a lease decides: when a rival counts as kept out.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;
use zbl_client::{Account, Change, Hold, Money, Phase};

use super::call::Call;
use super::deaths::{By, Lines};
use super::report::{Place, Played, Rival};
use super::stage::Stage;
use super::story::Facts;
use super::{Scene, line, phase_name};
use crate::attack::{read, settle};
use crate::verdict::{Evidence, Journal, State, judge};

/// What the account has, and what each of the two takes.
pub(super) const OPENING: Money = Money::from_minor(10_000);
pub(super) const AMOUNT: Money = Money::from_minor(1_000);

/// How long the holder may take to where it is held; nobody else is at work on its account.
const ARRIVAL_MOST: Duration = Duration::from_secs(20);

/// How long after the end of the lease a rival may still come in: who waits for a lock asks again several times in this
/// time, and a node that is slow to answer has been given up.
const GRACE: Duration = Duration::from_secs(2);

/// How long either may take to its end once nothing holds it: longer than a server goes on trying.
const END_MOST: Duration = Duration::from_secs(60);

/// How long settling and reading may take on servers that work.
const SETTLING_MOST: Duration = Duration::from_secs(30);

/// What the key of an account's lock begins with, on servers that keep the default of `--redis-prefix`.
const LOCK_PREFIX: &str = "zbl:lock:";

/// What is done to the lock, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Prepare,
    Break,
    Mend,
    Restore,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepare => "prepare",
            Self::Break => "break",
            Self::Mend => "mend",
            Self::Restore => "restore",
        })
    }
}

impl Lines {
    fn of(&self, step: Step) -> Option<&str> {
        match step {
            Step::Prepare => self.prepare.as_deref(),
            Step::Break => Some(&self.breaks),
            Step::Mend => self.mend.as_deref(),
            Step::Restore => self.restore.as_deref(),
        }
    }
}

/// Somebody who deducts, and the gate it is held at.
struct Actor {
    hold: Hold,
    call: Call,
}

/// What the two came to while the lock was dying.
struct Met {
    holder: Actor,
    holder_id: Uuid,
    rival: Actor,
    /// In which attempt the holder stood.
    attempt: u32,
    /// What it held then, and what the rival held later, as their servers told.
    leases: [Option<String>; 2],
    came: Rival,
}

/// A scene being played.
struct Play<'a, P> {
    stage: &'a Stage,
    scene: &'a Scene<'a>,
    phase: Phase,
    root: Account,
    person: &'a mut P,
}

/// Plays a scene. Whatever may be broken is mended at the end, however it went.
pub(super) async fn play<P>(stage: &Stage, scene: &Scene<'_>, phase: Phase, person: &mut P) -> Place
where
    P: AsyncFnMut(&str) -> Result<(), String>,
{
    let played = match stage.holder.open_account(None, OPENING).await {
        Ok(root) => Play { stage, scene, phase, root, person }.through().await,
        Err(error) => Err(format!("no account could be opened: {error}")),
    };
    Place::new(phase, played)
}

impl<P> Play<'_, P>
where
    P: AsyncFnMut(&str) -> Result<(), String>,
{
    async fn through(&mut self) -> Result<Played, String> {
        let met = self.meet().await;
        let so_far = met.as_ref().map_or_else(Clone::clone, |met| met.came.to_string());
        let mended = self.act(Step::Mend, &so_far).await;
        let ended = match met {
            Ok(met) => self.part(met).await,
            Err(reason) => Err(reason),
        };
        let restored = self.act(Step::Restore, "").await;
        let (calls, facts) = ended?;
        mended.and(restored)?;
        self.judge(calls, facts).await
    }

    /// The holder stands, the lock dies, and the rival gets as far as it can.
    async fn meet(&mut self) -> Result<Met, String> {
        self.act(Step::Prepare, "").await?;
        let holder_id = Uuid::new_v4();
        let mut holder = self.enter(&self.stage.holder, holder_id, self.phase).await?;
        let attempt = tokio::select! {
            arrived = holder.hold.arrived() => arrived.map_err(|error| format!("the holder was let go: {error}"))?,
            end = holder.call.ended() => {
                let end = end.map_or_else(|error| error.to_string(), |receipt| format!("it wrote v{}", receipt.version));
                return Err(format!("the holder did not come to its {}: {end}", phase_name(self.phase)));
            }
            () = tokio::time::sleep(ARRIVAL_MOST) => {
                return Err(format!("the holder did not come to its {} within {ARRIVAL_MOST:?}", phase_name(self.phase)));
            }
        };
        let held = self.stage.lease_of(&self.stage.holder, self.root.user_id).await;
        self.act(Step::Break, "").await?;
        let broken = Instant::now();
        let mut rival = self.enter(&self.stage.rival, Uuid::new_v4(), Phase::Write).await?;
        let kept_out = broken + self.stage.lease + GRACE;
        let came = tokio::select! {
            arrived = rival.hold.arrived() => {
                let attempt = arrived.map_err(|error| format!("the rival was let go: {error}"))?;
                Rival::Stood { after: broken.elapsed(), attempt }
            }
            end = rival.call.ended() => Rival::ended(broken.elapsed(), end)
                .map_err(|reason| format!("{}: {reason}", self.stage.rival.address()))?,
            () = sleep_until(kept_out) => Rival::KeptOut { after: broken.elapsed() },
        };
        let taken = match came {
            Rival::Stood { .. } => self.stage.lease_of(&self.stage.rival, self.root.user_id).await,
            Rival::KeptOut { .. } | Rival::TurnedAway { .. } | Rival::Ended { .. } => None,
        };
        // Until now the holder may believe in a lease it renewed just before; after this it can know better. Whoever
        // goes on sooner loses money before its WRITE as well, by luck.
        sleep_until(broken + self.stage.lease).await;
        Ok(Met { holder, holder_id, rival, attempt, leases: [held, taken], came })
    }

    /// Sends a deduction to a server that holds it before a phase.
    async fn enter(&self, server: &zbl_client::Client, request_id: Uuid, phase: Phase) -> Result<Actor, String> {
        let held = server.hold(request_id, phase).await;
        let hold = held.map_err(|error| format!("{} does not hold operations: {error}", server.address()))?;
        let strategy = self.scene.strategy.to_owned();
        let change = Change { user_id: self.root.user_id, amount: AMOUNT, request_id, strategy };
        Ok(Actor { hold, call: Call::begin(server, change) })
    }

    /// The holder goes on, then the rival. A holder that notices its loss begins anew, behind the rival.
    async fn part(&self, met: Met) -> Result<([Call; 2], Facts), String> {
        let Met { mut holder, holder_id, mut rival, attempt, leases, came } = met;
        // Takes the first one's place: where the holder stands now it is let go, before it locks again it stands once more.
        let again = self.stage.holder.hold(holder_id, Phase::LockWait).await;
        let mut again = again.map_err(|error| format!("the holder is not held again: {error}"))?;
        drop(holder.hold);
        let most = self.stage.lease + GRACE;
        let noticed = tokio::select! {
            arrived = again.arrived() => arrived.ok(),
            _ = holder.call.ended() => None,
            // Behind the rival, where that one has locked what the holder needs.
            () = tokio::time::sleep(most) => None,
        };
        drop(rival.hold);
        // What has not ended by then is settled.
        let _ = timeout(END_MOST, rival.call.ended()).await;
        drop(again);
        let _ = timeout(END_MOST, holder.call.ended()).await;
        let addresses = self.stage.clients().map(|client| client.address().to_owned());
        let death = self.scene.death.name.clone();
        Ok(([holder.call, rival.call], Facts { addresses, death, phase: self.phase, attempt, leases, came, noticed }))
    }

    async fn judge(&self, calls: [Call; 2], facts: Facts) -> Result<Played, String> {
        let clients = self.stage.clients();
        let until = Instant::now() + SETTLING_MOST;
        let [holder, rival] = calls;
        let mut operations = [holder.settled(&clients, until).await, rival.settled(&clients, until).await];
        settle(&clients, self.root.user_id, &mut operations, until).await;
        let unreadable = |error| format!("account {} cannot be read back: {error}", self.root.user_id);
        let (journal, account) = read(&clients, self.root, until).await.map_err(unreadable)?;
        let state = |account: Account| State { balance: account.balance, version: account.version };
        let evidence = Evidence {
            operations: &operations,
            journal: Journal { root: state(self.root), entries: &journal },
            last: state(account),
        };
        let judgement = judge(&evidence).map_err(|error| error.to_string())?;
        let story = facts.tell(&operations, &judgement.lost_updates);
        Ok(Played::new(self.root.user_id, facts, judgement, story))
    }

    /// Breaks or mends, by whatever brings this death about. `so_far` tells a person what has happened.
    async fn act(&mut self, step: Step, so_far: &str) -> Result<(), String> {
        match &self.scene.death.by {
            By::Lines(lines) => {
                let Some(line) = lines.of(step) else { return Ok(()) };
                let user_id = self.root.user_id.to_string();
                let key = format!("{LOCK_PREFIX}{user_id}");
                let strategy = self.scene.strategy;
                let variables = [("ZBL_USER_ID", user_id.as_str()), ("ZBL_STRATEGY", strategy), ("ZBL_LOCK_KEY", &key)];
                line::run(line, &variables).await.map_err(|error| format!("{step}: {error}"))
            }
            By::Hand => {
                let (user_id, strategy) = (self.root.user_id, self.scene.strategy);
                let prompt = match step {
                    Step::Prepare => return Ok(()),
                    Step::Break => format!(
                        "{strategy}: the holder stands before its {} on account {user_id}; break something now",
                        phase_name(self.phase)
                    ),
                    Step::Mend => format!("{so_far}; mend what keeps the holder from going on, if anything does"),
                    Step::Restore => "both have ended; mend what is still broken".to_owned(),
                };
                (self.person)(&format!("{prompt}, then press Enter")).await
            }
        }
    }
}
