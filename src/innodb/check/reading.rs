//! A page as the checks read it: numbers at places, zero where there is no such place, so that what is read of a damaged
//! page is wrong and not a panic.

use crate::innodb::cursor::{u16_at, u32_at, u64_at};
use crate::innodb::page::{PageType, fil};

const WHAT: &str = "page";
/// No page.
pub const NONE: u32 = 0xFFFF_FFFF;

/// A page's bytes.
#[derive(Debug, Clone)]
pub struct Page(Vec<u8>);

/// A place in a tablespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// The page.
    pub page: u32,
    /// The byte on it.
    pub byte: u16,
}

impl Address {
    /// It names a place.
    pub fn some(self) -> Option<Self> {
        (self.page != NONE).then_some(self)
    }
}

/// The head of a list in a file: its length, its first and its last node.
#[derive(Debug, Clone, Copy)]
pub struct ListBase {
    pub len: u32,
    pub first: Option<Address>,
    pub last: Option<Address>,
}

impl Page {
    pub const fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn kind(&self) -> Option<PageType> {
        PageType::try_from(self.u16(fil::TYPE)).ok()
    }

    pub fn u16(&self, at: usize) -> u16 {
        u16_at(&self.0, at, WHAT).unwrap_or(0)
    }

    pub fn u32(&self, at: usize) -> u32 {
        u32_at(&self.0, at, WHAT).unwrap_or(0)
    }

    pub fn u64(&self, at: usize) -> u64 {
        u64_at(&self.0, at, WHAT).unwrap_or(0)
    }

    /// A place, `None` where it names no page.
    pub fn address(&self, at: usize) -> Option<Address> {
        Address { page: self.u32(at), byte: self.u16(at.saturating_add(4)) }.some()
    }

    /// The head of a list.
    pub fn list(&self, at: usize) -> ListBase {
        ListBase {
            len: self.u32(at),
            first: self.address(at.saturating_add(4)),
            last: self.address(at.saturating_add(10)),
        }
    }

    /// A node of a list: the one before and the one behind.
    pub fn node(&self, at: usize) -> (Option<Address>, Option<Address>) {
        (self.address(at), self.address(at.saturating_add(6)))
    }
}
