//! Off-page columns: the list of parts that begins on their first page (read off files of MySQL 9.7.4).
//!
//! ```text
//!   first page   38 version │ 39 flags │ 40 LOB version │ 54 length here │ 64 list of parts │ 80 unused entries │ 96 entries
//!   entry, 60    0 before │ 6 behind │ 12 older versions │ 48 page │ 52 length
//! ```

use std::collections::HashMap;

use super::extents::Extents;
use super::reading::Page;
use super::{Check, Source};
use crate::innodb::page::PageType;

const PARTS: usize = 64;

mod entry {
    pub const BEHIND: usize = 6;
    pub const PAGE: usize = 48;
}

impl<S: Source> Check<'_, S> {
    /// Walks the parts of an off-page column.
    pub(super) fn check_lob(&mut self, number: u32, first: &Page, extents: &Extents) -> Result<(), S::Error> {
        let list = first.list(PARTS);
        let (mut at, mut count) = (list.first, 0_u32);
        let mut pages: HashMap<u32, Page> = HashMap::new();
        while let Some(entry) = at {
            if !self.walks_on(number) {
                return Ok(());
            }
            if entry.page != number && !pages.contains_key(&entry.page) {
                if !extents.is_used(entry.page) {
                    self.findings
                        .add(number, format!("has a list of parts that goes to page {}, which is free", entry.page));
                    return Ok(());
                }
                let page = self.page(entry.page)?;
                // One page of entries at a time is enough: they are filled one after the other.
                pages.clear();
                pages.insert(entry.page, page);
            }
            let page = pages.get(&entry.page).unwrap_or(first);
            if entry.page != number && page.kind() != Some(PageType::LobIndex) {
                self.findings
                    .add(number, format!("has a list of parts that goes to page {}, of another kind", entry.page));
                return Ok(());
            }
            let byte = usize::from(entry.byte);
            let (part, behind) =
                (page.u32(byte.saturating_add(entry::PAGE)), page.address(byte.saturating_add(entry::BEHIND)));
            self.check_part(number, part, extents)?;
            (at, count) = (behind, count.saturating_add(1));
            // Each part has a page of its own: also of a list that goes in a circle, and says that it is long.
            if count > list.len.min(self.subject.pages) {
                break;
            }
        }
        if count != list.len {
            self.findings.add(number, format!("has a list of {} parts, and {count} were found", list.len));
        }
        Ok(())
    }

    fn check_part(&mut self, number: u32, part: u32, extents: &Extents) -> Result<(), S::Error> {
        if part == number {
            return Ok(());
        }
        let kind = if part < self.subject.pages && extents.is_used(part) { self.page(part)?.kind() } else { None };
        if kind != Some(PageType::LobData) {
            self.findings.add(number, format!("has a part on page {part}, which is none of an off-page column"));
        }
        Ok(())
    }
}
