//! Journals that were tampered with, entry by entry, and what is told of each.

use super::*;
use crate::account::Money;

const USER: i64 = 7;

fn text(version: i64) -> String {
    format!(
        "{USER}|{version}|{version:032x}|DEDUCT|-1.00|{}.00|{}|atomic|2026-11-24 08:15:30.123456",
        100 - version,
        version - 1
    )
}

/// A sound journal of so many entries, of which those up to one were written without the chain.
fn journal(entries: i64, unchained: i64) -> Vec<Record> {
    let mut previous = None;
    let record = |version| {
        let text = text(version);
        previous = (version > unchained).then(|| Digest::of(previous, &text));
        Record { user_id: USER, version, text, digest: previous }
    };
    (1..=entries).map(record).collect()
}

/// Where the account stands after so many.
fn account(version: i64) -> Option<State> {
    Some(State { balance: Money::from_minor((100 - version) * 100), version })
}

fn found(records: &[Record], account: Option<State>, anchor: Option<Anchor>) -> Vec<What> {
    let mut journal = Journal::new(USER, anchor);
    for record in records {
        journal.follow(record);
    }
    journal.end(account);
    journal.found().map(|finding| finding.what).collect()
}

#[track_caller]
fn check(what: &[What], tamper: impl FnOnce(&mut Vec<Record>)) {
    let mut records = journal(9, 0);
    tamper(&mut records);
    assert_eq!(found(&records, account(9), None), what);
}

/// Makes the digests anew from an index on.
fn rewrite(records: &mut [Record], from: usize) {
    for at in from..records.len() {
        records[at].digest = Some(Digest::of(records[at - 1].digest, &records[at].text));
    }
}

#[test]
fn a_sound_journal_is_sound() {
    check(&[], |_| {});
    assert_eq!(found(&journal(9, 4), account(9), None), [], "chained from 5 on");
    assert_eq!(found(&journal(9, 9), account(9), None), [], "not chained");
    let mut partly = Journal::new(USER, None);
    let covered = journal(9, 4).iter().filter(|record| partly.follow(record) == Coverage::Compared).count();
    assert_eq!(covered, 5);
}

#[test]
fn what_was_changed_is_named() {
    for at in 0..9 {
        let version = at as i64 + 1;
        check(&[What::Changed { version }], |records| records[at].text.push('0'));
        check(&[What::Changed { version }], |records| records[at].digest = Some(Digest::of(None, "")));
    }
    check(&[What::Changed { version: 5 }, What::Changed { version: 6 }], |records| {
        let (fifth, sixth) = (records[4].text.clone(), records[5].text.clone());
        (records[4].text, records[5].text) = (sixth, fifth);
    });
}

#[test]
fn a_digest_made_anew_is_found_at_the_next_entry() {
    check(&[What::Changed { version: 6 }], |records| {
        records[4].text.push('0');
        records[4].digest = Some(Digest::of(records[3].digest, &records[4].text));
    });
}

#[test]
fn what_is_not_there_is_named() {
    check(&[What::Missing { versions: (1, 1) }], |records| drop(records.remove(0)));
    check(&[What::Missing { versions: (5, 6) }], |records| drop(records.drain(4..6)));
    check(&[What::Missing { versions: (8, 9) }], |records| records.truncate(7));
    check(&[What::Missing { versions: (1, 9) }], Vec::clear);
}

#[test]
fn what_should_not_be_there_is_named() {
    let chained = || journal(11, 0).split_off(9);
    check(&[What::Inserted { versions: (10, 11), account: Some(9) }], |records| records.extend(chained()));
    assert_eq!(found(&journal(2, 0), None, None), [What::Inserted { versions: (1, 2), account: None }]);
    check(&[What::Inserted { versions: (0, 0), account: None }], |records| {
        records.insert(0, Record { version: 0, digest: None, ..records[0].clone() });
    });
    // Put in the place of another, which was moved on with all behind it.
    check(&[What::Broken { version: 5 }, What::Changed { version: 6 }], |records| {
        records[4].text.push('0');
        records[4].digest = Some(Digest::of(None, &records[4].text));
    });
}

#[test]
fn digests_that_are_gone_are_named() {
    check(&[What::Unchained { versions: (5, 6) }], |records| {
        (records[4].digest, records[5].digest) = (None, None);
    });
    check(&[What::Unchained { versions: (9, 9) }], |records| records[8].digest = None);
    // The chain was off for a while.
    check(&[What::Unchained { versions: (5, 6) }], |records| {
        (records[4].digest, records[5].digest) = (None, None);
        records[6].digest = Some(Digest::of(None, &records[6].text));
        rewrite(records, 7);
    });
    // The first ones, so that the chain would seem to begin later.
    check(&[What::Changed { version: 4 }], |records| records[..3].iter_mut().for_each(|record| record.digest = None));
    let mut both = journal(9, 0);
    (both[4].digest, both[4].text) = (None, both[4].text.clone() + "0");
    let what = [What::Unchained { versions: (5, 5) }, What::Changed { version: 6 }];
    assert_eq!(found(&both, account(9), None), what);
}

#[test]
fn an_account_that_was_changed_is_found() {
    let richer = State { balance: Money::from_minor(1_000_000), version: 9 };
    let what = What::Balance { version: 9, entry: "91.00".to_owned(), account: "10000.00".to_owned() };
    assert_eq!(found(&journal(9, 0), Some(richer), None), [what]);
}

/// Cut off with the account's row, or written anew to its end: no chain shows that, only what was kept elsewhere.
#[test]
fn an_anchor_shows_what_no_chain_can() {
    let sound = journal(9, 0);
    let anchor = Some(Anchor { digest: sound[6].digest.unwrap(), version: 7 });
    assert_eq!(found(&sound, account(9), anchor), []);
    assert_eq!(found(&journal(5, 0), account(5), None), []);
    assert_eq!(found(&journal(5, 0), account(5), anchor), [What::Anchor { version: 7, digest: None }]);
    let mut anew = sound;
    anew[3].text.push('0');
    rewrite(&mut anew, 3);
    assert_eq!(found(&anew, account(9), None), []);
    assert_eq!(found(&anew, account(9), anchor), [What::Anchor { version: 7, digest: anew[6].digest }]);
}

#[test]
fn anchors_are_read_back() {
    let anchor = Anchor { digest: Digest::of(None, ""), version: 12 };
    assert_eq!(anchor.to_string().parse(), Ok(anchor));
    for wrong in ["", "12", "abc@12", &anchor.digest.to_string(), &format!("{}@0", anchor.digest)] {
        assert!(wrong.parse::<Anchor>().is_err(), "{wrong}");
    }
}
