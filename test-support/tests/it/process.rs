//! A process under test is waited for no longer than it takes, and never for ever.

use std::{process::Command, time::Duration, time::Instant};

use test_support::{Process, free_port};

const PATIENCE: Duration = Duration::from_secs(30);

fn shell(script: &str) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    Process::spawn(command).unwrap()
}

#[test]
fn a_line_of_either_output_is_found() {
    let mut process = shell("echo out one; echo err two >&2; exec sleep 60");
    assert_eq!(process.wait_for_line("two", PATIENCE).unwrap(), "err two");
    assert_eq!(process.wait_for_line("one", PATIENCE).unwrap(), "out one");
    assert!(process.is_running());
}

#[test]
fn a_process_that_ends_first_is_told_with_its_last_words() {
    let begun = Instant::now();
    let error = shell("echo no such luck; exit 3").wait_for_line("ready", PATIENCE).unwrap_err().to_string();
    assert!(error.contains("no such luck") && error.contains("ended"), "{error}");
    assert!(begun.elapsed() < PATIENCE);
}

#[test]
fn a_silent_process_is_given_up_in_time() {
    let error = shell("exec sleep 60").wait_for_line("ready", Duration::from_millis(20)).unwrap_err().to_string();
    assert!(error.contains("did not show"), "{error}");
    let nobody = ([127, 0, 0, 1], free_port().unwrap()).into();
    shell("exec sleep 60").wait_for_port(nobody, Duration::from_millis(20)).unwrap_err();
}

#[test]
fn terminate_lets_it_say_goodbye_and_kill_does_not() {
    let polite = "trap 'echo goodbye; exit 7' TERM; echo ready; while :; do sleep 0.01; done";
    let mut process = shell(polite);
    process.wait_for_line("ready", PATIENCE).unwrap();
    assert_eq!(process.terminate(PATIENCE).unwrap().code(), Some(7));
    assert!(process.output().ends_with("goodbye\n"), "{}", process.output());

    let mut process = shell(polite);
    process.wait_for_line("ready", PATIENCE).unwrap();
    process.kill().unwrap();
    assert!(!process.is_running());
    assert_eq!(process.output(), "ready\n");
}
