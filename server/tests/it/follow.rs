//! A journal as a consumer follows it: every entry once and in order, across restarts, whichever server wrote it, and no
//! faster than it is read.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{DuplexStream, copy_bidirectional},
    net::TcpStream,
    time::timeout,
};
use tonic::{Code, Streaming, transport::Endpoint};
use uuid::Uuid;
use zbl_client::{Client, Credentials, EntryStream, EntryStreamItem};
use zbl_proto::{
    Reason,
    v1::{self, StreamEntriesRequest, StreamEntriesResponse, account_service_client::AccountServiceClient},
};
use zbl_server::account::{Change, Direction, EntryKind};

use crate::{
    app::{Database, PATIENCE, Served, money, until},
    entries::history::History,
    wire::Said,
};

/// Streams without heartbeats: what is expected next is entries.
const QUIET: [&str; 2] = ["--heartbeat", "1h"];

async fn follow(served: &Served, user_id: i64, after_version: i64) -> Streaming<StreamEntriesResponse> {
    served.account().stream_entries(StreamEntriesRequest { user_id, after_version }).await.unwrap().into_inner()
}

/// Takes entries up to a version; they must be those after `after`, each once and in order.
async fn take(stream: &mut Streaming<StreamEntriesResponse>, mut after: i64, up_to: i64) -> Vec<v1::Entry> {
    let mut taken = Vec::new();
    while after < up_to {
        let next = timeout(PATIENCE, stream.message()).await.expect("the stream is silent").unwrap().unwrap();
        assert!((1..=100).contains(&next.entries.len()), "{}", next.entries.len());
        for entry in next.entries {
            after += 1;
            assert_eq!(entry.version, after);
            taken.push(entry);
        }
    }
    taken
}

async fn deposit(served: &Served, user_id: i64, times: usize) {
    for _ in 0..times {
        let (request_id, amount) = (Uuid::new_v4(), money("1.00"));
        let change = Change { user_id, request_id, direction: Direction::Deposit, amount };
        served.bench.ledger.apply(change, None).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_comes_first_and_then_what_is_written() {
    for database in Database::each() {
        let served = Served::start(&database.url, &QUIET).await;
        let user_id = served.bench.account("1000.00").await;
        deposit(&served, user_id, 250).await;
        let (mut all, mut late) = (follow(&served, user_id, 0).await, follow(&served, user_id, 249).await);
        let taken = take(&mut all, 0, 251).await;
        assert_eq!((taken[0].kind(), taken[250].balance_after.as_str()), (v1::EntryKind::Open, "1250.00"));
        take(&mut late, 249, 251).await;
        deposit(&served, user_id, 3).await;
        take(&mut all, 251, 254).await;
        take(&mut late, 251, 254).await;
        // What is told is what is listed.
        let listed = v1::ListEntriesRequest { user_id, page_size: 1000, ..Default::default() };
        let listed = served.account().list_entries(listed).await.unwrap().into_inner().entries;
        assert_eq!(listed[..251], taken);
    }
}

/// Neither server knows of the other; both write to one account while one of them streams it.
#[tokio::test(flavor = "multi_thread")]
async fn entries_of_two_servers_come_once_and_in_order() {
    for database in Database::each() {
        let [one, other] = [Served::start(&database.url, &QUIET).await, Served::start(&database.url, &QUIET).await];
        let user_id = one.bench.account("1000.00").await;
        let mut stream = follow(&one, user_id, 0).await;
        let (taken, (), ()) =
            tokio::join!(take(&mut stream, 0, 121), deposit(&one, user_id, 60), deposit(&other, user_id, 60));
        assert_eq!(taken.len(), 121);
    }
}

/// A client of whichever server is at this address when it connects.
fn client_of(server: &Arc<Mutex<SocketAddr>>) -> Client {
    let server = Arc::clone(server);
    Client::inside(&Credentials::default(), move || -> io::Result<DuplexStream> {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let address = *server.lock().unwrap();
        tokio::spawn(async move {
            // Where nobody listens, our end is closed.
            if let Ok(mut server) = TcpStream::connect(address).await {
                let _ = copy_bidirectional(&mut server, &mut theirs).await;
            }
        });
        Ok(ours)
    })
}

/// The versions that come until one of them; how often the stream was lost is added up.
async fn versions(stream: &mut EntryStream, up_to: i64, lost: &mut u32) -> Vec<i64> {
    let mut versions = Vec::new();
    while versions.last() != Some(&up_to) {
        match timeout(PATIENCE, stream.next()).await.expect("the stream is silent").unwrap() {
            EntryStreamItem::Entry(entry) => versions.push(entry.version),
            EntryStreamItem::Disconnected { .. } => *lost += 1,
            EntryStreamItem::Connected | EntryStreamItem::Heartbeat => {}
        }
    }
    versions
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_goes_on_where_it_was_when_its_server_is_restarted() {
    for database in Database::each() {
        let mut first = Served::start(&database.url, &QUIET).await;
        let user_id = first.bench.account("1000.00").await;
        let address = Arc::new(Mutex::new(first.grpc));
        let mut stream = client_of(&address).stream_entries(user_id, 0);
        let mut lost = 0;
        deposit(&first, user_id, 4).await;
        assert_eq!(versions(&mut stream, 5, &mut lost).await, [1, 2, 3, 4, 5]);
        assert_eq!(lost, 0);
        first.ask_to_stop();
        first.stopped().await;
        let second = Served::start(&database.url, &QUIET).await;
        // Written while nobody follows.
        deposit(&second, user_id, 3).await;
        *address.lock().unwrap() = second.grpc;
        assert_eq!(versions(&mut stream, 8, &mut lost).await, [6, 7, 8]);
        assert!(lost > 0, "it never noticed");
        deposit(&second, user_id, 1).await;
        assert_eq!(versions(&mut stream, 9, &mut lost).await, [9]);
        assert_eq!(stream.version(), 9);
    }
}

/// The grace is longer than anybody waits here: neither a stream that waits nor one that has much to send may need it.
#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_a_reason_when_the_server_stops() {
    let database = Database::sqlite();
    let mut served = Served::start(&database.url, &["--shutdown-grace", "1h", "--heartbeat", "1h"]).await;
    History::of(7, 1)
        .append(&*served.bench.ledger.bench().store, 5000, |version| (EntryKind::Deduct, version - 1))
        .await;
    let mut waiting = follow(&served, 7, 5000).await;
    let mut busy = follow(&served, 7, 0).await;
    served.ask_to_stop();
    for stream in [&mut waiting, &mut busy] {
        let end = loop {
            match timeout(PATIENCE, stream.message()).await.expect("the stream does not end") {
                Ok(message) => assert!(message.is_some(), "it ends without a reason"),
                Err(status) => break status,
            }
        };
        assert_eq!(Said::by(&end).reason, Reason::ShuttingDown.as_str());
        assert_eq!(end.code(), Code::Unavailable);
    }
    served.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_gives_signs_of_life() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &["--heartbeat", "100ms"]).await;
    let user_id = served.bench.account("1000.00").await;
    let mut stream = follow(&served, user_id, 1).await;
    for _ in 0..3 {
        let beat = timeout(PATIENCE, stream.message()).await.expect("the stream is silent").unwrap().unwrap();
        assert_eq!(beat, StreamEntriesResponse::default());
    }
    deposit(&served, user_id, 1).await;
    loop {
        let next = timeout(PATIENCE, stream.message()).await.expect("the stream is silent").unwrap().unwrap();
        if let [entry] = &next.entries[..] {
            assert_eq!(entry.version, 2);
            break;
        }
    }
}

/// Whoever does not read makes the server wait, not work: it reads no further than what the connection takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_is_not_read_ahead_for() {
    let database = Database::sqlite();
    let served = Served::start(&database.url, &QUIET).await;
    let store = &served.bench.ledger.bench().store;
    let entries = 30_000;
    History::of(7, 1).append(&**store, entries, |version| (EntryKind::Deduct, version - 1)).await;
    // A connection that takes four pages or so.
    let narrow = Endpoint::from_shared(format!("http://{}", served.grpc)).unwrap();
    let narrow = narrow.initial_stream_window_size(64 * 1024).initial_connection_window_size(64 * 1024).connect_lazy();
    let before = store.work().round_trips;
    let follow = StreamEntriesRequest { user_id: 7, after_version: 0 };
    let mut stream = AccountServiceClient::new(narrow).stream_entries(follow).await.unwrap().into_inner();
    // All of it would be three hundred pages, and after that it would be asked for more, five times a second.
    let (mut read, mut same) = (0, 0);
    until("the server reads no further", async || {
        let now = store.work().round_trips - before;
        same = if now == read { same + 1 } else { 0 };
        read = now;
        read > 1 && same == 300
    })
    .await;
    assert!(read < 60, "{read} pages were read, and none was taken");
    take(&mut stream, 0, entries).await;
    deposit_is_not_held_up(&served).await;
}

/// A stream that nobody reads keeps no writer waiting.
async fn deposit_is_not_held_up(served: &Served) {
    let user_id = served.bench.account("1000.00").await;
    timeout(Duration::from_secs(5), deposit(served, user_id, 1)).await.expect("writers wait for readers");
}

/// An entry that was deleted is noticed, not skipped.
#[tokio::test(flavor = "multi_thread")]
async fn a_gap_ends_the_stream() {
    let database = Database::mysql();
    let served = Served::start(&database.url, &QUIET).await;
    let user_id = served.bench.account("1000.00").await;
    deposit(&served, user_id, 3).await;
    let sql = format!("DELETE FROM entries WHERE user_id = {user_id} AND version = 2");
    test_support::query(&database.url, &sql).unwrap();
    let mut stream = follow(&served, user_id, 0).await;
    let end = timeout(PATIENCE, stream.message()).await.expect("the stream is silent").unwrap_err();
    assert_eq!(Said::by(&end).reason, Reason::JournalBroken.as_str());
}
