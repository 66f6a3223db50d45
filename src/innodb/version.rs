//! Server versions, and what is known of each: the one place where a version changes anything.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A MySQL server version, without the vendor's suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerVersion {
    /// First number.
    pub major: u8,
    /// Second number.
    pub minor: u8,
    /// Third number.
    pub patch: u8,
}

/// How far a version can be trusted to be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// A recorded test run covers it.
    Tested,
    /// Its formats are the known ones, but no test run covers it.
    Untested,
    /// It is refused, for this reason.
    Unsupported(&'static str),
}

impl ServerVersion {
    /// The version `major.minor.patch`.
    pub const fn new(major: u8, minor: u8, patch: u8) -> Self {
        Self { major, minor, patch }
    }

    /// What is known of this version. Redo format 6 is written by 8.0.30 to 9.7 (redo-log reference, section 1).
    pub const fn support(self) -> Support {
        match (self.major, self.minor, self.patch) {
            (9, 7, _) => Support::Tested,
            (8, 0, 30..) | (8, 4, _) | (9, 0..=6, _) => Support::Untested,
            (8, 0, _) => Support::Unsupported("its redo log has an older format; 8.0.30 is the first that is known"),
            (0..=7, ..) => Support::Unsupported("it is older than MySQL 8.0.30"),
            (10.., ..) => Support::Unsupported("it is no MySQL version that is known; MariaDB has other formats"),
            _ => Support::Unsupported(
                "it is newer than the versions that are known, or an innovation release between them",
            ),
        }
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Returned for text that does not begin with three numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no server version")]
pub struct BadVersion(String);

impl FromStr for ServerVersion {
    type Err = BadVersion;

    /// Takes what servers say of themselves: `9.7.4-2`, `8.0.36-28`, `8.4.2`.
    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let bad = || BadVersion(text.to_owned());
        let numbers = text.split(|c: char| c != '.' && !c.is_ascii_digit()).next().unwrap_or_default();
        let mut parts = numbers.split('.').map(str::parse::<u8>);
        let mut next = || parts.next().and_then(Result::ok).ok_or_else(bad);
        Ok(Self { major: next()?, minor: next()?, patch: next()? })
    }
}

impl Serialize for ServerVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ServerVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendors_suffixes_are_ignored() {
        assert_eq!("9.7.4-2".parse(), Ok(ServerVersion::new(9, 7, 4)));
        assert_eq!("8.0.36-28".parse(), Ok(ServerVersion::new(8, 0, 36)));
        assert!("10.11".parse::<ServerVersion>().is_err());
        assert!("".parse::<ServerVersion>().is_err());
    }

    #[test]
    fn only_9_7_is_tested() {
        assert_eq!(ServerVersion::new(9, 7, 4).support(), Support::Tested);
        for untested in [(8, 0, 30), (8, 4, 0), (9, 0, 1), (9, 6, 0)] {
            assert_eq!(ServerVersion::new(untested.0, untested.1, untested.2).support(), Support::Untested);
        }
        for refused in [(5, 7, 44), (8, 0, 29), (8, 1, 0), (9, 8, 0), (10, 11, 2)] {
            let support = ServerVersion::new(refused.0, refused.1, refused.2).support();
            assert!(matches!(support, Support::Unsupported(_)), "{refused:?}");
        }
    }
}
