//! Tablespace flags, the 32 bits at offset 54 of page 0 (MySQL 8.0.30 to 9.7; tablespace-files reference, section 5).
//!
//! ```text
//!   bit  0     1..=4      5         6..=9      10       11     12     13        14
//!      post  zip_ssize  atomic   page_ssize   data    shared  temp  encrypt-   sdi
//!    antelope           blobs                  dir                   ion
//! ```

use crate::innodb::FormatError;
use crate::innodb::ids::PageSize;

const ZIP_SHIFT: u32 = 1;
const PAGE_SHIFT: u32 = 6;
const SSIZE_MASK: u32 = 0xF;
const DATA_DIR: u32 = 1 << 10;
const SHARED: u32 = 1 << 11;
const TEMPORARY: u32 = 1 << 12;
const ENCRYPTION: u32 = 1 << 13;
const SDI: u32 = 1 << 14;
const KNOWN: u32 = (1 << 15) - 1;
/// A stored size `n` means `512 << n` bytes.
const SSIZE_UNIT: u32 = 512;

/// Decoded flags: every bit is known and both sizes are sizes that InnoDB has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TablespaceFlags {
    raw: u32,
    logical: PageSize,
    zip: Option<PageSize>,
}

impl TablespaceFlags {
    /// Checks `raw`. Unknown bits and impossible sizes are errors.
    pub fn decode(raw: u32) -> Result<Self, FormatError> {
        if raw & !KNOWN != 0 {
            return Err(FormatError::Unsupported { what: "tablespace flags", found: format!("{raw:#x}") });
        }
        let logical = ssize(raw >> PAGE_SHIFT)?.unwrap_or(PageSize::DEFAULT);
        let zip = ssize(raw >> ZIP_SHIFT)?;
        if logical.bytes() < 4096 || zip.is_some_and(|zip| zip > logical) {
            let why = format!("{raw:#x} names a page size of {logical} with compressed pages of {zip:?}");
            return Err(FormatError::Invalid { what: "tablespace flags", why });
        }
        Ok(Self { raw, logical, zip })
    }

    /// The bits as stored.
    pub const fn raw(self) -> u32 {
        self.raw
    }

    /// The instance's page size.
    pub const fn logical_size(self) -> PageSize {
        self.logical
    }

    /// The size of a page of `ROW_FORMAT=COMPRESSED`, where the tablespace has such pages.
    pub const fn zip_size(self) -> Option<PageSize> {
        self.zip
    }

    /// The size of a page in the file.
    pub fn physical_size(self) -> PageSize {
        self.zip.unwrap_or(self.logical)
    }

    /// The tablespace is encrypted, or was when page 0 was written.
    pub const fn is_encrypted(self) -> bool {
        self.raw & ENCRYPTION != 0
    }

    /// A general tablespace, or the system's.
    pub const fn is_shared(self) -> bool {
        self.raw & SHARED != 0
    }

    /// Created with `DATA DIRECTORY`.
    pub const fn has_data_dir(self) -> bool {
        self.raw & DATA_DIR != 0
    }

    /// A temporary tablespace: never backed up.
    pub const fn is_temporary(self) -> bool {
        self.raw & TEMPORARY != 0
    }

    /// It holds serialized dictionary information.
    pub const fn has_sdi(self) -> bool {
        self.raw & SDI != 0
    }
}

fn ssize(bits: u32) -> Result<Option<PageSize>, FormatError> {
    let ssize = bits & SSIZE_MASK;
    if ssize == 0 {
        return Ok(None);
    }
    let bytes = SSIZE_UNIT.checked_shl(ssize).unwrap_or(0);
    PageSize::new(bytes)
        .map(Some)
        .map_err(|error| FormatError::Invalid { what: "tablespace flags", why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_real_files() {
        // Read from files of MySQL 9.7.4 (tablespace-files reference, section 5).
        let cases = [
            (0x4021, 16384, None),
            (0x4023, 16384, Some(1024)),
            (0x402b, 16384, Some(16384)),
            (0x40e1, 4096, None),
            (0x41a1, 32768, None),
            (0x1c0, 65536, None),
            (0x0, 16384, None),
        ];
        for (raw, logical, zip) in cases {
            let flags = TablespaceFlags::decode(raw).unwrap();
            assert_eq!(flags.logical_size().bytes(), logical, "{raw:#x}");
            assert_eq!(flags.zip_size().map(PageSize::bytes), zip, "{raw:#x}");
        }
        let flags = TablespaceFlags::decode(0x6029).unwrap();
        assert!(flags.is_encrypted() && flags.has_sdi() && !flags.is_shared());
        assert!(TablespaceFlags::decode(0x4421).unwrap().has_data_dir());
        assert!(TablespaceFlags::decode(0x4800).unwrap().is_shared());
    }

    #[test]
    fn unknown_bits_and_sizes_are_refused() {
        assert!(matches!(TablespaceFlags::decode(0x8000), Err(FormatError::Unsupported { .. })));
        assert!(TablespaceFlags::decode(0xF << PAGE_SHIFT).is_err());
        assert!(TablespaceFlags::decode(7 << ZIP_SHIFT).is_err());
    }
}
