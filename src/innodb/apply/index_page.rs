//! An index page: its header, its directory, and the links between its rows (redo-records reference, section 5;
//! record-format reference, section 2).
//!
//! ```text
//!   38 header │ 94 infimum, supremum │ heap: rows, and freed ones in a list │ … free … │ slots, backwards │ trailer
//!      slot 0 = infimum │ … each owns the 4 to 8 rows up to and with its own │ last = supremum
//! ```
//! What a row's fields are is `layout`'s; what records do to rows is `rows`' and `lists`'.

use super::frame::Frame;
use super::layout::{COMPACT_HEADER, REDUNDANT_HEADER};
use crate::innodb::FormatError;
use crate::innodb::page::{PageType, fil};

/// Number of slots.
pub const SLOT_COUNT: usize = 38;
/// End of the heap.
pub const HEAP_TOP: usize = 40;
/// Number of rows in the heap, with infimum and supremum; the top bit says that rows are compact.
pub const HEAP_COUNT: usize = 42;
/// The first freed row.
pub const FREE: usize = 44;
/// Bytes of freed rows.
pub const GARBAGE: usize = 46;
/// The row that was inserted last.
pub const LAST_INSERT: usize = 48;
/// Where inserts went.
pub const DIRECTION: usize = 50;
/// How many in a row went there.
pub const DIRECTION_COUNT: usize = 52;
/// Number of rows.
pub const ROW_COUNT: usize = 54;
/// The newest transaction that changed a leaf of a secondary index.
pub const MAX_TRX_ID: usize = 56;
/// Height above the leaves.
pub const LEVEL: usize = 64;
/// Which index it belongs to, 8 bytes.
pub const INDEX_ID: usize = 66;
/// What follows the header.
pub const BODY: usize = 94;
/// Marks a page of compact rows in [`HEAP_COUNT`].
pub const COMPACT_PAGE: u16 = 0x8000;

/// Directions of inserts.
pub mod direction {
    /// Each before the former.
    pub const LEFT: u16 = 1;
    /// Each behind the former.
    pub const RIGHT: u16 = 2;
    /// Neither.
    pub const NONE: u16 = 5;
}

/// The most rows that a slot owns.
const MOST_OWNED: u8 = 8;
/// The fewest, but for the last.
const LEAST_OWNED: u8 = 4;
const TRAILER: usize = 8;
const SLOT: usize = 2;
const WHAT: &str = "index page";

/// An index page to be changed.
#[derive(Debug)]
pub struct IndexPage<'p> {
    /// Its bytes.
    pub frame: &'p mut Frame,
    compact: bool,
}

impl<'p> IndexPage<'p> {
    /// Takes a page for one of an index, whose rows the caller takes to be compact or not.
    pub fn open(frame: &'p mut Frame, compact: bool) -> Result<Self, FormatError> {
        let page = Self::open_any(frame)?;
        if page.compact != compact {
            let (page, record) = if compact { ("redundant", "compact") } else { ("compact", "redundant") };
            return Err(invalid(format!("its rows are {page}, the record is for {record} ones")));
        }
        Ok(page)
    }

    /// Takes a page for one of an index, of whatever rows.
    pub fn open_any(frame: &'p mut Frame) -> Result<Self, FormatError> {
        let kind: PageType = frame.u16(fil::TYPE)?.try_into()?;
        if !matches!(kind, PageType::Index | PageType::Rtree | PageType::Sdi) {
            return Err(invalid(format!("its type is {} ({kind:?})", kind.id())));
        }
        let compact = frame.u16(HEAP_COUNT)? & COMPACT_PAGE != 0;
        Ok(Self { frame, compact })
    }

    /// Its rows are compact.
    pub const fn is_compact(&self) -> bool {
        self.compact
    }

    /// Origin of the smallest row there could be.
    pub const fn infimum(&self) -> usize {
        if self.compact { 99 } else { 101 }
    }

    /// Origin of the largest row there could be.
    pub const fn supremum(&self) -> usize {
        if self.compact { 112 } else { 116 }
    }

    /// Where the heap begins.
    pub const fn heap_start(&self) -> usize {
        if self.compact { 120 } else { 125 }
    }

    /// Number of rows in the heap, with infimum and supremum.
    pub fn heap_count(&self) -> Result<usize, FormatError> {
        Ok(usize::from(self.frame.u16(HEAP_COUNT)? & !COMPACT_PAGE))
    }

    /// Sets the number of rows in the heap.
    pub fn set_heap_count(&mut self, count: usize) -> Result<(), FormatError> {
        let count = u16::try_from(count).ok().filter(|count| count & COMPACT_PAGE == 0);
        let count = count.ok_or_else(|| invalid("its heap is full".into()))?;
        let mark = if self.compact { COMPACT_PAGE } else { 0 };
        self.frame.set_u16(HEAP_COUNT, count | mark)
    }

    /// Adds to a number of the header. The sum stays in 16 bits.
    pub fn add(&mut self, field: usize, more: usize) -> Result<(), FormatError> {
        let sum = self.frame.place(field)?.saturating_add(more);
        self.frame.set_place(field, sum)
    }

    /// Takes from a number of the header.
    pub fn subtract(&mut self, field: usize, less: usize) -> Result<(), FormatError> {
        let found = self.frame.place(field)?;
        let left = found.checked_sub(less);
        let left = left.ok_or_else(|| invalid(format!("its number at byte {field} is {found}, less than {less}")))?;
        self.frame.set_place(field, left)
    }

    /// An origin must be behind infimum's and before the directory.
    pub fn check_origin(&self, row: usize) -> Result<usize, FormatError> {
        if row >= self.infimum() && row < self.frame.size().saturating_sub(TRAILER) {
            return Ok(row);
        }
        Err(invalid(format!("no row can be at byte {row}")))
    }

    /// As [`Self::check_origin`], for a row of the heap.
    pub fn check_user_row(&self, row: usize) -> Result<usize, FormatError> {
        if row > self.heap_start() {
            return self.check_origin(row);
        }
        Err(invalid(format!("no row of a table can be at byte {row}")))
    }

    /// Where a row's info bits and number of owned rows are.
    pub fn info_at(&self, row: usize) -> Result<usize, FormatError> {
        Ok(self.check_origin(row)?.saturating_sub(if self.compact { COMPACT_HEADER } else { REDUNDANT_HEADER }))
    }

    /// Number of rows that a row owns.
    pub fn owned(&self, row: usize) -> Result<u8, FormatError> {
        Ok(self.frame.u8(self.info_at(row)?)? & 0x0F)
    }

    /// Sets the number of rows that a row owns.
    pub fn set_owned(&mut self, row: usize, count: u8) -> Result<(), FormatError> {
        let at = self.info_at(row)?;
        let info = self.frame.u8(at)? & 0xF0;
        self.frame.set_u8(at, info | (count & 0x0F))
    }

    fn heap_no_at(&self, row: usize) -> Result<usize, FormatError> {
        Ok(self.check_origin(row)?.saturating_sub(if self.compact { 4 } else { 5 }))
    }

    /// A row's number in the heap.
    pub fn heap_no(&self, row: usize) -> Result<u16, FormatError> {
        Ok(self.frame.u16(self.heap_no_at(row)?)? >> 3)
    }

    /// Sets a row's number in the heap.
    pub fn set_heap_no(&mut self, row: usize, heap_no: u16) -> Result<(), FormatError> {
        let at = self.heap_no_at(row)?;
        let rest = self.frame.u16(at)? & 7;
        let shifted = heap_no.checked_mul(8).ok_or_else(|| invalid(format!("row {heap_no} in its heap")))?;
        self.frame.set_u16(at, shifted | rest)
    }

    /// The row behind a row, of those in use or of the freed ones.
    pub fn next(&self, row: usize) -> Result<Option<usize>, FormatError> {
        let at = self.check_origin(row)?.saturating_sub(2);
        let link = self.frame.u16(at)?;
        if link == 0 {
            return Ok(None);
        }
        if !self.compact {
            return self.check_origin(usize::from(link)).map(Some);
        }
        let from = u16::try_from(row).map_err(|_| invalid(format!("row at byte {row}")))?;
        // Sizes are powers of two up to 65536, and the distance counts modulo that.
        let mask = self.frame.size().saturating_sub(1);
        self.check_origin(usize::from(from.wrapping_add(link)) & mask).map(Some)
    }

    /// The row behind one that is not the last.
    pub fn next_row(&self, row: usize) -> Result<usize, FormatError> {
        self.next(row)?.ok_or_else(|| invalid(format!("nothing follows the row at byte {row}")))
    }

    /// Sets the row behind a row.
    pub fn set_next(&mut self, row: usize, next: Option<usize>) -> Result<(), FormatError> {
        let at = self.check_origin(row)?.saturating_sub(2);
        let place = |row: usize| u16::try_from(row).map_err(|_| invalid(format!("row at byte {row}")));
        let link = match next {
            None => 0,
            Some(next) if self.compact => place(next)?.wrapping_sub(place(row)?),
            Some(next) => place(next)?,
        };
        self.frame.set_u16(at, link)
    }

    /// Number of slots.
    pub fn slot_count(&self) -> Result<usize, FormatError> {
        self.frame.place(SLOT_COUNT)
    }

    fn slot_at(&self, slot: usize) -> Result<usize, FormatError> {
        let below = slot.saturating_add(1).saturating_mul(SLOT).saturating_add(TRAILER);
        let at = self.frame.size().checked_sub(below).filter(|at| *at >= BODY);
        at.ok_or_else(|| invalid(format!("it has no room for slot {slot}")))
    }

    /// The row that a slot points to.
    pub fn slot(&self, slot: usize) -> Result<usize, FormatError> {
        self.check_origin(self.frame.place(self.slot_at(slot)?)?)
    }

    /// Points a slot to a row.
    pub fn set_slot(&mut self, slot: usize, row: usize) -> Result<(), FormatError> {
        let at = self.slot_at(slot)?;
        self.frame.set_place(at, row)
    }

    /// The first row from `row` on that owns others, itself included, and how many are before it.
    pub fn owner(&self, row: usize) -> Result<(usize, u8), FormatError> {
        let (mut at, mut steps) = (row, 0_u8);
        while self.owned(at)? == 0 {
            at = self.next_row(at)?;
            steps = steps.saturating_add(1);
            // A slot owns at most 8 rows, 9 for a moment; one that was lost somewhere must not be searched for ever.
            if steps > 2 * MOST_OWNED {
                return Err(invalid(format!("nothing owns the row at byte {row}")));
            }
        }
        Ok((at, steps))
    }

    /// The slot that points to a row.
    pub fn slot_of(&self, owner: usize) -> Result<usize, FormatError> {
        for slot in (0..self.slot_count()?).rev() {
            if self.frame.place(self.slot_at(slot)?)? == owner {
                return Ok(slot);
            }
        }
        Err(invalid(format!("no slot points to the row at byte {owner}")))
    }

    /// The row before `row`, which is in the part of the list that `slot` owns.
    pub fn before(&self, row: usize, slot: usize) -> Result<usize, FormatError> {
        let first = slot.checked_sub(1).ok_or_else(|| invalid(format!("nothing is before the row at byte {row}")))?;
        let mut at = self.slot(first)?;
        for _ in 0..=2 * MOST_OWNED {
            let next = self.next_row(at)?;
            if next == row {
                return Ok(at);
            }
            at = next;
        }
        Err(invalid(format!("the row at byte {row} is not behind slot {first}")))
    }

    /// Splits a slot that owns one row too many: 4 and 5.
    pub fn split_slot(&mut self, slot: usize) -> Result<(), FormatError> {
        let before = slot.checked_sub(1).ok_or_else(|| invalid("infimum owns too many rows".into()))?;
        let mut middle = self.slot(before)?;
        for _ in 0..LEAST_OWNED {
            middle = self.next_row(middle)?;
        }
        let (owner, count) = (self.slot(slot)?, self.slot_count()?);
        for at in (slot..count).rev() {
            let row = self.slot(at)?;
            self.set_slot(at.saturating_add(1), row)?;
        }
        self.set_slot(slot, middle)?;
        self.set_owned(middle, LEAST_OWNED)?;
        self.set_owned(owner, LEAST_OWNED.saturating_add(1))?;
        self.frame.set_place(SLOT_COUNT, count.saturating_add(1))
    }

    /// Takes a row over from the next slot for one that owns one too few, or merges the two.
    pub fn balance_slot(&mut self, slot: usize) -> Result<(), FormatError> {
        let count = self.slot_count()?;
        let above = slot.saturating_add(1);
        if above >= count {
            return Ok(());
        }
        let (row, next) = (self.slot(slot)?, self.slot(above)?);
        let (own, theirs) = (self.owned(row)?, self.owned(next)?);
        self.set_owned(row, 0)?;
        if theirs > LEAST_OWNED {
            let taken = self.next_row(row)?;
            self.set_owned(taken, own.saturating_add(1))?;
            self.set_slot(slot, taken)?;
            return self.set_owned(next, theirs.saturating_sub(1));
        }
        self.set_owned(next, theirs.saturating_add(own))?;
        for at in above..count {
            let row = self.slot(at)?;
            self.set_slot(at.saturating_sub(1), row)?;
        }
        self.set_slot(count.saturating_sub(1), 0)?;
        self.frame.set_place(SLOT_COUNT, count.saturating_sub(1))
    }
}

/// A slot that owns so many rows is to be split.
pub const fn is_overfull(owned: u8) -> bool {
    owned > MOST_OWNED
}

/// A slot that owned so many rows, before one was taken, is to be balanced.
pub const fn is_scarce(owned: u8) -> bool {
    owned <= LEAST_OWNED
}

pub(super) fn invalid(why: String) -> FormatError {
    FormatError::Invalid { what: WHAT, why }
}
