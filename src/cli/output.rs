//! Reports on standard output: aligned text for people, JSON or YAML for programs.

use std::io::{self, Write};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::ops::{Error, ErrorKind};
use crate::util::units::format_duration;

/// Declares the formats that a verb offers.
macro_rules! formats {
    ($(#[$about:meta])* $name:ident { $($(#[$item:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
        pub(super) enum $name { $($(#[$item])* #[value(name = $text)] $variant,)+ }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self { $(Self::$variant => $text),+ })
            }
        }
    };
}

formats! {
    /// Of a report.
    ReportFormat {
        /// For people
        #[default]
        Text = "text",
        /// For programs
        Json = "json",
    }
}

formats! {
    /// Of a list.
    ListFormat {
        /// For people
        #[default]
        Table = "table",
        /// For programs
        Json = "json",
    }
}

formats! {
    /// Of a document.
    DocumentFormat {
        /// For people
        #[default]
        Yaml = "yaml",
        /// For programs
        Json = "json",
    }
}

/// What a verb leaves to be shown.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// For standard output, with its last line feed.
    pub(super) report: String,
    /// For standard error.
    pub(super) note: Option<String>,
    /// Why the process fails although there is a report.
    pub(super) failure: Option<Error>,
}

impl Output {
    /// A report and nothing else.
    pub(super) fn report(report: String) -> Self {
        Self { report, note: None, failure: None }
    }
}

/// A report in the format asked for.
pub(super) fn render<T: Serialize>(
    format: ReportFormat,
    report: &T,
    text: impl FnOnce(&T) -> String,
) -> Result<String, Error> {
    match format {
        ReportFormat::Text => Ok(text(report)),
        ReportFormat::Json => json(report),
    }
}

/// `value` as JSON, indented.
pub(super) fn json<T: Serialize>(value: &T) -> Result<String, Error> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::new(ErrorKind::Failed, "the report cannot be written as JSON").caused_by(error))?;
    Ok(text + "\n")
}

/// `value` as YAML.
pub(super) fn yaml<T: Serialize>(value: &T) -> Result<String, Error> {
    serde_yaml::to_string(value)
        .map_err(|error| Error::new(ErrorKind::Failed, "the report cannot be written as YAML").caused_by(error))
}

/// Writes a report to standard output. A reader that went away (`| head`) has what it wanted.
pub(super) fn write_report(report: &str) -> Result<(), Error> {
    write_to(&mut io::stdout().lock(), report)
}

fn write_to(out: &mut impl Write, report: &str) -> Result<(), Error> {
    match out.write_all(report.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let message = "the work is done, but its report cannot be written to standard output";
            Err(Error::new(ErrorKind::LocalIo, message).caused_by(error))
        }
        _ => Ok(()),
    }
}

/// Labels on the left, values on the right; a value may have several lines.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(String, String)>);

impl Fields {
    /// A row.
    pub(super) fn row(&mut self, label: &str, value: impl Into<String>) -> &mut Self {
        self.0.push((label.to_owned(), clean(&value.into())));
        self
    }

    /// A row, if there is something to say.
    pub(super) fn row_if(&mut self, label: &str, value: Option<impl Into<String>>) -> &mut Self {
        if let Some(value) = value {
            self.row(label, value);
        }
        self
    }

    /// One row for each value, the label only at the first.
    pub(super) fn rows<S: AsRef<str>>(&mut self, label: &str, values: &[S]) -> &mut Self {
        for (number, value) in values.iter().enumerate() {
            self.row(if number == 0 { label } else { "" }, value.as_ref());
        }
        self
    }
}

impl std::fmt::Display for Fields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let width = self.0.iter().map(|(label, _)| width(label)).max().unwrap_or(0);
        for (label, value) in &self.0 {
            let mut label = label.as_str();
            for line in value.split('\n') {
                writeln!(f, "{}", format!("{label:width$}  {line}").trim_end())?;
                label = "";
            }
        }
        Ok(())
    }
}

/// Which side of a column its texts lean on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows under headings.
#[derive(Debug)]
pub(super) struct Table {
    sides: Vec<Side>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub(super) fn new(columns: &[(&str, Side)]) -> Self {
        let heading = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        Self { sides: columns.iter().map(|(_, side)| *side).collect(), rows: vec![heading] }
    }

    /// A row, one text for each column.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| clean(&cell)).collect());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut widths = vec![0; self.sides.len()];
        for row in &self.rows {
            for (most, cell) in widths.iter_mut().zip(row) {
                *most = width(cell).max(*most);
            }
        }
        for row in &self.rows {
            let cells = row.iter().zip(&widths).zip(&self.sides).map(|((cell, &width), side)| match side {
                Side::Left => format!("{cell:<width$}"),
                Side::Right => format!("{cell:>width$}"),
            });
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// Letters, not bytes: names may hold any.
fn width(text: &str) -> usize {
    text.chars().count()
}

/// Takes out what a terminal would obey: names and messages come from servers and stores.
pub(super) fn clean(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' | '\t' => safe.push(letter),
            letter if letter.is_control() => safe.extend(letter.escape_default()),
            letter => safe.push(letter),
        }
    }
    safe
}

/// `2026-03-14 15:09:26 UTC`
pub(super) fn time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// `4m05s`; reports count whole seconds, so that 0 of them is not nothing.
pub(super) fn seconds(seconds: u64) -> String {
    match seconds {
        0 => "less than a second".to_owned(),
        seconds => format_duration(Duration::from_secs(seconds)),
    }
}

/// `1 page`, `2 pages`: digits as they are, so that they can be searched for.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// How much `part` is of `whole`, in percent with one digit. Nothing of nothing is not said.
pub(super) fn share(part: u64, whole: u64) -> Option<String> {
    let tenths = (u128::from(part) * 1000).checked_div(u128::from(whole))?;
    Some(format!("{}.{}%", tenths / 10, tenths % 10))
}

/// A GTID set for reading: one server's transactions a line.
pub(super) fn gtid_set(set: &str) -> String {
    let sources: Vec<&str> = set.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    if sources.is_empty() { "empty".to_owned() } else { sources.join(",\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_columns_are_aligned() {
        let mut fields = Fields::default();
        fields.row("Backup", "a").row("GTID set", "x:1,\ny:2").rows("Warning", &["one", "two"]);
        fields.row_if("Never", None::<String>);
        let wanted = "Backup    a\nGTID set  x:1,\n          y:2\nWarning   one\n          two\n";
        assert_eq!(fields.to_string(), wanted);

        let mut table = Table::new(&[("ID", Side::Left), ("READ", Side::Right), ("STATE", Side::Left)]);
        table.row(vec!["büro".into(), "3.0 GiB".into(), "Complete".into()]);
        table.row(vec!["a-long-one".into(), "812 B".into(), String::new()]);
        let wanted = "ID             READ  STATE\nbüro        3.0 GiB  Complete\na-long-one    812 B\n";
        assert_eq!(table.to_string(), wanted);
    }

    #[test]
    fn a_terminal_is_never_given_orders() {
        assert_eq!(clean("a\x1b[2Jb\r\nc\u{7}"), "a\\u{1b}[2Jb\\r\nc\\u{7}");
        let mut fields = Fields::default();
        fields.row("Name", "\x1b]0;x\u{7}");
        assert!(!fields.to_string().contains('\x1b'));
    }

    #[test]
    fn numbers_as_people_read_them() {
        assert_eq!(time(Timestamp::from_second(1_773_500_966).unwrap()), "2026-03-14 15:09:26 UTC");
        assert_eq!((seconds(0).as_str(), seconds(245).as_str()), ("less than a second", "4m05s"));
        assert_eq!(count(1, "page", "pages"), "1 page");
        assert_eq!(count(0, "page", "pages"), "0 pages");
        assert_eq!(share(1, 3).as_deref(), Some("33.3%"));
        assert_eq!(share(0, 0), None);
        assert_eq!(share(u64::MAX, u64::MAX).as_deref(), Some("100.0%"));
        assert_eq!(gtid_set(""), "empty");
        assert_eq!(gtid_set("a:1-3,\nb:1"), "a:1-3,\nb:1");
    }

    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_left_is_no_failure_and_a_full_disk_is() {
        assert!(write_to(&mut Failing(io::ErrorKind::BrokenPipe), "x").is_ok());
        let error = write_to(&mut Failing(io::ErrorKind::StorageFull), "x").unwrap_err();
        assert_eq!(error.kind, ErrorKind::LocalIo);
    }
}
