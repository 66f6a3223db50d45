//! One row of an index page: insert, delete, mark, change in its place (redo-records reference, sections 5.1 to 5.5).
//!
//! ```text
//!   insert   image = what it shares with the row before ++ the record's bytes ─► freed space or heap ─► list ─► slot
//!   delete   list ─► freed ─► slot
//! ```
//! Compressed pages are `zip`'s.

use super::frame::Frame;
use super::index_page::{
    DIRECTION, DIRECTION_COUNT, FREE, GARBAGE, HEAP_TOP, IndexPage, LAST_INSERT, ROW_COUNT, direction, invalid,
    is_overfull, is_scarce,
};
use super::layout::{INFO_DELETED, INFO_INSTANT, INFO_VERSION, RowLayout, RowShape, has_short_ends, redundant_ends};
use crate::innodb::FormatError;
use crate::innodb::redo::body::rows::{ClustDeleteMark, FieldUpdate, RowImage, SystemFields, UpdateInPlace};

/// Bytes of a transaction id.
const TRX_ID: usize = 6;
/// The transaction id's bytes in a number of eight.
const TRX_ID_FROM: usize = 2;

/// A row as it is to be inserted.
#[derive(Debug, Clone, Default)]
pub struct NewRow {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Where in them its origin is.
    pub origin: usize,
    /// Its size and fields.
    pub shape: RowShape,
}

impl NewRow {
    /// The row that a record means by its difference to the row at `cursor`.
    pub fn from_image(
        page: &IndexPage<'_>,
        layout: &RowLayout,
        cursor: usize,
        image: &RowImage<'_>,
    ) -> Result<Self, FormatError> {
        let cursor = page.check_origin(cursor)?;
        let (mut shape, tail) = (RowShape::default(), image.tail.0);
        let (info_and_status, origin, shared, start) = match image.extra {
            Some(extra) if extra.shared == 0 => (extra.info_and_status, usize::from(extra.header_size), 0, 0),
            Some(extra) => {
                layout.measure(page.frame.as_bytes(), cursor, &mut shape)?;
                let start = cursor.saturating_sub(shape.extra);
                (extra.info_and_status, usize::from(extra.header_size), usize::from(extra.shared), start)
            }
            None => {
                layout.measure(page.frame.as_bytes(), cursor, &mut shape)?;
                let shared = shape.size().checked_sub(tail.len());
                let shared = shared.ok_or_else(|| row(format!("{} bytes replace {}", tail.len(), shape.size())))?;
                let info = page.frame.u8(page.info_at(cursor)?)? & 0xF0;
                let status = if page.is_compact() { page.frame.u8(cursor.saturating_sub(3))? & 7 } else { 0 };
                (info | status, shape.extra, shared, cursor.saturating_sub(shape.extra))
            }
        };
        let mut bytes = Vec::with_capacity(shared.saturating_add(tail.len()));
        bytes.extend_from_slice(page.frame.slice(start, shared)?);
        bytes.extend_from_slice(tail);
        let mut new = Self { bytes, origin, shape };
        new.set_info(page.is_compact(), info_and_status)?;
        new.measure(layout)?;
        Ok(new)
    }

    /// A copy of the row at `origin` of a page.
    pub fn copy(bytes: &[u8], origin: usize, layout: &RowLayout) -> Result<Self, FormatError> {
        let mut shape = RowShape::default();
        layout.measure(bytes, origin, &mut shape)?;
        let start = origin.saturating_sub(shape.extra);
        let end = start.saturating_add(shape.size());
        let copied = bytes.get(start..end).ok_or_else(|| row(format!("it ends at byte {end} of its page")))?;
        Ok(Self { bytes: copied.to_vec(), origin: shape.extra, shape })
    }

    fn set_info(&mut self, compact: bool, info_and_status: u8) -> Result<(), FormatError> {
        let short = || row("its header is cut short".into());
        let info_at = self.origin.checked_sub(if compact { 5 } else { 6 }).ok_or_else(short)?;
        let info = self.bytes.get_mut(info_at).ok_or_else(short)?;
        *info = (*info & 0x0F) | (info_and_status & 0xF0);
        if compact {
            let status = self.bytes.get_mut(self.origin.saturating_sub(3)).ok_or_else(short)?;
            *status = (*status & !7) | (info_and_status & 7);
        }
        Ok(())
    }

    fn measure(&mut self, layout: &RowLayout) -> Result<(), FormatError> {
        layout.measure(&self.bytes, self.origin, &mut self.shape)?;
        if self.shape.extra != self.origin || self.shape.size() != self.bytes.len() {
            return Err(row(format!(
                "{} bytes with its origin at {}, by its own lengths {} with {}",
                self.bytes.len(),
                self.origin,
                self.shape.size(),
                self.shape.extra
            )));
        }
        Ok(())
    }
}

/// Inserts the row that a record means behind the row at `cursor`. Gives its origin.
pub fn insert_image(
    page: &mut IndexPage<'_>,
    layout: &RowLayout,
    cursor: usize,
    image: &RowImage<'_>,
) -> Result<usize, FormatError> {
    let new = NewRow::from_image(page, layout, cursor, image)?;
    insert(page, layout, cursor, &new)
}

/// Inserts a row behind the row at `cursor`. Gives its origin.
pub fn insert(page: &mut IndexPage<'_>, layout: &RowLayout, cursor: usize, new: &NewRow) -> Result<usize, FormatError> {
    let (start, heap_no) = allocate(page, layout, new.shape.size())?;
    page.frame.write(start, &new.bytes)?;
    let origin = page.check_user_row(start.saturating_add(new.shape.extra))?;
    link(page, cursor, origin, heap_no)?;
    Ok(origin)
}

/// Room for a row: that of the first freed row where it is large enough, else the heap's end.
fn allocate(page: &mut IndexPage<'_>, layout: &RowLayout, size: usize) -> Result<(usize, u16), FormatError> {
    let free = page.frame.place(FREE)?;
    if free != 0 {
        let free = page.check_user_row(free)?;
        let mut shape = RowShape::default();
        layout.measure(page.frame.as_bytes(), free, &mut shape)?;
        if shape.size() >= size {
            let next = page.next(free)?.unwrap_or(0);
            page.frame.set_place(FREE, next)?;
            // By what the new row takes: the rest of the old one's room is lost until the page is put in order.
            page.subtract(GARBAGE, size)?;
            return Ok((free.saturating_sub(shape.extra), page.heap_no(free)?));
        }
    }
    let (top, count) = (page.frame.place(HEAP_TOP)?, page.heap_count()?);
    let end = top.saturating_add(size);
    let slots = page.slot_count()?.saturating_mul(2).saturating_add(8);
    if end > page.frame.size().saturating_sub(slots) || top < page.heap_start() {
        return Err(invalid(format!("{size} bytes more do not fit behind byte {top}")));
    }
    page.frame.set_place(HEAP_TOP, end)?;
    page.set_heap_count(count.saturating_add(1))?;
    let heap_no = u16::try_from(count).map_err(|_| invalid(format!("its heap has {count} rows")))?;
    Ok((top, heap_no))
}

/// Links a row behind `cursor`, notes where it went, and gives it to its slot.
pub fn link(page: &mut IndexPage<'_>, cursor: usize, origin: usize, heap_no: u16) -> Result<(), FormatError> {
    let next = page.next_row(cursor)?;
    page.set_next(origin, Some(next))?;
    page.set_next(cursor, Some(origin))?;
    page.add(ROW_COUNT, 1)?;
    page.set_owned(origin, 0)?;
    page.set_heap_no(origin, heap_no)?;
    note_direction(page, cursor, origin, next)?;
    let (owner, _) = page.owner(origin)?;
    let in_slot = page.owned(owner)?.saturating_add(1);
    page.set_owned(owner, in_slot)?;
    if is_overfull(in_slot) {
        let slot = page.slot_of(owner)?;
        page.split_slot(slot)?;
    }
    Ok(())
}

fn note_direction(page: &mut IndexPage<'_>, cursor: usize, origin: usize, next: usize) -> Result<(), FormatError> {
    let (last, towards) = (page.frame.place(LAST_INSERT)?, page.frame.u16(DIRECTION)?);
    let same = if last == 0 {
        None
    } else if last == cursor && towards != direction::LEFT {
        Some(direction::RIGHT)
    } else if last == next && towards != direction::RIGHT {
        Some(direction::LEFT)
    } else {
        None
    };
    let count = if same.is_some() { page.frame.u16(DIRECTION_COUNT)?.wrapping_add(1) } else { 0 };
    page.frame.set_u16(DIRECTION, same.unwrap_or(direction::NONE))?;
    page.frame.set_u16(DIRECTION_COUNT, count)?;
    page.frame.set_place(LAST_INSERT, origin)
}

/// Deletes the row at `origin`.
pub fn delete(page: &mut IndexPage<'_>, layout: &RowLayout, origin: usize) -> Result<(), FormatError> {
    let mut shape = RowShape::default();
    layout.measure(page.frame.as_bytes(), page.check_user_row(origin)?, &mut shape)?;
    let slot = unlink(page, origin)?;
    let free = page.frame.place(FREE)?;
    page.set_next(origin, (free != 0).then_some(free))?;
    page.frame.set_place(FREE, origin)?;
    page.add(GARBAGE, shape.size())?;
    page.subtract(ROW_COUNT, 1)?;
    if let Some(slot) = slot {
        page.balance_slot(slot)?;
    }
    Ok(())
}

/// Takes a row out of the list and from its slot. Gives the slot where it is to be balanced.
pub fn unlink(page: &mut IndexPage<'_>, origin: usize) -> Result<Option<usize>, FormatError> {
    let (owner, _) = page.owner(origin)?;
    let slot = page.slot_of(owner)?;
    let in_slot = page.owned(owner)?;
    page.frame.set_u16(LAST_INSERT, 0)?;
    let (before, next) = (page.before(origin, slot)?, page.next_row(origin)?);
    page.set_next(before, Some(next))?;
    let mut holder = owner;
    if owner == origin {
        // The freed row keeps its own number of owned rows.
        page.set_slot(slot, before)?;
        holder = before;
    }
    page.set_owned(holder, in_slot.saturating_sub(1))?;
    Ok(is_scarce(in_slot).then_some(slot))
}

/// Marks a row of a secondary index as deleted, or takes the mark away.
pub fn mark(page: &mut IndexPage<'_>, origin: usize, bit: u8, set: bool) -> Result<(), FormatError> {
    let at = page.info_at(origin)?;
    let info = page.frame.u8(at)?;
    page.frame.set_u8(at, if set { info | bit } else { info & !bit })
}

/// Marks a row of a clustered index as deleted, or takes the mark away.
pub fn mark_clustered(
    page: &mut IndexPage<'_>,
    layout: &RowLayout,
    change: &ClustDeleteMark<'_>,
) -> Result<(), FormatError> {
    let origin = page.check_user_row(usize::from(change.row))?;
    mark(page, origin, INFO_DELETED, change.deleted)?;
    let mut shape = RowShape::default();
    layout.measure(page.frame.as_bytes(), origin, &mut shape)?;
    write_system(page, &shape, origin, &change.system)
}

/// Writes who changed a row, where the record says so.
pub fn write_system(
    page: &mut IndexPage<'_>,
    shape: &RowShape,
    origin: usize,
    system: &SystemFields<'_>,
) -> Result<(), FormatError> {
    if system.keeps() {
        return Ok(());
    }
    let (start, len, _) = shape.field(usize::from(system.position))?;
    if len != TRX_ID {
        return Err(row(format!("its transaction id has {len} bytes")));
    }
    let at = origin.saturating_add(start);
    let id = system.transaction.to_be_bytes();
    page.frame.write(at, id.get(TRX_ID_FROM..).unwrap_or_default())?;
    page.frame.write(at.saturating_add(TRX_ID), system.roll_pointer.0)
}

/// Changes fields of a row that keep their size.
pub fn update(page: &mut IndexPage<'_>, layout: &RowLayout, change: &UpdateInPlace<'_>) -> Result<(), FormatError> {
    let origin = page.check_user_row(usize::from(change.row))?;
    let mut shape = RowShape::default();
    layout.measure(page.frame.as_bytes(), origin, &mut shape)?;
    write_system(page, &shape, origin, &change.system)?;
    let at = page.info_at(origin)?;
    let info = page.frame.u8(at)?;
    // What says how to read the row stays.
    let stays = if page.is_compact() { INFO_VERSION | INFO_INSTANT } else { INFO_VERSION };
    let bits = (change.info_bits & 0xF0 & !stays) | (info & stays) | (info & 0x0F);
    page.frame.set_u8(at, bits)?;
    for field in change.fields.iter() {
        update_field(page, layout, origin, &shape, &field)?;
    }
    Ok(())
}

fn update_field(
    page: &mut IndexPage<'_>,
    layout: &RowLayout,
    origin: usize,
    shape: &RowShape,
    change: &FieldUpdate<'_>,
) -> Result<(), FormatError> {
    let place = layout.place_of(change.field)?;
    if page.is_compact() {
        let (start, len, now) = shape.field(place)?;
        let Some(value) = change.value else {
            return if now.null { Ok(()) } else { Err(row(format!("field {place} would become NULL in its place"))) };
        };
        if value.0.len() != len || now.null || !now.present {
            return Err(row(format!("field {place} has {len} bytes, its new value {}", value.0.len())));
        }
        return page.frame.write(origin.saturating_add(start), value.0);
    }
    let (ends, version) = redundant_ends(page.frame.as_bytes(), origin)?;
    let entry = layout.entry_of(place, version);
    let (start, len, now) = shape.field(entry)?;
    let at = origin.saturating_add(start);
    match change.value {
        None if now.null => Ok(()),
        None => {
            page.frame.fill(at, at.saturating_add(len), 0)?;
            set_null(page.frame, origin, ends, entry, true)
        }
        Some(value) if value.0.len() != len => {
            Err(row(format!("field {place} has {len} bytes, its new value {}", value.0.len())))
        }
        Some(value) => {
            if now.null {
                set_null(page.frame, origin, ends, entry, false)?;
            }
            page.frame.write(at, value.0)
        }
    }
}

/// Sets or clears the bit for NULL of a field of a redundant row.
fn set_null(frame: &mut Frame, origin: usize, ends: usize, entry: usize, null: bool) -> Result<(), FormatError> {
    let width = if has_short_ends(frame.as_bytes(), origin)? { 1 } else { 2 };
    // The highest byte of the entry is the one that is lowest on the page.
    let at = ends.saturating_sub(entry.saturating_add(1).saturating_mul(width));
    let byte = frame.u8(at)?;
    frame.set_u8(at, if null { byte | 0x80 } else { byte & 0x7F })
}

pub(super) fn row(why: String) -> FormatError {
    FormatError::Invalid { what: "row", why }
}
