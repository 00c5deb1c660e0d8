//! What can be made of a timeline as text. Pure: arrivals in, text out; when and where it is written is the watcher's.

use super::{arrival::Arrival, perfetto::Perfetto, transcript::Transcript};
use crate::Paint;

/// A form to show a timeline in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A line of text per span, for people.
    Line(Paint),
    /// A JSON object per line and arrival.
    Ndjson,
    /// A trace that ui.perfetto.dev opens.
    Perfetto,
}

/// Turns arrivals into text.
pub(super) trait Render {
    /// Takes in what arrived, and appends what can be told now.
    fn take(&mut self, arrival: Arrival, out: &mut String);

    /// Whether something waits for its place in the order.
    fn is_holding(&self) -> bool {
        false
    }

    /// Appends what waits.
    fn settle(&mut self, _: &mut String) {}

    /// Appends what comes last.
    fn finish(&mut self, out: &mut String) {
        self.settle(out);
    }
}

impl Format {
    /// A renderer for what comes from `addresses`.
    pub(super) fn renderer(self, addresses: &[String]) -> Box<dyn Render> {
        match self {
            Self::Line(paint) => Box::new(Transcript::new(addresses, paint)),
            Self::Ndjson => Box::new(Ndjson),
            Self::Perfetto => Box::new(Perfetto::new(addresses.len())),
        }
    }
}

/// Arrivals as they are.
struct Ndjson;

impl Render for Ndjson {
    fn take(&mut self, arrival: Arrival, out: &mut String) {
        arrival.write(out);
    }
}
