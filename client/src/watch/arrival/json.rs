//! The JSON form of the contract's timeline messages, by serde's remote derive: the generated types stay what they are,
//! and nothing is copied. The compiler checks every field against the contract.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use zbl_proto::v1;

/// A field that says nothing is left out.
fn says_nothing<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "v1::StreamTimelineResponse")]
pub(super) struct Response {
    epoch: String,
    sequence: i64,
    instance: String,
    #[serde(flatten, with = "body")]
    event: Option<v1::stream_timeline_response::Event>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "v1::stream_timeline_response::Event", rename_all = "snake_case")]
enum Body {
    Span(#[serde(with = "Span")] v1::Span),
    Race(#[serde(with = "Race")] v1::Race),
    Gap(#[serde(with = "Gap")] v1::Gap),
    Heartbeat(#[serde(with = "Heartbeat")] v1::Heartbeat),
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "v1::Span", deny_unknown_fields)]
struct Span {
    user_id: i64,
    request_id: String,
    lane: i32,
    strategy: String,
    #[serde(with = "phase")]
    phase: i32,
    attempt: i32,
    start_ns: i64,
    duration_ns: i64,
    #[serde(default, with = "state", skip_serializing_if = "says_nothing")]
    seen: Option<v1::State>,
    #[serde(default, with = "state", skip_serializing_if = "says_nothing")]
    written: Option<v1::State>,
    #[serde(default, skip_serializing_if = "says_nothing")]
    destroyed: String,
    #[serde(default, skip_serializing_if = "says_nothing")]
    trace_id: String,
    #[serde(default, skip_serializing_if = "says_nothing")]
    failed: bool,
    #[serde(default, skip_serializing_if = "says_nothing")]
    failure: String,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "v1::State", deny_unknown_fields)]
struct State {
    balance: String,
    version: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "v1::Race", deny_unknown_fields)]
struct Race {
    user_id: i64,
    #[serde(default, with = "overwriter", skip_serializing_if = "says_nothing")]
    overwriter: Option<v1::Contender>,
    #[serde(default, with = "state", skip_serializing_if = "says_nothing")]
    seen: Option<v1::State>,
    #[serde(with = "victims")]
    victims: Vec<v1::Contender>,
    #[serde(default, skip_serializing_if = "says_nothing")]
    victims_omitted: i32,
    destroyed: String,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "v1::Contender", deny_unknown_fields)]
struct Contender {
    request_id: String,
    version: i64,
    delta: String,
    balance_after: String,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "v1::Gap", deny_unknown_fields)]
struct Gap {
    #[serde(with = "gap_reason")]
    reason: i32,
    after_sequence: i64,
    next_sequence: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "v1::Heartbeat", deny_unknown_fields)]
struct Heartbeat {}

/// What an event is about; nothing for a kind that is newer than the watcher which wrote it.
mod body {
    use serde_json::{Map, Value};
    use v1::stream_timeline_response::Event;

    use super::*;

    #[derive(Deserialize)]
    struct Given(#[serde(with = "Body")] Event);

    pub(super) fn serialize<S: Serializer>(event: &Option<Event>, serializer: S) -> Result<S::Ok, S::Error> {
        match event {
            Some(event) => Body::serialize(event, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Event>, D::Error> {
        let body = Map::<String, Value>::deserialize(deserializer)?;
        if body.is_empty() {
            return Ok(None);
        }
        let Given(event) = Given::deserialize(Value::Object(body)).map_err(D::Error::custom)?;
        Ok(Some(event))
    }
}

#[derive(Serialize)]
struct TakenState<'a>(#[serde(with = "State")] &'a v1::State);

#[derive(Deserialize)]
struct GivenState(#[serde(with = "State")] v1::State);

#[derive(Serialize)]
struct TakenContender<'a>(#[serde(with = "Contender")] &'a v1::Contender);

#[derive(Deserialize)]
struct GivenContender(#[serde(with = "Contender")] v1::Contender);

mod state {
    use super::*;

    pub(super) fn serialize<S: Serializer>(state: &Option<v1::State>, serializer: S) -> Result<S::Ok, S::Error> {
        state.as_ref().map(TakenState).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<v1::State>, D::Error> {
        Ok(Option::deserialize(deserializer)?.map(|GivenState(state)| state))
    }
}

mod overwriter {
    use super::*;

    pub(super) fn serialize<S: Serializer>(side: &Option<v1::Contender>, serializer: S) -> Result<S::Ok, S::Error> {
        side.as_ref().map(TakenContender).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<v1::Contender>, D::Error> {
        Ok(Option::deserialize(deserializer)?.map(|GivenContender(side)| side))
    }
}

mod victims {
    use super::*;

    pub(super) fn serialize<S: Serializer>(victims: &[v1::Contender], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(victims.iter().map(TakenContender))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<v1::Contender>, D::Error> {
        let given = Vec::<GivenContender>::deserialize(deserializer)?;
        Ok(given.into_iter().map(|GivenContender(victim)| victim).collect())
    }
}

/// A phase by its name in the contract.
mod phase {
    use v1::Phase;

    use super::*;

    pub(super) fn serialize<S: Serializer>(phase: &i32, serializer: S) -> Result<S::Ok, S::Error> {
        Phase::try_from(*phase).unwrap_or_default().as_str_name().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
        let name = String::deserialize(deserializer)?;
        let phase = Phase::from_str_name(&name);
        phase.map(Into::into).ok_or_else(|| D::Error::custom(format!("no phase is called {name:?}")))
    }
}

/// A gap's cause by its name in the contract.
mod gap_reason {
    use v1::GapReason;

    use super::*;

    pub(super) fn serialize<S: Serializer>(reason: &i32, serializer: S) -> Result<S::Ok, S::Error> {
        GapReason::try_from(*reason).unwrap_or_default().as_str_name().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
        let name = String::deserialize(deserializer)?;
        let reason = GapReason::from_str_name(&name);
        reason.map(Into::into).ok_or_else(|| D::Error::custom(format!("no gap has the reason {name:?}")))
    }
}
