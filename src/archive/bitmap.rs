//! Bitmaps of a frame's units.

use super::wire::Malformed;

/// One bit a unit, least significant first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap(pub Vec<u8>);

impl Bitmap {
    /// No bit set.
    pub fn new(units: usize) -> Self {
        Self(vec![0; units.div_ceil(8)])
    }

    /// Takes the bytes of a bitmap of so many units.
    pub fn decode(bytes: &[u8], units: usize) -> Result<Self, Malformed> {
        let bitmap = Self(bytes.to_vec());
        if (units..bytes.len() * 8).any(|unit| bitmap.get(unit)) {
            return Err(Malformed::damaged("a bitmap has bits past the last unit"));
        }
        Ok(bitmap)
    }

    /// Sets a bit.
    pub fn set(&mut self, unit: usize) {
        if let Some(byte) = self.0.get_mut(unit / 8) {
            *byte |= 1 << (unit % 8);
        }
    }

    /// Whether a bit is set.
    pub fn get(&self, unit: usize) -> bool {
        self.0.get(unit / 8).is_some_and(|byte| byte & (1 << (unit % 8)) != 0)
    }

    /// Number of bits set.
    pub fn count(&self) -> u32 {
        self.0.iter().map(|byte| byte.count_ones()).sum()
    }
}

/// Runs of set bits: first, count.
#[derive(Clone)]
pub struct Runs<'a> {
    bits: &'a Bitmap,
    units: usize,
    at: usize,
}

impl<'a> Runs<'a> {
    /// Of the first `units` bits.
    pub fn new(bits: &'a Bitmap, units: usize) -> Self {
        Self { bits, units, at: 0 }
    }
}

impl Iterator for Runs<'_> {
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        let first = (self.at..self.units).find(|unit| self.bits.get(*unit))?;
        let end = (first..self.units).find(|unit| !self.bits.get(*unit)).unwrap_or(self.units);
        self.at = end;
        Some((first, end - first))
    }
}
