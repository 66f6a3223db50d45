//! Numbers that must not be mixed up: tablespaces, pages, page sizes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A tablespace's id (ranges: tablespace-files reference, section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SpaceId(pub u32);

impl SpaceId {
    /// The system tablespace, `ibdata1` and what follows it.
    pub const SYSTEM: Self = Self(0);
    /// `mysql.ibd`: the data dictionary.
    pub const DICTIONARY: Self = Self(0xFFFF_FFFE);
    /// `ibtmp1`: never backed up.
    pub const GLOBAL_TEMPORARY: Self = Self(0xFFFF_FFFD);
    /// The largest id of an undo tablespace: that of number 1 before its first truncation.
    const UNDO_MAX: u32 = 0xFFFF_FFEF;
    /// Undo tablespaces that there can be. Each truncation takes an id that is so much smaller.
    const UNDO_NUMBERS: u32 = 127;
    /// Ids that each of them may use up.
    const UNDO_IDS: u32 = 400_000;

    /// The number of an undo tablespace, 1 to 127, which it keeps when it is truncated and gets another id.
    pub const fn undo_number(self) -> Option<u32> {
        match Self::UNDO_MAX.checked_sub(self.0) {
            Some(below) if below < Self::UNDO_NUMBERS * Self::UNDO_IDS => (below % Self::UNDO_NUMBERS).checked_add(1),
            _ => None,
        }
    }
}

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A page's number in its tablespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PageNo(pub u32);

impl fmt::Display for PageNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One page of one tablespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId {
    /// The tablespace.
    pub space: SpaceId,
    /// The page in it.
    pub page: PageNo,
}

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {} of space {}", self.page, self.space)
    }
}

/// A page size in bytes: a power of two from 1 KiB (the smallest compressed page) to 64 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct PageSize(u32);

/// Returned for a page size that InnoDB does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("page size {0} is not a power of two from 1024 to 65536")]
pub struct BadPageSize(pub u32);

impl PageSize {
    /// The server's default, 16 KiB.
    pub const DEFAULT: Self = Self(16384);

    /// Checks and makes a page size of `bytes`.
    pub const fn new(bytes: u32) -> Result<Self, BadPageSize> {
        if bytes.is_power_of_two() && bytes >= 1024 && bytes <= 65536 {
            Ok(Self(bytes))
        } else {
            Err(BadPageSize(bytes))
        }
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u32 {
        self.0
    }

    /// The size in bytes, as a length in memory.
    #[expect(
        clippy::as_conversions,
        reason = "at most 65536, and usize has at least 32 bits on every supported target"
    )]
    pub const fn len(self) -> usize {
        self.0 as usize
    }

    /// Never: a page has bytes.
    pub const fn is_empty(self) -> bool {
        false
    }
}

impl TryFrom<u32> for PageSize {
    type Error = BadPageSize;

    fn try_from(bytes: u32) -> Result<Self, BadPageSize> {
        Self::new(bytes)
    }
}

impl From<PageSize> for u32 {
    fn from(size: PageSize) -> Self {
        size.0
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undo_tablespaces_keep_their_number() {
        // As seen: each truncation takes 127 off (tablespace-files reference, section 5).
        for id in [4_294_967_277, 4_294_967_150, 4_294_967_023] {
            assert_eq!(SpaceId(id).undo_number(), Some(3));
        }
        assert_eq!(SpaceId(0xFFFF_FFEF).undo_number(), Some(1));
        assert_eq!(SpaceId(0xFFFF_FFEF - 126).undo_number(), Some(127));
        for other in
            [SpaceId::SYSTEM, SpaceId::DICTIONARY, SpaceId::GLOBAL_TEMPORARY, SpaceId(0xFFFF_FFF0), SpaceId(77)]
        {
            assert_eq!(other.undo_number(), None);
        }
    }

    #[test]
    fn only_page_sizes_that_innodb_has() {
        for good in [1024, 2048, 4096, 8192, 16384, 32768, 65536] {
            assert_eq!(PageSize::new(good).unwrap().bytes(), good);
        }
        for bad in [0, 512, 4095, 12288, 131_072] {
            assert_eq!(PageSize::new(bad), Err(BadPageSize(bad)));
        }
    }
}
