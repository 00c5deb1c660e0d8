//! Pictures, literally.

use zbl_proto::v1::{Contender, Phase, Race, Span, State};

use super::*;

const A: &str = "5be0d113-0000-4000-8000-000000000001";
const B: &str = "a91c4f02-0000-4000-8000-000000000002";
const C: &str = "c0ffee00-0000-4000-8000-000000000003";

fn state(balance: &str, version: i64) -> State {
    State { balance: balance.to_owned(), version }
}

/// A span of account 7, in microseconds.
fn span(request_id: &str, phase: Phase, start_us: i64, end_us: i64) -> Span {
    Span {
        user_id: 7,
        request_id: request_id.to_owned(),
        phase: phase.into(),
        start_ns: start_us * 1000,
        duration_ns: (end_us - start_us) * 1000,
        ..Default::default()
    }
}

fn read(request_id: &str, seen: State, start_us: i64, end_us: i64) -> Span {
    Span { seen: Some(seen), ..span(request_id, Phase::Read, start_us, end_us) }
}

fn write(request_id: &str, written: State, start_us: i64, end_us: i64) -> Span {
    Span { written: Some(written), ..span(request_id, Phase::Write, start_us, end_us) }
}

fn deduction(request_id: &str, version: i64, balance_after: &str) -> Contender {
    Contender {
        request_id: request_id.to_owned(),
        version,
        delta: "-10.00".to_owned(),
        balance_after: balance_after.to_owned(),
    }
}

/// A and B read 1000.00; A commits; B, which cannot know, writes over it. C is a bystander.
fn one_lost_update() -> (Vec<Span>, Race) {
    let spans = vec![
        write(A, state("990.00", 2), 1500, 1900),
        span(A, Phase::Compute, 400, 1500),
        read(A, state("1000.00", 1), 100, 400),
        span(A, Phase::Commit, 1900, 3000),
        read(B, state("1000.00", 1), 250, 600),
        span(B, Phase::Compute, 600, 3300),
        write(B, state("990.00", 3), 3300, 3700),
        span(B, Phase::Commit, 3700, 4912),
        read(C, state("1000.00", 1), 10, 300),
    ];
    let race = Race {
        user_id: 7,
        overwriter: Some(deduction(B, 3, "990.00")),
        seen: Some(state("1000.00", 1)),
        victims: vec![deduction(A, 2, "990.00")],
        victims_omitted: 0,
        destroyed: "10.00".to_owned(),
    };
    (spans, race)
}

#[track_caller]
fn check(given: &(Vec<Span>, Race), width: usize, expected: &str) {
    let drawn = picture(&given.0, &given.1, width, Paint::Plain);
    assert_eq!(drawn.trim_end(), expected.trim_matches('\n'), "\n{drawn}");
}

#[test]
fn a_hundred_columns_show_every_value() {
    check(
        &one_lost_update(),
        100,
        "
            ── time, stretched; the order is exact ───────────────────────────────────────→ 4.812 ms
A 5be0d113  [read 1000.00@v1]─[ compute ]─[write 990.00@v2]─[commit]
                                          ╰─ -10.00 LOST
B a91c4f02     [read 1000.00@v1 ]─[              compute               ]─[write 990.00@v3]─[commit]
                                ╰─ still believes 1000.00@v1 ────────────╯ overwrites A
",
    );
}

#[test]
fn the_stale_window_gets_room_for_its_words() {
    let (mut spans, race) = one_lost_update();
    spans[4] = read(B, state("1000.00", 1), 450, 800);
    spans[5] = span(B, Phase::Compute, 801, 805);
    spans[6] = write(B, state("990.00", 3), 806, 3700);
    check(
        &(spans, race),
        120,
        "
            ── time, stretched; the order is exact ───────────────────────────────────────────────────────────→ 4.812 ms
A 5be0d113  [read 1000.00@v1]─[                     compute                     ]─[write 990.00@v2]─[commit]
                                                                                  ╰─ -10.00 LOST
B a91c4f02                     [read 1000.00@v1]──[         compute          ]──[      write 990.00@v3       ]─[commit]
                                               ╰─ still believes 1000.00@v1 ────╯ overwrites A
",
    );
}

#[test]
fn eighty_columns_show_versions() {
    check(
        &one_lost_update(),
        80,
        "
            ── time, stretched; the order is exact ───────────────────→ 4.812 ms
A 5be0d113  [read@v1]─[ compute ]─[write@v2]─[commit]
                                  ╰─ -10.00 LOST
B a91c4f02     [read@v1 ]─[           compute            ]─[write@v3]─[commit ]
                        ╰─ still believes 1000.00@v1 ──────╯ overwrites A
",
    );
}

#[test]
fn forty_columns_show_letters() {
    check(
        &one_lost_update(),
        40,
        "
            ──────────────────→ 4.812 ms
A 5be0d113  [R]─[ C ]─[W]─[#]
                      ╰─ -10.00 LOST
B a91c4f02   [R ]─[     C     ]─[W]─[#]
                ╰─ stale ───────╯ overwrites A
",
    );
}

#[test]
fn a_width_that_cannot_do_is_exceeded() {
    check(
        &one_lost_update(),
        0,
        "
            → 4.812 ms
A 5be0d113  [R]─[C]─[W]─[#]
       -10.00 LOST ─╯
B a91c4f02   [R]─[    C    ]─[W]─[#]
               ╰─ stale ─────╯ overwrites A
",
    );
}

#[test]
fn victims_stand_in_the_order_they_committed_and_are_bounded() {
    let (mut spans, mut race) = one_lost_update();
    spans.push(write(C, state("980.00", 3), 2000, 2200));
    spans.push(Span { failed: true, ..span(C, Phase::Commit, 2200, 2600) });
    let deposit = Contender { delta: "5.00".to_owned(), ..deduction(C, 3, "995.00") };
    race.victims = vec![deposit, deduction(A, 2, "990.00"), deduction("gone", 1, "1.00")];
    race.victims_omitted = 7;
    check(
        &(spans, race),
        100,
        "
            ── time, stretched; the order is exact ───────────────────────────────────────→ 4.902 ms
A gone      (not retained)
            ╰─ -10.00 LOST
B 5be0d113   [read@v1]─[compute]─[write@v2]─[           commit           ]
                                 ╰─ -10.00 LOST
C c0ffee00  [read@v1]────────────────────────[write@v3]─[commit failed]
                                             ╰─ +5.00 LOST
D a91c4f02     [read@v1]─[                     compute                      ]─[write@v3]─[commit]
                       ╰─ still believes 1000.00@v1 ──────────────────────────╯ overwrites A, B, C
            and 7 older victims, not drawn
",
    );
}

#[test]
fn without_spans_there_is_no_picture() {
    let (_, race) = one_lost_update();
    check(&(Vec::new(), race), 100, "(the spans of this race are no longer retained)");
    assert_eq!(picture(&[], &Race::default(), 0, Paint::Plain).lines().count(), 1);
}

#[test]
fn colours_change_no_letter() {
    let (spans, race) = one_lost_update();
    let (plain, coloured) = (picture(&spans, &race, 100, Paint::Plain), picture(&spans, &race, 100, Paint::Ansi));
    assert_ne!(plain, coloured);
    assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), plain);
}

#[test]
fn extremes_do_not_panic() {
    let (mut spans, race) = one_lost_update();
    let widest = picture(&spans, &race, usize::MAX, Paint::Plain);
    assert!(widest.lines().all(|line| line.chars().count() <= WIDEST), "{widest}");
    let balance = "9".repeat(1 << 17);
    spans.push(read(B, state(&balance, 1), 0, 1));
    picture(&spans, &race, usize::MAX, Paint::Plain);
    // Spans at the end of time begin and end in the same column.
    let last = |span: Span| Span { start_ns: i64::MAX, ..span };
    assert!(picture(&spans.into_iter().map(last).collect::<Vec<_>>(), &race, 80, Paint::Plain).contains("LOST"));
}

/// A wait of ten minutes is as wide as its label, and leaves the phases of milliseconds what they had.
#[test]
fn a_long_wait_in_the_queue_squeezes_nothing() {
    let (mut spans, race) = one_lost_update();
    let columns = |text: &str, what: &str| text.lines().filter_map(|line| line.find(what)).collect::<Vec<_>>();
    let before = picture(&spans, &race, 140, Paint::Plain);
    spans.push(span(B, Phase::Queued, -600_000_000, 200));
    let after = picture(&spans, &race, 140, Paint::Plain);
    assert!(after.contains("[queued 10.0 min"), "{after}");
    let room = |text: &str| {
        let (reads, commits) = (columns(text, "[read"), columns(text, "commit"));
        commits.iter().max().unwrap() - reads.iter().min().unwrap()
    };
    assert!(room(&after) * 2 > room(&before), "{before}\n{after}");
}
