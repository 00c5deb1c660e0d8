//! How the spans of calls end that the network ends.

use test_support::Collector;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tonic::Status;
use zbl_client::{Client, Retry, Start, TimelineItem};
use zbl_proto::v1::StreamTimelineResponse;
use zbl_trace::{Program, Ratio, Traces};

use crate::scripted::Script;

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_the_network_ends_are_not_cancelled() {
    let collector = Collector::start().await.unwrap();
    let program = Program { name: "test", version: "1", instance: "1".to_owned() };
    let traces = Traces::start(program, Some(&collector.endpoint().parse().unwrap()), Ratio::ALL).unwrap();
    let event = StreamTimelineResponse { epoch: "a".to_owned(), sequence: 1, ..StreamTimelineResponse::default() };
    let script = Script::default().sessions([vec![Ok::<_, Status>(event)]]).lingering();
    let server = script.serve().await.address().to_owned();

    // A link that is cut while the stream is open.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = listener.local_addr().unwrap().to_string();
    let passing = tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(server).await.unwrap();
        copy_bidirectional(&mut near, &mut far).await
    });
    let client = Client::connect_lazy(&link).unwrap().with_retry(Retry::NEVER).with_tracer(traces.tracer().clone());
    let mut timeline = client.timeline(None, Start::Retained);
    assert!(matches!(timeline.next().await.unwrap(), TimelineItem::Connected));
    assert!(matches!(timeline.next().await.unwrap(), TimelineItem::Event(_)));
    passing.abort();
    assert!(matches!(timeline.next().await.unwrap(), TimelineItem::Disconnected { .. }));

    // Nobody listens there any more.
    client.balance(1).await.unwrap_err();
    traces.stop().await;
    let ended = |method: &str| {
        let spans = collector.spans();
        let span = spans.iter().find(|span| span.name.ends_with(method)).unwrap_or_else(|| panic!("{spans:?}"));
        span.attributes["rpc.response.status_code"].clone()
    };
    assert_eq!(ended("GetBalance"), "UNAVAILABLE");
    assert_ne!(ended("StreamTimeline"), "CANCELLED");
}
