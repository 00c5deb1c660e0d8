//! The one error of this crate. Every message names the fix or carries the output that shows it.

use std::{fmt, io, time::Duration};

/// Why a server, a client or a process could not do what a test asked of it.
///
/// It can be cloned, because every test that shares a server that did not start is told why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// A server, or something that a server or a client needs, is not installed.
    Missing {
        /// What was looked for.
        what: &'static str,
        /// The line that installs it, and what would do in its place.
        fix: &'static str,
    },
    /// The operating system refused something.
    System {
        /// What was being done.
        doing: String,
        /// What the operating system said.
        reason: String,
    },
    /// A process ended, or stayed silent, before it was ready.
    NotReady {
        /// The process and what was waited for.
        what: String,
        /// The end of what the process printed.
        output: String,
    },
    /// Something did not happen in time.
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
    },
    /// The database refused a statement.
    Sql {
        /// The statement.
        sql: String,
        /// What the database said.
        reason: String,
    },
    /// Redis refused a command.
    Redis {
        /// The command.
        command: String,
        /// What Redis said.
        reason: String,
    },
    /// A text is not a `mysql://` URL.
    Url {
        /// What is wrong with it; the URL itself may hold a password and is not repeated.
        reason: String,
    },
}

impl Error {
    /// Wraps an operating system error with what was being done.
    pub(crate) fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::System { doing: doing.into(), reason: error.to_string() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { what, fix } => write!(f, "no {what} found; run: {fix}"),
            Self::System { doing, reason } => write!(f, "{doing}: {reason}"),
            Self::NotReady { what, output } => write!(f, "{what}; its last output:\n{output}"),
            Self::TimedOut { what, waited } => write!(f, "{what}: not within {waited:?}"),
            Self::Sql { sql: request, reason } | Self::Redis { command: request, reason } => {
                write!(f, "`{request}`: {reason}")
            }
            Self::Url { reason } => write!(f, "not a mysql:// URL (mysql://user[:password]@host[:port]/db): {reason}"),
        }
    }
}

impl std::error::Error for Error {}
