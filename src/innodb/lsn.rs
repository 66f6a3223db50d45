//! Log sequence numbers: the server's clock, counted in bytes of redo log.
//!
//! ```text
//!   LSN   ...|<------------- one log block, 512 bytes ------------->|...
//!             header 12 | payload 496                    | trailer 4
//!   A current LSN always points into the payload: offset 12..=507 of its block.
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Size of a redo log block in bytes (format 6, MySQL 8.0.30 to 9.7; redo-log reference, section 4).
pub const LOG_BLOCK_SIZE: u64 = 512;
/// Bytes of a block before its payload.
pub const LOG_BLOCK_HEADER: u64 = 12;
/// Bytes of a block after its payload.
pub const LOG_BLOCK_TRAILER: u64 = 4;

/// A log sequence number, in bytes since the log began (numbering starts at 8192).
///
/// In JSON an LSN is a decimal string: a number above 2^53 is not safe there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(u64);

impl Lsn {
    /// The LSN that no change has: pages never written carry it.
    pub const ZERO: Self = Self(0);

    /// Makes an LSN of its number.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The first LSN of the block that this one lies in.
    #[must_use]
    pub const fn block_start(self) -> Self {
        Self(self.0 & !(LOG_BLOCK_SIZE - 1))
    }

    /// Offset inside its block, in bytes, 0..512.
    pub const fn block_offset(self) -> u64 {
        self.0 & (LOG_BLOCK_SIZE - 1)
    }

    /// True where a server could report this as its current LSN: not in a block's header or trailer.
    pub const fn is_legal_end(self) -> bool {
        let offset = self.block_offset();
        self.0 >= 8192 && offset >= LOG_BLOCK_HEADER && offset < LOG_BLOCK_SIZE - LOG_BLOCK_TRAILER
    }

    /// This LSN moved on by `bytes` of log, or `None` past the end of the number range.
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// Bytes of log from `earlier` to here; 0 when `earlier` is later.
    pub const fn saturating_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Lsn {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_arithmetic() {
        let lsn = Lsn::new(8192 + 512 + 100);
        assert_eq!(lsn.block_start(), Lsn::new(8704));
        assert_eq!(lsn.block_offset(), 100);
        assert!(lsn.is_legal_end());
        assert!(!Lsn::new(8704).is_legal_end(), "points into a header");
        assert!(!Lsn::new(8704 + 508).is_legal_end(), "points into a trailer");
    }

    #[test]
    fn json_form_is_a_string() {
        let lsn = Lsn::new(u64::MAX);
        let json = serde_json::to_string(&lsn).unwrap();
        assert_eq!(json, "\"18446744073709551615\"");
        assert_eq!(serde_json::from_str::<Lsn>(&json).unwrap(), lsn);
        assert!(serde_json::from_str::<Lsn>("\"-1\"").is_err());
    }
}
