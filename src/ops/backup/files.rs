//! Files that are no tablespaces: which are taken, when, and their way into the archive.
//!
//! ```text
//!   dictionary files (.sdi)       ─ under the backup lock ──────► spool ─┐
//!   user tables of other engines  ─ under the global read lock ─► spool ─┼─► windows ─► packs
//!   log tables, ib_buffer_pool  ──────────────────────────────────────────┤
//!   binlog tail (through the file opened at the cut)  ────────────────────┘
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::archive::filetable::{FileEntry, FileTable, PieceEntry, SpaceEntry, StoredFileKind};
use crate::archive::frame::FrameInput;
use crate::archive::writer::PackWriter;
use crate::archive::{Contents, FILE_UNIT, Location, StreamId};
use crate::capture::{CopyPlan, FileKind, PassingFile, PlannedFile, PlannedSpace, SpooledFile, WINDOW_BYTES};
use crate::innodb::page::all_zero;
use crate::ops::blocking;
use crate::ops::error::{Error, ErrorKind};
use crate::ops::options::NonTransactional;

use super::Parts;
use super::cut::Cut;

/// The files of a plan, by when they are copied.
pub struct Selected {
    /// Only still while the global read lock is held.
    pub under_lock: Vec<PlannedFile>,
    /// Still while the backup lock is held: DDL that waits for it may remove them the moment after.
    pub dictionary: Vec<PlannedFile>,
    /// Never still, and nothing depends on them.
    pub later: Vec<PlannedFile>,
    /// User files that the policy leaves out.
    pub skipped: usize,
}

/// Sorts the files of `plan`; pure.
pub fn select(plan: &CopyPlan, policy: NonTransactional) -> Selected {
    let of = |kind| plan.files.iter().filter(move |file| file.kind == kind).cloned().collect::<Vec<_>>();
    let user = of(FileKind::NonTransactional);
    let (under_lock, skipped) = match policy {
        NonTransactional::Skip => (Vec::new(), user.len()),
        NonTransactional::Include | NonTransactional::Refuse => (user, 0),
    };
    Selected { under_lock, dictionary: of(FileKind::Sdi), later: of(FileKind::SystemTable), skipped }
}

/// The stored set, complete but for the manifest.
pub struct StoredSet {
    /// What the manifest points at.
    pub contents: Contents,
    /// Bytes read from files in here.
    pub bytes: u64,
    /// From the cut.
    pub status: crate::mysql::LogStatus,
    /// User files that were left out.
    pub skipped: usize,
}

/// Stores all files, then the tables of the archive.
pub(super) async fn store(
    parts: &Parts<'_>,
    plan: &Arc<CopyPlan>,
    selected: Selected,
    dictionary: Vec<SpooledFile>,
    cut: Cut,
) -> Result<StoredSet, Error> {
    let Parts { ctx, source, attempt, guards, .. } = *parts;
    let stop = guards.token();
    let (writer, plan, stop) = (attempt.writer(), Arc::clone(plan), stop.clone());
    let (datadir, buffer_pool) = (source.layout.datadir.clone(), source.buffer_pool_file());
    let progress = Arc::clone(&ctx.progress);
    blocking(move || {
        let mut files = FileStore { pack: writer.pack_writer(), entries: Vec::new(), bytes: 0, stop };
        for SpooledFile { source, copy } in dictionary.iter().chain(&cut.spooled) {
            files.add(&location(source), stored_kind(source.kind), copy.open()?, u64::MAX)?;
        }
        for file in selected.later.iter().chain(&buffer_pool) {
            files.add_live(file, buffer_pool.as_ref() == Some(file))?;
        }
        if let Some(tail) = cut.binlog {
            let place = PlannedFile {
                relative: tail.path.strip_prefix(&datadir).ok().map(|below| below.as_os_str().as_bytes().to_vec()),
                path: tail.path,
                kind: FileKind::SystemTable,
            };
            let stored =
                files.add(&location(&place), StoredFileKind::BinlogTail, PassingFile::new(tail.file), tail.bytes)?;
            if stored != tail.bytes {
                let message = format!("{} became shorter while it was copied", place.path.display());
                return Err(Error::new(ErrorKind::SourceChanged, message));
            }
        }
        let FileStore { pack, entries, bytes, .. } = files;
        pack.finish()?;
        let table = FileTable {
            spaces: plan.spaces.iter().map(space_entry).collect(),
            files: entries,
            directories: plan.directories.clone(),
        };
        progress.step("index");
        let contents = writer.finish(&table)?;
        Ok(StoredSet { contents, bytes, status: cut.status, skipped: selected.skipped })
    })
    .await
}

struct FileStore {
    pack: PackWriter,
    entries: Vec<FileEntry>,
    bytes: u64,
    stop: CancellationToken,
}

impl FileStore {
    /// Stores a file of the live server as it is, if it is still there: nothing needs it.
    fn add_live(&mut self, file: &PlannedFile, is_buffer_pool: bool) -> Result<(), Error> {
        let open = match File::open(&file.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            open => open.map_err(read_error(&file.path))?,
        };
        let kind = if is_buffer_pool { StoredFileKind::BufferPool } else { stored_kind(file.kind) };
        self.add(&location(file), kind, PassingFile::new(open), u64::MAX).map(drop)
    }

    /// Stores up to `limit` bytes of `file`; returns how many there were. A log table may grow meanwhile: its end is
    /// where the first window is not full, since windows have their places.
    fn add(&mut self, location: &Location, kind: StoredFileKind, file: impl Read, limit: u64) -> Result<u64, Error> {
        let number = u32::try_from(self.entries.len())
            .map_err(|_| Error::new(ErrorKind::Unsupported, "more than 4 billion files"))?;
        let mut input = file.take(limit);
        let mut bytes = 0_u64;
        let mut window = Vec::new();
        for window_no in 0.. {
            if self.stop.is_cancelled() {
                return Err(Error::cancelled());
            }
            window.clear();
            let read = (&mut input).take(WINDOW_BYTES).read_to_end(&mut window);
            let count = read.map_err(read_error(Path::new(std::ffi::OsStr::from_bytes(location.path()))))?;
            if count == 0 {
                break;
            }
            let count = u64::try_from(count).unwrap_or(0);
            bytes = bytes.saturating_add(count);
            self.frame(number, window_no, &window)?;
            if count < WINDOW_BYTES {
                break;
            }
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.entries.push(FileEntry { number, location: location.clone(), kind, bytes });
        Ok(bytes)
    }

    fn frame(&mut self, number: u32, window_no: u32, window: &[u8]) -> Result<(), Error> {
        let unit = usize::try_from(FILE_UNIT).unwrap_or(4096);
        let zero: Vec<bool> = window.chunks(unit).map(all_zero).collect();
        self.pack.frame(&FrameInput {
            stream: StreamId::File(number),
            window_no,
            unit_size: FILE_UNIT,
            bytes: window,
            zero: &zero,
        })?;
        Ok(())
    }
}

fn stored_kind(kind: FileKind) -> StoredFileKind {
    match kind {
        FileKind::NonTransactional => StoredFileKind::NonTransactional,
        FileKind::SystemTable => StoredFileKind::SystemTable,
        FileKind::Sdi => StoredFileKind::Sdi,
    }
}

fn space_entry(space: &PlannedSpace) -> SpaceEntry {
    let piece = |piece: &crate::capture::SpacePiece| PieceEntry {
        location: place(piece.relative.as_deref(), &piece.path),
        first_page: piece.first_page,
        pages: piece.pages,
    };
    SpaceEntry {
        space: space.space,
        flags: space.flags.raw(),
        pages: space.pages(),
        pieces: space.pieces.iter().map(piece).collect(),
    }
}

fn location(file: &PlannedFile) -> Location {
    place(file.relative.as_deref(), &file.path)
}

fn place(relative: Option<&[u8]>, path: &Path) -> Location {
    relative.map_or_else(
        || Location::External(path.as_os_str().as_bytes().to_vec()),
        |below| Location::Datadir(below.to_vec()),
    )
}

/// For `map_err`: names the file of the server's that could not be read.
pub(super) fn read_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::new(ErrorKind::LocalIo, format!("cannot read {}", path.display())).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_decides_on_user_files_only() {
        let file = |name: &str, kind| PlannedFile { path: name.into(), relative: Some(name.into()), kind };
        let plan = CopyPlan {
            files: vec![file("d/t.MYD", FileKind::NonTransactional), file("d/t.sdi", FileKind::Sdi)],
            ..CopyPlan::default()
        };
        let all = select(&plan, NonTransactional::Include);
        assert_eq!((all.under_lock.len(), all.dictionary.len(), all.skipped), (1, 1, 0));
        let some = select(&plan, NonTransactional::Skip);
        assert_eq!((some.under_lock.len(), some.dictionary.len(), some.skipped), (0, 1, 1));
    }

    /// A file that somebody appends to: after its end there is more.
    struct Growing(Vec<&'static [u8]>);

    impl Read for Growing {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let Some(piece) = (!self.0.is_empty()).then(|| self.0.remove(0)) else { return Ok(0) };
            into[..piece.len()].copy_from_slice(piece);
            Ok(piece.len())
        }
    }

    #[test]
    fn a_file_that_grows_while_it_is_read_ends_where_it_ended() {
        let sink = std::sync::Arc::new(crate::archive::memory::MemoryStore::default());
        let options = crate::archive::writer::WriterOptions {
            backup: "t-20260314T150926Z-1a2b3c4d".parse().unwrap(),
            attempt: crate::archive::id::AttemptId::generate(),
            codec: crate::archive::codec::Codec::None,
            redo_codec: crate::archive::codec::Codec::None,
            pack_bytes: 1 << 20,
            recipients: Vec::new(),
        };
        let writer = crate::archive::ArchiveWriter::new(sink, options).unwrap();
        let pack = writer.pack_writer();
        let mut files = FileStore { pack, entries: Vec::new(), bytes: 0, stop: CancellationToken::new() };
        let log = Growing(vec![b"a line\n", b"", b"another\n", b""]);
        let place = Location::Datadir(b"mysql/general_log.CSV".to_vec());
        assert_eq!(files.add(&place, StoredFileKind::SystemTable, log, u64::MAX).unwrap(), 7);
        let FileStore { pack, entries, .. } = files;
        pack.finish().unwrap();
        writer.finish(&FileTable { files: entries, ..FileTable::default() }).unwrap();
    }
}
