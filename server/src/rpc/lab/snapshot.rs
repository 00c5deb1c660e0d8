//! The status of the server, taken at once from the parts that know it.

use zbl_proto::v1;

use super::{Lab, convert};

impl Lab {
    /// What the server is doing now.
    pub(super) fn snapshot(&self) -> v1::ServerStatus {
        let ledger = &self.ledger;
        let bench = ledger.bench();
        v1::ServerStatus {
            instance: self.instance.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: self.started.elapsed().try_into().ok(),
            store: bench.store.name().to_owned(),
            strategies: ledger.strategies().map(convert::strategy_message).collect(),
            default_strategy: ledger.default_strategy().name.to_owned(),
            pool: Some(convert::pool(bench.store.pool())),
            timeline: Some(convert::timeline_status(&bench.timeline)),
            in_flight: ledger.in_flight().try_into().unwrap_or(i64::MAX),
        }
    }
}
