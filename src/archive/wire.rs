//! Bounds-checked reading and plain writing of the format's big-endian fields. Nothing else here touches bytes.

use std::borrow::Cow;

/// What is wrong with some bytes; the caller adds in which object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// For a reader.
    pub what: Cow<'static, str>,
    /// Not damaged: only newer than this code.
    pub unsupported: bool,
}

impl Malformed {
    /// Bytes that nobody wrote so.
    pub fn damaged(what: impl Into<Cow<'static, str>>) -> Self {
        Self { what: what.into(), unsupported: false }
    }

    /// Bytes that a later version may have written.
    pub fn unsupported(what: impl Into<Cow<'static, str>>) -> Self {
        Self { what: what.into(), unsupported: true }
    }
}

/// Bytes that are read from front to back.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Input<'a> {
    /// Reads `bytes`, which are called `what` in errors.
    pub fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or_else(|| Malformed::damaged(format!("the {} is cut short", self.what)))?;
        self.rest = rest;
        Ok(head)
    }

    /// The next bytes, a fixed number.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// A byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A 16-bit number.
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    /// A 32-bit number.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// A 64-bit number.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// A 128-bit number.
    pub fn u128(&mut self) -> Result<u128, Malformed> {
        self.array().map(u128::from_be_bytes)
    }

    /// A 32-bit number that counts something in memory.
    pub fn len_u32(&mut self) -> Result<usize, Malformed> {
        self.u32().map(to_len)
    }

    /// `len` bytes that must be zero.
    pub fn zeros(&mut self, len: usize) -> Result<(), Malformed> {
        if self.take(len)?.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        Err(Malformed::unsupported(format!("reserved bytes of the {} are in use", self.what)))
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Refuses bytes that are left over.
    pub fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Malformed::damaged(format!("the {} has {} bytes too many", self.what, self.rest.len())))
    }
}

/// Writing of fields at the end of a buffer.
pub trait Output {
    /// A 16-bit number.
    fn put_u16(&mut self, value: u16);
    /// A 32-bit number.
    fn put_u32(&mut self, value: u32);
    /// A 64-bit number.
    fn put_u64(&mut self, value: u64);
    /// Zero bytes.
    fn put_zeros(&mut self, len: usize);
    /// Bytes with their length (u32) before them. Those that are longer do not exist: paths and ids only.
    fn put_sized(&mut self, bytes: &[u8]);
}

impl Output for Vec<u8> {
    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_be_bytes());
    }

    fn put_zeros(&mut self, len: usize) {
        self.resize(self.len() + len, 0);
    }

    fn put_sized(&mut self, bytes: &[u8]) {
        self.put_u32(to_u32(bytes.len()));
        self.extend_from_slice(bytes);
    }
}

/// A 32-bit count as a length in memory; targets have at least 32 bits.
pub fn to_len(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// A length in memory as a 64-bit number.
pub fn to_u64(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// A length in memory that is known to be small.
pub fn to_u32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_and_the_end_is_checked() {
        let mut bytes = vec![7];
        bytes.put_u16(1);
        bytes.put_u32(2);
        bytes.put_u64(3);
        bytes.put_zeros(2);
        bytes.put_sized(b"ab");
        let mut input = Input::new(&bytes, "thing");
        assert_eq!((input.u8().unwrap(), input.u16().unwrap(), input.u32().unwrap()), (7, 1, 2));
        assert_eq!(input.u64().unwrap(), 3);
        input.zeros(2).unwrap();
        assert!(input.end().unwrap_err().what.contains("6 bytes too many"));
        let len = input.len_u32().unwrap();
        assert_eq!(input.take(len).unwrap(), b"ab");
        assert_eq!(input.u8().unwrap_err(), Malformed::damaged("the thing is cut short"));
        input.end().unwrap();
    }
}
