//! The bytes of a page, with checked access to big-endian numbers. Everything that `apply` reads or writes goes through
//! here: a place outside of the page is an error, never a panic.

use crate::innodb::FormatError;
use crate::innodb::cursor::{slice, u8_at, u16_at, u32_at, u64_at};
use crate::innodb::ids::PageSize;

const WHAT: &str = "page";

/// A page in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(Vec<u8>);

impl Frame {
    /// A page of zeros.
    pub fn zeroed(size: PageSize) -> Self {
        Self(vec![0; size.len()])
    }

    /// Its size in bytes.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// All its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// All its bytes, to be changed.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// The bytes `at..at + len`.
    pub fn slice(&self, at: usize, len: usize) -> Result<&[u8], FormatError> {
        slice(&self.0, at, len, WHAT)
    }

    /// A byte.
    pub fn u8(&self, at: usize) -> Result<u8, FormatError> {
        u8_at(&self.0, at, WHAT)
    }

    /// A 16-bit number.
    pub fn u16(&self, at: usize) -> Result<u16, FormatError> {
        u16_at(&self.0, at, WHAT)
    }

    /// A 16-bit number that is a place on the page, or a number of things on it.
    pub fn place(&self, at: usize) -> Result<usize, FormatError> {
        self.u16(at).map(usize::from)
    }

    /// A 32-bit number.
    pub fn u32(&self, at: usize) -> Result<u32, FormatError> {
        u32_at(&self.0, at, WHAT)
    }

    /// A 64-bit number.
    pub fn u64(&self, at: usize) -> Result<u64, FormatError> {
        u64_at(&self.0, at, WHAT)
    }

    /// Writes a byte.
    pub fn set_u8(&mut self, at: usize, value: u8) -> Result<(), FormatError> {
        self.write(at, &[value])
    }

    /// Writes a 16-bit number.
    pub fn set_u16(&mut self, at: usize, value: u16) -> Result<(), FormatError> {
        self.write(at, &value.to_be_bytes())
    }

    /// Writes a place, which must fit into 16 bits.
    pub fn set_place(&mut self, at: usize, value: usize) -> Result<(), FormatError> {
        let value = u16::try_from(value)
            .map_err(|_| FormatError::Invalid { what: "place on a page", why: format!("{value} does not fit") })?;
        self.set_u16(at, value)
    }

    /// Writes a 32-bit number.
    pub fn set_u32(&mut self, at: usize, value: u32) -> Result<(), FormatError> {
        self.write(at, &value.to_be_bytes())
    }

    /// Writes a 64-bit number.
    pub fn set_u64(&mut self, at: usize, value: u64) -> Result<(), FormatError> {
        self.write(at, &value.to_be_bytes())
    }

    /// Writes bytes.
    pub fn write(&mut self, at: usize, bytes: &[u8]) -> Result<(), FormatError> {
        self.part(at, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    /// Moves bytes to another place; the two may overlap.
    pub fn shift(&mut self, from: usize, to: usize, len: usize) -> Result<(), FormatError> {
        self.slice(from, len)?;
        self.part(to, len)?;
        self.0.copy_within(from..from.saturating_add(len), to);
        Ok(())
    }

    /// Fills `from..to` with a byte. Nothing happens where `to` is not behind `from`.
    pub fn fill(&mut self, from: usize, to: usize, byte: u8) -> Result<(), FormatError> {
        self.part(from, to.saturating_sub(from))?.fill(byte);
        Ok(())
    }

    fn part(&mut self, at: usize, len: usize) -> Result<&mut [u8], FormatError> {
        let got = self.0.len();
        let end = at.saturating_add(len);
        self.0.get_mut(at..end).ok_or(FormatError::Truncated { what: WHAT, needed: end, got })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_outside_are_errors() {
        let mut frame = Frame::zeroed(PageSize::new(4096).unwrap());
        frame.set_u64(4088, 7).unwrap();
        assert_eq!(frame.u64(4088), Ok(7));
        assert!(frame.set_u64(4089, 7).is_err() && frame.u16(4095).is_err() && frame.u8(usize::MAX).is_err());
        assert!(frame.write(usize::MAX, &[1, 2]).is_err() && frame.fill(4000, 4097, 1).is_err());
        assert!(frame.set_place(0, 65536).is_err());
        frame.fill(10, 5, 1).unwrap();
        assert_eq!(frame.u64(4088), Ok(7));
    }
}
