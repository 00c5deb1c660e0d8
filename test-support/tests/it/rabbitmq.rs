//! A private RabbitMQ comes back after a kill with what it had, answers nobody while it is paused, and never outlives the
//! test. What it keeps of messages is tested where there is a client, in the server's tests.

use std::{
    env, fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use test_support::{Process, RabbitMq, poll_until};

/// Long against everything waited for here.
const PATIENCE: Duration = Duration::from_secs(240);
/// Long against an answer of a server that runs, for a test must wait it out.
const SILENCE: Duration = Duration::from_millis(500);

fn listens(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

/// A connection on which a client has begun.
fn begun(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.write_all(b"AMQP\x00\x00\x09\x01").unwrap();
    stream
}

/// The program that runs under this id.
fn program_of(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

#[test]
fn a_killed_server_comes_back_on_the_same_port_and_a_paused_one_answers_when_it_goes_on() {
    let mut server = RabbitMq::start().unwrap();
    let (address, first) = (server.addr(), server.pid());
    assert_eq!(server.url(), format!("amqp://{address}"));
    // It is the server itself that a signal meets, and not a shell around it.
    assert_eq!(program_of(first), "beam.smp");
    let identity = |server: &RabbitMq| fs::read(server.directory().join("data/zbl@localhost/cluster_nodes.config"));
    let before = identity(&server).unwrap();

    server.kill().unwrap();
    assert!(!listens(address) && program_of(first).is_empty());
    assert!(server.pause().unwrap_err().to_string().contains("does not run"));

    server.restart().unwrap();
    assert_eq!(server.addr(), address);
    assert_ne!(server.pid(), first);
    assert_eq!(identity(&server).unwrap(), before);

    server.pause().unwrap();
    let mut stream = begun(address);
    let mut answer = [0];
    stream.set_read_timeout(Some(SILENCE)).unwrap();
    let silence = stream.read(&mut answer).unwrap_err();
    assert!(matches!(silence.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{silence}");
    server.resume().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [1]);

    let directory = server.directory().to_owned();
    drop(server);
    assert!(!listens(address) && !directory.exists());
}

#[test]
fn killing_the_test_process_ends_a_paused_server_and_its_port_mapper_and_removes_its_directory() {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "rabbitmq::holds_a_paused_server_until_it_is_killed", "--ignored", "--nocapture"]);
    let mut holder = Process::spawn(command).unwrap();
    let line = holder.wait_for_line("holding ", PATIENCE).unwrap();
    let words: Vec<_> = line.split_once("holding ").unwrap().1.split(' ').collect();
    let (address, directory): (SocketAddr, _) = (words[0].parse().unwrap(), Path::new(words[1]));
    // The mapper is found by the port that the server was given, as the kernel shows it.
    let environment = fs::read(format!("/proc/{}/environ", words[2])).unwrap();
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let mapper = environment.split('\0').find_map(|one| one.strip_prefix("ERL_EPMD_PORT=")).unwrap();
    let mapper: SocketAddr = format!("127.0.0.1:{mapper}").parse().unwrap();
    assert!(listens(address) && listens(mapper) && directory.exists());

    holder.kill().unwrap();
    let is_gone = || !listens(address) && !listens(mapper) && !directory.exists();
    assert!(poll_until(PATIENCE, || is_gone().then_some(())).is_some(), "still there: {line}");
}

#[test]
#[ignore = "run by the test above, which kills it"]
fn holds_a_paused_server_until_it_is_killed() {
    let server = RabbitMq::start().unwrap();
    server.pause().unwrap();
    println!("holding {} {} {}", server.addr(), server.directory().display(), server.pid());
    thread::park_timeout(PATIENCE);
}
