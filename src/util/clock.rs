//! The wall clock, read here and nowhere else.
//!
//! Code that decides something by time takes the time as an argument, so that a test can pass any; only the front
//! of a verb asks for it. Durations are measured with [`std::time::Instant`], never with this.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;

const COMPACT: &str = "%Y%m%dT%H%M%SZ";

/// The time, UTC, cut to the millisecond: finer digits would only make texts long.
pub fn now() -> Timestamp {
    from_system(system_now())
}

/// The time as files carry it.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub fn system_now() -> SystemTime {
    SystemTime::now()
}

/// Turns a file's time into ours; one that no calendar holds becomes the nearest that it does.
pub fn from_system(time: SystemTime) -> Timestamp {
    let milliseconds = match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    };
    let bounded = milliseconds.clamp(Timestamp::MIN.as_millisecond(), Timestamp::MAX.as_millisecond());
    Timestamp::from_millisecond(bounded).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// `20260314T150926Z`: a time that sorts as text and may stand in an object's key.
pub fn format_compact(time: Timestamp) -> String {
    time.strftime(COMPACT).to_string()
}

/// Reads what [`format_compact`] wrote, and nothing else.
pub fn parse_compact(text: &str) -> Option<Timestamp> {
    let civil = jiff::civil::DateTime::strptime(COMPACT, text).ok()?;
    let time = civil.to_zoned(TimeZone::UTC).ok()?.timestamp();
    // A lenient parse (spaces, missing zeros) must not make two spellings of one time.
    (format_compact(time) == text).then_some(time)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn compact_form_goes_both_ways() {
        let time = Timestamp::from_second(1_773_500_966).unwrap();
        assert_eq!(format_compact(time), "20260314T150926Z");
        assert_eq!(parse_compact("20260314T150926Z"), Some(time));
    }

    #[test]
    fn compact_form_has_one_spelling() {
        for bad in
            ["", "20260314T150926", "20260314t150926z", " 20260314T150926Z", "20260314T1509260Z", "20261314T150926Z"]
        {
            assert_eq!(parse_compact(bad), None, "{bad}");
        }
    }

    #[test]
    fn file_times_before_the_epoch() {
        let time = SystemTime::UNIX_EPOCH - Duration::from_millis(1500);
        assert_eq!(from_system(time).as_millisecond(), -1500);
    }

    #[test]
    fn the_clock_runs_in_this_century() {
        assert!(now().as_second() > 1_700_000_000);
        assert_eq!(now().subsec_nanosecond() % 1_000_000, 0);
    }
}
