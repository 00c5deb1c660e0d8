//! What `zbl-server config` prints. Secrets arrive here redacted.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::{Effective, Origin};

/// One line per setting: name, value, where it came from.
#[must_use]
pub fn as_text(effective: &[Effective]) -> String {
    let width = |of: fn(&Effective) -> usize| effective.iter().map(of).max().unwrap_or(0);
    let (names, values) = (width(|e| e.setting.name.len()), width(|e| e.value.chars().count()));
    effective.iter().fold(String::new(), |mut text, Effective { setting, value, origin }| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:names$}  {value:values$}  {origin}", setting.name);
        text
    })
}

/// An object with a member per setting: `{"value": …, "source": "flag" | "env" | "file" | "default", "from": …}`, where
/// `from` is the flag, the variable or the file's path, and absent for a default.
#[must_use]
pub fn as_json(effective: &[Effective]) -> Value {
    let member = |Effective { setting, value, origin }: &Effective| {
        let described = match origin {
            Origin::Flag(flag) => json!({"value": value, "source": "flag", "from": flag}),
            Origin::Env(variable) => json!({"value": value, "source": "env", "from": variable}),
            Origin::File(_, path) => json!({"value": value, "source": "file", "from": path.display().to_string()}),
            Origin::Default => json!({"value": value, "source": "default"}),
        };
        (setting.name.to_owned(), described)
    };
    Value::Object(effective.iter().map(member).collect::<Map<_, _>>())
}
