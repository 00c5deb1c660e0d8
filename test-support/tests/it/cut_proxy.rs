//! The proxy cuts the COMMITs it is told to, and changes nothing else.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::Duration,
};

use test_support::{Cut, CutProxy, MariaDb, NewConnections, poll_until, query};

const PATIENCE: Duration = Duration::from_secs(30);
const GREETING: &[u8] = b"\x05\0\0\0\x0ahey!";
const ANSWER: &[u8] = b"\x01\0\0\x01\0";

/// A server that greets, answers every packet alike, and tells what it saw.
fn fake_server() -> (SocketAddr, mpsc::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, packets) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, seen) = (stream.unwrap(), seen.clone());
            thread::spawn(move || {
                stream.write_all(GREETING).unwrap();
                while let Ok(packet) = read_packet(&mut stream) {
                    seen.send(packet).unwrap();
                    stream.write_all(ANSWER).unwrap();
                }
            });
        }
    });
    (address, packets)
}

fn read_packet(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let mut payload = vec![0; u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize];
    stream.read_exact(&mut payload)?;
    Ok(payload)
}

fn packet(number: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    [&length[..3], &[number], payload].concat()
}

fn proxy_to(address: SocketAddr) -> CutProxy {
    CutProxy::start(&format!("mysql://root@{address}/")).unwrap()
}

/// Connects and takes the greeting.
fn connect(proxy: &CutProxy) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut greeting = vec![0; GREETING.len()];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(greeting, GREETING);
    stream
}

/// Sends one packet; `None` when the link was cut in place of an answer.
fn ask(stream: &mut TcpStream, packet: &[u8]) -> Option<Vec<u8>> {
    stream.write_all(packet).ok()?;
    read_packet(stream).ok()
}

fn command(sql: &str) -> Vec<u8> {
    packet(0, &[b"\x03", sql.as_bytes()].concat())
}

#[test]
fn what_is_not_a_commit_passes_untouched_in_any_size_and_in_pieces() {
    let (address, packets) = fake_server();
    let proxy = proxy_to(address);
    proxy.arm(Cut::BeforeCommit, 1);
    let mut stream = connect(&proxy);
    let long = "x".repeat(200_000);
    let others = [
        packet(1, b"\x03COMMIT"), // not a command: the login packet has number 1
        packet(0, b""),
        packet(0, b"\x16COMMIT"), // another command
        command("COMMIT AND CHAIN"),
        command("SELECT 'COMMIT'"),
        command(&format!("{long}COMMIT")),
    ];
    for other in &others {
        for piece in other.chunks(other.len().div_ceil(7)) {
            stream.write_all(piece).unwrap();
            stream.flush().unwrap();
        }
        assert_eq!(read_packet(&mut stream).unwrap(), &ANSWER[4..]);
        assert_eq!(packets.recv_timeout(PATIENCE).unwrap(), &other[4..]);
    }
    assert_eq!(proxy.cuts(), 0);
}

#[test]
fn before_the_commit_the_server_never_sees_it() {
    let (address, packets) = fake_server();
    let proxy = proxy_to(address);
    for commit in ["COMMIT", "commit", "Commit ;\n", "\0\u{1}COMMIT"] {
        let cuts = proxy.cuts();
        proxy.arm(Cut::BeforeCommit, 1);
        let mut stream = connect(&proxy);
        assert!(ask(&mut stream, &command("BEGIN")).is_some());
        assert_eq!(ask(&mut stream, &command(commit)), None, "{commit:?}");
        assert_eq!(proxy.cuts(), cuts + 1);
        assert_eq!(packets.recv_timeout(PATIENCE).unwrap(), b"\x03BEGIN");
    }
    // Had a COMMIT come through, it would stand before this.
    assert!(ask(&mut connect(&proxy), &command("SELECT 1")).is_some());
    assert_eq!(packets.recv_timeout(PATIENCE).unwrap(), b"\x03SELECT 1");
}

#[test]
fn behind_the_commit_the_server_has_answered_and_the_client_is_not_told() {
    let (address, packets) = fake_server();
    let proxy = proxy_to(address);
    proxy.arm(Cut::BehindCommit, 2);
    for cuts in 1..=2 {
        assert_eq!(ask(&mut connect(&proxy), &command("COMMIT")), None);
        assert_eq!(packets.recv_timeout(PATIENCE).unwrap(), b"\x03COMMIT");
        assert_eq!(proxy.cuts(), cuts);
    }
    assert!(ask(&mut connect(&proxy), &command("COMMIT")).is_some(), "armed twice, cut thrice");
    proxy.arm(Cut::BehindCommit, 1);
    proxy.arm(Cut::BeforeCommit, 0);
    assert!(ask(&mut connect(&proxy), &command("COMMIT")).is_some(), "it was disarmed");
}

#[test]
fn in_flight_the_commit_arrives_when_it_is_released_or_never() {
    let (address, packets) = fake_server();
    let proxy = proxy_to(address);
    assert_eq!(proxy.release_held(), 0, "nothing is held yet");
    proxy.arm(Cut::InFlight, 2);
    for cuts in 1..=2 {
        assert_eq!(ask(&mut connect(&proxy), &command("COMMIT")), None);
        assert_eq!(proxy.cuts(), cuts);
    }
    // The others go on, and had a COMMIT come through, it would stand before this.
    assert!(ask(&mut connect(&proxy), &command("SELECT 1")).is_some());
    assert_eq!(packets.recv_timeout(PATIENCE).unwrap(), b"\x03SELECT 1");

    assert_eq!(proxy.release_held(), 2);
    for _ in 1..=2 {
        assert_eq!(packets.recv_timeout(PATIENCE).unwrap(), b"\x03COMMIT");
    }
    assert_eq!(proxy.release_held(), 0, "released twice");

    proxy.arm(Cut::InFlight, 1);
    assert_eq!(ask(&mut connect(&proxy), &command("COMMIT")), None);
    assert!(proxy.drop_all() >= 1);
    assert_eq!(proxy.release_held(), 0, "its link is gone");
}

#[test]
fn links_are_dropped_and_refused_until_they_may_pass() {
    let (address, _packets) = fake_server();
    let proxy = proxy_to(address);
    let mut live = [connect(&proxy), connect(&proxy)];
    proxy.set_new_connections(NewConnections::Refuse);
    assert_eq!(proxy.drop_all(), 2);
    for stream in &mut live {
        assert_eq!(ask(stream, &command("SELECT 1")), None);
    }
    let mut refused = TcpStream::connect(proxy.addr()).unwrap();
    refused.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(read_packet(&mut refused).is_err());
    proxy.set_new_connections(NewConnections::Pass);
    assert!(ask(&mut connect(&proxy), &command("SELECT 1")).is_some());
    assert!(poll_until(PATIENCE, || (proxy.drop_all() == 0).then_some(())).is_some(), "closed links are forgotten");
}

#[test]
fn dropping_the_proxy_closes_its_links_and_its_port() {
    let (address, _packets) = fake_server();
    let proxy = proxy_to(address);
    let mut live = connect(&proxy);
    let port = proxy.addr();
    drop(proxy);
    assert_eq!(ask(&mut live, &command("SELECT 1")), None);
    assert!(TcpStream::connect_timeout(&port, PATIENCE).is_err());
}

#[test]
fn mariadb_commits_behind_a_cut_and_rolls_back_before_one() {
    let server = MariaDb::shared().unwrap();
    server.create_database("cuts").unwrap();
    server.query("CREATE TABLE cuts.t (n INT PRIMARY KEY) ENGINE=InnoDB").unwrap();
    let proxy = CutProxy::start(&server.url("")).unwrap();
    let transfer = |n: u32| query(&proxy.url("cuts"), &format!("BEGIN; INSERT INTO t VALUES ({n}); COMMIT"));
    transfer(1).unwrap();
    proxy.arm(Cut::BeforeCommit, 1);
    let before = transfer(2).unwrap_err().to_string();
    proxy.arm(Cut::BehindCommit, 1);
    let behind = transfer(3).unwrap_err().to_string();
    assert!(before.contains("2013") && behind.contains("2013"), "not a lost connection: {before} {behind}");
    assert_eq!(proxy.cuts(), 2);
    assert_eq!(server.query("SELECT n FROM cuts.t ORDER BY n").unwrap(), [["1"], ["3"]]);
}

#[test]
fn mariadb_keeps_the_locks_of_a_commit_in_flight_until_it_arrives() {
    let server = MariaDb::shared().unwrap();
    server.create_database("flights").unwrap();
    server.query("CREATE TABLE flights.t (n INT PRIMARY KEY, seen INT) ENGINE=InnoDB").unwrap();
    server.query("INSERT INTO flights.t VALUES (1, 0), (2, 0)").unwrap();
    let proxy = CutProxy::start(&server.url("")).unwrap();
    let transfer =
        |n: u32| query(&proxy.url("flights"), &format!("BEGIN; UPDATE t SET seen = 1 WHERE n = {n}; COMMIT"));
    let look = |n: u32, lock: &str| server.query(&format!("SELECT seen FROM flights.t WHERE n = {n} {lock}"));

    proxy.arm(Cut::InFlight, 2);
    for n in [1, 2] {
        let lost = transfer(n).unwrap_err().to_string();
        assert!(lost.contains("2013"), "not a lost connection: {lost}");
        assert_eq!(look(n, "").unwrap(), [["0"]], "a plain look proves nothing");
        let locked = look(n, "FOR UPDATE NOWAIT").unwrap_err().to_string();
        assert!(locked.contains("1205") || locked.contains("3572"), "not locked: {locked}");
        if n == 1 {
            assert_eq!(proxy.release_held(), 1);
            assert_eq!(look(1, "FOR UPDATE").unwrap(), [["1"]]);
        }
    }
    assert!(proxy.drop_all() >= 1);
    assert_eq!(look(2, "FOR UPDATE").unwrap(), [["0"]], "it never arrived");
}
