//! The command lines: exit codes that scripts rely on, errors that name what to change, pipes that close early.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::Stdio,
    time::Duration,
};

use test_support::{free_port, fresh_database, poll_until};

use super::{
    attack::Attack,
    checks::{Checks, ensure},
    stage::{Server, Stage, loopback},
};
use crate::command::Failure;

/// Everything here ends by itself, the slowest after its retries to reach a server.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The race is wide: an attack by a hundred workers without any guard practically always loses.
const TRIES: u32 = 5;

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const NEVER_REACHED: i32 = 3;
const NOT_AS_EXPECTED: i32 = 10;

/// A command line that must be refused before anything is done: binary, arguments, exit code, what it must say.
type Refused = (&'static str, &'static [&'static str], i32, &'static [&'static str]);

const REFUSED: [Refused; 10] = [
    ("zbl-server", &["--nope"], USAGE, &["--nope"]),
    ("zbl-server", &["serve", "--database-url", "postgres://u:p@h/db"], USAGE, &["--database-url", "mysql://"]),
    ("zbl-server", &["serve", "--database-url", "mysql://root:s3cret@"], USAGE, &["--database-url"]),
    ("zbl-server", &["serve", "--grpc-addr", "somewhere"], USAGE, &["--grpc-addr"]),
    ("zbl-server", &["serve", "--strategy", "hope"], USAGE, &["hope", "pessimistic"]),
    ("zbl-server", &["serve", "--config", "absent.toml"], USAGE, &["absent.toml"]),
    ("loadgen", &["attack", "--workers", "many"], USAGE, &["--workers"]),
    ("loadgen", &["attack", "--amount", "1.001"], USAGE, &["--amount"]),
    ("loadgen", &["attack", "--workers", "0"], USAGE, &["workers"]),
    ("timeline", &["--nope"], USAGE, &["--nope"]),
];

pub(super) fn run(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    for (binary, arguments, code, texts) in REFUSED {
        let name = format!("usage error, exit {code}: {binary} {}", arguments.join(" "));
        checks.check(&name, || {
            let ended = stage.run(stage.command(binary, arguments), TIMEOUT)?.expect(code)?.saying(texts)?;
            ensure(!ended.output.contains("s3cret"), || format!("a password is shown: {}", ended.output))
        });
    }
    checks.check("a port in use is named, with the flag to change", || port_in_use(stage));
    checks.check("a database that is not there is named", || no_database(stage));
    checks.check("a server that is not there is exit 3 for its clients, 1 for healthcheck", || no_server(stage));
    checks.check("config: flag over environment over file over default, secrets redacted", || config(stage));
    let server = Server::start(stage, &fresh_database()?)?;
    checks.check("timeline into a pipe that closes exits 0", || closed_pipe(stage, &server));
    checks.check_and_note("none on MariaDB: LOST, exit 10 with --expect clean, 0 with --expect lost", || {
        let clean = lose(stage, &server, "clean", NOT_AS_EXPECTED)?;
        let lost = lose(stage, &server, "lost", 0)?;
        Ok(format!("(attacks needed: {clean} and {lost}, of at most {TRIES} each)"))
    });
    checks.check("SIGTERM ends the server with 0", || terminate(server));
    Ok(())
}

fn port_in_use(stage: &Stage) -> Result<(), Failure> {
    let io = |error: std::io::Error| Failure::Failed(error.to_string());
    let holder = TcpListener::bind(loopback(0)).map_err(io)?;
    let taken = holder.local_addr().map_err(io)?.to_string();
    let url = stage.sqlite_url("port.db");
    for (flag, other) in [("--grpc-addr", "--http-addr"), ("--http-addr", "--grpc-addr")] {
        let arguments = ["serve", "--database-url", &url, flag, &taken, other, "127.0.0.1:0"];
        stage.run(stage.command("zbl-server", &arguments), TIMEOUT)?.expect(FAILED)?.saying(&[&taken, flag])?;
    }
    Ok(())
}

fn no_database(stage: &Stage) -> Result<(), Failure> {
    let address = loopback(free_port()?).to_string();
    let url = format!("mysql://root:s3cret@{address}/zbl");
    let arguments = ["serve", "--database-url", &url, "--grpc-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"];
    let ended = stage.run(stage.command("zbl-server", &arguments), TIMEOUT)?.expect(FAILED)?.saying(&[&address])?;
    ensure(!ended.output.contains("s3cret"), || format!("the password is shown: {}", ended.output))
}

fn no_server(stage: &Stage) -> Result<(), Failure> {
    let address = loopback(free_port()?).to_string();
    let commands: [(&str, &[&str], i32); 3] = [
        ("loadgen", &["attack", "--addr", &address, "--outage", "1s"], NEVER_REACHED),
        ("timeline", &["--addr", &address], NEVER_REACHED),
        ("zbl-server", &["healthcheck", "--grpc-addr", &address], FAILED),
    ];
    for (binary, arguments, code) in commands {
        stage.run(stage.command(binary, arguments), TIMEOUT)?.expect(code)?.saying(&[&address])?;
    }
    Ok(())
}

fn config(stage: &Stage) -> Result<(), Failure> {
    let file = stage.path("config.toml");
    let text = "pool_size = 3\nmax_attempts = 4\nstrategy = \"atomic\"\n";
    fs::write(&file, text).map_err(|error| Failure::Failed(format!("{}: {error}", file.display())))?;
    let file = super::stage::argument(&file);
    let mut command = stage.command("zbl-server", &["config", "--json", "--config", &file, "--pool-size", "7"]);
    command.env("ZBL_POOL_SIZE", "5").env("ZBL_MAX_ATTEMPTS", "6");
    command.env("DATABASE_URL", "mysql://root:s3cret@127.0.0.1:1/zbl").env("ZBL_LAB_TOKEN", "s3cret-too");
    let output = stage.run(command, TIMEOUT)?.expect(0)?.output;
    let settings: serde_json::Value =
        serde_json::from_str(&output).map_err(|error| Failure::Failed(format!("{error}: {output}")))?;
    let expected = [
        ("pool_size", "7", "flag"),
        ("max_attempts", "6", "env"),
        ("strategy", "atomic", "file"),
        ("lock_wait", "5s", "default"),
        ("lab_token", "***", "env"),
    ];
    for (name, value, source) in expected {
        let setting = &settings[name];
        ensure(setting["value"] == value && setting["source"] == source, || {
            format!("{name}: {setting}, expected {value} from {source}")
        })?;
    }
    ensure(!output.contains("s3cret"), || format!("a secret is shown: {output}"))
}

/// Reads one span of a timeline, closes the pipe, and makes more spans for the writer to notice.
fn closed_pipe(stage: &Stage, server: &Server<'_>) -> Result<(), Failure> {
    let io = |error: std::io::Error| Failure::Failed(format!("timeline: {error}"));
    let address = server.address().to_string();
    let attack = || {
        let small = ["--strategy", "atomic", "--workers", "2", "--deductions", "2"];
        Attack::start(stage, "pipe", &[server.address()], &small)?.finish()?.expect(0, "CLEAN").map(drop)
    };
    attack()?;
    let mut command = stage.command("timeline", &["--addr", &address, "--retained"]);
    let mut timeline = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(io)?;
    let first_span = timeline
        .stdout
        .take()
        .and_then(|pipe| BufReader::new(pipe).lines().map_while(Result::ok).find(|line| line.contains("atomic")));
    // The pipe is closed from here on.
    attack()?;
    let status = poll_until(TIMEOUT, || timeline.try_wait().transpose());
    if status.is_none() {
        timeline.kill().map_err(io)?;
    }
    ensure(first_span.is_some_and(|line| !line.contains('\u{1b}')), || "no span, or one with colours".into())?;
    let code = status.transpose().map_err(io)?.and_then(|status| status.code());
    ensure(code == Some(0), || format!("exit {code:?}"))
}

/// Attacks without a guard until something is lost; returns how many attacks that took.
fn lose(stage: &Stage, server: &Server<'_>, expectation: &str, code: i32) -> Result<u32, Failure> {
    for attempt in 1..=TRIES {
        let arguments = ["--strategy", "none", "--expect", expectation];
        let finished = Attack::start(stage, "none", &[server.address()], &arguments)?.finish()?;
        if finished.result["verdict"] == "LOST" {
            super::attack::ensure_accounted_loss(&finished.expect(code, "LOST")?.result)?;
            return Ok(attempt);
        }
    }
    Err(Failure::Failed(format!("{TRIES} attacks lost nothing")))
}

fn terminate(mut server: Server<'_>) -> Result<(), Failure> {
    let code = server.terminate(TIMEOUT)?;
    ensure(code == Some(0), || format!("exit {code:?}\n{}", server.output()))
}
