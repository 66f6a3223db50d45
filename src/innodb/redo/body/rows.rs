//! Records about the rows of index pages (redo-records reference, section 5).
//!
//! ```text
//!   insert     [row before, u16] │ L │ [info │ header size │ shared bytes] │ L/2 bytes       L odd: the brackets are there
//!   system     position of the transaction id │ roll pointer, 7 │ transaction id
//!   update     info │ n │ n × (field │ length, FFFFFFFF = NULL │ bytes)
//! ```

use serde::{Serialize, Serializer};

use super::bytes::Bytes;
use super::index::IndexInfo;
use super::reader::{Fault, Reader, bounded, invalid};

/// No page is larger, so no part of a row is.
const MAX_PART: u32 = 65536;
/// The rows of a full page with what is added to each.
const MAX_LIST: u32 = 4 * 65536;
/// More fields than any table has.
const MAX_UPDATES: u32 = 2048;
const NULL: u32 = 0xFFFF_FFFF;
const KEEP_SYSTEM: u8 = 4;

/// A row given as its difference to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RowImage<'a> {
    /// Where it differs in more than its bytes; else these are those of the other row.
    pub extra: Option<RowExtra>,
    /// Its bytes behind those that it shares.
    pub tail: Bytes<'a>,
}

/// What cannot be taken from the other row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RowExtra {
    /// Info bits and status.
    pub info_and_status: u8,
    /// Bytes of the row before its origin.
    pub header_size: u16,
    /// Leading bytes that it shares with the other row.
    pub shared: u16,
}

/// Inserts a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Insert<'a> {
    /// The index.
    pub index: IndexInfo<'a>,
    /// Origin of the row to insert behind.
    pub cursor: u16,
    /// The row, as its difference to that one.
    pub row: RowImage<'a>,
}

/// What every change of a row in a clustered index writes, unless told to keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SystemFields<'a> {
    /// The server's flags of the change.
    pub flags: u8,
    /// The transaction id's place among the fields.
    pub position: u16,
    /// The roll pointer.
    pub roll_pointer: Bytes<'a>,
    /// The transaction.
    pub transaction: u64,
}

/// Marks a row of a clustered index as deleted, or takes the mark away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClustDeleteMark<'a> {
    /// The index.
    pub index: IndexInfo<'a>,
    /// Deleted or not.
    pub deleted: bool,
    /// Who did it.
    pub system: SystemFields<'a>,
    /// Origin of the row.
    pub row: u16,
}

/// Names a row: to be deleted, or the end of those that are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RowAt<'a> {
    /// The index.
    pub index: IndexInfo<'a>,
    /// Origin of the row.
    pub row: u16,
}

/// Changes fields of a row that keep their size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateInPlace<'a> {
    /// The index.
    pub index: IndexInfo<'a>,
    /// Who did it.
    pub system: SystemFields<'a>,
    /// Origin of the row.
    pub row: u16,
    /// Info bits of the row afterwards.
    pub info_bits: u8,
    /// The new values.
    pub fields: FieldUpdates<'a>,
}

/// New values of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldUpdates<'a> {
    bytes: &'a [u8],
}

/// The new value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldUpdate<'a> {
    /// The field's number in the index.
    pub field: u32,
    /// The value; `None` for NULL.
    pub value: Option<Bytes<'a>>,
}

/// Rows for a page that was just made, each behind the former.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListCopy<'a> {
    /// The index.
    pub index: IndexInfo<'a>,
    /// The rows.
    pub rows: RowImages<'a>,
}

/// Several rows, each as its difference to the former.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowImages<'a> {
    bytes: &'a [u8],
}

impl<'a> RowImage<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        let length = reader.cu32()?;
        let extra = if length & 1 != 0 {
            Some(RowExtra {
                info_and_status: reader.u8()?,
                header_size: small(reader.cu32()?, "header of a row")?,
                shared: small(reader.cu32()?, "shared part of a row")?,
            })
        } else {
            None
        };
        let tail = Bytes(reader.take(bounded(length >> 1, "row", MAX_PART)?)?);
        Ok(Self { extra, tail })
    }
}

impl<'a> Insert<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        let index = IndexInfo::decode(reader)?;
        Ok(Self { index, cursor: reader.u16()?, row: RowImage::decode(reader)? })
    }
}

impl<'a> SystemFields<'a> {
    fn decode(flags: u8, reader: &mut Reader<'a>) -> Result<Self, Fault> {
        Ok(Self {
            flags,
            position: small(reader.cu32()?, "place of the transaction id")?,
            roll_pointer: Bytes(reader.take(7)?),
            transaction: reader.cu64()?,
        })
    }

    /// The row keeps the ones it has.
    pub const fn keeps(&self) -> bool {
        self.flags & KEEP_SYSTEM != 0
    }
}

impl<'a> ClustDeleteMark<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        let index = IndexInfo::decode(reader)?;
        let flags = reader.u8()?;
        let deleted = mark(reader.u8()?)?;
        Ok(Self { index, deleted, system: SystemFields::decode(flags, reader)?, row: reader.u16()? })
    }
}

impl<'a> RowAt<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        Ok(Self { index: IndexInfo::decode(reader)?, row: reader.u16()? })
    }
}

impl<'a> UpdateInPlace<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        let index = IndexInfo::decode(reader)?;
        let flags = reader.u8()?;
        let system = SystemFields::decode(flags, reader)?;
        let row = reader.u16()?;
        let info_bits = reader.u8()?;
        let count = bounded(reader.cu32()?, "fields of an update", MAX_UPDATES)?;
        let start = reader.at();
        for _ in 0..count {
            FieldUpdate::decode(reader)?;
        }
        Ok(Self { index, system, row, info_bits, fields: FieldUpdates { bytes: reader.since(start) } })
    }
}

impl<'a> FieldUpdate<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        let field = reader.cu32()?;
        let length = reader.cu32()?;
        if length == NULL {
            return Ok(Self { field, value: None });
        }
        let value = reader.take(bounded(length, "value of a field", MAX_PART)?)?;
        Ok(Self { field, value: Some(Bytes(value)) })
    }
}

impl<'a> FieldUpdates<'a> {
    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = FieldUpdate<'a>> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || (!reader.is_empty()).then(|| FieldUpdate::decode(&mut reader).ok())?)
    }
}

impl Serialize for FieldUpdates<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'a> ListCopy<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        let index = IndexInfo::decode(reader)?;
        let length = bounded(reader.u32()?, "rows of a page", MAX_LIST)?;
        let bytes = reader.take(length)?;
        let mut rows = Reader::new(bytes);
        while !rows.is_empty() {
            // All of them are here, so one that is cut short is damaged.
            RowImage::decode(&mut rows).map_err(|fault| match fault {
                Fault::Short => invalid("rows of a page", "the last is cut short"),
                bad @ Fault::Bad(_) => bad,
            })?;
        }
        Ok(Self { index, rows: RowImages { bytes } })
    }
}

impl<'a> RowImages<'a> {
    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = RowImage<'a>> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || (!reader.is_empty()).then(|| RowImage::decode(&mut reader).ok())?)
    }
}

impl Serialize for RowImages<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// Set or not: nothing else.
pub(super) fn mark(found: u8) -> Result<bool, Fault> {
    match found {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(invalid("delete mark", found.to_string())),
    }
}

/// A place or length on a page.
fn small(found: u32, what: &'static str) -> Result<u16, Fault> {
    u16::try_from(found).map_err(|_| invalid(what, found.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inserts_with_and_without_extra() {
        let bytes = [1, 0, 0, 101, 4, 7, 8];
        let insert = Insert::decode(&mut Reader::new(&bytes)).unwrap();
        assert_eq!((insert.cursor, insert.row.extra, insert.row.tail), (101, None, Bytes(&[7, 8])));
        let bytes = [1, 0, 0, 101, 5, 0x20, 6, 3, 7, 8];
        let insert = Insert::decode(&mut Reader::new(&bytes)).unwrap();
        assert_eq!(insert.row.extra, Some(RowExtra { info_and_status: 0x20, header_size: 6, shared: 3 }));
        assert_eq!(insert.row.tail, Bytes(&[7, 8]));
        for cut in 0..bytes.len() {
            assert_eq!(Insert::decode(&mut Reader::new(&bytes[..cut])), Err(Fault::Short));
        }
    }

    #[test]
    fn updates_with_null() {
        let bytes = [1, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 0, 9, 0, 126, 0x20, 2, 3, 0xFB, 0xFF, 4, 1, 0xEE];
        let update = UpdateInPlace::decode(&mut Reader::new(&bytes)).unwrap();
        assert_eq!((update.row, update.info_bits, update.system.transaction), (126, 0x20, 9));
        assert!(!update.system.keeps());
        let fields: Vec<_> = update.fields.iter().collect();
        assert_eq!(fields[0], FieldUpdate { field: 3, value: None });
        assert_eq!(fields[1], FieldUpdate { field: 4, value: Some(Bytes(&[0xEE])) });
    }

    #[test]
    fn lists_of_rows_end_exactly() {
        let bytes = [1, 0, 0, 0, 0, 5, 2, 7, 4, 8, 9];
        let copy = ListCopy::decode(&mut Reader::new(&bytes)).unwrap();
        assert_eq!(copy.rows.iter().map(|row| row.tail.0.len()).collect::<Vec<_>>(), [1, 2]);
        let bytes = [1, 0, 0, 0, 0, 4, 2, 7, 4, 8];
        assert!(matches!(ListCopy::decode(&mut Reader::new(&bytes)), Err(Fault::Bad(_))));
        let bytes = [1, 0, 0xFF, 0, 0, 4, 2, 7, 4, 8];
        assert!(matches!(ListCopy::decode(&mut Reader::new(&bytes)), Err(Fault::Bad(_))), "no page is that large");
    }
}
