//! A run: redo records of many pages, in order of pages and, for each page, in log order.
//!
//! ```text
//!   kept   space │ page │ LSN, 8 │ end LSN of its group, 8 │ length │ the record's bytes
//!   run    kept, kept, kept …              of memory: an arena and an order │ of a file: as it stands, with fences
//!   fence  page and place of a record every 16 KiB or so: a window is found by them and read in one go
//! ```
//! Runs are made one after another as the log is read, so for each page, the records of an earlier run come first.

use std::io;

use super::spill::{FileRun, SpillFile};
use crate::innodb::cursor::{slice, u32_at, u64_at};
use crate::innodb::ids::{PageId, PageNo, SpaceId};
use crate::innodb::lsn::Lsn;
use crate::util::arena::Arena;

/// Bytes of a kept record before its own.
pub const HEAD_BYTES: usize = 28;
/// Bytes that a cursor reads at a time.
const READ_BYTES: usize = 64 << 10;
const WHAT: &str = "kept record";

/// A record with what decides about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept<'a> {
    /// The page that it changes.
    pub page: PageId,
    /// Its LSN.
    pub lsn: Lsn,
    /// LSN behind its group.
    pub end: Lsn,
    /// Its bytes.
    pub bytes: &'a [u8],
}

impl<'a> Kept<'a> {
    /// Takes the first record of `bytes` apart; `None` where it is not all there.
    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let head = head(bytes)?;
        let record = slice(bytes, HEAD_BYTES, head.len, WHAT).ok()?;
        Some(Self { page: head.page, lsn: head.lsn, end: head.end, bytes: record })
    }

    fn stored_len(&self) -> usize {
        HEAD_BYTES.saturating_add(self.bytes.len())
    }

    /// Writes its bytes as they are kept.
    pub fn encode(&self, mut out: impl io::Write) -> io::Result<()> {
        out.write_all(&self.page.space.0.to_be_bytes())?;
        out.write_all(&self.page.page.0.to_be_bytes())?;
        out.write_all(&self.lsn.get().to_be_bytes())?;
        out.write_all(&self.end.get().to_be_bytes())?;
        out.write_all(&u32::try_from(self.bytes.len()).unwrap_or(u32::MAX).to_be_bytes())?;
        out.write_all(self.bytes)
    }
}

struct Head {
    page: PageId,
    lsn: Lsn,
    end: Lsn,
    len: usize,
}

fn head(bytes: &[u8]) -> Option<Head> {
    let u32_at = |at| u32_at(bytes, at, WHAT).ok();
    Some(Head {
        page: PageId { space: SpaceId(u32_at(0)?), page: PageNo(u32_at(4)?) },
        lsn: u64_at(bytes, 8, WHAT).ok().map(Lsn::new)?,
        end: u64_at(bytes, 16, WHAT).ok().map(Lsn::new)?,
        len: usize::try_from(u32_at(24)?).ok()?,
    })
}

/// A run in memory.
#[derive(Debug)]
pub struct MemoryRun {
    entries: Vec<(PageId, u32)>,
    arena: Arena,
}

/// An entry's place in the order, as one number: compared in half the time of its parts, one after the other.
fn order(&(page, at): &(PageId, u32)) -> u128 {
    u128::from(page.space.0) << 64 | u128::from(page.page.0) << 32 | u128::from(at)
}

/// Entries by which their list grows.
const MORE_ENTRIES: usize = 64 << 10;

impl MemoryRun {
    /// An empty one with room for so many bytes of records.
    pub fn new(budget: u64) -> io::Result<Self> {
        // Places in it are numbers of 32 bits.
        let room = u32::try_from(budget).unwrap_or(u32::MAX);
        Ok(Self { entries: Vec::new(), arena: Arena::new(usize::try_from(room).unwrap_or(usize::MAX))? })
    }

    /// Adds a record behind those that are there. False where there is no more room for it; there is for any record while
    /// there is no other.
    pub fn push(&mut self, kept: &Kept<'_>) -> io::Result<bool> {
        let needed = kept.stored_len();
        if self.entries.is_empty() && self.arena.room() < needed {
            self.arena = Arena::new(needed)?;
        }
        let Ok(at) = u32::try_from(self.arena.bytes().len()) else { return Ok(false) };
        let Some(place) = self.arena.add(needed) else { return Ok(false) };
        kept.encode(place)?;
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(self.entries.len().clamp(1 << 10, MORE_ENTRIES));
        }
        self.entries.push((kept.page, at));
        Ok(true)
    }

    /// Memory that it takes.
    pub fn memory_bytes(&self) -> u64 {
        let entries = self.entries.capacity().saturating_mul(size_of::<(PageId, u32)>());
        u64::try_from(self.arena.memory_bytes().saturating_add(entries)).unwrap_or(u64::MAX)
    }

    /// Memory that its records take, of that.
    pub fn used_bytes(&self) -> u64 {
        let entries = self.entries.len().saturating_mul(size_of::<(PageId, u32)>());
        u64::try_from(self.arena.bytes().len().saturating_add(entries)).unwrap_or(u64::MAX)
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets its records, and keeps its memory for others.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.arena.clear();
    }

    /// Puts it in order. Nothing may be added afterwards.
    pub fn sort(&mut self) {
        self.entries.sort_unstable_by_key(order);
    }

    /// Its records as they are kept, in order.
    pub fn kept(&self) -> impl Iterator<Item = (PageId, &[u8])> {
        self.entries.iter().filter_map(|&(page, at)| {
            let bytes = self.arena.bytes().get(usize::try_from(at).ok()?..)?;
            Some((page, bytes.get(..Kept::decode(bytes)?.stored_len())?))
        })
    }

    fn get(&self, index: usize) -> Option<Kept<'_>> {
        let &(_, at) = self.entries.get(index)?;
        Kept::decode(self.arena.bytes().get(usize::try_from(at).ok()?..)?)
    }
}

/// Walks a part of a run.
#[derive(Debug)]
pub struct Cursor<'p> {
    source: Source<'p>,
    until: PageId,
}

#[derive(Debug)]
enum Source<'p> {
    Memory {
        run: &'p MemoryRun,
        index: usize,
    },
    File {
        file: &'p SpillFile,
        run: &'p FileRun,
        /// Where the next bytes are read, and where the part ends.
        next: u64,
        end: u64,
        /// What was read, and how much of it was used.
        buffer: Vec<u8>,
        used: usize,
    },
}

impl<'p> Cursor<'p> {
    pub fn of_memory(run: &'p MemoryRun) -> Self {
        Self { source: Source::Memory { run, index: 0 }, until: NOTHING }
    }

    pub fn of_file(file: &'p SpillFile, run: &'p FileRun) -> Self {
        let source = Source::File { file, run, next: run.start, end: run.start, buffer: Vec::new(), used: 0 };
        Self { source, until: NOTHING }
    }

    /// Goes to the first record of `from` or a page behind it; it ends before `until`.
    pub fn seek(&mut self, from: PageId, until: PageId) -> io::Result<()> {
        self.until = until;
        match &mut self.source {
            Source::Memory { run, index } => *index = run.entries.partition_point(|(page, _)| *page < from),
            Source::File { run, next, end, buffer, used, .. } => {
                (*next, *end) = run.part(from, until);
                buffer.clear();
                *used = 0;
            }
        }
        while let Some(page) = self.page()?
            && page < from
        {
            self.take()?;
        }
        Ok(())
    }

    /// The page of the next record.
    pub fn page(&mut self) -> io::Result<Option<PageId>> {
        let page = match &mut self.source {
            Source::Memory { run, index } => run.entries.get(*index).map(|(page, _)| *page),
            Source::File { .. } => {
                self.fill(HEAD_BYTES)?;
                let Source::File { buffer, used, .. } = &self.source else { return Ok(None) };
                buffer.get(*used..).and_then(head).map(|head| head.page)
            }
        };
        Ok(page.filter(|page| *page < self.until))
    }

    /// The next record, which is used up by that.
    pub fn take(&mut self) -> io::Result<Option<Kept<'_>>> {
        if matches!(self.source, Source::File { .. }) {
            self.fill(HEAD_BYTES)?;
            let needed = match &self.source {
                Source::File { buffer, used, .. } => buffer.get(*used..).and_then(head).map(|head| head.len),
                Source::Memory { .. } => None,
            };
            let Some(needed) = needed else { return Ok(None) };
            self.fill(HEAD_BYTES.saturating_add(needed))?;
        }
        Ok(match &mut self.source {
            Source::Memory { run, index } => {
                let kept = run.get(*index);
                *index = index.saturating_add(1);
                kept
            }
            Source::File { buffer, used, .. } => {
                let kept = buffer.get(*used..).and_then(Kept::decode);
                *used = used.saturating_add(kept.map_or(0, |kept| kept.stored_len()));
                if kept.is_none() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                kept
            }
        })
    }

    /// Has so many unused bytes in the buffer, if the part has as many.
    fn fill(&mut self, needed: usize) -> io::Result<()> {
        let Source::File { file, next, end, buffer, used, .. } = &mut self.source else { return Ok(()) };
        let there = buffer.len().saturating_sub(*used);
        if there >= needed || *next >= *end {
            return Ok(());
        }
        buffer.drain(..(*used).min(buffer.len()));
        *used = 0;
        let left = usize::try_from(end.saturating_sub(*next)).unwrap_or(usize::MAX);
        let count = needed.saturating_sub(there).max(READ_BYTES).min(left);
        buffer.resize(there.saturating_add(count), 0);
        file.read_at(buffer.get_mut(there..).unwrap_or_default(), *next)?;
        *next = next.saturating_add(u64::try_from(count).unwrap_or(0));
        Ok(())
    }
}

/// Before every page.
const NOTHING: PageId = PageId { space: SpaceId(0), page: PageNo(0) };
/// Behind every page that there is.
pub const EVERYTHING: PageId = PageId { space: SpaceId(u32::MAX), page: PageNo(u32::MAX) };
