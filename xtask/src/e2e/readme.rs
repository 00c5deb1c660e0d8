//! What the READMEs tell readers to paste: every line of theirs that begins with grpcurl or curl is run as printed, only
//! the addresses replaced, and held against the comment below it. Both READMEs have the same commands.

mod example;

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use test_support::{Process, RabbitMq};

use super::{
    checks::{Checks, ensure},
    grpcurl,
    stage::{Server, Stage},
};
use crate::command::{Failure, answers, workspace};
use example::{Example, Expected, examples, first_json, matches};

const READMES: [&str; 2] = ["README.md", "README.zh-CN.md"];

/// The addresses that the READMEs print, gRPC and HTTP.
const PRINTED: [&str; 2] = ["127.0.0.1:50051", "127.0.0.1:8080"];

/// The slowest line is an attack by a hundred workers, in a debug build.
const TIMEOUT: Duration = Duration::from_secs(120);

pub(super) fn run(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    if !answers("curl", &["--version"]) {
        return Err(Failure::Failed("curl is not installed; run: apt-get install curl".into()));
    }
    let path = search_path(&grpcurl::program()?)?;
    let rabbit = RabbitMq::start()?;
    let mut told = Vec::new();
    for readme in READMES {
        let file = workspace().join(readme);
        let text = fs::read_to_string(&file).map_err(|error| Failure::Failed(format!("{readme}: {error}")))?;
        let examples = examples(&text);
        // What it says of the queue needs one, and somebody who works on it; each has its own, for the request ids are the same.
        let queue = ["--amqp-url", &rabbit.url(), "--queue-name", readme, "--worker", "true"];
        let server = Server::start_with(stage, &stage.sqlite_url(&format!("{readme}.db")), &queue)?;
        let to_run: Vec<&Example> = examples.iter().filter(|example| example.is_call()).collect();
        checks.check_and_note(&format!("the calls of {readme}, one after another"), || {
            ensure(!to_run.is_empty(), || "it has none".into())?;
            to_run.iter().try_for_each(|example| paste(stage, &server, &path, example))?;
            Ok(format!("({} lines)", to_run.len()))
        });
        told.push(examples.into_iter().map(|example| example.line).collect::<Vec<_>>());
    }
    checks.check("both READMEs have the same commands, in the same order", || {
        let differs = told[0].iter().zip(&told[1]).find(|(one, other)| one != other);
        ensure(differs.is_none() && told[0].len() == told[1].len(), || {
            format!("{} and {} commands; the first that differ: {differs:?}", told[0].len(), told[1].len())
        })
    });
    Ok(())
}

/// The caller's search path, with the directory of a program before it.
fn search_path(program: &Path) -> Result<OsString, Failure> {
    let caller = env::var_os("PATH").unwrap_or_default();
    let directories = program.parent().map(PathBuf::from).into_iter().chain(env::split_paths(&caller));
    env::join_paths(directories).map_err(|error| Failure::Failed(format!("PATH: {error}")))
}

/// Runs a line as a reader would, on a server that listens elsewhere.
fn paste(stage: &Stage, server: &Server<'_>, path: &OsString, example: &Example) -> Result<(), Failure> {
    let actual = [server.address(), server.http_address()].map(|address| address.to_string());
    let line = PRINTED.iter().zip(&actual).fold(example.line.clone(), |line, (from, to)| line.replace(from, to));
    let mut shell = stage.foreign("sh");
    // So that a signal reaches the program, and not the shell around it.
    shell.args(["-c", &format!("exec {line}")]).env("PATH", path);
    if let Expected::Endless = example.expected {
        Process::spawn(shell)?.wait_for_line("", TIMEOUT)?;
        return Ok(());
    }
    let ended = stage.run(shell, TIMEOUT)?;
    let failed = |what: &str| Failure::Failed(format!("{what}: {line}\nexit {:?}\n{}", ended.code, ended.output));
    match &example.expected {
        Expected::Success | Expected::Endless if ended.code == Some(0) => Ok(()),
        Expected::Json(expected) if ended.code == Some(0) => match first_json(&ended.output) {
            Some(actual) if matches(expected, &actual) => Ok(()),
            _ => Err(failed(&format!("the answer is not {expected}"))),
        },
        Expected::Refusal(texts) if ended.code != Some(0) => {
            let missing = texts.iter().find(|text| !ended.output.contains(text.as_str()));
            missing.map_or(Ok(()), |missing| Err(failed(&format!("{missing:?} is not said"))))
        }
        expected => Err(failed(&format!("expected {expected:?}"))),
    }
}
