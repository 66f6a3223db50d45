//! Many rows of an index page at once: lists that are copied or deleted, and pages put in order (redo-records reference,
//! section 5.6). Compressed pages are `zip`'s.

use super::create;
use super::frame::Frame;
use super::index_page::{
    DIRECTION, DIRECTION_COUNT, FREE, GARBAGE, IndexPage, LAST_INSERT, LEVEL, MAX_TRX_ID, ROW_COUNT, SLOT_COUNT,
    direction, invalid,
};
use super::layout::{RowLayout, RowShape};
use super::rows::{NewRow, delete, insert, insert_image};
use crate::innodb::FormatError;
use crate::innodb::redo::body::rows::RowImages;

/// Fills a page that was just made, each row behind the former.
pub fn copy_created(page: &mut IndexPage<'_>, layout: &RowLayout, rows: &RowImages<'_>) -> Result<(), FormatError> {
    let supremum = page.supremum();
    let slot = page.slot_of(supremum)?;
    let mut last = page.before(supremum, slot)?;
    for row in rows.iter() {
        last = insert_image(page, layout, last, &row)?;
    }
    page.frame.set_u16(LAST_INSERT, 0)?;
    page.frame.set_u16(DIRECTION, direction::NONE)?;
    page.frame.set_u16(DIRECTION_COUNT, 0)
}

/// Deletes the rows from `first` to the end, as a whole list.
pub fn delete_end(page: &mut IndexPage<'_>, layout: &RowLayout, first: usize) -> Result<(), FormatError> {
    let supremum = page.supremum();
    if page.check_origin(first)? == supremum {
        return Ok(());
    }
    page.check_user_row(first)?;
    page.frame.set_u16(LAST_INSERT, 0)?;
    let (owner, before_owner) = page.owner(first)?;
    let slot = page.slot_of(owner)?;
    let in_slot = page.owned(owner)?;
    let before = page.before(first, slot)?;
    let (mut size, mut count, mut last) = (0_usize, 0_usize, first);
    let (mut at, limit, mut shape) = (first, page.heap_count()?, RowShape::default());
    while at != supremum {
        layout.measure(page.frame.as_bytes(), page.check_user_row(at)?, &mut shape)?;
        size = size.saturating_add(shape.size());
        count = count.saturating_add(1);
        if count > limit {
            return Err(invalid("its rows are linked in a circle".into()));
        }
        last = at;
        at = page.next_row(at)?;
    }
    // Of the rows that the slot owned, those before the first deleted one are left.
    let left = in_slot.checked_sub(before_owner).ok_or_else(|| invalid(format!("slot {slot} owns {in_slot} rows")))?;
    page.set_slot(slot, supremum)?;
    page.set_owned(supremum, left)?;
    page.frame.set_place(SLOT_COUNT, slot.saturating_add(1))?;
    page.set_next(before, Some(supremum))?;
    let free = page.frame.place(FREE)?;
    page.set_next(last, (free != 0).then_some(free))?;
    page.frame.set_place(FREE, first)?;
    page.add(GARBAGE, size)?;
    page.subtract(ROW_COUNT, count)
}

/// Deletes the rows before `end`, one by one.
pub fn delete_start(page: &mut IndexPage<'_>, layout: &RowLayout, end: usize) -> Result<(), FormatError> {
    let infimum = page.infimum();
    if end == page.supremum() {
        return Err(FormatError::Unsupported { what: "deletion of all rows of a page", found: "by their list".into() });
    }
    if page.check_origin(end)? == infimum {
        return Ok(());
    }
    let limit = page.heap_count()?;
    for _ in 0..limit {
        let first = page.next_row(infimum)?;
        if first == end {
            return Ok(());
        }
        delete(page, layout, first)?;
    }
    Err(invalid(format!("the row at byte {end} is not in its list")))
}

/// Puts a page in order: its rows one behind the other, no freed ones between them.
pub fn reorganize(frame: &mut Frame, layout: &RowLayout) -> Result<(), FormatError> {
    let mut old = frame.clone();
    let page = IndexPage::open(&mut old, layout.is_compact())?;
    create::reset(frame, layout.is_compact())?;
    let mut new = IndexPage::open(frame, layout.is_compact())?;
    let (mut from, mut behind) = (page.next_row(page.infimum())?, new.infimum());
    for _ in 0..page.heap_count()? {
        if from == page.supremum() {
            break;
        }
        let copy = NewRow::copy(page.frame.as_bytes(), page.check_user_row(from)?, layout)?;
        behind = insert(&mut new, layout, behind, &copy)?;
        from = page.next_row(from)?;
    }
    if from != page.supremum() {
        return Err(invalid("its rows are linked in a circle".into()));
    }
    if !layout.is_clustered() && page.frame.u16(LEVEL)? == 0 {
        let newest = page.frame.u64(MAX_TRX_ID)?;
        new.frame.set_u64(MAX_TRX_ID, newest)?;
    }
    Ok(())
}
