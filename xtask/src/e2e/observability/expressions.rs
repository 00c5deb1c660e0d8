//! PromQL, as far as it must be taken apart: which series an expression selects. What an expression means, Prometheus says.

use serde_json::Value;

use super::super::checks::ensure;
use crate::command::Failure;

/// Words that stand where the name of a metric can stand, besides functions, which are told by their bracket.
const WORDS: [&str; 15] = [
    "and", "or", "unless", "bool", "offset", "sum", "min", "max", "avg", "group", "count", "topk", "bottomk", "inf",
    "nan",
];
/// Words before a list of labels.
const BEFORE_LABELS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// What the dashboard's variables stand for: everything, over the time of a test.
const VARIABLES: [(&str, &str); 3] = [("$__rate_interval", "5m"), ("$instance", ".*"), ("$strategy", ".*")];

/// An expression of a panel, as Grafana would ask it.
#[derive(Debug)]
pub(super) struct Shown {
    /// The panel's title.
    pub(super) title: String,
    /// The expression, without variables.
    pub(super) query: String,
}

/// The expressions of a dashboard. Each of its panels must say what it shows.
pub(super) fn of_dashboard(dashboard: &Value) -> Result<Vec<Shown>, Failure> {
    let panels = dashboard["panels"].as_array().into_iter().flatten().filter(|panel| panel["type"] != "row");
    let mut shown = Vec::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap_or_default();
        let has_words = |field: &str| panel[field].as_str().is_some_and(|text| !text.is_empty());
        ensure(has_words("title") && has_words("description"), || {
            format!("panel {title:?} does not say what it shows")
        })?;
        let targets = panel["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
        ensure(!targets.is_empty(), || format!("panel {title:?} asks nothing"))?;
        for target in targets {
            let query = target["expr"].as_str().unwrap_or_default();
            let query = VARIABLES.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value));
            ensure(!query.is_empty() && !query.contains('$'), || format!("panel {title:?} asks {query:?}"))?;
            shown.push(Shown { title: title.to_owned(), query });
        }
    }
    Ok(shown)
}

/// The selectors of an expression: names of metrics, with their matchers where they have some.
pub(super) fn selectors(expression: &str) -> Vec<String> {
    let mut selectors = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' | '\'' => quoted(rest),
            '[' => rest.find(']').map_or(rest.len(), |end| end + 1),
            _ if first.is_ascii_digit() => word(rest),
            _ if is_of_word(first) => {
                let name = &rest[..word(rest)];
                let behind = &rest[name.len()..];
                let skipped = behind.len() - behind.trim_start().len();
                if BEFORE_LABELS.contains(&name) {
                    behind.find(')').map_or(rest.len(), |end| name.len() + end + 1)
                } else if WORDS.contains(&name) || behind[skipped..].starts_with('(') {
                    name.len()
                } else {
                    let length = name.len() + matchers(behind);
                    selectors.push(rest[..length].to_owned());
                    length
                }
            }
            other => other.len_utf8(),
        };
        rest = &rest[length..];
    }
    selectors
}

/// How long the word, or the number with its unit, at the beginning is.
fn word(text: &str) -> usize {
    text.find(|character| !is_of_word(character) && character != '.').unwrap_or(text.len())
}

fn is_of_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_' || character == ':'
}

/// How long the matchers in braces at the beginning are; none are no length.
fn matchers(text: &str) -> usize {
    if !text.starts_with('{') {
        return 0;
    }
    let mut at = 1;
    while let Some(next) = text[at..].chars().next() {
        match next {
            '}' => return at + 1,
            '"' | '\'' => at += quoted(&text[at..]),
            other => at += other.len_utf8(),
        }
    }
    text.len()
}

/// How long the string in quotes at the beginning is, both quotes included.
fn quoted(text: &str) -> usize {
    let quote = text.chars().next();
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        if !escaped && Some(character) == quote {
            return at + 1;
        }
        escaped = character == '\\' && !escaped;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_found_and_nothing_else() {
        for (expression, expected) in [
            ("max by (job) (balance_loss_amount) > 0", vec!["balance_loss_amount"]),
            ("rate(a_total{x=\"}\",y=~\"b|\\\"\"}[5m])/2.5", vec!["a_total{x=\"}\",y=~\"b|\\\"\"}"]),
            ("a > 0 and on (job, breaker) rate(b[5m]) > 1e3", vec!["a", "b"]),
            ("sum(a{}) without (x) / on(y) group_left(z) job:c:ratio5m offset 6h", vec!["a{}", "job:c:ratio5m"]),
            (
                "time() - max(a) or absent(up{job=\"zbl\"}) unless on (job) b == bool 1",
                vec!["a", "up{job=\"zbl\"}", "b"],
            ),
        ] {
            assert_eq!(selectors(expression), expected, "{expression}");
        }
    }

    #[test]
    fn a_panel_without_description_is_refused() {
        let panel = |text: &str| {
            let panel = serde_json::json!({"title": "t", "description": text, "targets": [{"expr": "rate(a[$__rate_interval])"}]});
            of_dashboard(&serde_json::json!({ "panels": [panel] }))
        };
        assert_eq!(panel("what it is").unwrap()[0].query, "rate(a[5m])");
        panel("").unwrap_err();
    }
}
