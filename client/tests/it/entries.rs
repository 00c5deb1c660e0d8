//! The journal as a client reads it: filters as they are sent, and streams across reconnections.

use std::time::{Duration, SystemTime};

use tonic::{Code, Status};
use uuid::Uuid;
use zbl_client::{EntryFilter, EntryKind, EntryOrder, EntryStream, EntryStreamItem, Error, Reason};
use zbl_proto::v1::{Entry, ListEntriesResponse, StreamEntriesResponse};

use crate::scripted::{Script, failure};

fn entry(version: i64) -> Entry {
    let (delta, balance_after) = ("-0.05".to_owned(), "1.00".to_owned());
    Entry { version, request_id: Uuid::nil().to_string(), delta, balance_after, ..Entry::default() }
}

fn entries(versions: impl IntoIterator<Item = i64>) -> Result<StreamEntriesResponse, Status> {
    Ok(StreamEntriesResponse { entries: versions.into_iter().map(entry).collect() })
}

/// What comes until the stream ends, in short, and how it ends.
async fn follow(stream: &mut EntryStream) -> (Vec<String>, Error) {
    let mut seen = Vec::new();
    loop {
        seen.push(match stream.next().await {
            Ok(EntryStreamItem::Connected) => "up".to_owned(),
            Ok(EntryStreamItem::Disconnected { .. }) => "down".to_owned(),
            Ok(EntryStreamItem::Heartbeat) => "beat".to_owned(),
            Ok(EntryStreamItem::Entry(entry)) => entry.version.to_string(),
            Err(error) => return (seen, error),
        });
    }
}

#[tokio::test]
async fn resumes_behind_the_last_entry_without_repeating_or_leaving_out_any() {
    let script = Script::default().followings([
        vec![entries([3, 4]), Err(failure(Code::Unavailable, Reason::ShuttingDown))],
        vec![Err(failure(Code::ResourceExhausted, Reason::Overloaded))],
        // A server that errs on the safe side sends the last ones again.
        vec![entries([4, 5]), entries([]), entries([6])],
    ]);
    let mut stream = script.serve().await.stream_entries(7, 2);
    let (seen, end) = follow(&mut stream).await;
    assert_eq!(seen, ["up", "3", "4", "down", "up", "down", "up", "5", "beat", "6", "down"]);
    assert_eq!((end.code(), stream.version()), (Code::Unimplemented, 6), "{end}");
    let asked = script.asked();
    let resumed: Vec<_> = asked.followed.iter().map(|ask| (ask.user_id, ask.after_version)).collect();
    assert_eq!(resumed, [(7, 2), (7, 4), (7, 4), (7, 6)]);
}

#[tokio::test]
async fn an_entry_that_is_left_out_ends_the_stream() {
    let script = Script::default().followings([vec![entries([1, 3])]]);
    let (seen, end) = follow(&mut script.serve().await.stream_entries(7, 0)).await;
    assert_eq!(seen, ["up", "1"]);
    assert!(end.message().contains("version 3 where 2 was next"), "{end}");
}

#[tokio::test]
async fn a_position_that_the_journal_does_not_have_ends_the_stream() {
    let script = Script::default().followings([vec![Err(failure(Code::InvalidArgument, Reason::InvalidResume))]]);
    let (seen, end) = follow(&mut script.serve().await.stream_entries(7, 9)).await;
    assert_eq!((seen, end.reason()), (vec!["up".to_owned()], Some(Reason::InvalidResume)));
}

#[tokio::test]
async fn a_filter_goes_with_every_page() {
    let lost = Entry { overwritten_by: 9, ..entry(8) };
    let page = |entries, next: &str| ListEntriesResponse { entries, next_page_token: next.to_owned() };
    let script = Script::default().page("", page(vec![], "more")).page("more", page(vec![lost, entry(7)], ""));
    let filter = EntryFilter {
        from: Some(SystemTime::UNIX_EPOCH + Duration::new(5, 7)),
        kinds: vec![EntryKind::Deduct],
        strategies: vec!["none".to_owned()],
        lost_only: true,
        order: EntryOrder::NewestFirst,
        ..EntryFilter::default()
    };
    let client = script.serve().await;
    let first = client.entries_where(1, &filter, 10, None).await.unwrap();
    assert_eq!((first.entries.len(), first.next.as_deref()), (0, Some("more")));
    let second = client.entries_where(1, &filter, 10, first.next.as_deref()).await.unwrap();
    let overwritten: Vec<_> = second.entries.iter().map(|entry| (entry.version, entry.overwritten_by)).collect();
    assert_eq!((overwritten, second.next), (vec![(8, Some(9)), (7, None)], None));
    let asked = script.asked();
    let [one, two] = &asked.listed[..] else { panic!("{:?}", asked.listed) };
    assert_eq!((one.page_token.as_str(), two.page_token.as_str()), ("", "more"));
    for request in [one, two] {
        assert_eq!(request.from_time.map(|time| (time.seconds, time.nanos)), Some((5, 7)));
        assert_eq!((request.to_time, request.kinds.clone(), request.lost_only), (None, vec![2], true));
        assert_eq!((request.order(), request.strategies.clone()), (EntryOrder::NewestFirst, vec!["none".to_owned()]));
    }
}
