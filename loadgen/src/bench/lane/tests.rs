//! A lane against a server in the same process, over a pipe in memory and with a clock that stands still unless all wait:
//! what is asserted are the figures themselves, not bounds that a busy machine would need.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::io::DuplexStream;
use tokio::sync::watch;
use zbl_client::Money;

use super::*;
use crate::attack::{Stopper, stop};
use crate::bench::Progress;
use crate::bench::distribution::Distribution;
use crate::bench::operation::{RequestIds, Wording};
use crate::bench::series::Series;
use crate::bench::shared::Span;
use crate::bench::tally::Tally;
use crate::bench::unary::Unary;
use crate::pacer::Timetable;
use crate::recorder::Latency;

/// How long the server takes for an answer.
const SERVICE: Duration = Duration::from_millis(1);

const DEADLINE: Duration = Duration::from_secs(5);

const PIPE: usize = 64 * 1024;

/// A health service that is slow at times, dies at times and takes a bounded number of calls at once.
#[derive(Clone)]
struct Server {
    streams: u32,
    /// Nothing is answered from the one instant to the other.
    stall: (Instant, Instant),
    /// When connections die, the next of them last.
    deaths: Arc<Mutex<Vec<Instant>>>,
}

impl Server {
    fn new(streams: u32) -> Self {
        let now = Instant::now();
        Self { streams, stall: (now, now), deaths: Arc::default() }
    }

    /// A connection to it.
    async fn dial(self) -> Result<Unary<DuplexStream>, Error> {
        let (near, far) = tokio::io::duplex(PIPE);
        tokio::spawn(self.serve(far));
        let wording = Wording {
            ids: RequestIds::new(1),
            first_user: 1,
            amount: Money::from_minor(1),
            delta: Money::from_minor(-1),
            strategy: String::new(),
        };
        Unary::begin(near, "server:1", wording, DEADLINE).await
    }

    async fn serve(self, io: DuplexStream) {
        let mut connection =
            h2::server::Builder::new().max_concurrent_streams(self.streams).handshake::<_, Bytes>(io).await.unwrap();
        let death = self.deaths.lock().unwrap().pop().unwrap_or_else(|| Instant::now() + 100 * DEADLINE);
        let served = async {
            while let Some(Ok((request, respond))) = connection.accept().await {
                tokio::spawn(self.clone().answer(request, respond));
            }
        };
        let _ = tokio::time::timeout_at(death, served).await;
    }

    async fn answer(self, request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>) {
        assert_eq!(request.headers()["grpc-timeout"], "5000m");
        let mut body = request.into_body();
        while let Some(Ok(_)) = body.data().await {}
        tokio::time::sleep(SERVICE).await;
        let (from, until) = self.stall;
        if (from..until).contains(&Instant::now()) {
            tokio::time::sleep_until(until).await;
        }
        let serving = Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]);
        let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), HeaderValue::from(0))]);
        let Ok(mut answer) = respond.send_response(Response::new(()), false) else { return };
        let _ = answer.send_data(serving, false);
        let _ = answer.send_trailers(trailers);
    }
}

/// A lane's load, from now on.
struct Load {
    pacer: Pacer,
    limit: usize,
    warmup: Duration,
    length: Duration,
    requests: u64,
    outage: Duration,
}

impl Load {
    fn open(rate_per_s: f64, limit: usize, length: Duration) -> Self {
        let pacer = Pacer::OpenLoop(Timetable { first: Instant::now(), rate_per_s });
        Self { pacer, limit, warmup: Duration::ZERO, length, requests: u64::MAX, outage: DEADLINE }
    }

    fn closed(limit: usize, requests: u64) -> Self {
        let (warmup, length) = (Duration::ZERO, 100 * DEADLINE);
        Self { pacer: Pacer::ClosedLoop, limit, warmup, length, requests, outage: DEADLINE }
    }

    async fn run(self, server: &Server) -> (Haul, Progress) {
        let (_stopper, stop) = stop();
        self.run_until(server, stop).await
    }

    async fn run_until(self, server: &Server, stop: Stop) -> (Haul, Progress) {
        let counts_from = Instant::now() + self.warmup;
        let span = Span { counts_from, until: counts_from + self.length, requests: self.requests };
        let progress = watch::Sender::default();
        let wording = Wording {
            ids: RequestIds::new(1),
            first_user: 1,
            amount: Money::ZERO,
            delta: Money::ZERO,
            strategy: String::new(),
        };
        let series = Series::new(1, None);
        let shared = Arc::new(Shared::new(wording, span, self.outage, Tally::new(0), series, progress.clone()));
        let random = SmallRng::seed_from_u64(1);
        let choice = Choice::new(&BTreeMap::from([(Method::Health, 1)]), Distribution::uniform(1).unwrap(), random);
        let lane = Lane::new(0, Arc::clone(&shared), self.pacer, self.limit, choice, stop).unwrap();
        let haul = lane.run(|| server.clone().dial()).await;
        let counted = shared.take_series().finish(100 * DEADLINE).unwrap();
        let acknowledged: u64 = counted.iter().map(|window| window.acknowledged).sum();
        assert_eq!(acknowledged, haul.sheet.methods[Method::Health as usize].acknowledged);
        let told = *progress.borrow();
        (haul, told)
    }
}

fn acknowledged(haul: &Haul) -> u64 {
    haul.sheet.methods[Method::Health as usize].acknowledged
}

fn latency(haul: &Haul) -> Latency {
    haul.sheet.methods[Method::Health as usize].latency.latency()
}

/// What coordinated omission would hide: of the thousand calls that were due while the server stood still, only those few
/// it had taken saw it themselves. The others were sent late, and it is their due time that tells.
#[tokio::test(start_paused = true)]
async fn a_stall_shows_in_the_latency_from_the_due_time_and_not_in_the_observed_one() {
    let mut server = Server::new(4);
    let stalled = Instant::now() + Duration::from_secs(4);
    server.stall = (stalled, stalled + Duration::from_secs(1));
    let (haul, _) = Load::open(1_000.0, 10_000, Duration::from_secs(10)).run(&server).await;

    assert_eq!(acknowledged(&haul), 10_000);
    let punctuality = &haul.sheet.punctuality;
    assert_eq!((punctuality.sent, punctuality.dropped), (10_000, 0));
    let (told, observed, lag) = (latency(&haul), punctuality.observed.latency(), punctuality.lag.latency());
    assert!(told.p99 > 800_000, "from the due time: {told:?}");
    assert!(lag.p99 > 800_000, "sent late: {lag:?}");
    assert!(observed.p99 < 20_000, "once sent: {observed:?}");
    assert!(observed.max > 900_000, "those it had taken: {observed:?}");
    assert!(told.p50 < 5_000, "before and after: {told:?}");
    assert!((1_000..2_000).contains(&punctuality.late), "{}", punctuality.late);
}

#[tokio::test(start_paused = true)]
async fn what_is_due_beyond_the_limit_is_dropped_and_counted() {
    let mut server = Server::new(100);
    let stalled = Instant::now() + Duration::from_secs(4);
    server.stall = (stalled, stalled + Duration::from_secs(1));
    let (haul, _) = Load::open(1_000.0, 50, Duration::from_secs(10)).run(&server).await;
    let punctuality = &haul.sheet.punctuality;
    assert!((940..=960).contains(&punctuality.dropped), "{}", punctuality.dropped);
    assert_eq!(punctuality.sent + punctuality.dropped, 10_000);
    assert_eq!(acknowledged(&haul), punctuality.sent);
    assert!(!haul.cut_short);
}

#[tokio::test(start_paused = true)]
async fn a_closed_loop_keeps_its_calls_in_flight_and_makes_as_many_as_asked() {
    let server = Server::new(100);
    let began = Instant::now();
    let (haul, _) = Load::closed(10, 5_000).run(&server).await;
    assert_eq!(acknowledged(&haul), 5_000);
    // 500 rounds of 10 calls; the clock has steps of a millisecond, of which a round takes one or two.
    let took = haul.last_ended.unwrap() - began;
    assert!((500..=1_100).contains(&took.as_millis()), "{took:?}");
    assert!(haul.sheet.punctuality.observed.is_empty() && !haul.cut_short);
}

#[tokio::test(start_paused = true)]
async fn warming_up_does_not_count() {
    let load = Load { warmup: Duration::from_secs(2), ..Load::open(100.0, 100, Duration::from_secs(3)) };
    let (haul, progress) = load.run(&Server::new(100)).await;
    assert_eq!((acknowledged(&haul), progress.done, progress.acknowledged), (300, 500, 500));
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_it_early_and_what_was_begun_is_brought_to_its_end() {
    let server = Server::new(100);
    let (stopper, stop) = stop();
    let stopping = async |stopper: Stopper| {
        tokio::time::sleep(Duration::from_secs(2)).await;
        stopper.stop();
        std::future::pending::<()>().await;
    };
    let load = Load::open(1_000.0, 100, Duration::from_secs(10));
    let (haul, progress) = tokio::select! {
        ended = load.run_until(&server, stop) => ended,
        () = stopping(stopper) => unreachable!("it never ends"),
    };
    assert!(haul.cut_short);
    assert!((1_990..=2_010).contains(&acknowledged(&haul)), "{}", acknowledged(&haul));
    assert_eq!(progress.done, haul.sheet.punctuality.sent);
}

#[tokio::test(start_paused = true)]
async fn lost_connections_are_made_again_and_their_calls_repeated() {
    let server = Server::new(100);
    let death = |seconds| Instant::now() + Duration::from_secs(seconds);
    *server.deaths.lock().unwrap() = vec![death(5), death(2)];
    let (haul, _) = Load::open(1_000.0, 1_000, Duration::from_secs(8)).run(&server).await;
    assert_eq!(acknowledged(&haul), 8_000);
    assert!(haul.sheet.outage_retries > 0 && !haul.cut_short, "{}", haul.sheet.outage_retries);
}

/// Connections die faster than anything is answered.
#[tokio::test(start_paused = true)]
async fn an_outage_that_lasts_ends_the_lane() {
    let server = Server { deaths: Arc::new(Mutex::new(vec![Instant::now(); 1_000])), ..Server::new(100) };
    let began = Instant::now();
    let (haul, _) = Load { outage: Duration::from_secs(3), ..Load::closed(10, 100) }.run(&server).await;
    assert!(haul.cut_short && acknowledged(&haul) == 0);
    assert_eq!(haul.sheet.methods[Method::Health as usize].unknown, 10);
    assert!((3..=6).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_never_answered_expire() {
    let mut server = Server::new(100);
    server.stall = (Instant::now(), Instant::now() + 1_000 * DEADLINE);
    let began = Instant::now();
    let (haul, _) = Load { outage: Duration::from_secs(1), ..Load::closed(10, 100) }.run(&server).await;
    assert_eq!(haul.sheet.methods[Method::Health as usize].unknown, 10);
    // Given up after one deadline, repeated on a new connection, and given up after another: longer than the outage.
    assert!((10..=11).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
}
