//! Index pages among each other: a page and its neighbours name each other, on one level of one index; each index has
//! one root, whose segments there are.

use std::collections::{HashMap, HashSet};

use super::extents::Extents;
use super::reading::{Address, NONE, Page};
use super::{Check, Source};
use crate::innodb::apply::index_page::{INDEX_ID, LEVEL};
use crate::innodb::page::PageType;

const PREV: usize = 8;
const NEXT: usize = 12;
/// Where a root names its segments: space, page, byte.
const SEGMENTS: [usize; 2] = [74, 84];

/// The change buffer's, whose root has other things in the place of its segments.
const CHANGE_BUFFER: u64 = 0xFFFF_FFFF_0000_0000;

/// What was met of the indexes of a tablespace.
#[derive(Debug, Default)]
pub struct Trees {
    roots: HashMap<u64, u32>,
    met: HashSet<u64>,
}

impl<S: Source> Check<'_, S> {
    /// Checks that a page and the one behind it fit each other.
    pub(super) fn check_neighbours(
        &mut self,
        number: u32,
        page: &Page,
        extents: &Extents,
        trees: &mut Trees,
    ) -> Result<(), S::Error> {
        let (index, level) = (page.u64(INDEX_ID), page.u16(LEVEL));
        let (prev, next) = (page.u32(PREV), page.u32(NEXT));
        if index != CHANGE_BUFFER {
            trees.met.insert(index);
        }
        if index != CHANGE_BUFFER && page.u32(SEGMENTS[0].saturating_add(4)) != 0 {
            self.check_root(number, page, extents, trees);
        }
        for (other, back, name) in [(next, PREV, "next"), (prev, NEXT, "previous")] {
            // The one behind is checked from here, the one before only for being there: each link once.
            if other == NONE {
                continue;
            }
            if other >= self.subject.pages || !extents.is_used(other) {
                self.findings.add(number, format!("names page {other} as the {name} one, which is not in use"));
                continue;
            }
            if back == NEXT {
                continue;
            }
            let neighbour = self.page(other)?;
            let found = neighbour.u32(back);
            if found != number {
                self.findings.add(number, format!("names page {other} as the {name} one, which names page {found}"));
            } else if neighbour.kind() != page.kind()
                || neighbour.u64(INDEX_ID) != index
                || neighbour.u16(LEVEL) != level
            {
                self.findings.add(number, format!("and page {other} behind it are of two indexes or levels"));
            }
        }
        if prev != NONE && prev < self.subject.pages {
            let before = self.page(prev)?;
            let found = before.u32(NEXT);
            if found != number {
                self.findings.add(number, format!("names page {prev} as the previous one, which names page {found}"));
            }
        }
        Ok(())
    }

    fn check_root(&mut self, number: u32, page: &Page, extents: &Extents, trees: &mut Trees) {
        let index = page.u64(INDEX_ID);
        if page.u32(PREV) != NONE || page.u32(NEXT) != NONE {
            self.findings.add(number, format!("is the root of index {index}, and has neighbours"));
        }
        for at in SEGMENTS {
            let inode = Address { page: page.u32(at.saturating_add(4)), byte: page.u16(at.saturating_add(8)) };
            if page.u32(at) != self.subject.space.0 || !extents.has_segment_at(inode) {
                let what = format!("is the root of index {index}, and its segment at {} is not there", inode.page);
                self.findings.add(number, what);
            }
        }
        if let Some(other) = trees.roots.insert((index << 1) | u64::from(page.kind() == Some(PageType::Sdi)), number) {
            self.findings.add(number, format!("is a root of index {index}, and so is page {other}"));
        }
    }

    /// Every index whose pages there are has a root.
    pub(super) fn check_roots(&mut self, trees: &Trees) {
        for index in &trees.met {
            let has = [0, 1].into_iter().any(|sdi| trees.roots.contains_key(&((index << 1) | sdi)));
            if !has {
                self.findings.add(0, format!("has pages of index {index}, and no root of it"));
            }
        }
    }
}
