//! From a page to compressed bytes, as its server compressed it: the same bytes, or at least as many.
//!
//! The redo log holds no compressed bytes where a server runs with `innodb_log_compressed_pages=OFF`. Whether it is made
//! by a zlib whose outcome is the same, `origin` finds out; `zlib::makes_same_bytes` tells it before anything is written.

use super::super::frame::Frame;
use super::super::index_page::{BODY, FREE, HEAP_TOP, IndexPage};
use super::super::layout::{INFO_DELETED, RowLayout, RowShape};
use super::decompress::window_bits;
use super::directory::{DELETED, OWNS, SLOT};
use super::fields::{self, Kept, pointers};
use super::{BOUNDS, HEADER, HEAP, POINTER, PREV, ZipPage, invalid};
use crate::innodb::FormatError;
use crate::innodb::page::fil;
use crate::util::zlib::{Deflater, Flush, ZlibError};

/// Bytes of a stream's header and checksum.
const STREAM_FRAME: usize = 6;

/// Compresses the frame.
pub fn compress(zip: &mut ZipPage, frame: &mut Frame, layout: &RowLayout, level: u8) -> Result<(), FormatError> {
    let rows = Rows::read(frame)?;
    let frame = &*frame;
    let leaf = frame.u16(super::LEVEL)? == 0;
    let kept = Kept::of(layout, leaf);
    let mut packer = Packer::open(zip, frame, rows.heap.len(), kept, level)?;
    packer.push(&fields::encode(layout, leaf), Flush::Full)?;
    packer.rows(&rows, layout, kept)?;
    let top = frame.place(HEAP_TOP)?;
    let rest = top.checked_sub(packer.next);
    let rest = rest.ok_or_else(|| invalid(format!("its heap ends at byte {top}, before its last row")))?;
    packer.push(frame.slice(packer.next, rest)?, Flush::Finish)?;
    let (out, end, pointers) = (packer.out, packer.at, packer.pointers);

    zip.data.write(BODY, out.get(BODY..).unwrap_or_default())?;
    zip.data.write(PREV, frame.slice(PREV, fil::LSN.saturating_sub(PREV))?)?;
    zip.data.write(fil::TYPE, frame.slice(fil::TYPE, 2)?)?;
    zip.data.write(fil::BODY, frame.slice(fil::BODY, BODY.saturating_sub(fil::BODY))?)?;
    (zip.stream_end, zip.trusted, zip.behind, zip.end, zip.pointers) = (end, true, false, end, pointers);
    for (number, entry) in rows.entries.iter().enumerate() {
        zip.set_entry(number, *entry)?;
    }
    Ok(())
}

/// The rows of a page.
struct Rows {
    /// Entries of the directory.
    entries: Vec<u16>,
    /// Origins, and whether the row is freed, by the rows' numbers in the heap.
    heap: Vec<(usize, bool)>,
}

impl Rows {
    fn read(frame: &mut Frame) -> Result<Self, FormatError> {
        let page = IndexPage::open(frame, true)?;
        let count = page.heap_count()?.saturating_sub(BOUNDS);
        let (mut entries, mut heap) = (Vec::with_capacity(count), vec![None; count]);
        let mut note = |origin: usize, freed: bool| {
            let number = usize::from(page.heap_no(page.check_user_row(origin)?)?).checked_sub(BOUNDS);
            let slot = number.and_then(|number| heap.get_mut(number)).filter(|slot| slot.is_none());
            *slot.ok_or_else(|| invalid(format!("the row at byte {origin} has no number in the heap")))? =
                Some((origin, freed));
            let mut entry = u16::try_from(origin).ok().filter(|origin| *origin < OWNS);
            let info = page.frame.u8(page.info_at(origin)?)?;
            if !freed && info & 0x0F != 0 {
                entry = entry.map(|entry| entry | OWNS);
            }
            if !freed && info & INFO_DELETED != 0 {
                entry = entry.map(|entry| entry | DELETED);
            }
            entries.push(entry.ok_or_else(|| invalid(format!("a row at byte {origin}")))?);
            Ok::<(), FormatError>(())
        };
        let mut at = page.next_row(page.infimum())?;
        while at != page.supremum() {
            note(at, false)?;
            at = page.next_row(at)?;
        }
        let free = page.frame.place(FREE)?;
        let mut freed = (free != 0).then_some(free);
        while let Some(at) = freed {
            note(at, true)?;
            freed = page.next(at)?;
        }
        let heap: Option<Vec<(usize, bool)>> = heap.into_iter().collect();
        Ok(Self { entries, heap: heap.ok_or_else(|| invalid("a row of its heap is in no list".into()))? })
    }
}

/// What goes on while the stream is written.
struct Packer<'f> {
    frame: &'f Frame,
    deflater: Deflater,
    /// The page that is made, without its header.
    out: Vec<u8>,
    /// Where in it the stream goes on, and where it must end.
    at: usize,
    limit: usize,
    /// End of the columns that are kept.
    columns: usize,
    /// Start of the off-page pointers.
    pointer: usize,
    pointers: usize,
    /// Where on the frame what comes next is.
    next: usize,
}

impl<'f> Packer<'f> {
    fn open(zip: &ZipPage, frame: &'f Frame, rows: usize, kept: Kept, level: u8) -> Result<Self, FormatError> {
        let size = zip.data.size();
        let trailer = rows.saturating_mul(SLOT.saturating_add(kept.width()));
        // The log's end takes a byte.
        let room = size.saturating_sub(BODY).saturating_sub(1);
        if room <= trailer.saturating_add(STREAM_FRAME) {
            return Err(too_large());
        }
        let deflater = Deflater::new(level, window_bits(frame)).map_err(|error| invalid(error.to_string()))?;
        Ok(Self {
            frame,
            deflater,
            out: vec![0; size],
            at: BODY,
            limit: size.saturating_sub(1).saturating_sub(trailer),
            columns: size.saturating_sub(rows.saturating_mul(SLOT)),
            pointer: size.saturating_sub(trailer),
            pointers: 0,
            next: HEAP,
        })
    }

    fn push(&mut self, bytes: &[u8], flush: Flush) -> Result<(), FormatError> {
        if bytes.is_empty() && flush == Flush::Gather {
            return Ok(());
        }
        let to = self.out.get_mut(self.at..self.limit).unwrap_or_default();
        let written = self.deflater.push(bytes, to, flush).map_err(|error| match error {
            ZlibError::Full { .. } => too_large(),
            error => invalid(error.to_string()),
        })?;
        self.at = self.at.saturating_add(written);
        Ok(())
    }

    /// Compresses the frame from where it is to `to`.
    fn push_to(&mut self, to: usize) -> Result<(), FormatError> {
        let len = to.checked_sub(self.next);
        let len = len.ok_or_else(|| invalid(format!("a row begins at byte {to}, in another")))?;
        let frame = self.frame;
        self.push(frame.slice(self.next, len)?, Flush::Gather)?;
        self.next = to;
        Ok(())
    }

    fn rows(&mut self, rows: &Rows, layout: &RowLayout, kept: Kept) -> Result<(), FormatError> {
        let mut shape = RowShape::default();
        for (number, (origin, freed)) in rows.heap.iter().enumerate() {
            self.push_to(origin.saturating_sub(HEADER))?;
            self.next = *origin;
            if kept == Kept::Nothing {
                continue;
            }
            layout.measure(self.frame.as_bytes(), *origin, &mut shape)?;
            let heap_no = number.saturating_add(BOUNDS);
            self.row(*origin, *freed, heap_no, kept, &shape)?;
        }
        Ok(())
    }

    fn row(
        &mut self,
        origin: usize,
        freed: bool,
        heap_no: usize,
        kept: Kept,
        shape: &RowShape,
    ) -> Result<(), FormatError> {
        let (width, place) = (kept.width(), origin.saturating_add(kept.place(shape)?));
        let outside: Vec<usize> = pointers(shape)?.into_iter().map(|at| origin.saturating_add(at)).collect();
        for (from, to) in kept.parts(shape)? {
            self.next = origin.saturating_add(from);
            let to = origin.saturating_add(to);
            self.push_to(to)?;
            // What is left out here.
            if to == place {
                let at = self.columns.saturating_sub(heap_no.saturating_sub(1).saturating_mul(width));
                self.copy(at, to, width)?;
            } else if outside.contains(&to) {
                if self.limit.saturating_sub(self.at) <= POINTER {
                    return Err(too_large());
                }
                if !freed {
                    self.limit = self.limit.saturating_sub(POINTER);
                    self.pointer = self.pointer.saturating_sub(POINTER);
                    self.pointers = self.pointers.saturating_add(1);
                    self.copy(self.pointer, to, POINTER)?;
                }
            }
        }
        Ok(())
    }

    fn copy(&mut self, at: usize, from: usize, len: usize) -> Result<(), FormatError> {
        let bytes = self.frame.slice(from, len)?;
        let to = self.out.get_mut(at..at.saturating_add(len));
        to.ok_or_else(too_large)?.copy_from_slice(bytes);
        Ok(())
    }
}

fn too_large() -> FormatError {
    FormatError::Unsupported {
        what: "native recovery of",
        found: "a compressed page that takes more room than on its server (another zlib): use --recovery server".into(),
    }
}
