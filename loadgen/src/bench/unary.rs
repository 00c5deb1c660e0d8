//! Calls over one HTTP/2 connection, many at a time, driven by the one task that also reads and writes the connection:
//! answers that arrive together are taken together, and the calls they make room for leave in one write. A channel made
//! for applications spawns, boxes and queues for every call; here that would be measured along with the server.
//!
//! It owns the protocol (gRPC over HTTP/2) and refuses to repeat anything.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use futures::stream::FuturesUnordered;
use h2::RecvStream;
use h2::client::{Connection, ResponseFuture, SendRequest};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use zbl_client::{Client, Error};
use zbl_trace::{Span, Tracer};

use super::exchange::{Backlog, Ended, Event, Exchange};
use super::operation::{Answer, Operation, PREFIX, Wording, Writer};
use crate::report::bench::Method;

/// Unread answers that a connection may hold: more than any concurrency asks for, so that flow control does not measure
/// the client.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// An answer of this service is some hundred bytes; what exceeds this is none.
const LONGEST_ANSWER: usize = 64 * 1024;

const GRPC_STATUS: &str = "grpc-status";
const GRPC_TIMEOUT: &str = "grpc-timeout";
const OK: &[u8] = b"0";
const OK_CODE: i32 = 0;

/// The calls on one connection.
pub(super) struct Unary<T: AsyncRead + AsyncWrite + Unpin> {
    calls: FuturesUnordered<Call>,
    send: SendRequest<Bytes>,
    connection: Connection<T, Bytes>,
    writer: Writer,
    heads: Heads,
    deadline: Duration,
    /// What begins the traces of the calls.
    tracer: Option<Tracer>,
    /// Answers so far.
    answers: u64,
    /// A call has expired and nothing was answered since it was sent: the other side has vanished.
    vanished: bool,
}

/// What precedes requests, made once.
struct Heads {
    health: Uri,
    balance: Uri,
    deduct: Uri,
    headers: HeaderMap,
}

/// A call that waits for its answer.
struct Call {
    operation: Operation,
    span: Option<Span>,
    stage: Stage,
    sent: Instant,
    /// Answers on the connection before it was sent.
    answers_before: u64,
    /// Who polls it.
    waker: Option<Waker>,
}

enum Stage {
    Head(ResponseFuture),
    Body {
        headers: HeaderMap,
        body: RecvStream,
        message: Bytes,
    },
    /// No answer within this time.
    Expired(Duration),
}

impl<T: AsyncRead + AsyncWrite + Unpin> Unary<T> {
    /// Begins to speak HTTP/2 on a connection to a client's server, as that client would.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) async fn begin(io: T, client: &Client, wording: Wording) -> Result<Self, Error> {
        let heads = Heads::new(client).map_err(Error::lost)?;
        let mut builder = h2::client::Builder::new();
        builder.enable_push(false).initial_connection_window_size(CONNECTION_WINDOW);
        let (send, connection) = builder.handshake(io).await.map_err(Error::lost)?;
        let writer = Writer::new(wording);
        let calls = FuturesUnordered::new();
        let (deadline, tracer) = (client.deadline(), client.tracer().cloned());
        Ok(Self { calls, send, connection, writer, heads, deadline, tracer, answers: 0, vanished: false })
    }

    fn poll_calls(&mut self, context: &mut Context<'_>) -> Option<Event> {
        match Pin::new(&mut self.calls).poll_next(context) {
            Poll::Ready(Some(ended)) => {
                self.answers += 1;
                Some(Event::Ended(ended))
            }
            Poll::Ready(None) | Poll::Pending => None,
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Exchange for Unary<T> {
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // The library would queue more streams than the server allows at a time; a call in that queue would count as sent.
        // A call that ends makes room, and wakes this task by itself.
        if self.calls.len() >= self.send.current_max_send_streams() {
            return Poll::Pending;
        }
        self.send.poll_ready(context).map_err(Error::lost)
    }

    fn send(&mut self, operation: Operation, now: Instant) -> Result<(), Error> {
        let mut request = Request::new(());
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.heads.uri(operation.method).clone();
        request.headers_mut().clone_from(&self.heads.headers);
        let span = self.tracer.as_ref().map(|tracer| tracer.begin_call(name(operation.method)));
        if let Some(span) = &span {
            span.context().write(request.headers_mut());
        }
        let message = self.writer.write(&operation);
        let (response, mut body) = self.send.send_request(request, false).map_err(Error::lost)?;
        body.send_data(message, true).map_err(Error::lost)?;
        let stage = Stage::Head(response);
        self.calls.push(Call { operation, span, stage, sent: now, answers_before: self.answers, waker: None });
        Ok(())
    }

    fn poll_event(&mut self, context: &mut Context<'_>, backlog: Backlog) -> Poll<Result<Event, Error>> {
        if let Some(event) = self.poll_calls(context) {
            return Poll::Ready(Ok(event));
        }
        if self.vanished {
            return Poll::Ready(Err(Error::lost(format_args!("no answer within {:?}", self.deadline))));
        }
        if let Poll::Ready(ended) = Pin::new(&mut self.connection).poll(context) {
            let why =
                ended.err().map_or_else(|| "the server closed the connection".to_owned(), |error| error.to_string());
            return Poll::Ready(Err(Error::lost(why)));
        }
        // What the connection has just brought; asking now spares another round through the scheduler.
        if let Some(event) = self.poll_calls(context) {
            return Poll::Ready(Ok(event));
        }
        match backlog {
            Backlog::None => Poll::Pending,
            Backlog::Waiting => self.poll_room(context).map_ok(|()| Event::Room),
        }
    }

    fn expire(&mut self, now: Instant) {
        for call in self.calls.iter_mut() {
            if now.saturating_duration_since(call.sent) >= self.deadline {
                self.vanished |= call.answers_before == self.answers;
                call.expire(self.deadline);
            }
        }
    }

    fn abandon(self) -> Vec<Operation> {
        self.calls.into_iter().map(|call| call.operation).collect()
    }
}

impl Heads {
    fn new(client: &Client) -> Result<Self, http::Error> {
        let uri = |method| {
            let mut parts = client.uri().clone().into_parts();
            parts.path_and_query = Some(PathAndQuery::try_from(format!("/{}", name(method)))?);
            Uri::from_parts(parts).map_err(http::Error::from)
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("loadgen/", env!("CARGO_PKG_VERSION"))));
        headers.insert(GRPC_TIMEOUT, HeaderValue::try_from(grpc_timeout(client.deadline()))?);
        headers.extend(client.authorization().map(|token| (header::AUTHORIZATION, token.clone())));
        Ok(Self { health: uri(Method::Health)?, balance: uri(Method::Balance)?, deduct: uri(Method::Deduct)?, headers })
    }

    const fn uri(&self, method: Method) -> &Uri {
        match method {
            Method::Health => &self.health,
            Method::Balance => &self.balance,
            Method::Deduct => &self.deduct,
        }
    }
}

/// What gRPC calls a method.
const fn name(method: Method) -> &'static str {
    match method {
        Method::Health => "grpc.health.v1.Health/Check",
        Method::Balance => "zbl.v1.AccountService/GetBalance",
        Method::Deduct => "zbl.v1.AccountService/Deduct",
    }
}

/// A deadline as gRPC writes it: at most eight digits, which in milliseconds are more than a day.
fn grpc_timeout(deadline: Duration) -> String {
    if deadline < Duration::from_secs(1) {
        format!("{}u", deadline.as_micros().max(1))
    } else {
        format!("{}m", deadline.as_millis())
    }
}

impl Call {
    fn expire(&mut self, after: Duration) {
        self.stage = Stage::Expired(after);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The message once all of the answer is there, or why there is none.
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Error>> {
        loop {
            match &mut self.stage {
                Stage::Head(response) => {
                    let (head, body) = ready!(Pin::new(response).poll(context)).map_err(Error::lost)?.into_parts();
                    if head.status != StatusCode::OK {
                        return Poll::Ready(Err(Error::lost(format_args!("HTTP status {}", head.status))));
                    }
                    self.stage = Stage::Body { headers: head.headers, body, message: Bytes::new() };
                }
                Stage::Body { headers, body, message } => match ready!(body.poll_data(context)) {
                    Some(part) => {
                        let part = part.map_err(Error::lost)?;
                        body.flow_control().release_capacity(part.len()).map_err(Error::lost)?;
                        *message = joined(std::mem::take(message), part)?;
                    }
                    None => {
                        let trailers = ready!(body.poll_trailers(context)).map_err(Error::lost)?;
                        check(trailers.as_ref().unwrap_or(headers))?;
                        return Poll::Ready(unframed(message));
                    }
                },
                Stage::Expired(after) => return Poll::Ready(Err(Error::no_answer_within(*after))),
            }
        }
    }
}

impl Future for Call {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended> {
        let call = &mut *self;
        let Poll::Ready(message) = call.poll_message(context) else {
            if call.waker.is_none() {
                call.waker = Some(context.waker().clone());
            }
            return Poll::Pending;
        };
        let operation = call.operation;
        let outcome = message.and_then(|message| Answer::read(operation.method, &message));
        if let Some(span) = &call.span {
            span.end_call(outcome.as_ref().err().map_or(OK_CODE, |error| error.code().into()));
        }
        Poll::Ready(Ended { operation, outcome })
    }
}

/// An answer nearly always comes in one part.
fn joined(message: Bytes, part: Bytes) -> Result<Bytes, Error> {
    if message.len() + part.len() > LONGEST_ANSWER {
        return Err(Error::broken_answer("it is too long"));
    }
    Ok(if message.is_empty() { part } else { [message, part].concat().into() })
}

/// Whether the call succeeded; without the work of reading it where nothing is wrong.
fn check(trailers: &HeaderMap) -> Result<(), Error> {
    if trailers.get(GRPC_STATUS).is_some_and(|status| status.as_bytes() == OK) {
        return Ok(());
    }
    Error::check_trailers(trailers)
}

/// The one message of a unary answer, without its prefix.
fn unframed(frame: &Bytes) -> Result<Bytes, Error> {
    match **frame {
        [0, a, b, c, d, ref rest @ ..] if u32::from_be_bytes([a, b, c, d]) as usize == rest.len() => {
            Ok(frame.slice(PREFIX..))
        }
        _ => Err(Error::broken_answer("it is not one uncompressed message")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_have_at_most_eight_digits_and_are_never_nothing() {
        for (deadline, expected) in [
            (Duration::from_nanos(1), "1u"),
            (Duration::from_micros(1_500), "1500u"),
            (Duration::from_millis(5_250), "5250m"),
            (zbl_client::LONGEST_DEADLINE, "86400000m"),
        ] {
            assert_eq!(grpc_timeout(deadline), expected);
        }
    }

    #[test]
    fn an_answer_is_one_message_in_however_many_parts() {
        let framed = |bytes: &'static [u8]| unframed(&Bytes::from_static(bytes));
        assert_eq!(framed(&[0, 0, 0, 0, 2, 7, 8]).unwrap(), Bytes::from_static(&[7, 8]));
        assert_eq!(framed(&[0, 0, 0, 0, 0]).unwrap(), Bytes::new());
        for broken in [&[][..], &[0, 0, 0, 0], &[0, 0, 0, 0, 2, 7], &[0, 0, 0, 0, 1, 7, 8], &[1, 0, 0, 0, 1, 7]] {
            framed(broken).unwrap_err();
        }
        let [one, two] = [&b"ab"[..], b"cd"].map(Bytes::from_static);
        assert_eq!(joined(joined(Bytes::new(), one).unwrap(), two).unwrap(), "abcd");
        joined(Bytes::from(vec![0; LONGEST_ANSWER]), Bytes::from_static(b"x")).unwrap_err();
    }
}
