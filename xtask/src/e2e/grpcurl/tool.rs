//! grpcurl, as a client that knows the service by reflection alone: finding or installing it, calling with it, and
//! reading its errors.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use serde_json::Value;
use test_support::Process;

use super::super::{
    checks::ensure,
    stage::{Ended, Stage},
};
use crate::command::{Failure, answers, run as run_command, say};

const PACKAGE: &str = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4";
/// How long grpcurl waits for a call, in seconds: longer than the server may take to find its database gone.
const MAX_TIME_S: &str = "30";
/// Longer than grpcurl itself waits.
const TIMEOUT: Duration = Duration::from_secs(40);
/// grpcurl's exit code for a call that failed is this and the gRPC code.
const CALL_FAILED: i32 = 64;

/// grpcurl, aimed at one server.
#[derive(Debug, Clone)]
pub(super) struct Grpcurl<'a> {
    stage: &'a Stage,
    program: PathBuf,
    address: SocketAddr,
    token: Option<&'static str>,
}

/// An error status as a client sees it.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) code: i32,
    /// The reason in the ErrorInfo of our domain.
    pub(super) reason: String,
    /// All that grpcurl says of it.
    pub(super) status: Value,
}

/// Finds grpcurl, or installs it where Go is there.
pub(in crate::e2e) fn program() -> Result<PathBuf, Failure> {
    if answers("grpcurl", &["-version"]) {
        return Ok("grpcurl".into());
    }
    let go_bin = go_bin().ok_or_else(|| {
        let fix = "install Go, or leave the checks by grpcurl out with --no-grpcurl";
        Failure::Failed(format!("grpcurl is not installed, and Go is not there to install it: {fix}"))
    })?;
    let program = go_bin.join("grpcurl");
    if !program.is_file() {
        say("grpcurl is not installed");
        run_command(Command::new("go").args(["install", PACKAGE]))?;
    }
    Ok(program)
}

/// Where `go install` puts programs.
fn go_bin() -> Option<PathBuf> {
    let output = Command::new("go").args(["env", "GOBIN", "GOPATH"]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines().map(PathBuf::from);
    let (bin, path) = (lines.next()?, lines.next()?);
    Some(if bin.as_os_str().is_empty() { path.join("bin") } else { bin })
}

impl<'a> Grpcurl<'a> {
    pub(super) fn new(stage: &'a Stage, program: PathBuf, address: SocketAddr) -> Self {
        Self { stage, program, address, token: None }
    }

    /// The same, aimed at another server.
    pub(super) fn aimed_at(self, address: SocketAddr) -> Self {
        Self { address, ..self }
    }

    /// The same, presenting the lab's token.
    pub(super) fn with_token(self, token: &'static str) -> Self {
        Self { token: Some(token), ..self }
    }

    /// Runs grpcurl without a request: `list`, `describe`.
    pub(super) fn ask(&self, arguments: &[&str]) -> Result<String, Failure> {
        let mut command = Command::new(&self.program);
        command.args(["-plaintext", "-max-time", MAX_TIME_S, &self.address.to_string()]).args(arguments);
        Ok(self.stage.run(command, TIMEOUT)?.expect(0)?.output)
    }

    /// Makes a call that is answered.
    pub(super) fn call(&self, method: &str, request: &str) -> Result<Value, Failure> {
        let ended = self.run(method, request)?.expect(0)?;
        parse(&ended.output)
    }

    /// Makes a call that is refused.
    pub(super) fn refused(&self, method: &str, request: &str) -> Result<Refused, Failure> {
        let ended = self.run(method, request)?;
        let code = ended.code.unwrap_or_default() - CALL_FAILED;
        ensure(code > 0, || format!("{}: exit {:?}, expected an error\n{}", ended.line, ended.code, ended.output))?;
        let status = parse(&ended.output)?;
        let details = status["details"].as_array().map(Vec::as_slice).unwrap_or_default();
        let info = details.iter().find(|detail| detail["domain"] == "zbl.v1");
        let reason = info.and_then(|info| info["reason"].as_str()).unwrap_or_default().to_owned();
        Ok(Refused { code, reason, status })
    }

    /// Makes a call that streams its answers to an end of its own.
    pub(super) fn answers(&self, method: &str, request: &str) -> Result<Vec<Value>, Failure> {
        let ended = self.run(method, request)?.expect(0)?;
        Ok(objects(&ended.output))
    }

    /// Starts a call that streams its answers, one JSON object after the other.
    pub(super) fn stream(&self, method: &str, request: &str) -> Result<Process, Failure> {
        Ok(Process::spawn(self.command(method, request))?)
    }

    fn run(&self, method: &str, request: &str) -> Result<Ended, Failure> {
        self.stage.run(self.command(method, request), TIMEOUT)
    }

    fn command(&self, method: &str, request: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["-plaintext", "-format-error", "-max-time", MAX_TIME_S, "-d", request]);
        if let Some(token) = self.token {
            command.args(["-H", &format!("authorization: Bearer {token}")]);
        }
        command.args([OsString::from(self.address.to_string()), qualified(method).into()]);
        command
    }
}

/// Methods are named without their package; those of the health service come whole.
fn qualified(method: &str) -> String {
    if method.starts_with("grpc.") { method.into() } else { format!("zbl.v1.{method}") }
}

/// The JSON objects that a stream has printed; one that is not complete yet ends them.
pub(super) fn objects(output: &str) -> Vec<Value> {
    serde_json::Deserializer::from_str(output).into_iter().map_while(Result::ok).collect()
}

fn parse(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::Failed(format!("grpcurl's output is not JSON ({error}): {text}")))
}
