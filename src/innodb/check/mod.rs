//! The structure of a tablespace, checked: what no checksum can tell, since a page can be good by itself and wrong where
//! it stands. For tablespaces at rest: recovered, or shut down.
//!
//! ```text
//!   pages ─► extents   page 0, extent descriptors, their lists, segments ─► which pages are in use
//!        ├─► rows      each index page by itself: list, directory, heap, freed rows
//!        ├─► trees     neighbours of index pages, their levels and indexes
//!        ├─► order     rows against each other, their neighbours, and the pages below: by the dictionary's own words
//!        ├─► lobs      off-page columns: their lists of parts
//!        └─► undo      rollback segments and the logs in them
//! ```
//! Does no I/O: the caller gives pages, decrypted and decompressed, and takes findings. Bounds: memory grows by some
//! 40 bytes per extent and two bits per page.

mod describe;
mod dictionary;
mod extents;
mod lobs;
mod order;
mod reading;
mod rows;
mod trees;
mod undo;

use std::fmt;

use super::FormatError;
use super::apply::frame::Frame;
use super::apply::{ApplyError, PageBuffer};
use super::ids::{PageId, PageNo, SpaceId};
use super::lsn::Lsn;
use super::page::{PageType, all_zero, fil};
use super::space::TablespaceFlags;

use self::extents::Extents;
use self::reading::Page;

pub use self::dictionary::{Dictionary, IndexShape};

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub page: PageNo,
    /// What, as a sentence's end.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "page {}: {}", self.page, self.what)
    }
}

/// What must be known of a tablespace.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    /// Its id.
    pub space: SpaceId,
    /// Its flags.
    pub flags: TablespaceFlags,
    /// Pages in its files.
    pub pages: u32,
    /// Where the log ends: no page may be newer.
    pub end: Lsn,
}

/// Gives pages, decrypted and decompressed. A page is asked for by its number, mostly in order.
pub trait Source {
    /// Why a page could not be had.
    type Error;

    /// Reads a page into `page`, which has its size in the file.
    fn read(&mut self, number: PageNo, page: &mut [u8]) -> Result<(), Self::Error>;
}

/// What was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checked {
    /// Pages read.
    pub pages: u64,
    /// Of them, pages of indexes.
    pub index_pages: u64,
    /// Of them, those whose rows the dictionary describes.
    pub ordered_pages: u64,
    /// Off-page columns.
    pub lobs: u64,
    /// Undo logs' segments.
    pub undo_segments: u64,
}

/// At most so many findings are given for a tablespace: a file that is another's altogether has one per page.
pub const MOST_FINDINGS: usize = 100;

/// Findings of one tablespace.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, page: u32, what: impl Into<String>) {
        if self.0.len() < MOST_FINDINGS {
            self.0.push(Finding { page: PageNo(page), what: what.into() });
        }
    }

    fn bad(&mut self, page: u32, error: &FormatError) {
        self.add(page, error.to_string());
    }
}

/// Checks a tablespace. Errors are those of reading; what is wrong with it is in the findings.
pub fn check_space<S: Source>(subject: &Subject, source: &mut S) -> Result<(Checked, Vec<Finding>), S::Error> {
    let mut check = Check::new(subject, source);
    check.run()?;
    Ok((check.checked, check.findings.0))
}

/// Reads what a tablespace says of its tables, for those who read rows. What is wrong with that is in the findings.
pub fn read_dictionary<S: Source>(subject: &Subject, source: &mut S) -> Result<(Dictionary, Vec<Finding>), S::Error> {
    let mut check = Check::new(subject, source);
    let dictionary = check.dictionary()?;
    Ok((dictionary, check.findings.0))
}

/// One tablespace under check.
struct Check<'c, S> {
    subject: &'c Subject,
    source: &'c mut S,
    size: usize,
    findings: Findings,
    checked: Checked,
    /// Pages met on lists.
    walked: u64,
}

/// How often the pages of a tablespace are met on lists of parts and of undo pages at most. Each is on one list, once; that
/// lists of damaged pages lead into each other must not take the square of their number.
const MOST_WALKS: u64 = 8;

impl<'c, S: Source> Check<'c, S> {
    fn new(subject: &'c Subject, source: &'c mut S) -> Self {
        Self {
            subject,
            source,
            size: subject.flags.physical_size().len(),
            findings: Findings::default(),
            checked: Checked::default(),
            walked: 0,
        }
    }

    /// Notes one more page of a list that page `number` begins. False where the list is to be left.
    fn walks_on(&mut self, number: u32) -> bool {
        self.walked = self.walked.saturating_add(1);
        let most = u64::from(self.subject.pages).saturating_mul(MOST_WALKS);
        if self.walked == most.saturating_add(1) {
            self.findings.add(number, "has a list of pages that are on others, too: no more lists are looked at");
        }
        self.walked <= most
    }

    fn run(&mut self) -> Result<(), S::Error> {
        let Some(extents) = Extents::gather(self)? else { return Ok(()) };
        let dictionary = self.dictionary()?;
        let (mut trees, mut levels) = (trees::Trees::default(), order::Levels::default());
        for number in 0..self.subject.pages {
            let page = self.page(number)?;
            self.checked.pages = self.checked.pages.saturating_add(1);
            if !self.check_header(number, &page) || !extents.is_used(number) {
                continue;
            }
            match page.kind() {
                Some(PageType::Index | PageType::Rtree | PageType::Sdi) => {
                    self.checked.index_pages = self.checked.index_pages.saturating_add(1);
                    match self.frame(number, &page) {
                        Err(error) => self.findings.add(number, error.to_string()),
                        Ok(mut frame) => {
                            self.check_index_page(number, &page, &mut frame, &extents, &mut trees)?;
                            self.check_rows_by_dictionary(
                                number,
                                &page,
                                &mut frame,
                                &extents,
                                &dictionary,
                                &mut levels,
                            )?;
                        }
                    }
                }
                Some(PageType::LobFirst) => {
                    self.checked.lobs = self.checked.lobs.saturating_add(1);
                    self.check_lob(number, &page, &extents)?;
                }
                Some(PageType::RsegArray) => self.check_rollback_segments(number, &page, &extents)?,
                _ => {}
            }
        }
        self.check_roots(&trees);
        self.check_orphans(&levels);
        Ok(())
    }

    /// Reads a page.
    fn page(&mut self, number: u32) -> Result<Page, S::Error> {
        let mut bytes = vec![0; self.size];
        self.source.read(PageNo(number), &mut bytes)?;
        Ok(Page::new(bytes))
    }

    /// A page of an index as its rows lie on it: uncompressed.
    fn frame(&self, number: u32, page: &Page) -> Result<Frame, ApplyError> {
        let mut buffer = PageBuffer::new(self.subject.flags);
        buffer.load(PageId { space: self.subject.space, page: PageNo(number) }, page.bytes())?;
        Ok(buffer.into_frame())
    }

    /// Place and age of a page. True when there is something on it.
    fn check_header(&mut self, number: u32, page: &Page) -> bool {
        let bytes = page.bytes();
        if all_zero(bytes) {
            return false;
        }
        // An unused page of the doublewrite area, or of what once was one.
        if super::page::is_legacy_doublewrite(self.subject.space, self.subject.flags, PageNo(number)) {
            return false;
        }
        let (found, space, lsn) = (page.u32(fil::PAGE_NO), page.u32(fil::SPACE_ID), page.u64(fil::LSN));
        if found != number || space != self.subject.space.0 {
            self.findings.add(number, format!("says that it is page {found} of space {space}"));
            return false;
        }
        if lsn > self.subject.end.get() {
            self.findings.add(number, format!("has LSN {lsn}, newer than the end of the log, {}", self.subject.end));
        }
        true
    }
}
