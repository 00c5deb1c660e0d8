//! Those who abuse the service: what each does once, and what the server must say to it. Each is bounded by itself and is
//! repeated for as long as the part runs.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use zbl_client::{Change, Client, Money, Reason, Retry};

use super::frames;
use crate::e2e::wire::{Answer, Wire, framed};

/// How long those hold on who take up room and do nothing.
const HELD: Duration = Duration::from_secs(5);
/// A connection that breaks the rules is closed at once; a loaded machine takes a while.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(20);
/// Connections that one of them opens at a time: far fewer than a process may have, far more than an honest caller has.
const CONNECTIONS: usize = 64;
/// Watchers that never read, and calls that never go on.
const IDLERS: usize = 16;
/// Strangers asked for in one round.
const STRANGERS: i64 = 50;
/// Between rounds, so that honest callers have most of a machine with few cores.
const PAUSE: Duration = Duration::from_millis(50);

const LARGE: usize = 5 * 1024 * 1024;
const LARGE_HEAD: usize = 20 * 1024;

const BALANCE: &str = "/zbl.v1.AccountService/GetBalance";
const DEDUCT: &str = "/zbl.v1.AccountService/Deduct";
/// `user_id: 1`, as protobuf.
const ONE: &[u8] = &[8, 1];

/// Codes of gRPC.
const RESOURCE_EXHAUSTED: i32 = 8;
const UNIMPLEMENTED: i32 = 12;
const INVALID_ARGUMENT: i32 = 3;

/// What begins every name that is invented here, to be looked for in metrics.
pub(super) const INVENTED: &str = "stranger";

/// Where the service is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) grpc: SocketAddr,
    pub(super) http: SocketAddr,
}

/// A way to abuse the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abuse {
    Timeouts,
    LargeMessages,
    LargeHeads,
    Rubbish,
    Violations,
    RapidResets,
    Silence,
    HalfCalls,
    SlowReaders,
    WrongToken,
    Strangers,
    Connections,
    Facade,
}

impl Abuse {
    pub(super) const ALL: [(Self, &str); 13] = [
        (Self::Timeouts, "deadlines that are none: INVALID_ARGUMENT"),
        (Self::LargeMessages, "messages of 5 MB: RESOURCE_EXHAUSTED"),
        (Self::LargeHeads, "heads of 20 kB: 431"),
        (Self::Rubbish, "bodies that are no messages: INVALID_ARGUMENT"),
        (Self::Violations, "broken rules of HTTP/2: the connection goes"),
        (Self::RapidResets, "calls taken back at once, by the hundred"),
        (Self::Silence, "connections that say nothing, half a preface, half a head"),
        (Self::HalfCalls, "calls whose message never comes: over after a few seconds"),
        (Self::SlowReaders, "watchers of the timeline who never read"),
        (Self::WrongToken, "the lab without its token: LAB_UNAUTHENTICATED"),
        (Self::Strangers, "accounts, strategies, methods that there are not: named errors"),
        (Self::Connections, "connections by the dozen, made and dropped"),
        (Self::Facade, "on the HTTP port 5 MB, nonsense, and bodies that never come: 413, 400, 408"),
    ];

    /// Abuses for as long as it is polled; ends when the server does not answer as it should.
    pub(super) async fn repeat(self, target: Target, rounds: &AtomicU64) -> String {
        loop {
            if let Err(failure) = self.once(target).await {
                return failure;
            }
            rounds.fetch_add(1, Ordering::Relaxed);
            sleep(PAUSE).await;
        }
    }

    async fn once(self, target: Target) -> Result<(), String> {
        match self {
            Self::Timeouts => timeouts(target).await,
            Self::LargeMessages => large_messages(target).await,
            Self::LargeHeads => large_heads(target).await,
            Self::Rubbish => rubbish(target).await,
            Self::Violations => violations(target).await,
            Self::RapidResets => rapid_resets(target).await,
            Self::Silence => silence(target).await,
            Self::HalfCalls => half_calls(target).await,
            Self::SlowReaders => slow_readers(target).await,
            Self::WrongToken => wrong_token(target).await,
            Self::Strangers => strangers(target).await,
            Self::Connections => connections(target).await,
            Self::Facade => facade(target).await,
        }
    }
}

async fn timeouts(target: Target) -> Result<(), String> {
    let mut wire = Wire::dial(target.grpc).await?;
    for value in ["soon", "-1S", "1x", "999999999999S", "S", "18446744073709551616m", "1.5S", "٣S"] {
        let header = [("grpc-timeout", value)];
        // What is no text for a header is not sent.
        if let Ok(answer) = wire.call(BALANCE, &header, framed(ONE)).await {
            expect(value, &answer, Some(INVALID_ARGUMENT))?;
        }
    }
    Ok(())
}

async fn large_messages(target: Target) -> Result<(), String> {
    let mut wire = Wire::dial(target.grpc).await?;
    for path in [BALANCE, DEDUCT, "/zbl.v1.AccountService/DeductStream"] {
        let answer = wire.call(path, &[], framed(&vec![0; LARGE])).await?;
        expect(path, &answer, Some(RESOURCE_EXHAUSTED))?;
    }
    Ok(())
}

async fn large_heads(target: Target) -> Result<(), String> {
    let mut wire = Wire::dial(target.grpc).await?;
    let answer = wire.call(BALANCE, &[("x-large", &"x".repeat(LARGE_HEAD))], framed(ONE)).await?;
    if answer.http == 431 { Ok(()) } else { Err(format!("a head of {LARGE_HEAD} bytes: {answer:?}")) }
}

async fn rubbish(target: Target) -> Result<(), String> {
    let mut wire = Wire::dial(target.grpc).await?;
    let compressed = [&[1_u8, 0, 0, 0, 2][..], ONE].concat();
    let cut = [&[0_u8, 0, 0, 0, 9][..], ONE].concat();
    for (what, body, code) in [
        ("no protobuf", framed(&[0xff; 64]), INVALID_ARGUMENT),
        ("a text that is none", framed(&[0x12, 2, 0xc3, 0x28]), INVALID_ARGUMENT),
        ("compressed without a name for it", compressed.into(), INVALID_ARGUMENT),
        ("cut short", cut.into(), INVALID_ARGUMENT),
        ("nothing at all", Bytes::new(), INVALID_ARGUMENT),
    ] {
        let answer = wire.call(DEDUCT, &[], body).await?;
        expect(what, &answer, Some(code))?;
    }
    Ok(())
}

async fn violations(target: Target) -> Result<(), String> {
    for (what, bytes) in frames::violations() {
        let mut stream = connect(target.grpc).await?;
        // It may be closed before all is written.
        let _ = timeout(CLOSE_TIMEOUT, stream.write_all(&bytes)).await;
        if !closes(&mut stream).await {
            return Err(format!("{what}: the connection is still open after {CLOSE_TIMEOUT:?}"));
        }
    }
    Ok(())
}

async fn rapid_resets(target: Target) -> Result<(), String> {
    let mut stream = connect(target.grpc).await?;
    // Closed in the middle or not: that the others are served is what counts.
    let _ = timeout(CLOSE_TIMEOUT, stream.write_all(&frames::rapid_resets())).await;
    let _ = timeout(PAUSE, stream.read(&mut [0; 4096])).await;
    Ok(())
}

async fn silence(target: Target) -> Result<(), String> {
    let (speechless, spoken) = frames::beginnings();
    let mut held = Vec::new();
    for beginning in spoken.iter().chain(&speechless).cycle().take(CONNECTIONS) {
        let mut stream = connect(target.grpc).await?;
        stream.write_all(beginning).await.map_err(|error| error.to_string())?;
        held.push((stream, speechless.contains(beginning)));
    }
    sleep(HELD).await;
    for (mut stream, _) in held.into_iter().filter(|(_, is_speechless)| *is_speechless) {
        if !closes(&mut stream).await {
            return Err(format!("a connection that says nothing is still open after {CLOSE_TIMEOUT:?}"));
        }
    }
    Ok(())
}

async fn half_calls(target: Target) -> Result<(), String> {
    let mut wire = Wire::dial(target.grpc).await?;
    let mut held = Vec::new();
    for _ in 0..IDLERS {
        let mut call = wire.begin(DEDUCT, &[]).await?;
        call.body.send_data(Bytes::from_static(&[0, 0, 0]), false).map_err(|error| error.to_string())?;
        held.push(call);
    }
    // Nor do they take up room for ever.
    for call in held {
        let answer = timeout(CLOSE_TIMEOUT, call.answer()).await;
        let answer = answer.map_err(|_| format!("a call without a message goes on after {CLOSE_TIMEOUT:?}"))??;
        if !matches!(answer.outcome, Some(Err(_))) {
            return Err(format!("a call without a message: {answer:?}"));
        }
    }
    Ok(())
}

async fn slow_readers(target: Target) -> Result<(), String> {
    let mut wire = Wire::dial(target.grpc).await?;
    let mut held = Vec::new();
    for _ in 0..IDLERS {
        let mut call = wire.begin("/zbl.v1.AccountService/StreamTimeline", &[]).await?;
        // `include_retained`: much is to come at once.
        call.body.send_data(framed(&[0x20, 1]), true).map_err(|error| error.to_string())?;
        held.push(call.opened().await?);
    }
    sleep(HELD).await;
    Ok(())
}

async fn wrong_token(target: Target) -> Result<(), String> {
    let mut wire = Wire::dial(target.grpc).await?;
    for headers in [&[][..], &[("authorization", "Bearer wrong")], &[("authorization", "Basic eDp5")]] {
        let answer = wire.call("/zbl.v1.LabService/GetStatus", headers, framed(&[])).await?;
        let reason = answer.outcome.as_ref().and_then(|outcome| outcome.as_ref().err()?.reason());
        if reason != Some(Reason::LabUnauthenticated) {
            return Err(format!("{headers:?}: {answer:?}"));
        }
    }
    Ok(())
}

async fn strangers(target: Target) -> Result<(), String> {
    let client = Client::connect_lazy(&target.grpc.to_string()).map_err(|error| error.to_string())?;
    let client = client.with_retry(Retry::NEVER);
    let mut wire = Wire::dial(target.grpc).await?;
    for number in 0..STRANGERS {
        let nobody = Change::new(i64::MAX - number, Money::from_minor(1));
        let id = nobody.request_id;
        let unknown = Change { user_id: 1, strategy: format!("{INVENTED}-{id}"), ..nobody.clone() };
        for (change, expected) in [(nobody, Reason::AccountNotFound), (unknown, Reason::UnknownStrategy)] {
            let refused = client.deduct(&change).await.err();
            let reason = refused.as_ref().and_then(zbl_client::Error::reason);
            if reason != Some(expected) && reason != Some(Reason::Overloaded) {
                return Err(format!("{change:?}: {refused:?}, expected {expected:?}"));
            }
        }
        let headers = [("x-request-id", id.to_string()), ("user-agent", format!("{INVENTED}/{number}"))];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        let path = format!("/{INVENTED}.v{number}/Call{id}");
        expect(&path, &wire.call(&path, &headers, framed(&[])).await?, Some(UNIMPLEMENTED))?;
    }
    Ok(())
}

async fn connections(target: Target) -> Result<(), String> {
    for address in [target.grpc, target.http] {
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS {
            held.push(connect(address).await?);
        }
    }
    Ok(())
}

async fn facade(target: Target) -> Result<(), String> {
    let post = |length: usize| {
        format!(
            "POST /deduct HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    for (what, head, body, status) in [
        ("5 MB", post(LARGE), " ".repeat(LARGE), "413"),
        ("nonsense", post(8), "nonsense".to_owned(), "400"),
        ("a head of 1 MB", format!("GET /{} HTTP/1.1\r\n", "x".repeat(1 << 20)), String::new(), "4"),
        ("no HTTP", "\u{0}\u{1}\r\n\r\n".to_owned(), String::new(), "400"),
    ] {
        let mut stream = connect(target.http).await?;
        let _ = timeout(CLOSE_TIMEOUT, stream.write_all((head + &body).as_bytes())).await;
        let answer = first_line(&mut stream).await;
        // Closed on a caller who still writes, the answer may be lost with the connection.
        let is_expected = answer.starts_with(&format!("HTTP/1.1 {status}")) || answer.starts_with("HTTP/1.1 429");
        if !answer.is_empty() && !is_expected {
            return Err(format!("{what} on the HTTP port: {answer:?}"));
        }
    }
    let mut halves = Vec::new();
    for _ in 0..IDLERS {
        let mut stream = connect(target.http).await?;
        stream.write_all(post(8).as_bytes()).await.map_err(|error| error.to_string())?;
        halves.push(stream);
    }
    for mut half in halves {
        let answer = first_line(&mut half).await;
        // 429: there was no room for it.
        if !["HTTP/1.1 408", "HTTP/1.1 429"].iter().any(|status| answer.starts_with(status)) {
            return Err(format!("half a request on the HTTP port: {answer:?}"));
        }
    }
    Ok(())
}

/// Fails unless a call came to this code; `None` is OK. That there is no room for it is an answer as well.
fn expect(what: &str, answer: &Answer, code: Option<i32>) -> Result<(), String> {
    let error = answer.outcome.as_ref().map(|outcome| outcome.as_ref().err());
    let is_shed = error.flatten().and_then(zbl_client::Error::reason) == Some(Reason::Overloaded);
    let actual = error.map(|error| error.map(|error| error.code() as i32));
    if is_shed || actual == Some(code) {
        Ok(())
    } else {
        Err(format!("{what}: {answer:?}, expected the code {code:?}"))
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(address).await.map_err(|error| format!("{address} takes no connection: {error}"))
}

/// Whether the other side closes the connection; what it says before is passed over.
async fn closes(stream: &mut TcpStream) -> bool {
    let gone = async {
        let mut said = [0; 4096];
        while stream.read(&mut said).await.is_ok_and(|count| count > 0) {}
    };
    timeout(CLOSE_TIMEOUT, gone).await.is_ok()
}

async fn first_line(stream: &mut TcpStream) -> String {
    let mut said = [0; 256];
    let count = timeout(CLOSE_TIMEOUT, stream.read(&mut said)).await.ok().and_then(Result::ok).unwrap_or_default();
    String::from_utf8_lossy(&said[..count]).lines().next().unwrap_or_default().to_owned()
}
