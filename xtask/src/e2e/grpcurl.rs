//! The contract as another's client sees it: grpcurl learns it by reflection, calls every method, watches the timeline
//! and provokes the error table.

mod lab;
mod outages;
mod refusals;
mod tool;

use std::time::Duration;

use serde_json::Value;
use test_support::poll_until;

use super::{
    checks::{Checks, ensure},
    stage::{Server, Stage},
    three_servers::ALWAYS,
};
use crate::command::Failure;
use tool::{Grpcurl, objects};

pub(super) use tool::program;

/// Spans follow the operation at once.
const SPAN_TIMEOUT: Duration = Duration::from_secs(20);

/// The services of the contract, with their methods.
const SERVICES: [(&str, &[&str]); 3] = [
    (
        "zbl.v1.AccountService",
        &[
            "OpenAccount",
            "Deduct",
            "DeductStream",
            "Deposit",
            "GetBalance",
            "GetDeduction",
            "ListEntries",
            "ListStrategies",
            "RebuildBalance",
            "StreamTimeline",
        ],
    ),
    ("zbl.v1.ReportService", &["ListDailySpending", "ListTopSpenders", "GetTotals", "WatchTotals", "RebuildReports"]),
    ("zbl.v1.LabService", &["ResetAccount", "RunAttack", "ClearTimeline", "GetStatus", "WatchStatus"]),
];

pub(super) fn run(stage: &Stage, checks: &mut Checks) -> Result<(), Failure> {
    let program = program()?;
    let server = Server::start(stage, &stage.sqlite_url("grpcurl.db"))?;
    let grpcurl = Grpcurl::new(stage, program.clone(), server.address());
    checks.check("list and describe by reflection", || describe(&grpcurl));
    checks.check("health: SERVING, as a whole and for the account service", || health(&grpcurl));
    checks.check("the line that the banner prints deducts 10.00 from account 1", || paste_banner(&server, &grpcurl));
    checks.check("Deduct, Deposit and GetBalance agree", || move_money(&grpcurl));
    checks.check("ListEntries pages through the journal", || list_entries(&grpcurl));
    checks.check("ListStrategies names every guarantee", || list_strategies(&grpcurl));
    checks.check("GetDeduction tells what became of a request, finally when asked to", || get_deduction(&grpcurl));
    checks.check("StreamTimeline shows the spans of a deduction made while it streams", || timeline(&grpcurl));
    refusals::run(&grpcurl, checks);
    lab::run(stage, &grpcurl, checks)?;
    outages::run(stage, &program, checks);
    Ok(())
}

fn describe(grpcurl: &Grpcurl<'_>) -> Result<(), Failure> {
    let services = grpcurl.ask(&["list"])?;
    let listed = |service: &str| {
        ensure(services.lines().any(|line| line == service), || format!("{service} is not listed: {services}"))
    };
    for (service, methods) in SERVICES {
        listed(service)?;
        let description = grpcurl.ask(&["describe", service])?;
        for method in methods {
            let rpc = format!("rpc {method} (");
            ensure(description.contains(&rpc), || format!("{method} is not described: {description}"))?;
        }
    }
    listed("grpc.health.v1.Health")
}

fn health(grpcurl: &Grpcurl<'_>) -> Result<(), Failure> {
    for request in ["{}", r#"{"service":"zbl.v1.AccountService"}"#] {
        let status = grpcurl.call("grpc.health.v1.Health/Check", request)?;
        ensure(status["status"] == "SERVING", || format!("{request}: {status}"))?;
    }
    Ok(())
}

fn paste_banner(server: &Server<'_>, grpcurl: &Grpcurl<'_>) -> Result<(), Failure> {
    let request = r#"{"user_id":1,"amount":"10.00"}"#;
    let line = format!("grpcurl -plaintext -d '{request}' {} zbl.v1.AccountService/Deduct", server.address());
    ensure(server.output().contains(&line), || format!("{line}\nis not in\n{}", server.output()))?;
    let receipt = grpcurl.call("AccountService/Deduct", request)?;
    let [balance, version, before] = ["balance", "version", "versionBefore"].map(|field| receipt[field].as_str());
    ensure((balance, version, before) == (Some("990.00"), Some("2"), Some("1")), || receipt.to_string())
}

fn move_money(grpcurl: &Grpcurl<'_>) -> Result<(), Failure> {
    let opened = grpcurl.call("AccountService/OpenAccount", r#"{"user_id":2,"opening_balance":"100"}"#)?;
    ensure(opened["balance"] == "100.00" && opened["version"] == "1", || opened.to_string())?;
    let mut expected = 10_000;
    for (index, strategy) in ALWAYS.iter().enumerate() {
        let request = |amount: &str| format!(r#"{{"user_id":2,"amount":"{amount}","strategy":"{strategy}"}}"#);
        grpcurl.call("AccountService/Deduct", &request("7.5"))?;
        let deposited = grpcurl.call("AccountService/Deposit", &request("5.25"))?;
        expected -= 225;
        let version = (3 + 2 * index).to_string();
        let balance = format!("{}.{:02}", expected / 100, expected % 100);
        ensure(deposited["balance"] == balance.as_str() && deposited["version"] == version.as_str(), || {
            format!("{strategy}: {deposited}, expected {balance} at version {version}")
        })?;
        let stored = grpcurl.call("AccountService/GetBalance", r#"{"user_id":2}"#)?;
        for field in ["balance", "version"] {
            ensure(stored[field] == deposited[field], || format!("{strategy}: {stored}, then {deposited}"))?;
        }
    }
    Ok(())
}

fn list_entries(grpcurl: &Grpcurl<'_>) -> Result<(), Failure> {
    let (mut entries, mut token) = (Vec::new(), String::new());
    // One page more than the account has entries would be a token that never ends.
    for _ in 0..=9 {
        let request = format!(r#"{{"user_id":2,"page_size":4,"page_token":"{token}"}}"#);
        let mut page = grpcurl.call("AccountService/ListEntries", &request)?;
        entries.extend(page["entries"].as_array_mut().map(std::mem::take).unwrap_or_default());
        token = page["nextPageToken"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            break;
        }
    }
    let versions: Vec<&str> = entries.iter().filter_map(|entry| entry["version"].as_str()).collect();
    let all: Vec<String> = (1..=entries.len()).map(|version| version.to_string()).collect();
    // More than two pages: how many there are depends on how many strategies have deducted from it.
    ensure(versions == all && versions.len() > 8, || format!("versions {versions:?}"))?;
    let (open, deduct, deposit) = (&entries[0], &entries[1], &entries[2]);
    ensure(open["kind"] == "ENTRY_KIND_OPEN" && open["delta"] == "100.00", || open.to_string())?;
    ensure(deduct["kind"] == "ENTRY_KIND_DEDUCT" && deduct["delta"] == "-7.50", || deduct.to_string())?;
    ensure(deposit["kind"] == "ENTRY_KIND_DEPOSIT" && deposit["balanceAfter"] == "97.75", || deposit.to_string())
}

fn list_strategies(grpcurl: &Grpcurl<'_>) -> Result<(), Failure> {
    let answer = grpcurl.call("AccountService/ListStrategies", "{}")?;
    let strategies = answer["strategies"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = |guarantee: &str| -> Vec<&str> {
        let promise = |strategy: &&Value| strategy["guarantee"] == guarantee && strategy["available"] == true;
        strategies.iter().filter(promise).filter_map(|strategy| strategy["name"].as_str()).collect()
    };
    let expected: [(&str, &[&str]); 3] =
        [("GUARANTEE_LOSES_UPDATES", &["none"]), ("GUARANTEE_ONE_PROCESS", &["mutex"]), ("GUARANTEE_ALWAYS", &ALWAYS)];
    for (guarantee, names) in expected {
        let named = named(guarantee);
        ensure(names.iter().all(|name| named.contains(name)), || {
            format!("{guarantee}: {named:?} lacks some of {names:?}")
        })?;
    }
    ensure(answer["store"] == "sqlite", || answer.to_string())
}

fn get_deduction(grpcurl: &Grpcurl<'_>) -> Result<(), Failure> {
    let receipt = grpcurl.call("AccountService/Deduct", r#"{"user_id":2,"amount":"0.01"}"#)?;
    let id = receipt["requestId"].as_str().unwrap_or_default();
    let request = format!(r#"{{"user_id":2,"request_id":"{id}"}}"#);
    let found = grpcurl.call("AccountService/GetDeduction", &request)?;
    ensure(found["state"] == "DEDUCTION_STATE_SUCCEEDED" && found["receipt"]["version"] == receipt["version"], || {
        format!("{receipt}, then {found}")
    })?;
    let unheard = r#"{"user_id":2,"request_id":"7b3c9a52-6d0e-4f5b-9b1d-2f6f0a8c1e02""#;
    let open = grpcurl.call("AccountService/GetDeduction", &format!("{unheard}}}"))?;
    ensure(open["state"] == "DEDUCTION_STATE_NOT_FOUND" && open["final"] != true, || open.to_string())?;
    let voided = grpcurl.call("AccountService/GetDeduction", &format!(r#"{unheard},"resolve":true}}"#))?;
    ensure(voided["state"] == "DEDUCTION_STATE_VOIDED" && voided["final"] == true, || voided.to_string())
}

fn timeline(grpcurl: &Grpcurl<'_>) -> Result<(), Failure> {
    let deduct = |id: &str| {
        let request = format!(r#"{{"user_id":1,"amount":"0.01","request_id":"{id}"}}"#);
        grpcurl.call("AccountService/Deduct", &request)
    };
    let (first, second) = ("7b3c9a52-6d0e-4f5b-9b1d-2f6f0a8c1e03", "7b3c9a52-6d0e-4f5b-9b1d-2f6f0a8c1e04");
    deduct(first)?;
    let mut stream = grpcurl.stream("AccountService/StreamTimeline", r#"{"user_id":1,"include_retained":true}"#)?;
    // What is retained shows that the stream is up, before the deduction it is to show live.
    stream.wait_for_line(first, SPAN_TIMEOUT)?;
    deduct(second)?;
    stream.wait_for_line(second, SPAN_TIMEOUT)?;
    let phases = ["PHASE_READ", "PHASE_WRITE", "PHASE_COMMIT"];
    let has_all = |output: &str| {
        let mut events = objects(output);
        events.retain(|event| event["span"]["requestId"] == second);
        phases.iter().all(|phase| events.iter().any(|event| event["span"]["phase"] == *phase))
    };
    let complete = poll_until(SPAN_TIMEOUT, || has_all(&stream.output()).then_some(()));
    ensure(complete.is_some(), || format!("not all of {phases:?} of {second} in\n{}", stream.output()))
}
