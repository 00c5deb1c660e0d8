//! Where a trace can be looked at, as a URL with a place for its id. It becomes a link in the page, so it is one that a
//! browser may follow: never a script.

use std::{fmt, str::FromStr};

use url::Url;

/// What stands for the id.
const PLACE: &str = "{trace_id}";

const FORM: &str = "give one such as http://localhost:16686/trace/{trace_id}";

/// The URL, with the place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceUrl(String);

impl FromStr for TraceUrl {
    /// What is wrong, and what to write. The text is not repeated: it may hold a password.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.contains(PLACE) {
            return Err(format!("there is no {PLACE} in it; {FORM}"));
        }
        let url = Url::parse(&text.replace(PLACE, "0")).map_err(|error| format!("{error}; {FORM}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("unsupported scheme `{}`; {FORM}", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(format!("it is shown to whoever opens the page, so no user or password; {FORM}"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for TraceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_link_with_a_place_for_the_id() {
        for text in ["http://localhost:16686/trace/{trace_id}", "https://t.example/?q={trace_id}&q2={trace_id}#x"] {
            assert_eq!(text.parse::<TraceUrl>().unwrap().to_string(), text);
        }
        for (text, why) in [
            ("http://localhost:16686/trace/", "no {trace_id}"),
            ("localhost:16686/{trace_id}", "unsupported scheme `localhost`"),
            ("/trace/{trace_id}", "relative URL"),
            ("javascript:alert({trace_id})", "unsupported scheme `javascript`"),
            ("http://u:s3cret@h/{trace_id}", "no user or password"),
            ("http://u@h/{trace_id}", "no user or password"),
        ] {
            let error = text.parse::<TraceUrl>().unwrap_err();
            assert!(error.contains(why) && error.contains(FORM) && !error.contains("s3cret"), "{text}: {error}");
        }
    }
}
