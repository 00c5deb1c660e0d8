//! The same by lines for `sh`, for programs that are told by such lines what to break and how to mend it. A server that a
//! line has started is tied to the same leash. Once a line has killed a server, its [`Redis`] still names it and cleans up
//! after it; [`Redis::kill`] and [`Redis::restart`] are no longer for it.

use std::{ffi::OsStr, process::Command, time::Duration};

use super::Redis;

impl Redis {
    /// Kills the server as `kill -9` does, and waits until nobody answers on its port.
    pub fn kill_line(&self) -> String {
        let (directory, port) = (quoted(self.leash.directory()), self.port);
        format!(
            "pid=$(cat {directory}/pid) && : >{directory}/pid && kill -KILL \"$pid\" && \
             while redis-cli -p {port} PING >/dev/null 2>&1; do :; done"
        )
    }

    /// Starts it, after it was killed: empty, on the same port; and waits until it answers.
    pub fn start_line(&self) -> String {
        let (directory, port) = (quoted(self.leash.directory()), self.port);
        let server = line(&self.setup.command(&self.leash, port));
        // The pause is between two looks at a condition; who runs the line bounds it.
        format!(
            "{{ {server} </dev/null >{directory}/log 2>&1 & }} && \
             until [ \"$(redis-cli -p {port} PING 2>/dev/null)\" = PONG ]; do sleep 0.02; done"
        )
    }

    /// Moves the clock of a server that was started with a movable one, by whole seconds.
    pub fn jump_line(&self, by: Duration) -> String {
        let clock = format!("{}/clock", quoted(self.leash.directory()));
        let seconds = by.as_secs();
        format!(
            "ahead=$(cat {clock}) && ahead=${{ahead#+}} && \
             echo \"+$((${{ahead%.*}} + {seconds})).0\" >{clock}.next && mv {clock}.next {clock}"
        )
    }
}

/// A command as `sh` takes it, with the variables it is given.
fn line(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| Some((name.to_string_lossy(), value?)));
    let variables: String = variables.map(|(name, value)| format!("{name}={} ", quoted(value))).collect();
    let words = [command.get_program()].into_iter().chain(command.get_args()).map(quoted).collect::<Vec<_>>();
    variables + &words.join(" ")
}

/// A word that `sh` takes as it is.
fn quoted(word: impl AsRef<OsStr>) -> String {
    format!("'{}'", word.as_ref().to_string_lossy().replace('\'', r"'\''"))
}
