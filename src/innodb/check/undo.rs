//! Rollback segments of an undo tablespace, and the undo logs' segments in them (read off files of MySQL 9.7.4).
//!
//! ```text
//!   page 3, array     38 version │ 42 size │ 56 pages of the 128 rollback segments
//!   rollback segment  38 … │ 42 size │ 46 history list │ 62 segment, 10 │ 72 slots: 1024 pages (by page size) of undo logs
//!   undo log          38 type │ 56 state │ 70 list of pages
//! ```

use super::extents::Extents;
use super::reading::{NONE, Page};
use super::{Check, Source};
use crate::innodb::page::PageType;

const ARRAY: usize = 56;
const ROLLBACK_SEGMENTS: usize = 128;
const SLOTS: usize = 72;
/// A slot takes four bytes, and there is one for each 16 bytes of a page.
const BYTES_PER_SLOT: usize = 16;
const TYPE: usize = 38;
const PAGE_NODE: usize = 44;
const STATE: usize = 56;
const PAGES: usize = 70;

impl<S: Source> Check<'_, S> {
    /// Checks every rollback segment that the array names.
    pub(super) fn check_rollback_segments(
        &mut self,
        number: u32,
        array: &Page,
        extents: &Extents,
    ) -> Result<(), S::Error> {
        for slot in 0..ROLLBACK_SEGMENTS {
            let held = array.u32(ARRAY.saturating_add(slot.saturating_mul(4)));
            if held == NONE || held == 0 {
                continue;
            }
            if held >= self.subject.pages || !extents.is_used(held) {
                self.findings.add(number, format!("names page {held} for rollback segment {slot}, which is free"));
                continue;
            }
            let segment = self.page(held)?;
            if segment.kind() != Some(PageType::System) {
                self.findings.add(held, format!("should be rollback segment {slot}, and has type {}", segment.u16(24)));
                continue;
            }
            self.check_undo_slots(held, &segment, extents)?;
        }
        Ok(())
    }

    fn check_undo_slots(&mut self, number: u32, segment: &Page, extents: &Extents) -> Result<(), S::Error> {
        for slot in 0..self.size.saturating_div(BYTES_PER_SLOT) {
            let held = segment.u32(SLOTS.saturating_add(slot.saturating_mul(4)));
            if held == NONE {
                continue;
            }
            if held >= self.subject.pages || !extents.is_used(held) {
                self.findings.add(number, format!("names page {held} for an undo log, which is free"));
                continue;
            }
            self.checked.undo_segments = self.checked.undo_segments.saturating_add(1);
            let log = self.page(held)?;
            self.check_undo_log(held, &log, extents)?;
        }
        Ok(())
    }

    fn check_undo_log(&mut self, number: u32, log: &Page, extents: &Extents) -> Result<(), S::Error> {
        let (state, kind) = (log.u16(STATE), log.u16(TYPE));
        if log.kind() != Some(PageType::UndoLog) || state == 0 || state > 10 || !(1..=2).contains(&kind) {
            let what = format!("should be an undo log's first page, and has type {}, state {state}", log.u16(24));
            self.findings.add(number, what);
            return Ok(());
        }
        let list = log.list(PAGES);
        let (mut at, mut count) = (list.first, 0_u32);
        while let Some(node) = at {
            if !self.walks_on(number) {
                return Ok(());
            }
            let page = if node.page < self.subject.pages && extents.is_used(node.page) {
                Some(self.page(node.page)?)
            } else {
                None
            };
            let Some(page) = page.filter(|page| page.kind() == Some(PageType::UndoLog)) else {
                self.findings.add(number, format!("has page {} in its undo log, which is none of undo", node.page));
                return Ok(());
            };
            (at, count) = (page.node(PAGE_NODE).1, count.saturating_add(1));
            // Also of a list that goes in a circle, and says that it is long.
            if count > list.len.min(self.subject.pages) {
                break;
            }
        }
        if count != list.len {
            self.findings.add(number, format!("has an undo log of {} pages, and {count} were found", list.len));
        }
        Ok(())
    }
}
