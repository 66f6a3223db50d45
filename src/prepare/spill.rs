//! Redo that does not fit into memory: runs in one file that has no name.
//!
//! ```text
//!   memory full ─sort─► run 1 │ run 2 │ run 3 │ …          written front to back
//!   more than 64 runs: each 64 that follow one another are merged into one, in a new file
//! ```
//! The file goes with the process, however that ends. Where tablespaces or the log are encrypted, what it holds is
//! enciphered, too, by a key that is never written anywhere.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aes::Aes256;
use aes::cipher::{BlockEncrypt, KeyInit};
use rustix::fs::OFlags;

use super::PrepareError;
use super::run::{Cursor, EVERYTHING};
use crate::innodb::ids::{PageId, PageNo, SpaceId};

/// Runs that are read side by side at most: each reader has a buffer of one read for each of them.
pub const MOST_RUNS: usize = 64;
/// Runs that are merged at once.
const FAN_IN: usize = 64;
/// Bytes between two fences at first.
const FENCE_BYTES: u64 = 16 << 10;
/// Fences of a run; where there were more, every other one goes.
const MOST_FENCES: usize = 1 << 16;
/// Bytes that are written at a time.
const WRITE_BYTES: usize = 1 << 20;
const AES_BLOCK: usize = 16;

/// A file without a name.
pub struct SpillFile {
    file: File,
    dir: PathBuf,
    cipher: Option<Aes256>,
}

impl fmt::Debug for SpillFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpillFile").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl SpillFile {
    /// A new one on the file system of `dir`.
    pub fn create(dir: &Path, enciphered: bool) -> Result<Self, PrepareError> {
        let file = nameless(dir).map_err(|source| Self::failed("create", dir, source))?;
        let cipher =
            if enciphered { Some(random_cipher().map_err(|e| Self::failed("encipher", dir, e))?) } else { None };
        Ok(Self { file, dir: dir.to_path_buf(), cipher })
    }

    /// What an error of reading it means.
    pub fn unreadable(&self, source: io::Error) -> PrepareError {
        Self::failed("read", &self.dir, source)
    }

    fn failed(act: &'static str, dir: &Path, source: io::Error) -> PrepareError {
        PrepareError::Spill { act, dir: dir.to_path_buf(), source }
    }

    /// Fills `bytes` from a place.
    pub fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, at)?;
        self.encipher(bytes, at);
        Ok(())
    }

    fn write_at(&self, bytes: &mut [u8], at: u64) -> Result<(), PrepareError> {
        self.encipher(bytes, at);
        self.file.write_all_at(bytes, at).map_err(|source| Self::failed("write", &self.dir, source))
    }

    /// Adds the key stream of this place: once enciphers, twice brings back.
    fn encipher(&self, bytes: &mut [u8], at: u64) {
        let Some(cipher) = &self.cipher else { return };
        let mut counter = at >> AES_BLOCK.trailing_zeros();
        let mut skip = usize::try_from(at).unwrap_or(0) & AES_BLOCK.saturating_sub(1);
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut block = u128::from(counter).to_be_bytes();
            cipher.encrypt_block((&mut block).into());
            let (now, later) = rest.split_at_mut(rest.len().min(AES_BLOCK.saturating_sub(skip)));
            now.iter_mut().zip(block.iter().skip(skip)).for_each(|(byte, key)| *byte ^= key);
            (rest, skip) = (later, 0);
            counter = counter.wrapping_add(1);
        }
    }
}

/// A file that is in no directory, so that nothing is left of it however this process ends.
fn nameless(dir: &Path) -> io::Result<File> {
    let flag = i32::try_from(OFlags::TMPFILE.bits()).unwrap_or(0);
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    if let Ok(file) = options.clone().custom_flags(flag).open(dir) {
        return Ok(file);
    }
    // Not every file system has such files; then there is one with a name for a moment.
    let path = dir.join(format!(".stillframe-spill-{}", std::process::id()));
    let file = options.create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn random_cipher() -> io::Result<Aes256> {
    let mut key = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut key).map_err(|_| io::Error::other("no randomness"))?;
    Ok(Aes256::new(&key.into()))
}

/// A run in a file.
#[derive(Debug)]
pub struct FileRun {
    /// Where it begins.
    pub start: u64,
    end: u64,
    fences: Vec<(PageId, u64)>,
}

impl FileRun {
    /// The bytes that hold all records from `from` on and before `until`.
    pub fn part(&self, from: PageId, until: PageId) -> (u64, u64) {
        let before = self.fences.partition_point(|(page, _)| *page < from);
        let start = before.checked_sub(1).and_then(|at| self.fences.get(at)).map_or(self.start, |(_, at)| *at);
        let behind = self.fences.partition_point(|(page, _)| *page < until);
        let end = self.fences.get(behind).map_or(self.end, |(_, at)| *at);
        (start, end.max(start))
    }

    /// Memory that it takes.
    pub fn memory_bytes(&self) -> u64 {
        u64::try_from(self.fences.capacity().saturating_mul(size_of::<(PageId, u64)>())).unwrap_or(u64::MAX)
    }

    /// Bytes in the file.
    pub fn bytes(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// Writes one run.
struct RunWriter<'f> {
    file: &'f SpillFile,
    buffer: Vec<u8>,
    at: u64,
    run: FileRun,
    stride: u64,
    next_fence: u64,
}

impl<'f> RunWriter<'f> {
    fn new(file: &'f SpillFile, start: u64) -> Self {
        let run = FileRun { start, end: start, fences: Vec::new() };
        let buffer = Vec::with_capacity(WRITE_BYTES.saturating_add(1 << 16));
        Self { file, buffer, at: start, run, stride: FENCE_BYTES, next_fence: start }
    }

    /// Adds what `encode` appends: the next record, of this page.
    fn push(&mut self, page: PageId, encode: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Result<(), PrepareError> {
        if self.run.end >= self.next_fence {
            self.run.fences.push((page, self.run.end));
            if self.run.fences.len() > MOST_FENCES {
                let mut keep = false;
                self.run.fences.retain(|_| {
                    keep = !keep;
                    keep
                });
                self.stride = self.stride.saturating_mul(2);
            }
            self.next_fence = self.run.end.saturating_add(self.stride);
        }
        let before = self.buffer.len();
        encode(&mut self.buffer).map_err(|error| SpillFile::failed("write", &self.file.dir, error))?;
        let added = u64::try_from(self.buffer.len().saturating_sub(before)).unwrap_or(0);
        self.run.end = self.run.end.saturating_add(added);
        if self.buffer.len() >= WRITE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), PrepareError> {
        self.file.write_at(&mut self.buffer, self.at)?;
        self.at = self.run.end;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<FileRun, PrepareError> {
        self.flush()?;
        self.run.fences.shrink_to_fit();
        Ok(self.run)
    }
}

/// Appends a run of `kept`, which must be in order.
pub fn write_run<'a>(
    file: &SpillFile,
    start: u64,
    kept: impl Iterator<Item = (PageId, &'a [u8])>,
) -> Result<FileRun, PrepareError> {
    let mut writer = RunWriter::new(file, start);
    for (page, bytes) in kept {
        writer.push(page, |out| out.write_all(bytes))?;
    }
    writer.finish()
}

/// Merges runs until few are left. The order of runs is that of the log.
pub fn merge(mut file: SpillFile, mut runs: Vec<FileRun>) -> Result<(SpillFile, Vec<FileRun>), PrepareError> {
    while runs.len() > MOST_RUNS {
        let merged_file = SpillFile::create(&file.dir, file.cipher.is_some())?;
        let mut merged: Vec<FileRun> = Vec::new();
        for some in runs.chunks(FAN_IN) {
            let start = merged.last().map_or(0, |run| run.end);
            merged.push(merge_into(&merged_file, start, &file, some)?);
        }
        (file, runs) = (merged_file, merged);
    }
    Ok((file, runs))
}

fn merge_into(to: &SpillFile, start: u64, from: &SpillFile, runs: &[FileRun]) -> Result<FileRun, PrepareError> {
    let first = PageId { space: SpaceId(0), page: PageNo(0) };
    let mut cursors: Vec<Cursor<'_>> = runs.iter().map(|run| Cursor::of_file(from, run)).collect();
    let mut next = BinaryHeap::new();
    for (index, cursor) in cursors.iter_mut().enumerate() {
        cursor.seek(first, EVERYTHING).map_err(|error| from.unreadable(error))?;
        next.extend(cursor.page().map_err(|error| from.unreadable(error))?.map(|page| Reverse((page, index))));
    }
    let mut writer = RunWriter::new(to, start);
    while let Some(Reverse((page, index))) = next.pop() {
        let Some(cursor) = cursors.get_mut(index) else { continue };
        // All of the page that this run has; those of the next run follow.
        let behind = loop {
            if let Some(kept) = cursor.take().map_err(|error| from.unreadable(error))? {
                writer.push(page, |out| kept.encode(out))?;
            }
            match cursor.page().map_err(|error| from.unreadable(error))? {
                Some(same) if same == page => {}
                other => break other,
            }
        };
        next.extend(behind.map(|page| Reverse((page, index))));
    }
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_enciphered_comes_back_in_any_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..10_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        for enciphered in [true, false] {
            let file = SpillFile::create(dir.path(), enciphered).unwrap();
            let mut written = 0;
            for piece in content.chunks(777) {
                file.write_at(&mut piece.to_vec(), written).unwrap();
                written += u64::try_from(piece.len()).unwrap();
            }
            for (at, len) in [(0, 10_000), (5, 3), (16, 16), (4999, 5001), (31, 1000)] {
                let mut bytes = vec![0; len];
                file.read_at(&mut bytes, u64::try_from(at).unwrap()).unwrap();
                assert_eq!(bytes, content[at..at + len], "{at}, {len}");
            }
            let mut raw = vec![0; 10_000];
            file.file.read_exact_at(&mut raw, 0).unwrap();
            assert_eq!(raw == content, !enciphered);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing has a name");
    }
}
