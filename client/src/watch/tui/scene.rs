//! What the terminal shows, before it is drawn: the servers, the recent spans by lane, the accounts' heads and the races.
//! Pure and bounded: arrivals in, no clock and no terminal. A copy of it is the picture that a pause holds still.

use std::collections::{BTreeMap, HashMap, VecDeque};

use zbl_proto::Money;
use zbl_proto::v1::{GapReason, Phase, Race, Span, StreamTimelineResponse, stream_timeline_response::Event};

use crate::{
    paint::begin_ns,
    watch::{
        arrival::{Arrival, News, end_ns},
        clocks::{Clocks, Shift},
    },
};

/// The spans kept, some 400 bytes each: 20 MB, or five seconds at ten thousand a second.
const SPANS: usize = 50_000;

/// The races kept for `n` and `p`, with up to 16 victims of some 200 bytes: at most 3 MB.
const RACES: usize = 1_000;

/// The accounts whose heads are kept: an attack opens one account after the other.
const ACCOUNTS: usize = 1_000;

/// What is shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Scene {
    pub(super) servers: Vec<Server>,
    clocks: Clocks,
    lanes: BTreeMap<LaneKey, VecDeque<Span>>,
    /// The lane of each span kept, in the order they arrived: the first is the next to be forgotten.
    kept: VecDeque<LaneKey>,
    accounts: HashMap<i64, Account>,
    races: VecDeque<Noticed>,
    pub(super) totals: Totals,
    pub(super) last_gap: Option<GapReason>,
    /// The end of the newest span.
    pub(super) newest_ns: i64,
    /// The account of the newest span.
    pub(super) newest_user: Option<i64>,
}

/// One server, as far as its stream tells.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) address: String,
    pub(super) instance: String,
    pub(super) epoch: String,
    pub(super) link: Link,
}

/// The state of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Connecting,
    Up,
    Down { error: String, retry_in_ms: u64 },
}

/// Lanes are drawn in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LaneKey {
    pub(super) user_id: i64,
    pub(super) source: usize,
    pub(super) lane: i32,
}

/// An account, as far as commits and races tell.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    /// The newest version seen committed.
    pub(super) version: i64,
    /// The version it was based on.
    pub(super) version_before: i64,
    /// The balance at it.
    pub(super) balance: Money,
    /// What overwriting destroyed since watching began, signed.
    pub(super) destroyed: Money,
    pub(super) races: u64,
    newest_ns: i64,
}

impl Account {
    /// The balance if nothing seen had been overwritten; `None` beyond what money can be.
    pub(super) fn expected(&self) -> Option<Money> {
        self.balance.checked_sub(self.destroyed)
    }
}

/// A race and when it was noticed.
#[derive(Clone, Debug)]
pub(super) struct Noticed {
    /// Counts the races from 1.
    pub(super) number: u64,
    pub(super) at_ns: i64,
    pub(super) race: Race,
}

/// Counted since watching began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) events: u64,
    pub(super) gaps: u64,
    pub(super) races: u64,
    pub(super) destroyed: Money,
}

impl Scene {
    /// Nothing has arrived yet.
    pub(super) fn new(addresses: &[String]) -> Self {
        let server = |address: &String| Server {
            address: address.clone(),
            instance: String::new(),
            epoch: String::new(),
            link: Link::Connecting,
        };
        Self { servers: addresses.iter().map(server).collect(), clocks: Clocks::of(addresses.len()), ..Self::default() }
    }

    /// Takes in what arrived.
    pub(super) fn take(&mut self, arrival: Arrival) {
        let Some(server) = self.servers.get_mut(arrival.source) else { return };
        match arrival.news {
            News::Connected { .. } => server.link = Link::Up,
            News::Disconnected { error, retry_in_ms } => server.link = Link::Down { error, retry_in_ms },
            News::Event(StreamTimelineResponse { epoch, instance, event, .. }) => {
                self.totals.events += 1;
                if server.epoch != epoch {
                    (server.epoch, server.instance) = (epoch, instance);
                }
                match event {
                    Some(Event::Span(span)) => self.span(arrival.source, arrival.arrived_us, span),
                    Some(Event::Race(race)) => self.race(race),
                    Some(Event::Gap(gap)) => {
                        self.totals.gaps += 1;
                        self.last_gap = Some(gap.reason());
                    }
                    Some(Event::Heartbeat(_)) | None => {}
                }
            }
        }
    }

    fn span(&mut self, source: usize, arrived_us: i64, mut span: Span) {
        let shifts = self.clocks.place(source, &self.servers[source].epoch, arrived_us, &mut span);
        shifts.for_each(|shift| self.shift(shift));
        let ended_ns = end_ns(&span);
        self.newest_ns = self.newest_ns.max(ended_ns);
        self.newest_user = Some(span.user_id);
        self.head(&span, ended_ns);
        if self.kept.len() == SPANS {
            self.forget_oldest();
        }
        let key = LaneKey { user_id: span.user_id, source, lane: span.lane };
        self.kept.push_back(key);
        self.lanes.entry(key).or_default().push_back(span);
    }

    /// Moves a server's spans later: versions show that they were placed too early.
    fn shift(&mut self, shift: Shift) {
        let own = self.lanes.iter_mut().filter(|(key, _)| key.source == shift.source);
        for span in own.flat_map(|(_, spans)| spans) {
            span.start_ns = span.start_ns.saturating_add(shift.by_ns);
            self.newest_ns = self.newest_ns.max(end_ns(span));
        }
    }

    fn head(&mut self, span: &Span, ended_ns: i64) {
        let (Phase::Commit, false, Some(written)) = (span.phase(), span.failed, &span.written) else { return };
        let Ok(balance) = Money::parse_signed(&written.balance) else { return };
        let Some(account) = self.account(span.user_id) else {
            return self.first_seen(span.user_id, written.version, balance, ended_ns);
        };
        account.newest_ns = ended_ns;
        if written.version > account.version {
            (account.version, account.version_before) = (written.version, written.version - 1);
            account.balance = balance;
        }
    }

    fn first_seen(&mut self, user_id: i64, version: i64, balance: Money, newest_ns: i64) {
        if self.accounts.len() == ACCOUNTS
            && let Some(oldest) = self.accounts.iter().min_by_key(|(_, account)| account.newest_ns).map(|(id, _)| *id)
        {
            self.accounts.remove(&oldest);
        }
        let version_before = version.saturating_sub(1);
        let account = Account { version, version_before, balance, destroyed: Money::ZERO, races: 0, newest_ns };
        self.accounts.insert(user_id, account);
    }

    fn race(&mut self, race: Race) {
        let destroyed = Money::parse_signed(&race.destroyed).unwrap_or_default();
        self.totals.races += 1;
        self.totals.destroyed = self.totals.destroyed.checked_add(destroyed).unwrap_or(self.totals.destroyed);
        if let Some(account) = self.account(race.user_id) {
            account.races += 1;
            account.destroyed = account.destroyed.checked_add(destroyed).unwrap_or(account.destroyed);
            if let (Some(overwriter), Some(seen)) = (&race.overwriter, &race.seen)
                && overwriter.version == account.version
            {
                account.version_before = seen.version;
            }
        }
        if self.races.len() == RACES {
            self.races.pop_front();
        }
        self.races.push_back(Noticed { number: self.totals.races, at_ns: self.newest_ns, race });
    }

    fn forget_oldest(&mut self) {
        let Some(key) = self.kept.pop_front() else { return };
        if let Some(spans) = self.lanes.get_mut(&key) {
            spans.pop_front();
            if spans.is_empty() {
                self.lanes.remove(&key);
            }
        }
    }

    fn account(&mut self, user_id: i64) -> Option<&mut Account> {
        self.accounts.get_mut(&user_id)
    }

    /// What is known of an account.
    pub(super) fn account_of(&self, user_id: i64) -> Option<&Account> {
        self.accounts.get(&user_id)
    }

    /// The lanes with anything between two times, and the spans of each that touch them, in order.
    pub(super) fn lanes_between(&self, from_ns: i64, to_ns: i64) -> impl Iterator<Item = (LaneKey, Vec<&Span>)> {
        self.lanes.iter().filter_map(move |(key, spans)| {
            let first = spans.partition_point(|span| end_ns(span) < from_ns);
            let inside: Vec<_> = spans.range(first..).take_while(|span| begin_ns(span) < to_ns).collect();
            (!inside.is_empty()).then_some((*key, inside))
        })
    }

    /// The races kept, oldest first.
    pub(super) fn races(&self) -> impl DoubleEndedIterator<Item = &Noticed> {
        self.races.iter()
    }

    /// The spans of a race's operations.
    pub(super) fn spans_of(&self, race: &Race) -> Vec<Span> {
        let takes_part = |request_id: &str| {
            race.overwriter.iter().chain(&race.victims).any(|contender| contender.request_id == request_id)
        };
        let lanes = self.lanes.iter().filter(|(key, _)| key.user_id == race.user_id);
        lanes.flat_map(|(_, spans)| spans).filter(|span| takes_part(&span.request_id)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::sample::{event, lost_update, span, state};

    fn scene(events: impl IntoIterator<Item = Event>) -> Scene {
        let mut scene = Scene::new(&["a:1".to_owned()]);
        for (sequence, body) in (1..).zip(events) {
            scene.take(Arrival { arrived_us: 1_000_000, source: 0, news: News::Event(event(sequence, body)) });
        }
        scene
    }

    #[test]
    fn the_head_is_the_newest_commit_and_the_expected_balance_lacks_nothing() {
        let scene = scene(lost_update().into_iter().filter_map(|response| response.event));
        let account = scene.account_of(7).unwrap();
        assert_eq!((account.version, account.version_before), (3, 1), "the overwriter had read version 1");
        assert_eq!((account.balance, account.expected()), (Money::from_minor(99_000), Some(Money::from_minor(98_000))));
        assert_eq!((scene.totals.races, scene.totals.destroyed), (1, Money::from_minor(1_000)));
        assert_eq!(scene.spans_of(&scene.races().next().unwrap().race).len(), 8);
    }

    #[test]
    fn late_and_failed_commits_do_not_move_the_head() {
        let commit = |version, failed| {
            Event::Span(Span { written: state("1.00", version), failed, ..span(1, Phase::Commit, 0, 1) })
        };
        let scene = scene([commit(5, false), commit(4, false), commit(9, true)]);
        assert_eq!(scene.account_of(7).unwrap().version, 5);
    }

    #[test]
    fn memory_is_bounded() {
        let span = |number: i64| Span {
            user_id: number % 3_000 + 1,
            written: state("1.00", number),
            ..span((number % 7) as i32, Phase::Commit, number, number + 1)
        };
        let race = || Event::Race(Race { user_id: 1, destroyed: "0.01".to_owned(), ..Race::default() });
        let scene = scene((0..SPANS as i64 + 5_000).flat_map(|number| [Event::Span(span(number)), race()]));
        assert_eq!(scene.lanes.values().map(VecDeque::len).sum::<usize>(), SPANS);
        assert_eq!((scene.kept.len(), scene.races.len(), scene.accounts.len()), (SPANS, RACES, ACCOUNTS));
        assert_eq!(scene.totals.races, SPANS as u64 + 5_000);
        assert!(scene.lanes.values().all(|spans| !spans.is_empty()));
    }
}
