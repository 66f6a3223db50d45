//! Off-page pointers: below the columns of rows, from high places to low, by the rows' numbers in the heap and their
//! columns' order. Freed rows have none.

use super::super::frame::Frame;
use super::super::layout::{RowLayout, RowShape};
use super::directory::SLOT;
use super::fields::{Kept, SYSTEM, pointers};
use super::{POINTER, ZipPage, invalid};
use crate::innodb::FormatError;

const ORIGIN: u16 = 0x3FFF;

impl ZipPage {
    /// End of the pointers.
    fn pointers_end(&self) -> Result<usize, FormatError> {
        let rows = self.heap_rows()?.saturating_mul(SLOT.saturating_add(SYSTEM));
        let end = self.data.size().checked_sub(rows);
        end.ok_or_else(|| invalid("its rows do not fit".into()))
    }

    /// Where the pointers of a row begin that has `before` pointers before its own, and where all of them do.
    fn pointer_places(&self, before: usize) -> Result<(usize, usize), FormatError> {
        let end = self.pointers_end()?;
        let place = |count: usize| end.checked_sub(count.saturating_mul(POINTER)).filter(|at| *at >= self.end);
        let places = place(before).zip(place(self.pointers)).filter(|(own, all)| own >= all);
        places.ok_or_else(|| invalid(format!("it has {} off-page columns, {before} before a row's", self.pointers)))
    }

    /// Number of off-page columns of the rows before the one with this number in the heap.
    pub fn pointers_before(&self, frame: &Frame, layout: &RowLayout, heap_no: usize) -> Result<usize, FormatError> {
        let (mut count, mut shape) = (0_usize, RowShape::default());
        for number in 0..self.rows()? {
            let origin = usize::from(self.entry(number)? & ORIGIN);
            if usize::from(frame.u16(origin.saturating_sub(4))? >> 3) >= heap_no {
                continue;
            }
            layout.measure(frame.as_bytes(), origin, &mut shape)?;
            count = count.saturating_add(shape.fields.iter().filter(|field| field.external).count());
        }
        Ok(count)
    }

    /// Makes room for the pointers of a new row behind those of `before` others.
    pub fn open_pointers(&mut self, before: usize, count: usize) -> Result<(), FormatError> {
        let (own, all) = self.pointer_places(before)?;
        let room = count.saturating_mul(POINTER);
        let to = all.checked_sub(room).filter(|to| *to > self.end);
        let to = to.ok_or_else(|| invalid(format!("it has no room for {count} off-page pointers")))?;
        self.data.shift(all, to, own.saturating_sub(all))?;
        self.pointers = self.pointers.saturating_add(count);
        Ok(())
    }

    /// Takes the pointers of a row away that are behind those of `before` others.
    pub fn close_pointers(&mut self, before: usize, count: usize) -> Result<(), FormatError> {
        let (own, all) = self.pointer_places(before)?;
        let room = count.saturating_mul(POINTER);
        let moved = own.saturating_sub(all).checked_sub(room);
        let moved = moved.ok_or_else(|| invalid(format!("it has no {count} off-page pointers of a row")))?;
        self.data.shift(all, all.saturating_add(room), moved)?;
        self.data.fill(all, all.saturating_add(room), 0)?;
        self.pointers = self.pointers.saturating_sub(count);
        Ok(())
    }

    /// Writes what is kept of a row outside of stream and log.
    pub fn keep_columns(
        &mut self,
        frame: &Frame,
        origin: usize,
        heap_no: usize,
        kept: Kept,
        shape: &RowShape,
    ) -> Result<(), FormatError> {
        let at = self.columns_of(heap_no, kept)?;
        let from = origin.saturating_add(kept.place(shape)?);
        self.data.write(at, frame.slice(from, kept.width())?)
    }

    /// Writes a row's pointers behind those of `before` others.
    pub fn keep_pointers(
        &mut self,
        frame: &Frame,
        origin: usize,
        shape: &RowShape,
        before: usize,
    ) -> Result<(), FormatError> {
        let (mut at, all) = self.pointer_places(before)?;
        for place in pointers(shape)? {
            at = at.saturating_sub(POINTER);
            if at < all {
                return Err(invalid("it has too few off-page pointers".into()));
            }
            self.data.write(at, frame.slice(origin.saturating_add(place), POINTER)?)?;
        }
        Ok(())
    }
}
