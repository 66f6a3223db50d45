//! A page on its way through recovery: loaded as copied, changed by records, stamped as a server's flush would
//! (redo-records reference, section 2.2).

use super::frame::Frame;
use super::zip::ZipPage;
use super::{ApplyError, create};
use crate::innodb::FormatError;
use crate::innodb::checksum::stamp_page;
use crate::innodb::ids::{PageId, PageNo, PageSize, SpaceId};
use crate::innodb::lsn::Lsn;
use crate::innodb::page::{PageType, fil};
use crate::innodb::space::TablespaceFlags;

/// Pages between two that describe extents, in an instance of 16 KiB pages.
const DESCRIBED: u32 = 16384;

/// A server's level, unless it is told otherwise.
const USUAL_LEVEL: u8 = 6;

/// A page in memory, as recovery sees it. Used again for each page of a tablespace.
#[derive(Debug, Clone)]
pub struct PageBuffer {
    id: PageId,
    flags: TablespaceFlags,
    frame: Frame,
    /// The compressed page beside it, for `ROW_FORMAT=COMPRESSED`.
    zip: Option<ZipPage>,
}

impl PageBuffer {
    /// A buffer for pages of a tablespace with these flags.
    pub fn new(flags: TablespaceFlags) -> Self {
        let id = PageId { space: SpaceId(0), page: PageNo(0) };
        Self { id, flags, frame: Frame::zeroed(flags.logical_size()), zip: flags.zip_size().map(ZipPage::new) }
    }

    /// Takes in a page as it is in its file, but decrypted and, where its file is sparse, decompressed. A page that was
    /// never written is all zero.
    pub fn load(&mut self, id: PageId, plain: &[u8]) -> Result<(), ApplyError> {
        self.id = id;
        self.take(plain).map_err(|source| ApplyError::Page { page: id, source })
    }

    /// Takes in a page that was never written.
    pub fn load_zeros(&mut self, id: PageId) -> Result<(), ApplyError> {
        self.id = id;
        if self.zip.is_some() {
            return self.load(id, &vec![0; self.physical_size()]);
        }
        self.frame.as_bytes_mut().fill(0);
        Ok(())
    }

    fn take(&mut self, plain: &[u8]) -> Result<(), FormatError> {
        let needed = self.physical_size();
        if plain.len() != needed {
            return Err(FormatError::Truncated { what: "page", needed, got: plain.len() });
        }
        match &mut self.zip {
            Some(zip) => zip.load(plain, &mut self.frame),
            None => self.frame.write(0, plain),
        }
    }

    /// The page that it holds.
    pub const fn id(&self) -> PageId {
        self.id
    }

    /// The page, uncompressed.
    pub const fn frame(&self) -> &Frame {
        &self.frame
    }

    /// The page, uncompressed, to be kept.
    pub fn into_frame(self) -> Frame {
        self.frame
    }

    pub(super) const fn frame_mut(&mut self) -> &mut Frame {
        &mut self.frame
    }

    /// The page with the compressed one beside it, where it has one.
    pub(super) const fn zip_mut(&mut self) -> Option<(&mut Frame, &mut ZipPage)> {
        match &mut self.zip {
            Some(zip) => Some((&mut self.frame, zip)),
            None => None,
        }
    }

    /// LSN of the newest change on it.
    pub fn lsn(&self) -> Lsn {
        self.frame.u64(fil::LSN).map_or(Lsn::ZERO, Lsn::new)
    }

    /// Of a compressed page: whether zlib as it is built in gives the bytes that the page's server gave. None where
    /// there is no telling. What is compressed anew (`RecordKind::compresses_anew`) is recovered only then.
    pub fn is_compressed_as_here(&self) -> Option<bool> {
        self.zip.as_ref()?.is_ours(&self.frame, USUAL_LEVEL).ok()?
    }

    pub(super) fn physical_size(&self) -> usize {
        self.flags.physical_size().len()
    }

    /// Writes bytes.
    pub(super) fn write(&mut self, at: usize, bytes: &[u8]) -> Result<(), FormatError> {
        if let Some(zip) = &mut self.zip {
            zip.write(at, bytes)?;
        }
        self.frame.write(at, bytes)
    }

    /// Clears it, but for its place.
    pub(super) fn clear(&mut self) -> Result<(), FormatError> {
        if let Some(zip) = &mut self.zip {
            zip.clear(self.id)?;
        }
        create::cleared(&mut self.frame, self.id)
    }

    /// Stamps it with the LSN behind its last change, and gives it as it is to be written to its file, to be compressed
    /// and encrypted there where its tablespace is.
    pub fn finish(&mut self, lsn: Lsn) -> Result<&[u8], ApplyError> {
        let page = self.id;
        self.stamp(lsn).map_err(|source| ApplyError::Page { page, source })?;
        Ok(self.zip.as_ref().map_or(self.frame.as_bytes(), ZipPage::as_bytes))
    }

    fn stamp(&mut self, lsn: Lsn) -> Result<(), FormatError> {
        if let Some(zip) = &mut self.zip {
            self.frame.set_u64(fil::LSN, lsn.get())?;
            return zip.stamp(&self.frame, lsn);
        }
        self.set_valid_type()?;
        let bytes = lsn.get().to_be_bytes();
        self.frame.write(fil::LSN, &bytes)?;
        let end = self.frame.size().saturating_sub(fil::TRAILER_LSN);
        self.frame.write(end, bytes.get(4..).unwrap_or_default())?;
        stamp_page(self.frame.as_bytes_mut())
    }

    /// A server corrects types that files of old versions carry when it writes a page of 16 KiB.
    fn set_valid_type(&mut self) -> Result<(), FormatError> {
        if self.flags.logical_size() != PageSize::DEFAULT {
            return Ok(());
        }
        let id = self.frame.u16(fil::TYPE)?;
        let found = PageType::try_from(id).ok();
        let wanted = match self.id.page.0 % DESCRIBED {
            0 if self.id.page.0 == 0 => PageType::FspHeader,
            0 => PageType::Xdes,
            1 => PageType::IbufBitmap,
            _ => found.unwrap_or(PageType::Unknown),
        };
        let fits = match wanted {
            PageType::FspHeader | PageType::Xdes => matches!(found, Some(PageType::FspHeader | PageType::Xdes)),
            wanted => found == Some(wanted),
        };
        if fits { Ok(()) } else { self.frame.set_u16(fil::TYPE, wanted.id()) }
    }
}
