//! Where recorded spans go: by OTLP over gRPC to a collector, from a queue that drops what does not fit, on a thread of its
//! own. A collector that is slow, silent or gone is told of once, when it begins, and costs nobody anything but the spans.

use std::{
    fmt,
    str::FromStr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use http::Uri;
use metrics::counter;
use opentelemetry::{InstrumentationScope, KeyValue, global::BoxedTracer, trace::TracerProvider as _};
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter},
};

use crate::{
    Ratio, Tracer,
    names::{SCHEMA_URL, SERVICE_INSTANCE_ID, SERVICE_VERSION},
};

/// Spans that may wait to be sent: some 600 bytes each, so 5 MB, and half a second of a server that records all it does.
const QUEUE: usize = 8192;

/// Spans in one message: a fifth of the 4 MB that collectors take.
const BATCH: usize = 1024;

/// How long a span waits for company.
const DELAY: Duration = Duration::from_secs(1);

/// How long a collector may take to accept a message.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long a program that ends waits for its last spans to be accepted.
const FAREWELL: Duration = Duration::from_secs(2);

/// A collector's address. `Display` is its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Uri);

impl FromStr for Endpoint {
    /// What is wrong with the text, and what would be right.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            |what: &str| format!("`{text}` {what}; give a collector's gRPC port, such as http://127.0.0.1:4317");
        let uri: Uri = text.parse().map_err(|_| wrong("is not a URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(wrong("is https, which is a collector's beside this program to speak")),
            _ => return Err(wrong("has no http://")),
        }
        if uri.port_u16().is_none_or(|port| port == 0) {
            return Err(wrong("has no port"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(wrong("has a path, which gRPC has no use for"));
        }
        Ok(Self(uri))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whose spans they are.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// This one among several.
    pub instance: String,
}

/// The collector's address cannot be used.
#[derive(Debug)]
pub struct StartError(ExporterBuildError);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "traces cannot be sent: {}", self.0)
    }
}

impl std::error::Error for StartError {}

/// A program's traces, from its start to its end.
#[derive(Debug)]
pub struct Traces {
    tracer: Tracer,
    provider: Option<SdkTracerProvider>,
}

impl Traces {
    /// Begins to send what is recorded to `endpoint`; without one nothing is recorded. Whether somebody listens there is
    /// not asked: a collector may come later.
    ///
    /// # Errors
    /// [`StartError`].
    ///
    /// # Panics
    /// Outside a Tokio runtime, like everything that opens a socket.
    pub fn start(program: Program, endpoint: Option<&Endpoint>, sample: Ratio) -> Result<Self, StartError> {
        let Some(endpoint) = endpoint else {
            return Ok(Self { tracer: Tracer::unrecorded(sample), provider: None });
        };
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint.to_string())
            .with_timeout(PATIENCE)
            .build()
            .map_err(StartError)?;
        let exporter = Told { exporter, endpoint: endpoint.clone(), failing: AtomicBool::new(false) };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY);
        let resource = Resource::builder_empty().with_service_name(program.name).with_attributes([
            KeyValue::new(SERVICE_VERSION, program.version),
            KeyValue::new(SERVICE_INSTANCE_ID, program.instance),
        ]);
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(config.build()).build())
            // What comes to it is sampled already, see `Tracer::begin`.
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(resource.build())
            .build();
        let scope = InstrumentationScope::builder("zbl").with_version(program.version).with_schema_url(SCHEMA_URL);
        let recorder = BoxedTracer::new(Box::new(provider.tracer_with_scope(scope.build())));
        Ok(Self { tracer: Tracer::recording(sample, recorder), provider: Some(provider) })
    }

    /// What begins spans.
    #[must_use]
    pub const fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Sends what is still waiting, for two seconds at most, and records no more.
    pub async fn stop(mut self) {
        let Some(provider) = self.provider.take() else { return };
        // It blocks, and what it waits for may need this thread.
        let stopped = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FAREWELL)).await;
        if !matches!(stopped, Ok(Ok(()))) {
            tracing::warn!("the last spans were not accepted within {FAREWELL:?}");
        }
    }
}

impl Drop for Traces {
    /// A program that ends in a hurry waits for nobody; the library would, for five seconds.
    fn drop(&mut self) {
        if let Some(provider) = &self.provider {
            let _ = provider.shutdown_with_timeout(Duration::ZERO);
        }
    }
}

/// An exporter whose failures are told when they begin and when they end, and counted.
#[derive(Debug)]
struct Told {
    exporter: opentelemetry_otlp::SpanExporter,
    endpoint: Endpoint,
    failing: AtomicBool,
}

impl SpanExporter for Told {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let result = self.exporter.export(batch).await;
        let was_failing = self.failing.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Ok(()) if was_failing => tracing::info!("spans are accepted at {} again", self.endpoint),
            Err(error) if !was_failing => tracing::warn!("spans are not accepted at {}: {error}", self.endpoint),
            _ => {}
        }
        let outcome = if result.is_ok() { "accepted" } else { "lost" };
        counter!("trace_spans_total", "outcome" => outcome).increment(spans);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_a_collectors_grpc_port() {
        let endpoint: Endpoint = "http://127.0.0.1:4317".parse().unwrap();
        assert_eq!(endpoint.to_string(), "http://127.0.0.1:4317/");
        for (wrong, named) in [
            ("", "is not a URL"),
            ("127.0.0.1:4317", "has no http://"),
            ("https://collector:4317", "is https"),
            ("http://collector", "has no port"),
            ("http://collector:4318/v1/traces", "has a path"),
        ] {
            let error = wrong.parse::<Endpoint>().unwrap_err();
            assert!(error.contains(named) && error.contains("http://127.0.0.1:4317"), "{wrong}: {error}");
        }
    }
}
