//! The published service config against the contract: it names every call, and retries none that changes money.

use serde_json::Value;

const CONFIG: &str = include_str!("../../service_config.json");
const SERVICES: [(&str, &str); 4] = [
    ("zbl.v1.AccountService", include_str!("../../../proto/zbl/v1/account_service.proto")),
    ("zbl.v1.ReportService", include_str!("../../../proto/zbl/v1/report_service.proto")),
    ("zbl.v1.QueueService", include_str!("../../../proto/zbl/v1/queue_service.proto")),
    ("zbl.v1.LabService", include_str!("../../../proto/zbl/v1/lab_service.proto")),
];

/// The names after `rpc` in a file of the contract.
fn calls(proto: &str) -> impl Iterator<Item = &str> {
    proto.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next())
}

#[test]
fn every_call_is_named_once_and_only_safe_ones_are_retried() {
    let config: Value = serde_json::from_str(CONFIG).unwrap();
    let mut named = Vec::new();
    for method in config["methodConfig"].as_array().unwrap() {
        let retried = method.get("retryPolicy");
        if let Some(policy) = retried {
            assert_eq!(policy["retryableStatusCodes"], serde_json::json!(["UNAVAILABLE"]));
        }
        for name in method["name"].as_array().unwrap() {
            let (service, call) = (name["service"].as_str().unwrap(), name["method"].as_str().unwrap());
            let safe = call.starts_with("Get") || call.starts_with("List");
            assert!(retried.is_none() || safe, "{service}/{call} is not safe to retry without a request id");
            named.push(format!("{service}/{call}"));
        }
    }
    let mut contract: Vec<_> = SERVICES
        .iter()
        .flat_map(|(service, proto)| calls(proto).map(move |call| format!("{service}/{call}")))
        .collect();
    contract.sort_unstable();
    named.sort_unstable();
    assert_eq!(named, contract);
}
