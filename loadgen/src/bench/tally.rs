//! What clients were told, account by account, in constant memory: how many deductions of an account were acknowledged,
//! and a digest of their receipts to hold against the journal's.
//!
//! # Why a digest is enough
//!
//! The digest of a receipt is a keyed 128-bit hash of everything in it that the journal must confirm; the digest of many
//! is their sum. A sum, because it does not depend on the order, which differs between clients and journal, and because,
//! unlike XOR, it counts: a receipt given twice does not cancel itself. If as many entries of the run are journaled as
//! were acknowledged and the sums are equal, then the two are the same multiset, but for a chance of about 2^-128 as far
//! as SipHash is like a random function; keys are drawn anew for each run, so no history can be made to collide. Every acknowledgement is then in the journal
//! as it was told, nothing else of the run is, and the journal's tree alone tells which were lost. Where they differ, the
//! digest tells that something does not hold, not what.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;
use zbl_client::Money;

use crate::history::Acknowledgement;

/// The keys of a run's digests.
#[derive(Debug)]
pub(super) struct Keys {
    /// SipHash under a key drawn by the standard library.
    sip: RandomState,
    /// What each half of a digest begins its hash with: the library's keys differ by one from each other, so that two of
    /// them were not drawn apart.
    salts: [u128; 2],
}

impl Default for Keys {
    fn default() -> Self {
        Self { sip: RandomState::new(), salts: rand::random() }
    }
}

/// A sum of hashes. The halves are summed each by itself, so that many threads can add without a lock; as digests of a
/// multiset two sums of 64 bits are as good as one of 128.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Digest([u64; 2]);

/// What was acknowledged on one account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// How many deductions.
    pub(super) acknowledged: u64,
    /// Of their receipts.
    pub(super) digest: Digest,
}

/// What was told on every account, added to by all connections at once.
#[derive(Debug)]
pub(super) struct Tally {
    keys: Keys,
    accounts: Box<[Slot]>,
}

/// One account, 32 bytes.
#[derive(Debug, Default)]
struct Slot {
    acknowledged: AtomicU64,
    /// Deductions that ended without a receipt.
    others: AtomicU64,
    digest: [AtomicU64; 2],
}

impl Keys {
    /// The digest of one deduction.
    pub(super) fn digest(&self, request_id: Uuid, delta: Money, receipt: &Acknowledgement) -> Digest {
        let told = (request_id.as_u128(), delta, receipt.version, receipt.version_before, receipt.balance);
        Digest(self.salts.map(|salt| self.sip.hash_one((salt, told))))
    }
}

impl Digest {
    /// Of nothing.
    pub(super) const NONE: Self = Self([0; 2]);

    /// Adds another.
    pub(super) fn add(&mut self, other: Self) {
        for (sum, half) in self.0.iter_mut().zip(other.0) {
            *sum = sum.wrapping_add(half);
        }
    }
}

impl Tally {
    /// For this many accounts, of which nothing is known.
    pub(super) fn new(accounts: u32) -> Self {
        Self { keys: Keys::default(), accounts: (0..accounts).map(|_| Slot::default()).collect() }
    }

    pub(super) const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// A deduction on the account with this number was acknowledged.
    pub(super) fn acknowledge(&self, account: u32, request_id: Uuid, delta: Money, receipt: &Acknowledgement) {
        let Some(slot) = self.accounts.get(account as usize) else { return };
        let digest = self.keys.digest(request_id, delta, receipt);
        // Nothing is concluded from one of these before all who add to them have ended.
        slot.acknowledged.fetch_add(1, Ordering::Relaxed);
        for (sum, half) in slot.digest.iter().zip(digest.0) {
            sum.fetch_add(half, Ordering::Relaxed);
        }
    }

    /// A deduction on the account with this number ended without a receipt, so that its journal must be looked at.
    pub(super) fn touch(&self, account: u32) {
        if let Some(slot) = self.accounts.get(account as usize) {
            slot.others.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The accounts that any deduction was sent to, and what was told there.
    pub(super) fn touched(&self) -> impl Iterator<Item = (u32, Told)> {
        (0..).zip(&self.accounts).filter_map(|(account, slot)| {
            let acknowledged = slot.acknowledged.load(Ordering::Relaxed);
            let digest = Digest(slot.digest.each_ref().map(|half| half.load(Ordering::Relaxed)));
            let touched = acknowledged > 0 || slot.others.load(Ordering::Relaxed) > 0;
            touched.then_some((account, Told { acknowledged, digest }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELTA: Money = Money::from_minor(-1);

    fn receipt(version: i64) -> Acknowledgement {
        Acknowledgement { balance: Money::from_minor(100 - version), version, version_before: version - 1 }
    }

    fn sum(digests: &[Digest]) -> Digest {
        digests.iter().fold(Digest::NONE, |mut sum, digest| {
            sum.add(*digest);
            sum
        })
    }

    #[test]
    fn a_digest_knows_no_order_and_forgets_no_repetition() {
        let keys = Keys::default();
        let [a, b] = [1, 2].map(|version| keys.digest(Uuid::from_u128(9), DELTA, &receipt(version)));
        assert_eq!(sum(&[a, b]), sum(&[b, a]));
        assert_ne!(sum(&[a, a]), Digest::NONE, "XOR would cancel it");
        assert_ne!(sum(&[a, a]), sum(&[b, b]));
    }

    #[test]
    fn every_field_makes_another_digest_and_so_does_every_run() {
        let keys = Keys::default();
        let id = Uuid::from_u128(9);
        let same = keys.digest(id, DELTA, &receipt(2));
        assert_eq!(keys.digest(id, DELTA, &receipt(2)), same);
        for other in [
            keys.digest(Uuid::from_u128(8), DELTA, &receipt(2)),
            keys.digest(id, Money::from_minor(1), &receipt(2)),
            keys.digest(id, DELTA, &Acknowledgement { version: 3, ..receipt(2) }),
            keys.digest(id, DELTA, &Acknowledgement { version_before: 0, ..receipt(2) }),
            keys.digest(id, DELTA, &Acknowledgement { balance: Money::ZERO, ..receipt(2) }),
            Keys::default().digest(id, DELTA, &receipt(2)),
        ] {
            assert_ne!(other, same);
        }
    }

    #[test]
    fn accounts_are_touched_by_receipts_and_by_refusals() {
        let tally = Tally::new(4);
        tally.acknowledge(1, Uuid::from_u128(1), DELTA, &receipt(2));
        tally.acknowledge(1, Uuid::from_u128(2), DELTA, &receipt(3));
        tally.touch(3);
        let touched: Vec<_> = tally.touched().map(|(account, told)| (account, told.acknowledged)).collect();
        assert_eq!(touched, [(1, 2), (3, 0)]);
    }
}
