//! Entries as rows: CSV for spreadsheets and loaders, NDJSON for programs. Both have the same fields, named as in the
//! contract; amounts are decimal strings, because whoever reads a number may read it as a float.

use std::io;

use chrono::SecondsFormat;
use csv::{Terminator, WriterBuilder};
use serde::Serialize;

use crate::account::Entry;

/// The fields of [`Row`], in its order.
const HEADER: [&str; 9] =
    ["user_id", "version", "request_id", "kind", "delta", "balance_after", "version_before", "strategy", "create_time"];

#[derive(Serialize)]
struct Row<'a> {
    user_id: i64,
    version: i64,
    request_id: String,
    kind: &'static str,
    delta: String,
    balance_after: String,
    version_before: i64,
    strategy: &'a str,
    create_time: String,
}

impl<'a> From<&'a Entry> for Row<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self {
            user_id: entry.user_id,
            version: entry.version,
            request_id: entry.request_id.to_string(),
            kind: entry.kind.name(),
            delta: entry.delta.to_string(),
            balance_after: entry.balance_after.to_string(),
            version_before: entry.version_before,
            strategy: &entry.strategy,
            create_time: entry.created_at.and_utc().to_rfc3339_opts(SecondsFormat::Micros, true),
        }
    }
}

#[derive(Clone, Copy)]
enum Shape {
    Csv,
    Ndjson,
}

/// A table of either shape.
pub(super) struct Table(Shape);

impl Table {
    pub(super) const fn csv() -> Self {
        Self(Shape::Csv)
    }

    pub(super) const fn ndjson() -> Self {
        Self(Shape::Ndjson)
    }

    /// The names of the columns, where rows do not name them.
    pub(super) fn head(&self) -> io::Result<Vec<u8>> {
        match self.0 {
            Shape::Csv => in_csv(|csv| csv.write_record(HEADER)),
            Shape::Ndjson => Ok(Vec::new()),
        }
    }

    pub(super) fn rows<'a>(&self, entries: impl Iterator<Item = &'a Entry>) -> io::Result<Vec<u8>> {
        let mut rows = entries.map(Row::from);
        match self.0 {
            Shape::Csv => in_csv(|csv| rows.try_for_each(|row| csv.serialize(row))),
            Shape::Ndjson => {
                let mut lines = Vec::new();
                for row in rows {
                    serde_json::to_writer(&mut lines, &row)?;
                    lines.push(b'\n');
                }
                Ok(lines)
            }
        }
    }
}

fn in_csv(write: impl FnOnce(&mut csv::Writer<Vec<u8>>) -> csv::Result<()>) -> io::Result<Vec<u8>> {
    // RFC 4180 ends lines with both. The header is written once, not with each page.
    let mut csv = WriterBuilder::new().terminator(Terminator::CRLF).has_headers(false).from_writer(Vec::new());
    write(&mut csv).map_err(io::Error::other)?;
    csv.into_inner().map_err(|error| io::Error::other(error.to_string()))
}
