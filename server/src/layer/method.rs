//! The methods that are served, as the descriptors list them: what calls are counted by, and which of them are limited.
//! The list is closed, so whatever paths callers invent, there is no more to count by.

use std::{collections::HashMap, sync::LazyLock};

use metrics::{Counter, Histogram, counter, histogram};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::Code;
use zbl_proto::v1::{account_service_server, lab_service_server, queue_service_server, report_service_server};
use zbl_trace::names;

/// The services of the contract. Their errors have reasons.
const OWN: [&str; 4] = [
    account_service_server::SERVICE_NAME,
    report_service_server::SERVICE_NAME,
    queue_service_server::SERVICE_NAME,
    lab_service_server::SERVICE_NAME,
];

/// Whether a path is one of the contract's.
pub(super) fn is_own(path: &str) -> bool {
    OWN.contains(&service_of(path))
}

/// Whether calls of a path are limited. Only those of accounts, reports and the queue are: health must be told under overload most of all,
/// reflection is asked once by a tool, and the lab is the operator's own instrument, behind its door, and bounded by what
/// it runs at a time.
pub(super) fn is_limited(path: &str) -> bool {
    is_own(path) && service_of(path) != lab_service_server::SERVICE_NAME
}

/// Whether calls of a path are streams that whoever reaches the port may open: of health and reflection.
pub(super) fn is_stream_of_strangers(path: &str) -> bool {
    !is_own(path) && counted(path).is_stream
}

/// Whether the caller of a path may send any number of messages.
pub(super) fn has_many_messages(path: &str) -> bool {
    counted(path).many_messages
}

/// The service that a path `/service/method` is of.
pub(super) fn service_of(path: &str) -> &str {
    path.strip_prefix('/').and_then(|path| path.split_once('/')).map_or("", |(service, _)| service)
}

/// What is counted of one method, and how it is told of in traces. By the names that gRPC servers of other languages use too.
pub(super) struct Counted {
    /// Its full name, or what stands for one that nobody knows.
    pub(super) name: String,
    pub(super) started: Counter,
    handled: Vec<Counter>,
    pub(super) handling: Histogram,
    /// Whether the caller may send any number of messages.
    many_messages: bool,
    /// Whether there may be any number of messages, either way.
    is_stream: bool,
}

impl Counted {
    fn new(service: &str, method: &str, kind: &'static str) -> Self {
        let many_messages = matches!(kind, "client_stream" | "bidi_stream");
        let labels = || {
            [("grpc_type", kind.to_owned()), ("grpc_service", service.to_owned()), ("grpc_method", method.to_owned())]
        };
        let handled = |code: Code| {
            let [kind, service, method] = labels();
            counter!("grpc_server_handled_total", &[kind, service, method, ("grpc_code", name(code))])
        };
        Self {
            name: format!("{service}/{method}"),
            started: counter!("grpc_server_started_total", &labels()),
            handled: (0..=Code::Unauthenticated as i32).map(|code| handled(Code::from_i32(code))).collect(),
            handling: histogram!("grpc_server_handling_seconds", &labels()),
            many_messages,
            is_stream: kind != "unary",
        }
    }

    /// What its calls' spans are named.
    pub(super) fn span_name(&self) -> &str {
        if self.name == names::OTHER_METHOD { names::GRPC } else { &self.name }
    }

    /// Those that came to this end.
    pub(super) fn handled(&self, code: Code) -> &Counter {
        &self.handled[code as usize]
    }
}

/// A code by the name that it has in such metrics everywhere.
fn name(code: Code) -> String {
    match code {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    }
}

/// What is counted of a path; paths that are not served are counted as one.
pub(super) fn counted(path: &str) -> &'static Counted {
    static METHODS: LazyLock<HashMap<String, Counted>> = LazyLock::new(methods);
    static UNKNOWN: LazyLock<Counted> = LazyLock::new(|| {
        let name = names::OTHER_METHOD.to_owned();
        Counted { name, ..Counted::new("unknown", "unknown", "unary") }
    });
    METHODS.get(path).unwrap_or_else(|| &UNKNOWN)
}

fn methods() -> HashMap<String, Counted> {
    let served = [
        zbl_proto::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let mut methods = HashMap::new();
    for descriptors in served {
        // They are our own, built in: what could not be read would be counted as unknown.
        let files = FileDescriptorSet::decode(descriptors).unwrap_or_default().file;
        for file in files {
            for service in &file.service {
                let name = format!("{}.{}", file.package(), service.name());
                for method in &service.method {
                    let kind = match (method.client_streaming(), method.server_streaming()) {
                        (false, false) => "unary",
                        (true, false) => "client_stream",
                        (false, true) => "server_stream",
                        (true, true) => "bidi_stream",
                    };
                    let counted = Counted::new(&name, method.name(), kind);
                    methods.insert(format!("/{name}/{}", method.name()), counted);
                }
            }
        }
    }
    methods
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_known_and_only_those_of_the_service_are_limited() {
        let methods = methods();
        for (path, limited) in [
            ("/zbl.v1.AccountService/Deduct", true),
            ("/zbl.v1.AccountService/StreamTimeline", true),
            ("/zbl.v1.AccountService/StreamEntries", true),
            ("/zbl.v1.ReportService/ListTopSpenders", true),
            ("/zbl.v1.ReportService/WatchTotals", true),
            ("/zbl.v1.QueueService/ListDeadLetters", true),
            ("/zbl.v1.LabService/RunAttack", false),
            ("/grpc.health.v1.Health/Check", false),
            ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", false),
            ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", false),
        ] {
            assert!(methods.contains_key(path), "{path}");
            assert_eq!(is_limited(path), limited, "{path}");
        }
        for invented in ["", "/", "/zbl.v1.AccountService", "zbl.v1.AccountService/Deduct"] {
            assert!(!methods.contains_key(invented) && !is_limited(invented), "{invented}");
        }
    }
}
