//! Reading the parts of a record: plain and compressed numbers, runs of bytes (redo-records reference, section 1).
//!
//! ```text
//!   0xxxxxxx 7 bits │ 10… 14 │ 110… 21 │ 1110… 28 │ F0 + 4 bytes │ F8..FB, FC..FD, FE: 10, 17, 24 low bits, ones above
//! ```
//! A body has no length of its own, so "there are too few bytes" is no damage here: more may come.

use crate::innodb::FormatError;

/// Why a part could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is not all there yet.
    Short,
    /// It is not what a server writes, or not known.
    Bad(FormatError),
}

impl From<FormatError> for Fault {
    fn from(error: FormatError) -> Self {
        Self::Bad(error)
    }
}

/// Bytes that contradict themselves.
pub fn invalid(what: &'static str, why: impl Into<String>) -> Fault {
    Fault::Bad(FormatError::Invalid { what, why: why.into() })
}

/// A number, flag or kind that is not known.
pub fn unsupported(what: &'static str, found: impl std::fmt::Display) -> Fault {
    Fault::Bad(FormatError::Unsupported { what, found: found.to_string() })
}

/// A place in a run of bytes, moved on by what is read.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub const fn at(&self) -> usize {
        self.at
    }

    /// Nothing is left.
    pub const fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let end = self.at.checked_add(len).ok_or(Fault::Short)?;
        let taken = self.bytes.get(self.at..end).ok_or(Fault::Short)?;
        self.at = end;
        Ok(taken)
    }

    /// The bytes read since the place `from`.
    pub fn since(&self, from: usize) -> &'a [u8] {
        self.bytes.get(from..self.at).unwrap_or_default()
    }

    /// A fixed number of bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.take(N)?.try_into().map_err(|_| Fault::Short)
    }

    /// A byte.
    pub fn u8(&mut self) -> Result<u8, Fault> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, Fault> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_be_bytes)
    }

    /// A compressed 32-bit number.
    pub fn cu32(&mut self) -> Result<u32, Fault> {
        let first = self.u8()?;
        let (mask, more, above) = match first {
            0x00..=0x7F => return Ok(u32::from(first)),
            0x80..=0xBF => (0x3F, 1, 0),
            0xC0..=0xDF => (0x1F, 2, 0),
            0xE0..=0xEF => (0x0F, 3, 0),
            0xF0 => return self.u32(),
            0xF8..=0xFB => (0x03, 1, 0xFFFF_FC00),
            0xFC | 0xFD => (0x01, 2, 0xFFFE_0000),
            0xFE => (0, 3, 0xFF00_0000),
            _ => return Err(invalid("compressed number", format!("it begins with {first:#04x}"))),
        };
        let rest = self.take(more)?.iter().fold(u32::from(first & mask), |sum, &byte| (sum << 8) | u32::from(byte));
        Ok(rest | above)
    }

    /// A compressed 64-bit number: its high half compressed, its low half plain.
    pub fn cu64(&mut self) -> Result<u64, Fault> {
        let high = self.cu32()?;
        let low = self.u32()?;
        Ok((u64::from(high) << 32) | u64::from(low))
    }

    /// A 64-bit number of which both halves are compressed, and a zero high half is left out.
    pub fn cu64_much(&mut self) -> Result<u64, Fault> {
        if self.bytes.get(self.at) != Some(&0xFF) {
            return self.cu32().map(u64::from);
        }
        self.u8()?;
        let high = self.cu32()?;
        let low = self.cu32()?;
        Ok((u64::from(high) << 32) | u64::from(low))
    }

    /// A length of at most `limit`, as a compressed number.
    pub fn cu32_len(&mut self, what: &'static str, limit: u32) -> Result<usize, Fault> {
        bounded(self.cu32()?, what, limit)
    }
}

/// A length that may be `limit` at most: nothing is waited for that no page could hold.
pub fn bounded(len: u32, what: &'static str, limit: u32) -> Result<usize, Fault> {
    if len > limit {
        return Err(invalid(what, format!("{len} bytes, {limit} are the most")));
    }
    usize::try_from(len).map_err(|_| invalid(what, format!("{len} bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_numbers_as_the_server_writes_them() {
        let cases: [(&[u8], u32); 12] = [
            (&[0x00], 0),
            (&[0x7F], 0x7F),
            (&[0x80, 0x80], 0x80),
            (&[0xBF, 0xFF], 0x3FFF),
            (&[0xC0, 0x40, 0x00], 0x4000),
            (&[0xE0, 0x20, 0x00, 0x00], 0x20_0000),
            (&[0xF0, 0x10, 0x00, 0x00, 0x00], 0x1000_0000),
            (&[0xFB, 0xFF], 0xFFFF_FFFF),
            (&[0xF8, 0x00], 0xFFFF_FC00),
            (&[0xFD, 0xFB, 0xFF], 0xFFFF_FBFF),
            (&[0xFE, 0xFD, 0xFF, 0xFF], 0xFFFD_FFFF),
            (&[0xFB, 0xEF], 0xFFFF_FFEF),
        ];
        for (bytes, value) in cases {
            let mut reader = Reader::new(bytes);
            assert_eq!(reader.cu32(), Ok(value), "{bytes:02x?}");
            assert!(reader.is_empty());
            for cut in 0..bytes.len() {
                assert_eq!(Reader::new(&bytes[..cut]).cu32(), Err(Fault::Short));
            }
        }
        for first in (0xF1..=0xF7).chain([0xFF]) {
            assert!(matches!(Reader::new(&[first, 0, 0, 0, 0]).cu32(), Err(Fault::Bad(_))), "{first:#x}");
        }
    }

    #[test]
    fn long_numbers() {
        assert_eq!(Reader::new(&[0x01, 0, 0, 0, 2]).cu64(), Ok(0x1_0000_0002));
        assert_eq!(Reader::new(&[0x05]).cu64_much(), Ok(5));
        assert_eq!(Reader::new(&[0xFF, 0x01, 0x02]).cu64_much(), Ok(0x1_0000_0002));
        assert_eq!(Reader::new(&[0xFF, 0x01]).cu64_much(), Err(Fault::Short));
        assert_eq!(Reader::new(&[]).cu64_much(), Err(Fault::Short));
        assert!(matches!(Reader::new(&[0x81, 0x00]).cu32_len("x", 255), Err(Fault::Bad(_))));
    }
}
