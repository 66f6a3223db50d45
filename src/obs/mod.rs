//! What is told to whoever runs this: logs, and of the operator metrics and health.
//!
//! Logs are set up once, on standard error, as text or JSON.
//! Logs are for whoever looks into a run; what a person should see comes through the verbs' progress and reports.
//! The level is quiet by default and set by `STILLFRAME_LOG` (`debug`, `stillframe::capture=trace`, ...). No secret
//! is ever a field of an event: types that hold one do not print it.

#[cfg(feature = "operator")]
pub mod http;
#[cfg(feature = "operator")]
pub mod metrics;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The variable that sets which events are shown.
pub const FILTER_VARIABLE: &str = "STILLFRAME_LOG";
const DEFAULT_FILTER: &str = "warn";

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One readable line each.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    /// How the formats are written on a command line.
    pub const NAMES: &'static [&'static str] = &["text", "json"];
}

impl std::str::FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("\"{text}\" is none of {}", Self::NAMES.join(", "))),
        }
    }
}

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter's text.
    #[error("{FILTER_VARIABLE}=\"{text}\" is no filter: {reason}")]
    Filter {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Done before.
    #[error("logging was set up twice")]
    Twice,
}

/// Sends events to `writer` from here on. `filter` as in [`FILTER_VARIABLE`]; `None`: warnings and errors.
pub fn init<W>(format: LogFormat, filter: Option<&str>, writer: W) -> Result<(), LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = parse_filter(filter)?;
    let events = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    match format {
        LogFormat::Text => events.try_init(),
        LogFormat::Json => events.json().flatten_event(true).try_init(),
    }
    .map_err(|_| LogError::Twice)
}

fn parse_filter(text: Option<&str>) -> Result<EnvFilter, LogError> {
    let text = text.filter(|text| !text.trim().is_empty()).unwrap_or(DEFAULT_FILTER);
    EnvFilter::try_new(text).map_err(|error| LogError::Filter { text: text.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for good in [None, Some(""), Some("debug"), Some("warn,stillframe::capture=trace")] {
            assert!(parse_filter(good).is_ok(), "{good:?}");
        }
        let error = parse_filter(Some("stillframe=loud")).unwrap_err();
        assert!(error.to_string().starts_with("STILLFRAME_LOG=\"stillframe=loud\" is no filter"), "{error}");
    }

    #[test]
    fn formats() {
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        assert!("xml".parse::<LogFormat>().is_err());
    }
}
