//! Pages brought up to date, one window after another, by as many threads as there are workers.
//!
//! ```text
//!   seek(window) ─► next_page ─► recover(page as stored, or none) ─► page to write, or none: it stays as it is
//!                      ▲                 decrypt ► decompress ► check ► apply what is newer ► stamp ► encrypt │
//!                      └──────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! Which stored page is the right one (of a full copy, or the newest of a chain) is the caller's to know. A page that was
//! compressed by the server (page compression) and that redo changes is written uncompressed, to which no server objects: it
//! compresses it again when it next writes it. (A server that recovers compresses such pages at once.)

use std::collections::HashMap;
use std::ops::Range;

use super::PrepareError;
use super::plan::{PlanReader, PlannedRecord};
use super::scan::{Recovery, redo_error};
use super::spaces::{Seal, Space};
use crate::innodb::apply::{Layouts, PageBuffer, apply};
use crate::innodb::ids::{PageId, PageNo, SpaceId};
use crate::innodb::lsn::Lsn;
use crate::innodb::page::crypt::encrypt_page;
use crate::innodb::page::{PageContext, PageFault, PageScratch, UnverifiedPage};
use crate::innodb::redo::{RecordKind, RedoError, RedoRecord};
use crate::innodb::space::{TablespaceFlags, TablespaceKey};

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records applied.
    pub applied: u64,
    /// Records that the page had already.
    pub skipped: u64,
    /// Pages changed.
    pub pages: u64,
    /// Pages among them that were all zero, or not there.
    pub created: u64,
}

impl Tally {
    /// Adds what another did.
    pub fn add(&mut self, other: Self) {
        self.applied = self.applied.saturating_add(other.applied);
        self.skipped = self.skipped.saturating_add(other.skipped);
        self.pages = self.pages.saturating_add(other.pages);
        self.created = self.created.saturating_add(other.created);
    }
}

/// Recovers pages; each thread has its own.
#[derive(Debug)]
pub struct PageWorker<'r> {
    recovery: &'r Recovery,
    reader: PlanReader<'r>,
    space: Option<&'r Space>,
    seal: Option<Seal>,
    buffers: HashMap<TablespaceFlags, PageBuffer>,
    layouts: Layouts,
    scratch: PageScratch,
    sealed: Vec<u8>,
    tally: Tally,
}

impl<'r> PageWorker<'r> {
    /// A worker.
    pub fn new(recovery: &'r Recovery) -> Self {
        Self {
            recovery,
            reader: recovery.plan().reader(),
            space: None,
            seal: None,
            buffers: HashMap::new(),
            layouts: Layouts::default(),
            scratch: PageScratch::default(),
            sealed: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Goes to some pages of a tablespace, whose page 0 was learnt where that is needed.
    pub fn seek(&mut self, space: SpaceId, pages: Range<u32>) -> Result<(), PrepareError> {
        if self.space.is_none_or(|now| now.id() != space) {
            self.space = self.recovery.space(space);
            self.seal = None;
        }
        if self.seal.is_none() {
            self.seal = self.recovery.seal(space);
        }
        // Tablespaces without redo are not looked for.
        let pages = if self.space.is_some_and(Space::is_changed) { pages } else { 0..0 };
        self.reader.seek(space, pages)
    }

    /// The next of these pages that redo changes, unless it has all of it already.
    pub fn next_page(&mut self) -> Result<Option<PageNo>, PrepareError> {
        self.reader.next_page()
    }

    /// Brings a page up to date that [`Self::next_page`] gave. `stored` are its bytes as they were copied, `None` where
    /// it was all zero or not there. Gives its new bytes; `None` where it is as it should be.
    pub fn recover(&mut self, page: PageNo, stored: Option<&[u8]>) -> Result<Option<&[u8]>, PrepareError> {
        let Some(space) = self.space else { return Ok(None) };
        let id = PageId { space: space.id(), page };
        let buffer = self.buffers.entry(space.flags()).or_insert_with(|| PageBuffer::new(space.flags()));
        let keys = self.seal.as_ref().map(|seal| seal.keys.as_slice()).unwrap_or_default();
        let created = !load(buffer, id, stored, space.flags(), keys, &mut self.scratch)?;
        let mut target = Target { buffer, layouts: &mut self.layouts, since: Lsn::ZERO, tally: Tally::default() };
        target.since = target.buffer.lsn();
        self.recovery.check_age(id, target.since)?;
        let mut end = Lsn::ZERO;
        self.reader.each(page, |kept| {
            end = kept.end;
            target.take(&kept)
        })?;
        let Target { buffer, mut tally, .. } = target;
        let unchanged = tally.applied == 0;
        tally.pages = u64::from(!unchanged);
        tally.created = u64::from(created && !unchanged);
        self.tally.add(tally);
        if unchanged {
            return Ok(None);
        }
        let bytes = buffer.finish(end)?;
        let encrypts = self.seal.as_ref().map_or(space.may_be_encrypted(), |seal| seal.encrypts);
        if !encrypts || page == PageNo(0) {
            return Ok(Some(bytes));
        }
        self.sealed.clear();
        self.sealed.extend_from_slice(bytes);
        let key = self.seal.as_ref().and_then(|seal| seal.keys.last()).ok_or_else(|| key_missing(id))?;
        encrypt_page(&mut self.sealed, key).map_err(|error| PrepareError::BadPage { page: id, fault: error.into() })?;
        Ok(Some(&self.sealed))
    }

    /// What this worker did.
    pub const fn tally(&self) -> Tally {
        self.tally
    }
}

/// Loads a page as recovery must see it. False where it is all zero.
fn load(
    buffer: &mut PageBuffer,
    id: PageId,
    stored: Option<&[u8]>,
    flags: TablespaceFlags,
    keys: &[TablespaceKey],
    scratch: &mut PageScratch,
) -> Result<bool, PrepareError> {
    let bad = |fault| PrepareError::BadPage { page: id, fault };
    let plain = match stored {
        None => None,
        Some(bytes) => {
            let page = UnverifiedPage::new(bytes, id.page);
            // Of several keys, the right one is that with which the page is good.
            let fits = |key: &&TablespaceKey| {
                let context = PageContext { space: id.space, flags, key: Some(key) };
                page.verify(&context, &mut PageScratch::default()).is_ok()
            };
            let key = if keys.len() > 1 { keys.iter().rev().find(fits) } else { keys.last() };
            page.open(&PageContext { space: id.space, flags, key }, scratch).map_err(bad)?
        }
    };
    match plain {
        Some(plain) => buffer.load(id, plain.bytes)?,
        None => buffer.load_zeros(id)?,
    }
    Ok(plain.is_some())
}

fn key_missing(page: PageId) -> PrepareError {
    let source = crate::innodb::FormatError::KeyMissing { key_id: format!("of space {}", page.space) };
    PrepareError::BadPage { page, fault: PageFault::Format(source) }
}

/// A page while records come to it.
struct Target<'b> {
    buffer: &'b mut PageBuffer,
    layouts: &'b mut Layouts,
    /// Records from this LSN on are new to it: its own when it was loaded.
    since: Lsn,
    tally: Tally,
}

impl Target<'_> {
    fn take(&mut self, kept: &PlannedRecord<'_>) -> Result<(), PrepareError> {
        let record = RedoRecord::decode(kept.bytes, kept.lsn)
            .map_err(|source| PrepareError::Redo(RedoError { lsn: kept.lsn, kind: None, source }))?;
        if record.kind == RecordKind::InitFilePage {
            self.since = Lsn::ZERO;
        }
        if record.lsn < self.since {
            self.tally.skipped = self.tally.skipped.saturating_add(1);
            return Ok(());
        }
        if record.page != Some(kept.page) {
            let why = format!("it is kept as one of {}", kept.page);
            return Err(redo_error(&record, crate::innodb::FormatError::Invalid { what: "redo record", why }));
        }
        apply(self.buffer, &record, self.layouts)?;
        self.tally.applied = self.tally.applied.saturating_add(1);
        Ok(())
    }
}
