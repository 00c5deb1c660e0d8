//! One connection's bytes, watched: a client that does not say what it wants, and one that does not take what it is sent,
//! are not waited for. Both would otherwise keep a place for ever, since HTTP/2's keep-alive begins behind the preface
//! and HTTP/1.1 has none.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};
use zbl_client::Wire;

use super::Room;

/// What a client of HTTP/2 says first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a write may wait for a client to make room in what it has asked for. The system says that there is room when
/// about a third of what it holds is taken, so one that takes something, but less than that, is not waited for either.
const STALLED_MOST: Duration = Duration::from_secs(30);

/// A connection that can be served.
pub(crate) struct Connection {
    wire: Box<dyn Wire>,
    opening: Option<Opening>,
    /// Since when nothing could be written; the time is up when this is.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Given back when the connection ends.
    _room: Option<Room>,
}

/// A connection that has not said yet whether it speaks HTTP/2. That of HTTP/1.1 ends with the first byte that differs:
/// from there on the time for the head counts.
struct Opening {
    said: usize,
    until: Until,
}

/// What ends the wait: that it was long enough, or that the server is to stop.
pub(super) type Until = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Connection {
    /// A connection that came from outside has a place and is to say what it wants in time.
    pub(super) fn new(wire: Box<dyn Wire>, from_outside: Option<(Room, Until)>) -> Self {
        let (room, opening) = from_outside.map(|(room, until)| (room, Opening { said: 0, until })).unzip();
        Self { wire, opening, stalled: None, _room: room }
    }

    /// What came of a write; too long without one ends the connection.
    fn watched<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALLED_MOST)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(late("it takes nothing of what it asked for")))
    }
}

impl Opening {
    /// Whether these bytes complete what is waited for.
    fn is_over(&mut self, bytes: &[u8]) -> bool {
        let expected = &PREFACE[self.said..];
        let compared = bytes.len().min(expected.len());
        self.said += compared;
        bytes[..compared] != expected[..compared] || self.said == PREFACE.len()
    }
}

fn late(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, why)
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.wire).poll_read(context, into);
        if let Some(opening) = &mut self.opening {
            if read.is_pending() {
                ready!(opening.until.as_mut().poll(context));
                return Poll::Ready(Err(late("it does not say what it wants")));
            }
            if opening.is_over(&into.filled()[before..]) {
                self.opening = None;
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.wire).poll_write(context, bytes);
        self.watched(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.wire).poll_write_vectored(context, slices);
        self.watched(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.wire).poll_flush(context);
        self.watched(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.wire).poll_shutdown(context);
        self.watched(closed, context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::Instant,
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn connection(pipe: usize) -> (Connection, DuplexStream) {
        let (near, far) = duplex(pipe);
        let opening = Opening { said: 0, until: Box::pin(sleep(PATIENCE)) };
        (Connection { wire: Box::new(near), opening: Some(opening), stalled: None, _room: None }, far)
    }

    /// When reading ends after these words, and how.
    async fn waited(words: &[u8]) -> (Duration, io::Result<usize>) {
        let (mut connection, mut far) = connection(1024);
        // In two parts, wherever that falls.
        let (one, two) = words.split_at(words.len() / 2);
        far.write_all(one).await.unwrap();
        let began = Instant::now();
        let mut read = vec![0; 1024];
        if !one.is_empty() {
            connection.read_exact(&mut read[..one.len()]).await.unwrap();
        }
        far.write_all(two).await.unwrap();
        if !two.is_empty() {
            connection.read_exact(&mut read[..two.len()]).await.unwrap();
        }
        let more = tokio::time::timeout(10 * PATIENCE, connection.read(&mut read)).await;
        (began.elapsed(), more.unwrap_or(Ok(0)))
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_say_what_it_wants_is_not_waited_for() {
        for words in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n\r\n", &PREFACE[..PREFACE.len() - 1]] {
            let (after, read) = waited(words).await;
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut, "{words:?}");
            assert_eq!(after, PATIENCE, "{words:?}");
        }
        // From here on others count the time.
        for words in [PREFACE, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0", b"GET", b"POST / HTTP/1.1\r\n"] {
            assert_eq!(waited(words).await.0, 10 * PATIENCE, "{words:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_nothing_is_not_waited_for_either() {
        let (mut connection, mut far) = connection(8);
        connection.write_all(b"12345678").await.unwrap();
        // One that is slow is.
        for _ in 0..8 {
            let (written, read) = tokio::join!(connection.write_all(b"1"), async {
                tokio::time::sleep(STALLED_MOST * 9 / 10).await;
                far.read_u8().await
            });
            written.unwrap();
            read.unwrap();
        }
        let began = Instant::now();
        assert_eq!(connection.write(b"1").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), STALLED_MOST);
    }
}
