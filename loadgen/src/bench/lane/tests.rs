//! A lane against a server in the same process, over a pipe in memory and with a clock that stands still unless all wait:
//! what is asserted are the figures themselves, not bounds that a busy machine would need.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

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
use crate::bench::shared::{Counting, Span};
use crate::bench::tally::Tally;
use crate::bench::unary::Unary;
use crate::pacer::Timetable;
use crate::recorder::Latency;

/// How long the server takes for an answer.
const SERVICE: Duration = Duration::from_millis(1);

const DEADLINE: Duration = Duration::from_secs(5);

const PIPE: usize = 64 * 1024;

/// A health service that takes its time, is slow at times, dies at times and takes a bounded number of calls at once.
#[derive(Clone)]
struct Server {
    streams: u32,
    service: Duration,
    /// Nothing is answered from the one instant to the other.
    stall: (Instant, Instant),
    /// When connections die, the next of them last.
    deaths: Arc<Mutex<Vec<Instant>>>,
}

impl Server {
    fn new(streams: u32) -> Self {
        let now = Instant::now();
        Self { streams, service: SERVICE, stall: (now, now), deaths: Arc::default() }
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
        let client = zbl_client::Client::connect_lazy("server:1").unwrap().with_deadline(DEADLINE);
        Unary::begin(near, &client, wording).await
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
        tokio::time::sleep(self.service).await;
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
        self.run_on(|| server.clone().dial(), stop).await
    }

    async fn run_on<F>(self, dial: impl Fn() -> F, stop: Stop) -> (Haul, Progress)
    where
        F: Future<Output = Result<Unary<DuplexStream>, Error>> + Send,
    {
        let counts_from = Instant::now() + self.warmup;
        let counting = match (self.pacer, self.requests) {
            (Pacer::ClosedLoop, u64::MAX) => Counting::WhatEnds,
            _ => Counting::WhatIsDue,
        };
        let until = counts_from + self.length;
        let span = Span { counts_from, until, requests: self.requests, counting };
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
        let haul = lane.run(dial).await;
        let counted = shared.take_series().finish(100 * DEADLINE).0;
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
    let (haul, _) = Load::closed(10, 5_000).run(&server).await;
    assert_eq!(acknowledged(&haul), 5_000);
    // 500 rounds of 10 calls; the clock has steps of a millisecond, of which a round takes one or two.
    let took = haul.measured;
    assert!((500..=1_100).contains(&took.as_millis()), "{took:?}");
    assert!(haul.sheet.punctuality.observed.is_empty() && !haul.cut_short);
}

/// A slow server's last round ends long after the time is up: it neither counts nor stretches the time.
#[tokio::test(start_paused = true)]
async fn a_closed_loop_of_fixed_length_counts_what_ends_within_it() {
    let server = Server { service: Duration::from_secs(1), ..Server::new(100) };
    let (warmup, length) = (Duration::from_millis(500), Duration::from_secs(2));
    let (haul, progress) = Load { warmup, length, ..Load::closed(10, u64::MAX) }.run(&server).await;
    assert_eq!((acknowledged(&haul), haul.measured), (20, length), "10 callers, a second each");
    assert_eq!((progress.acknowledged, haul.cut_short), (30, false));
    assert!(latency(&haul).max < 1_010_000, "{:?}", latency(&haul));
}

/// What nobody answers is under way at the end, and is not forgotten for that.
#[tokio::test(start_paused = true)]
async fn what_is_unknown_counts_although_it_ends_after_the_time() {
    let mut server = Server::new(100);
    server.stall = (Instant::now() + Duration::from_secs(1), Instant::now() + 1_000 * DEADLINE);
    let (length, outage) = (Duration::from_secs(2), Duration::from_secs(1));
    let (haul, _) = Load { length, outage, ..Load::closed(10, u64::MAX) }.run(&server).await;
    assert_eq!((haul.sheet.methods[Method::Health as usize].unknown, haul.measured), (10, length));
    assert!(acknowledged(&haul) > 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_is_none_of_the_requests_asked_for() {
    let mut server = Server::new(100);
    server.stall = (Instant::now(), Instant::now() + Duration::from_secs(1));
    let load = Load { requests: 500, ..Load::open(1_000.0, 50, Duration::from_secs(10)) };
    let (haul, _) = load.run(&server).await;
    let punctuality = &haul.sheet.punctuality;
    assert_eq!((punctuality.sent, acknowledged(&haul), haul.cut_short), (500, 500, false));
    assert!((940..=960).contains(&punctuality.dropped), "{}", punctuality.dropped);
}

#[tokio::test(start_paused = true)]
async fn requests_that_there_was_no_time_for_cut_it_short() {
    let load = Load { length: Duration::from_secs(1), ..Load::open(100.0, 50, Duration::ZERO) };
    let (haul, _) = Load { requests: 500, ..load }.run(&Server::new(100)).await;
    assert_eq!((acknowledged(&haul), haul.cut_short), (100, true));
}

/// An outage that ends the lane leaves calls that were due and never sent.
#[tokio::test(start_paused = true)]
async fn what_was_due_and_never_sent_is_dropped() {
    let server = Server { deaths: Arc::new(Mutex::new(vec![Instant::now(); 1_000])), ..Server::new(100) };
    let load = Load { outage: Duration::from_secs(3), ..Load::open(100.0, 1_000, Duration::from_secs(60)) };
    let began = Instant::now();
    let (haul, _) = load.run(&server).await;
    let (punctuality, lasted) = (&haul.sheet.punctuality, began.elapsed().as_secs_f64());
    let accounted = (punctuality.sent + punctuality.dropped) as f64;
    assert!((accounted - lasted * 100.0).abs() <= 2.0, "{accounted} in {lasted} s");
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
async fn a_stop_is_heard_while_a_connection_is_made() {
    let (stopper, stop) = stop();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stopper.stop();
    });
    let began = Instant::now();
    let never = || std::future::pending::<Result<Unary<DuplexStream>, Error>>();
    let (haul, _) = Load::closed(10, 100).run_on(never, stop).await;
    assert_eq!((haul.cut_short, began.elapsed().as_secs()), (true, 1));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_trusted_is_asked_once() {
    let dials = AtomicU32::new(0);
    let refused = || {
        dials.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Err::<Unary<DuplexStream>, _>(Error::lost("invalid peer certificate: UnknownIssuer")))
    };
    let (_stopper, stop) = stop();
    let (haul, _) = Load::closed(10, 100).run_on(refused, stop).await;
    assert_eq!((haul.cut_short, dials.load(Ordering::Relaxed)), (true, 1));
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
