//! Who has which extent: page 0, extent descriptors, their lists, segments (tablespace-files reference, section 5; the
//! rest was read off files of MySQL 9.7.4).
//!
//! ```text
//!   page 0, and every (page size)-th: descriptors    segment │ list node │ state │ 2 bits per page: free, clean
//!   lists of the space    FREE ─ FREE_FRAG ─ FULL_FRAG                   state 1, 2, 3
//!   lists of a segment    FREE ─ NOT_FULL ─ FULL, and single pages       state 4, 5
//!   inode pages           list node │ segments: id │ used │ 3 lists │ magic │ single pages
//! ```

use std::collections::{HashMap, HashSet};

use super::reading::{Address, ListBase, NONE, Page};
use super::{Check, Source};
use crate::innodb::page::PageType;
use crate::innodb::space::header::extent_pages;

const SIZE: usize = 46;
const FREE_LIMIT: usize = 50;
const FREE: usize = 62;
const FREE_FRAG: usize = 78;
const FULL_FRAG: usize = 94;
const INODES_FULL: usize = 118;
const INODES_FREE: usize = 134;
const DESCRIPTORS: usize = 150;

mod descriptor {
    pub const SEGMENT: usize = 0;
    pub const NODE: usize = 8;
    pub const STATE: usize = 20;
    pub const BITS: usize = 24;
}

mod inode {
    pub const PAGE_NODE: usize = 38;
    pub const FIRST: usize = 50;
    pub const RESERVED: usize = 10;
    pub const ID: usize = 0;
    pub const LISTS: [usize; 3] = [12, 28, 44];
    pub const MAGIC: usize = 60;
    pub const SINGLE_PAGES: usize = 64;
    pub const MAGIC_NUMBER: u32 = 97_937_874;
}

/// Names of states, by their numbers.
const STATES: [&str; 6] = ["not initialised", "FREE", "FREE_FRAG", "FULL_FRAG", "FSEG", "FSEG_FRAG"];

/// An extent's descriptor.
#[derive(Debug, Clone)]
struct Extent {
    at: Address,
    segment: u64,
    state: u32,
    /// Whether each page is in use, a bit each.
    used: Vec<u8>,
    listed: bool,
}

/// All extents below the free limit.
#[derive(Debug)]
pub struct Extents {
    pages: u32,
    all: Vec<Extent>,
    /// Ids of segments, and where they are.
    segments: HashMap<u64, Address>,
    by_node: HashMap<Address, usize>,
}

impl Extents {
    /// Reads and checks them. `None` when page 0 is of no use.
    pub fn gather<S: Source>(check: &mut Check<'_, S>) -> Result<Option<Self>, S::Error> {
        let page0 = check.page(0)?;
        let (size, limit) = (page0.u32(SIZE), page0.u32(FREE_LIMIT));
        if page0.kind() != Some(PageType::FspHeader) {
            check.findings.add(0, format!("has type {}, not that of a tablespace's first page", page0.u16(24)));
            return Ok(None);
        }
        // The first extent is initialised as a whole, though a small file has only its first pages.
        let per_extent = extent_pages(check.subject.flags.logical_size());
        if size > check.subject.pages || limit > size.max(per_extent) {
            let there = check.subject.pages;
            check.findings.add(0, format!("says {size} pages, {limit} of them initialised, and there are {there}"));
            return Ok(None);
        }
        let mut this = Self { pages: per_extent, all: Vec::new(), segments: HashMap::new(), by_node: HashMap::new() };
        this.read_descriptors(check, limit)?;
        for (list, state) in [(FREE, 1), (FREE_FRAG, 2), (FULL_FRAG, 3)] {
            this.walk(check, 0, page0.list(list), &[state], 0)?;
        }
        this.read_segments(check, &page0)?;
        this.check_listed(check);
        Ok(Some(this))
    }

    /// A page is in use, by what its extent's descriptor says.
    pub fn is_used(&self, page: u32) -> bool {
        let (number, within) = (page.checked_div(self.pages), page.checked_rem(self.pages));
        let (Some(number), Some(within)) = (number, within) else { return false };
        let extent = usize::try_from(number).ok().and_then(|number| self.all.get(number));
        extent.is_some_and(|extent| {
            let byte = usize::try_from(within / 8).ok().and_then(|at| extent.used.get(at)).copied().unwrap_or(0);
            byte.checked_shr(within % 8).unwrap_or(0) & 1 != 0
        })
    }

    /// A segment has an inode there.
    pub fn has_segment_at(&self, at: Address) -> bool {
        self.segments.values().any(|known| *known == at)
    }

    fn read_descriptors<S: Source>(&mut self, check: &mut Check<'_, S>, limit: u32) -> Result<(), S::Error> {
        let per_page = u32::try_from(check.size).unwrap_or(0).checked_div(self.pages).unwrap_or(0);
        let length = descriptor::BITS.saturating_add(usize::try_from(self.pages / 4).unwrap_or(0));
        let count = limit.div_ceil(self.pages.max(1));
        let mut page = None;
        for number in 0..count {
            let (holder, slot) = (number.checked_div(per_page).unwrap_or(0), number.checked_rem(per_page).unwrap_or(0));
            let holder = holder.saturating_mul(u32::try_from(check.size).unwrap_or(0));
            if page.as_ref().is_none_or(|(at, _)| *at != holder) {
                let read = check.page(holder)?;
                if !matches!(read.kind(), Some(PageType::FspHeader | PageType::Xdes)) {
                    check.findings.add(holder, format!("has type {}, not that of extent descriptors", read.u16(24)));
                }
                page = Some((holder, read));
            }
            let Some((_, bytes)) = &page else { continue };
            let at = usize::try_from(slot).unwrap_or(0).saturating_mul(length).saturating_add(DESCRIPTORS);
            let node =
                Address { page: holder, byte: u16::try_from(at.saturating_add(descriptor::NODE)).unwrap_or(u16::MAX) };
            let state = bytes.u32(at.saturating_add(descriptor::STATE));
            if state == 0 || state > 5 {
                check.findings.add(holder, format!("says that extent {number} has state {state}"));
            }
            self.by_node.insert(node, self.all.len());
            self.all.push(Extent {
                at: node,
                segment: bytes.u64(at.saturating_add(descriptor::SEGMENT)),
                state,
                used: used_bits(bytes, at.saturating_add(descriptor::BITS), self.pages),
                listed: false,
            });
        }
        Ok(())
    }

    /// Walks a list of extents that must have one of these states and belong to this segment.
    fn walk<S: Source>(
        &mut self,
        check: &mut Check<'_, S>,
        holder: u32,
        list: ListBase,
        states: &[u32],
        segment: u64,
    ) -> Result<(), S::Error> {
        let (mut at, mut before, mut count) = (list.first, None, 0_u32);
        while let Some(node) = at {
            let Some(extent) = self.by_node.get(&node).and_then(|number| self.all.get_mut(*number)) else {
                check.findings.add(holder, format!("has a list that goes to byte {} of page {}", node.byte, node.page));
                return Ok(());
            };
            let first = self.pages;
            if extent.listed {
                check.findings.add(node.page, format!("has an extent in two lists, at byte {}", node.byte));
                return Ok(());
            }
            extent.listed = true;
            if !states.contains(&extent.state) || (segment != 0 && extent.segment != segment) {
                let state =
                    usize::try_from(extent.state).ok().and_then(|state| STATES.get(state)).unwrap_or(&"unknown");
                let what = format!(
                    "has an extent of state {state} and segment {} in a list of segment {segment}, at byte {}",
                    extent.segment, node.byte
                );
                check.findings.add(node.page, what);
            }
            let page = check.page(node.page)?;
            let (prev, next) = page.node(usize::from(node.byte));
            if prev != before {
                check.findings.add(node.page, format!("has a list whose links do not fit, at byte {}", node.byte));
            }
            (before, at, count) = (at, next, count.saturating_add(1));
            if count > list.len.saturating_add(first) {
                break;
            }
        }
        if count != list.len || before != list.last {
            check.findings.add(holder, format!("has a list of {} extents, and {count} were found", list.len));
        }
        Ok(())
    }

    fn read_segments<S: Source>(&mut self, check: &mut Check<'_, S>, page0: &Page) -> Result<(), S::Error> {
        let mut met = HashSet::new();
        for base in [INODES_FULL, INODES_FREE] {
            let list = page0.list(base);
            let (mut at, mut count) = (list.first, 0_u32);
            while let Some(node) = at {
                let page = check.page(node.page)?;
                if page.kind() != Some(PageType::Inode) || usize::from(node.byte) != inode::PAGE_NODE {
                    check.findings.add(0, format!("has a list of segments that goes to page {}", node.page));
                    break;
                }
                if !met.insert(node.page) {
                    check.findings.add(0, format!("has lists of segments that go to page {} twice", node.page));
                    break;
                }
                self.read_inodes(check, node.page, &page)?;
                (at, count) = (page.node(inode::PAGE_NODE).1, count.saturating_add(1));
                if count > list.len {
                    break;
                }
            }
            if count != list.len {
                check.findings.add(0, format!("has a list of {} pages of segments, and {count} were found", list.len));
            }
        }
        Ok(())
    }

    fn read_inodes<S: Source>(&mut self, check: &mut Check<'_, S>, number: u32, page: &Page) -> Result<(), S::Error> {
        let singles = self.pages / 2;
        let length = inode::SINGLE_PAGES.saturating_add(usize::try_from(singles).unwrap_or(0).saturating_mul(4));
        let end = check.size.saturating_sub(inode::RESERVED);
        let mut at = inode::FIRST;
        while at.saturating_add(length) <= end {
            let id = page.u64(at.saturating_add(inode::ID));
            let here = Address { page: number, byte: u16::try_from(at).unwrap_or(u16::MAX) };
            if id != 0 {
                if page.u32(at.saturating_add(inode::MAGIC)) != inode::MAGIC_NUMBER {
                    check.findings.add(number, format!("has segment {id} without its mark, at byte {at}"));
                }
                if self.segments.insert(id, here).is_some() {
                    check.findings.add(number, format!("has segment {id} a second time, at byte {at}"));
                }
                for list in inode::LISTS {
                    self.walk(check, number, page.list(at.saturating_add(list)), &[4, 5], id)?;
                }
                for single in 0..singles {
                    let slot = usize::try_from(single).unwrap_or(0).saturating_mul(4);
                    let held = page.u32(at.saturating_add(inode::SINGLE_PAGES).saturating_add(slot));
                    if held != NONE && !self.is_used(held) {
                        check.findings.add(number, format!("has page {held} in segment {id}, and it is free"));
                    }
                }
            }
            at = at.saturating_add(length);
        }
        Ok(())
    }

    fn check_listed<S: Source>(&self, check: &mut Check<'_, S>) {
        for (number, extent) in self.all.iter().enumerate() {
            if !extent.listed {
                check.findings.add(extent.at.page, format!("has extent {number} in no list"));
            }
            let belongs = matches!(extent.state, 4 | 5);
            if belongs && !self.segments.contains_key(&extent.segment) {
                let what = format!("has extent {number} in segment {}, which there is not", extent.segment);
                check.findings.add(extent.at.page, what);
            }
        }
    }
}

/// One bit per page from the two that a descriptor has.
fn used_bits(page: &Page, at: usize, pages: u32) -> Vec<u8> {
    let bytes = usize::try_from(pages / 8).unwrap_or(0);
    (0..bytes)
        .map(|byte| {
            let pair = page.u16(at.saturating_add(byte.saturating_mul(2)));
            let [low, high] = pair.to_be_bytes();
            // The free bit of each page is the lower of its two.
            let mut used = 0_u8;
            for (half, bits) in [low, high].into_iter().enumerate() {
                for page in 0..4_usize {
                    let free = bits & [1, 4, 16, 64].get(page).copied().unwrap_or(1) != 0;
                    let bit = half.saturating_mul(4).saturating_add(page);
                    if !free {
                        used |= [1, 2, 4, 8, 16, 32, 64, 128].get(bit).copied().unwrap_or(0);
                    }
                }
            }
            used
        })
        .collect()
}
