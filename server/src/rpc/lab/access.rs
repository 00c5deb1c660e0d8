//! Who may use the lab: everybody on loopback, whoever has the token elsewhere, nobody without one.

use std::net::IpAddr;

use http::{HeaderMap, header::AUTHORIZATION};

use crate::{
    config::Secret,
    error::{Error, LabRefusal},
};

/// Who may use the lab.
#[derive(Clone, Debug)]
pub enum LabAccess {
    /// Everybody who reaches the server: both its ports are bound to loopback.
    Open,
    /// Whoever sends the token.
    Token(Secret),
    /// Nobody.
    Disabled,
}

impl LabAccess {
    /// The rule: a token is asked for where one is set; without one the lab is open on loopback only.
    pub fn of(bound: &[IpAddr], token: Option<Secret>) -> Self {
        match token {
            Some(token) => Self::Token(token),
            None if bound.iter().all(IpAddr::is_loopback) => Self::Open,
            None => Self::Disabled,
        }
    }

    /// Whether a call with these headers may.
    ///
    /// # Errors
    /// [`Error::LabRefused`].
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Error> {
        match self {
            Self::Open => Ok(()),
            Self::Disabled => Err(Error::LabRefused(LabRefusal::Disabled)),
            Self::Token(token) => {
                let sent = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(access: &LabAccess, authorization: Option<&'static str>) -> bool {
        let headers = authorization.map(|value| (AUTHORIZATION, value.parse().unwrap()));
        access.check(&headers.into_iter().collect()).is_ok()
    }

    #[test]
    fn beyond_loopback_a_token_is_needed() {
        let (loopback, everywhere) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0]));
        assert!(allowed(&LabAccess::of(&[loopback, loopback], None), None));
        assert!(!allowed(&LabAccess::of(&[loopback, everywhere], None), Some("Bearer anything")));
        let token = || "secret".parse::<Secret>().ok();
        assert!(token().is_some());
        let access = LabAccess::of(&[everywhere, everywhere], token());
        assert!(allowed(&access, Some("Bearer secret")));
        for wrong in [None, Some("secret"), Some("Bearer secre"), Some("Bearer Secret"), Some("Bearer ")] {
            assert!(!allowed(&access, wrong), "{wrong:?}");
        }
    }
}
