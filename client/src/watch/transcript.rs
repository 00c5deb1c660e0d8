//! The timeline as lines of text, one per span, in the order the spans began. Begins are put in order within a tenth of
//! a second; a span that took longer appears late, marked `<`. It refuses to hide anything: lost connections, gaps and
//! restarts are lines too.

use zbl_proto::v1::{StreamTimelineResponse, stream_timeline_response::Event};

use super::{
    arrival::{Arrival, News},
    board::Board,
    clocks::Clocks,
    line::{self, Layout, Place},
    order::{Happening, Order},
    render::Render,
};
use crate::{Paint, paint::short};

/// What has been shown and what is held back.
pub(super) struct Transcript {
    paint: Paint,
    servers: Vec<Server>,
    clocks: Clocks,
    order: Order,
    board: Board,
    headed: bool,
    /// When the first happening shown began; times are counted from it.
    origin_ns: Option<i64>,
    newest_ns: i64,
}

struct Server {
    address: String,
    epoch: String,
}

impl Transcript {
    pub(super) fn new(addresses: &[String], paint: Paint) -> Self {
        let server = |address: &String| Server { address: address.clone(), epoch: String::new() };
        Self {
            paint,
            servers: addresses.iter().map(server).collect(),
            clocks: Clocks::of(addresses.len()),
            order: Order::default(),
            board: Board::default(),
            headed: false,
            origin_ns: None,
            newest_ns: i64::MIN,
        }
    }

    fn layout(&self) -> Layout {
        if self.servers.len() > 1 { Layout::Servers } else { Layout::OneServer }
    }

    /// A server's number, where there are several.
    fn number(&self, source: usize) -> Option<usize> {
        (self.servers.len() > 1).then_some(source + 1)
    }

    /// A remark about a server, which is named where there are several.
    fn notice(&self, source: usize, text: &str) -> String {
        match self.number(source) {
            None => line::notice(text, self.paint),
            Some(number) => line::notice(&format!("srv {number}: {text}"), self.paint),
        }
    }

    /// Before a remark: shows what waits, so that the remark stands behind it. Not where the events of other servers
    /// wait as well, which have their place in the order still to come.
    fn settle_alone(&mut self, out: &mut String) {
        if self.servers.len() == 1 {
            self.settle(out);
        }
    }

    fn connected(&mut self, source: usize, after: Option<i64>, out: &mut String) {
        let Some(Server { address, epoch }) = self.servers.get(source) else { return };
        let text = match after {
            None => format!("connected to {address}"),
            Some(sequence) if epoch.is_empty() => format!("connected to {address}; resuming after event {sequence}"),
            Some(sequence) => {
                format!("connected again; resuming epoch {} after event {sequence}", short(epoch))
            }
        };
        out.push_str(&self.notice(source, &text));
        if !std::mem::replace(&mut self.headed, true) {
            out.push_str(&line::header(self.layout(), self.paint));
        }
    }

    fn event(&mut self, arrived_us: i64, source: usize, event: StreamTimelineResponse, out: &mut String) {
        let StreamTimelineResponse { epoch, sequence, instance, event } = event;
        if self.servers.get(source).is_some_and(|server| server.epoch != epoch) {
            self.settle_alone(out);
            self.board.forget(source);
            out.push_str(&self.notice(source, &format!("epoch {} of {instance}", short(&epoch))));
            self.servers[source].epoch.clone_from(&epoch);
        }
        match event {
            Some(Event::Span(mut span)) => {
                for shift in self.clocks.place(source, &epoch, arrived_us, &mut span) {
                    self.order.shift(shift);
                }
                self.order.hold(source, sequence, Happening::Span(span));
            }
            Some(Event::Race(race)) => self.order.hold(source, sequence, Happening::Race(race)),
            Some(Event::Gap(gap)) => {
                self.settle_alone(out);
                out.push_str(&line::gap(&gap, self.number(source), self.paint));
            }
            Some(Event::Heartbeat(_)) => {
                self.settle_alone(out);
                out.push_str(&self.notice(source, &line::alive(&instance, sequence)));
            }
            // A kind of event that is newer than this watcher.
            None => {}
        }
        while let Some((begin_ns, source, happening)) = self.order.release() {
            self.show(begin_ns, source, &happening, out);
        }
    }

    fn show(&mut self, begin_ns: i64, source: usize, happening: &Happening, out: &mut String) {
        let late = begin_ns < self.newest_ns;
        self.newest_ns = self.newest_ns.max(begin_ns);
        let at_ns = begin_ns.saturating_sub(*self.origin_ns.get_or_insert(begin_ns));
        let server = self.number(source);
        out.push_str(&match happening {
            Happening::Race(race) => line::race(race, at_ns, self.paint),
            Happening::Span(span) => {
                let cells = self.board.enter(source, span);
                line::span(span, &Place { at_ns, late, server }, cells, self.paint)
            }
        });
    }
}

impl Render for Transcript {
    fn take(&mut self, arrival: Arrival, out: &mut String) {
        match arrival.news {
            News::Connected { after } => self.connected(arrival.source, after, out),
            News::Disconnected { error, retry_in_ms } => {
                self.settle_alone(out);
                let text = format!("connection lost ({error}); trying again in {retry_in_ms} ms");
                out.push_str(&self.notice(arrival.source, &text));
            }
            News::Event(event) => self.event(arrival.arrived_us, arrival.source, event, out),
        }
    }

    fn is_holding(&self) -> bool {
        !self.order.is_empty()
    }

    fn settle(&mut self, out: &mut String) {
        while let Some((begin_ns, source, happening)) = self.order.settle() {
            self.show(begin_ns, source, &happening, out);
        }
    }
}

#[cfg(test)]
mod tests;
