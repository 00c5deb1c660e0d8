//! Who holds a lock: a request of an instance. It owns the text by which scripts compare and people read.

use std::fmt::{self, Display};

/// How many characters of a request's name are kept: enough for a UUID and a word, and a bound for what is stored and
/// shown. The nonce tells two apart whose names are cut alike.
const MAX_REQUEST: usize = 128;

/// One owner of locks. Two of them are different even if made for the same request: a repeated request must not enter
/// where the first attempt is still at work. The same owner (a clone of it) may take a lock again that it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    request: String,
    nonce: String,
}

impl Owner {
    /// An owner for `request`, whose name is shown to those who wait; it is cut at 128 characters.
    pub fn new(request: impl Display) -> Self {
        Self { request: request.to_string().chars().take(MAX_REQUEST).collect(), nonce: nonce() }
    }

    /// What stands in Redis: `instance/request/nonce`.
    pub(crate) fn text(&self, instance: &str) -> String {
        format!("{instance}/{}/{}", self.request, self.nonce)
    }
}

impl Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.request)
    }
}

/// The part of an owner's text that people read: `instance/request`.
pub(crate) fn shown(text: &str) -> &str {
    text.rsplit_once('/').map_or(text, |(shown, _)| shown)
}

/// A name nobody else has.
pub(crate) fn nonce() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_calls_of_one_request_are_two_owners_who_look_alike() {
        let [one, two] = [Owner::new("a/b"), Owner::new("a/b")].map(|owner| owner.text("here"));
        assert_ne!(one, two);
        assert_eq!([shown(&one), shown(&two)], ["here/a/b"; 2]);
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        assert_eq!(Owner::new("ü".repeat(1000)).to_string(), "ü".repeat(MAX_REQUEST));
    }
}
