//! `loadgen bench` beside a part: load for a while, and the verdict on all of it afterwards.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use serde_json::Value;
use test_support::Process;

use super::{
    checks::ensure,
    stage::{Ended, Stage, argument},
};
use crate::command::{Failure, line};

/// Settling and judging, and sitting out an outage, on top of the load itself.
const SLACK: Duration = Duration::from_secs(180);

/// A bench under way.
pub(crate) struct Load {
    line: String,
    process: Process,
    file: PathBuf,
    length: Duration,
}

impl Load {
    /// Loads a server for so long. `name` names the result file. Whoever finds the server away waits and repeats.
    pub(crate) fn start(
        stage: &Stage,
        name: &str,
        server: SocketAddr,
        length: Duration,
        arguments: &[&str],
    ) -> Result<Self, Failure> {
        let file = stage.path(&format!("{name}.json"));
        let (server, duration) = (server.to_string(), format!("{}s", length.as_secs()));
        let mut command = stage.command("loadgen", &["bench", "--addr", &server, "--json", &argument(&file)]);
        command.args(["--duration", &duration, "--warmup", "1s", "--outage", "120s", "--expect", "clean"]);
        command.args(arguments);
        Ok(Self { line: line(&command), process: Process::spawn(command)?, file, length })
    }

    /// Waits for its end; its result. Fails unless it ended with 0 and nothing was lost.
    pub(crate) fn finish(mut self) -> Result<Value, Failure> {
        let status = self.process.wait(self.length + SLACK)?;
        let ended = Ended { line: self.line, code: status.code(), output: self.process.output() }.expect(0)?;
        let unreadable = |error: String| Failure::Failed(format!("{}: {error}", self.file.display()));
        let text = fs::read_to_string(&self.file).map_err(|error| unreadable(error.to_string()))?;
        let result: Value = serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
        let is_clean = result["verdict"]["verdict"] == "CLEAN" && result["acknowledged"].as_u64() > Some(0);
        ensure(is_clean, || ended.output)?;
        Ok(result)
    }
}
