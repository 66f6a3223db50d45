//! Native recovery in a restore: the redo is scanned before anything is written, and applied while pages pass by.
//!
//! ```text
//!   segments ─fetched ahead─► scan ─► Recovery (or a refusal)
//!   frame of a window ─► begin ─► run of stored pages ─► patch: those that redo changes, in place
//!                                 gaps and the end    ─► created: pages of zeros, and new ones
//!   windows behind the copied end ─► created
//!   everything written ─► clean log, flush LSN
//! ```
//! Owns where pages come from. What becomes of them is `prepare`'s.

use std::fs::File;
use std::io::Write;
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use crate::archive::filetable::FileTable;
use crate::archive::frame::{Frame, WINDOW_BYTES};
use crate::archive::manifest::Manifest;
use crate::archive::{ArchiveReader, AttemptId, StreamId};
use crate::innodb::ids::{PageNo, SpaceId};
use crate::innodb::keyring::Keyring;
use crate::innodb::lsn::LOG_BLOCK_SIZE;
use crate::innodb::space::TablespaceFlags;
use crate::ops::context::Context;
use crate::ops::error::Error;
use crate::ops::options::RestoreOptions;
use crate::prepare::finish::FLUSH_LSN_OFFSET;
use crate::prepare::{CopiedSpace, PageWorker, Recovery, RedoScan, ScanOptions, Tally, clean_log};

use super::pages::page_at;
use super::placement::Layout;
use super::redo::{self, RedoWritten};
use super::target::{FILE_MODE, Target, existing_ancestor, io_error};
use super::{THREAD_BYTES, no_system_tablespace, threads};

/// Less memory than this for the redo would only make many small runs.
const LEAST_PLAN: u64 = 1 << 20;
/// Pages that are created together.
const LONG_RUN: usize = 2 << 20;

/// Reads all redo. Every refusal of native recovery comes from here, before a byte is written.
pub fn scan(
    ctx: &Context,
    options: &RestoreOptions,
    reader: &ArchiveReader,
    manifest: &Manifest,
    table: &FileTable,
    keyring: Option<Keyring>,
) -> Result<Recovery, Error> {
    ctx.progress.step("scan redo");
    let (start, last) = (manifest.lsn.checkpoint.block_start(), manifest.lsn.end.block_start());
    ctx.progress.total(last.saturating_since(start).saturating_add(LOG_BLOCK_SIZE));
    let memory = plan_memory(options.memory, options.parallel);
    let scan_options = ScanOptions {
        checkpoint: manifest.lsn.checkpoint,
        end: manifest.lsn.end,
        log_key: redo::log_key(manifest, keyring.as_ref())?,
        keyring,
        zlib: manifest.server.settings.get("version_compile_zlib").cloned(),
        memory,
        spill_dir: existing_ancestor(&options.datadir).to_path_buf(),
    };
    let mut scan = RedoScan::new(scan_options, &copied_spaces(table)?)?;
    let threads = threads(options.parallel, options.memory.saturating_sub(memory));
    let _ = redo::read(reader, manifest, threads, &ctx.cancel, &mut |blocks| {
        scan.feed(blocks)?;
        ctx.progress.advance(u64::try_from(blocks.len()).unwrap_or(0));
        Ok(())
    })?;
    Ok(scan.finish()?)
}

/// What the redo may take of the memory given: all that pages on their way do not need, and a third in any case.
fn plan_memory(given: u64, threads: NonZeroUsize) -> u64 {
    let threads = u64::try_from(threads.get()).unwrap_or(u64::MAX);
    given.saturating_sub(threads.saturating_mul(THREAD_BYTES)).max(given / 3).max(LEAST_PLAN)
}

fn copied_spaces(table: &FileTable) -> Result<Vec<CopiedSpace>, Error> {
    table.spaces.iter().map(redo::copied_space).collect()
}

/// Pages of a window.
pub fn window_pages(flags: TablespaceFlags) -> u32 {
    WINDOW_BYTES / flags.physical_size().bytes()
}

/// Pages of a tablespace that lie in windows without a frame: redo made them.
#[derive(Debug, Clone, Copy)]
pub struct NewPages {
    /// The tablespace.
    pub space: SpaceId,
    first: u32,
    end: u32,
}

impl NewPages {
    /// A window of a tablespace that will have `pages` pages.
    pub(super) fn window(space: SpaceId, flags: TablespaceFlags, number: u32, pages: u32) -> Self {
        let window = window_pages(flags);
        let first = number.saturating_mul(window);
        Self { space, first, end: first.saturating_add(window).min(pages) }
    }
}

/// All windows that only redo knows.
pub fn new_pages(recovery: &Recovery) -> Vec<NewPages> {
    let mut found = Vec::new();
    for space in recovery.spaces().filter(|space| space.is_changed()) {
        let window = window_pages(space.flags());
        let mut first = space.copied_pages().next_multiple_of(window);
        while first < space.pages {
            let end = first.saturating_add(window).min(space.pages);
            found.push(NewPages { space: space.id(), first, end });
            first = end;
        }
    }
    found
}

/// What a writing thread needs to recover the pages that pass by.
pub struct Recoverer<'a> {
    recovery: &'a Recovery,
    reader: &'a ArchiveReader,
    worker: PageWorker<'a>,
    buffer: Vec<u8>,
}

impl<'a> Recoverer<'a> {
    /// For one thread.
    pub fn new(recovery: &'a Recovery, reader: &'a ArchiveReader) -> Self {
        Self { recovery, reader, worker: PageWorker::new(recovery), buffer: Vec::new() }
    }

    /// What it did.
    pub fn tally(&self) -> Tally {
        self.worker.tally()
    }

    /// Goes to the window of a frame.
    pub fn begin(&mut self, space: SpaceId, flags: TablespaceFlags, frame: &Frame) -> Result<(), Error> {
        let first = page_at(frame, 0).0;
        if self.recovery.needs_page0(space) {
            self.learn(space, flags, Some(frame))?;
        }
        Ok(self.worker.seek(space, first..first.saturating_add(window_pages(flags)))?)
    }

    /// Goes to pages that no frame has.
    pub fn begin_new(&mut self, pages: NewPages, flags: TablespaceFlags) -> Result<(), Error> {
        if self.recovery.needs_page0(pages.space) {
            self.learn(pages.space, flags, None)?;
        }
        Ok(self.worker.seek(pages.space, pages.first..pages.end)?)
    }

    /// Shows page 0 of a tablespace, which has its key; it is fetched where it is not at hand.
    fn learn(&mut self, space: SpaceId, flags: TablespaceFlags, frame: Option<&Frame>) -> Result<(), Error> {
        let page0 = |frame: &Frame| frame.units().next().filter(|(unit, _)| *unit == 0).map(|(_, page)| page.to_vec());
        let at_hand = frame.filter(|frame| frame.window_no == 0).map(page0);
        let page = match at_hand {
            Some(page) => page,
            None => match self.reader.find(StreamId::Space(space), 0)? {
                Some(first) => page0(&self.reader.read_frame(&first)?),
                None => None,
            },
        };
        Ok(self.recovery.learn(space, &page.unwrap_or_else(|| vec![0; flags.physical_size().len()]))?)
    }

    /// A run of stored pages from `first` on, with those that redo changes brought up to date.
    pub fn patch<'s>(&'s mut self, first: PageNo, size: usize, run: &'s [u8]) -> Result<&'s [u8], Error> {
        let pages = u32::try_from(run.len() / size).unwrap_or(u32::MAX);
        let mut patched = false;
        while let Some(page) = self.worker.next_page()?
            && let Some(within) = page.0.checked_sub(first.0).filter(|within| *within < pages)
        {
            let at = usize::try_from(within).unwrap_or(usize::MAX).saturating_mul(size);
            let stored = run.get(at..at.saturating_add(size));
            let Some(bytes) = self.worker.recover(page, stored)? else { continue };
            if !patched {
                self.buffer.clear();
                self.buffer.extend_from_slice(run);
                patched = true;
            }
            if let Some(place) = self.buffer.get_mut(at..at.saturating_add(size)) {
                place.copy_from_slice(bytes);
            }
        }
        Ok(if patched { &self.buffer } else { run })
    }

    /// The next pages before `until` that redo makes of nothing: neighbours, and where they begin.
    pub fn created(&mut self, until: PageNo) -> Result<Option<(PageNo, &[u8])>, Error> {
        self.buffer.clear();
        let (mut first, mut next) = (None, None);
        while let Some(page) = self.worker.next_page()?.filter(|page| *page < until)
            && next.is_none_or(|next| next == page && self.buffer.len() < LONG_RUN)
        {
            match self.worker.recover(page, None)? {
                Some(bytes) => {
                    self.buffer.extend_from_slice(bytes);
                    let _ = first.get_or_insert(page);
                    next = Some(PageNo(page.0.saturating_add(1)));
                }
                None if first.is_some() => break,
                None => {}
            }
        }
        Ok(first.map(|first| (first, self.buffer.as_slice())))
    }
}

/// Writes the log with which a server starts as after a clean shutdown. It gets its name later.
pub fn write_clean_log(
    target: &Target,
    layout: &Layout,
    recovery: &Recovery,
    manifest: &Manifest,
) -> Result<RedoWritten, Error> {
    let creator = format!("MySQL {}", manifest.server.version);
    let log = clean_log(recovery.end(), recovery.metadata(), manifest.server.page_size, new_log_uuid(), &creator)?;
    let directory = target.datadir().join(redo::BUILDING);
    target.create_dir(&directory)?;
    let path = directory.join(&log.file_name);
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(&path)
        .map_err(|error| io_error("create", &path, error))?;
    file.write_all(&log.bytes).map_err(|error| io_error("write", &path, error))?;
    file.set_len(log.size_bytes).map_err(|error| io_error("set the size of", &path, error))?;
    target.give(&path)?;

    let system = layout.pieces(SpaceId::SYSTEM).next().ok_or_else(no_system_tablespace)?;
    File::options()
        .write(true)
        .open(system)
        .and_then(|file| file.write_all_at(&log.checkpoint.get().to_be_bytes(), FLUSH_LSN_OFFSET))
        .map_err(|error| io_error("write the flush LSN of", system, error))?;
    Ok(RedoWritten { fetched: 0, written: u64::try_from(log.bytes.len()).unwrap_or(0), files: 1 })
}

/// A number that no other log has: what is written from now on is not what the old server wrote.
fn new_log_uuid() -> u32 {
    let random = AttemptId::generate();
    let digits = random.as_str().get(..8).unwrap_or_default();
    u32::from_str_radix(digits, 16).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redo_gets_the_memory_that_pages_leave() {
        let plan = |given, threads| plan_memory(given, NonZeroUsize::new(threads).unwrap());
        assert_eq!(plan(512 << 20, 2), (512 << 20) - 2 * THREAD_BYTES);
        assert_eq!(plan(120 << 20, 16), 40 << 20, "a third, where the threads would take all");
        assert_eq!(plan(1, 16), LEAST_PLAN);
        assert_eq!(plan(u64::MAX, 1), u64::MAX - THREAD_BYTES);
    }

    #[test]
    fn logs_have_numbers_of_their_own() {
        let (one, other) = (new_log_uuid(), new_log_uuid());
        assert!(one != other && one > 1 && other > 1);
    }
}
