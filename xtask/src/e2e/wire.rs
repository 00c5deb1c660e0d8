//! One HTTP/2 connection, driven by hand: calls with whatever head and body one likes, finished or not. It owns the way of
//! a call and refuses to judge its answer.

use std::{future::poll_fn, net::SocketAddr, time::Duration};

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};
use zbl_client::Error;

/// An answer that takes longer does not come: what is asked here is refused or done within milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A connection, closed when dropped.
pub(crate) struct Wire {
    address: SocketAddr,
    send: SendRequest<Bytes>,
    connection: JoinHandle<()>,
}

/// How a call was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) http: u16,
    /// What its trailers say; `None` where it has none, as where no gRPC server answered.
    pub(crate) outcome: Option<Result<(), Error>>,
}

/// A call under way.
pub(crate) struct Call {
    head: ResponseFuture,
    /// The way for its messages; dropped before its end, the call is taken back.
    pub(crate) body: SendStream<Bytes>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Wire {
    /// Connects, with the windows that HTTP/2 begins with.
    pub(crate) async fn dial(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let (send, connection) = h2::client::handshake(stream).await.map_err(|error| error.to_string())?;
        // How it ends is told to its calls.
        let connection = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { address, send, connection })
    }

    /// Begins a call of gRPC: sends its head.
    pub(crate) async fn begin(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<Call, String> {
        let mut request = Request::post(format!("http://{}{path}", self.address))
            .header(header::TE, "trailers")
            .header(header::CONTENT_TYPE, "application/grpc")
            .body(())
            .map_err(|error| error.to_string())?;
        for (name, value) in headers {
            let name: HeaderName = name.parse().map_err(|_| format!("{name:?} is no name of a header"))?;
            request.headers_mut().insert(name, HeaderValue::from_str(value).map_err(|error| error.to_string())?);
        }
        let ready = timeout(ANSWER_TIMEOUT, poll_fn(|context| self.send.poll_ready(context))).await;
        ready.map_err(|_| "no room for another call".to_owned())?.map_err(|error| error.to_string())?;
        let (head, body) = self.send.send_request(request, false).map_err(|error| error.to_string())?;
        Ok(Call { head, body })
    }

    /// A whole call: one body, framed or not as it is given, and what comes of it.
    pub(crate) async fn call(&mut self, path: &str, headers: &[(&str, &str)], body: Bytes) -> Result<Answer, String> {
        let mut call = self.begin(path, headers).await?;
        // Refused before all of it was sent, the rest is nobody's concern; the answer tells.
        let _ = call.body.send_data(body, true);
        let answer = timeout(ANSWER_TIMEOUT, call.answer());
        answer.await.map_err(|_| format!("{path}: no answer within {ANSWER_TIMEOUT:?}"))?
    }
}

impl Call {
    /// The beginning of the answer: its head, and what is to follow.
    pub(crate) async fn opened(self) -> Result<(SendStream<Bytes>, RecvStream), String> {
        let answer = timeout(ANSWER_TIMEOUT, self.head).await.map_err(|_| "the stream does not open".to_owned())?;
        Ok((self.body, answer.map_err(|error| error.to_string())?.into_body()))
    }

    /// Waits for the end of the answer, whatever comes before it.
    pub(crate) async fn answer(self) -> Result<Answer, String> {
        let Self { head, body: _kept } = self;
        let (head, mut body) = head.await.map_err(|error| error.to_string())?.into_parts();
        let trailers = ended(&mut body).await?;
        let trailers = trailers.as_ref().unwrap_or(&head.headers);
        let is_grpc = trailers.contains_key("grpc-status");
        let outcome = is_grpc.then(|| Error::check_trailers(trailers));
        Ok(Answer { http: head.status.as_u16(), outcome })
    }
}

/// Reads an answer to its end; what its trailers say.
pub(crate) async fn ended(body: &mut RecvStream) -> Result<Option<HeaderMap>, String> {
    while let Some(part) = body.data().await {
        let part = part.map_err(|error| error.to_string())?;
        body.flow_control().release_capacity(part.len()).map_err(|error| error.to_string())?;
    }
    body.trailers().await.map_err(|error| error.to_string())
}

/// A message as gRPC frames it.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[0][..], &length, message].concat().into()
}
