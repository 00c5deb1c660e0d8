//! The published form holds, and what is written is read back.

use serde_json::{Value, json};

use super::*;

fn value(bench: &Bench) -> Value {
    serde_json::to_value(bench).unwrap()
}

#[test]
fn what_is_written_is_read_back() {
    for bench in [sample::closed(), sample::open()] {
        let text = serde_json::to_string(&bench).unwrap();
        assert_eq!(serde_json::from_str::<Bench>(&text).unwrap(), bench);
    }
}

#[test]
fn later_additions_are_passed_over_and_other_versions_are_not() {
    let mut later = value(&sample::closed());
    later["invented"] = json!(1);
    later["latency_us"]["p42"] = json!(1);
    assert_eq!(serde_json::from_value::<Bench>(later.clone()).unwrap(), sample::closed());
    later["schema_version"] = json!(2);
    let refused = serde_json::from_value::<Bench>(later).unwrap_err().to_string();
    assert!(refused.contains("schema_version 2 is not the 1 that this loadgen reads"), "{refused}");
}

#[test]
fn amounts_are_decimal_strings() {
    let written = value(&sample::open());
    assert_eq!((&written["amount"], &written["opening"]), (&json!("0.01"), &Value::Null));
    assert_eq!(written["verdict"]["lost_updates"][0]["victim"]["balance_before"], "10.00");
    assert_eq!(written["verdict"]["lost_updates"][0]["user_id"], 42);
    assert_eq!(written["pacing"], json!({ "loop": "open", "rate_per_s": 12_500.5, "max_in_flight": 10_000 }));
    let mut float = written;
    float["amount"] = json!(0.01);
    assert!(serde_json::from_value::<Bench>(float).is_err());
}

#[test]
fn methods_are_named_as_they_are_asked_for() {
    for method in Method::ALL {
        assert_eq!(method.name().parse(), Ok(method));
        assert_eq!(serde_json::to_value(method).unwrap(), method.name());
    }
    assert_eq!("Deduct".parse::<Method>(), Err(UnknownMethod("Deduct".to_owned())));
}

fn valid(result: &Value) -> bool {
    let schema: Value = serde_json::from_str(include_str!("../../../bench.schema.json")).unwrap();
    jsonschema::validator_for(&schema).unwrap().is_valid(result)
}

#[test]
fn results_follow_the_published_schema() {
    let measured = Bench { series: vec![], spectrum: vec![], ..sample::closed() };
    let health = Bench {
        method: Some(Method::Health),
        strategy: None,
        guarantee: None,
        amount: None,
        opening: None,
        cost: None,
        advice: None,
        verdict: None,
        ..measured.clone()
    };
    for bench in [sample::closed(), sample::open(), measured, health] {
        assert!(valid(&value(&bench)), "{bench:?}");
    }
}

#[test]
fn the_schema_refuses_what_results_are_not() {
    for (pointer, wrong) in [
        ("/schema_version", json!(2)),
        ("/kind", json!("attack")),
        ("/method", json!("deposit")),
        ("/mix", json!({ "deposit": 1 })),
        ("/guarantee", json!("SOMETIMES")),
        ("/amount", json!(0.01)),
        ("/opening", json!("1.0")),
        ("/pacing", json!({ "loop": "closed", "rate_per_s": 1.0 })),
        ("/failed", json!({ "contended": 1 })),
        ("/methods/deduct/latency_us/p99", json!(1.5)),
        ("/spectrum/0", json!([1.5, 1])),
        ("/spectrum/0", json!([0.5, 1, 1])),
        ("/series/0/at_ms", json!(-1)),
        ("/thresholds/0", json!({})),
        ("/verdict/verdict", json!("FINE")),
        ("/verdict/lost_updates/0/user_id", json!("42")),
        ("/verdict/lost_updates/0/amount", json!(1)),
    ] {
        let mut result = value(&sample::open());
        *result.pointer_mut(pointer).unwrap() = wrong.clone();
        assert!(!valid(&result), "{pointer}: {wrong}");
    }
    let mut result = value(&sample::open());
    result["invented"] = json!(1);
    assert!(!valid(&result));
    result.as_object_mut().unwrap().remove("invented");
    assert!(valid(&result));
    result.as_object_mut().unwrap().remove("seed");
    assert!(!valid(&result));
}
