//! The layers a setting may come from, highest first: flag, environment, file, default. Takes the first that has it,
//! checks it, and remembers where it came from. Knows no setting in particular.

use std::{
    ffi::OsString,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use clap::ArgMatches;
use toml::{Table, Value};

use super::setting::{DEFAULT_FILE, FILE_ARGUMENT, FILE_VARIABLE, SETTINGS, Setting};

/// Looks a variable up in the environment; tests pass a map of their own.
pub type Environment<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// Where a value came from. `Display` names it as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line; the flag.
    Flag(String),
    /// The environment; the variable.
    Env(String),
    /// The file; its key and path.
    File(&'static str, PathBuf),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "flag {flag}"),
            Self::Env(variable) => write!(f, "env {variable}"),
            Self::File(key, path) => write!(f, "file {}, key {key}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Why there is no configuration. Each message names the flag, variable or key to change.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value was refused.
    #[error("{origin}: {reason}")]
    Invalid {
        /// Who gave it.
        origin: Origin,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that was asked for, or is there, cannot be read.
    #[error("cannot read the configuration file {}: {source} (named by --config or {FILE_VARIABLE})", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file is not TOML. The line itself is not repeated: it may hold a token.
    #[error("{} is not valid TOML: line {line}: {problem}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where, counted from 1.
        line: usize,
        /// Why.
        problem: String,
    },
    /// The file has a key that is no setting.
    #[error("unknown key `{key}` in {}{}", path.display(), closest.map_or(String::new(), |name| format!("; did you mean `{name}`?")))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The setting it resembles.
        closest: Option<&'static str>,
    },
}

/// The parsed command line, the environment and the file, ready to be asked.
pub(super) struct Layers<'a> {
    flags: &'a ArgMatches,
    environment: &'a Environment<'a>,
    file: Option<(PathBuf, Table)>,
}

impl<'a> Layers<'a> {
    /// Reads the file that the flags or the environment name, or `zbl.toml` in `directory` if there is one.
    pub(super) fn load(
        flags: &'a ArgMatches,
        environment: &'a Environment<'a>,
        directory: &Path,
    ) -> Result<Self, ConfigError> {
        let mut layers = Self { flags, environment, file: None };
        let named = match flags.get_one::<String>(FILE_ARGUMENT) {
            Some(path) => Some(path.clone()),
            None => layers.variable(FILE_VARIABLE)?.map(|(path, _)| path),
        };
        let path = named.as_ref().map_or_else(|| directory.join(DEFAULT_FILE), PathBuf::from);
        match fs::read_to_string(&path) {
            Ok(text) => layers.file = Some((path.clone(), parse(&path, &text)?)),
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(ConfigError::Unreadable { path, source }),
        }
        Ok(layers)
    }

    /// The text of a setting from the highest layer that has it, and which one that was.
    pub(super) fn text(&self, setting: &'static Setting) -> Result<(String, Origin), ConfigError> {
        if let Some(text) = self.flags.get_one::<String>(setting.name) {
            return Ok((text.clone(), Origin::Flag(setting.flag())));
        }
        if let Some(found) = self.variable(&setting.variable())? {
            return Ok(found);
        }
        // Its own, set to nothing, says that there is to be none, where there can be none.
        let is_declined = setting.default.is_empty() && (self.environment)(&setting.variable()).is_some();
        if !is_declined
            && let Some(fallback) = setting.fallback_variable()
            && let Some(found) = self.variable(fallback)?
        {
            return Ok(found);
        }
        if let Some((path, table)) = &self.file
            && let Some(value) = table.get(setting.name)
        {
            let origin = Origin::File(setting.name, path.clone());
            return match value {
                Value::String(text) => Ok((text.clone(), origin)),
                Value::Integer(number) => Ok((number.to_string(), origin)),
                Value::Boolean(truth) => Ok((truth.to_string(), origin)),
                other => {
                    let reason = format!("expected a string, an integer or a boolean, found {}", other.type_str());
                    Err(ConfigError::Invalid { origin, reason })
                }
            };
        }
        Ok((setting.default.to_owned(), Origin::Default))
    }

    /// A variable's value; an empty one counts as unset, because that is how compose files and shells unset.
    fn variable(&self, name: &str) -> Result<Option<(String, Origin)>, ConfigError> {
        let Some(value) = (self.environment)(name).filter(|value| !value.is_empty()) else { return Ok(None) };
        let origin = Origin::Env(name.to_owned());
        match value.into_string() {
            Ok(text) => Ok(Some((text, origin))),
            Err(_) => Err(ConfigError::Invalid { origin, reason: "the value is not UTF-8".to_owned() }),
        }
    }
}

fn parse(path: &Path, text: &str) -> Result<Table, ConfigError> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        ConfigError::Syntax { path: path.to_owned(), line, problem: error.message().to_owned() }
    })?;
    match table.keys().find(|key| SETTINGS.iter().all(|setting| setting.name != key.as_str())) {
        None => Ok(table),
        Some(key) => {
            Err(ConfigError::UnknownKey { path: path.to_owned(), key: key.clone(), closest: closest_setting(key) })
        }
    }
}

/// The setting whose name resembles the key most, if one resembles it at all.
fn closest_setting(key: &str) -> Option<&'static str> {
    /// Jaro-Winkler similarity below which two names have nothing to do with each other.
    const RESEMBLANCE: f64 = 0.75;
    let likeness = |name: &str| strsim::jaro_winkler(&key.to_lowercase().replace('-', "_"), name);
    SETTINGS
        .iter()
        .map(|setting| (likeness(setting.name), setting.name))
        .filter(|(likeness, _)| *likeness > RESEMBLANCE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
