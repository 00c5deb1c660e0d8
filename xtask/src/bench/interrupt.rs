//! Ctrl-C, kept from ending this process at once: what it has started is ended first, as the handles are dropped.

use std::{
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};
use test_support::{Process, poll_until};

use crate::command::Failure;

/// Whether somebody wants this to end.
#[derive(Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From here on the signals that end a process only raise a flag.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let raised = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register(signal, Arc::clone(&raised))
                .map_err(|error| Failure::Failed(format!("listening for signal {signal}: {error}")))?;
        }
        Ok(Self(raised))
    }

    /// Fails once the flag is raised.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.is_raised() { Err(Failure::Failed("interrupted; nothing was written".into())) } else { Ok(()) }
    }

    /// Waits until a process ends by itself; fails when it does not in time, or when the flag is raised meanwhile.
    pub(crate) fn wait(&self, process: &mut Process, timeout: Duration) -> Result<ExitStatus, Failure> {
        let _ = poll_until(timeout, || (self.is_raised() || !process.is_running()).then_some(()));
        self.check()?;
        Ok(process.wait(Duration::ZERO)?)
    }

    fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_signal_ends_the_waiting_and_not_this_process() {
        let interrupt = Interrupt::listen().unwrap();
        let mut sleeper = Process::spawn({
            let mut command = Command::new("sleep");
            command.arg("60");
            command
        })
        .unwrap();
        interrupt.check().unwrap();
        let own = std::process::id().to_string();
        assert!(Command::new("kill").args(["-HUP", &own]).status().unwrap().success());
        let failure = interrupt.wait(&mut sleeper, Duration::from_secs(30)).unwrap_err();
        assert!(failure.reason().contains("interrupted"), "{failure:?}");
        assert!(sleeper.is_running());
    }
}
