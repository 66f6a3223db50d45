//! Page types, the 16 bits at offset 24 (MySQL 8.0.30 to 9.7; tablespace-files reference, section 3).

use crate::innodb::FormatError;

macro_rules! page_types {
    ($($(#[$about:meta])* $name:ident = $id:literal,)+) => {
        /// What a page holds.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum PageType { $($(#[$about])* $name = $id,)+ }

        impl PageType {
            /// The number on the page.
            pub const fn id(self) -> u16 {
                match self { $(Self::$name => $id),+ }
            }
        }

        impl TryFrom<u16> for PageType {
            type Error = FormatError;

            fn try_from(id: u16) -> Result<Self, FormatError> {
                match id {
                    $($id => Ok(Self::$name),)+
                    _ => Err(FormatError::Unsupported { what: "page type", found: id.to_string() }),
                }
            }
        }
    };
}

page_types! {
    /// Allocated, not initialised.
    Allocated = 0,
    /// Undo log.
    UndoLog = 2,
    /// Segment inodes.
    Inode = 3,
    /// Change buffer free list.
    IbufFreeList = 4,
    /// Change buffer bitmap.
    IbufBitmap = 5,
    /// System page.
    System = 6,
    /// Transaction system.
    TrxSys = 7,
    /// Page 0.
    FspHeader = 8,
    /// Extent descriptors.
    Xdes = 9,
    /// Off-page column.
    Blob = 10,
    /// First page of a compressed off-page column.
    ZBlob = 11,
    /// Further page of a compressed off-page column.
    ZBlob2 = 12,
    /// Old garbage, marked as such.
    Unknown = 13,
    /// Page-compressed.
    Compressed = 14,
    /// Encrypted.
    Encrypted = 15,
    /// Page-compressed, then encrypted.
    CompressedAndEncrypted = 16,
    /// Encrypted page of an R-tree.
    EncryptedRtree = 17,
    /// Dictionary information, off-page.
    SdiBlob = 18,
    /// Dictionary information, compressed off-page.
    SdiZBlob = 19,
    /// Legacy doublewrite area.
    LegacyDoublewrite = 20,
    /// Rollback segment array.
    RsegArray = 21,
    /// Large object index.
    LobIndex = 22,
    /// Large object data.
    LobData = 23,
    /// Large object, first page.
    LobFirst = 24,
    /// Compressed large object, first page.
    ZLobFirst = 25,
    /// Compressed large object data.
    ZLobData = 26,
    /// Compressed large object index.
    ZLobIndex = 27,
    /// Compressed large object fragments.
    ZLobFrag = 28,
    /// Compressed large object fragment entries.
    ZLobFragEntry = 29,
    /// Dictionary information index.
    Sdi = 17853,
    /// R-tree.
    Rtree = 17854,
    /// B-tree.
    Index = 17855,
}

impl PageType {
    /// The page's body is encrypted.
    pub const fn is_encrypted(self) -> bool {
        matches!(self, Self::Encrypted | Self::CompressedAndEncrypted | Self::EncryptedRtree)
    }

    /// The page takes less than its size in a sparse file.
    pub const fn is_page_compressed(self) -> bool {
        matches!(self, Self::Compressed | Self::CompressedAndEncrypted)
    }
}
