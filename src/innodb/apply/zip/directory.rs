//! The dense directory: an entry for each row of the heap, so that rows need no headers.
//!
//! ```text
//!   … entry n │ … │ entry 1 │ entry 0 ║ end of the page
//!   rows in their order ─► freed rows in the list's order
//!   0x8000 marked as deleted │ 0x4000 owns a slot │ origin, 14 bits
//! ```

use super::super::frame::Frame;
use super::super::index_page::SLOT_COUNT;
use super::super::layout::{INFO_DELETED, INFO_MIN};
use super::{HEADER, HEAP, ZipPage, invalid};
use crate::innodb::FormatError;

/// Bytes of an entry, as of a slot of the frame.
pub const SLOT: usize = 2;
/// The row is marked as deleted.
pub const DELETED: u16 = 0x8000;
/// The row owns a slot.
pub const OWNS: u16 = 0x4000;
const ORIGIN: u16 = 0x3FFF;
const TRAILER: usize = 8;

const INFIMUM: u16 = 99;
const SUPREMUM: u16 = 112;

/// A row of the heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its origin.
    pub origin: usize,
    /// It is freed.
    pub freed: bool,
}

/// All rows, by their places: the order of the heap.
pub fn read(zip: &ZipPage) -> Result<Vec<Row>, FormatError> {
    let (all, used) = (zip.heap_rows()?, zip.rows()?);
    if all.saturating_mul(SLOT) >= zip.data.size() || used > all {
        return Err(invalid(format!("its heap has {all} rows, {used} of them in use")));
    }
    let mut rows = Vec::with_capacity(all);
    for number in 0..all {
        let entry = zip.entry(number)?;
        let (origin, freed) = (origin_of(entry), number >= used);
        if origin < HEAP.saturating_add(HEADER) || (freed && entry & !ORIGIN != 0) {
            return Err(invalid(format!("entry {number} of its directory is {entry:#06x}")));
        }
        rows.push(Row { origin, freed });
    }
    rows.sort_unstable_by_key(|row| row.origin);
    if rows.windows(2).any(|pair| matches!(pair, [a, b] if a.origin == b.origin)) {
        return Err(invalid("its directory names a row twice".into()));
    }
    Ok(rows)
}

/// Writes the frame's slots.
pub fn write_slots(zip: &ZipPage, frame: &mut Frame) -> Result<(), FormatError> {
    let slots = frame.place(SLOT_COUNT)?;
    let mut at = frame.size().saturating_sub(TRAILER).saturating_sub(SLOT);
    frame.set_u16(at, INFIMUM)?;
    let mut written = 1_usize;
    for number in 0..zip.rows()? {
        let entry = zip.entry(number)?;
        if entry & OWNS != 0 {
            at = at.saturating_sub(SLOT);
            written = written.saturating_add(1);
            frame.set_u16(at, entry & ORIGIN)?;
        }
    }
    at = at.saturating_sub(SLOT);
    frame.set_u16(at, SUPREMUM)?;
    if written.saturating_add(1) == slots {
        return Ok(());
    }
    Err(invalid(format!("its rows own {written} of its {slots} slots")))
}

/// Writes the headers of rows: info bits, numbers of owned rows, links.
pub fn write_headers(zip: &ZipPage, frame: &mut Frame, leftmost: bool) -> Result<(), FormatError> {
    let (used, all) = (zip.rows()?, zip.heap_rows()?);
    let (mut before, mut owned) = (usize::from(INFIMUM), 1_u8);
    let mut info = if leftmost { INFO_MIN } else { 0 };
    for number in 0..used {
        let entry = zip.entry(number)?;
        let origin = origin_of(entry);
        if entry & DELETED != 0 {
            info |= INFO_DELETED;
        }
        if entry & OWNS != 0 {
            info |= owned & 0x0F;
            owned = 1;
        } else {
            owned = owned.saturating_add(1);
        }
        link(frame, before, origin)?;
        frame.set_u8(origin.saturating_sub(HEADER), info)?;
        (before, info) = (origin, 0);
    }
    link(frame, before, usize::from(SUPREMUM))?;
    frame.set_u8(usize::from(SUPREMUM).saturating_sub(HEADER), owned)?;
    let mut freed: Option<usize> = None;
    for number in used..all {
        let origin = origin_of(zip.entry(number)?);
        frame.set_u8(origin.saturating_sub(HEADER), 0)?;
        if let Some(before) = freed {
            link(frame, before, origin)?;
        }
        freed = Some(origin);
    }
    match freed {
        Some(last) => frame.set_u16(last.saturating_sub(SLOT), 0),
        None => Ok(()),
    }
}

fn link(frame: &mut Frame, before: usize, origin: usize) -> Result<(), FormatError> {
    let place = |row: usize| u16::try_from(row).map_err(|_| invalid(format!("a row at byte {row}")));
    let distance = place(origin)?.wrapping_sub(place(before)?);
    frame.set_u16(before.saturating_sub(SLOT), distance)
}

fn origin_of(entry: u16) -> usize {
    usize::from(entry & ORIGIN)
}

impl ZipPage {
    fn entry_at(&self, number: usize) -> Result<usize, FormatError> {
        let below = number.saturating_add(1).saturating_mul(SLOT);
        self.data.size().checked_sub(below).ok_or_else(|| invalid(format!("it has no room for {number} rows")))
    }

    /// An entry.
    pub fn entry(&self, number: usize) -> Result<u16, FormatError> {
        self.data.u16(self.entry_at(number)?)
    }

    /// Sets an entry.
    pub fn set_entry(&mut self, number: usize, entry: u16) -> Result<(), FormatError> {
        self.data.set_u16(self.entry_at(number)?, entry)
    }

    /// Number of the entry of the row at `origin`, which is one of these.
    pub fn find(&self, origin: usize, numbers: std::ops::Range<usize>) -> Result<usize, FormatError> {
        for number in numbers {
            if origin_of(self.entry(number)?) == origin {
                return Ok(number);
            }
        }
        Err(invalid(format!("its directory lacks the row at byte {origin}")))
    }

    /// Takes the entry at `hole` away, and makes room for one at `number`, which is before it.
    pub fn open_entry(&mut self, number: usize, hole: usize) -> Result<(), FormatError> {
        let moved = hole.checked_sub(number).ok_or_else(|| invalid("its freed rows are before its others".into()))?;
        if moved == 0 {
            return Ok(());
        }
        let from = self.entry_at(hole.saturating_sub(1))?;
        self.data.shift(from, from.saturating_sub(SLOT), moved.saturating_mul(SLOT))
    }

    /// Takes the entry at `number` away, and makes room for one at `last`, which is behind it.
    pub fn close_entry(&mut self, number: usize, last: usize) -> Result<(), FormatError> {
        let moved = last.checked_sub(number).ok_or_else(|| invalid("its freed rows are before its others".into()))?;
        if moved == 0 {
            return Ok(());
        }
        let from = self.entry_at(last)?;
        self.data.shift(from, from.saturating_add(SLOT), moved.saturating_mul(SLOT))
    }

    /// Sets or clears the mark of a row that is in use.
    pub fn mark(&mut self, origin: usize, bit: u16, set: bool) -> Result<(), FormatError> {
        let number = self.find(origin, 0..self.rows()?)?;
        let entry = self.entry(number)?;
        self.set_entry(number, if set { entry | bit } else { entry & !bit })
    }

    /// Notes which rows own slots.
    pub fn note_owners(&mut self, frame: &Frame) -> Result<(), FormatError> {
        for number in 0..self.rows()? {
            let entry = self.entry(number)?;
            let owns = frame.u8(origin_of(entry).saturating_sub(HEADER))? & 0x0F != 0;
            let noted = if owns { entry | OWNS } else { entry & !OWNS };
            if noted != entry {
                self.set_entry(number, noted)?;
            }
        }
        Ok(())
    }
}
