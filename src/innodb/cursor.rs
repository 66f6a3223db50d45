//! Bounds-checked reading of big-endian fields: the only way this module touches bytes.

use super::FormatError;

/// The bytes `offset..offset + len` of `bytes`, or an error that names `what` is cut short.
pub fn slice<'a>(bytes: &'a [u8], offset: usize, len: usize, what: &'static str) -> Result<&'a [u8], FormatError> {
    offset.checked_add(len).and_then(|end| bytes.get(offset..end)).ok_or(FormatError::Truncated {
        what,
        needed: offset.saturating_add(len),
        got: bytes.len(),
    })
}

/// A fixed number of bytes at `offset`.
pub fn array<const N: usize>(bytes: &[u8], offset: usize, what: &'static str) -> Result<[u8; N], FormatError> {
    let found = slice(bytes, offset, N, what)?;
    found.try_into().map_err(|_| FormatError::Truncated { what, needed: N, got: found.len() })
}

/// A byte at `offset`.
pub fn u8_at(bytes: &[u8], offset: usize, what: &'static str) -> Result<u8, FormatError> {
    array::<1>(bytes, offset, what).map(|[byte]| byte)
}

/// A big-endian 16-bit number at `offset`.
pub fn u16_at(bytes: &[u8], offset: usize, what: &'static str) -> Result<u16, FormatError> {
    array(bytes, offset, what).map(u16::from_be_bytes)
}

/// A big-endian 32-bit number at `offset`.
pub fn u32_at(bytes: &[u8], offset: usize, what: &'static str) -> Result<u32, FormatError> {
    array(bytes, offset, what).map(u32::from_be_bytes)
}

/// A big-endian 64-bit number at `offset`.
pub fn u64_at(bytes: &[u8], offset: usize, what: &'static str) -> Result<u64, FormatError> {
    array(bytes, offset, what).map(u64::from_be_bytes)
}
