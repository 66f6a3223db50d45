//! Pages and files from packs to their places, in parallel.
//!
//! ```text
//!   packs ─► next free worker: decrypt ► decompress ► check [► apply redo] ► pwrite, each page once
//!               └─ its fetcher: the next range of up to 8 MiB meanwhile
//! ```
//! Long runs are written past the page cache, so that they reach the disk while others are decompressed and not all at
//! the sync. Files have their full size already; what is zero is not written, so holes stay holes. A page that the server had
//! compressed is written without its empty end, so that it takes no more space than it did. Each tablespace's pages
//! are counted: a set that lacks one is no database.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};

use rustix::fs::OFlags;
use tokio_util::sync::CancellationToken;

use crate::archive::PackRef;
use crate::archive::filetable::FileTable;
use crate::archive::frame::Frame;
use crate::archive::{ArchiveError, ArchiveReader, FrameDecoder, StreamId};
use crate::innodb::ids::{PageId, PageNo, SpaceId};
use crate::innodb::page::{PageContext, PageScratch, UnverifiedPage, Verified, all_zero, is_legacy_doublewrite};
use crate::innodb::space::TablespaceFlags;
use crate::ops::context::Context;
use crate::ops::error::{Error, ErrorKind};
use crate::prepare::{Recovery, Tally};
use crate::util::direct::{AlignedBuffer, DirectFile, WRITE_BYTES};

use super::native::{self, NewPages, Recoverer};
use super::placement::Layout;
use super::target::{Target, io_error};

/// Smallest run of zeros at a page's end that is left as a hole: a file system's block.
const HOLE: usize = 4096;
/// A run of so many bytes is written directly. Shorter ones wait in the page cache for their neighbours.
const LONG_RUN: usize = 1 << 20;
/// Files that a thread keeps open.
const OPEN_FILES: usize = 32;

/// What was moved.
#[derive(Debug, Clone, Copy, Default)]
pub struct Moved {
    /// Read from the store.
    pub fetched: u64,
    /// Written.
    pub written: u64,
    /// What native recovery did.
    pub recovered: Tally,
}

/// Writes all frames of all packs; with `recovery`, each page as its redo leaves it, and pages that only redo knows.
pub fn write(
    ctx: &Context,
    target: &Target,
    reader: &ArchiveReader,
    table: &FileTable,
    layout: &Layout,
    recovery: Option<&Recovery>,
    parallel: NonZeroUsize,
) -> Result<Moved, Error> {
    let packs = reader.packs();
    let new_pages = recovery.map(native::new_pages).unwrap_or_default();
    ctx.progress.total(packs.iter().map(|pack| pack.bytes).sum());
    let shared = Shared {
        layout,
        spaces: spaces(table)?,
        packs: &packs,
        next: AtomicUsize::new(0),
        recovery,
        new_pages: &new_pages,
        next_new: AtomicUsize::new(0),
        moved: (AtomicU64::new(0), AtomicU64::new(0)),
        recovered: Mutex::default(),
        failure: Mutex::new(None),
        stop: ctx.cancel.child_token(),
    };
    std::thread::scope(|scope| {
        for _ in 0..parallel.get().min(packs.len().saturating_add(new_pages.len()).max(1)) {
            let _ = scope.spawn(|| shared.work(reader, ctx));
        }
    });
    if let Some(error) = shared.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    ctx.check()?;
    for (space, tally) in &shared.spaces {
        let seen = tally.seen.load(Ordering::Relaxed);
        if seen != u64::from(tally.pages) {
            let path = layout.pieces(*space).next().unwrap_or(target.datadir());
            let message = format!("{} (space {space}): {seen} of {} pages are stored", path.display(), tally.pages);
            return Err(Error::new(ErrorKind::DamagedBackup, message));
        }
    }
    let (fetched, written) = (shared.moved.0.into_inner(), shared.moved.1.into_inner());
    let recovered = shared.recovered.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(Moved { fetched, written, recovered })
}

/// A tablespace's flags, and how many of its pages were seen.
struct Copied {
    flags: TablespaceFlags,
    pages: u32,
    seen: AtomicU64,
}

fn spaces(table: &FileTable) -> Result<HashMap<SpaceId, Copied>, Error> {
    let tally = |entry: &crate::archive::filetable::SpaceEntry| {
        let flags = TablespaceFlags::decode(entry.flags).map_err(|error| {
            Error::new(ErrorKind::UnsupportedFormat, format!("space {}", entry.space)).caused_by(error)
        })?;
        Ok((entry.space, Copied { flags, pages: entry.pages, seen: AtomicU64::new(0) }))
    };
    table.spaces.iter().map(tally).collect()
}

struct Shared<'a> {
    layout: &'a Layout,
    spaces: HashMap<SpaceId, Copied>,
    packs: &'a [PackRef],
    next: AtomicUsize,
    recovery: Option<&'a Recovery>,
    new_pages: &'a [NewPages],
    next_new: AtomicUsize,
    recovered: Mutex<Tally>,
    moved: (AtomicU64, AtomicU64),
    failure: Mutex<Option<Error>>,
    stop: CancellationToken,
}

impl Shared<'_> {
    fn work(&self, reader: &ArchiveReader, ctx: &Context) {
        let mut worker = Worker {
            shared: self,
            recoverer: self.recovery.map(|recovery| Recoverer::new(recovery, reader)),
            files: OpenFiles::default(),
            long: None,
            buffer: AlignedBuffer::new(WRITE_BYTES),
            scratch: PageScratch::default(),
        };
        let outcome = self.all(reader, ctx, &mut worker);
        if let Some(recoverer) = &worker.recoverer {
            self.recovered.lock().unwrap_or_else(PoisonError::into_inner).add(recoverer.tally());
        }
        if let Err(error) = outcome {
            let mut first = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            // A thread that was stopped by another's failure is not the reason.
            if !self.stop.is_cancelled() {
                let _ = first.get_or_insert(error);
            }
            self.stop.cancel();
        }
    }

    /// Packs, and when there are no more, pages that no pack has.
    fn all(&self, reader: &ArchiveReader, ctx: &Context, worker: &mut Worker<'_>) -> Result<(), Error> {
        while let Some(pack) = self.packs.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            if self.stop.is_cancelled() {
                return Ok(());
            }
            self.pack(reader, pack, worker)?;
            let _ = self.moved.0.fetch_add(pack.bytes, Ordering::Relaxed);
            ctx.progress.advance(pack.bytes);
        }
        while let Some(pages) = self.new_pages.get(self.next_new.fetch_add(1, Ordering::Relaxed)) {
            if self.stop.is_cancelled() {
                return Ok(());
            }
            worker.new_pages(*pages)?;
        }
        Ok(())
    }

    /// Writes a pack's frames, each range of them while the next one is fetched.
    fn pack(&self, reader: &ArchiveReader, pack: &PackRef, worker: &mut Worker<'_>) -> Result<(), ArchiveError> {
        let open = reader.open_pack(pack)?;
        let mut decoder = FrameDecoder::new()?;
        std::thread::scope(|scope| {
            // No room in between: one range is worked on, one waits, and no third takes memory.
            let (hand_over, fetched) = sync_channel(0);
            let open = &open;
            let _ = scope.spawn(move || {
                for range in open.ranges() {
                    let bytes = open.fetch(&range);
                    let is_over = bytes.is_err();
                    if hand_over.send(bytes.map(|bytes| (range, bytes))).is_err() || is_over {
                        break;
                    }
                }
            });
            for next in fetched {
                let (range, bytes) = next?;
                open.decode(&range, &bytes, &mut decoder, &mut |frame| {
                    if self.stop.is_cancelled() {
                        return Err(ArchiveError::Cancelled);
                    }
                    worker.frame(&pack.name, &frame).map_err(ArchiveError::consumer)
                })?;
            }
            Ok(())
        })
    }
}

struct Worker<'a> {
    shared: &'a Shared<'a>,
    recoverer: Option<Recoverer<'a>>,
    files: OpenFiles,
    /// The file that a long run was written to last.
    long: Option<(PathBuf, DirectFile)>,
    buffer: AlignedBuffer,
    scratch: PageScratch,
}

impl Worker<'_> {
    fn frame(&mut self, pack: &str, frame: &Frame) -> Result<(), Error> {
        match frame.stream {
            StreamId::Space(space) => self.pages(pack, space, frame),
            StreamId::File(number) => self.file(pack, number, frame),
        }
    }

    fn pages(&mut self, pack: &str, space: SpaceId, frame: &Frame) -> Result<(), Error> {
        let shared = self.shared;
        let tally =
            shared.spaces.get(&space).ok_or_else(|| damaged(pack, &format!("holds pages of unknown space {space}")))?;
        let context = PageContext { space, flags: tally.flags, key: None };
        let size = tally.flags.physical_size().len();
        if frame.unit_size != tally.flags.physical_size().bytes() {
            let what = format!("space {space}: units of {} bytes, and pages of {size}", frame.unit_size);
            return Err(damaged(pack, &what));
        }
        // Taken out for as long as its pages are written by the rest of the worker.
        let mut recoverer = self.recoverer.take();
        if let Some(recoverer) = &mut recoverer {
            recoverer.begin(space, tally.flags, frame)?;
        }
        for run in frame.runs() {
            let first = page_at(frame, run.first_unit);
            for (page, bytes) in (first.0..u32::MAX).map(PageNo).zip(run.bytes.chunks(size)) {
                if !is_legacy_doublewrite(space, tally.flags, page) {
                    let verdict = UnverifiedPage::new(bytes, page).verify(&context, &mut self.scratch);
                    let verdict =
                        verdict.map_err(|fault| damaged(pack, &format!("space {space}, page {page}: {fault}")))?;
                    check_age(shared.recovery, PageId { space, page }, &verdict)?;
                }
            }
            let Some(recoverer) = &mut recoverer else {
                self.run(pack, space, first, run.bytes, size)?;
                continue;
            };
            self.created(recoverer, pack, space, first, size)?;
            self.run(pack, space, first, recoverer.patch(first, size, run.bytes)?, size)?;
        }
        if let Some(recoverer) = &mut recoverer {
            self.created(recoverer, pack, space, PageNo(u32::MAX), size)?;
        }
        self.recoverer = recoverer;
        let seen = u64::from(frame.present_count()).saturating_add(u64::from(frame.zero_count()));
        let _ = tally.seen.fetch_add(seen, Ordering::Relaxed);
        Ok(())
    }

    /// Writes the pages before `until` that redo makes where the copy has none, or only zeros.
    fn created(
        &mut self,
        recoverer: &mut Recoverer<'_>,
        pack: &str,
        space: SpaceId,
        until: PageNo,
        size: usize,
    ) -> Result<(), Error> {
        while let Some((first, run)) = recoverer.created(until)? {
            self.run(pack, space, first, run, size)?;
        }
        Ok(())
    }

    /// Writes pages of a window of which the copy has none.
    fn new_pages(&mut self, pages: NewPages) -> Result<(), Error> {
        let Some(tally) = self.shared.spaces.get(&pages.space) else { return Ok(()) };
        let Some(mut recoverer) = self.recoverer.take() else { return Ok(()) };
        recoverer.begin_new(pages, tally.flags)?;
        self.created(&mut recoverer, "redo", pages.space, PageNo(u32::MAX), tally.flags.physical_size().len())?;
        self.recoverer = Some(recoverer);
        Ok(())
    }

    fn file(&mut self, pack: &str, number: u32, frame: &Frame) -> Result<(), Error> {
        let shared = self.shared;
        let path = shared
            .layout
            .file(number)
            .ok_or_else(|| damaged(pack, &format!("holds file {number}, which the file table does not have")))?;
        for run in frame.runs() {
            self.write(path, run.position, run.bytes)?;
        }
        Ok(())
    }

    /// Writes pages that follow one another, in as few pieces as files and holes allow.
    fn run(&mut self, pack: &str, space: SpaceId, first: PageNo, run: &[u8], size: usize) -> Result<(), Error> {
        let layout = self.shared.layout;
        let mut rest = run;
        let mut page = first;
        while !rest.is_empty() {
            let piece = layout
                .piece_of(space, page)
                .ok_or_else(|| damaged(pack, &format!("page {page} lies behind the end of space {space}")))?;
            let within = page.0.saturating_sub(piece.first_page.0);
            let room = usize::try_from(piece.pages.saturating_sub(within)).unwrap_or(usize::MAX).saturating_mul(size);
            let solid = rest.get(..room.min(rest.len())).unwrap_or(rest);
            // Up to and with the first page that ends in zeros, which are left out.
            let (pages, used) = solid
                .chunks(size)
                .zip(1_usize..)
                .map(|(bytes, count)| (count, bytes.len().saturating_sub(without_empty_end(bytes).len())))
                .find(|(_, empty)| *empty > 0)
                .map_or((solid.len() / size, solid.len()), |(count, empty)| (count, count * size - empty));
            let offset = u64::from(within).saturating_mul(u64::from(piece.page_bytes));
            self.write(&piece.path, offset, solid.get(..used).unwrap_or_default())?;
            rest = rest.get(pages * size..).unwrap_or_default();
            page = PageNo(page.0.saturating_add(u32::try_from(pages).unwrap_or(u32::MAX)));
        }
        Ok(())
    }

    fn write(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let written = if bytes.len() < LONG_RUN {
            self.files.get(path)?.write_all_at(bytes, offset)
        } else {
            self.write_long(path, offset, bytes)
        };
        written.map_err(|error| io_error("write", path, error))?;
        let _ = self.shared.moved.1.fetch_add(u64::try_from(bytes.len()).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }

    fn write_long(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let file = match self.long.take() {
            Some((open, file)) if open == path => file,
            _ => DirectFile::open(path)?,
        };
        file.write_at(&mut self.buffer, std::iter::once(bytes), offset)?;
        self.long = Some((path.to_path_buf(), file));
        Ok(())
    }
}

/// `bytes` without the zeros at its end, as far as they fill whole blocks.
fn without_empty_end(bytes: &[u8]) -> &[u8] {
    let mut used = bytes.len();
    while let Some(last) = used.checked_sub(HOLE)
        && bytes.get(last..used).is_some_and(all_zero)
    {
        used = last;
    }
    bytes.get(..used).unwrap_or(bytes)
}

/// The files that a thread wrote to last, open.
#[derive(Default)]
struct OpenFiles {
    files: VecDeque<(PathBuf, File)>,
}

impl OpenFiles {
    fn get(&mut self, path: &Path) -> Result<&File, Error> {
        match self.files.iter().position(|(open, _)| open == path) {
            Some(0) => {}
            Some(index) => self.files.swap(0, index),
            None => {
                // As it was made here; a link that took its place is somebody else's doing.
                let no_links = i32::try_from(OFlags::NOFOLLOW.bits()).unwrap_or(0);
                let file = File::options().write(true).custom_flags(no_links).open(path);
                let file = file.map_err(|error| io_error("open", path, error))?;
                self.files.truncate(OPEN_FILES - 1);
                self.files.push_front((path.to_path_buf(), file));
            }
        }
        match self.files.front() {
            Some((_, file)) => Ok(file),
            None => Err(Error::new(ErrorKind::Failed, "no open file")),
        }
    }
}

/// The page that is unit `index` of a frame.
pub fn page_at(frame: &Frame, index: u32) -> PageNo {
    let number = frame.first_unit().saturating_add(u64::from(index));
    PageNo(u32::try_from(number).unwrap_or(u32::MAX))
}

/// A page that was changed after the end of the log cannot be brought to that end.
fn check_age(recovery: Option<&Recovery>, page: PageId, verdict: &Verified<'_>) -> Result<(), Error> {
    let (Verified::Page(view) | Verified::Opaque(view)) = verdict else { return Ok(()) };
    match recovery {
        Some(recovery) => Ok(recovery.check_age(page, view.lsn())?),
        None => Ok(()),
    }
}

fn damaged(object: &str, what: &str) -> Error {
    Error::new(ErrorKind::DamagedBackup, format!("{object}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::super::placement::Placement;
    use super::super::target::Marker;
    use super::*;
    use crate::ops::handmade::{PACK, archive, page, redo};
    use crate::ops::options::ExternalFiles;

    #[test]
    fn only_whole_empty_blocks_at_the_end_are_left_out() {
        let mut page = vec![0_u8; 16384];
        page[5000] = 1;
        assert_eq!(without_empty_end(&page).len(), 8192);
        page[16383] = 1;
        assert_eq!(without_empty_end(&page).len(), 16384);
        assert_eq!(without_empty_end(&[0; 16384]).len(), 0);
        assert_eq!(without_empty_end(&[0; 1024]).len(), 1024, "smaller than a block");
    }

    /// Restores an archive of these pages as they are.
    fn restored(pages: &[Vec<u8>]) -> Result<Vec<u8>, Error> {
        let (stored, _) = archive(pages, &redo());
        let reader = stored.open(&[]).unwrap();
        let table = reader.file_table().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let datadir = dir.path().join("data");
        let layout = Layout::plan(&table, &Placement::new(&datadir, &ExternalFiles::Keep)).unwrap();
        let marker = Marker { backup: "b".into(), note: "n".into(), external_files: Vec::new(), run: "r".into() };
        let target = Target::claim(&datadir, false, &marker).unwrap();
        layout.create_all(&target, &table).unwrap();
        write(&Context::silent(), &target, &reader, &table, &layout, None, NonZeroUsize::MIN)?;
        Ok(std::fs::read(datadir.join("db/t.ibd")).unwrap())
    }

    #[test]
    fn a_bad_page_is_not_restored_though_its_digests_are_right() {
        let good = vec![page(0), page(1), vec![0; 16384], page(3)];
        assert_eq!(restored(&good).unwrap(), good.concat());
        let mut bad = good;
        bad[3][5000] ^= 1;
        let error = restored(&bad).unwrap_err();
        assert_eq!(error.kind, ErrorKind::DamagedBackup);
        assert!(error.message.starts_with(&format!("{PACK}: space 5, page 3: checksum")), "{error}");
    }

    #[test]
    fn the_last_files_used_stay_open() {
        let dir = tempfile::tempdir().unwrap();
        let mut open = OpenFiles::default();
        for index in 0..OPEN_FILES + 5 {
            let path = dir.path().join(index.to_string());
            std::fs::write(&path, b"").unwrap();
            open.get(&path).unwrap();
        }
        assert_eq!(open.files.len(), OPEN_FILES);
        assert!(open.get(&dir.path().join("none")).is_err());
    }
}
