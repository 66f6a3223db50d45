//! Page 0 of a tablespace: who it is and how large (MySQL 8.0.30 to 9.7; tablespace-files reference, section 5).
//! What is being done to its encryption was seen on 9.7.4, whose server was killed while it did that.
//!
//! ```text
//!   8  server version │ 26 flush LSN (ibdata1 only) │ 34 space id │ 38 space id again │ 46 size in pages │ 54 flags
//!   150 extent descriptors: physical/extent_pages of 24 + extent_pages/4 bytes each │ then encryption info, 111 bytes
//!       │ 4 │ dictionary information: version 4, root 4 │ 1 is being encrypted 1, decrypted 2 │ up to which page 4
//! ```

use crate::innodb::FormatError;
use crate::innodb::cursor::{slice, u8_at, u32_at, u64_at};
use crate::innodb::ids::{PageSize, SpaceId};
use crate::innodb::lsn::Lsn;
use crate::innodb::space::encryption::{ENCRYPTION_INFO_SIZE, EncryptionInfo};
use crate::innodb::space::flags::TablespaceFlags;

const FIL_VERSION: usize = 8;
const FIL_FLUSH_LSN: usize = 26;
const FIL_SPACE_ID: usize = 34;
const FSP_SPACE_ID: usize = 38;
/// Offset of the size in pages.
pub const FSP_SIZE: usize = 46;
/// Offset of the flags.
pub const FSP_FLAGS: usize = 54;
const XDES_ARRAY: usize = 150;
const XDES_FIXED: usize = 24;
/// From the encryption info to what is being done.
const CHANGE_OFFSET: usize = ENCRYPTION_INFO_SIZE + 4 + 8;
const BEING_DECRYPTED: u8 = 2;

/// Bytes of page 0 that [`SpaceHeader::decode_prefix`] needs.
pub const PREFIX_SIZE: usize = FSP_FLAGS + 4;

/// What page 0 says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaceHeader {
    /// The tablespace's id.
    pub space: SpaceId,
    /// Its size in pages as of this page's LSN; the file may be larger by now.
    pub size_pages: u32,
    /// Its flags.
    pub flags: TablespaceFlags,
    /// Server version that created or last upgraded it, as 90704 for 9.7.4.
    pub server_version: u32,
    /// In the first file of the system tablespace: the LSN of the last clean shutdown.
    pub flush_lsn: Lsn,
    /// The wrapped key, where the tablespace has one.
    pub encryption: Option<EncryptionInfo>,
    /// `ALTER TABLESPACE … ENCRYPTION = 'N'` is under way, see [`is_being_decrypted`].
    pub being_decrypted: bool,
}

impl SpaceHeader {
    /// Decodes a whole page 0. Its checksum is not looked at.
    pub fn decode(page0: &[u8]) -> Result<Self, FormatError> {
        let header = Self::decode_prefix(page0)?;
        let offset = encryption_offset(header.flags)?;
        let info = slice(page0, offset, ENCRYPTION_INFO_SIZE, "encryption info of page 0")?;
        let change = u8_at(page0, encryption_change_offset(header.flags)?, "encryption state of page 0")?;
        Ok(Self { encryption: EncryptionInfo::decode(info)?, being_decrypted: is_being_decrypted(change), ..header })
    }

    /// Decodes the first [`PREFIX_SIZE`] bytes of page 0: everything but its encryption.
    pub fn decode_prefix(page0: &[u8]) -> Result<Self, FormatError> {
        let what = "header of page 0";
        let (fil, fsp) = (u32_at(page0, FIL_SPACE_ID, what)?, u32_at(page0, FSP_SPACE_ID, what)?);
        if fil != fsp {
            return Err(FormatError::Invalid { what, why: format!("it names space {fil} and space {fsp}") });
        }
        Ok(Self {
            space: SpaceId(fil),
            size_pages: u32_at(page0, FSP_SIZE, what)?,
            flags: TablespaceFlags::decode(u32_at(page0, FSP_FLAGS, what)?)?,
            server_version: u32_at(page0, FIL_VERSION, what)?,
            flush_lsn: Lsn::new(u64_at(page0, FIL_FLUSH_LSN, what)?),
            encryption: None,
            being_decrypted: false,
        })
    }
}

/// Pages of an extent: 1 MiB up to 16 KiB pages, 64 pages above.
pub fn extent_pages(logical: PageSize) -> u32 {
    match logical.bytes() {
        4096 => 256,
        8192 => 128,
        _ => 64,
    }
}

/// Where the encryption info lies in page 0.
pub fn encryption_offset(flags: TablespaceFlags) -> Result<usize, FormatError> {
    let extent = usize::try_from(extent_pages(flags.logical_size())).unwrap_or(64);
    let entry = XDES_FIXED.saturating_add(extent.div_ceil(4));
    let count = flags.physical_size().len().checked_div(extent).unwrap_or(0);
    entry
        .checked_mul(count)
        .and_then(|array| array.checked_add(XDES_ARRAY))
        .ok_or(FormatError::Invalid { what: "tablespace flags", why: "the extent descriptors overflow".into() })
}

/// Where page 0 says what is being done to the encryption of the tablespace: one byte.
pub fn encryption_change_offset(flags: TablespaceFlags) -> Result<usize, FormatError> {
    Ok(encryption_offset(flags)?.saturating_add(CHANGE_OFFSET))
}

/// The tablespace is being decrypted in its place. Its flags say encrypted until that is done, but each page that is
/// written is written in the clear: from the page where a server goes on after a start, those before are not looked at
/// again.
pub const fn is_being_decrypted(change: u8) -> bool {
    change == BEING_DECRYPTED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encryption_info_lies_where_the_server_puts_it() {
        // MySQL 9.7.4: 10390 for 16 KiB pages, 5270 for 8 KiB compressed pages of such an instance.
        assert_eq!(encryption_offset(TablespaceFlags::decode(0x4021).unwrap()).unwrap(), 10390);
        assert_eq!(encryption_offset(TablespaceFlags::decode(0x4029).unwrap()).unwrap(), 5270);
        assert_eq!(encryption_change_offset(TablespaceFlags::decode(0x4021).unwrap()).unwrap(), 10513);
    }

    #[test]
    fn both_space_ids_must_agree() {
        let mut page = vec![0_u8; 16384];
        page[37] = 7;
        assert!(SpaceHeader::decode(&page).is_err());
        page[41] = 7;
        assert_eq!(SpaceHeader::decode(&page).unwrap().space, SpaceId(7));
        assert!(SpaceHeader::decode(&page[..40]).is_err());
    }
}
