//! The error table as seen from outside: for each row that a client can provoke, a request, the gRPC code and the reason.
//! Whatever is refused must leave the balance as it was.

use super::tool::Grpcurl;
use crate::{
    command::Failure,
    e2e::checks::{Checks, ensure},
};

const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const ALREADY_EXISTS: i32 = 6;
const FAILED_PRECONDITION: i32 = 9;

/// A request that must be refused.
struct Refusal {
    name: &'static str,
    method: &'static str,
    request: &'static str,
    code: i32,
    reason: &'static str,
}

/// A malformed field of a Deduct.
const fn malformed(name: &'static str, request: &'static str, reason: &'static str) -> Refusal {
    Refusal { name, method: "AccountService/Deduct", request, code: INVALID_ARGUMENT, reason }
}

const REFUSALS: [Refusal; 28] = [
    malformed("amount \"0\"", r#"{"user_id":1,"amount":"0"}"#, "INVALID_AMOUNT"),
    malformed("amount \"-1\"", r#"{"user_id":1,"amount":"-1"}"#, "INVALID_AMOUNT"),
    malformed("amount \"1.001\"", r#"{"user_id":1,"amount":"1.001"}"#, "INVALID_AMOUNT"),
    malformed("amount \"NaN\"", r#"{"user_id":1,"amount":"NaN"}"#, "INVALID_AMOUNT"),
    malformed("amount \"1e9\"", r#"{"user_id":1,"amount":"1e9"}"#, "INVALID_AMOUNT"),
    malformed("amount \"\"", r#"{"user_id":1,"amount":""}"#, "INVALID_AMOUNT"),
    malformed("no amount", r#"{"user_id":1}"#, "INVALID_AMOUNT"),
    malformed("amount of 30 digits", r#"{"user_id":1,"amount":"999999999999999999999999999999"}"#, "INVALID_AMOUNT"),
    malformed("user 0", r#"{"user_id":0,"amount":"1.00"}"#, "INVALID_USER_ID"),
    malformed("user -1", r#"{"user_id":-1,"amount":"1.00"}"#, "INVALID_USER_ID"),
    malformed("request id", r#"{"user_id":1,"amount":"1.00","request_id":"not-a-uuid"}"#, "INVALID_REQUEST_ID"),
    malformed("strategy", r#"{"user_id":1,"amount":"1.00","strategy":"hope"}"#, "UNKNOWN_STRATEGY"),
    Refusal {
        name: "deposit of \"-1\"",
        method: "AccountService/Deposit",
        request: r#"{"user_id":1,"amount":"-1"}"#,
        code: INVALID_ARGUMENT,
        reason: "INVALID_AMOUNT",
    },
    Refusal {
        name: "opening balance \"1.001\"",
        method: "AccountService/OpenAccount",
        request: r#"{"user_id":77,"opening_balance":"1.001"}"#,
        code: INVALID_ARGUMENT,
        reason: "INVALID_AMOUNT",
    },
    Refusal {
        name: "reset to \"-1\"",
        method: "LabService/ResetAccount",
        request: r#"{"user_id":1,"balance":"-1"}"#,
        code: INVALID_ARGUMENT,
        reason: "INVALID_AMOUNT",
    },
    Refusal {
        name: "balance of user -9",
        method: "AccountService/GetBalance",
        request: r#"{"user_id":-9}"#,
        code: INVALID_ARGUMENT,
        reason: "INVALID_USER_ID",
    },
    Refusal {
        name: "page size -1",
        method: "AccountService/ListEntries",
        request: r#"{"user_id":1,"page_size":-1}"#,
        code: INVALID_ARGUMENT,
        reason: "INVALID_PAGE",
    },
    Refusal {
        name: "page token of another's making",
        method: "AccountService/ListEntries",
        request: r#"{"user_id":1,"page_token":"2"}"#,
        code: INVALID_ARGUMENT,
        reason: "INVALID_PAGE",
    },
    Refusal {
        name: "resume after event -1",
        method: "AccountService/StreamTimeline",
        request: r#"{"after_sequence":-1}"#,
        code: INVALID_ARGUMENT,
        reason: "INVALID_RESUME",
    },
    Refusal {
        name: "attack by -1 workers",
        method: "LabService/RunAttack",
        request: r#"{"workers":-1}"#,
        code: INVALID_ARGUMENT,
        reason: "INVALID_ATTACK",
    },
    Refusal {
        name: "attack beyond what the lab holds in memory",
        method: "LabService/RunAttack",
        request: r#"{"workers":1000,"deductions":1000}"#,
        code: INVALID_ARGUMENT,
        reason: "INVALID_ATTACK",
    },
    Refusal {
        name: "attack on a strategy that there is not",
        method: "LabService/RunAttack",
        request: r#"{"strategy":"hope"}"#,
        code: INVALID_ARGUMENT,
        reason: "UNKNOWN_STRATEGY",
    },
    Refusal {
        name: "attack for amounts of \"0\"",
        method: "LabService/RunAttack",
        request: r#"{"amount":"0"}"#,
        code: INVALID_ARGUMENT,
        reason: "INVALID_ATTACK",
    },
    Refusal {
        name: "status every millisecond",
        method: "LabService/WatchStatus",
        request: r#"{"interval":"0.001s"}"#,
        code: INVALID_ARGUMENT,
        reason: "INVALID_INTERVAL",
    },
    Refusal {
        name: "deduction from nobody",
        method: "AccountService/Deduct",
        request: r#"{"user_id":4711,"amount":"1.00"}"#,
        code: NOT_FOUND,
        reason: "ACCOUNT_NOT_FOUND",
    },
    Refusal {
        name: "balance of nobody",
        method: "AccountService/GetBalance",
        request: r#"{"user_id":4711}"#,
        code: NOT_FOUND,
        reason: "ACCOUNT_NOT_FOUND",
    },
    Refusal {
        name: "opened twice",
        method: "AccountService/OpenAccount",
        request: r#"{"user_id":1,"opening_balance":"5.00"}"#,
        code: ALREADY_EXISTS,
        reason: "ACCOUNT_EXISTS",
    },
    Refusal {
        name: "more than there is",
        method: "AccountService/Deduct",
        request: r#"{"user_id":1,"amount":"1000000.00"}"#,
        code: FAILED_PRECONDITION,
        reason: "INSUFFICIENT_BALANCE",
    },
];

/// The most a single amount can be.
const LARGEST_AMOUNT: &str = "9999999999999999.99";
/// With the opening this many largest deposits fit into 64 bits of hundredths, and not one more.
const LARGEST_DEPOSITS: usize = 8;

/// Provokes every row of the table, and the two that take more than one call.
pub(super) fn run(grpcurl: &Grpcurl<'_>, checks: &mut Checks) {
    for Refusal { name, method, request, code, reason } in REFUSALS {
        let name = format!("{reason}: {name}");
        checks.check(&name, || unchanged(grpcurl, 1, || expect(grpcurl, method, request, code, reason)));
    }
    checks.check("REQUEST_ID_REUSED: same id, other amount; same payload gives the first receipt", || reuse(grpcurl));
    checks.check("BALANCE_OVERFLOW: one deposit too much", || overflow(grpcurl));
}

/// Makes a call and fails unless it is refused like this.
pub(super) fn expect(
    grpcurl: &Grpcurl<'_>,
    method: &str,
    request: &str,
    code: i32,
    reason: &str,
) -> Result<(), Failure> {
    let refused = grpcurl.refused(method, request)?;
    ensure(refused.code == code && refused.reason == reason, || {
        format!("code {} reason {:?}, expected {code} {reason}: {}", refused.code, refused.reason, refused.status)
    })
}

/// Fails unless the account's balance and version are after `action` what they were before.
fn unchanged(grpcurl: &Grpcurl<'_>, user: i64, action: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let balance = || grpcurl.call("AccountService/GetBalance", &format!(r#"{{"user_id":{user}}}"#));
    let before = balance()?;
    action()?;
    let after = balance()?;
    ensure(before == after, || format!("the balance has changed: {before} to {after}"))
}

fn reuse(grpcurl: &Grpcurl<'_>) -> Result<(), Failure> {
    let request = |amount: &str, strategy: &str| {
        let id = "7b3c9a52-6d0e-4f5b-9b1d-2f6f0a8c1e01";
        format!(r#"{{"user_id":1,"amount":"{amount}","request_id":"{id}","strategy":"{strategy}"}}"#)
    };
    let first = grpcurl.call("AccountService/Deduct", &request("1.50", "pessimistic"))?;
    unchanged(grpcurl, 1, || {
        // The amount counts by value, the strategy not at all.
        let again = grpcurl.call("AccountService/Deduct", &request("1.5", "atomic"))?;
        for field in ["version", "balance", "strategy", "requestId"] {
            ensure(first[field] == again[field], || format!("another {field}: {first}, then {again}"))?;
        }
        expect(grpcurl, "AccountService/Deduct", &request("1.51", ""), INVALID_ARGUMENT, "REQUEST_ID_REUSED")?;
        expect(grpcurl, "AccountService/Deposit", &request("1.50", ""), INVALID_ARGUMENT, "REQUEST_ID_REUSED")
    })
}

fn overflow(grpcurl: &Grpcurl<'_>) -> Result<(), Failure> {
    let opening = format!(r#"{{"user_id":88,"opening_balance":"{LARGEST_AMOUNT}"}}"#);
    let deposit = format!(r#"{{"user_id":88,"amount":"{LARGEST_AMOUNT}"}}"#);
    grpcurl.call("AccountService/OpenAccount", &opening)?;
    for _ in 0..LARGEST_DEPOSITS {
        grpcurl.call("AccountService/Deposit", &deposit)?;
    }
    unchanged(grpcurl, 88, || {
        expect(grpcurl, "AccountService/Deposit", &deposit, FAILED_PRECONDITION, "BALANCE_OVERFLOW")
    })
}
