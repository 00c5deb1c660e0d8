//! The end of a statement: waited for with a limit, and told in our own terms. The only reading of these databases' error
//! texts.

use std::{future::Future, time::Duration};

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use crate::store::{Error, meter::Meter};

/// What a statement came to.
pub(super) type Answer<T> = Result<T, DieselError>;

/// How statements are waited for and counted.
pub(super) struct Wire {
    /// How long a statement may take.
    limit: Duration,
    pub(super) meter: Meter,
}

impl Wire {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, meter: Meter::default() }
    }

    /// Waits for a statement's answer, but not for ever: a database that is stopped or cut off without a word would
    /// otherwise keep its callers and their links. The limit is beyond every wait that the database itself ends.
    pub(super) async fn answered<T>(&self, statement: impl Future<Output = Answer<T>>) -> Answer<T> {
        self.meter.round_trips(1);
        tokio::time::timeout(self.limit, statement).await.unwrap_or_else(|_| {
            let text = format!("no answer within {:?}", self.limit);
            Err(DieselError::DatabaseError(DatabaseErrorKind::ClosedConnection, Box::new(text)))
        })
    }

    /// The same for one whose text is made for the occasion: it is prepared in a round trip of its own.
    pub(super) async fn answered_unprepared<T>(&self, statement: impl Future<Output = Answer<T>>) -> Answer<T> {
        self.meter.round_trips(1);
        self.answered(statement).await
    }
}

/// What a Diesel error from MySQL or MariaDB means. Diesel tells deadlock (1213), lock wait timeout (1205) and snapshot
/// conflict (1020) only by their text, and an I/O error only by its driver's; sessions pin the language of both.
pub(super) fn classify(error: &DieselError) -> Error {
    const CONTENDED: [&str; 5] = [
        "Deadlock found",
        "Lock wait timeout",
        "Record has changed since last read",
        "Table definition has changed",
        // KILL QUERY, or a time limit of the server's.
        "Query execution was interrupted",
    ];
    const LOST: [&str; 6] = [
        "Input/output error",
        "Driver error",
        "Server shutdown in progress",
        "Connection was killed",
        "The client was disconnected",
        "Normal shutdown",
    ];
    const DOWN: [&str; 6] = [
        // After a fail-over: this server may not write.
        "read-only",
        "READ ONLY",
        "WSREP has not yet prepared node",
        "No space left on device",
        "Disk full",
        // "The table '…' is full": so is its disk.
        "is full",
    ];
    let text = error.to_string();
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| text.contains(phrase));
    match error {
        DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _) => Error::Duplicate(text),
        DieselError::DatabaseError(DatabaseErrorKind::ClosedConnection, _) => Error::Lost(text),
        DieselError::DatabaseError(DatabaseErrorKind::ReadOnlyTransaction, _) => Error::Down(text),
        _ if says(&CONTENDED) => Error::Contended(text),
        _ if says(&LOST) => Error::Lost(text),
        _ if says(&DOWN) => Error::Down(text),
        _ => Error::Unexpected(text),
    }
}
