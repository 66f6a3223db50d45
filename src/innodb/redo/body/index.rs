//! The description of an index that records carry, so that pages can be understood without the dictionary (version 1,
//! MySQL 8.0.30 to 9.7; redo-records reference, section 4).
//!
//! ```text
//!   1 version │ 1 flags │ n │ core │ unique │ n × field │ k │ k × (logical, physical [, added] [, dropped])
//!                         └ C,V ┘└ C∧I ┘└─── C ────────┘└────────────────── V ───────────────────────┘
//!   flags: 1 C compact, 2 V has row versions, 4 I has columns added at once before 8.0.29
//! ```
//! Checked as a whole when it is decoded, kept as bytes: few different ones are repeated millions of times.

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::reader::{Fault, Reader, invalid, unsupported};

const WHAT: &str = "index description";
const VERSION: u8 = 1;
/// More fields than this has no index: 1017 columns, the system's, and the parts of its key.
const MAX_FIELDS: u16 = 1023 + 16;
const NOT_NULL: u16 = 0x8000;
const BIG: u16 = 0x7FFF;
const ADDED: u16 = 0x8000;
const DROPPED: u16 = 0x4000;
const POSITION: u16 = 0x3FFF;

/// Which kind of rows an index has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IndexFlags(u8);

impl IndexFlags {
    const COMPACT: u8 = 1;
    const VERSIONED: u8 = 2;
    const INSTANT: u8 = 4;

    /// Rows are in the new format: any but `REDUNDANT`.
    pub const fn is_compact(self) -> bool {
        self.0 & Self::COMPACT != 0
    }

    /// Columns were added or dropped at once since 8.0.29: rows carry a version.
    pub const fn is_versioned(self) -> bool {
        self.0 & Self::VERSIONED != 0
    }

    /// Columns were added at once before 8.0.29: rows carry their number of fields.
    pub const fn is_instant(self) -> bool {
        self.0 & Self::INSTANT != 0
    }
}

/// How a field is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum FieldWidth {
    /// So many bytes, always.
    Fixed(u16),
    /// At most 255 bytes: its length takes one byte.
    Variable,
    /// More than that, or a large object: its length takes one or two bytes.
    Big,
}

/// One field of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IndexField {
    /// It can be NULL.
    pub nullable: bool,
    /// How it is stored.
    pub width: FieldWidth,
}

/// A field that was added or dropped at once, or moved by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionedField {
    /// Its number in the description.
    pub logical: u16,
    /// Its place in a row.
    pub physical: u16,
    /// The row version that brought it.
    pub added: Option<u8>,
    /// The row version that took it away.
    pub dropped: Option<u8>,
}

/// The description of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexInfo<'a> {
    /// What its rows are like.
    pub flags: IndexFlags,
    /// Number of fields, with dropped ones; 1 where rows say it themselves (`REDUNDANT` without versions).
    pub field_count: u16,
    /// Fields before the first that was added at once before 8.0.29.
    pub core_count: Option<u16>,
    /// Fields that make a row unique.
    pub unique_count: u16,
    /// All its bytes: equal for equal descriptions.
    pub bytes: &'a [u8],
    fields: &'a [u8],
    versioned: &'a [u8],
}

impl<'a> IndexInfo<'a> {
    /// Decodes and checks it.
    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        let start = reader.at();
        let version = reader.u8()?;
        if version != VERSION {
            return Err(unsupported("version of the index description", version));
        }
        let raw = reader.u8()?;
        if raw & !(IndexFlags::COMPACT | IndexFlags::VERSIONED | IndexFlags::INSTANT) != 0 {
            return Err(unsupported("flags of the index description", format!("{raw:#04x}")));
        }
        let flags = IndexFlags(raw);
        let (mut field_count, mut unique_count, mut core_count) = (1, 1, None);
        let (mut fields, mut versioned): (&[u8], &[u8]) = (&[], &[]);
        if flags.is_compact() || flags.is_versioned() {
            field_count = count(reader.u16()?, "fields", 1, MAX_FIELDS)?;
        }
        if flags.is_compact() {
            if flags.is_instant() {
                core_count = Some(count(reader.u16()?, "core fields", 1, field_count)?);
            }
            unique_count = count(reader.u16()?, "unique fields", 1, field_count)?;
            fields = reader.take(usize::from(field_count).saturating_mul(2))?;
        }
        if flags.is_versioned() {
            versioned = decode_versioned(reader, field_count)?;
        }
        let bytes = reader.since(start);
        Ok(Self { flags, field_count, core_count, unique_count, bytes, fields, versioned })
    }

    /// Rows of the whole table, not of a secondary index: what the server concludes from the description.
    pub const fn is_clustered(&self) -> bool {
        (self.flags.is_compact() && self.unique_count != self.field_count)
            || self.flags.is_instant()
            || self.flags.is_versioned()
    }

    /// Its fields; none where rows describe themselves.
    pub fn fields(&self) -> impl Iterator<Item = IndexField> + use<'a> {
        self.fields.chunks_exact(2).filter_map(|raw| <[u8; 2]>::try_from(raw).ok()).map(|raw| {
            let raw = u16::from_be_bytes(raw);
            let width = match raw & BIG {
                0 => FieldWidth::Variable,
                BIG => FieldWidth::Big,
                fixed => FieldWidth::Fixed(fixed),
            };
            IndexField { nullable: raw & NOT_NULL == 0, width }
        })
    }

    /// The fields that versions changed.
    pub fn versioned_fields(&self) -> impl Iterator<Item = VersionedField> + use<'a> {
        let mut reader = Reader::new(self.versioned);
        std::iter::from_fn(move || (!reader.is_empty()).then(|| versioned_field(&mut reader).ok())?)
    }
}

impl Serialize for IndexInfo<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("IndexInfo", 7)?;
        out.serialize_field("compact", &self.flags.is_compact())?;
        out.serialize_field("versioned", &self.flags.is_versioned())?;
        out.serialize_field("instant", &self.flags.is_instant())?;
        out.serialize_field("coreCount", &self.core_count)?;
        out.serialize_field("uniqueCount", &self.unique_count)?;
        out.serialize_field("fields", &self.fields().collect::<Vec<_>>())?;
        out.serialize_field("versionedFields", &self.versioned_fields().collect::<Vec<_>>())?;
        out.end()
    }
}

fn count(found: u16, what: &str, least: u16, most: u16) -> Result<u16, Fault> {
    if (least..=most).contains(&found) { Ok(found) } else { Err(invalid(WHAT, format!("{found} {what}"))) }
}

fn decode_versioned<'a>(reader: &mut Reader<'a>, field_count: u16) -> Result<&'a [u8], Fault> {
    let entries = count(reader.u16()?, "fields with versions", 0, field_count)?;
    let start = reader.at();
    for _ in 0..entries {
        let field = versioned_field(reader)?;
        if field.logical >= field_count || field.physical >= field_count {
            let why = format!("field {} at {} of {field_count}", field.logical, field.physical);
            return Err(invalid(WHAT, why));
        }
    }
    Ok(reader.since(start))
}

fn versioned_field(reader: &mut Reader<'_>) -> Result<VersionedField, Fault> {
    let logical = reader.u16()?;
    let physical = reader.u16()?;
    let added = if physical & ADDED != 0 { Some(reader.u8()?) } else { None };
    let dropped = if physical & DROPPED != 0 { Some(reader.u8()?) } else { None };
    Ok(VersionedField { logical, physical: physical & POSITION, added, dropped })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<IndexInfo<'_>, Fault> {
        IndexInfo::decode(&mut Reader::new(bytes))
    }

    #[test]
    fn a_compact_clustered_index() {
        let bytes = [1, 1, 0, 4, 0, 1, 0x80, 4, 0x80, 6, 0x80, 7, 0x7F, 0xFF, 0xAA];
        let info = decode(&bytes).unwrap();
        assert!(info.is_clustered() && info.flags.is_compact() && !info.flags.is_versioned());
        assert_eq!(info.bytes, &bytes[..14]);
        let fields: Vec<_> = info.fields().collect();
        assert_eq!(fields[0], IndexField { nullable: false, width: FieldWidth::Fixed(4) });
        assert_eq!(fields[3], IndexField { nullable: true, width: FieldWidth::Big });
        for cut in 0..14 {
            assert_eq!(decode(&bytes[..cut]), Err(Fault::Short), "{cut}");
        }
    }

    #[test]
    fn a_redundant_index_says_nothing_of_its_fields() {
        let info = decode(&[1, 0]).unwrap();
        assert_eq!((info.field_count, info.unique_count, info.fields().count()), (1, 1, 0));
        assert!(!info.is_clustered());
    }

    #[test]
    fn row_versions() {
        let bytes = [1, 2, 0, 5, 0, 2, 0, 3, 0x80, 4, 1, 0, 4, 0xC0, 3, 1, 2];
        let info = decode(&bytes).unwrap();
        let fields: Vec<_> = info.versioned_fields().collect();
        assert_eq!(fields[0], VersionedField { logical: 3, physical: 4, added: Some(1), dropped: None });
        assert_eq!(fields[1], VersionedField { logical: 4, physical: 3, added: Some(1), dropped: Some(2) });
        assert!(info.is_clustered());
        assert!(serde_json::to_string(&info).unwrap().contains("\"dropped\":2"));
    }

    #[test]
    fn other_versions_and_flags_are_named() {
        assert_eq!(decode(&[0, 1]), Err(unsupported("version of the index description", 0)));
        assert_eq!(decode(&[1, 8]), Err(unsupported("flags of the index description", "0x08")));
        assert!(matches!(decode(&[1, 1, 0, 0]), Err(Fault::Bad(_))), "no fields");
        assert!(matches!(decode(&[1, 1, 0, 2, 0, 3]), Err(Fault::Bad(_))), "more unique fields than fields");
        assert!(matches!(decode(&[1, 2, 0, 2, 0, 1, 0, 5, 0, 0]), Err(Fault::Bad(_))), "field 5 of 2");
    }
}
