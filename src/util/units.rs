//! Sizes and times as people write them: `64MiB`, `10M`, `90s`, and back.
//!
//! ```text
//!   K M G T P      powers of 1024, as MySQL's own options take them
//!   KiB MiB …      powers of 1024
//!   KB MB …        powers of 1000
//!   ms s m h d     times; a bare number is seconds
//! ```

use std::time::Duration;

/// Why a size or a time could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// No number in front.
    #[error("\"{0}\" does not begin with a number")]
    NoNumber(String),
    /// A unit that is none of ours.
    #[error("\"{text}\" has an unknown unit \"{unit}\", use one of {known}")]
    UnknownUnit {
        /// All that was given.
        text: String,
        /// The part after the number.
        unit: String,
        /// What would be right.
        known: &'static str,
    },
    /// More than a 64-bit number holds.
    #[error("\"{0}\" is too large")]
    TooLarge(String),
}

const BYTE_UNITS: &str = "B, K, M, G, T, P (or KiB, MiB, ...; KB, MB, ... for powers of 1000)";
const TIME_UNITS: &str = "ms, s, m, h, d";

/// Reads a number of bytes: `4096`, `64MiB`, `10M`, `1.5G`. Case does not matter.
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    let (number, unit) = split(text)?;
    let factor = byte_factor(&unit).ok_or_else(|| UnitError::UnknownUnit {
        text: text.to_owned(),
        unit: unit.clone(),
        known: BYTE_UNITS,
    })?;
    scale(text, &number, factor)
}

/// Reads a time: `30` (seconds), `500ms`, `90s`, `5m`, `1h`, `2d`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (number, unit) = split(text)?;
    let milliseconds = match unit.as_str() {
        "ms" => 1,
        "" | "s" | "sec" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(UnitError::UnknownUnit { text: text.to_owned(), unit, known: TIME_UNITS }),
    };
    scale(text, &number, milliseconds).map(Duration::from_millis)
}

/// Prints a number of bytes for a reader: `812 B`, `64.0 MiB`.
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut whole = bytes;
    let mut rest = 0;
    let mut name = "";
    for unit in UNITS {
        if whole < 1024 {
            break;
        }
        rest = whole % 1024;
        whole /= 1024;
        name = unit;
    }
    format!("{whole}.{} {name}", rest * 10 / 1024)
}

/// Prints a time for a reader: `740ms`, `12.3s`, `4m05s`, `2h03m`, `3d04h`.
pub fn format_duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => format!("{}ms", time.subsec_millis()),
        1..60 => format!("{seconds}.{}s", time.subsec_millis() / 100),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds / 3600 % 24),
    }
}

/// Bytes per second over a time, 0 when no time has passed.
pub fn rate(bytes: u64, time: Duration) -> u64 {
    let milliseconds = time.as_millis();
    if milliseconds == 0 {
        return 0;
    }
    u64::try_from(u128::from(bytes) * 1000 / milliseconds).unwrap_or(u64::MAX)
}

fn byte_factor(unit: &str) -> Option<u64> {
    let mut letters = unit.chars();
    let exponent = match letters.next() {
        None | Some('b') => return letters.next().is_none().then_some(1),
        Some(letter) => "kmgtp".find(letter)? + 1,
    };
    let base: u64 = match letters.as_str() {
        "" | "i" | "ib" => 1024,
        "b" => 1000,
        _ => return None,
    };
    base.checked_pow(u32::try_from(exponent).ok()?)
}

/// Cuts `1.5 GiB` into `1.5` and `gib`.
fn split(text: &str) -> Result<(String, String), UnitError> {
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    if !number.starts_with(|c: char| c.is_ascii_digit()) || number.matches('.').count() > 1 {
        return Err(UnitError::NoNumber(text.to_owned()));
    }
    Ok((number.to_owned(), unit.trim().to_ascii_lowercase()))
}

/// `number * factor` without going through floating point: a size must come out exact.
fn scale(text: &str, number: &str, factor: u64) -> Result<u64, UnitError> {
    let too_large = || UnitError::TooLarge(text.to_owned());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut value = whole.parse::<u128>().map_err(|_| too_large())?.checked_mul(u128::from(factor));
    let digits: String = fraction.chars().take(9).collect();
    if !digits.is_empty() {
        let places = u32::try_from(digits.len()).map_err(|_| too_large())?;
        let part = digits.parse::<u128>().map_err(|_| too_large())? * u128::from(factor) / 10_u128.pow(places);
        value = value.and_then(|value| value.checked_add(part));
    }
    value.and_then(|value| u64::try_from(value).ok()).ok_or_else(too_large)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("12b", 12),
            ("10M", 10 << 20),
            ("64MiB", 64 << 20),
            ("64 mib", 64 << 20),
            ("64mi", 64 << 20),
            ("1.5G", 3 << 29),
            ("2KB", 2000),
            ("3TB", 3_000_000_000_000),
            ("16383P", 16383 << 50),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn sizes_that_mean_nothing_are_refused() {
        assert_eq!(parse_bytes(""), Err(UnitError::NoNumber(String::new())));
        for bad in ["M", "-1", ".5G", "1.2.3", "ten"] {
            assert!(matches!(parse_bytes(bad), Err(UnitError::NoNumber(_))), "{bad}");
        }
        for bad in ["1X", "1bb", "1MiBs", "1 M B"] {
            assert!(matches!(parse_bytes(bad), Err(UnitError::UnknownUnit { .. })), "{bad}");
        }
        for bad in ["16384P", "99999999999999999999999999999999999999999"] {
            assert!(matches!(parse_bytes(bad), Err(UnitError::TooLarge(_))), "{bad}");
        }
    }

    #[test]
    fn times_as_people_write_them() {
        for (text, milliseconds) in
            [("30", 30_000), ("500ms", 500), ("0.5s", 500), ("5m", 300_000), ("1h", 3_600_000), ("2d", 172_800_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        assert!(parse_duration("5 fortnights").is_err());
    }

    #[test]
    fn printed_for_a_reader() {
        assert_eq!(format_bytes(812), "812 B");
        assert_eq!(format_bytes(64 << 20), "64.0 MiB");
        assert_eq!(format_bytes((3 << 29) + 1), "1.5 GiB");
        assert_eq!(format_bytes(u64::MAX), "15.9 EiB");
        assert_eq!(format_duration(Duration::from_millis(740)), "740ms");
        assert_eq!(format_duration(Duration::from_millis(12_390)), "12.3s");
        assert_eq!(format_duration(Duration::from_secs(245)), "4m05s");
        assert_eq!(format_duration(Duration::from_mins(123)), "2h03m");
        assert_eq!(format_duration(Duration::from_secs(274_000)), "3d04h");
    }

    #[test]
    fn rates() {
        assert_eq!(rate(1000, Duration::from_millis(500)), 2000);
        assert_eq!(rate(1000, Duration::ZERO), 0);
    }
}
