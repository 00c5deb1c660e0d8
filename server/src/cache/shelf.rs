//! Balances in Redis: the scripts, each as a call. What they say and why is written in them; here are the keys, and what
//! goes in and out. Every call is bounded in time, and one that fails says nothing of whether it took effect.

use std::{collections::BTreeMap, time::Duration};

use rand::Rng;
use redis::{FromRedisValue, Script};

use super::{
    filter::Hashes,
    link::{Lane, Link},
};
use crate::account::{Money, State};

/// How long a reader may take from looking here to filling. A slower one fills nothing.
const ERA_LIFE: Duration = Duration::from_secs(10);

/// How long it is remembered that somebody who looked for an account found none.
const ABSENCE_LIFE: Duration = Duration::from_secs(3);

/// What looking an account up came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Its newest state.
    Found(State),
    /// There is none, as far as the filter can be believed.
    Absent,
    /// Nothing is kept of it.
    Nothing(Nothing),
}

/// What a reader who found nothing takes to the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Nothing {
    /// The newest version announced; 0: none.
    pub(super) announced: i64,
    /// The time since anything was last announced, by name; readers in the same era may share a query. `None`: what is
    /// found is not kept.
    pub(super) era: Option<String>,
    /// What the filter says.
    pub(super) filter: Said,
}

/// What the filter says of an id that it did not rule out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It was not asked.
    Nothing,
    /// It contains the id, or seems to.
    Maybe,
    /// It is not there, or cannot be believed.
    Unknown,
}

/// Names an announcement, so that it can be taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announcement(String);

/// The balances of one database in one Redis.
pub(super) struct Shelf {
    pub(super) link: Link,
    /// What every key begins with.
    pub(super) prefix: String,
    life: Duration,
    look: Script,
    fill: Script,
    announce: Script,
    publish: Script,
    retract: Script,
    admit: Script,
}

/// A script that asks or fills the filter.
pub(super) fn filter_script(text: &str) -> Script {
    Script::new(&[include_str!("scripts/filter.lua"), text].concat())
}

impl Shelf {
    /// The balances whose keys begin with `prefix`, each kept for `life` and a little longer.
    pub(super) fn new(link: Link, prefix: String, life: Duration) -> Self {
        Self {
            link,
            prefix,
            life,
            look: filter_script(include_str!("scripts/look.lua")),
            fill: Script::new(include_str!("scripts/fill.lua")),
            announce: Script::new(include_str!("scripts/announce.lua")),
            publish: Script::new(include_str!("scripts/publish.lua")),
            retract: Script::new(include_str!("scripts/retract.lua")),
            admit: filter_script(include_str!("scripts/admit.lua")),
        }
    }

    /// Looks an account up, by a filter where one counts.
    pub(super) async fn look(&self, user_id: i64, filter: Option<i64>) -> Option<Look> {
        let hashes = Hashes::of(user_id);
        let mut script = self.look.key(self.balance(user_id));
        script.key(filter.map_or_else(String::new, |build| self.filter(build)));
        script.arg(token()).arg(milliseconds(ERA_LIFE)).arg(filter.map_or_else(String::new, |build| build.to_string()));
        script.arg(hashes.first).arg(hashes.second);
        let answer: Vec<String> = self.run(Lane::Shared, "look", &script).await?;
        let look = read(&answer);
        if look.is_none() {
            tracing::warn!(?answer, "Redis holds something of a balance that is not ours");
        }
        look
    }

    /// Keeps what was found in an era; whether it was kept. The absence of an account is kept where a filter is named by
    /// which it may be believed.
    pub(super) async fn fill(
        &self,
        user_id: i64,
        era: &str,
        found: Option<State>,
        filter: Option<i64>,
    ) -> Option<bool> {
        let mut script = self.fill.key(self.balance(user_id));
        script.arg(era);
        match (found, filter) {
            (Some(State { balance, version }), _) => {
                script.arg(version).arg(balance.minor()).arg(self.some_life()).arg("")
            }
            (None, Some(build)) => script.arg(0).arg("").arg(milliseconds(ABSENCE_LIFE)).arg(build),
            (None, None) => return Some(false),
        };
        self.run(Lane::Shared, "fill", &script).await
    }

    /// Says that accounts may be about to get versions.
    pub(super) async fn announce(&self, lane: Lane, versions: &BTreeMap<i64, i64>) -> Option<Announcement> {
        let token = token();
        self.tell(lane, versions, &token).await?;
        Some(Announcement(token))
    }

    /// Says that accounts may have got versions; nobody will take it back.
    pub(super) async fn remind(&self, versions: &BTreeMap<i64, i64>) -> Option<()> {
        self.tell(Lane::Shared, versions, "").await
    }

    async fn tell(&self, lane: Lane, versions: &BTreeMap<i64, i64>, token: &str) -> Option<()> {
        let mut script = self.announce.arg(self.some_life());
        script.arg(token);
        for (user_id, version) in versions {
            script.key(self.balance(*user_id)).arg(version);
        }
        self.run(lane, "announce", &script).await
    }

    /// Says what accounts hold at the versions that were announced.
    pub(super) async fn publish(&self, lane: Lane, states: &BTreeMap<i64, State>) -> Option<()> {
        let mut script = self.publish.arg(self.some_life());
        for (user_id, State { balance, version }) in states {
            script.key(self.balance(*user_id)).arg(version).arg(balance.minor());
        }
        self.run(lane, "publish", &script).await
    }

    /// Takes an announcement back: it did not come true.
    pub(super) async fn retract(
        &self,
        lane: Lane,
        accounts: impl Iterator<Item = &i64>,
        announcement: &Announcement,
    ) -> Option<()> {
        let mut script = self.retract.arg(&announcement.0);
        for user_id in accounts {
            script.key(self.balance(*user_id));
        }
        self.run(lane, "retract", &script).await
    }

    /// Adds an account that is about to be opened to a filter; whether it is in it now, for all who believe in it.
    pub(super) async fn admit(&self, user_id: i64, filter: i64) -> Option<bool> {
        let hashes = Hashes::of(user_id);
        let mut script = self.admit.key(self.filter(filter));
        script.key(self.balance(user_id)).arg(hashes.first).arg(hashes.second).arg(self.some_life());
        self.run(Lane::Shared, "admit", &script).await
    }

    async fn run<T: FromRedisValue>(
        &self,
        lane: Lane,
        operation: &'static str,
        script: &redis::ScriptInvocation<'_>,
    ) -> Option<T> {
        let call = async |mut connection| script.invoke_async(&mut connection).await;
        self.link.call(lane, operation, self.link.wait, call).await
    }

    fn balance(&self, user_id: i64) -> String {
        format!("{}balance:{user_id}", self.prefix)
    }

    /// The key of a filter.
    pub(super) fn filter(&self, build: i64) -> String {
        format!("{}filter:{build}", self.prefix)
    }

    /// A life with up to a tenth more, so that what was kept together does not run out together; in milliseconds.
    fn some_life(&self) -> u64 {
        let life = milliseconds(self.life);
        life + rand::rng().random_range(0..=life / 10)
    }
}

/// Reads the answer of `look.lua`.
fn read(answer: &[String]) -> Option<Look> {
    match answer {
        [kind, version, balance] if kind == "value" => {
            let state = State { balance: Money::from_minor(balance.parse().ok()?), version: version.parse().ok()? };
            Some(Look::Found(state))
        }
        [kind] if kind == "absent" => Some(Look::Absent),
        [kind, announced, era, said] if kind == "none" => Some(Look::Nothing(Nothing {
            announced: announced.parse().ok()?,
            era: Some(era.clone()).filter(|era| !era.is_empty()),
            filter: match said.as_str() {
                "maybe" => Said::Maybe,
                "unknown" => Said::Unknown,
                _ => Said::Nothing,
            },
        })),
        _ => None,
    }
}

/// A name that nobody has used.
pub(super) fn token() -> String {
    format!("{:016x}", rand::rng().random::<u64>())
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
