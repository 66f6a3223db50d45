//! The live `#innodb_redo` directory: which file holds which LSN, and where the newest checkpoint is.
//!
//! Files appear, are renamed and recycled at any moment, so every listing is checked against the headers and tried
//! again when a file vanishes between being listed and being opened (MySQL 9.7; redo-log reference, sections 2 and 6).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::CaptureError;
use crate::innodb::FormatError;
use crate::innodb::lsn::Lsn;
use crate::innodb::redo::file::{
    CHECKPOINT_OFFSETS, ENCRYPTION_OFFSET, HEADER_BLOCK_SIZE, REDO_HEADER_SIZE, RedoFileHeader, decode_checkpoint,
    file_number,
};

/// How often a directory that changes while it is read is read again.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(5);

/// A redo file, open.
#[derive(Debug)]
pub struct RedoFile {
    /// Where it was found.
    pub path: PathBuf,
    /// Its header when it was opened.
    pub header: RedoFileHeader,
    file: File,
}

/// What the directory holds at one moment.
#[derive(Debug)]
pub struct Discovered {
    /// The newest checkpoint.
    pub checkpoint: Lsn,
    /// The file that holds it.
    pub file: RedoFile,
}

impl RedoFile {
    /// Opens the file and reads its header.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let file = File::open(path).map_err(CaptureError::io("open redo file", path))?;
        let header = read_header(&file, path)?;
        Ok(Self { path: path.to_path_buf(), header, file })
    }

    /// LSN behind its last block, by its present size.
    pub fn end_lsn(&self) -> Result<Lsn, CaptureError> {
        let size = self.file.metadata().map_err(CaptureError::io("look at redo file", &self.path))?.len();
        let bytes = size.saturating_sub(REDO_HEADER_SIZE);
        Ok(self.header.start_lsn.checked_add(bytes).unwrap_or(self.header.start_lsn))
    }

    /// Reads up to `buffer.len()` bytes of blocks from `lsn` on; returns how many there were.
    pub fn read_blocks(&self, lsn: Lsn, buffer: &mut [u8]) -> Result<usize, CaptureError> {
        let offset = REDO_HEADER_SIZE + lsn.saturating_since(self.header.start_lsn);
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + u64::try_from(filled).unwrap_or(0)) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(CaptureError::io("read redo file", &self.path)(error)),
            }
        }
        Ok(filled)
    }

    /// Reads the header again: the file may have been recycled since, with the same inode.
    pub fn current_header(&self) -> Result<RedoFileHeader, CaptureError> {
        read_header(&self.file, &self.path)
    }

    /// The encryption block, where it is not empty.
    pub fn encryption_block(&self) -> Result<Option<Vec<u8>>, CaptureError> {
        let mut block = vec![0; HEADER_BLOCK_SIZE];
        self.file
            .read_exact_at(&mut block, ENCRYPTION_OFFSET)
            .map_err(CaptureError::io("read redo file", &self.path))?;
        Ok(block.iter().any(|&byte| byte != 0).then_some(block))
    }

    /// The newest checkpoint in this file that lies in this file.
    fn checkpoint(&self) -> Result<Option<Lsn>, CaptureError> {
        let end = self.end_lsn()?;
        let mut newest = None;
        for offset in CHECKPOINT_OFFSETS {
            let mut block = [0; HEADER_BLOCK_SIZE];
            self.file.read_exact_at(&mut block, offset).map_err(CaptureError::io("read redo file", &self.path))?;
            // One of the two may be torn or half written at any time; that is why there are two.
            let Ok(Some(lsn)) = decode_checkpoint(&block) else { continue };
            if lsn >= self.header.start_lsn && lsn < end {
                newest = newest.max(Some(lsn));
            }
        }
        Ok(newest)
    }
}

/// Finds the newest checkpoint.
pub fn discover(dir: &Path) -> Result<Discovered, CaptureError> {
    retry(|| {
        let mut newest: Option<Discovered> = None;
        let files = open_all(dir)?;
        if let Some(last) = files.iter().max_by_key(|file| file.header.start_lsn) {
            refuse_disabled(last)?;
        }
        for file in files {
            if let Some(checkpoint) = file.checkpoint()?
                && newest.as_ref().is_none_or(|known| checkpoint > known.checkpoint)
            {
                newest = Some(Discovered { checkpoint, file });
            }
        }
        newest.ok_or_else(|| CaptureError::Format {
            path: dir.to_path_buf(),
            source: FormatError::Invalid { what: "redo log", why: "no file of it holds a checkpoint".into() },
        })
    })
}

/// Finds the file that holds `lsn`. `Ok(None)`: it is not there yet; an error when it is not there any more.
pub fn find_file(dir: &Path, lsn: Lsn) -> Result<Option<RedoFile>, CaptureError> {
    retry(|| {
        let mut oldest: Option<Lsn> = None;
        for file in open_all(dir)? {
            if lsn >= file.header.start_lsn && lsn < file.end_lsn()? {
                return Ok(Some(file));
            }
            oldest = Some(oldest.map_or(file.header.start_lsn, |known| known.min(file.header.start_lsn)));
        }
        match oldest {
            Some(found) if found > lsn => Err(CaptureError::RedoOverwritten { wanted: lsn, found }),
            _ => Ok(None),
        }
    })
}

/// The newest file's encryption block that is not empty, if any file has one.
pub fn find_encryption_block(dir: &Path) -> Result<Option<Vec<u8>>, CaptureError> {
    retry(|| {
        let mut files = open_all(dir)?;
        files.sort_by_key(|file| std::cmp::Reverse(file.header.start_lsn));
        for file in &files {
            if let Some(block) = file.encryption_block()? {
                return Ok(Some(block));
            }
        }
        Ok(None)
    })
}

/// Fails when the newest file says that not every change is logged.
pub fn refuse_disabled(newest: &RedoFile) -> Result<(), CaptureError> {
    if newest.header.flags.is_incomplete() {
        return Err(CaptureError::RedoDisabled { path: newest.path.clone(), flags: newest.header.flags.0 });
    }
    Ok(())
}

fn open_all(dir: &Path) -> Result<Vec<RedoFile>, CaptureError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(CaptureError::io("list", dir))? {
        let entry = entry.map_err(CaptureError::io("list", dir))?;
        if entry.file_name().to_str().and_then(file_number).is_some() {
            files.push(RedoFile::open(&entry.path())?);
        }
    }
    Ok(files)
}

/// Tries again what a rename or a rewritten header may have disturbed.
fn retry<T>(mut act: impl FnMut() -> Result<T, CaptureError>) -> Result<T, CaptureError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match act() {
            Err(error) if attempts < ATTEMPTS && is_passing(&error) => std::thread::sleep(PAUSE),
            outcome => return outcome,
        }
    }
}

fn is_passing(error: &CaptureError) -> bool {
    match error {
        CaptureError::Io { source, .. } => {
            matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof)
        }
        CaptureError::Format { source, .. } => !matches!(source, FormatError::Unsupported { .. }),
        _ => false,
    }
}

fn read_header(file: &File, path: &Path) -> Result<RedoFileHeader, CaptureError> {
    let mut block = [0; HEADER_BLOCK_SIZE];
    file.read_exact_at(&mut block, 0).map_err(CaptureError::io("read redo file", path))?;
    RedoFileHeader::decode(&block).map_err(CaptureError::format(path))
}
