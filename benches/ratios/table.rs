//! The result: rows of two measurements and their ratio, as Markdown.

use std::fmt;
use std::time::Duration;

/// What a ratio should be.
#[derive(Debug, Clone, Copy)]
enum Target {
    Most(f64),
    Least(f64),
}

/// One comparison.
#[derive(Debug)]
pub struct Row {
    own: String,
    own_value: String,
    other: String,
    other_value: String,
    ratio: f64,
    target: Option<Target>,
    bytes: Option<u64>,
    /// The times behind the values, to print rates.
    times: Option<(Duration, Duration)>,
}

impl Row {
    /// Two times: the smaller the ratio, the better. A target is the most that the ratio may be.
    pub fn times(own: &str, own_time: Duration, other: &str, other_time: Duration, target: Option<f64>) -> Self {
        Self {
            own: own.to_owned(),
            own_value: format!("{:.2} s", own_time.as_secs_f64()),
            other: other.to_owned(),
            other_value: format!("{:.2} s", other_time.as_secs_f64()),
            ratio: own_time.as_secs_f64() / other_time.as_secs_f64(),
            target: target.map(Target::Most),
            bytes: None,
            times: Some((own_time, other_time)),
        }
    }

    /// Two rates: the larger the ratio, the better. A target is the least that the ratio may be.
    pub fn rates(own: &str, own_rate: f64, other: &str, other_rate: f64, target: Option<f64>) -> Self {
        Self {
            own: own.to_owned(),
            own_value: format!("{own_rate:.0}/s"),
            other: other.to_owned(),
            other_value: format!("{other_rate:.0}/s"),
            ratio: own_rate / other_rate,
            target: target.map(Target::Least),
            bytes: None,
            times: None,
        }
    }

    /// An amount and the most that it may be.
    pub fn amount(own: &str, value: f64, unit: &str, most: f64) -> Self {
        Self {
            own: own.to_owned(),
            own_value: format!("{value:.0} {unit}"),
            other: "limit".to_owned(),
            other_value: format!("{most:.0} {unit}"),
            ratio: value / most,
            target: Some(Target::Most(1.0)),
            bytes: None,
            times: None,
        }
    }

    /// Both sides worked on so many bytes: print rates too.
    pub fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }

    fn value(&self, own: bool) -> String {
        let text = if own { &self.own_value } else { &self.other_value };
        let time = self.times.map(|(mine, theirs)| if own { mine } else { theirs });
        match self.bytes.zip(time) {
            Some((bytes, time)) => format!("{text} ({:.0} MB/s)", bytes as f64 / 1e6 / time.as_secs_f64()),
            None => text.clone(),
        }
    }

    fn verdict(&self) -> String {
        let (reached, text) = match self.target {
            None => return "none".to_owned(),
            Some(Target::Most(most)) => (self.ratio <= most, format!("at most {most}")),
            Some(Target::Least(least)) => (self.ratio >= least, format!("at least {least}")),
        };
        format!("{text}: {}", if reached { "reached" } else { "**missed**" })
    }
}

/// All comparisons.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
}

impl Table {
    pub fn push(&mut self, row: Row) {
        self.rows.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| Stillframe | measured | compared with | measured | ratio | target |")?;
        writeln!(f, "| --- | ---: | --- | ---: | ---: | --- |")?;
        for row in &self.rows {
            let (own, other) = (row.value(true), row.value(false));
            writeln!(f, "| {} | {own} | {} | {other} | {:.2} | {} |", row.own, row.other, row.ratio, row.verdict())?;
        }
        Ok(())
    }
}
