//! What has to be there before the first deduction: a strategy that the server has, and an account with the opening
//! balance.

use zbl_client::{Account, Client, Error, Guarantee, Retry, Strategies, Strategy};

use super::{Attack, AttackError};
use crate::workload::Workload;

/// The scene of a run.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    pub(super) strategy: String,
    pub(super) guarantee: Guarantee,
    pub(super) store: String,
    /// A strategy of this server that would not lose anything.
    pub(super) cure: Option<String>,
    /// The account as the run finds it.
    pub(super) root: Account,
}

pub(super) async fn prepare(client: &Client, workload: &Workload) -> Result<Scene, AttackError> {
    // The setup is idempotent too, and a server that is just starting is worth a second.
    let client = client.clone().with_retry(Retry::default());
    let unreachable = |error: Error| AttackError::setup(client.address(), error);
    let strategies = client.strategies().await.map_err(unreachable)?;
    let strategy = choose(&strategies, &workload.strategy)?;
    let root = match workload.user_id {
        Some(user_id) => client.reset_account(user_id, workload.opening).await,
        None => client.open_account(None, workload.opening).await,
    };
    Ok(Scene {
        strategy: strategy.name.clone(),
        guarantee: strategy.guarantee,
        cure: cure(&strategies).map(|cure| cure.name.clone()),
        store: strategies.store.clone(),
        root: root.map_err(unreachable)?,
    })
}

/// The strategies that can be used on the attack's server, in the registry's order.
///
/// # Errors
/// [`AttackError`] when the server cannot be asked.
pub async fn available_strategies(attack: &Attack) -> Result<Vec<Strategy>, AttackError> {
    let client = attack.clients.first().ok_or(AttackError::NoServer)?;
    let found = client.strategies().await.map_err(|error| AttackError::setup(client.address(), error))?;
    Ok(found.all.into_iter().filter(|strategy| strategy.unavailable.is_none()).collect())
}

/// The strategy to take instead: the server's own choice if that never loses, else the first that never does.
fn cure(strategies: &Strategies) -> Option<&Strategy> {
    let never_loses = |other: &&Strategy| other.guarantee == Guarantee::Always && other.unavailable.is_none();
    let mut safe = strategies.all.iter().filter(never_loses);
    let default = safe.clone().find(|other| other.name == strategies.default);
    default.or_else(|| safe.next())
}

pub(crate) fn choose<'a>(strategies: &'a Strategies, name: &str) -> Result<&'a Strategy, AttackError> {
    let name = if name.is_empty() { &strategies.default } else { name };
    let Some(strategy) = strategies.all.iter().find(|strategy| strategy.name == name) else {
        let known = strategies.all.iter().map(|strategy| strategy.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(AttackError::UnknownStrategy { name: name.to_owned(), known });
    };
    match &strategy.unavailable {
        None => Ok(strategy),
        Some(reason) => Err(AttackError::StrategyUnavailable { name: name.to_owned(), reason: reason.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strategy(name: &str, guarantee: Guarantee, unavailable: Option<&str>) -> Strategy {
        let unavailable = unavailable.map(str::to_owned);
        Strategy { name: name.to_owned(), guarantee, summary: String::new(), unavailable }
    }

    #[test]
    fn the_cure_is_the_servers_own_choice_if_that_is_safe() {
        let all = vec![
            strategy("none", Guarantee::LosesUpdates, None),
            strategy("absent", Guarantee::Always, Some("no such server")),
            strategy("first", Guarantee::Always, None),
            strategy("second", Guarantee::Always, None),
        ];
        for (default, expected) in [("second", "second"), ("none", "first"), ("absent", "first")] {
            let strategies = Strategies { all: all.clone(), default: default.to_owned(), store: String::new() };
            assert_eq!(cure(&strategies).map(|cure| cure.name.as_str()), Some(expected), "{default}");
        }
        let unsafe_only = Strategies { all: all[..2].to_vec(), default: "none".to_owned(), store: String::new() };
        assert!(cure(&unsafe_only).is_none());
    }
}
