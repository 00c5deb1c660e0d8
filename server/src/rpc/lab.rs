//! `LabService`: what the lab may do and production must not. Every call asks [`LabAccess`] first.

use std::{net::IpAddr, sync::Arc};

use tonic::{Request, Response, Status, metadata::MetadataMap};
use zbl_proto::{
    REPLAYED_KEY,
    v1::{self, lab_service_server::LabService},
};

use super::{convert, deadline::within, status::status};
use crate::{
    config::Secret,
    error::{Error, LabRefusal},
    ledger::Ledger,
};

/// Who may use the lab.
#[derive(Clone, Debug)]
pub enum LabAccess {
    /// Everybody who reaches the server: it is bound to loopback.
    Open,
    /// Whoever sends the token.
    Token(Secret),
    /// Nobody.
    Disabled,
}

impl LabAccess {
    /// The rule: a token is asked for where one is set; without one the lab is open on loopback only.
    pub fn of(bound: IpAddr, token: Option<Secret>) -> Self {
        match token {
            Some(token) => Self::Token(token),
            None if bound.is_loopback() => Self::Open,
            None => Self::Disabled,
        }
    }

    fn check(&self, metadata: &MetadataMap) -> Result<(), Error> {
        match self {
            Self::Open => Ok(()),
            Self::Disabled => Err(Error::LabRefused(LabRefusal::Disabled)),
            Self::Token(token) => {
                let sent = metadata.get("authorization").and_then(|value| value.to_str().ok());
                let sent = sent.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
                if same(sent.as_bytes(), token.expose().as_bytes()) {
                    Ok(())
                } else {
                    Err(Error::LabRefused(LabRefusal::Unauthenticated))
                }
            }
        }
    }
}

/// Compares in a time that tells nothing about where two texts differ.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// The service.
pub struct LabRpc {
    ledger: Arc<Ledger>,
    access: LabAccess,
}

impl LabRpc {
    /// The lab over a ledger.
    pub const fn new(ledger: Arc<Ledger>, access: LabAccess) -> Self {
        Self { ledger, access }
    }
}

#[tonic::async_trait]
impl LabService for LabRpc {
    async fn reset_account(
        &self,
        request: Request<v1::ResetAccountRequest>,
    ) -> Result<Response<v1::ResetAccountResponse>, Status> {
        let message = request.get_ref();
        let work = async {
            self.access.check(request.metadata())?;
            let user_id = convert::user_id(message.user_id)?;
            let balance = convert::balance("balance", &message.balance)?;
            let request_id = convert::request_id(&message.request_id)?;
            Ok::<_, Error>((self.ledger.reset(user_id, balance, request_id).await?, request_id))
        };
        let (reset, request_id) = within(request.metadata(), work).await.map_err(|error| status(&error))?;
        let mut response = Response::new(v1::ResetAccountResponse {
            user_id: reset.user_id,
            balance: reset.state.balance.to_string(),
            version: reset.state.version,
            request_id: request_id.to_string(),
        });
        if reset.replayed {
            response.metadata_mut().insert(REPLAYED_KEY, tonic::metadata::MetadataValue::from_static("true"));
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(access: &LabAccess, authorization: Option<&'static str>) -> bool {
        let mut metadata = MetadataMap::new();
        if let Some(value) = authorization {
            metadata.insert("authorization", value.parse().unwrap());
        }
        access.check(&metadata).is_ok()
    }

    #[test]
    fn beyond_loopback_a_token_is_needed() {
        let everywhere = IpAddr::from([0, 0, 0, 0]);
        assert!(allowed(&LabAccess::of(IpAddr::from([127, 0, 0, 1]), None), None));
        assert!(!allowed(&LabAccess::of(everywhere, None), Some("Bearer anything")));
        let token = || "secret".parse::<Secret>().ok();
        assert!(token().is_some());
        let access = LabAccess::of(everywhere, token());
        assert!(allowed(&access, Some("Bearer secret")));
        for wrong in [None, Some("secret"), Some("Bearer secre"), Some("Bearer Secret"), Some("Bearer ")] {
            assert!(!allowed(&access, wrong), "{wrong:?}");
        }
    }
}
