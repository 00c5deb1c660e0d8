//! Who may call what. Two tokens: one for the service, one for its lab. The lab's opens everything, since whoever may set
//! any balance has no need of another; the service's opens everything but a lab that has a token of its own. Without its
//! token the lab is open on loopback only, to whoever may use the service, and closed elsewhere. Health is told to
//! everybody.

use std::net::IpAddr;

use http::{HeaderMap, header::AUTHORIZATION};
use subtle::ConstantTimeEq;

use crate::{
    config::{Config, Secret},
    error::{Error, LabRefusal},
};

/// Who may call what.
#[derive(Clone, Debug)]
pub struct Access {
    /// What callers of the service show; nothing where none is set.
    token: Option<Secret>,
    lab: Lab,
}

/// Who may use the lab.
#[derive(Clone, Debug)]
enum Lab {
    /// Whoever may use the service: both ports are bound to loopback.
    Open,
    /// Whoever shows its token.
    Token(Secret),
    /// Nobody.
    Disabled,
}

impl Access {
    /// The rule, for ports that are bound to these addresses.
    #[must_use]
    pub fn of(bound: &[IpAddr], config: &Config) -> Self {
        let lab = match config.lab_token.clone() {
            Some(token) => Lab::Token(token),
            None if bound.iter().all(IpAddr::is_loopback) => Lab::Open,
            None => Lab::Disabled,
        };
        Self { token: config.auth_token.clone(), lab }
    }

    /// Whether anybody may use the lab.
    pub(crate) const fn has_lab(&self) -> bool {
        !matches!(self.lab, Lab::Disabled)
    }

    /// What the server's own lab shows when it calls the service.
    pub(crate) const fn own_token(&self) -> Option<&Secret> {
        self.token.as_ref()
    }

    /// Whether a call of the service with these headers may be made.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`].
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), Error> {
        let shown = shown(headers);
        let opens = |token: &Secret| same(shown, token);
        let by_lab = matches!(&self.lab, Lab::Token(token) if opens(token));
        if by_lab || self.token.as_ref().is_none_or(opens) { Ok(()) } else { Err(Error::Unauthenticated) }
    }

    /// Whether a call of the lab with these headers may be made.
    ///
    /// # Errors
    /// [`Error::LabRefused`], [`Error::Unauthenticated`].
    pub(crate) fn check_lab(&self, headers: &HeaderMap) -> Result<(), Error> {
        match &self.lab {
            Lab::Open => self.check(headers),
            Lab::Disabled => Err(Error::LabRefused(LabRefusal::Disabled)),
            Lab::Token(token) if same(shown(headers), token) => Ok(()),
            Lab::Token(_) => Err(Error::LabRefused(LabRefusal::Unauthenticated)),
        }
    }
}

/// The token that a call shows, if any. The name of the scheme is written in any case (RFC 9110).
fn shown(headers: &HeaderMap) -> &[u8] {
    let sent = headers.get(AUTHORIZATION).map(|value| value.as_bytes().split_at_checked(b"Bearer ".len()));
    match sent.flatten() {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"Bearer ") => token,
        _ => &[],
    }
}

/// Compares in a time that tells nothing but the length.
fn same(shown: &[u8], token: &Secret) -> bool {
    shown.ct_eq(token.expose().as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, path::Path};

    use zbl_proto::Reason;

    use super::*;
    use crate::{cli::Invocation, rpc::reason};

    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const EVERYWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

    fn access(bound: IpAddr, words: &[&str]) -> Access {
        let words = ["zbl-server"].iter().chain(words).map(OsString::from);
        let config = Invocation::parse(words, &|_| None, Path::new("/nowhere")).unwrap().config;
        Access::of(&[LOOPBACK, bound], &config)
    }

    /// What the service and the lab say to a header.
    fn asked(access: &Access, authorization: &str) -> [Result<(), Reason>; 2] {
        let headers =
            HeaderMap::from_iter((!authorization.is_empty()).then(|| (AUTHORIZATION, authorization.parse().unwrap())));
        [access.check(&headers), access.check_lab(&headers)].map(|asked| asked.map_err(|error| reason(&error)))
    }

    #[test]
    fn each_token_opens_what_it_is_for() {
        const OPEN: Result<(), Reason> = Ok(());
        const SERVICE: Result<(), Reason> = Err(Reason::Unauthenticated);
        const LAB: Result<(), Reason> = Err(Reason::LabUnauthenticated);
        const OFF: Result<(), Reason> = Err(Reason::LabDisabled);
        let (auth, lab) = ("--auth-token=service", "--lab-token=lab");
        for (bound, words, without, by_service, by_lab) in [
            (LOOPBACK, &[][..], [OPEN, OPEN], [OPEN, OPEN], [OPEN, OPEN]),
            (EVERYWHERE, &[], [OPEN, OFF], [OPEN, OFF], [OPEN, OFF]),
            (LOOPBACK, &[lab], [OPEN, LAB], [OPEN, LAB], [OPEN, OPEN]),
            (EVERYWHERE, &[lab], [OPEN, LAB], [OPEN, LAB], [OPEN, OPEN]),
            (LOOPBACK, &[auth], [SERVICE, SERVICE], [OPEN, OPEN], [SERVICE, SERVICE]),
            (EVERYWHERE, &[auth], [SERVICE, OFF], [OPEN, OFF], [SERVICE, OFF]),
            (LOOPBACK, &[auth, lab], [SERVICE, LAB], [OPEN, LAB], [OPEN, OPEN]),
            (EVERYWHERE, &[auth, lab], [SERVICE, LAB], [OPEN, LAB], [OPEN, OPEN]),
        ] {
            let access = access(bound, words);
            let what = format!("{bound} {words:?}");
            assert_eq!(asked(&access, ""), without, "{what}");
            assert_eq!(asked(&access, "Bearer service"), by_service, "{what}");
            assert_eq!(asked(&access, "bearer lab"), by_lab, "{what}");
            for wrong in
                ["service", "Bearer", "Bearer ", "Bearer servic", "Bearer Service", "Basic service", "Bearer  lab"]
            {
                assert_eq!(asked(&access, wrong), without, "{what} {wrong}");
            }
        }
    }
}
