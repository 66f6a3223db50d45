//! An index page by itself: its rows in their list, its directory, its heap, its freed rows (record-format reference,
//! section 2).

use super::dictionary::Dictionary;
use super::extents::Extents;
use super::order::Levels;
use super::reading::Page;
use super::trees::Trees;
use super::{Check, Source};
use crate::innodb::FormatError;
use crate::innodb::apply::frame::Frame;
use crate::innodb::apply::index_page::{FREE, GARBAGE, HEAP_TOP, INDEX_ID, IndexPage, LAST_INSERT, LEVEL, ROW_COUNT};
use crate::innodb::page::PageType;

/// No tree is higher: each level has at least twice the pages of the one above, but for the root.
const MOST_LEVELS: u16 = 64;

impl<S: Source> Check<'_, S> {
    /// Checks an index page, and notes its place in its tree.
    pub(super) fn check_index_page(
        &mut self,
        number: u32,
        page: &Page,
        frame: &mut Frame,
        extents: &Extents,
        trees: &mut Trees,
    ) -> Result<(), S::Error> {
        if let Err(error) = check_rows(frame) {
            self.findings.bad(number, &error);
        }
        self.check_neighbours(number, page, extents, trees)
    }

    /// Checks the order of an index page's rows, where the dictionary tells it.
    pub(super) fn check_rows_by_dictionary(
        &mut self,
        number: u32,
        page: &Page,
        frame: &mut Frame,
        extents: &Extents,
        dictionary: &Dictionary,
        levels: &mut Levels,
    ) -> Result<(), S::Error> {
        let Some(shape) = dictionary.get(&page.u64(INDEX_ID)).filter(|_| page.kind() != Some(PageType::Sdi)) else {
            return Ok(());
        };
        self.checked.ordered_pages = self.checked.ordered_pages.saturating_add(1);
        self.check_order(number, frame, shape, extents, levels)
    }
}

fn wrong(why: String) -> FormatError {
    FormatError::Invalid { what: "index page", why }
}

/// Everything that must hold of a page's rows.
fn check_rows(frame: &mut Frame) -> Result<(), FormatError> {
    let page = IndexPage::open_any(frame)?;
    let (count, top) = (page.heap_count()?, page.frame.place(HEAP_TOP)?);
    let slots = page.slot_count()?;
    let directory = page.frame.size().saturating_sub(8).saturating_sub(slots.saturating_mul(2));
    if slots < 2 || count < 2 || top < page.heap_start() || top > directory {
        return Err(wrong(format!("heap of {count} rows up to byte {top}, {slots} slots")));
    }
    if page.frame.u16(LEVEL)? >= MOST_LEVELS {
        return Err(wrong(format!("level {}", page.frame.u16(LEVEL)?)));
    }
    let mut heap = Heap { seen: vec![false; count], top };
    let rows = check_list(&page, &mut heap)?;
    let said = page.frame.place(ROW_COUNT)?;
    if rows != said {
        return Err(wrong(format!("{rows} rows in its list, {said} by its header")));
    }
    let freed = check_freed(&page, &mut heap)?;
    if rows.saturating_add(freed).saturating_add(2) != count {
        return Err(wrong(format!("{rows} rows and {freed} freed ones, {count} in its heap")));
    }
    let (garbage, last) = (page.frame.place(GARBAGE)?, page.frame.place(LAST_INSERT)?);
    if garbage > top || (last != 0 && (last < page.heap_start() || last > top)) {
        return Err(wrong(format!("{garbage} bytes of freed rows, the last insert at byte {last}")));
    }
    Ok(())
}

/// Which numbers of a heap were met.
struct Heap {
    seen: Vec<bool>,
    top: usize,
}

impl Heap {
    fn meet(&mut self, page: &IndexPage<'_>, row: usize) -> Result<(), FormatError> {
        let number = page.heap_no(row)?;
        let seen = self.seen.get_mut(usize::from(number));
        let seen = seen.ok_or_else(|| wrong(format!("row {number} of its heap at byte {row}")))?;
        if std::mem::replace(seen, true) {
            return Err(wrong(format!("row {number} of its heap twice, at byte {row}")));
        }
        if row > self.top {
            return Err(wrong(format!("a row at byte {row}, behind its heap")));
        }
        Ok(())
    }
}

/// Walks the rows in their order. Gives how many there are between infimum and supremum.
fn check_list(page: &IndexPage<'_>, heap: &mut Heap) -> Result<usize, FormatError> {
    let (mut at, mut rows, mut slot, mut owned) = (page.infimum(), 0_usize, 0_usize, 0_u8);
    loop {
        heap.meet(page, at)?;
        owned = owned.saturating_add(1);
        let (own, last) = (page.owned(at)?, at == page.supremum());
        if own != 0 || last {
            let fewest = if slot == 0 || last { 1 } else { 4 };
            let most = if slot == 0 { 1 } else { 8 };
            if page.slot(slot)? != at || own != owned || own < fewest || own > most {
                return Err(wrong(format!("slot {slot} and the row at byte {at}, which owns {own} of {owned}")));
            }
            (slot, owned) = (slot.saturating_add(1), 0);
        }
        if last {
            break;
        }
        if at != page.infimum() {
            rows = rows.saturating_add(1);
        }
        at = page.next_row(at)?;
    }
    if slot != page.slot_count()? {
        return Err(wrong(format!("{} slots, {slot} of them used", page.slot_count()?)));
    }
    Ok(rows)
}

/// Walks the freed rows. Gives how many there are.
fn check_freed(page: &IndexPage<'_>, heap: &mut Heap) -> Result<usize, FormatError> {
    let (mut at, mut freed) = (page.frame.place(FREE)?, 0_usize);
    while at != 0 {
        heap.meet(page, at)?;
        freed = freed.saturating_add(1);
        at = page.next(at)?.unwrap_or(0);
    }
    Ok(freed)
}
