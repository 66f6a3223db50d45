//! Records that write bytes, and those of undo and compressed pages (redo-records reference, sections 3, 6 and 8).
//!
//! ```text
//!   1, 2, 4 bytes   offset │ value, compressed            string     offset │ len │ bytes
//!   8 bytes         offset │ high, compressed │ low       undo       len │ bytes
//!   node pointer    offset │ zip offset │ 4 bytes         off-page   offset │ zip offset │ 20 bytes
//!   zip header      offset, 1 │ len, 1 │ bytes            zip page   size │ trailer │ prev │ next │ bytes │ trailer
//! ```

use serde::Serialize;

use super::bytes::Bytes;
use super::reader::{Fault, Reader, invalid};
use crate::innodb::ids::PageNo;

/// The header of a compressed page, which alone [`ZipWriteHeader`] changes.
const ZIP_HEADER: u8 = 94;
/// Levels that zlib has.
const MAX_LEVEL: u8 = 9;

/// Writes a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WriteNumber {
    /// Where on the page.
    pub offset: u16,
    /// Its size: 1, 2, 4 or 8.
    pub width: u8,
    /// The number.
    pub value: u64,
}

/// Writes bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WriteString<'a> {
    /// Where on the page.
    pub offset: u16,
    /// The bytes.
    pub bytes: Bytes<'a>,
}

/// What an undo log is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum UndoType {
    /// Inserts.
    Insert,
    /// Updates and deletions.
    Update,
}

/// Writes to a compressed page and its uncompressed twin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ZipWrite<'a> {
    /// Where on the uncompressed page.
    pub offset: u16,
    /// Where on the compressed one.
    pub zip_offset: u16,
    /// The bytes.
    pub bytes: Bytes<'a>,
}

/// Writes to the header of a compressed page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ZipWriteHeader<'a> {
    /// Where on the page.
    pub offset: u8,
    /// The bytes.
    pub bytes: Bytes<'a>,
}

/// A compressed page, whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ZipPage<'a> {
    /// Its left neighbour.
    pub prev: PageNo,
    /// Its right neighbour.
    pub next: PageNo,
    /// Its bytes from its type on.
    pub body: Bytes<'a>,
    /// Its last bytes.
    pub trailer: Bytes<'a>,
}

impl WriteNumber {
    pub(super) fn decode(reader: &mut Reader<'_>, width: u8) -> Result<Self, Fault> {
        let offset = reader.u16()?;
        if width == 8 {
            return Ok(Self { offset, width, value: reader.cu64()? });
        }
        let value = reader.cu32()?;
        let most = match width {
            1 => u32::from(u8::MAX),
            2 => u32::from(u16::MAX),
            _ => u32::MAX,
        };
        if value > most {
            return Err(invalid("number in a record", format!("{value} does not fit into {width} bytes")));
        }
        Ok(Self { offset, width, value: u64::from(value) })
    }
}

impl<'a> WriteString<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        Ok(Self { offset: reader.u16()?, bytes: sized(reader)? })
    }
}

impl UndoType {
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        match reader.cu32()? {
            1 => Ok(Self::Insert),
            2 => Ok(Self::Update),
            other => Err(invalid("type of an undo page", other.to_string())),
        }
    }
}

impl<'a> ZipWrite<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>, len: usize) -> Result<Self, Fault> {
        Ok(Self { offset: reader.u16()?, zip_offset: reader.u16()?, bytes: Bytes(reader.take(len)?) })
    }
}

impl<'a> ZipWriteHeader<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        let (offset, len) = (reader.u8()?, reader.u8()?);
        if len == 0 || offset.checked_add(len).is_none_or(|end| end > ZIP_HEADER) {
            return Err(invalid("header of a compressed page", format!("{len} bytes at {offset}")));
        }
        Ok(Self { offset, bytes: Bytes(reader.take(usize::from(len))?) })
    }
}

impl<'a> ZipPage<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        let (size, trailer) = (usize::from(reader.u16()?), usize::from(reader.u16()?));
        let (prev, next) = (PageNo(reader.u32()?), PageNo(reader.u32()?));
        Ok(Self { prev, next, body: Bytes(reader.take(size)?), trailer: Bytes(reader.take(trailer)?) })
    }
}

/// Bytes behind their length.
pub(super) fn sized<'a>(reader: &mut Reader<'a>) -> Result<Bytes<'a>, Fault> {
    let len = usize::from(reader.u16()?);
    reader.take(len).map(Bytes)
}

/// A compression level.
pub(super) fn level(reader: &mut Reader<'_>) -> Result<u8, Fault> {
    let level = reader.u8()?;
    if level > MAX_LEVEL {
        return Err(invalid("compression level", level.to_string()));
    }
    Ok(level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_must_fit_their_width() {
        let write = WriteNumber::decode(&mut Reader::new(&[0, 38, 0xFB, 0xFF]), 4).unwrap();
        assert_eq!(write, WriteNumber { offset: 38, width: 4, value: 0xFFFF_FFFF });
        assert!(matches!(WriteNumber::decode(&mut Reader::new(&[0, 38, 0x81, 0x00]), 1), Err(Fault::Bad(_))));
        let long = WriteNumber::decode(&mut Reader::new(&[0, 38, 1, 0, 0, 0, 2]), 8).unwrap();
        assert_eq!(long.value, 0x1_0000_0002);
    }

    #[test]
    fn zip_headers_stay_in_the_header() {
        assert!(ZipWriteHeader::decode(&mut Reader::new(&[92, 2, 1, 2])).is_ok());
        for bad in [[93, 2, 1, 2], [0, 0, 1, 2], [255, 255, 1, 2]] {
            assert!(matches!(ZipWriteHeader::decode(&mut Reader::new(&bad)), Err(Fault::Bad(_))), "{bad:?}");
        }
    }
}
