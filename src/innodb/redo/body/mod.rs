//! What the bodies of redo records say (format 6, MySQL 8.0.30 to 9.7; redo-records reference).
//!
//! ```text
//!   RecordKind + bytes ──Body::decode──► Body: numbers, places and borrowed bytes; nothing is copied
//!                                  └──► Short (not all there yet) or Bad (names what)
//!   writes   numbers, strings, undo, compressed pages      rows    inserts, marks, updates, lists
//!   index    the description of an index in them           files   file operations, tables' metadata
//! ```
//! A body has no length of its own: decoding it is what finds the next record. So decoding checks all that it must
//! trust, and whoever applies a body can rely on its inner lists.

pub mod bytes;
pub mod files;
pub mod index;
pub mod reader;
pub mod rows;
pub mod writes;

use serde::Serialize;

use self::bytes::Bytes;
use self::files::{DynamicMeta, FileCreate, FileDelete, FileExtend, FileRename};
use self::index::IndexInfo;
use self::reader::{Fault, Reader};
use self::rows::{ClustDeleteMark, Insert, ListCopy, RowAt, UpdateInPlace, mark};
use self::writes::{UndoType, WriteNumber, WriteString, ZipPage, ZipWrite, ZipWriteHeader, level, sized};
use super::record::RecordKind;

/// What a page becomes when it is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Tree {
    /// A B-tree's.
    Btree,
    /// An R-tree's.
    Rtree,
    /// The dictionary information's.
    Sdi,
}

/// The meaning of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
#[expect(missing_docs, reason = "the kinds say it, and the types inside")]
pub enum Body<'a> {
    WriteNumber(WriteNumber),
    WriteString(WriteString<'a>),
    InitFilePage,
    InitFilePage2,
    PageCreate { tree: Tree, compact: bool },
    IbufBitmapInit,
    UndoInsert { bytes: Bytes<'a> },
    UndoEraseEnd,
    UndoInit { undo: UndoType },
    UndoHeaderReuse { transaction: u64 },
    UndoHeaderCreate { transaction: u64 },
    MinRecMark { row: u16, compact: bool },
    SecDeleteMark { deleted: bool, row: u16 },
    Insert(Insert<'a>),
    ClustDeleteMark(ClustDeleteMark<'a>),
    Delete(RowAt<'a>),
    UpdateInPlace(UpdateInPlace<'a>),
    ListEndCopyCreated(ListCopy<'a>),
    ListEndDelete(RowAt<'a>),
    ListStartDelete(RowAt<'a>),
    Reorganize { index: IndexInfo<'a> },
    ZipReorganize { index: IndexInfo<'a>, level: u8 },
    ZipCompressNoData { index: IndexInfo<'a>, level: u8 },
    ZipWriteNodePtr(ZipWrite<'a>),
    ZipWriteBlobPtr(ZipWrite<'a>),
    ZipWriteHeader(ZipWriteHeader<'a>),
    ZipPageCompress(ZipPage<'a>),
    IndexLoad { index_id: u64 },
    DynamicMeta(DynamicMeta<'a>),
    FileCreate(FileCreate<'a>),
    FileRename(FileRename<'a>),
    FileDelete(FileDelete<'a>),
    FileExtend(FileExtend),
    MultiRecEnd,
    Dummy,
}

/// Bytes of a node pointer.
const NODE_PTR: usize = 4;
/// Bytes of a pointer to an off-page column.
const BLOB_PTR: usize = 20;

impl<'a> Body<'a> {
    /// Decodes the body of a record of this kind; the reader is left behind it.
    pub fn decode(kind: RecordKind, reader: &mut Reader<'a>) -> Result<Self, Fault> {
        use RecordKind as Kind;
        Ok(match kind {
            Kind::Write1 => Self::WriteNumber(WriteNumber::decode(reader, 1)?),
            Kind::Write2 => Self::WriteNumber(WriteNumber::decode(reader, 2)?),
            Kind::Write4 => Self::WriteNumber(WriteNumber::decode(reader, 4)?),
            Kind::Write8 => Self::WriteNumber(WriteNumber::decode(reader, 8)?),
            Kind::WriteString => Self::WriteString(WriteString::decode(reader)?),
            Kind::InitFilePage => Self::InitFilePage,
            Kind::InitFilePage2 => Self::InitFilePage2,
            Kind::PageCreate => Self::PageCreate { tree: Tree::Btree, compact: false },
            Kind::CompactPageCreate => Self::PageCreate { tree: Tree::Btree, compact: true },
            Kind::RtreeCreate => Self::PageCreate { tree: Tree::Rtree, compact: false },
            Kind::CompactRtreeCreate => Self::PageCreate { tree: Tree::Rtree, compact: true },
            Kind::SdiCreate => Self::PageCreate { tree: Tree::Sdi, compact: false },
            Kind::CompactSdiCreate => Self::PageCreate { tree: Tree::Sdi, compact: true },
            Kind::IbufBitmapInit => Self::IbufBitmapInit,
            Kind::UndoInsert => Self::UndoInsert { bytes: sized(reader)? },
            Kind::UndoEraseEnd => Self::UndoEraseEnd,
            Kind::UndoInit => Self::UndoInit { undo: UndoType::decode(reader)? },
            Kind::UndoHeaderReuse => Self::UndoHeaderReuse { transaction: reader.cu64()? },
            Kind::UndoHeaderCreate => Self::UndoHeaderCreate { transaction: reader.cu64()? },
            Kind::MinRecMark => Self::MinRecMark { row: reader.u16()?, compact: false },
            Kind::CompactMinRecMark => Self::MinRecMark { row: reader.u16()?, compact: true },
            Kind::SecDeleteMark => Self::SecDeleteMark { deleted: mark(reader.u8()?)?, row: reader.u16()? },
            Kind::Insert => Self::Insert(Insert::decode(reader)?),
            Kind::ClustDeleteMark => Self::ClustDeleteMark(ClustDeleteMark::decode(reader)?),
            Kind::Delete => Self::Delete(RowAt::decode(reader)?),
            Kind::UpdateInPlace => Self::UpdateInPlace(UpdateInPlace::decode(reader)?),
            Kind::ListEndCopyCreated => Self::ListEndCopyCreated(ListCopy::decode(reader)?),
            Kind::ListEndDelete => Self::ListEndDelete(RowAt::decode(reader)?),
            Kind::ListStartDelete => Self::ListStartDelete(RowAt::decode(reader)?),
            Kind::Reorganize => Self::Reorganize { index: IndexInfo::decode(reader)? },
            Kind::ZipReorganize => Self::ZipReorganize { index: IndexInfo::decode(reader)?, level: level(reader)? },
            Kind::ZipCompressNoData => {
                Self::ZipCompressNoData { index: IndexInfo::decode(reader)?, level: level(reader)? }
            }
            Kind::ZipWriteNodePtr => Self::ZipWriteNodePtr(ZipWrite::decode(reader, NODE_PTR)?),
            Kind::ZipWriteBlobPtr => Self::ZipWriteBlobPtr(ZipWrite::decode(reader, BLOB_PTR)?),
            Kind::ZipWriteHeader => Self::ZipWriteHeader(ZipWriteHeader::decode(reader)?),
            Kind::ZipPageCompress => Self::ZipPageCompress(ZipPage::decode(reader)?),
            Kind::IndexLoad => Self::IndexLoad { index_id: reader.u64()? },
            Kind::DynamicMeta => Self::DynamicMeta(DynamicMeta::decode(reader)?),
            Kind::FileCreate => Self::FileCreate(FileCreate::decode(reader)?),
            Kind::FileRename => Self::FileRename(FileRename::decode(reader)?),
            Kind::FileDelete => Self::FileDelete(FileDelete::decode(reader)?),
            Kind::FileExtend => Self::FileExtend(FileExtend::decode(reader)?),
            Kind::MultiRecEnd => Self::MultiRecEnd,
            Kind::Dummy => Self::Dummy,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_decoded_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for &kind in RecordKind::ALL {
                let mut reader = Reader::new(&bytes);
                if let Ok(body) = Body::decode(kind, &mut reader) {
                    prop_assert!(reader.at() <= bytes.len());
                    // What was decoded can be printed, inner lists included, and is decoded the same from its bytes alone.
                    prop_assert!(serde_json::to_string(&body).is_ok());
                    let own = &bytes[..reader.at()];
                    prop_assert_eq!(Body::decode(kind, &mut Reader::new(own)), Ok(body));
                }
            }
        }
    }
}
