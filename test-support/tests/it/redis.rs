//! A private Redis forgets when it is killed, answers nobody while it is paused, and never outlives the test.

use std::{
    env, fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use test_support::{Process, Redis, poll_until};

/// Long against everything waited for here.
const PATIENCE: Duration = Duration::from_secs(60);
/// Long against an answer of a server that runs, for a test must wait it out.
const SILENCE: Duration = Duration::from_millis(500);

fn listens(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

fn directory_of(server: &Redis) -> PathBuf {
    let answer = server.command(&["CONFIG", "GET", "dir"]).unwrap();
    PathBuf::from(answer.lines().nth(1).unwrap())
}

/// A connection on which a PING waits for its answer.
fn pinged(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    stream
}

#[test]
fn a_killed_server_comes_back_empty_on_the_same_port() {
    let mut server = Redis::start().unwrap();
    let (address, first) = (server.addr(), server.pid());
    assert_eq!(server.url(), format!("redis://{address}"));
    server.command(&["SET", "lock", "mine"]).unwrap();
    assert_eq!(server.command(&["GET", "lock"]).unwrap(), "mine");

    server.kill().unwrap();
    assert!(!listens(address));
    assert!(server.command(&["PING"]).unwrap_err().to_string().contains("refused"));
    assert!(server.pause().unwrap_err().to_string().contains("does not run"));

    server.restart().unwrap();
    assert_eq!(server.addr(), address);
    assert_ne!(server.pid(), first);
    assert_eq!(server.command(&["DBSIZE"]).unwrap(), "0");
}

#[test]
fn a_paused_server_answers_when_it_goes_on() {
    let server = Redis::start().unwrap();
    server.command(&["SET", "lock", "mine"]).unwrap();
    server.pause().unwrap();

    let mut stream = pinged(server.addr());
    let mut answer = [0; 7];
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    let silence = stream.read(&mut answer).unwrap_err();
    assert!(matches!(silence.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{silence}");

    server.resume().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
    assert_eq!(server.command(&["GET", "lock"]).unwrap(), "mine");
}

#[test]
fn a_paused_server_can_be_killed() {
    let mut server = Redis::start().unwrap();
    server.pause().unwrap();
    server.kill().unwrap();
    assert!(!listens(server.addr()));
    server.restart().unwrap();
    assert_eq!(server.command(&["PING"]).unwrap(), "PONG");
}

#[test]
fn a_jump_of_the_clock_expires_what_would_have_lived() {
    let mut server = Redis::start_with_movable_clock().unwrap();
    let ahead = |server: &Redis| {
        let answer = server.command(&["TIME"]).unwrap();
        let clock = Duration::from_secs(answer.lines().next().unwrap().parse().unwrap());
        clock.saturating_sub(SystemTime::now().duration_since(UNIX_EPOCH).unwrap())
    };
    assert!(ahead(&server) < Duration::from_secs(1));
    server.command(&["SET", "short", "mine", "PX", "30000"]).unwrap();
    server.command(&["SET", "long", "mine", "PX", "600000"]).unwrap();
    assert_eq!(server.command(&["GET", "short"]).unwrap(), "mine");

    server.jump(Duration::from_millis(30_500)).unwrap();
    assert_eq!(server.command(&["GET", "short"]).unwrap(), "");
    let left: i64 = server.command(&["PTTL", "long"]).unwrap().parse().unwrap();
    assert!((500_000..=569_500).contains(&left), "{left}");

    // Jumps add up, and a restart does not put the clock right.
    server.jump(Duration::from_secs(570)).unwrap();
    assert_eq!(server.command(&["GET", "long"]).unwrap(), "");
    server.restart().unwrap();
    assert!(ahead(&server) > Duration::from_secs(590));
}

#[test]
fn a_movable_clock_leaves_nothing_in_shared_memory() {
    let server = Redis::start_with_movable_clock().unwrap();
    let pid = server.pid().to_string();
    drop(server);
    let names = fs::read_dir("/dev/shm").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    // Others may have left something, and their ids may end alike.
    let is_its = |name: &String| name.contains("faketime") && name.rsplit('_').next() == Some(&pid);
    let left: Vec<_> = names.filter(is_its).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn only_a_movable_clock_jumps() {
    let refused = Redis::shared().unwrap().jump(Duration::from_secs(1)).unwrap_err().to_string();
    assert!(refused.contains("movable clock"), "{refused}");
}

#[test]
fn a_replica_follows_its_master_and_outlives_it() {
    let mut master = Redis::start().unwrap();
    let port = master.addr().port().to_string();
    let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &port]).unwrap();
    let is_linked = || replica.command(&["INFO", "replication"]).unwrap().contains("master_link_status:up");
    assert!(poll_until(PATIENCE, || is_linked().then_some(())).is_some());
    master.command(&["SET", "lock", "mine"]).unwrap();
    let arrived = poll_until(PATIENCE, || (replica.command(&["GET", "lock"]).unwrap() == "mine").then_some(()));
    assert!(arrived.is_some());

    master.kill().unwrap();
    replica.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    assert_eq!(replica.command(&["GET", "lock"]).unwrap(), "mine");
    replica.command(&["SET", "lock", "theirs"]).unwrap();
}

#[test]
fn two_servers_know_nothing_of_each_other() {
    let (one, other) = (Redis::start().unwrap(), Redis::start().unwrap());
    assert_ne!(one.addr(), other.addr());
    one.command(&["SET", "lock", "mine"]).unwrap();
    assert_eq!(other.command(&["EXISTS", "lock"]).unwrap(), "0");
    assert_ne!(directory_of(&one), directory_of(&other));
}

#[test]
fn replies_come_as_text() {
    let server = Redis::start().unwrap();
    let say = |words: &[&str]| server.command(words).unwrap();
    assert_eq!(say(&["SET", "text", "two words\r\nand a line"]), "OK");
    assert_eq!(say(&["GET", "text"]), "two words\r\nand a line");
    assert_eq!(say(&["STRLEN", "text"]), "21");
    assert_eq!(say(&["GET", "nothing"]), "");
    assert_eq!(say(&["RPUSH", "list", "a", "", "c"]), "3");
    assert_eq!(say(&["LRANGE", "list", "0", "-1"]), "a\n\nc");
    assert_eq!(say(&["EVAL", "return {1, {'two', false}}", "0"]), "1\ntwo\n");
    let refused = server.command(&["INCR", "text"]).unwrap_err().to_string();
    assert!(refused.contains("`INCR text`") && refused.contains("not an integer"), "{refused}");
}

#[test]
fn an_unknown_option_is_told_with_the_servers_own_words() {
    let refused = Redis::start_with(&["--no-such-option", "1"]).unwrap_err().to_string();
    assert!(refused.contains("no-such-option"), "{refused}");
}

#[test]
fn dropping_the_server_ends_it_and_removes_its_directory() {
    let server = Redis::start().unwrap();
    let (address, directory) = (server.addr(), directory_of(&server));
    assert!(directory.exists());
    drop(server);
    assert!(!listens(address));
    assert!(!directory.exists());
}

#[test]
fn killing_the_test_process_ends_a_paused_server_and_removes_its_directory() {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "redis::holds_a_paused_server_until_it_is_killed", "--ignored", "--nocapture"]);
    let mut holder = Process::spawn(command).unwrap();
    let line = holder.wait_for_line("holding ", PATIENCE).unwrap();
    let (address, directory) = line.split_once("holding ").unwrap().1.split_once(' ').unwrap();
    let (address, directory): (SocketAddr, _) = (address.parse().unwrap(), Path::new(directory));
    assert!(listens(address) && directory.exists());

    holder.kill().unwrap();
    let gone = poll_until(PATIENCE, || (!listens(address) && !directory.exists()).then_some(()));
    assert!(gone.is_some(), "still there: {address} {}", directory.display());
}

#[test]
#[ignore = "run by the test above, which kills it"]
fn holds_a_paused_server_until_it_is_killed() {
    let server = Redis::start().unwrap();
    let directory = directory_of(&server);
    server.pause().unwrap();
    println!("holding {} {}", server.addr(), directory.display());
    thread::park_timeout(PATIENCE);
}

#[test]
fn lines_for_a_shell_do_the_same_and_what_they_start_ends_with_the_server() {
    let run = |line: String| assert!(Command::new("sh").args(["-ec", &line]).status().unwrap().success(), "{line}");
    let server = Redis::start_with_movable_clock().unwrap();
    let (address, directory) = (server.addr(), directory_of(&server));
    let now = || server.command(&["TIME"]).unwrap().lines().next().unwrap().parse::<u64>().unwrap();
    server.command(&["SET", "lock", "mine"]).unwrap();
    let before = now();
    run(server.jump_line(Duration::from_secs(100)));
    run(server.jump_line(Duration::from_secs(100)));
    assert!((200..260).contains(&(now() - before)), "{before} {}", now());

    run(server.kill_line());
    assert!(!listens(address));
    run(server.start_line());
    assert_eq!(server.command(&["DBSIZE"]).unwrap(), "0");
    drop(server);
    assert!(!listens(address) && !directory.exists());
}
