//! A private server keeps what it acknowledged, and never outlives the test.

use std::{
    env,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use test_support::{MariaDb, Process, fresh_database, poll_until, query};

/// Long against everything waited for here.
const PATIENCE: Duration = Duration::from_secs(60);

fn listens(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

#[test]
fn a_commit_survives_a_kill_and_a_restart() {
    let mut server = MariaDb::start().unwrap();
    let (address, first) = (server.addr(), server.pid());
    server.create_database("bank").unwrap();
    server.query("CREATE TABLE bank.t (n INT PRIMARY KEY) ENGINE=InnoDB; INSERT INTO bank.t VALUES (7)").unwrap();

    server.kill().unwrap();
    assert!(!listens(address));
    let refused = server.query("SELECT 1").unwrap_err().to_string();
    assert!(refused.contains("connect"), "{refused}");

    server.restart().unwrap();
    assert_eq!(server.addr(), address);
    assert_ne!(server.pid(), first);
    assert_eq!(server.query("SELECT n FROM bank.t").unwrap(), [["7"]]);
}

#[test]
fn dropping_the_server_ends_it_and_removes_its_directory() {
    let server = MariaDb::start().unwrap();
    let address = server.addr();
    let directory = server.query("SELECT @@datadir").unwrap().concat().concat();
    assert!(Path::new(&directory).exists());
    drop(server);
    assert!(!listens(address));
    assert!(!Path::new(&directory).parent().unwrap().exists());
}

#[test]
fn killing_the_test_process_ends_the_server_and_removes_its_directory() {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "mariadb::holds_a_server_until_it_is_killed", "--ignored", "--nocapture"]);
    let mut holder = Process::spawn(command).unwrap();
    let line = holder.wait_for_line("holding ", PATIENCE).unwrap();
    let (address, directory) = line.split_once("holding ").unwrap().1.split_once(' ').unwrap();
    let address: SocketAddr = address.parse().unwrap();
    let directory = Path::new(directory).parent().unwrap();
    assert!(listens(address) && directory.exists());

    holder.kill().unwrap();
    let gone = poll_until(PATIENCE, || (!listens(address) && !directory.exists()).then_some(()));
    assert!(gone.is_some(), "still there: {address} {}", directory.display());
}

#[test]
#[ignore = "run by the test above, which kills it"]
fn holds_a_server_until_it_is_killed() {
    let server = MariaDb::start().unwrap();
    println!("holding {} {}", server.addr(), server.query("SELECT @@datadir").unwrap().concat().concat());
    thread::park_timeout(PATIENCE);
}

#[test]
fn a_refused_statement_says_which_and_why() {
    let error = MariaDb::shared().unwrap().query("SELECT * FROM mysql.nothing").unwrap_err().to_string();
    assert!(error.contains("mysql.nothing") && error.contains("1146"), "{error}");
}

#[test]
fn every_fresh_database_is_empty_and_its_own() {
    let (one, other) = (fresh_database().unwrap(), fresh_database().unwrap());
    assert_ne!(one, other);
    query(&one, "CREATE TABLE t (n INT)").unwrap();
    assert_eq!(query(&one, "SHOW TABLES").unwrap(), [["t"]]);
    assert!(query(&other, "SHOW TABLES").unwrap().is_empty());
}
