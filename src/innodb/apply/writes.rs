//! Plain writes: numbers and bytes, at the same place of a page and of its compressed twin (redo-records reference,
//! section 6).

use super::page::PageBuffer;
use crate::innodb::FormatError;
use crate::innodb::redo::body::writes::{WriteNumber, WriteString};

/// Writes a number.
pub fn number(page: &mut PageBuffer, write: &WriteNumber) -> Result<(), FormatError> {
    let bytes = write.value.to_be_bytes();
    let from = bytes.len().saturating_sub(usize::from(write.width));
    page.write(usize::from(write.offset), bytes.get(from..).unwrap_or_default())
}

/// Writes bytes.
pub fn string(page: &mut PageBuffer, write: &WriteString<'_>) -> Result<(), FormatError> {
    page.write(usize::from(write.offset), write.bytes.0)
}
