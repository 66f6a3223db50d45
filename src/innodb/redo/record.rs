//! One redo record, raw: its type, the page it is for, and its bytes (format 6, MySQL 8.0.30 to 9.7; redo-records
//! reference, sections 2 and 3). What the bytes mean is `body`'s.
//!
//! ```text
//!   of a page       type │ space │ page │ body            0x80 on the type: a group of this record alone
//!   metadata (62)   type │ table │ version │ body
//!   31, 32          type                                  the end of a group; filling
//! ```

use std::fmt;

use serde::{Serialize, Serializer};

use super::body::Body;
use super::body::reader::{Fault, Reader, invalid, unsupported};
use crate::innodb::FormatError;
use crate::innodb::ids::{PageId, PageNo, SpaceId};
use crate::innodb::lsn::Lsn;

/// Set on the type of a record that is a group by itself.
pub const SINGLE_RECORD: u8 = 0x80;

macro_rules! record_kinds {
    ($($(#[$about:meta])* $variant:ident = $id:literal $name:literal,)+) => {
        /// What a record does. Names are the server's.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum RecordKind { $($(#[$about])* $variant = $id,)+ }

        impl RecordKind {
            /// Every kind there is.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The number in the log.
            pub const fn id(self) -> u8 {
                match self { $(Self::$variant => $id),+ }
            }

            /// The server's name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            const fn known(id: u8) -> Option<Self> {
                match id {
                    $($id => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

record_kinds! {
    /// Writes a byte.
    Write1 = 1 "MLOG_1BYTE",
    /// Writes two bytes.
    Write2 = 2 "MLOG_2BYTES",
    /// Writes four bytes.
    Write4 = 4 "MLOG_4BYTES",
    /// Writes eight bytes.
    Write8 = 8 "MLOG_8BYTES",
    /// Marks a record of a secondary index.
    SecDeleteMark = 11 "MLOG_REC_SEC_DELETE_MARK",
    /// Makes an index page, old format.
    PageCreate = 19 "MLOG_PAGE_CREATE",
    /// Adds an undo record.
    UndoInsert = 20 "MLOG_UNDO_INSERT",
    /// Fills the end of an undo page.
    UndoEraseEnd = 21 "MLOG_UNDO_ERASE_END",
    /// Makes an undo page.
    UndoInit = 22 "MLOG_UNDO_INIT",
    /// Takes an undo log header again.
    UndoHeaderReuse = 24 "MLOG_UNDO_HDR_REUSE",
    /// Adds an undo log header.
    UndoHeaderCreate = 25 "MLOG_UNDO_HDR_CREATE",
    /// Marks the smallest record of a level, old format.
    MinRecMark = 26 "MLOG_REC_MIN_MARK",
    /// Makes a change buffer bitmap.
    IbufBitmapInit = 27 "MLOG_IBUF_BITMAP_INIT",
    /// Clears a page and its LSN.
    InitFilePage = 29 "MLOG_INIT_FILE_PAGE",
    /// Writes bytes.
    WriteString = 30 "MLOG_WRITE_STRING",
    /// Ends a group.
    MultiRecEnd = 31 "MLOG_MULTI_REC_END",
    /// Does nothing.
    Dummy = 32 "MLOG_DUMMY_RECORD",
    /// A file was made.
    FileCreate = 33 "MLOG_FILE_CREATE",
    /// A file was renamed.
    FileRename = 34 "MLOG_FILE_RENAME",
    /// A file was deleted.
    FileDelete = 35 "MLOG_FILE_DELETE",
    /// Marks the smallest record of a level, new format.
    CompactMinRecMark = 36 "MLOG_COMP_REC_MIN_MARK",
    /// Makes an index page, new format.
    CompactPageCreate = 37 "MLOG_COMP_PAGE_CREATE",
    /// Writes the child of a node pointer on a compressed page.
    ZipWriteNodePtr = 48 "MLOG_ZIP_WRITE_NODE_PTR",
    /// Writes the pointer to an off-page column on a compressed page.
    ZipWriteBlobPtr = 49 "MLOG_ZIP_WRITE_BLOB_PTR",
    /// Writes to the header of a compressed page.
    ZipWriteHeader = 50 "MLOG_ZIP_WRITE_HEADER",
    /// Replaces a compressed page.
    ZipPageCompress = 51 "MLOG_ZIP_PAGE_COMPRESS",
    /// Makes a page of an R-tree, old format.
    RtreeCreate = 57 "MLOG_PAGE_CREATE_RTREE",
    /// Makes a page of an R-tree, new format.
    CompactRtreeCreate = 58 "MLOG_COMP_PAGE_CREATE_RTREE",
    /// Clears a page.
    InitFilePage2 = 59 "MLOG_INIT_FILE_PAGE2",
    /// An index was built without redo.
    IndexLoad = 61 "MLOG_INDEX_LOAD",
    /// Metadata of a table that is not in the dictionary yet.
    DynamicMeta = 62 "MLOG_TABLE_DYNAMIC_META",
    /// Makes a page of dictionary information, old format.
    SdiCreate = 63 "MLOG_PAGE_CREATE_SDI",
    /// Makes a page of dictionary information, new format.
    CompactSdiCreate = 64 "MLOG_COMP_PAGE_CREATE_SDI",
    /// A file was extended.
    FileExtend = 65 "MLOG_FILE_EXTEND",
    /// Inserts a record.
    Insert = 67 "MLOG_REC_INSERT",
    /// Marks a record of a clustered index.
    ClustDeleteMark = 68 "MLOG_REC_CLUST_DELETE_MARK",
    /// Deletes a record.
    Delete = 69 "MLOG_REC_DELETE",
    /// Changes a record in its place.
    UpdateInPlace = 70 "MLOG_REC_UPDATE_IN_PLACE",
    /// Fills a new page with records.
    ListEndCopyCreated = 71 "MLOG_LIST_END_COPY_CREATED",
    /// Puts a page in order.
    Reorganize = 72 "MLOG_PAGE_REORGANIZE",
    /// Puts a compressed page in order.
    ZipReorganize = 73 "MLOG_ZIP_PAGE_REORGANIZE",
    /// Compresses a page again.
    ZipCompressNoData = 74 "MLOG_ZIP_PAGE_COMPRESS_NO_DATA",
    /// Deletes the records from one on.
    ListEndDelete = 75 "MLOG_LIST_END_DELETE",
    /// Deletes the records before one.
    ListStartDelete = 76 "MLOG_LIST_START_DELETE",
}

impl RecordKind {
    /// The kind of a record whose first byte is `first`.
    pub fn decode(first: u8) -> Result<Self, FormatError> {
        let id = first & !SINGLE_RECORD;
        Self::known(id).ok_or_else(|| {
            let age = match id {
                9 | 10 | 13..=18 | 38..=46 | 52 | 53 => " (of the log format before MySQL 8.0.30)",
                _ => "",
            };
            FormatError::Unsupported { what: "redo record type", found: format!("{id}{age}") }
        })
    }

    /// It has neither page nor body.
    pub const fn is_bare(self) -> bool {
        matches!(self, Self::MultiRecEnd | Self::Dummy)
    }

    /// It tells of a file, and changes no page.
    pub const fn is_file_operation(self) -> bool {
        matches!(self, Self::FileCreate | Self::FileRename | Self::FileDelete | Self::FileExtend)
    }

    /// It changes the page it names.
    pub const fn changes_page(self) -> bool {
        !self.is_bare() && !self.is_file_operation() && !matches!(self, Self::DynamicMeta)
    }

    /// Applying it compresses a page anew, so that the outcome depends on zlib: it must give the bytes that the server's
    /// own gave (`util::zlib::makes_same_bytes`). Servers write these with `innodb_log_compressed_pages=OFF` only.
    pub const fn compresses_anew(self) -> bool {
        matches!(self, Self::ZipReorganize | Self::ZipCompressNoData)
    }
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for RecordKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A record in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedoRecord<'a> {
    /// LSN of its first byte. A page takes part in it if its own LSN is not larger.
    pub lsn: Lsn,
    /// What it does.
    pub kind: RecordKind,
    /// The page it names; a file operation names page 0. `None` for metadata, the end of a group and filling.
    pub page: Option<PageId>,
    /// It begins before the checkpoint: it is there to find the next one, and changes no page.
    pub before_checkpoint: bool,
    /// All its bytes.
    pub bytes: &'a [u8],
    /// Where its body starts in them.
    pub(super) body_at: usize,
}

impl<'a> RedoRecord<'a> {
    /// Takes a record apart that was kept by its bytes: all of them, and no more.
    pub fn decode(bytes: &'a [u8], lsn: Lsn) -> Result<Self, FormatError> {
        let mut reader = Reader::new(bytes);
        match RecordHead::decode(&mut reader) {
            Ok(head) => {
                let (kind, page, body_at) = (head.kind, head.page, reader.at());
                Ok(Self { lsn, kind, page, before_checkpoint: false, bytes, body_at })
            }
            Err(Fault::Bad(error)) => Err(error),
            Err(Fault::Short) => {
                let got = bytes.len();
                Err(FormatError::Truncated { what: "redo record", needed: got.saturating_add(1), got })
            }
        }
    }

    /// Its body, as it stands in the log.
    pub fn body_bytes(&self) -> &'a [u8] {
        self.bytes.get(self.body_at..).unwrap_or_default()
    }

    /// What its body says.
    pub fn body(&self) -> Result<Body<'a>, FormatError> {
        match Body::decode(self.kind, &mut Reader::new(self.body_bytes())) {
            Ok(body) => Ok(body),
            Err(Fault::Bad(error)) => Err(error),
            Err(Fault::Short) => {
                let got = self.bytes.len();
                Err(FormatError::Truncated { what: self.kind.name(), needed: got.saturating_add(1), got })
            }
        }
    }
}

/// The part of a record before its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHead {
    pub kind: RecordKind,
    pub single: bool,
    pub page: Option<PageId>,
}

impl RecordHead {
    /// Decodes type and page; the reader is left at the body.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, Fault> {
        let first = reader.u8()?;
        let kind = RecordKind::decode(first)?;
        let single = first & SINGLE_RECORD != 0;
        if kind.is_bare() {
            if single {
                return Err(unsupported(
                    "redo record type",
                    format!("{first:#04x} ({kind} with the flag of a single record)"),
                ));
            }
            return Ok(Self { kind, single, page: None });
        }
        if kind == RecordKind::DynamicMeta {
            return Ok(Self { kind, single, page: None });
        }
        let page = PageId { space: SpaceId(reader.cu32()?), page: PageNo(reader.cu32()?) };
        if kind.is_file_operation() && page.page != PageNo(0) {
            return Err(invalid(kind.name(), format!("it names {page}, not page 0")));
        }
        Ok(Self { kind, single, page: Some(page) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_the_servers_numbers() {
        for &kind in RecordKind::ALL {
            assert_eq!(RecordKind::decode(kind.id()), Ok(kind));
            assert_eq!(RecordKind::decode(kind.id() | SINGLE_RECORD), Ok(kind));
        }
        assert_eq!(RecordKind::ALL.len(), 44);
        assert_eq!(RecordKind::Insert.to_string(), "MLOG_REC_INSERT");
    }

    #[test]
    fn unknown_kinds_are_named() {
        let old = RecordKind::decode(9).unwrap_err().to_string();
        assert_eq!(old, "redo record type 9 (of the log format before MySQL 8.0.30) is not supported");
        let test_only = RecordKind::decode(0xC2).unwrap_err().to_string();
        assert_eq!(test_only, "redo record type 66 is not supported");
        for id in [0, 3, 23, 28, 47, 54, 60, 77, 127] {
            assert!(RecordKind::decode(id).is_err(), "{id}");
        }
    }

    #[test]
    fn heads() {
        let mut reader = Reader::new(&[0x81, 5, 0x80, 0x80, 9]);
        let head = RecordHead::decode(&mut reader).unwrap();
        let page = PageId { space: SpaceId(5), page: PageNo(128) };
        assert_eq!(head, RecordHead { kind: RecordKind::Write1, single: true, page: Some(page) });
        assert_eq!(reader.at(), 4);
        assert_eq!(RecordHead::decode(&mut Reader::new(&[1, 5])), Err(Fault::Short));
        assert!(matches!(RecordHead::decode(&mut Reader::new(&[0x9F])), Err(Fault::Bad(_))), "31 with the flag");
        assert!(matches!(RecordHead::decode(&mut Reader::new(&[33, 5, 1])), Err(Fault::Bad(_))), "a file's page 1");
    }
}
