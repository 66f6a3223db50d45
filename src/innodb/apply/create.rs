//! Pages that are made: empty index pages, cleared pages, change buffer bitmaps (redo-records reference, sections 5.7
//! and 6).

use super::frame::Frame;
use super::index_page::{BODY, COMPACT_PAGE, DIRECTION, HEAP_COUNT, HEAP_TOP, LEVEL, SLOT_COUNT, direction};
use crate::innodb::FormatError;
use crate::innodb::ids::PageId;
use crate::innodb::page::{PageType, fil};
use crate::innodb::redo::body::Tree;

/// Infimum and supremum of an empty page, with what is before their origins.
const COMPACT_BOUNDS: &[u8] = b"\x01\x00\x02\x00\x0Dinfimum\0\x01\x00\x0B\x00\x00supremum";
const REDUNDANT_BOUNDS: &[u8] = b"\x08\x01\x00\x00\x03\x00\x74infimum\0\x09\x01\x00\x08\x03\x00\x00supremum\0";
/// Bits of the bitmap for each page.
const BITMAP_BITS: usize = 4;

/// Makes an empty index page.
pub fn index_page(frame: &mut Frame, tree: Tree, compact: bool) -> Result<(), FormatError> {
    let kind = match tree {
        Tree::Btree => PageType::Index,
        Tree::Rtree => PageType::Rtree,
        Tree::Sdi => PageType::Sdi,
    };
    frame.set_u16(fil::TYPE, kind.id())?;
    reset(frame, compact)
}

/// Empties an index page. Its kind, level, index and segments stay.
pub fn reset(frame: &mut Frame, compact: bool) -> Result<(), FormatError> {
    let (bounds, mark, rows) =
        if compact { (COMPACT_BOUNDS, COMPACT_PAGE, [99, 112]) } else { (REDUNDANT_BOUNDS, 0, [101, 116]) };
    let heap = BODY.saturating_add(bounds.len());
    let end = frame.size().saturating_sub(8);
    frame.fill(fil::BODY, LEVEL, 0)?;
    frame.set_u16(SLOT_COUNT, 2)?;
    frame.set_place(HEAP_TOP, heap)?;
    frame.set_u16(HEAP_COUNT, 2 | mark)?;
    frame.set_u16(DIRECTION, direction::NONE)?;
    frame.write(BODY, bounds)?;
    frame.fill(heap, end, 0)?;
    for (slot, row) in (1_usize..).zip(rows) {
        frame.set_u16(end.saturating_sub(slot.saturating_mul(2)), row)?;
    }
    Ok(())
}

/// Clears a page, but for its place.
pub fn cleared(frame: &mut Frame, id: PageId) -> Result<(), FormatError> {
    frame.fill(0, frame.size(), 0)?;
    frame.set_u32(fil::PAGE_NO, id.page.0)?;
    frame.set_u32(fil::SPACE_ID, id.space.0)
}

/// Makes a change buffer bitmap for pages of `physical` bytes.
pub fn bitmap(frame: &mut Frame, physical: usize) -> Result<(), FormatError> {
    frame.set_u16(fil::TYPE, PageType::IbufBitmap.id())?;
    let bytes = physical.saturating_mul(BITMAP_BITS).saturating_div(8);
    frame.fill(BODY, BODY.saturating_add(bytes), 0)
}
