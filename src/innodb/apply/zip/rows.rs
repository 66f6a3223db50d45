//! Rows of compressed pages: what records do to frame and compressed bytes.
//!
//! ```text
//!   insert   room? ─no─► the frame alone: the log goes on with the page compressed anew
//!              └─yes─► freed row or heap ─► list, slot ─► directory ─► columns, pointers ─► log of changes
//!   delete   list, slot ─► directory: first of the freed ─► pointers away ─► what is kept zeroed
//! ```

use super::super::frame::Frame;
use super::super::index_page::{FREE, GARBAGE, HEAP_TOP, IndexPage, LAST_INSERT, LEVEL, ROW_COUNT};
use super::super::layout::{INFO_DELETED, RowLayout, RowShape};
use super::super::rows::{self, NewRow};
use super::directory::{DELETED, SLOT};
use super::fields::{Kept, SYSTEM, pointers};
use super::{BOUNDS, HEADER, HEAP, POINTER, ZipPage, invalid};
use crate::innodb::FormatError;
use crate::innodb::redo::body::rows::{ClustDeleteMark, RowImage, UpdateInPlace};

const TRAILER: usize = 8;

/// Inserts the row that a record means behind the row at `cursor`.
pub fn insert(
    frame: &mut Frame,
    zip: &mut ZipPage,
    layout: &RowLayout,
    cursor: usize,
    image: &RowImage<'_>,
) -> Result<(), FormatError> {
    let kept = kept_of(frame, layout)?;
    let mut page = IndexPage::open(frame, true)?;
    let new = NewRow::from_image(&page, layout, cursor, image)?;
    let size = new.shape.size();
    if !zip.has_room(kept, size)? || is_reorganized_before(&page, size)? {
        zip.behind = true;
        return rows::insert(&mut page, layout, cursor, &new).map(|_| ());
    }
    let used = page.frame.place(ROW_COUNT)?;
    let (start, heap_no, reused) = allocate(&mut page, layout, &new, kept)?;
    page.frame.write(start, &new.bytes)?;
    let origin = page.check_user_row(start.saturating_add(new.shape.extra))?;
    rows::link(&mut page, cursor, origin, heap_no)?;
    let first = cursor == page.infimum();

    let heap_rows = zip.heap_rows()?;
    if !reused {
        zip.add_entry(heap_rows, kept)?;
    }
    zip.copy_header(frame)?;
    let number = if first { 0 } else { zip.find(cursor, 0..used)?.saturating_add(1) };
    let hole = if reused { zip.find(origin, used..heap_rows)? } else { heap_rows };
    zip.open_entry(number, hole)?;
    zip.set_entry(number, u16::try_from(origin).map_err(|_| invalid(format!("a row at byte {origin}")))?)?;
    zip.note_owners(frame)?;
    write_row(frame, zip, layout, origin, kept, true)
}

/// Writes the row at `origin` of the frame to the compressed page.
fn write_row(
    frame: &Frame,
    zip: &mut ZipPage,
    layout: &RowLayout,
    origin: usize,
    kept: Kept,
    created: bool,
) -> Result<(), FormatError> {
    let mut shape = RowShape::default();
    layout.measure(frame.as_bytes(), origin, &mut shape)?;
    let heap_no = heap_no(frame, origin)?;
    let deleted = frame.u8(origin.saturating_sub(HEADER))? & INFO_DELETED != 0;
    zip.mark(origin, DELETED, deleted)?;
    let outside = pointers(&shape)?.len();
    if outside != 0 {
        let before = zip.pointers_before(frame, layout, heap_no)?;
        if created {
            zip.open_pointers(before, outside)?;
        }
        zip.keep_pointers(frame, origin, &shape, before)?;
    }
    zip.keep_columns(frame, origin, heap_no, kept, &shape)?;
    zip.append(frame, origin, heap_no, kept, &shape)
}

/// A server puts a page in order first where that gives room that it lacks.
fn is_reorganized_before(page: &IndexPage<'_>, size: usize) -> Result<bool, FormatError> {
    let garbage = page.frame.place(GARBAGE)?;
    if garbage == 0 {
        return Ok(false);
    }
    let (now, after) = (room_now(page)?, room_in_order(page, garbage)?);
    Ok(size > now && size <= after)
}

/// The most bytes that a row may take that is inserted.
fn room_now(page: &IndexPage<'_>) -> Result<usize, FormatError> {
    let rows = page.heap_count()?.saturating_sub(BOUNDS);
    Ok(room(page, page.frame.place(HEAP_TOP)?.saturating_sub(HEAP), rows))
}

/// Likewise once the page is in order.
fn room_in_order(page: &IndexPage<'_>, garbage: usize) -> Result<usize, FormatError> {
    let used = page.frame.place(HEAP_TOP)?.saturating_sub(HEAP).saturating_sub(garbage);
    Ok(room(page, used, page.frame.place(ROW_COUNT)?))
}

/// A slot is reserved for each four rows.
fn room(page: &IndexPage<'_>, used: usize, rows: usize) -> usize {
    let slots = rows.saturating_add(1).saturating_mul(SLOT).div_ceil(4);
    let bounds = HEAP.saturating_add(TRAILER).saturating_add(SLOT.saturating_mul(2));
    page.frame.size().saturating_sub(bounds).saturating_sub(used).saturating_sub(slots)
}

/// Room for a row: start, number in the heap, and whether it was a freed row's.
fn allocate(
    page: &mut IndexPage<'_>,
    layout: &RowLayout,
    new: &NewRow,
    kept: Kept,
) -> Result<(usize, u16, bool), FormatError> {
    let size = new.shape.size();
    let free = page.frame.place(FREE)?;
    if free != 0 {
        let mut shape = RowShape::default();
        layout.measure(page.frame.as_bytes(), page.check_user_row(free)?, &mut shape)?;
        // The origin stays where it is, since the directory names it: so what is before must not grow.
        if let Some(less) = shape.extra.checked_sub(new.shape.extra)
            && shape.size() >= size.saturating_add(less)
        {
            let next = page.next(free)?.unwrap_or(0);
            page.frame.set_place(FREE, next)?;
            page.subtract(GARBAGE, size)?;
            clear_reused(page.frame, free, &shape, kept, size)?;
            let start = free.saturating_sub(shape.extra).saturating_add(less);
            return Ok((start, page.heap_no(free)?, true));
        }
    }
    let (top, count, most) = (page.frame.place(HEAP_TOP)?, page.heap_count()?, room_now(page)?);
    if size > most || top < HEAP {
        return Err(invalid(format!("a row of {size} bytes does not fit, {most} are free")));
    }
    page.frame.set_place(HEAP_TOP, top.saturating_add(size))?;
    page.set_heap_count(count.saturating_add(1))?;
    let heap_no = u16::try_from(count).map_err(|_| invalid(format!("its heap has {count} rows")))?;
    Ok((top, heap_no, false))
}

/// Zeroes what is kept of a freed row where the new one may not reach over it.
fn clear_reused(
    frame: &mut Frame,
    origin: usize,
    shape: &RowShape,
    kept: Kept,
    size: usize,
) -> Result<(), FormatError> {
    let at = kept.place(shape)?;
    let left_over = match kept {
        Kept::Nothing => false,
        Kept::Child => shape.size() > size,
        Kept::System(_) => at.saturating_add(SYSTEM).saturating_add(shape.extra) > size,
    };
    if !left_over {
        return Ok(());
    }
    let at = origin.saturating_add(at);
    frame.fill(at, at.saturating_add(kept.width()), 0)
}

/// Deletes the row at `origin`.
pub fn delete(frame: &mut Frame, zip: &mut ZipPage, layout: &RowLayout, origin: usize) -> Result<(), FormatError> {
    let kept = kept_of(frame, layout)?;
    let mut shape = RowShape::default();
    let mut page = IndexPage::open(frame, true)?;
    layout.measure(page.frame.as_bytes(), page.check_user_row(origin)?, &mut shape)?;
    let used = zip.rows()?;
    let number = zip.find(origin, 0..used)?;
    let outside = pointers(&shape)?;
    rows::delete(&mut page, layout, origin)?;
    zip.copy_header(frame)?;

    // The last of the rows becomes the first of the freed.
    let last = used.saturating_sub(1);
    zip.close_entry(number, last)?;
    zip.set_entry(last, u16::try_from(origin).map_err(|_| invalid(format!("a row at byte {origin}")))?)?;
    let heap_no = heap_no(frame, origin)?;
    if !outside.is_empty() {
        let before = zip.pointers_before(frame, layout, heap_no)?;
        zip.close_pointers(before, outside.len())?;
    }
    frame.set_u8(origin.saturating_sub(HEADER), 0)?;
    let width = kept.width();
    let at = origin.saturating_add(kept.place(&shape)?);
    frame.fill(at, at.saturating_add(width), 0)?;
    if width != 0 {
        let at = zip.columns_of(heap_no, kept)?;
        zip.data.fill(at, at.saturating_add(width), 0)?;
    }
    for place in outside {
        let at = origin.saturating_add(place);
        frame.fill(at, at.saturating_add(POINTER), 0)?;
    }
    zip.note_owners(frame)
}

/// Deletes the rows from `first` to the end, one by one.
pub fn delete_end(frame: &mut Frame, zip: &mut ZipPage, layout: &RowLayout, first: usize) -> Result<(), FormatError> {
    let page = IndexPage::open(frame, true)?;
    let (supremum, limit) = (page.supremum(), page.heap_count()?);
    if first == supremum {
        return Ok(());
    }
    let mut at = page.check_user_row(first)?;
    frame.set_u16(LAST_INSERT, 0)?;
    for _ in 0..limit {
        let next = IndexPage::open(frame, true)?.next_row(at)?;
        delete(frame, zip, layout, at)?;
        if next == supremum {
            return Ok(());
        }
        at = next;
    }
    Err(invalid("its rows are linked in a circle".into()))
}

/// Deletes the rows before `end`, one by one.
pub fn delete_start(frame: &mut Frame, zip: &mut ZipPage, layout: &RowLayout, end: usize) -> Result<(), FormatError> {
    let page = IndexPage::open(frame, true)?;
    let (infimum, limit) = (page.infimum(), page.heap_count()?);
    if page.check_origin(end)? == page.supremum() {
        return Err(FormatError::Unsupported { what: "deletion of all rows of a page", found: "by their list".into() });
    }
    if end == infimum {
        return Ok(());
    }
    for _ in 0..limit {
        let first = IndexPage::open(frame, true)?.next_row(infimum)?;
        if first == end {
            return Ok(());
        }
        delete(frame, zip, layout, first)?;
    }
    Err(invalid(format!("the row at byte {end} is not in its list")))
}

/// Marks a row as deleted, or not.
pub fn mark(frame: &mut Frame, zip: &mut ZipPage, row: usize, deleted: bool) -> Result<(), FormatError> {
    rows::mark(&mut IndexPage::open(frame, true)?, row, INFO_DELETED, deleted)?;
    zip.mark(row, DELETED, deleted)
}

/// Likewise in a clustered index, with who did it.
pub fn mark_clustered(
    frame: &mut Frame,
    zip: &mut ZipPage,
    layout: &RowLayout,
    change: &ClustDeleteMark<'_>,
) -> Result<(), FormatError> {
    let (kept, origin) = (kept_of(frame, layout)?, usize::from(change.row));
    rows::mark_clustered(&mut IndexPage::open(frame, true)?, layout, change)?;
    zip.mark(origin, DELETED, change.deleted)?;
    if change.system.keeps() {
        return Ok(());
    }
    let mut shape = RowShape::default();
    layout.measure(frame.as_bytes(), origin, &mut shape)?;
    zip.keep_columns(frame, origin, heap_no(frame, origin)?, kept, &shape)
}

/// Changes fields of a row that keep their size.
pub fn update(
    frame: &mut Frame,
    zip: &mut ZipPage,
    layout: &RowLayout,
    change: &UpdateInPlace<'_>,
) -> Result<(), FormatError> {
    let kept = kept_of(frame, layout)?;
    rows::update(&mut IndexPage::open(frame, true)?, layout, change)?;
    write_row(frame, zip, layout, usize::from(change.row), kept, false)
}

fn kept_of(frame: &Frame, layout: &RowLayout) -> Result<Kept, FormatError> {
    if layout.is_plain() {
        return Ok(Kept::of(layout, frame.u16(LEVEL)? == 0));
    }
    // Columns cannot be added at once to tables that are compressed.
    Err(FormatError::Unsupported { what: "native recovery of", found: "compressed rows with versions".into() })
}

fn heap_no(frame: &Frame, origin: usize) -> Result<usize, FormatError> {
    Ok(usize::from(frame.u16(origin.saturating_sub(4))? >> 3))
}

impl ZipPage {
    /// A row of `size` bytes fits into the log of changes, with all that comes with it.
    fn has_room(&self, kept: Kept, size: usize) -> Result<bool, FormatError> {
        // Its number takes two bytes at most, and the header goes without saying.
        let entry = size.saturating_sub(HEADER.saturating_sub(2));
        let taken = entry.saturating_add(self.trailer(kept)?).saturating_add(SLOT).saturating_add(self.end);
        Ok(taken < self.data.size())
    }

    /// Makes room for one more row of the heap, which had `heap_rows`: an entry of the directory, and its columns.
    fn add_entry(&mut self, heap_rows: usize, kept: Kept) -> Result<(), FormatError> {
        let directory = self.columns_end(heap_rows)?;
        let columns = heap_rows.saturating_mul(kept.width());
        let stored = directory.saturating_sub(columns);
        let outside = self.pointers.saturating_mul(POINTER);
        let start = stored.saturating_sub(outside);
        let more = SLOT.saturating_add(kept.width());
        if start.saturating_sub(more) <= self.end {
            return Err(invalid("it has no room for one more row".into()));
        }
        if outside != 0 {
            self.data.shift(start, start.saturating_sub(more), outside)?;
        }
        self.data.shift(stored, stored.saturating_sub(SLOT), columns)
    }
}
