//! Records about files and tables: what happens beside the pages (redo-records reference, sections 7 and 9.1).
//!
//! ```text
//!   create   flags │ len │ path\0          rename   len │ from\0 │ len │ to\0
//!   delete   len │ path\0                  extend   offset, 8 │ bytes, 8
//!   metadata table │ version │ 1 │ n │ n × (space, index)       corrupted indexes
//!                              2 │ last value                   AUTO_INCREMENT
//! ```
//! Paths are relative to the data directory or absolute, and end with one zero byte, which is left out here.

use serde::{Serialize, Serializer};

use super::bytes::FileName;
use super::reader::{Fault, Reader, invalid, unsupported};
use crate::innodb::ids::SpaceId;

/// The shortest path a server writes: a letter and `.ibd`.
const MIN_PATH: usize = 5;

/// A tablespace's file was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileCreate<'a> {
    /// Flags of the tablespace.
    pub flags: u32,
    /// Its path.
    pub path: FileName<'a>,
}

/// A tablespace's file was renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileRename<'a> {
    /// Its path before.
    pub from: FileName<'a>,
    /// Its path since.
    pub to: FileName<'a>,
}

/// A tablespace's file was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileDelete<'a> {
    /// Its path.
    pub path: FileName<'a>,
}

/// A tablespace's file was extended with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileExtend {
    /// Where the zeros begin, in bytes.
    pub offset: u64,
    /// How many they are.
    pub bytes: u64,
}

/// Metadata of a table that the dictionary does not have yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DynamicMeta<'a> {
    /// The table's id.
    pub table: u64,
    /// The version of its metadata.
    pub version: u64,
    /// What is to be kept.
    pub metadata: Metadata<'a>,
}

/// A piece of a table's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Metadata<'a> {
    /// These indexes are corrupt.
    CorruptIndexes(IndexIds<'a>),
    /// The last value that `AUTO_INCREMENT` gave.
    AutoIncrement(u64),
}

/// Ids of indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexIds<'a> {
    bytes: &'a [u8],
}

const INDEX_ID_SIZE: usize = 12;

impl<'a> FileCreate<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        Ok(Self { flags: reader.u32()?, path: path(reader)? })
    }
}

impl<'a> FileRename<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        Ok(Self { from: path(reader)?, to: path(reader)? })
    }
}

impl<'a> FileDelete<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        Ok(Self { path: path(reader)? })
    }
}

impl FileExtend {
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let (offset, bytes) = (reader.u64()?, reader.u64()?);
        if offset.checked_add(bytes).is_none() {
            return Err(invalid("extension of a file", format!("{bytes} bytes at {offset}")));
        }
        Ok(Self { offset, bytes })
    }
}

impl<'a> DynamicMeta<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        let (table, version) = (reader.cu64_much()?, reader.cu64_much()?);
        let metadata = match reader.u8()? {
            1 => {
                let count = usize::from(reader.u8()?);
                if count == 0 {
                    return Err(invalid("metadata of a table", "it names no corrupt index"));
                }
                Metadata::CorruptIndexes(IndexIds { bytes: reader.take(count.saturating_mul(INDEX_ID_SIZE))? })
            }
            2 => Metadata::AutoIncrement(reader.cu64_much()?),
            other => return Err(unsupported("metadata of a table, type", other)),
        };
        Ok(Self { table, version, metadata })
    }
}

impl<'a> IndexIds<'a> {
    /// One by one, each with its tablespace.
    pub fn iter(&self) -> impl Iterator<Item = (SpaceId, u64)> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || Some((SpaceId(reader.u32().ok()?), reader.u64().ok()?)))
    }
}

impl Serialize for IndexIds<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// A path: its length with the zero byte, then itself.
fn path<'a>(reader: &mut Reader<'a>) -> Result<FileName<'a>, Fault> {
    let length = usize::from(reader.u16()?);
    if length < MIN_PATH {
        return Err(invalid("path of a file", format!("{length} bytes")));
    }
    match reader.take(length)? {
        [name @ .., 0] if !name.contains(&0) => Ok(FileName(name)),
        other => {
            Err(invalid("path of a file", format!("\"{}\" does not end with its one zero byte", other.escape_ascii())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_bytes() {
        let bytes = b"\0\x0B./d/\xFFt.ibd\0\0\x0A./d/u.ibd\0";
        let rename = FileRename::decode(&mut Reader::new(bytes)).unwrap();
        assert_eq!(rename.from, FileName(b"./d/\xFFt.ibd"));
        assert_eq!(serde_json::to_string(&rename).unwrap(), r#"{"from":"./d/\\xfft.ibd","to":"./d/u.ibd"}"#);
        for bad in [&b"\0\x04.ib\0"[..], b"\0\x06a.ibdx", b"\0\x07a\0.ibd\0"] {
            assert!(matches!(FileDelete::decode(&mut Reader::new(bad)), Err(Fault::Bad(_))), "{bad:?}");
        }
    }

    #[test]
    fn metadata_of_tables() {
        let auto = DynamicMeta::decode(&mut Reader::new(&[0x84, 0x2C, 0, 2, 0x82, 0x58])).unwrap();
        assert_eq!(auto, DynamicMeta { table: 1068, version: 0, metadata: Metadata::AutoIncrement(600) });
        let corrupt =
            DynamicMeta::decode(&mut Reader::new(&[9, 1, 1, 1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 77])).unwrap();
        let Metadata::CorruptIndexes(ids) = corrupt.metadata else { panic!("not that") };
        assert_eq!(ids.iter().collect::<Vec<_>>(), [(SpaceId(5), 77)]);
        assert!(matches!(DynamicMeta::decode(&mut Reader::new(&[9, 1, 3])), Err(Fault::Bad(_))));
    }
}
