//! The captured redo as a log that a stock server accepts.
//!
//! ```text
//!   #innodb_redo.incomplete/#ib_redo0   header │ checkpoint = the backup's │ encryption │ checkpoint │ blocks …
//!                           #ib_redo1   … as many as the size limit asks for; only the newest is not marked full
//!   publish:  everything else is durable ─► rename to #innodb_redo: from now on a server would start
//! ```
//! A data directory whose `#innodb_redo` is missing is refused by the server, so the rename is the moment at which
//! this one becomes a database (MySQL 9.7; redo-log reference, sections 3, 5 and 11).

use std::fs::File;
use std::io::Write;
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use crate::archive::ArchiveReader;
use crate::archive::filetable::{FileTable, SpaceEntry};
use crate::archive::manifest::Manifest;
use crate::innodb::FormatError;
use crate::innodb::ids::{PageNo, SpaceId};
use crate::innodb::keyring::Keyring;
use crate::innodb::lsn::{LOG_BLOCK_SIZE, Lsn};
use crate::innodb::redo::file::{
    HEADER_BLOCK_SIZE, PlannedFile, RedoFileHeader, RedoFlags, encode_checkpoint, encryption_info, file_name,
    plan_log_set,
};
use crate::innodb::space::{TablespaceFlags, TablespaceKey};
use crate::ops::error::{Error, ErrorKind};
use crate::ops::segments::each_segment;
use crate::prepare::{CopiedSpace, Growth};
use crate::util::fs::durable_rename;

use super::no_system_tablespace;
use super::target::{FILE_MODE, Target, io_error, local_io};

/// Where a log is built, until everything else is durable.
pub const BUILDING: &str = "#innodb_redo.incomplete";
const FINISHED: &str = "#innodb_redo";

/// What was written.
#[derive(Debug, Clone, Copy, Default)]
pub struct RedoWritten {
    /// Read from the store.
    pub fetched: u64,
    /// Written.
    pub written: u64,
    /// Files made.
    pub files: u64,
}

/// Builds the log set under its temporary name. `growth` reads along.
pub fn write(
    target: &Target,
    reader: &ArchiveReader,
    manifest: &Manifest,
    growth: &mut Growth,
    threads: NonZeroUsize,
    cancel: &CancellationToken,
) -> Result<RedoWritten, Error> {
    let directory = target.datadir().join(BUILDING);
    target.create_dir(&directory)?;
    let start = manifest.lsn.checkpoint.block_start();
    let last = manifest.lsn.end.block_start();
    let bytes = last.saturating_since(start).saturating_add(LOG_BLOCK_SIZE);
    let plan = plan_log_set(start, bytes, manifest.server.page_size).map_err(format_error)?;
    let encryption = encryption_block(manifest)?;
    let mut log = LogSet {
        target,
        manifest,
        encryption,
        directory,
        plan: plan.into_iter(),
        open: None,
        sum: RedoWritten::default(),
    };
    log.sum.fetched = read(reader, manifest, threads, cancel, &mut |blocks| {
        growth.feed(blocks)?;
        log.append(blocks)
    })?;
    log.finish()
}

/// What finds out how large the system tablespace has become: a server that recovers a copy extends any other file, but
/// refuses to start where this one is too short (MySQL 9.7).
pub fn system_growth(manifest: &Manifest, table: &FileTable, keyring: Option<&Keyring>) -> Result<Growth, Error> {
    let system = table.spaces.iter().find(|entry| entry.space == SpaceId::SYSTEM);
    let system = system.ok_or_else(no_system_tablespace)?;
    Ok(Growth::new(manifest.lsn.checkpoint, log_key(manifest, keyring)?, copied_space(system)?))
}

/// A tablespace as the redo finds it.
pub fn copied_space(entry: &SpaceEntry) -> Result<CopiedSpace, Error> {
    let flags = TablespaceFlags::decode(entry.flags)
        .map_err(|error| Error::new(ErrorKind::UnsupportedFormat, format!("space {}", entry.space)).caused_by(error))?;
    let last_file = entry.pieces.last().map_or(PageNo(0), |piece| piece.first_page);
    Ok(CopiedSpace { space: entry.space, flags, pages: entry.pages, last_file })
}

/// Hands out the blocks of all redo in order, fetched ahead. Refuses redo that does not reach from the checkpoint to the
/// end. Says how much it is.
pub fn read(
    reader: &ArchiveReader,
    manifest: &Manifest,
    threads: NonZeroUsize,
    cancel: &CancellationToken,
    each: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<u64, Error> {
    let mut at = manifest.lsn.checkpoint.block_start();
    let mut fetched = 0_u64;
    each_segment(reader, threads, cancel, &mut |segment, blocks| {
        let blocks = blocks?;
        if segment.start != at {
            let message = format!("redo from LSN {at} to {} is missing", segment.start);
            return Err(Error::new(ErrorKind::DamagedBackup, message));
        }
        fetched = fetched.saturating_add(segment.log_bytes());
        each(&blocks)?;
        at = segment.end;
        Ok(())
    })?;
    if at != manifest.lsn.end {
        let message = format!("redo ends at LSN {at}, the backup ends at LSN {}", manifest.lsn.end);
        return Err(Error::new(ErrorKind::DamagedBackup, message));
    }
    Ok(fetched)
}

/// Gives the finished log its name. Everything else must be durable by now.
pub fn publish(target: &Target) -> Result<(), Error> {
    durable_rename(&target.datadir().join(BUILDING), &target.datadir().join(FINISHED)).map_err(local_io)
}

/// The encryption block of the log's files: zeros where it is not encrypted.
pub fn encryption_block(manifest: &Manifest) -> Result<Vec<u8>, Error> {
    let empty = || vec![0; HEADER_BLOCK_SIZE];
    let Some(text) = &manifest.redo.encryption_block else { return Ok(empty()) };
    match hex::decode(text) {
        Ok(block) if block.len() == HEADER_BLOCK_SIZE => Ok(block),
        _ => Err(Error::new(ErrorKind::DamagedBackup, "the manifest's redo encryption block is not 512 bytes in hex")),
    }
}

/// The key of an encrypted log.
pub fn log_key(manifest: &Manifest, keyring: Option<&Keyring>) -> Result<Option<TablespaceKey>, Error> {
    let failed = |error: FormatError| {
        Error::new(ErrorKind::KeyMissing, "the key of the redo log cannot be opened").caused_by(error)
    };
    let block = encryption_block(manifest)?;
    let Some(info) = encryption_info(&block).map_err(failed)? else { return Ok(None) };
    info.unwrap_key(keyring.unwrap_or(&Keyring::default())).map(Some).map_err(failed)
}

fn format_error(error: FormatError) -> Error {
    Error::new(ErrorKind::DamagedBackup, "the redo of this backup makes no log").caused_by(error)
}

/// The files of the log, one open at a time.
struct LogSet<'a> {
    target: &'a Target,
    manifest: &'a Manifest,
    encryption: Vec<u8>,
    directory: PathBuf,
    plan: std::vec::IntoIter<PlannedFile>,
    open: Option<OpenFile>,
    sum: RedoWritten,
}

struct OpenFile {
    path: PathBuf,
    file: File,
    size: u64,
    left: u64,
}

impl LogSet<'_> {
    fn append(&mut self, mut blocks: &[u8]) -> Result<(), Error> {
        while !blocks.is_empty() {
            let mut open = match self.open.take() {
                Some(open) if open.left > 0 => open,
                full => {
                    Self::close(full)?;
                    self.next_file()?
                }
            };
            let count = usize::try_from(open.left).unwrap_or(usize::MAX).min(blocks.len());
            let (now, rest) = blocks.split_at_checked(count).unwrap_or((blocks, &[]));
            open.file.write_all(now).map_err(|error| io_error("write", &open.path, error))?;
            let count = u64::try_from(count).unwrap_or(0);
            open.left = open.left.saturating_sub(count);
            self.sum.written = self.sum.written.saturating_add(count);
            self.open = Some(open);
            blocks = rest;
        }
        Ok(())
    }

    fn next_file(&mut self) -> Result<OpenFile, Error> {
        let planned = self.plan.next().ok_or_else(|| {
            Error::new(ErrorKind::DamagedBackup, "there is more redo than lies between checkpoint and end")
        })?;
        let path = self.directory.join(file_name(planned.number));
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(|error| io_error("create", &path, error))?;
        file.write_all(&self.header(&planned)).map_err(|error| io_error("write", &path, error))?;
        self.target.give(&path)?;
        self.sum.files = self.sum.files.saturating_add(1);
        Ok(OpenFile { path, file, size: planned.size_bytes, left: planned.data_bytes })
    }

    /// The four blocks before the log itself. Only the file that holds the checkpoint names it.
    fn header(&self, planned: &PlannedFile) -> Vec<u8> {
        let end = planned.start.checked_add(planned.data_bytes).unwrap_or(planned.start);
        let checkpoint = self.manifest.lsn.checkpoint;
        let here = if (planned.start..end).contains(&checkpoint) { checkpoint } else { Lsn::ZERO };
        let header = RedoFileHeader {
            log_uuid: self.manifest.redo.log_uuid,
            start_lsn: planned.start,
            creator: self.manifest.redo.creator.clone(),
            flags: RedoFlags(if planned.last { 0 } else { RedoFlags::FILE_FULL }),
        };
        let mut bytes = header.encode().to_vec();
        bytes.extend(encode_checkpoint(here));
        bytes.extend(&self.encryption);
        bytes.extend(encode_checkpoint(here));
        bytes
    }

    /// Gives a full file its planned size: zeros follow the log.
    fn close(open: Option<OpenFile>) -> Result<(), Error> {
        match open {
            Some(open) => open.file.set_len(open.size).map_err(|error| io_error("set the size of", &open.path, error)),
            None => Ok(()),
        }
    }

    fn finish(mut self) -> Result<RedoWritten, Error> {
        let open = self.open.take();
        Self::close(open)?;
        Ok(self.sum)
    }
}
