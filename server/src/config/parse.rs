//! From a setting's text to its value. Each refusal repeats the text and says what would be accepted; secrets have no
//! parser here that could repeat them.

use std::{net::SocketAddr, ops::RangeInclusive, time::Duration};

use tracing_subscriber::EnvFilter;

/// The longest any time setting may be: beyond it a typing error is likelier than a wish.
const LONGEST: Duration = Duration::from_secs(3600);

/// An IP address and port; host names are refused, because which of its addresses to bind is not ours to guess.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is not IP:PORT, such as 127.0.0.1:50051 or [::]:50051"))
}

/// A whole number within a range.
pub(super) fn number(range: RangeInclusive<u32>) -> impl Fn(&str) -> Result<u32, String> {
    move |text| {
        text.parse()
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| format!("`{text}` is not a whole number from {} to {}", range.start(), range.end()))
    }
}

/// A time such as `250ms` or `5s`, at least `shortest`.
pub(super) fn time(shortest: Duration) -> impl Fn(&str) -> Result<Duration, String> {
    time_within(shortest..=LONGEST)
}

/// A time within a range.
pub(super) fn time_within(range: RangeInclusive<Duration>) -> impl Fn(&str) -> Result<Duration, String> {
    move |text| {
        humantime::parse_duration(text).ok().filter(|time| range.contains(time)).ok_or_else(|| {
            let [shortest, longest] = [range.start(), range.end()].map(|time| humantime::format_duration(*time));
            format!("`{text}` is not a time from {shortest} to {longest}, such as 250ms or 5s")
        })
    }
}

/// A time in whole seconds, at least one: what `innodb_lock_wait_timeout` can hold.
pub(super) fn whole_seconds(text: &str) -> Result<Duration, String> {
    let time = time(Duration::from_secs(1))(text)?;
    if time.subsec_nanos() == 0 { Ok(time) } else { Err(format!("`{text}` is not a whole number of seconds")) }
}

/// A name without blanks, fit for a log field or a metric label.
pub(super) fn name(text: &str) -> Result<String, String> {
    const LONGEST_NAME: usize = 64;
    let fits = (1..=LONGEST_NAME).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic());
    if fits {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is not 1 to {LONGEST_NAME} visible ASCII characters"))
    }
}

/// `true`, `false`, or `auto` for nothing decided.
pub(super) fn choice(text: &str) -> Result<Option<bool>, String> {
    match text {
        super::setting::AUTO => Ok(None),
        "true" => Ok(Some(true)),
        "false" => Ok(Some(false)),
        _ => Err(format!("`{text}` is not auto, true or false")),
    }
}

/// What an empty text leaves out.
pub(super) fn optional<T>(parse: impl Fn(&str) -> Result<T, String>) -> impl Fn(&str) -> Result<Option<T>, String> {
    move |text| if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

/// Values between commas; none in an empty text.
pub(super) fn list<T>(parse: impl Fn(&str) -> Result<T, String>) -> impl Fn(&str) -> Result<Vec<T>, String> {
    move |text| text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(&parse).collect()
}

/// `true` or `false`.
pub(super) fn truth(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("`{text}` is not true or false"))
}

/// A `tracing` filter, kept as text: the filter itself is built once, when logging starts.
pub(super) fn filter(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("`{text}` is not a log filter: {error}")),
    }
}
