//! A guarantee in JSON: its name without the prefix that Protobuf's naming rules put before it.

use serde::Serializer;
use zbl_client::Guarantee;

const PREFIX: &str = "GUARANTEE_";

/// The name of a guarantee as results show it.
pub(super) fn name(guarantee: Guarantee) -> &'static str {
    let name = guarantee.as_str_name();
    name.strip_prefix(PREFIX).unwrap_or(name)
}

pub(crate) fn serialize<S: Serializer>(guarantee: &Guarantee, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name(*guarantee))
}

/// The same for a guarantee that may be absent, because no strategy was measured.
pub(super) mod optional {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
    use zbl_client::Guarantee;

    use super::{PREFIX, name};

    pub(in crate::report) fn serialize<S: Serializer>(
        guarantee: &Option<Guarantee>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        guarantee.map(name).serialize(serializer)
    }

    /// A name that a later version may have added is read as unspecified: nothing is computed from it.
    pub(in crate::report) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Guarantee>, D::Error> {
        let name = Option::<String>::deserialize(deserializer)?;
        let known = |name| Guarantee::from_str_name(&format!("{PREFIX}{name}")).unwrap_or(Guarantee::Unspecified);
        Ok(name.map(known))
    }
}
