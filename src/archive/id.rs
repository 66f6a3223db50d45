//! Names of backups and of the runs that make them.
//!
//! ```text
//!   backup id    nightly-20260314T150926Z-1a2b3c4d     <name>-<UTC start>-<random>: names repeat, ids never
//!   attempt id   5f0c…  16 hex digits                  one per process that tries; part of every data object's key
//! ```

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use crate::util::clock::{format_compact, parse_compact};
use crate::util::names::check_label;

const RANDOM_DIGITS: usize = 8;
const ATTEMPT_DIGITS: usize = 16;

/// Returned for text that is no id or name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{text}\" is no {what}: it {why}")]
pub struct BadId {
    text: String,
    what: &'static str,
    why: &'static str,
}

/// A backup's id, unique forever.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId {
    text: String,
    name_len: usize,
    start: Timestamp,
}

impl BackupId {
    /// A new id for a backup of this name that starts at `start`.
    pub fn generate(name: &str, start: Timestamp) -> Result<Self, BadId> {
        format!("{name}-{}-{}", format_compact(start), random_hex(RANDOM_DIGITS)).parse()
    }

    /// The name given by the user.
    pub fn name(&self) -> &str {
        self.text.get(..self.name_len).unwrap_or_default()
    }

    /// When the backup began, to the second.
    pub fn start(&self) -> Timestamp {
        self.start
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Checks a name: lower-case letters, digits, dots and dashes, beginning and ending with a letter or digit.
pub fn check_name(name: &str) -> Result<(), BadId> {
    check_label(name).map_err(|why| BadId { text: name.to_owned(), what: "backup name", why })
}

impl FromStr for BackupId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = |why| BadId { text: text.to_owned(), what: "backup id", why };
        let mut parts = text.rsplitn(3, '-');
        let (Some(random), Some(time), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(bad("is not <name>-<time>-<random>"));
        };
        check_name(name)?;
        if random.len() != RANDOM_DIGITS || !is_lower_hex(random) {
            return Err(bad("has a random part that is not 8 hex digits"));
        }
        let start = parse_compact(time).ok_or_else(|| bad("has a time that is not like 20260314T150926Z"))?;
        Ok(Self { name_len: name.len(), text: text.to_owned(), start })
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// One try at making a backup.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(String);

impl AttemptId {
    /// A new one.
    pub fn generate() -> Self {
        Self(random_hex(ATTEMPT_DIGITS))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AttemptId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        if text.len() == ATTEMPT_DIGITS && is_lower_hex(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(BadId { text: text.to_owned(), what: "attempt id", why: "is not 16 hex digits" })
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

macro_rules! serde_as_text {
    ($($name:ident),+) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

serde_as_text!(BackupId, AttemptId);

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// `digits` random hex digits. Falls back on the process's hash seeds if the system has no randomness to give: ids
/// must differ, they guard nothing secret.
fn random_hex(digits: usize) -> String {
    use std::hash::{BuildHasher, RandomState};
    let mut bytes = [0_u8; 8];
    // Of the system: the library that draws keys first measures the machine for a source of its own, for 50 ms.
    if getrandom::fill(&mut bytes).is_err() {
        bytes = RandomState::new().hash_one(std::process::id()).to_be_bytes();
    }
    hex::encode(bytes).chars().take(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_written() {
        let start = Timestamp::from_second(1_773_500_966).unwrap();
        let id = BackupId::generate("my-db.nightly", start).unwrap();
        assert_eq!((id.name(), id.start()), ("my-db.nightly", start));
        assert_eq!(id.to_string().parse::<BackupId>().unwrap(), id);
        assert_ne!(BackupId::generate("a", start).unwrap(), BackupId::generate("a", start).unwrap());
        assert_eq!(AttemptId::generate().to_string().len(), 16);
    }

    #[test]
    fn other_text_is_refused() {
        for bad in [
            "",
            "a",
            "a-20260314T150926Z",
            "a-20260314T150926Z-1a2b3c4",
            "A-20260314T150926Z-1a2b3c4d",
            "a-2026-1a2b3c4d",
        ] {
            assert!(bad.parse::<BackupId>().is_err(), "{bad}");
        }
        for bad in ["", "-a", "a/b", "a..", "ü", "a b", &"a".repeat(201)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!("../../../../etc/".parse::<AttemptId>().is_err());
    }
}
