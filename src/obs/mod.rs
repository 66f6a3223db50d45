//! What is told to whoever runs this: logs, and of the operator metrics and health.
//!
//! Logs are set up once, on standard error, as text or JSON.
//! Logs are for whoever looks into a run; what a person should see comes through the verbs' progress and reports.
//! The level is quiet by default and set by `STILLFRAME_LOG` (`debug`, `stillframe::capture=trace`, ...). No secret
//! is ever a field of an event: types that hold one do not print it.
//! A process that works for one object alone has its key on every line, whichever thread and crate writes it.

#[cfg(feature = "operator")]
pub mod http;
#[cfg(feature = "operator")]
pub mod metrics;

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

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

/// What every line of a process says, by names.
pub type Marks = Vec<(&'static str, String)>;

/// Sends events to `writer` from here on, each with `marks`. `filter` as in [`FILTER_VARIABLE`]; `None`: warnings and
/// errors.
pub fn init<W>(format: LogFormat, filter: Option<&str>, marks: &Marks, writer: W) -> Result<(), LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let events = subscriber(format, parse_filter(filter)?, marks, writer);
    tracing::dispatcher::set_global_default(events).map_err(|_| LogError::Twice)
}

fn subscriber<W>(format: LogFormat, filter: EnvFilter, marks: &Marks, writer: W) -> tracing::Dispatch
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let events = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    let marks = Marked::render(format, marks);
    match format {
        LogFormat::Text => events.map_event_format(|inner| Marked { inner, marks }).finish().into(),
        LogFormat::Json => {
            events.json().flatten_event(true).map_event_format(|inner| Marked { inner, marks }).finish().into()
        }
    }
}

/// Writes events as another format does, each with the marks before all else. Spans would do on their own threads
/// only: those that copy, upload and talk to Kubernetes are started in many places.
struct Marked<F> {
    inner: F,
    /// As they are written.
    marks: String,
}

impl Marked<()> {
    fn render(format: LogFormat, marks: &Marks) -> String {
        let one = |(name, value): &(&str, String)| match format {
            LogFormat::Text => format!("{name}={value} "),
            LogFormat::Json => format!("{}:{},", serde_json::Value::from(*name), serde_json::Value::from(&**value)),
        };
        marks.iter().map(one).collect()
    }
}

impl<S, N, F> FormatEvent<S, N> for Marked<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if self.marks.is_empty() {
            return self.inner.format_event(context, to, event);
        }
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        match line.strip_prefix('{') {
            Some(rest) => write!(to, "{{{}{rest}", self.marks),
            None => write!(to, "{}{line}", self.marks),
        }
    }
}

fn parse_filter(text: Option<&str>) -> Result<EnvFilter, LogError> {
    let text = text.filter(|text| !text.trim().is_empty()).unwrap_or(DEFAULT_FILTER);
    EnvFilter::try_new(text).map_err(|error| LogError::Filter { text: text.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn filters() {
        for good in [None, Some(""), Some("debug"), Some("warn,stillframe::capture=trace")] {
            assert!(parse_filter(good).is_ok(), "{good:?}");
        }
        let error = parse_filter(Some("stillframe=loud")).unwrap_err();
        assert!(error.to_string().starts_with("STILLFRAME_LOG=\"stillframe=loud\" is no filter"), "{error}");
    }

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines_of_two_threads(format: LogFormat) -> Vec<String> {
        let kept = Kept::default();
        let writer = kept.clone();
        let marks = vec![("object", "shop/a \"b\"".to_owned()), ("work", "backup-1".to_owned())];
        let events = subscriber(format, parse_filter(Some("info")).unwrap(), &marks, move || writer.clone());
        let log = |text: &str| {
            // In a thread of its own, that knows of no span.
            tracing::dispatcher::with_default(&events, || tracing::warn!(page = 7, "{text}"));
        };
        std::thread::scope(|scope| {
            scope.spawn(|| log("copied"));
        });
        log("done");
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn every_line_of_every_thread_has_the_marks() {
        let lines = lines_of_two_threads(LogFormat::Json);
        assert_eq!(lines.len(), 2);
        for (line, text) in lines.iter().zip(["copied", "done"]) {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!((&line["object"], &line["work"]), (&"shop/a \"b\"".into(), &"backup-1".into()), "{line}");
            assert_eq!((&line["message"], &line["page"], &line["level"]), (&text.into(), &7.into(), &"WARN".into()));
        }
        for line in lines_of_two_threads(LogFormat::Text) {
            assert!(line.starts_with("object=shop/a \"b\" work=backup-1 ") && line.contains("page=7"), "{line}");
        }
    }

    #[test]
    fn formats() {
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        assert!("xml".parse::<LogFormat>().is_err());
    }
}
