//! From compressed bytes to a page.
//!
//! ```text
//!   directory ─► slots, order and headers of rows          stream ─► lengths and columns, row by row of the heap
//!   log       ─► rows that changed since                   columns ─► transaction, child, off-page pointers
//! ```
//! The headers of rows are not stored: they follow from the directory and from where rows are.

use super::super::index_page::{BODY, HEAP_TOP, SLOT_COUNT};
use super::super::layout::RowShape;
use super::directory::{self, Row};
use super::fields::{self, Described, Kept};
use super::log;
use super::{BOUNDS, HEADER, HEAP, POINTER, PREV, ZipPage, invalid};
use crate::innodb::FormatError;
use crate::util::zlib::Inflater;

use super::super::frame::Frame;

/// Infimum and supremum, but for what depends on rows.
const INFIMUM: &[u8] = b"\x01\x00\x02\x00\x00infimum\0";
const SUPREMUM: &[u8] = b"\x01\x00\x0B\x00\x00supremum";
const INFIMUM_AT: usize = 94;
const SUPREMUM_AT: usize = 107;
/// No page: a page's left neighbour where it has none.
const NO_PAGE: u32 = 0xFFFF_FFFF;
/// Behind the slots of the frame.
const TRAILER: usize = 8;
/// Status of a row: a node pointer.
const NODE: u16 = 1;
/// Bits of a row's status, below those of its number in the heap.
const STATUS_BITS: u16 = 7;

/// Fills `frame` with what `zip` means, and learns where its log ends.
pub fn decompress(zip: &mut ZipPage, frame: &mut Frame) -> Result<(), FormatError> {
    let rows = directory::read(zip)?;
    frame.write(0, zip.data.slice(0, BODY)?)?;
    frame.fill(BODY, frame.size(), 0)?;
    frame.write(INFIMUM_AT, INFIMUM)?;
    frame.write(SUPREMUM_AT, SUPREMUM)?;
    directory::write_slots(zip, frame)?;

    let leaf = zip.is_leaf()?;
    let mut unpacker = Unpacker::open(zip, frame)?;
    let described = fields::decode(&unpacker.description()?, leaf)?;
    unpacker.rows(&rows, &described)?;
    let (known, start) = (unpacker.known, BODY.saturating_add(unpacker.consumed));

    // Rows were taken from freed ones, or added, since the page was compressed.
    (zip.stream_end, zip.trusted, zip.behind, zip.end, zip.pointers) = (start, false, false, 0, 0);
    zip.end = log::replay(zip, start, frame, &rows, &described, known)?;
    let room = zip.data.size();
    if zip.trailer(described.kept)?.saturating_add(zip.end) >= room {
        return Err(invalid(format!("its log ends at byte {}, behind the columns of its rows", zip.end)));
    }
    restore_columns(zip, frame, &rows, &described)?;
    let leftmost = !leaf && frame.u32(PREV)? == NO_PAGE;
    directory::write_headers(zip, frame, leftmost)
}

/// What goes on while the stream is read.
struct Unpacker<'a> {
    frame: &'a mut Frame,
    input: &'a [u8],
    inflater: Inflater,
    /// Bytes of the stream that were read.
    consumed: usize,
    /// Where the next byte of the page goes.
    next: usize,
    ended: bool,
    /// Number that the next row of the heap has.
    known: usize,
}

impl<'a> Unpacker<'a> {
    fn open(zip: &'a ZipPage, frame: &'a mut Frame) -> Result<Self, FormatError> {
        let size = zip.data.size();
        // The log's end takes a byte.
        let input = zip.data.slice(BODY, size.saturating_sub(BODY).saturating_sub(1))?;
        let inflater = Inflater::new(window_bits(frame)).map_err(|error| invalid(error.to_string()))?;
        Ok(Self { frame, input, inflater, consumed: 0, next: HEAP, ended: false, known: BOUNDS })
    }

    /// The description of the rows: the stream's first block.
    fn description(&mut self) -> Result<Vec<u8>, FormatError> {
        let mut out = vec![0; self.frame.size()];
        let mut made = 0;
        // The first call reads the stream's header.
        for _ in 0..2 {
            let input = self.input.get(self.consumed..).unwrap_or_default();
            let to = out.get_mut(made..).unwrap_or_default();
            let progress = self.inflater.pull_block(input, to).map_err(|error| invalid(error.to_string()))?;
            self.consumed = self.consumed.saturating_add(progress.consumed);
            made = made.saturating_add(progress.produced);
            if progress.ended {
                return Err(invalid("its stream holds no rows".into()));
            }
        }
        out.truncate(made);
        Ok(out)
    }

    /// Fills the page up to `to` from the stream. Gives false when the stream ended before.
    fn fill(&mut self, to: usize) -> Result<bool, FormatError> {
        let wanted = to.checked_sub(self.next);
        let wanted = wanted.ok_or_else(|| invalid(format!("a row begins at byte {to}, in another")))?;
        self.frame.slice(self.next, wanted)?;
        let input = self.input.get(self.consumed..).unwrap_or_default();
        let output = self.frame.as_bytes_mut().get_mut(self.next..to).unwrap_or_default();
        let progress = self.inflater.pull(input, output).map_err(|error| invalid(error.to_string()))?;
        self.consumed = self.consumed.saturating_add(progress.consumed);
        self.next = self.next.saturating_add(progress.produced);
        self.ended = progress.ended;
        if progress.produced < wanted && !progress.ended {
            return Err(invalid(format!("its stream is cut short before byte {to} of the page")));
        }
        Ok(progress.produced == wanted)
    }

    /// As [`Self::fill`], of a row that must be whole.
    fn fill_all(&mut self, to: usize) -> Result<(), FormatError> {
        if to == self.next || self.fill(to)? {
            return Ok(());
        }
        Err(invalid(format!("its stream ends before byte {to} of the page")))
    }

    /// Leaves a gap of zeros.
    fn skip(&mut self, len: usize) -> Result<(), FormatError> {
        let end = self.next.saturating_add(len);
        self.frame.fill(self.next, end, 0)?;
        self.next = end;
        Ok(())
    }

    /// Begins a row, whose header is skipped. Gives false where no row begins.
    fn begin_row(&mut self, row: &Row, kept: Kept) -> Result<bool, FormatError> {
        if self.next != row.origin.saturating_sub(HEADER) {
            return Ok(false);
        }
        self.next = row.origin;
        write_heap_no(self.frame, row.origin, self.known, kept)?;
        self.known = self.known.saturating_add(1);
        Ok(true)
    }

    fn rows(&mut self, rows: &[Row], described: &Described) -> Result<(), FormatError> {
        let (kept, mut shape) = (described.kept, RowShape::default());
        for row in rows {
            let at = row.origin.saturating_sub(HEADER);
            // Also where no byte is missing: the stream may have ended with the former row, or have held none at all.
            self.fill(at)?;
            if self.ended {
                // What follows is in the log.
                self.begin_row(row, kept)?;
                return self.clear_rest();
            }
            if !self.begin_row(row, kept)? {
                return Err(invalid(format!("no row begins at byte {} of the page", row.origin)));
            }
            if kept == Kept::Nothing {
                continue;
            }
            described.layout.measure(self.frame.as_bytes(), row.origin, &mut shape)?;
            for (from, to) in kept.parts(&shape)? {
                // What is left out before.
                let from = row.origin.saturating_add(from);
                self.skip(from.saturating_sub(self.next))?;
                self.fill_all(row.origin.saturating_add(to))?;
                if self.ended && kept == Kept::Child {
                    return self.clear_rest();
                }
            }
        }
        // Rows of a secondary index's leaf, and what is left of a larger row that the last one was put into.
        let top = self.frame.place(HEAP_TOP)?;
        if top < self.next || top > self.frame.size() {
            return Err(invalid(format!("its heap ends at byte {top}, its rows at byte {}", self.next)));
        }
        if !self.ended {
            self.fill(top)?;
        }
        if !self.ended {
            return Err(invalid("its stream goes on behind its rows".into()));
        }
        self.clear_rest()
    }

    /// Clears what is free between rows and slots.
    fn clear_rest(&mut self) -> Result<(), FormatError> {
        let slots = self.frame.place(SLOT_COUNT)?.saturating_mul(directory::SLOT).saturating_add(TRAILER);
        let end = self.frame.size().saturating_sub(slots);
        if self.next > end {
            return Err(invalid(format!("its rows end at byte {}, behind its first slot", self.next)));
        }
        self.frame.fill(self.next, end, 0)
    }
}

/// The window that pages of this size are compressed with.
pub fn window_bits(frame: &Frame) -> u8 {
    u8::try_from(frame.size().trailing_zeros()).unwrap_or_default()
}

/// Writes a row's number in the heap and its status.
pub fn write_heap_no(frame: &mut Frame, origin: usize, heap_no: usize, kept: Kept) -> Result<(), FormatError> {
    let status = if kept == Kept::Child { NODE } else { 0 };
    let number = u16::try_from(heap_no).ok().and_then(|number| number.checked_mul(STATUS_BITS.saturating_add(1)));
    let number = number.ok_or_else(|| invalid(format!("its heap has {heap_no} rows")))?;
    frame.set_u16(origin.saturating_sub(4), number | status)
}

/// Puts what is kept outside of the stream into the rows. Off-page pointers of freed rows are gone.
fn restore_columns(
    zip: &mut ZipPage,
    frame: &mut Frame,
    rows: &[Row],
    described: &Described,
) -> Result<(), FormatError> {
    let (kept, mut shape) = (described.kept, RowShape::default());
    if kept == Kept::Nothing {
        return Ok(());
    }
    let width = kept.width();
    let mut from = zip.columns_end(rows.len())?;
    let mut pointer = from.saturating_sub(rows.len().saturating_mul(width));
    for row in rows {
        described.layout.measure(frame.as_bytes(), row.origin, &mut shape)?;
        from = from.saturating_sub(width);
        let at = row.origin.saturating_add(kept.place(&shape)?);
        frame.write(at, zip.data.slice(from, width)?)?;
        for place in fields::pointers(&shape)? {
            let at = row.origin.saturating_add(place);
            if row.freed {
                frame.fill(at, at.saturating_add(POINTER), 0)?;
                continue;
            }
            pointer = pointer.saturating_sub(POINTER);
            if pointer < zip.end {
                return Err(invalid("its rows have more off-page columns than it has pointers".into()));
            }
            frame.write(at, zip.data.slice(pointer, POINTER)?)?;
            zip.pointers = zip.pointers.saturating_add(1);
        }
    }
    Ok(())
}
