//! Pages of `ROW_FORMAT=COMPRESSED`: the compressed bytes beside the page that rows are changed on (redo-records
//! reference, section 8; servers keep pages so since 5.1, 16 KiB at most).
//!
//! ```text
//!   0 header │ 94 stream │ start … log of changes … end │ 0 … │ off-page pointers │ columns │ directory
//!                                                              20 each, by row     by row    2 each, from the end
//!   columns that are not compressed: 13 bytes of transaction and roll pointer in leaves of clustered indexes,
//!   4 of the child in node pointers, none in leaves of secondary indexes
//!
//!   fields      the description of the rows that the stream begins with
//!   decompress  stream + log + columns ─► frame          compress   frame ─► stream + columns + directory
//!   directory   rows by their order, then freed ones     log        what was changed since the page was compressed
//!   rows        what records do to rows of both          blobs      off-page pointers
//!   origin      whether the server's zlib gives the bytes that ours gives
//! ```
//! What is changed on the frame alone is done by `rows` and `lists` beside; here is what follows from it for the
//! compressed bytes. Of other pages than those of indexes the frame's front is the page.

mod blobs;
mod compress;
mod decompress;
mod directory;
mod fields;
mod log;
mod origin;
mod rows;
#[cfg(test)]
mod tests;

use self::fields::Kept;
use super::frame::Frame;
use super::index_page::{BODY, HEAP_COUNT, LEVEL, MAX_TRX_ID, ROW_COUNT};
use super::layout::Layouts;
use super::lists;
use crate::innodb::FormatError;
use crate::innodb::checksum::stamp_zip_page;
use crate::innodb::ids::{PageId, PageSize};
use crate::innodb::lsn::Lsn;
use crate::innodb::page::{PageType, fil};
use crate::innodb::redo::body::Body;
use crate::innodb::redo::body::writes::{ZipPage as ZipImage, ZipWrite};

const WHAT: &str = "compressed page";
/// Where rows begin on the frame: behind infimum and supremum. Compressed pages have compact rows only.
const HEAP: usize = 120;
/// Infimum and supremum, which the heap counts and the directory does not.
const BOUNDS: usize = 2;
/// Bytes of an off-page pointer.
const POINTER: usize = 20;
/// Bytes of a row's header that are not stored: they follow from the directory.
const HEADER: usize = super::layout::COMPACT_HEADER;

/// The compressed bytes of a page, and what is known of them.
#[derive(Debug, Clone)]
pub struct ZipPage {
    data: Frame,
    /// End of the stream.
    stream_end: usize,
    /// The stream is one that our zlib gives.
    trusted: bool,
    /// A row is on the frame alone: the redo log must go on with the page compressed anew.
    behind: bool,
    /// End of the log of changes; where the next one goes.
    end: usize,
    /// Number of off-page pointers.
    pointers: usize,
}

impl ZipPage {
    /// Zeros.
    pub fn new(size: PageSize) -> Self {
        Self { data: Frame::zeroed(size), stream_end: 0, trusted: false, behind: false, end: 0, pointers: 0 }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.data.as_bytes()
    }

    /// Takes in the bytes of a page and gives `frame` what they mean.
    pub fn load(&mut self, bytes: &[u8], frame: &mut Frame) -> Result<(), FormatError> {
        self.data.write(0, bytes)?;
        (self.stream_end, self.trusted, self.behind) = (0, false, false);
        if is_index(&self.data)? {
            return decompress::decompress(self, frame);
        }
        (self.end, self.pointers) = (0, 0);
        frame.write(0, bytes)?;
        frame.fill(bytes.len(), frame.size(), 0)
    }

    /// Writes bytes that are at the same place of both.
    pub fn write(&mut self, at: usize, bytes: &[u8]) -> Result<(), FormatError> {
        self.data.write(at, bytes)
    }

    /// Clears it, but for its place.
    pub fn clear(&mut self, id: PageId) -> Result<(), FormatError> {
        (self.stream_end, self.behind, self.end, self.pointers) = (0, false, 0, 0);
        super::create::cleared(&mut self.data, id)
    }

    /// Makes it what a server's flush writes.
    pub fn stamp(&mut self, frame: &Frame, lsn: Lsn) -> Result<(), FormatError> {
        if self.behind {
            // Written so, it would lack the row.
            return Err(FormatError::Unsupported {
                what: "native recovery of",
                found: "a page with less room for changes than on its server (another zlib): use --recovery server"
                    .into(),
            });
        }
        if is_plain(frame)? {
            let front = frame.slice(0, self.data.size())?;
            self.data.write(0, front)?;
        }
        self.data.set_u64(fil::LSN, lsn.get())?;
        stamp_zip_page(self.data.as_bytes_mut())
    }

    /// Number of rows in the heap.
    fn heap_rows(&self) -> Result<usize, FormatError> {
        let count = usize::from(self.data.u16(HEAP_COUNT)? & 0x7FFF);
        count.checked_sub(BOUNDS).ok_or_else(|| invalid(format!("its heap has {count} rows")))
    }

    /// Number of rows that are not freed.
    fn rows(&self) -> Result<usize, FormatError> {
        self.data.place(ROW_COUNT)
    }

    fn is_leaf(&self) -> Result<bool, FormatError> {
        Ok(self.data.u16(LEVEL)? == 0)
    }

    /// Bytes at its end that hold neither stream nor log.
    fn trailer(&self, kept: Kept) -> Result<usize, FormatError> {
        let per_row = directory::SLOT.saturating_add(kept.width());
        let rows = self.heap_rows()?.saturating_mul(per_row);
        Ok(rows.saturating_add(self.pointers.saturating_mul(POINTER)))
    }

    /// Where the columns that are not compressed end.
    fn columns_end(&self, heap_rows: usize) -> Result<usize, FormatError> {
        let directory = heap_rows.saturating_mul(directory::SLOT);
        self.data.size().checked_sub(directory).ok_or_else(|| invalid(format!("{heap_rows} rows do not fit")))
    }

    /// Where such columns of the row with this number in the heap are.
    fn columns_of(&self, heap_no: usize, kept: Kept) -> Result<usize, FormatError> {
        let end = self.columns_end(self.heap_rows()?)?;
        let below = heap_no.saturating_sub(1).saturating_mul(kept.width());
        let at = end.checked_sub(below).filter(|at| *at >= BODY && heap_no >= BOUNDS);
        at.ok_or_else(|| invalid(format!("it has no room for columns of row {heap_no} of its heap")))
    }

    /// Copies what changes of rows change in the header.
    fn copy_header(&mut self, frame: &Frame) -> Result<(), FormatError> {
        self.data.write(fil::BODY, frame.slice(fil::BODY, MAX_TRX_ID.saturating_sub(fil::BODY))?)
    }

    /// Replaces it by a whole page from the redo log.
    fn replace(&mut self, frame: &mut Frame, image: &ZipImage<'_>) -> Result<(), FormatError> {
        let (body, trailer, size) = (image.body.0, image.trailer.0, self.data.size());
        let behind = fil::TYPE.saturating_add(body.len());
        let tail = size.checked_sub(trailer.len()).filter(|tail| *tail >= behind);
        let tail = tail.ok_or_else(|| invalid(format!("{} and {} bytes do not fit", body.len(), trailer.len())))?;
        self.data.set_u32(PREV, image.prev.0)?;
        self.data.set_u32(NEXT, image.next.0)?;
        self.data.write(fil::TYPE, body)?;
        self.data.fill(behind, tail, 0)?;
        self.data.write(tail, trailer)?;
        if !is_index(&self.data)? {
            return Err(invalid("the redo log's image of it is none of an index".into()));
        }
        decompress::decompress(self, frame)
    }

    /// Writes to both, at places of their own.
    fn write_both(&mut self, frame: &mut Frame, write: &ZipWrite<'_>, leaf: bool) -> Result<(), FormatError> {
        let (at, zip_at) = (usize::from(write.offset), usize::from(write.zip_offset));
        let end = zip_at.saturating_add(write.bytes.0.len());
        if self.is_leaf()? != leaf || at < HEAP || zip_at < self.end || end > self.columns_end(self.heap_rows()?)? {
            return Err(invalid(format!("nothing of a row is at byte {at}, or {zip_at} of it")));
        }
        frame.write(at, write.bytes.0)?;
        self.data.write(zip_at, write.bytes.0)
    }
}

/// Offset of the left neighbour's number.
const PREV: usize = 8;
/// Offset of the right neighbour's.
const NEXT: usize = 12;

/// Applies a record that means something of its own to compressed pages. Gives false for those that do not.
pub fn apply(
    frame: &mut Frame,
    zip: &mut ZipPage,
    body: &Body<'_>,
    layouts: &mut Layouts,
) -> Result<bool, FormatError> {
    match body {
        Body::SecDeleteMark { deleted, row } => rows::mark(frame, zip, usize::from(*row), *deleted)?,
        Body::Insert(insert) => {
            rows::insert(frame, zip, &*layouts.get(&insert.index)?, usize::from(insert.cursor), &insert.row)?;
        }
        Body::ClustDeleteMark(change) => rows::mark_clustered(frame, zip, &*layouts.get(&change.index)?, change)?,
        Body::Delete(at) => rows::delete(frame, zip, &*layouts.get(&at.index)?, usize::from(at.row))?,
        Body::UpdateInPlace(change) => rows::update(frame, zip, &*layouts.get(&change.index)?, change)?,
        Body::ListEndDelete(at) => rows::delete_end(frame, zip, &*layouts.get(&at.index)?, usize::from(at.row))?,
        Body::ListStartDelete(at) => rows::delete_start(frame, zip, &*layouts.get(&at.index)?, usize::from(at.row))?,
        Body::ZipReorganize { index, level } => {
            zip.check_origin(frame, *level)?;
            let layout = layouts.get(index)?;
            lists::reorganize(frame, &layout)?;
            compress::compress(zip, frame, &layout, *level)?;
        }
        Body::ZipCompressNoData { index, level } => {
            zip.check_origin(frame, *level)?;
            compress::compress(zip, frame, &*layouts.get(index)?, *level)?;
        }
        Body::ZipWriteNodePtr(write) => zip.write_both(frame, write, false)?,
        Body::ZipWriteBlobPtr(write) => zip.write_both(frame, write, true)?,
        Body::ZipWriteHeader(write) => {
            frame.write(usize::from(write.offset), write.bytes.0)?;
            zip.write(usize::from(write.offset), write.bytes.0)?;
        }
        Body::ZipPageCompress(image) => zip.replace(frame, image)?,
        Body::ListEndCopyCreated(_) | Body::Reorganize { .. } => {
            return Err(invalid("the record is for a page that is not compressed".into()));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn is_index(page: &Frame) -> Result<bool, FormatError> {
    let kind = PageType::try_from(page.u16(fil::TYPE)?).ok();
    Ok(matches!(kind, Some(PageType::Index | PageType::Rtree | PageType::Sdi)))
}

/// True for pages that are changed on the frame alone, whose front is all they are.
fn is_plain(frame: &Frame) -> Result<bool, FormatError> {
    let kind = PageType::try_from(frame.u16(fil::TYPE)?)?;
    Ok(matches!(
        kind,
        PageType::Allocated
            | PageType::Inode
            | PageType::IbufBitmap
            | PageType::FspHeader
            | PageType::Xdes
            | PageType::ZLobFirst
            | PageType::ZLobData
            | PageType::ZLobIndex
            | PageType::ZLobFrag
            | PageType::ZLobFragEntry
    ))
}

fn invalid(why: String) -> FormatError {
    FormatError::Invalid { what: WHAT, why }
}
