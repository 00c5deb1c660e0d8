//! What the HTTP port tells: health, readiness, metrics. Without curl, which not every machine has.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Longer than any answer of it takes: the readiness check itself gives up after 2 s.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The status and the body of a path.
pub(crate) fn get(http: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&http, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {http}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    status.zip(body).ok_or_else(|| io::Error::other(format!("no answer of HTTP: {answer}")))
}

/// The value of one series of `/metrics`; `None` where there is no such series, or nobody answers.
pub(crate) fn metric(http: SocketAddr, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    value(&get(http, "/metrics").ok()?.1, name, labels)
}

fn value(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let wanted: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, labels) = series.split_once('{').unwrap_or((series, ""));
        (found == name && wanted.iter().all(|label| labels.contains(label))).then(|| value.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_found_by_its_labels() {
        let text = "# HELP a b\na{x=\"1\",y=\"2\"} 7\na{x=\"2\",y=\"2\"} 8.5\nab{x=\"1\"} 9\nb 10\n";
        assert_eq!(value(text, "a", &[("x", "2")]), Some(8.5));
        assert_eq!(value(text, "a", &[("y", "2"), ("x", "1")]), Some(7.0));
        assert_eq!((value(text, "b", &[]), value(text, "a", &[("x", "3")])), (Some(10.0), None));
    }
}
