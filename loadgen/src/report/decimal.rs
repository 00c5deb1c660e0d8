//! Money in JSON: a decimal string, never a number, which readers would take for a float.

use serde::{Deserialize as _, Deserializer, Serializer, de};
use zbl_client::Money;

pub(crate) fn serialize<S: Serializer>(money: &Money, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(money)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Money, D::Error> {
    Money::parse_signed(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// The same for money that may be absent: `null` then.
pub(super) mod optional {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de};
    use zbl_client::Money;

    pub(in crate::report) fn serialize<S: Serializer>(money: &Option<Money>, serializer: S) -> Result<S::Ok, S::Error> {
        money.map(|money| money.to_string()).serialize(serializer)
    }

    pub(in crate::report) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Money>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| Money::parse_signed(&text).map_err(de::Error::custom)).transpose()
    }
}
