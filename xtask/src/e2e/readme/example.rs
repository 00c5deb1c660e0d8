//! Reading commands out of a README: the lines of its shell blocks, and what the comments beside and below them promise.
//! It runs nothing.

use serde_json::Value;

/// Fences that open a block of commands.
const SHELLS: [&str; 2] = ["```sh", "```console"];

/// Stands for text that is different every time.
const ELISION: &str = "…";

/// A command of a README.
#[derive(Debug, PartialEq)]
pub(super) struct Example {
    /// The command, its continued lines joined, without comment.
    pub(super) line: String,
    pub(super) expected: Expected,
}

/// What the README says will come of a command.
#[derive(Debug, PartialEq)]
pub(super) enum Expected {
    /// It says nothing, so the command succeeds.
    Success,
    /// It goes on until the reader presses Ctrl-C.
    Endless,
    /// It prints this; strings that are an ellipsis stand for any.
    Json(Value),
    /// It fails and says all of this.
    Refusal(Vec<String>),
}

impl Example {
    /// Whether it is a call to the server, to be run.
    pub(super) fn is_call(&self) -> bool {
        ["grpcurl ", "curl "].iter().any(|program| self.line.starts_with(program))
    }
}

/// Every command of a README, in order.
pub(super) fn examples(readme: &str) -> Vec<Example> {
    let (mut examples, mut in_shell, mut continued) = (Vec::<Example>::new(), false, String::new());
    for line in readme.lines() {
        if line.starts_with("```") {
            in_shell = !in_shell && SHELLS.contains(&line);
            continue;
        }
        if !in_shell {
            continue;
        }
        let (command, comment) = split_comment(line);
        if let Some(beginning) = command.strip_suffix('\\') {
            continued += beginning;
            continue;
        }
        let line = std::mem::take(&mut continued) + command.trim_start();
        if line.is_empty() {
            if let (Some(last), Some(expected)) = (examples.last_mut(), promised(comment)) {
                last.expected = expected;
            }
            continue;
        }
        examples.push(Example { line, expected: promised(comment).unwrap_or(Expected::Success) });
    }
    examples
}

/// What a comment promises; most promise nothing that can be checked.
fn promised(comment: &str) -> Option<Expected> {
    if comment.contains("Ctrl-C") {
        Some(Expected::Endless)
    } else if comment.starts_with("Code: ") {
        let values = comment.split(", ").filter_map(|part| part.split_once(": "));
        Some(Expected::Refusal(values.map(|(_, value)| value.to_owned()).collect()))
    } else {
        serde_json::from_str(comment).ok().map(Expected::Json)
    }
}

/// A line without its comment, and the comment; a `#` within quotes or a word begins none.
fn split_comment(line: &str) -> (&str, &str) {
    let (mut quote, mut before) = (None, ' ');
    for (at, character) in line.char_indices() {
        match (quote, character) {
            (None, '#') if before.is_whitespace() => return (line[..at].trim_end(), line[at + 1..].trim()),
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            _ => {}
        }
        before = character;
    }
    (line.trim_end(), "")
}

/// The first JSON value in an output; curl shows its progress beside it.
pub(super) fn first_json(output: &str) -> Option<Value> {
    let begin = output.find('{')?;
    serde_json::Deserializer::from_str(&output[begin..]).into_iter().next()?.ok()
}

/// Whether a value is what was promised, but for what the promise leaves open.
pub(super) fn matches(expected: &Value, actual: &Value) -> bool {
    match (expected, actual) {
        (Value::String(text), _) if text == ELISION => true,
        (Value::Object(expected), Value::Object(actual)) => {
            let holds = |(key, value)| actual.get(key).is_some_and(|actual| matches(value, actual));
            expected.len() == actual.len() && expected.iter().all(holds)
        }
        (Value::Array(expected), Value::Array(actual)) => {
            expected.len() == actual.len() && expected.iter().zip(actual).all(|(one, other)| matches(one, other))
        }
        _ => expected == actual,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn commands_are_read_with_what_is_said_of_them() {
        let readme = "text\n```text\nnot a command\n```\n```sh\n\
            curl -d '{\"a\":\"#1\"}' \\\n  http://x    # why\n# {\"id\":\"…\"}\n\
            grpcurl x Deduct\n# Code: NotFound, Message: no account 7, reason: ACCOUNT_NOT_FOUND\n\
            grpcurl y Watch    # Ctrl-C ends it\nls\n```\nls\n";
        let refusal = ["NotFound", "no account 7", "ACCOUNT_NOT_FOUND"].map(str::to_owned);
        let expected = [
            ("curl -d '{\"a\":\"#1\"}' http://x", Expected::Json(json!({ "id": "…" }))),
            ("grpcurl x Deduct", Expected::Refusal(refusal.into())),
            ("grpcurl y Watch", Expected::Endless),
            ("ls", Expected::Success),
        ];
        assert_eq!(examples(readme), expected.map(|(line, expected)| Example { line: line.to_owned(), expected }));
    }

    #[test]
    fn an_ellipsis_stands_for_anything_and_nothing_else_does() {
        let expected = json!({ "id": "…", "list": [1, { "a": "b" }] });
        assert!(matches(&expected, &json!({ "id": 7, "list": [1, { "a": "b" }] })));
        for other in [
            json!({ "id": 7, "list": [1] }),
            json!({ "list": [1, { "a": "b" }] }),
            json!({ "id": 7, "list": [1, { "a": "c" }] }),
        ] {
            assert!(!matches(&expected, &other), "{other}");
        }
        assert_eq!(first_json("  0 0\r 100\n{\"a\":1}\n  0\n"), Some(json!({ "a": 1 })));
        assert_eq!(first_json("nothing"), None);
    }
}
