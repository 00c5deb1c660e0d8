//! Log lines: to stderr alone, because stdout belongs to the banner and to answers. Refuses to choose a level or a
//! format; the configuration has.

mod of_call;

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

use self::of_call::OfCall;
use crate::config::{Config, LogFormat};

/// What is logged, to be changed while the process runs.
#[derive(Clone, Debug)]
pub struct Filter(reload::Handle<EnvFilter, Registry>);

impl Filter {
    /// Logs by another filter from now on.
    ///
    /// # Errors
    /// It does not parse; the one before stays.
    pub fn replace(&self, filter: &str) -> Result<(), Box<dyn std::error::Error>> {
        Ok(self.0.reload(EnvFilter::try_new(filter)?)?)
    }
}

/// Starts logging for the whole process.
///
/// # Errors
/// The filter does not parse, or logging was started before.
pub fn start(config: &Config) -> Result<Filter, Box<dyn std::error::Error>> {
    let terminal = io::stderr().is_terminal();
    let json = match config.log_format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    let lines = fmt::layer().with_writer(io::stderr);
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(&config.log)?);
    let subscriber = tracing_subscriber::registry().with(filter);
    if json {
        subscriber.with(lines.json().flatten_event(true).map_event_format(OfCall::json)).try_init()?;
    } else if terminal {
        // Colours are the layer's own choice here: it honours NO_COLOR.
        subscriber.with(lines.map_event_format(OfCall::text)).try_init()?;
    } else {
        subscriber.with(lines.with_ansi(false).map_event_format(OfCall::text)).try_init()?;
    }
    Ok(Filter(handle))
}
